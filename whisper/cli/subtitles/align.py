"""The command ``whisper align``: the time of each word of a text that is known, as files of every format.

Reads the text, plain or in a transcript of any program; `alignment.align` finds the times.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ...errors import AudioError, DataError, OptionError
from ...media.sources import may_be_there, shown
from ...options.flags import add_flags, take
from ...options.language_names import code_of
from ...options.transcription import options_of_transcribe
from ...options.types import TEXT, check_values, option
from ...output.layout import Layout
from ...output.writable_paths import check_file, make_folder
from ...output.writers import formats_of, get_writer
from ...subtitles.formats.document import FormatOptions
from ...subtitles.formats.names import EXTENSIONS
from ...subtitles.formats.parsing import text_of
from ...subtitles.rules import RuleOptions
from ..common import ModelOptions, Parser, explain, fail, formats_option, load, rules_of, say, warn

FILES = "files"  # heading of the help
OF_ALIGN = (  # options of `transcribe` that `align` has, too
    "language", "fp16", "vad_parameters", "prepend_punctuations", "append_punctuations", "audio_track",
    "container_time",
)  # fmt: skip
MOST_BYTES = 64 * 2**20  # of a plain text


@dataclass(frozen=True)
class AlignedFiles:
    """What is written of aligned words, and where."""

    output_dir: str = option(
        FILES, ".", TEXT, "folder for the files, made where it is missing", cli={"flags": ("--output_dir", "-o")}
    )
    output_format: tuple[str, ...] = formats_option(FILES, "json")

    def __post_init__(self) -> None:
        check_values(self)

    def endings(self) -> list[str]:
        """Return the endings of all files."""
        return [EXTENSIONS[name] for name in formats_of(self.output_format)]


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``whisper align``, and return its exit code: 0 when the files are written, 1 when something failed."""
    parser = build_parser()
    given = vars(parser.parse_args(argv)).copy()
    audio, text = given.pop("audio"), given.pop("text")
    try:
        model, files = take(ModelOptions, given), take(AlignedFiles, given)
        rules = rules_of(given)
        layout, contents = take(Layout, given), take(FormatOptions, given)
        given.pop("word_timestamps", None)  # there are always times of words
        code_of(given["language"])
        if not may_be_there(audio):
            raise AudioError(f"{shown(audio)}: there is no such file")
        lines = read_text(text)
        make_folder(files.output_dir)
        name = os.path.splitext(os.path.basename(audio))[0]
        for ending in files.endings():
            check_file(os.path.join(files.output_dir, f"{name}.{ending}"))
    except (OptionError, AudioError, DataError, OSError) as error:
        parser.error(explain(error))
    try:
        result = aligned(model, audio, lines, given)
        writer = get_writer(files.output_format, files.output_dir)
        writer(result, name + ".", asdict(contents), **{**asdict(rules), **asdict(layout)}, escape_cues=True)
    except BrokenPipeError:
        raise
    except Exception as error:  # reported in one line; the traceback only with SOTTO_DEBUG
        fail(shown(audio), explain(error))
        return 1
    report(result)
    return 0


def build_parser() -> Parser:
    """Return the parser."""
    parser = Parser(
        what="RECORDING TEXT",
        prog="whisper align",
        description="Find the time of each word of a text that is known. The files are named after the recording. "
        "Words for which the speech has no place have the probability 0.",
    )
    parser.add_argument("audio", metavar="RECORDING", help="a recording, sound or video, in any common format")
    parser.add_argument(
        "text",
        metavar="TEXT",
        help="file with the words that are spoken: plain text (.txt), of which each line becomes a segment, or a "
        "transcript or subtitles of any program, whose times are found anew and whose speakers are kept",
    )
    known = [declared for declared in options_of_transcribe() if declared.name in OF_ALIGN]
    for declared in (ModelOptions, AlignedFiles, Layout, RuleOptions, FormatOptions, known):
        add_flags(parser, declared, as_openai=True)
    return parser


def read_text(path: str) -> list[Mapping[str, Any]]:
    """Return the segments of a text: those of a transcript, or the lines of a plain text.

    Raises
    ------
    DataError
        It is damaged, too large, or has no words.
    OSError
        It is missing or cannot be read.
    """
    from ...subtitles.transcript_files import read

    lines: Sequence[Mapping[str, Any]]
    if path.lower().endswith(".txt") and not path.lower().endswith(".labels.txt"):
        if os.path.getsize(path) > MOST_BYTES:
            raise DataError(f"{path} is no text: it has more than {MOST_BYTES // 2**20} MiB")
        with open(path, "rb") as file:
            try:
                lines = [{"text": line} for line in text_of(file.read()).splitlines()]
            except DataError as error:
                raise DataError(f"{path}: {error}") from None
    else:
        lines = read(path)["segments"]
    spoken = [line for line in lines if line["text"].strip()]
    if not spoken:
        raise DataError(f"{path} has no words")
    return spoken


def aligned(
    options: ModelOptions, audio: str, lines: Sequence[Mapping[str, Any]], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the words with their times, and the speakers that the text has.

    Raises
    ------
    WhisperError
        The model cannot be loaded, or the recording not be read.
    """
    from ...alignment import align

    model = load(options, options.model)
    result = align(model, audio, [line["text"] for line in lines], **given)
    segments = [
        {**segment, **{key: line[key] for key in ("speaker", "channel") if key in line}}
        for segment, line in zip(result["segments"], lines, strict=True)
    ]
    return {**result, "segments": segments}


def report(result: Mapping[str, Any]) -> None:
    """Say how many words have no place in the recording."""
    words = [word for segment in result["segments"] for word in segment["words"]]
    lost = sum(word["probability"] == 0 for word in words)
    say(f"{len(words) - lost} of {len(words)} words have a place in the recording")
    if words and lost > len(words) / 2:
        warn("most words have none: is it the text of this recording, and in its language?")
