"""From a result to the words that are laid out: on one line each, in their order, with times that can be shown."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import ResultError
from .cues import TimedWord
from .formats.document import speaker_of
from .plain_text import one_line
from .text_width import graphemes

FASTEST = 0.01  # seconds a character: nobody speaks 100 a second, so words with less time are badly timed
SLOWEST = (2.0, 0.2)  # seconds of the longest word, and more for each character: what is longer is a pause
LONGEST_SOUND = 6  # words in brackets that are a sound; more are speech

_OPENS, _CLOSES = re.compile(r"^\s*[\[(（【*]"), re.compile(r"[\])）】*][.,!?]?\s*$")
_MUSIC = re.compile(r"^[\s♪♫♩♬]+$")
_BRACKETS = "[]()（）【】* "
_OPENING, _CLOSING = {"Ps", "Pi"}, {"Pe", "Pf", "Po"}  # Unicode categories of marks


@dataclass(frozen=True)
class Spoken:
    """The words of a result."""

    words: tuple[TimedWord, ...]
    segment_starts: tuple[int, ...] = ()  # the indexes of words with which a segment begins


def spoken_words(result: Mapping[str, Any], sounds: str = "keep") -> Spoken:
    """Return the words of a result as they can be laid out.

    Parameters
    ----------
    result
        Of `transcribe`. The words of a segment without word times share its time by their lengths.
    sounds
        What happens to what is no speech, such as ``(laughs)``: keep, drop or brackets.

    Raises
    ------
    ResultError
        The result has not the form of a transcript.
    """
    try:
        segments = [_words_of(segment) for segment in result["segments"]]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ResultError(f"this is no result of transcribe(): {type(error).__name__}: {error}") from error
    segments = [list(_treated(words, sounds)) for words in segments]
    words: list[TimedWord] = []
    starts: list[int] = []
    for segment in _in_turns([words for words in segments if words]):
        starts.append(len(words))
        words += segment
    return Spoken(tuple(repaired(_with_timed_marks(words))), tuple(starts))


def _words_of(segment: Mapping[str, Any]) -> list[TimedWord]:
    speaker = speaker_of(segment)
    if segment.get("words"):
        return [
            TimedWord(text, float(w["start"]), float(w["end"]), speaker_of(w) or speaker, w.get("probability"))
            for w in segment["words"]
            if (text := one_line(w["word"])).strip()
        ]
    return spread(one_line(segment["text"]), float(segment["start"]), float(segment["end"]), speaker)


def spread(text: str, start: float, end: float, speaker: str | None = None) -> list[TimedWord]:
    """Take text apart into words that share a stretch of time by their lengths."""
    texts = re.findall(r"\s*\S+", text.rstrip())
    if len(texts) == 1:  # perhaps a script without spaces
        clusters = graphemes(texts[0])
        texts = [*clusters] if not texts[0].isascii() and len(clusters) > 16 else texts
    lengths = [len(word) for word in texts]
    whole, at = max(1, sum(lengths)), 0
    words = []
    for word, length in zip(texts, lengths, strict=True):
        words.append(
            TimedWord(word, start + (end - start) * at / whole, start + (end - start) * (at + length) / whole, speaker)
        )
        at += length
    return words


# ---------------------------------------------------------------------------------------------------------
# What is no speech
# ---------------------------------------------------------------------------------------------------------


def _treated(words: Sequence[TimedWord], sounds: str) -> Iterator[TimedWord]:
    """Give the words of a segment; sounds are kept, left out, or one word in brackets each."""
    if sounds == "keep":
        yield from words
        return
    at = 0
    while at < len(words):
        n = _length_of_sound(words[at:])
        if not n:
            yield words[at]
        elif sounds == "brackets":
            text = "".join(word.text for word in words[at : at + n]).strip()
            name = text if _MUSIC.match(text) else f"[{text.rstrip('.,!?').strip(_BRACKETS).lower()}]"
            space = " " if words[at].text[:1].isspace() else ""
            yield replace(words[at], text=space + name, end=words[at + n - 1].end)
        at += max(n, 1)


def _length_of_sound(words: Sequence[TimedWord]) -> int:
    """Return how many of the first words are one sound: notes, or some words in brackets; 0 for speech."""
    if _MUSIC.match(words[0].text):
        return 1
    if not _OPENS.match(words[0].text):
        return 0
    for n, word in enumerate(words[:LONGEST_SOUND], start=1):
        if _CLOSES.search(word.text) and (n > 1 or len(word.text.strip()) > 1):
            return n
    return 0


# ---------------------------------------------------------------------------------------------------------
# Order and times
# ---------------------------------------------------------------------------------------------------------


def _in_turns(segments: Iterable[list[TimedWord]]) -> list[list[TimedWord]]:
    """Order segments by their starts: speakers who talk at once are shown one after the other."""
    return sorted(segments, key=lambda words: words[0].start)


def _with_timed_marks(words: Sequence[TimedWord]) -> Iterator[TimedWord]:
    """Give words, marks that stand alone, as in French, beside the words that they belong to.

    No line ends between the two, so a pause that the model heard there would be inside a cue.
    """
    end = math.inf  # of the last word
    for n, word in enumerate(words, start=1):
        text = word.text.strip()
        if n < len(words) and _is_of(text, _OPENING):
            begins = words[n].start - FASTEST * len(text)
            yield replace(word, start=max(word.start, begins), end=max(word.end, begins))
        elif _is_of(text, _CLOSING):
            yield replace(word, start=min(word.start, end), end=min(word.end, end + FASTEST * len(text)))
        else:
            yield word
            end = word.end


def _is_of(text: str, categories: set[str]) -> bool:
    return {unicodedata.category(character) for character in text} <= categories


def repaired(words: Iterable[TimedWord], slowest: bool = True) -> Iterator[TimedWord]:
    """Give words whose times can be shown: in order, none before zero, with `slowest` none longer than anyone speaks.

    A word that begins before the one before it, or so soon that nobody could have said that, begins later.
    """
    earliest = 0.0
    for word in words:
        length = len(word.text.strip())
        start = max(word.start if word.start == word.start else earliest, earliest)
        longest = SLOWEST[0] + SLOWEST[1] * length if slowest else float("inf")
        end = min(max(word.end if word.end == word.end else start, start), start + longest)
        yield replace(word, start=round(start, 3), end=round(end, 3))
        earliest = start + FASTEST * length
