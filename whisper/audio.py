"""From sound to what the encoder reads: 16 kHz mono samples, 30-second windows, log-mel spectrograms.

Knows nothing of models, and does not decode containers itself (`media.py` does).
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from . import compat
from .device.lazy_torch import Tensor, torch
from .device.lazy_torch import functional as F
from .device.torch_state import clean_state
from .errors import AudioError, DeviceError, OptionError, ShapeError
from .media import reader
from .media.bad_samples import Mending
from .options.types import FLAG, TRACK, check, whole
from .spans import CHUNK_LENGTH as CHUNK_LENGTH  # programs look for all of these here
from .spans import FRAMES_PER_SECOND as FRAMES_PER_SECOND
from .spans import HOP_LENGTH as HOP_LENGTH
from .spans import N_FRAMES as N_FRAMES
from .spans import N_SAMPLES as N_SAMPLES
from .spans import N_SAMPLES_PER_TOKEN as N_SAMPLES_PER_TOKEN
from .spans import SAMPLE_RATE as SAMPLE_RATE
from .spans import TOKENS_PER_SECOND as TOKENS_PER_SECOND

N_FFT = 400  # samples under one window: 25 ms
N_MELS = (80, 128)  # bands that there are models for

MAX_RATE = 2**31 - 1  # hertz; FFmpeg keeps rates in 32 bits
RATE = whole(1, MAX_RATE, floats=True)
MAX_CHANNELS = 8  # of an array: more are not channels but samples
# Frames transformed at once, so that what comes of them stays in the processor's cache: half a minute of sound takes
# 3.7 ms like this and 9.4 at once (one core). Whoever cuts at the same frames gets values equal to the bit.
BLOCK_FRAMES = 1000

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]] | Tensor"
Source: TypeAlias = "reader.Source | Array"
Samples: TypeAlias = "np.ndarray[Any, np.dtype[np.float32]]"

# Full range of the integers that sound comes in. Not int64: nobody records it, and taken by its full range,
# 16-bit samples that arithmetic has widened would be silence.
_FULL_RANGE = {"int8": 2.0**7, "uint8": 2.0**7, "int16": 2.0**15, "int32": 2.0**31}


def load_audio(
    file: Source,
    sr: int = SAMPLE_RATE,
    *,
    rate: int | None = None,
    audio_track: int | str | None = None,
    container_time: bool = False,
) -> Samples:
    """Read a recording as mono samples.

    Parameters
    ----------
    file
        A path or URL, ``-`` for standard input, the contents of a file, a binary file object, or samples as an array
        or tensor:
        ``(n_samples,)``, or with channels ``(n_channels, n_samples)`` or ``(n_samples, n_channels)``. The
        channels are the axis of length 1, else the only axis of at most 8.
        int8, uint8, int16 and int32 are scaled by their full range to -1..1; floats are taken as they are.
    sr
        Samples per second of the result.
    rate
        Samples per second of an array; `sr` where not given. A file knows its own.
    audio_track
        Of a file with several audio tracks, the number of one, from 0, or its language; None is a default one, else
        that with most channels.
    container_time
        Put silence where a file's time stamps say that there is no sound, before a late beginning and into gaps, so
        that times are the container's.

    Returns
    -------
    float32 samples, shape ``(n_samples,)``; from a file always within -1..1, and none where it has none. An
    array that already is what was asked for comes back itself, not a copy.

    Raises
    ------
    AudioError
        The file is missing, empty, broken or without sound; most samples are not finite, or they are of another type.
    ShapeError
        It is not clear which axis of an array holds the channels.
    OptionError
        A rate that is not positive, or a `rate` for something that is no array; a track that there is not, or one of
        an array.

    Warns
    -----
    RuntimeWarning
        Part of a file is broken, missing or not read, and the rest is returned; samples are not finite, and zeros stand
        in their place; a file has several tracks, or times that are not those of its container.
    """
    sr = check("sr", sr, RATE)
    rate = check("rate", rate, RATE, none=True)
    audio_track, container_time = check_track(audio_track), check("container_time", container_time, FLAG)
    if isinstance(file, (np.ndarray, Tensor)):
        refuse_for_arrays(audio_track, container_time)
        return _load_array(file, sr, sr if rate is None else rate)
    if rate is not None:
        raise OptionError(f"rate={rate!r}: it belongs to an array; a file states its own, so leave `rate` out")
    decoded = reader.decode(file, sr, audio_track=audio_track, container_time=bool(container_time))
    samples = decoded.astype(np.float32)
    samples /= 32768.0
    return samples


def refuse_for_arrays(audio_track: int | str | None, container_time: bool) -> None:
    """Raise `OptionError` where samples are given, and options that are about files."""
    for name, value in (("audio_track", audio_track), ("container_time", container_time or None)):
        if value is not None:
            raise OptionError(f"{name}={value!r}: it belongs to a file; samples have neither tracks nor time stamps")


def pad_or_trim(array: Any, length: int = N_SAMPLES, *, axis: int = -1) -> Any:
    """Cut an array or tensor to `length` along `axis`, or fill it up with zeros on the right."""
    length = check("length", length, whole(0, floats=True))
    axis = check("axis", axis, whole(-array.ndim, array.ndim - 1, floats=True))
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
    return _mel_filters(torch.device(device), check("n_mels", n_mels, whole(1, floats=True)))


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
        The sound cannot be read, is mostly not finite, or has fewer than 201 samples with the padding.
    DeviceError
        This machine has no such device.
    OptionError
        There are no filters for so many bands, or a number is not whole.

    Warns
    -----
    RuntimeWarning
        Samples are not finite, or too large for float32; zeros stand in their place.
    """
    padding = check("padding", padding, whole(floats=True))
    samples = float32_samples(audio if isinstance(audio, (np.ndarray, Tensor)) else load_audio(audio))
    if samples.ndim not in (1, 2):
        raise ShapeError(f"samples of shape {tuple(samples.shape)}; it must be (n_samples,) or (n_batch, n_samples)")
    if device is not None:
        samples = _moved(samples, device)
    filters = mel_filters(samples.device, n_mels)
    batch = samples if samples.ndim == 2 else samples[None]
    total = batch.shape[-1] + max(padding, 0)
    if len(batch) == 0 or total <= N_FFT // 2:
        raise AudioError(
            f"samples of shape {tuple(samples.shape)} are too few for a spectrogram, which takes "
            f"{N_FFT // 2 + 1}; with padding={N_SAMPLES} they are followed by 30 seconds of silence"
        )
    batch = mended(batch)
    n_frames = total // HOP_LENGTH
    with torch.autocast(batch.device.type, enabled=False):
        blocks = [
            log_power(
                lambda begin, end: batch[:, begin:end], total, start, min(start + BLOCK_FRAMES, n_frames), filters
            )
            for start in range(0, n_frames, BLOCK_FRAMES)
        ]
    mel = torch.cat(blocks, dim=-1)  # (n_batch, n_mels, n_frames)
    del blocks
    loudest = mel.max()
    if mel.requires_grad:  # nothing may be overwritten that the gradient needs
        mel = (torch.maximum(mel, loudest - 8.0) + 4.0) / 4.0
    else:
        torch.maximum(mel, loudest - 8.0, out=mel).add_(4.0).div_(4.0)
    return mel if samples.ndim == 2 else mel[0]


