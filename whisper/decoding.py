"""One 30 s window of sound to tokens: options, the sampling loop, language detection.

Everything that a decoding needs lives in its `DecodingTask`; the model is only read. So two decodings on one
model, in two threads, do not meet, and an exception in the middle leaves nothing behind.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from . import compat
from .device.lazy_torch import Tensor, nn, torch
from .device.torch_state import clean_state
from .engine.engine import Engine, engine_for
from .engine.operations import DetectLanguage, Sample, encode_operation, gather, is_encoded, is_window
from .errors import LanguageError, ShapeError
from .options.transcription import DecodingOptions
from .options.transcription import verify_options as verify_options
from .options.types import check_names
from .runtime import choice
from .runtime.interface import EncodedWindow, check_room
from .sampling import plan, repetition
from .sampling.logit_filters import (
    ApplyTimestampRules,
    BoostHotwords,
    LogitFilter,
    StopLoops,
    SuppressBlank,
    SuppressTokens,
)
from .sampling.plan import suppressed_tokens as suppressed_tokens
from .sampling.search import BeamSearchDecoder, GreedyDecoder, MaximumLikelihoodRanker, SequenceRanker, TokenDecoder
from .sampling.window_sampling import WindowSampling
from .tokenizer import Tokenizer, get_tokenizer
from .utils import cached_property, compression_ratio

if TYPE_CHECKING:
    from .model import KVCache, Whisper

__all__ = [
    "ApplyTimestampRules",
    "BeamSearchDecoder",
    "DecodingOptions",
    "DecodingResult",
    "DecodingTask",
    "GreedyDecoder",
    "Inference",
    "LogitFilter",
    "MaximumLikelihoodRanker",
    "PyTorchInference",
    "SequenceRanker",
    "SuppressBlank",
    "SuppressTokens",
    "TokenDecoder",
    "decode",
    "detect_language",
]


@dataclass(frozen=True)
class DecodingResult:
    """What one window gave."""

    audio_features: Tensor  # (n_audio_ctx, n_audio_state)
    language: str
    language_probs: dict[str, float] | None = None  # only where the language was detected
    tokens: list[int] = field(default_factory=list)
    text: str = ""
    avg_logprob: float = math.nan  # of the tokens and the end, natural logarithm; of a loop, of all its rounds
    no_speech_prob: float = math.nan
    temperature: float = math.nan
    compression_ratio: float = math.nan
    is_loop: bool = False  # ended by `stop_loops`, and cut to the first round
    token_logprobs: list[float] | None = None  # of each of `tokens`; only from the fast path


# ---------------------------------------------------------------------------------------------------------
# The network as a decoding sees it
# ---------------------------------------------------------------------------------------------------------


class Inference:
    """Gives logits for growing sequences."""

    def logits(self, tokens: Tensor, audio_features: Tensor) -> Tensor:
        """Return logits ``(n_batch, n_new, n_vocab)`` after the tokens that are new since the last call."""
        raise NotImplementedError

    def rearrange_kv_cache(self, source_indices: Sequence[int]) -> None:
        """Let row ``i`` continue what row ``source_indices[i]`` was."""
        raise NotImplementedError

    def cleanup_caching(self) -> None:
        """Let go of what was cached."""


def _new_cache() -> KVCache:
    from .model import KVCache  # here: the fast path needs no modules

    return KVCache()


class PyTorchInference(Inference):
    """Runs ``model.decoder`` with a cache of its own."""

    def __init__(self, model: Whisper, initial_token_length: int) -> None:
        self.model = model
        self.initial_token_length = initial_token_length
        self.kv_cache = _new_cache()

    @cached_property
    def kv_modules(self) -> list[nn.Module]:  # not before somebody asks: the fast path needs no modules
        attentions: list[Any] = [block.attn for block in self.model.decoder.blocks]
        return [a.key for a in attentions] + [a.value for a in attentions]

    def logits(self, tokens: Tensor, audio_features: Tensor) -> Tensor:
        if tokens.shape[-1] > self.initial_token_length:
            tokens = tokens[:, -1:]  # the cache holds the others
        logits: Tensor = self.model.decoder(tokens, audio_features, kv_cache=self.kv_cache)
        return logits

    def rearrange_kv_cache(self, source_indices: Sequence[int]) -> None:
        self.kv_cache.reorder(self.kv_modules, source_indices)

    def cleanup_caching(self) -> None:
        self.kv_cache = _new_cache()


def compute_dtype(fp16: bool, device: torch.device) -> torch.dtype:
    """Return the precision that the option `fp16` means on a device: a CPU is slow in float16."""
    return torch.float16 if fp16 and device.type != "cpu" else torch.float32


# ---------------------------------------------------------------------------------------------------------
# Language
# ---------------------------------------------------------------------------------------------------------


LARGEST = 1e6  # in a window; spectrograms stay below 10, features of a model below 1000


def checked_window(mel: Tensor) -> Tensor:
    """Return a window, or a batch of them, if it is one of numbers that a network can take; raises `ShapeError`."""
    if not isinstance(mel, Tensor):
        raise ShapeError(f"a {type(mel).__name__} is no spectrogram: give a tensor, as from log_mel_spectrogram")
    if mel.layout != torch.strided or mel.is_meta or not mel.is_floating_point():
        raise ShapeError(f"a window of {mel.dtype}, {mel.layout} on {mel.device}: it must be dense, and floating-point")
    if mel.ndim not in (2, 3):
        raise ShapeError(f"a window has 2 dimensions and a batch 3, and this has the shape {tuple(mel.shape)}")
    if mel.numel() == 0:
        raise ShapeError(f"there is nothing in a window of the shape {tuple(mel.shape)}")
    if not mel.detach().abs().max() <= LARGEST:
        raise ShapeError(f"a window with numbers that are NaN, infinite or larger than {LARGEST:.0e} is no spectrogram")
    return mel


@clean_state()
def detect_language(model: Whisper, mel: Tensor, tokenizer: Tokenizer | None = None) -> tuple[Tensor, Any]:
    """Tell which language is spoken.

    Parameters
    ----------
    model
        A multilingual model.
    mel
        Spectrogram ``(n_mels, 3000)``, audio features ``(n_audio_ctx, n_audio_state)``, or a batch of either.
    tokenizer
        By default the model's own.

    Returns
    -------
    language_tokens
        Id of the likeliest language token, ``(n_audio,)``; a scalar for a single window.
    language_probs
        For each window a dictionary from language code to probability; a single one for a single window.

    Raises
    ------
    LanguageError
        The model is English-only. (A ValueError.)
    """
    if tokenizer is None:
        tokenizer = get_tokenizer(model.is_multilingual, num_languages=model.num_languages)
    if tokenizer.language is None or tokenizer.language_token not in tokenizer.sot_sequence:
        raise LanguageError("this model has no language tokens: it is English-only and cannot detect languages")

    single = checked_window(mel).ndim == 2
    if single:
        mel = mel.unsqueeze(0)
    tokens, codes = tokenizer.all_language_tokens, tokenizer.all_language_codes
    rows = _language_probs(model, mel, tokenizer.sot, tokens)
    best = [tokens[max(range(len(row)), key=row.__getitem__)] for row in rows]
    language_tokens = torch.tensor(best, dtype=torch.long, device=mel.device)
    probs = [dict(zip(codes, row, strict=True)) for row in rows]
    return (language_tokens[0], probs[0]) if single else (language_tokens, probs)


def _language_probs(model: Whisper, mel: Tensor, sot: int, languages: Sequence[int]) -> list[list[float]]:
    """Return how probable each language token is in each window of a batch."""
    if mel.dtype == torch.float32 and mel.device == model.device and choice.usable(model) and is_window(model, mel):
        engine = engine_for(model, fp16=False)
        windows = (_detect_window(model, window, sot, tuple(languages)) for window in mel)
        rows: list[list[float]] = engine.submit(gather(windows, 1)).result()
        return rows
    if not is_encoded(model, mel):
        mel = model.encoder(mel)
    first = torch.full((mel.shape[0], 1), sot, dtype=torch.long, device=mel.device)
    logits = model.logits(first, mel)[:, 0]  # (n_audio, n_vocab)
    probs: list[list[float]] = logits[:, list(languages)].softmax(dim=-1).tolist()
    return probs


async def _detect_window(model: Whisper, mel: Tensor, sot: int, languages: tuple[int, ...]) -> list[float]:
    """Return how probable each language token is in a window: spectrogram or audio features."""
    return await DetectLanguage(await encode_operation(model, mel), sot, languages)


# ---------------------------------------------------------------------------------------------------------
# Decoding
# ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CandidateSelection:
    """From the candidates of a window to its result."""

    options: DecodingOptions
    tokenizer: Tokenizer
    ranker: SequenceRanker
    hotwords: BoostHotwords | None

    def loop(self, tokens: Sequence[int] | Tensor) -> repetition.Loop | None:
        """Return the loop by which a text was ended."""
        if not self.options.stop_loops:
            return None
        sampled = tokens.tolist() if isinstance(tokens, Tensor) else tokens
        return repetition.detect(sampled, self.tokenizer.timestamp_begin)

    def best(self, texts: Sequence[Sequence[Any]], logprobs: Sequence[Sequence[float]]) -> list[int]:
        """Return the index of the best text of each audio: of those that do not loop, where there are any."""
        sound = [[i for i, text in enumerate(group) if not self.loop(text)] or range(len(group)) for group in texts]
        best = self.ranker.rank(
            [[group[i] for i in kept] for group, kept in zip(texts, sound, strict=True)],
            [[group[i] for i in kept] for group, kept in zip(logprobs, sound, strict=True)],
        )
        return [kept[i] for kept, i in zip(sound, best, strict=True)]

    def result(
        self, features: Tensor, language: str, tokens: list[int], sum_logprob: float, no_speech_prob: float
    ) -> DecodingResult:
        """Return the result of a window whose best candidate is `tokens`."""
        if self.hotwords is not None:
            sum_logprob = self.hotwords.model_logprob(tokens, sum_logprob)
        loop = self.loop(tokens)
        kept = tokens[: loop.keep] if loop else tokens
        text = self.tokenizer.decode(kept).strip()
        return DecodingResult(
            audio_features=features,
            language=language,
            tokens=kept,
            text=text,
            avg_logprob=sum_logprob / (len(tokens) + 1),
            no_speech_prob=no_speech_prob,
            temperature=self.options.temperature,
            compression_ratio=compression_ratio(text),
            is_loop=loop is not None,
        )

    def result_of(self, sampling: WindowSampling, language: str) -> DecodingResult:
        """Return the result of a window whose sampling is done."""
        texts, logprobs = sampling.candidates()
        (best,) = self.best([texts], [logprobs])
        features = sampling.window.features
        result = self.result(features, language, texts[best], logprobs[best], sampling.no_speech_prob)
        token_logprobs = sampling.token_logprobs(texts[best])[: len(result.tokens)]
        return replace(result, token_logprobs=token_logprobs)


def _tokenizer_for(model: Whisper, options: DecodingOptions) -> Tokenizer:
    return get_tokenizer(
        model.is_multilingual,
        num_languages=model.num_languages,
        language=options.language or "en",
        task=options.task,
    )


def window_sampling(model: Whisper, options: DecodingOptions, window: EncodedWindow) -> WindowSampling:
    """Return the decoding of a window, to be awaited as a `Sample`; see `sampled_result` for what comes of it.

    Parameters
    ----------
    options
        With the language of the window, unless the model is English-only.
    """
    verify_options(options)
    tokenizer = _tokenizer_for(model, options)
    check_room(plan.group_size(options), model.dims, model.device)
    return WindowSampling(plan.build_plan(options, model.dims, tokenizer), window)


def sampled_result(model: Whisper, options: DecodingOptions, sampling: WindowSampling) -> DecodingResult:
    """Return what came of a `window_sampling` with the same options, once it is done."""
    ranker = MaximumLikelihoodRanker(options.length_penalty)
    selection = CandidateSelection(options, _tokenizer_for(model, options), ranker, sampling.plan.hotwords)
    return selection.result_of(sampling, options.language or "en")


class DecodingTask:
    """Decodes windows with one set of options.

    A task runs one batch at a time. Its parts (`inference`, `decoder`, `logit_filters`, `sequence_ranker`) may
    be replaced, and its methods overridden, before `run`.
    """

    inference: Inference
    sequence_ranker: SequenceRanker
    decoder: TokenDecoder
    logit_filters: list[LogitFilter]

    def __init__(self, model: Whisper, options: DecodingOptions) -> None:
        self.model = model
        self.options = self._verify_options(options)
        self.tokenizer = tokenizer = _tokenizer_for(model, options)
        self.n_group: int = plan.group_size(options)
        check_room(self.n_group, model.dims, model.device)
        self.n_ctx: int = model.dims.n_text_ctx
        self.sample_len: int = plan.max_sampled(options, model.dims)

        self.sot_sequence: tuple[int, ...] = plan.start_sequence(options, tokenizer)
        self.initial_tokens: tuple[int, ...] = self._get_initial_tokens()
        self.sample_begin: int = len(self.initial_tokens)
        self.sot_index: int = self.initial_tokens.index(tokenizer.sot)

        self.inference = PyTorchInference(model, len(self.initial_tokens))
        self.sequence_ranker = MaximumLikelihoodRanker(options.length_penalty)
        if options.beam_size is not None:
            self.decoder = BeamSearchDecoder(options.beam_size, tokenizer.eot, self.inference, options.patience)
        else:
            self.decoder = GreedyDecoder(options.temperature, tokenizer.eot, options.seed)
        self._row_filters = plan.row_filters(options, tokenizer, self.sample_begin)
        self._hotwords = plan.hotword_filter(self._row_filters)
        self.logit_filters = self._get_logit_filters()
        self._own_parts = self._parts()

    # -- what the options mean for this model ------------------------------------------------------------

    def _verify_options(self, options: DecodingOptions) -> DecodingOptions:
        verify_options(options)
        return options

    def _get_logit_filters(self) -> list[LogitFilter]:
        filters: list[LogitFilter] = [*self._row_filters]
        if self.options.suppress_blank:
            filters.append(SuppressBlank(self.tokenizer, self.sample_begin))
        if self.options.suppress_tokens:
            filters.append(SuppressTokens(self._get_suppress_tokens()))
        if not self.options.without_timestamps:
            limit = plan.max_initial_index(self.options, self.model.dims)
            filters.append(ApplyTimestampRules(self.tokenizer, self.sample_begin, limit))
        if self.options.stop_loops:
            filters.append(StopLoops(self.tokenizer, self.sample_begin))
        return filters

    def _get_suppress_tokens(self) -> tuple[int, ...]:
        tokens = suppressed_tokens(self.options.suppress_tokens, self.tokenizer)
        plan.check_first_token(tokens, self.options, self.model.dims, self.tokenizer)
        return tokens

    def _get_initial_tokens(self) -> tuple[int, ...]:
        return plan.initial_tokens(self.options, self.model.dims, self.tokenizer)

    # -- the steps of a run ------------------------------------------------------------------------------

    def _get_audio_features(self, mel: Tensor) -> Tensor:
        """Return ``(n_audio, n_audio_ctx, n_audio_state)``; features that are given already pass through."""
        mel = mel.to(self.model.device, compute_dtype(self.options.fp16, self.model.device))
        if is_encoded(self.model, mel):
            return mel
        features: Tensor = self.model.encoder(mel)
        return features

    def _detect_language(
        self, audio_features: Tensor, tokens: Tensor
    ) -> tuple[list[str], list[dict[str, float]] | None]:
        """Return each window's language, and write its token into `tokens` where it had to be detected."""
        if not self._detects():
            return [self.options.language or "en"] * audio_features.shape[0], None
        language_tokens, probs = self.model.detect_language(audio_features, self.tokenizer)
        languages = [max(p, key=p.__getitem__) for p in probs]
        if self.options.language is None:
            tokens[:, self.sot_index + 1] = language_tokens.to(tokens.device)
        return languages, probs

    def _detects(self) -> bool:
        """Whether the language of the windows is detected; not by an English-only model."""
        return self.options.task == "lang_id" or (self.options.language is None and self.model.is_multilingual)

    def _main_loop(self, audio_features: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, list[float]]:
        """Sample until every row has ended; `tokens` is ``(n_audio * n_group, n_initial)``."""
        sum_logprobs = torch.zeros(tokens.shape[0], dtype=torch.float32, device=audio_features.device)
        no_speech_probs = [math.nan] * tokens.shape[0]
        try:
            for step in range(self.sample_len):
                logits = self.inference.logits(tokens, audio_features)
                if step == 0:
                    at_sot = logits[:, self.sot_index].float().softmax(dim=-1)
                    no_speech_probs = at_sot[:, self.tokenizer.no_speech].tolist()
                logits = logits[:, -1]  # (n_batch, n_vocab)
                for logit_filter in self.logit_filters:
                    logit_filter.apply(logits, tokens)
                if self._hotwords is not None:
                    sum_logprobs += self._hotwords.score_corrections(logits, tokens)
                tokens, completed = self.decoder.update(tokens, logits, sum_logprobs)
                if completed or tokens.shape[-1] > self.n_ctx:
                    break
        finally:
            self.inference.cleanup_caching()
        if self._hotwords is not None:
            sum_logprobs -= self._hotwords.pending_biases(tokens)
        return tokens, sum_logprobs, no_speech_probs

    @clean_state()
    def run(self, mel: Tensor) -> list[DecodingResult]:
        """Decode a batch: spectrograms ``(n_audio, n_mels, 3000)`` or audio features."""
        if engine := self._engine(mel):
            results: list[DecodingResult] = engine.submit(self._request(mel)).result()
            return results
        self.decoder.reset()
        audio_features = self._get_audio_features(mel)
        n_audio = audio_features.shape[0]
        initial = torch.tensor([self.initial_tokens], dtype=torch.long, device=audio_features.device)
        tokens = initial.repeat(n_audio, 1)
        languages, probs = self._detect_language(audio_features, tokens)
        if self.options.task == "lang_id":
            return _named(audio_features, languages, probs or [])

        tokens = tokens.repeat_interleave(self.n_group, dim=0)  # (n_audio * n_group, n_initial)
        tokens, sum_logprobs, no_speech_probs = self._main_loop(audio_features, tokens)
        candidates, logprobs = self.decoder.finalize(
            tokens.reshape(n_audio, self.n_group, -1), sum_logprobs.reshape(n_audio, self.n_group)
        )
        texts = [[self._without_frame(t) for t in group] for group in candidates]
        selection = self._selection()
        best = selection.best(texts, logprobs)
        return [
            selection.result(audio_features[i], languages[i], texts[i][j].tolist(), logprobs[i][j], no_speech)
            for i, (j, no_speech) in enumerate(zip(best, no_speech_probs[:: self.n_group], strict=True))
        ]

    # -- the same through the engine ---------------------------------------------------------------------

    def _parts(self) -> list[object]:
        return [self.inference, self.decoder, self.sequence_ranker, *self.logit_filters]

    def _engine(self, mel: Tensor) -> Engine | None:
        """Return the engine that runs this task; None where only the loop does what was asked for."""
        model, options = self.model, self.options
        if type(self) is not DecodingTask or compat.replaced("decoding") or not choice.usable(model):
            return None
        parts = self._parts()
        if len(parts) != len(self._own_parts) or any(a is not b for a, b in zip(parts, self._own_parts, strict=True)):
            return None
        if not is_window(model, mel):
            return None
        if options.task == "lang_id" and not model.is_multilingual:
            return None  # likewise
        if options.temperature > 0 and options.beam_size is None and len(mel) > 1:
            return None  # the loop draws for all windows at once, and so must who wants the same numbers
        return engine_for(model, options.fp16)

    async def _request(self, mel: Tensor) -> list[DecodingResult]:
        """Decode a batch, its windows side by side."""
        return await gather(map(self._window_request, mel.to(self.model.device)), self.n_group)

    async def _window_request(self, mel: Tensor) -> DecodingResult:
        """Decode one window: ``(n_mels, 3000)``, or audio features."""
        window = await encode_operation(self.model, mel)
        language, probs = self.options.language or "en", None
        if self._detects():
            tokens, codes = self.tokenizer.all_language_tokens, self.tokenizer.all_language_codes
            probs = dict(zip(codes, await DetectLanguage(window, self.tokenizer.sot, tokens), strict=True))
            language = max(probs, key=probs.__getitem__)
        if self.options.task == "lang_id":
            return DecodingResult(window.features, language, probs)
        sampling = await Sample(self.sampling(window, language if probs else None))
        return self._selection().result_of(sampling, language)

    def sampling(self, window: EncodedWindow, language: str | None = None) -> WindowSampling:
        """Return a window as a state that `sampling.step` brings to its end.

        Parameters
        ----------
        window
            An encoded one.
        language
            One that was detected, and takes the place of the one in the options.
        """
        initial = list(self.initial_tokens)
        if language is not None and self.options.language is None:
            initial[self.sot_index + 1] = self.tokenizer.to_language_token(language)
        resolved = replace(  # the attributes of a task may have been changed
            plan.build_plan(self.options, self.model.dims, self.tokenizer),
            initial_tokens=tuple(initial),
            sot_index=self.sot_index,
            max_steps=min(self.sample_len, self.n_ctx + 1 - len(initial)),
            n_group=self.n_group,
            max_candidates=self.decoder.max_candidates if isinstance(self.decoder, BeamSearchDecoder) else None,
            row_filters=self._row_filters,
            hotwords=self._hotwords,
        )
        return WindowSampling(resolved, window)

    def _selection(self) -> CandidateSelection:
        return CandidateSelection(self.options, self.tokenizer, self.sequence_ranker, self._hotwords)

    def _without_frame(self, tokens: Tensor) -> Tensor:
        """Cut the prompt, the start and everything from the end token on."""
        sampled = tokens[self.sample_begin :]
        return sampled[: int((sampled == self.tokenizer.eot).nonzero()[0, 0])]


