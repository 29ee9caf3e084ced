"""The channels of a recording apart: a speaker on each, and one transcript of all of them.

Reads each channel as a recording of its own, silences in it what is only the sound of another channel, and puts the
transcripts on one clock. Knows no model, and does not tell speakers apart who share a channel.
"""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from . import audio, media
from .audio import FRAMES_PER_SECOND, HOP_LENGTH, N_FFT, SAMPLE_RATE, Source
from .finite import Mending
from .languages import most_spoken
from .results import Segment, Transcript
from .spool import IN_MEMORY, Spool

Channel: TypeAlias = npt.NDArray[Any]  # (n_samples,) at 16 kHz, int16 or float32
Levels: TypeAlias = npt.NDArray[np.float32]
Track: TypeAlias = npt.NDArray[np.float64]  # (n_levels,)

# What one channel has of another's sound is that sound through a wall or a wire: quieter by about as much in all bands
# and at all times. Somebody else's voice is louder here and quieter there. The numbers are from two readers on two
# channels, in a room or not, over noise: of 0.64 s that the other channel explains, the differences spread by 2 to 4
# dB, and of those in which somebody speaks on the channel itself, also 15 dB below the other, by 9 to 12.
STEP = 8  # frames of 10 ms whose mean is one level: single ones waver, and a far loudspeaker is 20 ms late
N_BANDS = 20  # of levels; 4 mel bands make one
SPAN = 8  # levels that are judged together: 0.64 s
AUDIBLE = 6.0  # decibels above the channel's noise
LEAST_AUDIBLE = 0.05  # of the levels that are judged together
TIE = 1.5  # decibels: channels that differ by less are equally loud
SPREAD = 5.5  # decibels; standard deviation of the differences below which it is the same sound
FLOOR_BLOCK = 125  # levels: the noise is that of 10 s and the 10 s on either side
FLOOR_SHARE = 10  # per cent of the levels that are quieter than the noise


# ---------------------------------------------------------------------------------------------------------
# Recordings to channels
# ---------------------------------------------------------------------------------------------------------


def read_channels(
    source: Source, *, audio_track: int | str | None = None, container_time: bool = False
) -> list[Channel]:
    """Read the channels of a recording apart, at once; see `reading`."""
    steps = reading(source, audio_track=audio_track, container_time=container_time)
    try:
        while True:
            next(steps)
    except StopIteration as done:
        channels: list[Channel] = done.value
        return channels


