"""Speech held against text: where somebody speaks and nothing is written.

Pure functions on seconds, segments and text; no sound, no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher

from .results import Segment

Span = tuple[float, float]  # seconds of the recording

SLACK = 0.5  # seconds by which times of text may be wrong
LEAST_GAP = 0.8  # seconds of speech without text that are worth another look
JOINED = 1.0  # seconds: gaps closer to each other are one


def covered_by(segments: Sequence[Segment]) -> list[Span]:
    """Return when text is said: its words where their times are known, else its segments."""
    spans: list[Span] = []
    for segment in segments:
        if not segment["text"].strip():
            continue
        words = segment.get("words") or []
        spans += [(w["start"], w["end"]) for w in words] or [(segment["start"], segment["end"])]
    return spans


def gaps(speech: Sequence[Span], covered: Sequence[Span], start: float, end: float) -> list[Span]:
    """Return the stretches between two times in which somebody speaks and no text covers it.

    Parameters
    ----------
    speech
        Where somebody speaks, in order.
    covered
        Where text is; taken to be `SLACK` longer on both sides.
    start, end
        Where to look.

    Returns
    -------
    In order; each holds at least `LEAST_GAP` seconds of uncovered speech, and those closer than `JOINED` are one.
    """
    left = [(max(a, start), min(b, end)) for a, b in speech if b > start and a < end]
    for begin, stop in covered:
        left = [piece for span in left for piece in _without(span, (begin - SLACK, stop + SLACK))]
    joined: list[tuple[float, float, float]] = []  # and the speech within
    for a, b in left:
        if joined and a - joined[-1][1] < JOINED and not any(joined[-1][1] <= c[0] < a for c in covered):
            joined[-1] = (joined[-1][0], b, joined[-1][2] + b - a)
        else:
            joined.append((a, b, b - a))
    return [(a, b) for a, b, seconds in joined if seconds >= LEAST_GAP]


def _without(span: Span, hole: Span) -> list[Span]:
    """Return what remains of a span when a hole is cut into it."""
    return [(a, b) for a, b in ((span[0], min(span[1], hole[0])), (max(span[0], hole[1]), span[1])) if b > a]


def is_echo(text: str, neighbour: str) -> bool:
    """Whether a text is for the most part a piece of its neighbour's."""
    a, b = ("".join(c for c in t.casefold() if c.isalnum()) for t in (text, neighbour))
    if not a or not b:
        return False
    return SequenceMatcher(None, a, b, autojunk=False).find_longest_match().size >= 0.7 * len(a)


def goes_round(texts: Sequence[str], least: int = 3) -> bool:
    """Whether the last `least` texts, or the last pairs of them, are the same, as a loop across windows writes them."""
    bare = ["".join(c for c in t.casefold() if c.isalnum()) for t in texts]
    for period in (1, 2):
        tail = bare[-least * period :]
        if (
            len(tail) == least * period
            and all(tail)
            and all(tail[i] == tail[i - period] for i in range(period, len(tail)))
        ):
            return True
    return False
