"""What a decoded window means: try again hotter, silence, or segments and the place to go on from.

Pure functions on numbers, tokens and segment dictionaries; no sound, no tensors, no model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Protocol

from .audio import FRAMES_PER_SECOND, HOP_LENGTH, SAMPLE_RATE
from .options import APPEND_PUNCTUATIONS, PREPEND_PUNCTUATIONS, TranscribeOptions
from .results import Segment, Word
from .utils import get_end
from .windows import Window

MOST_LETTERS_PER_SECOND = 30.0  # that anybody says, so that shorter texts ask for no more time


class Scores(Protocol):
    """The part of a `DecodingResult` by which it is judged."""

    @property
    def avg_logprob(self) -> float: ...
    @property
    def compression_ratio(self) -> float: ...
    @property
    def no_speech_prob(self) -> float: ...


def needs_fallback(result: Scores, options: TranscribeOptions) -> bool:
    """Whether the window should be decoded again at the next temperature."""
    o = options
    improbable = is_improbable(result, options)
    if improbable and o.no_speech_threshold is not None and result.no_speech_prob > o.no_speech_threshold:
        return False  # silence: no temperature makes words of it
    repetitive = o.compression_ratio_threshold is not None and result.compression_ratio > o.compression_ratio_threshold
    return repetitive or improbable


def is_improbable(result: Scores, options: TranscribeOptions) -> bool:
    """Whether the text is less probable than `logprob_threshold` allows."""
    return options.logprob_threshold is not None and result.avg_logprob < options.logprob_threshold


def is_silence(result: Scores, options: TranscribeOptions) -> bool:
    """Whether nobody speaks in the window: the model says so, and is not sure of its text either."""
    o = options
    if o.no_speech_threshold is None or not result.no_speech_prob > o.no_speech_threshold:
        return False
    return o.logprob_threshold is None or not result.avg_logprob > o.logprob_threshold


@dataclass(frozen=True)
class Piece:
    """Tokens between two timestamps; times in seconds of the recording."""

    start: float
    end: float
    tokens: list[int]


@dataclass(frozen=True)
class Cut:
    """A window's tokens cut into pieces."""

    pieces: list[Piece]
    seek: int  # frame at which the next window begins
    ends_in_silence: bool  # the text closed with one timestamp: nobody speaks from there to the window's end


def cut_tokens(tokens: Sequence[int], window: Window, timestamp_begin: int, stride: int) -> Cut:
    """Cut a window's tokens at its timestamps.

    Parameters
    ----------
    tokens
        Sampled tokens, without the end.
    window
        Where they were said.
    timestamp_begin
        The id of ``<|0.00|>``.
    stride
        Frames per timestamp step (2: 20 ms).
    """
    step = stride * HOP_LENGTH / SAMPLE_RATE  # seconds
    is_timestamp = [token >= timestamp_begin for token in tokens]
    ends_in_silence = is_timestamp[-2:] == [False, True]
    # between two timestamps in a row one piece ends and the next begins
    cuts = [i for i in range(1, len(tokens)) if is_timestamp[i - 1] and is_timestamp[i]]
    if not cuts:
        duration = window.duration
        last = next((t for t in reversed(tokens) if t >= timestamp_begin), timestamp_begin)
        if last != timestamp_begin:
            duration = (last - timestamp_begin) * step
        piece = Piece(window.start, window.start + duration, list(tokens))
        return Cut([piece], window.seek + window.size, ends_in_silence)

    if ends_in_silence:
        cuts.append(len(tokens))
    pieces = [
        Piece(
            window.start + (tokens[begin] - timestamp_begin) * step,
            window.start + (tokens[end - 1] - timestamp_begin) * step,
            list(tokens[begin:end]),
        )
        for begin, end in zip([0, *cuts], cuts, strict=False)
    ]
    if ends_in_silence:
        return Cut(pieces, window.seek + window.size, True)
    # the last piece is unfinished: hear it again in the next window
    return Cut(pieces, window.seek + (tokens[cuts[-1] - 1] - timestamp_begin) * stride, False)


def make_segments(
    cut: Cut, window: Window, result: Scores, temperature: float, eot: int, decode: Callable[[list[int]], str]
) -> list[Segment]:
    """Make segments of the pieces, still numbered from 0; `decode` turns text tokens into text."""
    return [
        {
            "id": i,
            "seek": window.seek,
            "start": piece.start,
            "end": piece.end,
            "text": decode([token for token in piece.tokens if token < eot]),
            "tokens": piece.tokens,
            "temperature": temperature,
            "avg_logprob": result.avg_logprob,
            "compression_ratio": result.compression_ratio,
            "no_speech_prob": result.no_speech_prob,
        }
        for i, piece in enumerate(cut.pieces)
    ]


