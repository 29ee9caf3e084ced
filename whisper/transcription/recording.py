"""One recording, transcribed: read, speech and language detected, cut into chunks, window loops run.

The state of a transcription is here, never in the model, so that several can run on one model, and
an exception leaves the model as it was.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ..audit.confidence import add_confidences, calibration_for
from ..audit.report import Report, finding
from ..engine.operations import Deliver, NextDelivery, Spawn, cooperate
from ..engine.scheduler import Group
from ..options.language_names import code_of
from ..output.console import show
from ..output.progress import ProgressBar
from ..runtime.packed_model import PackedModel
from ..spans import FRAMES_PER_SECOND, N_FRAMES
from ..speech.features import Features
from ..speech.pauses import cut_at_pauses
from ..speech.vad import VadOptions, detecting_speech
from ..tokenizer import LANGUAGES
from ..utils import make_safe
from . import channels
from .language_choice import choose_language, is_doubtful
from .languages import Detection, detecting_language
from .window_decoder import RecordingContext, WindowDecoder
from .window_loop import PlainStrategy, Strategy, WindowLoop, verbose_line
from .windows import PromptHistory, intersection, join_clips, parse_clips

if TYPE_CHECKING:
    from ..audio import Source
    from ..engine.operations import RequestCoroutine
    from ..output.progress import ProgressCallback
    from ..results import Segment, Transcript
    from ..spans import FrameRange
    from ..speakers.words import Speakers
    from ..speech.vad import Speech
    from .call import Call

# `vad_filter` skips longer pauses of speech, seconds. The same figure is in the docstring of
# `transcribe`, in options/transcription.py and in docs/guide.md.
MAX_PAUSE = 1.9
# the same between padded speech segments
MAX_PADDED_PAUSE = round(MAX_PAUSE - 2 * VadOptions.speech_pad_ms / 1000, 3)

VERIFYING_WINDOWS = 4  # that detect a language that is in doubt, where the recording has so many

# Pauses that are kept with `batch_size`, or where the speech on both sides fits into one window: 4 s, as heard.
MAX_WINDOW_PAUSE_FRAMES = round((4.0 - 2 * VadOptions.speech_pad_ms / 1000) * FRAMES_PER_SECOND)

# Of the chunks that `batch_size` makes: shorter ones lose too much at the cuts, longer ones finish
# too late.
MIN_CHUNK_FRAMES = 60 * FRAMES_PER_SECOND
MAX_CHUNK_FRAMES = 180 * FRAMES_PER_SECOND


def without_pauses(speech: Speech, n_frames: int, fills_windows: bool) -> list[FrameRange]:
    """Return what is left of a recording where long pauses are skipped.

    Each skipped pause is the end of a window that may be half empty. With `fills_windows` pauses up to 4 s stay, the
    one before the first word too: as few windows as without speech detection, which is what `batch_size` is for. Text
    that begins behind a pause has fewer errors, so a single window loop skips them.
    """
    clips = speech.clips(n_frames, MAX_PADDED_PAUSE)
    if not fills_windows:
        return join_clips(clips, N_FRAMES, MAX_WINDOW_PAUSE_FRAMES)
    joined = join_clips(clips, n_frames, MAX_WINDOW_PAUSE_FRAMES)
    return [(0 if start <= MAX_WINDOW_PAUSE_FRAMES else start, end) for start, end in joined]


@dataclass(frozen=True)
class Replaceable:
    """Functions that programs replace in `whisper.transcribe`, as they are there."""

    load_audio: Callable[..., Any]
    log_mel_spectrogram: Callable[..., Any] | None  # None: not replaced
    add_words: Callable[..., None]  # `timing.add_word_timestamps`, with the arguments of `Backend`


def recording_steps(
    call: Call, audio: Source, functions: Replaceable, progress: ProgressCallback | None, label: str = ""
) -> RequestCoroutine[Any]:
    """Return the steps of one recording, mixed or channel by channel; see `Transcription`."""
    options = call.settings.options
    if options.channels == "separate":
        return _channel_steps(call, audio, functions, progress, label)
    return Transcription(call, audio, functions, progress, label, options.of_file()).steps()


async def _channel_steps(
    call: Call, audio: Source, functions: Replaceable, progress: ProgressCallback | None, label: str
) -> tuple[Transcript, Report]:
    """Transcribe the channels of a recording side by side, and merge the transcripts at the end."""
    settings = call.settings
    tracks = await cooperate(channels.reading(audio, **settings.options.of_file()), call.raise_if_cancelled)
    done = [(0.0, 0.0)] * len(tracks)

    def callback(i: int) -> ProgressCallback:
        def report_mean(seconds: float, total: float) -> None:
            done[i] = seconds, total
            if progress is not None:
                progress(sum(d for d, _ in done) / len(done), sum(t for _, t in done) / len(done))

        return report_mean

    transcriptions, running = [], []
    for i, track in enumerate(tracks):
        transcriptions.append(Transcription(call, track, functions, callback(i), f"{label}[channel {i}] "))
        running.append(await Spawn(transcriptions[i].steps(), settings.n_rows, Group(len(tracks))))
    for handle in running:
        while (await NextDelivery(handle)) is not None:
            pass
    transcript = channels.merge([one.result[0] for one in transcriptions])
    await Deliver(transcript["segments"])
    return transcript, Report.of_channels([one.result[1] for one in transcriptions], transcript["language"])


class Transcription:
    """The transcription of one recording.

    Parameters
    ----------
    call
        What it is a part of.
    audio
        The recording.
    functions
        What reads it, and adds words.
    progress
        Called after each window with the seconds that are done and the total.
    label
        Prefix of what is printed; with it, the transcription has no progress bar of its own.
    of_file
        Arguments for reading a file: see `TranscribeOptions.of_file`.
    """

    features: Features
    context: RecordingContext
    result: tuple[Transcript, Report]  # at the end

    def __init__(
        self,
        call: Call,
        audio: Source,
        functions: Replaceable,
        progress: ProgressCallback | None = None,
        label: str = "",
        of_file: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.call, self.settings = call, call.settings
        self.segments: list[Segment] = []
        self._report = Report()
        self._speakers: Speakers | None = None
        self._audio, self._functions, self._of_file = audio, functions, of_file
        self._progress, self._label = progress, label
        self._calibration = calibration_for(call.settings.model.dims)

    async def steps(self) -> tuple[Transcript, Report]:
        """Transcribe to the end."""
        self.features = await self._read()
        clips = parse_clips(self.settings.options.clip_timestamps, self.features.n_frames)
        speech = await self._find_speech()
        if speech is not None and self.settings.skips_silence:
            n_frames = self.features.n_frames
            spoken = intersection(clips, without_pauses(speech, n_frames, fills_windows=False))
            if self.settings.audits and self._is_cut(spoken):
                spoken = intersection(clips, without_pauses(speech, n_frames, fills_windows=True))
            clips = spoken
        self._report.duration = self.features.n_frames / FRAMES_PER_SECOND
        language = self.settings.decoding.language
        encoded: dict[FrameRange, Any] = {}
        if language is None:
            language = await self._detect_language(speech, encoded)
        self._report.language = language
        n_frames = sum(end - start for start, end in clips)
        self._report_progress(0, n_frames)
        self._speakers = await self._tell_speakers_apart(language)
        chunks = self._cut_into_chunks(clips, speech)
        if len(chunks) > 1:
            encoded.clear()  # windows of chunks begin elsewhere
        self.context = RecordingContext(
            features=self.features,
            language=code_of(language) or "en",
            add_words=self._functions.add_words,
            report=self._report,
            speech=speech,
            language_probs=self._report.language_probs,
            encoded=encoded,
            in_chunks=len(chunks) > 1,
        )
        await self._transcribe(chunks, n_frames)
        self._report.close(self.segments, speech, self._calibration)
        tokens = [token for segment in self.segments for token in segment["tokens"]]
        text = self.settings.tokenizer(language).decode(tokens)
        transcript: Transcript = {"text": text, "segments": self.segments, "language": language}
        if self._speakers is not None:
            from ..speakers.requested import add_to

            add_to(transcript, self._speakers)
        self.result = transcript, self._report
        return self.result

    # -- before the first window -------------------------------------------------------------------

    async def _read(self) -> Features:
        reading = Features.reading(
            self._audio,
            self.settings.model.dims.n_mels,
            load_audio=self._functions.load_audio,
            log_mel_spectrogram=self._functions.log_mel_spectrogram,
            plain=isinstance(self.settings.model, PackedModel),
            **self._of_file,
        )
        return await cooperate(reading, self.call.raise_if_cancelled)

    async def _find_speech(self) -> Speech | None:
        """Detect speech, where an option needs it."""
        if not self.settings.audits and not self.settings.skips_silence:
            return None
        detecting = detecting_speech(self.features.samples, self.features.n_samples, self.settings.vad_options)
        return await cooperate(detecting, self.call.raise_if_cancelled)

    async def _detect_language(self, speech: Speech | None, encoded: dict[FrameRange, Any]) -> str:
        """Detect the language; `encoded` keeps the encoded windows for the window loop."""
        options, candidates = self.settings.options, self.settings.languages
        n = options.language_detection_segments
        if options.verbose and len(candidates) > 1:
            part = "up to the first 30 seconds" if n == 1 and speech is None else f"up to {n} windows of 30 seconds"
            self._print(f"Detecting language using {part}. Use `--language` to specify the language")
        detect = partial(
            detecting_language,
            self.call.backend,
            self.features,
            codes=candidates,
            spans=() if speech is None else speech.spans,
            encoded=encoded,
            context=self.call.audio_context,
        )
        detection = await detect(n)
        language = detection.language
        may_be_spoken = speech is None or speech.spans
        if self.settings.verifies_language and may_be_spoken and is_doubtful(detection.probs):
            n = max(n, VERIFYING_WINDOWS)
            detection = await detect(n)
            language = await self._choose_language(detection, encoded)
        self._report.language_probs = detection.probs
        if options.verbose is not None and len(candidates) > 1:
            self._print(f"Detected language: {LANGUAGES[language].title()}")
        return language

    async def _choose_language(self, detection: Detection, encoded: dict[FrameRange, Any]) -> str:
        """Choose between the likeliest languages by their texts of the first window; see `choose_language`."""
        if not is_doubtful(detection.probs):
            return detection.language
        seek, end = min(encoded)
        seconds = (min(end, self.features.n_frames) - seek) / FRAMES_PER_SECOND
        choice = await choose_language(
            self.call.backend, self.settings.decoding, encoded[seek, end], seconds, detection.probs
        )
        self._report.language_scores = {a.language: a.score for a in choice.attempts if a.score > -math.inf}
        if choice.language != detection.language:
            span = seek / FRAMES_PER_SECOND, seek / FRAMES_PER_SECOND + seconds
            self._report.findings.append(finding("language", span, choice.language, choice.reason))
        return choice.language

    def _is_cut(self, clips: list[FrameRange]) -> bool:
        """Whether `batch_size` cuts the recording into chunks."""
        total = sum(end - start for start, end in clips)
        return (self.settings.options.batch_size or 1) > 1 and total >= 2 * MIN_CHUNK_FRAMES

    def _cut_into_chunks(self, clips: list[FrameRange], speech: Speech | None) -> list[list[FrameRange]]:
        """Return the clips of each chunk; a single chunk where nothing runs side by side."""
        if not self._is_cut(clips):
            return [clips]
        n, total = self.settings.options.batch_size or 1, sum(end - start for start, end in clips)
        target = min(max(MIN_CHUNK_FRAMES, -(-total // n)), MAX_CHUNK_FRAMES)
        longest, loudness = 3 * target // 2, self.features.loudness()
        chunks: list[list[FrameRange]] = [[]]
        length = 0
        for begin, end in clips:
            for start, stop in cut_at_pauses(loudness[begin:end], end - begin, target, longest, speech, begin):
                length += stop - start
                if chunks[-1] and length > target:
                    chunks.append([])
                    length = stop - start
                chunks[-1].append((begin + start, begin + stop))
        return chunks

    async def _tell_speakers_apart(self, language: str) -> Speakers | None:
        """Find out who speaks when, where an option asks for that."""
        if self.settings.speakers is None:
            return None
        from ..speakers.requested import speakers_of  # here, as few ask for speakers

        finding = self.settings.speakers.finding(self.features.samples, self.features.n_samples)
        found = await cooperate(finding, self.call.raise_if_cancelled)
        return speakers_of(found, self.settings.tokenizer(language))

    # -- one window loop, or several side by side --------------------------------------------------

    async def _transcribe(self, chunks: list[list[FrameRange]], n_frames: int) -> None:
        """Transcribe the clips of each chunk, `n_frames` in all: in one window loop, or side by side."""
        shown = self.settings.options.verbose is False and not self._label
        with ProgressBar(self.features.n_frames, shown) as bar:
            receive = self._receiver(bar, n_frames)
            if len(chunks) == 1:
                await self._window_loop(chunks[0], receive).steps()
            else:
                await self._run_side_by_side(chunks, receive)
            if bar.n_done < n_frames:
                self._report_progress(n_frames, n_frames)
            bar.advance(self.features.n_frames - bar.n_done)  # what is not read is done, too

    def _window_loop(
        self, clips: list[FrameRange], receive: Callable[[Deliver], None] | None = None, start: float = 0.0
    ) -> WindowLoop:
        settings = self.settings
        carries = settings.options.carry_initial_prompt
        history = PromptHistory(list(settings.initial_prompt), carries, settings.max_prompt_tokens)
        decoder = WindowDecoder(self.call, self.context)
        strategy: Strategy
        if settings.audits:
            from .audit_strategy import AuditStrategy  # here, as only transcriptions with the audit need it

            assert self.context.speech is not None
            strategy = AuditStrategy(decoder, history, self.context.speech)
        else:
            strategy = PlainStrategy(decoder, history)
        return WindowLoop(self.call, self.context, strategy, history, clips, receive, start)

    async def _run_side_by_side(self, chunks: list[list[FrameRange]], receive: Callable[[Deliver], None]) -> None:
        """Run a window loop for each chunk; deliver segments in the order of the recording."""
        running = []
        for clips in chunks:
            loop = self._window_loop(clips, start=clips[0][0] / FRAMES_PER_SECOND)
            running.append(await Spawn(loop.steps(), self.settings.n_rows, self.call.chunks))
        for handle in running:
            while (delivery := (await NextDelivery(handle))) is not None:
                receive(delivery)
                await delivery

    # -- output ------------------------------------------------------------------------------------

    def _receiver(self, bar: ProgressBar, n_frames: int) -> Callable[[Deliver], None]:
        """Return a function that receives the segments of each window, in order."""

        def receive(delivery: Deliver) -> None:
            lines = delivery.lines
            if self._speakers is not None:
                delivery.segments[:] = self._speakers.given_to(delivery.segments)
                lines = tuple(verbose_line(one) for one in delivery.segments if one["text"].strip()) if lines else ()
            for line in lines:
                self._print(line)
            for i, segment in enumerate(delivery.segments, start=len(self.segments)):
                segment["id"] = i
            if self.settings.options.word_confidence:
                add_confidences(delivery.segments, self._calibration)
            self.segments += delivery.segments
            bar.advance(delivery.n_frames)
            self._report_progress(min(bar.n_done, n_frames), n_frames)

        return receive

    def _print(self, line: str) -> None:
        show(self._label + make_safe(line), sys.stdout)

    def _report_progress(self, n_done: int, n_frames: int) -> None:
        if self._progress is not None:
            self._progress(n_done / FRAMES_PER_SECOND, n_frames / FRAMES_PER_SECOND)
