"""Separate channels of a recording, with one speaker on each, and one transcript of all of them.

Reads each channel as a recording of its own, silences the crosstalk of other channels in it, and
merges the transcripts by time. Knows no model, and does not separate speakers on the same channel.
"""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .. import audio
from ..audio import FRAMES_PER_SECOND, HOP_LENGTH, N_FFT, SAMPLE_RATE, Source
from ..device.lazy_torch import Tensor, torch
from ..media import reader
from ..media.bad_samples import Mending
from ..media.spool import IN_MEMORY, Spool
from ..results import Segment, Transcript
from ..spans import true_runs
from .languages import most_spoken_language

Channel: TypeAlias = npt.NDArray[Any]  # (n_samples,) at 16 kHz, int16 or float32
Levels: TypeAlias = npt.NDArray[np.float32]
Track: TypeAlias = npt.NDArray[np.float64]  # (n_levels,)

# Crosstalk is the sound of another channel through the air or a wire: quieter by about the same
# amount in all bands and at all times. The difference to another voice varies with band and time.
# The numbers are from two readers on two channels, with and without room acoustics, over noise: in
# 0.64 s of crosstalk the differences have a standard deviation of 2 to 4 dB; in 0.64 s with speech
# on the channel itself, even 15 dB below the other, of 9 to 12 dB.
STEP_FRAMES = 8  # of 10 ms, for one level: single frames vary, and a far loudspeaker is 20 ms late
N_BANDS = 20  # of levels; each is 4 mel bands
SPAN_LEVELS = 8  # consecutive levels that are compared together: 0.64 s
AUDIBLE_DB = 6.0  # above the channel's noise floor
MIN_AUDIBLE_SHARE = 0.05  # of the levels that are compared together
TIE_DB = 1.5  # channels that differ by less are equally loud
MAX_CROSSTALK_DEVIATION_DB = 5.5  # standard deviation of the differences
FLOOR_BLOCK_LEVELS = 125  # the noise floor is that of 10 s and the 10 s on either side
FLOOR_PERCENTILE = 10  # of the levels


# --------------------------------------------------------------------------------------------------
# Channels of a recording
# --------------------------------------------------------------------------------------------------


