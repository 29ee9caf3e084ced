"""Options and arguments of every type, out of range, unknown, contradictory."""

from __future__ import annotations

import io
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import fields
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from whisper.options.transcription import DecodingOptions, TranscribeOptions

from ..test_audio import wav
from . import INF, NAN, Case, floats, given, shown, speech


class Spelled(str):
    """A text of a type of its own."""


def values() -> dict[str, Callable[[], Any]]:
    """What may stand where an option is asked for; for most options most of it is wrong."""
    plain: list[Any] = [
        None, True, False, 0, 1, -1, 2, 7, 0.5, -0.5, 1.5, NAN, INF, -INF, 1e308, 10**30, 2**63, 2**31, -(2**63), 1j,
        "", " ", "x", "0", "1", "-1", "nan", "inf", "1e999", "en", "None", "True", "\0", "é" * 5, "\ud800",
        "a" * 5000, ",", "0,", ",,1", "1,2,3",
        "<|endoftext|>", "<|nospeech|> x", b"", b"x", b"\xff", ..., int, len, (), (0,), (1.0, None), (0.0, 0.0, NAN),
        ((1,),), range(3), range(0),
        Fraction(1, 3), Fraction(1), Decimal("0.5"), Decimal("NaN"), Path("x"), slice(3), np.float32(0.5),
        np.float64(NAN), np.int64(1), np.bool_(True),
        np.str_("en"), np.bytes_(b"x"), np.datetime64("NaT"), Spelled("en"), Spelled("0"), frozenset({1}), 3.0, -0.0,
        10**6,
    ]  # fmt: skip
    made: dict[str, Callable[[], Any]] = {shown(value): lambda value=value: value for value in plain}
    return made | {
        "[]": lambda: [], "[None]": lambda: [None], "[nan]": lambda: [NAN], "[[1]]": lambda: [[1]],
        "['x']": lambda: ["x"], "['']": lambda: [""],
        "[0.0, 'x']": lambda: [0.0, "x"], "[1, 2, 3]": lambda: [1, 2, 3], "[True]": lambda: [True],
        "[1e999]": lambda: [INF], "[b'x']": lambda: [b"x"],
        "{}": dict, "{'a': 1}": lambda: {"a": 1}, "{1: 2}": lambda: {1: 2}, "{None: None}": lambda: {None: None},
        "set": lambda: {1, "x"}, "deep": lambda: deep(500),
        "object()": object, "lambda": lambda: (lambda *_: None), "iter([])": lambda: iter([]),
        "iter([1])": lambda: iter([1]), "bytearray": lambda: bytearray(b"1"),
        "array(1)": lambda: np.array(1), "array(0.5)": lambda: np.array(0.5), "array([])": lambda: np.array([]),
        "array([1, 2])": lambda: np.array([1, 2]),
        "array([[0.5]])": lambda: np.array([[0.5]]), "array(None)": lambda: np.array(None),
        "array(['x'])": lambda: np.array(["x"]),
        "tensor(1)": lambda: torch.tensor(1), "tensor(0.5)": lambda: torch.tensor(0.5),
        "tensor(nan)": lambda: torch.tensor(NAN),
        "tensor([1, 2])": lambda: torch.tensor([1, 2]), "tensor([])": lambda: torch.tensor([]),
        "meta": lambda: torch.empty((), device="meta"),
        "thousands": lambda: list(range(60000)), "huge text": lambda: "one two three " * 3000,
        "thread event": threading.Event, "open file": io.BytesIO,
    }  # fmt: skip


def deep(n: int) -> Any:
    value: Any = []
    for _ in range(n):
        value = [value]
    return value


OPTION_NAMES = [f.name for f in (*fields(DecodingOptions), *fields(TranscribeOptions))]
DECODING_NAMES = [f.name for f in fields(DecodingOptions)]


def wrong_options(per_option: int, seed: int = 2) -> Iterator[Case]:
    """Each option with some of `values`, at every door that takes options."""
    choices = values()
    for name in dict.fromkeys(OPTION_NAMES):
        rng = random.Random(f"{seed} {name}")
        for i, value in enumerate(rng.sample(list(choices), min(per_option, len(choices)))):
            doors = ["transcribe", "iter_segments", "decode" if name in DECODING_NAMES else "transcribe_list"]
            door = doors[(len(name) + i) % 3]
            yield Case(f"option-{name}={value}", door, sounded(door), {name: choices[value]})


def sounded(door: str) -> Callable[[Path], Any]:
    if door == "decode":
        return lambda _: torch.zeros(80, 3000)
    if door == "transcribe_list":
        return lambda _: [floats(), floats()[:9000]]
    return lambda _: floats()


def wrong_names() -> Iterator[Case]:
    names = [
        "", "beamsize", "Language", "languag", "temperature ", "word_timestamp", "väd", "x" * 300, "self", "model",
        "audio", "mel", "options", "fp32",
        "__class__", "beam-size", "kwargs", "decode_options",
    ]  # fmt: skip
    for i, name in enumerate(names):
        door = ["transcribe", "iter_segments", "decode"][i % 3]
        if name not in ("model", "audio", "mel", "options"):
            yield Case(f"name-{shown(name)}", door, sounded(door), {name: lambda: 1})


