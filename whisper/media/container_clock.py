"""Time stamps of a container: a late start of the sound, gaps in it, and the silence that fills them.

Decides how much silence goes before each frame so that times are those of the container, and which
jumps of the time stamps are not plausible. Works on numbers only, without packets or samples.
"""

from __future__ import annotations

import math

GAP = 0.015  # seconds; the shortest packets in use last 20 ms, and rounding shifts time stamps by at most 10
LATE = 0.1  # seconds; delays of encoders are shorter, and players ignore less
BACK = 1.0  # seconds; a stamp that goes back this far starts a new count, as in joined recordings
MOST_SILENCE = 7200.0  # seconds of silence inserted in total: 230 MB of 16-bit samples at 16 kHz


class ContainerClock:
    """The time stamps of one recording's frames, in their order.

    Parameters
    ----------
    start
        Start of the container (with its video), in seconds of its own time stamps.
    keeps
        Whether to insert silence where there is no sound according to the stamps.

    Attributes
    ----------
    decoded
        Seconds of sound decoded so far.
    late
        Seconds from the start of the container to that of the sound; 0 if negligible.
    missing
        Total length of the gaps in the sound, in seconds.
    first_gap
        Position of the first gap, in seconds of sound; negative if there is none.
    doubted
        The first implausible jump: its position and its length, in seconds.
    """

    def __init__(self, start: float, keeps: bool) -> None:
        self.decoded = self.late = self.missing = 0.0
        self.first_gap = -1.0
        self.doubted: tuple[float, float] | None = None
        self._start, self._keeps = start, keeps
        self._expected: float | None = None  # the next stamp
        self._silence = 0.0  # inserted so far
        self._zero = 0.0  # the time stamp of the first output sample

    def follow(self, stamp: float | None, seconds: float) -> float:
        """Record the time stamp of a frame; returns the seconds of silence to insert before it."""
        silence = 0.0
        if stamp is None or not math.isfinite(stamp):
            stamp = self._expected
        if stamp is not None:
            silence = self._begin(stamp) if self._expected is None else self._go_on(stamp, stamp - self._expected)
            self._expected = stamp + seconds
        self._silence += silence
        self.decoded += seconds
        return silence

    def _begin(self, stamp: float) -> float:
        self._zero = stamp - self.decoded  # there may have been frames without stamps
        late = self._zero - self._start
        if late < LATE:
            return 0.0
        if late > MOST_SILENCE:
            self.doubted = self.decoded, late
            return 0.0
        self.late = late
        self._zero -= late
        return late if self._keeps else 0.0

    def _go_on(self, stamp: float, jump: float) -> float:
        lag = stamp - self._zero - self.decoded - self._silence  # seconds from the output so far to this frame
        if jump <= -BACK:
            self._zero += lag
            return 0.0
        if jump > MOST_SILENCE or (self._keeps and self._silence + lag > MOST_SILENCE):
            self.doubted = self.doubted or (self.decoded, max(jump, lag))
            self._zero += lag
            return 0.0
        if abs(jump) >= GAP:
            self.missing += jump
            self.first_gap = self.decoded if self.first_gap < 0 else self.first_gap
        return lag if self._keeps and lag >= GAP and max(jump / GAP, lag / LATE) >= 1 else 0.0

    def losses(self) -> list[str]:
        """Describe late starts, gaps and implausible jumps, and their effect on times."""
        found = []
        if self.late and not self._keeps:
            found.append(f"its sound begins {self.late:.2f} s after the container, so all times are early by that")
        if self.missing >= GAP:
            effect = "; silence stands there" if self._keeps else ", and times behind are early by that"
            found.append(f"{self.missing:.2f} s of its time hold no sound, the first at {self.first_gap:.2f} s{effect}")
        if found and not self._keeps:
            found.append("container_time=True puts silence there, and times are the container's")
        if self.doubted:
            found.append(
                f"its time stamps jump by {self.doubted[1]:.6g} s at {self.doubted[0]:.2f} s, which is not taken for "
                f"silence (at most {MOST_SILENCE:.0f} s in all); times go on from there"
            )
        return found
