"""The options of `decode` and of `transcribe`, each declared once: name, type, default, values, group, help and flag.

The checks in Python, the flags of ``whisper`` and ``whisper eval`` (`flags`) and ``docs/options.md`` come from
here; names and defaults are openai-whisper's where it has the option. Decodes nothing, and
makes no checks that need a model or a recording.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import Field, dataclass, fields, replace
from typing import Any

from ..errors import OptionError
from ..utils import str2bool
from .types import (
    BACKEND,
    EVENT,
    FIELDS,
    FINITE,
    FLAG,
    FUNCTION,
    LANGUAGE,
    NAMED_SOUNDS,
    NAMES,
    SPEAKERS,
    TEMPERATURE,
    TEMPERATURES,
    TEXT,
    TEXT_OR_TOKENS,
    TIMES,
    TOKENS,
    TRACK,
    check_values,
    facts,
    idle,
    number,
    one_of,
    option,
    whole,
)

FALLBACK_TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
PREPEND_PUNCTUATIONS = "\"'“¿([{-"
APPEND_PUNCTUATIONS = "\"'.。,，!！?？:：”)]}、"

# headings of the help and of docs/options.md, in their order
GROUPS = (
    TASK := "what is written",
    PARTS := "which parts of a recording are transcribed",
    PROMPT := "text and words that are known before",
    SEARCH := "how tokens are chosen",
    RETRY := "when a text is doubted and tried again",
    REPETITION := "repetition",
    TIMING := "times",
    SPEAKING := "who speaks",
    RUNNING := "how it runs",
    DECODE := "of decode() alone",
)


@dataclass(frozen=True)
class DecodingOptions:
    """How to decode a window; names, defaults and order are openai-whisper's."""

    task: str = option(
        TASK, "transcribe", one_of("transcribe", "translate", "lang_id"),
        "transcribe writes the language that is spoken, translate writes English",
        cli={"choices": ["transcribe", "translate"]},  # lang_id, the name of the language alone, is for decode()
    )  # fmt: skip
    language: str | None = option(
        TASK, None, LANGUAGE, "language that is spoken: a code (de, deu), a locale (de-AT) or a name (German, "
        "Deutsch); where not given, or auto, it is detected",
    )  # fmt: skip

    temperature: float = option(DECODE, 0.0, TEMPERATURE, "0 takes the likeliest text, above it is drawn", cli=None)
    sample_len: int | None = option(
        SEARCH,
        None,
        whole(1),
        "at most so many tokens in a window; None is half of the decoder's context",
        our_flag=True,
    )
    best_of: int | None = option(
        SEARCH, None, whole(1), "samples to choose from at temperatures above 0", cli={"default": 5}
    )
    beam_size: int | None = option(
        SEARCH, None, whole(1), "beams of the search at temperature 0; None for greedy", cli={"default": 5}
    )
    patience: float | None = option(
        SEARCH, None, number(0, FINITE), "patience of the beam search (arXiv:2204.05424); None is 1, the "
        "ordinary search", needs=("beam_size",), cli={"type": float},
    )  # fmt: skip
    length_penalty: float | None = option(
        SEARCH, None, number(0, 1), "alpha of the length penalty (arXiv:1609.08144) by which candidates are "
        "ranked; None takes the mean", cli={"type": float},
    )  # fmt: skip

    prompt: str | list[int] | None = option(DECODE, None, TEXT_OR_TOKENS, "what was said before the window", cli=None)
    prefix: str | list[int] | None = option(
        PROMPT, None, TEXT_OR_TOKENS, "how the text of each window begins", cli=None
    )

    suppress_tokens: str | Iterable[int] | None = option(
        SEARCH, "-1", TOKENS, "ids of tokens that are never sampled; -1 stands for most symbols that are not speech"
    )
    suppress_blank: bool = option(
        SEARCH, True, FLAG, "no text that is empty or begins with a space alone", our_flag=True
    )

    without_timestamps: bool = option(
        TIMING,
        False,
        FLAG,
        "text alone: each window becomes one segment, and none ends before its window does",
        our_flag=True,
    )
    max_initial_timestamp: float | None = option(
        TIMING, 1.0, number(0, FINITE), "the first segment of a window begins within so many seconds; None and 0 "
        "set no limit", our_flag=True,
    )  # fmt: skip

    fp16: bool = option(
        RUNNING, True, FLAG, "compute in half precision where the device does that well; False is float32 everywhere"
    )
    seed: int | None = option(
        SEARCH, None, whole(0, 2**63 - 1), "seed of the sampling above temperature 0, so that all runs give "
        "the same text; None uses torch's default generator", ours=True,
    )  # fmt: skip

    no_repeat_ngram_size: int | None = option(
        REPETITION, None, whole(1), "no sequence of so many tokens twice in a window", ours=True
    )
    repetition_penalty: float = option(
        REPETITION, 1.0, number(0.1, 100),
        "above 1, tokens that stand in the window already become less likely (arXiv:1909.05858)", ours=True,
    )  # fmt: skip
    hotwords: Sequence[str] | str | None = option(
        PROMPT, None, NAMES, "words and phrases that become likelier, in every window", ours=True
    )
    hotword_boost: float = option(
        PROMPT, 2.0, number(0, 100), "added to the log-probability of each token of the hotwords",
        ours=True, needs=("hotwords",),
    )  # fmt: skip
    stop_loops: bool = option(REPETITION, False, FLAG, "end repetition loops; audit does that, too",
                              ours=True)  # fmt: skip

    def __post_init__(self) -> None:
        check_values(self)

    def at(self, temperature: float, **changes: Any) -> DecodingOptions:
        """Return the options for one decoding: beams belong to temperature 0, several samples to the others."""
        changes |= {"beam_size": None, "patience": None} if temperature > 0 else {"best_of": None}
        options = replace(self, temperature=temperature, **changes)
        verify_options(options)
        return options


