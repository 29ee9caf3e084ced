"""From recordings to transcripts: reading, speech and language detection, window loops.

What programs call. The options are checked here, once for all recordings; each recording is then a
request, `transcription.recording.Transcription`, that runs when its result is waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, overload

import tqdm as tqdm  # programs for openai-whisper replace `tqdm.tqdm` in it, to follow the progress

from . import compat
from .audio import load_audio, log_mel_spectrogram
from .engine.scheduler import Group
from .errors import AudioError, OptionError
from .media.sources import can_be_read_again, check_read_once
from .options.transcription import (
    APPEND_PUNCTUATIONS,
    FALLBACK_TEMPERATURES,
    PREPEND_PUNCTUATIONS,
    DecodingOptions,
    TranscribeOptions,
)
from .options.types import check_names
from .output.progress import ProgressBar, share_progress
from .timing import add_word_timestamps
from .transcription.backends import backend_for
from .transcription.call import Call
from .transcription.language_choice import reconsider
from .transcription.recording import Replaceable, recording_steps
from .transcription.settings import TranscribeSettings, check_settings

if TYPE_CHECKING:
    from .audio import Source
    from .audit.report import Report
    from .cli.main import cli as cli  # programs import it from here
    from .engine.engine import Handle
    from .engine.operations import InlineRequest
    from .model import Whisper
    from .output.progress import ProgressCallback
    from .results import Segment, Transcript


def __getattr__(name: str) -> Any:
    """Import the command, which programs for openai-whisper look for here, when one asks for it."""
    if name == "cli":
        from .cli.main import cli

        return cli
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


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
    token_logprobs: bool = False,
    prepend_punctuations: str = PREPEND_PUNCTUATIONS,
    append_punctuations: str = APPEND_PUNCTUATIONS,
    clip_timestamps: str | Sequence[float] = "0",
    hallucination_silence_threshold: float | None = None,
    word_confidence: bool = False,
    batch_size: int | None = None,
    audio_context: str = "auto",
    audit: bool | None = None,
    vad_filter: bool | None = None,
    vad_parameters: Mapping[str, Any] | str | None = None,
    languages: Sequence[str] | str | None = None,
    language_detection_segments: int = 1,
    multilingual: bool = False,
    verify_language: bool | None = None,
    channels: str = "mix",
    speakers: bool | int | tuple[int, int] | None = None,
    num_speakers: int | None = None,
    min_speakers: int | None = None,
    max_speakers: int | None = None,
    known_speakers: Mapping[str, Any] | str | None = None,
    speaker_backend: Any = "light",
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
        alone (but see `verify_language`).
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
    token_logprobs
        Give each segment its ``token_logprobs``: the log-probability of each of its ``tokens``.
    prepend_punctuations, append_punctuations
        Marks that are joined to the word after them and to the word before them.
    clip_timestamps
        Seconds ``start,end,start,end,...`` of the clips to transcribe, as text or numbers; the last
        end may be left out.
    hallucination_silence_threshold
        With `word_timestamps`: skip silences longer than this (seconds) around probable
        hallucinations.
    word_confidence
        With `word_timestamps`: give each word a ``confidence``, how likely it is right (see
        `audit.confidence`); ``probability`` stays the original's.
    batch_size
        Transcribe so many chunks of a long recording side by side. It is cut at pauses, into chunks
        of one to three minutes, and each is transcribed like a recording of its own, with all
        options; so no text prompts across a cut. None or 1 cuts nothing. Of a list, also the number
        of recordings that run at once.
    audio_context
        How much the encoder reads of a window with less than 30 s of sound: "full" is 30 s, "short"
        the sound and a part of the padding, which is faster; a doubtful text is then decoded again
        on 30 s. "auto" is short in int8 and bfloat16 on a CPU, else full.
    audit
        Compare speech and text, window by window: silence is skipped, repetition loops are stopped,
        hallucinations dropped, and speech without text is decoded again. None is True where
        `batch_size` is above 1. See `transcribe_with_report`.
    vad_filter
        Skip pauses longer than 1.9 s, but for those up to 4 s within one window or with audited
        `batch_size`, and move word times into speech. None does what `audit` does.
    vad_parameters
        Settings of voice activity detection: fields of `vad.VadOptions`.
    languages
        Codes or names of the languages to detect, where ``language`` is not given.
    language_detection_segments
        Windows that are used to detect the language; by default the first one.
    multilingual
        Detect the language of each window; segments have a ``language`` then.
    verify_language
        Where the detected language is in doubt, use more windows, decode the likeliest languages,
        and take that of the likeliest text; in a list, the languages of the other recordings count,
        too. None does what `audit` does.
    channels
        "separate" transcribes each channel on its own; segments have a ``channel`` then. "mix"
        mixes them.
    speakers
        Tell speakers apart: True, their number, or the fewest and the most, ``(2, 5)``. Each segment
        and word has its ``speaker`` then, segments end where it changes, ``overlap`` is True where
        two speak, and the transcript has ``speakers`` and ``turns``. Implies `word_timestamps`. See
        docs/speakers.md.
    num_speakers, min_speakers, max_speakers
        The same, by other names; each implies `speakers`.
    known_speakers
        Names, each with a recording of its speaker or a `Voice` of `enrol`: who sounds like one gets
        the name.
    speaker_backend
        How: "light", with the networks in the package; "channels", each channel as one speaker;
        "pyannote", by its own pipeline; the name of an installed backend; or a function
        (`speakers.diarization.Backend`).
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
        "token_logprobs": token_logprobs,
        "prepend_punctuations": prepend_punctuations,
        "append_punctuations": append_punctuations,
        "clip_timestamps": clip_timestamps,
        "hallucination_silence_threshold": hallucination_silence_threshold,
        "word_confidence": word_confidence,
        "batch_size": batch_size,
        "audio_context": audio_context,
        "audit": audit,
        "vad_filter": vad_filter,
        "vad_parameters": vad_parameters,
        "languages": languages,
        "language_detection_segments": language_detection_segments,
        "multilingual": multilingual,
        "verify_language": verify_language,
        "channels": channels,
        "speakers": speakers,
        "num_speakers": num_speakers,
        "min_speakers": min_speakers,
        "max_speakers": max_speakers,
        "known_speakers": known_speakers,
        "speaker_backend": speaker_backend,
        "audio_track": audio_track,
        "container_time": container_time,
        "progress": progress,
        "cancel": cancel,
    }
    settings = _settings(model, "transcribe", {**options, **decode_options})
    call = Call(settings, backend_for(model, settings.decoding.fp16))
    if isinstance(audio, (list, tuple)):
        return [transcript for transcript, _ in _transcribe_all(call, audio)]
    transcript: Transcript = _start(call, audio).result()[0]
    return transcript


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
    call = Call(settings, backend_for(model, settings.decoding.fp16))
    if isinstance(audio, (list, tuple)):
        return _transcribe_all(call, audio)
    result: tuple[Transcript, Report] = _start(call, audio).result()
    return result


def iter_segments(model: Whisper, audio: Source, **options: Any) -> Generator[Segment, None, Transcript]:
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

    Returns
    -------
    Transcript
        What `transcribe` returns: the value of a ``yield from``, for programs that need more than the segments.

    Raises
    ------
    AudioError, OptionError, CancelledError
        See `transcribe`; for wrong options at once, for the others during iteration.
    """
    settings = _settings(model, "iter_segments", options)  # here: a warning names the line that calls
    segments_and_report = _iterating(settings, audio)

    def segments() -> Generator[Segment, None, Transcript]:
        return (yield from segments_and_report)[0]

    return segments()


