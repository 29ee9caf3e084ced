"""A replica with the bundled model, asked without Ray: by the front, and by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Any

import pytest
from starlette.testclient import TestClient
from starlette.types import Message

from whisper.device import allocator
from whisper.server import run
from whisper.server.cluster.front import Front, build_front
from whisper.server.cluster.replica import Replica
from whisper.server.cluster.settings import read

from ..serving import HOST, client, error_of, post, server, sound

SETTINGS = {"model": "nano", "no_auth": True, "device": "cpu", "compute_type": "float32"}


@pytest.fixture
def replica(monkeypatch: pytest.MonkeyPatch) -> Iterator[Replica]:
    for of, name in ((run, "log_as_json"), (allocator, "keep_little")):  # those change this process
        monkeypatch.setattr(of, name, lambda: None)
    made = Replica(*read(SETTINGS), ())
    yield made
    made.server.decoders.close()


class One:
    """A single replica, in this process."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    async def keep(self, data: bytes) -> Any:
        return data

    async def answer(self, scope: dict[str, Any], pieces: Sequence[Any]) -> AsyncGenerator[Message, None]:
        async def piece(data: bytes) -> bytes:
            return data

        async for message in self._replica.answer(scope, [piece(data) for data in pieces]):
            yield message

    async def is_ready(self) -> bool:
        self._replica.check_health()
        return True


def said(stream: str) -> str:
    """What is left without the comments that keep a slow stream open."""
    return stream.replace(": keepalive\n\n", "")


def test_answers_are_those_of_the_server(replica: Replica) -> None:
    cluster, options = read(SETTINGS)
    http = TestClient(build_front(Front(options, cluster.names, (), One(replica), 1)), base_url=HOST)
    alone = client(server())
    for fields in ({}, {"response_format": "srt"}, {"stream": "true"}):
        answer = post(http, **fields)
        assert answer.status_code == 200
        assert said(answer.text) == said(post(alone, **fields).text)
        assert said(answer.text).strip()
    answer = post(http, audio=b"no sound")
    assert (answer.status_code, error_of(answer)["code"]) == (400, "audio_unreadable")
    answer = post(http, model="other")
    assert (answer.status_code, error_of(answer)["code"]) == (404, "model_not_found")
    assert http.get("/ready").json() == {"status": "ready"}


def test_a_caller_that_stops_reading_ends_the_work(replica: Replica) -> None:
    form = (
        b'--x\r\ncontent-disposition: form-data; name="model"\r\n\r\nnano\r\n'
        b'--x\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    )

    async def scene() -> None:
        async def piece() -> bytes:
            return form + sound(600) + b"\r\n--x--\r\n"

        scope = {
            "type": "http", "method": "POST", "path": "/v1/audio/transcriptions", "query_string": b"", "scheme": "http",
            "root_path": "", "headers": [(b"host", b"a"), (b"content-type", b"multipart/form-data; boundary=x")],
        }  # fmt: skip
        answer = replica.answer(scope, [piece()])
        assert (await anext(answer))["type"] == "accepted"
        waiting = asyncio.ensure_future(anext(answer))
        while not replica.server.works:
            await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        while replica.server.works or replica.server.admission.n_inside:
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(scene(), 20))


def test_a_replica_that_stalls_is_not_healthy(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    replica.check_health()
    monkeypatch.setattr(replica.server, "why_not_ready", lambda: "queue_full")
    replica.check_health()
    monkeypatch.setattr(replica.server, "why_not_ready", lambda: "stalled")
    with pytest.raises(RuntimeError, match="gets on"):
        replica.check_health()
