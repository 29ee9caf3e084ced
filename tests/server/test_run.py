"""The server in a process of its own: it drains at SIGTERM, speaks TLS, and ends where a model cannot be loaded."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2 as httpx
import pytest

from ..conftest import ROOT
from .serving import TRANSCRIPTIONS, sound, wait_for


@contextmanager
def served(*arguments: str, **environment: str) -> Iterator[tuple[Any, str, list[str]]]:
    """Run the command; gives the process, its address, and the lines of its log."""
    process = subprocess.Popen(
        [sys.executable, "-m", "whisper", "serve", "--model", "nano", "--port", "0", *arguments],
        stderr=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )  # fmt: skip
    log: list[str] = []

    thread = threading.Thread(target=lambda: [log.append(line) for line in process.stderr or ()])
    thread.start()
    try:
        wait_for(lambda: '"message": "ready"' in "".join(log) or process.poll() is not None, 60)
        found = re.search(r"running on (https?://[\d.:]+)", "".join(log))
        assert found, log
        yield process, found[1], log
    finally:
        process.kill()
        process.wait(30)
        thread.join(30)
        assert process.stderr is not None
        process.stderr.close()


FIELDS = {"model": "whisper-1", "language": "en", "temperature": "[0]"}


@pytest.mark.slow
def test_sigterm_lets_what_runs_finish() -> None:
    with served() as (process, address, log):
        answers: list[Any] = []

        def ask() -> None:
            files = {"file": sound(120)}
            answers.append(httpx.post(address + TRANSCRIPTIONS, data=FIELDS, files=files, timeout=100))

        thread = threading.Thread(target=ask)
        thread.start()
        wait_for(lambda: "sotto_requests_running 1.0" in httpx.get(address + "/metrics").text)
        process.send_signal(signal.SIGTERM)
        thread.join(100)
        assert answers[0].status_code == 200
        assert answers[0].json()["text"]
        assert process.wait(30) in (0, -signal.SIGTERM)
    assert all(json.loads(line) for line in log if line.startswith("{"))


@pytest.mark.slow
def test_sigterm_ends_what_does_not_finish_in_time() -> None:
    with served("--graceful_timeout_s", "0.2") as (process, address, _):
        answers: list[Any] = []

        def ask() -> None:
            files = {"file": sound(3000)}
            answers.append(httpx.post(address + TRANSCRIPTIONS, data=FIELDS, files=files, timeout=100))

        thread = threading.Thread(target=ask)
        thread.start()
        wait_for(lambda: "sotto_requests_running 1.0" in httpx.get(address + "/metrics").text)
        process.send_signal(signal.SIGTERM)
        thread.join(100)
        assert (answers[0].status_code, answers[0].json()["error"]["code"]) == (503, "shutting_down")
        assert process.wait(30) in (0, -signal.SIGTERM)
