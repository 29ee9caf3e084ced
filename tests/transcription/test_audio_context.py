"""The audio context: how much the encoder reads, and what happens to a text that ran away in a short one."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import whisper
from whisper.decoding import DecodingResult
from whisper.device.precision import available_types
from whisper.errors import OptionError
from whisper.model import Whisper
from whisper.options.transcription import DecodingOptions, TranscribeOptions
from whisper.runtime.interface import PADDING_STRIDE, n_positions_with_padding
from whisper.spans import N_FRAMES
from whisper.tokenizer import get_tokenizer
from whisper.transcription import audio_context, window_decoder
from whisper.transcription.audio_context import MARGIN, WHOLE, AudioContext, bounded, choose, is_doubtful, most_tokens
from whisper.transcription.backends import EngineBackend

from ..models import random_model

SHORT = AudioContext(follows_sound=True)
TOKENIZER = get_tokenizer(True, language="en", task="transcribe")
CALM = {"temperature": 0.0, "sample_len": 12, "fp16": False, "logprob_threshold": None}
# words that may follow each other, and no timestamps: a text of the random model that shows no sign of running away
PLAIN = {**CALM, "without_timestamps": True, "hotwords": ["a", "the"], "hotword_boost": 100.0,
         "compression_ratio_threshold": None}  # fmt: skip


@pytest.fixture(scope="module")
def model() -> Whisper:
    return random_model(2, n_state=32, n_head=1, n_audio_layer=1, n_text_layer=1, end=4.5)


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=round(seconds * 16000)) * 0.1).astype(np.float32)


# ---------------------------------------------------------------------------------------------------------
# How much
# ---------------------------------------------------------------------------------------------------------


def test_the_whole_context_is_that_of_the_original() -> None:
    assert {WHOLE.n_frames(size) for size in (0, 1, 500, N_FRAMES)} == {N_FRAMES}
    assert not WHOLE.is_short(1)


def test_a_short_context_has_the_sound_and_the_margin() -> None:
    sizes = range(N_FRAMES + 1)
    frames = [SHORT.n_frames(size) for size in sizes]
    assert frames == sorted(frames)
    assert all(n % 2 == 0 and n <= N_FRAMES for n in frames)
    assert all(n == N_FRAMES or n >= size + MARGIN for size, n in zip(sizes, frames, strict=True))
    assert (frames[100], frames[-1]) == (240, N_FRAMES)
    assert [SHORT.is_short(size) for size in (0, 1000, 2700, N_FRAMES)] == [True, True, False, False]
    assert all((N_FRAMES - n) % (2 * PADDING_STRIDE) == 0 for n in frames)
    assert len(set(frames)) < 25  # few lengths: windows of one length are encoded together


@pytest.mark.parametrize(
    ("option", "compute_type", "device", "takes_short", "follows"),
    [
        ("auto", "int8", "cpu", True, True),
        ("auto", "bfloat16", "cpu", True, True),
        ("auto", "float32", "cpu", True, False),
        ("auto", "bfloat16", "cuda", True, False),  # not measured
        ("auto", "int8", "cpu", False, False),
        ("full", "int8", "cpu", True, False),
        ("short", "float32", "cpu", True, True),
        ("short", "float16", "cuda", True, True),
    ],
)
def test_what_the_option_means(option: str, compute_type: str, device: str, takes_short: bool, follows: bool) -> None:
    backend: Any = SimpleNamespace(compute_type=compute_type, takes_short_windows=takes_short)
    assert choose(option, backend, torch.device(device)).follows_sound is follows


# ---------------------------------------------------------------------------------------------------------
# Texts that ran away
# ---------------------------------------------------------------------------------------------------------


def test_a_runaway_text_is_ended_early() -> None:
    options = DecodingOptions(language="en", beam_size=3)
    brief = bounded(options, 500)
    assert brief == replace(options, stop_loops=True, sample_len=most_tokens(500))
    assert bounded(replace(options, sample_len=5), 500).sample_len == 5
    with_prefix = replace(options, prefix="it begins")
    assert bounded(with_prefix, 500) is with_prefix


def result(*tokens: int, **scores: Any) -> DecodingResult:
    fine = {"avg_logprob": -0.3, "compression_ratio": 1.0, "no_speech_prob": 0.0, "is_loop": False}
    return DecodingResult(None, "en", tokens=list(tokens), **{**fine, **scores})  # type: ignore[arg-type]


BEGIN = TOKENIZER.timestamp_begin


@pytest.mark.parametrize(
    ("decoded", "doubtful"),
    [
        (result(BEGIN, 440, 1001, BEGIN + 250), False),  # to the end of 5 s
        (result(BEGIN, 440, 1001, BEGIN + 290), False),
        (result(BEGIN, 440, 1001, BEGIN + 360), True),
        (result(BEGIN + 400, 440), True),
        (result(BEGIN, 440, 1001, BEGIN + 110), False),  # 2.8 s of silence, or so it says
        (result(BEGIN, 440, 1001, BEGIN + 90), True),
        (result(BEGIN), True),
        (result(440, 1001), False),  # without timestamps
        (result(), False),
        (result(440, is_loop=True), True),
        (result(440, compression_ratio=2.5), True),
        (result(440, avg_logprob=-1.1), True),
        (result(440, avg_logprob=-1.1, no_speech_prob=0.9), True),  # silence is believed when it is heard in 30 s
        (result(*range(most_tokens(500))), True),
    ],
)
def test_signs_of_a_runaway_text(decoded: DecodingResult, doubtful: bool) -> None:
    assert is_doubtful(decoded, 500, TranscribeOptions(), BEGIN) is doubtful


def test_what_is_left_after_the_last_word_is_believed_to_be_silent() -> None:
    silent, speech = result(avg_logprob=-1.5, no_speech_prob=0.8), result(440, avg_logprob=-1.5, no_speech_prob=0.2)
    assert not is_doubtful(silent, 30, TranscribeOptions(), BEGIN)
    assert is_doubtful(silent, 100, TranscribeOptions(), BEGIN)
    assert is_doubtful(speech, 30, TranscribeOptions(), BEGIN)


def test_thresholds_are_the_callers() -> None:
    options = TranscribeOptions(compression_ratio_threshold=None, logprob_threshold=-3.0)
    assert not is_doubtful(result(440, compression_ratio=9.0, avg_logprob=-2.0), 500, options, BEGIN)


def test_a_doubtful_text_is_decoded_again_on_30_seconds_before_any_fallback(
    model: Whisper, encoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, float]] = []
    decode = EngineBackend.decode

    async def spy(self: Any, window: Any, options: DecodingOptions) -> DecodingResult:
        asked.append((len(window.features), options.temperature))
        return replace(await decode(self, window, options), avg_logprob=-2.0, no_speech_prob=0.0)

    monkeypatch.setattr(EngineBackend, "decode", spy)
    options = {**CALM, "temperature": (0.0, 0.4, 0.8), "logprob_threshold": -1.0, "language": "en", "seed": 0}
    model.transcribe(noise(4), audio_context="short", **options)
    assert encoded == [SHORT.n_frames(400), N_FRAMES]
    short = n_positions_with_padding(encoded[0] // 2, model.dims)
    assert asked == [(short, 0.0), (1500, 0.0), (1500, 0.4), (1500, 0.8)]


def test_a_text_that_is_believed_costs_one_short_window(model: Whisper, encoded: list[int]) -> None:
    model.transcribe(noise(4), audio_context="short", language="en", **PLAIN)
    assert encoded == [SHORT.n_frames(400)]


def test_a_text_after_a_doubt_is_that_of_the_whole_context(model: Whisper, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {**CALM, "language": "en", "word_timestamps": True}
    full = model.transcribe(noise(4), audio_context="full", **options)
    monkeypatch.setattr(window_decoder, "is_doubtful", lambda *_: True)
    assert model.transcribe(noise(4), audio_context="short", **options) == full


# ---------------------------------------------------------------------------------------------------------
# In a transcription
# ---------------------------------------------------------------------------------------------------------


def test_the_language_is_detected_in_a_short_context_with_silence_behind_the_sound(
    model: Whisper, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[torch.Tensor] = []
    encode = EngineBackend.encode

    def spy(self: Any, mel: torch.Tensor) -> Any:
        encoded.append(mel)
        return encode(self, mel)

    monkeypatch.setattr(EngineBackend, "encode", spy)
    model.transcribe(noise(4), audio_context="short", **PLAIN)
    model.transcribe(noise(4), audio_context="full", **PLAIN)
    assert [mel.shape[-1] for mel in encoded] == [SHORT.n_frames(400)] * 2 + [N_FRAMES] * 2
    detection, text, detection_in_full, _ = encoded
    assert torch.equal(detection, detection_in_full[:, : detection.shape[1]])
    assert torch.equal(detection[:, :400], text[:, :400])
    assert text[:, 400:].eq(0).all()
    assert not detection[:, 410:].eq(0).any()  # silence, as openai-whisper detects languages


def test_of_a_long_recording_the_last_window_is_short(model: Whisper, encoded: list[int]) -> None:
    model.transcribe(noise(64), audio_context="short", language="en", **PLAIN)
    assert encoded == [N_FRAMES, N_FRAMES, SHORT.n_frames(400)]


def test_very_short_and_empty_recordings(model: Whisper) -> None:
    for seconds in (0.0, 0.01, 0.3):
        transcript = model.transcribe(noise(seconds), audio_context="short", word_timestamps=True, **PLAIN)
        assert bool(transcript["segments"]) is (seconds > 0)
        assert all(w["end"] <= seconds for s in transcript["segments"] for w in s["words"])


def test_recordings_of_different_lengths_side_by_side_give_what_each_gives_alone(model: Whisper) -> None:
    sounds = [noise(seconds, seed) for seed, seconds in enumerate((2, 9, 5, 31, 17))]
    options = {**PLAIN, "audio_context": "short", "language": "en"}
    alone = [model.transcribe(sound, **options) for sound in sounds]
    assert [t["text"] for t in model.transcribe(sounds, **options)] == [t["text"] for t in alone]
    assert len({t["text"] for t in alone}) > 1


def test_words_and_beams_in_a_short_context(model: Whisper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window_decoder, "is_doubtful", lambda *_: False)
    options = {**CALM, "language": "en", "word_timestamps": True, "beam_size": 3}
    words = [w for s in model.transcribe(noise(4), audio_context="short", **options)["segments"] for w in s["words"]]
    assert words
    assert all(0 <= w["start"] <= w["end"] <= 4.0 for w in words)


def test_audit_and_speech_filter_read_short_windows(model: Whisper, encoded: list[int]) -> None:
    pause = np.zeros(5 * 16000, np.float32)
    sound = np.concatenate([noise(3), pause, noise(6), pause, noise(2)])
    options = {**PLAIN, "language": "en", "vad_filter": True, "vad_parameters": "method=energy"}
    model.transcribe(sound, audio_context="short", **options)
    assert len(encoded) == 3
    assert all(n < 1300 for n in encoded)


@pytest.mark.skipif(available_types("cpu")[0] == "float32", reason="this processor computes in no half precision")
def test_auto_is_short_in_a_fast_precision_and_full_in_float32(model: Whisper, encoded: list[int]) -> None:
    options = {**PLAIN, "language": "en"}
    model.transcribe(noise(4), **options, audio_context="auto")
    model.transcribe(noise(4), **{**options, "fp16": True, "audio_context": "auto"})
    assert encoded == [N_FRAMES, SHORT.n_frames(400)]


def test_where_others_get_the_windows_they_have_30_seconds(
    model: Whisper, encoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {**PLAIN, "language": "en"}
    with model.decoder.ln.register_forward_hook(lambda *_: None), pytest.raises(OptionError, match="the fast path"):
        model.transcribe(noise(4), audio_context="short", **options)
    monkeypatch.setattr(whisper.timing, "find_alignment", lambda *_, **__: [])
    with pytest.raises(OptionError, match="the fast path"):
        model.transcribe(noise(4), audio_context="short", **options)
    monkeypatch.setattr(audio_context, "FAST_TYPES", ("float32",))
    model.transcribe(noise(4), **options, audio_context="auto")
    assert encoded == [N_FRAMES]
