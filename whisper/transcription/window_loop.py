"""The window loop: each window begins where the last one ended, and is prompted with its text.

A strategy transcribes each window. `PlainStrategy` is the original's algorithm and nothing else;
`audit_strategy.AuditStrategy` adds the comparison of speech and text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from ..engine.operations import Deliver
from ..utils import format_timestamp
from .segments import clear_empty_segments, needs_fallback
from .windows import next_window

if TYPE_CHECKING:
    from ..results import Segment
    from ..spans import FrameRange
    from .call import Call
    from .segments import WindowResult
    from .window_decoder import RecordingContext, WindowDecoder
    from .windows import PromptHistory, Window


class Strategy(Protocol):
    """A way to transcribe a window, with what it learns from window to window."""

    async def transcribe(self, window: Window, last_speech: float) -> WindowResult:
        """Transcribe the next window; `last_speech` is the end of the last word before, seconds."""
        ...


class PlainStrategy:
    """openai-whisper's: temperature fallback, and the last attempt if none passes."""

    def __init__(self, decoder: WindowDecoder, history: PromptHistory) -> None:
        self._decoder, self._history = decoder, history

    async def transcribe(self, window: Window, last_speech: float) -> WindowResult:
        """See `Strategy`."""
        decoder = self._decoder
        prepared = await decoder.prepare(window)
        for temperature in decoder.settings.options.temperatures():
            decoded = await decoder.decode(prepared, temperature, self._history.prompt())
            if not needs_fallback(decoded, decoder.settings.options):
                break
            decoder.raise_if_cancelled()
        return await decoder.to_result(prepared, decoded, last_speech)


class WindowLoop:
    """Some clips of a recording, transcribed window by window.

    Parameters
    ----------
    call, recording
        What it is a part of.
    strategy
        Transcribes each window.
    history
        The text so far, which the strategy prompts windows with.
    clips
        In order.
    receive
        Called with the delivery of each window; None where the caller of `steps` receives them.
    start
        Seconds; words before it belong to other loops.
    """

    def __init__(
        self,
        call: Call,
        recording: RecordingContext,
        strategy: Strategy,
        history: PromptHistory,
        clips: list[FrameRange],
        receive: Callable[[Deliver], None] | None = None,
        start: float = 0.0,
    ) -> None:
        self._call, self._recording = call, recording
        self._strategy, self._history = strategy, history
        self._clips, self._receive, self._start = clips, receive, start

    async def steps(self) -> Any:
        """Transcribe window after window."""
        clip = seek = 0
        last_speech = self._start
        while (window := next_window(self._clips, clip, seek)) is not None:
            self._call.raise_if_cancelled()
            result = await self._strategy.transcribe(window, last_speech)
            last_speech = result.last_speech
            self._recording.report.findings += result.findings
            lines = self._finish_window(result)
            # always advance: timestamps that lead back to the window's start would do so again
            seek, clip = max(result.seek, window.seek + 1), window.clip
            n_done = min(self._recording.features.n_frames, seek) - window.seek
            delivery = Deliver([] if result.retry else result.segments, n_done, lines)
            if self._receive is not None:
                self._receive(delivery)
            await delivery

    def _finish_window(self, result: WindowResult) -> tuple[str, ...]:
        """Update the prompt for the next window; returns the lines that verbose mode prints."""
        if result.retry:
            return ()
        options, lines = self._call.settings.options, []
        if options.verbose:
            lines = [verbose_line(segment) for segment in result.segments if segment["text"].strip()]
        clear_empty_segments(result.segments)
        for segment in result.segments:
            self._history.extend(segment["tokens"])
        if not options.condition_on_previous_text or result.temperature > 0.5:
            self._history.reset()  # a text sampled at a high temperature is a bad prompt
        return tuple(lines)


def verbose_line(segment: Segment) -> str:
    """Return the line that verbose mode prints for a segment."""
    start, end = format_timestamp(segment["start"]), format_timestamp(segment["end"])
    language = f"[{segment['language']}]" if "language" in segment else ""
    speaker = f" {segment['speaker']}:" if "speaker" in segment else ""
    return f"[{start} --> {end}] {language}{speaker}{segment['text']}"