def read_channels(
    source: Source, *, audio_track: int | str | None = None, container_time: bool = False
) -> list[Channel]:
    """Read the channels of a recording separately; see `reading`."""
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
    """Read the channels of a recording separately, without crosstalk, as a generator of steps.

    Yields the seconds that have been read, every few seconds; may be closed at any step. Long
    channels are on disk (`Spool`), so three hours of two channels take some 100 MB of memory, and
    0.7 GB of disk from a file, twice that from an array.

    Parameters
    ----------
    source
        Any input of `load_audio`; samples are at 16 kHz, and not changed. A file may have any
        number of channels.
    audio_track, container_time
        Of a file; see `load_audio`.

    Returns
    -------
    Samples of each channel at 16 kHz, ``(n_samples,)``, to be read as an array: int16 from files, else float32. Where
    a channel has only crosstalk, it is silent. A recording without samples has one channel.

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
    for block in _blocks(source, audio_track, container_time):  # (n_channels, n)
        spools = spools or [Spool(IN_MEMORY // len(block)) for _ in block]
        dtype = block.dtype
        for spool, samples in zip(spools, block, strict=True):
            spool.append(np.ascontiguousarray(samples))
        yield spools[0].n_bytes / dtype.itemsize / SAMPLE_RATE
    channels: list[Channel] = [spool.array(dtype) for spool in spools or [Spool()]]
    if len(spools) == 1:
        warnings.warn(
            "the recording has one channel: channels='separate' has nothing to separate", RuntimeWarning, stacklevel=2
        )
    if len(channels) > 1:
        levels = yield from _measuring_levels(channels)
        for channel, silent in zip(channels, crosstalk(levels), strict=True):
            for first, last in true_runs(silent) * STEP_FRAMES * HOP_LENGTH:
                channel[first:last] = 0
    return channels


def _blocks(source: Source, audio_track: int | str | None, container_time: bool) -> Iterator[reader.Samples]:
    """Yield the samples of all channels, ``(n_channels, n)``."""
    if not isinstance(source, (np.ndarray, Tensor)):
        yield from reader.stream(
            source, SAMPLE_RATE, apart=True, audio_track=audio_track, container_time=container_time
        )
        return
    audio.refuse_for_arrays(audio_track, container_time)
    if 0 in source.shape:
        return
    samples = audio.channels_first(source)
    mending = Mending(rate=SAMPLE_RATE, rows="channel")
    for begin in range(0, samples.shape[1], audio.N_SAMPLES):
        yield mending(audio.float32_samples(samples[:, begin : begin + audio.N_SAMPLES]).detach().cpu().numpy())
    mending.close()


def _measuring_levels(channels: Sequence[Channel]) -> Generator[float, None, Levels]:
    """Measure levels, decibels, ``(n_channels, N_BANDS, n_levels)``; yields the seconds done."""

    def read(begin: int, end: int) -> Tensor:
        return torch.stack([audio.float32_samples(channel[begin:end]) for channel in channels])

    n_samples = len(channels[0])
    filters = audio.mel_filters("cpu", 4 * N_BANDS)
    n_frames = -(-n_samples // (STEP_FRAMES * HOP_LENGTH)) * STEP_FRAMES
    blocks = []
    for start in range(0, n_frames, audio.BLOCK_FRAMES):
        stop = min(start + audio.BLOCK_FRAMES, n_frames)
        power = audio.log_power(read, n_frames * HOP_LENGTH + N_FFT, start, stop, filters).mul_(np.log(10)).exp_()
        mean = power.reshape(len(channels), N_BANDS, 4, -1, STEP_FRAMES).mean(dim=(2, 4))
        blocks.append(10.0 * mean.log10())
        yield stop / FRAMES_PER_SECOND
    return torch.cat(blocks, dim=-1).numpy()


# --------------------------------------------------------------------------------------------------
# Crosstalk
# --------------------------------------------------------------------------------------------------


def crosstalk(levels: Levels) -> npt.NDArray[np.bool_]:
    """Find where a channel has nothing but crosstalk of a louder one.

    Parameters
    ----------
    levels
        Decibels, ``(n_channels, n_bands, n_levels)``, each over `STEP_FRAMES` frames of 10 ms.

    Returns
    -------
    ``(n_channels, n_levels)``, never true for all channels at once. Of channels with the same sound at the same level,
    the first keeps it.
    """
    found = np.zeros((len(levels), levels.shape[2]), np.bool_)
    for j, level in enumerate(levels):
        audible = level > _noise_floor(level) + AUDIBLE_DB
        for i in set(range(len(levels))) - {j}:
            mean, deviation = _mean_and_deviation(level - levels[i], audible)
            found[j] |= (deviation < MAX_CROSSTALK_DEVIATION_DB) & (mean < (TIE_DB if i < j else -TIE_DB))
    return found & ~found.all(axis=0)


def _noise_floor(level: Levels) -> Levels:
    """Return the noise floor of each band of a channel, ``(n_bands, n_levels)``."""
    floor = np.empty_like(level)
    for start in range(0, level.shape[1], FLOOR_BLOCK_LEVELS):
        around = level[:, max(start - FLOOR_BLOCK_LEVELS, 0) : start + 2 * FLOOR_BLOCK_LEVELS]
        percentile = np.percentile(around, FLOOR_PERCENTILE, axis=1, keepdims=True)
        floor[:, start : start + FLOOR_BLOCK_LEVELS] = percentile
    return floor


def _mean_and_deviation(difference: Levels, audible: npt.NDArray[np.bool_]) -> tuple[Track, Track]:
    """Return mean and deviation of the audible levels around each level, ``(n_levels,)``.

    The deviation is infinite where too little is audible.
    """
    counted = np.where(audible, difference, 0.0)
    n, total, squares = (
        np.convolve(track.sum(axis=0, dtype=np.float64), np.ones(SPAN_LEVELS))[SPAN_LEVELS // 2 :][: audible.shape[1]]
        for track in (audible, counted, counted**2)
    )
    enough = n >= MIN_AUDIBLE_SHARE * SPAN_LEVELS * len(difference)
    n = np.maximum(n, 1.0)
    mean = total / n
    return mean, np.where(enough, np.sqrt(np.maximum(squares / n - mean**2, 0.0)), np.inf)


# --------------------------------------------------------------------------------------------------
# One transcript of all channels
# --------------------------------------------------------------------------------------------------


def merge(transcripts: Sequence[Transcript]) -> Transcript:
    """Merge the transcripts of a recording's channels, by time.

    Each segment has its ``channel``, and its ``language`` where the channels differ in theirs; the
    language of the whole is the one with the most seconds of text.
    """
    mixed = len({transcript["language"] for transcript in transcripts}) > 1
    transcripts = _with_speakers_renamed(transcripts)
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
    merged: Transcript = {
        "text": "".join(segment["text"] for segment in segments),
        "segments": segments,
        "language": most_spoken_language([(t["language"], t["segments"]) for t in transcripts]),
    }
    if all("speakers" in transcript for transcript in transcripts):
        merged["turns"] = sorted((turn for t in transcripts for turn in t["turns"]), key=lambda turn: turn["start"])
        names = [turn["speaker"] for turn in merged["turns"]] + [name for t in transcripts for name in t["speakers"]]
        merged["speakers"] = list(dict.fromkeys(names))
    return merged


def _with_speakers_renamed(transcripts: Sequence[Transcript]) -> Sequence[Transcript]:
    """Name the speakers anew who have only numbers: number 0 of each channel is another person."""
    if not all("speakers" in transcript for transcript in transcripts):
        return transcripts
    from ..speakers.diarization import is_number, numbered_name  # here, as few ask for speakers

    firsts: dict[tuple[int, str], float] = {}
    for channel, transcript in enumerate(transcripts):
        for name in transcript["speakers"]:
            firsts[channel, name] = min((t["start"] for t in transcript["turns"] if t["speaker"] == name), default=0.0)
    numbered = sorted((one for one in firsts if is_number(one[1])), key=firsts.__getitem__)
    names = {one: numbered_name(i) for i, one in enumerate(numbered)}
    renamed: list[Transcript] = []
    for channel, transcript in enumerate(transcripts):

        def called(one: Any, channel: int = channel) -> Any:
            return {**one, "speaker": names.get((channel, one["speaker"]), one["speaker"])}

        segments = [called(segment) for segment in transcript["segments"]]
        for segment in segments:
            if "words" in segment:
                segment["words"] = [called(word) for word in segment["words"]]
        speakers = [names.get((channel, name), name) for name in transcript["speakers"]]
        turns = [called(turn) for turn in transcript["turns"]]
        renamed.append({**transcript, "segments": segments, "speakers": speakers, "turns": turns})
    return renamed
