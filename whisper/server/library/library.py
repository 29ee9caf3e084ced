"""The library of a server: its folder, and the jobs that turn uploads into documents.

Uploads are kept before they are answered, and transcribed by jobs of the library's own: a restart loses nothing.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import anyio
import numpy as np

from ...errors import AudioError, OptionError
from ...media.isolated.decoders import Decoders
from ...media.spool import Spool
from ...results import in_its_language
from ...spans import SAMPLE_RATE
from ..errors import RequestError
from ..jobs.runner import Jobs
from ..jobs.store import Job, JobStore
from ..metrics import Metrics
from ..models import Models
from ..settings import ServeOptions
from ..work import Work
from . import documents
from .job_folders import JobFolders
from .sounds import Samples, Sounds
from .store import LibraryStore, Recording
from .tickets import Tickets

if TYPE_CHECKING:
    from ...results import Transcript

# What the page needs of each transcript, unless its form says something else.
DEFAULTS = {"word_timestamps": "true", "word_confidence": "true"}


@dataclass(eq=False)
class _Work(Work):
    """The work on a recording of the library: what is decoded is kept."""

    library: Library | None = None
    recording: Recording | None = None

    def _decoded(self) -> Samples:
        samples = super()._decoded()
        if self.library is not None and self.recording is not None:
            self.library.sounds.keep(self.recording.id, samples)
            self.library.store.change(self.recording, duration=round(self.duration, 3))
        return samples


class _Jobs(Jobs):
    """Runs the jobs of the library."""

    of_segment = (*Jobs.of_segment, "words")

    def __init__(self, library: Library, *others: Any) -> None:
        super().__init__(*others)
        self._library = library

    def make_work(self, job: Job) -> Work:
        """Return the work of a job."""
        work = super().make_work(job)
        given = {name: getattr(work, name) for name in
                 ("request", "file", "models", "model_name", "max_audio_s", "decoders", "key")}  # fmt: skip
        return _Work(**given, library=self._library, recording=self._library.store.of_job(job.id))

    def keep(self, job: Job, work: Work, transcript: Transcript) -> None:
        """Keep a transcript as a document; the job itself needs none of it."""
        if recording := self._library.store.of_job(job.id):
            text = cast("Transcript", in_its_language(transcript, work.request.is_translation))
            self._library.store.finish(recording, documents.of_transcript(text, work.report))
        self.store.succeed(job, {})


class Library:
    """The library of a server.

    Parameters
    ----------
    options
        The settings; ``library`` is the folder, by default one that is removed at the end.
    models, metrics, works, decoders
        Those of the server.

    Raises
    ------
    OptionError
        The folder cannot be used.
    """

    def __init__(
        self, options: ServeOptions, models: Models, metrics: Metrics, works: set[Work], decoders: Decoders
    ) -> None:
        self.options, self.models, self.decoders = options, models, decoders
        self.is_lasting = options.library is not None
        self.job_folders = JobFolders(options.job_folders or ())
        self.tickets = Tickets()
        self._parts = (models, options, metrics, works, decoders)
        self._opened: tuple[LibraryStore, Sounds, _Jobs] | None = None
        if self.is_lasting:
            self.open()

    def open(self) -> None:
        """Use the folder from now on."""
        if self._opened is not None:
            return
        self.folder = Path(self.options.library or tempfile.mkdtemp(prefix="sotto-library-"))
        if self.folder.exists() and not self.folder.is_dir():
            raise OptionError(f"the library {self.folder} cannot be used: it is a file, not a folder")
        jobs = JobStore(self.folder / "jobs")  # makes the folder, and holds it against other processes
        self.folder.chmod(0o700)
        store, sounds = LibraryStore(self.folder), Sounds(self.folder / "sounds", self._decode)
        sounds.delete_others(store.ids())
        self._opened = store, sounds, _Jobs(self, jobs, *self._parts)

    def close(self) -> None:
        """Let others use the folder; one that was made for this process is removed."""
        self.job_folders.withdraw()
        if self._opened is not None:
            self.jobs.store.close()
            self.store.close()
            self._opened = None
            if not self.is_lasting:
                shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def store(self) -> LibraryStore:
        """Return the database."""
        return self._parts_in_use()[0]

    @property
    def sounds(self) -> Sounds:
        """Return the files of sound."""
        return self._parts_in_use()[1]

    @property
    def jobs(self) -> _Jobs:
        """Return the jobs that run."""
        return self._parts_in_use()[2]

    def _parts_in_use(self) -> tuple[LibraryStore, Sounds, _Jobs]:
        if self._opened is None:
            self.open()
        assert self._opened is not None
        return self._opened

    def _decode(self, path: Path) -> Samples:
        """Return the samples of a recording that lies elsewhere."""
        spool = Spool()
        try:
            with open(path, "rb", buffering=0) as file:
                for piece in self.decoders.stream(file, SAMPLE_RATE):
                    spool.append(piece)
        except (OSError, AudioError) as error:
            raise RequestError(409, f"the sound cannot be read any more: {error}", code="sound_lost") from error
        return spool.array(np.int16)

    # -- what happens to a recording ---------------------------------------------------------------------

    def add(self, recording_id: str, owner: str, **columns: Any) -> Recording:
        """Keep a recording whose sound is there, and queue its transcription."""
        job_id = self._new_job(recording_id)
        recording = self.store.add(owner, recording_id, job=job_id, **columns)  # before its job may begin
        self._queue(recording)
        return recording

    def _new_job(self, recording_id: str) -> str:
        """Return the id of a job to come, whose upload is the sound of a recording."""
        job_id, _ = self.jobs.store.new_upload()
        self.sounds.link(self.sounds.original(recording_id), self.jobs.store.folder / "uploads" / job_id)
        return job_id

    def _queue(self, recording: Recording) -> None:
        self.jobs.store.add(recording.job, recording.owner, recording.model, recording.fields, recording.n_bytes, None)

    def retry(self, recording: Recording) -> None:
        """Transcribe a recording again that has no document."""
        if recording.version or recording.status == "working":
            raise RequestError(409, "the recording is transcribed, or is being transcribed", code="not_failed")
        job_id = self._new_job(recording.id)
        self.store.change(recording, status="working", job=job_id, error=None)
        self._queue(replace(recording, job=job_id))

    async def cancel(self, recording: Recording) -> None:
        """End the transcription of a recording; its sound stays."""
        if recording.status != "working":
            raise RequestError(409, "the recording is not being transcribed", code="not_running")
        await anyio.to_thread.run_sync(lambda: self.store.change(recording, status="cancelled"))
        await self._end_job(recording)

    async def delete(self, recording: Recording) -> None:
        """Forget a recording, and all that belongs to it."""
        await self._end_job(recording)
        await anyio.to_thread.run_sync(self.store.delete, recording)
        await anyio.to_thread.run_sync(self.sounds.delete, recording.id)

    async def _end_job(self, recording: Recording) -> None:
        job = await anyio.to_thread.run_sync(self.jobs.store.get, recording.job, recording.owner)
        if job is not None:
            await self.jobs.delete(job)

    def settle(self, recording: Recording) -> Recording:
        """Return a recording with the end of its job, which may have failed while nobody looked."""
        if recording.status != "working":
            return recording
        job = self.jobs.store.get(recording.job, recording.owner)
        if job is not None and job.error is None:
            return recording
        now = self.store.get(recording.id, recording.owner)  # it may have been finished meanwhile
        if now is None or now.status != "working":
            return now or recording
        error = job.error["error"] if job is not None and job.error else {
            "message": "the transcription was lost; try again", "code": "job_lost"}  # fmt: skip
        self.store.change(recording, status="failed", error=error)
        return self.store.get(recording.id, recording.owner) or recording