def _named(
    features: Iterable[Tensor], languages: Iterable[str], probs: Iterable[dict[str, float]]
) -> list[DecodingResult]:
    return [DecodingResult(f, language, p) for f, language, p in zip(features, languages, probs, strict=True)]


def decode(
    model: Whisper,
    mel: Tensor,
    options: DecodingOptions = DecodingOptions(),
    **kwargs: Any,
) -> DecodingResult | list[DecodingResult]:
    """Decode one window of 30 s, or a batch of them.

    Parameters
    ----------
    model
        A Whisper model.
    mel
        Spectrogram ``(n_mels, 3000)`` or audio features ``(n_audio_ctx, n_audio_state)``, or a batch of either.
    options
        How to decode; by default `DecodingOptions` as it is.
    **kwargs
        Single fields of `DecodingOptions`, over those of `options`.

    Returns
    -------
    DecodingResult or list of DecodingResult
        One for a single window, a list for a batch.

    Raises
    ------
    OptionError
        An unknown option, a value out of range, or options that exclude each other.
    ShapeError
        `mel` is not of this model.
    """
    if kwargs:
        check_names(kwargs, "decode", DecodingOptions)
    options = replace(options, **kwargs)
    single = checked_window(mel).ndim == 2
    result = DecodingTask(model, options).run(mel.unsqueeze(0) if single else mel)
    return result[0] if single else result


# ---------------------------------------------------------------------------------------------------------
# What a program may replace
# ---------------------------------------------------------------------------------------------------------

_CLASSES = (
    DecodingTask, PyTorchInference, Inference, GreedyDecoder, BeamSearchDecoder, TokenDecoder, MaximumLikelihoodRanker,
    SequenceRanker, SuppressBlank, SuppressTokens, ApplyTimestampRules, LogitFilter,
)  # fmt: skip
compat.remember(
    "decoding",
    (globals(), (*__all__, "compute_dtype", "suppressed_tokens", "compression_ratio")),
    *((vars(c), [name for name, value in vars(c).items() if inspect.isfunction(value)]) for c in _CLASSES),
)
