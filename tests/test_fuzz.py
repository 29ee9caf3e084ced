"""Malformed inputs at every door: a right answer or an error of ours, soon, and the caller's objects as they were.

What is handed in is made by `fuzzing`; here stands what a right answer is. Of what is drawn at random a little runs by
default, and with it every input that ever found a fault; ``-m exhaustive`` runs more.
"""

from __future__ import annotations

import io
import json
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import whisper
from whisper import cli
from whisper.audio import load_audio, log_mel_spectrogram, pad_or_trim
from whisper.decoding import DecodingResult, decode, detect_language
from whisper.errors import WhisperError
from whisper.model import Whisper
from whisper.output.writers import WRITERS, get_writer
from whisper.tokenizer import LANGUAGES, TO_LANGUAGE_CODE, get_tokenizer
from whisper.transcribe import iter_segments, transcribe

from .fuzzing import Case, arrays, files, models, options, results, speech
from .models import random_model
from .test_audio import wav

LONGEST_MESSAGE = 2000  # characters; whoever hands in a megabyte by mistake does not want it back


@pytest.fixture(scope="module")
def model() -> Whisper:
    """Small, with random weights: what is a right answer here does not depend on what a model has learned."""
    return random_model(2, n_state=32, n_head=1, n_audio_layer=1, n_text_layer=1, end=4.5)


# ---------------------------------------------------------------------------------------------------------
# Right answers
# ---------------------------------------------------------------------------------------------------------

SEGMENT = {
    "id", "seek", "start", "end", "text", "tokens", "temperature", "avg_logprob", "compression_ratio", "no_speech_prob",
}  # fmt: skip
MORE_OF_A_SEGMENT = {"words", "channel", "language"}  # on request


def check_segments(segments: Any, given: dict[str, Any]) -> None:
    assert [segment["id"] for segment in segments] == list(range(len(segments)))
    for segment in segments:
        assert segment.keys() >= SEGMENT
        assert segment.keys() <= SEGMENT | MORE_OF_A_SEGMENT
        latest = segment["seek"] / 100 + 30.02
        assert 0 <= segment["start"] <= latest
        assert 0 <= segment["end"] <= latest
        # without the rules of timestamps, a model with random weights samples them in any order, as in the original
        assert segment["start"] <= segment["end"] or given.get("without_timestamps")
        assert isinstance(segment["text"], str)
        assert all(type(token) is int for token in segment["tokens"])
        if given.get("word_timestamps") is True:
            times = [time for word in segment["words"] for time in (word["start"], word["end"])]
            assert times == sorted(times)
    json.dumps(segments, allow_nan=False)


def check_transcript(transcript: Any, given: dict[str, Any]) -> None:
    assert transcript.keys() == {"text", "segments", "language"}
    assert isinstance(transcript["text"], str)
    assert transcript["language"].lower() in {*LANGUAGES, *TO_LANGUAGE_CODE}
    check_segments(transcript["segments"], given)


def check_result(result: Any) -> None:
    assert isinstance(result, DecodingResult)
    assert isinstance(result.text, str)
    if result.language_probs is None:
        assert all(type(token) is int for token in result.tokens)
        assert math.isfinite(result.avg_logprob)
        assert 0 <= result.no_speech_prob <= 1.001
    else:
        check_probabilities(result.language_probs)


def check_probabilities(probs: dict[str, float]) -> None:
    assert sum(probs.values()) == pytest.approx(1, abs=1e-3)


# ---------------------------------------------------------------------------------------------------------
# Doors: each hands the input in, and looks at the answer
# ---------------------------------------------------------------------------------------------------------


def door_load_audio(_: Any, folder: Path, value: Any, given: dict[str, Any]) -> None:
    samples = load_audio(value, **given)
    assert (samples.dtype, samples.ndim) == (np.float32, 1)
    assert np.isfinite(samples).all()


def door_log_mel_spectrogram(_: Any, folder: Path, value: Any, given: dict[str, Any]) -> None:
    mel = log_mel_spectrogram(value, **given)
    assert mel.ndim in (2, 3)
    assert mel.shape[-2] in (80, 128)
    assert torch.isfinite(mel).all()
    assert mel.max() - mel.min() <= 2.0001


def door_pad_or_trim(_: Any, folder: Path, value: Any, given: dict[str, Any]) -> None:
    assert pad_or_trim(value, **given).shape == (given.get("length", 480000),)


QUICK = {"temperature": 0.0, "sample_len": 40}  # unless something else is asked for


def door_transcribe(model: Whisper, folder: Path, value: Any, given: dict[str, Any]) -> None:
    answer: Any = transcribe(model, value, **QUICK | given)
    for transcript in answer if isinstance(value, (list, tuple)) else [answer]:
        check_transcript(transcript, given)


door_transcribe_list = door_transcribe


def door_iter_segments(model: Whisper, folder: Path, value: Any, given: dict[str, Any]) -> None:
    check_segments(list(iter_segments(model, value, **QUICK | given)), given)


def door_decode(model: Whisper, folder: Path, value: Any, given: dict[str, Any]) -> None:
    answer = decode(model, value, **{"sample_len": 40} | given)
    for result in answer if isinstance(answer, list) else [answer]:
        check_result(result)


def door_detect_language(model: Whisper, folder: Path, value: Any, given: dict[str, Any]) -> None:
    _, probs = detect_language(model, value, **given)
    for one in probs if isinstance(probs, list) else [probs]:
        check_probabilities(one)


def door_load_model(_: Any, folder: Path, value: Any, given: dict[str, Any]) -> None:
    model = whisper.load_model(value, **{"device": "cpu", "download_root": str(folder), **given})
    assert all(tensor.is_floating_point() for tensor in model.state_dict().values())


