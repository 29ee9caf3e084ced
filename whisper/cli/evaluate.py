"""The command ``whisper eval``: score models on a manifest, as a table, JSON and HTML.

Parses arguments and writes files; `evaluation.run` transcribes, `evaluation.results` has the scores. The table
goes to standard output, everything else to standard error. A recording that fails is listed and
does not end the run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..errors import OptionError, WhisperError
from ..files import atomic_write
from ..options.flags import add_flags, take
from ..options.language_names import code_of
from ..options.types import FLAG, NAMES, PATH, PATHS, check_values, option, whole
from ..output.console import is_terminal
from ..output.console import show as show_text
from ..output.writable_paths import check_file, make_folder
from .common import (
    FallbackOptions,
    ModelOptions,
    Parser,
    add_options,
    check_options,
    explain,
    fail,
    load,
    say,
)

if TYPE_CHECKING:
    from ..evaluation.results import Comparison, Evaluation
    from ..manifests.read import ManifestEntry

DESCRIPTION = (
    "Evaluate models on labelled recordings: word and character error rates with confidence intervals, hallucinations, "
    "language detection, word timestamps, speed and memory. With two models, also their difference. The decoding "
    "options and their defaults are those of `whisper`; for greedy decoding --beam_size None."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``whisper eval``, and return its exit code.

    0 when there are scores, also where some recordings failed; 1 when there are none.
    """
    parser = build_parser()
    arguments = check_arguments(parser, parser.parse_args(argv))
    try:
        evaluations = read_json(compare) if (compare := arguments.command.compare) else run(arguments)
        comparison = compare_two(evaluations, bool(compare))
        show(evaluations, comparison, arguments.command)
    except BrokenPipeError:
        raise
    except Exception as error:  # any error becomes one line; `SOTTO_DEBUG` shows the traceback
        fail("eval", explain(error))
        return 1
    scored = all(any(clip.kind != "failed" for clip in evaluation.clips) for evaluation in evaluations)
    return 0 if scored else 1


# --------------------------------------------------------------------------------------------------
# Arguments
# --------------------------------------------------------------------------------------------------


SCORES = "scores"  # heading of the help


@dataclass(frozen=True)
class EvalOptions:
    """What is scored, and where the scores go."""

    compare: list[str] | None = option(
        SCORES,
        None,
        PATHS,
        "instead of a manifest: two results of --json, or one with two models",
        cli={"nargs": "+", "metavar": "JSON", "type": str},
    )
    groups: tuple[str, ...] | None = option(SCORES, None, NAMES, "only these sets of the manifest, with commas")
    limit: int = option(SCORES, 0, whole(0), "at most this many recordings of each set; 0 takes all")
    seed: int = option(SCORES, 0, whole(), "seed of the sample that --limit takes")
    worst: int = option(SCORES, 5, whole(0), "number of the worst clips to show aligned")
    json: str | None = option(SCORES, None, PATH, "write all scores and texts to this file", cli={"metavar": "FILE"})
    html: str | None = option(SCORES, None, PATH, "write a report with plots to this file", cli={"metavar": "FILE"})
    cache: str | None = option(
        SCORES, None, PATH, "keep transcripts in this file, and do not compute them again", cli={"metavar": "FILE"}
    )
    detect_language: bool = option(
        SCORES,
        False,
        FLAG,
        "let the model detect each recording's language, and score that, too",
        cli={"action": "store_true"},
    )

    def __post_init__(self) -> None:
        check_values(self)


def build_parser() -> Parser:
    """Return the parser of ``whisper eval``."""
    parser = Parser(what="MANIFEST", prog="whisper eval", description=DESCRIPTION)
    parser.add_argument(
        "manifest",
        nargs="?",
        default=None,
        help="labelled recordings: a .tsv, .csv or .jsonl file, or a folder with one or with an audio data set",
    )
    add_flags(parser, EvalOptions)
    add_flags(parser, ModelOptions, changed={"model": {"action": "append", "default": argparse.SUPPRESS}})
    add_options(
        parser,
        without=("verbose", "seed", "channels", "audio_track", "container_time"),
        language={"help": "language of the recordings; by default the manifest's, detected where it has none"},
        word_timestamps={"default": None},  # None: where the manifest has word times
    )
    return parser


@dataclass(frozen=True)
class EvalArguments:
    """The checked arguments of the command."""

    manifest: str
    models: list[str]
    model: ModelOptions
    command: EvalOptions
    options: dict[str, Any]  # for `evaluate`


def check_arguments(parser: Parser, args: argparse.Namespace) -> EvalArguments:
    """Check the parsed arguments; ends in `parser.error` where they are wrong."""
    given = vars(args).copy()
    manifest = given.pop("manifest")
    if bool(manifest) == bool(given["compare"]):
        parser.error("give a manifest, or --compare with results of --json")
    if code_of(given["language"]) and given["detect_language"]:
        parser.error("--detect_language leaves the language to the model: give no --language with it")
    models = given.pop("model", [ModelOptions.model])
    try:
        command, model = take(EvalOptions, given), take(ModelOptions, given)
        for flag, path in (("--json", command.json), ("--html", command.html), ("--cache", command.cache)):
            if path:
                _check_file(flag, path)
        given["temperature"] = take(FallbackOptions, given).temperatures(given["temperature"])
        if given["word_timestamps"] is None:
            del given["word_timestamps"]
        check_options(given)
    except OptionError as error:
        parser.error(str(error))
    return EvalArguments(
        manifest=manifest or "",
        models=models,
        model=model,
        command=command,
        options={**given, "detect_language": command.detect_language},
    )


