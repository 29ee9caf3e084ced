"""Texts to scores: aligned words, rates of errors with their uncertainty, distances of word times.

Pure functions on texts and numbers, under the rules of Radford et al. 2022 (arXiv:2212.04356, 4.4 and appendix C):
English is compared after the English normaliser, other languages after the basic one, and those that write no
spaces letter by letter. Knows no model and opens no file; alignments come from ``rapidfuzz``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from .errors import TrainingError
from .normalizers import BasicTextNormalizer, EnglishTextNormalizer

# Chinese, Japanese, Thai, Lao, Burmese, as in the paper; Cantonese came with large-v3
WITHOUT_SPACES = frozenset({"zh", "yue", "ja", "th", "lo", "my"})
N_DRAWS = 1000  # of the bootstrap
CONFIDENCE = 0.95
NEAR = (0.05, 0.1, 0.2)  # seconds within which a word time is counted as right

Word = tuple[str, float, float]  # the word, its start and its end in seconds


# ---------------------------------------------------------------------------------------------------------
# Texts
# ---------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def _normalizer(kind: str) -> Callable[[str], str]:
    return EnglishTextNormalizer() if kind == "en" else BasicTextNormalizer(split_letters=kind == "letters")


def normalize(text: str, language: str | None) -> str:
    """Return `text` as it is compared: normalised for a language (a code), in single spaces.

    What has no known language counts as one with spaces.
    """
    kind = "letters" if language in WITHOUT_SPACES else "en" if language == "en" else "basic"
    return " ".join(_normalizer(kind)(text).split())


def words_of(text: str, language: str | None) -> list[str]:
    """Return the words that are compared; in `WITHOUT_SPACES` each letter is one."""
    return normalize(text, language).split()


def characters_of(text: str, language: str | None) -> list[str]:
    """Return the characters that are compared, spaces between words among them where the language writes any."""
    normal = normalize(text, language)
    return normal.split() if language in WITHOUT_SPACES else list(normal)


# ---------------------------------------------------------------------------------------------------------
# Alignment
# ---------------------------------------------------------------------------------------------------------


class Step(NamedTuple):
    """One place of an alignment: the same, another, a missing or an additional word."""

    expected: str | None  # None: the word was inserted
    said: str | None  # None: the word was deleted

    @property
    def kind(self) -> str:
        """``hit``, ``substitution``, ``deletion`` or ``insertion``."""
        if self.expected is None:
            return "insertion"
        if self.said is None:
            return "deletion"
        return "hit" if self.expected == self.said else "substitution"


@dataclass(frozen=True)
class Edits:
    """How often each kind of step occurs."""

    hits: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def total(self) -> int:
        """Words (or characters) of the reference."""
        return self.hits + self.substitutions + self.deletions

    def __add__(self, other: Edits) -> Edits:
        return Edits(
            self.hits + other.hits,
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
        )


def _levenshtein() -> Any:
    try:
        from rapidfuzz.distance import Levenshtein
    except ImportError:
        raise TrainingError("scoring needs rapidfuzz: pip install 'sotto[eval]'") from None
    return Levenshtein


def align(reference: Sequence[str], hypothesis: Sequence[str]) -> list[Step]:
    """Align two sequences with the fewest substitutions, deletions and insertions.

    Raises
    ------
    TrainingError
        The package ``rapidfuzz`` is missing.
    """
    steps: list[Step] = []
    for code in _levenshtein().opcodes(reference, hypothesis):
        expected: list[str | None] = list(reference[code.src_start : code.src_end])
        said: list[str | None] = list(hypothesis[code.dest_start : code.dest_end])
        n = max(len(expected), len(said))
        expected += [None] * (n - len(expected))
        said += [None] * (n - len(said))
        steps += map(Step, expected, said)
    return steps


def count_edits(steps: Iterable[Step]) -> Edits:
    """Count the steps of an alignment by kind."""
    kinds = [step.kind for step in steps]
    return Edits(*(kinds.count(kind) for kind in ("hit", "substitution", "deletion", "insertion")))


def word_errors(reference: Sequence[str], hypothesis: Sequence[str]) -> int:
    """Fewest words to substitute, delete and insert to turn `reference` into `hypothesis`."""
    return int(_levenshtein().distance(reference, hypothesis))


# ---------------------------------------------------------------------------------------------------------
# Rates
# ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Score:
    """A rate of errors with the sample that it was measured on."""

    errors: int
    total: int  # words, or clips where whole clips count
    clips: int
    low: float  # the true rate lies between these with 95 % confidence, clips drawn at random
    high: float

    @property
    def rate(self) -> float:
        return self.errors / max(self.total, 1)

    def __str__(self) -> str:
        interval = f" [{100 * self.low:.1f}, {100 * self.high:.1f}]" if self.clips > 1 else ""
        clips = "1 clip" if self.clips == 1 else f"{self.clips} clips"
        return f"{100 * self.rate:.1f} %{interval} ({self.errors} of {self.total}, {clips})"


@dataclass(frozen=True)
class Difference:
    """How much higher the rate of a second model is on the same clips; below zero, the second is better."""

    value: float
    low: float  # as in `Score`
    high: float
    clips: int

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{100 * self.value:+.1f} [{100 * self.low:+.1f}, {100 * self.high:+.1f}] points ({self.clips} clips)"


def _draws(n_clips: int, seed: int) -> Iterator[np.ndarray]:
    """How often each clip is drawn in each bootstrap sample: blocks ``(n_draws, n_clips)``, `N_DRAWS` in all."""
    rng = np.random.default_rng(seed)
    block = max(1, min(N_DRAWS, 2_000_000 // n_clips))  # no more than 16 MB at once
    for done in range(0, N_DRAWS, block):
        yield rng.multinomial(n_clips, np.full(n_clips, 1 / n_clips), size=min(block, N_DRAWS - done))


def _resampled(errors: np.ndarray, totals: np.ndarray, seed: int) -> np.ndarray:
    """The rate in each bootstrap sample, ``(N_DRAWS,)``."""
    return np.concatenate([(n @ errors) / np.maximum(n @ totals, 1) for n in _draws(len(errors), seed)])


def _interval(values: np.ndarray) -> tuple[float, float]:
    outside = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(values, [outside, 100 - outside])
    return float(low), float(high)


def make_score(errors: Sequence[int], totals: Sequence[int], seed: int = 0) -> Score:
    """Sum errors and totals of clips; the interval comes from drawing whole clips again 1000 times.

    Where no clip has an error, no draw has; the interval then ends at the share of wrong clips that would give this
    by a chance of 2.5 %: 6 % for 60 clips. The same from the other side where whole clips count and all are wrong.
    A single clip has no interval: `low` and `high` are its rate.

    Raises
    ------
    TrainingError
        There are no clips.
    """
    n = len(errors)
    if n == 0:
        raise TrainingError("there is nothing to score: the list of clips is empty")
    wrong, total = np.asarray(errors), np.asarray(totals)
    low, high = _interval(_resampled(wrong, total, seed))
    rare = 1 - ((1 - CONFIDENCE) / 2) ** (1 / n)
    if n > 1 and not wrong.any():
        high = rare
    elif n > 1 and (total == 1).all() and wrong.all():
        low = 1 - rare
    return Score(int(wrong.sum()), int(total.sum()), n, low, high)


def make_difference(first: Sequence[int], second: Sequence[int], totals: Sequence[int], seed: int = 0) -> Difference:
    """Compare the errors of two models on the same clips; each draw takes the same clips of both.

    Source: Bisani and Ney 2004, "Bootstrap estimates for confidence intervals in ASR performance evaluation".
    """
    n = len(totals)
    if n == 0:
        raise TrainingError("there is nothing to compare: the two have no clip in common")
    more = np.asarray(second) - np.asarray(first)
    total = np.asarray(totals)
    low, high = _interval(_resampled(more, total, seed))
    return Difference(float(more.sum() / max(total.sum(), 1)), low, high, n)


def score_words(
    references: Sequence[str], hypotheses: Sequence[str], normalizer: Callable[[str], str] | None = None
) -> Score:
    """Word error rate over all pairs of texts, after `normalizer` (the English one if not given)."""
    normalizer = normalizer or _normalizer("en")
    errors, words = [], []
    for reference, hypothesis in zip(references, hypotheses, strict=True):
        expected = normalizer(reference).split()
        errors.append(word_errors(expected, normalizer(hypothesis).split()))
        words.append(len(expected))
    return make_score(errors, words)


# ---------------------------------------------------------------------------------------------------------
# Times of words
# ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spread:
    """How far times are from the truth, in seconds."""

    median: float  # of the distances
    low: float  # of the median, as in `Score`
    high: float
    p90: float
    within: tuple[float, ...]  # share of the times within each of `NEAR`
    bias: float  # median with its sign: above zero, the model is late


@dataclass(frozen=True)
class TimeScore:
    """Distances of word times from the truth, over the words that the model wrote as the reference has them."""

    words: int  # of the reference
    matched: int  # of them, those the model wrote
    clips: int  # with at least one of them
    starts: Spread
    ends: Spread
    both: Spread


def match_times(reference: Sequence[Word], hypothesis: Sequence[Word]) -> list[tuple[float, float]]:
    """Return how late the start and the end of each word are that both have, in seconds.

    Words are the same where their letters are, whatever their case and punctuation.
    """

    def letters(words: Sequence[Word]) -> list[str]:
        return [normalize(word, None).replace(" ", "") for word, _, _ in words]

    late, i, j = [], 0, 0
    for step in align(letters(reference), letters(hypothesis)):
        if step.kind == "hit" and step.expected:
            late.append((hypothesis[j][1] - reference[i][1], hypothesis[j][2] - reference[i][2]))
        i += step.expected is not None
        j += step.said is not None
    return late


def score_times(clips: Sequence[Sequence[tuple[float, float]]], n_words: int) -> TimeScore | None:
    """Sum up what `match_times` gave for each clip; None where no word was matched.

    `n_words` is the number of words of the references.
    """
    late = [np.asarray(clip) for clip in clips if len(clip)]  # each (n_words, 2)
    if not late:
        return None
    return TimeScore(
        words=n_words,
        matched=sum(map(len, late)),
        clips=len(late),
        starts=_spread([clip[:, 0] for clip in late]),
        ends=_spread([clip[:, 1] for clip in late]),
        both=_spread([clip.ravel() for clip in late]),
    )


def _spread(clips: list[np.ndarray], seed: int = 0) -> Spread:
    everything = np.concatenate(clips)
    distances = np.abs(everything)
    # a clip that is drawn twice counts twice: repeat its distances, already sorted, and take the one in the middle
    order = np.argsort(distances)
    clip_of = np.repeat(np.arange(len(clips)), [len(clip) for clip in clips])[order]
    ranked = distances[order]
    middles = []
    for counts in _draws(len(clips), seed):
        for drawn in counts:
            weight = np.cumsum(drawn[clip_of])
            middles.append(ranked[np.searchsorted(weight, weight[-1] / 2)])
    low, high = _interval(np.asarray(middles))
    return Spread(
        median=float(np.median(distances)),
        low=low,
        high=high,
        p90=float(np.percentile(distances, 90)),
        within=tuple(float((distances <= near + 1e-9).mean()) for near in NEAR),
        bias=float(np.median(everything)),
    )
