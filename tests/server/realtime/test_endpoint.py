"""The websocket: a session from its first event to its last, what is refused, and how it ends."""

import json
import time
from typing import Any

import anyio
import numpy as np
import pytest
from starlette.testclient import WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from whisper.server.app import build_app
from whisper.server.realtime import endpoint
from whisper.server.realtime import sessions as sessions_module

from ..live_sessions import FakeSession
from ..serving import client, error_of, wait_for
from .talking import ADDRESS, PIECE, WS, fake_server, loud, silent, talking

T = "conversation.item.input_audio_transcription"
SCOPE = {"type": "websocket", "path": ADDRESS, "raw_path": ADDRESS.encode(), "root_path": "", "scheme": "ws",
         "query_string": b"", "headers": [(b"host", b"localhost")], "subprotocols": []}  # fmt: skip


def test_a_turn() -> None:
    with talking() as talk:
        for data in (loud(), loud(), silent()):
            talk.append(data)
        events = talk.until(f"{T}.completed")
        assert [event["type"] for event in events] == [
            "input_audio_buffer.speech_started", f"{T}.delta", f"{T}.delta", "input_audio_buffer.speech_stopped",
            "input_audio_buffer.committed", "conversation.item.added", "conversation.item.done", f"{T}.completed",
        ]  # fmt: skip
        started, first, second, stopped, committed, added, done, completed = events
        assert (started["audio_start_ms"], started["item_id"]) == (0, completed["item_id"])
        assert first["delta"] + second["delta"] == completed["transcript"] == "word word"
        assert 150 < stopped["audio_end_ms"] <= 200
        assert committed["previous_item_id"] is None
        assert added["item"] == done["item"]
        assert done["item"]["content"] == [{"type": "input_audio", "transcript": None}]
        assert completed["usage"] == {"type": "duration", "seconds": pytest.approx(0.3, abs=0.01)}
        assert completed["languages"] == [{"code": "en"}]
        assert "logprobs" not in completed
        talk.append(loud() + silent(0))
        talk.append(silent())
        following = talk.until(f"{T}.completed")
        assert following[-1]["item_id"] != completed["item_id"]
        assert [e["previous_item_id"] for e in following if "previous_item_id" in e] == [completed["item_id"]] * 3
        ids = [event["event_id"] for event in events + following]
        assert len(set(ids)) == len(ids)


def test_turns_by_hand() -> None:
    with talking() as talk:
        assert talk.update(turn_detection=None)["turn_detection"] is None
        talk.send("input_audio_buffer.commit", event_id="mine")
        error = talk.receive("error")["error"]
        assert (error["code"], error["event_id"]) == ("input_audio_buffer_commit_empty", "mine")
        talk.append(loud())
        talk.append(silent())
        talk.send("input_audio_buffer.commit")
        kinds = [event["type"] for event in talk.until(f"{T}.completed")]
        assert kinds[:2] == [f"{T}.delta", "input_audio_buffer.committed"]
        talk.append(loud())
        talk.receive(f"{T}.delta")
        talk.send("input_audio_buffer.clear")
        talk.receive("input_audio_buffer.cleared")
        talk.send("input_audio_buffer.commit")
        assert talk.receive("error")["error"]["code"] == "input_audio_buffer_commit_empty"


def test_what_a_client_asks_for_beside() -> None:
    with talking() as talk:
        given = {"type": "transcription", "include": ["item.input_audio_transcription.logprobs"], "audio": {"input": {
            "transcription": {"model": "whisper-1", "interim": True, "segments": True, "word_timestamps": True},
        }}}  # fmt: skip
        talk.send("session.update", session=given)
        session = talk.receive("session.updated")["session"]
        assert session["include"] == given["include"]
        assert session["audio"]["input"]["transcription"]["interim"] is True
        talk.append(loud())
        talk.append(silent())
        events = talk.until(f"{T}.completed")
        kinds = [event["type"] for event in events]
        assert kinds.index(f"{T}.interim") < kinds.index(f"{T}.delta")
        assert kinds[-2] == f"{T}.segment"
        assert events[-2]["text"] == " word"
        assert {"id", "start", "end", "speaker", "item_id", "content_index"} <= set(events[-2])
        assert events[-1]["words"] == [{"word": "word", "start": 0.1, "end": 0.2, "probability": 0.5}]
        assert [entry["logprob"] for entry in events[-1]["logprobs"]] == [-0.25]
        assert set(events[-1]["logprobs"][0]) == {"token", "bytes", "logprob"}


