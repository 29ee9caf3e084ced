"""No segment or word of our own modes lies outside the recording; those of the original's algorithm may."""

from __future__ import annotations

import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import whisper
from tests.models import random_model
from whisper.model import Whisper
from whisper.transcription.segments import keep_within, keep_words_within

SAMPLE = Path(__file__).resolve().parent.parent / "examples" / "sample.flac"
RATE = 16000
QUICK: dict[str, Any] = {"fp16": False, "temperature": 0.0, "sample_len": 12, "no_speech_threshold": None}

MODES: list[dict[str, Any]] = [
    {"audit": True}, {"vad_filter": True}, {"batch_size": 2}, {"multilingual": True}, {"channels": "separate"},
    {"audit": True, "clip_timestamps": [0.1, 0.4]}, {"multilingual": True, "clip_timestamps": "0.05,0.2,0.3,99"},
    {"multilingual": True, "without_timestamps": True},
    {"vad_filter": True, "word_timestamps": True, "hallucination_silence_threshold": 0.2},
]  # fmt: skip


@pytest.fixture(scope="module")
def model() -> Whisper:
    return random_model(5, timestamps=1.6)


@pytest.fixture(scope="module")
def said() -> np.ndarray:
    return whisper.load_audio(str(SAMPLE))


def spans(segments: Any) -> list[tuple[float, float]]:
    return [(p["start"], p["end"]) for s in segments for p in (s, *s.get("words", ()))]


def transcribed(model: Whisper, sound: np.ndarray, **options: Any) -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(whisper.iter_segments(model, sound, **{**QUICK, **options}))


@pytest.mark.parametrize("words", [False, True])
@pytest.mark.parametrize("mode", MODES, ids=str)
def test_nothing_lies_outside_the_recording(
    mode: dict[str, Any], words: bool, model: Whisper, said: np.ndarray
) -> None:
    n_segments = 0
    for start, n in ((0.5, 8800), (1.1, 3533), (3.0, 161)):
        sound = said[int(start * RATE) :][:n]
        sound = np.stack([sound, sound[::-1]]) if "channels" in mode else sound
        language = {} if mode.get("multilingual") else {"language": "en"}
        segments = transcribed(model, sound, **{"word_timestamps": words, **mode, **language})
        n_segments += len(segments)
        assert all(0 <= a <= b <= n / RATE for a, b in spans(segments)), spans(segments)
    assert n_segments


def test_the_originals_algorithm_keeps_the_models_times(model: Whisper, said: np.ndarray) -> None:
    segments = transcribed(model, said[8000:16800], language="en")
    assert max(end for _, end in spans(segments)) > 0.55
    assert transcribed(model, said[8000:16800], language="en", batch_size=2, audit=False) == segments
    cut = transcribed(model, said[8000:16800], languages=["en"], multilingual=True)
    assert max(end for _, end in spans(cut)) <= 0.55
    assert [s["tokens"] for s in cut] == [s["tokens"] for s in segments]
    assert [s["seek"] for s in cut] == [s["seek"] for s in segments]


def test_aligned_words_stay_in_the_recording(said: np.ndarray) -> None:
    nano = whisper.load_model("nano", device="cpu")
    for n in (160, 1600):
        for text in ("yes", "one two three " * 20):
            segments = whisper.align(nano, said[8000:][:n], text, language="en")["segments"]
            assert all(0 <= a <= b <= n / RATE for a, b in spans(segments))


# ---------------------------------------------------------------------------------------------------------
# Where they go
# ---------------------------------------------------------------------------------------------------------


def segments_of(*times: tuple[float, float, str]) -> list[Any]:
    return [{"start": start, "end": end, "text": text} for start, end, text in times]


@pytest.mark.parametrize(
    ("stated", "kept"),
    [
        ([(10.0, 11.0, "a")], [(10.0, 11.0)]),
        ([(10.0, 18.0, "too late")], [(10.0, 12.0)]),
        ([(10.0, 11.0, "a"), (11.0, 14.0, "bb"), (14.0, 16.0, "cc")], [(10.0, 11.0), (11.0, 11.5), (11.5, 12.0)]),
        ([(10.0, 11.0, "a"), (20.0, 21.0, "three letters" * 2)], [(10.0, 11.0), (12 - 26 / 30, 12.0)]),
        ([(10.0, 12.0, "a" * 30), (20.0, 21.0, "b" * 30)], [(10.0, 11.0), (11.0, 12.0)]),
        ([(22.0, 24.0, "Six.")], [(12 - 4 / 30, 12.0)]),
        ([(-1000.0, 11.0, "a"), (11.5, 11.2, "b")], [(10.0, 11.0), (11.5, 11.5)]),
        ([(13.0, 13.0, "")], [(12 - 1 / 30, 12.0)]),
    ],
)
def test_times_behind_a_window_move_into_it(
    stated: list[tuple[float, float, str]], kept: list[tuple[float, float]]
) -> None:
    segments = segments_of(*stated)
    keep_within(segments, 10.0, 12.0)
    assert spans(segments) == [pytest.approx(span) for span in kept]


@given(
    steps=st.lists(st.tuples(st.integers(0, 700), st.integers(0, 700), st.text("ab ", max_size=30)), max_size=8),
    frames=st.integers(1, 3000),
)
def test_whatever_the_model_states_is_in_order_and_inside(steps: list[tuple[int, int, str]], frames: int) -> None:
    position, stated = 0, []
    for gap, length, text in steps:
        stated.append((5 + (position + gap) * 0.02, 5 + (position + gap + length) * 0.02, text))
        position += gap + length
    segments, end = segments_of(*stated), 5 + frames / 100
    keep_within(segments, 5.0, end)
    assert [s["text"] for s in segments] == [text for *_, text in stated]
    assert all(5.0 <= a <= b <= end for a, b in spans(segments))
    assert all(a["end"] <= b["start"] + 1e-9 for a, b in pairwise(segments))
    for segment, (start, stop, _) in zip(segments, stated, strict=True):
        assert segment["end"] > segment["start"] or stop == start
    before = spans(segments)
    keep_within(segments, 5.0, end)
    assert spans(segments) == [pytest.approx(span) for span in before]


def test_words_are_cut_down_to_the_sound() -> None:
    words = [{"word": w, "start": a, "end": b} for w, a, b in ((" a", -0.1, 0.2), (" b", 0.3, 0.9), (" c", 0.9, 0.8))]
    segments: list[Any] = [{"start": -0.1, "end": 0.9, "text": " a b c", "words": words}]
    keep_words_within(segments, 0.0, 0.5)
    assert spans(segments) == [(0.0, 0.5), (0.0, 0.2), (0.3, 0.5), (0.5, 0.5)]
