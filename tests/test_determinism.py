"""Same audio, options and seed: the same result, whatever runs beside it, and on any number of threads."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import whisper
from whisper.model import Whisper

SAMPLE = Path(__file__).resolve().parent.parent / "examples" / "sample.flac"
OPTIONS: dict[str, dict[str, Any]] = {
    "float32": {"fp16": False},
    "words": {"word_timestamps": True},
    "audit": {"audit": True, "word_timestamps": True},
    "vad": {"vad_filter": True, "beam_size": 2},
    "hotwords": {"hotwords": ["mirror", "alexa"], "fp16": False},
    "hot": {"temperature": (0.4, 1.0), "best_of": 3, "logprob_threshold": 0.0},
}
GIVEN = {"language": "en", "seed": 7}  # without a seed, what is drawn at random comes from torch's generator


@pytest.fixture(scope="module")
def nano() -> Whisper:
    return whisper.load_model("nano")


@pytest.fixture(scope="module")
def sounds() -> list[Any]:
    said = whisper.load_audio(SAMPLE)
    rng = np.random.default_rng(3)
    noisy = said + 0.02 * rng.standard_normal(len(said)).astype(np.float32)
    return [said, noisy[len(noisy) // 2 :], np.concatenate([said, np.zeros(16000 * 28, np.float32), noisy])]


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "words" else pytest.mark.slow) for name in OPTIONS]
)
def test_neighbours_order_and_threads_change_nothing(nano: Whisper, sounds: list[Any], name: str) -> None:
    options = {**GIVEN, **OPTIONS[name]}
    alone = [nano.transcribe(sound, **options) for sound in sounds]
    assert len({str(result["segments"]) for result in alone}) == len(sounds)  # else any order would do
    torch.set_num_threads(1)
    assert nano.transcribe(sounds[::-1], **options) == alone[::-1]
    torch.set_num_threads(3)
    assert list(whisper.iter_segments(nano, sounds[2], **options)) == alone[2]["segments"]


@pytest.mark.slow
def test_other_options_in_the_same_batch_change_nothing(nano: Whisper, sounds: list[Any]) -> None:
    calls = [(sound, {**GIVEN, **options}) for sound in sounds[::2] for options in OPTIONS.values()]
    alone = [nano.transcribe(sound, **options) for sound, options in calls]
    order = list(range(len(calls)))
    random.Random(5).shuffle(order)
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda i: nano.transcribe(calls[i][0], **calls[i][1]), order))
    assert together == [alone[i] for i in order]