@dataclass(frozen=True)
class TranscribeOptions:
    """What `transcribe` takes beside the fields of `DecodingOptions`; names and defaults are openai-whisper's."""

    verbose: bool | None = option(
        RUNNING, None, FLAG, "True prints the text as it comes, False shows a progress bar, None prints nothing",
        cli={"default": True, "type": str2bool,
             "help": "True prints the text as it comes, False shows a progress bar"},
    )  # fmt: skip

    temperature: float | Sequence[float] = option(
        RETRY, FALLBACK_TEMPERATURES, TEMPERATURES, "tried in turn while a text fails a threshold; 0 takes the "
        "likeliest text",
        cli={"default": 0, "help": "temperature of the first try; 0 takes the likeliest text"},
    )  # fmt: skip
    compression_ratio_threshold: float | None = option(
        RETRY, 2.4, number(), "a text with a higher compression ratio than this is repetitive, and fails"
    )
    logprob_threshold: float | None = option(
        RETRY, -1.0, number(), "a text whose mean log-probability is lower than this fails"
    )
    no_speech_threshold: float | None = option(
        RETRY, 0.6, number(), "a window is silent where the probability of no speech is higher than this and the "
        "text fails logprob_threshold",
    )  # fmt: skip

    condition_on_previous_text: bool = option(
        PROMPT,
        True,
        FLAG,
        "prompt each window with the text before it; False is less consistent and less prone to loops",
    )
    initial_prompt: str | None = option(
        PROMPT, None, TEXT, "text before the first window, such as names and their spelling"
    )
    carry_initial_prompt: bool = option(
        PROMPT, False, FLAG, "put initial_prompt before every window; leaves less room for the text that went before",
        needs=("initial_prompt",),
    )  # fmt: skip

    word_timestamps: bool = option(
        TIMING, False, FLAG, "find the times of words, and improve those of segments by them"
    )
    token_logprobs: bool = option(
        TASK, False, FLAG, "segments have token_logprobs, the log-probability of each of their tokens", ours=True
    )
    prepend_punctuations: str = option(
        TIMING, PREPEND_PUNCTUATIONS, TEXT, "marks that belong to the word after them", needs=("word_timestamps",)
    )
    append_punctuations: str = option(
        TIMING, APPEND_PUNCTUATIONS, TEXT, "marks that belong to the word before them", needs=("word_timestamps",)
    )

    clip_timestamps: str | Sequence[float] = option(
        PARTS, "0", TIMES, "seconds start,end,start,end,... of the parts to transcribe; the last end is optional"
    )
    hallucination_silence_threshold: float | None = option(
        PARTS, None, number(0), "skip silences longer than this (seconds) around probable hallucinations",
        needs=("word_timestamps",),
    )  # fmt: skip

    word_confidence: bool = option(
        TIMING, False, FLAG, "give each word a confidence: how likely it is right, calibrated on real speech",
        ours=True, needs=("word_timestamps",),
    )  # fmt: skip

    batch_size: int | None = option(
        RUNNING, None, whole(1), "transcribe so many chunks of a long recording in parallel, which is cut at pauses; "
        "of a list, so many recordings", ours=True,
    )  # fmt: skip

    audio_context: str = option(
        RUNNING, "auto", one_of("auto", "full", "short"), "how much the encoder reads of a window with less than 30 s "
        "of sound: full, 30 s; short, the sound and a part of the padding, which is faster; auto is short in int8 and "
        "bfloat16 on a CPU, else full", ours=True,
    )  # fmt: skip

    audit: bool | None = option(
        PARTS, None, FLAG, "compare the text with the speech and correct it: no text without speech, no speech without "
        "text, no repetition loops; None does so if batch_size is above 1", ours=True,
    )  # fmt: skip
    vad_filter: bool | None = option(
        PARTS, None, FLAG, "transcribe speech alone: skip pauses longer than 1.9 s; None does so with audit", ours=True,
    )  # fmt: skip
    vad_parameters: Mapping[str, Any] | str | None = option(
        PARTS, None, FIELDS, "settings of the voice activity detection: fields of VadOptions, such as "
        "threshold=0.4,speech_pad_ms=200", ours=True, needs=("vad_filter", "audit", "batch_size"),
    )  # fmt: skip

    languages: Sequence[str] | str | None = option(
        TASK, None, NAMES, "languages that may be spoken; the language is detected among these", ours=True
    )
    language_detection_segments: int = option(TASK, 1, whole(1), "detect the language from so many windows", ours=True)
    multilingual: bool = option(TASK, False, FLAG, "detect the language of each window", ours=True)
    verify_language: bool | None = option(
        TASK, None, FLAG, "where the detected language is in doubt, decode the likeliest ones and take that of the "
        "likeliest text; None does so with audit", ours=True,
    )  # fmt: skip
    channels: str = option(
        TASK, "mix", one_of("mix", "separate"), "separate transcribes each channel by itself, as a speaker of its "
        "own, and says with each segment which", ours=True,
    )  # fmt: skip

    speakers: bool | int | tuple[int, int] | None = option(
        SPEAKING, None, SPEAKERS, "tell speakers apart: segments and words have a speaker, and the result its speakers "
        "and turns; True, their number, or the fewest and the most; implies word_timestamps", ours=True,
    )  # fmt: skip
    num_speakers: int | None = option(SPEAKING, None, whole(1), "tell so many speakers apart", ours=True)
    min_speakers: int | None = option(SPEAKING, None, whole(1), "tell at least so many speakers apart", ours=True)
    max_speakers: int | None = option(SPEAKING, None, whole(1), "tell at most so many speakers apart", ours=True)
    known_speakers: Mapping[str, Any] | str | None = option(
        SPEAKING, None, NAMED_SOUNDS, "names of speakers with a recording of each, or a Voice: who sounds like one "
        "gets the name", ours=True,
    )  # fmt: skip
    speaker_backend: Any = option(
        SPEAKING, "light", BACKEND, "how speakers are told apart: light, by networks in the package; channels, each "
        "channel as one speaker; pyannote, by its own pipeline; the name of an installed backend, or a function",
        ours=True, needs=("speakers", "num_speakers", "min_speakers", "max_speakers", "known_speakers"),
    )  # fmt: skip

    audio_track: int | str | None = option(
        PARTS, None, TRACK, "of a file with several audio tracks, the number of one, counted from 0, or its language, "
        "such as eng; None is a default one, else that with most channels", ours=True,
    )  # fmt: skip
    container_time: bool = option(
        TIMING, False, FLAG, "put silence where a file's time stamps say that there is no sound, before a late "
        "beginning and into gaps, so that times are those of its video", ours=True,
    )  # fmt: skip

    progress: Callable[[float, float], object] | None = option(
        RUNNING, None, FUNCTION, "called after each window with the seconds that are done and those that there are; "
        "of a list, with recordings", ours=True, cli=None,
    )  # fmt: skip
    cancel: Any = option(RUNNING, None, EVENT, "once it is set, the transcription ends with CancelledError",
                         ours=True, cli=None)  # fmt: skip

    def __post_init__(self) -> None:
        check_values(self)

    def of_file(self) -> dict[str, Any]:
        """Return the options that `load_audio` takes, as keyword arguments."""
        return {"audio_track": self.audio_track, "container_time": self.container_time}

    def tells_speakers(self) -> bool:
        """Whether an option says anything of speakers."""
        numbers = (self.num_speakers, self.min_speakers, self.max_speakers)
        return any(given is not None for given in (self.speakers, *numbers, self.known_speakers))

    def temperatures(self) -> tuple[float, ...]:
        """Return the ladder of temperatures, at least one step."""
        given = self.temperature
        return tuple(map(float, given)) if isinstance(given, (list, tuple)) else (float(given),)  # type: ignore[arg-type]


def verify_options(options: DecodingOptions) -> None:
    """Raise `OptionError` for options that exclude each other, or that need one which is not given."""
    if options.beam_size is not None and options.best_of is not None:
        raise OptionError("beam_size and best_of can't be given together")
    if options.temperature == 0 and options.best_of is not None:
        raise OptionError("best_of with greedy sampling (T=0) is not compatible: raise temperature or use beam_size")
    for name, needed in idle(options):
        raise OptionError(f"{name} requires {needed} to be given")


def options_of_transcribe() -> list[Field[Any]]:
    """Return the declarations of all that `transcribe` takes, each name once, group after group."""
    declared = {f.name: f for f in (*fields(DecodingOptions), *fields(TranscribeOptions))}
    options = [f for f in declared.values() if facts(f).group != DECODE]
    return sorted(options, key=lambda f: GROUPS.index(facts(f).group))
