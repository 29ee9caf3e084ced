"""Work in a forked child process, whose memory goes with it: what needs torch once, where the rest does without.

What the work gives must lie in files: nothing comes back but its error.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from .lazy_torch import is_here

_INTERRUPTED = 128 + signal.SIGINT


def saves_memory() -> bool:
    """Whether a child can be forked here, and torch is not in this process already."""
    return sys.platform == "linux" and not is_here() and threading.active_count() == 1


def run(work: Callable[[], object]) -> bool:
    """Do some work in a child, and wait for it; an error of the work is raised here.

    Parameters
    ----------
    work
        What to do; what it returns is lost.

    Returns
    -------
    bool
        Whether it was done: False where the child died, or had an error that cannot be sent.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            _answer(work, writing)
        finally:  # an interrupt before it began
            os._exit(_INTERRUPTED)
    try:
        os.close(writing)
        with open(reading, "rb") as pipe:
            answer = pipe.read()
    except BaseException:  # Ctrl-C, which may have reached this process alone
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGINT)
        raise
    finally:
        _, status = os.waitpid(pid, 0)
    if answer:
        raise pickle.loads(answer)
    if os.waitstatus_to_exitcode(status) == _INTERRUPTED:
        raise KeyboardInterrupt
    return status == 0


def _answer(work: Callable[[], object], writing: int) -> NoReturn:
    """Do the work, write its error, and end this process without what Python does at an exit."""
    status = 1
    try:
        work()
        status = 0
    except KeyboardInterrupt:
        status = _INTERRUPTED
    except BaseException as error:  # raised again in the parent
        with suppress(Exception):  # not all errors can be pickled
            content = pickle.dumps(error)
            pickle.loads(content)
            with open(writing, "wb") as pipe:
                pipe.write(content)
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)
