"""Confidence of words: how likely a word is right, from its probability and those around it.

A word's ``probability`` is the model's own opinion of its tokens, given that all before them are right;
as a probability of being right it is off, and the words around it tell as much. Here a logistic model
of three features of the finished transcript makes a confidence of them. Its coefficients were fitted on
real speech with known text, for the models that are named here and as one for all others:
`benchmarks/confidence.py` fits and checks them. Pure functions on numbers and segment dictionaries:
knows no audio and no network, and changes no text.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..checkpoints.published import published_with

if TYPE_CHECKING:
    from ..model import ModelDimensions
    from ..results import Segment

FEATURES = ("word", "lowest", "segment")  # in the order of `features`
MIN_PROBABILITY, MAX_PROBABILITY = 0.001, 0.999  # beyond these, a probability tells no more


@dataclass(frozen=True)
class Calibration:
    """Coefficients of the logistic model.

    Attributes
    ----------
    intercept
        The log-odds of being right where all features are 0.
    weights
        What each of `FEATURES` adds.
    """

    intercept: float
    weights: tuple[float, ...]


CALIBRATIONS: Mapping[str, Calibration] = {
    "tiny.en": Calibration(-0.609, (0.612, 0.314, 0.456)),
    "base": Calibration(-0.174, (0.712, 0.104, 0.335)),
    "general": Calibration(-0.446, (0.641, 0.25, 0.409)),
}


def calibration_for(dims: ModelDimensions) -> Calibration:
    """Return the coefficients for a model, which is known by its dimensions."""
    return next((CALIBRATIONS[name] for name in published_with(dims) if name in CALIBRATIONS), CALIBRATIONS["general"])


def features(segment: Segment) -> list[tuple[float, float, float]]:
    """Return the features of each word of a segment, all of them log-odds of probabilities.

    They are the word's own, the lowest among it and its two neighbours, since words err together, and
    the mean of the segment.
    """
    logits = [_logit(word["probability"]) for word in segment.get("words", ())]
    mean = sum(logits) / max(len(logits), 1)
    return [(logit, min(logits[max(i - 1, 0) : i + 2]), mean) for i, logit in enumerate(logits)]


def word_confidences(segment: Segment, calibration: Calibration) -> list[float]:
    """Return how likely each word of a segment is right, from 0 to 1."""
    return [
        1 / (1 + math.exp(-calibration.intercept - sum(w * x for w, x in zip(calibration.weights, row, strict=True))))
        for row in features(segment)
    ]


def add_confidences(segments: Iterable[Segment], calibration: Calibration) -> None:
    """Give each word of segments its ``confidence``, in place."""
    for segment in segments:
        for word, confidence in zip(segment.get("words", ()), word_confidences(segment, calibration), strict=True):
            word["confidence"] = round(confidence, 3)


@dataclass(frozen=True)
class RatedWord:
    """A word of a transcript and how likely it is right."""

    word: str
    start: float  # seconds of the recording
    end: float
    confidence: float
    channel: int | None = None  # with channels="separate"


def rate_words(segments: Iterable[Segment], calibration: Calibration) -> list[RatedWord]:
    """Return all words of segments with their confidence, in order."""
    return [
        RatedWord(word["word"].strip(), word["start"], word["end"], round(confidence, 3))
        for segment in segments
        for word, confidence in zip(segment.get("words", ()), word_confidences(segment, calibration), strict=True)
    ]


def least_confident(words: Sequence[RatedWord], share: float) -> list[RatedWord]:
    """Return the given share of words, rounded up, whose confidence is the lowest, in their order."""
    ranked = sorted(range(len(words)), key=lambda i: words[i].confidence)
    return [words[i] for i in sorted(ranked[: math.ceil(share * len(words) - 1e-9)])]


def _logit(probability: float) -> float:
    p = min(max(probability, MIN_PROBABILITY), MAX_PROBABILITY)
    return math.log(p / (1 - p))
