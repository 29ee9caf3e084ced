"""The audited window loop: speech and text of each window are compared.

Hallucinations are dropped and repetition loops stopped. Speech without text is decoded again on its
own; where a window has too little text for its speech, it is decoded again in chunks, and if that
helps, the next windows are short, too. The recording's `Report` gets a finding for every correction
and for what remains doubtful. The audit cannot recognise more than the model: where every attempt
fails, the best one is kept, with a finding.
"""

from __future__ import annotations

from collections.abc import Callable

from ..audio import FRAMES_PER_SECOND, N_FRAMES
from ..audit.coverage import (
    ends_in_repetition,
    group_segments,
    is_echo,
    is_sparse,
    n_bytes,
    text_spans,
    uncovered_speech,
)
from ..audit.hallucinations import Evidence, hallucination_reason
from ..audit.report import Finding, Kind, finding
from ..decoding import DecodingResult
from ..engine.operations import Deliver
from ..results import Segment
from ..spans import FrameRange, Span
from ..speech.rates import CROWDED_TEXT_BYTES_PER_SECOND, MAX_TEXT_BYTES_PER_SECOND, MAX_TEXT_TOKENS_PER_SECOND
from ..speech.vad import Speech
from .segments import is_improbable, is_silence
from .settings import RETRY_BEAM_SIZE, TranscribeSettings
from .window_loop import PreparedWindow, RecordingContext, WindowLoop, WindowResult
from .windows import Window

PAD_SECONDS = 0.2  # around speech that is decoded on its own; the model needs the onset
MIN_HALF_FRAMES = 300  # a window with a repetition loop is not cut into shorter halves
CHUNK_SECONDS = 3.0  # weak models transcribe so much speech as well as a single word
MIN_GAIN = 1.2  # times as much text, with which decoding in chunks has helped
PATIENCE = 2  # consecutive temperatures without a better text, after which fallback ends
HOPELESS_LOGPROB = -1.5  # below it, one such temperature is enough: no other gives a good text
GOOD_WINDOWS = 16  # consecutive short ones with enough text, before one twice as long is tried
SPARE_TOKENS = 24  # for timestamps, and for very short windows
MAX_KEPT_TEXTS = 8  # segments that are searched for a repetition loop across windows


