"""Rules on the logits of the next token: what may not be said here, and what is likelier.

Each filter changes the logits in place, all rows of a batch at once; a `RowFilter` looks at each row for itself, and
serves a fast path as it is. Nothing is sampled here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from . import loops
from .hotwords import Hotwords, Place
from .tokenizer import Tokenizer


class LogitFilter:
    """One rule; subclass it and append it to ``DecodingTask.logit_filters`` to add your own."""

    def apply(self, logits: Tensor, tokens: Tensor) -> None:
        """Mask what is forbidden, in place.

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
    """The given tokens never come."""

    def __init__(self, suppress_tokens: Sequence[int]) -> None:
        self.suppress_tokens = list(suppress_tokens)
        self._index: Tensor | None = None  # made once, on the device of the first logits

    def apply(self, logits: Tensor, tokens: Tensor) -> None:
        if self._index is None or self._index.device != logits.device:
            self._index = torch.tensor(self.suppress_tokens, dtype=torch.long, device=logits.device)
        logits.index_fill_(1, self._index, -torch.inf)


class ApplyTimestampRules(LogitFilter):
    """Timestamps come in pairs around text, never go back, and win where they are likelier than any word.

    Parameters
    ----------
    max_initial_timestamp_index
        The first timestamp is at most this many steps (of 20 ms) into the window; None for no limit.
    """

    def __init__(self, tokenizer: Tokenizer, sample_begin: int, max_initial_timestamp_index: int | None) -> None:
        self.tokenizer = tokenizer
        self.sample_begin = sample_begin
        self.max_initial_timestamp_index = max_initial_timestamp_index

    def apply(self, logits: Tensor, tokens: Tensor) -> None:
        if self.tokenizer.no_timestamps is not None:
            logits[:, self.tokenizer.no_timestamps] = -torch.inf
        if tokens.shape[1] == self.sample_begin:
            self._begin_with_timestamp(logits)
        else:
            self._keep_order(logits, tokens[:, self.sample_begin :])
        self._prefer_timestamps(logits)

    def _begin_with_timestamp(self, logits: Tensor) -> None:
        first = self.tokenizer.timestamp_begin
        logits[:, :first] = -torch.inf
        if self.max_initial_timestamp_index is not None:
            logits[:, first + self.max_initial_timestamp_index + 1 :] = -torch.inf

    def _keep_order(self, logits: Tensor, sampled: Tensor) -> None:
        """Hold the pairs and the order, given the tokens sampled so far, ``(n_batch, n_sampled >= 1)``."""
        first = self.tokenizer.timestamp_begin
        is_timestamp = sampled >= first
        last_was = is_timestamp[:, -1:]  # (n_batch, 1)
        pair_closed = is_timestamp[:, -2:-1] if sampled.shape[1] > 1 else torch.ones_like(last_was)
        opened = last_was & ~pair_closed  # text, then one timestamp: its twin or the end must follow
        logits[:, : self.tokenizer.eot].masked_fill_(opened, -torch.inf)
        # below the last timestamp nothing; nor that one again, unless as the start of the next segment:
        # so every segment has a length, and decoding comes to an end
        latest = torch.where(is_timestamp, sampled, -1).amax(dim=1, keepdim=True)  # -1 where there is none
        lowest = torch.where(opened, latest, latest + 1)
        steps = torch.arange(first, logits.shape[1], dtype=torch.long, device=logits.device)  # (n_timestamps,)
        forbidden = (steps < lowest) | (last_was & pair_closed)
        logits[:, first:].masked_fill_(forbidden, -torch.inf)

    def _prefer_timestamps(self, logits: Tensor) -> None:
        """Where all timestamps together are likelier than the likeliest word, a timestamp it is."""
        first = self.tokenizer.timestamp_begin
        any_timestamp = logits[:, first:].logsumexp(dim=-1, keepdim=True)
        best_text = logits[:, :first].amax(dim=-1, keepdim=True)
        logits[:, :first].masked_fill_(any_timestamp > best_text, -torch.inf)


# ---------------------------------------------------------------------------------------------------------
# By what a row has said
# ---------------------------------------------------------------------------------------------------------


class RowFilter(LogitFilter):
    """A rule for a row that follows from the tokens it has sampled."""

    def __init__(self, tokenizer: Tokenizer, sample_begin: int) -> None:
        self.tokenizer = tokenizer
        self.sample_begin = sample_begin

    def apply(self, logits: Tensor, tokens: Tensor) -> None:
        for row, sampled in zip(logits, self._sampled(tokens), strict=True):
            self.edit(row, sampled)

    def edit(self, logits: Tensor, sampled: Sequence[int]) -> None:
        """Change the logits of a single row, ``(n_vocab,)``, in place."""
        raise NotImplementedError

    def _sampled(self, tokens: Tensor) -> list[list[int]]:
        sampled: list[list[int]] = tokens[:, self.sample_begin :].tolist()
        return sampled

    def _text(self, sampled: Sequence[int]) -> list[int]:
        """Return the tokens of text among these."""
        eot = self.tokenizer.eot
        return [token for token in sampled if token < eot]


class StopLoops(RowFilter):
    """A text that goes round in circles ends, whatever the other rules say: this one comes last."""

    def edit(self, logits: Tensor, sampled: Sequence[int]) -> None:
        if loops.detect(sampled, self.tokenizer.timestamp_begin):
            logits.fill_(-torch.inf)
            logits[self.tokenizer.eot] = 0


