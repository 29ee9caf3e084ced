"""From sound to what the encoder reads: 16 kHz mono samples, 30-second windows, log-mel spectrograms.

Knows nothing of models, and does not decode containers itself (`media.py` does).
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from . import media
from .errors import AudioError, OptionError, ShapeError

SAMPLE_RATE = 16000  # hertz; the only rate that the models know
N_FFT = 400  # samples under one window: 25 ms
HOP_LENGTH = 160  # samples from one frame to the next: 10 ms
CHUNK_LENGTH = 30  # seconds that the encoder reads at once
N_SAMPLES = CHUNK_LENGTH * SAMPLE_RATE  # 480000
N_FRAMES = N_SAMPLES // HOP_LENGTH  # 3000 frames of mel
N_SAMPLES_PER_TOKEN = HOP_LENGTH * 2  # the encoder's second convolution halves the frames
FRAMES_PER_SECOND = SAMPLE_RATE // HOP_LENGTH  # 100
TOKENS_PER_SECOND = SAMPLE_RATE // N_SAMPLES_PER_TOKEN  # 50

MAX_CHANNELS = 8
BLOCK_FRAMES = 4096  # frames transformed at once: memory stays flat however long the sound is

Source: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | np.ndarray | Tensor"


def load_audio(file: Source, sr: int = SAMPLE_RATE, *, rate: int | None = None) -> np.ndarray:
    """Read a recording as mono samples.

    Parameters
    ----------
    file
        A path or URL, the contents of a file, a binary file object, or samples: ``(n_samples,)``, or with
        channels ``(n_channels, n_samples)`` or ``(n_samples, n_channels)``, whichever axis is at most 8 long.
        Integers are scaled by their full range to -1..1; floats are taken as they are.
    sr
        Samples per second of the result.
    rate
        Samples per second of an array; `sr` where not given. A file knows its own.

    Returns
    -------
    float32 samples, shape ``(n_samples,)``; from a file always within -1..1. An array that already is what was
    asked for comes back itself, not as a copy.

    Raises
    ------
    AudioError
        The file is missing, empty, broken or without sound; the samples are not finite.
    ShapeError
        It is not clear which axis of an array holds the channels.
    OptionError
        A rate that is not positive, or a `rate` for something that is no array.
    """
    for name, value in (("sr", sr), ("rate", rate)):
        if value is not None and (int(value) != value or value <= 0):
            raise OptionError(f"{name}={value!r}: a sample rate is a positive whole number of hertz")
    if isinstance(file, (np.ndarray, Tensor)):
        return _load_array(file, int(sr), int(rate or sr))
    if rate is not None:
        raise OptionError(
            "`rate` says how fast an array was sampled; a file says so itself: leave `rate` away"
        )
    samples = media.decode(file, int(sr)).astype(np.float32)
    samples /= 32768.0
    return samples


def pad_or_trim(array: Any, length: int = N_SAMPLES, *, axis: int = -1) -> Any:
    """Cut an array or tensor to `length` along `axis`, or fill it up with zeros on the right."""
    n = array.shape[axis]
    if n > length:
        if isinstance(array, Tensor):
            return array.narrow(axis, 0, length).clone()  # a copy, as a view would keep the whole sound alive
        return array.take(range(length), axis=axis)
    if n < length:
        if isinstance(array, Tensor):
            zeros = list(array.shape)
            zeros[axis] = length - n
            return torch.cat([array, array.new_zeros(zeros)], dim=axis)
        widths = [(0, 0)] * array.ndim
        widths[axis] = (0, length - n)
        return np.pad(array, widths)
    return array


def mel_filters(device: str | torch.device, n_mels: int) -> Tensor:
    """The matrix from power spectrum to mel bands, shape ``(n_mels, 201)``; kept, so not to be changed.

    Slaney's triangles as librosa 0.8 makes them for 16 kHz and 400 samples, from openai-whisper (MIT).
    """
    return _mel_filters(torch.device(device), n_mels)


def log_mel_spectrogram(
    audio: Source,
    n_mels: int = 80,
    padding: int = 0,
    device: str | torch.device | None = None,
) -> Tensor:
    """Compute the log-mel spectrogram of 16 kHz sound.

    Parameters
    ----------
    audio
        Whatever `load_audio` reads, or 16 kHz samples, shape ``(n_samples,)`` or ``(n_batch, n_samples)``.
    n_mels
        Bands: 80 or 128.
    padding
        Zero samples to append first.
    device
        Where to compute; where the samples are, if not given.

    Returns
    -------
    float32, shape ``(n_mels, n_frames)`` or ``(n_batch, n_mels, n_frames)``, ``n_frames = n_samples // 160``.
    Values reach from 2 below the maximum up to it: the maximum over everything given, also over a batch.

    Raises
    ------
    AudioError
        The sound cannot be read, is not finite, or has fewer than 201 samples with the padding.
    """
    if not isinstance(audio, (np.ndarray, Tensor)):
        audio = load_audio(audio)
    samples = _float_samples(audio)
    if samples.ndim not in (1, 2):
        raise ShapeError(
            f"samples of shape {tuple(samples.shape)}; it must be (n_samples,) or (n_batch, n_samples)"
        )
    if device is not None:
        samples = samples.to(device)
    total = samples.shape[-1] + max(padding, 0)
    if total <= N_FFT // 2 or samples.numel() == 0 and padding <= 0:
        raise AudioError(
            f"{samples.shape[-1]} samples are too few for a spectrogram: it takes {N_FFT // 2 + 1}; "
            f"pass padding={N_SAMPLES} to append 30 seconds of silence"
        )
    filters = mel_filters(samples.device, n_mels)
    batch = samples.reshape(-1, samples.shape[-1])
    with torch.autocast(samples.device.type, enabled=False):
        n_frames = total // HOP_LENGTH
        blocks = [
            _log_mel_block(batch, total, start, min(start + BLOCK_FRAMES, n_frames), filters)
            for start in range(0, n_frames, BLOCK_FRAMES)
        ]
        mel = torch.cat(blocks, dim=-1)  # (n_batch, n_mels, n_frames)
        mel = torch.maximum(mel, mel.max() - 8.0)
        mel = (mel + 4.0) / 4.0
    return mel if samples.ndim == 2 else mel[0]


def _log_mel_block(batch: Tensor, total: int, start: int, stop: int, filters: Tensor) -> Tensor:
    """Frames `start` to `stop` of the sound, zeros up to `total` and mirrored at both ends, in log10 power."""
    half = N_FFT // 2
    first, last = start * HOP_LENGTH - half, (stop - 1) * HOP_LENGTH + half
    upto = min(max(last, half + 1), total)
    piece = batch[:, max(first, 0) : upto]
    if (missing := upto - max(first, 0) - piece.shape[-1]) > 0:
        piece = F.pad(piece, (0, missing))
    if first < 0 or last > total:
        piece = F.pad(piece, (max(-first, 0), max(last - total, 0)), mode="reflect")
    window = _window(piece.device)
    spectrum = torch.stft(
        piece, N_FFT, HOP_LENGTH, window=window, center=False, return_complex=True
    )  # (n_batch, 201, n)
    power = spectrum[..., : stop - start].abs().square()
    return (filters @ power).clamp_(min=1e-10).log10()  # (n_batch, n_mels, n)


@lru_cache(maxsize=16)
def _window(device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # what is kept must also serve those who want gradients
        return torch.hann_window(N_FFT).to(device)


@lru_cache(maxsize=16)
def _mel_filters(device: torch.device, n_mels: int) -> Tensor:
    if n_mels not in (80, 128):
        raise OptionError(f"n_mels={n_mels!r}: there are filters for 80 and for 128 mel bands only")
    with (
        torch.inference_mode(False),
        np.load(Path(__file__).with_name("assets") / "mel_filters.npz", allow_pickle=False) as file,
    ):
        return torch.from_numpy(file[f"mel_{n_mels}"]).to(device)


def _float_samples(audio: np.ndarray | Tensor) -> Tensor:
    """The samples as finite float32: integers scaled by their full range, floats as they are."""
    samples = torch.from_numpy(audio) if isinstance(audio, np.ndarray) else audio
    if not samples.is_floating_point():
        samples = samples.float() / 32768 if samples.dtype == torch.int16 else samples.float()
    samples = samples.float()
    if not torch.isfinite(samples).all():
        raise AudioError("not finite")
    return samples


def _load_array(array: np.ndarray | Tensor, sr: int, rate: int) -> np.ndarray:
    samples = _float_samples(array).detach().cpu().numpy()
    if samples.ndim == 1 and sr == rate:
        return samples
    return media.resample(samples.reshape(1, -1), rate, sr)
