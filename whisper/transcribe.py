"""A whole recording to its transcript, window after window; several side by side where there is an engine.

Sound comes in at the top and segments go out at the bottom; what the options mean is settled in `plan`, and windows
are decoded in `stretch`. The state of a transcription lives in its `Transcription`, never in the model, so that several
may run on one model, and an exception leaves the model as it was.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, overload

from . import channels
from .audio import FRAMES_PER_SECOND, load_audio, log_mel_spectrogram
from .audit import Report
from .audited import AuditedStretch
from .cli import cli as cli  # programs look for it here
from .console import show
from .decoding import DecodingOptions
from .errors import AudioError, OptionError
from .features import Features
from .language_names import code_of
from .languages import Detection
from .languages import detecting as detecting_language
from .options import (
    APPEND_PUNCTUATIONS,
    FALLBACK_TEMPERATURES,
    PREPEND_PUNCTUATIONS,
    TranscribeOptions,
    check_names,
)
from .pauses import stretches
from .plan import Plan
from .progress import Bar, shares
from .progress import Report as Tell
from .results import Segment, Transcript
from .scheduler import Group
from .sources import check_read_once
from .stretch import Recording, Stretch
from .timing import add_word_timestamps
from .tokenizer import LANGUAGES
from .utils import make_safe
from .vad import Speech, detecting
from .windows import Clip, common, parse_clips
from .work import Deliver, Job, Next, Spawn, Steps, pausing

if TYPE_CHECKING:
    from .audio import Source
    from .model import Whisper

_add_word_timestamps = add_word_timestamps

LONGEST_PAUSE = 1.5  # seconds, without the padding of speech: with `vad_filter`, longer ones part windows

# with `batch_size`: what is cut shorter loses too much at the cuts, what is cut longer ends too late
SHORTEST_STRETCH = 60 * FRAMES_PER_SECOND
LONGEST_STRETCH = 180 * FRAMES_PER_SECOND


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
        Path, ``-`` for standard input, bytes, open file, or samples at 16 kHz; see `load_audio`. A list or tuple of
        these is transcribed side by side, each recording to what it gives alone.
    verbose
        True prints each segment as it comes, False shows a progress bar, None prints nothing.
    temperature
        One temperature, or a ladder of them: each next one is tried when a window's text fails
        `compression_ratio_threshold` or `logprob_threshold`.
    compression_ratio_threshold
        A text that zlib packs tighter than this repeats itself, and fails.
    logprob_threshold
        A text whose tokens have a lower mean log-probability than this fails.
    no_speech_threshold
        With a higher no-speech probability than this, and a text that fails `logprob_threshold`, a window counts
        as silence.
    condition_on_previous_text
        Prompt each window with the text before it. False is less consistent, and less prone to loops.
    initial_prompt
        Prompt of the first window, such as names or a style.
    carry_initial_prompt
        Put `initial_prompt` before every window's prompt, shortening the text after it where place is scarce.
    word_timestamps
        Give each segment its ``words``, with times.
    prepend_punctuations, append_punctuations
        Marks that are joined to the word after them and to the word before them.
    clip_timestamps
        Seconds ``start,end,start,end,...`` of the clips to transcribe, as text or numbers; the last end may be
        left out.
    hallucination_silence_threshold
        With `word_timestamps`: skip silences longer than this (seconds) around text that looks invented.
    batch_size
        Transcribe so many stretches of a long recording side by side. It is cut at pauses, into stretches of one to a
        few minutes, and each is transcribed as a recording of its own would be, with all options; so the text before
        a cut prompts nothing behind it. None or 1 cuts nothing. Of a list, so many recordings at once, too.
    audit
        Hold speech and text against each other, window by window: silence is skipped, loops end, text where nobody
        speaks is dropped, and speech without text is decoded again. None is True where `batch_size` is above 1. See
        `transcribe_with_report`.
    vad_filter
        Skip pauses of speech longer than 1.5 s, and place words in speech alone. None does what `audit` does.
    vad_parameters
        How speech is found: fields of `vad.VadOptions`.
    languages
        Codes or names of the languages to choose among, where ``language`` is not given.
    language_detection_segments
        How many windows are asked for the language; by default the first.
    multilingual
        Detect the language of each window; segments have a ``language`` then.
    channels
        "separate" transcribes each channel on its own; segments have a ``channel`` then. "mix" is one recording.
    audio_track
        Of a file with several audio tracks, the number of one, from 0, or its language.
    container_time
        Count times as a file's container does, where its sound begins late or has gaps.
    progress
        Called after each window with the seconds that are done and the seconds that there are; for a list, with how
        many recordings are done (a part of one counts as such) and how many there are.
    cancel
        Something like a `threading.Event`: once it is set, the transcription ends with `CancelledError`.
    **decode_options
        Fields of `DecodingOptions`, such as ``language``, ``task``, ``beam_size``, ``seed`` or ``fp16``; all options
        are in docs/options.md.

    Returns
    -------
    Transcript
        A dictionary of ``text``, ``segments`` (see `results.Segment`) and ``language``; of a list, a list of them in
        its order.

    Raises
    ------
    AudioError
        The recording cannot be read. (A RuntimeError.) The first in a list that fails ends the others.
    CancelledError
        It was cancelled. (A RuntimeError.)
    OptionError
        An option does not exist, or its value is wrong. (A ValueError, and a TypeError where it does not exist.)
    """
    settings = {name: value for name, value in {**locals()}.items() if name not in ("model", "audio", "decode_options")}
    plan = _plan(model, "transcribe", {**settings, **decode_options})
    if isinstance(audio, (list, tuple)):
        return [transcript for transcript, _ in _transcribe_all(plan, audio)]
    return _transcribe_one(plan, audio)[0]


