"""The sound of recordings: a copy that is bit for bit what was decoded, stretches of it, and peaks."""

from __future__ import annotations

import io
import wave
from pathlib import Path

import numpy as np
import pytest

from whisper.server.errors import RequestError
from whisper.server.library.sounds import Sounds, peaks_of, wav_header

ID = "rec_" + "0" * 32


def noise(n_channels: int, seconds: float) -> np.ndarray:
    return np.random.default_rng(1).integers(-32768, 32768, (n_channels, int(16000 * seconds))).astype(np.int16)


@pytest.mark.parametrize("n_channels", [1, 2])
def test_the_copy_is_what_was_decoded(tmp_path: Path, n_channels: int) -> None:
    sounds, samples = Sounds(tmp_path / "sounds"), noise(n_channels, 3.3)
    sounds.keep(ID, samples[0] if n_channels == 1 else samples)
    with wave.open(str(sounds.copy(ID))) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16000, n_channels, 2)
        read = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, n_channels).T
    np.testing.assert_array_equal(read, samples)
    mean = samples.mean(axis=0).astype(np.int16)
    np.testing.assert_array_equal(sounds.samples(ID, 1.0, 2.0), mean[16000:32000])
    np.testing.assert_array_equal(sounds.samples(ID, 3.0, 99.0), mean[48000:])
    assert not len(sounds.samples(ID, 50.0, 60.0))


def test_peaks_hold_every_extreme(tmp_path: Path) -> None:
    sounds, samples = Sounds(tmp_path / "sounds"), np.zeros((1, 160000), np.int16)
    samples[0, 80123], samples[0, 120001] = 32767, -32768
    sounds.keep(ID, samples)
    for n in (1, 7, 100, 500, 5000):
        pairs = np.frombuffer(sounds.peaks(ID, 0.0, 10.0, n), np.int8).reshape(n, 2)
        assert (pairs[:, 1].max(), pairs[:, 0].min()) == (127, -128)
        assert abs(int(pairs[:, 1].argmax()) - 80123 * n // 160000) <= n // 500 + 1
    beyond = np.frombuffer(sounds.peaks(ID, 9.0, 20.0, 10), np.int8)
    assert not beyond.any()
    assert peaks_of(np.zeros((1, 0), np.int16)).shape == (0, 2)


def test_what_is_not_decoded_says_so(tmp_path: Path) -> None:
    sounds = Sounds(tmp_path / "sounds")
    for call in (lambda: sounds.samples(ID, 0, 1), lambda: sounds.peaks(ID, 0, 1, 5)):
        with pytest.raises(RequestError) as error:
            call()
        assert error.value.code == "not_decoded"


def test_nothing_is_left_of_what_was_deleted(tmp_path: Path) -> None:
    sounds = Sounds(tmp_path / "sounds")
    other = "rec_" + "1" * 32
    for one in (ID, other):
        sounds.original(one).write_bytes(b"upload")
        sounds.keep(one, noise(1, 0.5))
    sounds.delete(ID)
    assert {path.name.partition(".")[0] for path in sounds.folder.iterdir()} == {other}
    sounds.delete_others(set())
    assert not list(sounds.folder.iterdir())


def test_the_header_of_a_long_file_stays_within_its_fields() -> None:
    with wave.open(io.BytesIO(wav_header(1 << 33, 2) + b"\0\0")) as file:
        assert file.getnchannels() == 2
