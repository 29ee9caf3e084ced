"""Which requests run, and which wait: first come, first served, under a ceiling of rows and of memory.

Pure functions on numbers; imports no torch and knows no request but its ticket. Nobody is passed over by who came
later and needs less, so nobody starves; and whoever comes first where nothing runs is let in whatever it needs, so
nothing stands still.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..options.types import check_values, option, whole

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
        self.waiting: list[tuple[tuple[int, ...], Ticket]] = []  # a heap, the earliest first

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

    Raises
    ------
    OptionError
        A limit is not a whole number of at least 1.
    """

    def __init__(self, row_bytes: int, window_bytes: int, max_rows: int, memory_limit: int | None = None) -> None:
        self.row_bytes, self.window_bytes = row_bytes, window_bytes
        self.n_rows = self.n_bytes = self.n_running = 0
        self._groups: dict[Group, None] = {}  # those that have somebody waiting
        self.limits = Limits(max_rows, memory_limit)

    def set_limits(self, **limits: Any) -> None:
        """Change `max_rows` or `memory_limit`; who runs already goes on."""
        self.limits = replace(self.limits, **limits)

    def add(self, ticket: Ticket) -> None:
        """Let a request wait for its turn."""
        heapq.heappush(ticket.group.waiting, (ticket.order, ticket))
        self._groups[ticket.group] = None

    def admit(self) -> Ticket | None:
        """Let the next request in and return it; None where nobody waits or the next one must go on waiting."""
        first = self._first()
        if first is None or not self._fits(first):
            return None
        heapq.heappop(first.group.waiting)
        first.state = "running"
        first.group.n_running += 1
        self._count(first, 1)
        return first

    def may_admit(self) -> bool:
        """Whether `admit` would let somebody in."""
        first = self._first()
        return first is not None and self._fits(first)

    def _first(self) -> Ticket | None:
        """Return who comes next of those whose group has place."""
        first: Ticket | None = None
        for group in list(self._groups):
            while group.waiting and group.waiting[0][1].state == "gone":
                heapq.heappop(group.waiting)
            if not group.waiting:
                del self._groups[group]
            elif not group.is_full and (first is None or group.waiting[0][1] < first):
                first = group.waiting[0][1]
        return first

    def _fits(self, ticket: Ticket) -> bool:
        if not self.n_running:
            return True
        n_bytes = self.n_bytes + self._bytes_of(ticket)
        return self.n_rows + ticket.n_rows <= self.limits.max_rows and (
            self.limits.memory_limit is None or n_bytes <= self.limits.memory_limit
        )

    def _bytes_of(self, ticket: Ticket) -> int:
        return self.window_bytes + ticket.n_rows * self.row_bytes

    def _count(self, ticket: Ticket, sign: int) -> None:
        self.n_running += sign
        self.n_rows += sign * ticket.n_rows
        self.n_bytes += sign * self._bytes_of(ticket)

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