@overload
def transcribe_with_report(model: Whisper, audio: Source, **options: Any) -> tuple[Transcript, Report]: ...
@overload
def transcribe_with_report(
    model: Whisper, audio: list[Source] | tuple[Source, ...], **options: Any
) -> list[tuple[Transcript, Report]]: ...
def transcribe_with_report(
    model: Whisper, audio: Source | list[Source] | tuple[Source, ...], **options: Any
) -> tuple[Transcript, Report] | list[tuple[Transcript, Report]]:
    """Transcribe, and account for it: what was mended, and what remains doubtful.

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
        Where somebody speaks, where text stands, and each place where the two did not fit (`audit.Report`). Of a
        list, a list of such pairs.

    Raises
    ------
    AudioError, OptionError, CancelledError
        See `transcribe`.
    """
    plan = _plan(model, "transcribe_with_report", {"audit": True, **options})
    if isinstance(audio, (list, tuple)):
        return _transcribe_all(plan, audio)
    return _transcribe_one(plan, audio)


def iter_segments(model: Whisper, audio: Source, **options: Any) -> Iterator[Segment]:
    """Transcribe a recording, and give out its segments as soon as they are certain.

    Parameters
    ----------
    model, audio
        See `transcribe`; a list is not taken here.
    **options
        Those of `transcribe`.

    Yields
    ------
    Segment
        What `transcribe` puts under ``segments``. The work goes on while the next segment is waited for; closing
        the iterator ends it.

    Raises
    ------
    AudioError, OptionError, CancelledError
        See `transcribe`; wrong options at once, the others when it is iterated over.
    """
    if isinstance(audio, (list, tuple)):
        raise OptionError("iter_segments() takes one recording, and not a list: call it for each, or transcribe()")
    plan = _plan(model, "iter_segments", options)

    def segments() -> Iterator[Segment]:
        yield from plan.start(_request(plan, audio, plan.options.progress))

    return segments()


def _plan(model: Whisper, function: str, given: dict[str, Any]) -> Plan:
    """Check the options of a call of `function`."""
    check_names(given, function, TranscribeOptions, DecodingOptions)
    names = {field.name for field in fields(TranscribeOptions)}
    options = TranscribeOptions(**{name: value for name, value in given.items() if name in names})
    decoding = DecodingOptions(**{name: value for name, value in given.items() if name not in names})
    return Plan(model, options, decoding)


def _transcribe_one(plan: Plan, audio: Source) -> tuple[Transcript, Report]:
    result: tuple[Transcript, Report] = plan.start(_request(plan, audio, plan.options.progress)).result()
    return result


