"""The spectrogram by NumPy is that of `audio`, up to the last bits."""

import wave
from pathlib import Path

import numpy as np
import pytest
import torch

from whisper import audio
from whisper.media.reader import decode
from whisper.spans import N_SAMPLES
from whisper.speech import features, log_mel


def noise(seconds: float) -> log_mel.Floats:
    random = np.random.default_rng(0)
    n = int(16000 * seconds)
    return (random.normal(size=n) * np.linspace(0, 0.3, n)).astype(np.float32)


@pytest.mark.parametrize("n_mels", [80, 128])
@pytest.mark.parametrize("seconds", [0.0, 0.005, 1.0, 12.34])
def test_it_is_that_of_torch(seconds: float, n_mels: int) -> None:
    samples = noise(seconds)
    expected = audio.log_mel_spectrogram(samples, n_mels, padding=N_SAMPLES).numpy()
    found = log_mel.log_mel_spectrogram(samples, n_mels, N_SAMPLES)
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 2e-5


def test_a_file_is_read_plainly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "noise.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes((noise(25.0) * 20000).clip(-32768, 32767).astype("<i2").tobytes())
    pairs = [[features.Features.of(str(path), 80, plain=plain) for plain in (True, False)]]
    monkeypatch.setattr(features, "HELD", 16000)
    pairs.append([features.Features.of(str(path), 80, plain=plain) for plain in (True, False)])
    assert type(pairs[1][0]) is features.PlainStreamedFeatures
    for found, expected in pairs:
        assert found.n_frames == expected.n_frames
        for seek, size in ((0, 3000), (990, 1500), (2400, 3000), (6000, 10)):
            window = found.window(seek, size)
            assert isinstance(window, np.ndarray)
            assert np.abs(window - expected.window(seek, size).numpy()).max(initial=0) < 2e-5
        assert np.allclose(found.loudness(), expected.loudness(), atol=1e-2)
        assert np.array_equal(found.samples(100, 300), expected.samples(100, 300))
    assert np.array_equal(pairs[1][0].samples(0, 10**9), decode(str(path), 16000).astype(np.float32) / 32768)


def test_samples_of_an_array_stay_with_torch() -> None:
    found = features.Features.of(noise(1.0), 80, plain=True)
    assert isinstance(found.window(0, 10), torch.Tensor)
