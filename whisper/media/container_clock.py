"""What a container's time stamps say of when its sound is: how late it begins, and what time holds none.

Decides how much silence belongs before each frame of sound so that times are the container's, and how much of what the
stamps say is not believed. Sees numbers alone, neither packets nor samples.
"""

from __future__ import annotations

import math

GAP = 0.015  # seconds; the shortest packets in use last 20 ms, and rounded time stamps waver by 10 at most
LATE = 0.1  # seconds; encoders' delays and what players do not notice are below
BACK = 1.0  # seconds; a stamp that goes back by so much begins to count anew, as where recordings were joined
MOST_SILENCE = 7200.0  # seconds that are put in altogether: 230 MB of 16-bit samples at 16 kHz


class ContainerClock:
    """The time stamps of one recording's frames, in their order.

    Parameters
    ----------
    start
        When the container begins, with its video, in seconds by its own stamps.
    keeps
        Whether silence is to be put where the stamps say that there is no sound.

    Attributes
    ----------
    decoded
        Seconds of sound so far.
    late
        Seconds by which the sound begins later than the container; 0 where that is too little to be noticed.
    missing
        Seconds in the middle that hold no sound.
    first_gap
        Where the first of them is, in seconds of sound; negative where there is none.
    doubted
        The first jump that is no gap that can be meant: where it is, and of how many seconds.
    """

    def __init__(self, start: float, keeps: bool) -> None:
        self.decoded = self.late = self.missing = 0.0
        self.first_gap = -1.0
        self.doubted: tuple[float, float] | None = None
        self._start, self._keeps = start, keeps
        self._expected: float | None = None  # the next stamp
        self._silence = 0.0  # put in so far
        self._zero = 0.0  # the stamp at which what is given out begins

    def follow(self, stamp: float | None, seconds: float) -> float:
        """Take note of a frame; returns how many seconds of silence belong before it."""
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
        lag = stamp - self._zero - self.decoded - self._silence  # how late what comes next is to be
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
        """Say what of the container's time has no sound, and what that does to times."""
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
