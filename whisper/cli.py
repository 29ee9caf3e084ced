"""The command ``whisper``: recordings in, files of text and subtitles out.

Knows options, files and exit codes; what a transcription is, `transcribe` knows, and every default that a
dataclass has is read off it. A recording that fails is named in one line and the others go on; files appear
whole or not at all, also after Ctrl-C. Everything but the transcript itself goes to standard error.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NoReturn

from .errors import DownloadError, OptionError, WhisperError
from .utils import optional_float, optional_int, str2bool
from .version import __release__, __version__
from .writers import OUTPUT_FORMATS, Layout, Writer, get_writer

if TYPE_CHECKING:
    from .model import Whisper

DEBUG_VARIABLE = "SOTTO_DEBUG"  # set to anything but nothing: errors come with their traceback

EXIT_FAILURE = 1  # the usage errors' 2 is argparse's
EXIT_INTERRUPTED = 128 + signal.SIGINT

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")

AddOption = Callable[..., None]


def cli(argv: Sequence[str] | None = None) -> int:
    """Run the command ``whisper``.

    Parameters
    ----------
    argv
        Its arguments; those of the process where not given.

    Returns
    -------
    int
        The exit code: 0 when every recording was transcribed, 1 when one was not, 130 after Ctrl-C.

    Raises
    ------
    SystemExit
        With 2 for arguments that cannot be meant, with 0 after ``--help`` and ``--version``.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a console without the letter shows "?", and nothing is lost
    try:
        with plain_warnings():
            parser = build_parser()
            args = parser.parse_args(argv)
            return run(check_arguments(parser, args))
    except KeyboardInterrupt:
        say("interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output left, as `head` does; so that the exit is silent, too:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILURE


# ---------------------------------------------------------------------------------------------------------
# Options
# ---------------------------------------------------------------------------------------------------------


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
    """A parser whose complaints can be read: one line on what is wrong, one on where to look."""

    def error(self, message: str) -> NoReturn:
        wrong, _, choices = message.partition(" (choose from ")
        if len(choices) > 200:  # a hundred languages: the nearest do
            value = wrong.rsplit(": ", 1)[-1].strip("'")
            near = difflib.get_close_matches(value.title(), re.findall(r"[\w ]+", choices), n=3)
            message = f"{wrong} ({'did you mean ' + ' or '.join(near) + '?' if near else 'see --help'})"
        self.exit(2, f"{self.prog}: error: {message}\nusage: {self.prog} RECORDING [RECORDING ...] [options]; "
                     f"all options: {self.prog} --help\n")  # fmt: skip


def build_parser() -> argparse.ArgumentParser:
    """Return the parser, whose options are openai-whisper's and ``--version``."""
    from .decoding import DecodingOptions
    from .options import TranscribeOptions

    known = (*fields(Layout), *fields(DecodingOptions), *fields(TranscribeOptions))
    defaults = {field.name: field.default for field in known}
    parser = Parser(
        prog="whisper",
        description="Write down what is said in recordings.",
        epilog=f"{DEBUG_VARIABLE}=1 in the environment shows where an error comes from.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )

    def add(name: str, **settings: Any) -> None:
        if "default" not in settings:
            settings["default"] = defaults[name]
        flags = [f"--{name}", *settings.pop("short", [])]
        parser.add_argument(*flags, **settings)

    parser.add_argument("audio", nargs="+", type=str, help="recordings, sound or video, in any common format")
    version = f"sotto {__release__} (openai-whisper interface {__version__})"
    parser.add_argument("--version", action="version", version=version, help="print the version and exit")
    _add_model_and_files(add)
    _add_decoding(add)
    _add_fallback(add)
    _add_words_and_layout(add)
    _add_clips(add)
    return parser


def _add_model_and_files(add: AddOption) -> None:
    add("model", default="turbo", type=model_name,
        help="name of a model, path of a checkpoint, or owner/name of a model on the Hugging Face hub; "
             "nano comes with this package and needs no download")  # fmt: skip
    add("model_dir", type=str, default=None,
        help="folder for downloaded models; where not given, ~/.cache/whisper")  # fmt: skip
    add("device", default="auto",
        help="where the model runs, such as cpu or cuda:1; auto is cuda if there is one")  # fmt: skip
    add("output_dir", short=["-o"], type=str, default=".", help="folder for the files, made where it is missing")
    add("output_format", short=["-f"], type=str, default="all", choices=list(OUTPUT_FORMATS),
        help="kind of file to write; all is one of each")  # fmt: skip
    add("verbose", type=str2bool, default=True,
        help="True prints the text as it comes, False shows a progress bar")  # fmt: skip
    add("threads", type=optional_int, default=0,
        help="threads for work on the CPU; 0 leaves it to torch and OMP_NUM_THREADS")  # fmt: skip


def _add_decoding(add: AddOption) -> None:
    from .tokenizer import LANGUAGES, TO_LANGUAGE_CODE

    add("task", type=str, choices=["transcribe", "translate"],
        help="transcribe writes the language that is spoken, translate writes English")  # fmt: skip
    add("language", type=str, choices=sorted(LANGUAGES) + sorted(name.title() for name in TO_LANGUAGE_CODE),
        help="language that is spoken; where not given, it is heard from the first 30 seconds")  # fmt: skip
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


def _add_fallback(add: AddOption) -> None:
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


def _add_words_and_layout(add: AddOption) -> None:
    add("word_timestamps", type=str2bool, help="find the times of words, and improve those of segments by them")
    add("prepend_punctuations", type=str, help="marks that belong to the word after them")
    add("append_punctuations", type=str, help="marks that belong to the word before them")
    needs = "with --word_timestamps True, in srt and vtt: "
    add("highlight_words", type=str2bool, help=needs + "underline each word while it is spoken")
    add("max_line_width", type=optional_int, help=needs + "characters in a line")
    add("max_line_count", type=optional_int, help=needs + "lines in a cue; needs --max_line_width")
    add("max_words_per_line", type=optional_int, help=needs + "words in a cue; without --max_line_width")


def _add_clips(add: AddOption) -> None:
    add("clip_timestamps", type=str,
        help="seconds start,end,start,end,... of the parts to transcribe; the last end is optional")  # fmt: skip
    add("hallucination_silence_threshold", type=optional_float,
        help="with --word_timestamps True: skip silences longer than this (seconds) around text that looks "
             "invented")  # fmt: skip


# ---------------------------------------------------------------------------------------------------------
# From arguments to a plan
# ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recording:
    """One recording and what its files will be called."""

    path: str
    stem: str  # of the files' names, before the format's extension


@dataclass(frozen=True)
class Plan:
    """Everything that the arguments ask for, checked as far as that goes without a model."""

    recordings: list[Recording]
    n_missing: int  # further ones that are not there, which was said already
    model: str
    model_dir: str | None
    device: str | None  # None: the model decides
    threads: int
    writer: Writer
    layout: dict[str, Any]
    options: dict[str, Any]  # for `transcribe`


def check_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> Plan:
    """Turn arguments into a plan and the output folder into one that exists; leaves by `parser.error`."""
    given = vars(args).copy()
    layout = {field.name: given.pop(field.name) for field in fields(Layout)}
    _check_layout(parser, layout, args.word_timestamps)
    given["temperature"] = temperature_steps(
        parser, given["temperature"], given.pop("temperature_increment_on_fallback")
    )
    threads = given.pop("threads") or 0
    if threads < 0:
        parser.error(f"argument --threads: must not be negative: {threads}")
    device = None if args.device == "auto" else args.device
    paths, output_dir = given.pop("audio"), given.pop("output_dir")
    taken = {name: given.pop(name) for name in ("model", "model_dir", "output_format", "device")}
    _check_options(parser, given)
    try:
        os.makedirs(output_dir, exist_ok=True)
    except OSError as error:
        parser.error(f"argument --output_dir/-o: {error.strerror}: {output_dir!r}")
    present = [path for path in paths if is_there(path)]
    return Plan(
        recordings=name_outputs(present),
        n_missing=len(paths) - len(present),
        model=taken["model"],
        model_dir=taken["model_dir"],
        device=device,
        threads=threads,
        writer=get_writer(taken["output_format"], output_dir),
        layout=layout,
        options=given,
    )


def _check_layout(parser: argparse.ArgumentParser, layout: dict[str, Any], word_timestamps: bool) -> None:
    for name, value in layout.items():
        if value and not word_timestamps:
            parser.error(f"--{name} requires --word_timestamps True")
    try:
        Layout(**layout)
    except OptionError as error:
        parser.error(str(error))
    if layout["max_line_count"] and not layout["max_line_width"]:
        warn("--max_line_count has no effect without --max_line_width")
    if layout["max_words_per_line"] and layout["max_line_width"]:
        warn("--max_words_per_line has no effect with --max_line_width")


def _check_options(parser: argparse.ArgumentParser, options: dict[str, Any]) -> None:
    """Refuse now what `transcribe` would refuse for every recording, after the model was loaded."""
    from .options import TranscribeOptions
    from .windows import parse_clips

    names = {field.name for field in fields(TranscribeOptions)}
    try:
        TranscribeOptions(**{name: value for name, value in options.items() if name in names})
        parse_clips(options["clip_timestamps"], sys.maxsize)
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


def is_there(path: str) -> bool:
    """Whether there may be a recording at `path`; where not, that is said at once."""
    if os.path.exists(path) or _URL.match(path):
        return True
    fail(path, "there is no such file")
    return False


def name_outputs(paths: Sequence[str]) -> list[Recording]:
    """Name the files after the recordings, without extension where that leaves each its own.

    The files of a later recording would take the place of an earlier one's of the same name; the later one
    keeps its extension (``a.mp3.srt``), or is counted where that is taken, too.
    """
    recordings: list[Recording] = []
    taken: set[str] = set()
    for path in paths:
        name = os.path.basename(path)
        stem, _ = os.path.splitext(name)
        choices = (stem, name, *(f"{name}.{i}" for i in range(2, len(paths) + 2)))
        chosen = next(choice for choice in choices if os.path.normcase(choice) not in taken)
        if chosen != stem:
            warn(f"another recording is called {stem!r}: the files of {path} are named {chosen}.*")
        taken.add(os.path.normcase(chosen))
        recordings.append(Recording(path, chosen))
    return recordings


# ---------------------------------------------------------------------------------------------------------
# Work
# ---------------------------------------------------------------------------------------------------------


def run(plan: Plan) -> int:
    """Transcribe what is there and return the exit code."""
    if not plan.recordings:
        return EXIT_FAILURE
    if plan.threads > 0:
        import torch

        torch.set_num_threads(plan.threads)
    try:
        model = load(plan)
    except Exception as error:  # whatever it is, one line says it; the traceback is for who asks for it
        fail(f"model {plan.model}", explain(error))
        return EXIT_FAILURE
    options = {**plan.options, "language": spoken_language(plan, model)}
    total = len(plan.recordings) + plan.n_missing
    done = 0
    try:
        for recording in plan.recordings:
            if total > 1:
                say(recording.path)
            done += transcribe_one(model, recording, plan, options)
    finally:
        if total > 1:
            say(f"{done} of {total} recordings transcribed")
    return 0 if done == total else EXIT_FAILURE


def load(plan: Plan) -> Whisper:
    """Load the plan's model; a download that fails says which model needs none."""
    from .checkpoints import load_model

    try:
        return load_model(plan.model, device=plan.device, download_root=plan.model_dir)
    except DownloadError as error:
        if "--model nano" in str(error):
            raise
        raise DownloadError(
            f"{error}; --model nano (a small model inside this package) works without network"
        ) from error


def spoken_language(plan: Plan, model: Whisper) -> str | None:
    """Return the language to transcribe; English, after a warning, where the model knows no other."""
    language: str | None = plan.options["language"]
    english_only = plan.model.endswith(".en") or not model.is_multilingual
    if not english_only or language in ("en", "English"):
        return language
    if language is not None:
        warn(f"{plan.model} is an English-only model but was given --language {language}; using English instead")
    return "en"


def transcribe_one(model: Whisper, recording: Recording, plan: Plan, options: dict[str, Any]) -> bool:
    """Transcribe one recording and write its files; say so and return False where that fails."""
    from .transcribe import transcribe

    try:
        result = transcribe(model, recording.path, **options)
        plan.writer(dict(result), recording.stem + ".", **plan.layout)  # the writer takes off an extension
    except BrokenPipeError:
        raise
    except Exception as error:  # one bad recording, whatever is wrong with it, must not cost the others
        fail(recording.path, explain(error))
        return False
    return True


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
