"""The store of jobs: what it keeps over the death of a process, and what it tells of a full disk."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
from pathlib import Path

import pytest

from whisper.errors import OptionError
from whisper.server.errors import RequestError, translating_full_disk
from whisper.server.jobs.store import MAX_ATTEMPTS, Job, JobStore


@pytest.fixture
def store(tmp_path: Path) -> JobStore:
    return JobStore(tmp_path / "data")


def add(store: JobStore, owner: str = "", repeat_key: str | None = None) -> Job:
    job_id, open_file = store.new_upload()
    with open_file() as file:
        file.write(b"sound")
    return store.add(job_id, owner, "nano", [("model", "nano")], 5, repeat_key)


def kinds(store: JobStore, job: Job) -> list[str]:
    return [data.split('"')[3] for _, data in store.events(job, 0)]


def reopened(store: JobStore) -> JobStore:
    """What the next process finds after this one was killed."""
    store._file_lock.release()
    return JobStore(store.folder)


def test_what_ran_when_the_process_died_is_queued_again(store: JobStore) -> None:
    running, done, waiting = add(store), add(store), add(store)
    store.start(running)
    store.start(done)
    store.succeed(done, {"text": "words"})
    store = reopened(store)
    assert [job.id for job in store.waiting()] == [running.id, waiting.id]
    with store.open_upload(running) as file:
        assert file.read() == b"sound"
    found = store.get(done.id, "")
    assert found is not None
    assert found.status == "succeeded"
    assert store.outcome(found) == {"text": "words"}
    assert kinds(store, running) == ["job.queued", "job.running", "job.queued"]
    assert sorted(os.listdir(store.folder / "uploads")) == sorted([running.id, waiting.id])


def test_a_job_that_ends_the_process_again_and_again_is_given_up(store: JobStore) -> None:
    job = add(store)
    for _ in range(MAX_ATTEMPTS):
        (waiting,) = store.waiting()
        assert store.start(waiting)
        store = reopened(store)
    found = store.get(job.id, "")
    assert found is not None
    assert found.status == "failed"
    assert found.error is not None
    assert found.error["error"]["code"] == "job_interrupted"
    assert not os.listdir(store.folder / "uploads")


def test_a_job_that_is_put_back_has_lost_no_attempt(store: JobStore) -> None:
    job = add(store)
    for _ in range(2 * MAX_ATTEMPTS):
        (waiting,) = store.waiting()
        store.start(waiting)
        store.put_back(waiting)
    assert store.waiting()[0].attempts == 0 == job.attempts


def test_owners_see_their_own(store: JobStore) -> None:
    mine, theirs = add(store, "a"), add(store, "b")
    assert store.get(mine.id, "b") is None
    assert [job.id for job in store.page("b", 10)] == [theirs.id]
    assert store.get("job_\udcff", "a") is None


def test_pages(store: JobStore) -> None:
    jobs = [add(store) for _ in range(5)]
    first = store.page("", 2)
    assert [job.id for job in first] == [jobs[4].id, jobs[3].id]
    assert [job.id for job in store.page("", 9, first[-1])] == [job.id for job in jobs[2::-1]]


def test_the_same_key_finds_the_same_job(store: JobStore) -> None:
    job = add(store, "a", "k")
    found = store.repeated("a", "k")
    assert found is not None
    assert found.id == job.id
    assert store.repeated("b", "k") is None
    with pytest.raises(sqlite3.IntegrityError):
        add(store, "a", "k")


def test_what_is_deleted_is_gone_with_all_of_it(store: JobStore) -> None:
    job = add(store)
    store.start(job)
    store.delete(job)
    store.add_event(job, {"type": "job.progress"})  # of a thread that has not seen it yet
    store.succeed(job, {})
    assert store.get(job.id, "") is None
    assert not store.events(job, 0)
    assert not os.listdir(store.folder / "uploads")
    assert store.start(job) is False


def test_finished_jobs_are_forgotten_after_a_time(store: JobStore) -> None:
    old, waiting = add(store), add(store)
    store.succeed(old, {})
    finished = store.get(old.id, "")
    assert finished is not None
    assert finished.finished is not None
    assert store.delete_finished(finished.finished) == 0
    assert store.delete_finished(finished.finished + 1) == 1
    assert [job.id for job in store.page("", 9)] == [waiting.id]
    assert store.totals() == (1, 5)


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_nobody_else_may_read_it(store: JobStore) -> None:
    add(store)
    for path in [store.folder, *store.folder.rglob("*")]:
        if path.name not in ("jobs.sqlite-wal", "jobs.sqlite-shm"):
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700


def test_two_processes_do_not_share_a_folder(store: JobStore) -> None:
    with pytest.raises(OptionError, match="another process"):
        JobStore(store.folder)
    store.close()
    JobStore(store.folder).close()


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OptionError, match="cannot be used"):
        JobStore(tmp_path / "file" / "data")


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "no space"), sqlite3.OperationalError("database or disk is full")]
)
def test_a_full_disk_is_an_answer(error: Exception) -> None:
    with pytest.raises(RequestError) as told, translating_full_disk():
        raise error
    assert (told.value.status, told.value.code) == (507, "insufficient_storage")


def test_after_a_full_disk_the_store_goes_on(store: JobStore) -> None:
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    job = add(store)
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(RequestError, match="full"):
        store.succeed(job, {"text": "x" * 100_000})
    store._db.execute("PRAGMA max_page_count = 100000")
    found = store.get(job.id, "")
    assert found is not None
    assert found.status == "queued"
    store.succeed(job, {"text": "x" * 100_000})
