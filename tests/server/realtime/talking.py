"""What the tests of the websocket share: a client of it in this process, and sound to send."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from whisper.server.app import Server

from ..live_sessions import FakeSession
from ..serving import client, server

ADDRESS = "/v1/realtime"
WS = "ws://localhost"
PIECE = 2400  # samples: 100 ms


def fake_server(keys: tuple[str, ...] = (), **options: Any) -> Server:
    """A server whose live sessions are fake."""
    FakeSession.made.clear()
    return server(keys=keys, make_session=FakeSession, **options)


class Talk:
    """A client's end of a websocket."""

    def __init__(self, websocket: Any) -> None:
        self.websocket = websocket

    def send(self, kind: str, **fields: Any) -> None:
        self.websocket.send_json({"type": kind, **fields})

    def append(self, data: bytes) -> None:
        self.send("input_audio_buffer.append", audio=base64.b64encode(data).decode())

    def receive(self, kind: str | None = None) -> dict[str, Any]:
        event: dict[str, Any] = self.websocket.receive_json()
        assert event["event_id"].startswith("event_")
        assert kind in (None, event["type"]), event
        return event

    def until(self, kind: str) -> list[dict[str, Any]]:
        """The events up to and with the next one of a kind."""
        events = [self.receive()]
        while events[-1]["type"] != kind:
            events.append(self.receive())
        return events

    def update(self, **heard: Any) -> dict[str, Any]:
        """Change the settings; gives what the server then says of the input, or its error."""
        self.send("session.update", session={"type": "transcription", "audio": {"input": heard}})
        event = self.receive()
        if event["type"] == "error":
            error: dict[str, Any] = event["error"]
            return error
        told: dict[str, Any] = event["session"]["audio"]["input"]
        return told


@contextlib.contextmanager
def talking(
    of: Server | None = None, path: str = ADDRESS, created: str = "session.created", **given: Any
) -> Iterator[Talk]:
    """Open a session; its first event has been read."""
    with client(of or fake_server()).websocket_connect(WS + path, **given) as websocket:
        talk = Talk(websocket)
        talk.receive(created)
        yield talk


def loud(n: int = PIECE) -> bytes:
    """Samples that the fake session takes for a word."""
    return np.full(n, 1000, "<i2").tobytes()


def silent(n: int = PIECE) -> bytes:
    """Samples that it takes for the end of a turn."""
    return bytes(2 * n)
