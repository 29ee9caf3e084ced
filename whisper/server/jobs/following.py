"""Following a job: its events as server-sent events, those that were missed first, until it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import anyio

from ..streaming import COMMENT, KEEPALIVE
from .store import Job

if TYPE_CHECKING:
    from .runner import Jobs

RETRY = b"retry: 1000\n\n"  # milliseconds after which a client that lost the connection comes back
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
        if now.is_finished or jobs.is_ending:  # finished before its events were read, so these were all
            return
        with anyio.move_on_after(KEEPALIVE) as waiting:
            await changed.wait()
        if waiting.cancelled_caught:
            yield COMMENT
