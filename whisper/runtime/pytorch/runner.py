"""The fast path in PyTorch alone, on any device: see `runner.Runner` for what it does.

One flat batch runs through the layers together; only the attention looks at which item belongs to which row and
to which audio. On a CPU a row's result in bfloat16 and int8 does not depend on the other rows: every product of several
rows gives each the sums that it gets alone, and rows share an attention only with rows whose own text rounds up to
the same length. On CUDA short texts go through `torch_static`, whose shapes repeat.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...device.torch_state import clean_state
from ...errors import ShapeError
from ...model import ModelDimensions
from ..interface import Audio, Ints, Rules, check_batch, check_heads
from .caches import AudioSlots, Heard, HeardAlone, RowCache
from .cuda_graphs import Capture, CudaCapture, enabled
from .fixed_shapes import StaticStep
from .layers import Block, Decoder, Encoder, Precision
from .token_selection import apply_rules, best_tokens

LENGTHS = 64  # single items attend to a multiple of so many positions
WINDOWS_AT_ONCE = 16  # that a GPU encodes together
SHORT = 8  # items of one text that go through a step of fixed shapes, each by itself

Index = slice | Tensor  # of items


# ---------------------------------------------------------------------------------------------------------
# Who attends to what
# ---------------------------------------------------------------------------------------------------------


@dataclass
class Part:
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
class Plan:
    """One batch, as the attention sees it."""

    tokens: Tensor
    positions: Tensor
    writes: Tensor  # (n_items * n_head) vectors of the cache
    parts: list[Part]
    listeners: list[tuple[Index, Heard]]  # the items of each audio
    wanted: Tensor


@dataclass
class Watch:
    """Which heads to watch, as layer and head, and the scores seen."""

    heads: Sequence[tuple[int, int]]
    seen: dict[tuple[int, int], Tensor] = field(default_factory=dict)  # (n_items, n_audio_ctx) each


def as_index(numbers: Sequence[int], device: torch.device) -> Index:
    """Return a slice where ascending numbers are neighbours."""
    if numbers[-1] - numbers[0] == len(numbers) - 1:
        return slice(numbers[0], numbers[-1] + 1)
    return torch.tensor(numbers, dtype=torch.long, device=device)


def planned(
    cache: RowCache,
    tokens: Sequence[int],
    rows: Sequence[int],
    positions: Sequence[int],
    audios: Sequence[Audio],
    wanted: Sequence[int],
    device: torch.device,
) -> Plan:
    """Sort the items of a batch by rows, by lengths and by audios."""
    by_row: dict[int, list[int]] = {}
    by_audio: dict[int, list[int]] = {}
    for i, (row, audio) in enumerate(zip(rows, audios, strict=True)):
        by_row.setdefault(row, []).append(i)
        by_audio.setdefault(id(audio), []).append(i)
    singles: dict[int, list[int]] = {}
    parts = []
    for items in by_row.values():
        if len(items) == 1:
            singles.setdefault(positions[items[0]] // LENGTHS, []).append(items[0])
        else:
            parts.append(_part(cache, rows, positions, items, [rows[items[0]]], positions[items[-1]] + 1, device))
    for bucket, items in singles.items():
        length = min((bucket + 1) * LENGTHS, cache.n_ctx)
        parts.append(_part(cache, rows, positions, items, [rows[i] for i in items], length, device))
    writes = cache.places(np.array(rows)[:, None], np.array(positions)[:, None])
    return Plan(
        torch.tensor(tokens, dtype=torch.long, device=device),
        torch.tensor(positions, dtype=torch.long, device=device),
        torch.from_numpy(writes.ravel()).to(device),
        parts,
        [(as_index(items, device), audios[items[0]].keys_and_values) for items in by_audio.values()],
        torch.tensor(wanted, dtype=torch.long, device=device),
    )


def _part(
    cache: RowCache,
    rows: Sequence[int],
    positions: Sequence[int],
    items: Sequence[int],
    whose: Sequence[int],
    length: int,
    device: torch.device,
) -> Part:
    """Plan the attention of `items`, which are all of one row or one of each row of `whose`."""
    steps = np.arange(length)
    own = np.array([positions[i] for i in items]).reshape(len(whose), -1, 1)  # (n_rows, n_items of each, 1)
    mask = np.where(steps <= own, np.float32(0), np.float32(-np.inf))[:, None]
    physical = cache.table.table[list(whose), :length]  # (n_rows, length)
    is_own = physical == np.array(whose)[:, None]
    first_row, places = None, None
    neighbours = whose[-1] - whose[0] == len(whose) - 1 and list(whose) == sorted(whose)
    if neighbours and (is_own | (steps > own[:, -1])).all():
        first_row = whose[0]
    else:
        places = torch.from_numpy(cache.places(physical, steps).ravel()).to(device)
    return Part(as_index(items, device), len(whose), first_row, places, length, torch.from_numpy(mask).to(device))


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
                slots = AudioSlots(dims, precision)
                self._static = StaticStep(dims, self._decoder, self._cache, slots, capture)
        self._width = dims.n_text_state // dims.n_text_head
        self._q_scale = self._width**-0.5
        self.row_bytes = self._cache.row_bytes
        self.audio_bytes = (
            dims.n_text_layer * 2 * dims.n_audio_ctx * dims.n_text_state * self._cache.pool.element_size()
        )

    def twin(self) -> TorchRunner:
        """See `Runner.twin`; not for CUDA, which no other process can use."""
        twin = copy(self)
        twin._cache = RowCache(self.dims, self.precision)
        return twin

    # -- sound -------------------------------------------------------------------------------------------

    @clean_state()
    def encode(self, mels: Sequence[Tensor]) -> list[Tensor]:
        """See `Runner.encode`."""
        n = 1 if self.device.type == "cpu" else WINDOWS_AT_ONCE
        features: list[Tensor] = []
        for i in range(0, len(mels), n):
            features += self._encoder(torch.stack([mel.to(self.device) for mel in mels[i : i + n]])).float()
        return features

    @clean_state()
    def listen(self, features: Tensor) -> Audio:
        """See `Runner.listen`."""
        if tuple(features.shape) != (expected := (self.dims.n_audio_ctx, self.dims.n_audio_state)):
            raise ShapeError(f"audio features of this model have shape {expected}, not {tuple(features.shape)}")
        features = features.to(self.device)
        x = features.to(self.precision.activations)
        heard = HeardAlone(self.dims.n_text_head) if self._static is None else self._static.slots.take()
        for block in self._decoder.blocks:
            heard.add(*block.cross_kv.linear(x))
        return Audio(features.float(), heard)

    # -- rows --------------------------------------------------------------------------------------------

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

    # -- text --------------------------------------------------------------------------------------------

    @clean_state()
    def forward(
        self,
        tokens: Sequence[int],
        rows: Sequence[int],
        positions: Sequence[int],
        audios: Sequence[Audio],
        wanted: Sequence[int],
    ) -> Tensor:
        """See `Runner.forward`."""
        return self._run(tokens, rows, positions, audios, wanted)

    def choose(self, logits: Tensor, rules: Rules, n_best: int) -> tuple[Ints, npt.NDArray[np.float32]]:
        """See `Runner.choose`."""
        apply_rules(logits, rules)
        return best_tokens(logits, n_best)

    @clean_state()
    def attend(
        self, audio: Audio, tokens: Sequence[int], heads: Sequence[tuple[int, int]], n_skipped: int, n_text: int
    ) -> tuple[Tensor, Tensor]:
        """See `Runner.attend`."""
        check_heads(self.dims, heads)
        watch = Watch([(layer, head) for layer, head in heads])
        rows = self.take_rows(1)
        try:
            n = len(tokens)
            logits = self._run(tokens, rows * n, range(n), [audio] * n, range(n_skipped, n_skipped + n_text), watch)
        finally:
            self.free_rows(rows)
        return torch.stack([watch.seen[at] for at in watch.heads]), logits

    def _run(
        self,
        tokens: Sequence[int],
        rows: Sequence[int],
        positions: Sequence[int],
        audios: Sequence[Audio],
        wanted: Sequence[int],
        watch: Watch | None = None,
    ) -> Tensor:
        check_batch(self.dims, tokens, rows, positions, audios, wanted)
        self._cache.table.write(rows, positions)
        if self._static is None or watch is not None:
            return self._run_ragged(tokens, rows, positions, audios, wanted, watch)
        counts = Counter(rows)
        groups: tuple[list[int], list[int]] = ([], [])  # items of short texts, and of long ones
        for i, row in enumerate(rows):
            groups[counts[row] > SHORT].append(i)
        logits = torch.empty(len(wanted), self.dims.n_vocab, dtype=torch.float32, device=self.device)
        for run, group in zip((self._run_static, self._run_ragged), groups, strict=True):
            if group:
                place = {item: i for i, item in enumerate(group)}
                own = [i for i, item in enumerate(wanted) if item in place]
                logits[own] = run(
                    [tokens[i] for i in group],
                    [rows[i] for i in group],
                    [positions[i] for i in group],
                    [audios[i] for i in group],
                    [place[wanted[i]] for i in own],
                )
        return logits

    def _run_static(
        self,
        tokens: Sequence[int],
        rows: Sequence[int],
        positions: Sequence[int],
        audios: Sequence[Audio],
        wanted: Sequence[int],
    ) -> Tensor:
        assert self._static is not None
        return self._static(tokens, rows, positions, [audio.keys_and_values.slot for audio in audios], wanted)

    def _run_ragged(
        self,
        tokens: Sequence[int],
        rows: Sequence[int],
        positions: Sequence[int],
        audios: Sequence[Audio],
        wanted: Sequence[int],
        watch: Watch | None = None,
    ) -> Tensor:
        plan = planned(self._cache, tokens, rows, positions, audios, wanted, self.device)
        x = self._decoder.embed(plan.tokens, plan.positions)  # (n_items, n_state)
        for layer, block in enumerate(self._decoder.blocks):
            x = self._self_attention(block, layer, x, plan)
            x = self._cross_attention(block, layer, x, plan, watch)
            x = block.mlp(x)
        return self._decoder.logits(x if list(wanted) == list(range(len(tokens))) else x[plan.wanted])

    def _self_attention(self, block: Block, layer: int, x: Tensor, plan: Plan) -> Tensor:
        heads = (len(x), self.dims.n_text_head, self._width)
        q, k, v = block.qkv.linear(block.attn_ln(x))
        keys, values = self._cache.pool[layer]  # (n_physical, n_head, n_ctx, width) each
        keys.view(-1, self._width).index_copy_(0, plan.writes, k.reshape(-1, self._width))
        values.view(-1, self._width).index_copy_(0, plan.writes, v.reshape(-1, self._width))
        q = (q * self._q_scale).view(heads)
        mixed = torch.empty_like(q)
        for part in plan.parts:
            own = q[part.items].view(part.n_rows, -1, *heads[1:]).transpose(1, 2)  # (n_rows, n_head, n_each, width)
            scores = torch.bmm(own.flatten(0, 1), part.take(keys).transpose(1, 2))
            weights = scores.view(*own.shape[:3], -1).add_(part.mask).softmax(dim=-1)
            out = torch.bmm(weights.flatten(0, 1), part.take(values)).view(own.shape)
            mixed[part.items] = out.transpose(1, 2).flatten(0, 1)
        return x.add_(block.out.linear(mixed.flatten(1)))

    def _cross_attention(self, block: Block, layer: int, x: Tensor, plan: Plan, watch: Watch | None) -> Tensor:
        q = block.cross_query.linear(block.cross_ln(x)).mul_(self._q_scale)
        q = q.view(len(x), self.dims.n_text_head, self._width)
        mixed = torch.empty_like(q)
        for items, heard in plan.listeners:
            scores = torch.bmm(q[items].transpose(0, 1), heard.keys(layer))  # (n_head, n_items, n_audio_ctx)
            if watch is not None:
                watch.seen.update({at: scores[at[1]].float() for at in watch.heads if at[0] == layer})
            mixed[items] = torch.bmm(scores.softmax(dim=-1), heard.values(layer)).transpose(0, 1)
        return x.add_(block.cross_out.linear(mixed.flatten(1)))
