"""The results of ``whisper jobs`` in the library: taken in as they are done, and found again by their recordings.

The job's folder stays what it is; corrections live in the library. What was deleted there does not come back, and what
was corrected stays, until the job has another result for it: then only what nobody has corrected is replaced.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import anyio

from ...errors import DataError, OptionError
from ...jobs import shown
from ...jobs.outputs import read_result
from ...jobs.remote import is_address
from ...jobs.store import JobStore, job_files
from ...jobs.store import Recording as JobRecording
from ...results import in_its_language
from ..observing import LOG
from . import documents
from .store import ImportedRecording

if TYPE_CHECKING:
    from ...results import Transcript
    from .library import Library

POLL = 2.0  # seconds between two looks at the jobs
OWNER = ""  # of what is there without keys
_AT_ONCE = 200  # recordings of one transaction


class JobFolders:
    """The folders of some jobs.

    Parameters
    ----------
    folders
        Each holds a job.

    Raises
    ------
    OptionError
        One of them holds none.
    """

    def __init__(self, folders: Sequence[str]) -> None:
        self.folders = [os.path.abspath(folder) for folder in folders]
        self._marks: dict[Path, str] = {}
        self._url: str | None = None
        self._has_ended = False
        try:
            for folder in self.folders:
                job_files(folder)
        except DataError as error:
            raise OptionError(f"job_folders: {error}") from None

    def announce(self, url: str) -> None:
        """Let `whisper search` know where its hits can be opened."""
        self._url = url
        for folder in self.folders:
            shown.announce(folder, url)

    def withdraw(self) -> None:
        """Take that back."""
        for folder in self.folders if self._url is not None else ():
            shown.withdraw(folder, cast("str", self._url))

    def end(self) -> None:
        """Take in no more than what is under way: the server ends."""
        self._has_ended = True

    async def follow(self, library: Library) -> None:
        """Take in what is done, and what will be."""
        problem = ""
        while True:
            try:
                n = await anyio.to_thread.run_sync(self.take_in, library)
            except Exception as error:  # a lost network drive comes back; the server goes on without it
                if problem != (problem := f"{type(error).__name__}: {error}"):
                    LOG.error("jobs cannot be read", extra={"notes": {"error": problem}})
            else:
                problem = ""
                if n:
                    LOG.info("taken from jobs", extra={"notes": {"recordings": n}})
            await anyio.sleep(POLL)

    def take_in(self, library: Library) -> int:
        """Take in what was done since the last time; returns how many recordings."""
        n = 0
        for folder in self.folders:
            for part in job_files(folder):
                store = JobStore(folder, part)
                try:
                    n += self._take_in(store, library)
                finally:
                    store.close()
        return n

    def _take_in(self, store: JobStore, library: Library) -> int:
        if self._marks.get(store.path) == (mark := store.mark()):
            return 0
        n, known = 0, library.store.revisions()
        found: list[ImportedRecording] = []
        for recording in self._new(store, known, library.models.default):
            found.append(recording)
            if len(found) == _AT_ONCE:
                n += self._keep(library, found)
                found = []
            if self._has_ended:
                return n
        n += self._keep(library, found)
        self._marks[store.path] = mark
        return n

    @staticmethod
    def _keep(library: Library, found: Sequence[ImportedRecording]) -> int:
        for one in found:  # the sound first: what has no recording is removed at the next start
            library.sounds.refer(one.id, None if is_address(one.source) else one.source)
        library.store.take_in(OWNER, found)
        return len(found)

    @staticmethod
    def _new(store: JobStore, known: dict[str, str], model: str) -> Iterator[ImportedRecording]:
        """Give the recordings that are done and not known with this result."""
        recipe = json.loads(store.fact("recipe") or "{}")
        is_translation = recipe.get("options", {}).get("task") == "translate"
        last = 0
        while batch := store.finished(last):
            for one, file in batch:
                name, revision = shown.recording_id(store.out, one.source), f"{one.content} {one.recipe}"
                if known.get(name) != revision and (result := read_result(store.out, file)) is not None:
                    yield _imported(store, one, _document(result, is_translation), name, revision, model)
            last = batch[-1][0].id


def _document(result: dict[str, Any], is_translation: bool) -> dict[str, Any]:
    transcript = cast("Transcript", in_its_language(result["transcript"], is_translation))
    document = documents.of_transcript(transcript, None)
    findings = result.get("report", {}).get("findings", ())
    document["findings"] = [{**finding, "state": "open"} for finding in findings]
    return document


def _imported(
    store: JobStore, one: JobRecording, document: dict[str, Any], name: str, revision: str, model: str
) -> ImportedRecording:
    folders = [store.out.name, *os.path.dirname(one.name).split(os.sep)]
    base = os.path.basename(one.source.rstrip("/")) or one.source
    columns = {"name": _printable(base), "model": model, "fields": [], "job": "", "n_bytes": one.size or 0,
               "duration": one.seconds, "created": one.finished or 0.0}  # fmt: skip
    tags = documents.tags([tag for tag in dict.fromkeys(map(_printable, folders)) if tag])
    return ImportedRecording(name, revision, columns, tags, document, one.source)


def _printable(name: str) -> str:
    """Return the name of a file as text: one in another encoding has bytes that SQLite takes no more than a browser."""
    return os.fsencode(name).decode("utf-8", "replace")[: documents.MAX_NAME]
