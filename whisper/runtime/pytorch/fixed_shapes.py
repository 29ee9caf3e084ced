"""One decoder step with inputs padded to a few fixed shapes, so that it can be captured as a CUDA graph.

Items are padded to a bucket, all attend to a bucket of positions under a mask, and windows live in slots of one tensor,
so that the cross-attention reads them where they are; where one is shorter than 30 s, under a mask. Items are
independent: prompts and next tokens mix. A result may differ in its last bits with the bucket. `runner` decides which
batches come here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...model import ModelDimensions
from ..interface import Batch
from .caches import RowCache, WindowSlots
from .cuda_graphs import Capture, Graphed
from .layers import PADDING_SCORE, Block, Decoder

# buckets: few, because every combination is a graph of its own
ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256)  # more run without a graph
LENGTHS = (128, 256, 448)
ITEMS_OF_A_WINDOW = (1, 8, 32)
MAX_GRAPHS = 64


def bucket(n: int, buckets: Sequence[int]) -> int:
    """Return the smallest bucket that holds `n`; beyond the largest the power of two."""
    return next((b for b in buckets if b >= n), 1 << (n - 1).bit_length())


@dataclass
class Grid:
    """Where each item's query stands when the queries of each window are put beside its slot."""

    items: Tensor  # (n_slots, n_each): the item that stands there, or any
    places: Tensor  # (n_items,): where it stands, counted row by row


def grid(slots: Sequence[int], n_items: int, device: torch.device) -> Grid:
    """Put the items, which attend to `slots`, into a grid with buckets of slots and of items of each."""
    count: dict[int, int] = {}
    where = []
    for slot in slots:
        count[slot] = count.get(slot, 0) + 1
        where.append((slot, count[slot] - 1))
    n_slots, n_each = bucket(max(slots) + 1, ITEMS), bucket(max(count.values()), ITEMS_OF_A_WINDOW)
    items = np.zeros((n_slots, n_each), dtype=np.int64)
    places = np.zeros(n_items, dtype=np.int64)
    for i, (slot, nth) in enumerate(where):
        items[slot, nth] = i
        places[i] = slot * n_each + nth
    return Grid(torch.from_numpy(items).to(device), torch.from_numpy(places).to(device))


