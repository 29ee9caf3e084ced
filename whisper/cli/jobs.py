"""The command ``whisper jobs``: folders of recordings, by runs that may be killed and go on.

Parses arguments, shows what runs and what came of it; the room `jobs` does the work.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from ..errors import DataError, OptionError
from ..jobs.failures import KINDS, mending
from ..jobs.options import FAILURES, LIMITS, TOLD, JobOptions
from ..jobs.remote import is_address
from ..options.flags import add_flags, take
from ..options.types import FLAG, check_values, facts, option
from ..output.console import is_terminal, show
from ..output.layout import LAYOUT, Layout
from ..subtitles.formats.document import FormatOptions
from ..subtitles.formats.names import NEED_WORDS
from ..subtitles.rules import RuleOptions
from .common import (
    FallbackOptions,
    ModelOptions,
    Parser,
    add_options,
    counted,
    explain,
    fail,
    plain_warnings,
    rules_of,
    say,
)
from .main import layout_of, uses_our_modes

if TYPE_CHECKING:
    from ..jobs.job import Job
    from ..jobs.reports.live import Live
    from ..jobs.running.runner import Ended, Runner
    from ..jobs.store import JobStore, Recording

EXIT_FAILURE, EXIT_STOPPED, EXIT_INTERRUPTED = 1, 3, 128 + signal.SIGINT
SUMMARY = "summary.html"
SHOWN_FAILURES = 20  # as they happen; all are in the list
LINE_S = 30.0  # between two lines where there is no terminal
_FLEETING = frozenset({FAILURES, LIMITS, TOLD})  # groups of options that are of one run alone


@dataclass(frozen=True)
class FurtherOptions:
    """What the command takes beside the options of a job."""

    escape_cues: bool | None = option(
        LAYOUT, None, FLAG, "escape arrows, tags and entities in subtitles; None as in the command whisper"
    )

    def __post_init__(self) -> None:
        check_values(self)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``whisper jobs``, and return its exit code.

    0 where all is done, 1 where recordings failed, 3 where the run ended before the job did (a full disk, a limit,
    SIGTERM): the same command goes on; 130 after Ctrl-C.
    """
    parser = build_parser()
    args = parser.parse_args(argv)
    action: Callable[[argparse.Namespace, Sequence[str] | None], int] = args.action
    try:
        with plain_warnings():
            return action(args, argv)
    except OptionError as error:
        where: Parser = args.parser
        where.error(str(error))
    except Exception as error:  # reported in one line; the traceback only with SOTTO_DEBUG
        fail("jobs", explain(error))
        return EXIT_FAILURE


def build_parser() -> Parser:
    """Return the parser with all subcommands."""
    parser = Parser(
        what="run | status | list | failures | retry | cancel | export | page",
        prog="whisper jobs",
        description="Transcribe folders of recordings into folders of files, by runs that may be killed and go on: "
        "what is done is done once. See docs/jobs.md.",
    )
    commands = parser.add_subparsers(title="subcommands", metavar="COMMAND", required=True)
    _add_run(commands)
    status = _add(commands, "status", _status, "what is done, what is left, and who runs")
    status.add_argument("--json", action="store_true", help="print JSON")
    listed = _add(commands, "list", _list, "one line for each recording")
    listed.add_argument("--state", default=None, help="of these states alone, such as failed,waiting")
    listed.add_argument("--json", action="store_true", help="print a line of JSON for each")
    _add(commands, "failures", _failures, "failures by kind, each with what mends it")
    exported = _add(commands, "export", _export, "write recordings, segments or words as one table")
    exported.add_argument("file", metavar="FILE", help="the table; its name ends in .parquet, .csv, .tsv or .jsonl")
    exported.add_argument(
        "--rows", default="segments", choices=("recordings", "segments", "words"), help="what a row is"
    )
    page = _add(commands, "page", _page, "write a summary as one HTML page")
    page.add_argument("file", nargs="?", metavar="FILE", help="the page; summary.html in the folder where not given")
    for name, help_text, action in (
        ("retry", "let failed and cancelled recordings wait again", _retry),
        ("cancel", "take recordings out of the job that are not done", _cancel),
    ):
        changing = _add(commands, name, action, help_text)
        changing.add_argument("match", nargs="*", metavar="GLOB", help="sources or names that are meant; all without")
        if name == "retry":
            changing.add_argument("--kind", choices=sorted(KINDS), help="failures of this kind alone")
    return parser