def _check_file(flag: str, path: str) -> None:
    """Report now, not after an hour of transcribing, that the file cannot be written."""
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise OptionError(f"argument {flag}: there is no folder {folder!r}")
    try:
        make_folder(folder)
        check_file(path)
    except OptionError as error:
        raise OptionError(f"argument {flag}: {error}") from None


# --------------------------------------------------------------------------------------------------
# Work
# --------------------------------------------------------------------------------------------------


def run(arguments: EvalArguments) -> list[Evaluation]:
    """Evaluate each model on the manifest."""
    from ..evaluation.run import choose
    from ..manifests.read import read_manifest

    command = arguments.command
    if command.html:
        from ..evaluation.html_report import require_matplotlib

        require_matplotlib()
    manifest = read_manifest(arguments.manifest)
    recordings = choose(manifest.recordings, command.groups, command.limit, command.seed)
    if not recordings:
        raise OptionError(f"{arguments.manifest} has no usable recordings:\n{manifest.describe()}")
    skipped = tuple({"line": bad.line, "reason": bad.reason} for bad in manifest.skipped)
    if skipped:
        say(f"warning: skipped entries of {arguments.manifest}: {len(skipped)}; they are listed at the end")
    return [replace(evaluate_model(name, recordings, arguments), skipped=skipped) for name in arguments.models]


def evaluate_model(name: str, recordings: list[ManifestEntry], arguments: EvalArguments) -> Evaluation:
    """Load a model and evaluate it on the recordings."""
    import numpy as np
    from tqdm import tqdm

    from ..evaluation.run import evaluate

    started = time.perf_counter()
    model = load(arguments.model, name)
    load_seconds = time.perf_counter() - started
    # warm up: what is loaded lazily must not count as processing time of the first recording
    model.transcribe(np.zeros(16000, np.float32), language="en", temperature=0.0)
    with tqdm(total=len(recordings), desc=name, unit="clip", disable=not is_terminal(sys.stderr)) as bar:

        def advance(done: int, total: int) -> None:
            bar.update()
            if bar.disable and 10 * done // total > 10 * (done - 1) // total:
                say(f"{name}: {done} of {total} recordings")

        evaluation = evaluate(
            model, recordings, name=name, cache=arguments.command.cache, progress=advance, **arguments.options
        )
    return replace(evaluation, load_seconds=load_seconds)


def read_json(paths: Sequence[str]) -> list[Evaluation]:
    """Read the evaluations that ``--json`` has written.

    Raises
    ------
    OptionError
        A file is missing or is something else, or there are not two evaluations in all.
    """
    from ..evaluation.results import Evaluation

    def read_one(path: str) -> list[Evaluation]:
        try:
            with open(path, encoding="utf-8") as file:
                return [Evaluation.from_dict(values) for values in json.load(file)["evaluations"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OptionError(f"{path} is not a result of `whisper eval --json`: {error}") from error

    evaluations = [evaluation for path in paths for evaluation in read_one(path)]
    if len(evaluations) != 2:
        raise OptionError(f"--compare takes two evaluations, and there are {len(evaluations)} in {', '.join(paths)}")
    return evaluations


def compare_two(evaluations: Sequence[Evaluation], wanted: bool) -> Comparison | None:
    """Compare the first two evaluations; None for a single one.

    Without a common clip it is an error if the comparison is `wanted`, else a message and None.
    """
    from ..evaluation.results import compare

    if len(evaluations) < 2:
        return None
    try:
        return compare(*evaluations[:2])
    except WhisperError as error:
        if wanted:
            raise
        fail("eval", explain(error))
        return None


def show(evaluations: Sequence[Evaluation], comparison: Comparison | None, command: EvalOptions) -> None:
    """Print the tables and write the requested files."""
    from ..evaluation.tables import describe, describe_comparison

    width = shutil.get_terminal_size((100, 40)).columns
    for evaluation in evaluations:
        show_text(describe(evaluation, command.worst, width) + "\n", sys.stdout)
    if comparison:
        show_text(describe_comparison(comparison) + "\n", sys.stdout)
    if command.json:
        results = {
            "evaluations": [evaluation.to_dict() for evaluation in evaluations],
            "comparison": comparison.to_dict() if comparison else None,
        }
        _write(command.json, json.dumps(results, ensure_ascii=False, indent=1))
    if command.html:
        from ..evaluation.html_report import make_report

        _write(command.html, make_report(evaluations, comparison))


def _write(path: str, text: str) -> None:
    try:
        with atomic_write(path) as file:
            file.write(text.encode("utf-8"))
    except OSError as error:
        raise OptionError(f"{path} cannot be written: {error.strerror}") from error
    say(f"wrote {path}")