def log_power(read: Callable[[int, int], Tensor], total: int, start: int, stop: int, filters: Tensor) -> Tensor:
    """Frames `start` to `stop` in log10 power, shape ``(n_batch, n_mels, n)``.

    The sound is thought to be followed by zeros up to `total` samples, and mirrored at both ends. Only the stretch
    under these frames is asked for: ``read(begin, end)`` gives ``(n_batch, n_samples)``, fewer where the sound ends.
    """
    half = N_FFT // 2
    first, last = start * HOP_LENGTH - half, (stop - 1) * HOP_LENGTH + half  # before the mirrors
    begin, end = max(first, 0), min(max(last, half + 1), total)  # a mirror needs 201 samples
    piece = read(begin, end)
    if piece.shape[-1] == 0:  # nothing but zeros, as in the half minute behind every recording
        return filters.new_full((len(piece), len(filters), stop - start), 1e-10).log10_()
    if (n_zeros := end - begin - piece.shape[-1]) > 0:
        piece = F.pad(piece, (0, n_zeros))
    if first < 0 or last > total:
        piece = F.pad(piece, (begin - first, max(last - total, 0)), mode="reflect")
    window = _window(piece.device)
    spectrum = torch.stft(piece, N_FFT, HOP_LENGTH, window=window, center=False, return_complex=True)
    real, imag = spectrum.real, spectrum.imag  # without the root that abs() draws, half the time
    power = (real * real).addcmul_(imag, imag)[..., : stop - start]  # (n_batch, 201, n)
    return in_bands(filters, power).clamp_(min=1e-10).log10_()


def in_bands(filters: Tensor, power: Tensor) -> Tensor:
    """``filters @ power``, ``(n_batch, 201, n)`` to ``(n_batch, n_mels, n)``, at full precision.

    A program may have asked torch for float32 products of less (`torch.set_float32_matmul_precision`): log-mel values
    would be wrong by 0.001, and for good in what is held. Sparse products and those of float64 do not follow it. The
    sparse ones take no longer and give the same bits as the dense ones of MKL, whose zeros add nothing.
    """
    if power.device.type == "cuda":
        return (filters.double() @ power.double()).float()
    if power.device.type != "cpu":
        return filters @ power
    is_own = len(filters) in N_MELS and filters is _mel_filters(filters.device, len(filters))
    sparse = _sparse_filters(len(filters)) if is_own else filters.to_sparse()
    return torch.stack([torch.sparse.mm(sparse, of_one) for of_one in power])


