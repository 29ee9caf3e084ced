"""The command ``whisper eval``: a manifest and a model to a table, a JSON file and a page.

Knows arguments and files; reading is done by `evaluation`, the figures are `outcomes`'s. The table goes to standard
output, all else to standard error. Recordings that cannot be read are listed and end nothing.
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

from .arguments import (
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
from .console import is_terminal
from .console import show as show_text
from .download import written_whole
from .errors import OptionError, WhisperError
from .language_names import code_of
from .places import check_file, make_folder

if TYPE_CHECKING:
    from .manifests import Recording
    from .outcomes import Comparison, Evaluation

DESCRIPTION = (
    "Score models on recordings whose text is known: word and character error rates with intervals, invented text, "
    "languages, word times, speed and memory. With two models, also how they differ. The options of decoding and "
    "their defaults are those of `whisper`; for greedy decoding --beam_size None."
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
        The exit code: 0 when there are scores, also where some recordings could not be read; 1 when there are none.

    Raises
    ------
    SystemExit
        With 2 for arguments that cannot be meant, with 0 after ``--help``.
    """
    parser = build_parser()
    plan = check_arguments(parser, parser.parse_args(argv))
    try:
        evaluations = read_json(plan.compare) if plan.compare else run(plan)
        comparison = compare_two(evaluations, bool(plan.compare))
        show(evaluations, comparison, plan)
    except BrokenPipeError:
        raise
    except Exception as error:  # whatever it is, one line says it; the traceback is for who asks for it
        fail("eval", explain(error))
        return 1
    scored = all(any(clip.kind != "failed" for clip in evaluation.clips) for evaluation in evaluations)
    return 0 if scored else 1


# ---------------------------------------------------------------------------------------------------------
# Arguments
# ---------------------------------------------------------------------------------------------------------


def build_parser() -> Parser:
    """Return the parser of ``whisper eval``."""
    parser = Parser(what="MANIFEST", prog="whisper eval", description=DESCRIPTION)
    parser.add_argument(
        "manifest", nargs="?", default=None,
        help="recordings with their texts: a .tsv, .csv or .jsonl file, or a folder with one or with an audio data set",
    )  # fmt: skip
    parser.add_argument("--compare", nargs="+", metavar="JSON", default=None,
                        help="instead of a manifest: two results of --json, or one of two models")  # fmt: skip
    parser.add_argument("--groups", default=None, help="only these sets of the manifest, with commas")
    parser.add_argument("--limit", type=int, default=0, help="at most so many recordings of each set; 0 takes all")
    parser.add_argument("--seed", type=int, default=0, help="draws the recordings of --limit")
    parser.add_argument("--worst", type=int, default=5, help="how many of the worst clips to show aligned")
    parser.add_argument("--json", dest="json_path", metavar="FILE", default=None,
                        help="write all figures and texts to this file")  # fmt: skip
    parser.add_argument("--html", dest="html_path", metavar="FILE", default=None,
                        help="write a report with plots to this file")  # fmt: skip
    parser.add_argument("--cache", metavar="FILE", default=None,
                        help="keep what was read in this file, and do not read it again")  # fmt: skip
    parser.add_argument("--detect_language", action="store_true",
                        help="let the model find each recording's language, and score that, too")  # fmt: skip
    add_model(parser, action="append", default=argparse.SUPPRESS)
    add_options(
        parser, without=("verbose", "seed", "channels", "audio_track", "container_time"),
        language={"help": "language that is spoken; where not given, the manifest's, and the model's own choice where "
                          "it has none"},
        word_timestamps={"default": None},  # None: where the manifest knows times of words
    )  # fmt: skip
    return parser


@dataclass(frozen=True)
class Plan:
    """Everything that the arguments ask for."""

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


def check_arguments(parser: Parser, args: argparse.Namespace) -> Plan:
    """Turn arguments into a plan; leaves by `parser.error`."""
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
    taken = {name: given.pop(name) for name in Plan.__dataclass_fields__ if name in given}
    device = taken.pop("device")
    groups = taken.pop("groups")
    models = given.pop("model", [DEFAULT_MODEL])
    if given["word_timestamps"] is None:
        del given["word_timestamps"]
    check_options(parser, {name: value for name, value in given.items() if name != "detect_language"})
    return Plan(
        **{**taken, "manifest": taken["manifest"] or "", "compare": taken["compare"] or []},
        models=models,
        device=None if device == "auto" else device,
        groups=[name.strip() for name in groups.split(",")] if groups else None,
        options=given,
    )


