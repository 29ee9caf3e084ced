"""A live session that hears no words but counts sound: what the server's websockets are tested with, at no cost."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from whisper.errors import ItemError
from whisper.live import (
    Committed,
    Event,
    Failed,
    Final,
    Interim,
    LiveOptions,
    SpeechStarted,
    SpeechStopped,
    Stable,
)

RATE = 16000


class FakeSession:
    """Says "word" for each piece of sound that is not silent; silence ends an item where turns are detected.

    Has the interface of `whisper.live.LiveSession`, and its threads: events come on one of its own.
    """

    made: list[FakeSession] = []  # noqa: RUF012  the tests look at the last one
    failure: Exception | None = None  # of every item
    backlog = 0.0

    def __init__(self, model: Any, options: LiveOptions, on_event: Callable[[Event], None], *, key: str = "") -> None:
        self.model, self.options, self.key = model, options, key
        self.samples: list[Any] = []
        self.closed: list[bool] = []
        self._on_event = on_event
        self._orders: queue.Queue[Any] = queue.Queue()
        self._has_sound = False
        self._item, self._at, self._start, self._words = 0, 0, 0, 0
        self._is_open = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        FakeSession.made.append(self)

    def append(self, samples: Any) -> None:
        assert samples.dtype == np.float32
        assert samples.ndim == 1
        self._has_sound = self._has_sound or len(samples) > 0
        self.samples.append(samples)
        self._orders.put(samples)

    def commit(self) -> None:
        if not self._has_sound:
            raise ItemError("the buffer is empty")
        self._has_sound = False
        self._orders.put("commit")

    def clear(self) -> None:
        self._has_sound = False
        self._orders.put("clear")

    def update(self, options: LiveOptions) -> None:
        self.options = options

    def close(self, *, finish: bool = True) -> None:
        self.closed.append(finish)
        self._orders.put("finish" if finish else "close")
        self._thread.join(10)

    def _run(self) -> None:
        while True:
            order = self._orders.get()
            if not isinstance(order, str):
                self._hear(order)
            elif order == "clear":
                self._is_open, self._words = False, 0
            elif order == "close":
                return
            elif self._is_open:
                self._end()
            if isinstance(order, str) and order == "finish":
                return

    def _hear(self, samples: Any) -> None:
        start, self._at = self._at, self._at + len(samples)
        detects = self.options.turn_detection == "vad"
        if np.count_nonzero(samples) > len(samples) / 2:  # a resampler moves the edge between sound and silence
            if not self._is_open:
                self._is_open, self._start = True, start
                if detects:
                    self._on_event(SpeechStarted(self._item, start / RATE))
            self._words += 1
            if self.options.interim:
                self._on_event(Interim(self._item, " wor"))
            self._on_event(Stable(self._item, " word"))
        elif self._is_open and detects:
            self._on_event(SpeechStopped(self._item, start / RATE))
            self._end()

    def _end(self) -> None:
        start, end = self._start / RATE, self._at / RATE
        self._on_event(Committed(self._item, start, end))
        if self.failure is not None:
            self._on_event(Failed(self._item, self.failure))
        else:
            self._on_event(Final(self._item, start, end, self._result(end - start)))
        self._item, self._is_open, self._words = self._item + 1, False, 0

    def _result(self, seconds: float) -> Any:
        text = " word" * self._words
        segment: dict[str, Any] = {
            "id": 0, "seek": 0, "start": 0.0, "end": seconds, "text": text, "tokens": [1349], "temperature": 0.0,
            "avg_logprob": -0.1, "compression_ratio": 1.0, "no_speech_prob": 0.0,
        }  # fmt: skip
        if self.options.token_logprobs:
            segment["token_logprobs"] = [-0.25]
        if self.options.word_timestamps:
            segment["words"] = [{"word": " word", "start": 0.1, "end": 0.2, "probability": 0.5}]
        return {"text": text, "language": self.options.language or "en", "segments": [segment]}
