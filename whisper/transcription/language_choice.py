"""The language where its detection is in doubt: the likeliest ones are decoded, and the likeliest text decides.

Short, accented and noisy speech is often detected as a wrong language. Such a
detection seldom has a high probability, the text in that language has a low one, and often it is in
the letters of another language: what is detected as Burmese is written in English. In a list of recordings, the
languages of the others are evidence, too. Detects nothing itself, and never overrules a language that was given.
"""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..engine.operations import gather
from ..options.language_names import LANGUAGES
from ..speech.rates import MAX_LOOP_TOKENS_PER_SECOND

if TYPE_CHECKING:
    from ..audit.report import Report
    from ..decoding import DecodingOptions, DecodingResult
    from .backends import Backend

SURE_PROBABILITY = 0.9  # a language that was detected with it is not doubted
MIN_PROBABILITY = 0.02  # of a language that is tried
MAX_LANGUAGES = 4  # that are tried
# Beside the logarithm of a language's probability: the weight of its text's mean log-probability,
# and of a Zipf prior over `LANGUAGES`, whose order is that of the hours in Whisper's training.
TEXT_WEIGHT, PRIOR_WEIGHT = 2.0, 0.5
OTHER_SCRIPT_PENALTY = 1.0  # of a text in letters of another script; weak models write Hindi so, too
# By how much the score of another language than English must be better than that of the detected one. English needs no
# margin: it is what accents and noise turn into other languages most often.
MARGIN = 0.4
IMPROBABLE = -1.0  # mean log-probability of a text for which no commoner language is overruled
REPETITIVE = 2.4  # compression ratio of a text that is no evidence for its language
# In a list, recordings whose language is beyond doubt are evidence for the others, where there are so many of them and
# such a share of them has one language: the weight of their log-prior beside the score of a language.
MIN_SURE_RECORDINGS, COMMON_SHARE, LIST_WEIGHT = 4, 0.9, 0.5
SPARE_TOKENS = 16  # for timestamps, and for a very short window
RANK = {code: rank for rank, code in enumerate(LANGUAGES, start=1)}
# languages that are written in other than Latin letters
OTHER_SCRIPTS = frozenset((
    "am", "ar", "as", "ba", "be", "bg", "bn", "bo", "el", "fa", "gu", "he", "hi", "hy", "ja", "ka", "km", "kn", "ko",
    "lo", "mk", "ml", "mn", "mr", "my", "ne", "pa", "ps", "ru", "sa", "sd", "si", "ta", "te", "tg", "th", "tt", "uk",
    "ur", "yi", "yue", "zh",
))  # fmt: skip
BOTH_SCRIPTS = frozenset(("az", "bs", "kk", "sr", "tk", "uz"))


@dataclass(frozen=True)
class Attempt:
    """A window, decoded in one of the languages."""

    language: str
    probability: float  # of the language, as detected
    decoded: DecodingResult

    @property
    def score(self) -> float:
        """The log-probability of the language, with those of its text and of the prior."""
        decoded = self.decoded
        if decoded.is_loop or decoded.compression_ratio > REPETITIVE or not has_words(decoded.text):
            return -math.inf
        score = math.log(self.probability) + TEXT_WEIGHT * decoded.avg_logprob
        score -= PRIOR_WEIGHT * math.log(RANK[self.language])
        return score if is_written_in(decoded.text, self.language) else score - OTHER_SCRIPT_PENALTY


@dataclass(frozen=True)
class Choice:
    """A language, and what was compared for it, the most probable language first."""

    language: str
    attempts: tuple[Attempt, ...]

    @property
    def reason(self) -> str:
        """Why it was chosen, in a sentence."""
        tried = (
            f"{a.language} {a.probability:.2f} (log-probability of the text {a.decoded.avg_logprob:.2f})"
            for a in self.attempts
        )
        return f"the language was in doubt: {', '.join(tried)}"


