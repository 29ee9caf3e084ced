"""From the fields of a form to one checked request: OpenAI's names, and every option of `transcribe` under its own.

The options, their types and ranges are those declared in `options.transcription`. What cannot be honoured is an error
that names the field; nothing is ignored.
"""

from __future__ import annotations

import base64
import binascii
import re
import sys
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields, replace
from typing import Any

from ..errors import OptionError
from ..options.language_names import code_of
from ..options.transcription import options_of_transcribe
from ..options.types import (
    FIELDS,
    FLAG,
    LANGUAGE,
    NAMES,
    TEMPERATURES,
    TEXT_OR_TOKENS,
    TIMES,
    TOKENS,
    TRUTH,
    Kind,
    check,
    did_you_mean,
    facts,
    takes_none,
)
from ..output.layout import Layout
from ..output.writers import FURTHER
from ..subtitles.formats.document import FormatOptions
from ..subtitles.formats.names import NEED_WORDS, WITH_CUES
from ..subtitles.rules import RuleOptions
from .errors import invalid
from .fields import Value, as_json, as_list, as_object, as_text, as_truth
from .uploads import MAX_VOICES

WRITTEN = tuple(name for name in FURTHER if name != "docx")  # the files of the command, as far as they are text
FORMATS = ("json", "text", "srt", "verbose_json", "vtt", "diarized_json", "tsv", "transcript", *WRITTEN)
STREAMED = ("json", "text", "diarized_json")
GRANULARITIES = ("word", "segment")
TELL_SPEAKERS = ("speakers", "num_speakers", "min_speakers", "max_speakers")  # options that do
_DATA_URL = re.compile(r"data:[\w.+/-]*(?:;[\w.+/=-]+)*;base64,", re.ASCII)
# of a caller in the same process, or about files and programs of this machine
NOT_HERE = ("verbose", "progress", "cancel", "known_speakers", "speaker_backend")
_RULES = [f for f in fields(RuleOptions) if facts(f).cli is not None and f.name != "cuts"]  # those are a file's name
LAYOUT: dict[str, Field[Any]] = {f.name: f for f in (*fields(Layout), *_RULES, *fields(FormatOptions))}
# the formats in which these have a place; all others of `LAYOUT` have it in those with cues
PLACES = {
    "highlight_words": ("srt", "vtt"),
    "karaoke": ("vtt", "ass", "lrc", "ttml", "audacity"),
    "cue_settings": ("vtt",),
    "frame_rate": ("fcpxml", "edl"),
}
OPTIONS: dict[str, Field[Any]] = {f.name: f for f in options_of_transcribe() if f.name not in NOT_HERE}
OPENAI_FIELDS = (
    "model", "prompt", "response_format", "timestamp_granularities", "include", "stream", "chunking_strategy",
    "keywords", "known_speaker_names", "known_speaker_references",
)  # fmt: skip
# of OpenAI's voice activity detection, by ours
VAD_FIELDS = {
    "threshold": "threshold",
    "prefix_padding_ms": "speech_pad_ms",
    "silence_duration_ms": "min_silence_duration_ms",
}
# What one request may ask of the machine; in a program of one's own there is no such limit.
MOST = {"beam_size": 32, "best_of": 32, "batch_size": 64, "language_detection_segments": 64}
MOST_TEMPERATURES = 16
MAX_SPEAKER_NAME = 40  # characters
_TOKEN_IDS = re.compile(r"\s*\[[\s\d,]*\]\s*")
_LISTS = {NAMES: str, TOKENS: int, TEXT_OR_TOKENS: int, TIMES: float, TEMPERATURES: float}


@dataclass(frozen=True)
class TranscriptionRequest:
    """What a client wants of its recording."""

    model: str  # as the client calls it
    options: dict[str, Any]  # for `transcribe`
    response_format: str = "json"
    layout: dict[str, Any] | None = None  # of subtitles, and what further formats hold
    stream: bool = False
    with_words: bool = False  # at the top level of verbose_json
    with_segments: bool = True
    with_logprobs: bool = False
    voices: dict[str, bytes] = field(default_factory=dict)  # files with the voices of known speakers, by their names

    @property
    def is_translation(self) -> bool:
        """Whether the text is English, whatever was spoken."""
        return bool(self.options.get("task") == "translate")