PAIRS: list[dict[str, Any]] = [
    {"beam_size": 2, "best_of": 2, "temperature": 0.0}, {"best_of": 2, "temperature": 0.0}, {"patience": 1.0},
    {"patience": 0.0, "beam_size": 2},
    {"patience": 1e9, "beam_size": 2}, {"patience": 1e-9, "beam_size": 2}, {"beam_size": 10**9},
    {"best_of": 10**9, "temperature": 1.0},
    {"sample_len": 10**9}, {"sample_len": 1}, {"sample_len": 448, "prefix": "one " * 400}, {"prefix": "one " * 1000},
    {"prefix": [10**9]}, {"prefix": [-1]},
    {"prefix": ["x"]}, {"prefix": [50257]}, {"prompt": [51865]}, {"prompt": [-5]}, {"prompt": [NAN]},
    {"prompt": "<|startofprev|>"}, {"prefix": "<|0.00|>"},
    {"suppress_tokens": list(range(51865))}, {"suppress_tokens": list(range(50257))},
    {"suppress_tokens": [50257], "sample_len": 30},
    {"suppress_tokens": "50257", "sample_len": 30},
    {"suppress_tokens": [50364]}, {"suppress_tokens": list(range(50364, 51865))}, {"suppress_tokens": ""},
    {"suppress_tokens": [], "suppress_blank": False},
    {"without_timestamps": True, "max_initial_timestamp": 0.0}, {"max_initial_timestamp": 1e300},
    {"max_initial_timestamp": 1e-300},
    {"task": "translate", "language": "en"}, {"task": "lang_id", "language": "en"}, {"language": "en", "fp16": "no"},
    {"length_penalty": 0.0, "beam_size": 2},
    {"temperature": 1e-30, "seed": 1}, {"temperature": 1e30, "seed": 1, "sample_len": 30},
    {"temperature": 1e300, "seed": 1},
    {"temperature": 5e-324, "seed": 1},
    {"seed": 2**63 - 1, "temperature": 1.0}, {"beam_size": 1}, {"best_of": 1, "temperature": 1.0, "seed": 0},
    {"hotwords": ""}, {"hotwords": [""]}, {"hotwords": ["one"] * 5000}, {"hotwords": "<|endoftext|>"},
    {"hotwords": ["one"], "hotword_boost": INF}, {"hotwords": ["one"], "hotword_boost": 1e300},
    {"hotwords": "a" * 5000},
    {"hotwords": ["one"], "hotword_boost": -1.0}, {"hotword_boost": 5.0}, {"hotwords": "\ud800"}, {"hotwords": ["\0"]},
    {"repetition_penalty": 0.0}, {"repetition_penalty": 1e-300}, {"repetition_penalty": 1e300},
    {"no_repeat_ngram_size": 1}, {"no_repeat_ngram_size": 10**9}, {"stop_loops": True, "sample_len": 1},
]  # fmt: skip
LONG_PAIRS: list[dict[str, Any]] = [
    {"clip_timestamps": "1,0"}, {"clip_timestamps": "0,1e999"}, {"clip_timestamps": "1e300"},
    {"clip_timestamps": [0, 0]}, {"clip_timestamps": "0,0,0,0"},
    {"clip_timestamps": "0.5,0.6,0.1,0.2"}, {"clip_timestamps": "0,1,0,1"}, {"clip_timestamps": [0.001, 0.002]},
    {"clip_timestamps": [1.499]},
    {"clip_timestamps": [1e-300, 1e300]}, {"clip_timestamps": "0" + ",1" * 301}, {"clip_timestamps": "\u0661,\u0662"},
    {"temperature": (0.0,) * 20, "logprob_threshold": 0.0, "sample_len": 3}, {"temperature": []},
    {"temperature": (0.0, -1.0)},
    {"temperature": ("0",)}, {"temperature": np.arange(0, 1, 0.5)},
    {"temperature": (1e-310,), "logprob_threshold": 0.0, "seed": 3}, {"temperature": (1e300,), "seed": 3},
    {"temperature": 0.0, "best_of": 3, "seed": 1},
    {"compression_ratio_threshold": -INF, "temperature": (0.0, 0.2), "seed": 1},
    {"logprob_threshold": INF, "temperature": (0.0, 0.2), "seed": 1},
    {"no_speech_threshold": -INF}, {"no_speech_threshold": INF, "logprob_threshold": -INF},
    {"hallucination_silence_threshold": 0.0, "word_timestamps": True},
    {"hallucination_silence_threshold": 1e300, "word_timestamps": True}, {"hallucination_silence_threshold": 1.0},
    {"hallucination_silence_threshold": INF, "word_timestamps": True},
    {"initial_prompt": "<|endoftext|>"}, {"initial_prompt": "\0"}, {"initial_prompt": "\ud800"},
    {"initial_prompt": "one " * 3000, "carry_initial_prompt": True},
    {"carry_initial_prompt": True}, {"prompt": "x", "initial_prompt": "y"},
    {"prepend_punctuations": "", "append_punctuations": "", "word_timestamps": True},
    {"prepend_punctuations": " ", "append_punctuations": " ", "word_timestamps": True},
    {"prepend_punctuations": None, "word_timestamps": True},
    {"batch_size": 10**9}, {"batch_size": 1, "clip_timestamps": "0,1"}, {"task": "lang_id"},
    {"word_timestamps": True, "without_timestamps": True},
    {"word_timestamps": True, "task": "translate"}, {"word_timestamps": True, "language": "zh"},
    {"word_timestamps": True, "sample_len": 1}, {"word_timestamps": True, "prefix": " one"},
    {"language": "Englisch"}, {"language": "EN"}, {"language": "yue"}, {"language": "<|en|>"}, {"language": "en "},
    {"language": "\u0130"},
    {"suppress_tokens": list(range(51865)), "word_timestamps": True},
    {"suppress_tokens": list(range(50257)), "word_timestamps": True},
    {"cancel": threading.Event}, {"verbose": "yes"}, {"verbose": None},
    {"beam_size": 3, "patience": 2.0, "word_timestamps": True}, {"temperature": range(10**9)},
    {"audit": True, "vad_parameters": {"threshold": 5}}, {"vad_filter": True, "vad_parameters": "threshold=0.4,x=1"},
    {"vad_filter": True, "vad_parameters": {"threshold": 0.0, "min_silence_duration_ms": 0}}, {"audit": True},
    {"vad_filter": True, "clip_timestamps": "0.5,0.5"}, {"vad_filter": True, "vad_parameters": {"threshold": NAN}},
    {"vad_filter": True, "vad_parameters": {5: 5}}, {"vad_filter": True, "vad_parameters": "threshold=,"},
    {"vad_parameters": {"speech_pad_ms": 10**9}, "vad_filter": True}, {"vad_parameters": {}},
    {"languages": ["en"], "language": "de"}, {"languages": []}, {"languages": "en,xx"}, {"languages": ["en"] * 1000},
    {"language_detection_segments": 10**9}, {"multilingual": True, "language": "en"}, {"languages": {"en": 1}},
    {"multilingual": True, "task": "translate"}, {"channels": "separate"}, {"channels": "separate", "batch_size": 4},
    {"channels": "Mix"}, {"audit": True, "word_timestamps": True, "hallucination_silence_threshold": 0.1},
    {"audit": True, "temperature": (0.0, 0.2), "logprob_threshold": INF, "seed": 1}, {"audit": False, "batch_size": 2},
]  # fmt: skip


