"""Windows of a streamed spectrogram: equal to the bit to the whole one, from every source, and with little memory."""

from __future__ import annotations

import gc
import io
import os
import tempfile
import tracemalloc
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from whisper import audio
from whisper.audio import N_SAMPLES, load_audio, log_mel_spectrogram
from whisper.errors import AudioError, OptionError
from whisper.media import reader, sources, spool
from whisper.speech import features
from whisper.speech.features import Features, HeldFeatures, StreamedFeatures

from ..test_audio import OneWay, encode, floats, melody, wav

BLOCK = audio.BLOCK_FRAMES * audio.HOP_LENGTH  # samples


@pytest.fixture(autouse=True)
def all_are_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stream whatever has more than a second, keep few blocks, and spill whatever has more than two to disk."""
    monkeypatch.setattr(features, "HELD", 16000)
    monkeypatch.setattr(features, "KEPT_BLOCKS", 5)
    monkeypatch.setattr(features, "Spool", lambda: spool.Spool(in_memory=64000))


def whole(source: Any, n_mels: int = 80) -> torch.Tensor:
    """What the windows are cut from."""
    return log_mel_spectrogram(source, n_mels, padding=N_SAMPLES)


def assert_windows_equal(streamed: Features, mel: torch.Tensor, step: int = 1777) -> None:
    assert isinstance(streamed, StreamedFeatures)
    assert streamed.n_frames == mel.shape[1] - 3000
    for seek in [*range(0, mel.shape[1] + 10, step), 0, 999, 1000, 1001, streamed.n_frames]:  # and back again
        assert torch.equal(streamed.window(seek, 3000), mel[:, seek : seek + 3000]), seek
    assert torch.equal(streamed.opening(), mel[:, :3000])


FILES = [("wav", "pcm_s16le", 16000), ("wav", "pcm_f32le", 44100), ("flac", "flac", 16000),
         ("mp3", "libmp3lame", 44100), ("ipod", "aac", 48000), ("ogg", "libopus", 48000),
         ("webm", "libopus", 48000)]  # fmt: skip


@pytest.mark.parametrize(("format", "codec", "rate"), FILES)
def test_windows_of_a_file_are_those_of_its_whole_spectrogram(format: str, codec: str, rate: int) -> None:
    contents = encode(melody(11.3, rate, n_channels=2), format, codec, rate)
    assert_windows_equal(Features.of(contents, 80), whole(contents))


def test_every_way_to_hand_a_recording_over(tmp_path: Path) -> None:
    x = melody(14.0, seed=3)
    contents = wav(x)
    (tmp_path / "a.wav").write_bytes(contents)
    file, both = io.BytesIO(contents), np.stack([x[0], x[0][::-1]])
    file.seek(33)
    mel = whole(contents, 128)
    with open(tmp_path / "a.wav", "rb") as opened:
        for source in (str(tmp_path / "a.wav"), tmp_path / "a.wav", bytearray(contents), file, opened, OneWay(contents),
                       x[0], floats(x[0]), floats(x[0]).astype(">f8"), x[0].astype(np.int32) << 16, x, x.T,
                       torch.from_numpy(x[0]), torch.from_numpy(floats(x[0])).double().requires_grad_(),
                       np.frombuffer(x[0].tobytes(), np.int16)):  # fmt: skip
            assert_windows_equal(Features.of(source, 128), mel)
    assert file.tell() == 33
    assert_windows_equal(Features.of(both, 80), whole(load_audio(both)))


@given(n=st.integers(16001, 5 * BLOCK), exact=st.sampled_from([1, 160, BLOCK]), cuts=st.lists(st.integers(0, 8000)))
@settings(max_examples=12, deadline=None)
def test_windows_are_equal_whatever_the_length(n: int, exact: int, cuts: list[int]) -> None:
    n = max(n // exact * exact, BLOCK)
    x = np.random.default_rng(n).integers(-9000, 9000, n).astype(np.int16)
    streamed, mel = Features.of(wav(x[None]), 80), whole(x)
    for seek in [*cuts, streamed.n_frames - 1, streamed.n_frames, streamed.n_frames + 3000]:
        assert torch.equal(streamed.window(seek, seek % 3001), mel[:, seek : seek + seek % 3001])
    assert streamed.n_frames == n // 160


def test_the_loudest_place_sets_the_level_wherever_it_is() -> None:
    for at in (0, 200000, 399900):
        x = melody(25.0)[0] // 300
        x[at : at + 90] = 30000
        assert_windows_equal(Features.of(x, 80), whole(x))
    silent = Features.of(wav(np.zeros((1, 50000), np.int16)), 80)
    assert_windows_equal(silent, whole(np.zeros(50000, np.int16)))


def test_short_recordings_are_held() -> None:
    for n in (0, 7, 16000):
        for source in (melody()[0][:n], wav(melody()[:, :n])):
            held = Features.of(source, 80)
            assert isinstance(held, HeldFeatures)
            assert held.n_frames == n // 160
            assert torch.equal(held.opening(), whole(melody()[0][:n])[:, :3000])
            assert held.loudness().shape == (n // 160,)


def test_samples_are_those_of_the_recording_in_every_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    x = melody(3.0)[0]
    kinds = {"array": floats(x), "integers": x, "tensor": torch.from_numpy(floats(x)), "file": wav(x[None]),
             "float64": floats(x).astype(np.float64)}  # fmt: skip
    for long in (True, False):
        monkeypatch.setattr(features, "HELD", 16000 if long else 10**6)
        for name, source in kinds.items():
            recording = Features.of(source, 80)
            assert isinstance(recording, StreamedFeatures) == long, name
            assert recording.n_samples == len(x), name
            for begin, end in ((0, len(x)), (20001, 20003), (len(x) - 5, len(x) + 5), (len(x), len(x) + 1), (9, 3)):
                samples = recording.samples(begin, end)
                assert samples.dtype == np.float32, name
                np.testing.assert_array_equal(samples, floats(x)[begin:end], err_msg=name)
    asked = []
    monkeypatch.setattr(audio, "load_audio", lambda source: asked.append(source) or floats(x[:999]))
    foreign = Features.of("anything", 80, log_mel_spectrogram=lambda source, n_mels, padding: torch.rand(80, 3210))
    assert asked == []
    assert foreign.n_samples == len(foreign.samples(0, 10**6)) == 999
    assert asked == ["anything"]


def test_loudness_follows_the_sound_in_both_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    x = melody(12.0)[0]
    x[64000:96000] = x[64000:96000] // 100  # two seconds, 40 dB down
    streamed = Features.of(wav(x[None]), 80).loudness()
    monkeypatch.setattr(features, "HELD", 10**9)
    held = Features.of(x, 80).loudness()
    for loudness in (streamed, held):
        assert loudness.shape == (1200,)
        assert loudness.dtype == np.float32
        drop = np.delete(loudness, np.s_[395:605]).mean() - loudness[405:595].mean()
        assert 25 < drop < 45  # what rounding to integers adds makes it less than 40
    assert (held >= streamed - 1e-3).all()  # a held one is cut off 80 dB below its loudest band
    assert np.median(held - streamed) < 0.05


def test_warnings_and_errors_are_those_of_the_whole() -> None:
    contents = encode(melody(30.0), "flac", "flac")
    with pytest.warns(RuntimeWarning, match="truncated: ") as told:
        streamed = Features.of(contents[: len(contents) // 2], 80)
    assert len(told) == 1
    with pytest.warns(RuntimeWarning, match="truncated: "):
        mel = whole(contents[: len(contents) // 2])
    assert_windows_equal(streamed, mel)
    for source, message in ((b"", "is empty"), ("nowhere.wav", "there is no file"),
                            (np.full(40000, 1e30), "40000 of 40000 samples are"), (np.zeros(40000, np.int64), "int64"),
                            (np.zeros(40000, complex), "complex")):  # fmt: skip
        with pytest.raises(AudioError, match=message):
            Features.of(source, 80)
    for source in (melody(0.5)[0], wav(melody(3.0))):
        with pytest.raises(OptionError, match="n_mels=64"):
            Features.of(source, 64)


def test_functions_that_a_program_has_replaced_make_the_whole_spectrogram(monkeypatch: pytest.MonkeyPatch) -> None:
    contents, x = wav(melody(3.0)), melody(3.0)[0]
    mel = torch.rand(80, 3210)
    given = Features.of(contents, 80, log_mel_spectrogram=lambda source, n_mels, padding: mel)
    assert torch.equal(given.window(100, 3000), mel[:, 100:3100])
    assert given.n_frames == 210
    assert Features.of(np.stack([x, x]), 80, load_audio=lambda source: x[:16160]).n_frames == 101
    monkeypatch.setattr(audio, "load_audio", lambda source: floats(x[:8000]))
    assert Features.of("anything", 80).n_frames == 50


def test_threads_share_it() -> None:
    x = melody(60.0)[0]
    streamed, mel = Features.of(wav(x[None]), 80), whole(x)
    seeks = np.random.default_rng(0).integers(0, 6000, 60).tolist()
    with ThreadPoolExecutor(4) as pool:
        for seek, window in zip(seeks, pool.map(lambda seek: streamed.window(seek, 3000), seeks), strict=True):
            assert torch.equal(window, mel[:, seek : seek + 3000])


def run_noting(steps: Generator[float, None, Features], seconds: list[float]) -> Features:
    """Run the steps to their end, and keep what they yield."""

    def noting() -> Generator[float, None, None]:
        nonlocal features
        features = yield from steps

    features: Any = None
    seconds.extend(noting())
    return features


def test_reading_goes_in_small_steps_and_may_be_given_up() -> None:
    x = melody(95.0)[0]
    for source in (wav(x[None]), floats(x)):
        seconds: list[float] = []
        features = run_noting(Features.reading(source, 80), seconds)
        assert seconds == sorted(seconds)
        assert seconds[-1] == 95.0
        assert np.diff(seconds).max() <= 30
        assert_windows_equal(features, whole(x), step=5000)
    file = io.BytesIO(wav(x[None]))
    file.seek(5)
    steps = Features.reading(file, 80)
    next(steps)
    steps.close()
    assert file.tell() == 5


# --- memory and disk ----------------------------------------------------------------------------------------------


def repeated(monkeypatch: pytest.MonkeyPatch, n_times: int) -> None:
    """Any file holds a minute of sound so many times, and costs nothing to decode."""
    minute = melody(60.0)[0]

    def stream(source: reader.Source, rate: int, **_: Any) -> Any:
        return (minute[i : i + 60000] for _ in range(n_times) for i in range(0, len(minute), 60000))

    monkeypatch.setattr(reader, "stream", stream)


def test_half_an_hour_is_read_without_holding_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As samples in float32 it would take 115 MB, as a spectrogram 58; tracemalloc sees numpy's, sizes torch's."""
    repeated(monkeypatch, 30)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    tracemalloc.start()
    streamed = Features.of("a.mp3", 80)
    for seek in range(0, 180000, 20000):
        streamed.window(seek, 3000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert streamed.n_frames == 180000
    assert peak < 8e6
    tensors = [o for o in gc.get_objects() if type(o) is torch.Tensor and o.shape[:1] == (80,)]
    assert sum(tensor.numel() * tensor.element_size() for tensor in tensors) < 5e6
    assert torch.equal(streamed.window(6000, 3000), streamed.window(12000, 3000))


def test_the_temporary_file_is_gone_with_the_features(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    opened: list[Any] = []
    create = tempfile.TemporaryFile
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **options: opened.append(create(**options)) or opened[-1])
    streamed = Features.of(wav(melody(9.0)), 80)
    assert len(opened) == 1
    assert not opened[0].closed
    del streamed
    gc.collect()
    assert opened[0].closed
    assert os.listdir(tmp_path) == []


def test_a_stream_that_cannot_seek_goes_to_disk_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sources, "_READ", 5000)
    monkeypatch.setattr(sources, "Spool", lambda: spool.Spool(in_memory=30000))
    contents = encode(melody(9.0), "ipod", "alac")  # its index stands at the end of the file
    assert len(contents) > 100000
    opened = []
    create = tempfile.TemporaryFile
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **options: opened.append(options) or create(**options))
    np.testing.assert_array_equal(load_audio(OneWay(contents)), load_audio(contents))
    assert len(opened) == 1


