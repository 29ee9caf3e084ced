"""What each row may say next, as a few numbers per row, and the choice of the likeliest that is left.

The rules of `logit_filters`, in the same order, for rows of different requests in one batch: a row's rule follows from
the tokens that it has sampled, in plain Python; the logits are touched for all rows at once. Nothing is sampled here,
and no rule comes from anywhere else: whoever adds a `LogitFilter` of their own is served by the reference path.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from . import loops
from .runner import Ints, Rules
from .tokenizer import Tokenizer


class RowRule(NamedTuple):
    """What one row may not say next; the fields are those of `runner.Rules`, for a single row."""

    suppressed: Ints
    text_from: int
    timestamps_from: int
    timestamps_to: int
    weighs: bool
    timestamp_begin: int


@lru_cache(maxsize=256)
def _sorted_ids(ids: frozenset[int]) -> Ints:
    """Return one and the same array for equal sets, so that rows of different requests share it."""
    array: Ints = np.array(sorted(ids), dtype=np.int32)
    array.setflags(write=False)
    return array


@dataclass(frozen=True, eq=False)
class RowRules:
    """The rules of one request; `next_rule` applies them to what a row of it has said. See `make`."""

    suppressed: Ints  # at every step
    suppressed_first: Ints  # at the first step
    timestamps: bool  # whether the text has timestamps, in pairs and in order
    max_initial_timestamp_index: int | None
    eot: int
    timestamp_begin: int
    n_vocab: int
    after_loop: Ints | None  # control tokens but the end: what a text that loops may not say beside text and timestamps

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
        """Derive the rules from options.

        Parameters
        ----------
        tokenizer, n_vocab
            Of the model.
        suppress_tokens
            Ids that never come, control tokens included where they are meant (`decoding.suppressed_tokens`).
        suppress_blank
            The first token is neither a lone space nor the end.
        timestamps
            False for text alone: then the next two do not apply.
        max_initial_timestamp_index
            The first timestamp is at most this many steps of 20 ms into the window; None for no limit.
        stop_loops
            A text that goes round in circles ends (`loops.detect`).
        """
        never = {int(t) for t in suppress_tokens}
        if timestamps:
            never.add(tokenizer.no_timestamps)
        blank = {*tokenizer.encode(" "), tokenizer.eot} if suppress_blank else set()
        return cls(
            _sorted_ids(frozenset(never)),
            _sorted_ids(frozenset(never | blank)),
            timestamps,
            max_initial_timestamp_index,
            tokenizer.eot,
            tokenizer.timestamp_begin,
            n_vocab,
            _sorted_ids(frozenset(range(tokenizer.eot + 1, tokenizer.timestamp_begin))) if stop_loops else None,
        )

    def next_rule(self, sampled: Sequence[int]) -> RowRule:
        """Return what a row may not say after it has sampled these tokens (start and prompt are not among them)."""
        begin, n_vocab = self.timestamp_begin, self.n_vocab
        if self.after_loop is not None and loops.detect(sampled, begin):
            return RowRule(self.after_loop, self.eot, n_vocab, n_vocab, False, begin)
        if not self.timestamps:
            return RowRule(self.suppressed if sampled else self.suppressed_first, 0, begin, n_vocab, False, begin)
        if not sampled:  # a timestamp, not too late
            limit = self.max_initial_timestamp_index
            end = n_vocab if limit is None else min(n_vocab, begin + limit + 1)
            return RowRule(self.suppressed_first, begin, begin, end, False, begin)
        latest = max(sampled)  # timestamps are the highest ids
        if sampled[-1] < begin:
            lowest = begin if latest < begin else latest + 1
            return RowRule(self.suppressed, 0, lowest, n_vocab, True, begin)
        if len(sampled) == 1 or sampled[-2] >= begin:  # the pair is closed: text
            return RowRule(self.suppressed, 0, n_vocab, n_vocab, False, begin)
        return RowRule(self.suppressed, self.eot, latest, n_vocab, True, begin)  # its twin, a later one, or the end


def rules(rows: Sequence[RowRule]) -> Rules:
    """Join the rules of at least one row of the same model."""
    sets: dict[int, tuple[int, Ints]] = {}  # by identity, which equal sets share
    by = [sets.setdefault(id(row.suppressed), (len(sets), row.suppressed))[0] for row in rows]
    return Rules(
        suppressed=[ids for _, ids in sets.values()],
        suppressed_by=np.array(by, dtype=np.int32),
        text_from=np.array([row.text_from for row in rows], dtype=np.int32),
        timestamps_from=np.array([row.timestamps_from for row in rows], dtype=np.int32),
        timestamps_to=np.array([row.timestamps_to for row in rows], dtype=np.int32),
        weighs=np.array([row.weighs for row in rows], dtype=np.bool_),
        timestamp_begin=rows[0].timestamp_begin,
    )


# ---------------------------------------------------------------------------------------------------------
# On the logits
# ---------------------------------------------------------------------------------------------------------


def apply_rules(logits: Tensor, rules: Rules) -> None:
    """Set what `rules` forbid to minus infinity, in place; `logits` is float32 ``(n_rows, n_vocab)``, on any device."""
    for i, ids in enumerate(rules.suppressed):
        _forbid(logits, rules.suppressed_by == i, ids)
    for text_from in np.unique(rules.text_from):  # seldom more than two different ones
        if text_from:
            _forbid(logits, rules.text_from == text_from, slice(0, int(text_from)))
    begin, n_vocab = rules.timestamp_begin, logits.shape[1]
    timestamps = logits[:, begin:]
    if (rules.timestamps_from > begin).any() or (rules.timestamps_to < n_vocab).any():
        steps = torch.arange(begin, n_vocab, dtype=torch.int32, device=logits.device)  # (n_timestamps,)
        limits = torch.from_numpy(np.stack([rules.timestamps_from, rules.timestamps_to])).to(logits.device)
        timestamps.masked_fill_((steps < limits[0, :, None]) | (steps >= limits[1, :, None]), -torch.inf)
    if rules.weighs.any():
        text = logits[:, :begin]
        forbidden = timestamps.logsumexp(dim=-1) > text.amax(dim=-1)  # (n_rows,)
        forbidden &= torch.from_numpy(rules.weighs).to(logits.device)
        if logits.device.type != "cpu" or forbidden.any():  # elsewhere, asking would mean waiting
            text.masked_fill_(forbidden[:, None], -torch.inf)


def _forbid(logits: Tensor, which: npt.NDArray[np.bool_], columns: Ints | slice) -> None:
    """Forbid columns to the rows that `which` marks."""
    if isinstance(columns, slice):
        if which.all():
            logits[:, columns] = -torch.inf
        else:
            logits[torch.from_numpy(which.nonzero()[0]).to(logits.device), columns] = -torch.inf
        return
    index = torch.tensor(columns, dtype=torch.long, device=logits.device)
    if which.all():
        logits.index_fill_(1, index, -torch.inf)
    else:
        logits[torch.from_numpy(which.nonzero()[0]).to(logits.device)[:, None], index] = -torch.inf


def best_tokens(logits: Tensor, n_best: int) -> tuple[Ints, npt.NDArray[np.float32]]:
    """Find the likeliest tokens of each row of `logits`, ``(n_rows, n_vocab)``.

    Returns
    -------
    ids, logprobs
        ``(n_rows, n_best)`` each, likeliest first, equal ones by id. The log-probabilities are normalised
        over the whole row.
    """
    logits = logits.float()
    logprobs = logits.log_softmax(dim=-1)
    ids = logits.max(dim=-1, keepdim=True)[1] if n_best == 1 else _first_best(logits, n_best)  # max takes the first
    chosen = logprobs.gather(1, ids)
    return ids.cpu().numpy().astype(np.int32), chosen.cpu().numpy()


def _first_best(logits: Tensor, n_best: int) -> Tensor:
    """Return ids as `torch.topk` does, which takes any of several equal ones; here they come by id."""
    n_more = min(n_best + 1, logits.shape[1])
    values, ids = logits.topk(n_more, dim=-1)  # (n_rows, n_more)
    ids, order = ids.sort(dim=-1)
    values, order = values.gather(1, order).sort(dim=-1, descending=True, stable=True)
    ids = ids.gather(1, order)
    if n_more > n_best:
        torn = (values[:, n_best - 1] == values[:, n_best]).nonzero()[:, 0]  # equal ones may be left outside
        if len(torn):
            ids[torn] = logits[torn].sort(dim=-1, descending=True, stable=True)[1][:, :n_more]
    return ids[:, :n_best]
