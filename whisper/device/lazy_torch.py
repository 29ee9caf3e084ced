"""Torch, imported when something of it is first used, and how many threads compute, with it or without.

`import torch` takes a second and 190 MB. The command transcribes without it where packed weights are on disk, so the
modules on its way import torch from here. A tensor can only be there once torch is, which makes `isinstance(x, Tensor)`
right before that, too.
"""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .hardware import physical_cores

if TYPE_CHECKING:
    import torch as torch
    from torch import Tensor as Tensor
    from torch import nn as nn
    from torch.nn import functional as functional
else:

    class _Late(ModuleType):
        """A module that is imported at the first use of anything in it."""

        def __getattr__(self, name: str) -> Any:
            module = sys.modules.get(self.__name__)
            if module is None or not hasattr(module, name):  # not there, or another thread is importing it
                module = importlib.import_module(self.__name__)
                _tell_threads()
            return getattr(module, name)

    class _OfTorch(type):
        """Asks torch's class, where there is torch."""

        def __instancecheck__(cls, instance: Any) -> bool:
            real = getattr(sys.modules.get("torch"), cls.__name__, None)
            return real is not None and isinstance(instance, real)

    class Tensor(metaclass=_OfTorch):
        """Stands for `torch.Tensor` in ``isinstance`` and in annotations."""

    torch, nn, functional = _Late("torch"), _Late("torch.nn"), _Late("torch.nn.functional")


def is_here() -> bool:
    """Whether torch has been imported, so that its state matters."""
    return "torch" in sys.modules


def as_tensor(numbers: Any) -> Tensor:
    """Return an array as a tensor in the same memory, and a tensor as it is."""
    return numbers if isinstance(numbers, Tensor) else torch.from_numpy(numbers)


def copied(numbers: Any) -> Any:
    """Return a copy of a tensor or an array."""
    return numbers.clone() if isinstance(numbers, Tensor) else numbers.copy()


# ---------------------------------------------------------------------------------------------------------
# Threads
# ---------------------------------------------------------------------------------------------------------

_chosen: int | None = None  # which torch is told when it comes


def n_threads() -> int:
    """Return how many threads compute: what torch is set to; before it is imported, what it will choose."""
    if is_here():
        _tell_threads()
        return torch.get_num_threads()
    if _chosen is not None:
        return _chosen
    wanted = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(wanted) if wanted.isascii() and wanted.isdigit() and int(wanted) else physical_cores()


def set_n_threads(n: int) -> None:
    """Set how many threads compute, for torch as well."""
    global _chosen
    _chosen = n
    if is_here():
        _tell_threads()


def _tell_threads() -> None:
    """Tell torch, which is here, how many threads were chosen before it came."""
    global _chosen
    if _chosen is not None:
        chosen, _chosen = _chosen, None
        torch.set_num_threads(chosen)
