"""What a request may ask for while it runs, and how it runs where there is no engine.

A request is a generator (`Steps`): it yields what it needs (a *job*) and is sent the answer, so that whatever it does
in between is ordinary code, written once, and several requests can be interleaved. Schedules nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..device import processes
from ..device.torch_state import clean_state
from ..results import Segment
from ..runtime.interface import Audio
from ..sampling.window_sampling import WindowSampling
from .scheduler import Group


@dataclass(frozen=True, eq=False)
class Encode:
    """A full window, ``(n_mels, 3000)``, to be listened to; the answer is an `Audio`."""

    mel: Tensor


@dataclass(frozen=True, eq=False)
class Detect:
    """The probability of each language token after `sot`; the answer is a list of them."""

    audio: Audio
    sot: int
    languages: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Pause:
    """Nothing: a good moment for others to work."""


@dataclass(frozen=True, eq=False)
class Deliver:
    """Segments that are ready for whoever asked for the request."""

    segments: list[Segment]
    n_frames: int = 0  # how much of the recording is done with them
    lines: tuple[str, ...] = ()  # the same for people


@dataclass(frozen=True, eq=False)
class Spawn:
    """A part of the request that may run beside its other parts; the answer stands for it in `Next`.

    A request that has parts only waits for them and asks nothing of the network any more.
    """

    steps: Steps
    n_rows: int
    group: Group


@dataclass(frozen=True, eq=False)
class Next:
    """What a part delivers next; the answer is a `Deliver`, or None when it has ended. Its error is raised here."""

    part: Any


Job = Encode | Detect | Pause | WindowSampling | Deliver | Spawn | Next  # a sampling comes back done
Steps = Generator[Job, Any, Any]  # returns the result


class Direct:
    """A request that asks nothing of the network, and runs at once where its result is waited for."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._deliveries = self._run()
        self._value: Any = None
        self._error: BaseException | None = None

    def result(self) -> Any:
        """Run to the end and return what came out; raises what ended it."""
        for _ in self._deliveries:
            pass
        if self._error is not None:
            raise self._error
        return self._value

    def cancel(self) -> None:
        """End it."""
        self._deliveries.close()
        self._steps.close()

    def __iter__(self) -> Iterator[Segment]:
        """Run from segment to segment; closing the iterator ends it."""
        try:
            for news in self._deliveries:
                yield from news.segments
        finally:
            self.cancel()

    def _run(self) -> Generator[Deliver, None, None]:
        """Run from one delivery to the next."""
        answer: Any = None
        try:
            while True:
                with processes.piece(), clean_state():
                    job = self._steps.send(answer)
                answer = None
                if isinstance(job, Deliver):
                    yield job
                elif isinstance(job, Spawn):
                    answer = Direct(job.steps)
                elif isinstance(job, Next):
                    answer = next(job.part._deliveries, None)
                elif not isinstance(job, Pause):
                    raise TypeError(f"without an engine nobody can answer {job!r}")
        except StopIteration as end:
            self._value = end.value
        except BaseException as error:  # also Ctrl-C: the request is over, and gives back what it has
            self._error = error
            self._steps.close()
            raise


def pausing(steps: Generator[float, None, Any], look: Callable[[], None] | None = None) -> Generator[Job, Any, Any]:
    """Run through steps that need no network, with others at work in between; returns what they return.

    `look` is called after each, and may raise.
    """
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value
        if look is not None:
            look()
        yield Pause()
