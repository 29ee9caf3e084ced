"""The decoding of one window at one temperature, as a state that advances step by step.

The semantics of `search` and `logit_filters`, on lists: which tokens the decoder reads next, and
which it has sampled. So any number of windows, each with its own options and its own position,
share a decoder step (`step`). Does not schedule windows, knows no audio, and uses logits only to
sample from them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import accumulate, groupby, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..device.lazy_torch import Tensor, as_tensor, torch
from ..device.lazy_torch import functional as F
from ..device.torch_state import clean_state
from ..runtime.interface import Batch, EncodedWindow, Ints, Runner
from .search import best_extensions, fill_up
from .token_rules import RowRule, rules

if TYPE_CHECKING:
    from .plan import SamplingPlan

Floats = npt.NDArray[np.float32]


class WindowSampling:
    """The sampling of one window.

    Attributes
    ----------
    rows
        The runner's KV-cache rows, one per text; taken by the first `step`, freed by the last or by
        `release`.
    done
        Whether `candidates` are final.
    no_speech_prob
        Probability of <|nospeech|> at the start token; known after the first step.
    """

    def __init__(self, plan: SamplingPlan, window: EncodedWindow) -> None:
        self.plan = plan
        self.window = window
        self.rows: list[int] = []
        self.restart()

    def restart(self) -> None:
        """Discard everything that was sampled."""
        n = self.plan.n_group
        self.n_steps = 0
        self.done = False
        self.no_speech_prob = math.nan
        self._texts: list[tuple[int, ...]] = [()] * n  # without the initial tokens
        self._sums: list[np.float32] = [np.float32(0)] * n  # summed in float32, as by torch
        self._sums_after: list[tuple[float, ...]] = [()] * n  # after each token of a text
        self._live = [0]  # the prefill is shared by all
        self._finished: dict[tuple[int, ...], float] = {}
        self._finished_sums: dict[tuple[int, ...], tuple[float, ...]] = {}  # likewise
        self._generator: torch.Generator | None = None

    def items(self) -> list[tuple[int, int, int]]:
        """Return token, row and position of each item that the decoder reads next."""
        initial = self.plan.initial_tokens
        if not self.n_steps:
            return [(token, self.rows[0], position) for position, token in enumerate(initial)]
        position = len(initial) + self.n_steps - 1
        return [(self._texts[i][-1], self.rows[i], position) for i in self._live]

    def next_rules(self) -> list[RowRule]:
        """Return the rule for the next token of each live row."""
        return [self.plan.rules.next_rule(self._texts[i]) for i in self._live]

    def apply_row_filters(self, logits: Tensor) -> None:
        """Change the logits of the live rows, ``(n_live, n_vocab)``, in place."""
        if not self.plan.row_filters:
            return
        logits = as_tensor(logits)
        for row_filter in self.plan.row_filters:
            for i, row in zip(self._live, logits, strict=True):
                row_filter.apply_to_row(row, self._texts[i])

    def advance(self, ids: Ints, logprobs: Floats, logits: Tensor) -> list[int] | None:
        """Extend the live texts by one token.

        Parameters
        ----------
        ids, logprobs
            The most probable tokens of each live row, ``(n_live, plan.n_best)``.
        logits
            The logits after the rules, ``(n_live, n_vocab)``, to sample from.

        Returns
        -------
        For each of `rows` the row that it now continues; None if no row changes.
        """
        first = not self.n_steps
        self.n_steps += 1
        if self.plan.hotwords is not None:
            logprobs = logprobs.copy()
            for at, i in enumerate(self._live):
                best, logprob = int(ids[at, 0]), float(logprobs[at, 0])
                logprobs[at] += self.plan.hotwords.score_correction(
                    as_tensor(logits[at]), best, logprob, self._texts[i]
                )
        if self.plan.max_candidates is not None:
            return self._advance_beams(ids, logprobs)
        if first:
            self._live = list(range(self.plan.n_group))
        if self.plan.temperature > 0:
            tokens, chosen = self._sample(ids, logprobs, logits)
        else:
            tokens, chosen = ids[:, 0].tolist(), logprobs[:, 0]
        ended = set()
        for i, token, logprob in zip(self._live, tokens, chosen, strict=True):
            self._sums[i] += logprob
            if token == self.plan.eot:
                ended.add(i)
            else:
                self._texts[i] += (token,)
                self._sums_after[i] += (float(self._sums[i]),)
        self._live = [i for i in self._live if i not in ended]
        self.done = not self._live or self.n_steps >= self.plan.max_steps
        return [self.rows[0]] * len(self.rows) if first and len(self.rows) > 1 else None

    def _sample(self, ids: Ints, logprobs: Floats, logits: Tensor) -> tuple[list[int], Floats]:
        """Sample a token for each live row; returns also log-probabilities, at temperature 1."""
        plan, n, logits = self.plan, len(self._live), as_tensor(logits)
        if plan.seed is not None and self._generator is None:
            self._generator = torch.Generator(device=logits.device).manual_seed(plan.seed)
        probabilities = F.softmax(logits.float() / plan.temperature, dim=-1).expand(n, -1)
        if n < plan.n_group:
            # sample for ended texts, too: the reference loop uses random numbers in this order
            every = probabilities.new_ones(plan.n_group, logits.shape[1])
            every[self._live] = probabilities
            sampled = torch.multinomial(every, 1, replacement=True, generator=self._generator)[self._live]
        else:
            sampled = torch.multinomial(probabilities, 1, replacement=True, generator=self._generator)
        # the difference to the most probable token is the same before and after normalising
        best = torch.from_numpy(ids[:, :1]).to(logits.device, torch.long).expand(n, -1)
        pair = logits.expand(n, -1).gather(1, torch.cat([sampled, best], dim=1)).cpu().numpy()
        return sampled[:, 0].tolist(), logprobs[:, 0] + (pair[:, 0] - pair[:, 1])

    def _advance_beams(self, ids: Ints, logprobs: Floats) -> list[int] | None:
        plan, texts, sums_after = self.plan, self._texts, self._sums_after
        assert plan.max_candidates is not None
        sums = np.array([self._sums[i] for i in self._live], dtype=np.float32)
        scores = (sums[:, None] + logprobs).tolist()
        live, ended = best_extensions(self._live, ids.tolist(), scores, plan.n_group, plan.eot)
        for score, i, token in ended[: max(0, plan.max_candidates - len(self._finished))]:
            text = (*texts[i], token)
            self._finished[text], self._finished_sums[text] = score, sums_after[i]
        self._texts = [(*texts[i], token) for _, i, token in live]
        self._sums_after = [(*sums_after[i], score) for score, i, _ in live]
        self._sums = [np.float32(score) for score, _, _ in live]
        self._live = list(range(plan.n_group))
        self.done = len(self._finished) >= plan.max_candidates or self.n_steps >= plan.max_steps
        sources = [self.rows[i] for _, i, _ in live]
        return None if sources == self.rows else sources

    def candidates(self) -> tuple[list[list[int]], list[float]]:
        """Return the candidates, without prompt and end, and their summed log-probabilities."""
        sums = [float(score) for score in self._sums]
        if self.plan.hotwords is not None:
            for i in self._live:
                sums[i] -= self.plan.hotwords.pending_bias(self._texts[i])
        if self.plan.max_candidates is None:
            return [list(text) for text in self._texts], sums
        finished = dict(self._finished)
        fill_up(finished, self._texts, sums, self.plan.n_group, self.plan.eot)
        return [list(text[:-1]) for text in finished], list(finished.values())

    def token_logprobs(self, tokens: Sequence[int]) -> list[float]:
        """Return the log-probability of each token of a candidate, with the boost of hotwords."""
        text = tuple(tokens)
        sums = self._finished_sums.get((*text, self.plan.eot))
        if sums is None:
            sums = self._sums_after[self._texts.index(text)]
        return [after - before for before, after in pairwise((0.0, *sums))]


@clean_state()
def step(runner: Runner, samplings: Iterable[WindowSampling]) -> None:
    """Run one decoder step for several windows; the caller holds the runner exclusively.

    Raises
    ------
    Exception
        Any error of the runner; then the windows must be released and restarted.
    """
    ordered = sorted(samplings, key=lambda s: s.plan.n_best)  # so that those of equal n_best are adjacent
    for s in ordered:
        if not s.rows:
            s.rows = runner.take_rows(s.plan.n_group)
    batch, prefills, n_sampled = _batch_of(ordered)
    logits = runner.forward(batch)  # (len(batch.logit_indices), n_vocab)
    if prefills:  # before the token rules change the logits in place
        at_sot = _softmax(logits[list(prefills.values())])
        for s, probabilities in zip(prefills, at_sot, strict=True):
            s.no_speech_prob = float(probabilities[s.plan.no_speech])
    _select_tokens(runner, ordered, logits[:n_sampled])


def _batch_of(ordered: Sequence[WindowSampling]) -> tuple[Batch, dict[WindowSampling, int], int]:
    """Put the next tokens of all windows into one batch.

    Returns
    -------
    The batch; for each window that begins, the index of its start of transcript among the logits;
    and how many of the logits, the first ones, are sampled from.
    """
    items: list[tuple[int, int, int]] = []  # token, row and position
    windows: list[EncodedWindow] = []
    logit_indices: list[int] = []
    sot_items: dict[WindowSampling, int] = {}
    for s in ordered:
        n_before = len(items)
        items += s.items()
        windows += [s.window] * (len(items) - n_before)
        if s.n_steps:
            logit_indices += range(n_before, len(items))
        else:
            logit_indices.append(len(items) - 1)
            sot_items[s] = n_before + s.plan.sot_index
    n_sampled = len(logit_indices)
    logit_indices += sorted(set(sot_items.values()).difference(logit_indices))
    tokens, rows, positions = zip(*items, strict=True)
    prefills = {s: logit_indices.index(item) for s, item in sot_items.items()}
    return Batch(tokens, rows, positions, windows, logit_indices), prefills, n_sampled


def _select_tokens(runner: Runner, ordered: Sequence[WindowSampling], logits: Tensor) -> None:
    """Select the next tokens from the logits of all live rows, ``(n_rows, n_vocab)``."""
    selected: list[tuple[WindowSampling, Ints, Floats, Tensor]] = []
    begin = 0
    for n_best, group in groupby(ordered, key=lambda s: s.plan.n_best):
        members = list(group)
        rules_of = [s.next_rules() for s in members]
        ends = [begin, *(begin + n for n in accumulate(map(len, rules_of)))]
        for s, (first, last) in zip(members, pairwise(ends), strict=True):
            s.apply_row_filters(logits[first:last])
        mask = rules([rule for own_rules in rules_of for rule in own_rules])
        ids, logprobs = runner.select_tokens(logits[begin : ends[-1]], mask, n_best)
        for s, (first, last) in zip(members, pairwise(ends), strict=True):
            own = slice(first - begin, last - begin)
            selected.append((s, ids[own], logprobs[own], logits[first:last]))
        begin = ends[-1]
    for s, own_ids, own_logprobs, own_logits in selected:
        sources = s.advance(own_ids, own_logprobs, own_logits)
        if s.done:
            release(runner, s)
        elif sources is not None:
            runner.reorder(s.rows, sources)


def release(runner: Runner, sampling: WindowSampling) -> None:
    """Free a window's rows, if it has any."""
    rows, sampling.rows = sampling.rows, []
    if rows:
        runner.free_rows(rows)


def _softmax(logits: Any) -> Any:
    """Return probabilities over the last axis, as what the logits are, a tensor or an array."""
    if isinstance(logits, Tensor):
        return logits.float().softmax(dim=-1)
    shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shares / shares.sum(axis=-1, keepdims=True)


@clean_state()
def language_probs(
    runner: Runner, windows: Sequence[EncodedWindow], sot: int, languages: Sequence[int]
) -> list[list[float]]:
    """Return, for each window, the probability of each language token after `sot`."""
    n = len(windows)
    rows = runner.take_rows(n)
    try:
        logits = runner.forward(Batch([sot] * n, rows, [0] * n, windows, range(n)))
        probs: list[list[float]] = _softmax(logits[:, list(languages)]).tolist()
    finally:
        runner.free_rows(rows)
    return probs