class PenalizeRepetition(RowFilter):
    """Tokens of text that were said become less likely (CTRL, Keskar et al. 2019, arXiv:1909.05858, section 4.1).

    Parameters
    ----------
    penalty
        Divides a logit above 0, multiplies one below.
    """

    def __init__(self, tokenizer: Tokenizer, sample_begin: int, penalty: float) -> None:
        super().__init__(tokenizer, sample_begin)
        self.penalty = penalty

    def edit(self, logits: Tensor, sampled: Sequence[int]) -> None:
        ids = np.array([*{*self._text(sampled)}], dtype=np.int64)
        values = _values(logits, ids)
        _write(logits, ids, np.where(values > 0, values / self.penalty, values * self.penalty))


class NoRepeatNgram(RowFilter):
    """No so many tokens of text in a row come twice; timestamps between them do not count."""

    def __init__(self, tokenizer: Tokenizer, sample_begin: int, size: int) -> None:
        super().__init__(tokenizer, sample_begin)
        self.size = size

    def edit(self, logits: Tensor, sampled: Sequence[int]) -> None:
        text, n = self._text(sampled), self.size - 1
        begun = text[len(text) - n :]
        again = [
            text[i] for i in range(n, len(text)) if not n or (text[i - 1] == begun[-1] and text[i - n : i] == begun)
        ]
        _write(logits, np.array(again, dtype=np.int64), np.float32(-np.inf))


class BoostHotwords(RowFilter):
    """Tokens that begin or continue a phrase become likelier; see `Hotwords` for which, and by how much.

    A search adds up log-probabilities of the logits as they are after this. `settle` gives what they lack to be the
    model's own with the credit of phrases beside them: so a score can be compared with that of another text, and freed
    of all credit when the text is whole.
    """

    def __init__(self, tokenizer: Tokenizer, sample_begin: int, hotwords: Hotwords) -> None:
        super().__init__(tokenizer, sample_begin)
        self.hotwords = hotwords
        self._places: dict[tuple[int, ...], Place] = {(): hotwords.begin()}  # by what was said since a timestamp

    def _place(self, sampled: Sequence[int]) -> Place:
        begin = end = len(sampled)
        while begin and sampled[begin - 1] < self.tokenizer.timestamp_begin:
            begin -= 1
        said = tuple(sampled[begin:end])
        if said not in self._places:
            self._places[said] = self.hotwords.follow(self._place(sampled[begin : end - 1]), said[-1:])
        return self._places[said]

    def edit(self, logits: Tensor, sampled: Sequence[int]) -> None:
        ids, bonuses, _ = self.hotwords.bonuses(self._place(sampled))
        _write(logits, ids, _values(logits, ids) + bonuses)

    def settle(self, logits: Tensor, best: int, logprob: float, sampled: Sequence[int]) -> float:
        """Return what to add to the score of a text before it says its next token.

        Parameters
        ----------
        logits
            Of that token, after all rules, ``(n_vocab,)``.
        best, logprob
            A token that may come, and its log-probability by these.
        """
        place = self._place(sampled)
        ids, _, shares = self.hotwords.bonuses(place)
        log_sum = float(logits[best]) - logprob
        risen = float(np.exp(_values(logits, ids) - log_sum) @ shares)  # of all probability, what is bonus
        return -math.log1p(-min(risen, 1 - 1e-6)) - self.hotwords.credit(place.n_open)

    def unsettled(self, sampled: Sequence[int]) -> float:
        """Return the credit that a text gives back if it is cut off here."""
        return self.hotwords.credit(self._place(sampled).n_open)

    def model_logprob(self, sampled: Sequence[int], score: float) -> float:
        """Return the model's own log-probability of a text that has settled, given its score."""
        return score - self.hotwords.follow(self.hotwords.begin(), sampled).kept

    def settle_all(self, logits: Tensor, tokens: Tensor) -> Tensor:
        """Return `settle` for each row, 0 where it has ended; see `apply` for the arguments."""
        logprobs, best = logits.float().log_softmax(dim=-1).max(dim=-1)
        return torch.tensor(
            [
                0.0 if said[-1:] == [self.tokenizer.eot] else self.settle(row, token, logprob, said)
                for row, token, logprob, said in zip(
                    logits, best.tolist(), logprobs.tolist(), self._sampled(tokens), strict=True
                )
            ],
            dtype=torch.float32,
            device=logits.device,
        )

    def unsettled_all(self, tokens: Tensor) -> Tensor:
        """Return `unsettled` for each row; what has ended has settled."""
        credits = [self.unsettled(sampled) for sampled in self._sampled(tokens)]
        return torch.tensor(credits, dtype=torch.float32, device=tokens.device)


def _values(row: Tensor, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Return some of a row's logits."""
    if row.dtype == torch.float32 and row.device.type == "cpu":  # ten times as fast
        found: npt.NDArray[np.float32] = row.numpy()[ids]
        return found
    return row[torch.from_numpy(ids).to(row.device)].float().cpu().numpy()


def _write(row: Tensor, ids: npt.NDArray[np.int64], values: npt.NDArray[np.float32] | np.float32) -> None:
    """Overwrite some of a row's logits."""
    if row.dtype == torch.float32 and row.device.type == "cpu":
        row.numpy()[ids] = values
    else:
        row[torch.from_numpy(ids).to(row.device)] = torch.from_numpy(np.asarray(values)).to(row)
