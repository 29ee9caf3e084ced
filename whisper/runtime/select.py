"""Chooses the runner of a model: whether the fast path may be used, which one, and in which precision.

The fast path runs packed copies of the weights, so hooks and replaced parts of the modules would have
no effect. `usable` is False if there are any: hooks, subclasses, replaced functions, foreign layers,
`disable_sdpa`. A runner is made on first use, and kept as long as the model and its weights do not
change; any change of the weights is detected at the next call. While the modules of a loaded model have
not been accessed, the weights cannot have changed; afterwards every number is compared (`fingerprint`).
Runs nothing itself.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as module_of_torch

from .. import compat
from .. import model as network
from ..checkpoints.lazy_tensors import StoredTensors
from ..checkpoints.weights import Weights, anatomy, tensors_of
from ..device import processes
from ..device.precision import resolve as resolve
from ..lazy_modules import Children, DeferredModules, deferred
from ..model import ModelDimensions, Whisper
from .fingerprint import Fingerprint

if TYPE_CHECKING:
    from .interface import Runner

# ---------------------------------------------------------------------------------------------------------
# Is the model a plain one, without hooks?
# ---------------------------------------------------------------------------------------------------------

_GLOBAL_HOOKS: tuple[Mapping[Any, Any], ...] = (
    module_of_torch._global_forward_hooks,
    module_of_torch._global_forward_pre_hooks,
)


def usable(model: nn.Module) -> bool:
    """Whether `model` may run on a fast path: a plain `Whisper`, without hooks or replaced parts.

    Called once per transcription; takes a few tenths of a millisecond at most.
    """
    if type(model) is not Whisper or any(_GLOBAL_HOOKS) or network._sdpa_disabled.get():
        return False
    return not compat.replaced("model") and _held(model).is_plain(model)


def _has_hooks(attributes: Mapping[str, Any]) -> bool:
    return bool(attributes["_forward_hooks"] or attributes["_forward_pre_hooks"])


@dataclass
class _Part:
    """One module as it was at the last full check."""

    attributes: dict[str, Any]  # its own __dict__
    n_attributes: int
    children: list[int]  # ids; the tree keeps the objects alive as long as they match
    tensors: list[object]

    @classmethod
    def of(cls, module: nn.Module) -> _Part:
        own = vars(module)
        return cls(own, len(own), list(map(id, own["_modules"].values())), cls._tensors(own))

    @staticmethod
    def _tensors(own: Mapping[str, Any]) -> list[object]:
        tensors = [*own["_parameters"].values(), *own["_buffers"].values()]
        # with what ``.data`` can replace in the same parameter
        return [None if t is None else (id(t), t.dtype, t.shape, t.layout, t.device) for t in tensors]

    def is_as_before(self) -> bool:
        own = self.attributes
        return (
            len(own) == self.n_attributes
            and list(map(id, own["_modules"].values())) == self.children
            and self._tensors(own) == self.tensors
        )


def _replaces_a_method(module: nn.Module) -> bool:
    """Whether an attribute of the module itself hides a function of its class: ``model.encoder.forward = mine``."""
    return any(callable(getattr(type(module), name, None)) for name in vars(module))


@dataclass
class _Held:
    """What is known of one model, and its runners."""

    source: DeferredModules | None = None  # what was packed before there were modules
    parts: list[_Part] = field(default_factory=list)
    plain: bool = False
    device: torch.device | None = None
    fingerprint: Fingerprint | None = None
    runners: dict[str, Runner] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=processes.rlock)
    pid: int = field(default_factory=os.getpid)  # of the process whose threads change the rest

    def is_plain(self, model: Whisper) -> bool:
        """Whether every module is one of ours, without hooks, with weights of matching shapes."""
        if deferred(model) is not None:  # the modules have not been accessed
            return not _has_hooks(vars(model)) and not _replaces_a_method(model)
        with processes.piece(), self.lock:
            self._notice_fork(model)
            as_before = model.device == self.device and all(part.is_as_before() for part in self.parts)
            if not self.parts or not as_before:
                self._check_modules(model)
            return self.plain and not any(_has_hooks(part.attributes) for part in self.parts)

    def _check_modules(self, model: Whisper) -> None:
        """Check every module in full; does not compare weights with those that were packed."""
        modules = list(model.modules())
        self.parts = [_Part.of(module) for module in modules]
        device = _common_device(model)
        self.plain = (
            anatomy(model) == anatomy(model.dims)
            and not any(_replaces_a_method(module) for module in modules)
            and device is not None
            and device.type in ("cpu", "cuda")
        )
        self.device = device

    def runner(self, model: Whisper, compute_type: str) -> Runner:
        with processes.piece(), self.lock:
            self._notice_fork(model)
            tensors = self._tensors(model)
            if compute_type not in self.runners:
                self.runners[compute_type] = make_runner(model.dims, tensors, compute_type, model.device)
            return self.runners[compute_type]

    def _notice_fork(self, model: Whisper) -> None:
        """Start from a fresh state in a forked child, on the packed weights of the parent.

        Threads of the parent may have been changing everything else at the fork.
        """
        processes.check_device(model.device)
        if self.pid != (here := os.getpid()):
            self.runners = {compute_type: runner.twin() for compute_type, runner in self.runners.items()}
            self.parts, self.pid = [], here

    def _tensors(self, model: Whisper) -> Mapping[str, Tensor]:
        """Return the weights as they are now, after forgetting what was packed from others."""
        modules = deferred(model)
        weights = modules.packed(_mark) if modules is not None else None
        if isinstance(weights, Weights):  # else another thread has just created the modules
            self.source = modules
            return weights.tensors if isinstance(weights.tensors, StoredTensors) else dict(weights.tensors)
        if self.source is not None:  # the modules were created since, from the weights that were packed
            self.fingerprint, self.source = self.source.mark, None
        if self.fingerprint is None or not self.fingerprint.is_that_of(tensors_of(model)):
            self.runners.clear()
            self._check_modules(model)
            self.fingerprint = Fingerprint(tensors_of(model))  # before they are packed
        return {name: tensor.detach() for name, tensor in model.state_dict(keep_vars=True).items()}


def _mark(modules: Children) -> Fingerprint:
    return Fingerprint(tensors_of(*modules.values()))


_all_held: weakref.WeakKeyDictionary[Whisper, _Held] = weakref.WeakKeyDictionary()
_all_held_lock = processes.lock()


def _held(model: Whisper) -> _Held:
    with _all_held_lock:
        held = _all_held.get(model)
        if held is None:
            held = _all_held[model] = _Held()
        return held


def _common_device(model: Whisper) -> torch.device | None:
    """Return where all weights are, as plain floating-point numbers; None where one is elsewhere or otherwise."""
    tensors = tensors_of(model)
    devices = {tensor.device for tensor in tensors}
    plain = all(
        type(tensor) in (Tensor, nn.Parameter) and tensor.is_floating_point() and tensor.layout == torch.strided
        for tensor in tensors
    )
    return devices.pop() if plain and len(devices) == 1 else None


# ---------------------------------------------------------------------------------------------------------
# Runners
# ---------------------------------------------------------------------------------------------------------


def runner_for(model: Whisper, fp16: bool) -> Runner:
    """Return the runner of `model`, which is `usable`: exact without `fp16`, otherwise in ``model.compute_type``.

    Made at the first call for a precision, which packs all weights, and kept with the model. If weights have
    changed since, all packed weights are dropped; a runner that is still held elsewhere keeps the old ones.

    Raises
    ------
    OptionError
        Where the device of the model cannot compute in ``model.compute_type``.
    """
    held = _held(model)
    compute_type = resolve(model.compute_type, model.device) if fp16 else "float32"
    return held.runner(model, compute_type)


def refresh(model: Whisper) -> None:
    """Forget what was packed from the weights of `model`; see `Whisper.refresh`."""
    with _all_held_lock:
        _all_held.pop(model, None)


def make_runner(
    dims: ModelDimensions, tensors: Mapping[str, Tensor], compute_type: str, device: torch.device
) -> Runner:
    """Pack weights for `device`: with the compiled kernels where they are there and fit, otherwise PyTorch alone."""
    make: Callable[..., Runner]
    if device.type == "cpu":
        from .native import kernels
        from .native import runner as native_runner

        if native_runner.supports(dims, compute_type) and kernels.load() is not None:
            make = native_runner.NativeRunner
            return make(dims, tensors, compute_type, device)
    from .pytorch import runner as torch_runner

    make = torch_runner.TorchRunner
    return make(dims, tensors, compute_type, device)
