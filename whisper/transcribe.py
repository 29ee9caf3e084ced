"""A whole recording to its transcript, window after window: the reference loop.

Sound comes in at the top and segments go out at the bottom; what a window means is decided by the pure
functions of `windows` and `segments`. The state of a transcription lives in its `Transcription`, never in the
model, so that several may run on one model, and an exception leaves the model as it was.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm import tqdm

from .audio import FRAMES_PER_SECOND, N_FRAMES, N_SAMPLES, load_audio, log_mel_spectrogram, pad_or_trim
from .cli import cli as cli  # programs look for it here
from .decoding import DecodingOptions, DecodingResult, compute_dtype, suppressed_tokens, verify_options
from .errors import OptionError
from .options import (
    APPEND_PUNCTUATIONS,
    FALLBACK_TEMPERATURES,
    PREPEND_PUNCTUATIONS,
    TranscribeOptions,
    check_names,
)
from .results import Segment, Transcript
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
from .windows import PromptHistory, Window, next_window, parse_clips

if TYPE_CHECKING:
    from .audio import Source
    from .model import Whisper


def transcribe(
    model: Whisper,
    audio: Source,
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
    **decode_options: Any,
) -> Transcript:
    """Transcribe a recording of any length.

    Parameters
    ----------
    model
        A Whisper model.
    audio
        Path, bytes, open file, or samples at 16 kHz; see `load_audio`.
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
    **decode_options
        Fields of `DecodingOptions`, such as ``language``, ``task``, ``beam_size`` or ``fp16``.

    Returns
    -------
    Transcript
        A dictionary of ``text``, ``segments`` (see `results.Segment`) and ``language``.

    Raises
    ------
    AudioError
        The recording cannot be read. (A RuntimeError.)
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
    )
    check_names(decode_options, "transcribe", DecodingOptions, TranscribeOptions)
    return Transcription(model, audio, options, DecodingOptions(**decode_options)).run()


@contextmanager
def progress(n_frames: int, shown: bool) -> Iterator[Callable[[int], object]]:
    """Show on standard error how far a transcription is: a bar where somebody watches, lines in a log."""
    if not shown:
        yield lambda frames: None
    elif sys.stderr.isatty():
        with tqdm(total=n_frames, unit="frames") as bar:
            yield bar.update
    else:
        done = 0

        def advance(frames: int) -> None:
            nonlocal done
            tenth, done = 10 * done // n_frames, done + frames
            if 10 * done // n_frames > tenth:
                seconds = FRAMES_PER_SECOND
                print(f"{done / seconds:.0f} of {n_frames / seconds:.0f} s transcribed", file=sys.stderr, flush=True)

        yield advance


