"""Shared by the commands: options of a model and of `transcribe`, their checks, and messages to the user.

Knows no command, opens no recording and writes no file; prints only to standard error, line by line.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
import traceback
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NoReturn

from ..device.lazy_torch import set_n_threads
from ..device.precision import COMPUTE_TYPES
from ..errors import DownloadError, LanguageError, OptionError, WhisperError
from ..options.flags import add_flags, take
from ..options.language_names import LANGUAGES, TO_LANGUAGE_CODE, code_of
from ..options.transcription import RETRY, options_of_transcribe
from ..options.types import FLAG, TEXT, check_values, number, one_of, option, some_of, whole
from ..output.console import show
from ..output.layout import Layout
from ..output.writers import OUTPUT_FORMATS
from ..subtitles.rules import RuleOptions

if TYPE_CHECKING:
    from ..model import Whisper

DEBUG_VARIABLE = "SOTTO_DEBUG"  # if set and not empty, errors show their traceback

MODEL = "model"  # heading of the help
MAX_TRIES = 1000  # of a window


def model_name(name: str) -> str:
    """Accept a known name, a path that exists, or the name of a hub model."""
    from ..checkpoints.finding import names
    from ..checkpoints.hub import is_hub_name
    from ..checkpoints.published import available_models

    if name in available_models() or name in names.DISTILLED or os.path.exists(name) or is_hub_name(name):
        return name
    raise argparse.ArgumentTypeError(
        f"there is no model {name!r}: give one of {', '.join(available_models())}, "
        "the path of a checkpoint, or owner/name or owner/name:file of a model on the Hugging Face hub"
    )


class _HelpFormatter(argparse.HelpFormatter):
    """Shows the default of each option that has one; where it is None, the help says what is done."""

    def _get_help_string(self, action: argparse.Action) -> str:
        help, default = action.help or "", action.default
        if default is None or default is argparse.SUPPRESS or action.nargs == 0:
            return help
        shown = ",".join(map(str, default)) if isinstance(default, (tuple, list)) else str(default)
        return f"{help} (default: {shown.replace('%', '%%')})"


class Parser(argparse.ArgumentParser):
    """A parser with short errors: one line on what is wrong, one on where to find help.

    Parameters
    ----------
    what
        Stands in that second line for the arguments that the command needs.
    first
        Options that an abbreviation means where it fits just one of them, whatever others it fits.
    """

    def __init__(self, *, what: str, first: Collection[str] = (), **settings: Any) -> None:
        super().__init__(
            epilog=f"{DEBUG_VARIABLE}=1 in the environment shows where an error comes from.",
            formatter_class=_HelpFormatter,
            **settings,
        )
        self.what, self.first = what, first

    def _get_option_tuples(self, option_string: str) -> list[Any]:
        fitting: list[Any] = super()._get_option_tuples(option_string)
        first = [match for match in fitting if match[0].dest in self.first]
        return first if len(first) == 1 else fitting

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse like argparse; the error for an unknown flag names the nearest known one."""
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            near = difflib.get_close_matches(unknown[0].partition("=")[0], self._flags(args), n=1)
            hint = f"; did you mean {near[0]}?" if near and unknown[0].startswith("-") else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        return parsed

    def _flags(self, args: Sequence[str] | None) -> list[str]:
        """Return the flags of this command, and of the subcommand that was given."""
        flags, words = list(self._option_string_actions), sys.argv[1:] if args is None else args
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                given = next((word for word in words if word in action.choices), None)
                flags += action.choices[given]._option_string_actions if given else ()
        return flags

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if not isinstance(action.choices, _Languages):
            return super()._check_value(action, value)
        try:
            code_of(value)
        except LanguageError as error:
            raise argparse.ArgumentError(action, str(error)) from None

    def error(self, message: str) -> NoReturn:
        usage = f"usage: {self.prog} {self.what} [options]; all options: {self.prog} --help"
        self.exit(2, f"{self.prog}: error: {message}\n{usage}\n")


class _Languages(list[str]):
    """The names that the help lists, which are openai-whisper's; all others that `code_of` knows are taken, too."""


@dataclass(frozen=True)
class ModelOptions:
    """Which model runs, and where."""

    model: str = option(
        MODEL,
        "turbo",
        TEXT,
        "name of a model, path of a checkpoint, or owner/name of a model on the Hugging Face hub; a name is looked for "
        "on this machine before it is downloaded (whisper models lists what is there)",
        cli={"type": model_name},
    )
    model_dir: str | None = option(MODEL, None, TEXT, "folder for downloaded models; where not given, ~/.cache/whisper")
    device: str = option(
        MODEL, "auto", TEXT, "where the model runs, such as cpu or cuda:1; auto is cuda if there is one"
    )
    compute_type: str = option(
        MODEL,
        "auto",
        one_of(*COMPUTE_TYPES),
        "precision with --fp16 True; auto is the fastest that the device does well, such as int8 on a processor that "
        "has the instructions and float16 on cuda",
        ours=True,
    )
    quantized: bool = option(
        MODEL,
        False,
        FLAG,
        "with True, a model of which this machine has no exact copy, only a quantised one, is read from that",
        ours=True,
    )
    threads: int | None = option(
        MODEL, 0, whole(0), "threads for work on the CPU; 0 leaves it to torch and OMP_NUM_THREADS"
    )

    def __post_init__(self) -> None:
        check_values(self)


