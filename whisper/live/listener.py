"""The sound of a session cut into items: where each begins, and when it is complete. Knows no model and no thread.

Only the sound of the open item is kept, or what may be the padding of the next one.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..spans import SAMPLE_RATE
from ..speech.vad import STEP
from .endpoints import ONSET, STEP_SECONDS, Change, Endpointer, SpeechProbabilities
from .events import SpeechStarted
from .options import VAD, LiveOptions

Samples = np.ndarray[Any, np.dtype[np.float32]]

QUIET_STEPS = 5  # whose mean probability decides where a long item is cut
LAST_PART = 0.2  # of a long item, in which it is cut
NOTHING: Samples = np.zeros(0, np.float32)


@dataclass(frozen=True, eq=False)
class EndedItem:
    """An item that is complete.

    Attributes
    ----------
    number
        From 0.
    start
        Of its sound, in samples of the session.
    samples
        Its sound.
    options
        Those that it began with.
    speech_end
        Where its speech ended, in seconds; None where it was still going on, or none was looked for.
    has_speech
        Whether it was opened by speech, or by a program that does not look for any.
    """

    number: int
    start: int
    samples: Samples
    options: LiveOptions
    speech_end: float | None = None
    has_speech: bool = True

    @property
    def end(self) -> int:
        """Where its sound ends, in samples of the session."""
        return self.start + len(self.samples)


class Listener:
    """Takes in sound, and says where items begin and end.

    Attributes
    ----------
    item
        The number of the open item; None between two.
    n_heard
        Samples of the session that were looked at.
    last_speech
        Where the last step ended that may have been speech, in samples of the session.
    """

    def __init__(self, options: LiveOptions, probabilities: SpeechProbabilities | None = None) -> None:
        self._probabilities = probabilities or SpeechProbabilities.best()
        self.item: int | None = None
        self.n_heard = self.last_speech = 0
        self._n_items = 0
        self._arrived: deque[Samples] = deque()  # not looked at yet
        self._steps: deque[Samples] = deque()  # kept
        self._speech: deque[float] = deque()  # the probability of each
        self._changes: deque[SpeechStarted | EndedItem] = deque()
        self._next_options: LiveOptions | None = None
        self._use(options)

    def _use(self, options: LiveOptions, *, is_speech: bool = False) -> None:
        self.options, self._next_options = options, None
        self._endpointer = Endpointer(options.threshold, options.silence_s, is_speech=is_speech)
        self._detects = options.turn_detection == VAD
        self._n_padding = round(options.prefix_padding_s / STEP_SECONDS) + ONSET
        self._n_longest = int(options.max_item_s / STEP_SECONDS)

    def update(self, options: LiveOptions) -> None:
        """Use other options, from the next item on."""
        self._next_options = options
        if self.item is None:
            self._use(options)

    def feed(self, samples: Samples) -> None:
        """Take in sound, which `advance` looks at."""
        self._arrived.append(samples)

    def advance(self) -> SpeechStarted | EndedItem | None:
        """Look at what has come, up to the next change; None where there is no other."""
        while not self._changes and (step := self._next_step()) is not None:
            self._take(step)
        return self._changes.popleft() if self._changes else None

    def commit(self) -> EndedItem | None:
        """End the open item here, with all sound that has come; None where nothing has.

        Where speech is looked for and none was found, the item is what would be the padding of the next one.
        """
        rest = self._rest()
        if len(rest):
            self._keep(rest, 0.0)
        has_speech = self.item is not None
        if not self._steps:
            return None
        self._open()
        return self._end(len(self._steps), has_speech=has_speech or not self._detects)

    def clear(self) -> None:
        """Forget the open item, and all sound that has come."""
        self.n_heard += len(self._rest())
        self._steps.clear()
        self._speech.clear()
        self.item = None
        self._use(self._next_options or self.options)

    @property
    def start(self) -> int:
        """Where the kept sound begins, in samples of the session."""
        return self.n_heard - sum(map(len, self._steps))

    @property
    def samples(self) -> Samples:
        """Return the sound of the open item so far."""
        return np.concatenate([NOTHING, *self._steps])

    def _next_step(self) -> Samples | None:
        n, taken = 0, []
        for piece in self._arrived:
            n += len(piece)
            if n >= STEP:
                break
        else:
            return None
        n = 0
        while n < STEP:
            piece = self._arrived.popleft()
            if n + len(piece) > STEP:
                self._arrived.appendleft(piece[STEP - n :])
                piece = piece[: STEP - n]
            taken.append(piece)
            n += len(piece)
        return np.concatenate(taken)

    def _rest(self) -> Samples:
        """Take out what is less than a step."""
        rest = np.concatenate([NOTHING, *self._arrived])
        self._arrived.clear()
        return rest

    def _take(self, step: Samples) -> None:
        probability = self._probabilities.next(step)
        self._keep(step, probability)
        change = self._endpointer.take(probability)
        if probability >= self.options.threshold:
            self.last_speech = self.n_heard
        if self.item is None:
            self._between(change)
        elif change is Change.STOPPED and self._detects:
            self._changes.append(self._end(len(self._steps), self.last_speech / SAMPLE_RATE))
        elif len(self._steps) >= self._n_longest:
            self._cut()

    def _keep(self, step: Samples, probability: float) -> None:
        self._steps.append(step)
        self._speech.append(probability)
        self.n_heard += len(step)

    def _between(self, change: Change | None) -> None:
        """Open an item, or keep no more than the padding of one that may begin here."""
        if not self._detects:
            self._open()
            return
        while len(self._steps) > self._n_padding:
            self._steps.popleft()
            self._speech.popleft()
        if change is Change.STARTED:
            self._open()
            self._changes.append(SpeechStarted(self._n_items - 1, self.start / SAMPLE_RATE))

    def _open(self) -> None:
        if self.item is None:
            self.item, self._n_items = self._n_items, self._n_items + 1

    def _end(self, n_steps: int, speech_end: float | None = None, has_speech: bool = True) -> EndedItem:
        """End the open item after some of the steps; the others belong to the next one."""
        assert self.item is not None
        start = self.start
        sound = [self._steps.popleft() for _ in range(n_steps)]
        for _ in range(n_steps):
            self._speech.popleft()
        ended = EndedItem(self.item, start, np.concatenate(sound), self.options, speech_end, has_speech)
        self.item = None
        if self._next_options is not None or not self._steps:
            self._use(self._next_options or self.options, is_speech=bool(self._steps))
        return ended

    def _cut(self) -> None:
        """End a long item where it is quietest in its last part; what follows is the next one."""
        first = int(len(self._steps) * (1 - LAST_PART))
        last = np.array(list(self._speech)[first:], np.float64)
        smooth = np.convolve(last, np.full(QUIET_STEPS, 1 / QUIET_STEPS), "valid")
        n_steps = first + int(smooth.argmin()) + QUIET_STEPS // 2 + 1
        ended = self._end(n_steps)
        self._changes.append(ended)
        self._open()
        if self._detects:
            self._changes.append(SpeechStarted(self._n_items - 1, self.start / SAMPLE_RATE))
