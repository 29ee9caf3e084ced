"""What a format writes: a result, its cues, and the choices that formats leave open."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from itertools import groupby
from typing import Any, NamedTuple

from ...errors import OptionError, ResultError
from ...options.types import FLAG, TEXT, check_values, one_of, option
from ..cues import Cue, TimedWord
from ..plain_text import one_line

CONTENTS = "contents of further formats"  # heading of the help
# frames a second as broadcasting and editing have them, exactly
FRAME_RATES = {
    "23.976": Fraction(24000, 1001), "24": Fraction(24), "25": Fraction(25), "29.97": Fraction(30000, 1001),
    "30": Fraction(30), "50": Fraction(50), "59.94": Fraction(60000, 1001), "60": Fraction(60),
}  # fmt: skip
# names of tiers, in formats that have them
WORDS = "words"  # the tier of words, or its end after a speaker: "Ann words"
SEGMENTS = "segments"  # the tier of texts whose speaker is unknown
_SETTING = re.compile(r"(vertical|line|position|size|align|region):[^\s:]+")


@dataclass(frozen=True)
class FormatOptions:
    """What the formats leave open."""

    karaoke: bool = option(
        CONTENTS,
        False,
        FLAG,
        "the time of each word where the format has a place for it: vtt, ass, lrc and ttml light words up as they are "
        "spoken, audacity has a label for each; needs --word_timestamps True",
        ours=True,
    )
    cue_settings: str | None = option(
        CONTENTS,
        None,
        TEXT,
        "where vtt shows its cues, such as 'line:85% align:center'; the settings of WebVTT, behind the times of each",
        ours=True,
    )
    frame_rate: str = option(
        CONTENTS,
        "25",
        one_of(*FRAME_RATES),
        "frames a second of the picture, for the marks of fcpxml and edl",
        ours=True,
    )

    def __post_init__(self) -> None:
        check_values(self)
        if not all(_SETTING.fullmatch(setting) for setting in (self.cue_settings or "").split()):
            raise OptionError(
                f"cue_settings must be settings of WebVTT such as 'line:85% align:center', not {self.cue_settings!r}: "
                "vertical, line, position, size, align or region, each with a value"
            )

    @classmethod
    def within(cls, options: Mapping[str, Any] | None) -> FormatOptions:
        """Take what is in `options`, among others, and the defaults for the rest."""
        given = options or {}
        return cls(**{f.name: given[f.name] for f in fields(cls) if f.name in given})

    @property
    def changes_vtt(self) -> bool:
        """Whether WebVTT shall hold what openai-whisper's does not."""
        return self.karaoke or bool(self.cue_settings)

    @property
    def frames_a_second(self) -> Fraction:
        """The rate as an exact number."""
        return FRAME_RATES[self.frame_rate]


class Segment(NamedTuple):
    """A segment of a result, as the formats need it: on one line, with its speaker."""

    start: float
    end: float
    text: str
    speaker: str | None
    words: tuple[TimedWord, ...]  # empty where it has no word times


@dataclass(frozen=True)
class Document:
    """A result that is to be written.

    Parameters
    ----------
    segments
        Of the result, in its order; none without text.
    cues
        The same text as it is shown.
    result
        What they were made of.
    name
        Of the recording, without folder and extension.
    options
        What the format leaves open.
    names_speakers
        Whether formats without a place for speakers put their names before the text; not where the layout has shown
        who speaks already.
    """

    segments: tuple[Segment, ...]
    cues: tuple[Cue, ...]
    result: Mapping[str, Any]
    name: str
    options: FormatOptions = FormatOptions()
    names_speakers: bool = True

    def named(self, cue: Cue) -> list[str]:
        """Return the lines of a cue, the first with who says it, for formats without a place for that."""
        lines = cue_lines(cue)
        is_named = lines and cue.speaker and self.names_speakers
        return [f"{cue.speaker}: {lines[0]}", *lines[1:]] if is_named else lines

    @property
    def language(self) -> str:
        """The code of the language; empty where it is unknown."""
        return str(self.result.get("language") or "")

    @property
    def duration(self) -> float:
        """Where the last text ends, in seconds."""
        return max([0.0, *(s.end for s in self.segments), *(cue.end for cue in self.cues)])

    @property
    def speakers(self) -> list[str | None]:
        """Who speaks, in the order of appearance; None where that is unknown."""
        return list(dict.fromkeys(segment.speaker for segment in self.segments)) or [None]