def broken_disk(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """No disk at all where `after` is negative, else one that is full after so many bytes, half a write taken."""

    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            room = after - self.tell()
            if room <= 0:
                raise OSError(28, "No space left on device")
            return super().write(bytes(data)[: max(room // 2, 1)])

    def create(**options: Any) -> Any:
        if after < 0:
            raise FileNotFoundError(2, "No usable temporary directory found")
        return FullFile()

    class FullFile:  # no BytesIO, by which Spool knows that it is in memory
        def __init__(self) -> None:
            self.inner = Full()
            self.seek, self.read, self.write, self.close = (
                self.inner.seek, self.inner.read, self.inner.write, self.inner.close,
            )  # fmt: skip

    monkeypatch.setattr(tempfile, "TemporaryFile", create)


@pytest.mark.parametrize("after", [-1, 0, 50000, 70001, 400000])
def test_without_room_on_disk_it_is_held_in_memory_with_a_warning(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    broken_disk(monkeypatch, after)
    x = melody(20.0)
    with pytest.warns(RuntimeWarning, match=r"No (space|usable).*set TMPDIR") as told:
        streamed = Features.of(wav(x), 80)
    assert len(told) == 1
    assert_windows_equal(streamed, whole(x[0]))


def test_the_file_lies_where_the_user_says_else_not_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.delenv(name, raising=False)
    assert spool.temporary_folder() == ("/var/tmp" if os.access("/var/tmp", os.W_OK) else None)
    monkeypatch.setenv("TMPDIR", "/somewhere")
    assert spool.temporary_folder() is None


@given(pieces=st.lists(st.binary(max_size=20)), in_memory=st.integers(0, 60), reads=st.lists(st.integers(0, 99)))
@settings(max_examples=60, deadline=None)
def test_a_spool_gives_what_it_got(pieces: list[bytes], in_memory: int, reads: list[int]) -> None:
    it, so_far = spool.Spool(in_memory), b""
    for piece in pieces:
        it.append(piece)
        so_far += piece
        for offset in reads:
            assert it.read(offset, offset // 2) == so_far[offset : offset + offset // 2]
    assert it.n_bytes == len(so_far)
