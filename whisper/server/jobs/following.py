"""Following a job: its events as server-sent events, those that were missed first, until it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import anyio

from .store import Job

if TYPE_CHECKING:
    from .runner import Jobs

KEEPALIVE = 15.0  # seconds without an event, after which a comment is sent
HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}  # nginx would keep the events back
RETRY = b"retry: 1000\n\n"  # milliseconds after which a client that lost the connection comes back
_COMMENT = b": keepalive\n\n"
_DELETED = b'data: {"type": "job.deleted"}\n\n'


async def lines(jobs: Jobs, job: Job, last: int) -> AsyncIterator[bytes]:
    """Give the events of a job after the one with the number `last`; ends with it, or when the server does."""
    yield RETRY
    while True:
        changed = jobs.next_change(job)
        now = await anyio.to_thread.run_sync(jobs.store.get, job.id, job.owner)
        if now is None:
            yield _DELETED
            return
        for number, data in await anyio.to_thread.run_sync(jobs.store.events, job, last):
            yield b"id: %d\ndata: %s\n\n" % (number, data.encode())
            last = number
        if now.is_finished:  # it was before its events were read, so these were all
            return
        if jobs.is_ending:
            return
        with anyio.move_on_after(KEEPALIVE) as waiting:
            await changed.wait()
        if waiting.cancelled_caught:
            yield _COMMENT
