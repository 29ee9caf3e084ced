"""The front before replicas that die at every moment of an answer; and before a real one, in this process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

import pytest
from starlette.testclient import TestClient
from starlette.types import Message

from whisper.server.cluster import front as front_module
from whisper.server.cluster.front import Front, ReplicaLostError, build_front
from whisper.server.settings import ServeOptions

from ..serving import HOST, TRANSCRIPTIONS, error_of, post, sound

ACCEPTED = {"type": "accepted"}
JSON = [(b"content-type", b"application/json"), (b"x-request-id", b"req_inner")]
STREAM = [(b"content-type", b"text/event-stream; charset=utf-8")]


def start(headers: list[tuple[bytes, bytes]]) -> Message:
    return {"type": "http.response.start", "status": 200, "headers": headers}


def body(data: bytes, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


WHOLE = [ACCEPTED, start(JSON), body(b'{"text": ', True), body(b'"right"}')]
EVENTS = [ACCEPTED, start(STREAM), body(b'data: {"delta": "a"}\n\n', True), body(b"", False)]


class Fakes:
    """Replicas, each of which sends messages and then dies, if it is to."""

    def __init__(self, *scripts: tuple[list[Message], bool]) -> None:
        self.scripts = list(scripts)
        self.bodies: list[bytes] = []
        self.scopes: list[dict[str, Any]] = []

    async def keep(self, data: bytes) -> Any:
        return data

    async def answer(self, scope: dict[str, Any], pieces: Sequence[Any]) -> AsyncGenerator[Message, None]:
        messages, dies = self.scripts.pop(0)
        self.bodies.append(b"".join(pieces))
        self.scopes.append(scope)
        for message in messages:
            yield dict(message)
        if dies:
            raise ReplicaLostError("killed")

    async def is_ready(self) -> bool:
        return True


def client(replicas: Any, keys: tuple[str, ...] = (), **options: Any) -> TestClient:
    made = Front(ServeOptions(page=False, **options), ["nano"], keys, replicas, 2)
    return TestClient(build_front(made), base_url=HOST)


@pytest.mark.parametrize("n_messages", range(len(WHOLE)))
def test_a_replica_that_dies_before_its_answer_is_whole_does_not_show(n_messages: int) -> None:
    replicas = Fakes((WHOLE[:n_messages], True), (WHOLE[:n_messages], True), (WHOLE, False))
    http = client(replicas)
    answer = post(http)
    assert (answer.status_code, answer.json()) == (200, {"text": "right"})
    assert len(replicas.bodies) == 3
    assert replicas.bodies[0] == replicas.bodies[1] == replicas.bodies[2]
    assert sound() in replicas.bodies[0]
    assert "sotto_replicas_lost_total 2.0" in http.get("/metrics").text


def test_a_replica_that_dies_after_its_answer_loses_nothing() -> None:
    replicas = Fakes((WHOLE, True))
    assert post(client(replicas)).json() == {"text": "right"}


def test_a_request_that_kills_replicas_kills_three() -> None:
    replicas = Fakes(*[([ACCEPTED], True)] * 9)
    answer = post(client(replicas))
    assert (answer.status_code, error_of(answer)["code"]) == (503, "replica_lost")
    assert answer.headers["retry-after"] == "10"
    assert len(replicas.scripts) == 6


def test_a_stream_that_has_begun_ends_with_an_error() -> None:
    replicas = Fakes((EVENTS[:1], True), (EVENTS[:3], True))
    answer = post(client(replicas), stream="true")
    lines = [json.loads(line.removeprefix("data: ")) for line in answer.text.split("\n\n") if line]
    assert lines[0] == {"delta": "a"}
    assert lines[1]["error"]["code"] == "replica_lost"
    assert len(lines) == 2


def test_a_stream_is_passed_on_as_it_comes() -> None:
    assert post(client(Fakes((EVENTS, False))), stream="true").text == 'data: {"delta": "a"}\n\n'


def test_large_uploads_are_kept_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front_module, "PIECE_BYTES", 1000)
    replicas = Fakes((WHOLE, False))
    n_kept = []
    keep = replicas.keep

    async def count(data: bytes) -> Any:
        n_kept.append(len(data))
        return await keep(data)

    replicas.keep = count  # type: ignore[method-assign]
    data = [bytes([i]) * 700 for i in range(10)]
    headers = {"content-type": "multipart/form-data; boundary=x"}
    answer = client(replicas).post(TRANSCRIPTIONS, content=iter(data), headers=headers)
    assert answer.json() == {"text": "right"}
    assert replicas.bodies == [b"".join(data)]
    assert sum(n_kept) == 7000


def test_what_is_refused_reaches_no_replica() -> None:
    replicas = Fakes()
    http = client(replicas, keys=("secret",), max_upload_mb=0.01)
    assert post(http).status_code == 401
    http.headers["authorization"] = "Bearer secret"
    assert post(http).status_code == 413
    assert http.post(TRANSCRIPTIONS, data={"a": "b"}).status_code == 415
    assert post(http, path="/v1/jobs").status_code == 404


def test_a_full_cluster_refuses_before_the_upload() -> None:
    made = Front(ServeOptions(page=False, max_running=1, max_queue=0), ["nano"], (), Fakes(), 2)
    made.admission.n_inside = 2
    http = TestClient(build_front(made), base_url=HOST)
    answer = post(http)
    assert (answer.status_code, error_of(answer)["code"]) == (429, "queue_full")
    assert http.get("/ready").json() == {"status": "queue_full"}


def test_without_any_replica_the_front_still_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nobody(Fakes):
        async def is_ready(self) -> bool:
            await asyncio.sleep(60)
            return True

    monkeypatch.setattr(front_module, "READY_S", 0.05)
    http = client(Nobody())
    assert http.get("/health").json() == {"status": "ok"}
    assert http.get("/v1/models").json()["data"][0]["id"] == "nano"
    assert http.get("/v1/models/whisper-1").status_code == 200
    assert http.get("/openapi.json").status_code == 200
    assert (http.get("/ready").status_code, http.get("/ready").json()) == (503, {"status": "no_replica"})
    assert client(Fakes()).get("/ready").json() == {"status": "ready"}


def test_a_client_that_leaves_ends_its_request() -> None:
    ended = asyncio.Event()

    class Slow(Fakes):
        async def answer(self, scope: dict[str, Any], pieces: Sequence[Any]) -> AsyncGenerator[Message, None]:
            try:
                yield ACCEPTED
                await asyncio.sleep(60)
            finally:
                ended.set()

    async def scene() -> None:
        app = build_front(Front(ServeOptions(page=False), ["nano"], (), Slow(), 1))
        headers = [(b"host", b"localhost"), (b"content-type", b"multipart/form-data; boundary=x")]
        scope = {
            "type": "http", "method": "POST", "path": TRANSCRIPTIONS, "query_string": b"", "headers": headers,
            "scheme": "http", "root_path": "",
        }  # fmt: skip
        messages = [{"type": "http.request", "body": b"x", "more_body": False}, {"type": "http.disconnect"}]

        async def receive() -> Message:
            await asyncio.sleep(0.05)
            return messages.pop(0)

        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        await asyncio.wait_for(app(scope, receive, send), 10)
        assert not sent
        assert ended.is_set()

    asyncio.run(scene())


def test_the_log_names_the_line_of_the_replica(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="whisper.server"):
        answer = post(client(Fakes(([ACCEPTED], True), (WHOLE, False))))
    notes: Callable[[Any], Any] = lambda record: record.notes  # noqa: E731
    [line] = [notes(record) for record in caplog.records if record.getMessage() == "request"]
    assert line["replica_request_id"] == "req_inner"
    assert line["request_id"] == answer.headers["x-request-id"] != "req_inner"
    assert line["replicas_lost"] == 1
