"""SubRip, WebVTT and SBV: blocks of a line with two times and lines of text."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from itertools import pairwise

from ...errors import DataError
from ..cues import Cue, TimedWord
from ..plain_text import WORD_JOINER, one_line
from .document import Document, clock, cue_lines, has_word_times, line_text, span
from .parsing import Piece, Timed, parse_clock, read_lines, spread

_ARROW = re.compile(r"-{2,}>")
_OPENS_TAG = re.compile(r"<(?=[A-Za-z/!?]|$)|\{(?=\\|$)")
_TIME = r"(?:\d+:)?\d{1,2}:\d{1,2}(?:[.,]\d{1,6})?"
_TIMES = re.compile(rf"^\s*({_TIME})\s*-{{2,}}>\s*({_TIME})(?:\s.*)?$")
_TIMES_SBV = re.compile(rf"^\s*({_TIME}),({_TIME})\s*$")
_TAGS = re.compile(r"</?[A-Za-z][^<>]*>|\{\\[^{}]*\}")
_VTT_TAGS = re.compile(r"<[^<>]*>")
_SPEAKER_IN_BRACKETS = re.compile(r"^\[([^\[\]]+)\]: ?")  # as WhisperX writes it
_VOICE = re.compile(r"<v(?:\.[^\s<>]*)?\s+([^<>]*)>")
_INNER_TIME = re.compile(rf"<({_TIME})>")
_HEADER_LANGUAGE = re.compile(r"^Language:\s*(\S+)", re.IGNORECASE)


# ---------------------------------------------------------------------------------------------------------
# Written
# ---------------------------------------------------------------------------------------------------------


def write_srt(document: Document) -> str:
    """SubRip: numbered cues, a decimal comma. Nothing in the text is read as a tag or as times."""
    blocks = [cue for cue in document.cues if cue_lines(cue)]
    return "".join(
        f"{i}\n{_times(cue, ' --> ', ',')}\n{_plain(cue, document)}\n\n" for i, cue in enumerate(blocks, start=1)
    )


def write_sbv(document: Document) -> str:
    """SBV, YouTube's: hours of one digit, a comma between the times."""
    return "".join(
        f"{_times(cue, ',', '.', '{:d}:')}\n{_plain(cue, document)}\n\n" for cue in document.cues if cue_lines(cue)
    )


def write_vtt(document: Document) -> str:
    """WebVTT: speakers as voices, cue settings, and with karaoke the time of each word."""
    settings = (document.options.cue_settings or "").split()
    head = f"WEBVTT\nLanguage: {document.language}\n\n" if document.language else "WEBVTT\n\n"
    behind = "".join(f" {setting}" for setting in settings)
    cues = (cue for cue in document.cues if cue_lines(cue))
    return head + "".join(
        f"{_times(cue, ' --> ')}{behind}\n{_vtt_text(cue, document.options.karaoke)}\n\n" for cue in cues
    )


def _times(cue: Cue, between: str, marker: str = ".", hours: str = "{:02d}:") -> str:
    start, end = (clock(ms / 1000, marker=marker, hours=hours) for ms in span(cue.start, cue.end))
    return f"{start}{between}{end}"


def _plain(cue: Cue, document: Document) -> str:
    """Return the text of a format that has no escapes: a `WORD_JOINER` parts what opens a tag."""
    lines = (_OPENS_TAG.sub(lambda opening: opening[0] + WORD_JOINER, line) for line in document.named(cue))
    return "\n".join(_ARROW.sub("->", line) for line in lines)


def _vtt_text(cue: Cue, karaoke: bool) -> str:
    times = karaoke and has_word_times(cue)
    lines = [line for line in cue.lines if line_text(line)]
    if cue.speaker is not None or len({line[0].speaker for line in lines}) == 1:
        speaker = cue.speaker or lines[0][0].speaker
        return _voice("\n".join(_vtt_line(line, cue, times) for line in lines), speaker)
    return "\n".join(_voice(_vtt_line(line, cue, times), line[0].speaker, close=True) for line in lines)


def _voice(text: str, speaker: str | None, close: bool = False) -> str:
    if speaker is None:
        return text
    return f"<v {html.escape(one_line(speaker), quote=False)}>{text}{'</v>' if close else ''}"


