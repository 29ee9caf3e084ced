"""Forced alignment: correct times for a matching text, none for another."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from whisper.audio import load_audio
from whisper.training.feature_store import log_power

pytest.importorskip("pocketsphinx", reason="word times need pocketsphinx, which is not installed here")

from whisper.training.word_aligner import WordAligner

SAMPLE = Path(__file__).resolve().parent.parent.parent / "examples" / "sample.flac"
TEXT = "computer one two three smart mirror"  # with pauses of 1.2 s after "computer" and "three"


@pytest.fixture(scope="module")
def aligner() -> WordAligner:
    return WordAligner()


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    return load_audio(str(SAMPLE))


def test_word_times_are_correct(aligner, samples):
    times = aligner.align(samples, TEXT)
    assert times is not None
    assert len(times) == 6
    level = log_power(samples).mean(axis=1)
    loud = level > (level.min() + level.max()) / 2
    assert all(0 <= start < end <= len(level) for start, end in times)
    assert all(before[1] <= after[0] for before, after in pairwise(times))
    assert all(loud[start:end].mean() > 0.5 for start, end in times)
    for before, after in ((0, 1), (3, 4)):  # the pauses
        assert times[after][0] - times[before][1] > 80
    assert times[2][0] - times[1][1] < 20


def test_leading_silence_shifts_all_times(aligner, samples):
    whole = aligner.align(samples, TEXT)
    later = aligner.align(np.concatenate([np.zeros(8000, np.float32), samples]), TEXT)
    assert np.abs(np.array(later) - np.array(whole) - 50).max() <= 12


def test_the_extra_word_is_known_and_accents_are_ignored(aligner):
    assert aligner.unknown("snowboy mirror") == []
    assert aligner.unknown("résumé") == []
    assert aligner.unknown("the xyzzyq of qwrtk") == ["xyzzyq", "qwrtk"]


@pytest.mark.parametrize("text", ["", "computer xyzzyq"])
def test_texts_that_cannot_be_aligned_have_no_times(aligner, samples, text):
    assert aligner.align(samples, text) is None


def test_a_text_that_does_not_match_is_refused(aligner, samples):
    right = aligner.align(samples, TEXT)
    assert aligner.align(samples[:4000], TEXT * 20) is None
    assert aligner.align(samples[:800], "one") is None  # too short for any word
    assert aligner.align(samples, TEXT) == right