def pairs(more: bool) -> Iterator[Case]:
    """Options that exclude each other, or drive each other to the edge: half of them at one door, or all at all."""
    for i, options in enumerate([*PAIRS, *LONG_PAIRS]):
        doors = ["decode"] * (i < len(PAIRS)) + ["transcribe", "transcribe_list", "iter_segments"]
        for door in doors if more else doors[i // 2 % len(doors) :][: i % 2]:
            yield Case(f"pair-{shown(options)}-{i}", door, sounded(door), given(options))


def arguments_of_sounds(per_argument: int, seed: int = 3) -> Iterator[Case]:
    """Sample rates, lengths, axes and bands of every type."""
    choices = values()
    wanted = [
        ("load_audio", "sr"), ("load_audio", "rate"), ("pad_or_trim", "length"), ("pad_or_trim", "axis"),
        ("log_mel_spectrogram", "n_mels"), ("log_mel_spectrogram", "padding"), ("log_mel_spectrogram", "device"),
    ]  # fmt: skip
    for name in ("audio_track", "container_time"):
        rng = random.Random(f"{seed} {name}")
        for value in rng.sample(list(choices), min(per_argument, len(choices))):
            yield Case(f"{name}={value}", "load_audio", lambda _: wav(speech()), {name: choices[value]})
    for door, name in wanted:
        rng = random.Random(f"{seed} {door} {name}")
        for value in rng.sample(list(choices), min(per_argument, len(choices))):
            if not (name in ("sr", "rate", "length", "padding") and value in HUGE):
                yield Case(f"{name}={value}", door, lambda _: floats(), {name: choices[value]})


HUGE = {"1e+308", "2147483648", "1000000000000000000000000000000", "9223372036854775808"}  # right, and too much


def tokenizers(n: int, seed: int = 4) -> Iterator[Case]:
    choices = values()
    for i in range(n):
        rng = random.Random(f"{seed} {i}")
        name = ["multilingual", "num_languages", "language", "task"][i % 4]
        value = rng.choice(list(choices))
        yield Case(f"{name}={value}-{i}", "get_tokenizer", lambda _: None, {name: choices[value]})
