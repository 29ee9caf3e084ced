"""Makes forked processes work (locks, OpenMP threads, imports), and lets Python exit while daemon threads compute.

A fork copies the memory of a process and one of its threads. The child would wait forever for three
things that belonged to the other threads: the threads of GNU OpenMP, on which torch and the compiled
kernels compute; locks; imports. So before a fork the OpenMP threads of this thread are ended (both
processes start new ones when needed) and running imports are completed; in the child the locks made
here are released. Code with state that another thread may have been changing compares `os.getpid`
and starts from a fresh state.

A fourth is MKL's. A thread that used it frees its buffers as it ends, after Python and `Thread.join`
believe it gone, and holds all of MKL's memory locks meanwhile: a child forked at that moment would
spin on them at its first Fourier transform. So threads that computed here end their OpenMP threads
with themselves, and a fork waits until the kernel no longer lists the ones that are ending.

Python does not wait for daemon threads at exit: one that returns from a C function at that time is
ended at once, which crashes the process if C++ code (as in torch) is on its stack. So daemon threads
work in pieces, each between `begin` and `end`, and the exit waits for the current piece. Nothing here
runs before a fork or the exit.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import importlib
import os
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from ..errors import DeviceError
from .lazy_torch import is_here, n_threads, set_n_threads, torch

# imported on first use; in a child, a module that another thread was importing would stay incomplete
_IMPORTED_LATE = frozenset({"whisper", "av", "tiktoken", "regex", "safetensors", "tqdm", "filelock", "numpy", "torch"})
_HARD = 2  # omp_pause_hard: end the threads, also where a soft pause would keep them


_LOCKS: weakref.WeakSet[Any] = weakref.WeakSet()


def lock() -> threading.Lock:
    """Return a lock that is free in a child that was forked while a thread held it."""
    made = threading.Lock()
    _LOCKS.add(made)
    return made


def rlock() -> threading.RLock:
    """Return a reentrant lock that is free in a child that was forked while a thread held it."""
    made = threading.RLock()
    _LOCKS.add(made)
    return made


def check_device(device: torch.device) -> None:
    """Raise `DeviceError` where this process was forked from one that used CUDA, which then cannot work here."""
    if device.type == "cuda" and torch.cuda._is_in_bad_fork():
        raise DeviceError(
            'CUDA was used before this process was forked, and does not survive that; start it with "spawn" '
            '(multiprocessing.get_context("spawn")), or use CUDA only after the fork'
        )


# ---------------------------------------------------------------------------------------------------------
# The exit of Python
# ---------------------------------------------------------------------------------------------------------

LONGEST_PIECE = 5.0  # seconds that the exit waits; a thread that reads a pipe may never return, and is harmless

_at_work: dict[int, int] = {}  # by daemon thread: its depth of nested pieces
_guard = lock()
_is_ending = False


def begin() -> bool:
    """Begin a piece of work, closed by `end`; False if Python is exiting and this thread has to `rest`."""
    thread = threading.current_thread()
    if not hasattr(_computing, "end") and thread is not threading.main_thread():
        _computing.end = _EndOfThread()
    if not thread.daemon:
        return True
    here = threading.get_ident()
    with _guard:
        if _is_ending and here not in _at_work:
            return False
        _at_work[here] = _at_work.get(here, 0) + 1
    return True


def end() -> None:
    """End the piece of work that `begin` started."""
    here = threading.get_ident()
    with _guard:
        if (depth := _at_work.pop(here, 0)) > 1:
            _at_work[here] = depth - 1


@contextlib.contextmanager
def piece() -> Iterator[None]:
    """Run a piece of work; the caller may hold nothing that other threads need when Python exits."""
    if not begin():
        rest()
    try:
        yield
    finally:
        end()


def rest() -> None:
    """Sleep until the process ends, without holding a lock."""
    while True:
        time.sleep(3600)


def _wait_for_pieces() -> None:
    global _is_ending
    with _guard:
        _is_ending = True
    until = time.monotonic() + LONGEST_PIECE
    while _at_work.keys() - {threading.get_ident()} and time.monotonic() < until:
        time.sleep(0.001)


atexit.register(_wait_for_pieces)

# ---------------------------------------------------------------------------------------------------------
# The fork
# ---------------------------------------------------------------------------------------------------------

_paused = threading.local()  # `here`: whether this thread has ended its OpenMP threads


_computing = threading.local()  # `end`: the `_EndOfThread` of a thread that has computed
_ending: set[int] = set()  # kernel's numbers of threads that have ended for Python, perhaps not for the kernel
LONGEST_END = 2.0  # seconds that a fork waits for them


class _EndOfThread:
    """Is deleted as its thread ends: ends the thread's OpenMP threads, which the end of a thread does not wait for."""

    def __init__(self) -> None:
        self.thread = threading.get_native_id()

    def __del__(self) -> None:
        if threading.get_native_id() != self.thread:  # in a forked child, where that thread is not
            return
        for pause in _pauses():
            pause(_HARD)
        _ending.difference_update([thread for thread in list(_ending) if not _is_listed(thread)])
        _ending.add(self.thread)