def read_request(given: Mapping[str, Value], *, translates: bool) -> TranscriptionRequest:
    """Check the fields of a form.

    Parameters
    ----------
    given
        What `fields.collect` found.
    translates
        Whether it was sent to ``/v1/audio/translations``.

    Raises
    ------
    RequestError
        A field is unknown, wrong or missing, or fields contradict each other.
    """
    given = dict(given)
    _check_names(given)
    if "model" not in given:
        raise invalid("the form does not say which model", "model", "missing_required_parameter")
    options = _options(given, translates)
    response_format = _one_of(given, "response_format", FORMATS, "json")
    granularities = _words(given, "timestamp_granularities", GRANULARITIES)
    include = _words(given, "include", ("logprobs",))
    if include:
        options["token_logprobs"] = True
    layout = read_layout(given, "en" if options.get("task") == "translate" else options.get("language"))
    if "word" in granularities or RuleOptions.within(layout).by_rules:
        if options.get("word_timestamps") is False:
            raise invalid("word_timestamps=false contradicts what needs the times of words", "word_timestamps")
        options["word_timestamps"] = True
    voices = _voices(given)
    if voices or (response_format == "diarized_json" and options.get("channels") != "separate"):
        options = {**({} if _tells_speakers(options) else {"speakers": True}), **options}
        _check_combinations(options)
    request = TranscriptionRequest(
        model=as_text("model", given["model"]),
        options=options,
        response_format=response_format,
        layout=layout,
        stream=as_truth("stream", given["stream"]) if "stream" in given else False,
        with_words="word" in granularities,
        with_segments=not granularities or "segment" in granularities,
        with_logprobs=bool(include),
        voices=voices,
    )
    _check_format(request)
    return request


def _check_names(given: Mapping[str, Value]) -> None:
    known = [*OPENAI_FIELDS, *OPTIONS, *LAYOUT]
    for name in given:
        if name not in known:
            near = did_you_mean(name, known) or "; /openapi.json lists those that there are"
            raise invalid(f"there is no field {name[:80]!r}{near}", name[:80], "unknown_parameter")


# ---------------------------------------------------------------------------------------------------------
# Options of `transcribe`
# ---------------------------------------------------------------------------------------------------------


def _options(given: Mapping[str, Value], translates: bool) -> dict[str, Any]:
    """Return the options of `transcribe`; what is not given keeps its default."""
    options = {name: read_option(OPTIONS[name], value) for name, value in given.items() if name in OPTIONS}
    if options.get("temperature") == 0:  # as with OpenAI, 0 means: raised where a text fails the thresholds
        del options["temperature"]
    if "prompt" in given:
        _set(options, "initial_prompt", as_text("prompt", given["prompt"]), "prompt")
    if "keywords" in given:
        _set(options, "hotwords", as_list("keywords", given["keywords"]), "keywords")
    if "chunking_strategy" in given:
        _chunking(options, given["chunking_strategy"])
    if translates:
        _set(options, "task", "translate", "task")
    elif options.get("task") == "lang_id":
        raise invalid("task must be transcribe or translate", "task")
    if options.get("language") and options.get("languages"):
        raise invalid("give language, or the languages to choose from, not both", "languages")
    _check_limits(options)
    _check_combinations(options)
    return options


def read_option(declared: Field[Any], value: Value) -> Any:
    """Return the value of a declared option, from the text of a form.

    Raises
    ------
    RequestError
        It is not what the option takes.
    """
    name, kind, none = declared.name, facts(declared).kind, takes_none(declared)
    if none and value in ("", "None", "null"):
        return None
    try:
        if kind in (FLAG, TRUTH):
            return as_truth(name, value)
        read: Any
        if kind is FIELDS:
            read = value if isinstance(value, str) and "{" not in value else _as_text_of_fields(name, value)
        elif kind in _LISTS:
            read = _read_list(name, kind, value)
        else:
            read = kind.read(as_text(name, value))
        read = check(name, read, kind, none=none)
        for language in [read] if kind is LANGUAGE else read if name == "languages" else ():
            code_of(language)
        return read
    except OptionError as error:
        raise invalid(str(error), name) from error
    except (ValueError, TypeError, AttributeError):
        words = kind.words + (", or empty" if none else "")
        raise invalid(f"{name} must be {words}, not {str(value)[:80]!r}", name) from None