def _transcribe_all(plan: Plan, audios: Sequence[Source]) -> list[tuple[Transcript, Report]]:
    """Transcribe recordings side by side; an error of one ends all."""
    if any(isinstance(audio, (int, float)) for audio in audios):
        raise AudioError("a list is taken for several recordings: give the samples of one as a numpy array or tensor")
    check_read_once(audios)
    options, n = plan.options, len(audios)
    listeners = shares(options.progress, n) if options.progress else [None] * n
    caller, group = plan.caller(), None if options.batch_size is None else Group(options.batch_size)
    requests = [
        plan.start(_request(plan, audio, tell, f"[{i} of {n}] "), caller, group)
        for i, (audio, tell) in enumerate(zip(audios, listeners, strict=True), start=1)
    ]
    results: list[tuple[Transcript, Report]] = []
    try:
        with Bar(n, options.verbose is False, "recordings") as bar:
            for request in requests:
                results.append(request.result())
                bar.advance(1)
    finally:
        for request in requests:
            request.cancel()  # no effect on those that are done
    return results


def _request(plan: Plan, audio: Source, tell: Tell | None, label: str = "") -> Steps:
    """Return the steps of one recording, mixed or channel by channel."""
    if plan.options.channels == "separate":
        return _channel_steps(plan, audio, tell, label)
    return Transcription(plan, audio, tell, label, plan.options.of_file()).steps()


def _channel_steps(plan: Plan, audio: Source, tell: Tell | None, label: str) -> Steps:
    """Transcribe the channels of a recording side by side, and put them on one clock at the end."""
    reading = channels.reading(audio, **plan.options.of_file())
    tracks = yield from pausing(reading, plan.look_whether_cancelled)
    done = [(0.0, 0.0)] * len(tracks)

    def teller(i: int) -> Tell:
        def told(seconds: float, total: float) -> None:
            done[i] = seconds, total
            if tell is not None:
                tell(sum(d for d, _ in done) / len(done), sum(t for _, t in done) / len(done))

        return told

    parts, running = [], []
    for i, track in enumerate(tracks):
        parts.append(Transcription(plan, track, teller(i), f"{label}[channel {i}] "))
        running.append((yield Spawn(parts[i].steps(), plan.n_rows, Group(len(tracks)))))
    for handle in running:
        while (yield Next(handle)) is not None:
            pass
    transcript = channels.merge([part.result[0] for part in parts])
    yield Deliver(transcript["segments"])
    return transcript, Report.of_channels([part.result[1] for part in parts], transcript["language"])