def test_binary_frames_are_sound() -> None:
    with talking() as talk:
        talk.websocket.send_bytes(loud()[:1001])  # also cut within a sample
        talk.websocket.send_bytes(loud()[1001:])
        talk.websocket.send_bytes(silent())
        assert talk.until(f"{T}.completed")[-1]["transcript"] == "word word"
    heard = np.concatenate(FakeSession.made[-1].samples)
    assert len(heard) == pytest.approx(2 * PIECE * 16000 / 24000, abs=32)
    assert heard[100:1400] == pytest.approx(1000 / 32768, abs=1e-3)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ("no json", "invalid_json"),
        ("[1]", "invalid_json"),
        ("[" * 100_000, "invalid_json"),
        ('{"type": 3}', "invalid_value"),
        ("{}", "invalid_value"),
        ('{"type": "response.create"}', "unsupported_event"),
        ('{"type": "conversation.item.create", "item": {}}', "unsupported_event"),
        ('{"type": "input_audio_buffer.append"}', "invalid_value"),
        ('{"type": "input_audio_buffer.append", "audio": "*"}', "invalid_value"),
        ('{"type": "input_audio_buffer.append", "audio": "\\u00e4"}', "invalid_value"),
        ('{"type": "session.update"}', "invalid_value"),
        ('{"type": "session.update", "session": {"type": "realtime"}}', "invalid_value"),
        ('{"type": "session.update", "session": {"voice": "a"}}', "unknown_parameter"),
        ('{"type": "\\ud800"}', "unsupported_event"),
    ],
)
def test_a_wrong_event_is_an_error_and_the_session_stays(sent: str, code: str) -> None:
    with talking() as talk:
        talk.websocket.send_text(sent)
        error = talk.receive("error")["error"]
        assert set(error) == {"type", "code", "message", "param", "event_id"}
        assert (error["type"], error["code"]) == ("invalid_request_error", code)
        talk.append(loud())
        talk.receive("input_audio_buffer.speech_started")


def test_an_update_with_an_error_changes_nothing() -> None:
    with talking() as talk:
        before = talk.update()
        wrong = talk.update(turn_detection=None, transcription={"language": "klingon"})
        assert (wrong["code"], wrong["param"]) == ("invalid_value", "session.audio.input.transcription.language")
        assert talk.update() == before


def test_an_item_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeSession, "failure", RuntimeError("a secret of ours"))
    with talking() as talk:
        for _ in range(2):
            talk.append(loud())
            talk.append(silent())
            error = talk.until(f"{T}.failed")[-1]["error"]
            assert (error["type"], error["code"]) == ("server_error", "internal_error")
            assert "secret" not in error["message"]


def test_the_model_may_change_until_sound_comes() -> None:
    made = fake_server()
    with talking(made) as talk:
        session = FakeSession.made[-1]
        told = talk.update(transcription={"model": "gpt-live-transcribe"})
        assert told["transcription"]["model"] == "gpt-live-transcribe"
        assert FakeSession.made[-1] is session  # the same model by another name
        error = talk.update(transcription={"model": "gpt-9"})
        assert error["code"] == "model_not_found"
    made.models._entries["other"] = type(made.models._entries["nano"])("other")
    with talking(made) as talk:
        talk.update(transcription={"model": "other"})
        assert [s.closed for s in FakeSession.made[-2:]] == [[False], []]
        talk.append(loud())
        talk.receive("input_audio_buffer.speech_started")
        talk.receive(f"{T}.delta")
        assert talk.update(transcription={"model": "nano"})["param"] == "model"


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        (f"{ADDRESS}?model=gpt-9", 404, "model_not_found"),
        (f"{ADDRESS}?intent=conversation", 400, "invalid_value"),
    ],
)
def test_a_wrong_address(path: str, status: int, code: str) -> None:
    with pytest.raises(WebSocketDenialResponse) as refused, talking(path=path):
        pass
    assert (refused.value.status_code, error_of(refused.value)["code"]) == (status, code)


@pytest.mark.parametrize(
    "path", ["?intent=transcription", "?model=whisper-1", "?model=gpt-realtime", "?model=nano&intent=transcription"]
)
def test_addresses_that_clients_use(path: str) -> None:
    with talking(path=ADDRESS + path) as talk:
        assert talk.update()["transcription"]["model"]


def test_without_a_websocket() -> None:
    answer = client(fake_server()).get(ADDRESS)
    assert (answer.status_code, answer.headers["upgrade"], error_of(answer)["code"]) == (
        426,
        "websocket",
        "upgrade_required",
    )


def test_beta() -> None:
    with talking(headers={"openai-beta": "realtime=v1"}, created="transcription_session.created") as talk:
        session = {"input_audio_format": "g711_ulaw", "input_audio_transcription": {"model": "whisper-1"},
                   "turn_detection": {"type": "server_vad", "silence_duration_ms": 300}}  # fmt: skip
        talk.send("transcription_session.update", session=session)
        told = talk.receive("transcription_session.updated")["session"]
        assert told["input_audio_format"] == "g711_ulaw"
        assert told["turn_detection"]["silence_duration_ms"] == 300
        talk.append(b"\x80" * 800)
        talk.append(b"\xff" * 8000)
        kinds = [event["type"] for event in talk.until(f"{T}.completed")]
        assert kinds[-2] == "conversation.item.created"
        assert "conversation.item.done" not in kinds


