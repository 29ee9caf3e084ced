"""The confidence of words: a probability of being right, made of the probabilities of a segment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import whisper
from tests.models import random_model
from whisper.audit.confidence import (
    CALIBRATIONS,
    FEATURES,
    add_confidences,
    calibration_for,
    features,
    least_confident,
    rate_words,
    word_confidences,
)
from whisper.audit.report import Report
from whisper.errors import OptionError
from whisper.model import ModelDimensions

SAMPLE = Path(__file__).resolve().parent.parent.parent / "examples" / "sample.flac"
TINY_EN = ModelDimensions(80, 1500, 384, 6, 4, 51864, 448, 384, 6, 4)
BASE = ModelDimensions(80, 1500, 512, 8, 6, 51865, 448, 512, 8, 6)


def segment(*probabilities: float) -> Any:
    words = [
        {"word": f" w{i}", "start": float(i), "end": i + 0.5, "probability": p} for i, p in enumerate(probabilities)
    ]
    return {"start": 0.0, "end": float(len(words)), "text": "", "words": words}


@pytest.mark.parametrize("name", list(CALIBRATIONS))
@given(probabilities=st.lists(st.floats(0, 1), max_size=8), i=st.integers(0, 7), more=st.floats(0, 1))
def test_a_more_probable_word_is_never_less_trusted(name: str, probabilities: list[float], i: int, more: float) -> None:
    before = word_confidences(segment(*probabilities), CALIBRATIONS[name])
    assert all(0 < c < 1 for c in before)
    if i < len(probabilities):
        probabilities[i] = max(probabilities[i], more)
        after = word_confidences(segment(*probabilities), CALIBRATIONS[name])
        assert all(a >= b for a, b in zip(after, before, strict=True))


def test_features_are_those_of_the_word_of_its_neighbours_and_of_the_segment() -> None:
    own, low, mean = zip(*features(segment(0.5, 0.9, 0.5, 0.5)), strict=True)
    assert own[0] == own[2] == 0 < own[1]
    assert low == (0, 0, 0, 0)
    assert len(set(mean)) == 1
    assert mean[0] == pytest.approx(own[1] / 4)
    assert features(segment()) == []
    assert {len(c.weights) for c in CALIBRATIONS.values()} == {len(FEATURES)}


def test_each_model_has_its_own_numbers_or_the_general_ones() -> None:
    assert calibration_for(TINY_EN) is CALIBRATIONS["tiny.en"]
    assert calibration_for(BASE) is CALIBRATIONS["base"]
    assert calibration_for(random_model(0).dims) is CALIBRATIONS["general"]


def test_what_is_least_confident() -> None:
    words = rate_words([segment(0.9, 0.1, 0.95, 0.5), segment(0.4)], CALIBRATIONS["general"])
    assert [word.word for word in words] == ["w0", "w1", "w2", "w3", "w0"]
    assert least_confident(words, 0.2) == [words[1]]
    assert least_confident(words, 0.21) == [words[1], words[4]]
    assert least_confident(words, 0) == [] == least_confident([], 0.5)
    assert least_confident(words, 1) == words


def test_the_report_has_the_words_of_all_channels() -> None:
    reports = [Report(), Report()]
    reports[0].close([segment(0.9, 0.3)], None, CALIBRATIONS["base"])
    reports[1].close([segment(0.1)], None, CALIBRATIONS["base"])
    both = Report.of_channels(reports, "en")
    assert [(word.word, word.channel) for word in both.words] == [("w0", 0), ("w0", 1), ("w1", 0)]
    assert [word.channel for word in both.doubtful_words(0.3)] == [1]
    assert len(both.to_dict()["words"]) == 3
    with pytest.raises(OptionError, match="from 0 to 1, not 20"):
        both.doubtful_words(20)


def test_a_confidence_beside_the_probability() -> None:
    segments = [segment(0.9, 0.1), {"start": 0.0, "end": 1.0, "text": " no words"}]
    add_confidences(segments, CALIBRATIONS["general"])
    good, bad = segments[0]["words"]
    assert good["confidence"] > bad["confidence"]
    assert good["probability"] == 0.9


@pytest.mark.parametrize("mode", [{}, {"batch_size": 2}, {"channels": "separate"}], ids=str)
def test_the_option_adds_it_and_nothing_else(mode: dict[str, Any]) -> None:
    model = random_model(5, timestamps=1.6)
    sound = whisper.load_audio(str(SAMPLE))[8000:16800]
    sound = np.stack([sound, sound[::-1]]) if "channels" in mode else sound
    options = {"language": "en", "temperature": 0.0, "sample_len": 12, "no_speech_threshold": None,
               "word_timestamps": True, "audit": False, "fp16": False, **mode}  # fmt: skip
    plain = whisper.transcribe(model, sound, **options)
    rated, report = whisper.transcribe_with_report(model, sound, word_confidence=True, **options)
    found = [word.pop("confidence") for s in rated["segments"] for word in s["words"]]
    assert found
    assert rated == plain
    assert sorted(found) == sorted(word.confidence for word in report.words)
