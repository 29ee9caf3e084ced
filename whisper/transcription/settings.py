"""The settings of one call of `transcribe`, checked once for all its recordings and windows.

Knows the options and the model; reads no audio and decodes nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import torch

from ..decoding import DecodingOptions, suppressed_tokens
from ..engine.engine import Caller, Handle
from ..engine.operations import InlineRequest, RequestCoroutine
from ..engine.scheduler import Group
from ..errors import CancelledError, OptionError
from ..options.transcription import TranscribeOptions
from ..speech.vad import VadOptions
from ..tokenizer import Tokenizer, get_tokenizer
from . import languages
from .backends import Backend, backend_for
from .windows import Window, parse_clips

if TYPE_CHECKING:
    from ..model import Whisper

RETRY_BEAM_SIZE = 5  # of speech that the audit decodes again, where beam_size is not given


class TranscribeSettings:
    """The checked options of a call of `transcribe`, with the model and its backend.

    Parameters
    ----------
    options
        How a recording is cut into windows, and how their texts are checked and joined.
    decoding
        How each window is decoded; its `prompt`, `temperature` and `seed` are set for each window.
    """

    def __init__(self, model: Whisper, options: TranscribeOptions, decoding: DecodingOptions) -> None:
        self.model, self.options, self.decoding = model, options, decoding
        self.audits = options.audit if options.audit is not None else (options.batch_size or 1) > 1
        self.skips_silence = options.vad_filter if options.vad_filter is not None else self.audits
        # openai-whisper's algorithm takes the times as the model states them, also behind the recording's end
        separate = options.channels == "separate"
        self.keeps_within = self.audits or self.skips_silence or options.multilingual or separate
        self.vad_options = VadOptions.of(options.vad_parameters)
        self.languages = languages.candidates(model, options.languages) if model.is_multilingual else ("en",)
        self._check()
        self.backend: Backend = backend_for(model, decoding.fp16)
        # KV-cache rows of one recording
        self.n_rows = max(o.beam_size or o.best_of or 1 for o in map(decoding.at, options.temperatures()))
        if self.audits:
            self.n_rows = max(self.n_rows, decoding.beam_size or RETRY_BEAM_SIZE)
        # the chunks of all recordings that run side by side
        self.chunks = Group(options.batch_size)

    def _check(self) -> None:
        options, decoding = self.options, self.decoding
        if decoding.task not in ("transcribe", "translate"):
            raise OptionError(f"transcribe() takes task 'transcribe' or 'translate', not {decoding.task!r}")
        if decoding.temperature != DecodingOptions.temperature or decoding.prompt is not None:
            raise OptionError("transcribe() sets the prompt of each window itself: give initial_prompt instead")
        # check all values before an hour of audio is read
        for temperature in options.temperatures():
            decoding.at(temperature)
        tokenizer = self.tokenizer(decoding.language or "en")
        suppressed_tokens(decoding.suppress_tokens, tokenizer)
        parse_clips(options.clip_timestamps, 0)
        text = options.initial_prompt
        self.initial_prompt = [] if text is None else tokenizer.encode(" " + text.strip())
        for message in self._option_warnings(tokenizer):
            warnings.warn(message, stacklevel=5)

    def _option_warnings(self, tokenizer: Tokenizer) -> Iterator[str]:
        """Yield warnings about options that have no effect here, or a doubtful one."""
        options, decoding, model = self.options, self.decoding, self.model
        if options.word_timestamps and decoding.task == "translate":
            yield "Word-level timestamps on translations may not be reliable."
        if options.hallucination_silence_threshold is not None and not options.word_timestamps:
            yield "hallucination_silence_threshold has no effect without word_timestamps"
        if options.carry_initial_prompt and options.initial_prompt is None:
            yield "carry_initial_prompt has no effect without initial_prompt"
        yield from languages.option_warnings(model, options, decoding)
        if model.device.type == "cpu" and torch.cuda.is_available():
            yield "Performing inference on CPU when CUDA is available"
        prompt, room = self.initial_prompt, self.max_prompt_tokens
        if len(prompt) > room:
            yield (
                f"initial_prompt is too long: the model reads the last {room} of its {len(prompt)} tokens, from "
                f"{tokenizer.decode(prompt[-room:])[:30]!r} on"
            )

    @property
    def max_prompt_tokens(self) -> int:
        """Most tokens that a prompt can have."""
        return self.model.dims.n_text_ctx // 2 - 1

    def tokenizer(self, language: str) -> Tokenizer:
        """Return the tokenizer for a language."""
        model = self.model
        return get_tokenizer(
            model.is_multilingual, num_languages=model.num_languages, language=language, task=self.decoding.task
        )

    def seed(self, window: Window, temperature: float) -> int | None:
        """Return the seed of one decoding; it depends on the window and the temperature alone."""
        if self.decoding.seed is None:
            return None
        name = f"{self.decoding.seed} {window.seek} {temperature}"
        return int.from_bytes(blake2b(name.encode(), digest_size=7).digest(), "big")

    def raise_if_cancelled(self) -> None:
        """Raise `CancelledError` if the caller has cancelled the transcription."""
        if self.options.cancel is not None and self.options.cancel.is_set():
            raise CancelledError("the transcription was cancelled")

    def caller(self) -> Caller | None:
        """Return the engine's `Caller` for all recordings of this call."""
        engine, cancel = self.backend.engine, self.options.cancel
        return None if engine is None else engine.caller(None if cancel is None else cancel.is_set)

    def start(
        self, steps: RequestCoroutine[Any], caller: Caller | None = None, group: Group | None = None
    ) -> Handle | InlineRequest:
        """Return a request that runs the steps when its result is waited for."""
        engine = self.backend.engine
        if engine is None:
            return InlineRequest(steps)
        return engine.submit(steps, self.n_rows, caller=caller or self.caller(), group=group)
