"""The precisions that a model can run in: what a device can do, and what "auto" stands for there."""

from __future__ import annotations

from ..errors import OptionError
from .hardware import has_bfloat16, has_int8, machine
from .lazy_torch import torch

COMPUTE_TYPES = ("auto", "float32", "bfloat16", "float16", "int8")


def available_types(device: torch.device | str) -> list[str]:
    """Return the compute types that `device` has; the first one is what "auto" stands for.

    On a CPU all of them work everywhere; which is first depends on the instructions that the processor has.
    """
    kind = _kind(device)
    if kind == "cpu":
        used = machine() != "arm64"  # the kernels for ARM use its instructions for neither yet
        quick = {"int8": used and has_int8(), "bfloat16": used and has_bfloat16(), "float32": True}
        slow = [name for name in ("bfloat16", "int8") if not quick[name]]
        return [name for name, is_quick in quick.items() if is_quick] + slow
    if kind == "cuda":
        return ["float16", "bfloat16", "float32"] if torch.cuda.is_bf16_supported() else ["float16", "float32"]
    return ["float16", "float32"]  # the reference path runs, and takes its precision from `fp16`


def _kind(device: torch.device | str) -> str:
    if not isinstance(device, str):
        return device.type
    return device if device == "cpu" else torch.device(device).type


def resolve(compute_type: str, device: torch.device | str) -> str:
    """Return the precision that `compute_type` stands for on `device`.

    Raises
    ------
    OptionError
        Where there is no such precision, or the device cannot compute in it.
    """
    if compute_type not in COMPUTE_TYPES:
        raise OptionError(f"compute_type is {compute_type!r}; it can be {', '.join(COMPUTE_TYPES)}")
    available = available_types(device)
    if compute_type == "auto":
        return available[0]
    if compute_type not in available:
        raise OptionError(
            f"compute_type {compute_type!r} does not run on {_kind(device)}; "
            f"there it can be auto, {', '.join(available)}"
        )
    return compute_type
