"""From recordings to transcripts: reading, speech and language detection, window loops.

`TranscribeSettings` checks the options, and a `WindowLoop` decodes the windows. The state of a
transcription is in its `Transcription`, never in the model, so that several can run on one model,
and an exception leaves the model as it was.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, overload

from . import compat
from .audio import FRAMES_PER_SECOND, load_audio, log_mel_spectrogram
from .audit.report import Report
from .cli.main import cli as cli  # programs import it from here
from .decoding import DecodingOptions
from .engine.operations import Deliver, NextDelivery, RequestCoroutine, Spawn, cooperate
from .engine.scheduler import Group
from .errors import AudioError, OptionError
from .media.sources import check_read_once
from .options.language_names import code_of
from .options.transcription import (
    APPEND_PUNCTUATIONS,
    FALLBACK_TEMPERATURES,
    PREPEND_PUNCTUATIONS,
    TranscribeOptions,
)
from .options.types import check_names
from .output.console import show
from .results import Segment, Transcript
from .spans import FrameRange
from .speech.features import Features
from .speech.pauses import cut_at_pauses
from .speech.vad import Speech, VadOptions, detecting_speech
from .timing import add_word_timestamps
from .tokenizer import LANGUAGES
from .transcription import channels as channel_tracks
from .transcription.audited_loop import AuditedWindowLoop
from .transcription.languages import Detection, detecting_language
from .transcription.progress import ProgressBar, ProgressCallback, share_progress
from .transcription.settings import TranscribeSettings
from .transcription.window_loop import RecordingContext, WindowLoop
from .transcription.windows import intersection, parse_clips
from .utils import make_safe

if TYPE_CHECKING:
    from .audio import Source
    from .model import Whisper

# `vad_filter` skips longer pauses of speech, seconds. The same figure is in the docstring of
# `transcribe`, in options.py and in docs/guide.md.
MAX_PAUSE = 1.9
# the same between padded speech segments
MAX_PADDED_PAUSE = round(MAX_PAUSE - 2 * VadOptions.speech_pad_ms / 1000, 3)

# Of the chunks that `batch_size` makes: shorter ones lose too much at the cuts, longer ones finish
# too late.
MIN_CHUNK_FRAMES = 60 * FRAMES_PER_SECOND
MAX_CHUNK_FRAMES = 180 * FRAMES_PER_SECOND


@overload
def transcribe(model: Whisper, audio: Source, **options: Any) -> Transcript: ...
@overload
def transcribe(model: Whisper, audio: list[Source] | tuple[Source, ...], **options: Any) -> list[Transcript]: ...
def transcribe(
    model: Whisper,
    audio: Source | list[Source] | tuple[Source, ...],
    *,
    verbose: bool | None = None,
    temperature: float | Sequence[float] = FALLBACK_TEMPERATURES,
    compression_ratio_threshold: float | None = 2.4,
    logprob_threshold: float | None = -1.0,
    no_speech_threshold: float | None = 0.6,
    condition_on_previous_text: bool = True,
    initial_prompt: str | None = None,
    carry_initial_prompt: bool = False,
    word_timestamps: bool = False,
    prepend_punctuations: str = PREPEND_PUNCTUATIONS,
    append_punctuations: str = APPEND_PUNCTUATIONS,
    clip_timestamps: str | Sequence[float] = "0",
    hallucination_silence_threshold: float | None = None,
    batch_size: int | None = None,
    audit: bool | None = None,
    vad_filter: bool | None = None,
    vad_parameters: Mapping[str, Any] | str | None = None,
    languages: Sequence[str] | str | None = None,
    language_detection_segments: int = 1,
    multilingual: bool = False,
    channels: str = "mix",
    audio_track: int | str | None = None,
    container_time: bool = False,
    progress: Callable[[float, float], object] | None = None,
    cancel: Any = None,
    **decode_options: Any,
) -> Transcript | list[Transcript]:
    """Transcribe a recording of any length, or several.

    Parameters
    ----------
    model
        A Whisper model.
    audio
        Path, ``-`` for standard input, bytes, open file, or samples at 16 kHz; see `load_audio`. A
        list or tuple of these is transcribed side by side; each recording gives the same result as
        alone.
    verbose
        True prints each segment when it is final, False shows a progress bar, None prints nothing.
    temperature
        One temperature, or several for temperature fallback: the next one is used when a window's
        text fails `compression_ratio_threshold` or `logprob_threshold`.
    compression_ratio_threshold
        A text that zlib compresses better than this is repetitive, and fails.
    logprob_threshold
        A text whose tokens have a lower mean log-probability than this fails.
    no_speech_threshold
        A window with a higher no-speech probability than this, and a text that fails
        `logprob_threshold`, is silence.
    condition_on_previous_text
        Prompt each window with the text before it. False is less consistent, and less prone to
        repetition loops.
    initial_prompt
        Prompt of the first window, such as names or a style.
    carry_initial_prompt
        Put `initial_prompt` before the prompt of every window; less of the text before it fits
        then.
    word_timestamps
        Give each segment its ``words``, with times.
    prepend_punctuations, append_punctuations
        Marks that are joined to the word after them and to the word before them.
    clip_timestamps
        Seconds ``start,end,start,end,...`` of the clips to transcribe, as text or numbers; the last
        end may be left out.
    hallucination_silence_threshold
        With `word_timestamps`: skip silences longer than this (seconds) around probable
        hallucinations.
    batch_size
        Transcribe so many chunks of a long recording side by side. It is cut at pauses, into chunks
        of one to three minutes, and each is transcribed like a recording of its own, with all
        options; so no text prompts across a cut. None or 1 cuts nothing. Of a list, also the number
        of recordings that run at once.
    audit
        Compare speech and text, window by window: silence is skipped, repetition loops are stopped,
        hallucinations dropped, and speech without text is decoded again. None is True where
        `batch_size` is above 1. See `transcribe_with_report`.
    vad_filter
        Skip pauses longer than 1.9 s, and move word times into speech. None does what `audit` does.
    vad_parameters
        Settings of voice activity detection: fields of `vad.VadOptions`.
    languages
        Codes or names of the languages to detect, where ``language`` is not given.
    language_detection_segments
        Windows that are used to detect the language; by default the first one.
    multilingual
        Detect the language of each window; segments have a ``language`` then.
    channels
        "separate" transcribes each channel on its own; segments have a ``channel`` then. "mix"
        mixes them.
    audio_track
        Of a file with several audio tracks, the number of one, from 0, or its language.
    container_time
        Count times as a file's container does, where its sound begins late or has gaps.
    progress
        Called after each window with the seconds that are done and the total; for a list, with the
        number of recordings that are done, parts included, and the total.
    cancel
        A `threading.Event`, or the like: once it is set, the transcription ends with
        `CancelledError`.
    **decode_options
        Fields of `DecodingOptions`, such as ``language``, ``task``, ``beam_size``, ``seed`` or
        ``fp16``; all options are in docs/options.md.

    Returns
    -------
    Transcript
        A dictionary of ``text``, ``segments`` (see `results.Segment`) and ``language``; for a list,
        a list of them in its order.

    Raises
    ------
    AudioError
        The recording cannot be read. (A RuntimeError.) The first failure in a list ends the others.
    CancelledError
        It was cancelled. (A RuntimeError.)
    OptionError
        An option does not exist, or its value is wrong. (A ValueError, and a TypeError where it
        does not exist.)
    """
    options = {
        "verbose": verbose,
        "temperature": temperature,
        "compression_ratio_threshold": compression_ratio_threshold,
        "logprob_threshold": logprob_threshold,
        "no_speech_threshold": no_speech_threshold,
        "condition_on_previous_text": condition_on_previous_text,
        "initial_prompt": initial_prompt,
        "carry_initial_prompt": carry_initial_prompt,
        "word_timestamps": word_timestamps,
        "prepend_punctuations": prepend_punctuations,
        "append_punctuations": append_punctuations,
        "clip_timestamps": clip_timestamps,
        "hallucination_silence_threshold": hallucination_silence_threshold,
        "batch_size": batch_size,
        "audit": audit,
        "vad_filter": vad_filter,
        "vad_parameters": vad_parameters,
        "languages": languages,
        "language_detection_segments": language_detection_segments,
        "multilingual": multilingual,
        "channels": channels,
        "audio_track": audio_track,
        "container_time": container_time,
        "progress": progress,
        "cancel": cancel,
    }
    settings = _settings(model, "transcribe", {**options, **decode_options})
    if isinstance(audio, (list, tuple)):
        return [transcript for transcript, _ in _transcribe_all(settings, audio)]
    return _transcribe_one(settings, audio)[0]


@overload
def transcribe_with_report(model: Whisper, audio: Source, **options: Any) -> tuple[Transcript, Report]: ...
@overload
def transcribe_with_report(
    model: Whisper, audio: list[Source] | tuple[Source, ...], **options: Any
) -> list[tuple[Transcript, Report]]: ...
def transcribe_with_report(
    model: Whisper, audio: Source | list[Source] | tuple[Source, ...], **options: Any
) -> tuple[Transcript, Report] | list[tuple[Transcript, Report]]:
    """Transcribe, with a report: what the audit corrected, and what remains doubtful.

    Parameters
    ----------
    model, audio
        See `transcribe`.
    **options
        Those of `transcribe`; ``audit`` is True unless it is given.

    Returns
    -------
    transcript
        What `transcribe` returns.
    report
        The spans of speech and of text, and each place where the two disagree (`audit.Report`). For
        a list, a list of such pairs.

    Raises
    ------
    AudioError, OptionError, CancelledError
        See `transcribe`.
    """
    settings = _settings(model, "transcribe_with_report", {"audit": True, **options})
    if isinstance(audio, (list, tuple)):
        return _transcribe_all(settings, audio)
    return _transcribe_one(settings, audio)


def iter_segments(model: Whisper, audio: Source, **options: Any) -> Iterator[Segment]:
    """Transcribe a recording, and yield its segments as soon as they are final.

    Parameters
    ----------
    model, audio
        See `transcribe`; a list is not accepted here.
    **options
        Those of `transcribe`.

    Yields
    ------
    Segment
        As in ``segments`` of `transcribe`. The transcription advances while the next segment is
        waited for; closing the iterator ends it.

    Raises
    ------
    AudioError, OptionError, CancelledError
        See `transcribe`; for wrong options at once, for the others during iteration.
    """
    if isinstance(audio, (list, tuple)):
        raise OptionError("iter_segments() takes one recording, and not a list: call it for each, or transcribe()")
    settings = _settings(model, "iter_segments", options)

    def segments() -> Iterator[Segment]:
        yield from settings.start(_recording_steps(settings, audio, settings.options.progress))

    return segments()


def _settings(model: Whisper, function: str, given: dict[str, Any]) -> TranscribeSettings:
    """Check the options of a call of `function`."""
    check_names(given, function, TranscribeOptions, DecodingOptions)
    names = {field.name for field in fields(TranscribeOptions)}
    options = TranscribeOptions(**{name: value for name, value in given.items() if name in names})
    decoding = DecodingOptions(**{name: value for name, value in given.items() if name not in names})
    return TranscribeSettings(model, options, decoding)


def _transcribe_one(settings: TranscribeSettings, audio: Source) -> tuple[Transcript, Report]:
    steps = _recording_steps(settings, audio, settings.options.progress)
    result: tuple[Transcript, Report] = settings.start(steps).result()
    return result


def _transcribe_all(settings: TranscribeSettings, audios: Sequence[Source]) -> list[tuple[Transcript, Report]]:
    """Transcribe recordings side by side; an error of one ends all."""
    if any(isinstance(audio, (int, float)) for audio in audios):
        raise AudioError("a list means several recordings: give the samples of one as a numpy array or tensor")
    check_read_once(audios)
    options, n = settings.options, len(audios)
    callbacks = share_progress(options.progress, n) if options.progress else [None] * n
    caller, group = settings.caller(), None if options.batch_size is None else Group(options.batch_size)
    requests = [
        settings.start(_recording_steps(settings, audio, progress, f"[{i} of {n}] "), caller, group)
        for i, (audio, progress) in enumerate(zip(audios, callbacks, strict=True), start=1)
    ]
    results: list[tuple[Transcript, Report]] = []
    try:
        with ProgressBar(n, options.verbose is False, "recordings") as bar:
            for request in requests:
                results.append(request.result())
                bar.advance(1)
    finally:
        for request in requests:
            request.cancel()  # has no effect on finished ones
    return results


def _recording_steps(
    settings: TranscribeSettings, audio: Source, progress: ProgressCallback | None, label: str = ""
) -> RequestCoroutine[Any]:
    """Return the steps of one recording, mixed or channel by channel."""
    if settings.options.channels == "separate":
        return _channel_steps(settings, audio, progress, label)
    return Transcription(settings, audio, progress, label, settings.options.of_file()).steps()


async def _channel_steps(
    settings: TranscribeSettings, audio: Source, progress: ProgressCallback | None, label: str
) -> Any:
    """Transcribe the channels of a recording side by side, and merge the transcripts at the end."""
    reading = channel_tracks.reading(audio, **settings.options.of_file())
    tracks = await cooperate(reading, settings.raise_if_cancelled)
    done = [(0.0, 0.0)] * len(tracks)

    def callback(i: int) -> ProgressCallback:
        def report_mean(seconds: float, total: float) -> None:
            done[i] = seconds, total
            if progress is not None:
                progress(sum(d for d, _ in done) / len(done), sum(t for _, t in done) / len(done))

        return report_mean

    transcriptions, running = [], []
    for i, track in enumerate(tracks):
        transcriptions.append(Transcription(settings, track, callback(i), f"{label}[channel {i}] "))
        running.append(await Spawn(transcriptions[i].steps(), settings.n_rows, Group(len(tracks))))
    for handle in running:
        while (await NextDelivery(handle)) is not None:
            pass
    transcript = channel_tracks.merge([one.result[0] for one in transcriptions])
    await Deliver(transcript["segments"])
    return transcript, Report.of_channels([one.result[1] for one in transcriptions], transcript["language"])


class Transcription:
    """The transcription of one recording.

    Parameters
    ----------
    progress
        Called after each window with the seconds that are done and the total.
    label
        Prefix of what is printed; with it, the transcription has no progress bar of its own.
    of_file
        Arguments for reading a file: see `TranscribeOptions.of_file`.
    """

    features: Features
    recording: RecordingContext
    result: tuple[Transcript, Report]  # at the end

    def __init__(
        self,
        settings: TranscribeSettings,
        audio: Source,
        progress: ProgressCallback | None = None,
        label: str = "",
        of_file: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.settings, self._of_file = settings, of_file
        self.segments: list[Segment] = []
        self._report = Report()
        self._audio, self._progress, self._label = audio, progress, label

    async def steps(self) -> Any:
        """Transcribe to the end."""
        settings, options = self.settings, self.settings.options
        reading = Features.reading(
            self._audio,
            settings.model.dims.n_mels,
            load_audio=load_audio,
            log_mel_spectrogram=log_mel_spectrogram if compat.replaced("transcribe.log_mel_spectrogram") else None,
            **self._of_file,
        )
        self.features = await cooperate(reading, settings.raise_if_cancelled)
        clips = parse_clips(options.clip_timestamps, self.features.n_frames)
        speech: Speech | None = None
        if settings.audits or settings.skips_silence:
            detection = detecting_speech(self.features.samples, self.features.n_samples, settings.vad_options)
            speech = await cooperate(detection, settings.raise_if_cancelled)
        if speech is not None and settings.skips_silence:
            spoken = speech.clips(self.features.n_frames, MAX_PADDED_PAUSE)
            clips = intersection(clips, spoken)
        report = self._report
        report.duration = self.features.n_frames / FRAMES_PER_SECOND
        language = settings.decoding.language
        encoded: dict[int, Any] = {}
        if language is None:
            language = await self._detect_language(speech, encoded)
        report.language = language
        self.recording = RecordingContext(
            self.features, code_of(language) or "en", self._add_words, report, speech, report.language_probs, encoded
        )
        n_frames = sum(end - start for start, end in clips)
        self._report_progress(0, n_frames)
        with ProgressBar(self.features.n_frames, options.verbose is False and not self._label) as bar:
            receive = self._receiver(bar, n_frames)
            chunks = self._cut_into_chunks(clips)
            self.recording.in_chunks = len(chunks) > 1
            if len(chunks) == 1:
                await self._window_loop(chunks[0], receive).steps()
            else:
                await self._run_side_by_side(chunks, receive)
        if bar.n_done < n_frames:
            self._report_progress(n_frames, n_frames)
        tokens = [token for segment in self.segments for token in segment["tokens"]]
        report.close(self.segments, speech)
        transcript: Transcript = {
            "text": settings.tokenizer(language).decode(tokens),
            "segments": self.segments,
            "language": language,
        }
        self.result = transcript, report
        return self.result

    def _window_loop(
        self, clips: list[FrameRange], receive: Callable[[Deliver], None] | None = None, start: float = 0.0
    ) -> WindowLoop:
        kind = AuditedWindowLoop if self.settings.audits else WindowLoop
        return kind(self.settings, self.recording, clips, receive, start)

    # -- before the first window -------------------------------------------------------------------

    async def _detect_language(self, speech: Speech | None, encoded: dict[int, Any]) -> str:
        """Detect the language; `encoded` keeps the encoded windows for the window loop."""
        settings, options = self.settings, self.settings.options
        n = options.language_detection_segments
        if options.verbose and len(settings.languages) > 1:
            part = "up to the first 30 seconds" if n == 1 and speech is None else f"up to {n} windows of 30 seconds"
            self._print(f"Detecting language using {part}. Use `--language` to specify the language")
        spans = () if speech is None else speech.spans
        detection: Detection = await detecting_language(
            settings.backend, self.features, n, settings.languages, spans, encoded
        )
        self._report.language_probs = detection.probs
        if options.verbose is not None and len(settings.languages) > 1:
            self._print(f"Detected language: {LANGUAGES[detection.language].title()}")
        return detection.language

    # -- one window loop, or several side by side --------------------------------------------------

    def _cut_into_chunks(self, clips: list[FrameRange]) -> list[list[FrameRange]]:
        """Return the clips of each chunk; a single chunk where nothing runs side by side."""
        n, total = self.settings.options.batch_size or 1, sum(end - start for start, end in clips)
        if n == 1 or total < 2 * MIN_CHUNK_FRAMES:
            return [clips]
        target = min(max(MIN_CHUNK_FRAMES, -(-total // n)), MAX_CHUNK_FRAMES)
        longest, loudness = 3 * target // 2, self.features.loudness()
        chunks: list[list[FrameRange]] = [[]]
        length = 0
        speech = self.recording.speech
        for begin, end in clips:
            for start, stop in cut_at_pauses(loudness[begin:end], end - begin, target, longest, speech, begin):
                length += stop - start
                if chunks[-1] and length > target:
                    chunks.append([])
                    length = stop - start
                chunks[-1].append((begin + start, begin + stop))
        return chunks

    async def _run_side_by_side(self, chunks: list[list[FrameRange]], receive: Callable[[Deliver], None]) -> None:
        """Run a window loop for each chunk; deliver segments in the order of the recording."""
        self.recording.encoded.clear()
        running = []
        for clips in chunks:
            loop = self._window_loop(clips, start=clips[0][0] / FRAMES_PER_SECOND)
            running.append(await Spawn(loop.steps(), self.settings.n_rows, self.settings.chunks))
        for handle in running:
            while (delivery := (await NextDelivery(handle))) is not None:
                receive(delivery)
                await delivery

    @staticmethod
    def _add_words(**arguments: Any) -> None:
        """Add words, by this module's `add_word_timestamps`, which a program may have replaced."""
        # a replacement does not know the fast path
        if compat.replaced("transcribe.add_word_timestamps"):
            arguments = {name: value for name, value in arguments.items() if name != "attention"}
        add_word_timestamps(**arguments)

    # -- output ------------------------------------------------------------------------------------

    def _receiver(self, bar: ProgressBar, n_frames: int) -> Callable[[Deliver], None]:
        """Return a function that receives the segments of each window, in order."""

        def receive(delivery: Deliver) -> None:
            for line in delivery.lines:
                self._print(line)
            for i, segment in enumerate(delivery.segments, start=len(self.segments)):
                segment["id"] = i
            self.segments += delivery.segments
            bar.advance(delivery.n_frames)
            self._report_progress(min(bar.n_done, n_frames), n_frames)

        return receive

    def _print(self, line: str) -> None:
        show(self._label + make_safe(line), sys.stdout)

    def _report_progress(self, n_done: int, n_frames: int) -> None:
        if self._progress is not None:
            self._progress(n_done / FRAMES_PER_SECOND, n_frames / FRAMES_PER_SECOND)


compat.remember("transcribe.add_word_timestamps", (globals(), ["add_word_timestamps"]))
compat.remember("transcribe.log_mel_spectrogram", (globals(), ["log_mel_spectrogram"]))