@dataclass(frozen=True)
class FallbackOptions:
    """How the commands, as openai-whisper's, ask for temperature fallback."""

    temperature_increment_on_fallback: float | None = option(
        RETRY,
        0.2,
        number(1 / MAX_TRIES),
        "how much hotter each further try is, up to 1, when a text fails a threshold; None for no further try",
    )

    def __post_init__(self) -> None:
        check_values(self)

    def temperatures(self, first: float) -> tuple[float, ...]:
        """Return `first` and each increment hotter up to 1; `first` alone without an increment."""
        increment = self.temperature_increment_on_fallback
        if increment is None or not 0 <= first <= 1:
            return (first,)
        import numpy as np  # its arange, since the sums must round as the original's

        return tuple(np.arange(first, 1.0 + 1e-6, increment).tolist()) or (first,)


def formats_option(group: str, default: str, **more: Any) -> Any:
    """Return the declaration of ``output_format``, which is the same for all commands but for its default."""
    return option(
        group,
        (default,),
        some_of(*OUTPUT_FORMATS),
        f"kinds of file to write, with commas between: {', '.join(OUTPUT_FORMATS[:-1])}; all is one of each of the "
        "first five",
        cli={"flags": ("--output_format", "-f")},
        **more,
    )


def add_options(parser: Parser, without: Collection[str] = (), **changed: Mapping[str, Any]) -> None:
    """Add a flag for each option of `transcribe` that can be given as text; see `add_flags`."""
    spoken = _Languages(sorted(LANGUAGES) + sorted(name.title() for name in TO_LANGUAGE_CODE))
    changed["language"] = {"choices": spoken, **changed.get("language", {})}
    add_flags(parser, options_of_transcribe(), as_openai=True, without=without, changed=changed)
    add_flags(parser, FallbackOptions, as_openai=True)


# ---------------------------------------------------------------------------------------------------------
# Checks
# ---------------------------------------------------------------------------------------------------------


def check_options(options: dict[str, Any]) -> None:
    """Raise now the `OptionError` that `transcribe` would raise for every recording, after the model was loaded."""
    from ..transcription.settings import check_without_model

    check_without_model(options)


def rules_of(given: dict[str, Any]) -> RuleOptions:
    """Take the rules of subtitles out of the arguments; with a preset, words have times."""
    layout = {f.name: given[f.name] for f in fields(Layout)}  # which are rules, too
    rules = take(RuleOptions, given)
    given.update(layout)
    if unused := rules.without_effect():
        names = " and ".join(f"--{name}" for name in unused)
        raise OptionError(f"{names} {'requires' if len(unused) == 1 else 'require'} --subtitle_preset")
    if rules.by_rules:
        rules.rules(given["language"])  # whether they go together
        given["word_timestamps"] = True
    return rules


def load(options: ModelOptions, name: str) -> Whisper:
    """Load a model; where it cannot be downloaded, the error names those that are on this machine."""
    from ..checkpoints import load_model

    if options.threads:
        set_n_threads(options.threads)
    device = None if options.device == "auto" else options.device
    with naming_models_here(options, name):
        return load_model(
            name,
            device=device,
            download_root=options.model_dir,
            compute_type=options.compute_type,
            quantized=options.quantized,
        )


@contextmanager
def naming_models_here(options: ModelOptions, name: str) -> Iterator[None]:
    """Say in the error of a model that cannot be downloaded which others need no download."""
    try:
        yield
    except DownloadError as error:
        here = _models_here(options.model_dir)
        raise DownloadError(f"model {name} is not on this machine and cannot be downloaded: {error}; {here}") from error


def _models_here(folder: str | None) -> str:
    """Say which models need no download, the best first."""
    from ..checkpoints.finding import find, names

    here = find.on_this_machine(folder)
    best = [name for name in names.BEST_FIRST if name in here and here[name][0].stored.is_exact]
    if not best:
        return "no other model is " + (
            "on this machine" if find.is_allowed() else f"in the cache, and {find.VARIABLE}=0"
        )
    which = f"{best[0]} is" if len(best) == 1 else f"{', '.join(best)} are"
    return f"on this machine {which}: --model {best[0]}"


# ---------------------------------------------------------------------------------------------------------
# Messages: one line each, to standard error
# ---------------------------------------------------------------------------------------------------------


def say(message: str) -> None:
    """Print one line."""
    show(f"whisper: {' '.join(message.split())}", sys.stderr)


def warn(message: str) -> None:
    """Print a warning."""
    say(f"warning: {message}")


def fail(what: str, why: str) -> None:
    """Report what failed and why, with the traceback of the current error if `SOTTO_DEBUG` is set."""
    say(f"error: {why}" if what in why else f"error: {what}: {why}")
    if os.environ.get(DEBUG_VARIABLE) and sys.exc_info()[0] is not None:
        traceback.print_exc()


def counted(n: int, what: str) -> str:
    """Return a number of things in words, such as ``1 cue`` or ``2 cues``."""
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


_OF_A_PATH = {
    FileNotFoundError: "there is no such file",
    IsADirectoryError: "this is a folder, where a file is needed",
    PermissionError: "this user has no permission for it",
}


def explain(error: Exception) -> str:
    """Describe an error; unexpected ones with their type and how to get the traceback."""
    if isinstance(error, WhisperError):
        return str(error)
    if isinstance(error, OSError) and isinstance(error.filename, (str, os.PathLike)):
        for kind, why in _OF_A_PATH.items():
            if isinstance(error, kind):
                return f"{os.fspath(error.filename)}: {why}"
    return f"{type(error).__name__}: {error} ({DEBUG_VARIABLE}=1 shows where)"


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Print Python's warnings as single lines, without the location in the source."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        warn(str(message))

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
