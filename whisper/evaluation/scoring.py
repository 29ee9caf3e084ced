"""Error rates: alignment of texts, rates with bootstrap intervals, errors of word timestamps.

Pure functions on texts and numbers, by the rules of Radford et al. 2022 (arXiv:2212.04356, 4.4 and
appendix C): English texts are compared after the English normalizer, others after the basic one,
and languages written without spaces character by character. Knows no model and opens no file.
Alignments come from ``rapidfuzz``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np

from ..errors import DataError, MissingDependencyError
from ..manifests.read import TimedWord
from ..normalizers import BasicTextNormalizer, EnglishTextNormalizer
from ..tokenizer import WITHOUT_SPACES

N_RESAMPLES = 1000  # bootstrap samples
CONFIDENCE = 0.95
TIME_TOLERANCES = (0.05, 0.1, 0.2)  # seconds within which a word timestamp counts as correct


# --------------------------------------------------------------------------------------------------
# Texts
# --------------------------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def _normalizer(kind: str) -> Callable[[str], str]:
    return EnglishTextNormalizer() if kind == "en" else BasicTextNormalizer(split_letters=kind == "letters")


def normalize(text: str, language: str | None) -> str:
    """Return `text` as it is compared: normalized for a language (a code), with single spaces.

    A text of unknown language is treated as one with spaces between words.
    """
    kind = "letters" if language in WITHOUT_SPACES else "en" if language == "en" else "basic"
    return " ".join(_normalizer(kind)(text).split())


def words_of(text: str, language: str | None) -> list[str]:
    """Return the words that are compared; for `WITHOUT_SPACES` each character is one."""
    return normalize(text, language).split()


def characters_of(text: str, language: str | None) -> list[str]:
    """Return the characters that are compared, with spaces if the language has them."""
    normal = normalize(text, language)
    return normal.split() if language in WITHOUT_SPACES else list(normal)


# --------------------------------------------------------------------------------------------------
# Alignment
# --------------------------------------------------------------------------------------------------


class Step(NamedTuple):
    """One aligned pair of words: a hit, a substitution, a deletion or an insertion."""

    reference: str | None  # None: an insertion
    hypothesis: str | None  # None: a deletion

    @property
    def kind(self) -> str:
        """``hit``, ``substitution``, ``deletion`` or ``insertion``."""
        if self.reference is None:
            return "insertion"
        if self.hypothesis is None:
            return "deletion"
        return "hit" if self.reference == self.hypothesis else "substitution"


@dataclass(frozen=True)
class Edits:
    """Number of alignment steps of each kind."""

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
        raise MissingDependencyError("scoring needs rapidfuzz", extra="eval") from None
    return Levenshtein


def align(reference: Sequence[str], hypothesis: Sequence[str]) -> list[Step]:
    """Align two sequences with the fewest substitutions, deletions and insertions.

    Raises
    ------
    MissingDependencyError
        The package ``rapidfuzz`` is not installed.
    """
    steps: list[Step] = []
    for code in _levenshtein().opcodes(reference, hypothesis):
        ours = reference[code.src_start : code.src_end]
        theirs = hypothesis[code.dest_start : code.dest_end]
        steps += (Step(a, b) for a, b in zip_longest(ours, theirs))
    return steps


def count_edits(steps: Iterable[Step]) -> Edits:
    """Count the steps of an alignment by kind."""
    kinds = [step.kind for step in steps]
    return Edits(*(kinds.count(kind) for kind in ("hit", "substitution", "deletion", "insertion")))


def word_errors(reference: Sequence[str], hypothesis: Sequence[str]) -> int:
    """Edit distance: the number of substitutions, deletions and insertions."""
    return int(_levenshtein().distance(reference, hypothesis))


# --------------------------------------------------------------------------------------------------
# Rates
# --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Score:
    """An error rate with its sample size and its 95 % confidence interval over random clips."""

    errors: int
    total: int  # words, or clips where whole clips are counted
    clips: int
    low: float
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
    """Error rate of a second model minus that of a first; negative: the second is better."""

    value: float
    low: float  # as in `Score`
    high: float
    clips: int

    @property
    def significant(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{100 * self.value:+.1f} [{100 * self.low:+.1f}, {100 * self.high:+.1f}] points ({self.clips} clips)"


def _resample_counts(n_clips: int, seed: int) -> Iterator[np.ndarray]:
    """Counts of each clip in the bootstrap samples, in blocks ``(n_samples, n_clips)``."""
    rng = np.random.default_rng(seed)
    block = max(1, min(N_RESAMPLES, 2_000_000 // n_clips))  # no more than 16 MB at once
    for done in range(0, N_RESAMPLES, block):
        yield rng.multinomial(n_clips, np.full(n_clips, 1 / n_clips), size=min(block, N_RESAMPLES - done))


def _resampled_rates(errors: np.ndarray, totals: np.ndarray, seed: int) -> np.ndarray:
    """The rate in each bootstrap sample, ``(N_RESAMPLES,)``."""
    return np.concatenate([(n @ errors) / np.maximum(n @ totals, 1) for n in _resample_counts(len(errors), seed)])


def _interval(values: np.ndarray) -> tuple[float, float]:
    outside = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(values, [outside, 100 - outside])
    return float(low), float(high)


def make_score(errors: Sequence[int], totals: Sequence[int], seed: int = 0) -> Score:
    """Sum errors and totals of clips; the interval is a bootstrap over whole clips.

    Where no clip has an error, no bootstrap sample has one. The interval then ends at the share of
    wrong clips that would give this result with a probability of 2.5 %: 6 % for 60 clips. The same
    holds from the other side where whole clips are counted and all are wrong. A single clip has no
    interval: `low` and `high` are its rate.

    Raises
    ------
    DataError
        There are no clips.
    """
    n = len(errors)
    if n == 0:
        raise DataError("there is nothing to score: the list of clips is empty")
    wrong, total = np.asarray(errors), np.asarray(totals)
    low, high = _interval(_resampled_rates(wrong, total, seed))
    rare = 1 - ((1 - CONFIDENCE) / 2) ** (1 / n)
    if n > 1 and not wrong.any():
        high = rare
    elif n > 1 and (total == 1).all() and wrong.all():
        low = 1 - rare
    return Score(int(wrong.sum()), int(total.sum()), n, low, high)


def make_difference(first: Sequence[int], second: Sequence[int], totals: Sequence[int], seed: int = 0) -> Difference:
    """Compare the errors of two models on the same clips, by a paired bootstrap.

    Source: Bisani and Ney 2004, "Bootstrap estimates for confidence intervals in ASR performance
    evaluation".

    Raises
    ------
    DataError
        There are no clips.
    """
    n = len(totals)
    if n == 0:
        raise DataError("there is nothing to compare: the two have no clip in common")
    extra = np.asarray(second) - np.asarray(first)
    total = np.asarray(totals)
    low, high = _interval(_resampled_rates(extra, total, seed))
    return Difference(float(extra.sum() / max(total.sum(), 1)), low, high, n)


def score_words(
    references: Sequence[str], hypotheses: Sequence[str], normalizer: Callable[[str], str] | None = None
) -> Score:
    """Return the word error rate over all pairs of texts.

    Parameters
    ----------
    references, hypotheses
        What was said and what was recognised, text by text.
    normalizer
        Applied to both; by default Whisper's English one.

    Raises
    ------
    MissingDependencyError
        rapidfuzz is not installed.
    """
    normalizer = normalizer or _normalizer("en")
    errors, words = [], []
    for reference, hypothesis in zip(references, hypotheses, strict=True):
        expected = normalizer(reference).split()
        errors.append(word_errors(expected, normalizer(hypothesis).split()))
        words.append(len(expected))
    return make_score(errors, words)


# --------------------------------------------------------------------------------------------------
# Word timestamps
# --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spread:
    """Distribution of absolute timestamp errors, in seconds."""

    median: float
    low: float  # of the median, as in `Score`
    high: float
    p90: float
    within: tuple[float, ...]  # share of the times within each of `TIME_TOLERANCES`
    bias: float  # signed median; positive: the model is late


@dataclass(frozen=True)
class TimeScore:
    """Errors of word timestamps, over the words that the model transcribed correctly."""

    words: int  # of the reference
    matched: int  # of them, correctly transcribed
    clips: int  # with at least one matched word
    starts: Spread
    ends: Spread
    both: Spread


def match_times(reference: Sequence[TimedWord], hypothesis: Sequence[TimedWord]) -> list[tuple[float, float]]:
    """Return the signed errors of start and end of each matched word, in seconds; positive: late.

    Words match by their letters, whatever their case and punctuation.
    """

    def letters(words: Sequence[TimedWord]) -> list[str]:
        return [normalize(word, None).replace(" ", "") for word, _, _ in words]

    errors, i, j = [], 0, 0
    for step in align(letters(reference), letters(hypothesis)):
        if step.kind == "hit" and step.reference:
            errors.append((hypothesis[j][1] - reference[i][1], hypothesis[j][2] - reference[i][2]))
        if step.reference is not None:
            i += 1
        if step.hypothesis is not None:
            j += 1
    return errors


def score_times(clips: Sequence[Sequence[tuple[float, float]]], n_words: int) -> TimeScore | None:
    """Summarise the results of `match_times` for several clips; None where no word was matched.

    `n_words` is the number of words of the references.
    """
    errors = [np.asarray(clip) for clip in clips if len(clip)]  # each (n_words, 2)
    if not errors:
        return None
    return TimeScore(
        words=n_words,
        matched=sum(map(len, errors)),
        clips=len(errors),
        starts=_spread([clip[:, 0] for clip in errors]),
        ends=_spread([clip[:, 1] for clip in errors]),
        both=_spread([clip.ravel() for clip in errors]),
    )


def _spread(clips: list[np.ndarray], seed: int = 0) -> Spread:
    everything = np.concatenate(clips)
    distances = np.abs(everything)
    # the median of each bootstrap sample: sort once, then weight each distance by how often its
    # clip is drawn
    order = np.argsort(distances)
    clip_of = np.repeat(np.arange(len(clips)), [len(clip) for clip in clips])[order]
    ranked = distances[order]
    medians = []
    for counts in _resample_counts(len(clips), seed):
        for drawn in counts:
            weight = np.cumsum(drawn[clip_of])
            medians.append(ranked[np.searchsorted(weight, weight[-1] / 2)])
    low, high = _interval(np.asarray(medians))
    return Spread(
        median=float(np.median(distances)),
        low=low,
        high=high,
        p90=float(np.percentile(distances, 90)),
        within=tuple(float((distances <= near + 1e-9).mean()) for near in TIME_TOLERANCES),
        bias=float(np.median(everything)),
    )
