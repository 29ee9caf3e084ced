"""The command ``whisper train``: a flag for every field of `FitOptions`, and lines of progress.

Parses arguments and prints; `training.fit` does the work. All messages go to standard error;
standard output gets the path of the model at the end, for scripts.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any

from ..errors import OptionError
from ..options.flags import add_flags
from ..output.console import show
from .common import Parser, explain, fail, plain_warnings, say

DESCRIPTION = (
    "Train a model on labelled recordings: fine-tune a checkpoint (--model) or train from scratch (--shape). "
    "The same command again resumes an interrupted training."
)
NEEDED = "MANIFEST --output FOLDER (--model MODEL | --shape SHAPE)"
_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``whisper train``, and return its exit code.

    0 when the model is written, 1 after an error, 130 when interrupted.
    """
    from ..training.fit import fit
    from ..training.options import FitOptions

    parser = build_parser()
    given = vars(parser.parse_args(argv))
    manifest, output = given.pop("manifest"), given.pop("output")
    try:
        options = FitOptions(**given)
    except OptionError as error:
        parser.error(str(error))
    logging.basicConfig(level=logging.WARNING, format="whisper: %(message)s")
    try:
        with plain_warnings(), _Interrupt() as interrupt:
            fitted = fit(manifest, output, options, say=_print_lines, stopped=interrupt)
    except KeyboardInterrupt:
        last = os.path.join(output, "last.ckpt")
        say(f"interrupted; the same command resumes from {last}" if os.path.exists(last) else "interrupted")
        return _INTERRUPTED
    except Exception as error:  # any error becomes one line; `SOTTO_DEBUG` shows the traceback
        fail("", explain(error))
        return 1
    show(str(fitted.path), sys.stdout)
    return 0


class _Interrupt:
    """Ctrl-C and SIGTERM: stop at once before the first step, else after the current step."""

    def __init__(self) -> None:
        self._requested = self._training = False
        self._previous: dict[int, Any] = {}

    def __call__(self) -> bool:
        self._training = True
        return self._requested

    def __enter__(self) -> _Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, *_: object) -> None:
        if self._requested or not self._training:
            raise KeyboardInterrupt
        self._requested = True
        # not print, which is not reentrant
        os.write(2, b"whisper: stopping after this step; Ctrl-C again stops at once\n")


def build_parser() -> Parser:
    """Return the parser of ``whisper train``."""
    from ..training.options import FitOptions

    parser = Parser(
        what=NEEDED,
        prog="whisper train",
        description=DESCRIPTION,
        usage=f"whisper train {NEEDED} [options]",
    )
    parser.add_argument(
        "manifest",
        metavar="MANIFEST",
        help="labelled recordings: a .tsv, .csv or .jsonl file, or a folder with one or with an audio data set",
    )
    parser.add_argument(
        "--output",
        "-o",
        required=True,
        metavar="FOLDER",
        help="gets the model (model.pt), checkpoints, curves, and the list of skipped entries (skipped.tsv)",
    )
    add_flags(parser, FitOptions)
    return parser


def _print_lines(text: str) -> None:
    for line in text.splitlines():
        show(f"whisper: {line}", sys.stderr)
