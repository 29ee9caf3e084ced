"""The options of `decode` and of `transcribe`, checked at the door; no option is accepted and then ignored."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from numbers import Integral
from typing import Any

from .errors import OptionError, UnknownOptionError

FALLBACK_TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
PREPEND_PUNCTUATIONS = "\"'“¿([{-"
APPEND_PUNCTUATIONS = "\"'.。,，!！?？:：”)]}、"


@dataclass(frozen=True)
class DecodingOptions:
    """How to decode a window; names and defaults are openai-whisper's."""

    # "transcribe" writes what is said, "translate" writes it in English, "lang_id" only names the language
    task: str = "transcribe"
    language: str | None = None  # code or name; None detects it

    # choosing tokens
    temperature: float = 0.0
    sample_len: int | None = None  # at most so many tokens; None: half of the decoder's context
    best_of: int | None = None  # samples to choose from; only above temperature 0
    beam_size: int | None = None  # width of the beam search; None samples
    patience: float | None = None  # of the beam search (arXiv:2204.05424); None is 1

    # alpha of arXiv:1609.08144 when candidates are ranked; None ranks by the mean log-probability
    length_penalty: float | None = None

    prompt: str | list[int] | None = None  # what was said before: text or tokens
    prefix: str | list[int] | None = None  # how this window's text begins

    # token ids, or a string of them with commas; -1 stands for the symbols that nobody speaks
    suppress_tokens: str | Iterable[int] | None = "-1"
    suppress_blank: bool = True  # no text that begins with a space alone or is empty

    without_timestamps: bool = False  # text only
    max_initial_timestamp: float | None = 1.0  # seconds; None (or 0, as in the original) for no limit

    fp16: bool = True  # half precision where the device computes well in it; False is float32 everywhere

    # of what is drawn above temperature 0; None draws from torch's own generator (`torch.manual_seed`)
    seed: int | None = None

    # -- beyond openai-whisper --

    no_repeat_ngram_size: int | None = None  # no so many tokens in a row twice
    repetition_penalty: float = 1.0  # above 1, tokens that were said become less likely (arXiv:1909.05858)
    hotwords: Sequence[str] | str | None = None  # words and phrases that become likelier
    hotword_boost: float = 2.0  # added to the log-probability of each of their tokens
    stop_loops: bool = False  # end a text that goes round in circles

    def __post_init__(self) -> None:
        object.__setattr__(self, "suppress_tokens", settled(self.suppress_tokens))


