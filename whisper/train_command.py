"""The command ``whisper train``: flags for every field of `FitOptions`, and lines of progress.

Knows arguments and lines alone; the work is `training.fit`'s. Everything it says goes to standard error; standard
output gets the path of the model at the end, for scripts.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import Field, fields
from typing import Any

from .arguments import Parser, explain, fail, plain_warnings, say
from .console import show
from .errors import OptionError
from .utils import optional_float, optional_int, str2bool

DESCRIPTION = (
    "Train a model on recordings with their texts: fine-tune a checkpoint (--model) or begin from scratch (--shape). "
    "The same command again continues where it was stopped."
)
NEEDED = "MANIFEST --output FOLDER (--model MODEL | --shape SHAPE)"
GROUPS = {  # the option that each begins with
    "model": ("what is trained", None),
    "language": ("what it learns", None),
    "epochs": ("how long, and how much at a time", None),
    "learning_rate": ("how weights change", None),
    "lora_rank": ("fine-tuning a part of the weights", "needs less memory, and keeps more of what the model knew"),
    "augment": ("what windows are made of", None),
    "dev": ("scoring while it trains", None),
    "save_every": ("where and how it runs", None),
}
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

    Raises
    ------
    SystemExit
        With 2 for arguments that cannot be meant, with 0 after ``--help``.
    """
    from .fit_options import FitOptions
    from .training import fit

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
            fitted = fit(manifest, output, options, say=_lines, stopped=interrupt)
    except KeyboardInterrupt:
        kept = os.path.join(output, "last.ckpt")
        say(f"interrupted; the same command continues from {kept}" if os.path.exists(kept) else "interrupted")
        return _INTERRUPTED
    except Exception as error:  # whatever it is, one line says it; the traceback is for who asks for it
        fail("", explain(error))
        return 1
    show(str(fitted.path), sys.stdout)
    return 0


class _Interrupt:
    """Ctrl-C and the terminate signal: at once while nothing is learnt yet, else after the step, so that it is kept."""

    def __init__(self) -> None:
        self._asked = self._learning = False
        self._before: dict[int, Any] = {}

    def __call__(self) -> bool:
        self._learning = True
        return self._asked

    def __enter__(self) -> _Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, *_: object) -> None:
        if self._asked or not self._learning:
            raise KeyboardInterrupt
        self._asked = True
        # not by print, which may be interrupted in its middle
        os.write(2, b"whisper: stopping after this step; Ctrl-C again stops at once\n")


def build_parser() -> Parser:
    """Return the parser of ``whisper train``."""
    from .fit_options import FitOptions

    parser = Parser(
        what=NEEDED, prog="whisper train", description=DESCRIPTION, usage=f"whisper train {NEEDED} [options]",
    )  # fmt: skip
    parser.formatter_class = argparse.HelpFormatter  # defaults of None say nothing: the texts tell what is chosen
    parser.add_argument(
        "manifest", metavar="MANIFEST",
        help="recordings with their texts: a .tsv, .csv or .jsonl file, or a folder with one or with an audio data set",
    )  # fmt: skip
    parser.add_argument(
        "--output",
        "-o",
        required=True,
        metavar="FOLDER",
        help="gets the model (model.pt), checkpoints, curves, and the list of rows that were left out (skipped.tsv)",
    )
    group: Any = parser
    for option in fields(FitOptions):
        if option.name in GROUPS:
            group = parser.add_argument_group(*GROUPS[option.name])
        default = ",".join(map(str, option.default)) if isinstance(option.default, tuple) else option.default
        note = "" if default is None else f" (default: {default})"
        group.add_argument(
            f"--{option.name}", default=option.default, help=option.metadata["help"] + note,
            choices=option.metadata.get("choices"), type=_reader(str(option.type)), metavar=_shown(option),
        )  # fmt: skip
    return parser


def _shown(option: Field[Any]) -> str | None:
    """What stands for the value in the help; None for choices, which argparse shows itself."""
    if option.metadata.get("choices"):
        return None
    if option.name == "dev":
        return "MANIFEST"
    kind = str(option.type).split(" |")[0]
    return {"int": "N", "float": "X", "bool": "BOOL", "tuple[float, ...]": "X,X", "tuple[str, ...]": "NAMES"}.get(
        kind, option.name.upper()
    )


def _reader(annotation: str) -> Callable[[str], Any]:
    """What reads a flag of this type."""
    readers: dict[str, Callable[[str], Any]] = {
        "str": str, "str | None": _optional_text, "int": int, "int | None": optional_int, "float": float,
        "float | None": optional_float, "bool": str2bool, "tuple[float, ...]": _numbers, "tuple[str, ...]": _names,
    }  # fmt: skip
    return readers[annotation]


def _optional_text(text: str) -> str | None:
    return None if text == "None" else text


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be numbers with commas between them, not {text!r}") from None


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _lines(text: str) -> None:
    for line in text.splitlines():
        show(f"whisper: {line}", sys.stderr)