class Transcription:
    """One recording on its way to a transcript.

    Parameters
    ----------
    tell
        Told after each window how many seconds are done, of how many.
    label
        Stands before what is printed; with it, there is no bar of its own.
    of_file
        What reading a file takes beside it: see `TranscribeOptions.of_file`.
    """

    features: Features
    recording: Recording
    result: tuple[Transcript, Report]  # at the end

    def __init__(
        self,
        plan: Plan,
        audio: Source,
        tell: Tell | None = None,
        label: str = "",
        of_file: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.plan, self._of_file = plan, of_file
        self.segments: list[Segment] = []
        self._account = Report()
        self._audio, self._progress, self._label = audio, tell, label

    def steps(self) -> Steps:
        """Transcribe to the end."""
        plan, options = self.plan, self.plan.options
        self.features = yield from self._read()
        clips = parse_clips(options.clip_timestamps, self.features.n_frames)
        speech = None
        if plan.audits or plan.skips_silence:
            speech = yield from self._find_speech()
        if speech is not None and plan.skips_silence:
            clips = common(clips, speech.clips(self.features.n_frames, LONGEST_PAUSE))
        report = self._account
        report.duration = self.features.n_frames / FRAMES_PER_SECOND
        language = plan.decoding.language
        encoded: dict[int, Any] = {}
        if language is None:
            language = yield from self._detect_language(speech, encoded)
        report.language = language
        self.recording = Recording(
            self.features, code_of(language) or "en", self._add_words, report, speech, report.language_probs, encoded
        )
        n_frames = sum(end - start for start, end in clips)
        self._tell(0, n_frames)
        with Bar(self.features.n_frames, options.verbose is False and not self._label) as bar:
            take = self._taker(bar, n_frames)
            parts = self._cut(clips)
            self.recording.in_parts = len(parts) > 1
            if len(parts) == 1:
                yield from self._stretch(parts[0], take).steps()
            else:
                yield from self._side_by_side(parts, take)
        if bar.n_done < n_frames:
            self._tell(n_frames, n_frames)
        tokens = [token for segment in self.segments for token in segment["tokens"]]
        report.close(self.segments, speech)
        transcript: Transcript = {
            "text": plan.tokenizer(language).decode(tokens),
            "segments": self.segments,
            "language": language,
        }
        self.result = transcript, report
        return self.result

    def _stretch(
        self, clips: list[Clip], take: Callable[[Deliver], None] | None = None, begins_at: float = 0.0
    ) -> Stretch:
        kind = AuditedStretch if self.plan.audits else Stretch
        return kind(self.plan, self.recording, clips, take, begins_at)

    # -- before the first window -------------------------------------------------------------------------

    def _read(self) -> Generator[Job, Any, Features]:
        reading = Features.reading(
            self._audio, self.plan.model.dims.n_mels, load_audio=load_audio, log_mel_spectrogram=log_mel_spectrogram,
            **self._of_file,
        )  # fmt: skip
        features: Features = yield from pausing(reading, self.plan.look_whether_cancelled)
        return features

    def _find_speech(self) -> Generator[Job, Any, Speech]:
        finding = detecting(self.features.samples, self.features.n_samples, self.plan.vad_options)
        speech: Speech = yield from pausing(finding, self.plan.look_whether_cancelled)
        return speech

    def _detect_language(self, speech: Speech | None, encoded: dict[int, Any]) -> Generator[Job, Any, str]:
        """Ask the model about one window or several; `encoded` takes them up, so that they can be used again."""
        plan, options = self.plan, self.plan.options
        n = options.language_detection_segments
        if options.verbose and len(plan.languages) > 1:
            part = "up to the first 30 seconds" if n == 1 and speech is None else f"up to {n} windows of 30 seconds"
            self._print(f"Detecting language using {part}. Use `--language` to specify the language")
        spans = () if speech is None else speech.spans
        detection: Detection = yield from detecting_language(
            plan.hearing, self.features, n, plan.languages, spans, encoded
        )
        self._account.language_probs = detection.probs
        if options.verbose is not None and len(plan.languages) > 1:
            self._print(f"Detected language: {LANGUAGES[detection.language].title()}")
        return detection.language

    # -- windows in one row, or in several ---------------------------------------------------------------

    def _cut(self, clips: list[Clip]) -> list[list[Clip]]:
        """Return the clips of each stretch; a single one where nothing is to run side by side."""
        n, total = self.plan.options.batch_size or 1, sum(end - start for start, end in clips)
        if n == 1 or total < 2 * SHORTEST_STRETCH:
            return [clips]
        target = min(max(SHORTEST_STRETCH, -(-total // n)), LONGEST_STRETCH)
        longest, loudness = 3 * target // 2, self.features.loudness()
        parts: list[list[Clip]] = [[]]
        length = 0
        for begin, end in clips:
            for start, stop in stretches(
                loudness[begin:end], end - begin, target, longest, self.recording.speech, begin
            ):
                length += stop - start
                if parts[-1] and length > target:
                    parts.append([])
                    length = stop - start
                parts[-1].append((begin + start, begin + stop))
        return parts

    def _side_by_side(self, parts: list[list[Clip]], take: Callable[[Deliver], None]) -> Generator[Job, Any, None]:
        plan = self.plan
        self.recording.encoded.clear()
        running = []
        for clips in parts:
            stretch = self._stretch(clips, begins_at=clips[0][0] / FRAMES_PER_SECOND)
            running.append((yield Spawn(stretch.steps(), plan.n_rows, plan.stretches)))
        for part in running:
            while (news := (yield Next(part))) is not None:
                take(news)
                yield news

    @staticmethod
    def _add_words(**arguments: Any) -> None:
        """Add word times, by the function that a program may have put in this module."""
        if add_word_timestamps is not _add_word_timestamps:  # somebody else's knows nothing of a fast path
            arguments = {name: value for name, value in arguments.items() if name not in ("runner", "audio")}
        add_word_timestamps(**arguments)

    # -- what comes out ----------------------------------------------------------------------------------

    def _taker(self, bar: Bar, n_frames: int) -> Callable[[Deliver], None]:
        """Return what is done with each window's segments, in the order of the recording."""

        def take(news: Deliver) -> None:
            for line in news.lines:
                self._print(line)
            for i, segment in enumerate(news.segments, start=len(self.segments)):
                segment["id"] = i
            self.segments += news.segments
            bar.advance(news.n_frames)
            self._tell(min(bar.n_done, n_frames), n_frames)

        return take

    def _print(self, line: str) -> None:
        show(self._label + make_safe(line), sys.stdout)

    def _tell(self, n_done: int, n_frames: int) -> None:
        if self._progress is not None:
            self._progress(n_done / FRAMES_PER_SECOND, n_frames / FRAMES_PER_SECOND)