@dataclass(frozen=True)
class TranscribeOptions:
    """What `transcribe` takes beside the fields of `DecodingOptions`; names and defaults are openai-whisper's."""

    # True prints each segment as it comes, False shows a progress bar, None prints nothing
    verbose: bool | None = None

    # tried in turn while a window's text looks wrong by one of the next two thresholds
    temperature: float | Sequence[float] = FALLBACK_TEMPERATURES
    compression_ratio_threshold: float | None = 2.4  # text that zlib packs tighter than this repeats itself
    logprob_threshold: float | None = -1.0  # mean log-probability of the tokens below which a text is doubted
    no_speech_threshold: float | None = 0.6  # above this, with a doubted text, the window counts as silence

    condition_on_previous_text: bool = True  # prompt each window with the text before it
    initial_prompt: str | None = None  # prompt of the first window: names, spellings, style
    carry_initial_prompt: bool = False  # ... and of every other window, too

    word_timestamps: bool = False
    prepend_punctuations: str = PREPEND_PUNCTUATIONS  # marks that belong to the word after them
    append_punctuations: str = APPEND_PUNCTUATIONS  # marks that belong to the word before them

    # seconds "start,end,start,end,..." to transcribe; without the last end, up to the end of the recording
    clip_timestamps: str | Sequence[float] = "0"

    # with word times: skip silences longer than this (seconds) around words that look invented
    hallucination_silence_threshold: float | None = None

    # -- beyond openai-whisper --

    # cut a long recording at pauses, and transcribe so many of the stretches side by side; of a list, transcribe so
    # many recordings side by side
    batch_size: int | None = None

    # hold text and speech against each other, and mend what does not fit; None: where `batch_size` cuts
    audit: bool | None = None
    vad_filter: bool | None = None  # skip pauses of 2 s and more; None: with `audit`
    vad_parameters: Mapping[str, Any] | str | None = None  # fields of `vad.VadOptions`

    languages: Sequence[str] | str | None = None  # detect one of these alone
    language_detection_segments: int = 1  # windows that are asked for the language
    multilingual: bool = False  # detect the language of each window
    channels: str = "mix"  # "separate": a speaker on each channel

    progress: Callable[[float, float], object] | None = None  # told after each window: seconds done, seconds in all
    cancel: Any = None  # something like a `threading.Event`: once it is set, the transcription ends

    def __post_init__(self) -> None:
        for name in ("temperature", "clip_timestamps"):
            object.__setattr__(self, name, settled(getattr(self, name)))
        self.temperatures()
        for name in (
            "compression_ratio_threshold", "logprob_threshold", "no_speech_threshold",
            "hallucination_silence_threshold",
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and not is_number(value):
                raise OptionError(f"{name} must be a number or None, not {value!r}")
        silence = self.hallucination_silence_threshold
        if silence is not None and silence < 0:
            raise OptionError(f"hallucination_silence_threshold must be seconds of at least 0, not {silence}")
        size = self.batch_size
        if size is not None and (isinstance(size, bool) or not isinstance(size, Integral) or size < 1):
            raise OptionError(f"batch_size must be a whole number of at least 1, or None, not {size!r}")
        if self.progress is not None and not callable(self.progress):
            raise OptionError(f"progress must be a function of two numbers, or None, not {self.progress!r}")
        if self.cancel is not None and not callable(getattr(self.cancel, "is_set", None)):
            raise OptionError(f"cancel must be something like a threading.Event, with is_set(), not {self.cancel!r}")
        if self.initial_prompt is not None and not isinstance(self.initial_prompt, str):
            raise OptionError(f"initial_prompt must be text, not {type(self.initial_prompt).__name__}")

    def temperatures(self) -> tuple[float, ...]:
        """Return the ladder of temperatures, at least one step."""
        given = self.temperature
        ladder = tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else (given,)
        if not ladder:
            raise OptionError("temperature is empty: give a number or at least one step of a ladder")
        if wrong := [t for t in ladder if not is_number(t) or not 0 <= t < math.inf]:
            raise OptionError(f"temperature must be numbers of at least 0, and not {wrong[0]!r}")
        return tuple(float(t) for t in ladder)


def verify_options(options: DecodingOptions) -> None:
    """Raise `OptionError` for values out of range and for options that exclude each other."""
    o = options
    if o.task not in ("transcribe", "translate", "lang_id"):
        raise OptionError(f"task must be 'transcribe', 'translate' or 'lang_id', not {o.task!r}")
    if o.beam_size is not None and o.best_of is not None:
        raise OptionError("beam_size and best_of can't be given together")
    if o.temperature == 0 and o.best_of is not None:
        raise OptionError("best_of with greedy sampling (T=0) is not compatible: raise temperature or use beam_size")
    if o.patience is not None and o.beam_size is None:
        raise OptionError("patience requires beam_size to be given")
    if o.length_penalty is not None and not 0 <= o.length_penalty <= 1:
        raise OptionError(f"length_penalty (alpha) should be a value between 0 and 1, not {o.length_penalty}")
    for name in ("beam_size", "best_of", "sample_len"):
        value = getattr(o, name)
        if value is not None and (not _is_whole(value) or value < 1):
            raise OptionError(f"{name} must be a whole number of at least 1, not {value!r}")
    if o.seed is not None and (not _is_whole(o.seed) or not 0 <= o.seed < 2**63):
        raise OptionError(f"seed must be a whole number from 0 to 2**63 - 1, or None, not {o.seed!r}")
    for name in ("temperature", "patience", "max_initial_timestamp"):
        value = getattr(o, name)
        if value is not None and not 0 <= value < math.inf:
            raise OptionError(f"{name} must be a number of at least 0, not {value!r}")


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def settled(value: Any) -> Any:
    """Return lists, tuples, text and single values as they are, and anything else to iterate over as a tuple.

    An iterator is empty the second time it is read, and every window reads the options; an array has no truth value.
    """
    plain = isinstance(value, (str, list, tuple)) or not isinstance(value, Iterable)
    return value if plain else tuple(value)


def is_number(value: object) -> bool:
    """Whether `value` is a number that is one (not NaN, not text, not a flag)."""
    try:
        return not isinstance(value, (bool, str, bytes)) and not math.isnan(value)  # type: ignore[arg-type]
    except TypeError:
        return False


def check_names(given: Mapping[str, object], function: str, *dataclass_types: type) -> None:
    """Raise `UnknownOptionError` for a name that is no field of the dataclasses, with the nearest that is one."""
    known = [f.name for dataclass_type in dataclass_types for f in fields(dataclass_type)]
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"
            raise UnknownOptionError(f"{function}() has no option {name!r}{hint}")