def iter_segments_with_report(
    model: Whisper, audio: Source, **options: Any
) -> Generator[Segment, None, tuple[Transcript, Report]]:
    """Transcribe like `iter_segments`, and return a transcript with the report of its audit.

    Parameters
    ----------
    model, audio
        See `transcribe`; a list is not accepted here.
    **options
        Those of `transcribe`.

    Yields
    ------
    Segment
        As soon as it is final.

    Returns
    -------
    transcript, report
        See `transcribe_with_report`.

    Raises
    ------
    AudioError, OptionError, CancelledError
        See `iter_segments`.
    """
    return _iterating(_settings(model, "iter_segments_with_report", options), audio)


def _iterating(settings: TranscribeSettings, audio: Source) -> Generator[Segment, None, tuple[Transcript, Report]]:
    """Transcribe one recording, segment by segment."""
    if isinstance(audio, (list, tuple)):
        raise OptionError("iter_segments() takes one recording, and not a list: call it for each, or transcribe()")
    call = Call(settings, backend_for(settings.model, settings.decoding.fp16))

    def segments() -> Generator[Segment, None, tuple[Transcript, Report]]:
        request = _start(call, audio)
        yield from request
        result: tuple[Transcript, Report] = request.result()
        return result

    return segments()


def _settings(model: Whisper, function: str, given: dict[str, Any]) -> TranscribeSettings:
    """Check the options of a call of `function`."""
    check_names(given, function, TranscribeOptions, DecodingOptions)
    names = {field.name for field in fields(TranscribeOptions)}
    options = TranscribeOptions(**{name: value for name, value in given.items() if name in names})
    decoding = DecodingOptions(**{name: value for name, value in given.items() if name not in names})
    return check_settings(model, options, decoding)


