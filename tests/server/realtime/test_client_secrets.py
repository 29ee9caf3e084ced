"""Client secrets: what they open and for how long, the settings that they carry, and what is refused."""

from typing import Any

import pytest
from starlette.testclient import WebSocketDenialResponse

from whisper.server.app import Server
from whisper.server.realtime import client_secrets
from whisper.server.security import BETA_SECRETS_PATH, SECRETS_PATH

from ..live_sessions import FakeSession
from ..serving import TRANSCRIPTIONS, client, error_of
from .talking import ADDRESS, fake_server, talking

KEY = {"authorization": "Bearer right"}


def ask(made: Server, path: str = SECRETS_PATH, headers: dict[str, str] = KEY, **body: Any) -> Any:
    return client(made).post(path, json=body, headers=headers)


def protocols(secret: str) -> list[str]:
    return ["realtime", f"openai-insecure-api-key.{secret}"]


def refusal(made: Server, subprotocols: list[str]) -> int:
    """The status with which a session is refused."""
    asking = client(made)
    with (
        pytest.raises(WebSocketDenialResponse) as refused,
        asking.websocket_connect(f"ws://localhost{ADDRESS}", subprotocols=subprotocols),
    ):
        pass
    return refused.value.status_code


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(client_secrets.time, "time", lambda: now[0])
    return now


def test_a_secret_opens_live_sessions_and_nothing_else() -> None:
    made = fake_server(keys=("right",))
    value = ask(made).json()["value"]
    assert value.startswith("ek_")
    with talking(made, subprotocols=protocols(value)) as talk:
        assert talk.websocket.accepted_subprotocol == "realtime"
    with talking(made, headers={"authorization": f"Bearer {value}"}):
        pass
    own = {"authorization": f"Bearer {value}"}
    for answer in (client(made).get("/v1/models", headers=own), ask(made, headers=own), ask(made, headers={}),
                   client(made).post(TRANSCRIPTIONS, headers=own), client(made).get(ADDRESS, headers=own)):  # fmt: skip
        assert (answer.status_code, error_of(answer)["code"]) == (401, "invalid_api_key")


def test_its_sessions_are_those_of_the_key_that_made_it() -> None:
    made = fake_server(keys=("right", "other"), max_sessions_per_key=1)
    value = ask(made).json()["value"]
    with talking(made, headers=KEY):
        assert refusal(made, protocols(value)) == 429
        with talking(made, headers={"authorization": "Bearer other"}):
            pass
    with talking(made, subprotocols=protocols(value)):
        pass
    assert len({session.key for session in FakeSession.made}) == 2


def test_a_session_begins_with_the_settings_of_its_secret() -> None:
    heard = {"format": {"type": "audio/pcmu"}, "transcription": {"language": "de", "delay": "low"},
             "turn_detection": None}  # fmt: skip
    include = ["item.input_audio_transcription.logprobs"]
    made = fake_server()
    answer = ask(made, headers={}, session={"type": "transcription", "audio": {"input": heard}, "include": include})
    told = answer.json()["session"]
    assert (told["type"], told["object"]) == ("transcription", "realtime.transcription_session")
    assert told["id"].startswith("sess_")
    assert told["audio"]["input"]["format"] == {"type": "audio/pcmu"}
    with client(made).websocket_connect(
        f"ws://localhost{ADDRESS}?model=gpt-realtime", subprotocols=protocols(answer.json()["value"])
    ) as websocket:
        session = websocket.receive_json()["session"]
    assert session["audio"] == told["audio"]
    assert session["include"] == include
    assert session["audio"]["input"]["turn_detection"] is None
    assert FakeSession.made[-1].options.language == "de"


def test_a_secret_ends(clock: list[float]) -> None:
    made = fake_server(keys=("right",))
    answer = ask(made, expires_after={"anchor": "created_at", "seconds": 10}).json()
    assert answer["expires_at"] == 1010
    assert ask(made).json()["expires_at"] == 1600
    clock[0] = 1009.0
    with talking(made, subprotocols=protocols(answer["value"])):
        clock[0] = 1010.0  # the session goes on
        assert refusal(made, protocols(answer["value"])) == 401


def test_in_the_words_of_the_beta() -> None:
    made = fake_server(keys=("right",))
    asked = {"input_audio_format": "g711_ulaw", "input_audio_transcription": {"model": "whisper-1", "language": "de"},
             "client_secret": {"expires_at": {"anchor": "created_at", "seconds": 100}}}  # fmt: skip
    answer = ask(made, BETA_SECRETS_PATH, **asked).json()
    assert answer["input_audio_format"] == "g711_ulaw"
    with talking(made, created="transcription_session.created",
                 subprotocols=protocols(answer["client_secret"]["value"])):  # fmt: skip
        assert FakeSession.made[-1].options.language == "de"


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"sessoin": {}}, "the body.sessoin", "unknown_parameter"),
        ({"session": {"type": "realtime"}}, "session.type", "invalid_value"),
        ({"session": {"audio": {"input": {"turn_detection": {"type": "semantic_vad"}}}}},
         "session.audio.input.turn_detection.type", "unsupported_parameter"),
        ({"expires_after": {"seconds": 9}}, "expires_after.seconds", "invalid_value"),
        ({"expires_after": {"seconds": 7201}}, "expires_after.seconds", "invalid_value"),
        ({"expires_after": {"seconds": "60"}}, "expires_after.seconds", "invalid_value"),
        ({"expires_after": {"anchor": "now"}}, "expires_after.anchor", "invalid_value"),
        ({"expires_after": 60}, "expires_after", "invalid_value"),
    ],
)  # fmt: skip
def test_refused(body: dict[str, Any], param: str, code: str) -> None:
    answer = ask(fake_server(), headers={}, **body)
    assert answer.status_code == 400
    assert (error_of(answer)["param"], error_of(answer)["code"]) == (param, code)


def test_refused_bodies() -> None:
    asking = client(fake_server())
    is_json = {"content-type": "application/json; charset=utf-8"}
    for body in (b"", b"[1]", b"{", b"\xff", b"[" * 60_000):
        assert error_of(asking.post(SECRETS_PATH, content=body, headers=is_json))["code"] == "invalid_json"
    assert asking.post(SECRETS_PATH, content=b" " * 70_000, headers=is_json).status_code == 413
    assert error_of(asking.post(SECRETS_PATH, data={"session": "{}"}))["code"] == "unsupported_media_type"
    assert asking.post(SECRETS_PATH, json={}).status_code == 200  # all is optional
    answer = asking.post(SECRETS_PATH, json={"session": {"audio": {"input": {"transcription": {"model": "nobody"}}}}})
    assert (answer.status_code, error_of(answer)["code"]) == (404, "model_not_found")


def test_there_are_only_so_many(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_secrets, "MOST", 2)
    made = fake_server()
    assert [ask(made, headers={}).status_code for _ in range(3)] == [200, 200, 429]
    clock[0] += 601
    assert ask(made, headers={}).status_code == 200
