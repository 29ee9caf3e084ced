"""The runner of a job: gives recordings to workers, puts results in place and marks them, until nothing waits.

It alone writes the files of the job. What a worker had when it was lost is given out again: what may have killed it
runs once more alone, and is then reported. Knows nothing of how workers run (`workers`), and shows nothing to a user.
"""

from __future__ import annotations

import json
import os
import queue
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from ...errors import WhisperError
from ..failures import Next, after, kind_of
from ..figures import figures_of
from ..options import JobOptions
from ..outputs import Outputs, PlaceLostError, kept_name, read_result
from ..presence import Presence
from ..store import JobStore, Recording, StoredResult
from .messages import Answer, Begun, Broken, Done, Failed, Give, Lost, Progress, Read, Ready, Stop, Task
from .workers import Events, WorkerHandle

TICK_S = 0.25  # between two looks at clocks and signals
LOOK_S = 5.0  # between two looks for dead runners and for space
WRITERS = 4  # threads that put files in place: most of that is waiting for the disk
MOST_WRITING = 64
FIRST_CAPACITY = 4  # recordings that are taken for a worker before it says how many it wants
MOST_STARTS = 3  # of a worker that dies before it is ready

Launch = Callable[[int, Events[tuple[Any, object]]], WorkerHandle]


@dataclass(frozen=True)
class Ended:
    """A recording that has ended in this run."""

    recording: Recording
    state: str  # "done" or "failed"
    kind: str = ""
    error: str = ""
    result: StoredResult | None = None
    outputs: dict[str, int] = field(default_factory=dict)
    transcribed: bool = False  # in this run, and not before


@dataclass(eq=False)
class _Running:
    """A recording at a worker."""

    recording: Recording
    content: str = ""
    begun: bool = False
    seconds: float = 0.0  # of sound
    done: float = 0.0


@dataclass(eq=False)
class _Slot:
    """A worker, and what it has."""

    handle: WorkerHandle
    capacity: int = FIRST_CAPACITY
    is_ready: bool = False
    is_alone: bool = False
    is_draining: bool = False  # gets nothing more, and is then begun anew
    running: dict[int, _Running] = field(default_factory=dict)
    times: tuple[float, float] = (0.0, 0.0)  # seconds in which the device computed, and all
    last_sign: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class _Written:
    """What a thread that writes says."""

    recording: Recording
    result: StoredResult | None = None
    outputs: dict[str, int] = field(default_factory=dict)
    error: BaseException | None = None
    transcribed: bool = False


