"""The parts of benchmarks/rivals.py that a comparison stands on: equal weights, equal tokens, honest arithmetic."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from whisper.checkpoints.formats import huggingface
from whisper.model import ModelDimensions, Whisper, disable_sdpa
from whisper.tokenizer import get_tokenizer

ROOT = Path(__file__).resolve().parent.parent
N_MELS, N_VOCAB, WIDTH, LAYERS = 80, 51865, 64, 2


@pytest.fixture(scope="module")
def models() -> Iterator[ModuleType]:
    yield from imported("rival_models")


@pytest.fixture(scope="module")
def ceilings() -> Iterator[ModuleType]:
    yield from imported("ceilings")


@pytest.fixture(scope="module")
def rivals() -> Iterator[ModuleType]:
    yield from imported("rivals")


def imported(name: str) -> Iterator[ModuleType]:
    """A program under benchmarks/, which find one another because they lie side by side."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield importlib.import_module(name)


@pytest.fixture(scope="module")
def network() -> Whisper:
    return Whisper(ModelDimensions(N_MELS, 1500, WIDTH, 2, LAYERS, N_VOCAB, 448, WIDTH, 2, LAYERS)).eval()


def test_names_of_transformers_lead_back_to_ours(models: ModuleType, network: Whisper) -> None:
    state = network.state_dict()
    theirs = {models.their_name(name): tensor for name, tensor in state.items()}
    back = huggingface.renamed(theirs, "here")
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize(("n_vocab", "languages"), [(51865, 99), (51866, 100)])
def test_special_tokens_have_their_ids(models: ModuleType, n_vocab: int, languages: int) -> None:
    names = models.special_tokens(n_vocab)
    assert models.EOT + len(names) == n_vocab
    tokenizer = get_tokenizer(True, num_languages=languages)
    for i, name in enumerate(names[:-1501]):
        assert tokenizer.special_tokens[name] == models.EOT + i


def test_merges_lead_to_the_same_tokens(models: ModuleType) -> None:
    ranks = models.read_ranks()
    tokens = [token for token in ranks if len(token) > 1][::400]
    for token in tokens:
        a, b = models._last_merge(token, ranks)
        assert a + b == token
        assert max(ranks[a], ranks[b]) < ranks[token]


def test_q8_0_is_32_bytes_and_a_scale(models: ModuleType) -> None:
    matrix = np.random.default_rng(0).normal(size=(3, 64)).astype(np.float16)
    matrix[1, :32] = 0
    packed = np.frombuffer(models.q8_0(matrix), np.dtype([("scale", "<f2"), ("values", "i1", 32)]))
    assert len(packed) == 6
    back = (packed["scale"][:, None].astype(np.float32) * packed["values"]).reshape(3, 64)
    assert not back[1, :32].any()
    assert np.abs(back - matrix).max() < np.abs(matrix).max() / 127
    assert np.abs(packed["values"]).max() == 127


def test_operations_of_the_encoder_are_those_of_the_network(ceilings: ModuleType, network: Whisper) -> None:
    with disable_sdpa(), FlopCounterMode(display=False) as counter:
        network.encoder(torch.zeros(1, N_MELS, 3000))
    assert counter.get_total_flops() == sum(ceilings.encoder_operations(N_MELS, WIDTH, LAYERS))


def test_operations_of_a_token_are_those_of_the_network(ceilings: ModuleType, network: Whisper) -> None:
    with disable_sdpa(), FlopCounterMode(display=False) as counter:
        network.decoder(torch.zeros(1, 1, dtype=torch.long), torch.zeros(1, 1500, WIDTH))
    expected = ceilings.token_operations(N_VOCAB, WIDTH, LAYERS, length=1)
    assert counter.get_total_flops() == expected + ceilings.listening_operations(WIDTH, LAYERS)


def test_a_token_reads_every_matrix_once_and_what_it_attends_to(ceilings: ModuleType, network: Whisper) -> None:
    read = [
        p.numel()
        for name, p in network.decoder.named_parameters()
        if p.ndim == 2 and "positional" not in name and not name.endswith(("cross_attn.key.weight", "value.weight"))
    ]
    values = sum(block.attn.value.weight.numel() for block in network.decoder.blocks)
    kept = LAYERS * 2 * 1500 * WIDTH
    assert ceilings.token_bytes(N_VOCAB, WIDTH, LAYERS, 2, length=0) == 2 * (sum(read) + values + kept)


def test_limits_follow_the_slower_of_reading_and_counting(ceilings: ModuleType) -> None:
    shape = (N_MELS, N_VOCAB, (WIDTH, 2, LAYERS), (WIDTH, 2, LAYERS))
    rates = {"float32": 1e12, "bfloat16": 1e12, "int8": 1e12}
    slow, quick = ({"rates": rates, "reading": {"4": 1e12, "64": rate}} for rate in (1e9, 1e10))
    n_bytes = ceilings.token_bytes(N_VOCAB, WIDTH, LAYERS, 4)
    assert 4 * 2**20 < n_bytes / 2 < n_bytes < 64 * 2**20  # the rate of the smaller set does not count
    one, other = (ceilings.limits(shape, "float32", machine, 100) for machine in (slow, quick))
    assert one["token"] == pytest.approx(n_bytes / 1e9, rel=0.01)
    assert one["encoder"] == other["encoder"] == sum(ceilings.encoder_operations(N_MELS, WIDTH, LAYERS)) / 1e12
    assert other["window"] == pytest.approx(other["encoder"] + 100 * other["token"])
    halved = ceilings.limits(shape, "bfloat16", slow, 100)
    assert halved["token"] == pytest.approx(one["token"] / 2, rel=0.05)


def test_ratios_are_taken_within_a_round(rivals: ModuleType) -> None:
    told = [
        {"them": {"window": 4.0}, "us": {"window": 1.0}},
        {"them": {"window": 20.0}, "us": {"window": 10.0}},  # a slow minute hits both
        {"them": {}, "us": {"window": 1.0}},  # one that failed counts for nobody
        {"them": {"window": 9.0}, "us": {"window": 3.0}},
    ]
    assert rivals.ratio(told, "them", "us", "window") == [3.0, 2.0, 4.0]
    assert rivals.median(told, "them", "window") == 9.0
    assert rivals.ratio(told, "nobody", "us", "window") is None


def test_a_rival_that_fails_is_told_and_left_out(
    rivals: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rivals, "python_of", lambda name: sys.executable)
    assert rivals.run("whisper.cpp", "memory", tmp_path, threads=1) == {}
    said = capsys.readouterr().out
    assert "whisper.cpp: no memory (" in said
    assert "_pywhispercpp" in said


def test_peers_refuses_what_it_does_not_know() -> None:
    done = subprocess.run([ROOT / "scripts" / "peers", "whisperx"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "not 'whisperx'" in done.stderr
