"""The settings of a session: OpenAI's objects in, options out, and back."""

import math
from typing import Any

import pytest

from whisper.server.errors import RequestError
from whisper.server.realtime.settings import LOGPROBS, SessionSettings
from whisper.server.realtime.sound import Format

START = SessionSettings("base")


def heard(**given: Any) -> SessionSettings:
    return START.updated({"type": "transcription", "audio": {"input": given}})


def refused(session: Any, beta: bool = False) -> tuple[str | None, str]:
    with pytest.raises(RequestError) as error:
        START.updated_in_beta(session) if beta else START.updated(session)
    assert str(error.value)
    return error.value.param, error.value.code


def test_the_defaults_are_openais_beside_the_padding() -> None:
    told = START.described("sess_1", 5)
    assert (told["type"], told["id"], told["expires_at"], told["include"]) == ("transcription", "sess_1", 5, None)
    assert told["audio"]["input"] == {
        "format": {"type": "audio/pcm", "rate": 24000},
        "transcription": {"model": "base", "language": None, "prompt": "", "delay": "medium"},
        "noise_reduction": None,
        "turn_detection": {
            "type": "server_vad",
            "threshold": 0.5,
            "prefix_padding_ms": 500,
            "silence_duration_ms": 500,
        },
    }
    assert START.live.interim is False


def test_only_what_is_there_changes_and_null_brings_the_default_back() -> None:
    first = heard(transcription={"language": "German", "prompt": "Hallo.", "keywords": ["Sotto"], "delay": "low"})
    assert (first.live.language, first.live.initial_prompt, first.live.delay) == ("de", "Hallo.", "low")
    assert list(first.live.hotwords or ()) == ["Sotto"]
    second = first.updated({"audio": {"input": {"transcription": {"delay": "xhigh", "prompt": None}}}})
    assert (second.live.language, second.live.initial_prompt, second.live.delay) == ("de", None, "xhigh")
    third = second.updated({"audio": {"input": {"transcription": {"language": None, "keywords": []}}}})
    assert (third.live.language, third.live.hotwords) == (None, None)
    assert first.updated({"type": "transcription"}) == first


def test_turns() -> None:
    turns = {
        "type": "server_vad",
        "threshold": 0.3,
        "prefix_padding_ms": 100,
        "silence_duration_ms": 800,
        "create_response": False,
    }
    new = heard(turn_detection=turns)
    assert (new.live.threshold, new.live.prefix_padding_s, new.live.silence_s) == (0.3, 0.1, 0.8)
    off = new.updated({"audio": {"input": {"turn_detection": None}}})
    assert off.live.turn_detection == "none"
    assert off.described("s", 0)["audio"]["input"]["turn_detection"] is None
    again = off.updated({"audio": {"input": {"turn_detection": {"type": "server_vad"}}}})
    assert (again.live.turn_detection, again.live.silence_s) == ("vad", 0.8)


def test_what_the_server_tells_can_be_sent_back() -> None:
    new = heard(
        format={"type": "audio/pcm", "rate": 16000}, noise_reduction={"type": "near_field"},
        transcription={"model": "small", "beam_size": 5, "segments": True, "keywords": ["a", "b"], "languages": ["fr"]},
    ).updated({"include": [LOGPROBS]})  # fmt: skip
    told = new.described("sess_1", 5)
    assert told["include"] == [LOGPROBS]
    assert told["audio"]["input"]["noise_reduction"] is None
    assert told["audio"]["input"]["transcription"]["beam_size"] == 5
    assert START.updated(told) == new
    flat = START.updated_in_beta({"input_audio_format": "g711_alaw", "turn_detection": None})
    told = flat.described("sess_1", 5)
    assert (told["input_audio_format"], told["turn_detection"]) == ("g711_alaw", None)
    assert START.updated_in_beta(told) == flat


