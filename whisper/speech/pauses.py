"""Cutting a long recording into chunks, at pauses or else at quiet places.

Pure functions on numbers: one loudness per frame of 10 ms, and speech segments. Skips nothing:
silence stays within the chunks. Cuts into speech where it has no pause.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..errors import OptionError, ShapeError
from ..spans import FrameRange, true_runs

if TYPE_CHECKING:
    from .vad import Speech

Loudness = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]

MIN_PAUSE_FRAMES = 20  # 200 ms; closures of consonants are shorter
MAX_PAUSE_FRAMES = 300  # a pause of 3 s is as good as one of 10
BLOCK_FRAMES = 1000  # the noise floor is that of a block of 10 s and its two neighbours
FLOOR_PERCENTILE, LEVEL_PERCENTILE = 10, 90  # of loudness: the noise floor, and the level of speech
PAUSE_HEIGHT = 0.25  # of the way from the floor to the level: quieter frames are a pause
MIN_RANGE_DB = 6.0  # from floor to level; with less, there are no pauses
MAX_RANGE_DB = 40.0  # so that next to digital silence, breath and room count as pauses, too


def cut_at_pauses(
    loudness: Loudness, n_frames: int, target: int, longest: int, speech: Speech | None = None, begin: int = 0
) -> list[FrameRange]:
    """Cut a recording into chunks at its pauses.

    Parameters
    ----------
    loudness
        Decibels, to any reference, of each frame of 10 ms, shape ``(n,)``; frames past `n_frames`
        do not count.
    n_frames
        Length of the recording.
    target
        Length that the chunks should have, in frames.
    longest
        Length that no chunk may exceed, in frames; at least `target`.
    speech
        The speech, where it is known: then a cut is made in a pause of it wherever one is within
        reach.
    begin
        Frame of the recording at which `loudness` begins; the times of `speech` are those of the
        recording.

    Returns
    -------
    The chunks: together the whole recording, in order, without gap or overlap. None is shorter than a quarter of
    `target`, unless the recording is. An empty recording has no chunks.

    Raises
    ------
    OptionError
        `target` is below 1, or `longest` below `target`.
    ShapeError
        `loudness` has not one axis of at least `n_frames`.
    """
    if not 1 <= target <= longest:
        raise OptionError(f"target={target}, longest={longest}: a chunk has at least 1 frame, and longest is no less")
    if loudness.ndim != 1 or len(loudness) < n_frames:
        raise ShapeError(f"loudness of shape {loudness.shape} for {n_frames} frames; it must be ({n_frames},)")
    track = loudness[:n_frames]
    floor = noise_floor(track)
    silent = np.full(n_frames, speech is not None)  # non-speech frames
    if speech is not None:
        for start, end in speech.clips(begin + n_frames, min_pause=0.0):
            silent[max(start - begin, 0) : max(end - begin, 0)] = False
    cuts = [0]
    while cuts[-1] < n_frames:
        rest = n_frames - cuts[-1]
        n_left = max(math.floor(rest / target + 0.5), math.ceil(rest / longest))
        if n_left == 1:
            cuts.append(n_frames)
        else:
            cuts.append(cuts[-1] + _next_cut(track, floor, silent, cuts[-1], rest / n_left, longest))
    return list(pairwise(cuts))


def noise_floor(loudness: Loudness) -> Loudness:
    """Return the tenth percentile of the half minute around each frame, ``(n,)``."""
    floor = np.empty_like(loudness)
    for start in range(0, len(loudness), BLOCK_FRAMES):
        around = loudness[max(start - BLOCK_FRAMES, 0) : start + 2 * BLOCK_FRAMES]
        floor[start : start + BLOCK_FRAMES] = np.percentile(around, FLOOR_PERCENTILE)
    return floor


def _next_cut(track: Loudness, floor: Loudness, silent: Flags, start: int, aim: float, longest: int) -> int:
    """Return the length of the next chunk: `aim`, give or take half of it, at most `longest`."""
    first, last = max(math.ceil(aim / 2), 1), min(math.floor(aim * 1.5), longest)
    reach = slice(start + first, start + last + 1)
    pauses = _pauses(silent[reach])
    if len(pauses) == 0:
        pauses = _pauses(_quiet(track, floor, reach))
    if len(pauses) == 0:
        return first + _quietest(track[reach], aim - first)
    middles = pauses.sum(axis=1) // 2
    lengths = np.minimum(pauses[:, 1] - pauses[:, 0], MAX_PAUSE_FRAMES)
    off = (first + middles - aim) / aim  # within -0.5..0.5
    # at the ends of its reach a pause counts half
    best = int(np.argmax(lengths * (1 - 2 * off**2)))
    return first + int(middles[best])


def _quiet(track: Loudness, floor: Loudness, reach: slice) -> Flags:
    """Return whether each frame within reach is near enough to the noise floor for a pause."""
    around = track[max(reach.start - BLOCK_FRAMES, 0) : reach.stop + BLOCK_FRAMES]
    level = float(np.percentile(around, LEVEL_PERCENTILE))
    lowest = np.maximum(floor[reach], level - MAX_RANGE_DB)
    limit = np.where(level - lowest >= MIN_RANGE_DB, lowest + PAUSE_HEIGHT * (level - lowest), -np.inf)
    return track[reach] < limit


def _pauses(flags: Flags) -> npt.NDArray[np.intp]:
    """Return start and end of each run of true values long enough for a pause, ``(n_runs, 2)``."""
    runs = true_runs(flags)
    return runs[runs[:, 1] - runs[:, 0] >= MIN_PAUSE_FRAMES]


def _quietest(track: Loudness, aim: float) -> int:
    """Return the middle of the quietest 200 ms; of equally quiet ones, that nearest to `aim`."""
    width = min(MIN_PAUSE_FRAMES, len(track))
    sums = np.cumsum(np.concatenate([[0.0], track.astype(np.float64)]))
    means = (sums[width:] - sums[:-width]) / width
    equal = np.flatnonzero(means <= means.min() + 0.01)
    middles = equal + width // 2
    return int(middles[np.argmin(np.abs(middles - aim))])
