"""The audit of each window: its speech and its text are compared.

Hallucinations are dropped and repetition loops stopped. Speech without text is decoded again on its
own; where a window has too little text for its speech, it is decoded again in chunks, and if that
helps, the next windows are short, too. There is a finding for every correction and for what remains
doubtful. The audit cannot recognise more than the model: where every attempt fails, the best one is
kept, with a finding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING

from ..audit.coverage import (
    ends_in_repetition,
    is_echo,
    is_sparse,
    n_bytes,
    repeats_start,
    shares_run,
    text_spans,
    uncovered_speech,
)
from ..audit.report import Finding, Kind, finding
from ..spans import FRAMES_PER_SECOND, N_FRAMES
from .audit_checks import MIN_CHUNK_SECONDS, AuditChecks, SpeechCutter
from .segments import WindowResult, is_silence
from .settings import RETRY_BEAM_SIZE

if TYPE_CHECKING:
    from ..decoding import DecodingResult
    from ..results import Segment
    from ..spans import Span
    from ..speech.vad import Speech
    from ..tokenizer import Tokenizer
    from .window_decoder import PreparedWindow, WindowDecoder
    from .windows import PromptHistory, Window

MIN_GAIN = 1.2  # times as much text, with which decoding in chunks has helped
PATIENCE = 2  # consecutive temperatures without a better text, after which fallback ends
HOPELESS_LOGPROB = -1.5  # below it, one such temperature is enough: no other gives a good text
GOOD_SECONDS = 48.0  # of consecutive short windows with enough text, before one twice as long is tried
PROMPTED_SECONDS = 10.0  # with a prompt, models skip the first word of a shorter window
COPY_BONUS = 0.1  # by which a copy of the prompt is likelier than it should be
MAX_KEPT_TEXTS = 8  # segments that are searched for a repetition loop across windows


class AuditStrategy:
    """See `window_loop.Strategy`.

    Parameters
    ----------
    decoder, history
        Of the window loop.
    speech
        Of the recording.
    """

    def __init__(self, decoder: WindowDecoder, history: PromptHistory, speech: Speech) -> None:
        self._decoder, self._history, self._speech = decoder, history, speech
        self._checks = AuditChecks(decoder.settings, speech)
        self._cutter = SpeechCutter(decoder.settings, speech)
        self._texts: list[str] = []  # of the last segments that were kept
        self._max_seconds = N_FRAMES / FRAMES_PER_SECOND  # of a window, as far as pauses allow
        self._good_seconds = 0.0  # of consecutive short windows with enough text
        self._was_repetitive = False  # a repetitive text makes the next one repetitive

    async def transcribe(self, window: Window, last_speech: float) -> WindowResult:
        """See `Strategy`."""
        tries_longer = self._good_seconds >= GOOD_SECONDS
        window = self._cutter.shorten(window, 2 * self._max_seconds if tries_longer else self._max_seconds)
        if self._max_seconds < PROMPTED_SECONDS or self._was_repetitive:
            self._history.reset()
        result = await self._decode_whole(window, last_speech)
        if not result.retry:
            speech = self._speech.within(window.start, min(result.seek / FRAMES_PER_SECOND, window.end))
            if (tries_longer and speech) or self._is_too_sparse(window, speech, result):
                result = await self._try_in_chunks(window, speech, result, last_speech, tries_longer)
            elif self._windows_are_short:
                self._good_seconds += window.duration
            result = await self._decode_uncovered_speech(window, result)
        self._texts = [*self._texts, *(s["text"] for s in result.segments)][-MAX_KEPT_TEXTS:]
        self._was_repetitive = any(self._checks.is_repetitive(s["compression_ratio"]) for s in result.segments)
        return result

    @property
    def _windows_are_short(self) -> bool:
        """Whether windows are shorter than 30 s, since the model lost speech in longer ones."""
        return self._max_seconds < N_FRAMES / FRAMES_PER_SECOND

    # -- a window as a whole -----------------------------------------------------------------------

    async def _decode_whole(self, window: Window, last_speech: float) -> WindowResult:
        """Decode a window, or its first half where the whole is a repetition loop."""
        prepared = await self._decoder.prepare(window)
        decoded, findings = await self._decode_with_fallback(prepared)
        if self._checks.can_be_halved(decoded, window):
            loop = finding("loop", (window.start, window.end), decoded.text, "decoded again in halves")
            self._history.reset()
            half = await self._decode_whole(self._cutter.shorten(window, window.duration / 2), last_speech)
            return replace(half, findings=(loop, *half.findings))
        decoded = await self._unless_copied(prepared, decoded)
        result = await self._decoder.to_result(prepared, decoded, last_speech)
        texts = [*self._texts, *(s["text"] for s in result.segments)]
        if self._history.prompt() and ends_in_repetition(texts):
            self._history.reset()  # the prompt may be the cause
            decoded, more = await self._decode_with_fallback(prepared)
            findings += more
            result = await self._decoder.to_result(prepared, decoded, result.last_speech)
        return self._without_hallucinations(replace(result, findings=findings), prepared.language)

    async def _decode_with_fallback(self, prepared: PreparedWindow) -> tuple[DecodingResult, tuple[Finding, ...]]:
        """Decode with temperature fallback; if no result passes, return the best, with a finding.

        The prompt may be the cause of a failure, so the second attempt has the same temperature and
        no text before it, and so have those that follow.
        """
        best: DecodingResult | None = None
        n_worse = 0
        window, checks = prepared.window, self._checks
        temperatures = self._decoder.settings.options.temperatures()
        has_prompt = self._history.prompt() != self._history.carried()
        for temperature in (*temperatures[:1], *temperatures) if has_prompt else temperatures:
            decoded = await self._decoder.decode(
                prepared, temperature, self._history.prompt(), stop_loops=True, sample_len=checks.max_tokens(window)
            )
            if checks.passes(decoded, window) or checks.can_be_halved(decoded, window):
                return decoded, ()
            if best is None or checks.rank(decoded, window) > checks.rank(best, window):
                best, n_worse = decoded, 0
            else:
                n_worse += 1
            if n_worse >= (PATIENCE if best.avg_logprob >= HOPELESS_LOGPROB else 1):
                break
            self._history.reset()
            self._decoder.raise_if_cancelled()
        assert best is not None
        kind: Kind = "loop" if best.is_loop else "doubtful"
        reason = f"no attempt passed; log-probability {best.avg_logprob:.2f}"
        return best, (finding(kind, (window.start, window.end), best.text, reason),)

    async def _unless_copied(self, prepared: PreparedWindow, decoded: DecodingResult) -> DecodingResult:
        """Decode a text that repeats much of its prompt again without the prompt; return the likelier text.

        A model may copy the prompt instead of listening. What was said is lost then, with a good log-probability.
        """
        prompt = self._history.prompt()[-self._history.max_prompt :]
        if not prompt or not _is_copied(decoded.tokens, prompt, prepared.tokenizer):
            return decoded
        alone = await self._decode_without_prompt(prepared, self._decoder.settings.decoding.beam_size)
        least = decoded.avg_logprob
        if not _is_copied(alone.tokens, prompt, prepared.tokenizer):
            least -= COPY_BONUS
        if not self._checks.passes(alone, prepared.window) or alone.avg_logprob <= least:
            return decoded
        self._history.reset()
        return alone

    def _without_hallucinations(self, result: WindowResult, language: str) -> WindowResult:
        """Drop hallucinations, each with a finding."""
        checked = [(segment, self._checks.hallucination(segment, language)) for segment in result.segments]
        kept = [segment for segment, found in checked if found is None]
        dropped = (found for _, found in checked if found is not None)
        return replace(result, segments=kept, findings=(*result.findings, *dropped))

    # -- a window in chunks ------------------------------------------------------------------------

    def _is_too_sparse(self, window: Window, speech: list[Span], result: WindowResult) -> bool:
        """Whether a text is too short for its speech, which could be decoded in other windows."""
        if len(speech) == 1 and speech[0][1] - speech[0][0] >= window.duration - 1.0:  # the window is this speech
            can_be_split = not self._checks.is_surely_silent(result.segments) and len(self._cutter.split(speech)) > 1
        else:
            can_be_split = bool(speech)
        return can_be_split and is_sparse(_text(result.segments), speech)

    async def _try_in_chunks(
        self, window: Window, speech: list[Span], whole: WindowResult, last_speech: float, tries_longer: bool
    ) -> WindowResult:
        """Decode a window in chunks; return the better result, and let it decide how long windows are."""
        speech, seek = self._cutter.leave_out_cut_segment(speech, whole.seek)
        in_chunks = await self._decode_in_chunks(window, speech, seek, last_speech)
        self._good_seconds = 0.0
        if not self._has_more_text(in_chunks, whole):
            self._max_seconds *= 2 if tries_longer else 1
            return whole
        if len(self._cutter.split(speech)) > 1 and not tries_longer:
            self._max_seconds = max(self._max_seconds / 2, MIN_CHUNK_SECONDS)
        return in_chunks

    async def _decode_in_chunks(
        self, window: Window, speech: list[Span], seek: int, last_speech: float
    ) -> WindowResult:
        """Decode the speech of a window, which ends at frame `seek`, in chunks."""
        result = WindowResult([], seek, last_speech)
        for span in self._cutter.split(speech):
            chunk = await self._decode_chunk(window, span, seek, result.last_speech)
            result = WindowResult(
                [*result.segments, *chunk.segments], seek, chunk.last_speech, findings=result.findings + chunk.findings
            )
        return result

    async def _decode_chunk(self, window: Window, span: Span, seek: int, last_speech: float) -> WindowResult:
        """Decode a chunk on its own; where its text is sparse, in shorter ones."""
        prepared = await self._decoder.prepare(self._cutter.window_around(span, window, seek))
        decoded = await self._decode_without_prompt(prepared, self._decoder.settings.decoding.beam_size)
        chunk = WindowResult([], seek, last_speech)
        if not decoded.is_loop:
            chunk = await self._decoder.to_result(prepared, decoded, last_speech)
            chunk = self._without_hallucinations(chunk, prepared.language)
        speech = self._speech.within(*span)
        is_lost = decoded.is_loop or (
            is_sparse(_text(chunk.segments), speech) and not self._checks.is_surely_silent(chunk.segments)
        )
        if not is_lost or len(self._cutter.split(speech)) < 2:
            return chunk
        shorter = await self._decode_in_chunks(window, speech, seek, chunk.last_speech)
        best = shorter if self._has_more_text(shorter, chunk) else chunk
        # also where the longer chunk is kept, what follows is judged by the last attempt
        return replace(best, last_speech=shorter.last_speech, findings=chunk.findings + shorter.findings)

    def _has_more_text(self, result: WindowResult, other: WindowResult) -> bool:
        """Whether a result has so much more text than another that its way to decode has helped.

        Improbable text does not count: short chunks of unclear speech give much of it.
        """
        probable = [segment for segment in result.segments if not self._checks.is_improbable(segment)]
        return n_bytes(_text(probable)) >= MIN_GAIN * n_bytes(_text(other.segments))

    async def _decode_without_prompt(self, prepared: PreparedWindow, beam_size: int | None) -> DecodingResult:
        """Decode once, at temperature 0, without the text before."""
        max_tokens = self._checks.max_tokens(prepared.window)
        return await self._decoder.decode(
            prepared, 0.0, self._history.carried(), beam_size=beam_size, stop_loops=True, sample_len=max_tokens
        )

    # -- speech without text -----------------------------------------------------------------------

    async def _decode_uncovered_speech(self, window: Window, result: WindowResult) -> WindowResult:
        """Decode the speech of a window that has no text, and add its segments to the result."""
        checks, end = self._checks, min(result.seek / FRAMES_PER_SECOND, window.end)
        for gap in uncovered_speech(self._speech.spans, text_spans(result.segments), window.start, end):
            if any(checks.is_repetitive(s["compression_ratio"]) and checks.is_crowded(s) for s in result.segments):
                reason = "the text beside it repeats itself, and may belong here"
                result = replace(result, findings=(*result.findings, finding("uncovered", gap, "", reason)))
            else:
                result = await self._recover(gap, self._cutter.window_around(gap, window, result.seek), result)
        return result

    async def _recover(self, gap: Span, around: Window, result: WindowResult) -> WindowResult:
        """Decode a span of speech on its own, and add the segments that pass all checks."""
        settings = self._decoder.settings
        prepared = await self._decoder.prepare(around)
        decoded = await self._decode_without_prompt(prepared, settings.decoding.beam_size or RETRY_BEAM_SIZE)
        segments: list[Segment] = []
        last_speech = result.last_speech
        if self._checks.passes(decoded, around) and not is_silence(decoded, settings.options):
            recovered = await self._decoder.to_result(prepared, decoded, last_speech)
            kept = self._without_hallucinations(recovered, prepared.language).segments
            segments = [segment for segment in kept if segment["text"].strip()]
            last_speech = max(last_speech, recovered.last_speech)
        text = _text(segments)
        if not text:
            reason = f"no text passed; log-probability {decoded.avg_logprob:.2f}"
            found = finding("uncovered", gap, decoded.text, reason)
        elif any(is_echo(text, other["text"]) and self._checks.is_crowded(other) for other in result.segments):
            segments = []
            found = finding("uncovered", gap, text, "the text beside it contains the same words")
        else:
            found = finding("recovered", gap, text, "speech without text, decoded on its own")
        segments = sorted([*result.segments, *segments], key=lambda segment: segment["start"])
        return replace(result, segments=segments, last_speech=last_speech, findings=(*result.findings, found))


def _is_copied(tokens: Sequence[int], prompt: Sequence[int], tokenizer: Tokenizer) -> bool:
    """Whether a text repeats a long run of its prompt, or begins segment after segment as others in it."""
    text, earlier = ([token for token in some if token < tokenizer.eot] for some in (tokens, prompt))
    segments = (_between_timestamps(some, tokenizer) for some in (tokens, prompt))
    return shares_run(text, earlier) or repeats_start(*segments)


def _between_timestamps(tokens: Sequence[int], tokenizer: Tokenizer) -> list[list[int]]:
    """Return the text tokens of each segment."""
    runs = groupby(tokens, lambda token: token < tokenizer.eot)
    return [list(run) for is_text, run in runs if is_text]


def _text(segments: Sequence[Segment]) -> str:
    return "".join(segment["text"] for segment in segments)
