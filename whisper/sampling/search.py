"""Token selection: greedy decoding, sampling, beam search, and the ranking of candidates.

Knows logits and token ids, not the network: beam search asks its `Inference` only to reorder the KV
cache.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Sized
from operator import itemgetter
from typing import NamedTuple, Protocol

from ..device.lazy_torch import Tensor, torch
from ..device.lazy_torch import functional as F
from ..errors import OptionError

Candidates = Sequence[Sequence[Tensor]]


class Reorderable(Protocol):
    """The part of an inference that beam search needs: its rows follow the beams."""

    def rearrange_kv_cache(self, source_indices: Sequence[int]) -> None: ...


class SequenceRanker:
    """Selects one candidate per audio."""

    def rank(self, tokens: Sequence[Sequence[Sized]], sum_logprobs: Sequence[Sequence[float]]) -> list[int]:
        """Return, for each audio, the index of the best of its candidates.

        Parameters
        ----------
        tokens
            The candidates' tokens, by audio, without prompt and end.
        sum_logprobs
            Their summed log-probabilities, likewise.
        """
        raise NotImplementedError


class MaximumLikelihoodRanker(SequenceRanker):
    """The highest log-probability, corrected for length.

    Parameters
    ----------
    length_penalty
        None divides by the length; a number is the exponent alpha of Wu et al. 2016
        (arXiv:1609.08144, eq. 14).
    """

    def __init__(self, length_penalty: float | None) -> None:
        self.length_penalty = length_penalty

    def rank(self, tokens: Sequence[Sequence[Sized]], sum_logprobs: Sequence[Sequence[float]]) -> list[int]:
        best = []
        for group, logprobs in zip(tokens, sum_logprobs, strict=True):
            scores = [p / self._penalty(len(t)) for t, p in zip(group, logprobs, strict=True)]
            best.append(max(range(len(scores)), key=scores.__getitem__))
        return best

    def _penalty(self, length: int) -> float:
        if self.length_penalty is None:
            return max(length, 1e-9)  # an empty text ranks last
        return float(((5 + length) / 6) ** self.length_penalty)


class TokenDecoder:
    """Extends sequences by one token a step."""

    def reset(self) -> None:
        """Reset the state for a new decoding."""

    def update(self, tokens: Tensor, logits: Tensor, sum_logprobs: Tensor) -> tuple[Tensor, bool]:
        """Select the next token of each row.

        Parameters
        ----------
        tokens
            ``(n_batch, n_tokens)``, prompt and start sequence included.
        logits
            Filtered logits of the next token, ``(n_batch, n_vocab)``.
        sum_logprobs
            ``(n_batch,)``; updated in place.

        Returns
        -------
        tokens
            ``(n_batch, n_tokens + 1)``.
        completed
            True when every sequence has ended.
        """
        raise NotImplementedError

    def finalize(self, tokens: Tensor, sum_logprobs: Tensor) -> tuple[Candidates, list[list[float]]]:
        """Return the candidates of each audio, each with an end token, and their log-probabilities.

        Parameters
        ----------
        tokens
            ``(n_audio, n_group, n_tokens)``.
        sum_logprobs
            ``(n_audio, n_group)``.
        """
        raise NotImplementedError


class GreedyDecoder(TokenDecoder):
    """The most probable token at temperature 0; above, a sample at that temperature.

    Parameters
    ----------
    seed
        Of the samples; None uses torch's default generator.
    """

    def __init__(self, temperature: float, eot: int, seed: int | None = None) -> None:
        self.temperature = temperature
        self.eot = eot
        self.seed = seed
        self._generator: torch.Generator | None = None

    def reset(self) -> None:
        self._generator = None

    def update(self, tokens: Tensor, logits: Tensor, sum_logprobs: Tensor) -> tuple[Tensor, bool]:
        if self.temperature == 0:
            next_tokens = logits.argmax(dim=-1)
        else:
            probabilities = F.softmax(logits.float() / self.temperature, dim=-1)
            if self.seed is not None and self._generator is None:
                self._generator = torch.Generator(device=logits.device).manual_seed(self.seed)
            next_tokens = torch.multinomial(probabilities, 1, replacement=True, generator=self._generator)[:, 0]

        running = tokens[:, -1] != self.eot
        logprobs = F.log_softmax(logits.float(), dim=-1).gather(1, next_tokens[:, None])[:, 0]
        sum_logprobs += torch.where(running, logprobs, 0)
        next_tokens = torch.where(running, next_tokens, self.eot)
        return torch.cat([tokens, next_tokens[:, None]], dim=-1), bool((next_tokens == self.eot).all())

    def finalize(self, tokens: Tensor, sum_logprobs: Tensor) -> tuple[Candidates, list[list[float]]]:
        ended = F.pad(tokens, (0, 1), value=self.eot)  # unfinished ones end here
        return [list(group) for group in ended], sum_logprobs.tolist()


class Extension(NamedTuple):
    """A row's text with one more token."""

    score: float  # summed log-probability
    row: int
    token: int


