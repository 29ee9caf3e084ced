"""A worker as a fork: it does what a new process does, and has nothing of its parent's."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from whisper.jobs.job import Job
from whisper.jobs.options import JobOptions
from whisper.jobs.running import forked
from whisper.jobs.running.forked import Forked
from whisper.jobs.running.messages import Answer, Begun, Done, Give, Lost, Progress, Read, Ready, Task, WorkerSettings
from whisper.jobs.running.workers import ProcessWorker

from ..sounds import OPTIONS, talking_model, write_wav

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks")


def open_files(folder: Path) -> list[str]:
    names = []
    for file in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
            names.append(os.readlink(file))
    return names


def next_of(events: queue.Queue[Any]) -> Any:
    while isinstance(message := events.get(timeout=60)[1], (Begun, Progress)):
        pass
    return message


def test_it_transcribes_like_a_new_process_and_its_death_is_told(tmp_path: Path) -> None:
    options = {name: value for name, value in OPTIONS.items() if name != "compute_type"}
    settings = WorkerSettings(talking_model(tmp_path), {"compute_type": "float32", "device": "cpu"}, options, 1)
    source, results = str(write_wav(tmp_path / "a.wav", 1.5, 1)), []
    for process in (Forked(), None):
        events: queue.Queue[Any] = queue.Queue()
        worker = ProcessWorker("w", settings, events, process)
        worker.send(Give(Task(1, source)))
        assert isinstance(next_of(events), Ready)
        assert isinstance(next_of(events), Read)
        worker.send(Answer(1, True))
        done = next_of(events)
        assert isinstance(done, Done)
        results.append(done.result["transcript"])
        os.kill(worker.pid, signal.SIGKILL)
        assert next_of(events) == Lost("SIGKILL, perhaps for want of memory")
        worker.kill()  # of a process that is gone: nothing
    assert results[0] == results[1]
    assert results[0]["text"]


def test_it_has_no_files_of_its_parent_and_ends_with_it(tmp_path: Path) -> None:
    with open(tmp_path / "open", "w"):
        process = Forked()
        until, files = time.monotonic() + 30, Path(f"/proc/{process.pid}/fd")
        while str(tmp_path) in str(open_files(files)):
            assert time.monotonic() < until
    process.stdin.close()  # as when the runner is killed
    assert process.wait() == 0
    process.stdout.close()


def test_only_a_process_with_one_thread_is_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    assert forked.is_possible()
    monkeypatch.setattr(threading, "active_count", lambda: 2)
    assert not forked.is_possible()


def test_a_job_that_has_nothing_to_do_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    write_wav(tmp_path / "in" / "a.wav", 1, 1)
    how: dict[str, Any] = {"model_options": {"device": "cpu"}, "options": {}, "how": JobOptions(), "forks": True}
    with Job([tmp_path / "in"], tmp_path / "out", model=talking_model(tmp_path), **how) as job:
        assert job._forked is not None
        pid = job._forked.pid
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
