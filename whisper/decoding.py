"""One 30 s window of sound to tokens: options, the sampling loop, language detection.

Everything that a decoding needs lives in its `DecodingTask`; the model is only read. So two decodings on one
model, in two threads, do not meet, and an exception in the middle leaves nothing behind.
"""

from __future__ import annotations

import inspect
import math
import reprlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from . import compat
from .audio import CHUNK_LENGTH
from .device.torch_state import clean_state
from .engine.engine import Engine, engine_for
from .engine.operations import DetectLanguage, Encode, Operation, Project, Sample, gather
from .errors import LanguageError, OptionError, ShapeError
from .model import KVCache
from .options.transcription import DecodingOptions
from .options.transcription import verify_options as verify_options
from .options.types import check_names
from .runtime import select
from .runtime.interface import EncodedWindow, check_room
from .sampling import repetition
from .sampling.hotwords import hotwords_for
from .sampling.logit_filters import (
    ApplyTimestampRules,
    BoostHotwords,
    LogitFilter,
    NoRepeatNgram,
    PenalizeRepetition,
    RowFilter,
    StopLoops,
    SuppressBlank,
    SuppressTokens,
)
from .sampling.search import BeamSearchDecoder, GreedyDecoder, MaximumLikelihoodRanker, SequenceRanker, TokenDecoder
from .sampling.token_rules import RowRules
from .sampling.window_sampling import SamplingPlan, WindowSampling
from .tokenizer import Tokenizer, get_tokenizer
from .utils import cached_property, compression_ratio

if TYPE_CHECKING:
    from .model import Whisper

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


class PyTorchInference(Inference):
    """Runs ``model.decoder`` with a cache of its own."""

    def __init__(self, model: Whisper, initial_token_length: int) -> None:
        self.model = model
        self.initial_token_length = initial_token_length
        self.kv_cache = KVCache()

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
        self.kv_cache = KVCache()


def compute_dtype(fp16: bool, device: torch.device) -> torch.dtype:
    """Return the precision that the option `fp16` means on a device: a CPU is slow in float16."""
    return torch.float16 if fp16 and device.type != "cpu" else torch.float32


def is_encoded(model: Whisper, mel: Tensor) -> bool:
    """Whether `mel` is not a spectrogram but audio features already, by its last two dimensions."""
    return tuple(mel.shape[-2:]) == (model.dims.n_audio_ctx, model.dims.n_audio_state)


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
    if mel.dtype == torch.float32 and mel.device == model.device and select.usable(model) and is_window(model, mel):
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


def encode_operation(model: Whisper, mel: Tensor) -> Operation[EncodedWindow]:
    """Return what to await for a window: ``(n_mels, 3000)``, or audio features."""
    return Project(mel.float()) if is_encoded(model, mel[None]) else Encode(mel)


def is_window(model: Whisper, mel: Tensor) -> bool:
    """Whether a batch holds features or whole windows; of another, the encoder says what is wrong."""
    return is_encoded(model, mel) or tuple(mel.shape[1:]) == (model.dims.n_mels, 2 * model.dims.n_audio_ctx)


# ---------------------------------------------------------------------------------------------------------
# Decoding
# ---------------------------------------------------------------------------------------------------------


