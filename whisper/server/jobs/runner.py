"""Runs the jobs of a store, some at once, fairly between their owners, and tells who follows them what happens."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import anyio
from anyio import from_thread

from ...engine.priorities import FairShares
from ...errors import CancelledError
from ...media.isolated.decoders import Decoders
from ..admission import LONGEST_RETRY_AFTER
from ..errors import RequestError, of_work
from ..fields import collect
from ..metrics import Metrics
from ..models import Models
from ..observing import LOG
from ..requests import TranscriptionRequest, read_request
from ..settings import ServeOptions
from ..work import Work
from .store import Job, JobStore

if TYPE_CHECKING:
    from ...results import Transcript

PROGRESS_EVERY = 1.0  # seconds between two events of progress
RETENTION_CHECK = 60.0  # seconds between two looks for jobs whose time is over
FIRST_GUESS = 60.0  # seconds of a job, before any was measured
SMOOTHING = 0.2


class Jobs:
    """The jobs of a server.

    Attributes
    ----------
    of_segment
        What the event of a segment tells of it.

    Parameters
    ----------
    store
        Where they are kept.
    models, options, metrics
        Those of the server.
    works
        Gets what is under way.
    decoders
        Decode the uploads.
    """

    of_segment: tuple[str, ...] = ("id", "start", "end", "text", "channel", "language")

    def __init__(
        self,
        store: JobStore,
        models: Models,
        options: ServeOptions,
        metrics: Metrics,
        works: set[Work],
        decoders: Decoders,
    ) -> None:
        self.store, self.options = store, options
        self.running: dict[str, Work] = {}  # by the id of the job
        self.is_ending = False
        self.n_uploading = 0
        self.mean_seconds = FIRST_GUESS  # that a job runs
        self._models, self._metrics, self._works, self._decoders = models, metrics, works, decoders
        self._shares = FairShares()
        self._choosing = anyio.Lock()
        self._added = anyio.Event()
        self._changed: dict[str, anyio.Event] = {}  # set at the next change of a job that somebody follows
        self._threads = anyio.CapacityLimiter(options.max_running_jobs)

    async def run(self) -> None:
        """Run jobs until this is cancelled."""
        async with anyio.create_task_group() as tasks:
            for _ in range(self.options.max_running_jobs):
                tasks.start_soon(self._run_each)
            while True:
                before = time.time() - self.options.job_retention_hours * 3600
                await anyio.to_thread.run_sync(self.store.delete_finished, before)
                await anyio.sleep(RETENTION_CHECK)

    def end(self) -> None:
        """End what runs; it is queued again, for the next process. Those who follow jobs are sent away."""
        self.is_ending = True
        for work in self.running.values():
            work.cancel.set()
        for job_id in list(self._changed):
            self._tell(job_id)

    def wake(self) -> None:
        """Say that a job was added."""
        self._added.set()
        self._added = anyio.Event()

    async def delete(self, job: Job) -> None:
        """Forget a job; one that runs ends within a step."""
        if work := self.running.get(job.id):
            work.cancel.set()
        await anyio.to_thread.run_sync(self.store.delete, job)
        self._tell(job.id)

    async def check_room(self, n_bytes: int) -> None:
        """Refuse an upload of so many bytes for which there is no room among those that wait: `RequestError`."""
        n_jobs, waiting = await anyio.to_thread.run_sync(self.store.totals)
        is_full = n_jobs + self.n_uploading >= self.options.max_jobs
        if is_full or waiting + n_bytes > self.options.max_jobs_mb * 1e6:
            what = f"{n_jobs} jobs wait or run" if is_full else "the uploads of jobs that wait are as large as allowed"
            wait = min(max(math.ceil(self.mean_seconds / self.options.max_running_jobs), 1), LONGEST_RETRY_AFTER)
            raise RequestError(429, f"{what}; try again later", code="queue_full", retry_after=wait)

    # -- one after the other -----------------------------------------------------------------------------

    async def _run_each(self) -> None:
        while not self.is_ending:
            job = await self._next()
            made: list[Work] = []  # also where the server ends while it is made
            try:
                await anyio.to_thread.run_sync(lambda job, made: made.append(self.make_work(job)), job, made)
                work = self.running[job.id] = made[0]
                self._works.add(work)
                await anyio.to_thread.run_sync(self._run, job, work, limiter=self._threads)
            except Exception as error:  # a full disk, mostly: the next job may be luckier
                LOG.error("a job cannot be kept", exc_info=error)
            finally:
                self.running.pop(job.id, None)
                for work in made:
                    work.cancel.set()
                    work.file.close()
                    self._works.discard(work)
                self._tell(job.id)

    async def _next(self) -> Job:
        """Wait for a job, and note that it runs."""
        while True:
            added = self._added
            async with self._choosing:
                waiting = self.in_turn(await anyio.to_thread.run_sync(self.store.waiting))
                for job in waiting:
                    if await anyio.to_thread.run_sync(self.store.start, job):
                        self._shares.give(job.owner, 1, [one.owner for one in waiting])
                        self._tell(job.id)
                        return job
            await added.wait()

    def in_turn(self, waiting: list[Job]) -> list[Job]:
        """Return waiting jobs in the order in which they will run: those of one owner in theirs, owners in turn."""
        given: dict[str, float] = {}
        places = []
        for job in waiting:
            place = given.get(job.owner, self._shares.given(job.owner))
            given[job.owner] = place + 1
            places.append((place, job.number))
        return [job for _, job in sorted(zip(places, waiting, strict=True), key=lambda pair: pair[0])]

    def request_of(self, job: Job) -> TranscriptionRequest:
        """Return what a job asks for; it was checked when it was made."""
        return read_request(collect(job.fields), translates=False)

    def make_work(self, job: Job) -> Work:
        """Return the work of a job."""
        return Work(
            self.request_of(job),
            self.store.open_upload(job),
            self._models,
            job.model,
            self.options.max_audio_s,
            self._decoders,
            key=job.owner,
            is_job=True,
        )

    def _run(self, job: Job, work: Work) -> None:
        """Run a job on this thread to its end, and keep what comes of it."""
        started = time.monotonic()
        with work.file:
            try:
                transcript = self._transcribe(job, work)
            except CancelledError:
                if self.is_ending:
                    self.store.put_back(job)
                self._metrics.jobs.labels("cancelled").inc()
                return
            except Exception as error:  # whatever it is, it is what comes of the job
                failure = of_work(error)
                if failure.status == 500:
                    LOG.error("a job failed", exc_info=error)
                self.store.fail(job, failure)
                self._metrics.jobs.labels("failed").inc()
                return
        self.keep(job, work, transcript)
        self._metrics.jobs.labels("succeeded").inc()
        self._metrics.audio_seconds.inc(work.duration)
        self._metrics.work_seconds.inc(time.monotonic() - started)
        self.mean_seconds += SMOOTHING * (time.monotonic() - started - self.mean_seconds)

    def keep(self, job: Job, work: Work, transcript: Transcript) -> None:
        """Keep the transcript of a job, which has succeeded."""
        is_multilingual, n_languages = work.vocabulary
        self.store.succeed(
            job,
            {
                "transcript": transcript,
                "duration": work.duration,
                "is_multilingual": is_multilingual,
                "n_languages": n_languages,
            },
        )

    def _transcribe(self, job: Job, work: Work) -> Any:
        reported_at = 0.0

        def on_progress(seconds: float, total: float) -> None:
            nonlocal reported_at
            if time.monotonic() - reported_at >= PROGRESS_EVERY or seconds >= total:
                reported_at = time.monotonic()
                self._add_event(job, {"type": "job.progress", "seconds": round(seconds, 2), "total": round(total, 2)})

        work.on_progress = on_progress
        segments = work.segments()
        while True:
            try:
                segment = next(segments)
            except StopIteration as end:
                return end.value
            shown = {name: value for name, value in segment.items() if name in self.of_segment}
            self._add_event(job, {"type": "job.segment", "segment": shown})

    def _add_event(self, job: Job, event: dict[str, Any]) -> None:
        self.store.add_event(job, event)
        from_thread.run_sync(self._tell, job.id)

    # -- those who follow --------------------------------------------------------------------------------

    def seconds_left(self, job: Job, position: int | None) -> float | None:
        """Return about how long a job will take, by what it and others took until now; None where that is unknown."""
        if position is not None:
            return round((position // self.options.max_running_jobs + 1) * self.mean_seconds, 1)
        done, total = work.done if (work := self.running.get(job.id)) else (0.0, 0.0)
        if not done or job.started is None:
            return None
        return round((time.time() - job.started) * (total - done) / done, 1)

    def _tell(self, job_id: str) -> None:
        if changed := self._changed.pop(job_id, None):
            changed.set()

    def next_change(self, job: Job) -> anyio.Event:
        """Return an event that is set at the next change of a job."""
        return self._changed.setdefault(job.id, anyio.Event())
