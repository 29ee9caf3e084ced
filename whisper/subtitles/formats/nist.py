"""The formats of NIST's scoring tools: CTM for words, STM for reference texts, RTTM for who speaks when."""

from __future__ import annotations

import re
from itertools import groupby

from ...errors import DataError, ResultError
from ..cues import TimedWord
from ..plain_text import one_line
from .document import Document, units
from .parsing import Piece, Timed, read_lines

UNKNOWN = "speaker"  # where nobody is named
NO_LABEL = "<O> "  # before a text that would be read as a label
LONG_PAUSE = 0.5  # seconds between words that begin a new segment, when CTM is read
MOST_WORDS = 40  # in a segment, when CTM is read
_ENDS_SENTENCE = tuple(".?!。？！…")


def write_ctm(document: Document) -> str:
    """CTM: recording, channel, start, duration, word and its probability.

    Source: SCTK, infmts.

    Raises
    ------
    ResultError
        A segment has no word times.
    """
    lines = []
    for segment in document.segments:
        if not segment.words:
            raise ResultError("ctm is a list of words with times, and the result has none: word_timestamps=True")
        for word in segment.words:
            start, end = units(word.start), max(units(word.end), units(word.start))
            sure = "" if word.probability is None else f" {word.probability:.4f}"
            lines.append(
                f"{_name(document.name)} 1 {start / 1000:.3f} {(end - start) / 1000:.3f} {_name(word.text)}{sure}\n"
            )
    return "".join(lines)


def write_stm(document: Document) -> str:
    """STM: recording, channel, speaker, start, end and text of each segment.

    Source: SCTK, infmts.
    """
    return "".join(
        f"{_name(document.name)} 1 {_name(s.speaker or UNKNOWN)} {units(s.start) / 1000:.3f} "
        f"{units(max(s.end, s.start)) / 1000:.3f} {NO_LABEL if s.text.startswith('<') else ''}{s.text}\n"
        for s in document.segments
    )


def write_rttm(document: Document) -> str:
    """RTTM: who speaks when; the text has no place in it. The ``turns`` of a result tell more than its segments.

    Source: NIST, Rich Transcription 2009 evaluation plan, appendix A.
    """
    turns = document.result.get("turns")
    spans = (
        ((s.start, s.end, s.speaker) for s in document.segments)
        if turns is None
        else ((turn["start"], turn["end"], turn["speaker"]) for turn in turns)
    )
    return "".join(
        f"SPEAKER {_name(document.name)} 1 {units(start) / 1000:.3f} {units(max(end - start, 0)) / 1000:.3f} "
        f"<NA> <NA> {_name(speaker or UNKNOWN)} <NA> <NA>\n"
        for start, end, speaker in spans
    )


def _name(text: str) -> str:
    """Return text without white space, which parts the fields."""
    return re.sub(r"\s+", "_", one_line(text).strip()) or "_"


# ---------------------------------------------------------------------------------------------------------
# Read
# ---------------------------------------------------------------------------------------------------------


def read_ctm(text: str) -> Timed:
    """Read the words of CTM; a segment ends with a sentence, at a pause of half a second, and after 40 words."""
    words: list[tuple[tuple[str, str], TimedWord]] = []
    for number, fields in _rows(text):
        try:
            name, channel, start, duration, word, *rest = fields
            probability = float(rest[0]) if rest and rest[0] != "NA" else None
            timed = TimedWord(" " + word, float(start), float(start) + float(duration), None, probability)
        except ValueError:
            raise DataError(f"line {number} is not of CTM: recording channel start duration word") from None
        words.append(((name, channel), timed))
    if len({name for (name, _), _ in words}) > 1:
        raise DataError("the CTM file has words of several recordings: give a file for each")
    channels = {channel for (_, channel), _ in words}
    pieces: list[Piece] = []
    for (_, channel), own in groupby(sorted(words, key=lambda w: (w[0][1], w[1].start)), lambda w: w[0]):
        speaker = f"channel {channel}" if len(channels) > 1 else None
        pieces += (_piece(run, speaker) for run in _sentences([word for _, word in own]))
    return Timed(pieces)


def _sentences(words: list[TimedWord]) -> list[list[TimedWord]]:
    runs: list[list[TimedWord]] = []
    for i, word in enumerate(words):
        before = words[i - 1] if i else None
        if (
            before is None
            or before.text.endswith(_ENDS_SENTENCE)
            or word.start - before.end > LONG_PAUSE
            or len(runs[-1]) >= MOST_WORDS
        ):
            runs.append([])
        runs[-1].append(word)
    return runs


def _piece(words: list[TimedWord], speaker: str | None) -> Piece:
    end = max(word.end for word in words)
    return Piece(words[0].start, end, "".join(word.text for word in words), speaker, tuple(words))


def read_stm(text: str) -> Timed:
    """Read STM; a label in angle brackets is skipped, and so is what is not to be scored."""
    pieces = []
    for number, fields in _rows(text):
        try:
            _, _, speaker, start, end, *spoken = fields
            times = float(start), float(end)
        except ValueError:
            raise DataError(f"line {number} is not of STM: recording channel speaker begin end text") from None
        if spoken and re.fullmatch(r"<[^<>]*>", spoken[0]):
            spoken = spoken[1:]
        if spoken != ["IGNORE_TIME_SEGMENT_IN_SCORING"]:
            pieces.append(Piece(*times, " ".join(spoken), None if speaker == UNKNOWN else speaker))
    return Timed(pieces)


def _rows(text: str) -> list[tuple[int, list[str]]]:
    """Return the fields of each line that is no comment, with its number."""
    rows = enumerate(read_lines(text), start=1)
    return [(i, line.split()) for i, line in rows if line.strip() and not line.startswith(";;")]
