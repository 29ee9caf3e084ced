"""Cues: what is shown at once, as lines of words with times. What the layout makes and every format writes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TimedWord:
    """A word as it will be printed, white space before it included, with its times in seconds."""

    text: str
    start: float
    end: float
    speaker: str | None = None
    probability: float | None = None


@dataclass(frozen=True, slots=True)
class Cue:
    """Lines of words that are shown from `start` to `end`, in seconds."""

    start: float
    end: float
    lines: tuple[tuple[TimedWord, ...], ...]
    speaker: str | None = None  # of all its words; None where that is unknown, or several speak
