"""One window to tokens: options, filters, searches, batches, and that nothing is left behind."""

import dataclasses
import math
import threading
from typing import Any

import pytest
import torch
from torch import Tensor

from whisper.decoding import (
    DecodingOptions,
    DecodingResult,
    DecodingTask,
    LogitFilter,
    SuppressTokens,
    compute_dtype,
    decode,
    detect_language,
    suppressed_tokens,
)
from whisper.errors import LanguageError, OptionError, ShapeError, UnknownOptionError
from whisper.model import Whisper
from whisper.tokenizer import Tokenizer, get_tokenizer

from .models import random_model


@pytest.fixture(scope="module")
def model() -> Whisper:
    return random_model(2)


@pytest.fixture(scope="module")
def mels() -> Tensor:
    return (
        torch.randn(3, 80, 3000, generator=torch.Generator().manual_seed(5))
        * torch.tensor([0.2, 0.5, 1.0])[:, None, None]
    )


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return get_tokenizer(True, num_languages=99, language="en", task="transcribe")


def one(result: Any) -> DecodingResult:
    assert isinstance(result, DecodingResult)
    return result


# -- options ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beam_size": 2, "best_of": 2, "temperature": 1.0}, "beam_size and best_of"),
        ({"best_of": 3}, "best_of with greedy"),
        ({"patience": 1.5}, "patience requires beam_size"),
        ({"beam_size": 2, "patience": 0.1}, "0 candidates"),
        ({"length_penalty": 1.5}, r"length_penalty.*1\.5"),
        ({"task": "summarise"}, "task must be.*'summarise'"),
        ({"beam_size": 0}, "beam_size must be a whole number"),
        ({"sample_len": -1}, "sample_len"),
        ({"beam_size": 1.5}, "beam_size"),
        ({"temperature": -0.5}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"suppress_tokens": "1,x"}, "suppress_tokens.*'1,x'"),
        ({"suppress_tokens": [99999999]}, "vocabulary has ids from 0"),
        ({"language": "Klingonian"}, "Klingonian|klingonian"),
        ({"prefix": [1] * 600}, "shorten the prefix"),
    ],
)
def test_wrong_options_name_themselves(model: Whisper, mels: Tensor, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        decode(model, mels[0], **options)


def test_an_unknown_option_suggests_the_nearest(model: Whisper, mels: Tensor) -> None:
    with pytest.raises(UnknownOptionError, match="'beamsize'; did you mean 'beam_size'") as e:
        decode(model, mels[0], beamsize=5)
    assert isinstance(e.value, TypeError)


@pytest.mark.parametrize("given", [[-1, 13], (-1, 13), "-1,13", {13, -1}, iter([13, -1])])
def test_suppressed_tokens_come_in_every_form_and_are_not_changed(given: Any, tokenizer: Tokenizer) -> None:
    before = list(given) if isinstance(given, (list, tuple)) else None
    ids = suppressed_tokens(given, tokenizer)
    assert set(tokenizer.non_speech_tokens) | {13, tokenizer.sot, tokenizer.no_speech} <= set(ids)
    assert -1 not in ids
    if before is not None:
        assert list(given) == before  # the original's list grows with every window


def test_half_precision_is_for_devices_that_are_quick_in_it() -> None:
    assert compute_dtype(True, torch.device("cpu")) == torch.float32
    assert compute_dtype(True, torch.device("cuda")) == torch.float16
    assert compute_dtype(False, torch.device("cuda")) == torch.float32


# -- tasks --------------------------------------------------------------------------------------------------

VARIANTS: list[dict[str, Any]] = [
    {},
    {"beam_size": 3, "sample_len": 20},
    {"language": None},
    {"prompt": "So far", "prefix": "and", "suppress_blank": False},
]


@pytest.mark.parametrize("options", VARIANTS)
def test_a_batch_gives_what_each_window_gives_alone(model: Whisper, mels: Tensor, options: dict[str, Any]) -> None:
    options = {"language": "en", "fp16": False, "sample_len": 40, **options}
    together = decode(model, mels, **options)
    assert isinstance(together, list)
    assert len({tuple(r.tokens) for r in together}) > 1
    for mel, result in zip(mels, together, strict=True):
        alone = one(decode(model, mel, **options))
        assert (alone.tokens, alone.text, alone.language) == (result.tokens, result.text, result.language)
        assert alone.avg_logprob == pytest.approx(result.avg_logprob, abs=1e-4)
        assert alone.no_speech_prob == pytest.approx(result.no_speech_prob, abs=1e-6)


def test_best_of_in_a_batch_chooses_among_samples_of_the_same_window(model: Whisper, mels: Tensor) -> None:
    torch.manual_seed(3)
    options = {"language": "en", "temperature": 1.0, "sample_len": 10}
    several = decode(model, mels, **options, best_of=6)
    single = decode(model, mels, **options)
    assert isinstance(several, list)
    assert isinstance(single, list)
    assert len(several) == 3
    mean = sum(r.avg_logprob for r in several) / 3
    assert mean > sum(r.avg_logprob for r in single) / 3  # the best of six beats one draw


def test_features_may_come_instead_of_a_spectrogram(model: Whisper, mels: Tensor) -> None:
    by_sound = one(decode(model, mels[0], language="en", sample_len=20))
    by_features = one(decode(model, by_sound.audio_features, language="en", sample_len=20))
    assert by_features.tokens == by_sound.tokens
    assert by_sound.audio_features.shape == (1500, 64)
    assert one(
        decode(model, by_sound.audio_features.half(), language="en", sample_len=3)
    ).tokens  # any precision is taken


def test_wrong_shapes_are_told(model: Whisper, mels: Tensor) -> None:
    with pytest.raises(ShapeError, match=r"\(n_batch, 80, 3000\), got \(1, 80, 2999\)"):
        decode(model, mels[0, :, :-1])
    with pytest.raises(ShapeError, match="2 dimensions"):
        decode(model, mels[0, 0])
    with pytest.raises(ShapeError, match=r"got \(1, 128, 3000\)"):
        decode(model, torch.zeros(128, 3000))


def test_languages(model: Whisper, mels: Tensor) -> None:
    token, probs = detect_language(model, mels[0])
    assert token.ndim == 0
    assert len(probs) == 99
    assert sum(probs.values()) == pytest.approx(1, abs=1e-5)
    best = max(probs, key=probs.__getitem__)
    result = one(decode(model, mels[0], task="lang_id", fp16=False))
    assert (result.language, result.tokens) == (best, [])
    assert result.language_probs == pytest.approx(probs, abs=1e-5)
    assert one(decode(model, mels[0], sample_len=2, fp16=False)).language == best


def test_an_english_model_detects_nothing_and_needs_no_language(mels: Tensor) -> None:
    english = random_model(4, n_vocab=51864)
    with pytest.raises(LanguageError, match="English-only"):
        detect_language(english, mels[0])
    assert one(decode(english, mels[0], sample_len=2)).language == "en"


def test_text_ends_and_sample_len_limits_it(model: Whisper, mels: Tensor) -> None:
    assert len(one(decode(model, mels[0], language="en", sample_len=5)).tokens) <= 5
    full = one(decode(model, mels[0], language="en", suppress_tokens=[50257], without_timestamps=True))
    assert len(full.tokens) == 224  # without an end: half of the context


def test_prompt_and_prefix_reach_the_decoder(model: Whisper, tokenizer: Tokenizer) -> None:
    options = DecodingOptions(language="en", prompt=list(range(300)), prefix="and so")
    task = DecodingTask(model, options)
    prompt = task.initial_tokens[: task.sot_index]
    assert prompt == (tokenizer.sot_prev, *range(300 - 223, 300))
    assert task.initial_tokens[task.sot_index :] == (*tokenizer.sot_sequence, *tokenizer.encode(" and so"))
    assert task.sample_begin == len(task.initial_tokens)
    assert options.prompt == list(range(300))


@pytest.mark.parametrize("name", ["prompt", "prefix"])
def test_tokens_that_are_none_are_told(model: Whisper, mels: Tensor, name: str) -> None:
    for tokens in ([5, 51865], [-1], [10**9]):
        with pytest.raises(OptionError, match="the vocabulary has ids from 0 to 51864"):
            decode(model, mels, language="en", fp16=False, **{name: tokens})


def test_subclasses_may_replace_the_steps(model: Whisper, mels: Tensor) -> None:
    seen = []

    class Mine(DecodingTask):
        def _get_audio_features(self, mel: Tensor) -> Tensor:
            seen.append("features")
            return super()._get_audio_features(mel)

        def _main_loop(self, audio_features: Tensor, tokens: Tensor) -> Any:
            seen.append("loop")
            return super()._main_loop(audio_features, tokens)

    task = Mine(model, DecodingOptions(language="en"))
    task.logit_filters.append(SuppressTokens([t for t in range(51865) if t != 50257 and t < 50364]))
    (result,) = task.run(mels[:1])
    assert seen == ["features", "loop"]
    assert all(t >= 50364 for t in result.tokens)


def test_results_are_as_wide_as_the_original_s() -> None:
    assert [f.name for f in dataclasses.fields(DecodingResult)] == [
        "audio_features", "language", "language_probs", "tokens", "text", "avg_logprob", "no_speech_prob",
        "temperature", "compression_ratio", "is_loop", "token_logprobs",
    ]  # fmt: skip


# -- nothing left behind ------------------------------------------------------------------------------------


def hooks_of(model: Whisper) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_an_error_in_the_middle_leaves_the_model_as_it_was(model: Whisper, mels: Tensor) -> None:
    before = one(decode(model, mels[0], language="en", sample_len=20))
    task = DecodingTask(model, DecodingOptions(language="en"))

    class Breaks(LogitFilter):
        def apply(self, logits: Tensor, tokens: Tensor) -> None:
            if tokens.shape[1] > 6:
                raise KeyboardInterrupt

    task.logit_filters.append(Breaks())
    with pytest.raises(KeyboardInterrupt):
        task.run(mels[:1])
    assert hooks_of(model) == 0
    assert not task.inference.kv_cache  # type: ignore[attr-defined]
    after = one(decode(model, mels[0], language="en", sample_len=20))
    assert (after.tokens, after.avg_logprob) == (before.tokens, before.avg_logprob)


def test_threads_on_one_model_do_not_meet(model: Whisper, mels: Tensor) -> None:
    alone = [one(decode(model, mel, language="en", beam_size=2, sample_len=20)).tokens for mel in mels]
    found: dict[int, list[int]] = {}

    def run(i: int) -> None:
        found[i] = one(decode(model, mels[i], language="en", beam_size=2, sample_len=20)).tokens

    threads = [threading.Thread(target=run, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[i] for i in range(3)] == alone
