"""The engine as a single-threaded state machine: which requests run, what the runner does next, who gets the answer.

`EngineCore.step` is one scheduler step: schedule some operations of one kind, run them on the runner as one job,
hand out the answers. There is no lock here and no waiting: `engine` adds threads by calling the same parts with its
lock, released while a job or a request's own code runs. Knows no file, no HTTP and no text.
"""

from __future__ import annotations

import contextlib
import itertools
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..device.lazy_torch import copied
from ..device.torch_state import clean_state
from ..errors import CancelledError
from ..sampling.window_sampling import language_probs, release, step
from .operations import (
    Attend,
    Deliver,
    DetectLanguage,
    Encode,
    NextDelivery,
    Operation,
    Project,
    RequestCoroutine,
    Sample,
    Spawn,
    Yield,
)
from .priorities import PLAIN, Claim, Turns
from .scheduler import Group, Scheduler, Ticket, n_prompts

if TYPE_CHECKING:
    from ..runtime.interface import Runner

Answer = tuple[Any, BaseException | None]  # a value, or an error to be raised in the request
UNFINISHED = object()  # the answer of an operation that takes more than one job
DETECTIONS = 16  # windows whose language is detected together: one token each, for which all weights are read
DEVICE_OPERATIONS: tuple[type[Operation[Any]], ...] = (
    Encode,
    Project,
    DetectLanguage,
    Attend,
    Sample,
)  # the first go first


@dataclass(eq=False)
class Request:
    """One submitted coroutine, and where it stands."""

    coroutine: RequestCoroutine[Any]
    ticket: Ticket
    owner: Any  # who waits for it; the core only hands it back
    since: float = 0.0  # when its operation began to wait for the device, or had its last step there
    answer: Answer = (None, None)  # what the coroutine continues with
    is_running: bool = False  # its own code runs at this moment
    is_cancelled: bool = False
    is_done: bool = False
    deliveries: deque[Deliver] = field(default_factory=deque)  # not yet consumed
    value: Any = None
    error: BaseException | None = None
    awaited_by: Request | None = None  # the request that waits for this part's next delivery
    parts: list[Request] = field(default_factory=list)

    def resume(self) -> Operation[Any] | None:
        """Run the coroutine to its next operation; None where it has ended, with `value` or `error`."""
        (value, error), self.answer = self.answer, (None, None)
        try:
            with clean_state():
                return self.coroutine.send(value) if error is None else self.coroutine.throw(error)
        except StopIteration as end:
            self.value = end.value
        except Exception as raised:  # whatever it is, it belongs to the request
            self.error = raised
        except BaseException:  # Ctrl-C ends this request, and goes on to the thread that it interrupted
            self.error = CancelledError("the transcription was interrupted")
            raise
        return None


@dataclass(eq=False)
class DeviceJob:
    """Operations of one kind that run together."""

    kind: type[Operation[Any]]
    operations: dict[Request, Any]
    answers: list[Any] | None = None  # one for each operation, once they have run; perhaps `UNFINISHED`
    error: Exception | None = None

    @clean_state()
    def run(self, runner: Runner) -> None:
        """Run on the device. An error is kept, as it belongs to a request; only an interruption is raised."""
        try:
            self.answers = _RUN[self.kind](runner, list(self.operations.values()))
        except Exception as error:  # whatever it is, it belongs to one of the requests: see `finish`
            self.error = error


def _encode(runner: Runner, operations: list[Encode]) -> list[Any]:
    features = runner.encode([operation.mel for operation in operations])
    return [runner.project(f) for f in features]


def _project(runner: Runner, operations: list[Project]) -> list[Any]:
    return [runner.project(operation.features) for operation in operations]


def _detect(runner: Runner, operations: list[DetectLanguage]) -> list[Any]:
    together: dict[tuple[int, tuple[int, ...]], list[DetectLanguage]] = {}
    for op in operations:
        together.setdefault((op.sot, op.languages), []).append(op)
    answers: dict[DetectLanguage, list[float]] = {}
    for question, ops in together.items():
        answers.update(zip(ops, language_probs(runner, [op.window for op in ops], *question), strict=True))
    return [answers[op] for op in operations]


