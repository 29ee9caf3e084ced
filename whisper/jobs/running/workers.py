"""Workers as their runner has them: something to send messages to, that puts its own into the runner's queue.

`ProcessWorker` is a process on this machine. What a worker says, and how it ends, arrives in one queue, so that the
runner waits in one place.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from typing import Any, Protocol

from ...device import processes
from ...device.allocator import keeping_little
from .forked import Forked
from .messages import Lost, WorkerSettings, receive, send

# Of pairs: the worker, and its message. Not `SimpleQueue`, which in CPython 3.11 waits for ever where its timeout has
# passed before it begins to wait, as happens on a busy machine.
Events = queue.Queue
_CODE = """
import sys
sys.path[:] = {path!r}
from whisper.jobs.running.worker import main
main()
"""


class WorkerHandle(Protocol):
    """A worker, however it runs."""

    name: str

    def send(self, message: object) -> None:
        """Send a message; one to a worker that is lost goes nowhere, and `Lost` is in the queue."""

    def kill(self) -> None:
        """End it at once; `Lost` comes into the queue."""


class ProcessWorker:
    """A worker in a process of its own.

    Parameters
    ----------
    name
        For messages to the user.
    settings
        What it is to be.
    events
        Gets what it says.
    forked
        A process that was forked for it; by default a new one is started.
    """

    def __init__(
        self, name: str, settings: WorkerSettings, events: Events[tuple[Any, object]], forked: Forked | None = None
    ) -> None:
        self.name, self._events, self._lock = name, events, processes.lock()
        self._process: subprocess.Popen[bytes] | Forked = forked or subprocess.Popen(
            [sys.executable, "-c", _CODE.format(path=sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=keeping_little(os.environ),
            start_new_session=True,  # Ctrl-C is for the runner, which ends its workers
        )
        self.pid = self._process.pid
        self.send(settings)
        threading.Thread(target=self._listen, name=f"sotto-{name}", daemon=True).start()

    def send(self, message: object) -> None:
        """See `WorkerHandle.send`."""
        assert self._process.stdin is not None
        with self._lock, suppress(OSError, ValueError):  # it is lost: that is in the queue
            send(self._process.stdin, message)

    def kill(self) -> None:
        """See `WorkerHandle.kill`."""
        self._process.kill()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        try:
            while True:
                message = receive(self._process.stdout)
                self._events.put((self, message))
        except Exception:  # its end, or a message cut off by it
            self._process.kill()
        code = self._process.wait()
        self._events.put((self, Lost(_how_it_ended(code))))
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError, ValueError, AttributeError):
                pipe.close()  # type: ignore[union-attr]


def _how_it_ended(code: int) -> str:
    if code < 0 and os.name == "posix":
        with suppress(ValueError):
            name = signal.Signals(-code).name
            return f"{name}, perhaps for want of memory" if name == "SIGKILL" else name
    return f"exit code {code}"
