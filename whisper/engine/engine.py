"""Many requests on one runner: their windows are encoded in turn and decoded in one batch, which changes every step.

What a request is, and asks for, stands in `work`. An engine has no thread of its own. Whoever waits for a result turns
the crank for all who wait, and passes it on; a request's own code runs in a thread that waits for it, where there is
one. An error, a cancellation or Ctrl-C ends the request that it belongs to and no other. Knows no file and no HTTP.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from ..device import processes
from ..device.hardware import free_memory
from ..device.torch_state import clean_state
from ..errors import CancelledError, ProcessError
from ..results import Segment
from ..runtime import select
from ..runtime.interface import Audio, Runner
from ..sampling.window_sampling import WindowSampling, language_probs, release, step, turns
from .operations import Deliver, Detect, Encode, Job, Next, Pause, Spawn, Steps
from .scheduler import Group, Limits, Scheduler, Ticket, n_prompts

if TYPE_CHECKING:
    from ..model import Whisper

MAX_ROWS = {"cpu": 64, "cuda": 256}
MAX_ROWS_ELSEWHERE = 64
ENCODER_BATCH = {"cuda": 8}  # windows at once; a CPU is as fast with one
SHARE_OF_MEMORY = 4  # a quarter of what is free when a model is first used
POLL = 0.05  # seconds between two looks at whether who waits wants to stop

Answer = tuple[Any, BaseException | None]  # the one, or the other to be raised
J = TypeVar("J")


@dataclass(eq=False)
class Caller:
    """Who waits for one or more requests, in one thread or several."""

    changed: threading.Condition
    stop: Callable[[], bool] | None = None  # asked now and then: whether to give up
    ready: deque[Handle] = field(default_factory=deque)  # requests whose own code can go on
    n_attending: int = 0  # threads that wait for a request of this caller
    n_asleep: int = 0  # those of them that have nothing to do


class Handle:
    """A request in an engine."""

    def __init__(self, engine: Engine, steps: Steps, ticket: Ticket, caller: Caller) -> None:
        self._engine, self._steps, self._ticket, self._caller = engine, steps, ticket, caller
        self._answer: Answer = None, None  # what its code goes on with
        self._is_running = False  # its own code, in some thread
        self._is_cancelled = False
        self._is_done = False
        self._news: deque[Deliver] = deque()
        self._value: Any = None
        self._error: BaseException | None = None
        self._awaited_by: Handle | None = None
        self._parts: list[Handle] = []

    @property
    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self._is_done

    def cancel(self) -> None:
        """End it: what it holds is given back, and `result` raises `CancelledError`. No effect once it is done.

        Nor in a child that was forked meanwhile: it is the parent's.
        """
        if self._engine._pid != os.getpid():
            return
        with self._engine._lock:
            self._engine._cancel(self)

    def result(self) -> Any:
        """Wait for the end and return what came out.

        Raises
        ------
        CancelledError
            It was cancelled.
        ProcessError
            Another process has begun it, and was forked since.
        Exception
            What ended it. An exception that ends the waiting, such as Ctrl-C, cancels it.
        """
        try:
            with self._engine._lock:
                self._engine._wait(self._caller, lambda: self._is_done)
        except BaseException:  # whoever stops waiting, also by Ctrl-C, wants no more of it
            self.cancel()
            raise
        if self._error is not None:
            raise self._error
        return self._value

    def __iter__(self) -> Iterator[Segment]:
        """Wait for the segments, one after the other; closing the iterator cancels the request."""
        try:
            while True:
                with self._engine._lock:
                    self._engine._wait(self._caller, lambda: self._is_done or bool(self._news))
                    news = self._news.popleft() if self._news else None
                if news is None:
                    break
                yield from news.segments
        finally:
            self.cancel()
        self.result()


class Engine:
    """Runs the requests of one runner.

    Parameters
    ----------
    runner
        Nobody else may call it but with its `sampling.turns`.
    max_rows, memory_limit
        Texts that grow at once, and bytes of their caches and windows; what needs more waits. One request is always
        let in, whatever it needs.
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
        self.scheduler = Scheduler(runner.row_bytes, runner.audio_bytes, max_rows, memory_limit)
        self._encoder_batch = encoder_batch
        self._pid = os.getpid()  # a child that is forked gets an engine of its own
        self._lock = processes.lock()  # of all that follows, and of the handles' private parts
        self._is_led = False  # a thread is at the runner, without the lock
        self._anybody = Group()  # of the requests that belong to no other
        self._count = itertools.count()
        self._handles: dict[Ticket, Handle] = {}  # those that are not done
        self._callers: dict[Caller, None] = {}  # those with requests whose code can go on
        self._attending: dict[Caller, None] = {}
        self._cancelled: list[Handle] = []  # not yet swept away
        self._paused: list[Handle] = []
        self._encodes: dict[Handle, Encode] = {}
        self._detects: dict[Handle, Detect] = {}
        self._samplings: dict[Handle, WindowSampling] = {}
        self._alone: dict[Handle, None] = {}  # those of the samplings that share no step, since one of them fails

    def set_limits(self, **limits: Any) -> None:
        """Change `max_rows` or `memory_limit`."""
        if self._pid != os.getpid():
            return
        with self._lock:
            self.scheduler.set_limits(**limits)
            self._pass_on()

    def caller(self, stop: Callable[[], bool] | None = None) -> Caller:
        """Return somebody who can submit several requests, and runs their code while waiting for one of them."""
        return Caller(threading.Condition(self._lock), stop)

    def submit(
        self, steps: Steps, n_rows: int = 1, *, caller: Caller | None = None, group: Group | None = None
    ) -> Handle:
        """Let a request wait for its turn; nothing of it runs before somebody waits for a result.

        Parameters
        ----------
        steps
            Yields jobs, and returns the result.
        n_rows
            The most rows that any of its jobs takes.
        caller
            Who asks; by default somebody new.
        group
            Of which only so many run at once.
        """
        self._check_process()
        with self._lock:
            return self._add(steps, (next(self._count),), n_rows, caller or self.caller(), group or self._anybody)

    # What follows is called with the lock, unless it says otherwise.

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            raise ProcessError(
                f"this transcription was begun in process {self._pid}, from which this one was forked, and goes on "
                "there; begin it anew here"
            )

    def _add(self, steps: Steps, order: tuple[int, ...], n_rows: int, caller: Caller, group: Group) -> Handle:
        ticket = Ticket(order, n_rows, group)
        handle = self._handles[ticket] = Handle(self, steps, ticket, caller)
        self.scheduler.add(ticket)
        return handle

    # -- the crank ---------------------------------------------------------------------------------------

    def _wait(self, caller: Caller, until: Callable[[], bool]) -> None:
        """Do whatever is to be done, or sleep while others do it, until something has come true."""
        caller.n_attending += 1
        self._attending[caller] = None
        try:
            while not until():
                self._check_process()
                if caller.stop is not None:
                    self._look_whether_to_stop(caller.stop)
                if not self._do_a_piece(caller):
                    caller.n_asleep += 1
                    try:
                        caller.changed.wait(None if caller.stop is None else POLL)
                    finally:
                        caller.n_asleep -= 1
        finally:
            caller.n_attending -= 1
            if not caller.n_attending:
                del self._attending[caller]
            self._pass_on()

    def _do_a_piece(self, caller: Caller) -> bool:
        """Run the code of a request, or the runner once; False where there is nothing to do."""
        if not processes.begin():
            with self._unlocked():
                processes.rest()
        try:
            if handle := self._next_ready(caller):
                self._run_code(handle)
                return True
            return not self._is_led and self._turn()
        finally:
            processes.end()

    def _look_whether_to_stop(self, stop: Callable[[], bool]) -> None:
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

    def _next_ready(self, caller: Caller) -> Handle | None:
        """Return a request whose code can go on: the caller's own, else one that nobody waits for."""
        if caller.ready:
            return caller.ready.popleft()
        for other in list(self._callers):
            if not other.ready:
                del self._callers[other]
            elif not other.n_attending:
                return other.ready.popleft()
        return None

    def _pass_on(self) -> None:
        """Wake one of those who sleep, if there is work that nobody is at."""
        if not self._is_led:
            self._sweep()  # perhaps nobody else comes
        work = self._paused or self._encodes or self._detects or self._samplings or self._callers
        if not self._is_led and (work or self.scheduler.may_admit()):
            for caller in self._attending:
                if caller.n_asleep:
                    caller.changed.notify_all()
                    return

    def _turn(self) -> bool:
        """Do one piece of work at the runner; False where there is none.

        Windows are encoded first, so that what is decoded then is as many rows as may be.
        """
        if self._cancelled:
            self._sweep()
            return True
        paused, self._paused = self._paused, []
        for handle in paused:  # after this
            self._go_on(handle)
        if self._admit():
            return True
        if self._encodes:
            some = dict(itertools.islice(self._encodes.items(), self._encoder_batch))
            self._serve(self._encodes, some, self._listen)
        elif self._detects:
            some_detects = dict(itertools.islice(self._detects.items(), 1))
            self._serve(self._detects, some_detects, self._hear_language)
        elif self._samplings:
            self._step(self._who_steps())
        else:
            return bool(paused)
        return True

    def _admit(self) -> bool:
        admitted = False
        while ticket := self.scheduler.admit():
            self._go_on(self._handles[ticket])
            admitted = True
        return admitted

    # -- the code of requests ----------------------------------------------------------------------------

    def _go_on(self, handle: Handle, value: Any = None, error: BaseException | None = None) -> None:
        """Let a request's code go on with an answer."""
        if handle._is_done:
            return
        handle._answer = value, error
        handle._caller.ready.append(handle)
        self._callers[handle._caller] = None
        handle._caller.changed.notify_all()

    def _run_code(self, handle: Handle) -> None:
        if handle._is_done:
            return
        (value, error), handle._answer = handle._answer, (None, None)
        handle._is_running = True
        self._pass_on()
        job: Job | None = None
        try:
            with self._unlocked(), clean_state():
                job = handle._steps.send(value) if error is None else handle._steps.throw(error)
        except StopIteration as end:
            self._end(handle, end.value)
        except Exception as raised:  # whatever it is, it belongs to the request
            self._end(handle, error=raised)
        except BaseException:  # Ctrl-C in this thread ends the waiting here, too
            self._end(handle, error=CancelledError("the transcription was interrupted"))
            raise
        finally:
            handle._is_running = False
        if job is not None:
            if handle._is_cancelled:
                self._drop(handle)
            else:
                self._take(handle, job)

    def _take(self, handle: Handle, job: Job) -> None:
        """Take on what a request asks for."""
        if isinstance(job, Encode):
            self._encodes[handle] = job
        elif isinstance(job, Detect):
            self._detects[handle] = job
        elif isinstance(job, WindowSampling):
            self._samplings[handle] = job
        elif isinstance(job, Deliver):
            self._deliver(handle, job)
        elif isinstance(job, Pause):
            if self._is_led:
                self._go_on(handle)
            else:
                self._paused.append(handle)
        elif isinstance(job, Spawn):
            self.scheduler.rest(handle._ticket)
            order = (*handle._ticket.order, len(handle._parts))
            part = self._add(job.steps, order, job.n_rows, handle._caller, job.group)
            handle._parts.append(part)
            self._go_on(handle, part)
        elif isinstance(job, Next):
            job.part._awaited_by = handle
            self._tell(job.part)
        else:
            self._go_on(handle, error=TypeError(f"a request cannot ask for {job!r}"))

    def _deliver(self, handle: Handle, news: Deliver) -> None:
        handle._news.append(news)
        self._go_on(handle)  # wakes who waits for the news, too
        self._tell(handle)

    def _tell(self, part: Handle) -> None:
        """Give who waits for a part what there is."""
        waiting = part._awaited_by
        if waiting is None or not (part._news or part._is_done):
            return
        part._awaited_by = None
        if part._news:
            self._go_on(waiting, part._news.popleft())
        else:
            self._go_on(waiting, None, part._error)

    # -- the end of requests -----------------------------------------------------------------------------

    def _end(self, handle: Handle, value: Any = None, error: BaseException | None = None) -> None:
        handle._is_done = True
        handle._value, handle._error = value, error
        handle._answer = None, None  # a window, if it was cancelled before it went on
        if error is not None:
            traceback.clear_frames(error.__traceback__)  # they hold on to windows for as long as the error is kept
        del self._handles[handle._ticket]
        self.scheduler.remove(handle._ticket)
        handle._caller.changed.notify_all()
        self._tell(handle)
        for part in handle._parts:
            self._cancel(part)

    def _cancel(self, handle: Handle) -> None:
        if handle._is_done or handle._is_cancelled:
            return
        handle._is_cancelled = True
        self._cancelled.append(handle)
        if not self._is_led:  # else who leads does it before anything else
            self._sweep()

    def _sweep(self) -> None:
        """End those that were cancelled. The lock is open at times: whoever takes the lead then does the rest."""
        while self._cancelled and not self._is_led:
            handle = self._cancelled.pop()
            if not handle._is_running and not handle._is_done:  # running code is asked when it comes back
                self._drop(handle)

    def _drop(self, handle: Handle) -> None:
        """End a request that was cancelled, and take back what it has."""
        self._encodes.pop(handle, None)
        self._detects.pop(handle, None)
        self._alone.pop(handle, None)
        sampling = self._samplings.pop(handle, None)
        if sampling is not None:
            with turns(self.runner):
                release(self.runner, sampling)
        self._end(handle, error=CancelledError("the transcription was cancelled"))
        with self._unlocked(), contextlib.suppress(Exception):  # it is over; what its clean-up says helps nobody
            handle._steps.close()

    # -- at the runner -----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _at_runner(self) -> Iterator[None]:
        """Have the runner, without the lock."""
        self._is_led = True
        try:
            with self._unlocked(), turns(self.runner), clean_state():
                yield
        finally:
            self._is_led = False

    def _serve(
        self, waiting: dict[Handle, J], jobs: Mapping[Handle, J], function: Callable[[list[J]], list[Any]]
    ) -> None:
        """Do some of the waiting jobs together; where that fails each alone, so that an error finds its owner."""
        answers: list[Answer] = []
        try:
            with self._at_runner():
                answers = [(value, None) for value in function(list(jobs.values()))]
        except Exception as error:  # whatever it is, it belongs to the request
            answers = [(None, error)]
            if len(jobs) > 1:
                for handle, job in jobs.items():
                    self._serve(waiting, {handle: job}, function)
                return
        for handle, (value, failed) in zip(jobs, answers, strict=True):
            del waiting[handle]
            self._go_on(handle, value, failed)

    def _listen(self, jobs: list[Encode]) -> list[Audio]:
        features = self.runner.encode([job.mel for job in jobs])
        return [self.runner.listen(f) for f in features]

    def _hear_language(self, jobs: list[Detect]) -> list[list[float]]:
        return [language_probs(self.runner, [job.audio], job.sot, job.languages)[0] for job in jobs]

    def _who_steps(self) -> dict[Handle, WindowSampling]:
        """Return the windows that say one more token now: all but some that begin, and one alone where one is bad."""
        for handle in self._alone:
            return {handle: self._samplings[handle]}
        going = {handle: s for handle, s in self._samplings.items() if s.n_steps}
        beginning = {handle: s for handle, s in self._samplings.items() if not s.n_steps}
        n = n_prompts([len(s.plan.initial_tokens) for s in beginning.values()])
        return {**going, **dict(itertools.islice(beginning.items(), n))}

    def _step(self, samplings: Mapping[Handle, WindowSampling]) -> None:
        error: Exception | None = None
        try:
            with self._at_runner():
                try:
                    step(self.runner, samplings.values())
                except BaseException:  # nobody knows how far it came: all begin anew
                    for sampling in samplings.values():
                        release(self.runner, sampling)
                        sampling.restart()
                    raise
        except Exception as raised:  # it belongs to one of them, which is found by decoding each to its end alone
            if len(samplings) > 1:
                self._alone.update(dict.fromkeys(samplings))
                return
            error = raised
        for handle, sampling in samplings.items():
            if sampling.done or error is not None:
                del self._samplings[handle]
                self._alone.pop(handle, None)
                self._go_on(handle, None if error else sampling, error)


# ---------------------------------------------------------------------------------------------------------
# The engine of a model
# ---------------------------------------------------------------------------------------------------------


@dataclass
class _Engines:
    """The engines of one model, by precision, and what its user set."""

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
        Texts that grow at once: a window takes one, or as many as it has beams or samples. By default 64 on a CPU and
        256 on a CUDA device.
    memory_limit
        Bytes for these texts' caches and for the windows that they listen to; None for no limit. By default a
        quarter of the memory that is free when the model is first used. The model itself, the recordings and the
        work of a step come on top.

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


def engine_for(model: Whisper, fp16: bool) -> Engine:
    """Return the engine of a model for which `fast_path.usable`; all its transcriptions share it."""
    runner = select.runner_for(model, fp16)
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
