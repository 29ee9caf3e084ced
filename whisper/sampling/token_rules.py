"""Token rules: which tokens each row may sample next.

The rules of `logit_filters`, in the same order, for rows of different requests in one batch. The
rule of a row follows from the tokens that it has sampled, in plain Python; a runner masks the
logits of all rows at once. There are no other rules: with a user's own `LogitFilter` decoding takes
the reference path.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..runtime.interface import Ints, TokenMask
from . import repetition

if TYPE_CHECKING:
    from ..tokenizer import Tokenizer


class RowRule(NamedTuple):
    """The tokens that one row may not sample next: a single row of `runner.TokenMask`."""

    suppressed: Ints
    text_from: int
    timestamps_from: int
    timestamps_to: int
    timestamp_mass: bool
    timestamp_begin: int


@lru_cache(maxsize=256)
def _sorted_ids(ids: frozenset[int]) -> Ints:
    """Return the same array object for equal sets, so that rows of different requests share it."""
    array: Ints = np.array(sorted(ids), dtype=np.int32)
    array.setflags(write=False)
    return array


@dataclass(frozen=True, eq=False)
class RowRules:
    """The rules of one request; see `make`. `next_rule` applies them to a row's tokens."""

    suppressed: Ints  # at every step
    suppressed_first: Ints  # at the first step
    timestamps: bool  # whether timestamps are sampled, in pairs and in order
    max_initial_timestamp_index: int | None
    eot: int
    timestamp_begin: int
    n_vocab: int
    # control tokens except eot; after a loop, text and timestamps are suppressed, too
    suppressed_after_loop: Ints | None

    @classmethod
    def make(
        cls,
        tokenizer: Tokenizer,
        n_vocab: int,
        *,
        suppress_tokens: Iterable[int] = (),
        suppress_blank: bool = True,
        timestamps: bool = True,
        max_initial_timestamp_index: int | None = None,
        stop_loops: bool = False,
    ) -> RowRules:
        """Derive the rules from decoding options.

        Parameters
        ----------
        tokenizer, n_vocab
            Of the model.
        suppress_tokens
            Ids that are never sampled, with the control tokens that `plan.suppressed_tokens`
            adds.
        suppress_blank
            The first token is neither a lone space nor the end.
        timestamps
            False for text without timestamps; then the initial timestamp has no limit either.
        max_initial_timestamp_index
            The first timestamp is at most this many steps of 20 ms into the window; None for no
            limit.
        stop_loops
            End a text that is in a repetition loop (`loops.detect`).
        """
        suppressed = {int(t) for t in suppress_tokens}
        if timestamps:
            suppressed.add(tokenizer.no_timestamps)
        blank = {*tokenizer.encode(" "), tokenizer.eot} if suppress_blank else set()
        controls = frozenset(range(tokenizer.eot + 1, tokenizer.timestamp_begin))
        return cls(
            suppressed=_sorted_ids(frozenset(suppressed)),
            suppressed_first=_sorted_ids(frozenset(suppressed | blank)),
            timestamps=timestamps,
            max_initial_timestamp_index=max_initial_timestamp_index,
            eot=tokenizer.eot,
            timestamp_begin=tokenizer.timestamp_begin,
            n_vocab=n_vocab,
            suppressed_after_loop=_sorted_ids(controls) if stop_loops else None,
        )

    def next_rule(self, sampled: Sequence[int]) -> RowRule:
        """Return the rule of a row that has sampled these tokens, without prompt and start."""
        begin, n_vocab = self.timestamp_begin, self.n_vocab
        if self.suppressed_after_loop is not None and repetition.detect(sampled, begin):
            return RowRule(self.suppressed_after_loop, self.eot, n_vocab, n_vocab, False, begin)
        if not self.timestamps:
            return RowRule(self.suppressed if sampled else self.suppressed_first, 0, begin, n_vocab, False, begin)
        if not sampled:  # a timestamp, up to the limit
            limit = self.max_initial_timestamp_index
            end = n_vocab if limit is None else min(n_vocab, begin + limit + 1)
            return RowRule(self.suppressed_first, begin, begin, end, False, begin)
        latest = max(sampled)  # timestamps are the highest ids
        if sampled[-1] < begin:
            lowest = begin if latest < begin else latest + 1
            return RowRule(self.suppressed, 0, lowest, n_vocab, True, begin)
        if len(sampled) == 1 or sampled[-2] >= begin:  # the pair is complete: text
            return RowRule(self.suppressed, 0, n_vocab, n_vocab, False, begin)
        # the second of the pair, or the end
        return RowRule(self.suppressed, self.eot, latest, n_vocab, True, begin)


def rules(rows: Sequence[RowRule]) -> TokenMask:
    """Batch the rules of at least one row of the same model."""
    sets: dict[int, tuple[int, Ints]] = {}  # by identity, since equal sets are one object
    indices = [sets.setdefault(id(row.suppressed), (len(sets), row.suppressed))[0] for row in rows]
    return TokenMask(
        suppressed=[ids for _, ids in sets.values()],
        suppressed_by=np.array(indices, dtype=np.int32),
        text_from=np.array([row.text_from for row in rows], dtype=np.int32),
        timestamps_from=np.array([row.timestamps_from for row in rows], dtype=np.int32),
        timestamps_to=np.array([row.timestamps_to for row in rows], dtype=np.int32),
        timestamp_mass=np.array([row.timestamp_mass for row in rows], dtype=np.bool_),
        timestamp_begin=rows[0].timestamp_begin,
    )