def reading(
    source: Source, *, audio_track: int | str | None = None, container_time: bool = False
) -> Generator[float, None, list[Channel]]:
    """Read the channels of a recording apart, without what each has of the others' sound.

    Yields how many seconds have been read, every few; may be closed at any step. Long channels lie on disk (`Spool`),
    so three hours of two channels take some 100 MB of memory, and 0.7 GB of disk from a file, twice that from an array.

    Parameters
    ----------
    source
        Whatever `load_audio` reads; samples have 16 kHz, and stay as they are. A file may have any number of channels.
    audio_track, container_time
        Of a file; see `load_audio`.

    Returns
    -------
    Samples of each channel at 16 kHz, ``(n_samples,)``, to be read as an array: int16 from files, else float32. Where
    a channel has only the sound of another one, it is silent. A recording without samples has one channel.

    Raises
    ------
    AudioError
        As by `load_audio`.
    ShapeError
        It is not clear which axis of an array holds the channels.

    Warns
    -----
    RuntimeWarning
        There is only one channel; or what `load_audio` warns of.
    """
    spools: list[Spool] = []
    dtype = np.dtype(np.float32)
    for piece in _pieces(source, audio_track, container_time):  # (n_channels, n)
        spools = spools or [Spool(IN_MEMORY // len(piece)) for _ in piece]
        dtype = piece.dtype
        for spool, samples in zip(spools, piece, strict=True):
            spool.append(np.ascontiguousarray(samples))
        yield spools[0].n_bytes / dtype.itemsize / SAMPLE_RATE
    channels: list[Channel] = [spool.array(dtype) for spool in spools or [Spool()]]
    if len(spools) == 1:
        warnings.warn(
            "the recording has one channel: channels='separate' has nothing to separate", RuntimeWarning, stacklevel=2
        )
    if len(channels) > 1:
        levels = yield from _measuring(channels)
        for channel, silent in zip(channels, crosstalk(levels), strict=True):
            for first, last in _runs(silent) * STEP * HOP_LENGTH:
                channel[first:last] = 0
    return channels


def _pieces(source: Source, audio_track: int | str | None, container_time: bool) -> Iterator[media.Samples]:
    """The samples of all channels, ``(n_channels, n)``."""
    if not isinstance(source, (np.ndarray, Tensor)):
        yield from media.stream(source, SAMPLE_RATE, apart=True, audio_track=audio_track, container_time=container_time)
        return
    audio.refuse_for_arrays(audio_track, container_time)
    if 0 in source.shape:
        return
    samples = audio.channels_first(source)
    mending = Mending(rate=SAMPLE_RATE, rows="channel")
    for begin in range(0, samples.shape[1], audio.N_SAMPLES):
        yield mending(audio.float32_samples(samples[:, begin : begin + audio.N_SAMPLES]).detach().cpu().numpy())
    mending.close()


def _measuring(channels: Sequence[Channel]) -> Generator[float, None, Levels]:
    """Measure how loud each channel is, in decibels, ``(n_channels, N_BANDS, n_levels)``; yields the seconds done."""

    def read(begin: int, end: int) -> Tensor:
        return torch.stack([audio.float32_samples(channel[begin:end]) for channel in channels])

    n_samples = len(channels[0])
    filters = audio.mel_filters("cpu", 4 * N_BANDS)
    n_frames = -(-n_samples // (STEP * HOP_LENGTH)) * STEP
    blocks = []
    for start in range(0, n_frames, audio.BLOCK_FRAMES):
        stop = min(start + audio.BLOCK_FRAMES, n_frames)
        power = audio.log_power(read, n_frames * HOP_LENGTH + N_FFT, start, stop, filters).mul_(np.log(10)).exp_()
        mean = power.reshape(len(channels), N_BANDS, 4, -1, STEP).mean(dim=(2, 4))
        blocks.append(10.0 * mean.log10())
        yield stop / FRAMES_PER_SECOND
    return torch.cat(blocks, dim=-1).numpy()


# ---------------------------------------------------------------------------------------------------------
# Crosstalk
# ---------------------------------------------------------------------------------------------------------


def crosstalk(levels: Levels) -> npt.NDArray[np.bool_]:
    """Tell where a channel has nothing but the sound of another one that has it louder.

    Parameters
    ----------
    levels
        Decibels, ``(n_channels, n_bands, n_levels)``, each over `STEP` frames of 10 ms.

    Returns
    -------
    ``(n_channels, n_levels)``, nowhere true of all channels at once. Of channels with the same sound equally loud, the
    first keeps it.
    """
    found = np.zeros((len(levels), levels.shape[2]), np.bool_)
    for j, level in enumerate(levels):
        audible = level > _noise(level) + AUDIBLE
        for i in set(range(len(levels))) - {j}:
            mean, spread = _around(level - levels[i], audible)
            found[j] |= (spread < SPREAD) & (mean < (TIE if i < j else -TIE))
    return found & ~found.all(axis=0)


def _noise(level: Levels) -> Levels:
    """How loud each band of a channel is when nothing sounds, ``(n_bands, n_levels)``."""
    noise = np.empty_like(level)
    for start in range(0, level.shape[1], FLOOR_BLOCK):
        around = level[:, max(start - FLOOR_BLOCK, 0) : start + 2 * FLOOR_BLOCK]
        noise[:, start : start + FLOOR_BLOCK] = np.percentile(around, FLOOR_SHARE, axis=1, keepdims=True)
    return noise


def _around(difference: Levels, audible: npt.NDArray[np.bool_]) -> tuple[Track, Track]:
    """Mean and standard deviation of what is audible in the `SPAN` around each level, ``(n_levels,)``.

    The deviation is infinite where too little is audible.
    """
    counted = np.where(audible, difference, 0.0)
    n, total, squares = (
        np.convolve(track.sum(axis=0, dtype=np.float64), np.ones(SPAN))[SPAN // 2 :][: audible.shape[1]]
        for track in (audible, counted, counted**2)
    )
    enough = n >= LEAST_AUDIBLE * SPAN * len(difference)
    n = np.maximum(n, 1.0)
    mean = total / n
    return mean, np.where(enough, np.sqrt(np.maximum(squares / n - mean**2, 0.0)), np.inf)


def _runs(flags: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """First index and index after the last of each run of true values, ``(n_runs, 2)``."""
    return np.flatnonzero(np.diff(flags, prepend=False, append=False)).reshape(-1, 2)


# ---------------------------------------------------------------------------------------------------------
# Transcripts of channels to one
# ---------------------------------------------------------------------------------------------------------


def merge(transcripts: Sequence[Transcript]) -> Transcript:
    """Make one transcript of those of a recording's channels, in the order of time.

    Each segment has its ``channel``, and its ``language`` where the channels differ in theirs; the language of the
    whole is the one with most seconds of text.
    """
    mixed = len({transcript["language"] for transcript in transcripts}) > 1
    segments: list[Segment] = []
    for channel, transcript in enumerate(transcripts):
        for segment in transcript["segments"]:
            of_channel: Segment = {**segment, "channel": channel}
            if mixed:
                of_channel.setdefault("language", transcript["language"])
            segments.append(of_channel)
    segments.sort(key=lambda segment: segment["start"])
    for i, segment in enumerate(segments):
        segment["id"] = i
    return {
        "text": "".join(segment["text"] for segment in segments),
        "segments": segments,
        "language": most_spoken([(t["language"], t["segments"]) for t in transcripts]),
    }
