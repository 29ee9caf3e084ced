"""The command ``whisper speakers``: voices that are known, kept as files to name them in other recordings."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import AudioError, OptionError
from ..media.sources import may_be_there, shown
from ..output.writable_paths import check_file, make_folder
from .common import Parser, explain, fail, say

if TYPE_CHECKING:
    from ..speakers.voices import Voice

ENROL = "enrol"


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``whisper speakers``, and return its exit code.

    0 when the voice is written, 1 when a recording cannot be used.
    """
    parser = build_parser()
    args = parser.parse_args(argv)
    name = args.name.strip()
    path = os.path.join(args.output_dir, f"{name}.json")
    try:
        if not name or any(c in name for c in "/\\=,"):
            raise OptionError(f"a name has letters, and none of / \\ = and a comma: {args.name!r}")
        make_folder(args.output_dir)
        check_file(path)
    except OptionError as error:
        parser.error(str(error))
    voices = []
    for recording in args.audio:
        try:
            voices.append(_heard(recording))
        except Exception as error:  # noqa: PERF203  reported in one line; the traceback only with SOTTO_DEBUG
            fail(shown(recording), explain(error))
            return 1
    voice = mean(voices)
    voice.save(path)
    say(f"{path} written, of {voice.seconds:.0f} s of speech; use it with --known_speakers {name}={path}")
    return 0


def build_parser() -> Parser:
    """Return the parser."""
    parser = Parser(
        what="enrol NAME RECORDING [RECORDING ...]",
        prog="whisper speakers",
        description="Learn what somebody sounds like, from recordings in which they speak alone; 5 to 60 s are enough. "
        "NAME.json is then known: whisper talk.mp3 --known_speakers NAME=NAME.json. It is personal data.",
    )
    parser.add_argument("action", choices=[ENROL], metavar=ENROL, help="keep a voice as a file")
    parser.add_argument("name", metavar="NAME", help="what the speaker is called")
    parser.add_argument("audio", nargs="+", metavar="RECORDING", help="recordings of one speaker, of any format")
    parser.add_argument("--output_dir", "-o", default=".", help="folder for the file, made where it is missing")
    return parser


def _heard(recording: str) -> Voice:
    from ..speakers.voices import enrol

    if not may_be_there(recording):
        raise AudioError("there is no such file")
    return enrol(recording)


def mean(voices: Sequence[Voice]) -> Voice:
    """Return one voice of several recordings of it, the longer ones counting more."""
    import numpy as np

    from ..speakers.voices import Voice

    seconds = np.array([voice.seconds for voice in voices], np.float64)
    vector = seconds @ np.array([voice.vector for voice in voices], np.float64)
    vector /= np.linalg.norm(vector)
    return Voice(tuple(round(float(x), 6) for x in vector), round(float(seconds.sum()), 2))
