"""From the files of others to results: text of bytes, times, pieces of text, and what all readers give in the end."""

from __future__ import annotations

import codecs
import math
import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from ...errors import DataError, LanguageError
from ...options.language_names import code_of
from ...results import Segment, Transcript, Word
from ...utils import compression_ratio
from ..cues import TimedWord

_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_BREAK = re.compile(r"\r\n|\r|\n")
_WORD = re.compile(r"\s*\S+")


@dataclass(frozen=True, slots=True)
class Piece:
    """A text with its times in seconds, as a file has it."""

    start: float
    end: float
    text: str
    speaker: str | None = None
    words: tuple[TimedWord, ...] = ()
    more: Mapping[str, Any] = field(default_factory=dict)  # further values of a segment


@dataclass(frozen=True, slots=True)
class Timed:
    """What a file holds."""

    pieces: list[Piece]
    language: str = ""  # empty where the file does not say


def text_of(data: bytes) -> str:
    """Return the text of a file: UTF-8, or UTF-16 with its mark.

    Raises
    ------
    DataError
        It is neither.
    """
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(f"the text is not {encoding}: byte {error.start} is 0x{data[error.start]:02x}") from None


def read_lines(text: str) -> list[str]:
    """Split at line breaks alone; ``str.splitlines`` also splits at what may stand within a line."""
    return _BREAK.split(text)


def parse_clock(text: str) -> float:
    """Return seconds of ``[[hh:]mm:]ss[.mmm]``; a comma is a full stop.

    Raises
    ------
    DataError
        It is no time.
    """
    try:
        parts = [float(part) for part in text.strip().replace(",", ".").split(":")]
    except ValueError:
        parts = []
    if not 1 <= len(parts) <= 3 or not all(0 <= part < math.inf for part in parts):
        raise DataError(f"{text!r} is no time")
    return sum(part * 60.0**i for i, part in enumerate(reversed(parts)))


def spread(text: str, start: float, end: float, speaker: str | None = None) -> list[TimedWord]:
    """Return the words of a text, which share its time by their letters; white space stays before each."""
    words = _WORD.findall(text)
    total, done, placed = sum(map(len, words)), 0, []
    for word in words:
        first, done = start + (end - start) * done / total, done + len(word)
        placed.append(TimedWord(word, first, start + (end - start) * done / total, speaker))
    return placed


def result_of(timed: Timed, language: str | None = None) -> Transcript:
    """Return pieces as a result of `transcribe`, in the order of time.

    Parameters
    ----------
    timed
        What a reader found.
    language
        Taken in place of what the file says.

    Raises
    ------
    DataError
        A time is no number, is negative, or ends before it begins.
    """
    pieces = [piece for piece in timed.pieces if piece.text.strip()]
    for number, piece in enumerate(pieces, start=1):
        if not 0 <= piece.start <= piece.end < math.inf:
            raise DataError(f"text {number} lasts from {piece.start} to {piece.end} s: {piece.text.strip()[:40]!r}")
    pieces.sort(key=lambda piece: piece.start)
    segments = [_segment(i, piece) for i, piece in enumerate(pieces)]
    text = "".join(segment["text"] for segment in segments)
    return {"text": text, "segments": segments, "language": _code(language or timed.language)}


def _segment(number: int, piece: Piece) -> Segment:
    text = " " + " ".join(piece.text.split())
    segment: Segment = {
        "id": number,
        "seek": 0,
        "start": round(piece.start, 3),
        "end": round(piece.end, 3),
        "text": text,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": 0.0,
        "compression_ratio": compression_ratio(text),
        "no_speech_prob": 0.0,
    }
    segment.update(piece.more)  # type: ignore[typeddict-item]
    if words := _spaced(text, piece):
        segment["words"] = [_word(word, piece) for word in words]
    if piece.speaker is not None:
        segment["speaker"] = piece.speaker
    return segment


def _spaced(text: str, piece: Piece) -> list[TimedWord]:
    """Return the words of a piece, each with the white space before it; none where they are not those of its text."""
    own = [word for word in piece.words if word.text.strip()]
    placed = words_in(text, [(w.text, w.start, w.end, w.probability) for w in own], piece.start, piece.end)
    return [replace(at, speaker=w.speaker) for at, w in zip(placed, own, strict=True)] if placed else []


def _word(timed: TimedWord, piece: Piece) -> Word:
    probability = 1.0 if timed.probability is None else float(timed.probability)
    start, end = round(timed.start, 3), round(timed.end, 3)
    word: Word = {"word": timed.text, "start": start, "end": end, "probability": probability}
    if timed.speaker is not None and timed.speaker != piece.speaker:
        word["speaker"] = timed.speaker
    return word


def _code(language: str) -> str:
    """Return the code that Whisper has for a language, or what the file says."""
    try:
        return code_of(language) or "" if language else ""
    except LanguageError:
        return language


@dataclass(frozen=True)
class TimedTexts:
    """Texts with two times, among which those within a time are found fast: by their middle."""

    items: Sequence[tuple[float, float, str, float | None]]  # start, end, text, probability

    def within(self, start: float, end: float) -> list[tuple[str, float, float, float | None]]:
        """Return text, start, end and probability of those whose middle is from `start` on, and before `end`."""
        middles, ordered = self._ordered
        found = ordered[bisect_left(middles, start) : bisect_left(middles, end)]
        return [(text, a, b, probability) for a, b, text, probability in found]

    @cached_property
    def _ordered(self) -> tuple[list[float], list[tuple[float, float, str, float | None]]]:
        ordered = sorted(self.items, key=lambda item: (item[0] + item[1], item[0]))
        return [(item[0] + item[1]) / 2 for item in ordered], ordered


def words_in(
    text: str,
    words: Iterable[tuple[str, float | None, float | None, float | None]],
    piece_start: float,
    piece_end: float,
) -> tuple[TimedWord, ...]:
    """Place words in their text: each gets the white space before it, and times where it has none.

    Parameters
    ----------
    text
        Of the segment.
    words
        Text, start, end and probability of each; the times are None for words that an aligner left out.
    piece_start, piece_end
        Times of the segment, for words at its edges.

    Returns
    -------
    tuple of TimedWord
        Empty where the words are not those of the text.
    """
    found: list[list[Any]] = []
    cursor = 0
    for word, start, end, probability in words:
        at = text.find(word.strip(), cursor)
        if not word.strip():
            continue
        if at < 0 or text[cursor:at].strip():
            return ()
        cursor = at + len(word.strip())
        found.append([text[at - (at > 0 and text[at - 1].isspace()) : cursor], start, end, probability])
    if text[cursor:].strip():
        return ()
    for i, item in enumerate(found):
        item[1] = item[1] if item[1] is not None else (found[i - 1][2] if i else piece_start)
        later = (w[1] for w in found[i + 1 :] if w[1] is not None)
        item[2] = max(item[1], item[2] if item[2] is not None else next(later, piece_end))
    return tuple(TimedWord(word, start, end, None, probability) for word, start, end, probability in found)
