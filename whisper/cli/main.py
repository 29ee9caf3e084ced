"""The command ``whisper``: recordings in, files of text and subtitles out.

Handles options, files and exit codes; `transcribe` does the work, and defaults come from the
dataclasses of options. A recording that fails is reported in one line and the others go on; files are
written atomically, also at Ctrl-C. Everything but the transcript itself goes to standard error.
"""

from __future__ import annotations

import argparse
import difflib
import importlib.util
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import AudioError, OptionError
from ..files import atomic_write
from ..media.sources import check_read_once, may_be_there, shown
from ..options.flags import add_flags, take
from ..options.language_names import code_of
from ..options.transcription import options_of_transcribe
from ..options.types import FLAG, TEXT, check_values, facts, option
from ..output.console import show, standard_streams
from ..output.layout import Layout
from ..output.writable_paths import check_file, make_folder
from ..output.writers import Writer, formats_of, get_writer
from ..results import in_its_language
from ..subtitles.formats.document import FormatOptions
from ..subtitles.formats.names import EXTENSIONS, NEED_WORDS
from ..subtitles.rules import RuleOptions
from ..version import __release__, __version__
from .common import DEBUG_VARIABLE as DEBUG_VARIABLE
from .common import (
    FallbackOptions,
    ModelOptions,
    Parser,
    add_options,
    check_options,
    explain,
    fail,
    formats_option,
    load,
    plain_warnings,
    rules_of,
    say,
    warn,
)

if TYPE_CHECKING:
    from ..audit.report import Report
    from ..model import Whisper

EXIT_FAILURE = 1  # the usage errors' 2 is argparse's
EXIT_INTERRUPTED = 128 + signal.SIGINT

# each has a ``main(argv)`` that returns the exit code; wrong arguments end it by `SystemExit` with 2, ``--help`` with 0
COMMANDS = {
    "eval": ".evaluate",
    "train": ".train",
    "models": ".models",
    "serve": ".serve",
    "live": ".live",
    "jobs": ".jobs",
    "search": ".search",
    "diarize": ".diarize",
    "speakers": ".speakers",
    "align": ".subtitles.align",
    "burn": ".subtitles.burn",
    "convert": ".subtitles.convert",
    "check": ".subtitles.check",
}
# what follows a command and no recording
SUBCOMMANDS = frozenset({
    "--compare", "get", "verify", "remove", "path", "convert",
    "enrol", "run", "status", "list", "failures", "retry", "cancel", "export", "page",
})  # fmt: skip
SUBTITLES = (".srt", ".vtt")
MANIFESTS = (".tsv", ".csv", ".json", ".jsonl", ".ndjson")

FILES = "files"  # headings of the help
SERVER = "a server"
KEY_VARIABLE = "SOTTO_API_KEY"


@dataclass(frozen=True)
class FileOptions:
    """What is written of a transcript, and where."""

    output_dir: str = option(
        FILES, ".", TEXT, "folder for the files, made where it is missing", cli={"flags": ("--output_dir", "-o")}
    )
    output_format: tuple[str, ...] = formats_option(FILES, "all")
    report: bool = option(
        FILES,
        False,
        FLAG,
        "with True, --audit is, too, unless it is given; what it finds is printed as a table and written to "
        "NAME.report.json and, where matplotlib is installed, NAME.report.png",
        ours=True,
    )
    embed: bool = option(
        FILES,
        False,
        FLAG,
        "with True, a recording that is a file is also written again with its subtitles as a track, "
        "NAME.subtitled.mkv or .mp4, and --container_time is True, so that times are those of the video; whisper burn "
        "does this alone",
        ours=True,
    )
    escape_cues: bool | None = option(
        FILES,
        None,
        FLAG,
        "with True, arrows, tags and entities in the text are escaped as srt and vtt ask, and no text breaks a line; "
        "None does so with --channels separate, --multilingual, --audit, --vad_filter and --batch_size above 1, and "
        "else writes openai-whisper's bytes",
        ours=True,
    )

    def __post_init__(self) -> None:
        check_values(self)

    def extensions(self) -> list[str]:
        """Return the extensions of all files of a recording."""
        endings = [EXTENSIONS[name] for name in formats_of(self.output_format)]
        return [*endings, "report.json", "report.png"] if self.report else endings


