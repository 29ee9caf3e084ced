"""The runner in PyTorch, on any device; `interface.Runner` documents its methods.

A batch runs through the layers together; only the attention depends on which item belongs to which row and which
window. On a CPU a row's result in bfloat16 and int8 does not depend on the other rows: every product of several
rows gives each the sums that it gets alone, and rows share an attention only with rows whose own text rounds up to
the same length. On CUDA short texts go through `fixed_shapes`, for CUDA graphs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...device.torch_state import clean_state
from ...model import ModelDimensions
from ..interface import Batch, EncodedWindow, Ints, TokenMask, check_features, check_heads, n_own_positions
from .caches import CrossAttentionCache, CrossKV, CrossKVInSlot, RowCache, WindowSlots
from .cuda_graphs import Capture, CudaCapture, enabled
from .fixed_shapes import StaticStep
from .layers import PADDING_SCORE, Block, Decoder, Encoder, Precision
from .token_selection import apply_rules, best_tokens

LENGTHS = 64  # single items attend to a multiple of so many positions
WINDOWS_AT_ONCE = 16  # that a GPU encodes together
SHORT = 8  # items of one text that go through a step of fixed shapes, each by itself

Index = slice | Tensor  # of items


# ---------------------------------------------------------------------------------------------------------
# The attention of a batch
# ---------------------------------------------------------------------------------------------------------


@dataclass
class AttentionGroup:
    """Items that attend to texts of equal length together: single ones of several rows, or several of one row."""

    items: Index
    n_rows: int
    first_row: int | None  # of neighbouring physical rows that hold these texts alone; else None, and `places`
    places: Tensor | None  # (n_rows * n_head * length) vectors of the cache
    length: int
    mask: Tensor  # (n_rows, 1, n_items of each row, length): 0 or -inf

    def take(self, cache: Tensor) -> Tensor:
        """Return keys (or values) ``(n_rows * n_head, length, width)`` from ``(n_physical, n_head, n_ctx, width)``."""
        if self.places is None:
            assert self.first_row is not None
            return cache[self.first_row : self.first_row + self.n_rows].flatten(0, 1)[:, : self.length]
        return cache.view(-1, cache.shape[-1]).index_select(0, self.places).view(-1, self.length, cache.shape[-1])


@dataclass
class AttentionPlan:
    """One batch, as the attention sees it."""

    tokens: Tensor
    positions: Tensor
    writes: Tensor  # (n_items * n_head) vectors of the cache
    groups: list[AttentionGroup]
    cross_groups: list[tuple[Index, CrossAttentionCache]]  # the items of each window
    logit_indices: Tensor


class AttentionRecord:
    """The cross-attention scores of some heads, before the softmax."""

    def __init__(self, heads: Sequence[tuple[int, int]]) -> None:
        self._heads = heads  # layer and head
        self.scores: dict[tuple[int, int], Tensor] = {}  # (n_items, n_positions) each

    def add(self, layer: int, scores: Tensor) -> None:
        """Keep what is asked for of a layer's scores, ``(n_head, n_items, n_positions)``."""
        self.scores.update({(at, head): scores[head].float() for at, head in self._heads if at == layer})


def as_index(numbers: Sequence[int], device: torch.device) -> Index:
    """Return a slice where ascending numbers are neighbours."""
    if numbers[-1] - numbers[0] == len(numbers) - 1:
        return slice(numbers[0], numbers[-1] + 1)
    return torch.tensor(numbers, dtype=torch.long, device=device)