# -- who may come ------------------------------------------------------------------------------------------


def refusal(of: Any, **given: Any) -> Any:
    with pytest.raises(WebSocketDenialResponse) as refused, talking(of, **given):
        pass
    return refused.value


def test_hosts_and_origins() -> None:
    made = fake_server()
    foreign = refusal(made, headers={"host": "evil.example"})
    assert (foreign.status_code, error_of(foreign)["code"]) == (403, "host_not_allowed")
    for origin in ("https://evil.example", "null", "http://localhost:9999"):
        foreign = refusal(made, headers={"origin": origin})
        assert (foreign.status_code, error_of(foreign)["code"]) == (403, "origin_not_allowed")
        assert foreign.headers["x-content-type-options"] == "nosniff"
    with talking(made, headers={"origin": "http://localhost", "host": "localhost"}):
        pass
    with talking(fake_server(cors_origins=["https://page.example"]), headers={"origin": "https://page.example"}):
        pass


def test_keys() -> None:
    made = fake_server(keys=("right",))
    for headers in (
        {},
        {"authorization": "Bearer wrong"},
        {"sec-websocket-protocol": "realtime, openai-insecure-api-key.wrong"},
    ):
        refused = refusal(made, headers=headers)
        assert (refused.status_code, error_of(refused)["code"]) == (401, "invalid_api_key")
    assert refusal(made, path=f"{ADDRESS}?api_key=right").status_code == 401
    with talking(made, headers={"authorization": "Bearer right"}) as talk:
        assert talk.websocket.accepted_subprotocol is None
    with talking(made, subprotocols=["realtime", "openai-insecure-api-key.right"]) as talk:
        assert talk.websocket.accepted_subprotocol == "realtime"
    assert len({session.key for session in FakeSession.made}) == 1
    assert FakeSession.made[-1].key


# -- limits ------------------------------------------------------------------------------------------------


def test_no_more_sessions_than_places() -> None:
    made = fake_server(max_sessions=2)
    with talking(made), talking(made):
        refused = refusal(made)
        assert (refused.status_code, error_of(refused)["code"]) == (429, "sessions_full")
        assert int(refused.headers["retry-after"]) > 0
        metrics = made.metrics.text().decode()
        assert 'sotto_live_sessions{protocol="realtime"} 2.0' in metrics
        assert 'sotto_live_refused_total{protocol="realtime",reason="sessions_full"} 1.0' in metrics
    with talking(made), talking(made):
        pass
    assert 'sotto_live_sessions{protocol="realtime"} 0.0' in made.metrics.text().decode()


def test_a_web_page_is_told_why_it_is_refused() -> None:
    made = fake_server(max_sessions=1)
    with (
        talking(made),
        client(made).websocket_connect(ADDRESS, headers={"origin": "http://localhost", "host": "localhost"}) as page,
    ):
        assert page.receive_json()["error"]["code"] == "sessions_full"
        with pytest.raises(WebSocketDisconnect) as closed:
            page.receive_json()
    assert (closed.value.code, bool(closed.value.reason)) == (1013, True)


def test_each_key_has_its_part() -> None:
    made = fake_server(keys=("one", "two"), max_sessions_per_key=1)
    with talking(made, headers={"authorization": "Bearer one"}):
        refused = refusal(made, headers={"authorization": "Bearer one"})
        assert (refused.status_code, error_of(refused)["code"]) == (429, "too_many_sessions")
        with talking(made, headers={"authorization": "Bearer two"}):
            pass
    with talking(made, headers={"authorization": "Bearer one"}):
        pass


def test_no_session_before_the_model_is_there_and_after_the_end_began() -> None:
    made = fake_server()
    made.is_loaded = False
    assert (refusal(made).status_code, error_of(refusal(made))["code"]) == (503, "not_ready")
    made.is_loaded = True
    made.drain()
    assert (refusal(made).status_code, error_of(refusal(made))["code"]) == (503, "shutting_down")


def test_a_machine_that_cannot_keep_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise sessions_module.CapacityError("one more session than this machine keeps up with")

    made = fake_server()
    made.live.make = refuse
    refused = refusal(made)
    assert (refused.status_code, error_of(refused)["code"]) == (503, "capacity")
    made.live.make = FakeSession
    with talking(made):
        pass