class StaticStep:
    """Runs items of any rows and windows as one step.

    Parameters
    ----------
    dims, decoder, cache, slots
        Of the runner, which shares them.
    capture
        How to make graphs; None runs everything as it comes.
    """

    def __init__(
        self, dims: ModelDimensions, decoder: Decoder, cache: RowCache, slots: WindowSlots, capture: Capture | None
    ) -> None:
        self.dims, self.decoder, self.cache, self.slots, self.capture = dims, decoder, cache, slots, capture
        self.width = dims.n_text_state // dims.n_text_head
        self.device = cache.pool.device
        self._graphs: dict[tuple[int, ...], Graphed] = {}
        self._of: tuple[int, int] = (0, 0)  # the memory that the graphs were captured with

    def __call__(self, batch: Batch) -> Tensor:
        """Return the logits that the batch asks for; the table of its rows has been written."""
        inputs = self._padded(batch)
        if self.capture is None or len(batch) > ITEMS[-1]:
            logits = self._step(**inputs)
        else:
            logits = self._graph(inputs, self.capture)(**inputs)
        return logits[torch.tensor(batch.logit_indices, dtype=torch.long, device=self.device)]

    def _graph(self, inputs: dict[str, Tensor], capture: Capture) -> Graphed:
        memory = (self.cache.pool.data_ptr(), self.slots.pool.data_ptr())
        if memory != self._of:  # a cache has moved
            self._graphs.clear()
            self._of = memory
        key = tuple(n for tensor in inputs.values() for n in tensor.shape)
        if key not in self._graphs:
            if len(self._graphs) >= MAX_GRAPHS:
                del self._graphs[next(iter(self._graphs))]
            self._graphs[key] = Graphed(self._step, inputs, capture)
        return self._graphs[key]

    def _padded(self, batch: Batch) -> dict[str, Tensor]:
        """Return the inputs of `_step`; items that pad read and write the cache's padding row."""
        n, n_items = len(batch), bucket(len(batch), ITEMS)
        length = min(bucket(max(batch.positions) + 1, LENGTHS), self.cache.n_ctx)
        table = np.full((n_items, length), self.cache.padding_row, dtype=np.int64)
        table[:n] = self.cache.table.table[list(batch.rows), :length]
        numbers = np.zeros((3, n_items), dtype=np.int64)
        numbers[2] = self.cache.padding_row
        numbers[:, :n] = batch.tokens, batch.positions, batch.rows
        windows = [window.cross_kv for window in batch.windows]
        own = grid([window.slot for window in windows], n_items, self.device)
        inputs = {
            "numbers": torch.from_numpy(numbers).to(self.device),
            "table": torch.from_numpy(table).to(self.device),
            "items": own.items,
            "places": own.places,
        }
        if any(window.n_own < self.dims.n_audio_ctx for window in windows):
            # full ones alone need no mask, with which the attention is slower
            lengths = np.full((2, len(own.items)), self.dims.n_audio_ctx, dtype=np.int64)
            lengths[:, [window.slot for window in windows]] = np.transpose([(w.n_own, w.n_positions) for w in windows])
            inputs["lengths"] = torch.from_numpy(lengths).to(self.device)
        return inputs

    # -- what a graph holds: nothing below may look at a value --------------------------------------------

    def _step(
        self, numbers: Tensor, table: Tensor, items: Tensor, places: Tensor, lengths: Tensor | None = None
    ) -> Tensor:
        """Return float32 logits ``(n_items, n_vocab)``.

        Parameters
        ----------
        numbers
            Token, position and row of each item, ``(3, n_items)``.
        table
            Physical row of each position, ``(n_items, length)``.
        items, places
            See `Grid`.
        lengths
            Positions of the window in each slot, ``(2, n_slots)``: its own, and all; None where all are full.
        """
        tokens, positions, rows = numbers
        n_head, n_ctx = self.dims.n_text_head, self.dims.n_text_ctx
        heads = torch.arange(n_head, dtype=torch.long, device=self.device)[:, None]  # (n_head, 1)
        steps = torch.arange(table.shape[1], dtype=torch.long, device=self.device)
        writes = ((rows[:, None, None] * n_head + heads) * n_ctx + positions[:, None, None]).flatten()
        reads = ((table[:, None] * n_head + heads) * n_ctx + steps).flatten()  # (n_items * n_head * length)
        mask = torch.zeros(len(tokens), 1, 1, len(steps), dtype=self.decoder.activations, device=self.device)
        mask.masked_fill_(steps > positions[:, None, None, None], -torch.inf)
        of_window = None
        if lengths is not None:
            steps_of_window = torch.arange(self.dims.n_audio_ctx, dtype=torch.long, device=self.device)
            n_own, n_positions = lengths[..., None, None, None]  # (n_slots, 1, 1, 1)
            of_window = torch.zeros(
                len(n_own), 1, 1, len(steps_of_window), dtype=self.decoder.activations, device=self.device
            )
            of_window.masked_fill_(steps_of_window >= n_own, PADDING_SCORE)
            of_window.masked_fill_(steps_of_window >= n_positions, -torch.inf)
        x = self.decoder.embed(tokens, positions)  # (n_items, n_state)
        for layer, block in enumerate(self.decoder.blocks):
            x = self._self_attention(block, layer, x, writes, reads, mask)
            x = self._cross_attention(block, layer, x, items, places, of_window)
            x = block.mlp(x)
        return self.decoder.logits(x)

    def _self_attention(
        self, block: Block, layer: int, x: Tensor, writes: Tensor, reads: Tensor, mask: Tensor
    ) -> Tensor:
        q, k, v = block.qkv.linear(block.attn_ln(x))
        keys, values = (cache.view(-1, self.width) for cache in self.cache.pool[layer])
        keys.index_copy_(0, writes, k.reshape(-1, self.width))
        values.index_copy_(0, writes, v.reshape(-1, self.width))
        shape = (len(x), self.dims.n_text_head, -1, self.width)
        k, v = (cache.index_select(0, reads).view(shape) for cache in (keys, values))
        mixed = F.scaled_dot_product_attention(q.reshape(shape), k, v, attn_mask=mask)
        return x.add_(block.out.linear(mixed.flatten(1)))

    def _cross_attention(
        self, block: Block, layer: int, x: Tensor, items: Tensor, places: Tensor, mask: Tensor | None
    ) -> Tensor:
        q = block.cross_query.linear(block.cross_ln(x)).view(len(x), self.dims.n_text_head, self.width)
        keys, values = self.slots.pool[layer, :, : len(items)]  # (n_slots, n_head, n_audio_ctx, width) each
        q = q[items].transpose(1, 2)  # (n_slots, n_head, n_each, width)
        mixed = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask).transpose(1, 2)
        return x.add_(block.cross_out.linear(mixed.flatten(0, 1)[places].flatten(1)))
