"""What a run is doing at this moment: one line for a person, and figures for Prometheus.

Time that is left goes by seconds of sound. Of recordings that were not opened yet these are estimated, from the size of
their files and what those that are done had.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from ...files import atomic_write
from ..running.runner import Runner
from ..store import STATES, JobStore

METRICS_S = 15.0  # seconds between two writings of the file of metrics
BYTES_PER_SECOND = 16_000.0  # of sound, before any is done
_COST = 50  # a look at the totals takes at most this part of the time


@dataclass(frozen=True)
class Sight:
    """The figures of a job at one moment."""

    counts: dict[str, int]  # recordings by state
    seconds_done: float  # of sound, in all runs
    seconds_left: float  # of sound; estimated
    rate: float | None  # seconds of sound in a second of this run; None before anything is measured

    @property
    def n(self) -> int:
        """Return how many recordings there are."""
        return sum(self.counts.values())

    @property
    def time_left(self) -> float | None:
        """Return the seconds until the job is done, at the rate of this run."""
        return self.seconds_left / self.rate if self.rate else None


def sight(store: JobStore, runner: Runner | None = None) -> Sight:
    """Look at a job, and at a run of it."""
    totals = store.totals()
    done, waiting, running = totals["done"], totals["waiting"], totals["running"]
    per_second = done["bytes"] / done["seconds"] if done["seconds"] and done["bytes"] > 0 else BYTES_PER_SECOND
    left = sum(t["seconds"] + max(t["unknown"], 0) / per_second for t in (waiting, running))
    rate, ahead = None, 0.0
    if runner is not None:
        ahead = sum(seconds for _, seconds, _ in runner.running())
        if runner.measured_since is not None and (taken := time.monotonic() - runner.measured_since) > 0.5:
            rate = (runner.seconds_done + ahead) / taken or None
    counts = {state: int(totals[state]["n"]) for state in STATES}
    return Sight(counts, done["seconds"], max(left - ahead, 0.0), rate)


class Live:
    """Follows a run.

    Parameters
    ----------
    store, runner
        The job and its run.
    metrics
        The file for Prometheus, where it is wanted.
    """

    def __init__(self, store: JobStore, runner: Runner, metrics: str | None = None) -> None:
        self.store, self.runner, self.metrics = store, runner, metrics
        self._sight, self._until, self._written = sight(store), 0.0, 0.0

    def look(self) -> Sight:
        """Return the figures; they are counted anew as often as that is cheap."""
        if (now := time.monotonic()) >= self._until:
            self._sight = sight(self.store, self.runner)
            self._until = now + max(1.0, _COST * (time.monotonic() - now))
        return self._sight

    def line(self) -> str:
        """Return one line for a person."""
        now = self.look()
        parts = [f"{now.counts['done']:,} of {now.n:,} done"]
        if now.counts["failed"]:
            parts.append(f"{now.counts['failed']:,} failed")
        if self.runner.is_paused:
            parts.append("paused")
        elif self.runner.is_loading:
            parts.append("loading the model")
        if now.rate:
            parts.append(f"{now.rate:.1f} x real time")
        if now.time_left:
            parts.append(f"{in_words(now.time_left)} left for {in_words(now.seconds_left)} of sound")
        return ", ".join(parts)

    def tick(self) -> None:
        """Write the metrics when it is time."""
        if self.metrics is not None and time.monotonic() - self._written >= METRICS_S:
            self.write_metrics()

    def write_metrics(self) -> None:
        """Write the file for Prometheus' textfile collector; one that cannot be written is left out."""
        if self.metrics is None:
            return
        self._written = time.monotonic()
        try:
            with atomic_write(self.metrics, fsync=False, encoding="utf-8") as file:
                runner = self.runner
                file.write(prometheus(self.look(), str(self.store.out), len(runner.running()), runner.idle))
        except OSError:  # the job itself is worth more than its metrics
            self._written += 4 * METRICS_S


def prometheus(now: Sight, out: str, n_side_by_side: int, idle: float | None = None) -> str:
    """Return figures in Prometheus' text format."""
    label = os.path.abspath(out).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    label = label.encode("utf-8", "replace").decode("utf-8")
    lines = [
        "# HELP sotto_job_recordings Recordings of the job by state.",
        "# TYPE sotto_job_recordings gauge",
        *(f'sotto_job_recordings{{job="{label}",state="{state}"}} {n}' for state, n in now.counts.items()),
    ]
    for name, help_text, value in (
        ("audio_done_seconds", "Sound that is transcribed.", now.seconds_done),
        ("audio_left_seconds", "Sound that is left, estimated.", now.seconds_left),
        ("rate", "Seconds of sound that are transcribed in a second.", now.rate or 0.0),
        ("left_seconds", "Time until the job is done.", now.time_left or 0.0),
        ("side_by_side", "Recordings that run at this moment.", n_side_by_side),
        ("device_idle_ratio", "Share of the time in which devices waited for work.", idle or 0.0),
        ("updated_seconds", "When this was written, since 1970.", time.time()),
    ):
        lines += [f"# HELP sotto_job_{name} {help_text}", f"# TYPE sotto_job_{name} gauge"]
        lines.append(f'sotto_job_{name}{{job="{label}"}} {value:.3f}')
    return "\n".join(lines) + "\n"


def in_words(seconds: float) -> str:
    """Return a time as a person says it, with two units at most."""
    seconds = round(seconds)
    for size, big, small_size, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= size:
            rest = seconds % size // small_size
            return f"{seconds // size} {big}" + (f" {rest} {small}" if rest else "")
    return f"{seconds} s"