def door_get_tokenizer(_: Any, folder: Path, value: Any, given: dict[str, Any]) -> None:
    tokenizer = get_tokenizer(**{"multilingual": True, **given})
    assert tokenizer.decode(tokenizer.encode(" hello")) == " hello"
    assert tokenizer.sot_sequence[0] == tokenizer.sot


def door_get_writer(_: Any, folder: Path, value: Any, given: dict[str, Any]) -> None:
    given = {"output_dir": folder, "audio_path": "a.wav", **given}
    output_format, output_dir, audio_path = (given.pop(name) for name in ("output_format", "output_dir", "audio_path"))
    try:
        get_writer(output_format, output_dir)(value, audio_path, **given)
        formats = [output_format] if isinstance(output_format, str) else output_format
        for extension in WRITERS if output_format == "all" else formats:
            (written,) = folder.glob(f"*.{extension}")
            content = written.read_text(encoding="utf-8")
            assert extension != "json" or json.loads(content) is not None
    finally:
        assert not list(folder.glob(".whisper-*")), "a temporary file is left"


QUICKLY = [
    "--model",
    "nano",
    "--output_dir",
    "out",
    "--temperature_increment_on_fallback",
    "None",
    "--beam_size",
    "None",
]


def door_cli(_: Any, folder: Path, value: list[str], given: dict[str, Any]) -> None:
    Path("good.wav").write_bytes(wav(speech()))
    Path("bad.wav").write_bytes(b"no sound")
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as complaints:
        try:
            code = cli.cli([*QUICKLY, *value])
        except SystemExit as leaving:
            code = leaving.code  # type: ignore[assignment]
    said = complaints.getvalue()
    assert code in (0, 1, 2)
    assert code == 0 or said.strip()
    assert "Traceback" not in said
    assert "shows where)" not in said, "an error that nobody foresaw"
    assert code or list(Path("out").glob("*.srt")) or {"--help", "--output_dir", "--output_format"} & set(value)


Door = Callable[[Any, Path, Any, dict[str, Any]], None]
DOORS: dict[str, Door] = {
    name.removeprefix("door_"): function for name, function in globals().items() if name.startswith("door_")
}

# What is no error of ours and yet right, by door: the contract of the original, or of Python's own.
CONTRACT: dict[str, tuple[type[Exception], ...]] = {"get_writer": (OSError,)}


# ---------------------------------------------------------------------------------------------------------
# The caller's objects
# ---------------------------------------------------------------------------------------------------------


def fingerprint(value: Any, depth: int = 3) -> Any:
    """What must be equal before and after; nothing of what can be read only once."""
    if isinstance(value, np.ndarray):
        content = repr(value) if value.dtype.hasobject else value.tobytes()
        return type(value), value.dtype, value.shape, value.strides, value.flags.writeable, content
    if isinstance(value, torch.Tensor):
        plain = value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized
        numbers = value.detach().resolve_conj().resolve_neg().reshape(-1) if plain else None
        content = None if numbers is None else numbers.contiguous().view(torch.uint8).numpy().tobytes()
        return value.dtype, value.device, value.shape, value.requires_grad, content
    if isinstance(value, dict) and depth:
        return [(repr(key), fingerprint(item, depth - 1)) for key, item in value.items()]
    if isinstance(value, (list, tuple)) and depth:
        return [fingerprint(item, depth - 1) for item in value]
    if type(value) in (io.BytesIO, io.BufferedReader) and not value.closed:
        return value.tell()
    return value if isinstance(value, (str, bytes, int, float)) else id(value)


# ---------------------------------------------------------------------------------------------------------
# The run
# ---------------------------------------------------------------------------------------------------------


def cases(more: bool) -> Iterator[Case]:
    """All that is listed, and of what is drawn at random a little, or `more`."""
    yield from chain(
        files.lying_headers(), files.no_recordings(), files.paths(), files.file_objects(),
        arrays.arrays(), arrays.no_sounds(), arrays.windows(), options.wrong_names(),
        models.models(), results.results(), results.command_lines(),
    )  # fmt: skip
    yield from files.broken_files(1000 if more else 50)
    yield from files.forged_containers(200 if more else 12)
    yield from options.pairs(more)
    yield from options.wrong_options(30 if more else 2)
    yield from options.arguments_of_sounds(40 if more else 4)
    yield from options.tokenizers(150 if more else 20)
    yield from models.checkpoints(150 if more else 15)


def parameters() -> list[Any]:
    default, more = ({str(case): case for case in cases(more)} for more in (False, True))
    return [
        pytest.param(case, id=name, marks=() if name in default else pytest.mark.exhaustive)
        for name, case in {**default, **more}.items()
    ]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("case", parameters())
def test_a_right_answer_or_an_error_of_ours(
    case: Case, model: Whisper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings(record=True) as heard, np.errstate(divide="raise", over="raise", invalid="raise"):
        warnings.simplefilter("always")
        value, given = case.make(tmp_path), {name: make() for name, make in case.options.items()}
        heard.clear()
        before = fingerprint(value), fingerprint(given)
        message = "an answer"
        try:
            DOORS[case.door](model, tmp_path, value, dict(given))
        except (WhisperError, *CONTRACT.get(case.door, ())) as error:
            message = str(error)
    after = fingerprint(value), fingerprint(given)
    if isinstance(value, io.IOBase):
        value.close()
    assert 0 < len(message.strip()) <= LONGEST_MESSAGE
    assert after == before
    for warning in heard:  # ours say so on purpose; those of others would be a sign of something that we overlooked
        assert warning.category in (UserWarning, RuntimeWarning), warning
