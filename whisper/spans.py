"""Time in a recording: the units in which it is counted, spans in seconds and ranges of frames.

Knows no samples, text or model.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

SAMPLE_RATE = 16000  # hertz; the only rate that the models know
HOP_LENGTH = 160  # samples from one frame to the next: 10 ms
CHUNK_LENGTH = 30  # seconds that the encoder reads at once
N_SAMPLES = CHUNK_LENGTH * SAMPLE_RATE  # 480000
N_FRAMES = N_SAMPLES // HOP_LENGTH  # 3000 frames of mel
N_SAMPLES_PER_TOKEN = HOP_LENGTH * 2  # the encoder's second convolution halves the frames
FRAMES_PER_SECOND = SAMPLE_RATE // HOP_LENGTH  # 100
TOKENS_PER_SECOND = SAMPLE_RATE // N_SAMPLES_PER_TOKEN  # 50

Span: TypeAlias = tuple[float, float]  # start and end, seconds
FrameRange: TypeAlias = tuple[int, int]  # first frame (of 10 ms), and the frame after the last

_Time = TypeVar("_Time", int, float)


def merge_spans(spans: Iterable[tuple[_Time, _Time]], min_gap: float) -> list[tuple[_Time, _Time]]:
    """Merge spans that overlap or are closer than `min_gap`, in their unit; returns them sorted."""
    merged: list[tuple[_Time, _Time]] = []
    for start, end in sorted(spans):
        if merged and start - merged[-1][1] < min_gap:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


def true_runs(flags: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """Return start and end of each run of true values, ``(n_runs, 2)``."""
    return np.flatnonzero(np.diff(flags, prepend=False, append=False)).reshape(-1, 2)
