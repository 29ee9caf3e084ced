"""A whole recording to its transcript, window after window; several side by side where there is an engine.

Sound comes in at the top and segments go out at the bottom; what a window means is decided by the pure
functions of `windows` and `segments`, and how the model is asked, in `hearing`. The state of a transcription lives in
its `Transcription`, never in the model, so that several may run on one model, and an exception leaves the model as it
was.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import fields, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor

from .audio import FRAMES_PER_SECOND, N_FRAMES, load_audio, log_mel_spectrogram, pad_or_trim
from .cli import cli as cli  # programs look for it here
from .decoding import DecodingOptions, DecodingResult, suppressed_tokens, verify_options
from .engine import Caller, Handle
from .errors import AudioError, CancelledError, OptionError
from .features import Features
from .hearing import Hearing, hearing_for
from .options import (
    APPEND_PUNCTUATIONS,
    FALLBACK_TEMPERATURES,
    PREPEND_PUNCTUATIONS,
    TranscribeOptions,
    check_names,
)
from .pauses import stretches
from .progress import Bar, Report, shares
from .results import Segment, Transcript
from .scheduler import Group
from .segments import (
    Cut,
    clear_empty,
    cut_tokens,
    drop_invented,
    is_silence,
    make_segments,
    needs_fallback,
    seek_after_words,
)
from .timing import add_word_timestamps
from .tokenizer import LANGUAGES, Tokenizer, get_tokenizer
from .utils import exact_div, format_timestamp, get_end, make_safe
from .windows import Clip, PromptHistory, Window, next_window, parse_clips
from .work import Deliver, Direct, Job, Next, Pause, Spawn, Steps

if TYPE_CHECKING:
    from .audio import Source
    from .model import Whisper

_add_word_timestamps = add_word_timestamps

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
        Path, bytes, open file, or samples at 16 kHz; see `load_audio`. A list or tuple of these is transcribed side
        by side, each recording to what it gives alone.
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
    progress
        Called after each window with the seconds that are done and the seconds that there are; for a list, with how
        many recordings are done (a part of one counts as such) and how many there are.
    cancel
        Something like a `threading.Event`: once it is set, the transcription ends with `CancelledError`.
    **decode_options
        Fields of `DecodingOptions`, such as ``language``, ``task``, ``beam_size``, ``seed`` or ``fp16``.

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
    options = TranscribeOptions(
        verbose=verbose,
        temperature=temperature,
        compression_ratio_threshold=compression_ratio_threshold,
        logprob_threshold=logprob_threshold,
        no_speech_threshold=no_speech_threshold,
        condition_on_previous_text=condition_on_previous_text,
        initial_prompt=initial_prompt,
        carry_initial_prompt=carry_initial_prompt,
        word_timestamps=word_timestamps,
        prepend_punctuations=prepend_punctuations,
        append_punctuations=append_punctuations,
        clip_timestamps=clip_timestamps,
        hallucination_silence_threshold=hallucination_silence_threshold,
        batch_size=batch_size,
        progress=progress,
        cancel=cancel,
    )
    check_names(decode_options, "transcribe", DecodingOptions, TranscribeOptions)
    plan = Plan(model, options, DecodingOptions(**decode_options))
    if isinstance(audio, (list, tuple)):
        return _transcribe_all(plan, audio)
    transcript: Transcript = plan.start(Transcription(plan, audio, options.progress).steps()).result()
    return transcript


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
    check_names(options, "iter_segments", TranscribeOptions, DecodingOptions)
    if isinstance(audio, (list, tuple)):
        raise OptionError("iter_segments() takes one recording, and not a list: call it for each, or transcribe()")
    names = {field.name for field in fields(TranscribeOptions)}
    chosen = TranscribeOptions(**{name: value for name, value in options.items() if name in names})
    decoding = DecodingOptions(**{name: value for name, value in options.items() if name not in names})
    plan = Plan(model, chosen, decoding)

    def segments() -> Iterator[Segment]:
        yield from plan.start(Transcription(plan, audio, chosen.progress).steps())

    return segments()


def _transcribe_all(plan: Plan, audios: Sequence[Source]) -> list[Transcript]:
    """Transcribe recordings side by side; an error of one ends all."""
    if any(isinstance(audio, (int, float)) for audio in audios):
        raise AudioError("a list is taken for several recordings: give the samples of one as a numpy array or tensor")
    options, n = plan.options, len(audios)
    reports = shares(options.progress, n) if options.progress else [None] * n
    caller, group = plan.caller(), None if options.batch_size is None else Group(options.batch_size)
    requests = [
        plan.start(Transcription(plan, audio, report, label=f"[{i} of {n}] ").steps(), caller, group)
        for i, (audio, report) in enumerate(zip(audios, reports, strict=True), start=1)
    ]
    transcripts: list[Transcript] = []
    try:
        with Bar(n, options.verbose is False, "recordings") as bar:
            for request in requests:
                transcripts.append(request.result())
                bar.advance(1)
    finally:
        for request in requests:
            request.cancel()  # no effect on those that are done
    return transcripts


class Plan:
    """What a call of `transcribe` wants, checked; all its recordings share it.

    Parameters
    ----------
    options
        How the windows are cut, judged and joined.
    decoding
        How each window is decoded; its `prompt`, `temperature` and `seed` are set window by window.
    """

    def __init__(self, model: Whisper, options: TranscribeOptions, decoding: DecodingOptions) -> None:
        self.model, self.options, self.decoding = model, options, decoding
        self._check()
        self.hearing: Hearing = hearing_for(model, decoding.fp16)
        self.n_rows = max(o.beam_size or o.best_of or 1 for o in map(self.at, options.temperatures()))
        self.stretches = Group(options.batch_size)  # of all recordings together

    def _check(self) -> None:
        options, decoding = self.options, self.decoding
        if decoding.task not in ("transcribe", "translate"):
            raise OptionError(f"transcribe() takes task 'transcribe' or 'translate', not {decoding.task!r}")
        if decoding.temperature != DecodingOptions.temperature or decoding.prompt is not None:
            raise OptionError("transcribe() sets the prompt of each window itself: give initial_prompt instead")
        # wrong or contradictory values are told before an hour of sound is read
        for temperature in options.temperatures():
            self.at(temperature)
        tokenizer = self.tokenizer(decoding.language or "en")
        suppressed_tokens(decoding.suppress_tokens, tokenizer)
        parse_clips(options.clip_timestamps, 0)
        text = options.initial_prompt
        self.initial_prompt = [] if text is None else tokenizer.encode(" " + text.strip())
        for message in self._doubts(tokenizer):
            warnings.warn(message, stacklevel=4)

    def _doubts(self, tokenizer: Tokenizer) -> Iterator[str]:
        """Say which options can have no effect here, or a doubtful one."""
        options, decoding, model = self.options, self.decoding, self.model
        if options.word_timestamps and decoding.task == "translate":
            yield "Word-level timestamps on translations may not be reliable."
        if options.hallucination_silence_threshold is not None and not options.word_timestamps:
            yield "hallucination_silence_threshold has no effect without word_timestamps"
        if options.carry_initial_prompt and options.initial_prompt is None:
            yield "carry_initial_prompt has no effect without initial_prompt"
        if not model.is_multilingual:
            if (decoding.language or "en").lower() not in ("en", "english"):
                yield f"language={decoding.language!r} has no effect: the model knows only English"
            if decoding.task == "translate":
                yield "task='translate' has no effect: the model knows only English"
        if model.device.type == "cpu" and torch.cuda.is_available():
            yield "Performing inference on CPU when CUDA is available"
        prompt, room = self.initial_prompt, self.prompt_room
        if len(prompt) > room:
            yield (
                f"initial_prompt is too long: the model reads the last {room} of its {len(prompt)} tokens, from "
                f"{tokenizer.decode(prompt[-room:])[:30]!r} on"
            )

    @property
    def prompt_room(self) -> int:
        """Tokens that the decoder takes as a prompt."""
        return self.model.dims.n_text_ctx // 2 - 1

    def tokenizer(self, language: str) -> Tokenizer:
        """Return the tokenizer for a language."""
        model = self.model
        return get_tokenizer(
            model.is_multilingual, num_languages=model.num_languages, language=language, task=self.decoding.task
        )

    def at(self, temperature: float, **changes: Any) -> DecodingOptions:
        """Return the options at a temperature: beams belong to temperature 0, several samples to the others."""
        changes["temperature"] = temperature
        changes |= {"beam_size": None, "patience": None} if temperature > 0 else {"best_of": None}
        options = replace(self.decoding, **changes)
        verify_options(options)
        return options

    def seed(self, window: Window, temperature: float) -> int | None:
        """Return the seed of one decoding, which must not depend on what was decoded before."""
        if self.decoding.seed is None:
            return None
        name = f"{self.decoding.seed} {window.seek} {temperature}"
        return int.from_bytes(blake2b(name.encode(), digest_size=7).digest(), "big")

    def look_whether_cancelled(self) -> None:
        """Raise `CancelledError` if the caller wants no more."""
        if self.options.cancel is not None and self.options.cancel.is_set():
            raise CancelledError("the transcription was cancelled")

    def caller(self) -> Caller | None:
        """Return who asks for all recordings of this call."""
        engine, cancel = self.hearing.engine, self.options.cancel
        return None if engine is None else engine.caller(None if cancel is None else cancel.is_set)

    def start(self, steps: Steps, caller: Caller | None = None, group: Group | None = None) -> Handle | Direct:
        """Return a request that does the steps when its result is asked for."""
        engine = self.hearing.engine
        if engine is None:
            return Direct(steps)
        return engine.submit(steps, self.n_rows, caller=caller or self.caller(), group=group)


class Transcription:
    """One recording on its way to a transcript.

    Parameters
    ----------
    report
        Told after each window how many seconds are done, of how many.
    label
        Stands before what is printed; with it, there is no bar of its own.
    """

    features: Features
    tokenizer: Tokenizer
    decoding: DecodingOptions  # with the language that is spoken

    def __init__(self, plan: Plan, audio: Source, report: Report | None = None, label: str = "") -> None:
        self.plan = plan
        self.segments: list[Segment] = []
        self._audio, self._report, self._label = audio, report, label
        self._opening: Any = None  # the first 30 s, encoded, where the language was detected on them

    def steps(self) -> Steps:
        """Transcribe to the end."""
        plan, options = self.plan, self.plan.options
        self.features = yield from self._read()
        clips = parse_clips(options.clip_timestamps, self.features.n_frames)
        language = plan.decoding.language or (yield from self._detect_language())
        self.decoding = replace(plan.decoding, language=language)
        self.tokenizer = plan.tokenizer(language)
        n_frames = sum(end - start for start, end in clips)
        self._tell(0, n_frames)
        with Bar(self.features.n_frames, options.verbose is False and not self._label) as bar:
            take = self._taker(bar, n_frames)
            parts = self._cut(clips)
            if len(parts) == 1:
                yield from Stretch(self, parts[0], take).steps()
            else:
                yield from self._side_by_side(parts, take)
        if bar.n_done < n_frames:
            self._tell(n_frames, n_frames)
        tokens = [token for segment in self.segments for token in segment["tokens"]]
        return {"text": self.tokenizer.decode(tokens), "segments": self.segments, "language": language}

    def take_opening(self, window: Window) -> Any:
        """Return the first 30 s as they were encoded for the language, if that is the first window; else None."""
        opening, self._opening = self._opening, None
        return opening if (window.seek, window.size) == (0, N_FRAMES) else None

    # -- before the first window -------------------------------------------------------------------------

    def _read(self) -> Generator[Job, Any, Features]:
        reading = Features.reading(
            self._audio, self.plan.model.dims.n_mels, load_audio=load_audio, log_mel_spectrogram=log_mel_spectrogram
        )
        while True:
            try:
                next(reading)
            except StopIteration as end:
                features: Features = end.value
                return features
            self.plan.look_whether_cancelled()
            yield Pause()

    def _detect_language(self) -> Generator[Job, Any, str]:
        """Ask the model about the first 30 seconds."""
        plan, verbose = self.plan, self.plan.options.verbose
        if not plan.model.is_multilingual:
            return "en"
        if verbose:
            self._print("Detecting language using up to the first 30 seconds. Use `--language` to specify the language")
        opening = yield from plan.hearing.encode(pad_or_trim(self.features.opening(), N_FRAMES))
        if self.features.n_frames >= N_FRAMES:  # else a first window is filled up with zeros, not with silence
            self._opening = opening
        probs = yield from plan.hearing.detect(opening)
        language: str = max(probs, key=probs.__getitem__)
        if verbose is not None:
            self._print(f"Detected language: {LANGUAGES[language].title()}")
        return language

    # -- windows in one row, or in several ---------------------------------------------------------------

    def _cut(self, clips: list[Clip]) -> list[list[Clip]]:
        """Return the clips of each stretch; a single one where nothing is to run side by side."""
        n, total = self.plan.options.batch_size or 1, sum(end - start for start, end in clips)
        if n == 1 or total < 2 * SHORTEST_STRETCH:
            return [clips]
        target = min(max(SHORTEST_STRETCH, -(-total // n)), LONGEST_STRETCH)
        loudness = self.features.loudness()
        parts: list[list[Clip]] = [[]]
        length = 0
        for begin, end in clips:
            for start, stop in stretches(loudness[begin:end], end - begin, target, 3 * target // 2):
                length += stop - start
                if parts[-1] and length > target:
                    parts.append([])
                    length = stop - start
                parts[-1].append((begin + start, begin + stop))
        return parts

    def _side_by_side(self, parts: list[list[Clip]], take: Callable[[Deliver], None]) -> Generator[Job, Any, None]:
        plan = self.plan
        self._opening = None
        running = []
        for clips in parts:
            stretch = Stretch(self, clips, begins_at=clips[0][0] / FRAMES_PER_SECOND)
            running.append((yield Spawn(stretch.steps(), plan.n_rows, plan.stretches)))
        for part in running:
            while (news := (yield Next(part))) is not None:
                take(news)
                yield news

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
        print(self._label + make_safe(line), flush=True)

    def _tell(self, n_done: int, n_frames: int) -> None:
        if self._report is not None:
            self._report(n_done / FRAMES_PER_SECOND, n_frames / FRAMES_PER_SECOND)


class Stretch:
    """Clips of a recording whose windows follow each other: each begins where, and with the text that, the last left.

    Parameters
    ----------
    take
        Given what each window delivers; where None, somebody else takes it.
    begins_at
        Before here, in seconds, there are words that this stretch does not know.
    """

    def __init__(
        self,
        transcription: Transcription,
        clips: list[Clip],
        take: Callable[[Deliver], None] | None = None,
        begins_at: float = 0.0,
    ) -> None:
        self._of, self._plan, self._clips, self._take = transcription, transcription.plan, clips, take
        plan = self._plan
        carry = plan.options.carry_initial_prompt
        self._history = PromptHistory(plan.initial_prompt, carry, plan.prompt_room)
        self._last_speech = begins_at  # where the last word ended, seconds

    def steps(self) -> Steps:
        """Decode window after window."""
        clip = seek = 0
        while (window := next_window(self._clips, clip, seek)) is not None:
            self._plan.look_whether_cancelled()
            seek, segments, lines = yield from self._transcribe(window)
            # never stand still: times that lead back to the window's own start would lead there again
            seek, clip = max(seek, window.seek + 1), window.clip
            news = Deliver(segments, min(self._of.features.n_frames, seek) - window.seek, tuple(lines))
            if self._take is not None:
                self._take(news)
            yield news

    def _transcribe(self, window: Window) -> Generator[Job, Any, tuple[int, list[Segment], list[str]]]:
        """Decode a window; returns the frame at which the next one begins, the segments, and these for people."""
        heard = self._of.take_opening(window)
        if heard is None:
            mel: Tensor = self._of.features.window(window.seek, window.size)
            heard = yield from self._plan.hearing.encode(pad_or_trim(mel, N_FRAMES))
        result = yield from self._decode_with_fallback(heard, window)
        options, tokenizer = self._plan.options, self._of.tokenizer
        if is_silence(result, options):
            return window.seek + window.size, [], []

        stride = exact_div(N_FRAMES, self._plan.model.dims.n_audio_ctx)
        cut = cut_tokens(result.tokens, window, tokenizer.timestamp_begin, stride)
        segments = make_segments(cut, window, result, result.temperature, tokenizer.eot, tokenizer.decode)
        seek = cut.seek
        if options.word_timestamps:
            segments, seek, again = self._place_words(segments, cut, window, heard)
            if again:
                return seek, [], []
        lines = list(map(_line, filter(lambda s: s["text"].strip(), segments))) if options.verbose else []
        clear_empty(segments)
        for segment in segments:
            self._history.extend(segment["tokens"])
        if not options.condition_on_previous_text or result.temperature > 0.5:
            self._history.reset()  # a hot sample is no good example for what follows
        return seek, segments, lines

    def _decode_with_fallback(self, heard: Any, window: Window) -> Generator[Job, Any, DecodingResult]:
        """Decode at each temperature in turn until the text passes; the last result where none does."""
        plan, prompt, language = self._plan, self._history.prompt(), self._of.decoding.language
        for temperature in plan.options.temperatures():
            seed = plan.seed(window, temperature)
            options = plan.at(temperature, prompt=prompt, language=language, seed=seed)
            result = yield from plan.hearing.decode(heard, options)
            if not needs_fallback(result, plan.options):
                break
            plan.look_whether_cancelled()
        return result

    def _place_words(
        self, segments: list[Segment], cut: Cut, window: Window, heard: Any
    ) -> tuple[list[Segment], int, bool]:
        """Give the segments words; returns those kept, where to go on, and whether to decode there anew."""
        options, to_align = self._plan.options, self._plan.hearing.to_align(heard)
        if add_word_timestamps is not _add_word_timestamps:  # somebody else's knows nothing of a fast path
            to_align = {"mel": to_align["mel"]}
        add_word_timestamps(
            segments=segments,
            model=self._plan.model,
            tokenizer=self._of.tokenizer,
            num_frames=window.size,
            prepend_punctuations=options.prepend_punctuations,
            append_punctuations=options.append_punctuations,
            last_speech_timestamp=self._last_speech,
            **to_align,
        )
        seek, again = seek_after_words(cut, segments, window), False
        threshold = options.hallucination_silence_threshold
        if threshold is not None:
            n_frames = self._of.features.n_frames
            kept = drop_invented(segments, cut, window, n_frames, threshold, self._last_speech)
            segments, seek, again = kept.segments, kept.seek, kept.again
        last_end = get_end(segments)
        if last_end is not None:
            self._last_speech = last_end
        return segments, seek, again


def _line(segment: Segment) -> str:
    """A segment for people."""
    return f"[{format_timestamp(segment['start'])} --> {format_timestamp(segment['end'])}] {segment['text']}"
