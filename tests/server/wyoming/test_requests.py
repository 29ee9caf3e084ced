"""What Wyoming clients ask for, and their sound."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from whisper.server.errors import RequestError
from whisper.server.wyoming.framing import Message
from whisper.server.wyoming.requests import OPTIONS, Asked, Sound, info, read_transcribe

from ..serving import server, spoken


def test_what_is_asked_for() -> None:
    assert read_transcribe({}) == read_transcribe({"name": None, "language": None, "transcript_names": []}) == Asked()
    asked = read_transcribe(
        {"name": "base", "language": "de-DE", "transcript_names": ["Lampe"], "transcript_terms": ["Flur", " "],
         "vad_sensitivity": "relaxed", "context": {}}
    )  # fmt: skip
    assert (asked.model, asked.options.language, list(asked.options.hotwords or ())) == (
        "base",
        "de",
        ["Lampe", "Flur"],
    )
    assert asked.options.silence_s == OPTIONS.silence_s


@pytest.mark.parametrize(
    ("data", "param"),
    [({"name": 1}, "name"), ({"language": "klingon"}, "language"), ({"language": 3}, "language"),
     ({"transcript_names": "Lampe"}, "transcript_names"), ({"transcript_terms": [1]}, "transcript_terms")],
)  # fmt: skip
def test_what_cannot_be_meant(data: Any, param: str) -> None:
    with pytest.raises(RequestError) as error:
        read_transcribe(data)
    assert error.value.param == param


def test_a_model_of_english_alone_says_so() -> None:
    made = server()
    made.models._entries["nano"].model = SimpleNamespace(is_multilingual=False)  # type: ignore[assignment]
    assert info(made.models).data["asr"][0]["models"][0]["languages"] == ["en"]


def heard(samples: Any, rate: int = 16000, width: int = 2, channels: int = 1, piece: int = 1000) -> Any:
    sound, data = Sound(), samples.tobytes()
    size = piece * width * channels
    found = []
    for start in range(0, len(data), size):
        fields = {"rate": rate, "width": width, "channels": channels, "timestamp": None}
        found += sound.push(Message("audio-chunk", fields, data[start : start + size]))
    return np.concatenate([*found, sound.finish()])


def test_widths_and_channels() -> None:
    samples = spoken()
    assert np.array_equal(heard(samples), samples)
    assert np.array_equal(heard(samples.astype(np.int32) << 16, width=4), samples)
    both = np.stack([samples, samples], axis=1)
    assert np.array_equal(heard(both, channels=2), samples)
    apart = np.stack([samples, -samples], axis=1)
    assert not heard(apart, channels=2).any()


def test_rates() -> None:
    assert len(heard(spoken(), rate=48000)) == pytest.approx(len(spoken()) / 3, abs=16)
    sound = Sound()
    fields = {"width": 2, "channels": 1}
    for rate in (8000, 48000, 16000):  # changed within an utterance
        sound.push(Message("audio-chunk", {"rate": rate, **fields}, bytes(3200)))
    assert len(sound.finish()) == 0


@pytest.mark.parametrize(
    "changed",
    [{"rate": 7999}, {"rate": 96000}, {"rate": None}, {"rate": True}, {"width": 3}, {"width": 1}, {"width": []},
     {"channels": 0}, {"channels": 9}, {"channels": "1"}, {"width": 4}],
)  # fmt: skip
def test_sound_of_another_form(changed: Any) -> None:
    with pytest.raises(RequestError):
        Sound().push(Message("audio-chunk", {"rate": 16000, "width": 2, "channels": 1, **changed}, b"ab"))
    assert Sound().push(Message("audio-chunk", {"rate": 16000, "width": 2, "channels": 1}))[0].size == 0
