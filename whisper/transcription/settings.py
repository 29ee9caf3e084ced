"""The settings of one call of `transcribe`, checked once for all its recordings and windows.

Knows the options and the model; reads no audio and decodes nothing.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from ..decoding import suppressed_tokens
from ..device.lazy_torch import is_here, torch
from ..errors import OptionError
from ..options.language_names import code_of
from ..options.transcription import DecodingOptions, TranscribeOptions
from ..speech.vad import VadOptions
from ..tokenizer import Tokenizer, get_tokenizer
from . import languages
from .windows import parse_clips

if TYPE_CHECKING:
    from ..model import Whisper
    from ..speakers.requested import Requested
    from .windows import Window

RETRY_BEAM_SIZE = 5  # of speech that the audit decodes again, where beam_size is not given


@dataclass(frozen=True)
class TranscribeSettings:
    """The checked options of a call of `transcribe`; `check_settings` makes them.

    Attributes
    ----------
    model
        What the options were checked against.
    options
        How a recording is cut into windows, and how their texts are checked and joined.
    decoding
        How each window is decoded; its `prompt`, `temperature` and `seed` are set for each window.
    vad_options
        How speech is detected.
    languages
        Codes of the candidate languages.
    initial_prompt
        Tokens of the user's prompt.
    speakers
        How speakers are told apart; None where they are not.
    """

    model: Whisper
    options: TranscribeOptions
    decoding: DecodingOptions
    vad_options: VadOptions
    languages: tuple[str, ...]
    initial_prompt: tuple[int, ...]
    speakers: Requested | None = None

    @property
    def audits(self) -> bool:
        """Whether speech and text are compared."""
        options = self.options
        return options.audit if options.audit is not None else (options.batch_size or 1) > 1

    @property
    def skips_silence(self) -> bool:
        """Whether long pauses are left out."""
        return self.options.vad_filter if self.options.vad_filter is not None else self.audits

    @property
    def verifies_language(self) -> bool:
        """Whether a detected language that is in doubt is compared with the next likeliest ones."""
        verify = self.options.verify_language
        detects = self.decoding.language is None and len(self.languages) > 1
        return detects and (verify if verify is not None else self.audits)

    @property
    def keeps_within(self) -> bool:
        """Whether no time may lie outside of the recording, as openai-whisper's algorithm allows."""
        options = self.options
        ours = options.multilingual or options.channels == "separate" or bool(options.verify_language)
        return ours or self.audits or self.skips_silence

    def in_language(self, language: str) -> TranscribeSettings:
        """Return the same settings with a language that is given."""
        return replace(self, decoding=replace(self.decoding, language=language))

    @property
    def n_rows(self) -> int:
        """Most KV-cache rows that a window takes."""
        n_rows = max(o.beam_size or o.best_of or 1 for o in map(self.decoding.at, self.options.temperatures()))
        return max(n_rows, self.decoding.beam_size or RETRY_BEAM_SIZE) if self.audits else n_rows

    @property
    def max_prompt_tokens(self) -> int:
        """Most tokens that a prompt can have."""
        return self.model.dims.n_text_ctx // 2 - 1

    def tokenizer(self, language: str) -> Tokenizer:
        """Return the tokenizer for a language."""
        return _tokenizer(self.model, self.decoding.task, language)

    def seed(self, window: Window, temperature: float) -> int | None:
        """Return the seed of one decoding; it depends on the window and the temperature alone."""
        if self.decoding.seed is None:
            return None
        name = f"{self.decoding.seed} {window.seek} {temperature}"
        return int.from_bytes(blake2b(name.encode(), digest_size=7).digest(), "big")


def check_without_model(options: Mapping[str, Any]) -> None:
    """Raise the `OptionError` of `check_settings` that needs no model, so before one is loaded or a request waits.

    Parameters
    ----------
    options
        Of `transcribe`, by name; others are not looked at.
    """

    def of(options_type: type) -> dict[str, Any]:
        return {f.name: options[f.name] for f in fields(options_type) if f.name in options}

    chosen = TranscribeOptions(**of(TranscribeOptions))
    decoding = DecodingOptions(**{**of(DecodingOptions), "temperature": 0.0})
    _check_at(decoding, chosen.temperatures())
    for language in chosen.languages or ():
        code_of(language)
    parse_clips(chosen.clip_timestamps, sys.maxsize)
    _with_speakers(chosen)
    VadOptions.of(chosen.vad_parameters)


