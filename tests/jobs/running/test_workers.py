"""Workers as processes: they say what they are, and their death is said, too."""

from __future__ import annotations

import os
import queue
import signal
from pathlib import Path
from typing import Any

import pytest

from whisper.jobs.running.messages import Answer, Broken, Done, Give, Lost, Read, Ready, Task, WorkerSettings
from whisper.jobs.running.workers import ProcessWorker

from ..sounds import OPTIONS, talking_model, write_wav


def settings(model: str) -> WorkerSettings:
    options = {name: value for name, value in OPTIONS.items() if name != "compute_type"}
    return WorkerSettings(model, {"compute_type": "float32", "device": "cpu"}, options, 1, threads=1)


def heard(events: Any, *kinds: type) -> Any:
    while not isinstance(message := events.get(timeout=60)[1], kinds):
        pass
    return message


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_a_process_transcribes_and_its_death_is_told(tmp_path: Path) -> None:
    events: queue.Queue[Any] = queue.Queue()
    worker = ProcessWorker("one", settings(talking_model(tmp_path)), events)
    assert isinstance(heard(events, Ready, Broken, Lost), Ready)
    worker.send(Give(Task(5, str(write_wav(tmp_path / "a.wav", 1, 0)))))
    assert isinstance(heard(events, Read, Lost), Read)
    worker.send(Answer(5, True))
    assert heard(events, Done, Lost).id == 5
    os.kill(worker.pid, signal.SIGSEGV)
    assert heard(events, Lost).reason == "SIGSEGV"
    worker.send(Give(Task(6, "none")))  # goes nowhere
    worker.kill()