def suppressed_tokens(value: str | Iterable[int] | None, tokenizer: Tokenizer) -> tuple[int, ...]:
    """Return the ids that must not be sampled, sorted: those asked for and the control tokens."""
    try:
        given = [] if value is None else value.split(",") if isinstance(value, str) else list(value)
        ids = {int(t) for t in given if str(t).strip()}
    except (TypeError, ValueError, OverflowError):
        raise OptionError(
            f"suppress_tokens must be token ids, or a string of them with commas, not {reprlib.repr(value)}"
        ) from None
    n_vocab = tokenizer.encoding.n_vocab
    if wrong := [t for t in ids if not -1 <= t < n_vocab]:
        raise OptionError(f"suppress_tokens: the vocabulary has ids from 0 to {n_vocab - 1}, and no {wrong[:3]}")
    if len([t for t in ids if 0 <= t < tokenizer.eot]) == tokenizer.eot:
        raise OptionError("suppress_tokens leaves no text that could be written")
    if -1 in ids:
        ids = (ids - {-1}) | set(tokenizer.non_speech_tokens)
    control = (tokenizer.transcribe, tokenizer.translate, tokenizer.sot, tokenizer.sot_prev, tokenizer.sot_lm)
    # the probability of <|nospeech|> is read apart, at the start of the text
    return tuple(sorted(ids | {*control, tokenizer.no_speech}))


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
        self.tokenizer = tokenizer = get_tokenizer(
            model.is_multilingual,
            num_languages=model.num_languages,
            language=options.language or "en",
            task=options.task,
        )
        self.n_group: int = options.beam_size or options.best_of or 1
        check_room(self.n_group, model.dims, model.device)
        self.n_ctx: int = model.dims.n_text_ctx
        self.sample_len: int = options.sample_len or model.dims.n_text_ctx // 2

        self.sot_sequence: tuple[int, ...] = tokenizer.sot_sequence
        if options.without_timestamps:
            self.sot_sequence = tokenizer.sot_sequence_including_notimestamps
        self.initial_tokens: tuple[int, ...] = self._get_initial_tokens()
        self.sample_begin: int = len(self.initial_tokens)
        self.sot_index: int = self.initial_tokens.index(tokenizer.sot)

        self.inference = PyTorchInference(model, len(self.initial_tokens))
        self.sequence_ranker = MaximumLikelihoodRanker(options.length_penalty)
        if options.beam_size is not None:
            self.decoder = BeamSearchDecoder(options.beam_size, tokenizer.eot, self.inference, options.patience)
        else:
            self.decoder = GreedyDecoder(options.temperature, tokenizer.eot, options.seed)
        self._row_filters = self._get_row_filters()
        self._hotwords = next((f for f in self._row_filters if isinstance(f, BoostHotwords)), None)
        self.logit_filters = self._get_logit_filters()
        self._own_parts = self._parts()

    # -- what the options mean for this model ------------------------------------------------------------

    def _verify_options(self, options: DecodingOptions) -> DecodingOptions:
        verify_options(options)
        return options

    def _get_row_filters(self) -> tuple[RowFilter, ...]:
        """Return the filters that depend on the tokens of each row; they are applied before the others."""
        options, at = self.options, (self.tokenizer, self.sample_begin)
        row_filters: list[RowFilter] = []
        if options.repetition_penalty != 1:
            row_filters.append(PenalizeRepetition(*at, options.repetition_penalty))
        if options.no_repeat_ngram_size is not None:
            row_filters.append(NoRepeatNgram(*at, options.no_repeat_ngram_size))
        if options.hotwords is not None and options.hotword_boost:
            known = self.model.is_multilingual, self.model.num_languages
            row_filters.append(BoostHotwords(*at, hotwords_for(tuple(options.hotwords), options.hotword_boost, *known)))
        return tuple(row_filters)

    def _get_logit_filters(self) -> list[LogitFilter]:
        filters: list[LogitFilter] = [*self._row_filters]
        if self.options.suppress_blank:
            filters.append(SuppressBlank(self.tokenizer, self.sample_begin))
        if self.options.suppress_tokens:
            filters.append(SuppressTokens(self._get_suppress_tokens()))
        if not self.options.without_timestamps:
            filters.append(ApplyTimestampRules(self.tokenizer, self.sample_begin, self._max_initial_index()))
        if self.options.stop_loops:
            filters.append(StopLoops(self.tokenizer, self.sample_begin))
        return filters

    def _max_initial_index(self) -> int | None:
        if not self.options.max_initial_timestamp:
            return None
        precision = CHUNK_LENGTH / self.model.dims.n_audio_ctx  # seconds: 0.02 in every known model
        return round(self.options.max_initial_timestamp / precision)

    def _get_suppress_tokens(self) -> tuple[int, ...]:
        tokens, first = suppressed_tokens(self.options.suppress_tokens, self.tokenizer), self.tokenizer.timestamp_begin
        last = first + (self._max_initial_index() or self.model.dims.n_vocab - 1 - first)
        if not self.options.without_timestamps and set(tokens).issuperset(range(first, last + 1)):
            raise OptionError("suppress_tokens leaves no timestamp to begin with: give without_timestamps=True")
        return tokens

    def _get_initial_tokens(self) -> tuple[int, ...]:
        tokens = list(self.sot_sequence)
        if prefix := self._encode(self.options.prefix):
            room = self.n_ctx // 2 - self.sample_len
            tokens += prefix[-room:] if room > 0 else prefix
        if prompt := self._encode(self.options.prompt):
            tokens = [self.tokenizer.sot_prev, *prompt[-(self.n_ctx // 2 - 1) :], *tokens]
        if len(tokens) >= self.n_ctx:
            raise OptionError(
                f"prompt, prefix and start take {len(tokens)} tokens, and the decoder has place for {self.n_ctx}: "
                "shorten the prefix"
            )
        return tuple(tokens)

    def _encode(self, text: str | Sequence[int] | None) -> list[int]:
        if isinstance(text, str):
            return self.tokenizer.encode(" " + text.strip()) if text else []
        tokens, n_vocab = list(text or ()), self.model.dims.n_vocab
        if wrong := [token for token in tokens if not 0 <= token < n_vocab]:
            raise OptionError(f"prompt and prefix: the vocabulary has ids from 0 to {n_vocab - 1}, and no {wrong[:3]}")
        return tokens

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
        best = self._rank(texts, logprobs)
        return [
            self._result(audio_features[i], languages[i], texts[i][j].tolist(), logprobs[i][j], no_speech)
            for i, (j, no_speech) in enumerate(zip(best, no_speech_probs[:: self.n_group], strict=True))
        ]

    # -- the same through the engine ---------------------------------------------------------------------

    def _parts(self) -> list[object]:
        return [self.inference, self.decoder, self.sequence_ranker, *self.logit_filters]

    def _engine(self, mel: Tensor) -> Engine | None:
        """Return the engine that runs this task; None where only the loop does what was asked for."""
        model, options = self.model, self.options
        if type(self) is not DecodingTask or compat.replaced("decoding") or not select.usable(model):
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
        return self.result(sampling, language)

    def sampling(self, window: EncodedWindow, language: str | None = None) -> WindowSampling:
        """Return a window as a state that `sampling.step` brings to its end.

        Parameters
        ----------
        audio
            What a runner listens to.
        language
            One that was detected, and takes the place of the one in the options.
        """
        initial, tokenizer = list(self.initial_tokens), self.tokenizer
        if language is not None and self.options.language is None:
            initial[self.sot_index + 1] = tokenizer.to_language_token(language)
        rules = RowRules.make(
            tokenizer,
            self.model.dims.n_vocab,
            suppress_tokens=self._get_suppress_tokens() if self.options.suppress_tokens else (),
            suppress_blank=self.options.suppress_blank,
            timestamps=not self.options.without_timestamps,
            max_initial_timestamp_index=self._max_initial_index(),
            stop_loops=self.options.stop_loops,
        )
        plan = SamplingPlan(
            initial_tokens=tuple(initial),
            sot_index=self.sot_index,
            max_steps=min(self.sample_len, self.n_ctx + 1 - len(initial)),
            rules=rules,
            eot=tokenizer.eot,
            no_speech=tokenizer.no_speech,
            n_group=self.n_group,
            temperature=self.options.temperature,
            max_candidates=self.decoder.max_candidates if isinstance(self.decoder, BeamSearchDecoder) else None,
            seed=self.options.seed,
            row_filters=self._row_filters,
            hotwords=self._hotwords,
        )
        return WindowSampling(plan, window)

    def result(self, sampling: WindowSampling, language: str) -> DecodingResult:
        """Return what a window of `sampling` gave, once it is done."""
        texts, logprobs = sampling.candidates()
        (best,) = self._rank([texts], [logprobs])
        features = sampling.window.features
        return self._result(features, language, texts[best], logprobs[best], sampling.no_speech_prob)

    def _loop(self, tokens: Sequence[int] | Tensor) -> repetition.Loop | None:
        """Return the loop by which a text was ended."""
        if not self.options.stop_loops:
            return None
        sampled = tokens.tolist() if isinstance(tokens, Tensor) else tokens
        return repetition.detect(sampled, self.tokenizer.timestamp_begin)

    def _rank(self, texts: Sequence[Sequence[Any]], logprobs: Sequence[Sequence[float]]) -> list[int]:
        """Return the index of the best text of each audio: of those that do not loop, where there are any."""
        sound = [[i for i, text in enumerate(group) if not self._loop(text)] or range(len(group)) for group in texts]
        best = self.sequence_ranker.rank(
            [[group[i] for i in kept] for group, kept in zip(texts, sound, strict=True)],
            [[group[i] for i in kept] for group, kept in zip(logprobs, sound, strict=True)],
        )
        return [kept[i] for kept, i in zip(sound, best, strict=True)]

    def _without_frame(self, tokens: Tensor) -> Tensor:
        """Cut the prompt, the start and everything from the end token on."""
        sampled = tokens[self.sample_begin :]
        return sampled[: int((sampled == self.tokenizer.eot).nonzero()[0, 0])]

    def _result(
        self, features: Tensor, language: str, tokens: list[int], sum_logprob: float, no_speech_prob: float
    ) -> DecodingResult:
        if self._hotwords is not None:
            sum_logprob = self._hotwords.model_logprob(tokens, sum_logprob)
        loop = self._loop(tokens)
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