def _check_file(parser: Parser, flag: str, path: str) -> None:
    """Say now, not after an hour of reading, if the file cannot be written."""
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        parser.error(f"argument {flag}: there is no folder {folder!r}")
    try:
        make_folder(folder)
        check_file(path)
    except OptionError as error:
        parser.error(f"argument {flag}: {error}")


# ---------------------------------------------------------------------------------------------------------
# Work
# ---------------------------------------------------------------------------------------------------------


def run(plan: Plan) -> list[Evaluation]:
    """Let each model read the manifest."""
    import torch

    from .evaluation import choose
    from .manifests import read_manifest

    if plan.html_path:
        from .report import require_matplotlib

        require_matplotlib()
    manifest = read_manifest(plan.manifest)
    recordings = choose(manifest.recordings, plan.groups, plan.limit, plan.seed)
    if not recordings:
        raise OptionError(f"{plan.manifest} has no recordings that can be used:\n{manifest.describe()}")
    if plan.threads > 0:
        torch.set_num_threads(plan.threads)
    skipped = tuple({"line": bad.line, "reason": bad.reason} for bad in manifest.skipped)
    if skipped:
        say(f"warning: rows of {plan.manifest} that are left out: {len(skipped)}; they are listed at the end")
    return [replace(read(name, recordings, plan), skipped=skipped) for name in plan.models]


def read(name: str, recordings: list[Recording], plan: Plan) -> Evaluation:
    """Load a model and let it read the recordings."""
    import numpy as np
    from tqdm import tqdm

    from .evaluation import evaluate

    started = time.perf_counter()
    model = load(name, plan.device, plan.model_dir, plan.compute_type)
    load_seconds = time.perf_counter() - started
    # what is only loaded with the first recording must not count as its time
    model.transcribe(np.zeros(16000, np.float32), language="en", temperature=0.0)
    with tqdm(total=len(recordings), desc=name, unit="clip", disable=not is_terminal(sys.stderr)) as bar:

        def advance(done: int, total: int) -> None:
            bar.update()
            if bar.disable and 10 * done // total > 10 * (done - 1) // total:
                say(f"{name}: {done} of {total} recordings")

        evaluation = evaluate(model, recordings, name=name, cache=plan.cache, progress=advance, **plan.options)
    return replace(evaluation, load_seconds=load_seconds)


def read_json(paths: Sequence[str]) -> list[Evaluation]:
    """Read the evaluations that ``--json`` has written.

    Raises
    ------
    OptionError
        A file is missing, is something else, or together they do not hold two evaluations.
    """
    from .outcomes import Evaluation

    def read_one(path: str) -> list[Evaluation]:
        try:
            with open(path, encoding="utf-8") as file:
                return [Evaluation.from_dict(told) for told in json.load(file)["evaluations"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OptionError(f"{path} is no result of `whisper eval --json`: {error}") from error

    evaluations = [evaluation for path in paths for evaluation in read_one(path)]
    if len(evaluations) != 2:
        raise OptionError(f"--compare takes two evaluations, and there are {len(evaluations)} in {', '.join(paths)}")
    return evaluations


def compare_two(evaluations: Sequence[Evaluation], wanted: bool) -> Comparison | None:
    """Compare the first two evaluations; None where there is one, or nothing in common unless that is `wanted`."""
    from .outcomes import compare

    if len(evaluations) < 2:
        return None
    try:
        return compare(*evaluations[:2])
    except WhisperError as error:
        if wanted:
            raise
        fail("eval", explain(error))
        return None


def show(evaluations: Sequence[Evaluation], comparison: Comparison | None, plan: Plan) -> None:
    """Print the tables and write the files that are asked for."""
    from .tables import describe, describe_comparison

    width = shutil.get_terminal_size((100, 40)).columns
    for evaluation in evaluations:
        show_text(describe(evaluation, plan.worst, width) + "\n", sys.stdout)
    if comparison:
        show_text(describe_comparison(comparison) + "\n", sys.stdout)
    if plan.json_path:
        told = {
            "evaluations": [evaluation.to_dict() for evaluation in evaluations],
            "comparison": comparison.to_dict() if comparison else None,
        }
        _write(plan.json_path, json.dumps(told, ensure_ascii=False, indent=1))
    if plan.html_path:
        from .report import make_report

        _write(plan.html_path, make_report(evaluations, comparison))


def _write(path: str, text: str) -> None:
    try:
        with written_whole(path) as file:
            file.write(text.encode("utf-8"))
    except OSError as error:
        raise OptionError(f"{path} cannot be written: {error.strerror}") from error
    say(f"wrote {path}")
