"""The store of jobs: a folder with one SQLite file and the uploads that wait, which outlives the process.

Each change is one transaction on disk before anything is answered. A job that ran when the process died is queued
again. Knows no HTTP and runs nothing; any thread may call.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from ...device import processes
from ...errors import DataError, OptionError
from ...storage import database
from ..errors import RequestError, translating_full_disk

MAX_ATTEMPTS = 3  # a job that was running at so many ends of a process is not begun again
FINISHED = ("succeeded", "failed")
_PRIVATE_FOLDER, _PRIVATE_FILE = 0o700, 0o600
_ID = re.compile(r"job_[0-9a-f]{32}")
_VERSION = 1
_TABLES = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, repeat_key TEXT,
    status TEXT NOT NULL, created REAL NOT NULL, started REAL, finished REAL, attempts INTEGER NOT NULL DEFAULT 0,
    model TEXT NOT NULL, fields TEXT NOT NULL, n_bytes INTEGER NOT NULL, error TEXT, outcome TEXT
);
CREATE UNIQUE INDEX IF NOT EXISTS repeats ON jobs (owner, repeat_key) WHERE repeat_key IS NOT NULL;
CREATE INDEX IF NOT EXISTS of_status ON jobs (status, number);
CREATE TABLE IF NOT EXISTS events (
    job INTEGER NOT NULL REFERENCES jobs (number) ON DELETE CASCADE, number INTEGER NOT NULL, data TEXT NOT NULL,
    PRIMARY KEY (job, number)
) WITHOUT ROWID;
"""
_COLUMNS = "number, id, owner, status, created, started, finished, attempts, model, fields, n_bytes, error"


@dataclass(frozen=True)
class Job:
    """A job as it was when it was read."""

    number: int
    id: str
    owner: str
    status: str  # "queued", "running", "succeeded" or "failed"
    created: float
    started: float | None
    finished: float | None
    attempts: int
    model: str
    fields: list[tuple[str, str]]  # of the form, as they came
    n_bytes: int
    error: dict[str, Any] | None  # status and body of the answer

    @property
    def is_finished(self) -> bool:
        """Whether nothing of it will change."""
        return self.status in FINISHED


