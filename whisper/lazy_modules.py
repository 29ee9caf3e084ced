"""Submodules that are created on first access.

The fast path needs no modules, and a model with packed weights should not hold them in float32 as
well. So a loaded model starts without submodules: its ``_modules`` is a dictionary that knows their
names, and creates them all on the first access (``model.encoder``, ``parameters()``, ``state_dict()``,
``to("cuda")``, ``deepcopy``, a hook, ...). Torch reaches submodules only through that dictionary, so
no other code is needed; afterwards the model is an ordinary one. Knows neither Whisper nor files.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from .device import processes

Children = dict[str, nn.Module]


class DeferredModules(dict[str, Any]):
    """The ``_modules`` of a module whose children do not exist yet.

    Parameters
    ----------
    owner
        The module; `install` puts the dictionary into it.
    names
        Names of its children, in their order.
    make
        Creates them. If it raises, the next access tries again.
    device
        Where they will be.
    source
        What they are created from, for callers that pack it instead; see `packed`.
    """

    def __init__(
        self,
        owner: nn.Module,
        names: tuple[str, ...],
        make: Callable[[], Children],
        device: torch.device,
        source: object,
    ) -> None:
        super().__init__()
        self._owner = weakref.ref(owner)  # no reference cycle: a model without references is freed at once
        self._names = names
        self._make: Callable[[], Children] | None = make
        self._mark: Callable[[Children], Any] | None = None
        self._made: Children = {}
        self._lock = processes.rlock()
        self.mark: Any = None
        self.device = device
        self.source: object | None = source

    def install(self) -> None:
        """Become the owner's ``_modules``."""
        owner = self._owner()
        assert owner is not None
        owner.__dict__["_modules"] = self

    def packed(self, mark: Callable[[Children], Any]) -> object | None:
        """Return the source, for a caller that packs it; None if the children exist.

        When they are created, ``mark(children)`` is stored in the attribute `mark`: it is computed before any code
        can change them, so it identifies the weights that were packed.
        """
        with self._lock:
            if self.source is not None:
                self._mark = mark
            return self.source

    def made(self) -> Children:
        """Return the children; creates them and puts them into the owner on the first call."""
        with self._lock:
            if self._make is not None:
                made = self._make()
                if self._mark is not None:
                    self.mark = self._mark(made)
                owner = self._owner()
                for module in made.values():
                    module.train(owner is None or owner.training)
                self._made, self._make, self._mark, self.source = made, None, None, None
                if owner is not None and owner.__dict__.get("_modules") is self:
                    owner.__dict__["_modules"] = made
            return self._made

    # -- the interface of a dictionary; only tests of names do not create the children ---------------------

    def __contains__(self, name: object) -> bool:
        return name in (self._names if self._make is not None else self._made)

    def __len__(self) -> int:
        return len(self._names if self._make is not None else self._made)

    def __getitem__(self, name: str) -> Any:
        return self.made()[name]

    def __setitem__(self, name: str, module: Any) -> None:
        self.made()[name] = module

    def __delitem__(self, name: str) -> None:
        del self.made()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.made())

    def __reversed__(self) -> Iterator[str]:
        return reversed(self.made())

    def __eq__(self, other: object) -> bool:
        return self.made() == other

    def __ne__(self, other: object) -> bool:
        return self.made() != other

    __hash__ = None

    def __or__(self, other: Any) -> Any:
        return self.made() | other

    def __repr__(self) -> str:
        return repr(self.made())

    def __copy__(self) -> Children:
        return self.made().copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> Children:
        return copy.deepcopy(self.made(), memo)

    def __reduce_ex__(self, _protocol: Any) -> Any:
        return dict, (self.made(),)

    def copy(self) -> Children:
        return self.made().copy()

    def get(self, name: str, default: Any = None) -> Any:
        return self.made().get(name, default)

    def keys(self) -> Any:
        return self.made().keys()

    def values(self) -> Any:
        return self.made().values()

    def items(self) -> Any:
        return self.made().items()

    def pop(self, name: str, *default: Any) -> Any:
        return self.made().pop(name, *default)

    def popitem(self) -> Any:
        return self.made().popitem()

    def setdefault(self, name: str, default: Any = None) -> Any:
        return self.made().setdefault(name, default)

    def update(self, *others: Any, **named: Any) -> None:
        self.made().update(*others, **named)

    def clear(self) -> None:
        self.made().clear()


def deferred(module: nn.Module) -> DeferredModules | None:
    """Return the dictionary that will create the children of `module`; None if they exist."""
    modules = module.__dict__["_modules"]
    return modules if isinstance(modules, DeferredModules) and modules.source is not None else None
