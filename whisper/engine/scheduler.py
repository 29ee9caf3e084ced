"""Which requests run, and which wait, under a ceiling of rows and of memory.

Pure functions on numbers; imports no torch and knows no request but its ticket. Requests of one claim (a class and a
key) are let in first come, first served; between claims `priorities.Turns` decides. Nobody is passed over by who
comes after him and needs less, so nobody starves; and whoever comes first where nothing runs is let in whatever it
needs, so nothing stands still.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..options.types import check_values, option, whole
from .priorities import PLAIN, Claim, Priority, Turns

RESERVE = 4  # one part in so many of rows and memory is kept from batch requests, which hold what they have for long
MAX_PROMPT_TOKENS = 1024  # tokens of prompts that are read in one step: bounds the memory of their activations


class Group:
    """Requests of which only so many run at once, beside the ceiling for all.

    Parameters
    ----------
    limit
        None for no limit.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self.n_running = 0

    @property
    def is_full(self) -> bool:
        """Whether nobody of this group may start now."""
        return self.limit is not None and self.n_running >= self.limit


@dataclass(eq=False)
class Ticket:
    """A request in the eyes of the scheduler."""

    order: tuple[int, ...]  # no two are equal; the parts of a request come before the requests after it
    n_rows: int  # rows that it takes at most
    group: Group
    claim: Claim = PLAIN
    since: float = 0.0  # when it began to wait, by the scheduler's clock
    state: str = field(default="waiting", init=False)  # then "running", perhaps "resting", and at last "gone"

    def __lt__(self, other: Ticket) -> bool:
        return self.order < other.order


LIMITS = "engine.configure(): how much of a model's transcriptions runs at once"


@dataclass(frozen=True)
class Limits:
    """Ceilings of the requests that run at once, as `engine.configure` takes them.

    Raises
    ------
    OptionError
        A limit is not a whole number of at least 1.
    """

    max_rows: int = option(
        LIMITS,
        64,
        whole(1),
        "rows of all running requests together: a window takes one, or as many as it has beams or samples; by default "
        "64 on a CPU and 256 on a CUDA device",
    )
    memory_limit: int | None = option(
        LIMITS,
        None,
        whole(1),
        "bytes of their rows and windows together; by default a quarter of the memory that is free when the model is "
        "first used, None for no limit",
    )

    def __post_init__(self) -> None:
        check_values(self)


@dataclass
class Use:
    """What running requests have."""

    n_running: int = 0
    n_rows: int = 0
    n_bytes: int = 0

    def has_place(self, n_rows: int, n_bytes: int, max_rows: int, max_bytes: int | None) -> bool:
        """Whether one more stays under the ceilings; the first may take more."""
        return not self.n_running or (
            self.n_rows + n_rows <= max_rows and (max_bytes is None or self.n_bytes + n_bytes <= max_bytes)
        )


class Scheduler:
    """Lets requests in.

    Parameters
    ----------
    row_bytes, window_bytes
        Memory of a row, and of the window that a request listens to.
    max_rows
        Rows of all running requests together.
    memory_limit
        Bytes of their rows and windows together; None for no limit.
    clock
        Seconds, by which waiting requests age.

    Raises
    ------
    OptionError
        A limit is not a whole number of at least 1.
    """

    def __init__(
        self,
        row_bytes: int,
        window_bytes: int,
        max_rows: int,
        memory_limit: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.row_bytes, self.window_bytes, self.clock = row_bytes, window_bytes, clock
        self.used, self._batch = Use(), Use()  # what all running requests have, and of that the batch requests
        self._queues: dict[tuple[Claim, Group], list[Ticket]] = {}  # who waits: heaps, the earliest first
        self._turns = Turns(clock)
        self.limits = Limits(max_rows, memory_limit)

    def set_limits(self, **limits: Any) -> None:
        """Change `max_rows` or `memory_limit`; who runs already goes on."""
        self.limits = replace(self.limits, **limits)

    def add(self, ticket: Ticket) -> None:
        """Let a request wait for its turn."""
        ticket.since = self.clock()
        heapq.heappush(self._queues.setdefault((ticket.claim, ticket.group), []), ticket)

    def admit(self) -> Ticket | None:
        """Let the next request in and return it; None where nobody waits or the next one must go on waiting."""
        first = self._first()
        if first is None or not self._fits(first):
            return None
        self._turns.serve({first.claim: first.n_rows}, [claim for claim, _ in self._queues])
        heapq.heappop(self._queues[first.claim, first.group])
        first.state = "running"
        first.group.n_running += 1
        self._count(first, 1)
        return first

    def may_admit(self) -> bool:
        """Whether `admit` would let somebody in."""
        first = self._first()
        return first is not None and self._fits(first)

    def _first(self) -> Ticket | None:
        """Return who comes next of those that have place in their group and in their class."""
        firsts: dict[Claim, Ticket] = {}
        for (claim, group), queue in list(self._queues.items()):
            while queue and queue[0].state == "gone":
                heapq.heappop(queue)
            if not queue:
                del self._queues[claim, group]
            elif not group.is_full and (claim not in firsts or queue[0] < firsts[claim]):
                firsts[claim] = queue[0]
        is_batch_held = False  # by the first of the batch requests, and with it all that come after it
        for ticket in sorted(firsts.values(), key=lambda t: (*self._turns.rank(t.claim, t.since), t)):
            if ticket.claim.priority is not Priority.BATCH:
                return ticket
            if not is_batch_held and self._leaves_reserve(ticket):
                return ticket
            is_batch_held = True
        return None

    def _leaves_reserve(self, ticket: Ticket) -> bool:
        """Whether a batch request leaves the other classes their part; a single one may take what there is."""
        limit, most = self.limits.memory_limit, self.limits.max_rows
        return self._batch.has_place(
            ticket.n_rows,
            self._bytes_of(ticket),
            most - most // RESERVE,
            None if limit is None else limit - limit // RESERVE,
        )

    def _fits(self, ticket: Ticket) -> bool:
        return self.used.has_place(
            ticket.n_rows, self._bytes_of(ticket), self.limits.max_rows, self.limits.memory_limit
        )

    def _bytes_of(self, ticket: Ticket) -> int:
        return self.window_bytes + ticket.n_rows * self.row_bytes

    def _count(self, ticket: Ticket, sign: int) -> None:
        for use in (self.used, self._batch) if ticket.claim.priority is Priority.BATCH else (self.used,):
            use.n_running += sign
            use.n_rows += sign * ticket.n_rows
            use.n_bytes += sign * self._bytes_of(ticket)

    def rest(self, ticket: Ticket) -> None:
        """Let a running request that only waits for its parts leave its place to them; it needs none any more."""
        if ticket.state == "running":
            ticket.state = "resting"
            self._count(ticket, -1)

    def remove(self, ticket: Ticket) -> None:
        """Forget a request, wherever it is."""
        if ticket.state == "running":
            self._count(ticket, -1)
        if ticket.state in ("running", "resting"):
            ticket.group.n_running -= 1
        ticket.state = "gone"


def n_prompts(lengths: Sequence[int]) -> int:
    """Return how many of the prompts that wait, given their tokens, are read in the next step: at least one."""
    total = 0
    for i, length in enumerate(lengths):
        total += length
        if i and total > MAX_PROMPT_TOKENS:
            return i
    return len(lengths)
