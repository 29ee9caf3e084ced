"""What the commands share: the options of a model and of `transcribe`, their checks, and messages to people.

Every default that a dataclass has is read off it, so that no command retypes one. Knows no command, opens no
recording and writes no file; all that it prints goes to standard error, a line at a time.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import TYPE_CHECKING, Any, NoReturn

from .errors import DownloadError, OptionError, WhisperError
from .utils import optional_float, optional_int, str2bool
from .writers import Layout

if TYPE_CHECKING:
    from .model import Whisper

DEBUG_VARIABLE = "SOTTO_DEBUG"  # set to anything but nothing: errors come with their traceback

DEFAULT_MODEL = "turbo"

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")

AddOption = Callable[..., None]


def model_name(name: str) -> str:
    """Let a known name, a path that exists or the name of a hub model through."""
    from .checkpoints import available_models

    if name in available_models() or os.path.exists(name) or _HUB_NAME.fullmatch(name):
        return name
    raise argparse.ArgumentTypeError(
        f"there is no model {name!r}: give one of {', '.join(available_models())}, "
        "the path of a checkpoint, or owner/name of a model on the Hugging Face hub"
    )


class Parser(argparse.ArgumentParser):
    """A parser whose complaints can be read: one line on what is wrong, one on where to look.

    `what` stands in that second line for the arguments that the command needs.
    """

    def __init__(self, *, what: str, **settings: Any) -> None:
        super().__init__(
            epilog=f"{DEBUG_VARIABLE}=1 in the environment shows where an error comes from.",
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
            **settings,
        )
        self.what = what

    def error(self, message: str) -> NoReturn:
        wrong, _, choices = message.partition(" (choose from ")
        if len(choices) > 200:  # a hundred languages: the nearest do
            value = wrong.rsplit(": ", 1)[-1].strip("'")
            near = difflib.get_close_matches(value.title(), re.findall(r"[\w ]+", choices), n=3)
            message = f"{wrong} ({'did you mean ' + ' or '.join(near) + '?' if near else 'see --help'})"
        self.exit(2, f"{self.prog}: error: {message}\nusage: {self.prog} {self.what} [options]; "
                     f"all options: {self.prog} --help\n")  # fmt: skip


def adder(parser: argparse.ArgumentParser) -> AddOption:
    """Return a function that adds an option by its name, with the default that its dataclass has.

    It takes what `argparse` does, and ``short`` for a list of short names.
    """
    from .decoding import DecodingOptions
    from .options import TranscribeOptions

    known = (*fields(Layout), *fields(DecodingOptions), *fields(TranscribeOptions))
    defaults = {field.name: field.default for field in known}

    def add(name: str, **settings: Any) -> None:
        if "default" not in settings:
            settings["default"] = defaults[name]
        flags = [f"--{name}", *settings.pop("short", [])]
        parser.add_argument(*flags, **settings)

    return add


def add_model(add: AddOption, **settings: Any) -> None:
    """Add which model runs where; `settings` go to ``--model``."""
    from .compute_types import COMPUTE_TYPES

    add("model", type=model_name, **{"default": DEFAULT_MODEL, **settings},
        help="name of a model, path of a checkpoint, or owner/name of a model on the Hugging Face hub; "
             "nano comes with this package and needs no download")  # fmt: skip
    add("model_dir", type=str, default=None,
        help="folder for downloaded models; where not given, ~/.cache/whisper")  # fmt: skip
    add("device", default="auto",
        help="where the model runs, such as cpu or cuda:1; auto is cuda if there is one")  # fmt: skip
    add("compute_type", choices=list(COMPUTE_TYPES), default="auto",
        help="precision with --fp16 True; auto is the fastest that the device does well, such as int8 on a processor "
             "that has the instructions and float16 on cuda")  # fmt: skip
    add("threads", type=optional_int, default=0,
        help="threads for work on the CPU; 0 leaves it to torch and OMP_NUM_THREADS")  # fmt: skip


def add_decoding(add: AddOption, no_language: str = "it is heard from the first 30 seconds") -> None:
    """Add how a window is decoded; `no_language` says what happens without ``--language``."""
    from .tokenizer import LANGUAGES, TO_LANGUAGE_CODE

    add("task", type=str, choices=["transcribe", "translate"],
        help="transcribe writes the language that is spoken, translate writes English")  # fmt: skip
    add("language", type=str, choices=sorted(LANGUAGES) + sorted(name.title() for name in TO_LANGUAGE_CODE),
        help=f"language that is spoken; where not given, {no_language}")  # fmt: skip
    add("temperature", type=float, default=0, help="temperature of the first try; 0 takes the likeliest text")
    add("best_of", type=optional_int, default=5, help="samples to choose from at temperatures above 0")
    add("beam_size", type=optional_int, default=5, help="beams of the search at temperature 0; None for greedy")
    add("patience", type=float,
        help="patience of the beam search (arXiv:2204.05424); None is 1, the ordinary search")  # fmt: skip
    add("length_penalty", type=float,
        help="alpha of the length penalty (arXiv:1609.08144), 0 to 1; None takes the mean")  # fmt: skip
    add("suppress_tokens", type=str,
        help="ids of tokens never to write, with commas; -1 stands for most signs that nobody speaks")  # fmt: skip
    add("initial_prompt", type=str, help="text before the first window, such as names and their spelling")
    add("carry_initial_prompt", type=str2bool,
        help="put initial_prompt before every window; leaves less room for the text that went before")  # fmt: skip
    add("condition_on_previous_text", type=str2bool,
        help="show each window the text before it; False is less consistent and less prone to loops")  # fmt: skip
    add("fp16", type=str2bool, help="compute in half precision where the device does that well")


def add_fallback(add: AddOption) -> None:
    """Add when a text is doubted and tried again."""
    add("temperature_increment_on_fallback", type=optional_float, default=0.2,
        help="how much hotter each further try is, up to 1, when a text fails a threshold; "
             "None for no further try")  # fmt: skip
    add("compression_ratio_threshold", type=optional_float,
        help="a text that packs tighter than this repeats itself, and fails")  # fmt: skip
    add("logprob_threshold", type=optional_float,
        help="a text whose mean log-probability is lower than this fails")  # fmt: skip
    add("no_speech_threshold", type=optional_float,
        help="a window is silent where the probability of no speech is higher than this and the text fails "
             "logprob_threshold")  # fmt: skip


def add_words(add: AddOption) -> None:
    """Add the times of words."""
    add("word_timestamps", type=str2bool, help="find the times of words, and improve those of segments by them")
    add("prepend_punctuations", type=str, help="marks that belong to the word after them")
    add("append_punctuations", type=str, help="marks that belong to the word before them")


def add_clips(add: AddOption) -> None:
    """Add which parts of a recording are read."""
    add("clip_timestamps", type=str,
        help="seconds start,end,start,end,... of the parts to transcribe; the last end is optional")  # fmt: skip
    add("hallucination_silence_threshold", type=optional_float,
        help="with --word_timestamps True: skip silences longer than this (seconds) around text that looks "
             "invented")  # fmt: skip


# ---------------------------------------------------------------------------------------------------------
# Checks
# ---------------------------------------------------------------------------------------------------------


def check_options(parser: argparse.ArgumentParser, options: dict[str, Any]) -> None:
    """Refuse now what `transcribe` would refuse for every recording, after the model was loaded."""
    from .decoding import DecodingOptions, verify_options
    from .options import TranscribeOptions
    from .windows import parse_clips

    names = {field.name for field in fields(TranscribeOptions)}
    try:
        TranscribeOptions(**{name: value for name, value in options.items() if name in names})
        parse_clips(options["clip_timestamps"], sys.maxsize)
        verify_options(DecodingOptions(seed=options.get("seed")))
    except OptionError as error:
        parser.error(str(error))


def temperature_steps(parser: argparse.ArgumentParser, first: float, increment: float | None) -> tuple[float, ...]:
    """Return `first` and each `increment` hotter up to 1; `first` alone without an increment."""
    if increment is None:
        return (first,)
    if not increment > 0:
        parser.error(f"argument --temperature_increment_on_fallback: must be above 0, or None: {increment}")
    import numpy as np  # its arange, since the sums must round as the original's

    return tuple(np.arange(first, 1.0 + 1e-6, increment).tolist()) or (first,)


def load(name: str, device: str | None, folder: str | None, compute_type: str = "auto") -> Whisper:
    """Load a model; a download that fails says which model needs none."""
    from .checkpoints import load_model

    try:
        return load_model(name, device=device, download_root=folder, compute_type=compute_type)
    except DownloadError as error:
        if "--model nano" in str(error):
            raise
        raise DownloadError(
            f"{error}; --model nano (a small model inside this package) works without network"
        ) from error


# ---------------------------------------------------------------------------------------------------------
# Messages: one line each, to standard error
# ---------------------------------------------------------------------------------------------------------


def say(message: str) -> None:
    """Print one line."""
    print("whisper:", " ".join(message.split()), file=sys.stderr, flush=True)


def warn(message: str) -> None:
    """Print a warning."""
    say(f"warning: {message}")


def fail(what: str, why: str) -> None:
    """Say what failed and why, and in the middle of an error show its traceback to who asked for that."""
    say(f"error: {why}" if what in why else f"error: {what}: {why}")
    if os.environ.get(DEBUG_VARIABLE) and sys.exc_info()[0] is not None:
        traceback.print_exc()


def explain(error: Exception) -> str:
    """Put an error in words; those that we did not foresee come with their type and the way to know more."""
    if isinstance(error, WhisperError):
        return str(error)
    return f"{type(error).__name__}: {error} ({DEBUG_VARIABLE}=1 shows where)"


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Print Python's warnings as lines of ours, without the place in the program where they arose."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        warn(str(message))

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
