"""Fingerprints of weights, which detect any change since they were packed.

Torch counts in-place changes, but not those through ``.data``, a numpy view, DLPack or an address. So
every number is read again, at the speed of memory (290 MB of float32 in about 15 ms). Packs nothing,
and keeps no numbers.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .native import kernels
from .native.pointers import address

AT_ONCE = 1 << 17  # words that torch multiplies together: their products are 1 MB
SMALL = 1 << 14  # numbers: torch takes smaller tensors together


class Fingerprint:
    """The state of some tensors, for a later comparison.

    It is taken before the weights are packed, so that a change during packing is noticed. It holds no tensor, not even
    weakly (torch does not swap tensors with weak references). A runner that works on the tensors themselves keeps
    their memory alive, so that the address identifies them.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._forms = _forms(tensors)
        self._digests = digests(tensors)

    def is_that_of(self, tensors: Sequence[Tensor]) -> bool:
        """Whether `tensors` are the same ones, with unchanged values."""
        return self._forms == _forms(tensors) and self._digests == digests(tensors)


def _forms(tensors: Sequence[Tensor]) -> list[tuple[object, ...]]:
    return [(t.data_ptr(), t.dtype, t.shape, t.stride(), t.device) for t in tensors]


def digests(tensors: Sequence[Tensor]) -> list[int]:
    """Return numbers of 64 bits in which every bit of the tensors and its place count."""
    whole = [tensor.detach().contiguous() for tensor in tensors]
    library = kernels.load() if all(tensor.device.type == "cpu" for tensor in whole) else None
    return _by_torch(whole) if library is None else _by_kernels(library, whole)


def _by_kernels(library: ctypes.CDLL, tensors: Sequence[Tensor]) -> list[int]:
    addresses = np.array([address(tensor, tensor.dtype, tensor.numel(), "weights") for tensor in tensors], np.uintp)
    sizes = np.array([tensor.nbytes for tensor in tensors], np.uintp)
    found = np.empty(len(tensors), np.uint64)
    data, n_bytes, out = (
        ctypes.c_void_p(address(array, dtype, len(tensors), "digests"))
        for array, dtype in ((addresses, np.uintp), (sizes, np.uintp), (found, np.uint64))
    )
    if library.sotto_digests(data, n_bytes, len(tensors), out, torch.get_num_threads()):
        raise MemoryError("not enough memory to compare the weights; fewer windows side by side need less")
    return list(found.tolist())


def _by_torch(tensors: Sequence[Tensor]) -> list[int]:
    """Multilinear like the kernels: the sums of 32-bit words, each times a key of its place."""
    small = [tensor for tensor in tensors if tensor.numel() <= SMALL]
    together = [  # each call to a device takes its time
        torch.cat([tensor.flatten() for tensor in small if tensor.dtype == dtype])
        for dtype in dict.fromkeys(tensor.dtype for tensor in small)
    ]
    pieces = [*(tensor.flatten() for tensor in tensors if tensor.numel() > SMALL), *together]
    with torch.no_grad():
        sums = [
            torch.mul(words, _keys(words.device)[: len(words)]).sum(dtype=torch.int64)
            for piece in pieces
            for words in torch.split(_words(piece), AT_ONCE)
        ]
        return list(torch.stack(sums).tolist()) if sums else []


def _words(numbers: Tensor) -> Tensor:
    return numbers.view(_WORDS[min(numbers.element_size(), 4)])


_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32}


@functools.lru_cache(maxsize=4)
def _keys(device: torch.device) -> Tensor:
    """Return odd numbers of 32 bits."""
    numbers = np.random.Generator(np.random.PCG64(1)).integers(0, 1 << 32, AT_ONCE, np.int64) | 1
    return torch.from_numpy(numbers).to(device)
