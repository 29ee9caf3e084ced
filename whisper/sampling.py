"""One window decoded at one temperature, as a state that is stepped: what a fast path runs instead of a loop.

The semantics of `search` and `logit_filters`, on lists: which tokens go in next, and what becomes of those that come
out. So any number of windows, each with its own options and at its own place, share a step (`step`). Knows neither
which window runs nor where sound comes from, and touches no logits but to draw from them.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import TracebackType
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from . import processes
from .logit_filters import BoostHotwords, RowFilter
from .runner import Audio, Ints, Runner
from .search import best_extensions, fill_up
from .token_rules import RowRule, RowRules, rules
from .torch_state import clean_state

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class SamplingPlan:
    """How a window is sampled: `DecodingOptions` and the model's numbers, settled."""

    initial_tokens: tuple[int, ...]  # prompt, start and prefix
    sot_index: int  # place of <|startoftranscript|> among them
    max_steps: int  # at most so many tokens
    rules: RowRules
    eot: int
    no_speech: int  # the token whose probability at the start tells silence
    n_group: int = 1  # beams, or samples to choose from
    temperature: float = 0.0
    max_candidates: int | None = None  # of a beam search, which this makes it; done with so many finished texts
    seed: int | None = None  # None draws from torch's own generator
    edits: tuple[RowFilter, ...] = ()  # of the logits, before the rules
    boosts: BoostHotwords | None = None  # the one among them whose scores must be settled

    @property
    def n_best(self) -> int:
        """How many candidates for each row's next token are asked for."""
        return 1 if self.max_candidates is None else self.n_group + 1


