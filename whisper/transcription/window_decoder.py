"""The decoding of single windows: encoded, decoded at one temperature, and made into segments.

What to do with a window that fails is for the strategies (`window_loop.PlainStrategy` and
`audit_strategy.AuditStrategy`), which call this for each attempt. An attempt is a value: this keeps
nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..spans import N_FRAMES
from ..utils import exact_div, get_end
from .audio_context import WHOLE, bounded, is_doubtful
from .languages import LanguageTracker
from .segments import (
    WindowResult,
    add_token_logprobs,
    is_silence,
    keep_within,
    keep_words_within,
    make_segments,
    seek_after_words,
    skip_hallucinations,
    split_at_timestamps,
)
from .word_snapping import delay_of, snap_words, undo_delay

if TYPE_CHECKING:
    from ..audit.report import Report
    from ..decoding import DecodingResult
    from ..results import Segment
    from ..spans import FrameRange
    from ..speech.features import Features
    from ..speech.vad import Speech
    from ..tokenizer import Tokenizer
    from .audio_context import AudioContext
    from .call import Call
    from .windows import Window


@dataclass(frozen=True)
class RecordingContext:
    """What all window loops of a recording share."""

    features: Features
    language: str  # of all windows, unless it is detected for each
    add_words: Callable[..., None]  # `timing.add_word_timestamps`, or a program's replacement of it
    report: Report
    speech: Speech | None = None  # where it was detected
    # empty where the language was given
    language_probs: dict[str, float] = field(default_factory=dict)
    # windows of language detection
    encoded: dict[FrameRange, Any] = field(default_factory=dict)
    in_chunks: bool = False  # the recording is cut into chunks that are transcribed side by side

    def take_encoded(self, window: Window) -> Any:
        """Return a window as it was encoded for language detection; None where it was not."""
        return self.encoded.pop((window.seek, window.seek + window.size), None)


@dataclass
class PreparedWindow:
    """A window, encoded, with its language."""

    window: Window
    encoded: Any  # by the `Backend`
    language: str
    tokenizer: Tokenizer  # for that language
    is_short: bool = False  # the encoder read less than 30 s; until a text was doubtful


class WindowDecoder:
    """Runs the model on windows of a recording, and makes segments of its texts.

    Attributes
    ----------
    settings
        Those of the call.
    raise_if_cancelled
        Raises `CancelledError` if the caller has cancelled the transcription.
    """

    def __init__(self, call: Call, recording: RecordingContext) -> None:
        self.settings, self.raise_if_cancelled = call.settings, call.raise_if_cancelled
        self._backend, self._context, self._recording = call.backend, call.audio_context, recording
        detects = call.settings.options.multilingual and recording.language_probs
        # by which word times are moved; without speech detection they stay the original's
        self._delay = 0.0 if recording.speech is None else delay_of(call.settings.model.dims)
        self._tracker = LanguageTracker(recording.language_probs) if detects else None

    async def prepare(self, window: Window) -> PreparedWindow:
        """Encode a window, and detect its language where each window has its own."""
        encoded = self._recording.take_encoded(window)
        if encoded is None:
            encoded = await self._encode(window, self._context)
        language = self._recording.language
        if self._tracker is not None:
            language = await self._tracker.detect(self._backend, encoded)
        is_short = self._context.is_short(window.size)
        return PreparedWindow(window, encoded, language, self.settings.tokenizer(language), is_short)

    async def _encode(self, window: Window, context: AudioContext) -> Any:
        return await self._backend.encode(context.mel(self._recording.features, window.seek, window.size))

    async def decode(
        self, prepared: PreparedWindow, temperature: float, prompt: Sequence[int], **changes: Any
    ) -> DecodingResult:
        """Decode a window once; `changes` are of its `DecodingOptions`.

        Where the encoder has read less than 30 s and the text is doubtful, all 30 s are encoded and decoded, here and
        at later calls.
        """
        seed = self.settings.seed(prepared.window, temperature)
        changes |= {"language": prepared.language, "seed": seed, "prompt": prompt}
        decoding = self.settings.decoding.at(temperature, **changes)
        if prepared.is_short:
            size, timestamp_begin = prepared.window.size, prepared.tokenizer.timestamp_begin
            decoded = await self._backend.decode(prepared.encoded, bounded(decoding, size))
            if not is_doubtful(decoded, size, self.settings.options, timestamp_begin):
                return decoded
            prepared.encoded, prepared.is_short = await self._encode(prepared.window, WHOLE), False
        return await self._backend.decode(prepared.encoded, decoding)

    async def to_result(self, prepared: PreparedWindow, decoded: DecodingResult, last_speech: float) -> WindowResult:
        """Make segments of a window's tokens, and find the next seek.

        Parameters
        ----------
        prepared, decoded
            The window, and its tokens.
        last_speech
            End of the last word before, seconds.
        """
        window, options, tokenizer = prepared.window, self.settings.options, prepared.tokenizer
        if is_silence(decoded, options):
            return WindowResult([], window.seek + window.size, last_speech, decoded.temperature)
        stride = exact_div(N_FRAMES, self.settings.model.dims.n_audio_ctx)
        split = split_at_timestamps(decoded.tokens, window, tokenizer.timestamp_begin, stride)
        segments = make_segments(split, window, decoded, decoded.temperature, tokenizer.eot, tokenizer.decode)
        if options.token_logprobs:
            add_token_logprobs(segments, decoded.token_logprobs)
        if self._keeps_within:
            keep_within(segments, window.start, window.end)
        if options.multilingual:
            for segment in segments:
                segment["language"] = prepared.language
        result = WindowResult(segments, split.seek, last_speech, decoded.temperature)
        if not options.word_timestamps:
            return result
        await self._add_words(prepared, segments, last_speech)
        result = replace(result, seek=seek_after_words(split, segments, window, self._delay))
        threshold = options.hallucination_silence_threshold
        if threshold is not None:
            n_frames = self._recording.features.n_frames
            checked = skip_hallucinations(segments, split, window, n_frames, threshold, last_speech)
            result = replace(result, segments=checked.segments, seek=checked.seek, retry=checked.retry)
        last_end = get_end(result.segments)
        return result if last_end is None else replace(result, last_speech=last_end)

    async def _add_words(self, prepared: PreparedWindow, segments: list[Segment], last_speech: float) -> None:
        """Add words to the segments."""
        text_tokens = [token for s in segments for token in s["tokens"] if token < prepared.tokenizer.eot]
        window, options, speech = prepared.window, self.settings.options, self._recording.speech
        self._recording.add_words(
            segments=segments,
            model=self.settings.model,
            tokenizer=prepared.tokenizer,
            num_frames=window.size,
            prepend_punctuations=options.prepend_punctuations,
            append_punctuations=options.append_punctuations,
            last_speech_timestamp=last_speech,
            **await self._backend.alignment_inputs(prepared.encoded, prepared.tokenizer, text_tokens),
        )
        if speech is not None:
            padding = self.settings.vad_options.speech_pad_ms / 1000
            undo_delay(segments, self._delay, window.start, window.end)
            snap_words(segments, speech.within(window.start, window.end), window.start, window.end, padding)
        if self._keeps_within:
            keep_words_within(segments, window.start, window.end)

    @property
    def _keeps_within(self) -> bool:
        """Whether no time may lie outside of the recording."""
        return self.settings.keeps_within or self._recording.in_chunks
