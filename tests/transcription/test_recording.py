"""One recording: the functions that programs replace, and who is told what."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest

from whisper.model import Whisper
from whisper.spans import SAMPLE_RATE
from whisper.speakers.diarization import Diarization, Hints, Sound, Turn
from whisper.speech.vad import Speech
from whisper.transcription.recording import without_pauses

from ..models import random_model

TRANSCRIBE = importlib.import_module("whisper.transcribe")  # the function of that name hides the module
OPTIONS: dict[str, Any] = {"language": "en", "temperature": 0, "sample_len": 12, "fp16": False}


@pytest.fixture(scope="module")
def model() -> Whisper:
    return random_model(2)


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    return np.random.default_rng(0).normal(size=16000 * 4).astype(np.float32) * 0.1


def test_replaced_word_times_are_used_and_know_no_fast_path(
    model: Whisper, sound: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[dict[str, Any]] = []

    def mine(**arguments: Any) -> None:
        calls.append(arguments)
        for segment in arguments["segments"]:
            segment["words"] = [{"word": " mine", "start": 0.5, "end": 1.0, "probability": 1.0}]

    monkeypatch.setattr(TRANSCRIBE, "add_word_timestamps", mine)
    result = model.transcribe(sound, word_timestamps=True, **OPTIONS)
    assert {word["word"] for segment in result["segments"] for word in segment["words"]} == {" mine"}
    assert calls
    assert all("mel" in arguments and "attention" not in arguments for arguments in calls)


def test_a_replaced_spectrogram_is_used(model: Whisper, sound: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, real, calls = model.transcribe(sound, **OPTIONS), TRANSCRIBE.log_mel_spectrogram, []

    def mine(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        return real(*arguments, **options)

    monkeypatch.setattr(TRANSCRIBE, "log_mel_spectrogram", mine)
    assert model.transcribe(sound, **OPTIONS) == expected
    assert len(calls) == 1


@pytest.mark.parametrize(
    "function", ["transcribe", "transcribe_with_report", "iter_segments", "iter_segments_with_report"]
)
def test_warnings_about_options_are_for_the_line_that_calls(model: Whisper, sound: np.ndarray, function: str) -> None:
    with pytest.warns(UserWarning, match="carry_initial_prompt has no effect") as caught:
        getattr(TRANSCRIBE, function)(model, sound, carry_initial_prompt=True, **OPTIONS)
    assert caught[0].filename == __file__


def test_pauses_are_skipped_from_4_s_on_where_windows_are_to_be_full() -> None:
    spans = ((1.0, 20.0), (22.5, 40.0), (45.0, 60.0))  # pauses of 2.5 and 5 s, and 10 s at the end
    speech = Speech(spans, np.zeros(0, np.float32), 70.0, "silero")
    assert without_pauses(speech, 7000, fills_windows=True) == [(0, 4000), (4500, 6000)]
    assert without_pauses(speech, 7000, fills_windows=False) == [(100, 2000), (2250, 4000), (4500, 6000)]
    late = Speech(((5.0, 20.0),), np.zeros(0, np.float32), 21.0, "silero")
    assert without_pauses(late, 2100, fills_windows=True) == [(500, 2000)]
    assert without_pauses(Speech((), np.zeros(0, np.float32), 9.0, "silero"), 900, fills_windows=True) == []


def test_the_screen_shows_the_parts_of_segments_with_their_speakers(
    model: Whisper, sound: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    def each_second(sound: Sound, hints: Hints) -> Diarization:
        turns = tuple(Turn(i, i + 1.0, f"SPEAKER_{i % 2:02}") for i in range(len(sound) // SAMPLE_RATE))
        return Diarization(turns, turns, ("SPEAKER_00", "SPEAKER_01"))

    options = OPTIONS | {"hotwords": ["a", "the"], "hotword_boost": 100.0, "speaker_backend": each_second}
    result = model.transcribe(sound, verbose=True, speakers=2, **options)
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith("[")]
    written = [segment for segment in result["segments"] if segment["text"].strip()]
    assert [line.partition("]  ")[2] for line in shown] == [f"{s['speaker']}:{s['text']}" for s in written]
    assert {segment["speaker"] for segment in written} == {"SPEAKER_00", "SPEAKER_01"}
