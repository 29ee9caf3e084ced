"""Which 30 s window comes next, and the prompt that the decoder gets for it.

Pure functions on numbers: frames of 10 ms, seconds and token ids; no audio, no tensors, no model.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..errors import OptionError
from ..spans import FRAMES_PER_SECOND, HOP_LENGTH, N_FRAMES, SAMPLE_RATE, FrameRange


@dataclass(frozen=True)
class Window:
    """A part of the recording that is decoded at once."""

    clip: int  # index of the clip that it is in
    seek: int  # first frame
    size: int  # frames of audio, at most N_FRAMES; the encoder gets padding after them

    @property
    def start(self) -> float:
        """Seconds from the start of the recording."""
        return float(self.seek * HOP_LENGTH / SAMPLE_RATE)

    @property
    def duration(self) -> float:
        """Seconds of audio."""
        return self.size * HOP_LENGTH / SAMPLE_RATE

    @property
    def end(self) -> float:
        """Seconds from the start of the recording to the end of the audio."""
        return float((self.seek + self.size) * HOP_LENGTH / SAMPLE_RATE)

    @property
    def full_end(self) -> float:
        """Where a full window would end, in seconds of the recording."""
        return float((self.seek + N_FRAMES) * HOP_LENGTH / SAMPLE_RATE)


def parse_clips(clip_timestamps: str | Sequence[float], content_frames: int) -> list[FrameRange]:
    """Convert start and end times to clips of whole frames, none of which ends after the recording.

    Parameters
    ----------
    clip_timestamps
        Seconds ``start, end, start, end, ...``, as numbers or as text with commas; a last start
        without an end goes to the end of the recording, and no times at all mean the whole
        recording.
    content_frames
        Length of the recording, in frames of 10 ms.

    Raises
    ------
    OptionError
        Something is not a time, or a clip ends before it starts.
    """
    given = clip_timestamps.split(",") if isinstance(clip_timestamps, str) else list(clip_timestamps)
    if isinstance(clip_timestamps, str) and not clip_timestamps.strip():
        given = []
    try:
        seconds = [float(time) for time in given]
    except (TypeError, ValueError):
        raise OptionError(
            f"clip_timestamps must be seconds as 'start,end,start,end,...', not {reprlib.repr(clip_timestamps)}"
        ) from None
    if wrong := [time for time in seconds if math.isnan(time) or time < 0]:
        raise OptionError(f"clip_timestamps must be times from 0 on, not {wrong[0]}")
    # an end after the recording is its end
    frames = [
        round(time * FRAMES_PER_SECOND) if time * FRAMES_PER_SECOND < content_frames else content_frames
        for time in seconds
    ]
    for start, end in zip(seconds[::2], seconds[1::2], strict=False):
        if end < start:
            raise OptionError(f"clip_timestamps: the clip from {start} s ends before it starts, at {end} s")
    if len(frames) % 2:
        frames.append(content_frames)
    return list(zip(frames[::2], frames[1::2], strict=True)) or [(0, content_frames)]


def intersection(clips: Sequence[FrameRange], others: Sequence[FrameRange]) -> list[FrameRange]:
    """Return what `clips` and `others` have in common; both are in order and without overlap."""
    shared = [(max(a, c), min(b, d)) for a, b in clips for c, d in others]
    return [(start, end) for start, end in shared if start < end]


def join_clips(clips: Sequence[FrameRange], max_frames: int, max_pause: int) -> list[FrameRange]:
    """Join neighbouring clips, in order, that fit into `max_frames` with the pause between them.

    A window costs the same however much of it is audio, so many short clips take as many windows.
    """
    joined: list[FrameRange] = []
    for start, end in clips:
        if joined and start - joined[-1][1] <= max_pause and end - joined[-1][0] <= max_frames:
            joined[-1] = joined[-1][0], end
        else:
            joined.append((start, end))
    return joined


def next_window(clips: Sequence[FrameRange], clip: int, seek: int) -> Window | None:
    """Return the window at frame `seek` of a clip, or of a later clip; None at the end."""
    while clip < len(clips):
        start, end = clips[clip]
        seek = max(seek, start)
        if seek < end:
            return Window(clip, seek, min(N_FRAMES, end - seek))
        clip += 1
        seek = clips[clip][0] if clip < len(clips) else seek
    return None


@dataclass
class PromptHistory:
    """The text so far, and the part of it that prompts the next window.

    Parameters
    ----------
    initial
        Tokens of the user's prompt.
    carry
        Put `initial` before the prompt of every window, not only of the first.
    max_prompt
        Most tokens that a prompt can have.
    """

    initial: list[int]
    carry: bool
    max_prompt: int
    tokens: list[int] = field(default_factory=list)  # initial, then all text
    reset_since: int = 0  # index of the first token that may still prompt a window

    def __post_init__(self) -> None:
        self.tokens = list(self.initial)

    def prompt(self) -> list[int]:
        """Return the prompt of the next window; the decoder keeps as much of its end as fits."""
        if not self.carry:
            return self.tokens[self.reset_since :]
        room = max(0, self.max_prompt - len(self.initial))
        recent = self.tokens[max(len(self.initial), self.reset_since) :]
        return self.initial + recent[max(0, len(recent) - room) :]

    def carried(self) -> list[int]:
        """Return the prompt of a window that no earlier text may influence."""
        return self.initial if self.carry else []

    def extend(self, tokens: Sequence[int]) -> None:
        """Append the tokens of a window's segments."""
        self.tokens += tokens

    def reset(self) -> None:
        """Prompt later windows with none of the text so far."""
        self.reset_since = len(self.tokens)

    @property
    def text_tokens(self) -> list[int]:
        """All tokens of the transcript, without the user's prompt."""
        return self.tokens[len(self.initial) :]
