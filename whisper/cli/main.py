"""The command ``whisper``: recordings in, files of text and subtitles out.

Knows options, files and exit codes; what a transcription is, `transcribe` knows, and every default that a
dataclass has is read off it. A recording that fails is named in one line and the others go on; files appear
whole or not at all, also after Ctrl-C. Everything but the transcript itself goes to standard error.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from ..errors import AudioError, OptionError
from ..files import atomic_write
from ..media.sources import check_read_once, may_be_there, shown
from ..options.language_names import code_of
from ..output.console import show, standard_streams
from ..output.layout import Layout
from ..output.places import check_file, make_folder
from ..output.writers import OUTPUT_FORMATS, WRITERS, Writer, get_writer
from ..utils import optional_bool, optional_int, str2bool
from ..version import __release__, __version__
from .common import DEBUG_VARIABLE as DEBUG_VARIABLE
from .common import (
    Parser,
    add_model,
    add_options,
    check_options,
    explain,
    fail,
    load,
    plain_warnings,
    say,
    temperature_steps,
    warn,
)

if TYPE_CHECKING:
    from ..audit.report import Report
    from ..model import Whisper

EXIT_FAILURE = 1  # the usage errors' 2 is argparse's
EXIT_INTERRUPTED = 128 + signal.SIGINT

COMMANDS = {"eval": ".evaluate", "train": ".train"}  # each has a ``main(arguments) -> exit code``
MANIFESTS = (".tsv", ".csv", ".json", ".jsonl", ".ndjson")

# openai-whisper's options: what abbreviates one of them there does so here, so that --lang is no --languages
OPENAI_WHISPER = {
    "model", "model_dir", "device", "output_dir", "output_format", "verbose", "task", "language", "temperature",
    "best_of", "beam_size", "patience", "length_penalty", "suppress_tokens", "initial_prompt",
    "carry_initial_prompt", "condition_on_previous_text", "fp16", "temperature_increment_on_fallback",
    "compression_ratio_threshold", "logprob_threshold", "no_speech_threshold", "word_timestamps",
    "prepend_punctuations", "append_punctuations", "highlight_words", "max_line_width", "max_line_count",
    "max_words_per_line", "threads", "clip_timestamps", "hallucination_silence_threshold",
}  # fmt: skip


def cli(argv: Sequence[str] | None = None) -> int:
    """Run the command ``whisper``, or ``whisper eval`` or ``whisper train`` where that is meant (`command_of`).

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
        With 2 for arguments that cannot be meant, with 0 after ``--help`` and ``--version``,
        and with what was found after ``--doctor``.
    """
    with standard_streams():
        try:
            with plain_warnings():
                arguments = sys.argv[1:] if argv is None else list(argv)
                if command := command_of(arguments):
                    main = importlib.import_module(COMMANDS[command], __package__).main
                    return int(main(arguments[1:]))
                parser = build_parser()
                return run(check_arguments(parser, parser.parse_args(arguments)))
        except KeyboardInterrupt:
            say("interrupted")
            return EXIT_INTERRUPTED
        except BrokenPipeError:  # the reader of our output left, as `head` does, and the exit is silent
            return EXIT_FAILURE


def command_of(arguments: Sequence[str]) -> str | None:
    """Return the command that the first argument names; None where recordings are meant.

    A file of the command's name that lies in the current folder is a recording, unless a manifest, a folder or
    ``--compare`` comes next. ``./eval`` is always a file.
    """
    first, second = (*arguments[:2], "", "")[:2]
    if first not in COMMANDS:
        return None
    for_command = second == "--compare" or second.lower().endswith(MANIFESTS) or os.path.isdir(second)
    return first if for_command or not os.path.isfile(first) else None


# ---------------------------------------------------------------------------------------------------------
# Options
# ---------------------------------------------------------------------------------------------------------


def build_parser() -> argparse.ArgumentParser:
    """Return the parser, whose options are openai-whisper's and ``--version``."""
    parser = Parser(
        what="RECORDING [RECORDING ...]",
        prog="whisper",
        description="Write down what is said in recordings. To score a model on recordings whose text is known: "
        "whisper eval --help; to train one: whisper train --help.",
        first=OPENAI_WHISPER,
    )
    parser.add_argument(
        "audio", nargs="+", type=str, help="recordings, sound or video, in any common format; - is standard input"
    )
    version = f"sotto {__release__} (openai-whisper interface {__version__})"
    parser.add_argument("--version", action="version", version=version, help="print the version and exit")
    parser.add_argument(
        "--doctor", action=_Doctor,
        help="examine this installation and exit: versions, processor, precisions, devices, models and a short trial; "
             "the exit code is 1 if something is broken",
    )  # fmt: skip
    add_model(parser)
    _add_files(parser)
    add_options(parser)
    return parser