@dataclass(frozen=True)
class ServerOptions:
    """The server that transcribes, in place of a model on this machine."""

    server: str | None = option(
        SERVER,
        None,
        TEXT,
        "address of a server that transcribes (whisper serve, or another with OpenAI's API), such as "
        "http://localhost:8000; --model is then what the server calls it, by default its first",
        ours=True,
    )
    server_key: str | None = option(
        SERVER, None, TEXT, f"its API key; where not given, {KEY_VARIABLE} in the environment", ours=True
    )

    def __post_init__(self) -> None:
        check_values(self)


def cli(argv: Sequence[str] | None = None) -> int:
    """Run the command ``whisper``, or one of `COMMANDS` where that is meant (`command_of`).

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
                parser = build_parser(has_server=any(a.partition("=")[0] == "--server" for a in arguments))
                return run(check_arguments(parser, parser.parse_args(arguments)))
        except KeyboardInterrupt:
            say("interrupted")
            return EXIT_INTERRUPTED
        except BrokenPipeError:  # the reader of our output has exited, as `head` does; exit silently
            return EXIT_FAILURE


def command_of(arguments: Sequence[str]) -> str | None:
    """Return the command that the first argument names; None where recordings are meant.

    A file of the command's name that lies in the current folder is a recording, unless a manifest, subtitles, a folder
    or one of `SUBCOMMANDS` comes next. ``./eval`` is always a file.
    """
    first, second = (*arguments[:2], "", "")[:2]
    if first not in COMMANDS:
        return None
    for_command = second in SUBCOMMANDS or second.lower().endswith((*MANIFESTS, *SUBTITLES)) or os.path.isdir(second)
    return first if for_command or not os.path.isfile(first) else None


# ---------------------------------------------------------------------------------------------------------
# Options
# ---------------------------------------------------------------------------------------------------------


def build_parser(*, has_server: bool = False) -> argparse.ArgumentParser:
    """Return the parser, whose options are openai-whisper's and ``--version``; a server's models have any name."""
    parser = Parser(
        what="RECORDING [RECORDING ...]",
        prog="whisper",
        description="Write down what is said in recordings. Other commands, each with a --help of its own: whisper "
        "models (which there are), eval (score one on known texts), train, serve (over HTTP), live (captions while "
        "somebody speaks), jobs (folders of recordings), search (in what was transcribed), diarize (who "
        "speaks when), speakers (known voices), align (times of a known text), burn (subtitles into a video), convert "
        "and check (subtitles).",
        first=openai_flags(),
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
    changed = {"model": {"type": str}} if has_server else {}
    for declared in (ModelOptions, ServerOptions, FileOptions, Layout, RuleOptions, FormatOptions):
        add_flags(parser, declared, as_openai=True, changed=changed)
    add_options(parser)
    return parser


def openai_flags() -> set[str]:
    """Return openai-whisper's options: what abbreviates one of them there does so here, so --lang is no --languages."""
    declared = [f for options in (ModelOptions, FileOptions, Layout, FallbackOptions) for f in fields(options)]
    options = [*declared, *options_of_transcribe()]
    return {f.name for f in options if facts(f).cli is not None and not facts(f).our_flag}