def _attend(runner: Runner, operations: list[Attend]) -> list[Any]:
    answers = []
    for op in operations:
        qk, logits = runner.attention_scores(op.window, op.tokens, op.heads, op.n_skipped, op.n_text)
        answers.append((copied(qk), copied(logits)))  # the runner's own buffers are overwritten by its next call
    return answers


def _sample(runner: Runner, operations: list[Sample]) -> list[Any]:
    """Sample one more token for each window."""
    samplings = [operation.sampling for operation in operations]
    try:
        step(runner, samplings)
    except BaseException:  # how far the step came is unknown: all windows begin anew
        for sampling in samplings:
            release(runner, sampling)
            sampling.restart()
        raise
    return [sampling if sampling.done else UNFINISHED for sampling in samplings]


_RUN: dict[type[Operation[Any]], Callable[[Runner, list[Any]], list[Any]]] = {
    Encode: _encode,
    Project: _project,
    DetectLanguage: _detect,
    Attend: _attend,
    Sample: _sample,
}


class EngineCore:
    """All requests of one runner.

    Parameters
    ----------
    runner
        Called by nobody else.
    scheduler
        Decides which requests run.
    encoder_batch
        Windows that are encoded together: 1 where that is as fast as several.
    notify
        Called with a request's owner when there is something new for it.
    """

    def __init__(
        self,
        runner: Runner,
        scheduler: Scheduler,
        *,
        encoder_batch: int = 1,
        notify: Callable[[Any], None] = lambda owner: None,
    ) -> None:
        self.runner, self.scheduler = runner, scheduler
        self.is_busy = False  # a job is on the device
        self.ready: dict[Request, None] = {}  # their code can continue
        self._requests: dict[Ticket, Request] = {}  # not done
        self._waiting: dict[type[Operation[Any]], dict[Request, Any]] = {kind: {} for kind in DEVICE_OPERATIONS}
        self._alone: dict[Request, None] = {}  # a job with them failed: each runs alone, to find whose error it is
        self._yielded: list[Request] = []
        self._cancelled: list[Request] = []  # not yet ended
        self._ended: list[RequestCoroutine[Any]] = []  # to be closed
        self._default_group = Group()
        self._claims: Counter[Claim] = Counter()  # of the requests that are not done
        self._turns = Turns(scheduler.clock)
        self._numbers = itertools.count()
        self._encoder_batch = encoder_batch
        self._notify = notify

    # -- requests ----------------------------------------------------------------------------------------

    def submit(
        self,
        coroutine: RequestCoroutine[Any],
        n_rows: int = 1,
        *,
        owner: Any = None,
        group: Group | None = None,
        claim: Claim = PLAIN,
    ) -> Request:
        """Queue a request. Nothing of it runs yet."""
        ticket = Ticket((next(self._numbers),), n_rows, group or self._default_group, claim)
        return self._add(coroutine, ticket, owner)

    def _add(self, coroutine: RequestCoroutine[Any], ticket: Ticket, owner: Any) -> Request:
        request = self._requests[ticket] = Request(coroutine, ticket, owner)
        self._claims[ticket.claim] += 1
        self.scheduler.add(ticket)
        return request

    def cancel(self, request: Request) -> None:
        """End a request: at once, or when the device and its own code are done with it."""
        if request.is_done or request.is_cancelled:
            return
        request.is_cancelled = True
        self._cancelled.append(request)
        self.sweep()

    @property
    def is_idle(self) -> bool:
        """Whether no request is left."""
        return not self._requests

    @property
    def has_work(self) -> bool:
        """Whether `step` would do something."""
        return bool(
            self._cancelled or self.ready or self._yielded or any(self._waiting.values()) or self.scheduler.may_admit()
        )

    # -- one step ----------------------------------------------------------------------------------------

    def step(self) -> bool:
        """Continue one request, or run one job; False where there is nothing to do."""
        self.close_ended()
        if request := next(iter(self.ready), None):
            self.begin(request)
            self.take(request, request.resume())
            return True
        if self.admit():
            return True
        woken = self.wake_yielded()
        job = self.schedule()
        if job is None:
            return woken
        job.run(self.runner)
        self.finish(job)
        return True

    def admit(self) -> bool:
        """Start the requests that fit; False where none does."""
        admitted = False
        while ticket := self.scheduler.admit():
            self._answer(self._requests[ticket])
            admitted = True
        return admitted

    def wake_yielded(self) -> bool:
        """Let those continue that have let others run; False where there are none."""
        yielded, self._yielded = self._yielded, []
        for request in yielded:
            self._answer(request)
        return bool(yielded)

    def schedule(self) -> DeviceJob | None:
        """Choose the operations that run next; the device is busy from now on, until `finish`.

        Windows are encoded before any token is sampled, so that sampling then runs with as many rows as possible.
        Where requests of several claims wait, only those whose turn it is are considered; but rows that are already
        decoding go along with any others, as they cost the others little.
        """
        since = self._waiting_since() if len(self._claims) > 1 else {}
        turns = self._claims_in_turn(since) if since else None
        for kind in DEVICE_OPERATIONS:
            if chosen := self._choose(kind, turns):
                self.is_busy = True
                if turns is not None:
                    self._note_served(kind, chosen, since)
                return DeviceJob(kind, chosen)
        return None

    def _claims_in_turn(self, since: Mapping[Claim, float]) -> dict[Claim, int]:
        """Return the claims of the highest class that waits for the device, each with its place among them."""
        ranks = {claim: self._turns.rank(claim, at) for claim, at in since.items()}
        first = min((level for level, _ in ranks.values()), default=0)
        in_turn = sorted((claim for claim in ranks if ranks[claim][0] == first), key=lambda c: (ranks[c], since[c]))
        return {claim: i for i, claim in enumerate(in_turn)}

    def _waiting_since(self) -> dict[Claim, float]:
        """Return the claims that wait for the device, each with the time since which it does."""
        since: dict[Claim, float] = {}
        for waiting in self._waiting.values():
            for request in waiting:
                claim = request.ticket.claim
                since[claim] = min(since.get(claim, request.since), request.since)
        return since

    def _note_served(self, kind: type[Operation[Any]], chosen: Mapping[Request, Any], waiting: Iterable[Claim]) -> None:
        """Count what is done for each claim: a window, with all that follows from it, by its encoding."""
        windows = Counter(request.ticket.claim for request in chosen)
        cost = 1 if kind is Encode else 0
        self._turns.serve({claim: n * cost for claim, n in windows.items()}, waiting)

    def _choose(self, kind: type[Operation[Any]], turns: Mapping[Claim, int] | None) -> dict[Request, Any]:
        """Choose among the waiting operations of a kind: in their order, or in that of the claims whose turn it is."""
        waiting = self._waiting[kind]
        alone = next((request for request in waiting if request in self._alone), None)
        if alone is not None:
            return {alone: waiting[alone]}
        decoding: dict[Request, Any] = {}
        if kind is Sample:
            decoding = {request: op for request, op in waiting.items() if op.sampling.n_steps}
        begin = {request: op for request, op in waiting.items() if request not in decoding}
        if turns is not None:
            allowed = sorted((r for r in begin if r.ticket.claim in turns), key=lambda r: turns[r.ticket.claim])
            begin = {request: begin[request] for request in allowed}
        if kind is Sample:  # as many as the prefill of one step may read
            n = n_prompts([len(op.sampling.plan.initial_tokens) for op in begin.values()])
        else:
            n = {Encode: self._encoder_batch, DetectLanguage: DETECTIONS}.get(kind, 1)
        return {**decoding, **dict(itertools.islice(begin.items(), n))}

    def finish(self, job: DeviceJob) -> None:
        """Hand out the answers of a job that has run; one that was interrupted has none, and is scheduled again."""
        self.is_busy = False
        if job.error is not None and len(job.operations) > 1:
            self._alone.update(dict.fromkeys(job.operations))
        else:
            answers = job.answers if job.error is None else [job.error]
            for request, answer in zip(job.operations, answers or (), strict=False):
                if answer is UNFINISHED:
                    request.since = self.scheduler.clock()
                else:
                    del self._waiting[job.kind][request]
                    self._alone.pop(request, None)
                    self._answer(request, answer if job.error is None else None, job.error)
        job.operations, job.answers = {}, None  # frames that the error's traceback keeps may hold the job
        self.sweep()

    # -- a request's own code ----------------------------------------------------------------------------

    def begin(self, request: Request) -> None:
        """Note that the code of a request that is ready runs from now on; `take` what it comes to."""
        del self.ready[request]
        request.is_running = True

    def take(self, request: Request, operation: Operation[Any] | None) -> None:
        """Queue the operation that a request came to; None ends it."""
        request.is_running = False
        if operation is None:
            self._end(request)
        elif request.is_cancelled:
            self._drop(request)
        elif type(operation) in self._waiting:
            request.since = self.scheduler.clock()
            self._waiting[type(operation)][request] = operation
        elif isinstance(operation, Deliver):
            request.deliveries.append(operation)
            self._answer(request)
            self._hand_on(request)
        elif isinstance(operation, Yield):
            if self.is_busy:  # others run anyway
                self._answer(request)
            else:
                self._yielded.append(request)
        elif isinstance(operation, Spawn):
            self._answer(request, self._spawn(request, operation))
        elif isinstance(operation, NextDelivery):
            operation.part.awaited_by = request
            self._hand_on(operation.part)
        else:
            self._answer(request, error=TypeError(f"a request cannot await {operation!r}"))

    def _spawn(self, request: Request, spawn: Spawn) -> Request:
        self.scheduler.rest(request.ticket)
        order = (*request.ticket.order, len(request.parts))
        ticket = Ticket(order, spawn.n_rows, spawn.group, request.ticket.claim)
        part = self._add(spawn.coroutine, ticket, request.owner)
        request.parts.append(part)
        return part

    def _answer(self, request: Request, value: Any = None, error: BaseException | None = None) -> None:
        """Make a request ready to continue with an answer."""
        if not request.is_done:
            request.answer = value, error
            self.ready[request] = None
            self._notify(request.owner)

    def _hand_on(self, part: Request) -> None:
        """Answer the request that waits for a part, where there is something to answer."""
        waiting = part.awaited_by
        if waiting is None or not (part.deliveries or part.is_done):
            return
        part.awaited_by = None
        if part.deliveries:
            self._answer(waiting, part.deliveries.popleft())
        else:
            self._answer(waiting, None, part.error)

    # -- the end of requests -----------------------------------------------------------------------------

    def _end(self, request: Request) -> None:
        request.is_done = True
        request.answer = None, None  # releases a window that it has not continued with
        self.ready.pop(request, None)
        if request.error is not None:
            traceback.clear_frames(request.error.__traceback__)  # they hold windows for as long as the error is kept
        del self._requests[request.ticket]
        self._claims[request.ticket.claim] -= 1
        if not self._claims[request.ticket.claim]:
            del self._claims[request.ticket.claim]
        self.scheduler.remove(request.ticket)
        self._notify(request.owner)
        self._hand_on(request)
        for part in request.parts:
            self.cancel(part)

    def sweep(self) -> None:
        """End the cancelled requests, as long as the runner is free to take their rows back."""
        while self._cancelled and not self.is_busy:
            request = self._cancelled.pop()
            if not request.is_running and not request.is_done:  # running code is asked when it comes back: see `take`
                self._drop(request)

    def _drop(self, request: Request) -> None:
        """End a cancelled request, and take back what it holds."""
        if self.is_busy:  # its rows cannot be taken back now
            self._cancelled.append(request)
            return
        for waiting in self._waiting.values():
            operation = waiting.pop(request, None)
            if isinstance(operation, Sample):
                release(self.runner, operation.sampling)
        self._alone.pop(request, None)
        request.error = CancelledError("the transcription was cancelled")
        self._ended.append(request.coroutine)
        self._end(request)

    def close_ended(self) -> None:
        """Close the coroutines of requests that were cancelled; their clean-up code runs here, so hold no lock."""
        while self._ended:
            coroutine = self._ended.pop()
            with contextlib.suppress(Exception):  # the request is over: an error of its clean-up helps nobody
                coroutine.close()