def best_extensions(
    rows: Iterable[int], ids: Sequence[Sequence[int]], scores: Sequence[Sequence[float]], beam_size: int, eot: int
) -> tuple[list[Extension], list[Extension]]:
    """Select the extensions of the beams of one audio.

    Parameters
    ----------
    rows
        The rows to extend; no two of them have the same text.
    ids, scores
        By row, the candidates for its next token and the score of the text with it; one more than
        `beam_size`, so that the end of a text takes no live one's place.
    beam_size, eot
        Number of live texts, and the token that ends a text.

    Returns
    -------
    live
        The best `beam_size` that have not ended.
    ended
        Those that have ended, with a better score than the last of these.
    """
    live: list[Extension] = []
    ended: list[Extension] = []
    choices = [Extension(s, row, t) for row in rows for t, s in zip(ids[row], scores[row], strict=True)]
    for choice in sorted(choices, key=itemgetter(0), reverse=True):  # stable: ties stay in order
        if choice.token == eot:
            ended.append(choice)
        else:
            live.append(choice)
            if len(live) == beam_size:
                break
    return live, ended


def n_finished(beam_size: int, patience: float | None) -> int:
    """Return how many finished texts end a beam search."""
    n = round(beam_size * (patience or 1.0))
    if n < 1:
        raise OptionError(
            f"beam_size={beam_size} with patience={patience} makes 0 candidates; their product must be at least 1"
        )
    return n


class BeamSearchDecoder(TokenDecoder):
    """Beam search with patience (Kasai et al. 2022, arXiv:2204.05424).

    Parameters
    ----------
    beam_size
        Unfinished sequences kept per audio.
    patience
        An audio is done when it has ``round(beam_size * patience)`` finished sequences.
    """

    def __init__(self, beam_size: int, eot: int, inference: Reorderable, patience: float | None = None) -> None:
        self.beam_size = beam_size
        self.eot = eot
        self.inference = inference
        self.patience = patience or 1.0
        self.max_candidates = n_finished(beam_size, patience)
        self.finished_sequences: list[dict[tuple[int, ...], float]] | None = None

    def reset(self) -> None:
        self.finished_sequences = None

    def update(self, tokens: Tensor, logits: Tensor, sum_logprobs: Tensor) -> tuple[Tensor, bool]:
        n_batch = tokens.shape[0]
        if n_batch % self.beam_size:
            raise OptionError(f"{n_batch} rows cannot be divided into beams of {self.beam_size}")
        if self.finished_sequences is None:
            self.finished_sequences = [{} for _ in range(n_batch // self.beam_size)]

        logprobs, ids = F.log_softmax(logits.float(), dim=-1).topk(self.beam_size + 1)
        scores = (sum_logprobs[:, None] + logprobs).tolist()
        prefixes, choices = [tuple(row) for row in tokens.tolist()], ids.tolist()

        kept: list[Extension] = []
        for audio, finished in enumerate(self.finished_sequences):
            rows = range(audio * self.beam_size, (audio + 1) * self.beam_size)
            # at the first step all rows are the same
            distinct = {prefixes[row]: row for row in rows}.values()
            live, ended = best_extensions(distinct, choices, scores, self.beam_size, self.eot)
            kept += live
            for score, row, token in ended[: max(0, self.max_candidates - len(finished))]:
                sequence = (*prefixes[row], token)
                finished[sequence] = score

        self.inference.rearrange_kv_cache([row for _, row, _ in kept])
        sum_logprobs.copy_(torch.tensor([score for score, _, _ in kept], dtype=torch.float64, device="cpu"))
        completed = all(len(finished) >= self.max_candidates for finished in self.finished_sequences)
        texts = [(*prefixes[r], token) for _, r, token in kept]
        return torch.tensor(texts, dtype=torch.long, device=tokens.device), completed

    def finalize(self, preceding_tokens: Tensor, sum_logprobs: Tensor) -> tuple[Candidates, list[list[float]]]:
        finished_sequences = self.finished_sequences or [{} for _ in range(preceding_tokens.shape[0])]
        for finished, unfinished, sums in zip(
            finished_sequences, preceding_tokens.tolist(), sum_logprobs.tolist(), strict=True
        ):
            fill_up(finished, [tuple(beam) for beam in unfinished], sums, self.beam_size, self.eot)
        candidates = [
            [torch.tensor(sequence, dtype=torch.long, device="cpu") for sequence in finished]
            for finished in finished_sequences
        ]
        return candidates, [list(finished.values()) for finished in finished_sequences]


def fill_up(
    finished: dict[tuple[int, ...], float],
    unfinished: Sequence[tuple[int, ...]],
    sums: Sequence[float],
    beam_size: int,
    eot: int,
) -> None:
    """Add the best unfinished texts to `finished`, in place, up to `beam_size`."""
    for beam in sorted(range(len(sums)), key=sums.__getitem__, reverse=True):
        if len(finished) >= beam_size:
            break
        sequence = (*unfinished[beam], eot)
        finished[sequence] = sums[beam]