def has_words(text: str) -> bool:
    """Whether at least half of a text, without spaces, is letters and digits; of "..." and "《《》" nothing is."""
    marks = [c for c in text if not c.isspace() and unicodedata.category(c)[0] != "M"]
    return bool(marks) and sum(map(str.isalnum, marks)) >= len(marks) / 2


def is_written_in(text: str, language: str) -> bool:
    """Whether most letters of a text are of a script of its language; digits are of every script."""
    latin = [unicodedata.name(c, "").startswith("LATIN") for c in text if c.isalpha()]
    if not latin or language in BOTH_SCRIPTS:
        return True
    return (sum(latin) < len(latin) / 2) == (language in OTHER_SCRIPTS)


def is_doubtful(probs: Mapping[str, float]) -> bool:
    """Whether the most probable language may be wrong."""
    return len(probs) > 1 and max(probs.values()) < SURE_PROBABILITY


async def choose_language(
    backend: Backend, decoding: DecodingOptions, window: Any, seconds: float, probs: Mapping[str, float]
) -> Choice:
    """Decode a window in the likeliest languages, side by side, and choose that of the likeliest text.

    Parameters
    ----------
    backend
        Runs the model.
    decoding
        How to decode.
    window
        Encoded by the backend.
    seconds
        Length of what may be said in it.
    probs
        Probability of each candidate, as detected.
    """
    likeliest = sorted(probs, key=lambda code: probs[code] / RANK[code] ** PRIOR_WEIGHT, reverse=True)
    detected = max(probs, key=probs.__getitem__)
    others = [code for code in likeliest if code != detected and probs[code] >= MIN_PROBABILITY]
    tried = [detected, *others[: MAX_LANGUAGES - 1]]
    max_tokens = int(MAX_LOOP_TOKENS_PER_SECOND * seconds) + SPARE_TOKENS
    sample_len = min(max_tokens, decoding.sample_len or max_tokens)
    greedy = decoding.at(0.0, beam_size=None, patience=None, stop_loops=True, sample_len=sample_len)
    decoded = await gather((backend.decode(window, replace(greedy, language=code)) for code in tried), 1)
    attempts = tuple(Attempt(code, probs[code], result) for code, result in zip(tried, decoded, strict=True))
    # Mumbling is often a probable text of no language. Detection errs towards rarer languages, seldom towards commoner
    # ones, so for a rarer one the text must be credible.
    credible = [a for a in attempts if RANK[a.language] <= RANK[detected] or a.decoded.avg_logprob > IMPROBABLE]
    best = max(credible, key=lambda attempt: attempt.score)
    margin = 0.0 if best.language == "en" else MARGIN
    return Choice(best.language if best.score > attempts[0].score + margin else detected, attempts)


@dataclass(frozen=True)
class Reconsidered:
    """The language of a list, and which recordings have it in view of the others, and not alone."""

    language: str = ""
    reasons: Mapping[int, str] = field(default_factory=dict)  # by index of the recording


def reconsider(reports: Sequence[Report]) -> Reconsidered:
    """Decide on the languages that were in doubt again, by what is spoken in the other recordings of a list.

    Parameters
    ----------
    reports
        Of all recordings.
    """
    sure = Counter(r.language for r in reports if r.language_probs and not is_doubtful(r.language_probs))
    n_sure, ((common, n_common), *_) = sum(sure.values()), sure.most_common(1) or [("", 0)]
    if n_sure < MIN_SURE_RECORDINGS or n_common < COMMON_SHARE * n_sure:
        return Reconsidered()
    reasons = {}
    for i, report in enumerate(reports):
        scores, own = report.language_scores, report.language
        if own == common or common not in scores:
            continue
        prior = LIST_WEIGHT * math.log((n_common + 1) / (sure[own] + 1))
        if scores[common] + prior > scores.get(own, -math.inf):
            reasons[i] = (
                f"the language was in doubt; alone it would be {own}, and {n_common} of {n_sure} others are {common}"
            )
    return Reconsidered(common, reasons)
