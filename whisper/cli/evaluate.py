"""The command ``whisper eval``: score models on a manifest, as a table, JSON and HTML.

Parses arguments and writes files; `evaluation` transcribes and `outcomes` has the scores. The table
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
from ..options.language_names import code_of
from ..output.console import is_terminal
from ..output.console import show as show_text
from ..output.places import check_file, make_folder
from .common import (
    DEFAULT_MODEL,
    Parser,
    add_model,
    add_options,
    check_options,
    explain,
    fail,
    load,
    say,
    temperature_steps,
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
    """Run the command.

    Parameters
    ----------
    argv
        Its arguments, without ``whisper eval``.

    Returns
    -------
    int
        The exit code: 0 when there are scores, also where some recordings failed; 1 when there are
        none.

    Raises
    ------
    SystemExit
        With 2 for wrong arguments, with 0 after ``--help``.
    """
    parser = build_parser()
    arguments = check_arguments(parser, parser.parse_args(argv))
    try:
        evaluations = read_json(arguments.compare) if arguments.compare else run(arguments)
        comparison = compare_two(evaluations, bool(arguments.compare))
        show(evaluations, comparison, arguments)
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


def build_parser() -> Parser:
    """Return the parser of ``whisper eval``."""
    parser = Parser(what="MANIFEST", prog="whisper eval", description=DESCRIPTION)
    parser.add_argument(
        "manifest",
        nargs="?",
        default=None,
        help="labelled recordings: a .tsv, .csv or .jsonl file, or a folder with one or with an audio data set",
    )
    parser.add_argument(
        "--compare",
        nargs="+",
        metavar="JSON",
        default=None,
        help="instead of a manifest: two results of --json, or one with two models",
    )
    parser.add_argument("--groups", default=None, help="only these sets of the manifest, with commas")
    parser.add_argument("--limit", type=int, default=0, help="at most this many recordings of each set; 0 takes all")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample that --limit takes")
    parser.add_argument("--worst", type=int, default=5, help="number of the worst clips to show aligned")
    parser.add_argument(
        "--json", dest="json_path", metavar="FILE", default=None, help="write all scores and texts to this file"
    )
    parser.add_argument(
        "--html", dest="html_path", metavar="FILE", default=None, help="write a report with plots to this file"
    )
    parser.add_argument(
        "--cache", metavar="FILE", default=None, help="keep transcripts in this file, and do not compute them again"
    )
    parser.add_argument(
        "--detect_language",
        action="store_true",
        help="let the model detect each recording's language, and score that, too",
    )
    add_model(parser, action="append", default=argparse.SUPPRESS)
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
    compare: list[str]
    models: list[str]
    model_dir: str | None
    device: str | None
    compute_type: str
    threads: int
    groups: list[str] | None
    limit: int
    seed: int
    worst: int
    json_path: str | None
    html_path: str | None
    cache: str | None
    options: dict[str, Any]  # for `evaluate`


def check_arguments(parser: Parser, args: argparse.Namespace) -> EvalArguments:
    """Check the parsed arguments; ends in `parser.error` where they are wrong."""
    given = vars(args).copy()
    if bool(given["manifest"]) == bool(given["compare"]):
        parser.error("give a manifest, or --compare with results of --json")
    if code_of(given["language"]) and given["detect_language"]:
        parser.error("--detect_language leaves the language to the model: give no --language with it")
    for name in ("limit", "worst", "threads"):
        given[name] = given[name] or 0
        if given[name] < 0:
            parser.error(f"argument --{name}: must not be negative: {given[name]}")
    for name in ("json_path", "html_path", "cache"):
        if given[name]:
            _check_file(parser, f"--{name.removesuffix('_path')}", given[name])
    given["temperature"] = temperature_steps(
        parser, given["temperature"], given.pop("temperature_increment_on_fallback")
    )
    taken = {name: given.pop(name) for name in EvalArguments.__dataclass_fields__ if name in given}
    device = taken.pop("device")
    groups = taken.pop("groups")
    models = given.pop("model", [DEFAULT_MODEL])
    if given["word_timestamps"] is None:
        del given["word_timestamps"]
    check_options(parser, {name: value for name, value in given.items() if name != "detect_language"})
    return EvalArguments(
        **{**taken, "manifest": taken["manifest"] or "", "compare": taken["compare"] or []},
        models=models,
        device=None if device == "auto" else device,
        groups=[name.strip() for name in groups.split(",")] if groups else None,
        options=given,
    )


def _check_file(parser: Parser, flag: str, path: str) -> None:
    """Report now, not after an hour of transcribing, that the file cannot be written."""
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        parser.error(f"argument {flag}: there is no folder {folder!r}")
    try:
        make_folder(folder)
        check_file(path)
    except OptionError as error:
        parser.error(f"argument {flag}: {error}")


# --------------------------------------------------------------------------------------------------
# Work
# --------------------------------------------------------------------------------------------------


def run(arguments: EvalArguments) -> list[Evaluation]:
    """Evaluate each model on the manifest."""
    import torch

    from ..evaluation.run import choose
    from ..manifests.read import read_manifest

    if arguments.html_path:
        from ..evaluation.html_report import require_matplotlib

        require_matplotlib()
    manifest = read_manifest(arguments.manifest)
    recordings = choose(manifest.recordings, arguments.groups, arguments.limit, arguments.seed)
    if not recordings:
        raise OptionError(f"{arguments.manifest} has no usable recordings:\n{manifest.describe()}")
    if arguments.threads > 0:
        torch.set_num_threads(arguments.threads)
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
    model = load(name, arguments.device, arguments.model_dir, arguments.compute_type)
    load_seconds = time.perf_counter() - started
    # warm up: what is loaded lazily must not count as processing time of the first recording
    model.transcribe(np.zeros(16000, np.float32), language="en", temperature=0.0)
    with tqdm(total=len(recordings), desc=name, unit="clip", disable=not is_terminal(sys.stderr)) as bar:

        def advance(done: int, total: int) -> None:
            bar.update()
            if bar.disable and 10 * done // total > 10 * (done - 1) // total:
                say(f"{name}: {done} of {total} recordings")

        evaluation = evaluate(
            model, recordings, name=name, cache=arguments.cache, progress=advance, **arguments.options
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


def show(evaluations: Sequence[Evaluation], comparison: Comparison | None, arguments: EvalArguments) -> None:
    """Print the tables and write the requested files."""
    from ..evaluation.tables import describe, describe_comparison

    width = shutil.get_terminal_size((100, 40)).columns
    for evaluation in evaluations:
        show_text(describe(evaluation, arguments.worst, width) + "\n", sys.stdout)
    if comparison:
        show_text(describe_comparison(comparison) + "\n", sys.stdout)
    if arguments.json_path:
        results = {
            "evaluations": [evaluation.to_dict() for evaluation in evaluations],
            "comparison": comparison.to_dict() if comparison else None,
        }
        _write(arguments.json_path, json.dumps(results, ensure_ascii=False, indent=1))
    if arguments.html_path:
        from ..evaluation.html_report import make_report

        _write(arguments.html_path, make_report(evaluations, comparison))


def _write(path: str, text: str) -> None:
    try:
        with atomic_write(path) as file:
            file.write(text.encode("utf-8"))
    except OSError as error:
        raise OptionError(f"{path} cannot be written: {error.strerror}") from error
    say(f"wrote {path}")
