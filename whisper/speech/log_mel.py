"""Log-mel spectrograms by NumPy, for those who do without torch: what `audio` computes, up to the last bits."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ..audio import BLOCK_FRAMES, N_FFT
from ..spans import HOP_LENGTH

Floats: TypeAlias = npt.NDArray[np.float32]

AT_ONCE = 250  # frames: their spectra take 0.4 MB, which stay in the processor's cache


@lru_cache(maxsize=2)
def filters(n_mels: int) -> Floats:
    """The matrix from power spectrum to mel bands, shape ``(n_mels, 201)``, as `audio.mel_filters`."""
    path = Path(__file__).parent.parent / "assets" / "mel_filters.npz"
    with np.load(path, allow_pickle=False) as file:
        found: Floats = file[f"mel_{n_mels}"]
    return found


@lru_cache(maxsize=1)
def _window() -> Floats:
    """A Hann window, periodic."""
    angles = np.arange(N_FFT) * (2 * np.pi / N_FFT)
    window: Floats = (0.5 - 0.5 * np.cos(angles)).astype(np.float32)
    return window


def log_power(read: Callable[[int, int], Floats], total: int, start: int, stop: int, bands: Floats) -> Floats:
    """Frames `start` to `stop` in log10 power, shape ``(n_mels, n)``.

    Parameters
    ----------
    read
        ``read(begin, end)`` gives samples, ``(n,)``, fewer where the sound ends.
    total
        Samples of the sound with the zeros that are thought to follow it.
    start, stop
        Frames, of which there are ``total // 160``.
    bands
        From `filters`.
    """
    half = N_FFT // 2
    first, last = start * HOP_LENGTH - half, (stop - 1) * HOP_LENGTH + half  # before the mirrors
    begin, end = max(first, 0), min(max(last, half + 1), total)  # a mirror needs 201 samples
    piece = read(begin, end)
    log = np.full((len(bands), stop - start), -10, np.float32)  # of zeros, as in the half minute behind every recording
    if len(piece) == 0:
        return log
    piece = np.pad(piece, (0, end - begin - len(piece)))
    piece = np.pad(piece, (begin - first, max(last - total, 0)), mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(piece, N_FFT)[::HOP_LENGTH][: stop - start]
    for i in range(0, len(frames), AT_ONCE):
        spectrum = np.fft.rfft(frames[i : i + AT_ONCE] * _window())  # (n, 201)
        power = spectrum.real**2 + spectrum.imag**2
        log[:, i : i + AT_ONCE] = np.log10(np.maximum(bands @ power.T.astype(np.float32), 1e-10))
    return log


def leveled(log: Floats, loudest: float) -> Floats:
    """Bring log10 power to what a model takes, in place: from 2 below the loudest value up to it."""
    np.maximum(log, loudest - np.float32(8), out=log)
    log += np.float32(4)
    log /= np.float32(4)
    return log


def log_mel_spectrogram(samples: Floats, n_mels: int, padding: int) -> Floats:
    """Compute the spectrogram of samples and zeros behind them, ``(n_mels, n_frames)``; see `audio`."""
    total, bands = len(samples) + padding, filters(n_mels)
    n_frames = total // HOP_LENGTH
    log = np.empty((n_mels, n_frames), np.float32)
    for start in range(0, n_frames, BLOCK_FRAMES):
        stop = min(start + BLOCK_FRAMES, n_frames)
        log[:, start:stop] = log_power(lambda begin, end: samples[begin:end], total, start, stop, bands)
    return leveled(log, log.max())
