"""The interface of a runner, `Runner`: the network for batches of tokens, with KV caches, and token selection.

A runner holds packed weights and caches. It does not decide which row runs, nor which token comes next.
Two modules implement it, `pytorch.runner` and `native.runner` (compiled kernels), and tests have a mock.
`select` chooses.

A *window* is what the encoder reads at once: 30 s, or less, which is taken for the beginning of 30 s that are silent to
their end. Then of the positions that follow the encoder keeps one in `PADDING_STRIDE`, which every attention counts as
often, so that the model finds the padding that it was trained with and encoder and cross-attention do less work.

A *row* is one growing text: a greedy text, or one beam. A *batch* is flat: each item is one token of one row, so a
prompt (many items of one row) and the next tokens of other rows (one item each) run in the same call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from ..device.hardware import free_memory
from ..device.lazy_torch import Tensor, torch
from ..errors import OptionError, ShapeError

if TYPE_CHECKING:
    from ..model import ModelDimensions

PADDING_STRIDE = 4  # positions of the padding that one stands for; measured by ``benchmarks/audio_context.py``
ASK_FROM = 1 << 30  # bytes; smaller requests are not compared with the free memory

Ints = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class EncodedWindow:
    """A window after the encoder, made by `Runner.project`; only its runner looks inside."""

    features: Tensor  # (n_positions, n_audio_state), float32; see `Runner.encode`
    cross_kv: Any  # keys and values of every layer's cross-attention, in the runner's own form


@dataclass(frozen=True)
class TokenMask:
    """The tokens that each row may not sample next, as arrays over rows; `token_rules` derives them.

    A token is forbidden to row ``i`` if it is in ``suppressed[suppressed_by[i]]``, if it is below ``text_from[i]``,
    or if it is a timestamp below ``timestamps_from[i]`` or not below ``timestamps_to[i]``. After that, where
    ``timestamp_mass[i]``, all text is forbidden if the timestamps together are likelier than the likeliest text token.
    """

    suppressed: Sequence[Ints]  # distinct sets of token ids, each sorted
    suppressed_by: Ints  # (n_rows,) index into `suppressed`
    text_from: Ints  # (n_rows,) 0 where text is allowed
    timestamps_from: Ints  # (n_rows,) token ids
    timestamps_to: Ints  # (n_rows,) token ids, exclusive; n_vocab for no limit
    timestamp_mass: npt.NDArray[np.bool_]  # (n_rows,)
    timestamp_begin: int


@dataclass(frozen=True, eq=False)
class Batch:
    """What the decoder runs in one call: flat, each item is one token of one row.

    A prefill (many items of one row) and the next tokens of other rows (one item each) stand in the
    same batch. Items of one row stand in the order of their positions, and all earlier positions of
    the row have been run before.
    """

    tokens: Sequence[int]
    rows: Sequence[int]
    positions: Sequence[int]  # in the row
    windows: Sequence[EncodedWindow]  # that each item attends to
    logit_indices: Sequence[int]  # the items whose logits are returned, in this order

    @classmethod
    def of_row(cls, tokens: Sequence[int], row: int, window: EncodedWindow, logit_indices: Sequence[int]) -> Batch:
        """A row from its beginning."""
        n = len(tokens)
        return cls(tokens, [row] * n, range(n), [window] * n, logit_indices)

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, items: Sequence[int]) -> Batch:
        """The batch of some of the items, with the logits of those among them that are asked for."""
        place = {item: i for i, item in enumerate(items)}
        return Batch(
            [self.tokens[i] for i in items],
            [self.rows[i] for i in items],
            [self.positions[i] for i in items],
            [self.windows[i] for i in items],
            [place[i] for i in self.logit_indices if i in place],
        )

    def validate(self, dims: ModelDimensions) -> None:
        """Raise `ShapeError` where a batch would reach outside of some memory; `RowTable` checks the rows."""
        n, n_rows, n_positions, n_windows = map(len, (self.tokens, self.rows, self.positions, self.windows))
        if not n or not n == n_rows == n_positions == n_windows:
            raise ShapeError(
                f"a batch of {n} tokens, {n_rows} rows, {n_positions} positions and {n_windows} windows: there must be "
                "equally many of each, and at least one"
            )
        if max(self.positions) >= dims.n_text_ctx:
            raise ShapeError(f"{max(self.positions) + 1} tokens do not fit the decoder's context of {dims.n_text_ctx}")
        if min(self.positions) < 0:
            raise ShapeError(f"positions are counted from 0, and one of these is {min(self.positions)}")
        if not 0 <= min(self.tokens) <= max(self.tokens) < dims.n_vocab:
            raise ShapeError(f"tokens from {min(self.tokens)} to {max(self.tokens)} for a vocabulary of {dims.n_vocab}")
        indices = self.logit_indices
        if len(indices) and not 0 <= min(indices) <= max(indices) < n:
            raise ShapeError(
                f"logits are asked for of the items {min(indices)} to {max(indices)}, and there are {n}, from 0 on"
            )


class Runner(Protocol):
    """The network for the rows it is given. Not thread-safe: the engine calls it from one thread at a time."""

    dims: ModelDimensions
    compute_type: str  # "float32", "bfloat16", "float16" or "int8"
    row_bytes: int  # memory of one row's cache
    window_bytes: int  # memory of one `EncodedWindow` of 30 s; a shorter one takes no more

    def twin(self) -> Runner:
        """Return a runner of the same weights, in the same memory, whose rows and caches are its own."""
        ...

    def encode(self, mels: Sequence[Tensor]) -> list[Tensor]:
        """Encode windows into features ``(n_positions, n_audio_state)``, float32.

        Parameters
        ----------
        mels
            Each ``(n_mels, 2 * n_own)``. `n_own` is at most n_audio_ctx (30 s), from which it differs by a multiple of
            `PADDING_STRIDE`. The last four frames of a shorter one must be zeros, as all that follow are taken to be.

        Returns
        -------
        Of each window its own positions, and behind them those of its padding; see `n_positions_with_padding`.
        """
        ...

    def project(self, features: Tensor) -> EncodedWindow:
        """Prepare a window for the decoder: the keys and values of its cross-attention.

        Windows of different lengths may stand in one `Batch`.
        """
        ...

    def take_rows(self, n: int) -> list[int]:
        """Reserve `n` rows, empty; there are always more, at `row_bytes` each."""
        ...

    def free_rows(self, rows: Sequence[int]) -> None:
        """Give rows back."""
        ...

    def reorder(self, rows: Sequence[int], sources: Sequence[int]) -> None:
        """Make each of `rows` a continuation of the row of `sources` at the same index; sources may repeat."""
        ...

    def forward(self, batch: Batch) -> Tensor:
        """Run a batch; logits, float32 ``(len(batch.logit_indices), n_vocab)``.

        The caller may write into them until the next call.
        """
        ...

    def select_tokens(self, logits: Tensor, rules: TokenMask, n_best: int) -> tuple[Ints, npt.NDArray[np.float32]]:
        """Apply `rules` to `logits`, ``(n_rows, n_vocab)``, in place, and find the likeliest tokens.

        Returns
        -------
        Their ids and log-probabilities (over what is left), ``(n_rows, n_best)`` each, likeliest first; equal
        ones by id.
        """
        ...

    def attention_scores(
        self,
        window: EncodedWindow,
        tokens: Sequence[int],
        heads: Sequence[tuple[int, int]],
        n_skipped: int,
        n_text: int,
    ) -> tuple[Tensor, Tensor]:
        """Run the decoder over all of `tokens`, and record where its heads attend.

        Parameters
        ----------
        heads
            Layer and head of each alignment head.
        n_skipped, n_text
            Logits are wanted at the items ``n_skipped`` to ``n_skipped + n_text``, exclusive.

        Returns
        -------
        qk
            Cross-attention scores before the softmax, float32 ``(len(heads), len(tokens), n_positions)``; each row
            up to a constant, which the softmax takes away.
        logits
            Float32 ``(n_text, n_vocab)``. Both may be written over by the next call.
        """
        ...


def n_own_positions(mel: Tensor, dims: ModelDimensions) -> int:
    """Return how many positions a window has itself; `ShapeError` where the encoder does not take it."""
    n_frames = mel.shape[-1] if mel.ndim == 2 else 0
    missing = 2 * dims.n_audio_ctx - n_frames
    if tuple(mel.shape) != (dims.n_mels, n_frames) or not n_frames or missing < 0 or missing % (2 * PADDING_STRIDE):
        shape = (dims.n_mels, 2 * dims.n_audio_ctx)
        raise ShapeError(
            f"incorrect audio shape: the encoder takes {shape}, or a multiple of {2 * PADDING_STRIDE} frames less, got "
            f"{tuple(mel.shape)}; cut or pad the mel spectrogram with pad_or_trim(mel, {shape[1]})"
        )
    return n_frames // 2


def n_positions_with_padding(n_own: int, dims: ModelDimensions) -> int:
    """Return how many positions the features of a window have that has `n_own` itself."""
    return n_own + (dims.n_audio_ctx - n_own) // PADDING_STRIDE


def check_features(features: Tensor, dims: ModelDimensions) -> int:
    """Return how many positions these features have before those of the padding.

    Raises
    ------
    ShapeError
        These are not the features of a window.
    """
    n = len(features) if features.ndim else 0
    n_own, rest = divmod(PADDING_STRIDE * n - dims.n_audio_ctx, PADDING_STRIDE - 1)
    if tuple(features.shape) != (n, dims.n_audio_state) or rest or not 0 < n_own <= dims.n_audio_ctx:
        shape = (dims.n_audio_ctx, dims.n_audio_state)
        raise ShapeError(
            f"audio features of this model have shape {shape}, or as `encode` gives them for less, not "
            f"{tuple(features.shape)}"
        )
    return n_own


def check_room(n_rows: int, dims: ModelDimensions, device: torch.device) -> None:
    """Raise `OptionError` where so many rows for one window, in float32, would not fit the memory that is free."""
    n_bytes = n_rows * 4 * (2 * dims.n_text_layer * dims.n_text_ctx * dims.n_text_state + 2 * dims.n_vocab)
    if n_bytes > ASK_FROM and 0 < (free := free_memory(device)) < n_bytes:
        raise OptionError(
            f"beam_size or best_of asks for {n_rows} texts at once, which take {n_bytes / 2**30:.3g} GiB, and "
            f"{free / 2**30:.3g} GiB of memory are free: give less"
        )


def check_heads(dims: ModelDimensions, heads: Sequence[tuple[int, int]]) -> None:
    """Raise `ShapeError` where the decoder does not have one of the heads, each a layer and a head."""
    for layer, head in heads:
        if not (0 <= layer < dims.n_text_layer and 0 <= head < dims.n_text_head):
            raise ShapeError(
                f"head {head} of layer {layer}: the decoder has {dims.n_text_layer} layers of {dims.n_text_head} "
                "heads, from 0 on; see Whisper.set_alignment_mask"
            )


class RowTable:
    """Which physical row holds each position of each row: reordering beams moves numbers, never keys and values.

    Row ``r`` writes its position ``p`` into physical row ``r``, once; rows that continue ``r`` refer to it.
    """

    def __init__(self, n_ctx: int) -> None:
        self.table: Ints = np.zeros((0, n_ctx), dtype=np.int32)  # (n_rows, n_ctx)
        self._free: list[int] = []
        self._taken: set[int] = set()

    @property
    def n_rows(self) -> int:
        """Rows that there are, taken and free."""
        return len(self.table)

    @property
    def n_taken(self) -> int:
        """Rows in use."""
        return self.n_rows - len(self._free)

    def take(self, n: int) -> list[int]:
        """Reserve `n` rows, the lowest that are free, and new ones where there are too few."""
        if (missing := n - len(self._free)) > 0:
            new = np.zeros((missing, self.table.shape[1]), dtype=np.int32)
            self._free += range(self.n_rows, self.n_rows + missing)
            self.table = np.concatenate([self.table, new])
        self._free.sort()
        taken, self._free = self._free[:n], self._free[n:]
        self._taken.update(taken)
        return taken

    def free(self, rows: Sequence[int]) -> None:
        """Give rows back."""
        self._check_taken(rows)
        if len({*rows}) < len(rows):
            raise ShapeError(f"rows {sorted(rows)[:5]} name one twice; each is given back once")
        self._taken.difference_update(rows)
        self._free += rows

    def reorder(self, rows: Sequence[int], sources: Sequence[int]) -> None:
        """See `Runner.reorder`."""
        self._check_taken(rows)
        self._check_taken(sources)
        self.table[list(rows)] = self.table[list(sources)]

    def write(self, rows: Sequence[int], positions: Sequence[int]) -> None:
        """Note that each row now writes a position itself."""
        self._check_taken(rows)
        self.table[list(rows), list(positions)] = rows

    def _check_taken(self, rows: Sequence[int]) -> None:
        if not self._taken.issuperset(rows):
            strange = sorted({*rows} - self._taken)
            raise ShapeError(f"rows {strange[:5]} are not taken, or were given back: ask take_rows for them")
