"""The shape of a transcript: plain dictionaries, fit for ``json.dumps``, with these keys and no others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict


class _WordWithoutConfidence(TypedDict):
    word: str  # with the space before it, as spoken in the text
    start: float  # seconds, rounded to 0.01
    end: float
    probability: float  # mean over its tokens


class Word(_WordWithoutConfidence, total=False):
    """One word with its place in the recording."""

    confidence: float  # that it is right; only with word_confidence=True
    speaker: str  # who says it, where that is known; only of some sources where it is the segment's
    overlap: bool  # True where another speaks at the same time; only with speakers


class _SegmentWithoutWords(TypedDict):
    id: int  # counts from 0
    seek: int  # where its window began, in frames of 10 ms
    start: float  # seconds
    end: float
    text: str
    tokens: list[int]
    temperature: float  # at which the window was decoded
    avg_logprob: float  # of the whole window, as the next two
    compression_ratio: float
    no_speech_prob: float


class Segment(_SegmentWithoutWords, total=False):
    """A stretch of text between two timestamps."""

    words: list[Word]  # only where word times were asked for
    token_logprobs: list[float]  # only with token_logprobs=True; natural logarithm, one for each token
    language: str  # only with multilingual=True
    channel: int  # only with channels="separate"; counts from 0
    speaker: str  # who says it; only where that is known
    overlap: bool  # True where another speaks at the same time as one of its words; only with speakers


class SpeakerTurn(TypedDict):
    """A stretch of time in which one speaker speaks, with or without words."""

    start: float  # seconds
    end: float
    speaker: str


class _TranscriptWithoutSpeakers(TypedDict):
    text: str
    segments: list[Segment]
    language: str


class Transcript(_TranscriptWithoutSpeakers, total=False):
    """What `transcribe` returns."""

    speakers: list[str]  # only with speakers; in the order in which they are first heard
    turns: list[SpeakerTurn]  # only with speakers; those of different speakers may overlap


def in_its_language(result: Mapping[str, Any], is_translation: bool) -> dict[str, Any]:
    """Return a result with the language of its text, by which lines are laid out: a translation is English."""
    return {**result, "language": "en"} if is_translation else dict(result)
