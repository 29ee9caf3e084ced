"""What a job will take before it runs: sound, time and disk, from the headers of some of its recordings."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from .. import remote
from ..store import JobStore, Recording
from .live import BYTES_PER_SECOND

MOST_OPENED = 200  # recordings whose header is read
DISK_PER_HOUR = 1_500_000  # bytes of files for an hour of speech, all formats and the kept result; measured


@dataclass(frozen=True)
class Estimate:
    """What waits."""

    n: int
    seconds: float  # of sound
    n_opened: int  # recordings of which that is known
    disk: float  # bytes that will be written


def estimate(store: JobStore) -> Estimate:
    """Estimate what waits in a job."""
    waiting = [one for one in store.recordings(["waiting"]) if one.size is not None]
    local = [one for one in waiting if not remote.is_address(one.source)]
    chosen = local if len(local) <= MOST_OPENED else random.Random(0).sample(local, MOST_OPENED)
    known = {one.id: seconds for one in chosen if (seconds := one.seconds or seconds_of(one.source)) is not None}
    per_second = _bytes_per_second(chosen, known)
    seconds = sum(known.get(one.id) or one.seconds or (one.size or 0) / per_second for one in waiting)
    return Estimate(len(waiting), seconds, len(known), seconds / 3600 * DISK_PER_HOUR)


def _bytes_per_second(chosen: Sequence[Recording], known: dict[int, float]) -> float:
    seconds = sum(known.values())
    n_bytes = sum(one.size or 0 for one in chosen if one.id in known)
    return n_bytes / seconds if seconds > 0 and n_bytes > 0 else BYTES_PER_SECOND


def seconds_of(path: str) -> float | None:
    """Return how long a recording is, by its header; None where that does not say."""
    import av

    with suppress(Exception), av.open(path) as container:  # whatever is wrong with it is told when it runs
        if container.duration:
            return float(container.duration) / av.time_base
    return None
