"""What a request may await, and how a request runs without an engine.

A request is a coroutine. Between two awaits it is ordinary code; each await hands one of these operations to the
engine and is answered with its result, so that many requests share the device. Schedules nothing, runs no network.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..device import processes
from ..device.lazy_torch import Tensor
from ..device.torch_state import clean_state
from .scheduler import Group

if TYPE_CHECKING:
    from ..model import Whisper
    from ..results import Segment
    from ..runtime.interface import EncodedWindow
    from ..sampling.window_sampling import WindowSampling

T = TypeVar("T")


class Operation(Generic[T]):
    """Something that is awaited; `T` is what the await gives."""

    def __await__(self) -> Generator[Operation[T], T, T]:
        return (yield self)


RequestCoroutine = Coroutine[Operation[Any], Any, T]


@dataclass(frozen=True, eq=False)
class Encode(Operation["EncodedWindow"]):
    """Run the encoder on a window, and project it for the decoder's cross-attention."""

    mel: Tensor  # (n_mels, 3000), or fewer frames; see `Runner.encode`


@dataclass(frozen=True, eq=False)
class Project(Operation["EncodedWindow"]):
    """Project a window that was encoded before."""

    features: Tensor  # (n_audio_ctx, n_audio_state)


@dataclass(frozen=True, eq=False)
class DetectLanguage(Operation[list[float]]):
    """The probability of each language token after the start of the transcript."""

    window: EncodedWindow
    sot: int
    languages: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Sample(Operation["WindowSampling"]):
    """Decode a window to its end; the answer is the same `WindowSampling`, done."""

    sampling: WindowSampling


@dataclass(frozen=True, eq=False)
class Attend(Operation[tuple[Tensor, Tensor]]):
    """Run the decoder over a known text, and record where its alignment heads attend.

    The answer is what `Runner.attention_scores` returns, in memory of its own.
    """

    window: EncodedWindow
    tokens: tuple[int, ...]
    heads: tuple[tuple[int, int], ...]  # layer and head of each alignment head
    n_skipped: int  # the logits of items ``n_skipped`` to ``n_skipped + n_text`` are returned
    n_text: int


@dataclass(frozen=True, eq=False)
class Yield(Operation[None]):
    """Nothing: lets other requests run."""


@dataclass(frozen=True, eq=False)
class Deliver(Operation[None]):
    """Segments that are final, for the consumer of the request."""

    segments: list[Segment]
    n_frames: int = 0  # how much of the recording is done with them
    lines: tuple[str, ...] = ()  # the same, formatted for a terminal


@dataclass(frozen=True, eq=False)
class Spawn(Operation[Any]):
    """Start a part of the request that may run beside its other parts; the answer is for `NextDelivery`.

    From then on the request itself only waits for its parts: it gives its place in the batch to them.
    """

    coroutine: RequestCoroutine[Any]
    n_rows: int
    group: Group


@dataclass(frozen=True, eq=False)
class NextDelivery(Operation["Deliver | None"]):
    """What a part delivers next, or None when it has ended. An error of the part is raised here."""

    part: Any


def is_encoded(model: Whisper, mel: Tensor) -> bool:
    """Whether `mel` is not a spectrogram but audio features already, by its last two dimensions."""
    return tuple(mel.shape[-2:]) == (model.dims.n_audio_ctx, model.dims.n_audio_state)


def encode_operation(model: Whisper, mel: Tensor) -> Operation[EncodedWindow]:
    """Return what to await for a window: ``(n_mels, 3000)``, or audio features."""
    return Project(mel.float()) if is_encoded(model, mel[None]) else Encode(mel)


def is_window(model: Whisper, mel: Tensor) -> bool:
    """Whether a batch holds features or whole windows; of another, the encoder says what is wrong."""
    return is_encoded(model, mel) or tuple(mel.shape[1:]) == (model.dims.n_mels, 2 * model.dims.n_audio_ctx)


async def gather(coroutines: Iterable[RequestCoroutine[T]], n_rows: int, group: Group | None = None) -> list[T]:
    """Run coroutines side by side, each with `n_rows` rows, and give their results; what they deliver is dropped."""
    group = group or Group()
    parts = [await Spawn(coroutine, n_rows, group) for coroutine in coroutines]
    for part in parts:
        while await NextDelivery(part) is not None:
            pass
    return [part.value for part in parts]


async def cooperate(steps: Generator[Any, None, T], check: Callable[[], None] | None = None) -> T:
    """Run through a generator that needs no network, yielding to other requests in between; gives what it returns.

    `check` is called after each step, and may raise.
    """
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
        if check is not None:
            check()
        await Yield()


class InlineRequest:
    """A request that needs no engine (the reference model answers it), run where its result is waited for.

    The same interface as `engine.Handle`.
    """

    def __init__(self, coroutine: RequestCoroutine[Any]) -> None:
        self._coroutine = coroutine
        self._deliveries = self._run()
        self.value: Any = None
        self._error: BaseException | None = None

    def result(self) -> Any:
        """Run to the end and return the result; raises what ended it."""
        for _ in self._deliveries:
            pass
        if self._error is not None:
            raise self._error
        return self.value

    def cancel(self) -> None:
        """End it."""
        self._deliveries.close()
        self._coroutine.close()

    def __iter__(self) -> Iterator[Segment]:
        """Run from segment to segment; closing the iterator ends the request."""
        try:
            for delivery in self._deliveries:
                yield from delivery.segments
        finally:
            self.cancel()

    def _run(self) -> Generator[Deliver, None, None]:
        """Run from one delivery to the next."""
        answer: Any = None
        try:
            while True:
                with processes.piece(), clean_state():
                    operation = self._coroutine.send(answer)
                answer = None
                if isinstance(operation, Deliver):
                    yield operation
                elif isinstance(operation, Spawn):
                    answer = InlineRequest(operation.coroutine)
                elif isinstance(operation, NextDelivery):
                    answer = next(operation.part._deliveries, None)
                elif not isinstance(operation, Yield):
                    raise TypeError(f"without an engine there is nothing to answer {operation!r}")
        except StopIteration as end:
            self.value = end.value
        except BaseException as error:  # Ctrl-C too: the request is over and releases what it holds
            self._error = error
            self._coroutine.close()
            raise