def _add(commands: Any, name: str, action: Callable[..., int], help_text: str) -> Parser:
    parser: Parser = commands.add_parser(
        name, what="DIR", prog=f"whisper jobs {name}", help=help_text, description=help_text
    )
    parser.add_argument("out", metavar="DIR", help="folder of the job")
    parser.set_defaults(action=action, parser=parser)
    return parser


def _add_run(commands: Any) -> Parser:
    parser: Parser = commands.add_parser(
        "run",
        what="INPUT [INPUT ...] --out DIR",
        prog="whisper jobs run",
        help="transcribe what is not done",
        description="Transcribe recordings that are not done into the folder --out. Without INPUT, go on with the "
        "inputs and the options that the job had. SIGUSR1 pauses, SIGUSR2 goes on, SIGTERM and Ctrl-C end the run.",
    )
    parser.add_argument(
        "inputs", nargs="*", metavar="INPUT", help="files, folders, globs, manifests, addresses such as s3://bucket/"
        "folder, or - for a list on standard input",
    )  # fmt: skip
    parser.add_argument(
        "--out", "--output_dir", "-o", required=True, metavar="DIR", help="folder of the files and of the job"
    )
    parser.add_argument("--dry_run", action="store_true", help="say what would be done, how long, and how much disk")
    for declared in (JobOptions, ModelOptions, Layout, RuleOptions, FormatOptions, FurtherOptions):
        add_flags(parser, declared)
    add_options(parser, without={"verbose"})
    parser.set_defaults(action=_run, parser=parser)
    return parser


# ---------------------------------------------------------------------------------------------------------
# Run
# ---------------------------------------------------------------------------------------------------------


def _run(args: argparse.Namespace, argv: Sequence[str] | None) -> int:
    """Plan, run, and say what came of it."""
    args = _with_kept_options(args, argv)
    kept = _to_keep(args)
    with _job(args) as job:
        if args.dry_run:
            return _dry_run(job)
        with job.running() as runner:
            job.store.keep_fact("command", kept)
            _tell_plan(job)
            return _run_to_the_end(job, runner)