class Runner:
    """Runs what waits in a job.

    Parameters
    ----------
    store, outputs, presence
        The job, its files, and this process as one of its runners.
    options
        How it is run.
    launch
        Starts a worker with a number.
    n_workers
        At most so many.
    on_tick
        Called often while it runs, for what is shown meanwhile.
    """

    def __init__(
        self,
        store: JobStore,
        outputs: Outputs,
        presence: Presence,
        options: JobOptions,
        launch: Launch,
        n_workers: int = 1,
        on_tick: Callable[[], object] = lambda: None,
    ) -> None:
        self.on_tick = on_tick
        self.store, self.outputs, self.presence, self.options = store, outputs, presence, options
        self.launch, self.n_workers = launch, n_workers
        self.n_done = self.n_failed = 0
        self.seconds_done = 0.0  # of sound that was transcribed in this run
        self.stopped = ""  # why the run ended before the job did; empty where it did not
        self.is_paused = False
        self.began = time.monotonic()
        self.measured_since: float | None = None  # when the first transcription of this run began
        self._slots: list[_Slot] = []
        self._times: list[tuple[float, float]] = []  # of workers that have ended
        self._backlog: deque[Recording] = deque()
        self._writing: dict[int, Recording] = {}
        self._events: Events[tuple[Any, object]] = Events()
        self._error: BaseException | None = None
        self._n_starts = self._n_failed_starts = 0
        self._last_look = 0.0

    # -- from other threads and signals --------------------------------------------------------------------

    def stop(self, why: str) -> None:
        """End the run within a moment: what runs waits again, as if it had not been tried."""
        self.stopped = self.stopped or why

    def pause(self) -> None:
        """Begin nothing new; what runs is finished."""
        self.is_paused = True

    def resume(self) -> None:
        """Go on after `pause`."""
        self.is_paused = False

    def running(self) -> list[tuple[Recording, float, float]]:
        """Return what is transcribed at this moment: the recording, its seconds that are done, and all."""
        slots = list(self._slots)
        return [(r.recording, r.done, r.seconds) for s in slots for r in list(s.running.values()) if r.begun]

    @property
    def idle(self) -> float | None:
        """Return the share of the time of transcribing in which devices waited for work; None where nobody counts."""
        times = self._times + [slot.times for slot in list(self._slots)]
        busy = sum(seconds for seconds, _ in times)  # of models that hooks watch, which have no engine, 0
        return max(1 - busy / sum(seconds for _, seconds in times), 0.0) if busy else None

    @property
    def is_loading(self) -> bool:
        """Whether workers were started, and none has loaded its model."""
        slots = list(self._slots)
        return bool(slots) and not any(slot.is_ready for slot in slots)

    # -- the loop ----------------------------------------------------------------------------------------

    def run(self) -> Generator[Ended, None, None]:
        """Give the recordings as they end, until nothing waits or `stop` is called; closing it stops, too.

        Raises
        ------
        WhisperError
            No worker can be started: the model or an option is wrong.
        """
        with ThreadPoolExecutor(WRITERS, "sotto-writer") as self._pool:
            try:
                while not self.stopped:
                    self._look_around()
                    waits = self._feed() if not self.is_paused else False
                    if not waits and not self._has_work() and not self.is_paused:
                        break
                    yield from self._handle_events()
            except (PlaceLostError, sqlite3.Error) as error:
                self.stop(_in_words(error))
            except GeneratorExit:
                self.stop("the caller wants no more")
                raise
            finally:
                self._end_workers()
                rest = self._settle()
            if self._error is not None:
                raise self._error
            yield from rest

    def _has_work(self) -> bool:
        return bool(self._backlog or self._writing or any(slot.running for slot in self._slots))

    def _handle_events(self) -> Generator[Ended, None, None]:
        """Wait a moment for what workers and writers say, and take all that is there."""
        is_first = True
        while not self.stopped:
            try:
                source, message = self._events.get(block=is_first, timeout=TICK_S)
            except queue.Empty:
                return
            is_first = False
            if isinstance(message, _Written):
                if (ended := self._mark(message)) is not None:
                    yield self._count(ended)
            elif (slot := next((s for s in self._slots if s.handle is source), None)) is not None:
                slot.last_sign = time.monotonic()
                for ended in self._handle(slot, message):
                    yield self._count(ended)

    def _count(self, ended: Ended) -> Ended:
        if ended.state == "done":
            self.n_done += 1
            self.seconds_done += ended.result.seconds if ended.result is not None and ended.transcribed else 0.0
        else:
            self.n_failed += 1
        if self.options.too_many(self.n_failed, self.n_done + self.n_failed):
            self.stop(f"{self.n_failed} recordings failed, more than --max_failures {self.options.max_failures}")
        return ended

    def _look_around(self) -> None:
        """Look at clocks, at the disk, and for runners that died."""
        now = time.monotonic()
        self.on_tick()
        if self.options.time_limit is not None and now - self.began > 3600 * self.options.time_limit:
            self.stop(f"the run has taken the {self.options.time_limit:g} hours of --time_limit")
        if now - self._last_look < LOOK_S:
            return
        self._last_look = now
        self.outputs.check_space()
        self.store.recover(self.presence.is_alive)
        for slot in self._slots:
            if slot.running and now - slot.last_sign > self.options.stall:
                slot.handle.kill()

    # -- giving out --------------------------------------------------------------------------------------

    def _feed(self) -> bool:
        """Give workers what they can take; returns whether something waits, be it only for a time or for another."""
        slots = [slot for slot in self._slots if not slot.is_draining and not slot.is_alone]
        capacity = sum(slot.capacity for slot in slots) or FIRST_CAPACITY * self.n_workers
        room = capacity - sum(len(slot.running) for slot in slots) - len(self._backlog)
        if room > 0 and len(self._writing) < MOST_WRITING:
            for one in self.store.claim(self.presence.id, room):
                if (kept := self.store.result_of(one)) is not None:
                    self._deliver(one, kept)
                else:
                    self._backlog.append(one)
        if self._backlog:
            self._start_workers(len(self._backlog))
        self._hand_out()
        if not self._backlog:
            self._feed_alone()
        return self._has_work() or self.store.next_wait() is not None

    def _hand_out(self) -> None:
        while self._backlog:
            free = [s for s in self._slots if s.is_ready and len(s.running) < s.capacity]
            free = [s for s in free if not s.is_alone and not s.is_draining]
            if not free:
                return
            self._give(min(free, key=lambda slot: len(slot.running)), self._backlog.popleft())

    def _feed_alone(self) -> None:
        """Give a recording that must run alone to a worker that has nothing."""
        idle = next((slot for slot in self._slots if slot.is_ready and not slot.running and not slot.is_draining), None)
        if idle is None:
            if self.store.waits_alone():
                self._start_workers(1)
            return
        for one in self.store.claim(self.presence.id, 1, alone=True):
            if (kept := self.store.result_of(one)) is not None:
                self._deliver(one, kept)
            else:
                idle.is_alone = True
                self._give(idle, one)

    def _give(self, slot: _Slot, one: Recording) -> None:
        slot.running[one.id] = _Running(one)
        slot.handle.send(Give(Task(one.id, one.source, json.loads(one.overrides))))

    def _start_workers(self, n_waiting: int) -> None:
        """Start workers, not more than recordings that wait for one."""
        n_free = sum(not slot.running and not slot.is_draining for slot in self._slots)
        while len(self._slots) < self.n_workers and n_free < n_waiting:
            self._slots.append(_Slot(self.launch(self._n_starts, self._events)))
            self._n_starts += 1
            n_free += 1

    # -- what workers say --------------------------------------------------------------------------------

    def _handle(self, slot: _Slot, message: object) -> list[Ended]:
        """Take a message of a worker; returns what has ended by it."""
        if isinstance(message, Ready):
            slot.is_ready, slot.capacity, self._n_failed_starts = True, message.capacity, 0
        elif isinstance(message, Broken):
            self._error = message.error
            self.stop(str(message.error))
        elif isinstance(message, Lost):
            return self._lose(slot, message)
        elif isinstance(message, (Read, Begun, Progress, Done, Failed)) and message.id in slot.running:
            return self._advance(slot, slot.running[message.id], message)
        return []

    def _advance(self, slot: _Slot, running: _Running, message: Read | Begun | Progress | Done | Failed) -> list[Ended]:
        """Take a message about a recording that runs."""
        if isinstance(message, Read):
            self._decide(slot, running, message)
        elif isinstance(message, Begun):
            running.begun, running.seconds = True, message.seconds
            self.measured_since = self.measured_since or time.monotonic()
        elif isinstance(message, Progress):
            running.done = message.seconds
        elif isinstance(message, Done):
            self._take_out(slot, running)
            slot.times = message.busy, message.since_first
            limit = self.options.memory_limit
            slot.is_draining = slot.is_draining or (limit is not None and message.memory > limit * 1e9)
            self._end_drained(slot)
            self._writing[running.recording.id] = running.recording
            self._pool.submit(self._guarded, self._keep_and_write, running.recording, running.content, message)
        else:
            self._take_out(slot, running)
            self._end_drained(slot)
            return self._fail(running.recording, message.kind, message.error)
        return []

    def _take_out(self, slot: _Slot, running: _Running) -> None:
        del slot.running[running.recording.id]
        slot.is_alone = slot.is_alone and bool(slot.running)

    def _end_drained(self, slot: _Slot) -> None:
        if slot.is_draining and not slot.running:
            slot.handle.send(Stop())
            slot.handle.kill()
            self._remove(slot)

    def _remove(self, slot: _Slot) -> None:
        self._slots.remove(slot)
        self._times.append(slot.times)

    def _decide(self, slot: _Slot, running: _Running, read: Read) -> None:
        """Say whether a recording is to be transcribed, now that its content is known."""
        one, running.content = running.recording, read.content
        known = self.store.recognise(one, read.content, read.stamp, self.presence.id)
        if known == "run":
            known = self._adopted(one, read.content) or "run"
        slot.handle.send(Answer(one.id, known == "run"))
        if known != "run":
            self._take_out(slot, running)
            self._end_drained(slot)
        if isinstance(known, StoredResult):
            self._deliver(one, known)

    def _adopted(self, one: Recording, content: str) -> StoredResult | None:
        """Note a result whose file is there and whose mark a power failure took back."""
        name = kept_name(content, one.recipe)
        found = read_result(self.store.out, name)
        return None if found is None else self._keep(content, one.recipe, name, found)

    def _lose(self, slot: _Slot, lost: Lost) -> list[Ended]:
        """Give out again what a lost worker had; whatever may have killed it runs alone."""
        self._remove(slot)
        reason = lost.reason
        if not slot.is_ready and not lost.innocent:
            self._n_failed_starts += 1
            if self._n_failed_starts >= MOST_STARTS:
                self._error = WhisperError(f"the worker dies before its model is loaded ({reason})")
                self.stop(str(self._error))
        if lost.innocent:
            for running in slot.running.values():
                self.store.put_back(self.presence.id, running.recording, interrupted=running.begun)
            return []
        suspects = [r for r in slot.running.values() if r.begun] or [r for r in slot.running.values() if r.content]
        ended = []
        for running in slot.running.values():
            if running in suspects:
                told = f"worker {slot.handle.name} died while this ran ({reason})"
                ended += self._fail(running.recording, "crash", told)
            else:
                self.store.put_back(self.presence.id, running.recording)
        return ended

    def _fail(self, one: Recording, kind: str, error: str) -> list[Ended]:
        """Note a failure; returns the recording where it is not tried again."""
        if kind == "cancelled":
            self.store.put_back(self.presence.id, one)
            return []
        then = after(kind, one.tries + 1, one.tries_alone + int(one.alone), self.options.retries)
        ours = self.store.fail(one, self.presence.id, kind, error, then)
        return [Ended(one, "failed", kind, error)] if ours and then.state == "failed" else []

    # -- files -------------------------------------------------------------------------------------------

    def _deliver(self, one: Recording, kept: StoredResult) -> None:
        """Write the files of a recording from a kept result."""
        self._writing[one.id] = one
        self._pool.submit(self._guarded, self._write_kept, one, kept)

    def _guarded(self, work: Callable[..., _Written], one: Recording, *arguments: Any) -> None:
        """Run on a thread that writes; says how it ended."""
        try:
            written = work(one, *arguments)
        except BaseException as error:  # whatever it is, the loop decides
            written = _Written(one, error=error)
        self._events.put((None, written))

    def _keep_and_write(self, one: Recording, content: str, done: Done) -> _Written:
        name = self.outputs.keep(content, one.recipe, {**done.result, "seconds": done.seconds, "wall": done.wall})
        kept = self._keep(content, one.recipe, name, {**done.result, "seconds": done.seconds, "wall": done.wall})
        try:
            outputs = self.outputs.write(one.name, done.result["transcript"])
        except PlaceLostError:
            raise
        except Exception as error:  # its result is kept; others may be written
            return _Written(one, kept, error=error, transcribed=True)
        return _Written(one, kept, outputs, transcribed=True)

    def _keep(self, content: str, recipe: str, name: str, found: dict[str, Any]) -> StoredResult:
        figures = figures_of(found["transcript"], found["report"], found["warnings"])
        language = found["transcript"].get("language")
        return self.store.keep_result(content, recipe, name, found["wall"], found["seconds"], language, figures)

    def _write_kept(self, one: Recording, kept: StoredResult) -> _Written:
        found = read_result(self.store.out, kept.file)
        if found is None:
            self.store.drop_result(kept)
            self.store.put_back(self.presence.id, one)
            return _Written(one)
        try:
            return _Written(one, kept, self.outputs.write(one.name, found["transcript"]))
        except PlaceLostError:
            raise
        except Exception as error:  # others may be written
            return _Written(one, kept, error=error)

    def _mark(self, written: _Written) -> Ended | None:
        """Mark what was written as done; None where it has not ended, or is another runner's by now."""
        one = written.recording
        self._writing.pop(one.id, None)
        if isinstance(written.error, (PlaceLostError, sqlite3.Error)):
            raise written.error
        if written.error is not None:
            _, told = kind_of(written.error)
            self.store.fail(one, self.presence.id, "output", told, Next("failed"))
            return Ended(one, "failed", "output", told, written.result)
        if written.result is None:
            return None
        digest = self.outputs.layout_digest
        ours = self.store.finish(one, self.presence.id, written.result, written.outputs, digest)
        return Ended(one, "done", "", "", written.result, written.outputs, written.transcribed) if ours else None

    # -- the end -----------------------------------------------------------------------------------------

    def _end_workers(self) -> None:
        for slot in self._slots:
            slot.handle.send(Stop())
            slot.handle.kill()
            self._times.append(slot.times)
        self._slots.clear()

    def _settle(self) -> list[Ended]:
        """Wait for files that are being written, mark them, and let wait again what was given out."""
        self._pool.shutdown(wait=True)
        ended = []
        try:
            while self._writing:
                _, message = self._events.get(timeout=TICK_S)
                if isinstance(message, _Written) and (one := self._mark(message)) is not None:
                    ended.append(self._count(one))
        except queue.Empty:
            pass
        except (PlaceLostError, sqlite3.Error) as error:
            self.stop(_in_words(error))
        try:
            self.store.put_back(self.presence.id)
        except sqlite3.Error as error:  # the disk is full: whoever comes next finds us dead, and does it
            self.stop(_in_words(error))
        return ended


def _in_words(error: BaseException) -> str:
    if isinstance(error, sqlite3.Error):
        return f"the job file cannot be written ({error}): mend that, and give the same command again"
    return str(error.args[1] if isinstance(error, OSError) and len(error.args) > 1 else error)


def processors() -> int:
    """Return how many processors this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1
