"""The engine of a model: threads that share one `EngineCore`, and the engines that models have.

An engine has no thread of its own. The threads that wait for results drive it: one of them, the leader, runs a job on
the device, while the others run the code of the requests that they wait for, or sleep. An error, a cancellation or
Ctrl-C ends the request that it belongs to and no other.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from ..device import processes
from ..device.hardware import free_memory
from ..errors import CancelledError, ProcessError
from ..runtime import choice
from .core import EngineCore, Request
from .priorities import Claim, current_claim
from .scheduler import Group, Limits, Scheduler

if TYPE_CHECKING:
    from ..model import Whisper
    from ..results import Segment
    from ..runtime.interface import Runner
    from .operations import RequestCoroutine

MAX_ROWS = {"cpu": 64, "cuda": 256}
MAX_ROWS_ELSEWHERE = 64
ENCODER_BATCH = {"cuda": 8}  # windows at once; a CPU is as fast with one
SHARE_OF_MEMORY = 4  # a quarter of what is free when a model is first used
POLL = 0.05  # seconds between two calls of a caller's `stop`


@dataclass(eq=False)
class Caller:
    """Who waits for one or more requests, in one thread or several."""

    changed: threading.Condition
    stop: Callable[[], bool] | None = None  # polled while waiting: whether to give up
    n_waiting: int = 0  # threads that wait for a request of this caller
    n_asleep: int = 0  # those of them that have nothing to do


class Handle:
    """A submitted request."""

    def __init__(self, engine: Engine, request: Request) -> None:
        self._engine, self._request = engine, request

    @property
    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self._request.is_done

    def cancel(self) -> None:
        """End it: what it holds is released, and `result` raises `CancelledError`.

        No effect once it is done, nor in a child process that was forked meanwhile: the request is the parent's.
        """
        self._engine.cancel(self._request)

    def result(self) -> Any:
        """Wait for the end and return the result.

        Raises
        ------
        CancelledError
            It was cancelled.
        ProcessError
            Another process began it, and was forked since.
        Exception
            What ended it. An exception that ends the waiting, such as Ctrl-C, cancels it.
        """
        request = self._request
        try:
            self._engine.wait(request.owner, lambda: request.is_done)
        except BaseException:  # whoever stops waiting, also by Ctrl-C, needs the result no more
            self.cancel()
            raise
        if request.error is not None:
            raise request.error
        return request.value

    def __iter__(self) -> Iterator[Segment]:
        """Wait for the segments, one after the other; closing the iterator cancels the request."""
        request = self._request
        try:
            while True:
                self._engine.wait(request.owner, lambda: request.is_done or bool(request.deliveries))
                if not request.deliveries:
                    break
                yield from request.deliveries.popleft().segments
        finally:
            self.cancel()
        self.result()


class Engine:
    """Runs the requests of one runner, driven by the threads that wait for them.

    Parameters
    ----------
    runner
        Called by nobody else.
    max_rows, memory_limit
        Rows that are decoded at once, and bytes of their caches and windows; what needs more waits. One request is
        always admitted, whatever it needs.
    encoder_batch
        Windows that are encoded at once: 1 where that is as fast as several.
    """

    def __init__(
        self,
        runner: Runner,
        *,
        max_rows: int = MAX_ROWS_ELSEWHERE,
        memory_limit: int | None = None,
        encoder_batch: int = 1,
    ) -> None:
        self.runner = runner
        self.scheduler = Scheduler(runner.row_bytes, runner.window_bytes, max_rows, memory_limit)
        self.core = EngineCore(runner, self.scheduler, encoder_batch=encoder_batch, notify=self._notify)
        self._pid = os.getpid()  # a child that is forked gets an engine of its own
        self._lock = processes.lock()  # of the core and of what follows
        self._waiting: dict[Caller, None] = {}  # callers with a thread that waits
        self.busy_seconds = 0.0  # in which a job was on the device

    def set_limits(self, **limits: Any) -> None:
        """Change `max_rows` or `memory_limit`."""
        if self._pid != os.getpid():
            return
        with self._lock:
            self.scheduler.set_limits(**limits)
            self._wake_one()

    def caller(self, stop: Callable[[], bool] | None = None) -> Caller:
        """Return a caller, for several requests that the same thread waits for."""
        return Caller(threading.Condition(self._lock), stop)

    def submit(
        self,
        coroutine: RequestCoroutine[Any],
        n_rows: int = 1,
        *,
        caller: Caller | None = None,
        group: Group | None = None,
        claim: Claim | None = None,
    ) -> Handle:
        """Queue a request; nothing of it runs before a thread waits for a result.

        Parameters
        ----------
        coroutine
            Awaits operations, and returns the result.
        n_rows
            The most rows that any of its operations takes.
        caller
            Who waits for it; by default a new one.
        group
            Of which only so many run at once.
        claim
            Its class and key; by default those of the context, see `priorities.claiming`.
        """
        self._check_process()
        claim = claim or current_claim()
        with self._lock:
            owner = caller or self.caller()
            return Handle(self, self.core.submit(coroutine, n_rows, owner=owner, group=group, claim=claim))

    def cancel(self, request: Request) -> None:
        """See `Handle.cancel`."""
        if self._pid != os.getpid():
            return
        with self._lock:
            self.core.cancel(request)
            self._wake_one()
        self.core.close_ended()

    # -- waiting -----------------------------------------------------------------------------------------

    def wait(self, caller: Caller, until: Callable[[], bool]) -> None:
        """Drive the engine, or sleep while others do, until a condition holds."""
        with self._lock:
            caller.n_waiting += 1
            self._waiting[caller] = None
            try:
                while not until():
                    self._check_process()
                    if caller.stop is not None:
                        self._check_stop(caller.stop)
                    if not self._work(caller):
                        self._sleep(caller)
            finally:
                caller.n_waiting -= 1
                if not caller.n_waiting:
                    del self._waiting[caller]
                self._wake_one()
        self.core.close_ended()

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            raise ProcessError(
                f"this transcription was begun in process {self._pid}, from which this one was forked, and goes on "
                "there; begin it anew here"
            )

    # What follows is called with the lock.

    def _work(self, caller: Caller) -> bool:
        """Run the code of a request, or one job on the device; False where there is nothing to do."""
        if not processes.begin():
            with self._unlocked():
                processes.rest()
        try:
            if request := self._next_ready(caller):
                self._run_code(request)
                return True
            if self.core.is_busy:  # another thread leads
                return False
            if self.core.admit():
                return True
            woken = self.core.wake_yielded()
            job = self.core.schedule()
            if job is None:
                return woken
            began = time.perf_counter()
            try:
                with self._unlocked():
                    self.core.close_ended()
                    job.run(self.runner)
            finally:
                self.core.finish(job)
                self.busy_seconds += time.perf_counter() - began
            return True
        finally:
            processes.end()

    def _check_stop(self, stop: Callable[[], bool]) -> None:
        with self._unlocked():
            if stop():
                raise CancelledError("the transcription was cancelled")

    @contextlib.contextmanager
    def _unlocked(self) -> Iterator[None]:
        self._lock.release()
        try:
            yield
        finally:
            self._lock.acquire()

    def _next_ready(self, caller: Caller) -> Request | None:
        """A request whose code can continue: one of the caller's, else one that no thread waits for."""
        orphan = None
        for request in self.core.ready:
            if request.owner is caller:
                return request
            if orphan is None and not request.owner.n_waiting:
                orphan = request
        return orphan

    def _run_code(self, request: Request) -> None:
        """Run a request's own code to its next operation, without the lock."""
        self.core.begin(request)
        self._wake_one()
        operation = None
        try:
            with self._unlocked():
                operation = request.resume()
        finally:
            self.core.take(request, operation)

    def _sleep(self, caller: Caller) -> None:
        caller.n_asleep += 1
        try:
            caller.changed.wait(None if caller.stop is None else POLL)
        finally:
            caller.n_asleep -= 1

    def _notify(self, caller: Caller) -> None:
        caller.changed.notify_all()

    def _wake_one(self) -> None:
        """Wake a sleeping thread, if there is work that no thread is doing."""
        if not self.core.is_busy and self.core.has_work:
            for caller in self._waiting:
                if caller.n_asleep:
                    caller.changed.notify_all()
                    return


