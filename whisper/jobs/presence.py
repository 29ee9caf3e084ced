"""Who runs a job: each runner holds a lock and shows a beat, by which the others know that it lives.

On one machine the lock tells at once, since the system frees it with the process. A runner elsewhere is taken for dead
when its beat has not changed for a minute by our own clock; no clock of another machine is compared with ours.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..device import processes
from ..files import atomic_write

BEAT_S = 10.0
EXPIRY_S = 60.0


class Presence:
    """The process as a runner of a job, until `leave`.

    Parameters
    ----------
    folder
        Of the runners of the job; made where it is missing.
    recipe
        Of its results, in JSON.
    """

    def __init__(self, folder: Path, recipe: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.recipe, self.id = folder, recipe, uuid.uuid4().hex
        self._n_beats, self._ended = 0, threading.Event()
        self._seen: dict[str, tuple[int, float]] = {}  # by runner: its beat, and when that was new, by our clock
        self._lock = FileLock(folder / f"{self.id}.lock", thread_local=False)
        self._lock.acquire(timeout=0)
        self._write()
        self._thread = threading.Thread(target=self._beat, name="sotto-beat", daemon=True)
        self._thread.start()

    def leave(self) -> None:
        """Say that this runner has ended."""
        self._ended.set()
        self._thread.join()
        for name in (f"{self.id}.json", f"{self.id}.lock"):
            with suppress(OSError):
                (self.folder / name).unlink()
        self._lock.release()

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_S):
            with processes.piece(), suppress(OSError):  # a full disk: others wait for us a minute, then go on
                self._write()

    def _write(self) -> None:
        self._n_beats += 1
        state = {"host": socket.gethostname(), "boot": _boot(), "pid": os.getpid(), "beat": self._n_beats}
        with atomic_write(self.folder / f"{self.id}.json", fsync=False, encoding="utf-8") as file:
            json.dump({**state, "recipe": self.recipe}, file)

    def others(self) -> list[dict[str, Any]]:
        """Return the other runners that live, each as it describes itself."""
        ids = [path.stem for path in self.folder.glob("*.json") if path.stem != self.id]
        return [state for runner in ids if self.is_alive(runner) and (state := self._read(runner))]

    def is_alive(self, runner: str) -> bool:
        """Whether a runner lives, as far as can be known."""
        if runner == self.id:
            return True
        state = self._read(runner)
        if state is None:
            return False
        if state["host"] == socket.gethostname():
            if state["boot"] == _boot():
                return self._holds_lock(runner)
            if state["boot"] and _boot():  # the machine was started again since
                self._forget(runner)
                return False
        beat, since = self._seen.get(runner, (-1, 0.0))
        if beat != state["beat"]:
            self._seen[runner] = state["beat"], time.monotonic()
            return True
        if time.monotonic() - since < EXPIRY_S:
            return True
        self._forget(runner)
        return False

    def _read(self, runner: str) -> dict[str, Any] | None:
        with suppress(OSError, ValueError):
            state = json.loads((self.folder / f"{runner}.json").read_text(encoding="utf-8"))
            if isinstance(state, dict) and {"host", "boot", "beat", "pid", "recipe"} <= state.keys():
                return state
        return None

    def _holds_lock(self, runner: str) -> bool:
        lock = FileLock(self.folder / f"{runner}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        lock.release()
        self._forget(runner)
        return False

    def _forget(self, runner: str) -> None:
        for name in (f"{runner}.json", f"{runner}.lock"):
            with suppress(OSError):
                (self.folder / name).unlink()


def runners(folder: Path) -> list[dict[str, Any]]:
    """Return the runners that live, as far as can be known at once: one elsewhere may have died within the minute."""
    watching = Presence.__new__(Presence)  # one that only looks
    watching.folder, watching.id, watching._seen = folder, "", {}
    return watching.others()


def _boot() -> str:
    """Return what changes when the machine is started again; empty where the system does not say."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""
