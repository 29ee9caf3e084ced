"""The voice encoder: its spectrogram, its pieces, its layers, and vectors of length 1."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from whisper.speakers.networks import choice, voice_encoder, weights
from whisper.speakers.networks.voice_encoder import BLOCKS, SIZE, VoiceEncoder, pieces_of


def tone(hertz: float, seconds: float = 2.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(int(16000 * seconds)) / 16000)).astype(np.float32)


def test_mel_power_is_highest_at_the_tone_and_has_a_floor() -> None:
    network = choice.voices()
    mel = network.mel(tone(1000))
    assert mel.shape == (201, 80)
    bands = voice_encoder.kaldi_filters()
    nearest = int(np.argmin(abs(np.linspace(0, 8000, 257) - 1000)))
    assert int(mel[100].argmax()) == int(np.argmax(bands[:, nearest]))
    assert network.mel(np.zeros(1600, np.float32)) == pytest.approx(np.log(voice_encoder.FLOOR))


def test_neighbouring_filters_sum_to_one() -> None:
    filters = voice_encoder.kaldi_filters()
    assert filters.shape == (80, 257)
    assert filters.sum(0)[3:-14] == pytest.approx(1, abs=1e-5)  # between the middles of the first and of the last


def vowel(pitch: float, formant: float) -> np.ndarray:
    """Two seconds of a voice, as harmonics with one formant."""
    t, harmonics = np.arange(32_000) / 16_000, np.arange(1, 60) * pitch
    heights = np.exp(-(((harmonics - formant) / 400) ** 2)) + 0.05
    return (0.05 * (heights @ np.sin(2 * np.pi * harmonics[:, None] * t))).astype(np.float32)


def noisy(sound: np.ndarray, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 0.003, len(sound))
    return (sound * (1 + 0.5 * np.sin(np.arange(len(sound)) / 1500)) + noise).astype(np.float32)


def test_vectors_have_length_1_and_tell_sounds_apart() -> None:
    network = choice.voices()
    sounds = [noisy(vowel(*v), i) for i, v in enumerate([(90, 500), (90, 500), (250, 900)])]
    deep, same, high = (network.embed(pieces_of(network.mel(sound)))[0] for sound in sounds)
    assert deep.shape == (SIZE,)
    assert np.linalg.norm(deep) == pytest.approx(1, abs=1e-5)
    assert deep @ same > 0.9
    assert deep @ high < deep @ same - 0.1


def test_the_layers_are_those_of_the_description() -> None:
    """The folded layers come to the same as the plain ones, one after the other."""
    w = weights.load("encoder")
    pieces = np.random.default_rng(0).normal(0, 2, (2, 200, 80)).astype(np.float32)
    expected = plain(w, torch.from_numpy(pieces)).numpy()
    assert VoiceEncoder(w, torch.float32).embed(pieces) == pytest.approx(expected, abs=2e-4)
    assert (VoiceEncoder(w, torch.bfloat16).embed(pieces) * expected).sum(1).min() > 0.99


def plain(w: weights.Weights, x: Tensor) -> Tensor:
    """Compute CAM++ layer by layer, as its authors describe it."""

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var, scale, shift = (w.get(f"{name}.{k}") for k in ("running_mean", "running_var", "weight", "bias"))
        assert mean is not None
        assert var is not None
        return F.batch_norm(x, mean, var, scale, shift, eps=1e-5)

    def residual(x: Tensor, name: str, stride: int) -> Tensor:
        y = F.relu(norm(F.conv2d(x, w[f"{name}.conv1.weight"], None, (stride, 1), 1), f"{name}.bn1"))
        y = norm(F.conv2d(y, w[f"{name}.conv2.weight"], None, 1, 1), f"{name}.bn2")
        if stride == 2:
            x = norm(F.conv2d(x, w[f"{name}.shortcut.0.weight"], None, (2, 1)), f"{name}.shortcut.1")
        return F.relu(x + y)

    def gated(x: Tensor, name: str, dilation: int) -> Tensor:
        y = F.conv1d(F.relu(norm(x, f"{name}.nonlinear1.batchnorm")), w[f"{name}.linear1.weight"])
        y = F.relu(norm(y, f"{name}.nonlinear2.batchnorm"))
        cam = f"{name}.cam_layer"
        context = y.mean(2, keepdim=True) + F.avg_pool1d(y, 100)
        context = F.relu(F.conv1d(context, w[f"{cam}.linear1.weight"], w[f"{cam}.linear1.bias"]))
        context = torch.sigmoid(F.conv1d(context, w[f"{cam}.linear2.weight"], w[f"{cam}.linear2.bias"]))
        return context * F.conv1d(y, w[f"{cam}.linear_local.weight"], None, 1, dilation, dilation)

    x = x.transpose(1, 2)[:, None]  # (n, 1, 80, 200)
    x = F.relu(norm(F.conv2d(x, w["head.conv1.weight"], padding=1), "head.bn1"))
    for i in (1, 2):
        x = residual(residual(x, f"head.layer{i}.0", 2), f"head.layer{i}.1", 1)
    x = F.relu(norm(F.conv2d(x, w["head.conv2.weight"], None, (2, 1), 1), "head.bn2"))
    x = F.conv1d(x.flatten(1, 2), w["xvector.tdnn.linear.weight"], None, 2, 2)
    x = F.relu(norm(x, "xvector.tdnn.nonlinear.batchnorm"))
    for b, (n_layers, dilation) in enumerate(BLOCKS, 1):
        for i in range(n_layers):
            x = torch.cat([x, gated(x, f"xvector.block{b}.tdnnd{i + 1}", dilation)], 1)
        x = F.relu(norm(x, f"xvector.transit{b}.nonlinear.batchnorm"))
        x = F.conv1d(x, w[f"xvector.transit{b}.linear.weight"])
    x = F.relu(norm(x, "xvector.out_nonlinear.batchnorm"))
    x = torch.cat([x.mean(2), x.std(2)], 1)
    x = F.linear(x, w["xvector.dense.linear.weight"][:, :, 0])
    return F.normalize(norm(x, "xvector.dense.nonlinear.batchnorm"), dim=1)


def test_pieces_of_different_lengths_do_not_know_each_other() -> None:
    rng = np.random.default_rng(1)
    pieces = [rng.normal(0, 2, (n, 80)).astype(np.float32) for n in (200, 60, 134, 298)]
    network = VoiceEncoder(weights.load("encoder"), torch.float32)
    alone = np.concatenate([network.embed([piece]) for piece in pieces])
    assert network.embed(pieces) == pytest.approx(alone, abs=1e-5)


@pytest.mark.parametrize(("n", "expected"), [(60, 1), (150, 1), (222, 1), (300, 2), (402, 3)])
def test_pieces_cover_all_frames(n: int, expected: int) -> None:
    mel = np.repeat(np.arange(n, dtype=np.float32)[:, None], 80, 1)
    pieces = pieces_of(mel)
    assert len(pieces) == expected
    assert all(len(piece) % 2 == 0 for piece in pieces)
    missing = set(np.arange(n, dtype=np.float32) - mel.mean(0)[0]) - set(np.unique(np.concatenate(pieces)))
    assert len(missing) <= expected  # an odd frame of each


def test_a_voice_shorter_than_a_piece_is_repeated() -> None:
    assert [len(piece) for piece in pieces_of(np.ones((30, 80), np.float32))] == [voice_encoder.SHORTEST_PIECE]
