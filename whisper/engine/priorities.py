"""Who comes first: classes of requests, ageing between them, and fair shares between the keys within each.

Pure numbers and a clock; knows no request. The engine asks twice: which request is let in, and whose operation runs
next. Where all requests make the same claim, as those of a program that says nothing, they come in their order.
"""

from __future__ import annotations

import contextlib
import enum
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass

AGEING = 5.0  # seconds without service after which a claim counts as one class higher


class Priority(enum.IntEnum):
    """The classes of requests, the most urgent first."""

    LIVE = 0  # somebody watches the words appear
    SHORT = 1  # somebody waits for the answer
    BATCH = 2  # nobody waits


@dataclass(frozen=True)
class Claim:
    """What a request says of itself."""

    priority: Priority = Priority.SHORT
    key: str = ""  # for whom it is: requests of one key share what they get


PLAIN = Claim()
_CLAIM: ContextVar[Claim] = ContextVar("claim", default=PLAIN)


def current_claim() -> Claim:
    """Return the claim of the requests that this context submits."""
    return _CLAIM.get()


@contextlib.contextmanager
def claiming(priority: Priority, key: str = "") -> Iterator[None]:
    """Let the transcriptions that begin in this context be of a class, and for a key.

    A generator that is made here keeps the claim when it runs elsewhere: `transcribe.iter_segments`, for example.

    Parameters
    ----------
    priority
        The class; what asks for none is ``SHORT``.
    key
        Who asks; keys of one class share fairly.

    Yields
    ------
    None
    """
    token = _CLAIM.set(Claim(priority, key))
    try:
        yield
    finally:
        _CLAIM.reset(token)


class FairShares:
    """What each key has been given: who was given least comes first.

    A key that asks for nothing saves nothing up: when it comes back, it counts as given what the least of those that
    wait was given. So between two keys that both always wait, what they get differs by no more than one turn each.
    """

    def __init__(self) -> None:
        self._given: dict[str, float] = {}  # of those above the floor
        self._floor = 0.0  # what everybody counts as given; never falls

    def given(self, key: str) -> float:
        """Return how much a key counts as given."""
        return max(self._given.get(key, 0.0), self._floor)

    def give(self, key: str, cost: float, waiting: Iterable[str]) -> None:
        """Count a turn of a key; `waiting` are the keys that ask at this moment, itself among them or not."""
        self._floor = max(self._floor, min(map(self.given, {*waiting, key})))
        self._given[key] = self.given(key) + cost
        self._given = {key: given for key, given in self._given.items() if given > self._floor}


class Turns:
    """Whose turn it is, of the claims that wait for one thing.

    A claim that was not served for `AGEING` seconds counts as one class higher, after twice that as two, and so on
    without end. So whoever waits is passed over only for a bounded time, whatever comes meanwhile; and as being served
    sets it back, a long queue of one class does not become more urgent than what it was submitted as.

    Parameters
    ----------
    clock
        Seconds, from any beginning.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._shares = FairShares()
        self._served: dict[Claim, float] = {}  # when a claim that waits was served last

    def rank(self, claim: Claim, since: float) -> tuple[int, float]:
        """Return the rank of a claim that waits since then; the lowest is first, and of equals who came first."""
        waited = self.clock() - max(since, self._served.get(claim, since))
        return claim.priority - int(waited // AGEING), self._shares.given(claim.key)

    def serve(self, claims: Mapping[Claim, float], waiting: Iterable[Claim]) -> None:
        """Count what claims are given, of all that wait at this moment."""
        now, waiting = self.clock(), {*waiting, *claims}
        keys = {claim.key for claim in waiting}
        for claim, cost in claims.items():
            self._shares.give(claim.key, cost, keys)
            self._served[claim] = now
        self._served = {claim: at for claim, at in self._served.items() if claim in waiting}
