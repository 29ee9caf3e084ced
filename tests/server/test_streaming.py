"""Streams: events in OpenAI's form, whose deltas add up; errors at both ends; and clients that leave."""

import json
import socket
import threading
from typing import Any

import pytest

from whisper.engine.engine import _ENGINES
from whisper.server import app, streaming
from whisper.server.streaming import Deltas

from .serving import TRANSCRIPTIONS, client, error_of, listening, nano, post, server, sound, wait_for


def events(answer: Any) -> list[dict[str, Any]]:
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    blocks = answer.text.split("\n\n")
    assert blocks.pop() == ""
    return [json.loads(block.removeprefix("data: ")) for block in blocks if not block.startswith(":")]


def test_deltas_add_up_to_the_text_of_the_answer_without_stream() -> None:
    audio = sound(31)
    *deltas, done = events(post(client(), audio, stream="true", include="logprobs"))
    assert len(deltas) > 1
    assert {event["type"] for event in deltas} == {"transcript.text.delta"}
    assert done["type"] == "transcript.text.done"
    assert "".join(event["delta"] for event in deltas) == done["text"]
    whole = post(client(), audio, include="logprobs").json()
    assert (done["text"], done["logprobs"], done["usage"]) == (whole["text"], whole["logprobs"], whole["usage"])
    assert [entry for event in deltas for entry in event["logprobs"]] == done["logprobs"]
    assert done["languages"] == [{"code": "en"}]


def test_segments_of_speakers() -> None:
    found = events(
        post(client(), sound(n_channels=2), stream="true", response_format="diarized_json", channels="separate")
    )
    segments = [event for event in found if event["type"] == "transcript.text.segment"]
    assert {event["speaker"] for event in segments} == {"A", "B"}
    deltas = [event for event in found if event["type"] == "transcript.text.delta"]
    assert [event["segment_id"] for event in deltas] == [event["id"] for event in segments]
    assert "".join(event["delta"] for event in deltas) == found[-1]["text"]


@pytest.mark.parametrize("texts", [[" a", " b "], ["", "  ", " a"], [" a ", "  ", "b"], [], ["  "], [" a\n", "\nb\n"]])
def test_white_space_around_the_text_is_in_no_delta(texts: list[str]) -> None:
    deltas = Deltas()
    assert "".join(map(deltas.add, texts)) == "".join(texts).strip() == deltas.text


def test_an_error_before_the_first_event_has_a_status() -> None:
    answer = post(client(), b"no sound", stream="true")
    assert (answer.status_code, error_of(answer)["code"]) == (400, "audio_unreadable")


def test_an_error_in_mid_stream_is_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    segments = app.Work.segments

    def broken(self: Any) -> Any:
        yield next(segments(self))
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(app.Work, "segments", broken)
    answer = post(client(), stream="true")
    first, last = events(answer)
    assert first["type"] == "transcript.text.delta"
    assert last["error"]["type"] == "server_error"
    assert "secret" not in answer.text


def test_a_long_silence_is_filled_with_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "KEEPALIVE", 0.05)
    waited = threading.Event()

    def slow(self: Any) -> Any:
        waited.wait(0.3)
        return {"language": "en"}
        yield

    monkeypatch.setattr(app.Work, "segments", slow)
    answer = post(client(), stream="true")
    assert answer.text.startswith(": keepalive\n\n")
    assert [event["type"] for event in events(answer)] == ["transcript.text.done"]


def form(audio: bytes, **fields: str) -> bytes:
    parts = [f'--x\r\nContent-Disposition: form-data; name="{n}"\r\n\r\n{v}\r\n'.encode() for n, v in fields.items()]
    file = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + audio + b"\r\n--x--\r\n"
    body = b"".join(parts) + file
    head = f"POST {TRANSCRIPTIONS} HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.mark.parametrize("stream", ["true", "false"])
def test_a_client_that_leaves_frees_its_rows(stream: str) -> None:
    made = server()
    steps = []
    with listening(made) as address:
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(form(sound(300), model="nano", language="en", stream=stream))
            wait_for(lambda: made.works and next(iter(made.works)).duration)
            (work,) = made.works
            progress = work._on_progress
            work._on_progress = lambda done, total: (steps.append(done), progress(done, total))[-1]  # type: ignore[method-assign,func-returns-value]
            engine = next(iter(_ENGINES[nano()].engines.values()))
            wait_for(lambda: not engine.core.is_idle)
        wait_for(lambda: not made.works)
        wait_for(lambda: engine.core.is_idle)
        assert engine.scheduler.used.n_rows == 0
        assert work.cancel.is_set()
        assert made.metrics.registry.get_sample_value("sotto_cancelled_total", {"reason": "client_gone"}) == 1
        name, labels = "sotto_requests_total", {"endpoint": TRANSCRIPTIONS, "status": "499"}
        wait_for(lambda: made.metrics.registry.get_sample_value(name, labels) == 1)
    assert not steps or max(steps) < 300


def test_a_stream_that_was_read_to_its_end_counts_as_answered() -> None:
    made = server()
    with listening(made) as address:
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            fields = {"model": "nano", "language": "en", "sample_len": "4", "temperature": "[0]", "stream": "true"}
            connection.sendall(form(sound(1), **fields))
            received = b""
            while not received.endswith(b"0\r\n\r\n"):
                received += connection.recv(65536)
        assert b"transcript.text.done" in received
        name, labels = "sotto_requests_total", {"endpoint": TRANSCRIPTIONS, "status": "200"}
        wait_for(lambda: made.metrics.registry.get_sample_value(name, labels) == 1)


def test_a_client_that_leaves_in_mid_upload() -> None:
    made = server()
    with listening(made) as address:
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(form(sound(10), model="nano")[:100_000])
            wait_for(lambda: made.admission.n_inside)
        wait_for(lambda: not made.admission.n_inside)


def test_an_upload_that_stops_is_given_up() -> None:
    made = server(upload_timeout_s=0.1)
    with listening(made) as address:
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(form(sound(10), model="nano")[:100_000])
            received = b""
            while b"upload_timeout" not in received:
                piece = connection.recv(65536)
                assert piece, received
                received += piece
    assert received.startswith(b"HTTP/1.1 408")
