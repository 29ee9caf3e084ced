"""Where a long recording can be cut: in the middle of pauses of speech, or, where none is known, of loudness.

Pure functions on numbers: one loudness per frame of 10 ms, and stretches of speech. Skips nothing, so silence stays
within what is cut; cuts into speech when it must.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from .errors import OptionError, ShapeError
from .vad import Speech
from .windows import Clip

Loudness = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]

SHORTEST_PAUSE = 20  # frames: 200 ms; below it lie the closures of consonants
LONGEST_PAUSE = 300  # frames: a pause of 3 s is as good as one of 10
BLOCK = 1000  # frames: the noise floor is that of a block of 10 s and its two neighbours
FLOOR_SHARE, LEVEL_SHARE = 10, 90  # per cent of the frames that are quieter
PAUSE_HEIGHT = 0.25  # of the way from the floor to the level: what lies below is a pause
LEAST_RANGE = 6.0  # decibels from floor to level; with less, nothing stands out as a pause
MOST_RANGE = 40.0  # decibels: digital silence is no quieter than this, so that breath and room count as pauses, too


def stretches(
    loudness: Loudness, n_frames: int, target: int, longest: int, speech: Speech | None = None, begin: int = 0
) -> list[Clip]:
    """Cut a recording into stretches at its pauses.

    Parameters
    ----------
    loudness
        Decibels, to any reference, of each frame of 10 ms, shape ``(n,)``; frames past `n_frames` do not count.
    n_frames
        Length of the recording.
    target
        Length that the stretches should have, in frames.
    longest
        Length that none may exceed, in frames; at least `target`.
    speech
        Where somebody speaks: then a cut falls into a pause of speech wherever there is one within reach.
    begin
        Frame of the recording, whose clock `speech` goes by, that `loudness` begins at.

    Returns
    -------
    First frame and frame after the last of each stretch. Together they are the whole recording, in order, without
    gap or overlap; none is shorter than a quarter of `target`, unless the recording is. None where it is empty.

    Raises
    ------
    OptionError
        `target` is below 1, or `longest` below `target`.
    ShapeError
        `loudness` has not one axis of at least `n_frames`.
    """
    if not 1 <= target <= longest:
        raise OptionError(f"target={target}, longest={longest}: a stretch has at least 1 frame, and longest is no less")
    if loudness.ndim != 1 or len(loudness) < n_frames:
        raise ShapeError(f"loudness of shape {loudness.shape} for {n_frames} frames; it must be ({n_frames},)")
    track = loudness[:n_frames]
    floor = noise_floor(track)
    silent = _silent(speech, begin, n_frames) if speech else np.zeros(n_frames, np.bool_)
    cuts = [0]
    while (rest := n_frames - cuts[-1]) > 0:
        n_left = max(math.floor(rest / target + 0.5), math.ceil(rest / longest))
        cuts.append(
            n_frames if n_left == 1 else cuts[-1] + _next_cut(track, floor, silent, cuts[-1], rest / n_left, longest)
        )
    return list(pairwise(cuts))


def noise_floor(loudness: Loudness) -> Loudness:
    """Loudness below which a tenth of the half minute around each frame lies, shape ``(n,)``."""
    floor = np.empty_like(loudness)
    for start in range(0, len(loudness), BLOCK):
        around = loudness[max(start - BLOCK, 0) : start + 2 * BLOCK]
        floor[start : start + BLOCK] = np.percentile(around, FLOOR_SHARE)
    return floor


def _silent(speech: Speech, begin: int, n_frames: int) -> Flags:
    """Whether nobody speaks in each of the frames from `begin` on, shape ``(n_frames,)``."""
    silent = np.ones(n_frames, np.bool_)
    for start, end in speech.clips(begin + n_frames, longest_pause=0.0):
        silent[max(start - begin, 0) : max(end - begin, 0)] = False
    return silent


def _next_cut(track: Loudness, floor: Loudness, silent: Flags, start: int, aim: float, longest: int) -> int:
    """Length of the stretch from `start` on, which should be `aim`: half to one and a half of it, `longest` at most."""
    first, last = max(math.ceil(aim / 2), 1), min(math.floor(aim * 1.5), longest)
    reach = slice(start + first, start + last + 1)
    pauses = _pauses(silent[reach])
    if len(pauses) == 0:
        pauses = _pauses(_quiet(track, floor, reach))
    if len(pauses) == 0:
        return first + _quietest(track[reach], aim - first)
    middles = pauses.sum(axis=1) // 2
    lengths = np.minimum(pauses[:, 1] - pauses[:, 0], LONGEST_PAUSE)
    off = (first + middles - aim) / aim  # within -0.5..0.5
    best = int(np.argmax(lengths * (1 - 2 * off**2)))  # at the ends of the reach a pause counts half
    return first + int(middles[best])


def _quiet(track: Loudness, floor: Loudness, reach: slice) -> Flags:
    """Whether each frame within reach is so little above the floor that it belongs to a pause."""
    around = track[max(reach.start - BLOCK, 0) : reach.stop + BLOCK]
    level = float(np.percentile(around, LEVEL_SHARE))
    lowest = np.maximum(floor[reach], level - MOST_RANGE)
    limit = np.where(level - lowest >= LEAST_RANGE, lowest + PAUSE_HEIGHT * (level - lowest), -np.inf)
    return track[reach] < limit


def _pauses(flags: Flags) -> npt.NDArray[np.intp]:
    """First index and index after the last of each run of true values that is long enough, shape ``(n_runs, 2)``."""
    edges = np.flatnonzero(np.diff(flags.astype(np.int8), prepend=0, append=0)).reshape(-1, 2)
    return edges[edges[:, 1] - edges[:, 0] >= SHORTEST_PAUSE]


def _quietest(track: Loudness, aim: float) -> int:
    """Middle of the quietest 200 ms; of equal ones, that nearest to `aim`."""
    width = min(SHORTEST_PAUSE, len(track))
    sums = np.cumsum(np.concatenate([[0.0], track.astype(np.float64)]))
    means = (sums[width:] - sums[:-width]) / width
    equal = np.flatnonzero(means <= means.min() + 0.01)
    middles = equal + width // 2
    return int(middles[np.argmin(np.abs(middles - aim))])