# ---------------------------------------------------------------------------------------------------------
# The engines of a model
# ---------------------------------------------------------------------------------------------------------


@dataclass
class _Engines:
    """The engines of one model, by precision, and the limits that were configured."""

    limits: dict[str, Any] = field(default_factory=dict)
    engines: dict[str, Engine] = field(default_factory=dict)


_ENGINES: WeakKeyDictionary[Whisper, _Engines] = WeakKeyDictionary()
_ENGINES_LOCK = processes.lock()


_UNCHANGED: Any = object()


def configure(model: Whisper, *, max_rows: int = _UNCHANGED, memory_limit: int | None = _UNCHANGED) -> None:
    """Set how much of a model's transcriptions runs at once; what runs already goes on.

    Parameters
    ----------
    model
        A Whisper model.
    max_rows
        Rows that are decoded at once: a window takes one, or as many as it has beams or samples. By default 64 on a
        CPU and 256 on a CUDA device.
    memory_limit
        Bytes for the caches of these rows and for their encoded windows; None for no limit. By default a quarter of
        the memory that is free when the model is first used. The model itself, the recordings and the work of a step
        come on top.

    Raises
    ------
    OptionError
        A value is not a whole number of at least 1. (A ValueError.)
    """
    given: dict[str, Any] = {
        n: v for n, v in (("max_rows", max_rows), ("memory_limit", memory_limit)) if v is not _UNCHANGED
    }
    Limits(**given)  # checks them
    with _ENGINES_LOCK:
        of_model = _ENGINES.setdefault(model, _Engines())
        for engine in of_model.engines.values():
            engine.set_limits(**given)
        of_model.limits.update(given)


def busy_seconds(model: Whisper) -> float:
    """Return the seconds in which a model's engines had the device at work; the rest of the time it was idle.

    Parameters
    ----------
    model
        That of `transcribe`; 0.0 where it has not worked yet.
    """
    with _ENGINES_LOCK:
        of_model = _ENGINES.get(model)
        return 0.0 if of_model is None else sum(engine.busy_seconds for engine in of_model.engines.values())


def engine_for(model: Whisper, fp16: bool) -> Engine:
    """Return the engine of a model for which `choice.usable`; all its transcriptions share it."""
    runner = choice.runner_for(model, fp16)
    with _ENGINES_LOCK:
        of_model = _ENGINES.setdefault(model, _Engines())
        engine = of_model.engines.get(runner.compute_type)
        if engine is None or engine.runner is not runner:  # its weights were changed
            kind = model.device.type
            limits = {
                "max_rows": MAX_ROWS.get(kind, MAX_ROWS_ELSEWHERE),
                "memory_limit": free_memory(model.device) // SHARE_OF_MEMORY or None,
                **of_model.limits,
            }
            engine = Engine(runner, encoder_batch=ENCODER_BATCH.get(kind, 1), **limits)
            of_model.engines[runner.compute_type] = engine
        return engine
