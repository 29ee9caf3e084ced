"""Where speech begins and ends, step by step."""

from __future__ import annotations

import numpy as np
import pytest

import whisper
from whisper.errors import ModelNotFoundError
from whisper.live import endpoints
from whisper.live.endpoints import STEP_SECONDS, Change, Endpointer, SpeechProbabilities
from whisper.speech import silero
from whisper.speech.vad import STEP

from ..conftest import ROOT


def reading(seconds: float) -> np.ndarray:
    return whisper.load_audio(str(ROOT / "examples" / "reading.opus"))[: int(seconds * 16000)]


def steps(samples: np.ndarray) -> list[np.ndarray]:
    return [samples[i : i + STEP] for i in range(0, len(samples) - STEP + 1, STEP)]


def changes(endpointer: Endpointer, probabilities: list[float]) -> list[tuple[int, Change]]:
    found = [(i, endpointer.take(probability)) for i, probability in enumerate(probabilities)]
    return [(i, change) for i, change in found if change is not None]


def test_a_click_is_no_speech() -> None:
    assert changes(Endpointer(0.5, 0.5), [0.9, 0.1, 0.9, 0.1, 0.9, 0.2]) == []


def test_speech_stops_after_enough_silence_and_not_in_a_short_pause() -> None:
    n = round(0.5 / STEP_SECONDS)
    probabilities = [0.9] * 10 + [0.1] * (n - 1) + [0.9] * 5 + [0.1] * n
    assert changes(Endpointer(0.5, 0.5), probabilities) == [
        (1, Change.STARTED),
        (len(probabilities) - 1, Change.STOPPED),
    ]


def test_a_doubtful_step_ends_no_speech_and_begins_none() -> None:
    n = round(0.5 / STEP_SECONDS)
    assert changes(Endpointer(0.5, 0.5), [0.4] * 3 * n) == []
    assert changes(Endpointer(0.5, 0.5), [0.9, 0.9] + [0.4] * 3 * n) == [(1, Change.STARTED)]
    # but in a silence it goes on with it
    assert changes(Endpointer(0.5, 0.5), [0.9, 0.9, 0.1] + [0.4] * (n - 1))[-1] == (n + 1, Change.STOPPED)


def test_it_speaks_again() -> None:
    n = round(0.1 / STEP_SECONDS)
    once = [0.9] * 3 + [0.0] * n
    assert [change for _, change in changes(Endpointer(0.5, 0.1), once * 2)] == [Change.STARTED, Change.STOPPED] * 2


def test_real_speech_is_found_and_silence_is_not() -> None:
    detect = SpeechProbabilities.best()
    quiet = [detect.next(step) for step in steps(np.zeros(32000, np.float32))]
    speech = [detect.next(step) for step in steps(reading(4))]
    assert max(quiet) < 0.3
    assert np.mean(np.array(speech[10:]) > 0.5) > 0.7


def test_quiet_speech_is_found_too() -> None:
    detect = SpeechProbabilities.best()
    speech = [detect.next(step) for step in steps(reading(4) * np.float32(0.02))]
    assert np.mean(np.array(speech[10:]) > 0.5) > 0.6


def test_without_silero_loudness_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> silero.Network:
        raise ModelNotFoundError("not installed")

    monkeypatch.setattr(endpoints.silero, "load", missing)
    detect = SpeechProbabilities.best()
    noise = (np.random.default_rng(0).normal(size=16000) * 1e-3).astype(np.float32)
    before = [detect.next(step) for step in steps(noise)]
    speech = [detect.next(step) for step in steps(reading(3))]
    assert max(before) < 0.5
    assert np.mean(np.array(speech[10:]) > 0.5) > 0.6
    assert detect.next(np.zeros(STEP, np.float32)) == 0.0
