"""Praat's TextGrid: tiers of intervals without holes, one tier for each speaker, and one for words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ...errors import DataError
from ..cues import TimedWord
from .document import SEGMENTS, WORDS, Document, side_by_side
from .parsing import Piece, Timed, TimedTexts, words_in

_VALUE = re.compile(r'"((?:[^"]|"")*)"|<(?:exists|absent)>|(?<![\w\[])([-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)(?![\w\]])')
_COMMENT = re.compile(r"^[^\"\n]*!.*$", re.MULTILINE)


def write_textgrid(document: Document) -> str:
    """A TextGrid in the long form; what overlaps within a tier begins where the one before it ends."""
    tiers: list[tuple[str, list[tuple[int, int, str]]]] = []
    for speaker in document.speakers:
        own = [segment for segment in document.segments if segment.speaker == speaker]
        tiers.append((speaker or SEGMENTS, side_by_side([segment[:3] for segment in own])))
        words = [(word.start, word.end, word.text.strip()) for segment in own for word in segment.words]
        if words:
            tiers.append((f"{speaker} {WORDS}" if speaker else WORDS, side_by_side(words)))
    last = max([round(document.duration * 1000), 1, *(item[1] for _, items in tiers for item in items)])
    written = "".join(_tier(i, name, items, last) for i, (name, items) in enumerate(tiers, start=1))
    return (
        'File type = "ooTextFile"\nObject class = "TextGrid"\n\n'
        f"xmin = 0\nxmax = {last / 1000}\ntiers? <exists>\nsize = {len(tiers)}\nitem []:\n{written}"
    )


def _tier(number: int, name: str, items: list[tuple[int, int, str]], last: int) -> str:
    filled = list(_without_holes(items, last))
    written = "".join(
        f"        intervals [{i}]:\n            xmin = {start / 1000}\n            xmax = {end / 1000}\n"
        f'            text = "{_doubled(text)}"\n'
        for i, (start, end, text) in enumerate(filled, start=1)
    )
    return (
        f'    item [{number}]:\n        class = "IntervalTier"\n        name = "{_doubled(name)}"\n'
        f"        xmin = 0\n        xmax = {last / 1000}\n        intervals: size = {len(filled)}\n{written}"
    )


def _doubled(text: str) -> str:
    return text.replace('"', '""')


def _without_holes(items: list[tuple[int, int, str]], last: int) -> Iterator[tuple[int, int, str]]:
    end = 0
    for item in items:
        if item[0] > end:
            yield end, item[0], ""
        yield item
        end = item[1]
    if end < last:
        yield end, last, ""


# ---------------------------------------------------------------------------------------------------------
# Read
# ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Tier:
    name: str
    items: list[tuple[float, float, str]]

    @property
    def spoken(self) -> list[tuple[float, float, str]]:
        return [item for item in self.items if item[2].strip()]


def read_textgrid(text: str) -> Timed:
    """Read a TextGrid in its long or short form; a tier ``words``, or ``Ann words``, has the words of ``Ann``."""
    tiers = list(_tiers(text))
    words = {
        tier.name: TimedTexts([(*item, None) for item in tier.spoken])
        for tier in tiers
        if tier.name == WORDS or tier.name.endswith(" " + WORDS)
    }
    rest = [tier for tier in tiers if tier.name not in words] or tiers
    pieces: list[Piece] = []
    for tier in rest:
        speaker = None if tier.name.lower() in (SEGMENTS, WORDS, "", "text", "sentences", "utterances") else tier.name
        own = words.get(f"{tier.name} {WORDS}")
        if own is None and tier.name != WORDS and (len(rest) == 1 or tier.name == SEGMENTS):
            own = words.get(WORDS)
        for start, end, spoken in tier.spoken:
            pieces.append(Piece(start, end, spoken, speaker, _words(own, start, end, spoken) if own else ()))
    return Timed(pieces)


def _words(words: TimedTexts, start: float, end: float, text: str) -> tuple[TimedWord, ...]:
    """Return the words of a text: those whose middle lies within its time."""
    return words_in(" " + text.strip(), words.within(start, end), start, end)


def _tiers(text: str) -> Iterator[_Tier]:
    """Give the tiers of intervals; both forms are the same values in the same order, with or without names."""
    head, _, rest = text.partition('"TextGrid"')
    if "ooTextFile" not in head:
        raise DataError('a TextGrid begins with File type = "ooTextFile" and Object class = "TextGrid"')
    values = [m[1] if m[0].startswith('"') else m[2] for m in _VALUE.finditer(rest) if not m[0].startswith("<")]
    try:
        yield from _tiers_of(iter(values[2:]))
    except (StopIteration, RuntimeError, TypeError, ValueError):
        raise DataError("the TextGrid is cut off, or a number in it is no number") from None


def _tiers_of(values: Iterator[str]) -> Iterator[_Tier]:
    for _ in range(int(next(values))):
        kind, name = next(values), next(values)
        next(values), next(values)  # the time of the tier
        items = []
        for _ in range(int(next(values))):
            start = float(next(values))
            end = start if kind == "TextTier" else float(next(values))
            items.append((start, end, next(values).replace('""', '"')))
        yield _Tier(name.replace('""', '"'), items)
