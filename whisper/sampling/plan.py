"""From decoding options to the sampling of one window: first tokens, token rules, filters, limits.

A `SamplingPlan` is all that the sampling of a window needs to know, and depends on nothing but the
options, the model's dimensions and its tokenizer. Runs nothing and draws nothing.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import OptionError
from ..spans import CHUNK_LENGTH
from .logit_filters import BoostHotwords, NoRepeatNgram, PenalizeRepetition, RowFilter
from .search import n_finished
from .token_rules import RowRules

if TYPE_CHECKING:
    from ..model import ModelDimensions
    from ..options.transcription import DecodingOptions
    from ..tokenizer import Tokenizer


@dataclass(frozen=True)
class SamplingPlan:
    """How a window is sampled: `DecodingOptions`, resolved for a model."""

    initial_tokens: tuple[int, ...]  # prompt, start and prefix
    sot_index: int  # index of <|startoftranscript|> among them
    max_steps: int  # most tokens that are sampled
    rules: RowRules
    eot: int
    no_speech: int  # <|nospeech|>, whose probability at the start token indicates silence
    n_group: int = 1  # beams, or samples of which the best is selected
    temperature: float = 0.0
    # finished texts after which a beam search ends; None: no beam search
    max_candidates: int | None = None
    seed: int | None = None  # None uses torch's default generator
    row_filters: tuple[RowFilter, ...] = ()  # applied to the logits before the rules
    hotwords: BoostHotwords | None = None  # the one of these that needs score corrections

    @property
    def n_best(self) -> int:
        """Candidates for each row's next token."""
        return 1 if self.max_candidates is None else self.n_group + 1


def build_plan(options: DecodingOptions, dims: ModelDimensions, tokenizer: Tokenizer) -> SamplingPlan:
    """Return how to sample a window, from options that were checked.

    Parameters
    ----------
    options
        With the language of the window, unless `tokenizer` is that of an English-only model.
    dims
        Of the model.
    tokenizer
        Of the model, for the language and the task of the options.

    Raises
    ------
    OptionError
        Options that do not fit the model: tokens outside of its vocabulary, too long a prefix, no
        token left to sample.
    """
    initial = initial_tokens(options, dims, tokenizer)
    max_candidates = None if options.beam_size is None else n_finished(options.beam_size, options.patience)
    filters = row_filters(options, tokenizer, len(initial))
    suppressed: tuple[int, ...] = ()
    if options.suppress_tokens:
        suppressed = suppressed_tokens(options.suppress_tokens, tokenizer)
        check_first_token(suppressed, options, dims, tokenizer)
    return SamplingPlan(
        initial_tokens=initial,
        sot_index=initial.index(tokenizer.sot),
        max_steps=min(max_sampled(options, dims), dims.n_text_ctx + 1 - len(initial)),
        rules=RowRules.make(
            tokenizer,
            dims.n_vocab,
            suppress_tokens=suppressed,
            suppress_blank=options.suppress_blank,
            timestamps=not options.without_timestamps,
            max_initial_timestamp_index=max_initial_index(options, dims),
            stop_loops=options.stop_loops,
        ),
        eot=tokenizer.eot,
        no_speech=tokenizer.no_speech,
        n_group=group_size(options),
        temperature=options.temperature,
        max_candidates=max_candidates,
        seed=options.seed,
        row_filters=filters,
        hotwords=hotword_filter(filters),
    )


def group_size(options: DecodingOptions) -> int:
    """Return how many texts grow side by side: beams, or samples."""
    return options.beam_size or options.best_of or 1


def max_sampled(options: DecodingOptions, dims: ModelDimensions) -> int:
    """Return how many tokens may be sampled, as far as the options say."""
    return options.sample_len or dims.n_text_ctx // 2


def max_initial_index(options: DecodingOptions, dims: ModelDimensions) -> int | None:
    """Return the highest first timestamp, in steps of 20 ms; None for no limit."""
    if not options.max_initial_timestamp:
        return None
    precision = CHUNK_LENGTH / dims.n_audio_ctx  # seconds: 0.02 in every known model
    return round(options.max_initial_timestamp / precision)


def start_sequence(options: DecodingOptions, tokenizer: Tokenizer) -> tuple[int, ...]:
    """Return the start of the transcript, with language and task."""
    return tokenizer.sot_sequence_including_notimestamps if options.without_timestamps else tokenizer.sot_sequence


def initial_tokens(options: DecodingOptions, dims: ModelDimensions, tokenizer: Tokenizer) -> tuple[int, ...]:
    """Return what the decoder reads before the first token is sampled: prompt, start and prefix."""
    n_ctx = dims.n_text_ctx
    tokens = list(start_sequence(options, tokenizer))
    if prefix := _encode(options.prefix, dims, tokenizer):
        room = n_ctx // 2 - max_sampled(options, dims)
        tokens += prefix[-room:] if room > 0 else prefix
    if prompt := _encode(options.prompt, dims, tokenizer):
        tokens = [tokenizer.sot_prev, *prompt[-(n_ctx // 2 - 1) :], *tokens]
    if len(tokens) >= n_ctx:
        raise OptionError(
            f"prompt, prefix and start take {len(tokens)} tokens, and the decoder has place for {n_ctx}: "
            "shorten the prefix"
        )
    return tuple(tokens)


def _encode(text: str | Sequence[int] | None, dims: ModelDimensions, tokenizer: Tokenizer) -> list[int]:
    if isinstance(text, str):
        return tokenizer.encode(" " + text.strip()) if text else []
    tokens, n_vocab = list(text or ()), dims.n_vocab
    if wrong := [token for token in tokens if not 0 <= token < n_vocab]:
        raise OptionError(f"prompt and prefix: the vocabulary has ids from 0 to {n_vocab - 1}, and no {wrong[:3]}")
    return tokens


def row_filters(options: DecodingOptions, tokenizer: Tokenizer, sample_begin: int) -> tuple[RowFilter, ...]:
    """Return the filters that depend on the tokens of each row; they are applied before the others."""
    filters: list[RowFilter] = []
    if options.repetition_penalty != 1:
        filters.append(PenalizeRepetition(tokenizer, sample_begin, options.repetition_penalty))
    if options.no_repeat_ngram_size is not None:
        filters.append(NoRepeatNgram(tokenizer, sample_begin, options.no_repeat_ngram_size))
    if options.hotwords is not None and options.hotword_boost:
        from .hotwords import hotwords_for  # here, as only transcriptions with hotwords need it

        hotwords = hotwords_for(
            tuple(options.hotwords), options.hotword_boost, tokenizer.language is not None, tokenizer.num_languages
        )
        filters.append(BoostHotwords(tokenizer, sample_begin, hotwords))
    return tuple(filters)


def hotword_filter(filters: Iterable[RowFilter]) -> BoostHotwords | None:
    """Return the filter whose biases the scores must be corrected for, if it is among these."""
    return next((f for f in filters if isinstance(f, BoostHotwords)), None)


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


def check_first_token(
    suppressed: Iterable[int], options: DecodingOptions, dims: ModelDimensions, tokenizer: Tokenizer
) -> None:
    """Raise `OptionError` where a text must begin with a timestamp, and all that may be the first are suppressed."""
    first = tokenizer.timestamp_begin
    last = first + (max_initial_index(options, dims) or dims.n_vocab - 1 - first)
    if not options.without_timestamps and set(suppressed).issuperset(range(first, last + 1)):
        raise OptionError("suppress_tokens leaves no timestamp to begin with: give without_timestamps=True")