class WindowSampling:
    """A window on its way to its text.

    Attributes
    ----------
    rows
        The runner's rows, one per text; taken by the first `step`, given back by the last or by `release`.
    done
        Whether `candidates` are final.
    no_speech_prob
        Probability of <|nospeech|> at the start, after the first step.
    """

    def __init__(self, plan: SamplingPlan, audio: Audio) -> None:
        self.plan = plan
        self.audio = audio
        self.rows: list[int] = []
        self.restart()

    def restart(self) -> None:
        """Forget all that was sampled."""
        n = self.plan.n_group
        self.n_steps = 0
        self.done = False
        self.no_speech_prob = math.nan
        self._texts: list[tuple[int, ...]] = [()] * n  # without the initial tokens
        self._sums: list[np.float32] = [np.float32(0)] * n  # as torch would add them up
        self._live = [0]  # the prompt is read once for all
        self._finished: dict[tuple[int, ...], float] = {}
        self._generator: torch.Generator | None = None

    def items(self) -> list[tuple[int, int, int]]:
        """Return token, row and position of what the decoder must read next."""
        initial = self.plan.initial_tokens
        if not self.n_steps:
            return [(token, self.rows[0], position) for position, token in enumerate(initial)]
        position = len(initial) + self.n_steps - 1
        return [(self._texts[i][-1], self.rows[i], position) for i in self._live]

    def next_rules(self) -> list[RowRule]:
        """Return the rules for the next token of each row that is live."""
        return [self.plan.rules.next_rule(self._texts[i]) for i in self._live]

    def edit(self, logits: Tensor) -> None:
        """Change the logits of each row that is live, ``(n_live, n_vocab)``, in place."""
        for row_filter in self.plan.edits:
            for i, row in zip(self._live, logits, strict=True):
                row_filter.edit(row, self._texts[i])

    def advance(self, ids: Ints, logprobs: Floats, logits: Tensor) -> list[int] | None:
        """Extend the live texts by one token.

        Parameters
        ----------
        ids, logprobs
            The likeliest tokens of each live row, ``(n_live, plan.n_best)``.
        logits
            Their logits after the rules, ``(n_live, n_vocab)``, to draw from.

        Returns
        -------
        For each of `rows` the row that it now continues; None where they all stay.
        """
        first = not self.n_steps
        self.n_steps += 1
        if self.plan.boosts is not None:
            logprobs = self._settle(self.plan.boosts, ids, logprobs, logits)
        if self.plan.max_candidates is not None:
            return self._advance_beams(ids, logprobs)
        if first:
            self._live = list(range(self.plan.n_group))
        if self.plan.temperature > 0:
            tokens, chosen = self._draw(ids, logprobs, logits)
        else:
            tokens, chosen = ids[:, 0].tolist(), logprobs[:, 0]
        ended = set()
        for i, token, logprob in zip(self._live, tokens, chosen, strict=True):
            self._sums[i] += logprob
            if token == self.plan.eot:
                ended.add(i)
            else:
                self._texts[i] += (token,)
        self._live = [i for i in self._live if i not in ended]
        self.done = not self._live or self.n_steps >= self.plan.max_steps
        return [self.rows[0]] * len(self.rows) if first and len(self.rows) > 1 else None

    def _settle(self, boosts: BoostHotwords, ids: Ints, logprobs: Floats, logits: Tensor) -> Floats:
        settled: Floats = logprobs.copy()
        for at, i in enumerate(self._live):
            settled[at] += boosts.settle(logits[at], int(ids[at, 0]), float(logprobs[at, 0]), self._texts[i])
        return settled

    def _draw(self, ids: Ints, logprobs: Floats, logits: Tensor) -> tuple[list[int], Floats]:
        """Draw a token per live row, and return its log-probability without the temperature."""
        plan, n = self.plan, len(self._live)
        if plan.seed is not None and self._generator is None:
            self._generator = torch.Generator(device=logits.device).manual_seed(plan.seed)
        probabilities = F.softmax(logits.float() / plan.temperature, dim=-1).expand(n, -1)
        if n < plan.n_group:
            # the texts that have ended draw, too, so that the others get the numbers that the reference loop gives them
            every = probabilities.new_ones(plan.n_group, logits.shape[1])
            every[self._live] = probabilities
            drawn = torch.multinomial(every, 1, replacement=True, generator=self._generator)[self._live]
        else:
            drawn = torch.multinomial(probabilities, 1, replacement=True, generator=self._generator)
        # how much less likely than the best one
        best = torch.from_numpy(ids[:, :1]).to(logits.device, torch.long).expand(n, -1)
        less = logits.expand(n, -1).gather(1, torch.cat([drawn, best], dim=1)).cpu().numpy()
        return drawn[:, 0].tolist(), logprobs[:, 0] + (less[:, 0] - less[:, 1])

    def _advance_beams(self, ids: Ints, logprobs: Floats) -> list[int] | None:
        plan, texts = self.plan, self._texts
        assert plan.max_candidates is not None
        sums = np.array([self._sums[i] for i in self._live], dtype=np.float32)
        scores = (sums[:, None] + logprobs).tolist()
        live, ended = best_extensions(self._live, ids.tolist(), scores, plan.n_group, plan.eot)
        for score, i, token in ended[: max(0, plan.max_candidates - len(self._finished))]:
            text = (*texts[i], token)
            self._finished[text] = score
        self._texts = [(*texts[i], token) for _, i, token in live]
        self._sums = [np.float32(score) for score, _, _ in live]
        self._live = list(range(plan.n_group))
        self.done = len(self._finished) >= plan.max_candidates or self.n_steps >= plan.max_steps
        sources = [self.rows[i] for _, i, _ in live]
        return None if sources == self.rows else sources

    def candidates(self) -> tuple[list[list[int]], list[float]]:
        """Return the texts to choose from, without prompt and end, and their summed log-probabilities."""
        sums = [float(score) for score in self._sums]
        if self.plan.boosts is not None:
            for i in self._live:
                sums[i] -= self.plan.boosts.unsettled(self._texts[i])
        if self.plan.max_candidates is None:
            return [list(text) for text in self._texts], sums
        finished = dict(self._finished)
        fill_up(finished, self._texts, sums, self.plan.n_group, self.plan.eot)
        return [list(text[:-1]) for text in finished], list(finished.values())


@clean_state()
def step(runner: Runner, samplings: Iterable[WindowSampling]) -> None:
    """Let each of several windows that are not done say one token more; the caller has the runner for itself.

    Raises
    ------
    Exception
        Whatever the runner raises; then the windows must `release` and `restart`.
    """
    ordered = sorted(samplings, key=lambda s: s.plan.n_best)  # those that are chosen for together stand together
    tokens: list[int] = []
    rows: list[int] = []
    positions: list[int] = []
    audios: list[Audio] = []
    wanted: list[int] = []
    openings: list[tuple[WindowSampling, int]] = []  # where each window that begins has its start
    for s in ordered:
        if not s.rows:
            s.rows = runner.take_rows(s.plan.n_group)
        n_before = len(tokens)
        for token, row, position in s.items():
            tokens.append(token)
            rows.append(row)
            positions.append(position)
            audios.append(s.audio)
        if s.n_steps:
            wanted += range(n_before, len(tokens))
        else:
            wanted.append(len(tokens) - 1)
            openings.append((s, n_before + s.plan.sot_index))
    starts = [at for _, at in openings]
    n_chosen = len(wanted)
    wanted += [at for at in starts if at not in wanted[:n_chosen]]

    logits = runner.forward(tokens, rows, positions, audios, wanted)  # (len(wanted), n_vocab)
    if openings:  # before the rules are applied, in place
        at_start = logits[[wanted.index(at) for at in starts]].float().softmax(dim=-1)
        for (s, _), probabilities in zip(openings, at_start, strict=True):
            s.no_speech_prob = float(probabilities[s.plan.no_speech])
    _choose(runner, ordered, logits[:n_chosen])


