"""A thread that has its turn soon, though others compute: a short time slice of Linux's scheduler

The scheduler gives the processor first to whoever asks for least of it at once (EEVDF). A thread with a short slice
waits less for its turn, and has no larger share. Linux takes slices from version 6.12 on, of everybody's own threads.
"""

from __future__ import annotations

import ctypes
import platform
import sys

SHORT_NS = 100_000  # the shortest that the kernel takes; its own is about 3 ms
CALLS = {"x86_64": (314, 315), "aarch64": (274, 275), "riscv64": (274, 275)}  # sched_setattr, sched_getattr
SCHED_OTHER, RESET_ON_FORK = 0, 1


class _Attributes(ctypes.Structure):
    """The kernel's ``struct sched_attr``, in its first form."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),  # the slice in nanoseconds, for SCHED_OTHER
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )


def have_turns_soon() -> bool:
    """Give the calling thread a short time slice, which threads that it starts do not inherit.

    Returns
    -------
    bool
        Whether the kernel took it. Nothing is changed on other systems and older kernels, where the call is forbidden,
        and for threads whose scheduling somebody has chosen (a real-time policy, or a negative nice value).
    """
    found = _read()
    if found is None or found.policy != SCHED_OTHER or found.nice < 0:
        return False
    found.flags |= RESET_ON_FORK
    found.runtime = SHORT_NS
    _call(0, ctypes.byref(found), 0)
    return slice_ns() == SHORT_NS


def slice_ns() -> int | None:
    """Return the time slice of the calling thread in nanoseconds; None where the kernel does not tell."""
    found = _read()
    return (found.runtime or None) if found is not None else None


def _read() -> _Attributes | None:
    found = _Attributes()
    size = ctypes.sizeof(found)
    return found if _call(1, ctypes.byref(found), size, 0) else None


def _call(which: int, *arguments: object) -> bool:
    """Call one of `CALLS` for the calling thread; say whether it succeeded."""
    numbers = CALLS.get(platform.machine()) if sys.platform == "linux" and sys.maxsize > 2**32 else None
    if numbers is None:
        return False
    try:
        syscall = ctypes.CDLL(None).syscall
    except (OSError, AttributeError):
        return False
    syscall.restype = ctypes.c_long
    return bool(syscall(ctypes.c_long(numbers[which]), 0, *arguments) == 0)
