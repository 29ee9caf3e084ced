"""Sets aside torch's state of a thread (grad mode, inference mode, autocast, device context) while we compute.

The engine runs requests in any thread that waits, so the torch state of that thread must not change
the result, nor what is kept between calls: a tensor made in inference mode can never be trained, and
cannot be written outside of it. Settings of other threads and of the whole process stay as they are:
to be independent of those (default dtype, ...), every tensor states its dtype and device.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from .lazy_torch import is_here, torch

_AUTOCAST = ("cpu", "cuda", "mps")  # devices that a model runs on


@contextmanager
def clean_state() -> Iterator[None]:
    """Compute without gradients, outside of inference mode, autocast and device contexts; also as a decorator.

    Not around a ``yield`` of a generator: the caller would then run in this state.
    """
    if not is_here():
        yield
        return
    autocast = [kind for kind in _AUTOCAST if torch.is_autocast_enabled(kind)]
    intercepted = torch._C._len_torch_function_stack() > 0  # torch's functions, as by a device context
    if not autocast and not torch.is_inference_mode_enabled() and not intercepted:
        with torch.no_grad():  # the usual case: takes 1 microsecond, and the code below 10
            yield
        return
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))  # turns gradients on, so it comes first
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.device("cpu"))  # code for another device states it
        for kind in autocast:
            stack.enter_context(torch.autocast(kind, enabled=False))
        yield
