"""What a decoder process may take: memory, time of the processor, open files, and no writing of files at all."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from dataclasses import dataclass

_NO_NEW_PRIVILEGES = 38  # PR_SET_NO_NEW_PRIVS, linux/prctl.h
_MOST_FILES = 64


@dataclass(frozen=True)
class Limits:
    """The limits of one decoder process.

    Attributes
    ----------
    memory_mb
        Megabytes of address space beyond what the process has before its first file.
    cpu_s
        Seconds of the processor for one file.
    stall_s
        Seconds without a sample or a sign, after which the process is ended; its owner counts them.
    """

    memory_mb: int = 1024
    cpu_s: int = 900
    stall_s: float = 30.0


def confine(limits: Limits) -> None:
    """Put this process under its limits, for good."""
    import resource

    with open("/proc/self/statm", encoding="ascii") if sys.platform == "linux" else contextlib.nullcontext() as file:
        n_pages = int(file.read().split()[0]) if file is not None else 0
    memory = n_pages * resource.getpagesize() + limits.memory_mb * (1 << 20)
    for kind, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, _MOST_FILES),
        (resource.RLIMIT_AS, memory),
    ):
        with contextlib.suppress(ValueError, OSError):  # a system that has no such limit, such as macOS for memory
            resource.setrlimit(kind, (value, value))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)


def allow_cpu(seconds: int) -> None:
    """Let this process compute for so many seconds from now on; then SIGXCPU ends it."""
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime) + 1 + seconds
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