class _Doctor(argparse.Action):
    """Like ``--version``: needs no recording, and ends the program."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from .doctor import main

        parser.exit(main())


# ---------------------------------------------------------------------------------------------------------
# From the command line to arguments that are checked
# ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recording:
    """One recording and what its files will be called."""

    path: str
    stem: str  # of the files' names, before the format's extension


@dataclass(frozen=True)
class Arguments:
    """The checked arguments, as far as they can be checked without a model."""

    recordings: list[Recording]
    n_missing: int  # further recordings that are missing, already reported
    model: ModelOptions
    files: FileOptions
    writer: Writer
    layout: dict[str, Any]
    contents: FormatOptions
    options: dict[str, Any]  # for `transcribe`
    server: ServerOptions = ServerOptions()
    changed: frozenset[str] = frozenset()  # the names of what was given, and is not the default


def check_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> Arguments:
    """Check what the parser found, and make the output folder; leaves by `parser.error`."""
    given = vars(args).copy()
    paths = given.pop("audio")
    changed = frozenset(name for name, value in given.items() if value != parser.get_default(name))
    try:
        rules = rules_of(given)
        if rules.by_rules:
            changed |= {"word_timestamps"}
        layout = layout_of(given, rules)
        contents = contents_of(given)
        model, files = take(ModelOptions, given), take(FileOptions, given)
        server = take(ServerOptions, given)
        given["temperature"] = take(FallbackOptions, given).temperatures(given["temperature"])
        if files.report and given["audit"] is None:
            given["audit"] = True
        if files.embed:
            given["container_time"] = True
        check_options(given)
        make_output_folder(files)
        check_read_once(paths)
        recordings = name_outputs([path for path in paths if is_there(path)])
        check_files(files, recordings)
    except (OptionError, AudioError) as error:
        parser.error(str(error))
    escape_cues = uses_our_modes(given) or rules.by_rules if files.escape_cues is None else files.escape_cues
    return Arguments(
        recordings=recordings,
        n_missing=len(paths) - len(recordings),
        model=model,
        files=files,
        writer=get_writer(files.output_format, files.output_dir, is_translation=given["task"] == "translate"),
        layout={**asdict(rules), **asdict(layout), "escape_cues": escape_cues},
        contents=contents,
        options=given,
        server=server,
        changed=changed,
    )


def make_output_folder(files: FileOptions) -> None:
    """Make the folder for the files."""
    try:
        make_folder(files.output_dir)
    except OptionError as error:
        raise OptionError(f"argument --output_dir/-o: {error}") from None


def check_files(files: FileOptions, recordings: Sequence[Recording]) -> None:
    """Raise `OptionError` if a file cannot be written, before the transcription starts."""
    for recording in recordings:
        for extension in files.extensions():
            check_file(os.path.join(files.output_dir, f"{recording.stem}.{extension}"))


def uses_our_modes(options: dict[str, Any]) -> bool:
    """Whether a mode is used that openai-whisper lacks, so that output need not have its exact bytes."""
    separate, side_by_side = options["channels"] == "separate", (options["batch_size"] or 1) > 1
    return bool(options["audit"] or options["vad_filter"] or options["multilingual"] or separate or side_by_side)


def layout_of(given: dict[str, Any], rules: RuleOptions | None = None) -> Layout:
    """Take the layout out of the arguments; warn of what has no effect."""
    layout = take(Layout, given)
    if rules is not None and rules.by_rules:
        return layout
    for name, value in asdict(layout).items():
        if value and not given["word_timestamps"]:
            raise OptionError(f"--{name} requires --word_timestamps True")
    if layout.max_line_count and not layout.max_line_width:
        warn("--max_line_count has no effect without --max_line_width")
    if layout.max_words_per_line and layout.max_line_width:
        warn("--max_words_per_line has no effect with --max_line_width")
    return layout


def contents_of(given: dict[str, Any]) -> FormatOptions:
    """Take what further formats hold out of the arguments."""
    contents = take(FormatOptions, given)
    if not given["word_timestamps"]:
        if contents.karaoke:
            raise OptionError("--karaoke requires --word_timestamps True")
        for name in sorted(NEED_WORDS.intersection(given["output_format"])):
            raise OptionError(f"--output_format {name} requires --word_timestamps True")
    return contents


def is_there(path: str) -> bool:
    """Whether there may be a recording at `path`; if not, reports it at once."""
    try:
        if may_be_there(path):
            return True
        fail(shown(path), f"there is no such file{meant(path)}")
    except AudioError as error:  # nothing can be read from standard input
        fail(path, str(error))
    return False


def meant(path: str) -> str:
    """Return a hint where a path looks like a command that is misspelt."""
    near = difflib.get_close_matches(path, COMMANDS, n=1, cutoff=0.7)
    return f"; is the command whisper {near[0]} meant?" if near else ""


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


def run(arguments: Arguments) -> int:
    """Transcribe what is there and return the exit code."""
    if not arguments.recordings:
        return EXIT_FAILURE
    url = arguments.server.server
    try:
        transcribe = transcribing_here(arguments) if url is None else transcribing_there(arguments, url)
    except Exception as error:  # reported in one line; the traceback only with SOTTO_DEBUG
        fail(f"model {arguments.model.model}" if url is None else url, explain(error))
        return EXIT_FAILURE
    total = len(arguments.recordings) + arguments.n_missing
    done = 0
    try:
        for recording in arguments.recordings:
            if total > 1:
                say(shown(recording.path))
            done += transcribe_one(transcribe, recording, arguments)
    finally:
        if total > 1:
            say(f"{done} of {total} recordings transcribed")
    return 0 if done == total else EXIT_FAILURE


def transcribing_here(arguments: Arguments) -> Callable[[Recording], Any]:
    """Load the model, and return what gives the transcript of a recording."""
    from ..transcribe import transcribe, transcribe_with_report
    from . import quick_start

    name = arguments.model.model
    model: Any = quick_start.load(
        arguments.model, name, arguments.options["fp16"], partial(load, arguments.model, name)
    )
    options = {**arguments.options, "language": spoken_language(arguments, model)}

    def transcribe_here(recording: Recording) -> Any:
        if not arguments.files.report:
            return transcribe(model, recording.path, **options)
        result, report = transcribe_with_report(model, recording.path, **options)
        write_report(report, os.path.join(arguments.files.output_dir, f"{recording.stem}.report"))
        return result

    return transcribe_here


def transcribing_there(arguments: Arguments, url: str) -> Callable[[Recording], Any]:
    """Ask the server what it is, and return what has it transcribe a recording."""
    from .remote.client import Remote

    key = arguments.server.server_key or os.environ.get(KEY_VARIABLE)
    model = arguments.model.model if "model" in arguments.changed else None
    remote = Remote(url, key, model, arguments.options, arguments.changed)
    return lambda recording: remote.transcribe(recording.path)


def spoken_language(arguments: Arguments, model: Whisper) -> str | None:
    """Return the language to transcribe; English, after a warning, where the model knows no other."""
    language: str | None = arguments.options["language"]
    name = arguments.model.model
    english_only = name.endswith(".en") or not model.is_multilingual
    if not english_only or code_of(language) == "en":
        return language
    if code_of(language) is not None:
        warn(f"{name} is an English-only model but was given --language {language}; using English instead")
    return "en"


def transcribe_one(transcribe: Callable[[Recording], Any], recording: Recording, arguments: Arguments) -> bool:
    """Transcribe one recording and write its files; report a failure and return False."""
    try:
        result = transcribe(recording)
        name = recording.stem + "."  # the writer takes off an extension
        arguments.writer(dict(result), name, asdict(arguments.contents), **arguments.layout)
        if arguments.files.embed:
            from .subtitles.burn import embed_result

            options = {**arguments.layout, **asdict(arguments.contents)}
            text = in_its_language(result, arguments.options["task"] == "translate")
            embed_result(text, recording.path, arguments.files.output_dir, options)
    except BrokenPipeError:
        raise
    except Exception as error:  # one bad recording must not stop the others
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
