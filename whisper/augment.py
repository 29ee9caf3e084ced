"""Changes of voice, room and noise, made on log10 mel power of shape ``(n_frames, n_mels)``.

Working on the spectrogram costs a hundredth of working on samples, and features are computed once. It stays an
approximation: powers add, phases are ignored. Uses only the generator it is given; knows no text and no model.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from .datasets import SILENT_POWER

Array = np.ndarray
Generator = np.random.Generator


@lru_cache(maxsize=2)
def band_centres(n_mels: int) -> Array:
    """Centre of each mel band in hertz (Slaney's scale: linear to 1 kHz, logarithmic above)."""
    top = 15.0 + 27.0 * np.log(8.0) / np.log(6.4)
    mels = np.linspace(0.0, top, n_mels + 2)[1:-1]
    return np.where(mels < 15.0, mels * 200.0 / 3.0, 1000.0 * np.exp((mels - 15.0) * np.log(6.4) / 27.0))


def add_powers(a: Array, b: Array) -> Array:
    """Sum of two sounds given as log10 power."""
    high = np.maximum(a, b)
    summed: Array = high + np.log10(1.0 + np.power(10.0, np.minimum(a, b) - high, dtype=np.float32))
    return summed


def resample_time(power: Array, tempo: float) -> Array:
    """Play `tempo` times as fast, at the same pitch."""
    n_frames = max(round(len(power) / tempo), 2)
    at = np.linspace(0, len(power) - 1, n_frames, dtype=np.float32)
    low = np.minimum(at.astype(np.int64), len(power) - 2)
    part = (at - low)[:, None].astype(np.float32)
    resampled: Array = power[low] * (1 - part) + power[low + 1] * part
    return resampled


def warp_frequency(power: Array, factor: float) -> Array:
    """Move everything up in frequency by `factor`: a shorter vocal tract and a higher pitch."""
    n_mels = power.shape[1]
    centres = band_centres(n_mels)
    at = np.interp(centres / factor, centres, np.arange(n_mels)).astype(np.float32)
    low = np.minimum(at.astype(np.int64), n_mels - 2)
    part = at - low
    warped: Array = power[:, low] * (1 - part) + power[:, low + 1] * part
    return warped


def limit_band(power: Array, cutoff_hz: float) -> Array:
    """Take away what is above `cutoff_hz`, as a telephone or an 8 kHz file does."""
    drop = np.clip((band_centres(power.shape[1]) - cutoff_hz) / 150.0, 0.0, 6.0).astype(np.float32)
    limited: Array = np.maximum(power - drop, SILENT_POWER)
    return limited


def reverberate(power: Array, seconds: float, level: float) -> Array:
    """Add a tail that falls by 60 dB in `seconds`, starting at `level` (log10) below the sound."""
    sound = np.power(10.0, power, dtype=np.float32)
    decay = 10.0 ** (-6.0 / (100.0 * seconds))
    tail, total = sound.copy(), sound.copy()
    for _ in range(min(int(seconds * 40), len(power) - 1)):
        tail[1:] = tail[:-1] * decay
        tail[0] = 0.0
        total += tail * 10.0**-level * (1 - decay)
    wet: Array = np.log10(np.maximum(total, 10**SILENT_POWER))
    return wet


def change_voice(rng: Generator, power: Array, strong: bool = False, amount: float = 1.0) -> Array:
    """Another tempo, vocal tract, microphone, room and level, by `amount`; `strong` where few voices say the same."""
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
    lifted: Array = np.maximum(power + rng.uniform(-1.5, 0.7) * amount, SILENT_POWER)
    return lifted.astype(np.float32)


# ---------------------------------------------------------------------------------------------------------
# Noise
# ---------------------------------------------------------------------------------------------------------


def steady_noise(rng: Generator, n_frames: int, n_mels: int = 80) -> Array:
    """Noise of a random colour around level 0; its upper bands flicker less, as they hold more bins."""
    knots = rng.normal(0.0, 0.5, 6) + np.linspace(0.5, -0.5, 6) * rng.uniform(-0.5, 2.5)
    colour = np.interp(np.arange(n_mels), np.linspace(0, n_mels - 1, 6), knots).astype(np.float32)
    bins = np.maximum(np.diff(band_centres(n_mels), append=8000.0) / 40.0, 1.0)
    shape = bins[None, :].astype(np.float32)
    flicker = rng.standard_gamma(np.broadcast_to(shape, (n_frames, n_mels)), dtype=np.float32) / shape
    noise: Array = colour + np.log10(np.maximum(flicker, 1e-4))
    if rng.random() < 0.3:  # coming and going
        knots = rng.normal(0.0, 0.7, max(n_frames // int(rng.integers(20, 200)), 2))
        noise = noise + np.interp(np.linspace(0, 1, n_frames), np.linspace(0, 1, len(knots)), knots)[:, None]
    return noise


def tones(rng: Generator, n_frames: int, n_mels: int = 80) -> Array:
    """A melody, a siren or a cry: harmonic tones that start, glide and stop, around level 0."""
    power = np.full((n_frames, n_mels), 10.0 ** (SILENT_POWER + 2), dtype=np.float32)
    centres, time = band_centres(n_mels), 0
    glide, base = rng.uniform(0, 0.5) * (rng.random() < 0.5), float(np.exp(rng.uniform(4.6, 7.3)))
    while time < n_frames:
        length = min(int(rng.integers(8, 150)), n_frames - time)
        pitch = base * 2.0 ** (rng.integers(-7, 8) / 12.0) * np.exp(np.linspace(0, rng.normal(0, glide), length))
        fade = rng.uniform(0.0, 4.0) * np.linspace(0, 1, length)
        slope = rng.uniform(0.1, 1.5)
        for harmonic in range(1, 25):
            band = np.interp(pitch * harmonic, centres, np.arange(n_mels), right=np.nan)
            sounds = ~np.isnan(band)
            rows = time + np.flatnonzero(sounds)
            power[rows, np.rint(band[sounds]).astype(int)] += 10.0 ** (-slope * np.log2(harmonic) - fade[sounds])
        time += length + int(rng.integers(0, 60) * (rng.random() < 0.5))
    tonal: Array = np.log10(power)
    return tonal


def bursts(rng: Generator, n_frames: int, n_mels: int = 80) -> Array:
    """Knocks, barks, claps, drops: noise that starts at once and dies away, around level 0."""
    power = steady_noise(rng, n_frames, n_mels)
    level = np.full(n_frames, -4.0, dtype=np.float32)
    for _ in range(int(rng.integers(1, max(n_frames // 40, 2) + 1))):
        start, speed = int(rng.integers(0, n_frames)), rng.uniform(0.01, 0.4)
        decay = rng.uniform(-1.0, 0.5) - speed * np.arange(n_frames - start)
        level[start:] = np.maximum(level[start:], decay)
    shaped: Array = power + level[:, None]
    return shaped


def background(rng: Generator, n_frames: int, n_mels: int = 80) -> Array:
    """Some sound without speech around level 0: noise mostly, tones and bursts at times, or several."""
    makers = (steady_noise, tones, bursts)
    kind = rng.choice(4, p=[0.5, 0.2, 0.2, 0.1])
    if kind < 3:
        return makers[kind](rng, n_frames, n_mels)
    first, second = (makers[i](rng, n_frames, n_mels) for i in rng.choice(3, 2, replace=False))
    return add_powers(first, second + rng.uniform(-1, 1))


def mask(rng: Generator, mel: Array, longest: int) -> None:
    """Blank bands and times (up to `longest` frames) of `mel`, ``(n_frames, n_mels)``, in place (SpecAugment)."""
    fill, n_mels = float(mel.mean()), mel.shape[1]
    for _ in range(int(rng.integers(0, 3))):
        width, start = int(rng.integers(1, 11)), int(rng.integers(0, n_mels - 10))
        mel[:, start : start + width] = fill
    for _ in range(int(rng.poisson(len(mel) / 250))):
        least = min(3, longest)
        width, start = int(rng.integers(least, max(longest, least + 1))), int(rng.integers(0, len(mel)))
        mel[start : start + width] = fill
