"""The command ``whisper train``: flags for every field of `FitOptions`, and lines of progress.

Knows arguments and lines alone; the work is `training.fit`'s. Everything it says goes to standard error; standard
output gets the path of the model at the end, for scripts.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

from .arguments import Parser, explain, fail, plain_warnings, say
from .errors import OptionError, WhisperError
from .utils import optional_float, optional_int, str2bool

DESCRIPTION = (
    "Train a model on recordings with their texts: fine-tune a checkpoint (--model) or begin from scratch (--shape). "
    "The same command again continues where it was stopped."
)
_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv
        Its arguments, without ``whisper train``.

    Returns
    -------
    int
        The exit code: 0 when there is a model, 1 when there is none, 130 when it was interrupted.
    """
    from .training import FitOptions, fit

    parser = build_parser()
    given = vars(parser.parse_args(argv))
    manifest, output = given.pop("manifest"), given.pop("output")
    try:
        options = FitOptions(**given)
    except OptionError as error:
        parser.error(str(error))
    logging.basicConfig(level=logging.WARNING, format="whisper: %(message)s")
    try:
        with plain_warnings():
            fitted = fit(manifest, output, options, say=_lines)
    except WhisperError as error:
        fail("train", explain(error))
        return 1
    except KeyboardInterrupt:
        say(f"interrupted; the same command continues from {os.path.join(output, 'last.ckpt')}")
        return _INTERRUPTED
    print(fitted.path)
    return 0


def build_parser() -> Parser:
    """Return the parser of ``whisper train``."""
    from .training import FitOptions

    parser = Parser(what="MANIFEST --output FOLDER", prog="whisper train", description=DESCRIPTION)
    parser.add_argument(
        "manifest",
        help="recordings with their texts: a .tsv, .csv or .jsonl file, or a folder with one or with an audio data set",
    )  # fmt: skip
    parser.add_argument(
        "--output", "-o", required=True, metavar="FOLDER", help="gets the model, checkpoints and curves"
    )
    for option in fields(FitOptions):
        parser.add_argument(
            f"--{option.name}", default=option.default, help=option.metadata["help"],
            choices=option.metadata.get("choices"), type=_reader(str(option.type)),
        )  # fmt: skip
    return parser


def _reader(annotation: str) -> Callable[[str], Any]:
    """What reads a flag of this type."""
    readers: dict[str, Callable[[str], Any]] = {
        "str": str, "str | None": str, "int": int, "int | None": optional_int, "float": float,
        "float | None": optional_float, "bool": str2bool, "tuple[float, ...]": _numbers, "tuple[str, ...]": _names,
    }  # fmt: skip
    return readers[annotation]


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be numbers with commas between them, not {text!r}") from None


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _lines(text: str) -> None:
    for line in text.splitlines():
        print(f"whisper: {line}", file=sys.stderr, flush=True)
