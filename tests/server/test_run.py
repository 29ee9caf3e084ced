"""The server in a process of its own: it drains at SIGTERM, speaks TLS, and ends where a model cannot be loaded."""

import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect

from whisper.jobs.shown import page_of

from ..conftest import ROOT
from .library.keeping import job
from .serving import TRANSCRIPTIONS, certificate, sound, spoken, wait_for


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


def transcribing(address: str, seconds: float) -> tuple[threading.Thread, list[Any]]:
    """Ask for a transcription on a thread, and wait until it runs; the list gets the answer."""
    answers: list[Any] = []

    def ask() -> None:
        files = {"file": sound(seconds)}
        answers.append(httpx.post(address + TRANSCRIPTIONS, data=FIELDS, files=files, timeout=100))

    thread = threading.Thread(target=ask)
    thread.start()
    wait_for(lambda: "sotto_requests_running 1.0" in httpx.get(address + "/metrics").text)
    return thread, answers


@pytest.mark.slow
def test_sigterm_lets_what_runs_finish() -> None:
    with served() as (process, address, log):
        thread, answers = transcribing(address, 120)
        process.send_signal(signal.SIGTERM)
        thread.join(100)
        assert answers[0].status_code == 200
        assert answers[0].json()["text"]
        assert process.wait(30) in (0, -signal.SIGTERM)
    assert all(json.loads(line) for line in log if line.startswith("{"))


@pytest.mark.slow
def test_a_job_is_told_where_it_is_shown(tmp_path: Path) -> None:
    scene = job(tmp_path, "a.wav")
    with served("--job_folders", str(scene.out)) as (process, address, _):
        assert page_of(scene.out) == address.replace("127.0.0.1", "localhost")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) in (0, -signal.SIGTERM)
    assert page_of(scene.out) is None
    assert not (scene.out / ".sotto" / "page.json").exists()


@pytest.mark.slow
def test_sigterm_ends_what_does_not_finish_in_time() -> None:
    with served("--graceful_timeout_s", "0.2") as (process, address, _):
        thread, answers = transcribing(address, 3000)
        process.send_signal(signal.SIGTERM)
        thread.join(100)
        assert (answers[0].status_code, answers[0].json()["error"]["code"]) == (503, "shutting_down")
        assert process.wait(30) in (0, -signal.SIGTERM)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_tls_and_keys_from_environment_and_file(tmp_path: Path) -> None:
    (made, key), keys = certificate(tmp_path), tmp_path / "keys"
    keys.write_text("# of a colleague\nof-the-file\n", encoding="utf-8")
    flags = ("--tls_certificate", str(made), "--tls_key", str(key), "--key_file", str(keys))
    with served(*flags, SOTTO_API_KEYS="of-the-environment, second") as (_, address, log):
        assert address.startswith("https://")
        trusted = httpx.Client(base_url=address, verify=ssl.create_default_context(cafile=str(made)))
        with trusted as to:
            for name, status in (("of-the-file", 200), ("of-the-environment", 200), ("second", 200), ("wrong", 401)):
                answer = to.get("/v1/models", headers={"authorization": f"Bearer {name}"})
                assert answer.status_code == status
            headers = {"authorization": "Bearer second", "origin": "https://evil.example"}
            assert to.get("/v1/models", headers=headers).status_code == 403
            headers = {"authorization": "Bearer second", "host": "evil.example"}
            assert to.get("/v1/models", headers=headers).status_code == 403
            sent = {"headers": {"authorization": "Bearer second"}, "data": FIELDS, "files": {"file": sound(2)}}
            assert to.post(TRANSCRIPTIONS, timeout=60, **sent).status_code == 200
        with pytest.raises(httpx.ConnectError):
            httpx.get(address + "/health")
    assert "of-the-" not in "".join(log)


@pytest.mark.slow
def test_a_job_outlives_a_killed_server(tmp_path: Path) -> None:
    with served("--data_dir", str(tmp_path)) as (process, address, _):
        job = httpx.post(address + "/v1/jobs", data=FIELDS, files={"file": sound(600)}, timeout=100).json()
        done = httpx.post(address + "/v1/jobs", data=FIELDS, files={"file": sound(2)}, timeout=100).json()
        wait_for(lambda: httpx.get(f"{address}/v1/jobs/{job['id']}").json()["status"] == "running")
        process.kill()
        process.wait(30)
    with served("--data_dir", str(tmp_path)) as (_, address, _):
        for made in (job, done):
            wait_for(
                lambda made=made: httpx.get(f"{address}/v1/jobs/{made['id']}").json()["status"] == "succeeded", 100
            )
            result = httpx.get(f"{address}/v1/jobs/{made['id']}/result", params={"format": "text"})
            assert result.status_code == 200
            assert result.text.strip()


@pytest.mark.slow
def test_sigterm_gives_live_sessions_their_last_text() -> None:
    update = {"type": "session.update", "session": {"type": "transcription", "audio": {"input": {
        "format": {"type": "audio/pcm", "rate": 16000}, "transcription": {"language": "en", "temperature": [0]},
        "turn_detection": None,
    }}}}  # fmt: skip
    with served() as (process, address, log):
        with connect(address.replace("http", "ws") + "/v1/realtime?model=nano&secret=1") as websocket:
            assert json.loads(websocket.recv())["type"] == "session.created"
            websocket.send(json.dumps(update))
            websocket.send(spoken().tobytes())
            assert json.loads(websocket.recv())["type"] == "session.updated"
            wait_for(
                lambda: (
                    f"sotto_live_audio_seconds_total {len(spoken()) / 16000}" in httpx.get(address + "/metrics").text
                )
            )
            process.send_signal(signal.SIGTERM)
            by_kind = {}
            while "error" not in by_kind:
                event = json.loads(websocket.recv(60))
                by_kind[event["type"]] = event
            with pytest.raises(ConnectionClosedError) as closed:
                websocket.recv(60)
        assert "computer" in by_kind["conversation.item.input_audio_transcription.completed"]["transcript"]
        assert by_kind["error"]["error"]["code"] == "shutting_down"
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
        assert process.wait(30) in (0, -signal.SIGTERM)
    assert all(json.loads(line) for line in log if line.startswith("{"))
    assert '"status": 101' in "".join(log)
    assert "secret" not in "".join(log)
