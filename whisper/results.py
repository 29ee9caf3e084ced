"""The shape of a transcript: plain dictionaries, fit for ``json.dumps``, with these keys and no others."""

from __future__ import annotations

from typing import TypedDict


class _WordWithoutConfidence(TypedDict):
    word: str  # with the space before it, as spoken in the text
    start: float  # seconds, rounded to 0.01
    end: float
    probability: float  # mean over its tokens


class Word(_WordWithoutConfidence, total=False):
    """One word with its place in the recording."""

    confidence: float  # that it is right; only with word_confidence=True


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


class Transcript(TypedDict):
    """What `transcribe` returns."""

    text: str
    segments: list[Segment]
    language: str
