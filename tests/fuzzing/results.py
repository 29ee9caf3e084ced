"""Results that no file can be made of, and command lines that cannot be meant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from . import INF, NAN, Case, given, shown
from .options import deep


def results() -> Iterator[Case]:
    word = {"word": " one", "start": 0.0, "end": 1.0, "probability": 0.5}
    segment = {"id": 0, "start": 0.0, "end": 1.0, "text": " one", "words": [word]}
    bare = {"start": 0.0, "end": 1.0, "text": " one"}
    made: dict[str, Any] = {
        "empty": {}, "text": "hello", "list": [], "no segments": {"text": ""},
        "segments None": {"segments": None}, "segments text": {"segments": "abc"},
        "segments of None": {"segments": [None]}, "segments of text": {"segments": ["a"]},
        "segment empty": {"segments": [{}]}, "no text": {"segments": [{"start": 0, "end": 1}]},
        "text None": {"segments": [{**bare, "text": None}]}, "text number": {"segments": [{**bare, "text": 5}]},
        "start None": {"segments": [{**bare, "start": None}]},
        "start text": {"segments": [{**bare, "start": "0"}]},
        "start negative": {"segments": [{**bare, "start": -1.0}]}, "end nan": {"segments": [{**bare, "end": NAN}]},
        "end inf": {"segments": [{**bare, "end": INF}]}, "end before start": {"segments": [{**bare, "start": 5.0}]},
        "huge": {"segments": [{**bare, "end": 1e300}]},
        "words None": {"segments": [{**segment, "words": None}]},
        "words of None": {"segments": [{**segment, "words": [None]}]},
        "words empty": {"segments": [{**segment, "words": []}]},
        "word empty": {"segments": [{**segment, "words": [{}]}]},
        "word None": {"segments": [{**segment, "words": [{**word, "word": None}]}]},
        "word nan": {"segments": [{**segment, "words": [{**word, "end": NAN}]}]},
        "word blank": {"segments": [{**segment, "words": [{**word, "word": ""}]}]},
        "word spaces": {"segments": [{**segment, "words": [{**word, "word": "   "}]}]},
        "word lines": {"segments": [{**segment, "words": [{**word, "word": "\n\n-->\n"}]}]},
        "words sometimes": {"segments": [segment, bare]}, "words later": {"segments": [bare, segment]},
        "surrogate": {"segments": [{**bare, "text": "\ud800"}]},
        "null": {"segments": [{**bare, "text": "a\0b\r\nc\u2028d"}]},
        "numpy": {"segments": [{**bare, "start": np.float32(0.5), "end": np.float64(1.0)}]},
        "tensor": {"segments": [{**bare, "start": torch.tensor(0.5)}]}, "tuple": {"segments": (bare,)},
        "bytes": {"segments": [{**bare, "text": b"x"}]},
        "object": {"segments": [{**bare, "speaker": object()}]}, "deep": {"segments": [bare], "extra": deep(3000)},
        "key": {"segments": [bare], 5: 1, (1,): 2},
    }  # fmt: skip
    for i, (name, result) in enumerate(made.items()):
        formats = ["txt", "vtt", "srt", "tsv", "json", "all"]
        for format in (formats[i % 6], formats[(i + 2) % 6]):
            options = given({"output_format": format})
            yield Case(f"{format}-{name}", "get_writer", lambda _, result=result: result, options)
    wrong: list[dict[str, Any]] = [
        {"max_line_width": 0}, {"max_line_width": -5}, {"max_line_width": "x"},
        {"max_line_width": NAN, "max_line_count": 2}, {"max_line_width": 1, "max_line_count": 1},
        {"max_line_count": -1},
        {"max_words_per_line": -1}, {"max_words_per_line": "x"}, {"max_words_per_line": 0},
        {"max_words_per_line": 1.5}, {"highlight_words": "no"}, {"highlight_words": [1]}, {"width": 5},
        {"options": 5},
        {"options": {"max_line_width": "x"}}, {"options": {"what": 1}}, {"options": [1]}, {"output_format": "doc"},
        {"output_format": None}, {"output_format": ["srt"]}, {"output_format": ""}, {"output_format": 5},
        {"output_dir": "nowhere"}, {"output_dir": None}, {"output_dir": 5}, {"output_dir": "\0"}, {"audio_path": ""},
        {"audio_path": None}, {"audio_path": "\0"}, {"audio_path": "a" * 5000}, {"audio_path": "/"},
        {"audio_path": b"a.wav"}, {"audio_path": 5}, {"audio_path": ".."}, {"audio_path": "\ud800"},
    ]  # fmt: skip
    for options in wrong:
        spoken = {"text": " one", "segments": [segment]}
        options = {"output_format": "srt", **options}
        yield Case(shown(options), "get_writer", lambda _, spoken=spoken: spoken, given(options))


# ---------------------------------------------------------------------------------------------------------
# Arguments
# ---------------------------------------------------------------------------------------------------------


def command_lines() -> Iterator[Case]:
    """Arguments after ``whisper --model nano --output_dir FOLDER``."""
    lines: list[list[str]] = [
        [], [""], ["--"], ["-"], ["--model"], ["--model", ""], ["--model", "nan0"], ["--model", "a/b/c"],
        ["nowhere.wav"], ["."], ["good.wav", "--task", "sing"], ["good.wav", "--language", "Elvish"],
        ["good.wav", "--language", ""], ["good.wav", "--temperature", "x"], ["good.wav", "--temperature", "nan"],
        ["good.wav", "--temperature", "-1"], ["good.wav", "--temperature", "inf"],
        ["good.wav", "--temperature", "1e308"],
        ["good.wav", "--best_of", "0"], ["good.wav", "--best_of", "x"], ["good.wav", "--beam_size", "-1"],
        ["good.wav", "--beam_size", "0"], ["good.wav", "--beam_size", "1e3"], ["good.wav", "--patience", "-1"],
        ["good.wav", "--patience", "nan"],
        ["good.wav", "--patience", "2", "--beam_size", "None"], ["good.wav", "--length_penalty", "5"],
        ["good.wav", "--length_penalty", "nan"], ["good.wav", "--suppress_tokens", "x"],
        ["good.wav", "--suppress_tokens", "999999"], ["good.wav", "--suppress_tokens", ""],
        ["good.wav", "--initial_prompt", "<|endoftext|>"], ["good.wav", "--initial_prompt", "\udcff"],
        ["good.wav", "--carry_initial_prompt", "yes"], ["good.wav", "--fp16", "maybe"],
        ["good.wav", "--temperature_increment_on_fallback", "0"],
        ["good.wav", "--temperature_increment_on_fallback", "-1"],
        ["good.wav", "--temperature_increment_on_fallback", "nan"],
        ["good.wav", "--temperature_increment_on_fallback", "1e-9"],
        ["good.wav", "--compression_ratio_threshold", "nan"],
        ["good.wav", "--logprob_threshold", "x"], ["good.wav", "--no_speech_threshold", "None"],
        ["good.wav", "--word_timestamps", "1"], ["good.wav", "--highlight_words", "True"],
        ["good.wav", "--max_line_width", "-1", "--word_timestamps", "True"],
        ["good.wav", "--max_words_per_line", "-1", "--word_timestamps", "True"],
        ["good.wav", "--max_line_count", "0", "--word_timestamps", "True"], ["good.wav", "--threads", "-1"],
        ["good.wav", "--threads", "x"], ["good.wav", "--threads", "1.5"],
        ["good.wav", "--clip_timestamps", "x"], ["good.wav", "--clip_timestamps", "2,1"],
        ["good.wav", "--clip_timestamps", "-1"], ["good.wav", "--clip_timestamps", "nan"],
        ["good.wav", "--clip_timestamps", "9e99"], ["good.wav", "--clip_timestamps", ""],
        ["good.wav", "--hallucination_silence_threshold", "-1"],
        ["good.wav", "--hallucination_silence_threshold", "x"], ["good.wav", "--batch_size", "0"],
        ["good.wav", "--batch_size", "x"], ["good.wav", "--seed", "-1"], ["good.wav", "--seed", str(2**64)],
        ["good.wav", "--device", "gpu"], ["good.wav", "--device", ""], ["good.wav", "--compute_type", "int4"],
        ["good.wav", "--output_format", "doc"], ["good.wav", "--output_dir", "good.wav"],
        ["good.wav", "--output_dir", "\0"], ["good.wav", "--what"],
        ["good.wav", "--verbose", "x"], ["bad.wav"], ["bad.wav", "good.wav"], ["good.wav", "good.wav"],
        ["--", "--model"], ["good.wav", "--beamsize", "5"], ["eval"], ["train"], ["eval", "nowhere.tsv"],
        ["\udcff.wav"], ["a\nb.wav"], ["@good.wav"],
        ["good.wav", "--model_dir", "good.wav"], ["good.wav", "--prepend_punctuations", ""],
        ["good.wav", "--seed", "1", "--temperature", "0.5", "--temperature_increment_on_fallback", "None"],
        ["good.wav", "--model", "bad.wav"], ["good.wav", "--model", "."],
    ]  # fmt: skip
    for i, line in enumerate(lines):
        yield Case(f"{shown(line)}-{i}", "cli", lambda folder, line=line: [str(part) for part in line])
