"""The live sessions of the server, whatever the protocol: counted, limited, measured, and ended when it stops.

A `LiveSession` tells what happens on a thread of its own; a `Seat` brings that into the event loop, in order, into a
`Mailbox` that has an end: a client that does not read cannot fill the memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio
import numpy as np

from ...errors import CapacityError, ItemError
from ...live.events import Committed, Event, Failed, Final, Interim
from ...spans import SAMPLE_RATE
from ..admission import Admission
from ..errors import RequestError, invalid, of_work, shutting_down
from ..metrics import Metrics
from ..models import Models
from ..observing import LOG
from ..settings import ServeOptions

if TYPE_CHECKING:
    from ...live.options import LiveOptions
    from ...live.session import LiveSession
    from ...model import Whisper

    pass

MOST_WAITING = 1000  # messages that a client may leave unread, beside what the operating system holds for it
MOST_BEHIND = 30.0  # seconds of sound that wait for the session; further sound is not read until there are fewer
ROOM_CHECK = 0.02  # seconds between two looks at that
NOTHING_COMMITTED = "input_audio_buffer_commit_empty"
RETRY_AFTER = 30  # seconds: how soon a place may be free is not known

MakeSession = Callable[..., "LiveSession"]


def live_session(*given: Any, **named: Any) -> LiveSession:
    """Return a `LiveSession`; its module, which loads much, is loaded with the first."""
    from ...live.session import LiveSession

    return LiveSession(*given, **named)


class Ending(NamedTuple):
    """Why the server ends a session."""

    code: int  # of the websocket's close
    reason: str
    error: str = ""  # the code of an error that is told before
    finishes: bool = False  # whether the open item gets its text first


SHUTDOWN = Ending(1012, "the server is shutting down", "shutting_down", finishes=True)
EXPIRED = Ending(1001, "the session has reached its longest duration", "session_expired", finishes=True)
UNREAD = Ending(1008, "the client does not read its messages")


class Mailbox:
    """Messages that wait to be sent, the oldest first; belongs to one event loop.

    Parameters
    ----------
    on_full
        Called when more than `most` wait; what comes later is dropped.
    most
        Messages that may wait.
    """

    def __init__(self, on_full: Callable[[], None], most: int = MOST_WAITING) -> None:
        self._messages: deque[Any] = deque()
        self._on_full, self._most = on_full, most
        self._arrived = asyncio.Event()
        self._unsent = 0  # also counts the one that is being sent
        self._all_sent = asyncio.Event()
        self._all_sent.set()

    def add(self, message: Any) -> None:
        """Add a message; one with interim text replaces the one before it, which nobody needs any more."""
        last = self._messages[-1] if self._messages else None
        if isinstance(message, Interim) and isinstance(last, Interim) and last.item == message.item:
            self._messages[-1] = message
            return
        if len(self._messages) >= self._most:
            self._on_full()
            return
        self._messages.append(message)
        self._unsent += 1
        self._arrived.set()
        self._all_sent.clear()

    async def __aiter__(self) -> AsyncIterator[Any]:
        """Give the messages, for ever."""
        while True:
            while self._messages:
                yield self._messages.popleft()
                self._unsent -= 1
            if not self._unsent:
                self._all_sent.set()
            self._arrived.clear()
            await self._arrived.wait()

    async def all_sent(self) -> None:
        """Wait until what was added is sent."""
        await self._all_sent.wait()


class Seat:
    """One live session, as a coroutine drives it: from `LiveSessions.open`.

    Attributes
    ----------
    mailbox
        What the session tells, and what its coroutine adds.
    reading
        The scope in which the coroutine reads from its client; cancelled when the server ends the session.
    ending
        Why the server ends it.
    model_name, model
        What transcribes.
    seconds
        Seconds of sound that came.
    """

    def __init__(self, sessions: LiveSessions, protocol: str, key: str) -> None:
        self.protocol, self.key = protocol, key
        self.mailbox = Mailbox(lambda: self.end(UNREAD))
        self.reading = anyio.CancelScope(deadline=anyio.current_time() + sessions.options.max_session_s)
        self.ending: Ending | None = None
        self.seconds = 0.0
        self.model_name = ""
        self.model: Whisper | None = None
        self.session: LiveSession | None = None
        self._finishing: LiveSession | None = None
        self._sessions = sessions
        self._loop = asyncio.get_running_loop()
        self._uses = contextlib.ExitStack()  # of the model
        self._committed: dict[int, float] = {}  # when, by item

    async def start(self, model_name: str, options: LiveOptions) -> None:
        """Begin, or begin anew with another model, before any sound has come."""
        await self._on_thread(self._open, model_name, options)

    def _open(self, model_name: str, options: LiveOptions) -> None:
        self._close(finish=False)
        model = self._uses.enter_context(self._sessions.models.use(model_name))
        try:
            self.session = self._sessions.make(model, options, self._on_event, key=self.key)
        except CapacityError as error:
            raise RequestError(503, str(error), code="capacity", retry_after=RETRY_AFTER) from error
        self.model_name, self.model = model_name, model

    @property
    def live(self) -> LiveSession:
        """Return the session, which has been started."""
        assert self.session is not None
        return self.session

    def append(self, samples: np.ndarray[Any, np.dtype[np.int16]]) -> None:
        """Add sound at 16 kHz; returns at once."""
        if len(samples):
            self.seconds += len(samples) / SAMPLE_RATE
            self._sessions.metrics.live_audio_seconds.inc(len(samples) / SAMPLE_RATE)
            self.live.append(samples.astype(np.float32) * np.float32(1 / 32768))

    async def room(self) -> None:
        """Wait until the session has caught up, so that nothing piles up where sound comes faster than it lasts."""
        while self.live.backlog > MOST_BEHIND:
            await anyio.sleep(ROOM_CHECK)

    async def finish(self) -> None:
        """End the session; the open item gets its text first, and what it tells is in the mailbox afterwards."""
        await self._on_thread(self._close, True)

    def end(self, ending: Ending) -> None:
        """Let the coroutine of the session end it; only the first reason counts."""
        if self.ending is None:
            self.ending = ending
            self.reading.cancel()

    async def give_up(self) -> None:
        """End the session at once, without the text of the open item; also one that is being finished."""
        if self._finishing is not None:
            await self._on_thread(lambda session: session.close(finish=False), self._finishing)
        await self._on_thread(self._close, False)

    def _close(self, finish: bool) -> None:
        session, self.session = self.session, None
        try:
            if session is not None:
                self._finishing = session if finish else None
                session.close(finish=finish)
                self._finishing = None
        finally:
            self._uses.close()

    async def _on_thread(self, function: Callable[..., Any], *given: Any) -> Any:
        with anyio.CancelScope(shield=True):
            return await anyio.to_thread.run_sync(function, *given, limiter=self._sessions.threads)

    def _on_event(self, event: Event) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._arrive, event)

    def _arrive(self, event: Event) -> None:
        if isinstance(event, Committed):
            self._committed[event.item] = time.monotonic()
        elif isinstance(event, (Final, Failed)):
            metrics = self._sessions.metrics
            is_final = isinstance(event, Final)
            metrics.live_items.labels(self.protocol, "final" if is_final else "failed").inc()
            committed = self._committed.pop(event.item, None)
            if is_final and committed is not None:
                metrics.live_final_seconds.observe(time.monotonic() - committed)
        self.mailbox.add(event)


class LiveSessions:
    """The places for live sessions.

    Parameters
    ----------
    options
        The settings of the server.
    models
        Its models.
    admission
        Tells whether it is being stopped.
    metrics
        Gets the counts.
    make
        Makes a session, as `LiveSession`.
    """

    def __init__(
        self, options: ServeOptions, models: Models, admission: Admission, metrics: Metrics, make: MakeSession
    ) -> None:
        self.options, self.models, self.metrics, self.make = options, models, metrics, make
        self.threads = anyio.CapacityLimiter(2 * options.max_sessions)
        self.is_loaded: Callable[[], bool] = lambda: True
        self._admission = admission
        self._seats: set[Seat] = set()

    @contextlib.asynccontextmanager
    async def open(self, protocol: str, key: str, model_name: str, options: LiveOptions) -> AsyncIterator[Seat]:
        """Give a session for as long as the context lasts.

        Parameters
        ----------
        protocol
            For metrics.
        key
            Whose it is; empty where nobody is told apart.
        model_name
            One of the models.
        options
            Of the session.

        Raises
        ------
        RequestError
            There is no place, or the server is starting or being stopped.
        """
        try:
            self._check(key)
            seat = Seat(self, protocol, key)
            self._seats.add(seat)
        except RequestError as error:
            self.metrics.live_refused.labels(protocol, error.code).inc()
            raise
        running = self.metrics.live_sessions.labels(protocol)
        running.inc()
        try:
            try:
                await seat.start(model_name, options)
            except RequestError as error:
                self.metrics.live_refused.labels(protocol, error.code).inc()
                raise
            yield seat
        finally:
            await seat.give_up()
            self._seats.discard(seat)
            running.dec()

    def _check(self, key: str) -> None:
        if self._admission.is_draining:
            raise shutting_down()
        if not self.is_loaded():
            raise RequestError(503, "the model is being loaded", code="not_ready", retry_after=5)
        of_key = sum(seat.key == key for seat in self._seats)
        if key and of_key >= self.options.max_sessions_per_key:
            raise RequestError(
                429,
                f"this key has {of_key} live sessions, as many as it may have; end one of them",
                code="too_many_sessions",
                retry_after=RETRY_AFTER,
            )
        if len(self._seats) >= self.options.max_sessions:
            raise RequestError(
                429,
                f"all {len(self._seats)} places for live sessions are taken; try again later",
                code="sessions_full",
                retry_after=RETRY_AFTER,
            )

    async def drain(self, seconds: float, gives_up: Callable[[], bool] = lambda: False) -> None:
        """End all sessions: each gets the text of its open item, if that comes within the time.

        Parameters
        ----------
        seconds
            The time.
        gives_up
            Whether to wait no longer.
        """
        for seat in list(self._seats):
            seat.end(SHUTDOWN)
        until = time.monotonic() + seconds
        while self._seats and time.monotonic() < until and not gives_up():
            await anyio.sleep(ROOM_CHECK)
        if self._seats:
            LOG.warning("live sessions were cut off", extra={"notes": {"sessions": len(self._seats)}})
        for seat in list(self._seats):
            await seat.give_up()


def error_of(failed: Failed) -> RequestError:
    """Return what a client is told of an item that failed; a fault of ours goes to the log."""
    if isinstance(failed.error, ItemError):
        return invalid(str(failed.error), code=NOTHING_COMMITTED)
    error = of_work(failed.error)
    if error.status == 500:
        LOG.error("an item of a live session failed", exc_info=failed.error)
    return error
