"""LRC, the lyrics of music players: a line with its time, and in the enhanced form each word with its own."""

from __future__ import annotations

import re
from itertools import pairwise

from ...errors import DataError
from ..cues import Cue, TimedWord
from ..plain_text import WORD_JOINER, one_line
from .document import Document, clock, cue_lines, has_word_times, span
from .parsing import Piece, Timed, parse_clock, read_lines, spread

CENTISECONDS = 100  # a second
SHORT_PAUSE = 10  # centiseconds; after a longer one, an empty line takes the text away
LAST_LINE = 5.0  # seconds that a last line without end is taken to last
_TAG = re.compile(r"^\[([a-z#]+):(.*)\]\s*$", re.IGNORECASE)
_LINE_TIME = re.compile(r"\s*\[(\d+:\d{1,2}(?:[.:,]\d{1,3})?)\]")
_WORD_TIME = re.compile(r"<(\d+:\d{1,2}(?:[.:,]\d{1,3})?)>")
_OPENS = re.compile(r"([\[<])(?=\d+:)")


def write_lrc(document: Document) -> str:
    """LRC: each cue on a line; with karaoke in the enhanced form, the time of each word before it."""
    head = [f"[ti:{one_line(document.name)}]", *([f"[la:{document.language}]"] if document.language else [])]
    lines: list[str] = []
    cues = [cue for cue in document.cues if cue_lines(cue)]
    for i, cue in enumerate(cues):
        start, end = span(cue.start, cue.end, CENTISECONDS)
        lines.append(f"[{_time(start)}]{_text(cue, document)}")
        following = span(cues[i + 1].start, cues[i + 1].end, CENTISECONDS)[0] if i + 1 < len(cues) else None
        if following is None or following - end > SHORT_PAUSE:
            lines.append(f"[{_time(end)}]")
    return "\n".join([*head, *lines]) + "\n"


def _time(centiseconds: int) -> str:
    """Minutes may be more than 59: the format has no hours."""
    minutes, rest = divmod(centiseconds, 60 * CENTISECONDS)
    return f"{minutes:02d}:{clock(rest / CENTISECONDS, decimals=2)[6:]}"


def _text(cue: Cue, document: Document) -> str:
    if not (document.options.karaoke and has_word_times(cue)):
        return _escaped(" ".join(document.named(cue)))
    words = [word for line in cue.lines for word in line]
    parts = [f"<{_time(span(w.start, w.end, CENTISECONDS)[0])}> {_escaped(one_line(w.text).strip())}" for w in words]
    return " " + " ".join([*parts, f"<{_time(span(words[-1].start, words[-1].end, CENTISECONDS)[1])}>"])


def _escaped(text: str) -> str:
    """Put a word joiner where text would read as a time."""
    return _OPENS.sub("\\1" + WORD_JOINER, text)


def read_lrc(text: str) -> Timed:
    """Read LRC in both forms; a line lasts until the next one, and a repeated one stands once for each of its times."""
    language, offset = "", 0.0
    entries: list[tuple[float, str]] = []
    for line in read_lines(text):
        if (tag := _TAG.match(line.strip())) and not _LINE_TIME.match(line):
            key, value = tag[1].lower(), tag[2].strip()
            language = value if key == "la" else language
            offset = int(value) / 1000 if key == "offset" and re.fullmatch(r"[+-]?\d+", value) else offset
            continue
        times = []
        while found := _LINE_TIME.match(line):
            times.append(_seconds(found[1]))
            line = line[found.end() :]
        entries += ((max(at - offset, 0.0), line) for at in times)
    entries.sort(key=lambda entry: entry[0])
    if not entries and not language and text.strip() and not _TAG.match(text.lstrip()):
        raise DataError("no line has a time of LRC, [mm:ss.xx]")
    last = entries[-1][0] + LAST_LINE if entries else 0.0
    pieces = [_piece(at, end, line, offset) for (at, line), (end, _) in pairwise([*entries, (last, "")])]
    return Timed([piece for piece in pieces if piece.text.strip()], language)


def _seconds(text: str) -> float:
    minutes, _, rest = text.partition(":")
    return int(minutes) * 60 + parse_clock(rest.replace(":", "."))


def _piece(start: float, end: float, line: str, offset: float) -> Piece:
    parts = _WORD_TIME.split(line)
    texts = [re.sub(r"\s+", " ", part) for part in parts[::2]]
    if len(parts) == 1:
        return Piece(start, end, texts[0].replace(WORD_JOINER, ""))
    times = [start, *(max(_seconds(part) - offset, 0.0) for part in parts[1::2])]
    ends = [*times[1:], end]
    words: list[TimedWord] = []
    for written, a, b in zip(texts, times, ends, strict=True):
        words += spread(" " + written.strip(), a, max(a, b)) if written.strip() else []
    last = max(words[-1].end, start) if words else end
    return Piece(start, last, "".join(w.text for w in words).replace(WORD_JOINER, ""), words=tuple(words))
