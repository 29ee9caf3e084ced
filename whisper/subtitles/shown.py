"""A cue as a player shows it: the text of its lines, right-to-left marks, and each word in its turn."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

from .cues import Cue, TimedWord
from .rules import RIGHT_TO_LEFT

RIGHT_TO_LEFT_MARK = "\u200f"
COLOURS = ("white", "yellow", "cyan", "lime")  # of speakers in their order; lime is the green of television


def cue_words(cue: Cue, language: str | None = None) -> list[str]:
    """Return the words of a cue as they are printed one after the other: a line break is before a line's first word.

    In languages that are written from right to left, a line that begins or ends with anything else (a dash, a full
    stop, a Latin name) has a mark there, since players order a line by what it begins with.
    """
    words: list[str] = []
    for n, line in enumerate(cue.lines):
        texts = [word.text for word in line]
        if language in RIGHT_TO_LEFT:
            texts = _marked(texts)
        words += ["\n" * (n > 0) + texts[0], *texts[1:]]
    return words


def _marked(texts: list[str]) -> list[str]:
    first, last = texts[0].lstrip()[:1], texts[-1].rstrip()[-1:]
    if unicodedata.bidirectional(first or " ") not in ("R", "AL"):
        texts[0] = RIGHT_TO_LEFT_MARK + texts[0]
    if unicodedata.bidirectional(last or " ") not in ("R", "AL"):
        texts[-1] += RIGHT_TO_LEFT_MARK
    return texts


def word_by_word(cue: Cue) -> Iterator[tuple[float, float, int]]:
    """Give the stretches of a cue in which one word after the other is spoken, without gaps: start, end, the word."""
    words: list[TimedWord] = [word for line in cue.lines for word in line]
    start = cue.start
    for k in range(len(words)):
        end = words[k + 1].start if k + 1 < len(words) else cue.end
        end = min(max(end, start), cue.end)
        if end - start >= 0.001 or k + 1 == len(words):
            yield start, end, k
            start = end


def colours(cues: list[Cue]) -> dict[str, str]:
    """Return a colour for each speaker, in the order in which they speak; the fifth has the first one's again."""
    names = dict.fromkeys(word.speaker for cue in cues for line in cue.lines for word in line if word.speaker)
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