def _read_list(name: str, kind: Kind, value: Value) -> Any:
    """Return one value or several, as the client sent them."""
    if kind is TEXT_OR_TOKENS and isinstance(value, str) and not _TOKEN_IDS.fullmatch(value):
        return value  # a text may well begin with a bracket
    read = as_json(name, value)
    if isinstance(read, list):
        return [_LISTS[kind](item) if isinstance(item, str) else item for item in read]
    if kind is TEMPERATURES:
        return [float(part) for part in read.split(",")] if "," in read else float(read)
    return read


def _as_text_of_fields(name: str, value: Value) -> str:
    return ",".join(f"{key}={item}" for key, item in as_object(name, value).items())


def _set(options: dict[str, Any], name: str, value: Any, field: str) -> None:
    """Set an option that has another name at OpenAI."""
    if options.get(name, value) != value:
        raise invalid(f"{field} and {name} contradict each other; give one of them", field)
    options[name] = value


def _chunking(options: dict[str, Any], value: Value) -> None:
    """Take OpenAI's words for voice activity detection."""
    name = "chunking_strategy"
    if value == "auto":
        _set(options, "vad_filter", True, name)
        return
    asked = as_json(name, value)
    if not isinstance(asked, dict) or asked.get("type") != "server_vad":
        raise invalid('chunking_strategy must be auto, or an object with "type": "server_vad"', name)
    asked = {key: item for key, item in asked.items() if key != "type"}
    for key in asked:
        if key not in VAD_FIELDS:
            raise invalid(f"chunking_strategy has no {key[:80]!r}{did_you_mean(key, VAD_FIELDS)}", name)
    _set(options, "vad_filter", True, name)
    if asked:
        ours = ",".join(f"{VAD_FIELDS[key]}={item}" for key, item in asked.items())
        _set(options, "vad_parameters", ours, name)


def _check_limits(options: Mapping[str, Any]) -> None:
    for name, most in MOST.items():
        if (options.get(name) or 0) > most:
            raise invalid(f"{name} may be at most {most} on this server, not {options[name]}", name)
    temperatures = options.get("temperature", 0)
    if isinstance(temperatures, (list, tuple)) and len(temperatures) > MOST_TEMPERATURES:
        raise invalid(f"temperature may have at most {MOST_TEMPERATURES} values on this server", "temperature")


def _check_combinations(options: Mapping[str, Any]) -> None:
    """Raise now what `transcribe` would say after the request has waited for its turn."""
    from ..transcription.settings import check_without_model  # loads torch's world, which the rest here does not need

    try:
        check_without_model(options)
    except OptionError as error:
        first = str(error).split(maxsplit=1)[0].rstrip(":,;")
        raise invalid(str(error), first if first in OPTIONS else None) from error


def _tells_speakers(options: Mapping[str, Any]) -> bool:
    return any(options.get(name) not in (None, False) for name in TELL_SPEAKERS)


def _voices(given: Mapping[str, Value]) -> dict[str, bytes]:
    """Return the files with the voices of known speakers, by their names; they are sent as data URLs."""
    names, sounds = "known_speaker_names", "known_speaker_references"
    called = [name.strip() for name in as_list(names, given[names])] if names in given else []
    urls = as_list(sounds, given[sounds]) if sounds in given else []
    if len(called) != len(urls):
        raise invalid(f"{len(called)} names of speakers and {len(urls)} recordings of them were sent", sounds)
    if len(called) > MAX_VOICES:
        raise invalid(f"at most {MAX_VOICES} speakers may be known", names)
    if len(set(called)) != len(called) or not all(0 < len(name) <= MAX_SPEAKER_NAME for name in called):
        raise invalid(f"names of speakers have 1 to {MAX_SPEAKER_NAME} characters, and no two are the same", names)
    return {name: _sound(url, sounds) for name, url in zip(called, urls, strict=True)}


def _sound(url: str, name: str) -> bytes:
    head = _DATA_URL.match(url)
    try:
        data = base64.b64decode(url[head.end() :], validate=True) if head else b""
    except binascii.Error:
        data = b""
    if not data:
        raise invalid("a voice must be sent as a data URL, such as data:audio/wav;base64,UklGR...", name)
    return data


