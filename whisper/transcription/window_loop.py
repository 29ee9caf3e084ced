"""The window loop: each window begins where the last one ended, and is prompted with its text.

The pure functions of `windows` and `segments` decide what follows from a decoded window; a `Backend`
runs the model. This is the original's algorithm and nothing else; `AuditedWindowLoop`
adds the comparison of speech and text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..audio import N_FRAMES, pad_or_trim
from ..audit.report import Report
from ..decoding import DecodingResult
from ..engine.operations import Deliver
from ..results import Segment
from ..spans import FrameRange
from ..speech.features import Features
from ..speech.vad import Speech
from ..tokenizer import Tokenizer
from ..utils import exact_div, format_timestamp, get_end
from .backends import Backend
from .languages import LanguageTracker
from .segments import (
    clear_empty_segments,
    is_silence,
    keep_within,
    keep_words_within,
    make_segments,
    needs_fallback,
    seek_after_words,
    skip_hallucinations,
    split_at_timestamps,
)
from .settings import TranscribeSettings
from .windows import PromptHistory, Window, next_window
from .word_snapping import snap_words


@dataclass
class RecordingContext:
    """What all window loops of a recording share."""

    features: Features
    language: str  # of all windows, unless it is detected for each
    add_words: Callable[..., None]  # `timing.add_word_timestamps`, or a program's replacement of it
    report: Report
    speech: Speech | None = None  # where it was detected
    # empty where the language was given
    language_probs: dict[str, float] = field(default_factory=dict)
    # windows of language detection, by first frame
    encoded: dict[int, Any] = field(default_factory=dict)
    in_chunks: bool = False  # the recording is cut into chunks that are transcribed side by side

    def take_encoded(self, window: Window) -> Any:
        """Return a window as it was encoded for language detection; None where it was not."""
        encoded = self.encoded.pop(window.seek, None)
        # a shorter window ends in padding, not in audio
        return encoded if window.size == N_FRAMES else None


@dataclass
class PreparedWindow:
    """A window, encoded, with its language."""

    window: Window
    encoded: Any  # by the `Backend`
    language: str
    tokenizer: Tokenizer  # for that language


@dataclass
class WindowResult:
    """The segments of a window, and where the next one begins."""

    segments: list[Segment]
    seek: int  # first frame of the next window
    temperature: float = 0.0
    retry: bool = False  # nothing is kept, and the audio from `seek` on is decoded again


class WindowLoop:
    """Some clips of a recording, decoded window by window.

    Parameters
    ----------
    receive
        Called with the delivery of each window; None where the caller of `steps` receives them.
    start
        Seconds; words before it belong to other loops.
    """

    def __init__(
        self,
        settings: TranscribeSettings,
        recording: RecordingContext,
        clips: list[FrameRange],
        receive: Callable[[Deliver], None] | None = None,
        start: float = 0.0,
    ) -> None:
        self.settings, self.recording = settings, recording
        self._clips, self._receive = clips, receive
        self._history = PromptHistory(
            settings.initial_prompt, settings.options.carry_initial_prompt, settings.max_prompt_tokens
        )
        self._last_speech = start  # end of the last word, seconds
        detects = settings.options.multilingual and recording.language_probs
        self._tracker = LanguageTracker(recording.language_probs) if detects else None

    @property
    def _keeps_within(self) -> bool:
        """Whether no time may lie outside of the recording."""
        return self.settings.keeps_within or self.recording.in_chunks

    @property
    def backend(self) -> Backend:
        """Runs the model."""
        return self.settings.backend

    async def steps(self) -> Any:
        """Decode window after window."""
        clip = seek = 0
        while (window := next_window(self._clips, clip, seek)) is not None:
            self.settings.raise_if_cancelled()
            result = await self._transcribe_window(window)
            lines = self._finish_window(result)
            # always advance: timestamps that lead back to the window's start would do so again
            seek, clip = max(result.seek, window.seek + 1), window.clip
            n_done = min(self.recording.features.n_frames, seek) - window.seek
            delivery = Deliver([] if result.retry else result.segments, n_done, lines)
            if self._receive is not None:
                self._receive(delivery)
            await delivery

    async def _transcribe_window(self, window: Window) -> WindowResult:
        prepared = await self._prepare(window)
        result = await self._decode_with_fallback(prepared)
        return await self._window_result(prepared, result)

    async def _prepare(self, window: Window) -> PreparedWindow:
        """Encode a window, and detect its language where each window has its own."""
        encoded = self.recording.take_encoded(window)
        if encoded is None:
            mel: Tensor = self.recording.features.window(window.seek, window.size)
            encoded = await self.backend.encode(pad_or_trim(mel, N_FRAMES))
        language = self.recording.language
        if self._tracker is not None:
            language = await self._tracker.detect(self.backend, encoded)
        return PreparedWindow(window, encoded, language, self.settings.tokenizer(language))

    async def _decode_with_fallback(self, prepared: PreparedWindow) -> DecodingResult:
        """Decode with temperature fallback; return the last result if none passes."""
        for temperature in self.settings.options.temperatures():
            result = await self._decode(prepared, temperature, prompt=self._history.prompt())
            if not needs_fallback(result, self.settings.options):
                break
            self.settings.raise_if_cancelled()
        return result

    async def _decode(self, prepared: PreparedWindow, temperature: float, **changes: Any) -> DecodingResult:
        """Decode once."""
        seed = self.settings.seed(prepared.window, temperature)
        options = self.settings.decoding.at(temperature, language=prepared.language, seed=seed, **changes)
        return await self.backend.decode(prepared.encoded, options)

    # -- from tokens to segments -------------------------------------------------------------------

    async def _window_result(self, prepared: PreparedWindow, result: DecodingResult) -> WindowResult:
        """Make segments of a window's tokens, and find the next seek."""
        window, options, tokenizer = prepared.window, self.settings.options, prepared.tokenizer
        if is_silence(result, options):
            return WindowResult([], window.seek + window.size, result.temperature)
        stride = exact_div(N_FRAMES, self.settings.model.dims.n_audio_ctx)
        split = split_at_timestamps(result.tokens, window, tokenizer.timestamp_begin, stride)
        segments = make_segments(split, window, result, result.temperature, tokenizer.eot, tokenizer.decode)
        if self._keeps_within:
            keep_within(segments, window.start, window.end)
        if options.multilingual:
            for segment in segments:
                segment["language"] = prepared.language
        window_result = WindowResult(segments, split.seek, result.temperature)
        if options.word_timestamps:
            await self._add_words(prepared, segments)
            window_result.seek = seek_after_words(split, segments, window)
            threshold = options.hallucination_silence_threshold
            if threshold is not None:
                n_frames = self.recording.features.n_frames
                checked = skip_hallucinations(segments, split, window, n_frames, threshold, self._last_speech)
                window_result = WindowResult(checked.segments, checked.seek, result.temperature, checked.retry)
            last_end = get_end(window_result.segments)
            if last_end is not None:
                self._last_speech = last_end
        return window_result

    async def _add_words(self, prepared: PreparedWindow, segments: list[Segment]) -> None:
        """Add words to the segments."""
        text_tokens = [token for s in segments for token in s["tokens"] if token < prepared.tokenizer.eot]
        window, options, speech = prepared.window, self.settings.options, self.recording.speech
        self.recording.add_words(
            segments=segments,
            model=self.settings.model,
            tokenizer=prepared.tokenizer,
            num_frames=window.size,
            prepend_punctuations=options.prepend_punctuations,
            append_punctuations=options.append_punctuations,
            last_speech_timestamp=self._last_speech,
            **await self.backend.alignment_inputs(prepared.encoded, prepared.tokenizer, text_tokens),
        )
        if speech is not None:
            padding = self.settings.vad_options.speech_pad_ms / 1000
            snap_words(segments, speech.within(window.start, window.end), window.start, window.end, padding)
        if self._keeps_within:
            keep_words_within(segments, window.start, window.end)

    def _finish_window(self, result: WindowResult) -> tuple[str, ...]:
        """Update the prompt for the next window; returns the lines that verbose mode prints."""
        if result.retry:
            return ()
        lines = []
        if self.settings.options.verbose:
            lines = [verbose_line(segment) for segment in result.segments if segment["text"].strip()]
        clear_empty_segments(result.segments)
        for segment in result.segments:
            self._history.extend(segment["tokens"])
        if not self.settings.options.condition_on_previous_text or result.temperature > 0.5:
            self._history.reset()  # a text sampled at a high temperature is a bad prompt
        return tuple(lines)


def verbose_line(segment: Segment) -> str:
    """Return the line that verbose mode prints for a segment."""
    start, end = format_timestamp(segment["start"]), format_timestamp(segment["end"])
    language = f"[{segment['language']}]" if "language" in segment else ""
    return f"[{start} --> {end}] {language}{segment['text']}"