def _vtt_line(line: tuple[TimedWord, ...], cue: Cue, times: bool) -> str:
    """Return a line; a time inside stands before its word, after the white space, and between those of the cue."""
    if not times:
        return html.escape(line_text(line), quote=False)
    first, last = span(cue.start, cue.end)
    written = ""
    for word in line:
        text = html.escape(one_line(word.text), quote=False)
        space = text[: len(text) - len(text.lstrip())]
        at = span(word.start, word.end)[0]
        written += f"{space}<{clock(at / 1000)}>{text.lstrip()}" if first < at < last else text
    return written.strip()


# ---------------------------------------------------------------------------------------------------------
# Read
# ---------------------------------------------------------------------------------------------------------


def read_srt(text: str) -> Timed:
    """Read SubRip, also without numbers, with full stops for commas, or with blank lines in a text."""
    return Timed([_piece(start, end, lines) for start, end, lines in _blocks(text, _TIMES, has_numbers=True)])


def read_sbv(text: str) -> Timed:
    """Read SBV; YouTube writes ``[br]`` for a line break."""
    return Timed([_piece(start, end, lines) for start, end, lines in _blocks(text.replace("[br]", "\n"), _TIMES_SBV)])


def read_vtt(text: str) -> Timed:
    """Read WebVTT with its voices and inner times; comments, styles and regions are skipped."""
    head, *blocks = re.split(r"\n[ \t]*\n+", "\n".join(read_lines(text)))
    language = next((m[1] for line in head.split("\n") if (m := _HEADER_LANGUAGE.match(line))), "")
    pieces: list[Piece] = []
    for block in blocks if head.startswith("WEBVTT") else [head, *blocks]:
        lines = [line for line in block.split("\n") if line.strip()]
        at = next((i for i, line in enumerate(lines[:2]) if _TIMES.match(line)), None)
        if at is not None and (times := _TIMES.match(lines[at])):
            pieces += _vtt_pieces(parse_clock(times[1]), parse_clock(times[2]), lines[at + 1 :])
    return Timed(pieces, language)


def _blocks(text: str, times: re.Pattern[str], has_numbers: bool = False) -> Iterator[tuple[float, float, list[str]]]:
    """Give start, end and lines of each cue: all lines up to the next one with times."""
    lines = read_lines(text)
    heads = [i for i, line in enumerate(lines) if times.match(line)]
    if not heads and text.strip():
        raise DataError("no line has the times of a cue")
    for i, following in pairwise([*heads, len(lines)]):
        body = [line.strip() for line in lines[i + 1 : following]]
        while body and not body[-1]:
            body.pop()
        if has_numbers and following < len(lines) and body and body[-1].isdecimal() and lines[following - 1].strip():
            body.pop()  # the number of the next cue
        found = times.match(lines[i])
        assert found is not None, "it is a head"
        yield parse_clock(found[1]), parse_clock(found[2]), [line for line in body if line]


def _piece(start: float, end: float, lines: list[str]) -> Piece:
    text = _TAGS.sub("", " ".join(lines)).replace(WORD_JOINER, "")
    speaker = _SPEAKER_IN_BRACKETS.match(text)
    return Piece(start, end, text[speaker.end() :] if speaker else text, speaker[1] if speaker else None)


def _vtt_pieces(start: float, end: float, lines: list[str]) -> Iterator[Piece]:
    """Give a cue as one piece for each voice in it; they share its time, unless its words have their own."""
    parts = _VOICE.split(" ".join(line.strip() for line in lines))
    for i in range(0, len(parts), 2):
        speaker = html.unescape(parts[i - 1]).strip() if i else None
        text, words = _inner_times(start, end, parts[i])
        if text:
            first, last = (words[0].start, words[-1].end) if words and len(parts) > 3 else (start, end)
            yield Piece(first, last, text, speaker or None, words)


def _inner_times(start: float, end: float, text: str) -> tuple[str, tuple[TimedWord, ...]]:
    """Return text without tags, and its words where there are times inside."""
    parts = _INNER_TIME.split(text)
    texts = [html.unescape(_VTT_TAGS.sub("", part)) for part in parts[::2]]
    times = [start, *(min(max(parse_clock(part), start), end) for part in parts[1::2]), end]
    whole = " ".join("".join(texts).split())
    if len(parts) == 1:
        return whole, ()
    return whole, tuple(w for t, a, b in zip(texts, times, times[1:], strict=False) for w in spread(t, a, max(a, b)))