def _start(call: Call, audio: Source) -> Handle | InlineRequest:
    """Return the request of one recording, which runs when its result is waited for."""
    return call.start(recording_steps(call, audio, _replaceable(), call.settings.options.progress))


def _transcribe_all(call: Call, audios: Sequence[Source]) -> list[tuple[Transcript, Report]]:
    """Transcribe recordings side by side; an error of one ends all."""
    if any(isinstance(audio, (int, float)) for audio in audios):
        raise AudioError("a list means several recordings: give the samples of one as a numpy array or tensor")
    check_read_once(audios)
    options, n = call.settings.options, len(audios)
    callbacks = share_progress(options.progress, n) if options.progress else [None] * n
    labelled = [
        (audio, progress, f"[{i} of {n}] ")
        for i, (audio, progress) in enumerate(zip(audios, callbacks, strict=True), 1)
    ]
    with ProgressBar(n, options.verbose is False, "recordings") as bar:
        results = _side_by_side(call, labelled, bar)
    if call.settings.verifies_language and not options.multilingual:
        _reconsider_languages(call, labelled, results)
    return results


_Labelled = tuple[Any, "ProgressCallback | None", str]  # a recording, its progress, and what stands before its lines


def _side_by_side(
    call: Call, recordings: Sequence[_Labelled], bar: ProgressBar | None = None
) -> list[tuple[Transcript, Report]]:
    """Transcribe recordings at once; an error of one ends all."""
    batch_size = call.settings.options.batch_size
    caller, group = call.caller(), None if batch_size is None else Group(batch_size)
    requests = [
        call.start(recording_steps(call, audio, _replaceable(), progress, label), caller, group)
        for audio, progress, label in recordings
    ]
    results: list[tuple[Transcript, Report]] = []
    try:
        for request in requests:
            results.append(request.result())
            if bar is not None:
                bar.advance(1)
    finally:
        for request in requests:
            request.cancel()  # has no effect on finished ones
    return results


def _reconsider_languages(
    call: Call, recordings: Sequence[_Labelled], results: list[tuple[Transcript, Report]]
) -> None:
    """Transcribe those again whose language was in doubt, and is another one in view of the whole list."""
    reconsidered = reconsider([report for _, report in results])
    reasons = {i: reason for i, reason in reconsidered.reasons.items() if can_be_read_again(recordings[i][0])}
    if not reasons:
        return
    again = [(audio, None, label) for audio, _, label in map(recordings.__getitem__, reasons)]
    redone = _side_by_side(call.in_language(reconsidered.language), again)
    for (i, reason), (transcript, report) in zip(reasons.items(), redone, strict=True):
        report.keep_language_of(results[i][1], reason)
        results[i] = transcript, report


def _replaceable() -> Replaceable:
    """Return this module's functions, some of which a program may have replaced."""
    own_mel = log_mel_spectrogram if compat.replaced("transcribe.log_mel_spectrogram") else None
    return Replaceable(load_audio, own_mel, _add_words)


def _add_words(**arguments: Any) -> None:
    """Add words, by this module's `add_word_timestamps`, which a program may have replaced."""
    # a replacement does not know the fast path
    if compat.replaced("transcribe.add_word_timestamps"):
        arguments = {name: value for name, value in arguments.items() if name != "attention"}
    add_word_timestamps(**arguments)


compat.remember("transcribe.add_word_timestamps", (globals(), ["add_word_timestamps"]))
compat.remember("transcribe.log_mel_spectrogram", (globals(), ["log_mel_spectrogram"]))
