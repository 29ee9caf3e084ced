"""Downloads against a local server that breaks off, lies, serves the wrong file or stalls."""

from __future__ import annotations

import hashlib
import io
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from whisper.checkpoints import download
from whisper.checkpoints.download import _download
from whisper.errors import DownloadError, WhisperError

CONTENT = random.Random(0).randbytes(3_000_000)
SHA = hashlib.sha256(CONTENT).hexdigest()
HALF = len(CONTENT) // 2


class Server(ThreadingHTTPServer):
    """Serves `content`; the other attributes are its vices."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.resumes = True
        self.breaks = 0  # how many answers still end at half of what they owe
        self.announced: int | None = None  # a Content-Length that is not true
        self.status = 200
        self.stall: threading.Event | None = None  # half way, wait for this
        self.half_sent = threading.Event()
        self.ranges: list[str | None] = []
        self.sent = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/models/{SHA}/little.pt"

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that was killed


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_args: Any) -> None:
        pass

    def do_GET(self) -> None:
        server, asked = self.server, self.headers["Range"]
        server.ranges.append(asked)
        if server.status != 200:
            self.send_error(server.status)
            return
        start = int(asked[len("bytes=") : -1]) if asked and server.resumes else 0
        if start >= len(server.content):
            self.send_error(416)
            return
        body = server.content[start:]
        self.send_response(206 if start else 200)
        if start:
            end = len(server.content)
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{end}")
        length = len(body) if server.announced is None else server.announced
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if server.breaks:
            server.breaks -= 1
            body = body[: len(body) // 2]
        self._send(body[: len(body) // 2])
        self.wfile.flush()
        server.half_sent.set()
        if server.stall is not None:
            server.stall.wait(60)
        self._send(body[len(body) // 2 :])

    def _send(self, data: bytes) -> None:
        self.wfile.write(data)
        self.server.sent += len(data)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "RETRY_DELAYS", (0.0, 0.01, 0.01))
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    if server.stall is not None:
        server.stall.set()
    server.shutdown()
    server.server_close()
    thread.join()


def in_place(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_a_file_is_fetched_verified_once_and_kept(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "made" / "here"
    path = _download(server.url, str(root), False)
    assert path == str(root / "little.pt")
    assert Path(path).read_bytes() == CONTENT
    assert in_place(root) == ["little.pt", "little.pt.verified"]
    assert f"downloading little.pt ({len(CONTENT)} bytes) from 127.0.0.1" in capsys.readouterr().err

    monkeypatch.setattr(download, "_feed", lambda *_: pytest.fail("it was read again"))
    assert _download(server.url, str(root), False) == path
    assert _download(server.url, str(root), True) == CONTENT
    assert len(server.ranges) == 1


@pytest.mark.parametrize("resumes", [True, False])
def test_a_broken_connection_is_taken_up_again(server: Server, tmp_path: Path, resumes: bool) -> None:
    server.resumes, server.breaks = resumes, 2
    assert _download(server.url, str(tmp_path), True) == CONTENT
    assert server.ranges == [None, f"bytes={HALF}-", f"bytes={HALF + HALF // 2 if resumes else HALF}-"]
    assert server.sent == (len(CONTENT) if resumes else 2 * len(CONTENT))


def test_what_an_earlier_call_has_got_is_kept(server: Server, tmp_path: Path) -> None:
    server.resumes, server.breaks = False, 99  # comes to the same half each time
    with pytest.raises(DownloadError, match=rf"keeps breaking .* after {HALF} of {len(CONTENT)} bytes"):
        _download(server.url, str(tmp_path), False)
    assert in_place(tmp_path) == [f"little.pt.{SHA[:8]}.part"]
    server.resumes, server.breaks, server.sent = True, 0, 0
    assert _download(server.url, str(tmp_path), True) == CONTENT
    assert server.sent == len(CONTENT) - HALF


@pytest.mark.parametrize("spoilt", [b"?" * HALF, b"?" * len(CONTENT), CONTENT + b"?"])
def test_a_spoilt_beginning_is_thrown_away(server: Server, tmp_path: Path, spoilt: bytes) -> None:
    (tmp_path / f"little.pt.{SHA[:8]}.part").write_bytes(spoilt)
    assert _download(server.url, str(tmp_path), True) == CONTENT
    assert in_place(tmp_path) == ["little.pt", "little.pt.verified"]


def test_a_length_that_is_too_large_does_no_harm(server: Server, tmp_path: Path) -> None:
    server.announced = len(CONTENT) + 1000
    assert _download(server.url, str(tmp_path), True) == CONTENT


@pytest.mark.parametrize("vice", [{"announced": HALF}, {"content": CONTENT[::-1]}, {"content": b""}])
def test_a_wrong_file_is_not_kept(server: Server, tmp_path: Path, vice: dict[str, Any]) -> None:
    vars(server).update(vice)
    with pytest.raises(DownloadError):
        _download(server.url, str(tmp_path), False)
    assert in_place(tmp_path) == []


def test_errors_say_where_and_what_to_do(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    way_out = rf"{tmp_path / 'little.pt'} by hand.*pip install \'sotto\[base\]\'"
    server.status = 404
    with pytest.raises(DownloadError, match=f"HTTP 404 Not Found.*{way_out}"):
        _download(server.url, str(tmp_path), False)
    assert len(server.ranges) == 1  # asking again would not help
    server.status = 503
    with pytest.raises(DownloadError, match=f"HTTP 503.*{way_out}"):
        _download(server.url, str(tmp_path), False)
    assert len(server.ranges) == 1 + 1 + len(download.RETRY_DELAYS)

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = server.url.replace(str(server.server_port), str(free.getsockname()[1]))
        with pytest.raises(DownloadError, match=f"refused.*{way_out}"):
            _download(closed, str(tmp_path), False)

    def unknown(*_args: Any, **_kwargs: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(DownloadError, match=f"nowhere.invalid cannot be found.*connected.*{way_out}"):
        _download(server.url.replace("127.0.0.1", "nowhere.invalid"), str(tmp_path), False)


def test_a_full_disk_and_a_folder_in_the_way(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "little.pt").mkdir()
    with pytest.raises(DownloadError, match="not a regular file"):
        _download(server.url, str(tmp_path), False)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(DownloadError, match=r"10 are free.*download_root"):
        _download(server.url, str(tmp_path / "other"), False)


def test_a_file_put_there_by_hand(server: Server, tmp_path: Path) -> None:
    (tmp_path / "little.pt").write_bytes(CONTENT)
    _download(server.url, str(tmp_path), False)
    assert server.ranges == []
    assert in_place(tmp_path) == ["little.pt", "little.pt.verified"]

    (tmp_path / "little.pt").write_bytes(b"something else")  # the marker is of another file now
    with pytest.warns(UserWarning, match="little.pt exists, but its SHA-256 checksum does not match"):
        assert _download(server.url, str(tmp_path), True) == CONTENT
    assert len(server.ranges) == 1


def test_a_bar_where_somebody_watches(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    _download(server.url, str(tmp_path), False)
    assert "little.pt: 100%" in screen.getvalue()


PROGRAM = "import sys; from whisper.checkpoints.download import _download; _download(sys.argv[1], sys.argv[2], False)"


def start(url: str, root: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, url, str(root)],
        stderr=subprocess.PIPE, text=True, env={**os.environ, "no_proxy": "*"},
    )  # fmt: skip


def test_two_processes_fetch_the_file_once(server: Server, tmp_path: Path) -> None:
    server.stall = threading.Event()
    first, second = start(server.url, tmp_path), start(server.url, tmp_path)
    assert server.half_sent.wait(60)
    time.sleep(1.0)  # for the other one to come and find the lock; too short would only weaken the test
    server.stall.set()
    said = [process.communicate(timeout=60)[1] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], said
    assert (tmp_path / "little.pt").read_bytes() == CONTENT
    assert in_place(tmp_path) == ["little.pt", "little.pt.verified"]
    assert server.sent == len(CONTENT)
    assert len(server.ranges) == 1


def test_a_killed_process_leaves_its_half_and_no_lock(server: Server, tmp_path: Path) -> None:
    server.stall = threading.Event()
    process = start(server.url, tmp_path)
    assert server.half_sent.wait(60)
    part = tmp_path / f"little.pt.{SHA[:8]}.part"
    deadline = time.monotonic() + 30
    while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.communicate(timeout=60)
    server.stall.set()
    begun = part.stat().st_size
    assert 0 < begun < len(CONTENT)
    assert _download(server.url, str(tmp_path), True) == CONTENT
    assert server.ranges == [None, f"bytes={begun}-"]


def test_its_errors_are_what_the_original_raised() -> None:
    assert issubclass(DownloadError, RuntimeError)
    assert issubclass(DownloadError, WhisperError)
