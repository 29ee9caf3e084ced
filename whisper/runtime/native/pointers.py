"""Checks every array whose address is passed to a compiled kernel: dtype, device, size, no gaps.

A kernel cannot check a pointer. With memory of another dtype, device or size it would read and write out
of bounds, which crashes the process or, worse, changes a text. So all addresses are taken here.
"""

from __future__ import annotations

import ctypes
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ...device.lazy_torch import Tensor, torch
from ...errors import ShapeError

_Byte: TypeAlias = ctypes.c_char


_OF_TORCH: dict[object, torch.dtype] = {}


def _of_torch(dtype: torch.dtype | type[np.generic]) -> torch.dtype:
    """Return the type of a tensor's elements that are those of an array of type `dtype`."""
    if not isinstance(dtype, type):
        return dtype
    if dtype not in _OF_TORCH:
        _OF_TORCH[dtype] = getattr(torch, np.dtype(dtype).name)
    return _OF_TORCH[dtype]


def address(array: Tensor | npt.NDArray[Any], dtype: torch.dtype | type[np.generic], size: int, what: str) -> int:
    """Return where an array begins.

    Parameters
    ----------
    array
        In the memory of the CPU, without gaps.
    dtype, size
        The type of its elements, in the words of torch or of NumPy, and how many the kernel will touch.
    what
        Its name, for the message.

    Raises
    ------
    ShapeError
        It is another array than the kernel takes.
    """
    # takes at most 1 microsecond: each step needs twenty addresses
    if isinstance(array, np.ndarray):
        if array.dtype == dtype and array.size == size and array.flags.c_contiguous:
            if size and array.flags.writeable:
                byte = _Byte.from_buffer(array)  # type: ignore[arg-type]  # a third of the time of `array.ctypes`
                return ctypes.addressof(byte)
            return array.ctypes.data
        found, is_whole = str(array.dtype), array.flags.c_contiguous
    elif isinstance(array, Tensor):
        if array.dtype is _of_torch(dtype) and array.is_cpu and array.numel() == size and array.is_contiguous():
            return array.data_ptr()
        found = f"{array.dtype} on {array.device}"
        is_whole = array.layout == torch.strided and array.is_contiguous()
    else:
        raise ShapeError(f"{what} must be a tensor or an array for the compiled kernels, not {type(array).__name__}")
    wanted = np.dtype(dtype) if isinstance(dtype, type) else dtype
    gaps = "" if is_whole else ", with gaps"
    raise ShapeError(
        f"{what}: the compiled kernels take {size} numbers of {wanted} without gaps in the CPU's memory, and this is "
        f"{tuple(array.shape)} of {found}{gaps}; convert it, as with .to('cpu', torch.float32).contiguous()"
    )
