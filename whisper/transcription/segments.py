"""What follows from a decoded window: temperature fallback, silence, or segments and the next seek.

Pure functions on numbers, tokens and segment dictionaries; no audio, no tensors, no model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Protocol

from ..errors import OptionError
from ..options.transcription import APPEND_PUNCTUATIONS, PREPEND_PUNCTUATIONS
from ..spans import FRAMES_PER_SECOND, HOP_LENGTH, SAMPLE_RATE
from ..speech.rates import MAX_LETTERS_PER_SECOND
from ..utils import get_end

if TYPE_CHECKING:
    from ..audit.report import Finding
    from ..options.transcription import TranscribeOptions
    from ..results import Segment, Word
    from .windows import Window


@dataclass(frozen=True)
class WindowResult:
    """What one attempt to transcribe a window gives; of several, the best is kept."""

    segments: list[Segment]
    seek: int  # first frame of the next window
    last_speech: float  # end of the last word so far, seconds
    temperature: float = 0.0
    retry: bool = False  # nothing is kept, and the audio from `seek` on is decoded again
    findings: tuple[Finding, ...] = ()  # of the audit


class Scores(Protocol):
    """The scores of a `DecodingResult` that are compared with thresholds."""

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
        return False  # silence; a higher temperature does not help
    return is_repetitive(result.compression_ratio, options) or improbable


def is_repetitive(compression_ratio: float, options: TranscribeOptions) -> bool:
    """Whether a text is more repetitive than `compression_ratio_threshold` allows."""
    most = options.compression_ratio_threshold
    return most is not None and compression_ratio > most


def is_improbable(result: Scores, options: TranscribeOptions) -> bool:
    """Whether the text is less probable than `logprob_threshold` allows."""
    return options.logprob_threshold is not None and result.avg_logprob < options.logprob_threshold


def is_silence(result: Scores, options: TranscribeOptions) -> bool:
    """Whether a window is silent: its no-speech probability is high and its text improbable."""
    o = options
    if o.no_speech_threshold is None or not result.no_speech_prob > o.no_speech_threshold:
        return False
    return o.logprob_threshold is None or not result.avg_logprob > o.logprob_threshold


@dataclass(frozen=True)
class TimedTokens:
    """Tokens between two timestamps; times in seconds of the recording."""

    start: float
    end: float
    tokens: list[int]


@dataclass(frozen=True)
class SplitWindow:
    """A window's tokens, split at their timestamps."""

    parts: list[TimedTokens]
    seek: int  # frame at which the next window begins
    single_timestamp_ending: bool  # no speech from the last timestamp to the window's end


def split_at_timestamps(tokens: Sequence[int], window: Window, timestamp_begin: int, stride: int) -> SplitWindow:
    """Split a window's tokens at their timestamps.

    Parameters
    ----------
    tokens
        Sampled tokens, without the end.
    window
        The window that they were sampled in.
    timestamp_begin
        The id of ``<|0.00|>``.
    stride
        Frames per timestamp step (2: 20 ms).
    """
    step = stride * HOP_LENGTH / SAMPLE_RATE  # seconds
    is_timestamp = [token >= timestamp_begin for token in tokens]
    single_timestamp_ending = is_timestamp[-2:] == [False, True]
    # two consecutive timestamps end one part and begin the next
    cuts = [i for i in range(1, len(tokens)) if is_timestamp[i - 1] and is_timestamp[i]]
    if not cuts:
        duration = window.duration
        last = next((t for t in reversed(tokens) if t >= timestamp_begin), timestamp_begin)
        if last != timestamp_begin:
            duration = (last - timestamp_begin) * step
        part = TimedTokens(window.start, window.start + duration, list(tokens))
        return SplitWindow([part], window.seek + window.size, single_timestamp_ending)

    if single_timestamp_ending:
        cuts.append(len(tokens))
    parts = [
        TimedTokens(
            window.start + (tokens[begin] - timestamp_begin) * step,
            window.start + (tokens[end - 1] - timestamp_begin) * step,
            list(tokens[begin:end]),
        )
        for begin, end in zip([0, *cuts], cuts, strict=False)
    ]
    if single_timestamp_ending:
        return SplitWindow(parts, window.seek + window.size, True)
    # the last part is incomplete: decode it again in the next window
    return SplitWindow(parts, window.seek + (tokens[cuts[-1] - 1] - timestamp_begin) * stride, False)


def make_segments(
    split: SplitWindow, window: Window, result: Scores, temperature: float, eot: int, decode: Callable[[list[int]], str]
) -> list[Segment]:
    """Make segments of a window's parts, numbered from 0; `decode` turns text tokens into text."""
    return [
        {
            "id": i,
            "seek": window.seek,
            "start": part.start,
            "end": part.end,
            "text": decode([token for token in part.tokens if token < eot]),
            "tokens": part.tokens,
            "temperature": temperature,
            "avg_logprob": result.avg_logprob,
            "compression_ratio": result.compression_ratio,
            "no_speech_prob": result.no_speech_prob,
        }
        for i, part in enumerate(split.parts)
    ]


def add_token_logprobs(segments: Sequence[Segment], logprobs: Sequence[float] | None) -> None:
    """Give each segment of a window the log-probabilities of its tokens, in place.

    Raises
    ------
    OptionError
        The decoding did not keep them.
    """
    if logprobs is None:
        raise OptionError(
            "token_logprobs needs the fast path, which hooks on the model or replaced parts of it switch off; "
            "remove them, or leave token_logprobs out"
        )
    begin = 0
    for segment in segments:
        end = begin + len(segment["tokens"])
        segment["token_logprobs"] = list(logprobs[begin:end])
        begin = end


