"""Hallucinations: known phrases, and the evidence that it takes to drop a text.

A known phrase alone is never reason enough, since people do say "thank you for watching". Nor is a
single weak sign where the text is no known phrase, unless there is no speech at all. Where there
certainly is speech, the model's doubts alone are no reason either: they come of a wrong language,
an accent or noise as well, and a text with errors is better than none. Pure functions
on numbers and text; the phrases, with their sources, are in ``assets/invented_phrases.tsv``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ..speech.rates import MAX_CHARACTERS_PER_SECOND

PHRASES = Path(__file__).parent.parent / "assets" / "invented_phrases.tsv"
SAME_PHRASES = {"yue": "zh"}  # languages that use another's phrases

MIN_SPEECH_SECONDS = 0.1  # less holds no word
SHORT_SPEECH_SECONDS = 1.5  # voice activity detection may take so much of another sound for speech
SURE_SPEECH_PROB = 0.8  # the highest within a text's time; from here on it is certainly speech
# Mean over a text's time; clean speech has less in 2 of 454 segments, with a probable text in both.
FAINT_SPEECH_PROB = 0.3
CLEAR_SPEECH_PROB = 0.6  # the same; clean speech has more in most segments, a sneeze has 0.54
SURE_NO_SPEECH_PROB = 0.6  # of <|nospeech|>, as in `no_speech_threshold`
IMPROBABLE_LOGPROB = -1.0  # as in `logprob_threshold`
UNSURE_LOGPROB = -0.8  # of a text that is not improbable yet


@dataclass(frozen=True)
class Evidence:
    """Measurements for and against a text."""

    speech_seconds: float  # within the text's time
    speech_probability: float  # the highest within the text's time; 0 where there is none
    mean_probability: float  # of speech, over the text's time
    no_speech_prob: float  # of the window
    avg_logprob: float  # of the window


def hallucination_reason(text: str, language: str, evidence: Evidence) -> str | None:
    """Return why a text is probably a hallucination; None where the evidence is not enough.

    Parameters
    ----------
    text
        Of one segment.
    language
        Its code.
    evidence
        What was measured over the segment.
    """
    e = evidence
    if e.speech_seconds < MIN_SPEECH_SECONDS:
        return "no speech"
    doubts: list[str] = []
    if e.speech_probability < SURE_SPEECH_PROB:
        doubts.append(f"low speech probability ({e.speech_probability:.2f})")
    if e.no_speech_prob > SURE_NO_SPEECH_PROB:
        doubts.append(f"high no-speech probability ({e.no_speech_prob:.2f})")
    if e.avg_logprob < IMPROBABLE_LOGPROB:
        doubts.append(f"low log-probability ({e.avg_logprob:.2f})")
    if len(text.strip()) > MAX_CHARACTERS_PER_SECOND * e.speech_seconds:
        doubts.append(f"too much text for {e.speech_seconds:.1f} s of speech")
    is_short = e.speech_seconds < SHORT_SPEECH_SECONDS
    if doubts and is_known_phrase(text, language):
        return f"known hallucination, and {doubts[0]}"
    if e.speech_probability >= SURE_SPEECH_PROB and e.mean_probability >= CLEAR_SPEECH_PROB:
        return None
    if e.no_speech_prob > SURE_NO_SPEECH_PROB and is_short:  # a cough, a sneeze
        return f"{doubts[0]}, and only {e.speech_seconds:.1f} s of speech"
    if e.mean_probability < FAINT_SPEECH_PROB and is_short and e.avg_logprob < UNSURE_LOGPROB:
        return f"low mean speech probability ({e.mean_probability:.2f}) and log-probability ({e.avg_logprob:.2f})"
    return " and ".join(doubts) if len(doubts) >= 2 else None


def is_known_phrase(text: str, language: str) -> bool:
    """Whether a text is made of known phrases alone, or names a site that they come from."""
    rest, known = _bare(text), _phrases(language)
    if any(source in rest for source in _phrases("any")):
        return True
    whole = bool(rest)
    while rest:
        phrase = next((p for p in known if rest.startswith(p)), None)
        if phrase is None:
            return False
        rest = rest[len(phrase) :].lstrip("0123456789")  # years stand behind some
    return whole


@lru_cache(maxsize=128)
def _phrases(language: str) -> tuple[str, ...]:
    """Return the bare phrases of a language, longest first, so that none hides a longer one."""
    lines = PHRASES.read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    wanted = SAME_PHRASES.get(language, language)
    return tuple(sorted({_bare(phrase) for code, phrase in rows if code == wanted}, key=len, reverse=True))


def _bare(text: str) -> str:
    """Return the letters and digits alone, in lower case."""
    return re.sub(r"[\W_]+", "", text.casefold())
