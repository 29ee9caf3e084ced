"""Advanced SubStation Alpha: styled subtitles, which light up words as they are spoken."""

from __future__ import annotations

import re

from ...errors import DataError
from ..cues import Cue, TimedWord
from ..plain_text import WORD_JOINER, one_line
from .document import Document, clock, cue_lines, has_word_times, line_text, span
from .parsing import Piece, Timed, parse_clock, read_lines, spread

CENTISECONDS = 100  # a second
_HEAD = """\
[Script Info]
ScriptType: v4.00+
Title: {title}
PlayResX: 1920
PlayResY: 1080
WrapStyle: 0
ScaledBorderAndShadow: yes

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, \
StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding
Style: Default,Arial,60,&H00FFFFFF,&H0000FFFF,&H00000000,&H80000000,0,0,0,0,100,100,0,0,1,3,1,2,96,96,54,1

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""
_BRACES = str.maketrans({"{": "\uff5b", "}": "\uff5d"})  # full width: there is no escape that all players know
_COMMAND = re.compile(r"\\(?=[Nnh])")
_KARAOKE = re.compile(r"\\[kK][fo]?\s*(\d+(?:\.\d+)?)")
_OVERRIDE = re.compile(r"\{[^{}]*\}")
_DRAWING = re.compile(r"\\p[1-9]")


def write_ass(document: Document) -> str:
    """Advanced SubStation Alpha v4.00+: the speaker as a line's name, with karaoke how long each word is lit."""
    head = _HEAD.format(title=one_line(document.name))
    return head + "".join(_dialogue(cue, document.options.karaoke) for cue in document.cues if cue_lines(cue))


def _dialogue(cue: Cue, karaoke: bool) -> str:
    start, end = span(cue.start, cue.end, CENTISECONDS)
    times = (clock(at / CENTISECONDS, decimals=2, hours="{:d}:") for at in (start, end))
    name = one_line(cue.speaker or "").replace(",", " ").strip()
    is_lit = karaoke and has_word_times(cue)
    text = _lit_up(cue, start, end) if is_lit else "\\N".join(map(_escaped, cue_lines(cue)))
    return f"Dialogue: 0,{','.join(times)},Default,{name},0,0,0,,{text}\n"


def _escaped(text: str) -> str:
    """Return text of which nothing is a command."""
    return _COMMAND.sub("\\\\" + WORD_JOINER, text.translate(_BRACES))


def _lit_up(cue: Cue, start: int, end: int) -> str:
    """Return the text with how long each word is lit, in centiseconds; together as long as the cue."""
    lines = [line for line in cue.lines if line_text(line)]
    words = [(i, word) for i, line in enumerate(lines) for word in line]
    starts = [start, *(span(word.start, word.end, CENTISECONDS)[0] for _, word in words[1:])]
    for i, at in enumerate(starts):
        starts[i] = min(max(at, starts[max(i - 1, 0)]), end)
    first = min(max(span(words[0][1].start, words[0][1].end, CENTISECONDS)[0], start), starts[1], end)
    text, line = f"{{\\k{first - start}}}" if first > start else "", 0
    for (i, word), at, until in zip(words, [first, *starts[1:]], [*starts[1:], end], strict=True):
        text += "\\N" * (i - line) + f"{{\\k{until - at}}}"
        shown = one_line(word.text)
        text += _escaped(shown.lstrip() if i != line or word is words[0][1] else shown)
        line = i
    return text


def read_ass(text: str) -> Timed:
    """Read ASS and SSA: text, speakers, and karaoke as times of words; comments and drawings are skipped."""
    columns: list[str] = []
    pieces: list[Piece] = []
    section = ""
    for number, line in enumerate(read_lines(text), start=1):
        kind, _, rest = line.partition(":")
        if line.startswith("["):
            section = line.strip().lower()
        elif section == "[events]" and kind == "Format":
            columns = [name.strip().lower() for name in rest.split(",")]
        elif section == "[events]" and kind == "Dialogue":
            fields = dict(zip(columns, rest.split(",", max(len(columns) - 1, 0)), strict=False))
            if not {"start", "end", "text"} <= fields.keys():
                raise DataError(f"line {number} has no start, end and text as the Format line of [Events] has them")
            pieces.append(_piece(fields))
    return Timed(pieces)


def _piece(fields: dict[str, str]) -> Piece:
    start, end = parse_clock(fields["start"]), parse_clock(fields["end"])
    name = (fields.get("name") or fields.get("actor") or "").strip() or None
    written = re.sub(r"\\[Nnh]", " ", fields["text"]).replace(WORD_JOINER, "")
    if _DRAWING.search(written):
        return Piece(start, end, "")
    return Piece(start, end, _OVERRIDE.sub("", written), name, _karaoke(start, end, written))


def _karaoke(start: float, end: float, written: str) -> tuple[TimedWord, ...]:
    """Return the words of a text with karaoke, each with its time."""
    tags = [(tag, _KARAOKE.findall(tag[0])) for tag in _OVERRIDE.finditer(written)]
    timed = [(tag, sum(map(float, found)) / CENTISECONDS) for tag, found in tags if found]
    words: list[TimedWord] = []
    at = start
    for i, (tag, lasts) in enumerate(timed):
        until = timed[i + 1][0].start() if i + 1 < len(timed) else len(written)
        words += spread(_OVERRIDE.sub("", written[tag.end() : until]), min(at, end), min(at + lasts, end))
        at += lasts
    return tuple(words)