def _is_listed(thread: int) -> bool:
    return os.path.exists(f"/proc/self/task/{thread}")


def _wait_for_ending_threads() -> None:
    """Wait until the threads that are ending have released what they hold in C libraries."""
    until = time.monotonic() + LONGEST_END
    for thread in list(_ending):
        while _is_listed(thread) and time.monotonic() < until:
            time.sleep(0.0002)
        _ending.discard(thread)


def _before() -> None:
    outcomes = [pause(_HARD) for pause in _pauses()]
    _paused.here = not any(outcomes)
    _wait_for_imports()  # late, so that no other import begins
    _wait_for_ending_threads()


def _after_in_parent() -> None:
    _paused.here = False


def _after_in_child() -> None:
    for held in list(_LOCKS):
        held._at_fork_reinit()
    _ending.clear()
    for thread in _at_work.keys() - {threading.get_ident()}:
        del _at_work[thread]
    if not getattr(_paused, "here", False):  # an old OpenMP, or a fork that Python did not see
        _work_alone()
    _renew_thread_pool()
    _paused.here = False


def _wait_for_imports() -> None:
    """Wait until no other thread is importing a module that we need; imports of this thread do not count."""
    bootstrap: Any = importlib._bootstrap
    while names := [name for name, found in list(bootstrap._module_locks.items()) if _is_awaited(name, found())]:
        for name in names:
            bootstrap._lock_unlock_module(name)  # what an import of it by this thread would do


def _is_awaited(name: str, import_lock: Any) -> bool:
    return name.partition(".")[0] in _IMPORTED_LATE and getattr(import_lock, "owner", None) not in (
        None,
        threading.get_ident(),
    )


def _renew_thread_pool() -> None:
    """Recreate torch's own thread pool (beside OpenMP's); two threads that start it at once would break it.

    The first `torch.get_num_threads` of a new thread does it, if the number has been set.
    """
    if not is_here():
        return
    thread = threading.Thread(target=torch.get_num_threads)
    thread.start()
    thread.join()


_LIBRARIES: list[ctypes.CDLL] = []


def computes_with(library: ctypes.CDLL) -> None:
    """Register a library that may link another OpenMP than torch's."""
    _LIBRARIES.append(library)


def _pauses() -> Iterator[Callable[[int], int]]:
    """The functions that end the OpenMP threads of the calling thread, for libraries on GNU OpenMP.

    The others (LLVM's, Intel's) handle a fork themselves.
    """
    for library in (*([ctypes.CDLL(torch._C.__file__)] if is_here() else []), *_LIBRARIES):
        if hasattr(library, "GOMP_parallel") and not hasattr(library, "__kmpc_fork_call"):
            yield getattr(library, "omp_pause_resource_all", _cannot_pause)


def _cannot_pause(_kind: int) -> int:
    """Replace the function that OpenMP older than GCC 9 lacks."""
    return -1


def _work_alone() -> None:
    """Let torch, and so the kernels, compute on this thread only, which needs no OpenMP team."""
    if n_threads() > 1:
        set_n_threads(1)
        warnings.warn(
            "this process was forked from one whose OpenMP threads cannot be started anew, so PyTorch computes on one "
            'thread here; start it with "spawn" for more',
            RuntimeWarning,
            stacklevel=2,
        )


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
