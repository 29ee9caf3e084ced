"""The segmentation in integers against the one in float32, where the compiled kernels of this processor have it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from whisper.speakers.networks import choice, packed_segmentation, weights
from whisper.speakers.networks.packed_segmentation import PackedSegmentation
from whisper.speakers.networks.segmentation import CLASSES, HOP, WINDOW, Segmentation, n_frames_of

from .test_segmentation import noise
from .test_voice_encoder import noisy, vowel


@pytest.fixture(scope="module")
def packed() -> PackedSegmentation:
    found = packed_segmentation.packed(weights.load("segmentation"))
    if found is None:
        pytest.skip("the compiled kernels of this processor have no segmentation")
    return found


def voices(n_samples: int, seed: int = 0) -> np.ndarray:
    """Two voices that take turns, with pauses between them, and speak at once at the end."""
    low, high = noisy(vowel(100, 500), seed), noisy(vowel(220, 900), seed + 1)
    pause = 0.1 * noise(8000, seed)
    return np.resize(np.concatenate([low, pause, high, pause, low + high]), n_samples).astype(np.float32)


def test_the_classes_are_nearly_those_of_float32(packed: PackedSegmentation) -> None:
    plain = Segmentation(weights.load("segmentation"), torch.float32)
    sound = np.concatenate([voices(WINDOW), 0.01 * voices(WINDOW, 2), voices(WINDOW, 4) + 0.2])
    starts = [0, WINDOW, 2 * WINDOW]
    expected, found = plain.classes(sound, starts, WINDOW), packed.classes(sound, starts, WINDOW)
    assert 0.2 < CLASSES[expected].any(-1).mean() < 1
    assert (expected != found).mean() < 0.03


def test_a_window_is_read_alike_alone_and_with_others(packed: PackedSegmentation) -> None:
    sound = voices(WINDOW + 20 * 148 * HOP)
    starts = [i * 148 * HOP for i in range(20)]  # more than one task of a thread has
    together = packed.classes(sound, starts, WINDOW)
    for start, classes in zip(starts, together, strict=True):
        assert np.array_equal(packed.classes(sound, [start], WINDOW)[0], classes)


def test_the_number_of_threads_changes_nothing(packed: PackedSegmentation, monkeypatch: pytest.MonkeyPatch) -> None:
    sound, found = voices(WINDOW + 4 * 148 * HOP), []
    for n in (1, 2, 5):
        monkeypatch.setattr(packed_segmentation, "get_num_threads", lambda n=n: n)
        found.append(packed.classes(sound, [0, 148 * HOP, 4 * 148 * HOP], WINDOW))
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


@pytest.mark.parametrize("n_samples", [16_000, 16_001, 54_321, WINDOW - 1])
def test_short_recordings_have_the_frames_of_the_other_network(packed: PackedSegmentation, n_samples: int) -> None:
    assert packed.classes(noise(n_samples), [0], n_samples).shape == (1, n_frames_of(n_samples))


def test_silence_has_no_speakers(packed: PackedSegmentation) -> None:
    for sound in (np.zeros(WINDOW, np.float32), np.full(WINDOW, 0.1, np.float32)):
        assert not packed.classes(sound, [0], WINDOW).any()


def test_a_window_outside_of_the_sound_is_refused(packed: PackedSegmentation) -> None:
    for start in (-1, 1):
        with pytest.raises(ValueError, match="outside"):
            packed.classes(noise(WINDOW), [start], WINDOW)


def test_a_window_with_too_few_frames_is_refused(packed: PackedSegmentation) -> None:
    with pytest.raises(ValueError, match="too short"):
        packed.classes(noise(1000), [0], 1000)
    assert packed.classes(noise(1261), [0], 1261).shape == (1, 2)


def test_without_kernels_pytorch_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_segmentation.kernels, "load", lambda: None)
    assert packed_segmentation.packed(weights.load("segmentation")) is None
    choice.segmentation.cache_clear()
    try:
        assert isinstance(choice.segmentation(), Segmentation)
    finally:
        choice.segmentation.cache_clear()
