"""The first pass over a recording: the local speakers of each window, and what the voice of each sounds like.

Reads the sound once, block by block, and keeps only classes of frames and vectors: 3 hours take some 20 MB.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from ..spans import HOP_LENGTH, SAMPLE_RATE
from .clustering import normalized
from .networks import choice, voice_encoder
from .networks.segmentation import CLASSES, HOP, N_FRAMES, RECEPTIVE, WINDOW

if TYPE_CHECKING:
    from .diarization import Sound

BATCH, FRAMES = 8, 9600  # windows, and frames of voices, computed at once: some tenth of a second each on two cores
SHORTEST = SAMPLE_RATE  # samples; a shorter recording is followed by silence
MIN_ALONE = round(0.6 * SAMPLE_RATE / HOP)  # frames in which a local speaker is alone, else all of its frames count
NO_VECTORS = np.zeros((0, voice_encoder.SIZE), np.float32)
SHORTEST_VOICE = 25  # frames of 10 ms: of less, no vector is made


@dataclass(frozen=True, eq=False)
class LocalSpeakers:
    """What the networks say of a recording.

    Attributes
    ----------
    starts
        First frame of each window, in frames of `segmentation.HOP` samples, ``(n_windows,)``.
    classes
        Class of each frame, uint8 ``(n_windows, n_frames)``.
    windows, locals
        Of each vector, the window and the local speaker in it, ``(n,)``.
    vectors
        What it sounds like, float32 of length 1, ``(n, 192)``.
    seconds
        Of speech in which it is alone, of which the vector is made, ``(n,)``.
    pieces
        What each of its pieces of some 1.5 s sounds like, of which the vector is the mean, float32 ``(n_pieces, 192)``.
    owners, begins, ends
        Of each piece, its vector, and the frames of the window for which it stands, ``(n_pieces,)``.
    """

    starts: npt.NDArray[np.intp]
    classes: npt.NDArray[np.uint8]
    windows: npt.NDArray[np.intp]
    locals: npt.NDArray[np.intp]
    vectors: npt.NDArray[np.float32]
    seconds: npt.NDArray[np.float64]
    pieces: npt.NDArray[np.float32]
    owners: npt.NDArray[np.intp]
    begins: npt.NDArray[np.intp]
    ends: npt.NDArray[np.intp]


def window_starts(n_samples: int) -> list[int]:
    """Return the first samples of the fewest windows that cover a recording, evenly; the last one ends with it."""
    if n_samples <= WINDOW:
        return [0]
    last = -(-(n_samples - WINDOW) // HOP)
    n = -(-last // N_FRAMES) + 1
    return [round(i * last / (n - 1)) * HOP for i in range(n)]


def find(sound: Sound) -> Generator[float, None, LocalSpeakers]:
    """Find the local speakers of a recording; yields the seconds that are done, several times for each of them."""
    network, starts = choice.segmentation(), window_starts(len(sound))
    length = max(SHORTEST, min(len(sound), WINDOW))
    classes, voices = [], []
    for at in range(0, len(starts), BATCH):
        some = starts[at : at + BATCH]
        block = _read(sound, some[0], some[-1] + length)
        offsets = [start - some[0] for start in some]
        found = network.classes(block, offsets, length)
        classes.append(found)
        yield some[0] / SAMPLE_RATE
        for voice in _voices(block, offsets, found, at):
            if voice is None:
                yield some[0] / SAMPLE_RATE
            else:
                voices.append(voice)
        yield min(some[-1] + length, len(sound)) / SAMPLE_RATE
    starts_of_windows = np.array(starts, np.intp) // HOP
    return _collected(starts_of_windows, np.concatenate(classes), voices)


def _collected(starts: npt.NDArray[np.intp], classes: npt.NDArray[np.uint8], voices: Sequence[_Voice]) -> LocalSpeakers:
    pieces = np.concatenate([NO_VECTORS, *(voice.pieces for voice in voices)])
    begins = [np.array([0, *voice.cuts], np.intp) for voice in voices]
    ends = [np.array([*voice.cuts, classes.shape[1]], np.intp) for voice in voices]
    none = np.zeros(0, np.intp)
    return LocalSpeakers(
        starts=starts,
        classes=classes,
        windows=np.array([voice.window for voice in voices], np.intp),
        locals=np.array([voice.local for voice in voices], np.intp),
        vectors=np.array([normalized(v.pieces.mean(0)) for v in voices], np.float32).reshape(-1, voice_encoder.SIZE),
        seconds=np.array([voice.seconds for voice in voices], np.float64),
        pieces=pieces,
        owners=np.repeat(np.arange(len(voices)), [len(voice.pieces) for voice in voices]).astype(np.intp),
        begins=np.concatenate([none, *begins]),
        ends=np.concatenate([none, *ends]),
    )


def _read(sound: Sound, start: int, stop: int) -> npt.NDArray[np.float32]:
    block = np.zeros(stop - start, np.float32)
    piece = np.asarray(sound[start : min(stop, len(sound))], np.float32)
    block[: len(piece)] = piece
    return block


class _Voice(NamedTuple):
    """What is found of one local speaker."""

    window: int
    local: int
    seconds: float
    cuts: list[int]  # frames of the window at which one piece ends and the next begins
    pieces: npt.NDArray[np.float32]  # vectors


def _voices(
    block: npt.NDArray[np.float32], offsets: list[int], classes: npt.NDArray[np.uint8], first_window: int
) -> Iterator[_Voice | None]:
    """Give the voice of each local speaker of some windows of a block of sound, and None after each step on the way."""
    if not classes.any():
        return
    network = choice.voices()
    mel = network.mel(block)  # (n, 80), a frame for each 10 ms
    voices, pieces, counts = [], [], []
    for i, (offset, of_window) in enumerate(zip(offsets, classes, strict=True)):
        active = CLASSES[of_window]  # (n_frames, 3)
        alone = active & (active.sum(1, keepdims=True) == 1)
        for local in np.flatnonzero(active.any(0)):
            used = alone[:, local] if alone[:, local].sum() >= MIN_ALONE else active[:, local]
            frames = _mel_frames(used, offset, len(mel))
            if len(frames) >= SHORTEST_VOICE:
                own = voice_encoder.pieces_of(mel[frames])
                pieces += own
                counts.append(len(own))
                seconds = float(alone[:, local].sum() * HOP / SAMPLE_RATE)
                voices.append(_Voice(first_window + i, int(local), seconds, _cuts(frames, offset), NO_VECTORS))
    vectors = [NO_VECTORS]
    for some in _batches(pieces):
        yield None
        vectors.append(network.embed(some))
    for voice, its_own in zip(voices, np.split(np.concatenate(vectors), np.cumsum(counts)[:-1]), strict=True):
        yield voice._replace(pieces=its_own)


def _batches(pieces: list[npt.NDArray[np.float32]]) -> Iterator[list[npt.NDArray[np.float32]]]:
    """Give pieces in their order, as many together as have at most `FRAMES` frames."""
    batch: list[npt.NDArray[np.float32]] = []
    for piece in pieces:
        if batch and sum(map(len, batch)) + len(piece) > FRAMES:
            yield batch
            batch = []
        batch.append(piece)
    if batch:
        yield batch


def _cuts(frames: npt.NDArray[np.intp], offset: int) -> list[int]:
    """Return the frames of a window between the pieces of a voice, of which the `frames` of 10 ms are."""
    between = frames[voice_encoder.piece_bounds(len(frames))[1:-1]]
    return [_segmentation_frame(int(frame) * HOP_LENGTH - offset) for frame in between]


def _segmentation_frame(sample: int) -> int:
    """Return the frame of a window in whose middle part a sample lies."""
    return (sample - (RECEPTIVE - HOP) // 2) // HOP


def _mel_frames(used: npt.NDArray[np.bool_], offset: int, n: int) -> npt.NDArray[np.intp]:
    """Return the frames of 10 ms of a block whose middles lie in the frames that are `used` of a window in it."""
    middles = np.arange(0, len(used) * HOP + RECEPTIVE, HOP_LENGTH) - (RECEPTIVE - HOP) // 2
    inside = (middles >= 0) & (middles < len(used) * HOP)
    of_segmentation = np.clip(middles // HOP, 0, len(used) - 1)
    frames: npt.NDArray[np.intp] = np.flatnonzero(inside & used[of_segmentation]) + round(offset / HOP_LENGTH)
    return frames[frames < n]
