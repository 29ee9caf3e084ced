"""Channels: read apart from whatever holds them, crosstalk silenced, transcripts merged on one clock."""

from __future__ import annotations

import io
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import whisper
from whisper.errors import AudioError, ShapeError
from whisper.transcription.channels import merge, read_channels

RATE = 16000
SAMPLE = Path(__file__).resolve().parent.parent.parent / "examples" / "sample.flac"


@pytest.fixture(scope="module")
def said() -> np.ndarray:
    """The sample, 6.7 s of speech, float32."""
    return whisper.load_audio(str(SAMPLE))


def file_of(channels: np.ndarray, rate: int = RATE) -> io.BytesIO:
    """A WAV file of ``(n_channels, n)`` floats."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(len(channels))
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes((channels.T * 32767).astype(np.int16).tobytes())
    file.seek(0)
    return file


def noise(n: int, level: float = 1e-4, seed: int = 0) -> np.ndarray:
    return (level * np.random.default_rng(seed).standard_normal(n)).astype(np.float32)


def talk(said: np.ndarray) -> np.ndarray:
    """Two who speak in turn, each on a channel of its own, over a little noise; int16's range as floats."""
    gap = np.zeros(len(said), np.float32)
    first, second = np.concatenate([said, gap]), np.concatenate([gap, said[::-1]])
    n = len(first)
    return np.stack([first + noise(n, seed=1), second + noise(n, seed=2)])


# ---------------------------------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------------------------------


def test_a_file_an_array_and_a_tensor_give_the_same_channels(said: np.ndarray) -> None:
    both = np.round(talk(said) * 32767).astype(np.int16)
    as_file = read_channels(file_of(both / 32767.0))
    assert [channel.dtype for channel in as_file] == [np.int16, np.int16]
    for given in (both, both.T, torch.from_numpy(both)):
        for mine, other in zip(as_file, read_channels(given), strict=True):
            assert np.abs(mine / 32768 - other).max() < 1e-4
    assert not np.array_equal(as_file[0], as_file[1])


def test_any_number_of_channels_and_any_rate(said: np.ndarray) -> None:
    many = np.stack([np.roll(said, 4000 * i) for i in range(9)])
    assert len(read_channels(file_of(many))) == 9
    slow = read_channels(file_of(talk(said)[:, ::2], RATE // 2))
    assert len(slow) == 2
    assert abs(len(slow[0]) - 2 * len(said)) <= 2 * 80


def test_the_callers_array_stays_as_it_was(said: np.ndarray) -> None:
    both = talk(said)
    both[1] += 0.05 * both[0]
    before = both.copy()
    first = read_channels(both)
    assert np.array_equal(both, before)
    assert not np.array_equal(first[1], both[1])  # crosstalk was taken out of a copy


def test_one_channel_is_told_and_nothing_is_empty(said: np.ndarray) -> None:
    with pytest.warns(RuntimeWarning, match="nothing to separate"):
        (only,) = read_channels(said)
    assert np.array_equal(only, said)
    (empty,) = read_channels(np.zeros((2, 0), np.float32))
    assert len(empty) == 0


def test_what_is_no_recording_is_an_error(said: np.ndarray) -> None:
    with pytest.raises(AudioError, match="no file"):
        read_channels("nowhere.wav")
    with pytest.raises((AudioError, ShapeError)):
        read_channels(np.zeros((2, 3, 4), np.float32))
    with pytest.raises(AudioError, match="NaN"):
        read_channels(np.full((2, 20000), np.nan, np.float32))


# ---------------------------------------------------------------------------------------------------------
# Crosstalk
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decibels", [-30, -20, -12])
def test_what_a_channel_has_of_the_other_is_silenced_and_its_own_stays(said: np.ndarray, decibels: float) -> None:
    clean = talk(said)
    leak = 10 ** (decibels / 20)
    half = len(said)
    heard = read_channels(np.stack([clean[0] + leak * clean[1], clean[1] + leak * clean[0]]))

    def energy(samples: Any) -> float:
        return float(np.square(np.asarray(samples, np.float64)).sum())

    for own, other, channel in ((slice(None, half), slice(half, None), 0), (slice(half, None), slice(None, half), 1)):
        kept, left = energy(heard[channel][own]), energy(heard[channel][other])
        assert kept > 0.98 * energy(clean[channel][own])
        assert left < 0.05 * leak**2 * energy(clean[1 - channel][other])


def test_of_the_same_sound_on_both_channels_the_first_keeps_it(said: np.ndarray) -> None:
    first, second = read_channels(np.stack([said, said]))
    assert np.array_equal(first, said)
    assert np.square(second).sum() < 0.05 * np.square(said).sum()


def test_who_speaks_at_the_same_time_is_kept(said: np.ndarray) -> None:
    n = len(said)
    both = np.stack([said + noise(n, seed=1), said[::-1] + noise(n, seed=2)])
    mixed = np.stack([both[0] + 0.1 * both[1], both[1] + 0.1 * both[0]])
    for heard, clean in zip(read_channels(mixed), both, strict=True):
        assert np.square(heard).sum() > 0.9 * np.square(clean).sum()


# ---------------------------------------------------------------------------------------------------------
# Transcripts
# ---------------------------------------------------------------------------------------------------------


def transcript(language: str, *times: tuple[float, float, str]) -> Any:
    segments = [{"id": i, "start": start, "end": end, "text": text} for i, (start, end, text) in enumerate(times)]
    return {"text": "".join(text for *_, text in times), "segments": segments, "language": language}


def test_segments_are_merged_by_time_with_their_channel() -> None:
    whole = merge([transcript("en", (0, 1, " a"), (5, 6, " c")), transcript("en", (2, 4, " b"), (5, 7, " d"))])
    assert [(s["id"], s["text"], s["channel"]) for s in whole["segments"]] == [
        (0, " a", 0), (1, " b", 1), (2, " c", 0), (3, " d", 1),
    ]  # fmt: skip
    assert whole["text"] == " a b c d"
    assert not any("language" in segment for segment in whole["segments"])


def test_channels_in_two_languages_say_so_and_the_longer_one_names_the_whole() -> None:
    whole = merge([transcript("en", (0, 1, " a")), transcript("fr", (2, 6, " b"))])
    assert whole["language"] == "fr"
    assert [segment["language"] for segment in whole["segments"]] == ["en", "fr"]


@pytest.mark.parametrize("batch_size", [None, 4])
def test_each_channel_gives_what_it_gives_alone(said: np.ndarray, batch_size: int | None) -> None:
    nano = whisper.load_model("nano", device="cpu")
    both = talk(said)
    options: Any = {"language": "en", "batch_size": batch_size, "word_timestamps": True, "seed": 3}
    whole = nano.transcribe(both, channels="separate", **options)
    alone = [nano.transcribe(np.asarray(channel), **options) for channel in read_channels(both)]
    for channel, expected in enumerate(alone):
        mine = [segment for segment in whole["segments"] if segment["channel"] == channel]
        assert [s["text"] for s in mine] == [s["text"] for s in expected["segments"]]
        assert [s.get("words") for s in mine] == [s.get("words") for s in expected["segments"]]
    starts = [segment["start"] for segment in whole["segments"]]
    assert starts == sorted(starts)
    assert "computer" in whole["text"]
