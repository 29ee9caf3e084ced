"""Data augmentation: each function does what its name says, at any number of bands."""

from __future__ import annotations

import numpy as np
import pytest

from whisper.training import augmentation
from whisper.training.feature_store import LOG_POWER_FLOOR, log_power


def tone(n_frames: int = 100, n_mels: int = 80, band: int = 20) -> np.ndarray:
    power = np.full((n_frames, n_mels), -5.0, dtype=np.float32)
    power[:, band] = 0.0
    return power


@pytest.mark.parametrize("n_mels", [80, 128])
def test_band_centres_match_the_mel_filters(n_mels):
    for hertz in (400, 1500, 5000):
        wave = np.sin(2 * np.pi * hertz * np.arange(16000) / 16000).astype(np.float32)
        loudest = int(log_power(wave, n_mels)[50].argmax())
        nearest = int(np.abs(augmentation.band_centres(n_mels) - hertz).argmin())
        assert abs(loudest - nearest) <= 1


def test_a_sum_of_powers_is_a_sum():
    a, b = tone(band=20), tone(band=30)
    summed = augmentation.add_powers(a, b)
    np.testing.assert_allclose(10.0**summed, 10.0**a + 10.0**b, rtol=1e-4)
    np.testing.assert_allclose(augmentation.add_powers(a, np.full_like(a, LOG_POWER_FLOOR)), a, atol=1e-4)


def test_tempo_changes_times_and_not_bands():
    power = np.full((100, 80), -5.0, dtype=np.float32)
    power[40:60, 20] = 0.0
    for tempo in (0.8, 1.25, 2.0):
        changed = augmentation.resample_time(power, tempo)
        loud = np.flatnonzero(changed[:, 20] > -2.5)
        assert len(changed) == round(100 / tempo)
        assert abs(loud[0] - 40 / tempo) <= 1
        assert abs(loud[-1] + 1 - 60 / tempo) <= 1
        assert changed[:, 21].max() == -5.0
    assert len(augmentation.resample_time(power[:1], 1.3)) >= 1


def test_a_shorter_vocal_tract_raises_all_frequencies():
    centres = augmentation.band_centres(80)
    for factor in (0.8, 1.25):
        at = int(augmentation.warp_frequency(tone(band=40), factor)[0].argmax())
        assert abs(centres[at] / (centres[40] * factor) - 1) < 0.06


def test_a_telephone_is_a_low_pass():
    limited = augmentation.limit_band(tone(), 4000)
    assert limited[:, 20].max() == 0.0
    assert limited[:, 75:].max() <= -9.0


def test_reverberation_comes_after_the_signal():
    power = np.full((100, 80), -8.0, dtype=np.float32)
    power[40:50, 20] = 0.0
    wet = augmentation.reverberate(power, 0.5, 0.0)
    assert wet[52, 20] > -3.0
    assert (np.diff(wet[50:68, 20]) < -0.1).all()
    np.testing.assert_allclose(wet[:40, 20], -8.0, atol=0.31)


def test_the_amount_scales_the_changes():
    power = tone(200)
    assert augmentation.change_voice(np.random.default_rng(0), power, amount=0.0) is power

    def spread(amount: float, strong: bool) -> float:
        rng = np.random.default_rng(1)
        lengths = [len(augmentation.change_voice(rng, power, strong, amount)) for _ in range(40)]
        return float(np.std(lengths))

    assert spread(0.2, False) < spread(1.0, False) < spread(1.0, True)


@pytest.mark.parametrize("n_mels", [80, 128])
def test_synthetic_noise_has_the_requested_length(n_mels):
    makers = (augmentation.steady_noise, augmentation.tones, augmentation.bursts, augmentation.background)
    for seed in range(12):
        rng = np.random.default_rng(seed)
        for maker in makers:
            for n_frames in (3, 200):
                made = maker(rng, n_frames, n_mels)
                assert made.shape == (n_frames, n_mels), maker
                assert np.isfinite(made).all(), maker
        changed = augmentation.change_voice(rng, made, strong=True)
        assert changed.dtype == np.float32
        assert np.isfinite(changed).all()
        assert changed.min() >= LOG_POWER_FLOOR


def test_noise_is_reproducible():
    first, again, other = (augmentation.background(np.random.default_rng(seed), 50) for seed in (5, 5, 6))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


class OneMask:
    """A generator that draws exactly one time mask, so that masks cannot overlap."""

    def __init__(self, seed: int) -> None:
        self.integers = np.random.default_rng(seed).integers

    def poisson(self, _: float) -> int:
        return 1


@pytest.mark.parametrize("longest", [1, 2, 3, 22])
def test_masks_are_no_longer_than_the_maximum(longest):
    widths = set()
    for seed in range(60):
        mel = np.random.default_rng([seed, 1]).normal(0, 1, (200, 80)).astype(np.float32)
        before, mean = mel.copy(), mel.mean()
        augmentation.mask(OneMask(seed), mel, longest)
        assert (mel[mel != before] == mean).all()
        frames = np.flatnonzero((mel == mean).all(axis=1))
        assert len(frames) == frames[-1] + 1 - frames[0]
        widths.add(len(frames))
    assert max(widths) <= longest
    assert len(widths) > 8 or longest < 5
