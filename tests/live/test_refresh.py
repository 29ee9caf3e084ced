"""A refresh: words with times, which continue what is known, from no more sound than there is."""

from __future__ import annotations

import numpy as np
import pytest

import whisper
from whisper.errors import CancelledError
from whisper.live.options import LiveOptions
from whisper.live.refresh import Refresher, seconds_of
from whisper.model import Whisper

from ..conftest import ROOT
from ..models import random_model
from ..real_models import load_installed, needs


def reading(seconds: float) -> np.ndarray:
    return whisper.load_audio(str(ROOT / "examples" / "reading.opus"))[: int(seconds * 16000)]


@pytest.fixture(scope="module")
def nano() -> Whisper:
    return whisper.load_model("nano", device="cpu")


def test_the_encoder_reads_the_sound_and_three_seconds(nano: Whisper, encoded: list[int]) -> None:
    Refresher(nano).refresh(reading(3), LiveOptions(language="en"))
    assert encoded == [600]


def test_words_have_ends_in_their_order_within_the_sound(nano: Whisper) -> None:
    hypothesis = Refresher(nano).refresh(reading(4), LiveOptions(language="en"))
    assert hypothesis is not None
    ends = [word.end for word in hypothesis.words]
    assert ends == sorted(ends)
    assert 0 < ends[-1] <= 4
    assert hypothesis.language == "en"


def test_a_hypothesis_begins_with_what_is_known(nano: Whisper) -> None:
    refresher, options = Refresher(nano), LiveOptions(language="en")
    first = refresher.refresh(reading(4), options)
    assert first is not None
    known = [token for word in first.words[:2] for token in word.tokens]
    second = refresher.refresh(reading(5), options, known, "en")
    assert second is not None
    assert [token for word in second.words for token in word.tokens][: len(known)] == known


def test_it_ends_when_it_is_told_to(nano: Whisper) -> None:
    with pytest.raises(CancelledError):
        Refresher(nano).refresh(reading(4), LiveOptions(language="en"), stop=lambda: True)


def test_a_text_without_end_is_no_hypothesis() -> None:
    endless = random_model(2, n_state=32, n_head=1, n_audio_layer=1, n_text_layer=1)
    noise = (np.random.default_rng(0).normal(size=16000) * 0.1).astype(np.float32)
    assert Refresher(endless).refresh(noise, LiveOptions(language="en")) is None


def test_a_model_with_hooks_hears_thirty_seconds(nano: Whisper, encoded: list[int]) -> None:
    handle = nano.encoder.register_forward_hook(lambda *_: None)
    try:
        hypothesis = Refresher(nano).refresh(reading(3), LiveOptions(language="en"))
    finally:
        handle.remove()
    assert encoded == []
    assert hypothesis is not None
    assert hypothesis.words


def test_seconds_are_whole_frames() -> None:
    assert seconds_of(np.zeros(16000 + 159, np.float32)) == 1.0


@pytest.mark.slow
@needs("base")
def test_the_language_is_detected_and_words_are_right() -> None:
    model = load_installed("base")
    hypothesis = Refresher(model).refresh(reading(6), LiveOptions())
    assert hypothesis is not None
    assert hypothesis.language == "en"
    assert "only sense" in "".join(word.text for word in hypothesis.words)
