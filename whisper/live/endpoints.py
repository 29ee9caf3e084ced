"""Where speech begins and ends in sound that is still arriving: a probability for each 32 ms, and what follows of them.

Silero VAD with its state carried on, or loudness where it is not installed. Each step is computed by itself, so that
nothing depends on the pieces in which the sound comes. Knows no items, and keeps no sound.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import Any

import numpy as np

from ..errors import ModelNotFoundError
from ..spans import SAMPLE_RATE
from ..speech import silero
from ..speech.vad import (
    FLOOR_PERCENTILE,
    MAX_RISE_DB,
    MIN_RANGE_DB,
    PAUSE_PROB,
    PAUSE_STEPS,
    PEAK_DB,
    RISE,
    SILENCE_DB,
    SLOPE_DB,
    STEP,
)

Samples = np.ndarray[Any, np.dtype[np.float32]]

STEP_SECONDS = STEP / SAMPLE_RATE
LOUDEST_DB = (-35.0, 0.0)  # limits of the loudness to which the amplification is fitted: at most 30 dB are added
FIRST_LOUDEST_DB = -20.0  # what is expected before anything was heard
FALL_DB = 0.032  # by which the loudest place is forgotten in each step: 1 dB a second
MEMORY = 312  # steps, 10 s: of loudness, where that decides
ONSET = 2  # steps in a row that begin speech: a click is none
HYSTERESIS = 0.15  # speech goes on down to this much below the threshold


class SpeechProbabilities:
    """The speech probability of each step of `STEP` samples, as they come."""

    def __init__(self, network: silero.Network | None = None) -> None:
        self._detector = None if network is None else silero.Detector(network)
        self._loudest = FIRST_LOUDEST_DB
        self._n_quiet = 0
        self._levels: deque[float] = deque(maxlen=MEMORY)

    @classmethod
    def best(cls) -> SpeechProbabilities:
        """Return those of Silero VAD, or of loudness where it is not installed."""
        try:
            return cls(silero.load())
        except ModelNotFoundError:
            return cls()

    def next(self, step: Samples) -> float:
        """Return the probability of the next step, float32 ``(STEP,)``."""
        power = float(step.var(dtype=np.float64))
        level = max(10.0 * np.log10(power), SILENCE_DB) if power > 0 else SILENCE_DB
        return self._by_loudness(level) if self._detector is None else self._by_network(step, level)

    def _by_network(self, step: Samples, level: float) -> float:
        """As offline, the sound is amplified, and the state forgotten after a pause; but only the past decides."""
        assert self._detector is not None
        low, high = LOUDEST_DB
        self._loudest = min(max(level, self._loudest - FALL_DB, low), high)
        gain = np.float32(10.0 ** ((PEAK_DB - self._loudest) / 20.0))
        probability = float(self._detector.speech_probs(step * gain)[0])
        self._n_quiet = self._n_quiet + 1 if probability < PAUSE_PROB else 0
        if self._n_quiet == PAUSE_STEPS:
            self._detector.reset()
            self._n_quiet = 0
        return probability

    def _by_loudness(self, level: float) -> float:
        self._levels.append(level)
        floor, top = float(np.percentile(self._levels, FLOOR_PERCENTILE)), max(self._levels)
        if level <= SILENCE_DB or top - floor < MIN_RANGE_DB:
            return 0.0
        limit = floor + min(RISE * (top - floor), MAX_RISE_DB)
        odds = float(np.exp(min((level - limit) / SLOPE_DB, 50.0)))
        return odds / (1.0 + odds)


class Change(enum.Enum):
    """What a step changes."""

    STARTED = 1
    STOPPED = 2


class Endpointer:
    """Where speech starts and stops, by the probability of each step.

    Parameters
    ----------
    threshold
        Speech starts at this probability.
    silence_s
        Seconds below it after which speech has stopped.
    is_speech
        Whether it is going on already.

    Attributes
    ----------
    is_speech
        Whether it is going on.
    n_silent
        Steps since the last one that surely was speech.
    """

    def __init__(self, threshold: float, silence_s: float, is_speech: bool = False) -> None:
        self._threshold, self._low = threshold, max(threshold - HYSTERESIS, 0.01)
        self._most_silent = max(1, round(silence_s / STEP_SECONDS))
        self.is_speech, self.n_silent, self._n_onset = is_speech, 0, 0

    def take(self, probability: float) -> Change | None:
        """Take in the next step."""
        self._n_onset = self._n_onset + 1 if probability >= self._threshold else 0
        if not self.is_speech:
            self.is_speech = self._n_onset >= ONSET
            self.n_silent = 0
            return Change.STARTED if self.is_speech else None
        # a probability between the two thresholds neither counts as silence nor begins speech anew
        if probability >= self._threshold:
            self.n_silent = 0
        elif probability < self._low or self.n_silent:
            self.n_silent += 1
        if self.n_silent < self._most_silent:
            return None
        self.is_speech, self._n_onset = False, 0
        return Change.STOPPED
