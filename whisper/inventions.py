"""Text that nobody said: the phrases that Whisper invents, and the evidence that it takes to drop a text.

A phrase alone is never reason enough, since people do say "thank you for watching"; nor is a single weak sign where
the text is no such phrase, unless nobody speaks at all. Pure functions on numbers and text; the phrases, with their
sources, are in ``assets/invented_phrases.tsv``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

PHRASES = Path(__file__).parent / "assets" / "invented_phrases.tsv"
ALIKE = {"yue": "zh"}  # languages that borrow another's phrases

LEAST_SPEECH = 0.1  # seconds: in less, nobody has said a word
SHORT_SPEECH = 1.5  # seconds: a detector of speech may take so much of another sound for it
SURE_SPEECH = 0.8  # highest probability of speech in a stretch, from which on nobody doubts that somebody speaks
FAINT_SPEECH = 0.3  # mean probability; clean speech has less in 2 of 454 segments, and the model is sure of them
SURE_NO_SPEECH = 0.6  # <|nospeech|>, as in `no_speech_threshold`
WEAK_LOGPROB = -1.0  # as in `logprob_threshold`
UNSURE_LOGPROB = -0.8  # of a text that is not improbable yet
FASTEST = 25.0  # characters in a second of speech; nobody reads 400 words a minute


@dataclass(frozen=True)
class Evidence:
    """What speaks for a text, and what against it."""

    speech_seconds: float  # within the text's time
    speech_probability: float  # the highest of the text's time; 0 where there are none
    mean_probability: float  # of speech, over the text's time
    no_speech_prob: float  # of the window
    avg_logprob: float  # likewise


def why_invented(text: str, language: str, evidence: Evidence) -> str | None:
    """Return why a text was probably not said; None where nothing speaks against it.

    Parameters
    ----------
    text
        Of one segment.
    language
        Its code.
    evidence
        What was measured where it stands.
    """
    e = evidence
    if e.speech_seconds < LEAST_SPEECH:
        return "nobody speaks"
    doubts = [
        reason
        for reason, holds in (
            (f"speech is doubtful ({e.speech_probability:.2f})", e.speech_probability < SURE_SPEECH),
            (f"the model hears no speech ({e.no_speech_prob:.2f})", e.no_speech_prob > SURE_NO_SPEECH),
            (f"the text is improbable ({e.avg_logprob:.2f})", e.avg_logprob < WEAK_LOGPROB),
            (f"{e.speech_seconds:.1f} s of speech is too short", len(text.strip()) > FASTEST * e.speech_seconds),
        )
        if holds
    ]
    if doubts and is_known(text, language):
        return f"a phrase that Whisper invents, and {doubts[0]}"
    if e.no_speech_prob > SURE_NO_SPEECH and e.speech_seconds < SHORT_SPEECH:  # a cough, a sneeze
        return f"{doubts[0]}, and {e.speech_seconds:.1f} s sound like it"
    if e.mean_probability < FAINT_SPEECH and e.speech_seconds < SHORT_SPEECH and e.avg_logprob < UNSURE_LOGPROB:
        return f"hardly anybody speaks ({e.mean_probability:.2f}), and the text is unsure ({e.avg_logprob:.2f})"
    if len(doubts) >= 2:
        return " and ".join(doubts)
    return None


def is_known(text: str, language: str) -> bool:
    """Whether a text is made of known phrases alone, or names a place that they come from."""
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
    """The phrases of a language, bare; the longest first, so that none hides a longer one."""
    lines = PHRASES.read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    wanted = ALIKE.get(language, language)
    return tuple(sorted({_bare(phrase) for code, phrase in rows if code == wanted}, key=len, reverse=True))


def _bare(text: str) -> str:
    """Letters and digits alone, in lower case."""
    return re.sub(r"[\W_]+", "", text.casefold())
