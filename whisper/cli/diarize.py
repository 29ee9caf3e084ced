"""The command ``whisper diarize``: who speaks when in recordings, without a word of what is said."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import AudioError, OptionError
from ..files import atomic_write
from ..media.sources import may_be_there, shown
from ..options.flags import add_flags, take
from ..options.transcription import options_of_transcribe
from ..options.types import TEXT, check_values, one_of, option
from ..output.console import show
from ..output.writable_paths import check_file, make_folder, stem_of
from ..subtitles.formats.names import EXTENSIONS
from ..utils import format_timestamp
from .common import Parser, counted, explain, fail, say

if TYPE_CHECKING:
    from ..speakers.diarization import Diarization

FILES = "files"  # heading of the help
FORMATS = ("rttm", "json", "audacity", "textgrid", "eaf")
NAMED = ("rttm", "textgrid", "eaf")  # those with a place for the speaker beside a text
OF_DIARIZE = (
    "num_speakers", "min_speakers", "max_speakers", "known_speakers", "audio_track", "container_time",
)  # fmt: skip


@dataclass(frozen=True)
class TurnFiles:
    """What is written of turns, and where."""

    output_dir: str = option(
        FILES, ".", TEXT, "folder for the files, made where it is missing", cli={"flags": ("--output_dir", "-o")}
    )
    output_format: str = option(
        FILES,
        "rttm",
        one_of(*FORMATS),
        "kind of file to write: RTTM, JSON, labels of Audacity, tiers of Praat or of ELAN",
        cli={"flags": ("--output_format", "-f")},
    )

    def __post_init__(self) -> None:
        check_values(self)

    def path(self, recording: str) -> str:
        """Return the file of a recording."""
        return os.path.join(self.output_dir, f"{stem_of(recording)}.{EXTENSIONS[self.output_format]}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``whisper diarize``, and return its exit code.

    0 when the files are written, 1 when a recording failed; the others are done all the same.
    """
    parser = build_parser()
    given = vars(parser.parse_args(argv)).copy()
    recordings = given.pop("audio")
    try:
        files = take(TurnFiles, given)
        _check(given)
        paths = [files.path(recording) for recording in recordings]
        if len(set(paths)) < len(paths):
            raise OptionError("two recordings have the same name, and would be written to the same file")
        make_folder(files.output_dir)
        for path in paths:
            check_file(path)
    except OptionError as error:
        parser.error(str(error))
    done = [_is_done(recording, path, files, given) for recording, path in zip(recordings, paths, strict=True)]
    return 0 if all(done) else 1


def _is_done(recording: str, path: str, files: TurnFiles, options: Mapping[str, Any]) -> bool:
    try:
        diarize_file(recording, path, files.output_format, options)
    except BrokenPipeError:
        raise
    except Exception as error:  # reported in one line; the traceback only with SOTTO_DEBUG
        fail(shown(recording), explain(error))
        return False
    return True


def build_parser() -> Parser:
    """Return the parser."""
    parser = Parser(
        what="RECORDING [RECORDING ...]",
        prog="whisper diarize",
        description="Find out who speaks when. With a transcript: whisper --speakers True.",
    )
    parser.add_argument(
        "audio", nargs="+", metavar="RECORDING", help="recordings, sound or video, in any common format"
    )
    known = [declared for declared in options_of_transcribe() if declared.name in OF_DIARIZE]
    for declared in (TurnFiles, known):
        add_flags(parser, declared)
    return parser


def _check(given: Mapping[str, Any]) -> None:
    """Raise `OptionError` where numbers of speakers contradict each other, before anything is read."""
    from ..speakers.diarization import Hints

    Hints.of(given["num_speakers"], given["min_speakers"], given["max_speakers"])


def diarize_file(recording: str, path: str, output_format: str, options: Mapping[str, Any]) -> None:
    """Find the turns of a recording, print them, and write them to a file.

    Raises
    ------
    AudioError
        The recording is missing or cannot be read.
    """
    from ..speakers.diarize import diarize

    if not may_be_there(recording):
        raise AudioError("there is no such file")
    found = diarize(recording, **options)
    for turn in found.turns:
        show(f"[{format_timestamp(turn.start)} --> {format_timestamp(turn.end)}] {turn.speaker}", sys.stdout)
    content = written(found, stem_of(recording), output_format)
    with atomic_write(path) as file:
        file.write(content)
    say(f"{path} written: {counted(len(found.turns), 'turn')} of {counted(len(found.speakers), 'speaker')}")


def written(found: Diarization, name: str, output_format: str) -> bytes:
    """Return turns as a file of one of `FORMATS`; where a format wants a text, it is the speaker's name."""
    turns, alone = ([turn._asdict() for turn in some] for some in (found.turns, found.exclusive))
    if output_format == "json":
        told = {"speakers": list(found.speakers), "turns": turns, "exclusive": alone}
        return json.dumps(told, ensure_ascii=False, indent=1).encode() + b"\n"
    from ..subtitles.transcript_files import written as file_of

    segments = [
        {"start": turn["start"], "end": turn["end"], "text": turn["speaker"]}
        | ({"speaker": turn["speaker"]} if output_format in NAMED else {})
        for turn in turns
    ]
    content = file_of({"text": "", "language": "", "segments": segments, "turns": turns}, output_format, name=name)
    return content if isinstance(content, bytes) else content.encode()
