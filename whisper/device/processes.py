"""What keeps a process that was forked from another one able to work, and lets one end while threads are at work.

A fork copies the memory of a process and one of its threads. Three things that the others had are left behind in the
child, and waiting for them would never end: the threads of GNU's OpenMP, on which torch and the compiled kernels
compute; locks; imports. So before a fork this thread's OpenMP threads are ended (both processes start new ones when
they need them) and imports of ours are let finish, and in the child the locks made here are opened. Whoever keeps a
state that a thread may have been changing looks at `os.getpid` and begins anew.

Python waits at its end for no daemon thread: one that comes back from a function in C then is ended where it stands,
and C++ above it, as in torch, takes the process down. So what they do is done in pieces, each between `begin` and
`end`, and Python's end waits for the piece. Nothing here runs before a fork or the end.
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

import torch

from ..errors import DeviceError

# what this package imports when it first needs it; a module that a lost thread was importing never gets whole
_IMPORTED_LATE = frozenset({"whisper", "av", "tiktoken", "regex", "safetensors", "tqdm", "filelock", "numpy", "torch"})
_HARD = 2  # omp_pause_hard: end the threads, wherever that is a difference


_LOCKS: weakref.WeakSet[Any] = weakref.WeakSet()


def lock() -> threading.Lock:
    """Return a lock that is open in a child forked while a thread held it."""
    made = threading.Lock()
    _LOCKS.add(made)
    return made


def rlock() -> threading.RLock:
    """Return a reentrant lock that is open in a child forked while a thread held it."""
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
# The end
# ---------------------------------------------------------------------------------------------------------

LONGEST_PIECE = 5.0  # seconds that the end waits; who reads from a pipe may never come back, and does no harm

_at_work: dict[int, int] = {}  # by thread, of the daemons: pieces that it is in, one inside the other
_guard = lock()
_is_ending = False


def begin() -> bool:
    """Begin a piece of work, to be closed by `end`; False where Python ends and this thread has to `rest`."""
    if not threading.current_thread().daemon:
        return True
    here = threading.get_ident()
    with _guard:
        if _is_ending and here not in _at_work:
            return False
        _at_work[here] = _at_work.get(here, 0) + 1
    return True


def end() -> None:
    """End the piece of work that `begin` has begun."""
    here = threading.get_ident()
    with _guard:
        if (depth := _at_work.pop(here, 0)) > 1:
            _at_work[here] = depth - 1


@contextlib.contextmanager
def piece() -> Iterator[None]:
    """Do a piece of work, where nothing is held meanwhile that others at Python's end could want."""
    if not begin():
        rest()
    try:
        yield
    finally:
        end()


def rest() -> None:
    """Wait for the process to end, holding nothing."""
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

_paused = threading.local()  # in whose `here` stands whether this thread has ended its OpenMP threads


def _before() -> None:
    outcomes = [pause(_HARD) for pause in _pauses()]
    _paused.here = not any(outcomes)
    _wait_for_imports()  # the last, so that no other begins


def _after_in_parent() -> None:
    _paused.here = False


def _after_in_child() -> None:
    for held in list(_LOCKS):
        held._at_fork_reinit()
    for thread in _at_work.keys() - {threading.get_ident()}:
        del _at_work[thread]
    if not getattr(_paused, "here", False):  # an old OpenMP, or a fork that Python did not see
        _work_alone()
    _renew_thread_pool()
    _paused.here = False


def _wait_for_imports() -> None:
    """Wait until no other thread is importing what we need; a module that this very thread imports is no obstacle."""
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
    """Let torch make the pool anew that it has beside OpenMP's, which two threads that are first at once break.

    A thread's first question after the number does it, where that has been set.
    """
    thread = threading.Thread(target=torch.get_num_threads)
    thread.start()
    thread.join()


_LIBRARIES: list[ctypes.CDLL] = []


def computes_with(library: ctypes.CDLL) -> None:
    """Take note of a library that may have an OpenMP of its own, beside torch's."""
    _LIBRARIES.append(library)


def _pauses() -> Iterator[Callable[[int], int]]:
    """The functions that end the OpenMP threads of the calling thread, where it is GNU's that lies below a library.

    The others (LLVM's, Intel's) look after themselves in a child.
    """
    for library in (ctypes.CDLL(torch._C.__file__), *_LIBRARIES):
        if hasattr(library, "GOMP_parallel") and not hasattr(library, "__kmpc_fork_call"):
            yield getattr(library, "omp_pause_resource_all", _cannot_pause)


def _cannot_pause(_kind: int) -> int:
    """Stand in for the function in an OpenMP older than GCC 9."""
    return -1


def _work_alone() -> None:
    """Let torch, and so the kernels, compute on this thread alone: a team of one asks nobody."""
    if torch.get_num_threads() > 1:
        torch.set_num_threads(1)
        warnings.warn(
            "this process was forked from one whose OpenMP threads cannot be started anew, so PyTorch computes on one "
            'thread here; start it with "spawn" for more',
            RuntimeWarning,
            stacklevel=2,
        )


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
