"""A row of windows: each begins where, and with the text that, the last one left.

What a window means is decided by the pure functions of `windows` and `segments`, and how the model is asked, in
`hearing`. This is the original's algorithm and nothing else; `audited` is the same with speech held against the text.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from .audio import N_FRAMES, pad_or_trim
from .audit import Report
from .decoding import DecodingResult
from .features import Features
from .hearing import Hearing
from .languages import Following
from .plan import Plan
from .results import Segment
from .segments import (
    clear_empty,
    cut_tokens,
    drop_invented,
    is_silence,
    keep_within,
    keep_words_within,
    make_segments,
    needs_fallback,
    seek_after_words,
)
from .snapping import snap_words
from .tokenizer import Tokenizer
from .utils import exact_div, format_timestamp, get_end
from .vad import Speech
from .windows import Clip, PromptHistory, Window, next_window
from .work import Deliver, Job, Steps


@dataclass
class Recording:
    """What all stretches of a recording share."""

    features: Features
    language: str  # that of all windows, unless each has its own
    add_words: Callable[..., None]  # `timing.add_word_timestamps`, or what a program has put in its place
    report: Report
    speech: Speech | None = None  # where somebody speaks, if that was looked at
    language_probs: dict[str, float] = field(default_factory=dict)  # empty where the language was told
    encoded: dict[int, Any] = field(default_factory=dict)  # windows, by first frame, that the language was detected on
    in_parts: bool = False  # cut into stretches that are transcribed side by side

    def take_encoded(self, window: Window) -> Any:
        """Return a window as it was encoded for the language; None where it was not."""
        encoded = self.encoded.pop(window.seek, None)
        return encoded if window.size == N_FRAMES else None  # a shorter one is filled up with zeros, not with sound


@dataclass
class Heard:
    """A window as the model listens to it."""

    window: Window
    encoded: Any  # what the `Hearing` makes of it
    language: str
    tokenizer: Tokenizer  # for that language


@dataclass
class Reading:
    """What a window gave."""

    segments: list[Segment]
    seek: int  # frame at which the next window begins
    temperature: float = 0.0
    again: bool = False  # nothing is kept, and the sound from `seek` on is decoded anew


class Stretch:
    """Clips of a recording, window after window.

    Parameters
    ----------
    take
        Given what each window delivers; where None, somebody else takes it.
    begins_at
        Before here, in seconds, there are words that this stretch does not know.
    """

    def __init__(
        self,
        plan: Plan,
        recording: Recording,
        clips: list[Clip],
        take: Callable[[Deliver], None] | None = None,
        begins_at: float = 0.0,
    ) -> None:
        self.plan, self.recording = plan, recording
        self._clips, self._take = clips, take
        self._history = PromptHistory(plan.initial_prompt, plan.options.carry_initial_prompt, plan.prompt_room)
        self._last_speech = begins_at  # where the last word ended, seconds
        switches = plan.options.multilingual and recording.language_probs
        self._following = Following(recording.language_probs) if switches else None

    @property
    def _keeps_within(self) -> bool:
        """Whether no time may lie outside the sound."""
        return self.plan.keeps_within or self.recording.in_parts

    @property
    def hearing(self) -> Hearing:
        """How the model is asked."""
        return self.plan.hearing

    def steps(self) -> Steps:
        """Decode window after window."""
        clip = seek = 0
        while (window := next_window(self._clips, clip, seek)) is not None:
            self.plan.look_whether_cancelled()
            reading = yield from self._transcribe(window)
            lines = self._finish(reading)
            # never stand still: times that lead back to the window's own start would lead there again
            seek, clip = max(reading.seek, window.seek + 1), window.clip
            done = min(self.recording.features.n_frames, seek) - window.seek
            news = Deliver([] if reading.again else reading.segments, done, lines)
            if self._take is not None:
                self._take(news)
            yield news

    def _transcribe(self, window: Window) -> Generator[Job, Any, Reading]:
        """Hear a window and return what it gave."""
        heard = yield from self._hear(window)
        result = yield from self._decode(heard)
        return self._read(heard, result)

    def _hear(self, window: Window) -> Generator[Job, Any, Heard]:
        encoded = self.recording.take_encoded(window)
        if encoded is None:
            mel: Tensor = self.recording.features.window(window.seek, window.size)
            encoded = yield from self.hearing.encode(pad_or_trim(mel, N_FRAMES))
        language = self.recording.language
        if self._following is not None:
            language = yield from self._following.hear(self.hearing, encoded)
        return Heard(window, encoded, language, self.plan.tokenizer(language))

    def _decode(self, heard: Heard) -> Generator[Job, Any, DecodingResult]:
        """Decode at each temperature in turn until the text passes; the last result where none does."""
        for temperature in self.plan.options.temperatures():
            result = yield from self._attempt(heard, temperature, prompt=self._history.prompt())
            if not needs_fallback(result, self.plan.options):
                break
            self.plan.look_whether_cancelled()
        return result

    def _attempt(self, heard: Heard, temperature: float, **changes: Any) -> Generator[Job, Any, DecodingResult]:
        """Decode once."""
        plan = self.plan
        seed = plan.seed(heard.window, temperature)
        options = plan.at(temperature, language=heard.language, seed=seed, **changes)
        return (yield from self.hearing.decode(heard.encoded, options))

    # -- what the tokens mean ----------------------------------------------------------------------------

    def _read(self, heard: Heard, result: DecodingResult) -> Reading:
        """Make segments of a window's tokens, and find where to go on."""
        window, options, tokenizer = heard.window, self.plan.options, heard.tokenizer
        if is_silence(result, options):
            return Reading([], window.seek + window.size, result.temperature)
        stride = exact_div(N_FRAMES, self.plan.model.dims.n_audio_ctx)
        cut = cut_tokens(result.tokens, window, tokenizer.timestamp_begin, stride)
        segments = make_segments(cut, window, result, result.temperature, tokenizer.eot, tokenizer.decode)
        if self._keeps_within:
            keep_within(segments, window.start, window.end)
        if options.multilingual:
            for segment in segments:
                segment["language"] = heard.language
        reading = Reading(segments, cut.seek, result.temperature)
        if options.word_timestamps:
            self._place_words(heard, segments)
            reading.seek = seek_after_words(cut, segments, window)
            threshold = options.hallucination_silence_threshold
            if threshold is not None:
                n_frames = self.recording.features.n_frames
                kept = drop_invented(segments, cut, window, n_frames, threshold, self._last_speech)
                reading.segments, reading.seek, reading.again = kept.segments, kept.seek, kept.again
            last_end = get_end(reading.segments)
            if last_end is not None:
                self._last_speech = last_end
        return reading

    def _place_words(self, heard: Heard, segments: list[Segment]) -> None:
        """Give the segments words."""
        window, options, speech = heard.window, self.plan.options, self.recording.speech
        self.recording.add_words(
            segments=segments,
            model=self.plan.model,
            tokenizer=heard.tokenizer,
            num_frames=window.size,
            prepend_punctuations=options.prepend_punctuations,
            append_punctuations=options.append_punctuations,
            last_speech_timestamp=self._last_speech,
            **self.hearing.to_align(heard.encoded),
        )
        if speech is not None:
            padding = self.plan.vad_options.speech_pad_ms / 1000
            snap_words(segments, speech.within(window.start, window.end), window.start, window.end, padding)
        if self._keeps_within:
            keep_words_within(segments, window.start, window.end)

    def _finish(self, reading: Reading) -> tuple[str, ...]:
        """Remember what the next window is told; returns the segments for people."""
        if reading.again:
            return ()
        spoken = [segment for segment in reading.segments if segment["text"].strip()]
        lines = tuple(map(_line, spoken)) if self.plan.options.verbose else ()
        clear_empty(reading.segments)
        for segment in reading.segments:
            self._history.extend(segment["tokens"])
        if not self.plan.options.condition_on_previous_text or reading.temperature > 0.5:
            self._history.reset()  # a hot sample is no good example for what follows
        return lines


def _line(segment: Segment) -> str:
    """A segment for people."""
    language = f"[{segment['language']}]" if "language" in segment else ""
    times = f"[{format_timestamp(segment['start'])} --> {format_timestamp(segment['end'])}]"
    return f"{times} {language}{segment['text']}"