def _with_kept_options(args: argparse.Namespace, argv: Sequence[str] | None) -> argparse.Namespace:
    """Without inputs, take the options that the job had; those that are given now come first."""
    from ..jobs.store import JobStore, has_job

    if args.inputs:
        return args
    kept = None
    if has_job(args.out):
        with closing(JobStore(args.out, JobOptions(shard=args.shard).part())) as store:
            kept = store.fact("command")
    if not kept:
        raise OptionError(f"there is no job in {args.out}: say what is to be transcribed")
    args.parser.set_defaults(**{name: _tupled(value) for name, value in kept.items()})
    rest = list(sys.argv[2:] if argv is None else argv)
    again: argparse.Namespace = args.parser.parse_args(rest[1:])
    again.inputs = again.inputs or kept.get("inputs", [])
    return again


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _to_keep(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options that another run of the job takes over: what is no default, and not of one run alone."""
    fleeting = {f.name for f in fields(JobOptions) if facts(f).group in _FLEETING}
    fleeting |= {"inputs", "out", "dry_run", "action", "parser", "shard"}
    inputs = [i if is_address(i) else os.path.abspath(i) for i in args.inputs if i != "-"]
    defaults = _add_run(argparse.ArgumentParser().add_subparsers(parser_class=Parser))
    return {
        "inputs": inputs,
        **{n: v for n, v in vars(args).items() if n not in fleeting and v != defaults.get_default(n)},
    }


def _job(args: argparse.Namespace) -> Job:
    """Check the arguments, and return the job that they mean."""
    from ..jobs.job import Job

    given = dict(vars(args))
    for name in ("inputs", "out", "dry_run", "action", "parser"):
        del given[name]
    rules = rules_of(given)
    layout = layout_of(given, rules)
    how, contents = take(JobOptions, given), take(FormatOptions, given)
    model, further = take(ModelOptions, given), take(FurtherOptions, given)
    given["temperature"] = take(FallbackOptions, given).temperatures(given["temperature"])
    needing = [name for name in how.formats() if name in NEED_WORDS] + ["karaoke"] * contents.karaoke
    if needing and not given["word_timestamps"]:
        raise OptionError(f"{needing[0]} requires --word_timestamps True")
    by_rules = rules.by_rules or uses_our_modes(given)
    escape_cues = by_rules if further.escape_cues is None else further.escape_cues
    return Job(
        args.inputs,
        args.out,
        model=model.model,
        model_options={**asdict(model), "device": None if model.device == "auto" else model.device},
        options=given,
        how=how,
        layout={**asdict(rules), **asdict(layout), "escape_cues": escape_cues},
        contents=asdict(contents),
        rehearsal=args.dry_run,
        forks=True,
    )


def _tell_plan(job: Job) -> None:
    from ..storage.database import ROLLBACK

    if job.store.journal == ROLLBACK:
        say(
            f"warning: {job.out} is no local disk: the job file has the slower journal, and is not for several machines"
        )
    if job.n_interrupted:
        say(f"{counted(job.n_interrupted, 'recording')} of a run that was killed, to be done again")
    if job.changes:
        say(f"other options than before: {'; '.join(job.changes)}")
    if told := job.planned.told():
        say(told)


def _dry_run(job: Job) -> int:
    """Say what would be done."""
    from ..jobs.reports.estimate import estimate
    from ..jobs.reports.live import in_words
    from . import reading_speed

    planned = job.plan()
    found = estimate(job.store)
    if job.changes:
        say(f"other options than before: {'; '.join(job.changes)}")
    totals = job.store.totals()
    show(f"{planned.n_inputs:,} inputs; {planned.told() or 'nothing is new'}", sys.stdout)
    show(f"{int(totals['done']['n']):,} done, {int(totals['failed']['n']):,} failed, {found.n:,} to do", sys.stdout)
    about = "" if found.n_opened >= found.n else f", estimated from {found.n_opened} of them"
    show(f"{in_words(found.seconds)} of sound{about}", sys.stdout)
    with suppress(LookupError, ValueError):
        times = reading_speed.kept().get(job.settings.model)
        times = times or reading_speed.estimate(job.settings.model, reading_speed.kept())
        if times is not None:
            show(f"about {in_words(found.seconds / times.times_real_time)} on this machine", sys.stdout)
        else:
            show("how long that takes is not known here: whisper models --measure", sys.stdout)
    show(f"about {found.disk / 1e6:,.1f} MB of files", sys.stdout)
    return 0


def _run_to_the_end(job: Job, runner: Runner) -> int:
    """Run, show how it goes, and say what came of it."""
    from ..jobs.reports.live import Live, in_words

    live = Live(job.store, runner, job.how.metrics)
    shown = _Shown(live)
    runner.on_tick = shown.tick
    with _signals(runner) as signalled:
        for ended in runner.run():
            shown.ended(ended)
    shown.clear()
    live.write_metrics()
    if job.how.summary:
        _write_summary(job)
    totals = {state: int(total["n"]) for state, total in job.store.totals().items()}
    rate = f", {now.rate:.1f} x real time" if (now := live.look()).rate else ""
    idle = "" if runner.idle is None else f"; the device waited {100 * runner.idle:.1f} % of the time"
    say(f"{counted(runner.n_done, 'recording')} in this run, {in_words(runner.seconds_done)} of sound{rate}{idle}")
    say(", ".join(f"{n:,} {state}" for state, n in totals.items() if n))
    if runner.stopped:
        say(f"stopped: {runner.stopped}; the same command goes on")
    if totals["failed"]:
        say(f"what failed, and what mends it: whisper jobs failures {job.out}")
    if signalled and signalled[0] == signal.SIGINT:
        return EXIT_INTERRUPTED
    return EXIT_STOPPED if runner.stopped else EXIT_FAILURE if totals["failed"] else 0


def _write_summary(job: Job) -> None:
    """Write the page; what is done is worth more than it."""
    from ..jobs.reports.page import write_page

    path = os.path.join(job.out, SUMMARY)
    try:
        with _opened(job.out) as opened:
            write_page(opened, path)
    except OSError as error:
        fail(path, explain(error))


class _Shown:
    """The live line on a terminal; elsewhere a line now and then."""

    def __init__(self, live: Live) -> None:
        self.live, self.n_failed = live, 0
        self._is_live = is_terminal(sys.stderr)
        self._next, self._before = 0.0, ""

    def tick(self) -> None:
        """Show how it goes, where it is time."""
        import time

        self.live.tick()
        if (now := time.monotonic()) < self._next:
            return
        self._next = now + (0.5 if self._is_live else LINE_S)
        line = self.live.line()
        if self._is_live:
            with suppress(OSError, ValueError):
                width = os.get_terminal_size(sys.stderr.fileno()).columns
                sys.stderr.write(f"\r\x1b[K{line[: max(width - 1, 20)]}")
                sys.stderr.flush()
        elif line != self._before:
            say(line)
        self._before = line

    def clear(self) -> None:
        """Leave the line to others."""
        if self._is_live:
            with suppress(OSError, ValueError):
                sys.stderr.write("\r\x1b[K")

    def ended(self, ended: Ended) -> None:
        """Report a failure."""
        if ended.state != "failed":
            return
        self.n_failed += 1
        self.clear()
        if self.n_failed <= SHOWN_FAILURES:
            fail(ended.recording.source, ended.error)
        elif self.n_failed == SHOWN_FAILURES + 1:
            say("further failures are in the list: whisper jobs failures")


@contextmanager
def _signals(runner: Runner) -> Iterator[list[int]]:
    """Let signals end and pause a run; gives those that ended it."""
    ended: list[int] = []

    def end(number: int, _frame: object) -> None:
        if ended and number == signal.SIGINT:
            raise KeyboardInterrupt  # the second Ctrl-C does not wait
        ended.append(number)
        runner.stop(f"by {signal.Signals(number).name}")

    handlers: dict[str, Callable[[int, Any], None]] = {
        "SIGINT": end,
        "SIGTERM": end,
        "SIGUSR1": lambda *_: runner.pause(),
        "SIGUSR2": lambda *_: runner.resume(),
    }
    before = {}
    for name, handler in handlers.items():
        with suppress(ValueError, AttributeError):  # no main thread, or Windows
            number = getattr(signal, name)
            before[number] = signal.signal(number, handler)
    try:
        yield ended
    finally:
        for number, handler_before in before.items():
            signal.signal(number, handler_before)


# ---------------------------------------------------------------------------------------------------------
# Look
# ---------------------------------------------------------------------------------------------------------


@contextmanager
def _opened(out: str) -> Iterator[list[JobStore]]:
    from ..jobs.job import stores

    opened = stores(out)
    try:
        yield opened
    finally:
        for store in opened:
            store.close()


def _status(args: argparse.Namespace, _: Sequence[str] | None) -> int:
    from ..jobs.presence import runners
    from ..jobs.reports.live import in_words, sight

    with _opened(args.out) as opened:
        sights = [sight(store) for store in opened]
        running = [one for store in opened for one in store.recordings(["running"])]
        who = runners(opened[0].folder / "runners")
    counts = {state: sum(s.counts[state] for s in sights) for state in sights[0].counts}
    done, left = sum(s.seconds_done for s in sights), sum(s.seconds_left for s in sights)
    if args.json:
        told = {"recordings": counts, "audio_done_seconds": done, "audio_left_seconds": left,
                "running": [one.source for one in running], "runners": who}  # fmt: skip
        show(json.dumps(told), sys.stdout)
        return 0
    show(", ".join(f"{n:,} {state}" for state, n in counts.items()), sys.stdout)
    show(f"{in_words(done)} of sound done, about {in_words(left)} left", sys.stdout)
    for one in who:
        show(f"runner: process {one['pid']} on {one['host']}", sys.stdout)
    for recording in running[:SHOWN_FAILURES]:
        show(f"running: {recording.source}", sys.stdout)
    return 0


def _list(args: argparse.Namespace, _: Sequence[str] | None) -> int:
    from ..jobs.store import STATES

    states = STATES if args.state is None else tuple(args.state.split(","))
    if unknown := [state for state in states if state not in STATES]:
        raise OptionError(f"there is no state {unknown[0]!r}; there are {', '.join(STATES)}")
    with _opened(args.out) as opened:
        for store in opened:
            for one in store.recordings(states):
                show(json.dumps(_facts(one)) if args.json else _line(one), sys.stdout)
    return 0


def _facts(one: Recording) -> dict[str, Any]:
    names = ("source", "name", "state", "kind", "error", "tries", "priority", "size", "content", "seconds", "wall",
             "language", "started", "finished", "figures", "outputs")  # fmt: skip
    return {name: getattr(one, name) for name in names}


def _line(one: Recording) -> str:
    if one.state == "done":
        words = one.figures.get("words", 0)
        return f"done     {one.seconds or 0:9.1f} s  {one.language or '':3}  {words:6} words  {one.source}"
    reason = f"  {one.kind}: {one.error}" if one.kind and one.state != "running" else ""
    return f"{one.state:8} {one.source}{reason}"


def _failures(args: argparse.Namespace, _: Sequence[str] | None) -> int:
    with _opened(args.out) as opened:
        failed = [one for store in opened for one in store.recordings(["failed"])]
    for kind in KINDS:
        if not (those := [one for one in failed if one.kind == kind]):
            continue
        show(f"{len(those):,} x {KINDS[kind].words}: {mending(kind, args.out)}", sys.stdout)
        for one in those[:SHOWN_FAILURES]:
            show(f"    {one.source}: {one.error}", sys.stdout)
        if len(those) > SHOWN_FAILURES:
            show(
                f"    and {len(those) - SHOWN_FAILURES:,} more: whisper jobs list {args.out} --state failed", sys.stdout
            )
    if not failed:
        show("nothing failed", sys.stdout)
    return 0


def _export(args: argparse.Namespace, _: Sequence[str] | None) -> int:
    from ..jobs.reports.export import export

    with _opened(args.out) as opened:
        n = export(opened, args.file, args.rows)
    say(f"{n:,} {args.rows} in {args.file}")
    return 0


def _page(args: argparse.Namespace, _: Sequence[str] | None) -> int:
    from ..jobs.reports.page import write_page

    path = args.file or os.path.join(args.out, SUMMARY)
    with _opened(args.out) as opened:
        write_page(opened, path)
    say(f"written: {path}")
    return 0


# ---------------------------------------------------------------------------------------------------------
# Change
# ---------------------------------------------------------------------------------------------------------


def _retry(args: argparse.Namespace, _: Sequence[str] | None) -> int:
    n = _change(args, ("failed", "skipped"), "waiting", args.kind)
    say(f"{counted(n, 'recording')} {'waits' if n == 1 else 'wait'} again: whisper jobs run --out {args.out}")
    return 0


def _cancel(args: argparse.Namespace, _: Sequence[str] | None) -> int:
    n = _change(args, ("waiting", "running", "failed"), "skipped", None)
    are = "is" if n == 1 else "are"
    say(f"{counted(n, 'recording')} {are} skipped from now on: whisper jobs retry {args.out} takes that back")
    return 0


def _change(args: argparse.Namespace, states: tuple[str, ...], to: str, kind: str | None) -> int:
    """Change the recordings that are meant; returns how many."""
    n = 0
    with _opened(args.out) as opened:
        for store in opened:
            found = store.recordings(states, kind)
            n += store.change([one.id for one in found if _is_meant(one, args.match)], to)
    if not n and args.match:
        raise DataError(f"nothing in {args.out} that can be changed fits {', '.join(args.match)}")
    return n


def _is_meant(one: Recording, globs: Sequence[str]) -> bool:
    return not globs or any(fnmatch.fnmatch(name, g) for g in globs for name in (one.source, one.name))
