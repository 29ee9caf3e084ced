"""The network of local speakers: its parts against what defines them, and its windows against each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from whisper.speakers.networks import weights
from whisper.speakers.networks.segmentation import (
    CLASSES,
    HOP,
    N_FRAMES,
    WINDOW,
    Segmentation,
    frame_time,
    n_frames_of,
    sinc_filters,
)


@pytest.fixture(scope="module")
def network() -> Segmentation:
    return Segmentation(weights.load("segmentation"), torch.float32)


def noise(n: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(n)).astype(np.float32)


def test_a_window_has_as_many_frames_as_published() -> None:
    assert N_FRAMES == 589
    assert n_frames_of(160_000) == 589
    assert n_frames_of(990) == 0
    assert frame_time(0) < frame_time(1)
    assert frame_time(589) == pytest.approx(10, abs=0.05)


def test_the_classes_are_all_sets_of_at_most_two_of_three() -> None:
    assert len({tuple(row) for row in CLASSES}) == 7
    assert CLASSES.sum(1).tolist() == [0, 1, 1, 1, 2, 2, 2]


def test_the_filters_pass_their_band() -> None:
    low, band = torch.tensor([[450.0]]), torch.tensor([[150.0]])  # 500 to 700 Hz
    filters = sinc_filters(low, band)
    assert filters.shape == (2, 251)
    response = torch.fft.rfft(filters, 16000).abs()
    inside, outside = response[:, 560:640], torch.cat([response[:, :300], response[:, 1000:]], 1)
    assert inside.min() > 20 * outside.max()
    assert torch.allclose(filters[0], filters[0].flip(0))
    assert torch.allclose(filters[1], -filters[1].flip(0))


def test_the_filters_of_three_neighbours_equal_the_layers_one_after_the_other(network: Segmentation) -> None:
    sound = torch.from_numpy(noise(WINDOW) + 0.05)  # with an offset, which normalization takes away
    w = weights.load("segmentation")
    x = F.instance_norm(sound[None, None], weight=w["sincnet.wav_norm1d.weight"], bias=w["sincnet.wav_norm1d.bias"])
    filters = sinc_filters(w["sincnet.conv1d.0.filterbank.low_hz_"], w["sincnet.conv1d.0.filterbank.band_hz_"])
    expected = F.max_pool1d(F.conv1d(x, filters[:, None], stride=10).abs(), 3)[0].T
    found = network._filtered(sound)
    assert found.shape == (5325, 80)
    assert torch.allclose(found, expected, atol=1e-4)
    norm = {"weight": w["sincnet.norm1d.0.weight"], "bias": w["sincnet.norm1d.0.bias"]}
    normed = F.leaky_relu(F.instance_norm(expected.T[None], **norm))[0].T
    assert torch.allclose(network._normalized(found[None], 0)[0], normed, atol=1e-3)


def test_windows_do_not_know_each_other(network: Segmentation) -> None:
    sound = noise(WINDOW + 4 * 148 * HOP)
    sound[WINDOW // 2 :] *= 5
    starts = [0, 148 * HOP, 2 * 148 * HOP]
    together = network.classes(sound, starts, WINDOW)
    for start, classes in zip(starts, together, strict=True):
        alone = network.classes(sound[start : start + WINDOW], [0], WINDOW)[0]
        assert (alone != classes).mean() < 0.005


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_silence_has_no_speakers(dtype: torch.dtype) -> None:
    network = Segmentation(weights.load("segmentation"), dtype)
    assert not network.classes(np.zeros(WINDOW, np.float32), [0], WINDOW).any()


def test_a_short_recording_is_a_short_window(network: Segmentation) -> None:
    found = network.classes(noise(16000), [0], 16000)
    assert found.shape == (1, n_frames_of(16000))
