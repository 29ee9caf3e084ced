"""The command ``whisper convert``: a transcript or subtitles from one format into another."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ...errors import DataError, OptionError
from ...options.flags import add_flags, take
from ...options.types import LANGUAGE, check_values, one_of, option
from ...output.layout import Layout
from ...output.writable_paths import check_file
from ...subtitles.formats.document import FormatOptions
from ...subtitles.formats.names import EXTENSIONS, format_of
from ...subtitles.rules import RuleOptions
from ..common import Parser, explain, fail, rules_of, say, warn

FORMATS = "formats"  # heading of the help


@dataclass(frozen=True)
class ConvertOptions:
    """What is read and written, where names and contents do not tell."""

    read_as: str | None = option(
        FORMATS, None, one_of(*EXTENSIONS), "format of IN; where not given, what its content or its ending tells"
    )
    write_as: str | None = option(
        FORMATS, None, one_of(*EXTENSIONS), "format of OUT; where not given, its ending tells"
    )
    language: str | None = option(FORMATS, None, LANGUAGE, "language of the text; where not given, what IN says")

    def __post_init__(self) -> None:
        check_values(self)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``whisper convert``, and return its exit code: 0 when the file is written, 1 when something failed."""
    parser = build_parser()
    given = vars(parser.parse_args(argv)).copy()
    source, target = given.pop("source"), given.pop("target")
    try:
        rules = rules_of(given)
        formats, layout, contents = take(ConvertOptions, given), take(Layout, given), take(FormatOptions, given)
        written_as = formats.write_as or format_of(target)
        check_file(target)
        if os.path.exists(target) and os.path.exists(source) and os.path.samefile(source, target):
            raise OptionError(f"{target} is the file that is read: give another name")
    except OptionError as error:
        parser.error(str(error))
    try:
        convert(source, target, formats, written_as, {**asdict(rules), **asdict(layout), **asdict(contents)})
    except BrokenPipeError:
        raise
    except Exception as error:  # reported in one line; the traceback only with SOTTO_DEBUG
        fail(source, explain(error))
        return 1
    return 0


def build_parser() -> Parser:
    """Return the parser."""
    parser = Parser(
        what="IN OUT",
        prog="whisper convert",
        description="Write a transcript or subtitles in another format. IN is a file of Whisper or of another program: "
        "srt, vtt, ass, ttml, lrc, csv, TextGrid, eaf, ctm, stm, JSON of WhisperX or whisper.cpp ... Models are "
        "converted by whisper models convert.",
    )
    parser.add_argument("source", metavar="IN", help="the file to read")
    parser.add_argument("target", metavar="OUT", help="the file to write; its ending tells the format")
    for declared in (ConvertOptions, Layout, RuleOptions, FormatOptions):
        add_flags(parser, declared)
    return parser


def convert(source: str, target: str, formats: ConvertOptions, written_as: str, options: dict[str, Any]) -> None:
    """Read, lay out and write.

    Raises
    ------
    DataError
        The file is damaged, of no format that is read, or has no text.
    OSError
        It is missing, or the other cannot be written.
    """
    from ...output.further_formats import cues_of
    from ...subtitles.transcript_files import read, write

    result = read(source, format=formats.read_as, language=formats.language)
    if not result["segments"]:
        raise DataError(f"{source} has no text")
    has_words = any(segment.get("words") for segment in result["segments"])
    if not has_words and any(options[name] for name in ("karaoke", "max_line_width", "max_words_per_line")):
        warn(f"{source} has no times of words: whole texts are shown")
    write(
        result,
        target,
        format=written_as,
        cues=cues_of(result, options),
        karaoke=options["karaoke"],
        cue_settings=options["cue_settings"],
        frame_rate=options["frame_rate"],
        names_speakers=options["subtitle_preset"] in (None, "whisper"),
    )
    say(f"{target} written: {written_as}, {len(result['segments'])} texts")
