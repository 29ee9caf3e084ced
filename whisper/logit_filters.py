"""Rules on the logits of the next token: what may not be said here.

Each filter changes the logits in place, all rows of a batch at once. Nothing is sampled here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import loops
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
        steps = torch.arange(first, logits.shape[1], device=logits.device)  # (n_timestamps,)
        forbidden = (steps < lowest) | (last_was & pair_closed)
        logits[:, first:].masked_fill_(forbidden, -torch.inf)

    def _prefer_timestamps(self, logits: Tensor) -> None:
        """Where all timestamps together are likelier than the likeliest word, a timestamp it is."""
        first = self.tokenizer.timestamp_begin
        any_timestamp = logits[:, first:].logsumexp(dim=-1, keepdim=True)
        best_text = logits[:, :first].amax(dim=-1, keepdim=True)
        logits[:, :first].masked_fill_(any_timestamp > best_text, -torch.inf)


class StopLoops(LogitFilter):
    """A text that goes round in circles ends, whatever the other rules say: this one comes last."""

    def __init__(self, tokenizer: Tokenizer, sample_begin: int) -> None:
        self.tokenizer = tokenizer
        self.sample_begin = sample_begin

    def apply(self, logits: Tensor, tokens: Tensor) -> None:
        for row, sampled in zip(logits, tokens[:, self.sample_begin :].tolist(), strict=True):
            if loops.detect(sampled, self.tokenizer.timestamp_begin):
                row.fill_(-torch.inf)
                row[self.tokenizer.eot] = 0
