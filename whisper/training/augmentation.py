"""Data augmentation on log10 mel power, ``(n_frames, n_mels)``: voice, room, noise and SpecAugment.

Working on the spectrogram costs a hundredth of working on samples, and features are computed once.
It is an approximation: powers add, phases are ignored. All randomness comes from the generator
passed in. Knows no text and no model.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

Rng = np.random.Generator
LOG_POWER_FLOOR = -10.0  # log10 of the smallest power in the spectrogram: digital silence


@lru_cache(maxsize=2)
def band_centres(n_mels: int) -> np.ndarray:
    """Centre of each mel band in Hz (Slaney's scale: linear to 1 kHz, logarithmic above)."""
    top = 15.0 + 27.0 * np.log(8.0) / np.log(6.4)
    mels = np.linspace(0.0, top, n_mels + 2)[1:-1]
    return np.where(mels < 15.0, mels * 200.0 / 3.0, 1000.0 * np.exp((mels - 15.0) * np.log(6.4) / 27.0))


def add_powers(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Mix two signals given as log10 power."""
    high = np.maximum(a, b)
    summed: np.ndarray = high + np.log10(1.0 + np.power(10.0, np.minimum(a, b) - high, dtype=np.float32))
    return summed


def resample_time(power: np.ndarray, tempo: float) -> np.ndarray:
    """Change the speed by the factor `tempo`, at the same pitch."""
    n_frames = max(round(len(power) / tempo), 2)
    at = np.linspace(0, len(power) - 1, n_frames, dtype=np.float32)
    low = np.minimum(at.astype(np.int64), len(power) - 2)
    part = (at - low)[:, None].astype(np.float32)
    resampled: np.ndarray = power[low] * (1 - part) + power[low + 1] * part
    return resampled


def warp_frequency(power: np.ndarray, factor: float) -> np.ndarray:
    """Scale all frequencies by `factor`; above 1: a shorter vocal tract and a higher pitch."""
    n_mels = power.shape[1]
    centres = band_centres(n_mels)
    at = np.interp(centres / factor, centres, np.arange(n_mels)).astype(np.float32)
    low = np.minimum(at.astype(np.int64), n_mels - 2)
    part = at - low
    warped: np.ndarray = power[:, low] * (1 - part) + power[:, low + 1] * part
    return warped


def limit_band(power: np.ndarray, cutoff_hz: float) -> np.ndarray:
    """Low-pass at `cutoff_hz`, like a telephone or an 8 kHz file."""
    drop = np.clip((band_centres(power.shape[1]) - cutoff_hz) / 150.0, 0.0, 6.0).astype(np.float32)
    limited: np.ndarray = np.maximum(power - drop, LOG_POWER_FLOOR)
    return limited


def reverberate(power: np.ndarray, seconds: float, level: float) -> np.ndarray:
    """Add reverberation that decays by 60 dB in `seconds`, `level` (log10) below the signal."""
    sound = np.power(10.0, power, dtype=np.float32)
    decay = 10.0 ** (-6.0 / (100.0 * seconds))
    tail, total = sound.copy(), sound.copy()
    for _ in range(min(int(seconds * 40), len(power) - 1)):
        tail[1:] = tail[:-1] * decay
        tail[0] = 0.0
        total += tail * 10.0**-level * (1 - decay)
    wet: np.ndarray = np.log10(np.maximum(total, 10**LOG_POWER_FLOOR))
    return wet


def change_voice(rng: Rng, power: np.ndarray, strong: bool = False, amount: float = 1.0) -> np.ndarray:
    """Change tempo, vocal tract, microphone, room and level; `strong` for few speakers."""
    if not amount:
        return power
    spread = amount * (0.22 if strong else 0.12)
    power = resample_time(power, float(np.exp(rng.uniform(-spread, spread))))
    if rng.random() < 0.8:
        power = warp_frequency(power, float(np.exp(rng.uniform(-spread, spread))))
    if rng.random() < 0.7 * amount:
        knots, n_mels = rng.normal(0.0, 0.3, 5), power.shape[1]
        power = power + np.interp(np.arange(n_mels), np.linspace(0, n_mels - 1, 5), knots)
    if rng.random() < 0.3 * amount:
        power = limit_band(power, float(rng.choice([3400, 3800, 4000, 5500, 7000])))
    if rng.random() < 0.15 * amount:
        power = reverberate(power, float(rng.uniform(0.15, 0.7)), float(rng.uniform(0.0, 1.0)))
    scaled: np.ndarray = np.maximum(power + rng.uniform(-1.5, 0.7) * amount, LOG_POWER_FLOOR)
    return scaled.astype(np.float32)


# --------------------------------------------------------------------------------------------------
# Noise
# --------------------------------------------------------------------------------------------------


def steady_noise(rng: Rng, n_frames: int, n_mels: int = 80) -> np.ndarray:
    """Stationary noise of random colour around level 0; wider bands vary less."""
    knots = rng.normal(0.0, 0.5, 6) + np.linspace(0.5, -0.5, 6) * rng.uniform(-0.5, 2.5)
    colour = np.interp(np.arange(n_mels), np.linspace(0, n_mels - 1, 6), knots).astype(np.float32)
    bins = np.maximum(np.diff(band_centres(n_mels), append=8000.0) / 40.0, 1.0)
    shape = bins[None, :].astype(np.float32)
    power = rng.standard_gamma(np.broadcast_to(shape, (n_frames, n_mels)), dtype=np.float32) / shape
    noise: np.ndarray = colour + np.log10(np.maximum(power, 1e-4))
    if rng.random() < 0.3:  # slow modulation of the level
        knots = rng.normal(0.0, 0.7, max(n_frames // int(rng.integers(20, 200)), 2))
        noise = noise + np.interp(np.linspace(0, 1, n_frames), np.linspace(0, 1, len(knots)), knots)[:, None]
    return noise


def tones(rng: Rng, n_frames: int, n_mels: int = 80) -> np.ndarray:
    """Harmonic tones with onsets and glides, like music, a siren or a cry, around level 0."""
    power = np.full((n_frames, n_mels), 10.0 ** (LOG_POWER_FLOOR + 2), dtype=np.float32)
    centres, time = band_centres(n_mels), 0
    glide = rng.uniform(0, 0.5)
    if rng.random() >= 0.5:
        glide = 0.0
    base = float(np.exp(rng.uniform(4.6, 7.3)))  # Hz
    while time < n_frames:
        length = min(int(rng.integers(8, 150)), n_frames - time)
        pitch = base * 2.0 ** (rng.integers(-7, 8) / 12.0) * np.exp(np.linspace(0, rng.normal(0, glide), length))
        fade = rng.uniform(0.0, 4.0) * np.linspace(0, 1, length)
        slope = rng.uniform(0.1, 1.5)
        for harmonic in range(1, 25):
            band = np.interp(pitch * harmonic, centres, np.arange(n_mels), right=np.nan)
            audible = ~np.isnan(band)
            frames = time + np.flatnonzero(audible)
            level = -slope * np.log2(harmonic) - fade[audible]
            power[frames, np.rint(band[audible]).astype(int)] += 10.0**level
        gap = int(rng.integers(0, 60))
        time += length + (gap if rng.random() < 0.5 else 0)
    tonal: np.ndarray = np.log10(power)
    return tonal


def bursts(rng: Rng, n_frames: int, n_mels: int = 80) -> np.ndarray:
    """Noise bursts with a sharp onset and a decay, like knocks, barks or claps, around level 0."""
    power = steady_noise(rng, n_frames, n_mels)
    level = np.full(n_frames, -4.0, dtype=np.float32)
    for _ in range(int(rng.integers(1, max(n_frames // 40, 2) + 1))):
        start, speed = int(rng.integers(0, n_frames)), rng.uniform(0.01, 0.4)
        decay = rng.uniform(-1.0, 0.5) - speed * np.arange(n_frames - start)
        level[start:] = np.maximum(level[start:], decay)
    shaped: np.ndarray = power + level[:, None]
    return shaped


def background(rng: Rng, n_frames: int, n_mels: int = 80) -> np.ndarray:
    """Synthetic background around level 0: noise, tones, bursts, or a mixture of two."""
    makers = (steady_noise, tones, bursts)
    kind = rng.choice(4, p=[0.5, 0.2, 0.2, 0.1])
    if kind < 3:
        return makers[kind](rng, n_frames, n_mels)
    first, second = (makers[i](rng, n_frames, n_mels) for i in rng.choice(3, 2, replace=False))
    return add_powers(first, second + rng.uniform(-1, 1))


def mask(rng: Rng, mel: np.ndarray, longest: int) -> None:
    """SpecAugment in place: mask bands and times (up to `longest` frames) of `mel`."""
    fill, n_mels = float(mel.mean()), mel.shape[1]
    for _ in range(int(rng.integers(0, 3))):
        width, start = int(rng.integers(1, 11)), int(rng.integers(0, n_mels - 10))
        mel[:, start : start + width] = fill
    for _ in range(int(rng.poisson(len(mel) / 250))):
        least = min(3, longest)
        width, start = int(rng.integers(least, max(longest, least + 1))), int(rng.integers(0, len(mel)))
        mel[start : start + width] = fill
