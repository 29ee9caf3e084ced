"""Admission: which requests wait, which run, and what is refused before any work is done on it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import math
import threading
import time
from collections.abc import AsyncIterator

import anyio

from ..errors import CancelledError
from .errors import RequestError, shutting_down
from .metrics import Metrics

LONGEST_RETRY_AFTER = 120  # seconds: after a longer one, OpenAI's clients do not try again
FIRST_GUESS = 5.0  # seconds of work for a request, before any was measured
CANCEL_PAUSE = 0.05  # seconds between two looks at whether a request that waits was given up
KEPT = 4  # one place in so many is kept from long recordings
SMOOTHING = 0.2  # weight of the newest request in the mean


class Place:
    """The place of one request among those that run.

    Parameters
    ----------
    places
        Of all requests.
    long_places
        Of those with long recordings, which leave places for the others.
    """

    def __init__(self, places: anyio.CapacityLimiter, long_places: anyio.CapacityLimiter) -> None:
        self._places, self._long_places = places, long_places
        self._held: list[anyio.CapacityLimiter] = []
        self.since = time.monotonic()  # when it was taken

    async def take(self) -> None:
        """Wait for a place."""
        await self._take(self._places)

    async def become_long(self) -> None:
        """Hand the place on, and wait for one of those for long recordings."""
        if self._long_places not in self._held:
            self.leave()
            await self._take(self._long_places)
            await self._take(self._places)

    def become_long_from_thread(self, loop: asyncio.AbstractEventLoop, cancel: threading.Event) -> None:
        """Do that on the thread of the work, while the loop runs elsewhere.

        Not by ``anyio.from_thread.run``: where the task that waits for the thread was cancelled before, that never
        returns, and keeps the loop busy (anyio 4.16).

        Raises
        ------
        CancelledError
            `cancel` was set before it was its turn.
        """
        waiting = asyncio.run_coroutine_threadsafe(self.become_long(), loop)
        while not cancel.is_set():
            with contextlib.suppress(concurrent.futures.TimeoutError):
                return waiting.result(CANCEL_PAUSE)
        waiting.cancel()
        raise CancelledError("the request was given up before it was its turn")

    async def _take(self, places: anyio.CapacityLimiter) -> None:
        await places.acquire_on_behalf_of(self)
        self._held.append(places)
        self.since = time.monotonic()

    def leave(self) -> None:
        """Give back what it holds."""
        while self._held:
            self._held.pop().release_on_behalf_of(self)


class Admission:
    """Counts the requests that are inside.

    Requests that upload wait, too. All that are let in run in the order in which their uploads ended, but long
    recordings take no more than their part of the places.

    Parameters
    ----------
    max_running
        Requests that are transcribed at once.
    max_queue
        Requests that may wait beside them.
    metrics
        Gets the counts.
    """

    def __init__(self, max_running: int, max_queue: int, metrics: Metrics) -> None:
        self.max_running, self.max_queue = max_running, max_queue
        self.n_inside = self.n_running = 0
        self.is_draining = False
        self.mean_seconds = FIRST_GUESS  # that a request runs
        self._metrics = metrics
        self._places = anyio.CapacityLimiter(max_running)
        self._long_places = anyio.CapacityLimiter(max(max_running - max(max_running // KEPT, 1), 1))

    @property
    def is_full(self) -> bool:
        """Whether the next request is refused."""
        return self.n_inside >= self.max_running + self.max_queue

    def seconds_to_wait(self) -> float:
        """Return the time until a request that came now would run, by what requests took until now."""
        return max(self.n_inside - self.max_running + 1, 0) * self.mean_seconds / self.max_running

    @contextlib.asynccontextmanager
    async def inside(self, client_timeout: float = math.inf) -> AsyncIterator[None]:
        """Let a request in for as long as the context lasts.

        Parameters
        ----------
        client_timeout
            Seconds after which the client gives up, by its own account.

        Raises
        ------
        RequestError
            The server is full or shutting down, or the client would have given up before its turn.
        """
        if self.is_draining:
            raise shutting_down()
        wait = self.seconds_to_wait()
        if self.is_full or wait > client_timeout:
            raise RequestError(
                429,
                f"{self.n_inside} requests are ahead, about {wait:.0f} s of work; try again later",
                code="queue_full",
                retry_after=min(max(math.ceil(wait), 1), LONGEST_RETRY_AFTER),
            )
        self._count(1, 0)
        try:
            yield
        finally:
            self._count(-1, 0)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Place]:
        """Wait for a place, and hold it for as long as the context lasts."""
        waited_since = time.monotonic()
        place = Place(self._places, self._long_places)
        await place.take()
        self._metrics.queue_seconds.observe(place.since - waited_since)
        self._count(0, 1)
        try:
            yield place
            self.mean_seconds += SMOOTHING * (time.monotonic() - place.since - self.mean_seconds)
        finally:
            self._count(0, -1)
            place.leave()

    def _count(self, inside: int, running: int) -> None:
        self.n_inside += inside
        self.n_running += running
        self._metrics.running.set(self.n_running)
        self._metrics.waiting.set(self.n_inside - self.n_running)