@pytest.mark.parametrize(
    ("given", "field", "code"),
    [
        ({"format": {"type": "audio/mp3"}}, "format", "invalid_value"),
        ({"format": {"type": "audio/pcm", "rate": 7999}}, "format.rate", "invalid_value"),
        ({"format": {"type": "audio/pcm", "rate": True}}, "format.rate", "invalid_value"),
        ({"format": {"type": "audio/pcmu", "rate": 16000}}, "format.rate", "invalid_value"),
        ({"format": {"type": "audio/pcm", "bits": 8}}, "format.bits", "unknown_parameter"),
        ({"format": {"type": []}}, "format", "invalid_value"),
        ({"noise_reduction": {"type": "loud"}}, "noise_reduction.type", "invalid_value"),
        ({"noise_reduction": 1}, "noise_reduction", "invalid_value"),
        ({"transcription": []}, "transcription", "invalid_value"),
        ({"transcription": {"model": 1}}, "transcription.model", "invalid_value"),
        ({"transcription": {"langauge": "de"}}, "transcription.langauge", "unknown_parameter"),
        ({"transcription": {"languages": ["de", "en"]}}, "transcription.languages", "unsupported_parameter"),
        ({"transcription": {"delay": "long"}}, "transcription.delay", "invalid_value"),
        ({"transcription": {"beam_size": 0}}, "transcription.beam_size", "invalid_value"),
        ({"transcription": {"segments": "yes"}}, "transcription.segments", "invalid_value"),
        ({"transcription": {"threshold": 0.5}}, "transcription.threshold", "unknown_parameter"),
        ({"turn_detection": {"type": "semantic_vad"}}, "turn_detection.type", "unsupported_parameter"),
        ({"turn_detection": {"idle_timeout_ms": 6}}, "turn_detection.idle_timeout_ms", "unsupported_parameter"),
        ({"turn_detection": {"threshold": 2}}, "turn_detection.threshold", "invalid_value"),
        ({"turn_detection": {"silence_duration_ms": math.nan}}, "turn_detection.silence_duration_ms", "invalid_value"),
        ({"turn_detection": {"silence_duration_ms": 10**400}}, "turn_detection.silence_duration_ms", "invalid_value"),
        ({"turn_detection": {"silence_duration_ms": "500"}}, "turn_detection.silence_duration_ms", "invalid_value"),
        ({"turn_detection": {"silence_duration_ms": True}}, "turn_detection.silence_duration_ms", "invalid_value"),
        ({"turn_detection": "none"}, "turn_detection", "invalid_value"),
        ({"echo": 1}, "echo", "unknown_parameter"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant(given: Any, field: str, code: str) -> None:
    assert refused({"audio": {"input": given}}) == (f"session.audio.input.{field}", code)


@pytest.mark.parametrize(
    ("session", "param"),
    [
        (None, "session"), ([], "session"), ({"type": "realtime"}, "session.type"), ({"tools": []}, "session.tools"),
        ({"audio": {"output": {}}}, "session.audio.output"), ({"audio": 3}, "session.audio"),
        ({"include": ["everything"]}, "session.include"), ({"include": LOGPROBS}, "session.include"),
    ],
)  # fmt: skip
def test_what_a_session_has_not(session: Any, param: str) -> None:
    assert refused(session)[0] == param


def test_what_the_beta_has_not() -> None:
    for name in ("mp3", 5, []):
        assert refused({"input_audio_format": name}, beta=True)[0] == "session.input_audio_format"
    assert refused({"audio": {}}, beta=True) == ("session.audio", "unknown_parameter")
    assert refused({"turn_detection": {"threshold": 2}}, beta=True)[0] == "session.turn_detection.threshold"
    assert START.updated_in_beta({}).is_beta


def test_the_rates_of_a_format() -> None:
    assert heard(format={"type": "audio/pcm"}).format == heard(format=None).format == Format("audio/pcm", 24000)
    assert heard(format={"type": "audio/pcma"}).format.rate == 8000
    assert heard(format={"type": "audio/pcm", "rate": 48000}).format.rate == 48000
