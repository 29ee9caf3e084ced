"""A worker as a fork of a runner that has only begun: torch is imported there, which takes a new process seconds.

Only for a program of our own with one thread, which has opened nothing that a child must not have; and where the model
runs on a CPU, as CUDA does not survive a fork.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import warnings
from typing import NoReturn

from ...device.allocator import keep_little

_MOST_FILES = 1 << 16


def is_possible() -> bool:
    """Whether this process may be forked: on Linux, while it has one thread."""
    return sys.platform == "linux" and threading.active_count() == 1


class Forked:
    """A process that waits for the settings of its worker; like `subprocess.Popen`, as far as that is used."""

    def __init__(self) -> None:
        theirs, ours = os.pipe()
        answers, answering = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads of BLAS, which `processes` sees to
            self.pid = os.fork()
        if not self.pid:
            _work(theirs, answering)
        os.close(theirs)
        os.close(answering)
        self.stdin, self.stdout = os.fdopen(ours, "wb"), os.fdopen(answers, "rb")
        self._code: int | None = None
        self._lock = threading.Lock()

    def kill(self) -> None:
        """End it at once."""
        with self._lock:
            if self._code is None:
                os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """Wait for its end; returns its exit code, or minus the signal that ended it."""
        if self._code is None:
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)  # its number is not given to another process yet
            with self._lock:
                self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._code

    def discard(self) -> None:
        """End it, and let nothing of it remain."""
        self.kill()
        self.wait()
        self.stdin.close()
        self.stdout.close()


def _work(source: int, target: int) -> NoReturn:
    """Be a worker, in the child."""
    try:
        os.setsid()  # Ctrl-C is for the runner, which ends its workers
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        gc.freeze()  # files of the runner are closed once, here and now
        os.dup2(source, 0)
        os.dup2(target, 1)
        os.closerange(3, _MOST_FILES)
        keep_little()
        from .worker import main

        main()
    except BaseException:  # the child never goes on as the runner
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(1)
