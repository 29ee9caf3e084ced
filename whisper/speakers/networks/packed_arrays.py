"""A network in integers as the compiled kernels have it: its object, and its arrays, each packed for its product."""

from __future__ import annotations

import ctypes
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from torch import Tensor

COLUMNS, TOP = 32, 255.0
LARGEST_SUM, LARGEST_WORD = 60_000, 32_767  # of the magnitudes of a column of 16 bits: sums of products stay below 2^31

Array: TypeAlias = npt.NDArray[np.float64]


class PackedArrays:
    """Collects arrays in the order in which a network of the kernels takes them, and keeps them alive."""

    def __init__(self) -> None:
        self._arrays: list[npt.NDArray[Any]] = []

    def pointers(self) -> ctypes.Array[ctypes.c_void_p]:
        """Return where each array begins."""
        return (ctypes.c_void_p * len(self._arrays))(*(array.ctypes.data for array in self._arrays))

    def layer(
        self, matrix: Array, bias: Array, scale: Array | float = 1.0, shift: Array | float = 0.0,
        zero: Array | float = 0.0,
    ) -> None:  # fmt: skip
        """Pack a layer of bytes less `zero`, ``(n, k)``; its numbers times `scale` plus `shift` are the result."""
        n, k = matrix.shape
        own = np.maximum(np.abs(matrix).max(1), 1e-30) / 127
        whole = np.rint(matrix / own[:, None])
        bias = bias - own * (whole @ np.broadcast_to(zero, k))
        packed = whole.astype(np.int8).reshape(n // COLUMNS, COLUMNS, k // 4, 4).transpose(0, 2, 1, 3)
        self._arrays.append(np.ascontiguousarray(packed))
        self.floats(own * scale)
        self.floats(bias * scale + shift)

    def words(self, matrix: Array) -> None:
        """Pack a layer of 16-bit numbers, ``(n, k)``, and what one of a column's stands for."""
        n, k = matrix.shape
        size = np.abs(matrix)
        own = np.maximum(np.maximum(size.sum(1) / LARGEST_SUM, size.max(1) / LARGEST_WORD), 1e-30)
        whole = np.rint(matrix / own[:, None]).astype(np.int16)
        self._arrays.append(np.ascontiguousarray(whole.reshape(n, k // 2, 2).transpose(1, 0, 2)))
        self.floats(own)

    def floats(self, numbers: Array, transposed: bool = False) -> None:
        """Add an array in float32."""
        self._arrays.append(np.ascontiguousarray(numbers.T if transposed else numbers, np.float32))

    def bytes(self, numbers: Array) -> None:
        """Add an array of bytes without sign."""
        self._arrays.append(np.ascontiguousarray(numbers).astype(np.uint8))


class PackedNetwork:
    """A network of the kernels, which holds no memory but its object: the arrays are kept here.

    Parameters
    ----------
    library
        The kernels.
    name
        Of the network, in the names of their functions.
    """

    def __init__(self, library: ctypes.CDLL, name: str) -> None:
        self._library, self._name = library, name
        self._arrays = PackedArrays()
        self._network: int | None = None

    def _make(self) -> None:
        """Make the object, when all arrays are packed."""
        self._network = getattr(self._library, f"sotto_{self._name}_new")(self._arrays.pointers())

    @property
    def is_there(self) -> bool:
        """Whether the kernels of this processor compute it."""
        return bool(self._network)

    def __del__(self) -> None:
        if getattr(self, "_network", None):
            getattr(self._library, f"sotto_{self._name}_free")(self._network)


def array_of(numbers: Tensor) -> Array:
    """Return a tensor as an array, in which packing calculates."""
    return numbers.numpy().astype(np.float64)