def check_track(audio_track: int | str | None) -> int | str | None:
    """Return the number or language of a track as it is kept; OptionError where it can be neither."""
    kept: int | str | None = check("audio_track", audio_track, TRACK, none=True)
    return kept


def _moved(samples: Tensor, device: Any) -> Tensor:
    try:
        moved = samples.to(torch.device(device))
        if moved.is_meta:
            raise ValueError("it holds no numbers")
    except (RuntimeError, TypeError, ValueError, OverflowError, AssertionError) as error:
        reason = str(error).strip().partition("\n")[0][:200]
        raise DeviceError(f"device {reprlib.repr(device)} cannot be used here ({reason})") from error
    return moved


@lru_cache(maxsize=16)
@clean_state()  # what is kept must also serve those who want gradients
def _window(device: torch.device) -> Tensor:
    return torch.hann_window(N_FFT, dtype=torch.float32, device="cpu").to(device)


@lru_cache(maxsize=16)
@clean_state()
def _mel_filters(device: torch.device, n_mels: int) -> Tensor:
    if n_mels not in N_MELS:
        raise OptionError(f"n_mels={n_mels!r}: there are filters for 80 and for 128 mel bands only")
    path = Path(__file__).with_name("assets") / "mel_filters.npz"
    with np.load(path, allow_pickle=False) as file:
        return torch.from_numpy(file[f"mel_{n_mels}"]).to(device)


@lru_cache(maxsize=16)
@clean_state()
def _sparse_filters(n_mels: int) -> Tensor:
    return _mel_filters(torch.device("cpu"), n_mels).to_sparse()


def _tensor(array: Array) -> Tensor:
    """The same numbers as a tensor, without a copy where torch can share the memory."""
    if isinstance(array, Tensor):
        if array.layout != torch.strided or array.is_nested or array.is_meta:
            raise AudioError(f"samples in a tensor of layout {array.layout} on {array.device}: give a dense one")
        return array
    if array.dtype.kind not in "iuf":
        raise AudioError(f"samples of type {array.dtype} are not sound; give float32 or int16")
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is found later
            array = array.astype(np.float32, copy=False)  # also from other byte orders, and from longdouble
    array = np.asarray(array, dtype=array.dtype.newbyteorder("="), order="C")
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def float32_samples(array: Array) -> Tensor:
    """The samples as float32: integers scaled by their full range to -1..1, floats as they are."""
    samples = _tensor(array)
    if samples.is_floating_point():
        return samples.float()
    if (name := str(samples.dtype).removeprefix("torch.")) not in _FULL_RANGE:
        raise AudioError(
            f"samples of type {samples.dtype}: it is not clear how loud they are; give int16, int32 or float32"
        )
    full = _FULL_RANGE[name]
    return (samples.float() - full) / full if samples.dtype == torch.uint8 else samples.float() / full


def mended(samples: Any, rows: str = "row", rate: int = SAMPLE_RATE) -> Any:
    """Return floats, ``(n,)`` or ``(n_rows, n)``, with zeros in place of what is no sound, told once; see `finite`."""
    mending = Mending(rate=rate, rows=rows)
    samples = mending(samples)
    mending.close()
    return samples


def _load_array(array: Array, sr: int, rate: int) -> Samples:
    tensor = _tensor(array).detach().cpu()
    if tensor.numel() == 0:
        return np.zeros(0, np.float32)
    tensor = channels_first(tensor)
    samples: Samples = mended(float32_samples(tensor).numpy(), "channel", rate)
    if len(samples) == 1 and sr == rate:
        mono: Samples = samples[0]
    elif tensor.dtype in (torch.int16, torch.int32):  # as from a file with these samples
        mono = reader.resample(tensor.numpy(), rate, sr).astype(np.float32) / np.float32(32768.0)
    else:
        mono = reader.resample(samples, rate, sr)
    return mono


def channels_first(array: Array) -> Tensor:
    """Shape ``(n_channels, n_samples)`` from one of the three shapes that `load_audio` takes."""
    samples = _tensor(array)
    if samples.ndim == 1:
        return samples[None]
    if samples.ndim != 2:
        raise ShapeError(f"samples of shape {tuple(samples.shape)}: it must be (n_samples,), or two axes with channels")
    for limit in (1, MAX_CHANNELS):
        few = [axis for axis in (0, 1) if samples.shape[axis] <= limit]
        if len(few) == 1 or (few and limit == 1):
            return samples if few[0] == 0 else samples.T
    raise ShapeError(
        f"samples of shape {tuple(samples.shape)}: it is not clear which axis holds the channels (at most "
        f"{MAX_CHANNELS}); mix them down to (n_samples,)"
    )


compat.remember("audio.load_audio", (globals(), ["load_audio"]))