def plan_attention(cache: RowCache, batch: Batch, device: torch.device) -> AttentionPlan:
    """Sort the items of a batch by rows, by lengths and by windows."""
    by_row: dict[int, list[int]] = {}
    by_window: dict[int, list[int]] = {}
    for i, (row, window) in enumerate(zip(batch.rows, batch.windows, strict=True)):
        by_row.setdefault(row, []).append(i)
        by_window.setdefault(id(window), []).append(i)
    singles: dict[int, list[int]] = {}
    groups = []
    for items in by_row.values():
        if len(items) == 1:
            singles.setdefault(batch.positions[items[0]] // LENGTHS, []).append(items[0])
        else:
            rows, length = [batch.rows[items[0]]], batch.positions[items[-1]] + 1
            groups.append(_attention_group(cache, batch, items, rows, length, device))
    for bucket, items in singles.items():
        rows, length = [batch.rows[i] for i in items], min((bucket + 1) * LENGTHS, cache.n_ctx)
        groups.append(_attention_group(cache, batch, items, rows, length, device))
    writes = cache.places(np.array(batch.rows)[:, None], np.array(batch.positions)[:, None])
    return AttentionPlan(
        torch.tensor(batch.tokens, dtype=torch.long, device=device),
        torch.tensor(batch.positions, dtype=torch.long, device=device),
        torch.from_numpy(writes.ravel()).to(device),
        groups,
        [(as_index(items, device), batch.windows[items[0]].cross_kv) for items in by_window.values()],
        torch.tensor(batch.logit_indices, dtype=torch.long, device=device),
    )


def _attention_group(
    cache: RowCache,
    batch: Batch,
    items: Sequence[int],
    rows: Sequence[int],
    length: int,
    device: torch.device,
) -> AttentionGroup:
    """The self-attention of `items`, all of one row or one of each of `rows`, to `length` positions."""
    steps = np.arange(length)
    own = np.array([batch.positions[i] for i in items]).reshape(len(rows), -1, 1)  # (n_rows, n_items of each, 1)
    mask = np.where(steps <= own, np.float32(0), np.float32(-np.inf))[:, None]
    physical = cache.table.table[list(rows), :length]  # (n_rows, length)
    is_own = physical == np.array(rows)[:, None]
    first_row, places = None, None
    adjacent = rows[-1] - rows[0] == len(rows) - 1 and list(rows) == sorted(rows)
    if adjacent and (is_own | (steps > own[:, -1])).all():
        first_row = rows[0]
    else:
        places = torch.from_numpy(cache.places(physical, steps).ravel()).to(device)
    return AttentionGroup(
        as_index(items, device), len(rows), first_row, places, length, torch.from_numpy(mask).to(device)
    )


# ---------------------------------------------------------------------------------------------------------
# The runner
# ---------------------------------------------------------------------------------------------------------


class TorchRunner:
    """See `Runner`.

    Parameters
    ----------
    dims
        Of the network.
    tensors
        Weights under the names of `Whisper.state_dict`, in any floating-point precision. Those of float32 on
        `device` are shared with a runner of float32; all others are packed and not kept.
    compute_type
        "float32", "bfloat16", "float16" or "int8".
    device
        Where to compute.
    graphs
        Whether short steps are CUDA graphs; None asks the environment, see `cuda_graphs`.
    capture
        For tests: how to capture them, on any device.
    """

    def __init__(
        self,
        dims: ModelDimensions,
        tensors: Mapping[str, Tensor],
        compute_type: str,
        device: torch.device | str = "cpu",
        *,
        graphs: bool | None = None,
        capture: Capture | None = None,
    ) -> None:
        self.dims, self.compute_type, self.device = dims, compute_type, torch.device(device)
        self.precision = precision = Precision(compute_type, self.device)
        with clean_state():
            self._encoder = Encoder(dims, tensors, precision)
            self._decoder = Decoder(dims, tensors, precision)
            self._cache = RowCache(dims, precision)
            self._static: StaticStep | None = None
            if capture is not None or self.device.type == "cuda":
                if capture is None and enabled(self.device, graphs):
                    capture = CudaCapture()
                slots = WindowSlots(dims, precision)
                self._static = StaticStep(dims, self._decoder, self._cache, slots, capture)
        self._width = dims.n_text_state // dims.n_text_head
        self._q_scale = self._width**-0.5
        self.row_bytes = self._cache.row_bytes
        self.window_bytes = (
            dims.n_text_layer * 2 * dims.n_audio_ctx * dims.n_text_state * self._cache.pool.element_size()
        )

    def twin(self) -> TorchRunner:
        """See `Runner.twin`; not for CUDA, which no other process can use."""
        twin = copy(self)
        twin._cache = RowCache(self.dims, self.precision)
        return twin

    # -- encoder -----------------------------------------------------------------------------------------

    @clean_state()
    def encode(self, mels: Sequence[Tensor]) -> list[Tensor]:
        """See `Runner.encode`; on a GPU windows of the same length are encoded together."""
        by_length: dict[int, list[int]] = {}
        for i, mel in enumerate(mels):
            by_length.setdefault(n_own_positions(mel, self.dims), []).append(i)
        n = 1 if self.device.type == "cpu" else WINDOWS_AT_ONCE
        features: dict[int, Tensor] = {}
        for same in by_length.values():
            for begin in range(0, len(same), n):
                group = same[begin : begin + n]
                encoded = self._encoder(torch.stack([mels[i].to(self.device) for i in group])).float()
                features.update(zip(group, encoded, strict=True))
        return [features[i] for i in range(len(mels))]

    @clean_state()
    def project(self, features: Tensor) -> EncodedWindow:
        """See `Runner.project`."""
        n_own = check_features(features, self.dims)
        features = features.to(self.device)
        x = features.to(self.precision.activations)
        cross_kv: CrossKV | CrossKVInSlot
        cross_kv = CrossKV(self.dims.n_text_head) if self._static is None else self._static.slots.take()
        cross_kv.n_own = n_own
        for block in self._decoder.blocks:
            cross_kv.add(*block.cross_kv.linear(x))
        return EncodedWindow(features.float(), cross_kv)

    # -- KV cache ----------------------------------------------------------------------------------------

    @clean_state()
    def take_rows(self, n: int) -> list[int]:
        """See `Runner.take_rows`."""
        return self._cache.take(n)

    @clean_state()
    def free_rows(self, rows: Sequence[int]) -> None:
        """See `Runner.free_rows`."""
        self._cache.free(rows)

    def reorder(self, rows: Sequence[int], sources: Sequence[int]) -> None:
        """See `Runner.reorder`."""
        self._cache.table.reorder(rows, sources)

    # -- decoder -----------------------------------------------------------------------------------------

    @clean_state()
    def forward(self, batch: Batch) -> Tensor:
        """See `Runner.forward`."""
        return self._run(batch)

    def select_tokens(self, logits: Tensor, rules: TokenMask, n_best: int) -> tuple[Ints, npt.NDArray[np.float32]]:
        """See `Runner.select_tokens`."""
        apply_rules(logits, rules)
        return best_tokens(logits, n_best)

    @clean_state()
    def attention_scores(
        self,
        window: EncodedWindow,
        tokens: Sequence[int],
        heads: Sequence[tuple[int, int]],
        n_skipped: int,
        n_text: int,
    ) -> tuple[Tensor, Tensor]:
        """See `Runner.attention_scores`."""
        check_heads(self.dims, heads)
        record = AttentionRecord(heads)
        rows = self.take_rows(1)
        try:
            batch = Batch.of_row(tokens, rows[0], window, range(n_skipped, n_skipped + n_text))
            logits = self._run(batch, record)
        finally:
            self.free_rows(rows)
        return torch.stack([record.scores[layer, head] for layer, head in heads]), logits

    def _run(self, batch: Batch, record: AttentionRecord | None = None) -> Tensor:
        batch.validate(self.dims)
        self._cache.table.write(batch.rows, batch.positions)
        if self._static is None or record is not None:
            return self._run_ragged(batch, record)
        n_items = Counter(batch.rows)
        short = [i for i, row in enumerate(batch.rows) if n_items[row] <= SHORT]
        long = [i for i, row in enumerate(batch.rows) if n_items[row] > SHORT]
        shape = (len(batch.logit_indices), self.dims.n_vocab)
        logits = torch.empty(shape, dtype=torch.float32, device=self.device)
        for run, items in ((self._static, short), (self._run_ragged, long)):
            if items:
                among = set(items)
                own = [i for i, item in enumerate(batch.logit_indices) if item in among]
                logits[own] = run(batch.take(items))
        return logits

    def _run_ragged(self, batch: Batch, record: AttentionRecord | None = None) -> Tensor:
        plan = plan_attention(self._cache, batch, self.device)
        x = self._decoder.embed(plan.tokens, plan.positions)  # (n_items, n_state)
        for layer, block in enumerate(self._decoder.blocks):
            x = self._self_attention(block, layer, x, plan)
            x = self._cross_attention(block, layer, x, plan, record)
            x = block.mlp(x)
        every_item = list(batch.logit_indices) == list(range(len(batch)))
        return self._decoder.logits(x if every_item else x[plan.logit_indices])

    def _self_attention(self, block: Block, layer: int, x: Tensor, plan: AttentionPlan) -> Tensor:
        heads = (len(x), self.dims.n_text_head, self._width)
        q, k, v = block.qkv.linear(block.attn_ln(x))
        keys, values = self._cache.pool[layer]  # (n_physical, n_head, n_ctx, width) each
        keys.view(-1, self._width).index_copy_(0, plan.writes, k.reshape(-1, self._width))
        values.view(-1, self._width).index_copy_(0, plan.writes, v.reshape(-1, self._width))
        q = (q * self._q_scale).view(heads)
        mixed = torch.empty_like(q)
        for group in plan.groups:
            own = q[group.items].view(group.n_rows, -1, *heads[1:]).transpose(1, 2)  # (n_rows, n_head, n_each, width)
            scores = torch.bmm(own.flatten(0, 1), group.take(keys).transpose(1, 2))
            weights = scores.view(*own.shape[:3], -1).add_(group.mask).softmax(dim=-1)
            out = torch.bmm(weights.flatten(0, 1), group.take(values)).view(own.shape)
            mixed[group.items] = out.transpose(1, 2).flatten(0, 1)
        return x.add_(block.out.linear(mixed.flatten(1)))

    def _cross_attention(
        self, block: Block, layer: int, x: Tensor, plan: AttentionPlan, record: AttentionRecord | None
    ) -> Tensor:
        q = block.cross_query.linear(block.cross_ln(x)).mul_(self._q_scale)
        q = q.view(len(x), self.dims.n_text_head, self._width)
        mixed = torch.empty_like(q)
        for items, cross_kv in plan.cross_groups:
            scores = torch.bmm(q[items].transpose(0, 1), cross_kv.keys(layer))  # (n_head, n_items, n_positions)
            scores[..., cross_kv.n_own :] += PADDING_SCORE
            if record is not None:
                record.add(layer, scores)
            mixed[items] = torch.bmm(scores.softmax(dim=-1), cross_kv.values(layer)).transpose(0, 1)
        return x.add_(block.cross_out.linear(mixed.flatten(1)))