def _choose(runner: Runner, ordered: Sequence[WindowSampling], logits: Tensor) -> None:
    """Choose the next tokens from the logits of all live rows, ``(n_rows, n_vocab)``, and take them over."""
    chosen: list[tuple[WindowSampling, Ints, Floats, Tensor]] = []
    end = 0
    for n_best, together in groupby(ordered, key=lambda s: s.plan.n_best):
        begin, members, row_rules = end, [], list[RowRule]()
        for s in together:
            row_rules += (rules_of := s.next_rules())
            own = logits[end : (end := end + len(rules_of))]
            s.edit(own)
            members.append((s, own))
        ids, logprobs = runner.choose(logits[begin:end], rules(row_rules), n_best)
        at = 0
        for s, own in members:
            chosen.append((s, ids[at : at + len(own)], logprobs[at : at + len(own)], own))
            at += len(own)
    for s, own_ids, own_logprobs, own_logits in chosen:
        sources = s.advance(own_ids, own_logprobs, own_logits)
        if s.done:
            release(runner, s)
        elif sources is not None:
            runner.reorder(s.rows, sources)


def release(runner: Runner, sampling: WindowSampling) -> None:
    """Give a window's rows back, if it has any."""
    rows, sampling.rows = sampling.rows, []
    if rows:
        runner.free_rows(rows)


@clean_state()
def language_probs(runner: Runner, audios: Sequence[Audio], sot: int, languages: Sequence[int]) -> list[list[float]]:
    """Return, for each window, the probability of each of the language tokens after `sot`."""
    rows = runner.take_rows(len(audios))
    try:
        n = len(audios)
        logits = runner.forward([sot] * n, rows, [0] * n, audios, range(n))
        probs: list[list[float]] = logits[:, list(languages)].float().softmax(dim=-1).tolist()
    finally:
        runner.free_rows(rows)
    return probs


# ---------------------------------------------------------------------------------------------------------
# A runner serves one thread at a time
# ---------------------------------------------------------------------------------------------------------


class Turns:
    """A lock that is given in the order of asking: who asks again at once stands behind those that wait."""

    def __init__(self) -> None:
        self._guard = processes.lock()
        self._line: deque[threading.Lock] = deque()  # the first has its turn; the others wait for theirs

    def __enter__(self) -> None:
        if not processes.begin():
            processes.rest()
        ticket = threading.Lock()
        ticket.acquire()
        with self._guard:
            self._line.append(ticket)
            if len(self._line) == 1:
                return
        try:
            ticket.acquire()
        except BaseException:  # Ctrl-C while waiting
            self._leave(ticket)
            processes.end()
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._leave(self._line[0])
        processes.end()

    def _leave(self, ticket: threading.Lock) -> None:
        with self._guard:
            had_turn = self._line[0] is ticket
            self._line.remove(ticket)
            if had_turn and self._line:
                self._line[0].release()


_TURNS: WeakKeyDictionary[Any, Turns] = WeakKeyDictionary()
_TURNS_GUARD = processes.lock()


def turns(runner: Runner) -> Turns:
    """Return the lock of a runner: ``with turns(runner):`` before anything is asked of it."""
    with _TURNS_GUARD:
        return _TURNS.setdefault(runner, Turns())


class Shared:
    """A runner that other threads use: what word times ask of it waits for its turn."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def attend(
        self, audio: Audio, tokens: Sequence[int], heads: Sequence[tuple[int, int]], n_skipped: int, n_text: int
    ) -> tuple[Tensor, Tensor]:
        """See `Runner.attend`; what is returned here belongs to the caller, since the next turn is somebody else's."""
        with turns(self._runner):
            qk, logits = self._runner.attend(audio, tokens, heads, n_skipped, n_text)
            return qk.clone(), logits.clone()
