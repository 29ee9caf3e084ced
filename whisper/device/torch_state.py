"""What torch holds for each thread (grad mode, inference mode, autocast, a device context), set aside while we compute.

An engine runs a request in whichever thread waits, so what that thread happens to be in must not reach the result; nor
what is kept from call to call: a tensor that was made in inference mode can never be trained, and elsewhere not be
written into. Changes nothing that holds for other threads or for the whole process: against those (the default dtype,
the precision of float32 products, ...) every tensor states what it is, where it is made.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_AUTOCAST = ("cpu", "cuda", "mps")  # devices that a model runs on


@contextmanager
def clean_state() -> Iterator[None]:
    """Compute without gradients, outside of inference mode, autocast and device contexts; also as a decorator.

    Not around a ``yield`` of a generator: whoever runs that would be left in it.
    """
    autocast = [kind for kind in _AUTOCAST if torch.is_autocast_enabled(kind)]
    if not autocast and not torch.is_inference_mode_enabled() and not _has_function_modes():
        with torch.no_grad():  # as nearly always: this takes a microsecond, and all that follows ten
            yield
        return
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))  # turns gradients on, so it comes first
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.device("cpu"))  # whoever wants another device says so
        for kind in autocast:
            stack.enter_context(torch.autocast(kind, enabled=False))
        yield


def _has_function_modes() -> bool:
    """Whether torch's functions are being intercepted, as a device context does it."""
    return torch._C._len_torch_function_stack() > 0


class InFloat32(TorchFunctionMode):
    """Inside of it modules are made in float32, whatever torch's default is, which stays as it is."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty:  # what the parameters of torch's modules are made with
            kwargs["dtype"] = kwargs.get("dtype") or torch.float32
        return func(*args, **kwargs)