def test_a_session_ends_after_its_longest_duration_with_its_last_text() -> None:
    with talking(fake_server(max_session_s=1)) as talk:
        talk.append(loud())
        events = talk.until("error")
        assert events[-2]["type"] == f"{T}.completed"
        assert events[-1]["error"]["code"] == "session_expired"
        with pytest.raises(WebSocketDisconnect) as closed:
            talk.receive()
        assert closed.value.code == 1001
    assert FakeSession.made[-1].closed[0] is True


def test_the_end_of_the_server_gives_each_session_its_last_text() -> None:
    made = fake_server()
    with client(made) as running, running.websocket_connect(WS + ADDRESS) as websocket:
        assert websocket.receive_json()["type"] == "session.created"
        websocket.send_bytes(loud())
        assert websocket.receive_json()["type"] == "input_audio_buffer.speech_started"
        made.drain()
        assert running.portal is not None
        running.portal.start_task_soon(made.live.drain, 10.0)
        events = [websocket.receive_json()]
        while events[-1]["type"] != "error":
            events.append(websocket.receive_json())
        assert f"{T}.completed" in [event["type"] for event in events]
        assert events[-1]["error"]["code"] == "shutting_down"
        with pytest.raises(WebSocketDisconnect) as closed:
            websocket.receive_json()
        assert closed.value.code == 1012


def test_a_client_that_leaves_ends_its_session() -> None:
    made = fake_server()
    with talking(made) as talk:
        talk.append(loud())
        talk.receive("input_audio_buffer.speech_started")
    wait_for(lambda: FakeSession.made[-1].closed)
    assert FakeSession.made[-1].closed == [False]
    assert made.models._entries["nano"].n_users == 0


def test_a_client_that_leaves_while_it_is_sent_to_is_no_fault(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        left = anyio.Event()
        incoming = iter([{"type": "websocket.connect"}, *[{"type": "websocket.receive", "text": "wrong"}] * 3])

        async def receive() -> Any:
            for message in incoming:
                return message
            await left.wait()
            return {"type": "websocket.disconnect", "code": 1006}

        async def send(message: Any) -> None:
            if message["type"] == "websocket.send":
                left.set()
                raise ConnectionResetError

        with anyio.fail_after(20):
            await build_app(fake_server())(SCOPE.copy(), receive, send)

    with caplog.at_level("INFO", "whisper.server"):
        anyio.run(run)
    assert {record.levelname for record in caplog.records} == {"INFO"}
    assert FakeSession.made[-1].closed == [False]


def test_a_client_that_does_not_read_is_closed() -> None:
    """On the ASGI level: what it does not read makes `send` wait."""

    async def run() -> list[Any]:
        made, sent, waiting = fake_server(), [], anyio.Event()
        incoming = iter([{"type": "websocket.connect"}, *[{"type": "websocket.receive", "text": "wrong"}] * 5000])

        async def receive() -> Any:
            await anyio.sleep(0)
            for message in incoming:
                return message
            await waiting.wait()

        async def send(message: Any) -> None:
            sent.append(message)
            if message["type"] == "websocket.send" and len(sent) > 3:
                await waiting.wait()

        with anyio.fail_after(20):
            await build_app(made)(SCOPE.copy(), receive, send)
        return sent

    sent = anyio.run(run)
    assert (sent[-1]["type"], sent[-1]["code"]) == ("websocket.close", 1008)


def test_sound_that_comes_faster_than_it_is_heard_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeSession, "backlog", 31.0)
    with talking() as talk:
        talk.append(loud())
        talk.append(loud())
        time.sleep(0.2)
        assert len(FakeSession.made[-1].samples) == 1  # the second is not read
        monkeypatch.setattr(FakeSession, "backlog", 0.0)
        talk.append(silent())
        assert talk.until(f"{T}.completed")[-1]["transcript"] == "word word"


def test_the_log_has_a_line_without_text(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "whisper.server"), talking(path=f"{ADDRESS}?model=whisper-1&secret=1") as talk:
        talk.update(transcription={"prompt": "a secret"})
        talk.append(loud())
        talk.append(silent())
        talk.until(f"{T}.completed")
    wait_for(lambda: any(record.message == "request" for record in caplog.records))
    [record] = [record for record in caplog.records if record.message == "request"]
    notes = record.notes  # type: ignore[attr-defined]
    assert (notes["route"], notes["method"], notes["status"], notes["model"]) == (ADDRESS, "WEBSOCKET", 101, "nano")
    assert notes["audio_seconds"] == pytest.approx(0.2, abs=0.01)
    assert "secret" not in json.dumps(notes)


def test_a_fault_of_ours_closes_the_websocket(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("a secret of ours")

    monkeypatch.setattr(endpoint, "from_base64", fail)
    with talking() as talk:
        talk.append(loud())
        with pytest.raises(WebSocketDisconnect) as closed:
            talk.receive()
    assert closed.value.code == 1011
    assert "secret" not in closed.value.reason
    assert any(record.exc_info for record in caplog.records)
