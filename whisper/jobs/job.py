"""A job from the outside: `run` transcribes recordings into a folder, and goes on where an earlier run ended."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from ..errors import DataError, OptionError
from ..options.transcription import DecodingOptions, TranscribeOptions
from ..options.types import check_names
from ..output.layout import Layout
from ..output.writable_paths import make_folder
from ..subtitles.formats.document import FormatOptions
from ..subtitles.rules import RuleOptions
from .inputs import begin, find
from .options import JobOptions
from .outputs import Outputs, read_result
from .presence import Presence
from .recipe import Recipe, differences, effective, model_digest
from .running.forked import Forked, is_possible
from .running.messages import WorkerSettings
from .running.runner import Ended, Launch, Runner, processors
from .running.workers import Events, ProcessWorker, WorkerHandle
from .store import JobStore, Planned, has_job, job_files

if TYPE_CHECKING:
    from ..results import Transcript

Inputs = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
_OF_MODEL = ("device", "compute_type", "quantized", "model_dir", "threads")


@dataclass(frozen=True)
class JobResult:
    """A recording that has ended in a run.

    Attributes
    ----------
    source
        Its path or address.
    state
        "done" or "failed".
    files
        What was written of it.
    kind, error
        Of a failure: see `failures.KINDS`.
    seconds
        Of sound; 0 where it failed.
    language
        Of the transcript.
    figures
        See `figures.figures_of`.
    """

    source: str
    state: str
    files: tuple[str, ...]
    kind: str
    error: str
    seconds: float
    language: str | None
    figures: Mapping[str, Any]
    _kept: tuple[str, str]

    @property
    def transcript(self) -> Transcript:
        """Read the whole transcript from what is kept.

        Raises
        ------
        DataError
            There is none: the recording failed, or the kept file is lost.
        """
        found = read_result(*self._kept) if self._kept[1] else None
        if found is None:
            raise DataError(f"there is no transcript of {self.source}: {self.error or 'its kept result is lost'}")
        transcript: Transcript = found["transcript"]
        return transcript


class Job:
    """A job that is about to run; use it in a ``with`` block.

    Parameters
    ----------
    inputs
        See `inputs.find`; none goes on with what the job has.
    out
        Its folder, made where it is missing.
    model
        As `load_model` takes it.
    model_options
        ``device``, ``compute_type``, ``quantized``, ``model_dir`` and ``threads``.
    options
        Of `transcribe`.
    how
        Of the job.
    layout, contents
        What writers take: see `Outputs`.
    rehearsal
        Plan alone, and change nothing on the disk.
    forks
        Whether the first worker may be a fork of this process: see `forked`.

    Raises
    ------
    OptionError, DataError
        An option, the inputs or the folder cannot be used; or another runner of the job has other options.
    """

    def __init__(
        self,
        inputs: Iterable[str | os.PathLike[str]],
        out: str | os.PathLike[str],
        *,
        model: str,
        model_options: Mapping[str, Any],
        options: Mapping[str, Any],
        how: JobOptions,
        layout: Mapping[str, Any] | None = None,
        contents: Mapping[str, Any] | None = None,
        rehearsal: bool = False,
        forks: bool = False,
    ) -> None:
        from ..transcription.settings import check_without_model

        check_without_model(options)
        self.out, self.how, self.inputs = os.fspath(out), how, list(inputs)
        self.model_options = {name: model_options.get(name) for name in _OF_MODEL}
        launch: Callable[[WorkerSettings, int], Launch] = self._processes
        if how.ray is None:
            self.devices = _devices(self.model_options["device"])
        else:
            from .running.ray_workers import connect  # needs an extra

            cluster = connect(how.ray)
            self.devices, launch = [cluster.device] * cluster.n_workers, cluster.launcher
        self.settings = WorkerSettings(
            model=model,
            model_options={
                "compute_type": self.model_options["compute_type"] or "auto",
                "quantized": bool(self.model_options["quantized"]),
                "download_root": self.model_options["model_dir"],
            },
            options={name: value for name, value in options.items() if name not in ("verbose", "progress", "cancel")},
            side_by_side=how.side_by_side,
            memory_limit=None if how.memory_limit is None else int(how.memory_limit * 1e9),
        )
        self.n_workers = how.workers or len(self.devices)
        self.recipe = self._recipe(options)
        # one precision on all machines, whatever each of them does best
        of_model = {**self.settings.model_options, "compute_type": self.recipe.precision}
        self.settings = replace(self.settings, model_options=of_model)
        self.launch = launch(self.settings, self.n_workers)
        # before anything is made on the disk, so that a wrong name leaves nothing behind
        self._found = (begin if self.inputs and not has_job(self.out) else find)(self.inputs, self.out)
        self._forked: Forked | None = None
        if not rehearsal:
            make_folder(self.out)
            if forks and how.ray is None and self.devices == ["cpu"] and is_possible():
                self._forked = Forked()  # before any file is opened
        translates = options.get("task") == "translate"
        self.outputs = Outputs(self.out, how.formats(), layout, contents, how.min_free_space * 1e9, translates)
        self.store = JobStore(self.out, how.part(), rehearsal=rehearsal)

    def _recipe(self, options: Mapping[str, Any]) -> Recipe:
        from ..device.precision import resolve

        digest = model_digest(self.settings.model, self.model_options["model_dir"],
                              quantized=bool(self.model_options["quantized"]))  # fmt: skip
        asked = self.model_options["compute_type"] or "auto"
        if self.how.ray is not None and self.devices[0] == "cuda":  # this machine need not have one
            return Recipe(effective(options), digest, "float16" if asked == "auto" else asked)
        return Recipe(effective(options), digest, resolve(asked, self.devices[0]))

    def _processes(self, settings: WorkerSettings, n: int) -> Launch:
        """Return what starts a process, on the devices in turn; those of a CPU share its processors."""
        threads = self.model_options["threads"] or 0
        if not threads and n > len(self.devices):
            threads = max(processors() // n, 1)

        def start(number: int, events: Events[tuple[Any, object]]) -> WorkerHandle:
            device = self.devices[number % len(self.devices)]
            own = replace(settings, threads=threads, model_options={**settings.model_options, "device": device})
            forked, self._forked = self._forked, None
            return ProcessWorker(f"{number} on {device}", own, events, forked)

        return start

    @contextmanager
    def running(self) -> Generator[Runner, None, None]:
        """Plan the run, and give its runner; its `planned` says what was found."""
        presence = Presence(self.store.folder / "runners", self.recipe.to_json())
        try:
            self._check_others(presence)
            n_interrupted = self.store.recover(presence.is_alive)
            if not presence.others():
                self.outputs.remove_unfinished()
            self.planned = self.plan()
            runner = Runner(self.store, self.outputs, presence, self.how, self.launch, self.n_workers)
            self.n_interrupted = n_interrupted
            yield runner
        finally:
            presence.leave()

    def plan(self) -> Planned:
        """Note what is to be done."""
        before = self.store.fact("recipe")
        self.changes = differences(before, self.recipe.to_json()) if before else []
        inputs = self._found
        if (part := self.how.part()) is not None:
            inputs = (one for one in inputs if _part_of(one.key, part[1]) == part[0])
        planned = self.store.plan(
            inputs,
            self.recipe.digest,
            order=self.how.order,
            check_content=self.how.check == "content",
            retry=self.how.retry,
            endings=self.outputs.endings,
            layout=self.outputs.layout_digest,
        )
        self.store.keep_fact("recipe", self.recipe.to_json())
        return planned

    def _check_others(self, presence: Presence) -> None:
        for other in presence.others():
            if other["recipe"] != presence.recipe:
                told = "; ".join(differences(other["recipe"], presence.recipe))
                who = f"process {other['pid']} on {other['host']}"
                raise OptionError(f"{who} runs this job with other options ({told}): wait for it, or give the same")

    def result(self, ended: Ended) -> JobResult:
        """Return what ended as the caller sees it."""
        kept = ended.result
        stem = os.path.join(self.out, ended.recording.name)
        return JobResult(
            source=ended.recording.source,
            state=ended.state,
            files=tuple(f"{stem}.{extension}" for extension in ended.outputs),
            kind=ended.kind,
            error=ended.error,
            seconds=0.0 if kept is None else kept.seconds,
            language=None if kept is None else kept.language,
            figures={} if kept is None else kept.figures,
            _kept=(self.out, "" if kept is None else kept.file),
        )

    def close(self) -> None:
        """Close the job file."""
        self.store.close()
        if self._forked is not None:  # nothing was to be done
            self._forked.discard()
            self._forked = None

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def run(
    inputs: Inputs, out: str | os.PathLike[str], *, model: str = "turbo", **options: Any
) -> Generator[JobResult, None, None]:
    """Transcribe recordings into a folder, and give each as it ends; a later call goes on where this one ended.

    Parameters
    ----------
    inputs
        A file, folder, glob, manifest or address, or several; what has been done already is not given again.
    out
        The folder of the files, and of the job itself (``.sotto`` in it). After a crash, a kill or a power failure the
        same call goes on: no recording is lost, and none that was done is done again.
    model
        As `load_model` takes it.
    **options
        Those of `transcribe` (see `whisper.transcribe`), of `load_model` (``device``, ``compute_type``, ``quantized``),
        ``threads``, the fields of `JobOptions` (such as ``output_format`` or ``workers``), and those of `Layout`,
        `RuleOptions` and `FormatOptions`, by which subtitles are written.

    Yields
    ------
    JobResult
        A recording that is done, or that failed; no failure ends the others.

    Raises
    ------
    OptionError, DataError
        For wrong options or inputs, at once.
    WhisperError
        The model cannot be loaded; or the run ended before the job did, as by a full disk: then the message says why.
    """
    given = dict(options)
    of_job, layout, rules, contents = (
        {f.name: given[f.name] for f in fields(declared) if f.name in given}
        for declared in (JobOptions, Layout, RuleOptions, FormatOptions)
    )
    of_model = {name: given.pop(name) for name in _OF_MODEL if name in given}
    layout["escape_cues"] = given.pop("escape_cues", None)
    for name in {**of_job, **layout, **rules, **contents}:
        given.pop(name, None)
    check_names(given, "jobs.run", TranscribeOptions, DecodingOptions)
    if RuleOptions(**rules).by_rules:
        given["word_timestamps"] = True
    FormatOptions(**contents)
    listed = [inputs] if isinstance(inputs, (str, os.PathLike)) else list(inputs)
    how = JobOptions(**of_job)
    job = Job(
        listed, out, model=model, model_options=of_model, options=given, how=how, layout={**rules, **layout},
        contents=contents,
    )  # fmt: skip

    def results() -> Generator[JobResult, None, None]:
        with job, job.running() as runner:
            for ended in runner.run():
                yield job.result(ended)
            if runner.stopped:
                raise DataError(f"the run ended before the job did: {runner.stopped}")

    return results()


def _devices(asked: str | None) -> list[str]:
    """Return the devices of the workers: all GPUs where none is chosen."""
    import torch

    if asked in (None, "auto", "cuda", "all") and torch.cuda.is_available():
        return [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return ["cpu"] if asked in (None, "auto", "all") else [str(asked)]


def _part_of(key: str, n: int) -> int:
    """Return the shard of a recording, from 1 to `n`; equal on all machines."""
    return zlib.crc32(os.fsencode(key)) % n + 1


def stores(out: str | os.PathLike[str]) -> list[JobStore]:
    """Open all parts of the job in a folder.

    Raises
    ------
    DataError
        There is no job.
    """
    return [JobStore(out, part) for part in job_files(out)]
