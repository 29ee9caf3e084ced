"""The KV caches: rows of text in one tensor, and each window's cross-attention alone or in a slot of one tensor.

They grow by doubling, and shrink again when no row or slot is in use. They decide nothing.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...model import ModelDimensions
from ..interface import RowTable
from .layers import Precision

SMALL = 8  # rows or slots that are kept for the next


class RowCache:
    """Keys and values of all rows in one tensor, which doubles when there are too few rows."""

    def __init__(self, dims: ModelDimensions, precision: Precision) -> None:
        self.n_head, self.n_ctx = dims.n_text_head, dims.n_text_ctx
        self.width = dims.n_text_state // dims.n_text_head
        self._precision = precision
        self._shape = (dims.n_text_layer, 2, 0, self.n_head, self.n_ctx, self.width)
        self.pool = self._make(0)  # (n_layer, 2, n_rows, n_head, n_ctx, width): keys, then values
        self.table = RowTable(dims.n_text_ctx)

    def _make(self, n_rows: int) -> Tensor:
        # zeros: 0 times what was never written must be 0
        shape = (*self._shape[:2], n_rows, *self._shape[3:])
        return torch.zeros(shape, dtype=self._precision.activations, device=self._precision.device)

    @property
    def row_bytes(self) -> int:
        n_layer, kinds, _, n_head, n_ctx, width = self._shape
        return n_layer * kinds * n_head * n_ctx * width * self.pool.element_size()

    def take(self, n: int) -> list[int]:
        """See `Runner.take_rows`; there is always one row more, the padding row."""
        rows = self.table.take(n)
        if (n_rows := self.table.n_rows + 1) > self.pool.shape[2]:
            old = self.pool
            self.pool = self._make(max(n_rows, 2 * old.shape[2]))
            self.pool[:, :, : old.shape[2]] = old
        if self._precision.activations == torch.float16:
            self.pool[:, :, rows] = 0  # float16 overflows: nothing of that may outlive its text
        return rows

    def free(self, rows: Sequence[int]) -> None:
        """See `Runner.free_rows`; the memory goes with the last row."""
        self.table.free(rows)
        if self.table.n_taken == 0:
            self.table = RowTable(self.n_ctx)
            if self.pool.shape[2] > SMALL:
                self.pool = self._make(0)

    @property
    def padding_row(self) -> int:
        """The physical row that padding items read and write."""
        return self.pool.shape[2] - 1

    def places(self, rows: npt.NDArray[Any], positions: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
        """Index the vectors of physical `rows` at `positions`, ``(n, length)``; return ``(n, n_head, length)``."""
        heads = np.arange(self.n_head)[:, None]
        flat: npt.NDArray[np.intp] = (rows[:, None] * self.n_head + heads) * self.n_ctx + positions[..., None, :]
        return flat


class CrossAttentionCache(Protocol):
    """Keys and values of one window for the cross-attention."""

    n_own: int  # positions before those of the padding

    def keys(self, layer: int) -> Tensor:
        """Return ``(n_head, width, n_positions)``."""
        ...

    def values(self, layer: int) -> Tensor:
        """Return ``(n_head, n_positions, width)``."""
        ...


class CrossKV:
    """Keys and values in tensors of their own, the keys turned as the product reads them."""

    def __init__(self, n_head: int) -> None:
        self.n_head, self.n_own = n_head, 0
        self._layers: list[tuple[Tensor, Tensor]] = []

    def add(self, k: Tensor, v: Tensor) -> None:
        """Add the next layer's, ``(n_positions, n_state)`` each."""
        k, v = (t.reshape(len(t), self.n_head, -1) for t in (k, v))
        self._layers.append((k.permute(1, 2, 0).contiguous(), v.transpose(0, 1).contiguous()))

    def keys(self, layer: int) -> Tensor:
        """See `CrossAttentionCache`."""
        return self._layers[layer][0]

    def values(self, layer: int) -> Tensor:
        """See `CrossAttentionCache`."""
        return self._layers[layer][1]


class WindowSlots:
    """Keys and values of all windows in one tensor, ``(n_layer, 2, n_slots, n_head, n_audio_ctx, width)``."""

    def __init__(self, dims: ModelDimensions, precision: Precision) -> None:
        self._shape = (dims.n_text_head, dims.n_audio_ctx, dims.n_text_state // dims.n_text_head)
        self._n_layer, self._precision = dims.n_text_layer, precision
        self._free: list[int] = []
        self._returned: deque[int] = deque()  # by the garbage collector, at any time
        self.pool = self._make(0)

    def _make(self, n_slots: int) -> Tensor:
        shape = (self._n_layer, 2, n_slots, *self._shape)
        return torch.zeros(shape, dtype=self._precision.activations, device=self._precision.device)

    def take(self) -> CrossKVInSlot:
        """Return the lowest free slot; it is free again when what is returned is garbage-collected."""
        while self._returned:
            self._free.append(self._returned.popleft())
        n_slots = self.pool.shape[2]
        if len(self._free) == n_slots > SMALL:
            self._free, n_slots = [], 0
            self.pool = self._make(0)
        if not self._free:
            old = self.pool
            self.pool = self._make(max(1, 2 * n_slots))
            self.pool[:, :, :n_slots] = old
            self._free += range(n_slots, self.pool.shape[2])
        slot = min(self._free)
        self._free.remove(slot)
        cross_kv = CrossKVInSlot(self, slot)
        weakref.finalize(cross_kv, self._returned.append, slot).atexit = False
        return cross_kv


class CrossKVInSlot:
    """Keys and values in a slot, where a step of fixed shapes finds them."""

    def __init__(self, slots: WindowSlots, slot: int) -> None:
        self._slots, self.slot = slots, slot
        self._n_added = self.n_positions = self.n_own = 0

    def add(self, k: Tensor, v: Tensor) -> None:
        """Add the next layer's, ``(n_positions, n_state)`` each."""
        place = self._slots.pool[self._n_added, :, self.slot]  # (2, n_head, n_audio_ctx, width)
        for i, t in enumerate((k, v)):
            place[i, :, : len(t)] = t.reshape(len(t), place.shape[1], -1).transpose(0, 1)
        # what a longer window left there is masked, but 0 times infinity would be NaN
        place[:, :, len(k) :] = 0
        self._n_added, self.n_positions = self._n_added + 1, len(k)

    def keys(self, layer: int) -> Tensor:
        """See `CrossAttentionCache`."""
        return self._slots.pool[layer, 0, self.slot, :, : self.n_positions].transpose(1, 2)

    def values(self, layer: int) -> Tensor:
        """See `CrossAttentionCache`."""
        return self._slots.pool[layer, 1, self.slot, :, : self.n_positions]