class JobStore:
    """Keeps jobs in a folder of this process alone.

    Parameters
    ----------
    folder
        Is made where it is missing; only its owner may read it.

    Raises
    ------
    OptionError
        The folder cannot be used, or another process uses it.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._lock = processes.lock()  # of the connection
        try:
            self.folder.mkdir(_PRIVATE_FOLDER, parents=True, exist_ok=True)
            self.folder.chmod(_PRIVATE_FOLDER)
            self._uploads.mkdir(_PRIVATE_FOLDER, exist_ok=True)
            self._file_lock = FileLock(self.folder / "lock", mode=_PRIVATE_FILE, thread_local=False)
            self._file_lock.acquire(timeout=0)
            self._db = database.connect(self.folder / "jobs.sqlite", _TABLES, _VERSION, mode=_PRIVATE_FILE)
        except Timeout:
            raise OptionError(f"another process uses data_dir {folder}: end it, or name another folder") from None
        except (OSError, sqlite3.Error, DataError) as error:
            raise OptionError(f"data_dir {folder} cannot be used: {error}") from error
        self._recover()

    def close(self) -> None:
        """Let others use the folder."""
        with self._lock:
            self._db.close()
        self._file_lock.release()

    def _recover(self) -> None:
        """Queue again what ran when the last process ended, and remove uploads that belong to no job."""
        with self._changing():
            rows = self._db.execute(f"SELECT {_COLUMNS} FROM jobs WHERE status = 'running'").fetchall()
            for job in map(_job, rows):
                if job.attempts < MAX_ATTEMPTS:
                    self._set(job, "queued", started=None)
                    self._add_event(job, {"type": "job.queued"})
                else:
                    self._fail(job, _interrupted(job.attempts))
            kept = {row[0] for row in self._db.execute("SELECT id FROM jobs WHERE status = 'queued'")}
        for path in self._uploads.iterdir():
            if path.name not in kept:
                path.unlink()

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """Make one transaction of what is done in the context; a full disk is an answer of its own."""
        with self._lock, translating_full_disk(), database.transaction(self._db):
            yield

    # -- uploads -----------------------------------------------------------------------------------------

    @property
    def _uploads(self) -> Path:
        return self.folder / "uploads"

    def new_upload(self) -> tuple[str, Callable[[], BinaryIO]]:
        """Return the id of a job to come, and what opens the file of its upload."""
        job_id = f"job_{uuid.uuid4().hex}"

        def open_file() -> BinaryIO:
            flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_BINARY", 0)
            with translating_full_disk():
                return open(os.open(self._uploads / job_id, flags, _PRIVATE_FILE), "r+b", buffering=0)

        return job_id, open_file

    def open_upload(self, job: Job) -> BinaryIO:
        """Open what was uploaded for a job."""
        return open(self._uploads / job.id, "rb")

    def drop_upload(self, job_id: str) -> None:
        """Remove an upload, where there is one."""
        with contextlib.suppress(OSError):  # one that cannot be removed now is removed by the next process
            (self._uploads / job_id).unlink()

    # -- jobs --------------------------------------------------------------------------------------------

    def add(
        self, job_id: str, owner: str, model: str, fields: list[tuple[str, str]], n_bytes: int, repeat_key: str | None
    ) -> Job:
        """Queue a job whose upload is on disk."""
        with self._changing():
            self._db.execute(
                "INSERT INTO jobs (id, owner, repeat_key, status, created, model, fields, n_bytes) "
                "VALUES (?, ?, ?, 'queued', ?, ?, ?, ?)",
                (job_id, owner, repeat_key, time.time(), model, json.dumps(fields), n_bytes),
            )
            job = self._only("id = ?", job_id)
            assert job is not None
            self._add_event(job, {"type": "job.queued"})
        return job

    def get(self, job_id: str, owner: str) -> Job | None:
        """Return a job of an owner; None where there is none."""
        if not _ID.fullmatch(job_id):  # SQLite takes no text with lone surrogates
            return None
        with self._lock:
            return self._only("id = ? AND owner = ?", job_id, owner)

    def repeated(self, owner: str, repeat_key: str) -> Job | None:
        """Return the job that was made with the same key before."""
        with self._lock:
            return self._only("owner = ? AND repeat_key = ?", owner, repeat_key)

    def page(self, owner: str, limit: int, after: Job | None = None) -> list[Job]:
        """Return jobs of an owner, the newest first, after one of them."""
        with self._lock:
            rows = self._db.execute(
                f"SELECT {_COLUMNS} FROM jobs WHERE owner = ? AND number < ? ORDER BY number DESC LIMIT ?",
                (owner, 1 << 62 if after is None else after.number, limit),
            )
            return [_job(row) for row in rows]

    def waiting(self) -> list[Job]:
        """Return all queued jobs, the oldest first."""
        with self._lock:
            rows = self._db.execute(f"SELECT {_COLUMNS} FROM jobs WHERE status = 'queued' ORDER BY number")
            return [_job(row) for row in rows]

    def totals(self) -> tuple[int, int]:
        """Return how many jobs are not finished, and the bytes of their uploads."""
        with self._lock:
            count, n_bytes = self._db.execute(
                "SELECT count(*), coalesce(sum(n_bytes), 0) FROM jobs WHERE status IN ('queued', 'running')"
            ).fetchone()
        return count, n_bytes

    def start(self, job: Job) -> bool:
        """Note that a job runs; False where it is not there any more."""
        with self._changing():
            here = self._set(job, "running", started=time.time(), attempts=job.attempts + 1)
            self._add_event(job, {"type": "job.running", "attempt": job.attempts + 1})
        return here

    def put_back(self, job: Job) -> None:
        """Queue a job again that was running; it counts as not tried."""
        with self._changing():
            self._set(job, "queued", started=None, attempts=job.attempts)
            self._add_event(job, {"type": "job.queued"})

    def succeed(self, job: Job, outcome: dict[str, Any]) -> None:
        """Keep what came of a job; its upload is not needed any more."""
        with self._changing():
            self._set(job, "succeeded", finished=time.time(), outcome=json.dumps(outcome))
            self._add_event(job, {"type": "job.succeeded"})
        self.drop_upload(job.id)

    def fail(self, job: Job, error: RequestError) -> None:
        """Keep why nothing came of a job."""
        with self._changing():
            self._fail(job, error)
        self.drop_upload(job.id)

    def outcome(self, job: Job) -> dict[str, Any]:
        """Return what `succeed` was given."""
        with self._lock:
            row = self._db.execute("SELECT outcome FROM jobs WHERE number = ?", (job.number,)).fetchone()
        found: dict[str, Any] = json.loads(row[0])
        return found

    def delete(self, job: Job) -> None:
        """Forget a job, and all that belongs to it."""
        with self._changing():
            self._db.execute("DELETE FROM jobs WHERE number = ?", (job.number,))
        self.drop_upload(job.id)

    def delete_finished(self, before: float) -> int:
        """Forget the jobs that were finished before a time; returns how many."""
        with self._changing():
            return self._db.execute("DELETE FROM jobs WHERE finished < ?", (before,)).rowcount

    def _only(self, where: str, *values: Any) -> Job | None:
        row = self._db.execute(f"SELECT {_COLUMNS} FROM jobs WHERE {where}", values).fetchone()
        return None if row is None else _job(row)

    def _set(self, job: Job, status: str, **columns: Any) -> bool:
        names = "".join(f", {name} = ?" for name in columns)
        cursor = self._db.execute(
            f"UPDATE jobs SET status = ?{names} WHERE number = ?", (status, *columns.values(), job.number)
        )
        return bool(cursor.rowcount)

    def _fail(self, job: Job, error: RequestError) -> None:
        failure = {"status": error.status, **error.body}
        self._set(job, "failed", finished=time.time(), error=json.dumps(failure))
        self._add_event(job, {"type": "job.failed", "error": failure["error"]})

    # -- events ------------------------------------------------------------------------------------------

    def add_event(self, job: Job, event: dict[str, Any]) -> None:
        """Add an event; none where the job is not there any more."""
        with self._changing():
            self._add_event(job, event)

    def _add_event(self, job: Job, event: dict[str, Any]) -> None:
        self._db.execute(
            "INSERT INTO events SELECT number, 1 + (SELECT coalesce(max(number), 0) FROM events WHERE job = ?), ? "
            "FROM jobs WHERE number = ?",
            (job.number, json.dumps(event), job.number),
        )

    def events(self, job: Job, after: int) -> list[tuple[int, str]]:
        """Return the numbers and the JSON of the events of a job after one of them."""
        with self._lock:
            return self._db.execute(
                "SELECT number, data FROM events WHERE job = ? AND number > ? ORDER BY number", (job.number, after)
            ).fetchall()


def _job(row: tuple[Any, ...]) -> Job:
    columns: dict[str, Any] = dict(zip(_COLUMNS.split(", "), row, strict=True))
    columns["fields"] = [(name, value) for name, value in json.loads(columns["fields"])]
    columns["error"] = None if columns["error"] is None else json.loads(columns["error"])
    return Job(**columns)


def _interrupted(attempts: int) -> RequestError:
    return RequestError(
        500, f"the server ended {attempts} times while it ran this job; it is not begun again", code="job_interrupted"
    )