def speaker_of(item: Mapping[str, Any]) -> str | None:
    """Return who speaks a segment or a word: its ``speaker``, or else the ``channel``; None where it has neither."""
    if item.get("speaker") is not None:
        return one_line(str(item["speaker"])).strip() or None
    return None if item.get("channel") is None else f"channel {one_line(str(item['channel']))}"


def segments_of(result: Mapping[str, Any]) -> Iterator[Segment]:
    """Give the segments of a result that have text; words without text are no words."""
    for segment in result["segments"]:
        speaker = speaker_of(segment)
        words = tuple(
            TimedWord(text, word["start"], word["end"], speaker_of(word) or speaker, word.get("probability"))
            for word in segment.get("words", ())
            if (text := one_line(word["word"])).strip()
        )
        if text := one_line(segment["text"]).strip():
            yield Segment(segment["start"], segment["end"], text, speaker, words)


def cue_of(segment: Segment) -> Cue:
    """Return a segment as a cue of one line."""
    whole = (TimedWord(segment.text, segment.start, segment.end, segment.speaker),)
    return Cue(segment.start, segment.end, (segment.words or whole,), segment.speaker)


def turns(segments: Iterable[Segment]) -> Iterator[list[Segment]]:
    """Give the segments that one speaker says one after the other."""
    yield from (list(own) for _, own in groupby(segments, lambda segment: segment.speaker))


# ---------------------------------------------------------------------------------------------------------
# Cues
# ---------------------------------------------------------------------------------------------------------


def line_text(line: Iterable[TimedWord]) -> str:
    """Return the text of a line."""
    return one_line("".join(word.text for word in line)).strip()


def cue_lines(cue: Cue) -> list[str]:
    """Return the lines of a cue that have text."""
    return [text for line in cue.lines if (text := line_text(line))]


def has_word_times(cue: Cue) -> bool:
    """Whether its words have times of their own: one text for all of it has none."""
    return sum(len(line) for line in cue.lines) > 1


# ---------------------------------------------------------------------------------------------------------
# Times
# ---------------------------------------------------------------------------------------------------------


def units(seconds: float, per_second: int = 1000) -> int:
    """Return a time in whole units, by default milliseconds.

    Raises
    ------
    ResultError
        It is negative, infinite or not a number.
    """
    if not 0 <= seconds < 1e9:
        raise ResultError(f"a time must be a number of seconds, and not negative: {seconds}")
    return round(seconds * per_second)


def clock(seconds: float, *, decimals: int = 3, marker: str = ".", hours: str = "{:02d}:") -> str:
    """Write a time as ``hh:mm:ss.mmm``; ``hours`` is the pattern of the hours."""
    whole, rest = divmod(units(seconds, 10**decimals), 10**decimals)
    minutes, second = divmod(whole, 60)
    hour, minute = divmod(minutes, 60)
    return f"{hours.format(hour)}{minute:02d}:{second:02d}{marker}{rest:0{decimals}d}"


def span(start: float, end: float, per_second: int = 1000) -> tuple[int, int]:
    """Return the times of a cue in whole units; it lasts at least one."""
    first = units(start, per_second)
    return first, max(units(end, per_second), first + 1)


def side_by_side(items: Sequence[tuple[float, float, str]]) -> list[tuple[int, int, str]]:
    """Return texts in milliseconds that do not overlap, for formats whose tiers allow nothing else.

    What starts while another is spoken begins at its end; what has no time of its own then shares that of the text
    before it.
    """
    placed: list[tuple[int, int, str]] = []
    for start, end, text in sorted(items, key=lambda item: item[:2]):
        first, last = units(start), units(end)
        first = max(first, placed[-1][1]) if placed else first
        if placed and last <= first:
            placed[-1] = (*placed[-1][:2], f"{placed[-1][2]} {text}")
        else:
            placed.append((first, max(last, first + 1), text))
    return placed
