"""Doubles for live sessions: a detector that takes loud for speech, and a model that hears words at known times."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from whisper.live.endpoints import SpeechProbabilities
from whisper.live.listener import Listener
from whisper.live.options import LiveOptions
from whisper.live.refresh import HeardWord, Hypothesis

RATE = 16000
STEP = 512


class Loud(SpeechProbabilities):
    """Probability 0.9 where the sound is loud."""

    def next(self, step: np.ndarray[Any, Any]) -> float:
        return 0.9 if np.abs(step).max() > 0.1 else 0.05


def listener(**options: Any) -> Listener:
    return Listener(LiveOptions(**options), Loud())


def loud(seconds: float) -> np.ndarray[Any, Any]:
    """Speech, for `Loud`."""
    return np.full(round(seconds * RATE), 0.5, np.float32)


def silent(seconds: float) -> np.ndarray[Any, Any]:
    return np.zeros(round(seconds * RATE), np.float32)


def words(text: str, each: float = 0.5) -> tuple[HeardWord, ...]:
    """Words that take so many seconds each; a token is the sum of its letters."""
    parts = [" " + part for part in text.split()]
    return tuple(HeardWord(part, (sum(map(ord, part)),), (i + 1) * each) for i, part in enumerate(parts))


@dataclass
class FakeHear:
    """Hears as many of the words as fit into the sound, and notes how it was called."""

    text: str = "one two three four five six seven eight nine ten"
    calls: list[tuple[float, Sequence[int]]] = field(default_factory=list)
    error: Exception | None = None
    gate: threading.Event | None = None  # waited for, while `stop` is polled

    def __call__(
        self,
        samples: np.ndarray[Any, Any],
        options: LiveOptions,
        known: Sequence[int],
        language: str | None,
        stop: Callable[[], bool] | None,
    ) -> Hypothesis | None:
        from whisper.errors import CancelledError

        self.calls.append((len(samples) / RATE, known))
        if self.error is not None:
            raise self.error
        while self.gate is not None and not self.gate.wait(0.005):
            if stop is not None and stop():
                raise CancelledError("stopped")
        return Hypothesis(words(self.text)[: int(len(samples) / RATE / 0.5)], "en")