# ---------------------------------------------------------------------------------------------------------
# What is answered
# ---------------------------------------------------------------------------------------------------------


def _one_of(given: Mapping[str, Value], name: str, choices: tuple[str, ...], default: str) -> str:
    text = as_text(name, given[name]) if name in given else default
    if text not in choices:
        raise invalid(f"{name} must be one of {', '.join(choices)}, not {text[:80]!r}", name)
    return text


def _words(given: Mapping[str, Value], name: str, choices: tuple[str, ...]) -> list[str]:
    words = as_list(name, given[name]) if name in given else []
    for word in words:
        if word not in choices:
            raise invalid(f"{name} may hold {' and '.join(choices)}, not {word[:80]!r}", name)
    return words


def read_layout(given: Mapping[str, Value], language: str | None) -> dict[str, Any] | None:
    """Return how subtitles are laid out, and what further formats hold; None where nothing is said of that.

    Raises
    ------
    RequestError
        A value is wrong, or rules are given without a preset or exclude each other.
    """
    layout = {name: read_option(LAYOUT[name], value) for name, value in given.items() if name in LAYOUT}
    try:
        FormatOptions.within(layout)
        rules = RuleOptions.within(layout)
        if unused := rules.without_effect():
            raise invalid(f"{unused[0]} needs subtitle_preset", unused[0])
        if rules.by_rules:
            rules.rules(language)  # whether they go together
    except OptionError as error:
        first = str(error).split(maxsplit=1)[0]
        raise invalid(str(error), first if first in LAYOUT else None) from error
    return layout or None


def check_format(request: TranscriptionRequest, response_format: str) -> TranscriptionRequest:
    """Return a request with another format of its answer; what only the first format had a place for is left out.

    Raises
    ------
    RequestError
        There is no such format, or it has no place for what the request made.
    """
    if response_format not in FORMATS:
        raise invalid(f"format must be one of {', '.join(FORMATS)}, not {response_format[:80]!r}", "format")
    changed = replace(
        request,
        response_format=response_format,
        layout={k: v for k, v in (request.layout or {}).items() if response_format in places_of(k)} or None,
        with_words=request.with_words and response_format == "verbose_json",
        with_logprobs=request.with_logprobs and response_format == "json",
    )
    _check_format(changed)
    return changed


def _check_format(request: TranscriptionRequest) -> None:
    """Raise where a field asks for something that the format of the answer has no place for."""
    response_format = request.response_format
    has_speakers = request.options.get("channels") == "separate" or _tells_speakers(request.options)
    if response_format == "diarized_json" and not has_speakers:
        raise invalid(
            "diarized_json needs speakers=true, or channels=separate for a speaker on each", "response_format"
        )
    if request.with_words and response_format != "verbose_json":
        raise invalid(
            "the times of words are only in verbose_json; word_timestamps=true uses them for srt and vtt",
            "timestamp_granularities",
        )
    if response_format in NEED_WORDS and not request.options.get("word_timestamps"):
        raise invalid(f"{response_format} needs word_timestamps=true", "response_format")
    if request.with_logprobs and response_format != "json":
        raise invalid("logprobs are only in json", "include")
    if request.stream and response_format not in STREAMED:
        raise invalid(
            f"a stream has events of text: response_format must be one of {', '.join(STREAMED)}", "response_format"
        )
    for name in request.layout or ():
        if response_format not in places_of(name):
            raise invalid(f"{name} is for {' and '.join(places_of(name))}", name)
        needs_words = name == "karaoke" or name in Layout.__dataclass_fields__
        if needs_words and not request.options.get("word_timestamps"):
            raise invalid(f"{name} needs word_timestamps=true", name)


def places_of(name: str) -> tuple[str, ...]:
    """Return the formats in which a field of the layout has a place."""
    return PLACES.get(name, WITH_CUES)


def seconds_of_client(text: str | None) -> float:
    """Return how long a client waits, by the header that OpenAI's clients send; infinity where it does not say."""
    try:
        seconds = float(text or "")
    except ValueError:
        return float("inf")
    return seconds if 0 < seconds < sys.maxsize else float("inf")