class Transcription:
    """One recording on its way to a transcript.

    Parameters
    ----------
    model, audio
        See `transcribe`.
    options
        How the windows are cut, judged and joined.
    decoding
        How each window is decoded; its `prompt` and `temperature` are set here, window by window.
    """

    def __init__(self, model: Whisper, audio: Source, options: TranscribeOptions, decoding: DecodingOptions) -> None:
        self.model = model
        self.options = options
        self.dtype = compute_dtype(decoding.fp16, model.device)
        self._check(decoding)
        if getattr(audio, "ndim", 1) != 1:
            audio = load_audio(audio)  # channels are mixed; a spectrogram would take them for a batch
        # half a minute of silence behind the end, so that the last window can be cut like any other
        self.mel = log_mel_spectrogram(audio, model.dims.n_mels, padding=N_SAMPLES)
        self.content_frames: int = self.mel.shape[-1] - N_FRAMES
        self.clips = parse_clips(options.clip_timestamps, self.content_frames)

        self._opening: Tensor | None = None  # features of the first 30 s, where the language was detected on them
        self.language = decoding.language or self._detect_language()
        self.decoding = replace(decoding, language=self.language)
        self.tokenizer = self._tokenizer(self.language, decoding.task)
        room = model.dims.n_text_ctx // 2 - 1  # tokens that the decoder takes as a prompt
        self.history = PromptHistory(self._initial_prompt(room), options.carry_initial_prompt, room)
        self.segments: list[Segment] = []
        self.last_speech = 0.0  # where the last word ended, seconds

    def run(self) -> Transcript:
        """Transcribe to the end."""
        with progress(self.content_frames, shown=self.options.verbose is False) as advance:
            for window, seek in self._windows():
                advance(min(self.content_frames, seek) - window.seek)
        return {
            "text": self.tokenizer.decode(self.history.text_tokens),
            "segments": self.segments,
            "language": self.language,
        }

    def _windows(self) -> Iterator[tuple[Window, int]]:
        """Decode window after window; yields each with the frame at which the next begins."""
        clip = seek = 0
        while (window := next_window(self.clips, clip, seek)) is not None:
            # never stand still: times that lead back to the window's own start would lead there again
            seek = max(self._transcribe_window(window), window.seek + 1)
            clip = window.clip
            yield window, seek

    # -- before the first window -------------------------------------------------------------------------

    def _check(self, decoding: DecodingOptions) -> None:
        options = self.options
        if decoding.task not in ("transcribe", "translate"):
            raise OptionError(f"transcribe() takes task 'transcribe' or 'translate', not {decoding.task!r}")
        if decoding.temperature != DecodingOptions.temperature or decoding.prompt is not None:
            raise OptionError("transcribe() sets the prompt of each window itself: give initial_prompt instead")
        # wrong or contradictory values are told before an hour of sound is read
        for temperature in options.temperatures():
            self._at(decoding, temperature)
        suppressed_tokens(decoding.suppress_tokens, self._tokenizer(decoding.language or "en", decoding.task))
        parse_clips(options.clip_timestamps, 0)
        for message in self._doubts(decoding):
            warnings.warn(message, stacklevel=4)

    def _tokenizer(self, language: str, task: str) -> Tokenizer:
        model = self.model
        return get_tokenizer(model.is_multilingual, num_languages=model.num_languages, language=language, task=task)

    def _doubts(self, decoding: DecodingOptions) -> Iterator[str]:
        """Say which options can have no effect here, or a doubtful one."""
        options = self.options
        if options.word_timestamps and decoding.task == "translate":
            yield "Word-level timestamps on translations may not be reliable."
        if options.hallucination_silence_threshold is not None and not options.word_timestamps:
            yield "hallucination_silence_threshold has no effect without word_timestamps"
        if options.carry_initial_prompt and options.initial_prompt is None:
            yield "carry_initial_prompt has no effect without initial_prompt"
        if not self.model.is_multilingual:
            if (decoding.language or "en").lower() not in ("en", "english"):
                yield f"language={decoding.language!r} has no effect: the model knows only English"
            if decoding.task == "translate":
                yield "task='translate' has no effect: the model knows only English"
        if self.model.device.type == "cpu" and torch.cuda.is_available():
            yield "Performing inference on CPU when CUDA is available"

    def _detect_language(self) -> str:
        """Ask the model about the first 30 seconds."""
        if not self.model.is_multilingual:
            return "en"
        verbose = self.options.verbose
        if verbose:
            print("Detecting language using up to the first 30 seconds. Use `--language` to specify the language")
        features = self._encode(self._on_device(self.mel))
        if self.content_frames >= N_FRAMES:  # else a first window is filled up with zeros, not with silence
            self._opening = features
        _, probs = self.model.detect_language(features)
        language: str = max(probs, key=probs.__getitem__)
        if verbose is not None:
            print(f"Detected language: {LANGUAGES[language].title()}")
        return language

    def _initial_prompt(self, room: int) -> list[int]:
        text = self.options.initial_prompt
        tokens = [] if text is None else self.tokenizer.encode(" " + text.strip())
        if len(tokens) > room:
            warnings.warn(
                f"initial_prompt is too long: the model reads the last {room} of its {len(tokens)} tokens, from "
                f"{self.tokenizer.decode(tokens[-room:])[:30]!r} on",
                stacklevel=4,
            )
        return tokens

    def _on_device(self, mel: Tensor) -> Tensor:
        """Cut or pad to a full window, ``(n_mels, 3000)``, where the model is and in its precision."""
        window: Tensor = pad_or_trim(mel, N_FRAMES)
        return window.to(self.model.device).to(self.dtype)

    # -- one window --------------------------------------------------------------------------------------

    def _transcribe_window(self, window: Window) -> int:
        """Decode a window and keep its segments; returns the frame at which the next one begins."""
        features = self._features(window)
        result = self._decode_with_fallback(features)
        if is_silence(result, self.options):
            return window.seek + window.size

        stride = exact_div(N_FRAMES, self.model.dims.n_audio_ctx)
        cut = cut_tokens(result.tokens, window, self.tokenizer.timestamp_begin, stride)
        segments = make_segments(cut, window, result, result.temperature, self.tokenizer.eot, self.tokenizer.decode)
        seek = cut.seek
        if self.options.word_timestamps:
            segments, seek, again = self._place_words(segments, cut, window, features)
            if again:
                return seek
        self._keep(segments)
        if not self.options.condition_on_previous_text or result.temperature > 0.5:
            self.history.reset()  # a hot sample is no good example for what follows
        return seek

    def _features(self, window: Window) -> Tensor:
        """Encode a window, once for all that is done with it."""
        if self._opening is not None and (window.seek, window.size) == (0, N_FRAMES):
            return self._opening
        return self._encode(self._on_device(self.mel[:, window.seek : window.seek + window.size]))

    @torch.no_grad()
    def _encode(self, mel: Tensor) -> Tensor:
        """Run the encoder on one full window: ``(n_audio_ctx, n_audio_state)``."""
        features: Tensor = self.model.encoder(mel.unsqueeze(0))[0]
        return features

    def _at(self, decoding: DecodingOptions, temperature: float) -> DecodingOptions:
        """Return the options at a temperature: beams belong to temperature 0, several samples to the others."""
        if temperature > 0:
            options = replace(decoding, temperature=temperature, beam_size=None, patience=None)
        else:
            options = replace(decoding, temperature=temperature, best_of=None)
        verify_options(options)
        return options

    def _decode_with_fallback(self, features: Tensor) -> DecodingResult:
        """Decode at each temperature in turn until the text passes; the last result where none does."""
        decoding = replace(self.decoding, prompt=self.history.prompt())
        for temperature in self.options.temperatures():
            result: DecodingResult = self.model.decode(features, self._at(decoding, temperature))
            if not needs_fallback(result, self.options):
                break
        return result

    def _place_words(
        self, segments: list[Segment], cut: Cut, window: Window, features: Tensor
    ) -> tuple[list[Segment], int, bool]:
        """Give the segments words; returns those kept, where to go on, and whether to decode there anew."""
        add_word_timestamps(
            segments=segments,
            model=self.model,
            tokenizer=self.tokenizer,
            mel=features,
            num_frames=window.size,
            prepend_punctuations=self.options.prepend_punctuations,
            append_punctuations=self.options.append_punctuations,
            last_speech_timestamp=self.last_speech,
        )
        seek, again = seek_after_words(cut, segments, window), False
        threshold = self.options.hallucination_silence_threshold
        if threshold is not None:
            kept = drop_invented(segments, cut, window, self.content_frames, threshold, self.last_speech)
            segments, seek, again = kept.segments, kept.seek, kept.again
        last_end = get_end(segments)
        if last_end is not None:
            self.last_speech = last_end
        return segments, seek, again

    def _keep(self, segments: list[Segment]) -> None:
        """Number the segments, show them, and take them into transcript and history."""
        if self.options.verbose:
            for s in filter(lambda s: s["text"].strip(), segments):
                line = f"[{format_timestamp(s['start'])} --> {format_timestamp(s['end'])}] {s['text']}"
                print(make_safe(line), flush=True)
        clear_empty(segments)
        for i, segment in enumerate(segments, start=len(self.segments)):
            segment["id"] = i
            self.history.extend(segment["tokens"])
        self.segments += segments