class AuditedWindowLoop(WindowLoop):
    """See `WindowLoop`; the recording must have speech."""

    def __init__(
        self,
        settings: TranscribeSettings,
        recording: RecordingContext,
        clips: list[FrameRange],
        receive: Callable[[Deliver], None] | None = None,
        start: float = 0.0,
    ) -> None:
        super().__init__(settings, recording, clips, receive, start)
        assert recording.speech is not None
        self._speech: Speech = recording.speech
        self._texts: list[str] = []  # of the last segments that were kept
        self._max_seconds = N_FRAMES / FRAMES_PER_SECOND  # of a window, as far as pauses allow
        self._n_good = 0  # consecutive short windows with enough text
        self._was_repetitive = False  # a repetitive text makes the next one repetitive
        self._findings: list[Finding] = []  # of the current window

    async def _transcribe_window(self, window: Window) -> WindowResult:
        """See `WindowLoop`."""
        self._findings, last_speech = [], self._last_speech
        tries_longer = self._n_good >= GOOD_WINDOWS
        window = self._shorten(window, 2 * self._max_seconds if tries_longer else self._max_seconds)
        if self._windows_are_short or self._was_repetitive:
            self._history.reset()  # with a prompt, models skip the first word of a short window
        result = await self._decode_whole(window)
        if not result.retry:
            speech = self._speech.within(window.start, min(result.seek / FRAMES_PER_SECOND, window.end))
            is_too_sparse = self._can_be_split(window, speech, result) and is_sparse(_text(result.segments), speech)
            if (tries_longer and speech) or is_too_sparse:
                whole, last_speech_of_whole, findings_of_whole = result, self._last_speech, self._findings
                self._findings, self._last_speech = [], last_speech
                speech, seek = self._leave_out_cut_segment(speech, result.seek)
                segments = await self._decode_in_chunks(window, speech, seek)
                result = WindowResult(segments, seek)
                if n_bytes(_text(segments)) < MIN_GAIN * n_bytes(_text(whole.segments)):
                    result, self._last_speech, self._findings = whole, last_speech_of_whole, findings_of_whole
                    self._max_seconds *= 2 if tries_longer else 1
                elif len(self._split(speech)) > 1:
                    self._max_seconds = CHUNK_SECONDS
                self._n_good = 0
            elif self._windows_are_short:
                self._n_good += 1
            await self._decode_uncovered_speech(window, result)
        self._texts = [*self._texts, *(s["text"] for s in result.segments)][-MAX_KEPT_TEXTS:]
        self._was_repetitive = any(self._is_repetitive(s["compression_ratio"]) for s in result.segments)
        self.recording.report.findings += self._findings
        return result

    @property
    def _windows_are_short(self) -> bool:
        """Whether windows are shorter than 30 s, since the model lost speech in longer ones."""
        return self._max_seconds < N_FRAMES / FRAMES_PER_SECOND

    def _add_finding(self, kind: Kind, span: Span, text: str, reason: str) -> None:
        self._findings.append(finding(kind, span, text, reason))

    # -- a window, whole and in chunks -------------------------------------------------------------

    async def _decode_whole(self, window: Window) -> WindowResult:
        prepared = await self._prepare(window)
        result = await self._decode_with_fallback(prepared)
        if self._can_be_halved(result, window):
            self._add_finding("loop", (window.start, window.end), result.text, "decoded again in halves")
            self._history.reset()
            return await self._decode_whole(self._shorten(window, window.duration / 2))
        window_result = await self._window_result(prepared, result)
        texts = [*self._texts, *(s["text"] for s in window_result.segments)]
        if self._history.prompt() and ends_in_repetition(texts):
            self._history.reset()  # the prompt may be the cause
            window_result = await self._window_result(prepared, await self._decode_with_fallback(prepared))
        window_result.segments = [s for s in window_result.segments if self._is_kept(s, prepared.language)]
        return window_result

    async def _decode_in_chunks(self, window: Window, speech: list[Span], seek: int) -> list[Segment]:
        """Decode the speech of a window in chunks, and sparse text in shorter ones."""
        segments: list[Segment] = []
        for chunk in self._split(speech):
            prepared = await self._prepare(self._window_around(chunk, window, seek))
            result = await self._decode_without_prompt(prepared, self.settings.decoding.beam_size)
            found = [] if result.is_loop else (await self._window_result(prepared, result)).segments
            found = [s for s in found if self._is_kept(s, prepared.language)]
            within = self._speech.within(*chunk)
            is_lost = result.is_loop or (is_sparse(_text(found), within) and not self._is_surely_silent(found))
            if is_lost and len(self._split(within)) > 1:
                shorter = await self._decode_in_chunks(window, within, seek)
                found = shorter if n_bytes(_text(shorter)) >= MIN_GAIN * n_bytes(_text(found)) else found
            segments += found
        return segments

    def _can_be_split(self, window: Window, speech: list[Span], result: WindowResult) -> bool:
        """Whether the speech of a window could be decoded in other windows than this one."""
        if len(speech) != 1:
            return bool(speech)
        is_part = speech[0][1] - speech[0][0] < window.duration - 1.0
        return is_part or (not self._is_surely_silent(result.segments) and len(self._split(speech)) > 1)

    def _is_surely_silent(self, segments: list[Segment]) -> bool:
        """Whether there is no text, and the no-speech probability is high."""
        most = self.settings.options.no_speech_threshold
        return most is not None and not _text(segments).strip() and all(s["no_speech_prob"] > most for s in segments)

    def _split(self, speech: list[Span]) -> list[Span]:
        """Split speech into chunks, speech segments, or parts of a single segment."""
        if speech[-1][1] - speech[0][0] > CHUNK_SECONDS:
            return group_segments(self._split_long(speech, CHUNK_SECONDS), CHUNK_SECONDS)
        if len(speech) > 1:
            return speech
        return self._speech.split(speech[0], CHUNK_SECONDS, self.settings.vad_options.threshold)

    def _split_long(self, speech: list[Span], max_seconds: float) -> list[Span]:
        """Split the speech segments that are longer than `max_seconds`."""
        return [part for segment in speech for part in self._speech.split(segment, max_seconds)]

    def _leave_out_cut_segment(self, speech: list[Span], seek: int) -> tuple[list[Span], int]:
        """Leave a last speech segment that frame `seek` cuts in two to the next window."""
        end = seek / FRAMES_PER_SECOND
        around = end - 0.01, end + 0.01
        if len(speech) > 1 and self._speech.within(*around) == [around]:
            return speech[:-1], round((speech[-2][1] + speech[-1][0]) / 2 * FRAMES_PER_SECOND)
        return speech, seek

    def _shorten(self, window: Window, max_seconds: float) -> Window:
        """Cut a window off after `max_seconds` of speech at most, in the pause that follows."""
        if window.duration <= max_seconds:
            return window
        speech = self._speech.within(window.start, window.end)
        chunks = group_segments(self._split_long(speech, max_seconds), max_seconds)
        end = (chunks[0][1] + chunks[1][0]) / 2 if len(chunks) > 1 else window.end
        return Window(window.clip, window.seek, max(round(end * FRAMES_PER_SECOND) - window.seek, 1))

    def _window_around(self, span: Span, window: Window, last: int) -> Window:
        """Return a padded window around a span of speech; it ends before frame `last`."""
        # no padding on a side with speech: it would add parts of other words
        before = 0.0 if self._speech.seconds_within(span[0] - PAD_SECONDS, span[0]) else PAD_SECONDS
        after = 0.0 if self._speech.seconds_within(span[1], span[1] + PAD_SECONDS) else PAD_SECONDS
        seek = max(round((span[0] - before) * FRAMES_PER_SECOND), 0)
        end = min(round((span[1] + after) * FRAMES_PER_SECOND), seek + N_FRAMES, last)
        return Window(window.clip, seek, max(end - seek, 1))

    # -- decoding ----------------------------------------------------------------------------------

    async def _decode_with_fallback(self, prepared: PreparedWindow) -> DecodingResult:
        """Decode with temperature fallback; return the best result if none passes."""
        best: DecodingResult | None = None
        n_worse = 0
        window = prepared.window
        changes = {"stop_loops": True, "sample_len": self._max_tokens(window)}
        for temperature in self.settings.options.temperatures():
            result = await self._decode(prepared, temperature, prompt=self._history.prompt(), **changes)
            if self._passes(result, window) or self._can_be_halved(result, window):
                return result
            if best is None or self._rank(result, window) > self._rank(best, window):
                best, n_worse = result, 0
            else:
                n_worse += 1
            if n_worse >= (PATIENCE if best.avg_logprob >= HOPELESS_LOGPROB else 1):
                break
            self.settings.raise_if_cancelled()
        assert best is not None
        kind: Kind = "loop" if best.is_loop else "doubtful"
        reason = f"no attempt passed; log-probability {best.avg_logprob:.2f}"
        self._add_finding(kind, (window.start, window.end), best.text, reason)
        return best

    async def _decode_without_prompt(self, prepared: PreparedWindow, beam_size: int | None) -> DecodingResult:
        """Decode once, at temperature 0, without the text before."""
        return await self._decode(
            prepared,
            0.0,
            prompt=self._history.carried(),
            beam_size=beam_size,
            stop_loops=True,
            sample_len=self._max_tokens(prepared.window),
        )

    def _can_be_halved(self, result: DecodingResult, window: Window) -> bool:
        """Whether a text is a repetition loop, which may not occur in half of the window."""
        return result.is_loop and window.size >= 2 * MIN_HALF_FRAMES

    def _passes(self, result: DecodingResult, window: Window) -> bool:
        """Whether a text passes all checks. A text may repeat itself, as far as its time allows."""
        if result.is_loop or self._exceeds_speaking_rate(result, window):
            return False
        return not is_improbable(result, self.settings.options) or is_silence(result, self.settings.options)

    def _exceeds_speaking_rate(self, result: DecodingResult, window: Window) -> bool:
        """Whether a text repeats itself more than there is time for."""
        max_bytes = MAX_TEXT_BYTES_PER_SECOND * self._speech.seconds_within(window.start, window.end)
        return self._is_repetitive(result.compression_ratio) and n_bytes(result.text) > max_bytes

    def _is_repetitive(self, compression_ratio: float) -> bool:
        """Whether a text repeats itself."""
        most = self.settings.options.compression_ratio_threshold
        return most is not None and compression_ratio > most

    def _rank(self, result: DecodingResult, window: Window) -> tuple[bool, bool, float]:
        """Return the sort key of a failed attempt; the best one has the greatest."""
        return not result.is_loop, not self._exceeds_speaking_rate(result, window), result.avg_logprob

    def _max_tokens(self, window: Window) -> int:
        """Return the most tokens that the speech in a window can have."""
        seconds = self._speech.seconds_within(window.start, window.end)
        limit = self.settings.decoding.sample_len or self.settings.model.dims.n_text_ctx // 2
        return min(limit, int(MAX_TEXT_TOKENS_PER_SECOND * seconds) + SPARE_TOKENS)

    # -- hallucinations, and speech without text ---------------------------------------------------

    def _is_kept(self, segment: Segment, language: str) -> bool:
        """Whether a segment is kept; adds a finding if it is dropped as a hallucination."""
        if not segment["text"].strip():
            return True
        span = segment["start"], segment["end"]
        evidence = Evidence(
            speech_seconds=self._speech.seconds_within(*span),
            speech_probability=self._speech.highest_probability(*span),
            mean_probability=self._speech.mean_probability(*span),
            no_speech_prob=segment["no_speech_prob"],
            avg_logprob=segment["avg_logprob"],
        )
        reason = hallucination_reason(segment["text"], language, evidence)
        if reason is not None:
            self._add_finding("dropped", span, segment["text"], reason)
        return reason is None

    async def _decode_uncovered_speech(self, window: Window, result: WindowResult) -> None:
        """Decode the speech of a window that has no text, and add its segments to the result."""
        end = min(result.seek / FRAMES_PER_SECOND, window.end)
        for gap in uncovered_speech(self._speech.spans, text_spans(result.segments), window.start, end):
            if any(self._is_repetitive(s["compression_ratio"]) and self._is_crowded(s) for s in result.segments):
                self._add_finding("uncovered", gap, "", "the text beside it repeats itself, and may belong here")
                continue
            around = self._window_around(gap, window, result.seek)
            recovered = await self._recover(gap, around, result.segments)
            result.segments = sorted([*result.segments, *recovered], key=lambda s: s["start"])

    async def _recover(self, gap: Span, around: Window, others: list[Segment]) -> list[Segment]:
        """Decode a span of speech on its own; returns the segments that pass all checks."""
        last_speech, n_findings = self._last_speech, len(self._findings)
        prepared = await self._prepare(around)
        beam_size = self.settings.decoding.beam_size or RETRY_BEAM_SIZE
        result = await self._decode_without_prompt(prepared, beam_size)
        segments: list[Segment] = []
        if self._passes(result, around) and not is_silence(result, self.settings.options):
            segments = [s for s in (await self._window_result(prepared, result)).segments if s["text"].strip()]
            segments = [s for s in segments if self._is_kept(s, prepared.language)]
            self._last_speech = max(last_speech, self._last_speech)
        del self._findings[n_findings:]
        text = _text(segments)
        if not text:
            self._add_finding(
                "uncovered", gap, result.text, f"no text passed; log-probability {result.avg_logprob:.2f}"
            )
        elif any(is_echo(text, other["text"]) and self._is_crowded(other) for other in others):
            self._add_finding("uncovered", gap, text, "the text beside it contains the same words")
            return []
        else:
            self._add_finding("recovered", gap, text, "speech without text, decoded on its own")
        return segments

    def _is_crowded(self, segment: Segment) -> bool:
        """Whether a segment has too little speech for its text."""
        seconds = self._speech.seconds_within(segment["start"], segment["end"])
        return n_bytes(segment["text"]) > CROWDED_TEXT_BYTES_PER_SECOND * seconds


def _text(segments: list[Segment]) -> str:
    return "".join(segment["text"] for segment in segments)