class _Doctor(argparse.Action):
    """Like ``--version``: needs no recording, and ends the program."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from .doctor import main

        parser.exit(main())


def _add_files(parser: Parser) -> None:
    """Add what is written of a transcript, and how its words are laid out."""
    group = parser.add_argument_group("files")
    group.add_argument("--output_dir", "-o", default=".", help="folder for the files, made where it is missing")
    group.add_argument(
        "--output_format", "-f", default="all", choices=list(OUTPUT_FORMATS),
        help="kind of file to write; all is one of each",
    )  # fmt: skip
    group.add_argument(
        "--report", type=str2bool, default=False,
        help="with True, --audit is, too, unless it is given; what it finds is printed as a table and written to "
             "NAME.report.json and, where matplotlib is installed, NAME.report.png",
    )  # fmt: skip
    group.add_argument(
        "--escape_cues", type=optional_bool, default=None,
        help="with True, arrows, tags and entities in the text are escaped as srt and vtt ask, and no text breaks a "
             "line; None does so with --channels separate, --multilingual, --audit, --vad_filter and --batch_size "
             "above 1, and else writes openai-whisper's bytes",
    )  # fmt: skip
    needs = "with --word_timestamps True, in srt and vtt: "
    layout = {
        "highlight_words": (str2bool, "underline each word while it is spoken"),
        "max_line_width": (optional_int, "characters in a line"),
        "max_line_count": (optional_int, "lines in a cue; needs --max_line_width"),
        "max_words_per_line": (optional_int, "words in a cue; without --max_line_width"),
    }
    for field in fields(Layout):
        read, help = layout[field.name]
        group.add_argument(f"--{field.name}", type=read, default=field.default, help=needs + help)


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
    compute_type: str
    threads: int
    writer: Writer
    layout: dict[str, Any]
    reports: str | None  # folder for reports, where they are wanted
    options: dict[str, Any]  # for `transcribe`


def check_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> Plan:
    """Turn arguments into a plan and the output folder into one that exists; leaves by `parser.error`."""
    given = vars(args).copy()
    layout = {field.name: given.pop(field.name) for field in fields(Layout)}
    _check_layout(parser, layout, args.word_timestamps)
    escape_cues = given.pop("escape_cues")
    given["temperature"] = temperature_steps(
        parser, given["temperature"], given.pop("temperature_increment_on_fallback")
    )
    threads = given.pop("threads") or 0
    if threads < 0:
        parser.error(f"argument --threads: must not be negative: {threads}")
    device = None if args.device == "auto" else args.device
    paths, output_dir, reports = given.pop("audio"), given.pop("output_dir"), given.pop("report")
    if reports and given["audit"] is None:
        given["audit"] = True
    taken = {name: given.pop(name) for name in ("model", "model_dir", "output_format", "device", "compute_type")}
    check_options(parser, given)
    try:
        make_folder(output_dir)
    except OptionError as error:
        parser.error(f"argument --output_dir/-o: {error}")
    try:
        check_read_once(paths)
    except AudioError as error:
        parser.error(str(error))
    recordings = name_outputs([path for path in paths if is_there(path)])
    extensions = list(WRITERS) if taken["output_format"] == "all" else [taken["output_format"]]
    check_files(parser, output_dir, recordings, [*extensions, *["report.json", "report.png"] * bool(reports)])
    return Plan(
        recordings=recordings,
        n_missing=len(paths) - len(recordings),
        model=taken["model"],
        model_dir=taken["model_dir"],
        device=device,
        compute_type=taken["compute_type"],
        threads=threads,
        writer=get_writer(taken["output_format"], output_dir),
        layout={**layout, "escape_cues": uses_our_modes(given) if escape_cues is None else escape_cues},
        reports=output_dir if reports else None,
        options=given,
    )


def check_files(
    parser: argparse.ArgumentParser, folder: str, recordings: Sequence[Recording], extensions: Sequence[str]
) -> None:
    """Leave by `parser.error` if a file cannot be written, before hours are spent on what it would hold."""
    try:
        for recording in recordings:
            for extension in extensions:
                check_file(os.path.join(folder, f"{recording.stem}.{extension}"))
    except OptionError as error:
        parser.error(str(error))


def uses_our_modes(options: dict[str, Any]) -> bool:
    """Whether transcripts are made as openai-whisper cannot, so that nobody expects its bytes."""
    separate, side_by_side = options["channels"] == "separate", (options["batch_size"] or 1) > 1
    return bool(options["audit"] or options["vad_filter"] or options["multilingual"] or separate or side_by_side)


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


def is_there(path: str) -> bool:
    """Whether there may be a recording at `path`; where not, that is said at once."""
    try:
        if may_be_there(path):
            return True
        fail(shown(path), "there is no such file")
    except AudioError as error:  # nothing can be read from standard input
        fail(path, str(error))
    return False


def name_outputs(paths: Sequence[str]) -> list[Recording]:
    """Name the files after the recordings, without extension where that leaves each its own.

    Standard input is called as it was named, so ``-`` gives ``-.txt``; what an address of ``data:`` holds is no name.

    The files of a later recording would take the place of an earlier one's of the same name; the later one
    keeps its extension (``a.mp3.srt``), or is counted where that is taken, too.
    """
    recordings: list[Recording] = []
    taken: set[str] = set()
    for path in paths:
        name = "data" if path[:5].lower() == "data:" else os.path.basename(path)
        stem, _ = os.path.splitext(name)
        choices = (stem, name, *(f"{name}.{i}" for i in range(2, len(paths) + 2)))
        chosen = next(choice for choice in choices if os.path.normcase(choice) not in taken)
        if chosen != stem:
            warn(f"another recording is called {stem!r}: the files of {shown(path)} are named {chosen}.*")
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
        model = load(plan.model, plan.device, plan.model_dir, plan.compute_type)
    except Exception as error:  # whatever it is, one line says it; the traceback is for who asks for it
        fail(f"model {plan.model}", explain(error))
        return EXIT_FAILURE
    options = {**plan.options, "language": spoken_language(plan, model)}
    total = len(plan.recordings) + plan.n_missing
    done = 0
    try:
        for recording in plan.recordings:
            if total > 1:
                say(shown(recording.path))
            done += transcribe_one(model, recording, plan, options)
    finally:
        if total > 1:
            say(f"{done} of {total} recordings transcribed")
    return 0 if done == total else EXIT_FAILURE


def spoken_language(plan: Plan, model: Whisper) -> str | None:
    """Return the language to transcribe; English, after a warning, where the model knows no other."""
    language: str | None = plan.options["language"]
    english_only = plan.model.endswith(".en") or not model.is_multilingual
    if not english_only or code_of(language) == "en":
        return language
    if code_of(language) is not None:
        warn(f"{plan.model} is an English-only model but was given --language {language}; using English instead")
    return "en"


def transcribe_one(model: Whisper, recording: Recording, plan: Plan, options: dict[str, Any]) -> bool:
    """Transcribe one recording and write its files; say so and return False where that fails."""
    from ..transcribe import transcribe, transcribe_with_report

    try:
        if plan.reports is None:
            result = transcribe(model, recording.path, **options)
        else:
            result, report = transcribe_with_report(model, recording.path, **options)
            write_report(report, os.path.join(plan.reports, f"{recording.stem}.report"))
        plan.writer(dict(result), recording.stem + ".", **plan.layout)  # the writer takes off an extension
    except BrokenPipeError:
        raise
    except Exception as error:  # one bad recording, whatever is wrong with it, must not cost the others
        fail(shown(recording.path), explain(error))
        return False
    return True


def write_report(report: Report, path: str) -> None:
    """Print a report's table, and write it to ``path.json`` and, where matplotlib is installed, ``path.png``."""
    show(report.table(), sys.stderr)
    with atomic_write(f"{path}.json") as file:
        file.write(json.dumps(report.to_dict(), ensure_ascii=False).encode("utf-8"))
    if importlib.util.find_spec("matplotlib"):
        report.plot(f"{path}.png")
