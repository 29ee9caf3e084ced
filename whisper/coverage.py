"""Speech held against text: where somebody speaks and nothing is written.

Pure functions on seconds, segments and text; no sound, no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher

from .results import Segment

Span = tuple[float, float]  # seconds of the recording

SLACK = 0.5  # seconds by which times of text may be wrong
LEAST_GAP = 0.8  # seconds of speech without text, beside others with text, that are worth another look
LEAST_ISLAND = 0.6  # likewise, of speech between two pauses of which nothing has text; padded, so a third of it is said
THINNEST = 4.0  # bytes of text in a second of speech, its padding counted in; slow reading has 8
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
    In order; each holds at least `LEAST_GAP` seconds of uncovered speech, or all of a stretch of `LEAST_ISLAND`, and
    those closer than `JOINED` are one.
    """
    islands = {span for span in speech if start <= span[0] and span[1] <= end and span[1] - span[0] >= LEAST_ISLAND}
    left = [(max(a, start), min(b, end)) for a, b in speech if b > start and a < end]
    for begin, stop in covered:
        left = [piece for span in left for piece in _without(span, (begin - SLACK, stop + SLACK))]
    joined: list[tuple[float, float, float]] = []  # and the speech within
    for a, b in left:
        seconds = max(b - a, LEAST_GAP) if (a, b) in islands else b - a
        if joined and a - joined[-1][1] < JOINED and not any(joined[-1][1] <= c[0] < a for c in covered):
            joined[-1] = (joined[-1][0], b, joined[-1][2] + seconds)
        else:
            joined.append((a, b, seconds))
    return [(a, b) for a, b, seconds in joined if seconds >= LEAST_GAP]


def _without(span: Span, hole: Span) -> list[Span]:
    """Return what remains of a span when a hole is cut into it."""
    return [(a, b) for a, b in ((span[0], min(span[1], hole[0])), (max(span[0], hole[1]), span[1])) if b > a]


def is_thin(text: str, islands: Sequence[Span]) -> bool:
    """Whether there is too little text for the speech, given the stretches of speech in which it was said.

    Every stretch between two pauses has a word at least, and no language takes a second for four letters.
    """
    seconds = sum(end - start for start, end in islands)
    return n_words(text) < len(islands) or n_bytes(text) < THINNEST * seconds


def n_words(text: str) -> int:
    """Words, or what may be as many in a script without spaces."""
    return max(len(text.split()), n_bytes(text) // 8)


def n_bytes(text: str) -> int:
    """Bytes of letters and digits: in UTF-8 they say about as much in one script as in another."""
    return len("".join(c for c in text if c.isalnum()).encode())


def pieces(islands: Sequence[Span], longest: float) -> list[Span]:
    """Join stretches of speech into pieces of at most so many seconds; a longer stretch is a piece of its own."""
    joined: list[Span] = []
    for start, end in islands:
        if joined and end - joined[-1][0] <= longest:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined


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