def keep_within(segments: Sequence[Segment], begin: float, end: float) -> None:
    """Move the times of a window's segments into the window, in place; none of them turns round or loses its length.

    Timestamps count up to 30 s, also where less was heard. The first segment that would end too late, and those after
    it, share what is left of the window by the letters of their texts; where nobody could say them in that time, they
    begin earlier, and if need be take a share of the segments before them.

    Parameters
    ----------
    segments
        In order.
    begin, end
        The window, seconds of the recording.
    """
    for segment in segments:
        segment["start"] = max(segment["start"], begin)
        segment["end"] = max(segment["end"], segment["start"])
    first = next((i for i, segment in enumerate(segments) if segment["end"] > end), None)
    if first is None:
        return
    letters = [max(len(segment["text"].strip()), 1) for segment in segments]
    start = min(segments[first]["start"], end)
    while start > (latest := end - sum(letters[first:]) / MOST_LETTERS_PER_SECOND):
        earliest = segments[first - 1]["end"] if first else begin
        if latest >= earliest or not first:
            start = max(latest, earliest)
            break
        first -= 1
        start = segments[first]["start"]
    shares = [0, *accumulate(letters[first:])]
    edges = [start + (end - start) * share / shares[-1] for share in shares[:-1]] + [end]
    for segment, (segment_start, segment_end) in zip(segments[first:], pairwise(edges), strict=True):
        segment["start"], segment["end"] = segment_start, segment_end


def keep_words_within(segments: Sequence[Segment], begin: float, end: float) -> None:
    """Cut the words of segments, and segments by them, down to the sound from `begin` to `end` (seconds), in place."""
    for segment in segments:
        for part in (segment, *segment.get("words", ())):
            part["start"] = min(max(part["start"], begin), end)
            part["end"] = min(max(part["end"], part["start"]), end)


def clear_empty(segments: Sequence[Segment]) -> None:
    """Take the tokens out of segments that last no time or say nothing, so that they prompt nothing."""
    for segment in segments:
        if segment["start"] == segment["end"] or not segment["text"].strip():
            segment["text"] = ""
            segment["tokens"] = []
            segment["words"] = []


# ---------------------------------------------------------------------------------------------------------
# With word times: where to go on, and what was probably invented
# ---------------------------------------------------------------------------------------------------------


def seek_after_words(cut: Cut, segments: Sequence[Segment], window: Window) -> int:
    """Return the frame to go on from: behind the last word, which is surer than the last timestamp."""
    last_end = get_end(segments)
    if cut.ends_in_silence or last_end is None or last_end <= window.start:
        return cut.seek
    return round(last_end * FRAMES_PER_SECOND)


def word_anomaly(word: Word) -> float:
    """Return how odd a word is: improbable, very short or very long."""
    duration = word["end"] - word["start"]
    odd = 1.0 if word["probability"] < 0.15 else 0.0
    odd += max(0.0, 0.133 - duration) * 15
    odd += max(0.0, duration - 2.0)
    return odd


def looks_invented(segment: Segment | None) -> bool:
    """Whether the first eight words of a segment are odd as a whole."""
    if segment is None or not segment["words"]:
        return False
    marks = PREPEND_PUNCTUATIONS + APPEND_PUNCTUATIONS
    words = [word for word in segment["words"] if word["word"] not in marks][:8]
    score = sum(word_anomaly(word) for word in words)
    return score >= 3 or score + 0.01 >= len(words)


@dataclass(frozen=True)
class Kept:
    """What remains of a window after the hunt for invented words."""

    segments: list[Segment]
    seek: int
    again: bool = False  # nothing is kept: the sound behind a leading silence is decoded again


def drop_invented(
    segments: list[Segment],
    cut: Cut,
    window: Window,
    content_frames: int,
    threshold: float,
    last_speech: float,
) -> Kept:
    """Skip silences around words that look invented.

    Parameters
    ----------
    segments
        With words; not changed.
    cut, window
        Where they come from.
    content_frames
        Length of the recording.
    threshold
        Seconds of silence that make odd words suspicious.
    last_speech
        Where the last word before this window ended, seconds.
    """
    seek = _seek_unless_silence_remains(segments, cut, window, threshold)
    first = _next_with_words(segments)
    if first is not None and looks_invented(first):
        gap = first["start"] - window.start
        if gap > threshold:
            return Kept([], window.seek + round(gap * FRAMES_PER_SECOND), again=True)

    previous_end = last_speech
    for i, segment in enumerate(segments):
        if not segment["words"]:
            continue
        if looks_invented(segment):
            following = _next_with_words(segments[i + 1 :])
            if _stands_alone(segment, following, window, threshold, previous_end):
                seek = round(max(window.start + 1, segment["start"]) * FRAMES_PER_SECOND)
                if content_frames * HOP_LENGTH / SAMPLE_RATE - segment["end"] < threshold:
                    seek = content_frames
                return Kept(segments[:i], seek)
        previous_end = segment["end"]
    return Kept(segments, seek)


def _seek_unless_silence_remains(segments: Sequence[Segment], cut: Cut, window: Window, threshold: float) -> int:
    """Behind the last word only where a long enough silence follows it; else behind the window."""
    last_end = get_end(segments)
    if cut.ends_in_silence or last_end is None or last_end <= window.start:
        return cut.seek
    if window.full_end - last_end > threshold:
        return round(last_end * FRAMES_PER_SECOND)
    return window.seek + window.size


def _next_with_words(segments: Sequence[Segment]) -> Segment | None:
    return next((segment for segment in segments if segment["words"]), None)


def _stands_alone(
    segment: Segment, following: Segment | None, window: Window, threshold: float, previous_end: float
) -> bool:
    """Whether silence, or more inventions, or the window's edges lie on both sides of a segment."""
    next_start = following["words"][0]["start"] if following else window.start + window.duration
    silence_before = (
        segment["start"] - previous_end > threshold
        or segment["start"] < threshold
        or segment["start"] - window.start < 2.0
    )
    silence_after = (
        next_start - segment["end"] > threshold or looks_invented(following) or window.full_end - segment["end"] < 2.0
    )
    return silence_before and silence_after