def keep_within(segments: Sequence[Segment], begin: float, end: float) -> None:
    """Move the times of a window's segments into the window, in place; their order and lengths stay valid.

    Timestamps count up to 30 s, also where the window is shorter. The first segment that would end
    too late, and those after it, share what is left of the window in proportion to their letters;
    where that is less time than it takes to say them, they start earlier, and if necessary take a
    share of the segments before them.

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
    while True:
        latest = end - sum(letters[first:]) / MAX_LETTERS_PER_SECOND
        if start <= latest:
            break
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
    """Limit the times of segments and their words to those from `begin` to `end` (seconds), in place."""
    for segment in segments:
        for part in (segment, *segment.get("words", ())):
            part["start"] = min(max(part["start"], begin), end)
            part["end"] = min(max(part["end"], part["start"]), end)


def clear_empty_segments(segments: Sequence[Segment]) -> None:
    """Clear the tokens of segments without duration or text, so that they prompt nothing."""
    for segment in segments:
        if segment["start"] == segment["end"] or not segment["text"].strip():
            segment["text"] = ""
            segment["tokens"] = []
            if "token_logprobs" in segment:
                segment["token_logprobs"] = []
            segment["words"] = []


# --------------------------------------------------------------------------------------------------
# With word times: the next seek, and hallucinations
# --------------------------------------------------------------------------------------------------


def seek_after_words(split: SplitWindow, segments: Sequence[Segment], window: Window, delay: float = 0.0) -> int:
    """Return the end of the last word, which is a better seek than the last timestamp.

    `delay` is by how much word times were moved to earlier times, seconds: the next window begins
    where it would without that, so that it does not repeat the end of the last word.
    """
    last_end = get_end(segments)
    if split.single_timestamp_ending or last_end is None or last_end <= window.start:
        return split.seek
    seek = round(last_end * FRAMES_PER_SECOND)
    return min(seek + round(delay * FRAMES_PER_SECOND), max(seek, window.seek + window.size))


def word_anomaly_score(word: Word) -> float:
    """Return how anomalous a word is: improbable, very short or very long."""
    duration = word["end"] - word["start"]
    score = 1.0 if word["probability"] < 0.15 else 0.0
    score += max(0.0, 0.133 - duration) * 15
    score += max(0.0, duration - 2.0)
    return score


def is_segment_anomaly(segment: Segment | None) -> bool:
    """Whether the first eight words of a segment are anomalous as a whole."""
    if segment is None or not segment["words"]:
        return False
    marks = PREPEND_PUNCTUATIONS + APPEND_PUNCTUATIONS
    words = [word for word in segment["words"] if word["word"] not in marks][:8]
    score = sum(word_anomaly_score(word) for word in words)
    return score >= 3 or score + 0.01 >= len(words)


@dataclass(frozen=True)
class CheckedWindow:
    """What remains of a window after the search for hallucinations."""

    segments: list[Segment]
    seek: int
    retry: bool = False  # nothing is kept: the audio after a leading silence is decoded again


def skip_hallucinations(
    segments: list[Segment],
    split: SplitWindow,
    window: Window,
    content_frames: int,
    threshold: float,
    last_speech: float,
) -> CheckedWindow:
    """Skip silences around anomalous words, which are probably hallucinations.

    Parameters
    ----------
    segments
        With words; not changed.
    split, window
        What they were made from.
    content_frames
        Length of the recording.
    threshold
        Seconds of silence around anomalous words from which on they count as hallucinations.
    last_speech
        End of the last word before this window, seconds.
    """
    seek = _seek_after_silence(segments, split, window, threshold)
    first = _next_with_words(segments)
    if first is not None and is_segment_anomaly(first):
        gap = first["start"] - window.start
        if gap > threshold:
            return CheckedWindow([], window.seek + round(gap * FRAMES_PER_SECOND), retry=True)

    previous_end = last_speech
    for i, segment in enumerate(segments):
        if not segment["words"]:
            continue
        if is_segment_anomaly(segment):
            following = _next_with_words(segments[i + 1 :])
            if _is_surrounded_by_silence(segment, following, window, threshold, previous_end):
                seek = round(max(window.start + 1, segment["start"]) * FRAMES_PER_SECOND)
                if content_frames * HOP_LENGTH / SAMPLE_RATE - segment["end"] < threshold:
                    seek = content_frames
                return CheckedWindow(segments[:i], seek)
        previous_end = segment["end"]
    return CheckedWindow(segments, seek)


def _seek_after_silence(segments: Sequence[Segment], split: SplitWindow, window: Window, threshold: float) -> int:
    """Return the end of the last word before a long silence, else the end of the window."""
    last_end = get_end(segments)
    if split.single_timestamp_ending or last_end is None or last_end <= window.start:
        return split.seek
    if window.full_end - last_end > threshold:
        return round(last_end * FRAMES_PER_SECOND)
    return window.seek + window.size


def _next_with_words(segments: Sequence[Segment]) -> Segment | None:
    return next((segment for segment in segments if segment["words"]), None)


def _is_surrounded_by_silence(
    segment: Segment, following: Segment | None, window: Window, threshold: float, previous_end: float
) -> bool:
    """Whether both sides of a segment have silence, another hallucination, or the window's edge."""
    next_start = following["words"][0]["start"] if following else window.start + window.duration
    silence_before = (
        segment["start"] - previous_end > threshold
        or segment["start"] < threshold
        or segment["start"] - window.start < 2.0
    )
    silence_after = (
        next_start - segment["end"] > threshold
        or is_segment_anomaly(following)
        or window.full_end - segment["end"] < 2.0
    )
    return silence_before and silence_after
