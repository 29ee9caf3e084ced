"""The pace of the refreshes of one model: how often each session may ask, whose turn it is, and how many fit.

One refresh runs at a time, as many would only wait for each other inside of the model; a session that waits for its
turn reads the newest sound when it comes. So what is shown lags by a bounded time, however many sessions there are.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from statistics import median
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from ..device import processes
from ..errors import CapacityError

if TYPE_CHECKING:
    from ..model import Whisper

Wake = Callable[[], None]

LOAD = 0.7  # share of the time that refreshes may take: the rest is for final texts
LONGEST_INTERVAL = 3.0  # seconds between two refreshes of a session: beyond, no further session is let in
MEASURED = 9  # refreshes, of whose times the median counts: the first ones load and compile things
AT_ONCE = {"cuda": 4}  # refreshes at a time; on a CPU, which computes one operation at a time, 1


class Pace:
    """The refreshes of all sessions of one model.

    Parameters
    ----------
    n_at_once
        Refreshes that may run at a time.
    clock
        Seconds, from any beginning.
    """

    def __init__(self, n_at_once: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._n_at_once = n_at_once
        self._lock = processes.lock()
        self._sessions: list[Wake] = []
        self._waiting: list[Wake] = []  # in the order in which they asked
        self._running: dict[Wake, float] = {}  # since when
        self._n_final = 0  # final texts that are being made
        self._took: deque[float] = deque(maxlen=MEASURED)  # seconds of the last refreshes

    def join(self, wake: Wake) -> None:
        """Add a session; `wake` is called, on any thread, when it may be its turn.

        Raises
        ------
        CapacityError
            With it, no session would be refreshed often enough.
        """
        with self._lock:
            needed = self._needed(len(self._sessions) + 1)
            if needed > LONGEST_INTERVAL:
                raise CapacityError(
                    f"there are {len(self._sessions)} live sessions, and a refresh takes {self._cost():.2f} s: with "
                    f"one more, captions would be {needed:.1f} s late; close a session, or use a smaller model"
                )
            self._sessions.append(wake)

    def leave(self, wake: Wake) -> None:
        """Remove a session."""
        with self._lock:
            self._sessions = [other for other in self._sessions if other != wake]
            self._waiting = [other for other in self._waiting if other != wake]
        self._wake_next()

    def interval(self, shortest: float) -> float:
        """Return the seconds from one refresh of a session to its next."""
        with self._lock:
            return max(shortest, self._needed(len(self._sessions)))

    def take_turn(self, wake: Wake) -> bool:
        """Whether a session may refresh now; else it is woken when it may. Ended by `end_turn`."""
        with self._lock:
            if wake not in self._waiting:
                self._waiting.append(wake)
            if wake not in self._in_turn():
                return False
            self._waiting.remove(wake)
            self._running[wake] = self.clock()
            return True

    def end_turn(self, wake: Wake, *, is_whole: bool) -> None:
        """End a turn; what it took counts if it was not interrupted."""
        with self._lock:
            took = self.clock() - self._running.pop(wake)
            if is_whole:
                self._took.append(took)
        self._wake_next()

    @contextlib.contextmanager
    def final_text(self) -> Iterator[None]:
        """While a final text is made, no refresh begins: somebody waits for it, and it is the last word."""
        with self._lock:
            self._n_final += 1
        try:
            yield
        finally:
            with self._lock:
                self._n_final -= 1
            self._wake_next()

    def give_up_turn(self, wake: Wake) -> None:
        """Wait no longer: there is nothing to refresh any more."""
        with self._lock:
            was_first = wake in self._in_turn()
            self._waiting = [other for other in self._waiting if other != wake]
        if was_first:
            self._wake_next()

    def _in_turn(self) -> list[Wake]:
        """Return those of the waiting who may refresh now."""
        n_free = 0 if self._n_final else self._n_at_once - len(self._running)
        return self._waiting[: max(n_free, 0)]

    def _needed(self, n_sessions: int) -> float:
        return n_sessions * self._cost() / (LOAD * self._n_at_once)

    def _cost(self) -> float:
        """Return the seconds of one refresh; 0 before any was measured."""
        return median(self._took) if self._took else 0.0

    def _wake_next(self) -> None:
        with self._lock:
            woken = self._in_turn()
        for wake in woken:
            wake()


_PACES: WeakKeyDictionary[Whisper, Pace] = WeakKeyDictionary()
_PACES_LOCK = processes.lock()


def pace_of(model: Whisper) -> Pace:
    """Return the pace that all sessions of a model share."""
    with _PACES_LOCK:
        return _PACES.setdefault(model, Pace(AT_ONCE.get(model.device.type, 1)))