def check_settings(model: Whisper, options: TranscribeOptions, decoding: DecodingOptions) -> TranscribeSettings:
    """Check the options of a call of `transcribe`, all before an hour of audio is read.

    Warnings are for the caller of the function that calls the one that calls this.

    Raises
    ------
    OptionError
        An option is wrong here, or with this model.
    """
    vad_options = VadOptions.of(options.vad_parameters)
    options, speakers = _with_speakers(options)
    candidates = languages.candidates(model, options.languages) if model.is_multilingual else ("en",)
    if decoding.task not in ("transcribe", "translate"):
        raise OptionError(f"transcribe() takes task 'transcribe' or 'translate', not {decoding.task!r}")
    if decoding.temperature != DecodingOptions.temperature or decoding.prompt is not None:
        raise OptionError("transcribe() sets the prompt of each window itself: give initial_prompt instead")
    _check_at(decoding, options.temperatures())
    tokenizer = _tokenizer(model, decoding.task, decoding.language or "en")
    suppressed = suppressed_tokens(decoding.suppress_tokens, tokenizer)
    parse_clips(options.clip_timestamps, 0)
    text = options.initial_prompt
    initial_prompt = () if text is None else tuple(tokenizer.encode(" " + text.strip()))
    settings = TranscribeSettings(model, options, decoding, vad_options, candidates, initial_prompt, speakers)
    if settings.keeps_within:
        # a language token in the middle of a text would become a part of the transcript
        suppressed = (*suppressed, *tokenizer.all_language_tokens)
        settings = replace(settings, decoding=replace(decoding, suppress_tokens=suppressed))
    for message in _option_warnings(settings, tokenizer):
        warnings.warn(message, stacklevel=4)
    return settings


def _check_at(decoding: DecodingOptions, temperatures: Iterable[float]) -> None:
    """Check the options as they are at each temperature; one above 0 stands for all of these."""
    for temperature in {temperature > 0: temperature for temperature in temperatures}.values():
        decoding.at(temperature)


def _with_speakers(options: TranscribeOptions) -> tuple[TranscribeOptions, Requested | None]:
    """Return options with what telling speakers apart implies, and how that is done."""
    if not options.tells_speakers():
        if options.speaker_backend != "light" and options.speakers is not False:
            raise OptionError("speaker_backend requires speakers to be given")
        return options, None
    from ..speakers.requested import Requested  # here, as few ask for speakers

    found = Requested.of(options)
    if found is None:
        return options, None
    if found.backend == "channels" and options.channels != "separate":
        options = replace(options, channels="separate")
    return replace(options, word_timestamps=True), found


def _option_warnings(settings: TranscribeSettings, tokenizer: Tokenizer) -> Iterator[str]:
    """Yield warnings about options that have no effect here, or a doubtful one."""
    options, decoding, model = settings.options, settings.decoding, settings.model
    if options.word_timestamps and decoding.task == "translate":
        yield "Word-level timestamps on translations may not be reliable."
    if options.hallucination_silence_threshold is not None and not options.word_timestamps:
        yield "hallucination_silence_threshold has no effect without word_timestamps"
    if options.carry_initial_prompt and options.initial_prompt is None:
        yield "carry_initial_prompt has no effect without initial_prompt"
    yield from languages.option_warnings(model, options, decoding)
    if model.device.type == "cpu" and is_here() and torch.cuda.is_available():
        yield "Performing inference on CPU when CUDA is available"
    prompt, room = settings.initial_prompt, settings.max_prompt_tokens
    if len(prompt) > room:
        yield (
            f"initial_prompt is too long: the model reads the last {room} of its {len(prompt)} tokens, from "
            f"{tokenizer.decode(list(prompt[-room:]))[:30]!r} on"
        )


def _tokenizer(model: Whisper, task: str, language: str) -> Tokenizer:
    return get_tokenizer(model.is_multilingual, num_languages=model.num_languages, language=language, task=task)
