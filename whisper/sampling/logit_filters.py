"""Logit filters: tokens that are suppressed, penalised or biased.

Each filter changes the logits in place, all rows of a batch at once; a `RowFilter` works on each
row by itself, so that the engine can use it, too. Nothing is sampled here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..device.lazy_torch import Tensor, torch
from . import repetition

if TYPE_CHECKING:
    from ..tokenizer import Tokenizer
    from .hotwords import Hotwords, TreeState


class LogitFilter:
    """One rule; subclass it and append it to ``DecodingTask.logit_filters`` to add your own."""

    def apply(self, logits: Tensor, tokens: Tensor) -> None:
        """Change the logits in place.

        Parameters
        ----------
        logits
            Of the next token, ``(n_batch, n_vocab)``, float.
        tokens
            All tokens so far, prompt and start sequence included, ``(n_batch, n_tokens)``.
        """
        raise NotImplementedError


class SuppressBlank(LogitFilter):
    """The first sampled token may be neither a lone space nor the end of the text."""

    def __init__(self, tokenizer: Tokenizer, sample_begin: int) -> None:
        self.tokenizer = tokenizer
        self.sample_begin = sample_begin
        self._blank = [*tokenizer.encode(" "), tokenizer.eot]

    def apply(self, logits: Tensor, tokens: Tensor) -> None:
        if tokens.shape[1] == self.sample_begin:
            logits[:, self._blank] = -torch.inf


class SuppressTokens(LogitFilter):
    """The given tokens are never sampled."""

    def __init__(self, suppress_tokens: Sequence[int]) -> None:
        self.suppress_tokens = list(suppress_tokens)
        self._index: Tensor | None = None  # made at the first call, on the device of the logits

    def apply(self, logits: Tensor, tokens: Tensor) -> None:
        if self._index is None or self._index.device != logits.device:
            self._index = torch.tensor(self.suppress_tokens, dtype=torch.long, device=logits.device)
        logits.index_fill_(1, self._index, -torch.inf)


class ApplyTimestampRules(LogitFilter):
    """Timestamps come in pairs, never decrease, and are preferred to less probable text.

    Parameters
    ----------
    max_initial_timestamp_index
        The first timestamp is at most this many steps (of 20 ms) into the window; None for no
        limit.
    """

    def __init__(self, tokenizer: Tokenizer, sample_begin: int, max_initial_timestamp_index: int | None) -> None:
        self.tokenizer = tokenizer
        self.sample_begin = sample_begin
        self.max_initial_timestamp_index = max_initial_timestamp_index

    def apply(self, logits: Tensor, tokens: Tensor) -> None:
        if self.tokenizer.no_timestamps is not None:
            logits[:, self.tokenizer.no_timestamps] = -torch.inf
        first = self.tokenizer.timestamp_begin
        if tokens.shape[1] > self.sample_begin:
            self._keep_order(logits, tokens[:, self.sample_begin :])
        else:  # begin with a timestamp
            logits[:, :first] = -torch.inf
            if self.max_initial_timestamp_index is not None:
                logits[:, first + self.max_initial_timestamp_index + 1 :] = -torch.inf
        # suppress text that is less probable than all timestamps together
        any_timestamp = logits[:, first:].logsumexp(dim=-1, keepdim=True)
        best_text = logits[:, :first].amax(dim=-1, keepdim=True)
        logits[:, :first].masked_fill_(any_timestamp > best_text, -torch.inf)

    def _keep_order(self, logits: Tensor, sampled: Tensor) -> None:
        """Enforce pairs and order, given the sampled tokens, ``(n_batch, n_sampled >= 1)``."""
        first = self.tokenizer.timestamp_begin
        is_timestamp = sampled >= first
        last_was = is_timestamp[:, -1:]  # (n_batch, 1)
        pair_closed = is_timestamp[:, -2:-1] if sampled.shape[1] > 1 else torch.ones_like(last_was)
        # text, then one timestamp: another one or the end must follow
        opened = last_was & ~pair_closed
        logits[:, : self.tokenizer.eot].masked_fill_(opened, -torch.inf)
        # no timestamp below the last one, and the last one again only as the start of the next
        # segment, so that every segment has a duration and decoding ends; -1 if there is none yet
        latest = torch.where(is_timestamp, sampled, -1).amax(dim=1, keepdim=True)
        lowest = torch.where(opened, latest, latest + 1)
        steps = torch.arange(first, logits.shape[1], dtype=torch.long, device=logits.device)  # (n_timestamps,)
        forbidden = (steps < lowest) | (last_was & pair_closed)
        logits[:, first:].masked_fill_(forbidden, -torch.inf)


# --------------------------------------------------------------------------------------------------
# By the tokens of each row
# --------------------------------------------------------------------------------------------------


class RowFilter(LogitFilter):
    """A filter for a row that depends on the tokens it has sampled."""

    def __init__(self, tokenizer: Tokenizer, sample_begin: int) -> None:
        self.tokenizer = tokenizer
        self.sample_begin = sample_begin

    def apply(self, logits: Tensor, tokens: Tensor) -> None:
        for row, sampled in zip(logits, self._sampled(tokens), strict=True):
            self.apply_to_row(row, sampled)

    def apply_to_row(self, logits: Tensor, sampled: Sequence[int]) -> None:
        """Change the logits of a single row, ``(n_vocab,)``, in place."""
        raise NotImplementedError

    def _sampled(self, tokens: Tensor) -> list[list[int]]:
        sampled: list[list[int]] = tokens[:, self.sample_begin :].tolist()
        return sampled

    def _text(self, sampled: Sequence[int]) -> list[int]:
        """Return the text tokens among these."""
        eot = self.tokenizer.eot
        return [token for token in sampled if token < eot]


class StopLoops(RowFilter):
    """End a text that is in a repetition loop; applied last, to overrule the other filters."""

    def apply_to_row(self, logits: Tensor, sampled: Sequence[int]) -> None:
        if repetition.detect(sampled, self.tokenizer.timestamp_begin):
            logits.fill_(-torch.inf)
            logits[self.tokenizer.eot] = 0


class PenalizeRepetition(RowFilter):
    """Penalise text tokens that were sampled before (CTRL, arXiv:1909.05858, section 4.1).

    Parameters
    ----------
    penalty
        Divides a logit above 0, multiplies one below.
    """

    def __init__(self, tokenizer: Tokenizer, sample_begin: int, penalty: float) -> None:
        super().__init__(tokenizer, sample_begin)
        self.penalty = penalty

    def apply_to_row(self, logits: Tensor, sampled: Sequence[int]) -> None:
        ids = np.array([*{*self._text(sampled)}], dtype=np.int64)
        values = _values(logits, ids)
        _write(logits, ids, np.where(values > 0, values / self.penalty, values * self.penalty))


class NoRepeatNgram(RowFilter):
    """No n-gram of text tokens is repeated; timestamps between them do not count."""

    def __init__(self, tokenizer: Tokenizer, sample_begin: int, size: int) -> None:
        super().__init__(tokenizer, sample_begin)
        self.size = size

    def apply_to_row(self, logits: Tensor, sampled: Sequence[int]) -> None:
        text, n = self._text(sampled), self.size - 1
        last = text[len(text) - n :]  # the first n tokens of the next n-gram
        repeated = [
            text[i] for i in range(n, len(text)) if not n or (text[i - 1] == last[-1] and text[i - n : i] == last)
        ]
        _write(logits, np.array(repeated, dtype=np.int64), np.float32(-np.inf))


class BoostHotwords(RowFilter):
    """Bias tokens that begin or continue a phrase; see `Hotwords` for which, and by how much.

    A search sums the log-probabilities of the biased logits. `score_correction` turns such a sum
    into the model's own log-probability plus the bias of phrases: so scores of different texts can
    be compared, and `model_logprob` can remove the bias at the end.
    """

    def __init__(self, tokenizer: Tokenizer, sample_begin: int, hotwords: Hotwords) -> None:
        super().__init__(tokenizer, sample_begin)
        self.hotwords = hotwords
        # by tokens since a timestamp
        self._states: dict[tuple[int, ...], TreeState] = {(): hotwords.initial_state()}

    def _state(self, sampled: Sequence[int]) -> TreeState:
        begin = end = len(sampled)
        while begin and sampled[begin - 1] < self.tokenizer.timestamp_begin:
            begin -= 1
        text = tuple(sampled[begin:end])
        if text not in self._states:
            self._states[text] = self.hotwords.advance(self._state(sampled[begin : end - 1]), text[-1:])
        return self._states[text]

    def apply_to_row(self, logits: Tensor, sampled: Sequence[int]) -> None:
        ids, bias, _ = self.hotwords.token_bias(self._state(sampled))
        _write(logits, ids, _values(logits, ids) + bias)

    def score_correction(self, logits: Tensor, best: int, logprob: float, sampled: Sequence[int]) -> float:
        """Return what to add to the score of a text before its next token is sampled.

        Parameters
        ----------
        logits
            Of that token, after all filters, ``(n_vocab,)``.
        best, logprob
            A token that is allowed, and its log-probability by these logits.
        """
        state = self._state(sampled)
        ids, _, shares = self.hotwords.token_bias(state)
        log_sum = float(logits[best]) - logprob
        # probability mass that is due to the bias
        biased = float(np.exp(_values(logits, ids) - log_sum) @ shares)
        return -math.log1p(-min(biased, 1 - 1e-6)) - self.hotwords.bias(state.n_pending)

    def pending_bias(self, sampled: Sequence[int]) -> float:
        """Return the bias to take back if the text is cut off here."""
        return self.hotwords.bias(self._state(sampled).n_pending)

    def model_logprob(self, sampled: Sequence[int], score: float) -> float:
        """Return the model's own log-probability of a finished text, given its corrected score."""
        return score - self.hotwords.advance(self.hotwords.initial_state(), sampled).confirmed

    def score_corrections(self, logits: Tensor, tokens: Tensor) -> Tensor:
        """Return `score_correction` for each row, 0 where it has ended."""
        logprobs, best = logits.float().log_softmax(dim=-1).max(dim=-1)
        return torch.tensor(
            [
                0.0 if sampled[-1:] == [self.tokenizer.eot] else self.score_correction(row, token, logprob, sampled)
                for row, token, logprob, sampled in zip(
                    logits, best.tolist(), logprobs.tolist(), self._sampled(tokens), strict=True
                )
            ],
            dtype=torch.float32,
            device=logits.device,
        )

    def pending_biases(self, tokens: Tensor) -> Tensor:
        """Return `pending_bias` for each row; it is 0 where a row has ended."""
        biases = [self.pending_bias(sampled) for sampled in self._sampled(tokens)]
        return torch.tensor(biases, dtype=torch.float32, device=tokens.device)


def _values(row: Tensor, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Read some of a row's logits."""
    # ten times faster than indexing a tensor
    if row.dtype == torch.float32 and row.device.type == "cpu":
        found: npt.NDArray[np.float32] = row.numpy()[ids]
        return found
    return row[torch.from_numpy(ids).to(row.device)].float().cpu().numpy()


def _write(row: Tensor, ids: npt.NDArray[np.int64], values: npt.NDArray[np.float32] | np.float32) -> None:
    """Overwrite some of a row's logits."""
    if row.dtype == torch.float32 and row.device.type == "cpu":
        row.numpy()[ids] = values
    else:
        row[torch.from_numpy(ids).to(row.device)] = torch.from_numpy(np.asarray(values)).to(row)
