"""Windows as states that are stepped: the same texts as the loop of `DecodingTask`, alone and in any company."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor

from whisper import decoding
from whisper.decoding import DecodingOptions, DecodingTask, LogitFilter, decode
from whisper.model import Whisper
from whisper.runtime import select
from whisper.sampling.window_sampling import release, step
from whisper.tokenizer import get_tokenizer

from ..models import random_model
from ..runners import ModelRunner


@pytest.fixture(scope="module")
def model() -> Whisper:
    return random_model(2, n_state=32)


@pytest.fixture(scope="module")
def mels() -> Tensor:
    return (
        torch.randn(3, 80, 3000, generator=torch.Generator().manual_seed(5))
        * torch.tensor([0.2, 0.5, 1])[:, None, None]
    )


@pytest.fixture
def runner(model: Whisper, monkeypatch: pytest.MonkeyPatch) -> ModelRunner:
    """The fast path of `model` is this one; set its `off` and there is none."""
    runner = ModelRunner(model)
    monkeypatch.setattr(select, "usable", lambda model: not getattr(runner, "off", False))
    monkeypatch.setattr(select, "runner_for", lambda model, fp16: runner)
    return runner


VARIANTS: list[dict[str, Any]] = [
    {},
    {"beam_size": 3, "sample_len": 25},
    {"beam_size": 2, "patience": 2.0, "length_penalty": 0.5, "sample_len": 20},
    {"beam_size": 3, "patience": 0.4, "sample_len": 20},
    {"temperature": 0.8, "sample_len": 30},
    {"temperature": 1.0, "best_of": 4, "sample_len": 30},
    {"temperature": 1.0, "best_of": 3, "sample_len": 20, "seed": 11},
    {"without_timestamps": True, "sample_len": 30, "suppress_tokens": "50257"},
    {"prompt": "So far", "prefix": "and", "suppress_blank": False, "sample_len": 20, "suppress_tokens": "-1,440"},
    {"language": None, "sample_len": 10, "max_initial_timestamp": None},
    {"language": None, "task": "lang_id"},
    {"prompt": list(range(300)), "prefix": list(range(1000, 1216)), "sample_len": 224},  # to the end of the context
]


@pytest.mark.parametrize("options", VARIANTS, ids=lambda o: ",".join(o) or "greedy")
def test_the_loop_and_the_states_give_the_same(
    model: Whisper, runner: ModelRunner, mels: Tensor, options: dict[str, Any]
) -> None:
    options = {"language": "en", "sample_len": 30, **options}
    batch = mels[:1] if options.get("temperature") else mels
    found = []
    for runner.off in (True, False):  # type: ignore[attr-defined]
        torch.manual_seed(3)
        found.append(decode(model, batch, **options))
    slow, fast = found
    assert runner.n_forward
    assert not runner.taken
    assert isinstance(slow, list)
    assert isinstance(fast, list)
    for a, b in zip(slow, fast, strict=True):
        assert (b.tokens, b.text, b.language, b.temperature) == (a.tokens, a.text, a.language, a.temperature)
        assert b.avg_logprob == pytest.approx(a.avg_logprob, abs=1e-5, nan_ok=True)
        assert b.no_speech_prob == pytest.approx(a.no_speech_prob, abs=1e-6, nan_ok=True)
        assert b.compression_ratio == pytest.approx(a.compression_ratio, nan_ok=True)
        assert b.language_probs == (a.language_probs and pytest.approx(a.language_probs, abs=1e-6))
        assert torch.allclose(a.audio_features, b.audio_features, atol=1e-5)


def test_features_may_come_instead_of_a_spectrogram(model: Whisper, runner: ModelRunner, mels: Tensor) -> None:
    by_sound = decode(model, mels[0], language="en", sample_len=10)
    by_features = decode(model, by_sound.audio_features.half(), language="en", sample_len=10)  # type: ignore[union-attr]
    assert by_features.tokens == by_sound.tokens  # type: ignore[union-attr]
    assert runner.n_forward == 20


def test_an_english_model(mels: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    english = random_model(4, n_vocab=51864, n_state=32)
    slow = decode(english, mels[0], sample_len=10)
    runner = ModelRunner(english)
    monkeypatch.setattr(select, "usable", lambda model: True)
    monkeypatch.setattr(select, "runner_for", lambda model, fp16: runner)
    fast = decode(english, mels[0], sample_len=10)
    assert runner.n_forward
    assert fast.tokens == slow.tokens  # type: ignore[union-attr]
    assert fast.no_speech_prob == pytest.approx(slow.no_speech_prob, abs=1e-6)  # type: ignore[union-attr]


def test_company_changes_nothing(model: Whisper, runner: ModelRunner, mels: Tensor) -> None:
    """Windows of all kinds join and leave at any step, and one is stopped in the middle."""
    several = [{"language": "en", "seed": 5, **o} for o in VARIANTS if o.get("task") != "lang_id"]
    tasks = [DecodingTask(model, DecodingOptions(**{**o, "sample_len": 7, "language": "de"})) for o in several]
    audios = [runner.project(f) for f in runner.encode(list(mels))]

    def make() -> list[Any]:
        return [task.sampling(audios[i % 3]) for i, task in enumerate(tasks)]

    alone = make()
    for s in alone:
        while not s.done:
            step(runner, [s])
    rng = random.Random(1)
    together = make()
    stopped = tasks[0].sampling(audios[0])
    waiting, live = list(together), [stopped]
    for i in range(10_000):
        if waiting and rng.random() < 0.3:
            live.append(waiting.pop())
        if i == 6:
            live.remove(stopped)
            release(runner, stopped)
        if i == 9:  # an error somewhere: all begin anew
            for s in live:
                release(runner, s)
                s.restart()
        if live:
            step(runner, live)
        live = [s for s in live if not s.done]
        if not live and not waiting:
            break
    assert not stopped.done
    assert not runner.taken
    for a, b in zip(alone, together, strict=True):
        assert b.candidates() == a.candidates()
        assert b.no_speech_prob == a.no_speech_prob


def test_who_changed_something_gets_the_loop(
    model: Whisper, runner: ModelRunner, mels: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    class Watch(LogitFilter):
        def apply(self, logits: Tensor, tokens: Tensor) -> None:
            seen.append("filter")

    task = DecodingTask(model, DecodingOptions(language="en", sample_len=2))
    task.logit_filters.append(Watch())
    task.run(mels[:1])
    with monkeypatch.context() as m:
        m.setattr(DecodingTask, "_main_loop", lambda *_: seen.append("loop") or pytest.skip.Exception)
        with pytest.raises(TypeError):
            decode(model, mels[0], language="en", sample_len=2)
    with monkeypatch.context() as m:
        m.setattr(decoding, "compression_ratio", lambda text: seen.append("ratio") or 1.0)
        decode(model, mels[0], language="en", sample_len=2)
    assert seen == ["filter", "filter", "loop", "ratio"]
    assert not runner.n_forward
    decode(model, mels[0], language="en", sample_len=2)
    assert runner.n_forward


@pytest.mark.parametrize("seed", [-1, 1.5, True, "3", 2**63])
def test_seeds_are_checked(model: Whisper, mels: Tensor, seed: Any) -> None:
    with pytest.raises(ValueError, match="seed must be a whole number from 0"):
        decode(model, mels[0], temperature=1.0, seed=seed)


def test_a_seed_determines_the_samples_and_leaves_torch_s_generator_alone(
    model: Whisper, runner: ModelRunner, mels: Tensor
) -> None:
    def drawn(**options: Any) -> list[int]:
        return decode(model, mels[0], language="en", temperature=1.0, sample_len=12, **options).tokens  # type: ignore[union-attr]

    state = torch.get_rng_state()
    assert drawn(seed=1) == drawn(seed=1) != drawn(seed=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert drawn() != drawn()


@pytest.mark.parametrize("options", [{}, {"beam_size": 3}, {"temperature": 1.0, "best_of": 3, "seed": 1}])
def test_log_probabilities_of_tokens_are_those_of_the_model(options: dict[str, Any]) -> None:
    """Of greedy texts, beams and samples: without rules, they are the log-softmax of the model's own logits."""
    model = random_model(3, n_state=32, n_head=1, n_audio_layer=1, n_text_layer=1)
    mel = torch.randn(80, 3000, generator=torch.Generator().manual_seed(0), dtype=torch.float32, device="cpu")
    free = {"suppress_tokens": None, "suppress_blank": False, "without_timestamps": True, "fp16": False}
    result = decode(model, mel, DecodingOptions(language="en", sample_len=12, **free, **options))
    assert result.tokens
    assert result.token_logprobs is not None
    start = list(get_tokenizer(True, language="en").sot_sequence_including_notimestamps)
    tokens = torch.tensor([start + result.tokens], dtype=torch.long, device="cpu")
    with torch.no_grad():
        logprobs = model(mel[None], tokens)[0, len(start) - 1 : -1].log_softmax(-1)
    expected = logprobs.gather(1, tokens[0, len(start) :, None])[:, 0].tolist()
    assert result.token_logprobs == pytest.approx(expected, abs=1e-3)
