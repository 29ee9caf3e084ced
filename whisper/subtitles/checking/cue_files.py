"""SRT and VTT files as they stand: cues with their tags and settings, and what is between them, to be written back."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ...errors import DataError
from ..cues import Cue, TimedWord
from ..formats.parsing import read_lines, text_of
from ..text_width import MARKUP, graphemes

UNSPACED = ("zh", "ja", "yue", "th", "lo", "km", "my")  # languages whose words have no space between them

_TIME = r"(?:(\d+):)?(\d{1,2}):(\d{1,2})[.,](\d{1,3})"
_TIMES = re.compile(rf"^\s*{_TIME}\s*-->\s*{_TIME}(.*)$")
_TOKEN = re.compile(rf"\s*(?:{MARKUP.pattern}|\S)+")
_TAG_NAME = re.compile(r"</?([A-Za-z]+)")
_OF_PLACE = re.compile(r"\{\\(?:an?\d|pos)")  # has no closing tag
_IS_DASH = re.compile(r"^\s*[-‐–—]\s*$")
_NO_CUE = ("NOTE", "STYLE", "REGION", "WEBVTT")


@dataclass(frozen=True)
class FileCue:
    """A cue of a file; times in milliseconds."""

    start: int
    end: int
    text: str  # lines with their tags
    settings: str = ""  # behind the times
    identifier: str = ""  # of WebVTT
    before: str = ""  # blocks between the cue before and this one: comments, styles

    @property
    def lines(self) -> list[str]:
        """The lines that have text."""
        return [line for line in self.text.split("\n") if MARKUP.sub("", line).strip()]


@dataclass(frozen=True)
class CueFile:
    """A file of subtitles."""

    format: str  # srt or vtt
    cues: tuple[FileCue, ...]
    head: str = ""  # of WebVTT, its first block
    tail: str = ""  # blocks behind the last cue


def read_file(path: str | os.PathLike[str]) -> CueFile:
    """Read an SRT or a VTT file; its content tells which.

    Raises
    ------
    DataError
        It is neither, or damaged. (A ValueError.)
    OSError
        It is missing or cannot be read.
    """
    with open(path, "rb") as file:
        data = file.read()
    try:
        return parse(text_of(data))
    except DataError as error:
        raise DataError(f"{os.fspath(path)}: {error}") from None


def parse(text: str) -> CueFile:
    """Take a file apart; a text that goes on behind a blank line belongs to its cue in SRT."""
    lines = read_lines(text.lstrip("\ufeff"))
    is_vtt = bool(lines) and lines[0].startswith("WEBVTT")
    cues: list[FileCue] = []
    head, between = "", list[str]()
    for block in _blocks(lines):
        at = next((i for i, line in enumerate(block[:2]) if "-->" in line), None)
        if at is not None and not (is_vtt and block[0].startswith(_NO_CUE)):
            cues.append(_cue(block, at, is_vtt, "\n\n".join(between)))
            between = []
        elif is_vtt:
            if not cues and not between and not head:
                head = "\n".join(block)
            else:
                between.append("\n".join(block))
        elif cues:
            last = cues.pop()
            cues.append(FileCue(last.start, last.end, "\n".join([last.text, *block]), last.settings))
        else:
            raise DataError(f"this is neither srt nor vtt: it begins with {block[0][:40]!r}")
    return CueFile("vtt" if is_vtt else "srt", tuple(cues), head, "\n\n".join(between))


def _blocks(lines: Sequence[str]) -> Iterator[list[str]]:
    """Give the runs of lines between blank ones; the number and the times of a cue also end one."""
    block: list[str] = []
    for n, line in enumerate(lines):
        following = lines[n + 1] if n + 1 < len(lines) else ""
        number_of_next = line.strip().isdecimal() and _TIMES.match(following) is not None
        opens = number_of_next or (_TIMES.match(line) is not None and any("-->" in other for other in block))
        if (not line.strip() or opens) and block:
            yield block
            block = []
        if line.strip():
            block.append(line.rstrip())
    if block:
        yield block


def _cue(block: Sequence[str], at: int, is_vtt: bool, before: str) -> FileCue:
    found = _TIMES.match(block[at])
    if not found:
        raise DataError(f"{block[at].strip()[:60]!r} are no times of a cue")
    *times, settings = found.groups()
    start, end = _milliseconds(times[:4]), _milliseconds(times[4:])
    identifier = block[0] if is_vtt and at else ""
    return FileCue(
        start, end, "\n".join(line.strip() for line in block[at + 1 :]), settings.strip(), identifier, before
    )


def _milliseconds(parts: Sequence[str | None]) -> int:
    hours, minutes, seconds, rest = (part or "0" for part in parts)
    return 1000 * (3600 * int(hours) + 60 * int(minutes) + int(seconds)) + int(rest.ljust(3, "0"))


# ---------------------------------------------------------------------------------------------------------
# Words
# ---------------------------------------------------------------------------------------------------------


def words_of(text: str, language: str | None = None) -> list[str]:
    """Take a line apart into words with the space before them; a tag is part of the word that it stands at."""
    words: list[str] = []
    pending = ""  # tags that open before a word
    for token in _TOKEN.findall(text.rstrip()):
        if not MARKUP.sub("", token).strip():
            if token.strip().startswith("</") and words:
                words[-1] += token
            else:
                pending += token if not pending else token.lstrip()
            continue
        first = pending or token
        words.append(first[: len(first) - len(first.lstrip())] + pending.strip() + token.lstrip())
        pending = ""
    if pending and words:
        words[-1] += pending
    if language in UNSPACED:
        words = [piece for word in words for piece in _characters(word)]
    if len(words) > 1 and _IS_DASH.match(MARKUP.sub("", words[0])):  # says who speaks the words behind it
        words[:2] = ["".join(words[:2])]
    return words


def _characters(word: str) -> list[str]:
    """Take a word apart into characters, each with the tags before it; closing tags stay with the last."""
    pieces: list[str] = []
    pending = ""
    for part in re.split(rf"({MARKUP.pattern})", word):
        if MARKUP.fullmatch(part):
            if part.startswith("</") and pieces:
                pieces[-1] += part
            else:
                pending += part
            continue
        for cluster in graphemes(part):
            if cluster.isspace() or (cluster.isascii() and pieces and pieces[-1][-1:].isascii() and not pending):
                pieces[-1:] = [pieces[-1] + cluster] if pieces and not cluster.isspace() else [*pieces[-1:], cluster]
            elif pieces and pieces[-1].isspace():
                pieces[-1] += pending + cluster
                pending = ""
            else:
                pieces.append(pending + cluster)
                pending = ""
    if pending and pieces:
        pieces[-1] += pending
    return pieces


def cue_of(cue: FileCue, language: str | None = None) -> Cue:
    """Return a cue of a file as one of ours: its words share its time by their lengths."""
    lines = [words_of(line.strip(), language) for line in cue.lines]
    lengths = [max(1, len(MARKUP.sub("", word))) for line in lines for word in line]
    whole, at, n = sum(lengths) or 1, 0, 0
    made: list[tuple[TimedWord, ...]] = []
    start, length = cue.start / 1000, (cue.end - cue.start) / 1000
    for line in lines:
        words = []
        for word in line:
            first, last = start + length * at / whole, start + length * (at + lengths[n]) / whole
            words.append(TimedWord(word, first, last))
            at, n = at + lengths[n], n + 1
        made.append(tuple(words))
    return Cue(start, cue.end / 1000, tuple(made))


# ---------------------------------------------------------------------------------------------------------
# Written back
# ---------------------------------------------------------------------------------------------------------


def written(file: CueFile) -> str:
    """Return the text of a file: SRT is numbered anew, and WebVTT keeps what is between its cues."""
    marker = "." if file.format == "vtt" else ","
    blocks = [file.head or "WEBVTT"] if file.format == "vtt" else []
    for number, cue in enumerate(file.cues, start=1):
        if cue.before:
            blocks.append(cue.before)
        times = f"{_clock(cue.start, marker)} --> {_clock(cue.end, marker)} {cue.settings}".rstrip()
        name = cue.identifier if file.format == "vtt" else str(number)
        blocks.append("\n".join(filter(None, [name, times, cue.text])))
    return "\n\n".join([*blocks, *filter(None, [file.tail])]) + "\n"


def _clock(milliseconds: int, marker: str) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{marker}{rest:03d}"


def balanced(texts: Sequence[str]) -> Iterator[str]:
    """Give texts of cues that were one: what is open at the end of one is closed there, and opened in the next."""
    open_tags: list[str] = []
    for text in texts:
        opened = "".join(open_tags)
        for tag in MARKUP.findall(text):
            name = _TAG_NAME.match(tag)
            if name and tag.startswith("</"):
                open_tags = _without_last(open_tags, name[1])
            elif name or _OF_PLACE.match(tag):
                open_tags.append(tag)
        names = (_TAG_NAME.match(tag) for tag in reversed(open_tags))
        yield opened + text + "".join(f"</{name[1]}>" for name in names if name)


def _without_last(tags: list[str], name: str) -> list[str]:
    for i in range(len(tags) - 1, -1, -1):
        if re.match(rf"<{name}\b", tags[i]):
            return [*tags[:i], *tags[i + 1 :]]
    return tags
