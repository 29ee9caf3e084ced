"""What the tests of the server share: a server in this process, recordings, and a real one on loopback."""

from __future__ import annotations

import contextlib
import io
import subprocess
import threading
import time
import wave
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from starlette.testclient import TestClient

from whisper.audio import load_audio
from whisper.checkpoints import load_model
from whisper.media.isolated.decoders import Decoders
from whisper.model import Whisper
from whisper.server.app import Server, build_app
from whisper.server.realtime.sessions import live_session
from whisper.server.settings import ServeOptions

from ..conftest import ROOT

TRANSCRIPTIONS = "/v1/audio/transcriptions"
HOST = "http://localhost"


@cache
def nano() -> Whisper:
    """The model of the package."""
    return load_model("nano", device="cpu")


def load_nano(name: str) -> Whisper:
    """What the servers of the tests load, whatever the name."""
    return nano()


@cache
def decoders() -> Decoders:
    """One decoder process for the servers of all tests."""
    return SharedDecoders(1)


class SharedDecoders(Decoders):
    """Outlives the servers that use it."""

    def close(self) -> None:
        """Keep the process for the next server."""


@cache
def spoken() -> Any:
    """Eight seconds of single words, which nano reads."""
    return (load_audio(str(ROOT / "examples" / "sample.flac")) * 32767).astype(np.int16)


def sound(seconds: float = 2.0, n_channels: int = 1, start: float = 0.0) -> bytes:
    """A WAV file: the words from `start` on, again and again; each channel begins a second after the one before."""
    n, begin = int(16000 * seconds), int(16000 * start)
    channels = [np.resize(np.roll(spoken(), -begin - 16000 * i), n) for i in range(n_channels)]
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(n_channels)
        writer.setsampwidth(2)
        writer.setframerate(16000)
        writer.writeframes(np.stack(channels, axis=1).tobytes())
    return file.getvalue()


def server(
    load: Callable[[str], Whisper] = load_nano,
    keys: tuple[str, ...] = (),
    make_session: Any = live_session,
    **options: Any,
) -> Server:
    """A server that counts as loaded."""
    made = Server(ServeOptions(**options), ["nano"], load, keys, decoders=decoders(), make_session=make_session)
    made.is_loaded = True
    return made


def client(of: Server | None = None, **settings: Any) -> TestClient:
    """A client of a server in this process; without a context it loads nothing."""
    return TestClient(build_app(of or server()), base_url=HOST, raise_server_exceptions=True, **settings)


def post(to: TestClient, audio: bytes | None = None, path: str = TRANSCRIPTIONS, **fields: Any) -> Any:
    """Send a recording, as OpenAI's Python client does: fields first."""
    data = {"model": "whisper-1", "language": "en", "temperature": "[0]", "sample_len": "12", **fields}
    data = {name: value for name, value in data.items() if value is not None}
    return to.post(path, data=data, files={"file": ("a.wav", sound() if audio is None else audio)})


def error_of(answer: Any) -> dict[str, Any]:
    """The error of an answer, which must have OpenAI's shape."""
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"]
    assert answer.headers["x-request-id"].startswith("req_")
    error: dict[str, Any] = body["error"]
    return error


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 and its key; needs openssl."""
    made, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-keyout", key, "-out", made, "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    return made, key


@contextlib.contextmanager
def listening(of: Server, tls: tuple[Path, Path] | None = None) -> Iterator[str]:
    """Run a server on a free port of loopback, perhaps with a certificate and its key; gives its address."""
    files = {} if tls is None else {"ssl_certfile": tls[0], "ssl_keyfile": tls[1]}
    config = uvicorn.Config(
        build_app(of), host="127.0.0.1", port=0, ws="websockets-sansio", http="h11", loop="asyncio", log_config=None,
        **files,
    )  # fmt: skip
    http = uvicorn.Server(config)
    thread = threading.Thread(target=http.run)
    thread.start()
    try:
        wait_for(lambda: http.started and of.is_loaded)
        port = http.servers[0].sockets[0].getsockname()[1]
        yield f"{'http' if tls is None else 'https'}://127.0.0.1:{port}"
    finally:
        http.should_exit = True
        thread.join(30)


def wait_for(condition: Callable[[], Any], seconds: float = 30.0) -> None:
    """Wait until a condition holds; fails after a while."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.01)
