"""What the tests of the library share: a server with a library, and recordings that are transcribed in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from tests.jobs.fakes import Scene
from whisper.server.app import Server, build_app

from ..serving import HOST, server, sound, wait_for

LIBRARY = "/v1/library"


def keeping(folder: Path, **settings: Any) -> Server:
    """A server with a library in a folder."""
    return server(library=str(folder / "library"), **settings)


def client(of: Server) -> TestClient:
    """With its context, recordings are transcribed."""
    return TestClient(build_app(of), base_url=HOST)


def add(to: TestClient, audio: bytes | None = None, name: str = "a.wav", tags: Any = (), **fields: Any) -> Any:
    """Send a recording."""
    data = {"name": name, "tags": json.dumps(tags), "model": "nano", "language": "en", "sample_len": "12", **fields}
    answer = to.post(LIBRARY, data=data, files={"file": ("x", sound(4) if audio is None else audio)})
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"{LIBRARY}/{answer.json()['id']}"
    return answer.json()


def ended(to: TestClient, recording: Any) -> Any:
    """Wait until a recording is transcribed, or is not; gives it with its document."""
    path = f"{LIBRARY}/{recording['id']}"
    wait_for(lambda: to.get(path).json()["status"] != "working")
    return to.get(path).json()


def added(to: TestClient, *arguments: Any, **fields: Any) -> Any:
    """A recording that is transcribed."""
    recording = ended(to, add(to, *arguments, **fields))
    assert recording["status"] == "done", recording
    return recording


def job(folder: Path, *names: str) -> Scene:
    """A job that is done, of real sound and made-up text."""
    scene = Scene(folder)
    for i, name in enumerate(names):
        scene.add(name, "")
        (scene.inputs / name).write_bytes(sound(4, start=i))
    assert {ended.state for ended in scene.run()} <= {"done"}
    return scene
