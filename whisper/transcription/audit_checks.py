"""What the audit decides about one window: whether a text fits its speech, and where to cut the speech.

Pure functions of the settings and the speech of a recording; runs no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..audit.coverage import group_segments, n_bytes
from ..audit.hallucinations import Evidence, hallucination_reason
from ..audit.report import Finding, finding
from ..spans import FRAMES_PER_SECOND, N_FRAMES
from ..speech.rates import CROWDED_TEXT_BYTES_PER_SECOND, MAX_TEXT_BYTES_PER_SECOND, MAX_TEXT_TOKENS_PER_SECOND
from .segments import is_improbable, is_repetitive, is_silence
from .windows import Window

if TYPE_CHECKING:
    from ..decoding import DecodingResult
    from ..results import Segment
    from ..spans import Span
    from ..speech.vad import Speech
    from .settings import TranscribeSettings

PAD_SECONDS = 0.2  # around speech that is decoded on its own; the model needs the onset
MIN_HALF_FRAMES = 300  # a window with a repetition loop is not cut into shorter halves
# Of chunks; a chunk whose text is sparse is cut into shorter ones. Real models need the longer ones'
# context; weak models transcribe 3 s of speech as well as a single word.
CHUNK_SECONDS = (12.0, 3.0)
MIN_CHUNK_SECONDS = CHUNK_SECONDS[-1]
SPARE_TOKENS = 24  # for timestamps, and for very short windows


class AuditChecks:
    """Checks of texts against the speech of a recording."""

    def __init__(self, settings: TranscribeSettings, speech: Speech) -> None:
        self._options, self._speech = settings.options, speech
        self._token_limit = settings.decoding.sample_len or settings.model.dims.n_text_ctx // 2

    def passes(self, decoded: DecodingResult, window: Window) -> bool:
        """Whether a text passes all checks. A text may repeat itself, as far as its time allows."""
        if decoded.is_loop or self._exceeds_speaking_rate(decoded, window):
            return False
        return not is_improbable(decoded, self._options) or is_silence(decoded, self._options)

    def rank(self, decoded: DecodingResult, window: Window) -> tuple[bool, bool, float]:
        """Return the sort key of a failed attempt; the best one has the greatest."""
        return not decoded.is_loop, not self._exceeds_speaking_rate(decoded, window), decoded.avg_logprob

    def can_be_halved(self, decoded: DecodingResult, window: Window) -> bool:
        """Whether a text is a repetition loop, which may not occur in half of the window."""
        return decoded.is_loop and window.size >= 2 * MIN_HALF_FRAMES

    def max_tokens(self, window: Window) -> int:
        """Return the most tokens that the speech in a window can have."""
        seconds = self._speech.seconds_within(window.start, window.end)
        return min(self._token_limit, int(MAX_TEXT_TOKENS_PER_SECOND * seconds) + SPARE_TOKENS)

    def is_repetitive(self, compression_ratio: float) -> bool:
        """Whether a text repeats itself."""
        return is_repetitive(compression_ratio, self._options)

    def is_improbable(self, segment: Segment) -> bool:
        """Whether a segment's text is less probable than `logprob_threshold` allows."""
        least = self._options.logprob_threshold
        return least is not None and segment["avg_logprob"] < least

    def is_crowded(self, segment: Segment) -> bool:
        """Whether a segment has too little speech for its text."""
        seconds = self._speech.seconds_within(segment["start"], segment["end"])
        return n_bytes(segment["text"]) > CROWDED_TEXT_BYTES_PER_SECOND * seconds

    def is_surely_silent(self, segments: Sequence[Segment]) -> bool:
        """Whether there is no text, and the no-speech probability is high."""
        most = self._options.no_speech_threshold
        has_text = any(segment["text"].strip() for segment in segments)
        return most is not None and not has_text and all(s["no_speech_prob"] > most for s in segments)

    def hallucination(self, segment: Segment, language: str) -> Finding | None:
        """Return a finding if a segment is a hallucination."""
        if not segment["text"].strip():
            return None
        span = segment["start"], segment["end"]
        evidence = Evidence(
            speech_seconds=self._speech.seconds_within(*span),
            speech_probability=self._speech.highest_probability(*span),
            mean_probability=self._speech.mean_probability(*span),
            no_speech_prob=segment["no_speech_prob"],
            avg_logprob=segment["avg_logprob"],
        )
        reason = hallucination_reason(segment["text"], language, evidence)
        return None if reason is None else finding("dropped", span, segment["text"], reason)

    def _exceeds_speaking_rate(self, decoded: DecodingResult, window: Window) -> bool:
        """Whether a text repeats itself more than there is time for."""
        max_bytes = MAX_TEXT_BYTES_PER_SECOND * self._speech.seconds_within(window.start, window.end)
        return self.is_repetitive(decoded.compression_ratio) and n_bytes(decoded.text) > max_bytes


class SpeechCutter:
    """Cuts the speech of a recording into windows."""

    def __init__(self, settings: TranscribeSettings, speech: Speech) -> None:
        self._threshold, self._speech = settings.vad_options.threshold, speech

    def split(self, speech: list[Span]) -> list[Span]:
        """Split speech into chunks, speech segments, or parts of a single segment."""
        for max_seconds in CHUNK_SECONDS:
            if speech[-1][1] - speech[0][0] > max_seconds:
                return group_segments(self._split_long(speech, max_seconds), max_seconds)
        if len(speech) > 1:
            return speech
        return self._speech.split(speech[0], MIN_CHUNK_SECONDS, self._threshold)

    def leave_out_cut_segment(self, speech: list[Span], seek: int) -> tuple[list[Span], int]:
        """Leave a last speech segment that frame `seek` cuts in two to the next window."""
        end = seek / FRAMES_PER_SECOND
        around = end - 0.01, end + 0.01
        if len(speech) > 1 and self._speech.within(*around) == [around]:
            return speech[:-1], round((speech[-2][1] + speech[-1][0]) / 2 * FRAMES_PER_SECOND)
        return speech, seek

    def shorten(self, window: Window, max_seconds: float) -> Window:
        """Cut a window off after `max_seconds` of speech at most, in the pause that follows."""
        if window.duration <= max_seconds:
            return window
        speech = self._speech.within(window.start, window.end)
        chunks = group_segments(self._split_long(speech, max_seconds), max_seconds)
        end = (chunks[0][1] + chunks[1][0]) / 2 if len(chunks) > 1 else window.end
        return Window(window.clip, window.seek, max(round(end * FRAMES_PER_SECOND) - window.seek, 1))

    def window_around(self, span: Span, window: Window, last: int) -> Window:
        """Return a padded window around a span of speech; it ends before frame `last`."""
        # no padding on a side with speech: it would add parts of other words
        before = 0.0 if self._speech.seconds_within(span[0] - PAD_SECONDS, span[0]) else PAD_SECONDS
        after = 0.0 if self._speech.seconds_within(span[1], span[1] + PAD_SECONDS) else PAD_SECONDS
        seek = max(round((span[0] - before) * FRAMES_PER_SECOND), 0)
        end = min(round((span[1] + after) * FRAMES_PER_SECOND), seek + N_FRAMES, last)
        return Window(window.clip, seek, max(end - seek, 1))

    def _split_long(self, speech: list[Span], max_seconds: float) -> list[Span]:
        """Split the speech segments that are longer than `max_seconds`."""
        return [part for segment in speech for part in self._speech.split(segment, max_seconds)]
