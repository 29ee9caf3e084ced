"""glibc's malloc in processes with many threads, whose memory must stay level for days

Each arena keeps what it once held, so there are few; and large blocks, such as those of an encoded window, are mapped
for themselves and go back to the system when they are freed. glibc itself takes them from the arenas as soon as one was
freed, where what stays in between keeps all of it.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Mapping

ARENAS = 2  # glibc itself makes up to eight for each core, and memory grows for hours
LARGE = 1 << 20  # bytes of a block that is mapped for itself
M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8  # glibc's malloc.h


def keep_little() -> None:
    """Let this process keep little of what it frees; nothing happens with another libc."""
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_ARENA_MAX, ARENAS)
        mallopt(M_MMAP_THRESHOLD, LARGE)


def keeping_little(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which a new process keeps little, unless it says itself how much."""
    return {"MALLOC_ARENA_MAX": str(ARENAS), "MALLOC_MMAP_THRESHOLD_": str(LARGE), **environment}
