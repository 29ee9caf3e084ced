"""The layout of subtitles: words with times become lines, and lines become cues.

Three steps, each a function of its input alone: segments -> timed words -> lines -> cues, as
openai-whisper has them. Knows no file format.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from ..errors import OptionError
from ..options.types import TRUTH, check_values, option, whole

LONG_PAUSE = 3.0  # seconds from the start of one word to that of the next: more than this opens a new cue
UNLIMITED_WIDTH = 1000  # characters, where no width is given


class Word(NamedTuple):
    """A word as it will be printed, white space included, with its times in seconds."""

    text: str
    start: float
    end: float


LAYOUT = "layout of srt and vtt, with word_timestamps"


@dataclass(frozen=True)
class Layout:
    """How words become cues. Only for results with word times."""

    max_line_width: int | None = option(LAYOUT, None, whole(0), "characters in a line")
    max_line_count: int | None = option(LAYOUT, None, whole(0), "lines in a cue", needs=("max_line_width",))
    highlight_words: bool = option(LAYOUT, False, TRUTH, "underline each word while it is spoken, in a cue of its own")
    max_words_per_line: int | None = option(LAYOUT, None, whole(0), "words in a cue; has no effect with max_line_width")

    def __post_init__(self) -> None:
        check_values(self)

    @classmethod
    def merged(cls, options: Mapping[str, Any] | None, **given: Any) -> Layout:
        """Take what is `given` and truthy, and what is in `options` for the rest."""
        options = options or {}
        if not isinstance(options, Mapping):
            raise OptionError(f"options must be a dictionary of the layout, or None, not {reprlib.repr(options)}")
        return cls(**{f.name: given[f.name] or options.get(f.name, f.default) for f in fields(cls)})

    @property
    def crosses_segments(self) -> bool:
        """Whether cues are filled up regardless of segments: only where both dimensions are set."""
        return self.max_line_width is not None and self.max_line_count is not None


class Line(NamedTuple):
    """Words that stand on one line of a cue."""

    words: list[Word]
    opens_cue: bool  # a segment starts here, or the speaker was silent before

    @property
    def blank(self) -> bool:
        return not self.words[0].text  # the first word is stripped, and a blank one is alone


Cue = list[Word]


def chunk_words(segments: Iterable[Mapping[str, Any]], size: int | None) -> Iterator[list[Word]]:
    """Cut each segment's words into runs of `size`, or none; a segment without word times is one word."""
    for segment in segments:
        if "words" in segment:
            words = [Word(w["word"], w["start"], w["end"]) for w in segment["words"]]
        else:
            words = [Word(" " + segment["text"].strip(), segment["start"], segment["end"])]
        step = size or max(len(words), 1)
        yield from (words[i : i + step] for i in range(0, len(words), step))


def break_lines(chunks: Iterable[list[Word]], layout: Layout) -> list[Line]:
    """Put words on lines: a new one where the width is used up, after a long pause, and for each chunk.

    The first word of a line loses the white space around it. Chunks count only where cues follow segments,
    and pauses only where they do not. A word wider than a line has one to itself.
    """
    width = layout.max_line_width or UNLIMITED_WIDTH
    lines: list[Line] = []
    used = 0  # characters on the last line
    previous_start: float | None = None
    for chunk in chunks:
        for i, word in enumerate(chunk):
            if layout.crosses_segments:
                breaks = previous_start is not None and word.start - previous_start > LONG_PAUSE
            else:
                breaks = i == 0
            if used > 0 and not breaks and used + len(word.text) <= width:
                lines[-1].words.append(word)
                used += len(word.text)
            else:
                lines.append(Line([word._replace(text=word.text.strip())], breaks))
                used = len(lines[-1].words[0].text)
            previous_start = word.start
    return lines


def stack_cues(lines: Iterable[Line], max_line_count: int | None) -> list[Cue]:
    """Stack lines into cues, at most `max_line_count` each; a line break precedes a line's first word."""
    cues: list[Cue] = []
    count = 0  # lines in the last cue
    above: Line | None = None
    for line in lines:
        full = max_line_count is not None and count >= max_line_count
        if above is None or line.opens_cue or full:
            cues.append(list(line.words))
            count = 1
        elif above.blank:  # continues it: an empty line would end the cue for every reader of subtitles
            cues[-1].extend(line.words)
        else:
            first, *rest = line.words
            cues[-1].extend([first._replace(text="\n" + first.text), *rest])
            count += 1
        above = line
    return cues


_SPACE_THEN_WORD = re.compile(r"^(?P<space>\s*)(?P<word>.*)$")


def underline(word: str) -> str:
    """Put ``<u>`` around a word, after the white space before it; a word of two lines stays as it is."""
    return _SPACE_THEN_WORD.sub(r"\g<space><u>\g<word></u>", word)
