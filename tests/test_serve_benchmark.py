"""What benchmarks/serve.py measures: loads on a server of known speed, clips, and how others are started."""

from __future__ import annotations

import io
import json
import socket
import threading
import time
import wave
from argparse import Namespace
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from .test_rivals import imported

pytest.importorskip("httpx2")


@pytest.fixture(scope="module")
def serve() -> Iterator[ModuleType]:
    yield from imported("serve")


@pytest.fixture(scope="module")
def rivals() -> Iterator[ModuleType]:
    yield from imported("serve_rivals")


class Slow(BaseHTTPRequestHandler):
    """One request after the other, 0.1 s each; a clip that begins with ``BAD!`` fails, and ``NEVER!`` takes long."""

    turn = threading.Lock()
    bodies: list[bytes] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self._answer(200, {"status": "ok"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.bodies.append(body)
        if b"NEVER!" in body:
            time.sleep(2)
        with self.turn:
            time.sleep(0.1)
        self._answer(500 if b"BAD!" in body else 200, {"text": "four words, you know"})

    def _answer(self, status: int, content: Any) -> None:
        try:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())
        except OSError:  # the client has given up
            pass

    def log_message(self, *given: Any) -> None:
        """Say nothing."""


@pytest.fixture
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    server.daemon_threads, server.block_on_close = True, False
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_load(serve: ModuleType, rivals: ModuleType, address: str) -> None:
    one = rivals.Contestant("slow", fields={"language": "en"})
    load = serve.Load(one, address, [b"clip"], 0.3, 60)
    seconds = load.run(3)
    seen = load.answers
    assert (seen.failed, seen.waiting) == (0, 0)
    assert len(seen.latencies) >= 3  # every client waits for its last answer
    assert seen.words == 4 * len(seen.latencies)
    assert seconds >= 0.09 * len(seen.latencies)  # they were answered one after the other
    assert b'name="language"\r\n\r\nen' in Slow.bodies[-1]


def test_what_fails_and_what_is_given_up(serve: ModuleType, rivals: ModuleType, address: str) -> None:
    one = rivals.Contestant("slow")
    failing = serve.Load(one, address, [b"BAD!"], 0.01, 60)
    failing.run(1)
    assert (failing.answers.failed, failing.answers.latencies) == (1, [])
    waiting = serve.Load(one, address, [b"NEVER!"], 0.01, 0.3)
    waiting.run(1)
    assert (waiting.answers.failed, waiting.answers.waiting) == (0, 1)
    assert waiting.answers.latencies[0] >= 0.29
    nobody = serve.Load(one, "http://127.0.0.1:9", [b"clip"], 0.01, 0.3)
    nobody.run(1)
    assert nobody.answers.failed >= 1


def test_a_row(serve: ModuleType, rivals: ModuleType, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Here:
        """The other process, in this one."""

        def __init__(self, *given: Any) -> None:
            self.done: Any = None

        __enter__ = lambda self: self  # noqa: E731
        __exit__ = lambda *given: None  # noqa: E731

        def submit(self, function: Any, *given: Any) -> Here:
            self.done = function(*given)
            return self

        def result(self) -> Any:
            return self.done

    monkeypatch.setattr(serve, "ProcessPoolExecutor", Here)
    given = Namespace(seconds=0.2, most=60)
    row = serve.one_load(rivals.Contestant("slow"), address, [b"clip"], 2, given)
    assert row["answered"] >= 2
    assert row["words_per_answer"] == 4
    assert row["p50_ms"] >= 90
    line = serve.line_of("slow", row)
    assert line.count("|") == serve.HEAD.splitlines()[0].count("|")
    assert ">" not in line
    assert "> 0." in serve.line_of("slow", {**row, "waiting": 1})
    assert "1, beside 3 h" in serve.line_of("slow", {**row, "clients": 1, "beside_hours": 3.0})


def test_quantiles(serve: ModuleType) -> None:
    assert serve.quantile([1.0, 2.0, 3.0], 50) == 2.0
    assert serve.quantile(list(range(101)), 95) == 95
    assert serve.quantile([7.0], 99) == 7.0
    assert np.isnan(serve.quantile([], 50))


def test_clips(serve: ModuleType, tmp_path: Path) -> None:
    samples = np.arange(16000 * 5, dtype=np.int16)
    for name in ("a", "b"):
        (tmp_path / f"{name}.wav").write_bytes(serve.as_wav(samples))
    of_one, of_folder = serve.clips_of([str(tmp_path / "a.wav")], 2), serve.clips_of([str(tmp_path)], 2)
    assert (len(of_one), len(of_folder)) == (2, 2)
    assert of_one[0] == of_folder[0] == of_folder[1] != of_one[1]
    with wave.open(io.BytesIO(of_one[0])) as clip:
        assert (clip.getnframes(), clip.getframerate(), clip.getnchannels()) == (32000, 16000, 1)
    assert len(serve.clips_of([str(tmp_path / "a.wav")], 7)) == 1
    with serve.long_recording([str(tmp_path)], 0.01) as path, wave.open(str(path)) as long:
        assert long.getnframes() == 36 * 16000
    with serve.long_recording([], 0) as path:
        assert path is None


def test_how_servers_are_started(rivals: ModuleType, tmp_path: Path) -> None:
    ours, cpp, _, speaches = rivals.CONTESTANTS
    command, _ = rivals.command_of(ours, "base", 1234, 2, tmp_path)
    assert command[1:6] == ["-m", "whisper", "serve", "--model", "base"]
    command, _ = rivals.command_of(cpp, "base", 1234, 2, tmp_path)
    assert command[0].endswith("whisper.cpp-server/bin/whisper-server")
    (tmp_path / "ct2").mkdir()
    (tmp_path / "ct2" / "model.bin").write_bytes(b"")
    _, settings = rivals.command_of(speaches, "base", 1234, 2, tmp_path)
    snapshot = Path(settings["HF_HUB_CACHE"]) / "models--local--base" / "snapshots" / ("0" * 40)
    assert sorted(path.name for path in snapshot.iterdir()) == ["README.md", "model.bin"]
    assert rivals.words_of("It's four, you know.") == 5


def test_a_picture(serve: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rows = [{"clients": n, "beside_hours": 0, "requests_per_s": 2.0 * n, "p95_ms": 100.0 * n} for n in (1, 4)]
    beside = {**rows[0], "beside_hours": 3}
    results = {"model": "base", "clip_s": 5.0, "threads": 2, "servers": {"sotto": [*rows, beside]}}
    serve.plot(results, tmp_path / "serve.png")
    assert (tmp_path / "serve.png").stat().st_size > 10_000


def test_parts_of_one_measurement_are_kept_together(serve: ModuleType, tmp_path: Path) -> None:
    given = Namespace(model="base", clip=5, threads=2, output=str(tmp_path / "out.json"))
    first = serve.earlier(given)
    assert first["servers"] == {}
    first["servers"]["sotto"] = [{"clients": 1}]
    Path(given.output).write_text(json.dumps(first))
    assert serve.earlier(given) == first
    given.threads = 4
    with pytest.raises(SystemExit, match="another file"):
        serve.earlier(given)


def test_a_server_whose_health_hangs_ends_no_measurement(
    serve: ModuleType, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "HEALTH_MOST", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        found = serve.ask_health(f"http://127.0.0.1:{silent.getsockname()[1]}", 0.3)
    assert found
    assert min(found) > 0.15  # what it waited counts
