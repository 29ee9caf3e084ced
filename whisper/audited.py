"""A row of windows whose text is held against the speech in them, window by window, before it prompts anything.

Text where nobody speaks is dropped, loops are stopped, and speech that has no text is decoded again on its own. What
was done, and what remains doubtful, is noted in the recording's `Report`. Cannot hear better than the model: what fails
in every attempt is kept at its best, and noted.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from .audio import FRAMES_PER_SECOND, N_FRAMES
from .audit import Kind
from .coverage import Span, covered_by, gaps, goes_round, is_echo
from .decoding import DecodingResult
from .inventions import Evidence, why_invented
from .plan import SECOND_LOOK_BEAMS
from .results import Segment
from .segments import is_silence, needs_fallback
from .stretch import Heard, Reading, Stretch
from .vad import Speech
from .windows import Window
from .work import Job

PAD = 0.2  # seconds around speech that is decoded on its own; the model wants to hear the onset
SHORTEST = 300  # frames: a window is not cut below this when its text goes round in circles
TOKENS_PER_SECOND = 30.0  # of speech; the most wasteful scripts take 20 at normal speed
SPARE_TOKENS = 24  # timestamps, and slack for very short windows
KEPT_TEXTS = 8  # texts that a loop over several windows is looked for in


class AuditedStretch(Stretch):
    """See `Stretch`; its recording must have speech."""

    _texts: list[str]  # the last ones that were kept

    @property
    def speech(self) -> Speech:
        """Where somebody speaks."""
        assert self.recording.speech is not None
        return self.recording.speech

    def _transcribe(self, window: Window) -> Generator[Job, Any, Reading]:
        """See `Stretch`."""
        heard = yield from self._hear(window)
        result = yield from self._decode(heard)
        if result.is_loop and window.size >= 2 * SHORTEST:
            self._history.reset()
            return (yield from self._transcribe(self._half(window)))
        reading = self._read(heard, result)
        if reading.again:
            return reading
        if self._goes_round(reading.segments):
            self._history.reset()
            reading = self._read(heard, (yield from self._decode(heard)))
        reading.segments = [s for s in reading.segments if self._is_said(s, heard.language)]
        end = min(reading.seek, window.seek + window.size) / FRAMES_PER_SECOND
        for gap in gaps(self.speech.spans, covered_by(reading.segments), window.start, end):
            recovered = yield from self._recover(gap, window, reading.segments)
            reading.segments = sorted([*reading.segments, *recovered], key=lambda s: s["start"])
        self._texts = [*self._recent(), *(s["text"] for s in reading.segments)][-KEPT_TEXTS:]
        return reading

    # -- decoding ----------------------------------------------------------------------------------------

    def _decode(self, heard: Heard) -> Generator[Job, Any, DecodingResult]:
        """Decode at each temperature in turn until the text passes; the best result where none does."""
        best: DecodingResult | None = None
        changes = {"stop_loops": True, "sample_len": self._most_tokens(heard.window)}
        for temperature in self.plan.options.temperatures():
            result = yield from self._attempt(heard, temperature, prompt=self._history.prompt(), **changes)
            if self._passes(result):
                return result
            if best is None or self._rank(result) > self._rank(best):
                best = result
            self.plan.look_whether_cancelled()
        assert best is not None
        kind: Kind = "loop" if best.is_loop else "doubtful"
        why = f"no attempt passed; log-probability {best.avg_logprob:.2f}"
        self.recording.report.note(kind, (heard.window.start, heard.window.end), best.text, why)
        return best

    def _passes(self, result: DecodingResult) -> bool:
        return not result.is_loop and not needs_fallback(result, self.plan.options)

    def _rank(self, result: DecodingResult) -> tuple[bool, bool, float]:
        """What makes one failed attempt better than another."""
        most = self.plan.options.compression_ratio_threshold
        return not result.is_loop, most is None or result.compression_ratio <= most, result.avg_logprob

    def _most_tokens(self, window: Window) -> int:
        """Return how many tokens the speech in a window can fill."""
        seconds = self.speech.seconds_within(window.start, window.end)
        fixed = self.plan.decoding.sample_len or self.plan.model.dims.n_text_ctx // 2
        return min(fixed, int(TOKENS_PER_SECOND * seconds) + SPARE_TOKENS)

    def _half(self, window: Window) -> Window:
        """Return the first half of a window, up to the pause that lies nearest to its middle."""
        middle = window.start + window.duration / 2
        reach = window.duration / 4
        pauses = [(a + b) / 2 for a, b in self.speech.pauses()]
        cut = min((p for p in pauses if abs(p - middle) < reach), key=lambda p: abs(p - middle), default=middle)
        return Window(window.clip, window.seek, round(cut * FRAMES_PER_SECOND) - window.seek)

    # -- text without speech -----------------------------------------------------------------------------

    def _is_said(self, segment: Segment, language: str) -> bool:
        """Whether a segment stays; notes why it does not."""
        if not segment["text"].strip():
            return True
        span = segment["start"], segment["end"]
        evidence = Evidence(
            self.speech.seconds_within(*span),
            self.speech.highest_probability(*span),
            segment["no_speech_prob"],
            segment["avg_logprob"],
        )
        why = why_invented(segment["text"], language, evidence)
        if why is not None:
            self.recording.report.note("dropped", span, segment["text"], why)
        return why is None

    def _goes_round(self, segments: list[Segment]) -> bool:
        """Whether the text before a window is repeated in it, as the prompt may suggest."""
        return bool(self._history.prompt()) and goes_round([*self._recent(), *(s["text"] for s in segments)])

    def _recent(self) -> list[str]:
        return getattr(self, "_texts", [])

    # -- speech without text -----------------------------------------------------------------------------

    def _recover(self, gap: Span, window: Window, others: list[Segment]) -> Generator[Job, Any, list[Segment]]:
        """Decode a stretch on its own, without the text before it; returns the segments that are good."""
        note, last_speech = self.recording.report.note, self._last_speech
        seek = max(round((gap[0] - PAD) * FRAMES_PER_SECOND), 0)
        end = min(round((gap[1] + PAD) * FRAMES_PER_SECOND), seek + N_FRAMES, self.recording.features.n_frames)
        heard = yield from self._hear(Window(window.clip, seek, end - seek))
        result = yield from self._second_look(heard)
        if not self._passes(result) or is_silence(result, self.plan.options) or not result.text:
            note("uncovered", gap, result.text, f"no text passed; log-probability {result.avg_logprob:.2f}")
            return []
        segments = self._read(heard, result).segments
        self._last_speech = max(last_speech, self._last_speech)
        segments = [s for s in segments if s["text"].strip() and self._is_said(s, heard.language)]
        text = "".join(s["text"] for s in segments)
        if not text or any(is_echo(text, other["text"]) and self._is_crowded(other) for other in others):
            note("uncovered", gap, text, "what was heard stands beside it already" if text else "nothing was said")
            return []
        note("recovered", gap, text, "speech without text, decoded on its own")
        return segments

    def _second_look(self, heard: Heard) -> Generator[Job, Any, DecodingResult]:
        beams = self.plan.decoding.beam_size or SECOND_LOOK_BEAMS
        most = self._most_tokens(heard.window)
        return (yield from self._attempt(heard, 0.0, prompt=[], beam_size=beams, stop_loops=True, sample_len=most))

    def _is_crowded(self, segment: Segment) -> bool:
        """Whether a segment's time holds too little speech for its text, so that some of it was said elsewhere."""
        seconds = self.speech.seconds_within(segment["start"], segment["end"])
        return len(segment["text"].strip()) > 12.0 * seconds
