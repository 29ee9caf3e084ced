"""The language where its detection is in doubt: scores, scripts, and the whole way with a scripted backend."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from whisper import transcribe_with_report
from whisper.audit.report import Report
from whisper.decoding import DecodingOptions, DecodingResult
from whisper.engine.operations import InlineRequest
from whisper.media.sources import can_be_read_again
from whisper.model import Whisper
from whisper.options.language_names import LANGUAGES
from whisper.spans import SAMPLE_RATE
from whisper.speech.features import Features
from whisper.tokenizer import get_tokenizer
from whisper.transcription import backends, recording
from whisper.transcription.language_choice import (
    BOTH_SCRIPTS,
    MAX_LANGUAGES,
    OTHER_SCRIPTS,
    Attempt,
    Choice,
    choose_language,
    has_words,
    is_doubtful,
    is_written_in,
    reconsider,
)
from whisper.transcription.languages import Detection

from ..models import random_model


def result(text: str, logprob: float, **more: Any) -> DecodingResult:
    features = torch.zeros(1, dtype=torch.float32, device="cpu")
    return DecodingResult(features, "en", text=text, avg_logprob=logprob, **{"compression_ratio": 1.0, **more})


class ScriptedBackend:
    """Decodes to what `texts` has for each language."""

    def __init__(self, texts: dict[str, DecodingResult]) -> None:
        self.texts, self.asked = texts, list[DecodingOptions]()

    async def decode(self, window: Any, options: DecodingOptions) -> DecodingResult:
        self.asked.append(options)
        return self.texts[options.language or ""]


def choose(probs: dict[str, float], texts: dict[str, DecodingResult], **options: Any) -> tuple[Choice, Any]:
    backend: Any = ScriptedBackend(texts)
    steps = choose_language(backend, DecodingOptions(**options), None, 4.0, probs)
    choice: Choice = InlineRequest(steps).result()
    return choice, backend.asked


def test_a_likelier_text_overrules_the_detection() -> None:
    probs = {"cy": 0.45, "en": 0.35, "fr": 0.2}
    texts = {"cy": result("a'r gallu", -1.4), "en": result("I can help you", -0.4), "fr": result("je peux", -1.5)}
    choice, asked = choose(probs, texts)
    assert choice.language == "en"
    assert [attempt.language for attempt in choice.attempts] == ["cy", "en", "fr"]
    assert "cy 0.45 (log-probability of the text -1.40), en 0.35" in choice.reason
    assert all(options.stop_loops and options.temperature == 0 for options in asked)


def test_a_rarer_language_needs_a_credible_text() -> None:
    loop = result("the the the the", -0.2, is_loop=True)
    assert choose({"en": 0.4, "zh": 0.2}, {"en": loop, "zh": result("吸引我们要", -1.6)})[0].language == "en"
    assert choose({"en": 0.4, "zh": 0.2}, {"en": loop, "zh": result("吸引我们要", -0.6)})[0].language == "zh"
    assert choose({"zh": 0.4, "en": 0.2}, {"zh": loop, "en": result("reaching for", -1.6)})[0].language == "en"


def test_a_detection_with_a_likely_text_stays() -> None:
    probs = {"fr": 0.6, "en": 0.3}
    assert choose(probs, {"fr": result("le village", -0.5), "en": result("the village", -0.9)})[0].language == "fr"


def test_a_text_that_is_likelier_by_little_overrules_the_detection_in_english_alone() -> None:
    texts = {"hi": result("यह लवादा ले ले", -1.26), "ru": result("Дорвачка холи.", -0.86)}
    assert choose({"hi": 0.31, "ru": 0.1}, texts)[0].language == "hi"
    assert choose({"hi": 0.21, "ru": 0.2}, texts)[0].language == "ru"
    texts = {"ja": result("あにとびじや", -1.3), "en": result("ani to biziar", -1.47)}
    assert choose({"ja": 0.376, "en": 0.222}, texts)[0].language == "en"


@pytest.mark.parametrize(
    "text",
    [
        result("I should end by falling in love", -0.6),  # which is not Chinese
        result("鸡头, 鸡头, 鸡头", -0.1, compression_ratio=8.0),
        result("鸡头", -0.1, is_loop=True),
        result("...", -0.1),
        result("《农头》的《《《《《《》》是《", -0.1),
        result("", -0.1),
    ],
)
def test_a_text_that_is_no_evidence_does_not_win(text: DecodingResult) -> None:
    texts = {"zh": text, "en": result("I shall end by falling in love", -0.6)}
    assert choose({"zh": 0.6, "en": 0.3}, texts)[0].language == "en"


def test_a_text_in_other_letters_may_win_by_its_language() -> None:
    texts = {"hi": result("Chai vai kuch logi", -0.9), "ur": result("چاہئے آئے کچھ لوگی", -0.6)}
    assert choose({"hi": 0.8, "ur": 0.16}, texts)[0].language == "hi"


def test_without_any_evidence_the_detection_stays() -> None:
    assert choose({"cy": 0.4, "en": 0.3}, {"cy": result("", -1.0), "en": result("...", -0.2)})[0].language == "cy"


def test_few_languages_are_tried_with_few_tokens() -> None:
    probs = {code: 1 / len(LANGUAGES) for code in LANGUAGES} | {"cy": 0.2, "en": 0.1, "de": 0.1, "fr": 0.1, "es": 0.1}
    texts = {code: result("text", -0.5) for code in LANGUAGES}
    choice, asked = choose(probs, texts, beam_size=5, patience=2.0)
    assert len(choice.attempts) == len(asked) == MAX_LANGUAGES
    assert choice.attempts[0].language == "cy"
    assert all(options.beam_size is None and (options.sample_len or 999) < 100 for options in asked)
    assert all(options.sample_len == 7 for options in choose(probs, texts, sample_len=7)[1])


def test_scripts_of_languages() -> None:
    assert is_written_in("Привет, мир", "ru")
    assert not is_written_in("Hello, world", "ru")
    assert not is_written_in("Привет, мир", "en")
    assert is_written_in("東京 de iPhone を買う人がいる", "ja")
    assert is_written_in("Здраво", "sr")
    assert is_written_in("Zdravo", "sr")
    assert is_written_in("3, 8, 9", "en")
    assert is_written_in("3, 8, 9", "zh")
    assert set(LANGUAGES) >= OTHER_SCRIPTS | BOTH_SCRIPTS
    assert not OTHER_SCRIPTS & BOTH_SCRIPTS


def test_words() -> None:
    assert has_words(" मुझे मत बताओ।")  # whose vowels are marks, and no letters
    assert has_words("4")
    assert not has_words("a ... ... -")
    assert not has_words(" ")


def test_doubt() -> None:
    assert is_doubtful({"en": 0.5, "fr": 0.5})
    assert not is_doubtful({"en": 0.95, "fr": 0.05})
    assert not is_doubtful({"en": 1.0})
    assert Attempt("en", 0.5, result("", 0.0)).score == -math.inf


# ---------------------------------------------------------------------------------------------------------
# In a transcription
# ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> Whisper:
    return random_model(2, n_state=32, n_head=1, n_audio_layer=1, n_text_layer=1, end=4.5)


@pytest.fixture
def detected(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """What every window is detected as; a test fills it. Texts in German are the likeliest."""
    probs: dict[str, float] = {}

    async def detect(self: Any, window: Any) -> dict[str, float]:
        return dict.fromkeys(LANGUAGES, 1e-9) | probs

    real = backends.EngineBackend.decode

    async def decode(self: Any, window: Any, options: DecodingOptions) -> DecodingResult:
        decoded = await real(self, window, options)
        logprob = -0.1 if options.language == "de" else -0.9
        return DecodingResult(**{**vars(decoded), "avg_logprob": logprob, "text": "text", "compression_ratio": 1.0})

    monkeypatch.setattr(backends.EngineBackend, "detect", detect)
    monkeypatch.setattr(backends.EngineBackend, "decode", decode)
    return probs


NOISE = (np.random.default_rng(0).normal(size=3 * SAMPLE_RATE) * 0.1).astype(np.float32)
OPTIONS: dict[str, Any] = {"fp16": False, "temperature": 0, "sample_len": 8, "audit": False}


@pytest.mark.parametrize(
    ("probs", "options", "language"),
    [
        ({"nl": 0.5, "de": 0.3}, {}, "nl"),
        ({"nl": 0.5, "de": 0.3}, {"verify_language": True}, "de"),
        ({"nl": 0.5, "de": 0.3}, {"audit": True, "vad_parameters": "method=energy"}, "de"),
        (
            {"nl": 0.5, "de": 0.3},
            {"audit": True, "verify_language": False, "vad_parameters": "method=energy"},
            "nl",
        ),
        ({"nl": 0.5, "de": 0.3}, {"verify_language": True, "languages": "nl,fr"}, "nl"),
        ({"nl": 0.95, "de": 0.04}, {"verify_language": True}, "nl"),
    ],
)
def test_languages_in_doubt(
    model: Whisper, detected: dict[str, float], probs: dict[str, float], options: dict[str, Any], language: str
) -> None:
    detected.update(probs)
    transcript, report = transcribe_with_report(model, NOISE, **{**OPTIONS, **options})
    assert transcript["language"] == report.language == language
    found = [finding for finding in report.findings if finding.kind == "language"]
    assert [finding.text for finding in found] == (["de"] if language == "de" else [])
    assert set(transcript) == {"text", "segments", "language"}


def test_language_tokens_are_no_part_of_a_text_in_our_modes(model: Whisper) -> None:
    tokenizer = get_tokenizer(True, language="en", task="transcribe")
    speaks = random_model(2, n_state=32, n_head=1, n_audio_layer=1, n_text_layer=1)
    with torch.no_grad():
        speaks.decoder.token_embedding.weight[list(tokenizer.all_language_tokens)] *= 3.0  # so that they are sampled
    options = {**OPTIONS, "language": "en", "without_timestamps": True, "sample_len": 20}
    plain, _ = transcribe_with_report(speaks, NOISE, **options)
    ours, _ = transcribe_with_report(
        speaks, NOISE, **{**options, "language": None}, languages="en,de", multilingual=True
    )
    assert "<|" in plain["text"]  # as openai-whisper writes it
    assert ours["text"]
    assert "<|" not in ours["text"]


# ---------------------------------------------------------------------------------------------------------
# In a list
# ---------------------------------------------------------------------------------------------------------


def sure(language: str) -> Report:
    return Report(language=language, language_probs={language: 0.99, "fr": 0.01})


def in_doubt(language: str, **scores: float) -> Report:
    return Report(language=language, language_probs={language: 0.6, "la": 0.3}, language_scores=scores)


def test_the_others_of_a_list_are_evidence_where_a_language_is_in_doubt() -> None:
    reports = [sure("en"), in_doubt("zh", zh=-2.0, en=-2.8), *[sure("en")] * 5]
    found = reconsider(reports)
    assert (found.language, [*found.reasons]) == ("en", [1])
    assert "6 of 6 others are en" in found.reasons[1]


@pytest.mark.parametrize(
    "reports",
    [
        [sure("en"), sure("en"), in_doubt("zh", zh=-2.0, en=-3.0)],  # too few
        [*[sure("en")] * 3, *[sure("zh")] * 3, in_doubt("zh", zh=-2.0, en=-3.0)],  # as many of both
        [*[sure("en")] * 9, *[sure("fr")] * 2, in_doubt("zh", zh=-2.0, en=-2.1)],  # a list of several languages
        [*[sure("en")] * 9, in_doubt("zh", zh=-2.0, en=-9.0)],  # English is by far too unlikely
        [*[sure("en")] * 9, in_doubt("zh")],  # no text was evidence
        [*[sure("en")] * 9, Report(language="zh")],  # which was given
    ],
)
def test_a_list_does_not_overrule_what_is_likely(reports: list[Report]) -> None:
    assert reconsider(reports).reasons == {}


def test_a_recording_of_a_list_is_transcribed_again_in_its_language(
    model: Whisper, detected: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = recording.detecting_language

    async def detecting(backend: Any, features: Features, *arguments: Any, **named: Any) -> Detection:
        probs = {"nl": 0.7, "de": 0.12} if features.n_frames < 300 else {"nl": 0.95, "de": 0.04}
        return replace(await real(backend, features, *arguments, **named), language="nl", probs=probs)

    monkeypatch.setattr(recording, "detecting_language", detecting)
    short = NOISE[: 2 * SAMPLE_RATE]
    options = {**OPTIONS, "verify_language": True}
    assert transcribe_with_report(model, short, **options)[0]["language"] == "de"
    told = transcribe_with_report(model, [short, *[NOISE] * 6], **options)
    transcript, report = told[0]
    assert [one["language"] for one, _ in told] == ["nl"] * 7
    assert transcript["text"] == transcribe_with_report(model, short, **OPTIONS, language="nl")[0]["text"]
    assert [(finding.kind, finding.text) for finding in report.findings] == [("language", "nl")]
    assert "6 of 6 others are nl" in report.findings[0].reason
    assert report.language_probs["nl"] == 0.7


def test_a_stream_is_not_read_twice(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    assert can_be_read_again(str(tmp_path / "a.wav"))
    assert can_be_read_again(tmp_path / "a.wav")
    assert can_be_read_again(b"RIFF")
    assert can_be_read_again(NOISE)
    assert not can_be_read_again("-")
    assert not can_be_read_again("https://example.org/a.wav")
    assert not can_be_read_again(io.BytesIO(b"RIFF"))
