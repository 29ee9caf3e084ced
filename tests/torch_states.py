"""Every state of torch (and one of NumPy) that somebody may set around a call, each as a context that sets it back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

State = Callable[[], AbstractContextManager[Any]]


def _set(change: Callable[[Any], Any], value: Any, before: Any) -> State:
    @contextmanager
    def changed() -> Iterator[None]:
        change(value)
        try:
            yield
        finally:
            change(before)

    return changed


def _precision(owner: Any, value: str) -> State:
    return _set(lambda given: setattr(owner, "fp32_precision", given), value, owner.fp32_precision)


def _deterministic(on: bool) -> None:
    torch.use_deterministic_algorithms(on)  # with it, new memory is filled with NaN


# those that hold for the whole process: other threads change them in the middle of a call
OF_THE_PROCESS: dict[str, State] = {
    "float16": _set(torch.set_default_dtype, torch.float16, torch.float32),
    "bfloat16": _set(torch.set_default_dtype, torch.bfloat16, torch.float32),
    "float64": _set(torch.set_default_dtype, torch.float64, torch.float32),
    "deterministic": _set(_deterministic, True, False),
    "medium": _set(torch.set_float32_matmul_precision, "medium", "highest"),
    "no oneDNN": _set(torch._C._set_mkldnn_enabled, False, True),
    "math attention": lambda: sdpa_kernel(SDPBackend.MATH),
    "CUDA's attention": lambda: sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION),
    "swap tensors": _set(torch.__future__.set_swap_module_params_on_conversion, True, False),
}
if hasattr(torch.backends, "fp32_precision"):  # torch 2.9
    OF_THE_PROCESS["bfloat16 products"] = _precision(torch.backends, "bf16")
    OF_THE_PROCESS["bfloat16 convolutions"] = _precision(torch.backends.mkldnn.conv, "bf16")
OF_THE_THREAD: dict[str, State] = {
    "on meta": lambda: torch.device("meta"),
    "default on meta": _set(torch.set_default_device, "meta", None),
    "no gradients": torch.no_grad,
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "autocast float16": lambda: torch.autocast("cpu", torch.float16),
    "no denormal numbers": _set(torch.set_flush_denormal, True, False),
    "2 threads": _set(torch.set_num_threads, 2, 1),
    "NumPy raises": lambda: np.errstate(all="raise"),
}
STATES = {**OF_THE_PROCESS, **OF_THE_THREAD}


def snapshot() -> tuple[Any, ...]:
    """What holds in this thread."""
    return (
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_float32_matmul_precision(),
        torch.get_num_threads(),
        torch.backends.mkldnn.enabled,
        tuple(np.geterr().values()),
        torch.random.get_rng_state().tolist(),
    )
