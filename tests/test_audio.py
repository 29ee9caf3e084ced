"""Sound in: every way to hand it over, every way in which it can be wrong, and the spectrogram's exact values."""

from __future__ import annotations

import io
import shutil
import warnings
import wave
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from whisper import audio
from whisper.audio import load_audio, log_mel_spectrogram, mel_filters, pad_or_trim
from whisper.errors import AudioError, OptionError, ShapeError

RATE = 16000


def melody(seconds: float = 1.0, rate: int = RATE, n_channels: int = 1, seed: int = 0) -> np.ndarray:
    """int16 ``(n_channels, n)``: a few tones of its own in every channel, and a little noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / rate
    tones = [sum(np.sin(2 * np.pi * f * t) for f in rng.uniform(100, 3000, 4)) for _ in range(n_channels)]
    x = np.stack(tones) * 2500 + rng.standard_normal((n_channels, len(t))) * 50
    return x.astype(np.int16)


LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 6: "5.1", 8: "7.1"}


def encode(
    samples: np.ndarray, format: str, codec: str, rate: int = RATE, layout: str = "", spoil: int | None = None
) -> bytes:
    """The contents of a file; packet number `spoil` holds garbage."""
    file = io.BytesIO()
    layout = layout or LAYOUTS[len(samples)]
    with av.open(file, "w", format=format) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        size = stream.codec_context.frame_size or 1024
        to = av.AudioResampler(stream.format, layout, stream.rate, size)
        packets = []
        for start in range(0, samples.shape[1], size):
            piece = samples[:, start : start + size].T.reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(piece, format="s16", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
            packets += [p for f in to.resample(frame) for p in stream.encode(f)]
        packets += [p for f in to.resample(None) for p in stream.encode(f)] + stream.encode(None)
        for i, packet in enumerate(packets):
            if i == spoil:
                broken = av.Packet(b"\xff" * packet.size)
                broken.stream, broken.pts, broken.dts = packet.stream, packet.pts, packet.dts
                broken.time_base, broken.duration = packet.time_base, packet.duration
                packet = broken
            container.mux(packet)
    return file.getvalue()


def wav(samples: np.ndarray, rate: int = RATE) -> bytes:
    """As the standard library writes it: ``(n_channels, n)`` int16, channels without names."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(len(samples))
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(np.ascontiguousarray(samples.T).astype("<i2").tobytes())
    return file.getvalue()


def floats(samples: np.ndarray) -> np.ndarray:
    return samples.astype(np.float32) / 32768


def likeness(a: np.ndarray, b: np.ndarray) -> float:
    n = min(len(a), len(b))
    return float(np.corrcoef(a[:n], b[:n])[0, 1])


class OneWay(io.RawIOBase):
    """A stream that can be read once, like a pipe or a socket."""

    def __init__(self, contents: bytes) -> None:
        self.inner = io.BytesIO(contents)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self.inner.readinto(buffer)


# --- files ---------------------------------------------------------------------------------------------------


LOSSLESS = [
    ("wav", "pcm_s16le"), ("wav", "pcm_s24le"), ("wav", "pcm_f32le"), ("flac", "flac"), ("aiff", "pcm_s16be"),
    ("au", "pcm_s16be"), ("caf", "pcm_s16le"), ("matroska", "flac"), ("ipod", "alac"), ("w64", "pcm_s16le"),
]  # fmt: skip
LOSSY = [("mp3", "libmp3lame"), ("opus", "libopus"), ("ipod", "aac"), ("webm", "libopus"),
         ("adts", "aac"), ("wav", "pcm_mulaw"), ("mp4", "libmp3lame")]  # fmt: skip


@pytest.mark.parametrize(("format", "codec"), LOSSLESS)
def test_lossless_files_give_the_very_samples(format: str, codec: str) -> None:
    x = melody()
    loaded = load_audio(encode(x, format, codec))
    assert loaded.dtype == np.float32
    np.testing.assert_array_equal(loaded, floats(x[0]))


@pytest.mark.parametrize(("format", "codec"), LOSSY)
def test_lossy_files_give_nearly_the_samples_and_keep_the_time(format: str, codec: str) -> None:
    x = melody(2.0, 48000, n_channels=2)
    x[1] = x[0]
    loaded = load_audio(encode(x, format, codec, rate=48000))
    delay = 0  # the encoder's is skipped where the container notes it; raw AAC has no place for that
    if format == "adts":
        delay = int(np.correlate(loaded[:6000], floats(x[0, ::3])[1000:4000], "valid").argmax()) - 1000
        assert 0 < delay < 1100
    assert abs(len(loaded) - delay - 2 * RATE) < 700
    assert likeness(loaded[delay:], floats(x[0, ::3])) > 0.98


def test_every_way_to_hand_a_file_over_gives_the_same(tmp_path: Path) -> None:
    contents = encode(melody(1.3, 22050), "ipod", "alac", rate=22050)  # its index stands at the end of the file
    path = tmp_path / "ratio 16:9 %d [é] -i.m4a"
    path.write_bytes(contents)
    expected = load_audio(contents)
    assert len(expected) == round(1.3 * RATE)
    file = io.BytesIO(contents)
    file.seek(77)
    with open(path, "rb") as opened:
        for source in (path, str(path), bytearray(contents), memoryview(contents), file, opened, OneWay(contents)):
            np.testing.assert_array_equal(load_audio(source), expected)
        assert not opened.closed
    assert not file.closed
    assert file.tell() == 77


def test_sr_is_the_rate_of_the_result() -> None:
    x = melody(1.0, 44100)
    assert load_audio(wav(x, 44100), 44100).tolist() == floats(x[0]).tolist()
    assert len(load_audio(wav(x, 44100), 8000)) == 8000


@pytest.mark.parametrize("n_channels", [2, 3, 6, 8])
def test_channels_are_mixed_down(n_channels: int) -> None:
    x = melody(0.5, n_channels=n_channels)
    loaded = load_audio(wav(x))
    np.testing.assert_array_equal(loaded, load_audio(encode(x, "flac", "flac")))  # named and unnamed channels alike
    assert len(loaded) == x.shape[1]
    low = {3: 2, 6: 3, 8: 3}.get(n_channels)  # the subwoofer takes no part
    for channel in range(n_channels):
        alone = np.zeros_like(x)
        alone[channel] = x[channel]
        part = load_audio(wav(alone))
        assert part.any() == (channel != low)
        if channel != low:
            assert likeness(part, floats(x[channel])) > 0.999
    if n_channels == 2:
        np.testing.assert_allclose(loaded, floats(x).mean(axis=0), atol=1.01 / 32768)


def test_high_rates_keep_pitch_and_length() -> None:
    t = np.arange(192000) / 192000
    tones = np.sin(2 * np.pi * 1000 * t) + np.sin(2 * np.pi * 20000 * t)  # the second is above what 16 kHz can hold
    loaded = load_audio(wav((tones[None] * 8000).astype(np.int16), 192000))
    assert len(loaded) == RATE
    np.testing.assert_allclose(loaded[50:-50], np.sin(2 * np.pi * 1000 * t[::12])[50:-50] * 8000 / 32768, atol=2e-3)


def test_silent_and_zero_length_recordings_are_recordings() -> None:
    silent = load_audio(wav(np.zeros((1, 8000), np.int16)))
    assert silent.shape == (8000,)
    assert not silent.any()
    empty = load_audio(wav(np.zeros((1, 0), np.int16)))
    assert empty.shape == (0,)
    assert empty.dtype == np.float32


def video_without_sound() -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=5, width=16, height=16, pix_fmt="yuv420p")
        for _ in range(5):
            container.mux(stream.encode(av.VideoFrame(16, 16, "yuv420p")))
        container.mux(stream.encode(None))
    return file.getvalue()


BAD = {
    "empty": (b"", "is empty"),
    "text.wav": (b"This is no recording, whatever its name.\n" * 99, "cannot be read as a recording"),
    "zeros.mp3": (bytes(9999), "recording|audio stream"),
    "silent film.mp4": (video_without_sound, "has no audio stream"),
    "no index.m4a": (lambda: encode(melody(), "ipod", "aac")[:-900], "cannot be read as a recording"),
    "only the head.flac": (lambda: encode(melody(), "flac", "flac")[:8800], "truncated or broken"),
    "nine channels.wav": (lambda: wav(melody(n_channels=9)), "9 channels"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_named_with_what_is_wrong(name: str, tmp_path: Path) -> None:
    contents, message = BAD[name]
    path = tmp_path / name
    path.write_bytes(contents() if callable(contents) else contents)
    with pytest.raises(AudioError, match=message) as caught:
        load_audio(path)
    assert name in str(caught.value)
    for source in (path.read_bytes(), OneWay(path.read_bytes())):
        with pytest.raises(AudioError, match=message):
            load_audio(source)


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"there is no file '.*nowhere\.wav'"):
        load_audio(tmp_path / "nowhere.wav")
    with pytest.raises(RuntimeError, match="is a folder"):  # the class that the original raises
        load_audio(str(tmp_path))
    with pytest.raises(AudioError, match="binary mode"):
        load_audio(io.StringIO("text"))  # type: ignore[arg-type]
    with pytest.raises(AudioError, match="list is nothing to read sound from"):
        load_audio([0.0, 0.1])  # type: ignore[arg-type]
    for bad in ({"sr": 0}, {"sr": 16000.5}, {"rate": 16000}):
        with pytest.raises(OptionError, match=r"^sr |^rate"):
            load_audio(wav(melody()), **bad)


def test_an_upload_cannot_make_us_open_other_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("secret.wav").write_bytes(wav(melody()))
    for playlist in ("ffconcat version 1.0\nfile secret.wav\n",
                     "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1,\nsecret.wav\n#EXT-X-ENDLIST\n"):  # fmt: skip
        with pytest.raises(AudioError):
            load_audio(playlist.encode())


def test_a_broken_packet_is_left_out_with_a_warning() -> None:
    x = melody(2.0)
    # FLAC's packets stand each for itself: what is left is equal to the sample
    with pytest.warns(RuntimeWarning, match=r"1 broken packets.* 0\.\d\d s of its time .* the first at 0\.\d\d s"):
        loaded = load_audio(encode(x, "matroska", "flac", spoil=5))
    lost = x.shape[1] - len(loaded)
    assert 0 < lost < 5000
    np.testing.assert_array_equal(loaded, floats(np.delete(x[0], np.s_[5 * lost : 6 * lost])))


@pytest.mark.parametrize("codec", ["alac", "libopus"])
def test_a_packet_that_the_decoder_drops_without_a_word_is_told(codec: str) -> None:
    with pytest.warns(RuntimeWarning, match=r"recording given as bytes: 0\.\d\d s of its time hold no sound"):
        load_audio(encode(melody(2.0, 48000), "matroska", codec, rate=48000, spoil=10))


def test_a_truncated_file_gives_what_is_there_with_a_warning() -> None:
    x = melody(4.0)
    contents = encode(x, "flac", "flac")
    with pytest.warns(RuntimeWarning, match=r"truncated: \d\.\d\d s of 4\.00 s are there"):
        loaded = load_audio(contents[: len(contents) // 2])
    assert 1.5 * RATE < len(loaded) < 2.5 * RATE
    np.testing.assert_array_equal(loaded[:RATE], floats(x[0, :RATE]))


def test_rate_and_channels_may_change_on_the_way() -> None:
    first, second = melody(1.0, 44100, 2, seed=1), melody(1.5, 32000, 1, seed=2)
    parts = [encode(first, "mp3", "libmp3lame", 44100), encode(second, "mp3", "libmp3lame", 32000)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the second file's first packet leans on one that is not there
        loaded = load_audio(b"".join(parts))
    assert 2.5 * RATE <= len(loaded) < 2.7 * RATE  # between them, what fills up the encoders' last packets
    for part, place in zip(parts, (loaded[:20000], loaded[15000:]), strict=True):
        middle = load_audio(part)[4000:12000]
        assert np.correlate(place, middle, "valid").max() > 0.95 * float(middle @ middle)


# --- arrays --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_channels", [1, 2, 6])
@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_an_array_sounds_like_the_file_with_its_samples(n_channels: int, rate: int) -> None:
    x = melody(0.7, rate, n_channels)
    expected = load_audio(wav(x, rate))
    for array in (x, x.T, torch.from_numpy(x), x.astype(np.int32) << 16, floats(x), floats(x).astype(np.float64)):
        loaded = load_audio(array, rate=rate)
        assert loaded.dtype == np.float32
        assert loaded.shape == expected.shape
        np.testing.assert_allclose(loaded, expected, atol=2.01 / 32768)
    np.testing.assert_array_equal(load_audio(x, rate=rate), expected)


def test_numbers_are_scaled_by_the_range_of_their_type() -> None:
    half = {np.int8: 64, np.uint8: 192, np.int16: 16384, np.int32: 2**30, np.float16: 0.5, np.float64: 0.5}
    for dtype, value in half.items():
        array = np.full(300, value, dtype)
        assert load_audio(array).tolist() == [0.5] * 300
        assert load_audio(torch.from_numpy(array)).tolist() == [0.5] * 300
    assert load_audio(np.array([16384, -32768], ">i2")).tolist() == [0.5, -1.0]
    assert load_audio(torch.tensor([0.5], dtype=torch.bfloat16, requires_grad=True)).tolist() == [0.5]
    for odd in (np.int64, np.uint16, np.bool_, np.complex64):
        with pytest.raises(AudioError, match="samples of type"):
            load_audio(np.ones(300, odd))


def test_float_arrays_are_neither_clipped_nor_made_louder() -> None:
    x = floats(melody(0.5, 48000))[0] * 20
    assert np.abs(x).max() > 4
    assert np.abs(load_audio(x, rate=48000)).max() > 4
    np.testing.assert_allclose(load_audio(np.stack([x, x])), x, rtol=1e-5, atol=1e-6)


def test_the_callers_array_stays_as_it_is() -> None:
    x = np.frombuffer(floats(melody())[0].tobytes(), np.float32)  # may not be written to
    assert load_audio(x).tolist() == x.tolist()
    assert load_audio(x[::-2]).tolist() == x[::-2].tolist()
    before = x.copy()
    log_mel_spectrogram(x)
    log_mel_spectrogram(x.copy(), padding=100)
    np.testing.assert_array_equal(x, before)


def test_which_axis_holds_the_channels() -> None:
    x = melody(0.1)[0]
    for array in (x[None], x[:, None]):
        assert load_audio(array).tolist() == floats(x).tolist()
    assert load_audio(np.zeros((2, 0), np.int16)).shape == (0,)
    for shape in ((2, 2), (2, 8), (9, 9), (1, 2, 300), ()):
        with pytest.raises(ShapeError, match="samples of shape"):
            load_audio(np.zeros(shape, np.float32))


@given(n=st.integers(1000, 4000), rate=st.integers(4000, 200000), seed=st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_resampling_keeps_the_length_in_seconds(n: int, rate: int, seed: int) -> None:
    x = np.random.default_rng(seed).integers(-20000, 20000, n).astype(np.int16)
    loaded = load_audio(x, rate=rate)
    assert abs(len(loaded) - n * RATE / rate) <= 1
    np.testing.assert_array_equal(loaded, load_audio(wav(x[None], rate)))


# --- windows and spectrograms -------------------------------------------------------------------------------------


def test_constants() -> None:
    values = (16000, 400, 160, 30, 480000, 3000, 320, 100, 50)
    names = ("SAMPLE_RATE N_FFT HOP_LENGTH CHUNK_LENGTH N_SAMPLES N_FRAMES N_SAMPLES_PER_TOKEN "
             "FRAMES_PER_SECOND TOKENS_PER_SECOND")  # fmt: skip
    assert tuple(getattr(audio, name) for name in names.split()) == values


@given(shape=st.lists(st.integers(1, 9), min_size=1, max_size=3), axis=st.integers(-1, 2), length=st.integers(0, 12))
def test_pad_or_trim_fills_up_or_cuts_one_axis(shape: list[int], axis: int, length: int) -> None:
    axis = axis if axis < len(shape) else -1
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    expected = np.zeros([length if i == axis % len(shape) else n for i, n in enumerate(shape)], np.float32)
    kept = tuple(slice(0, min(a, b)) for a, b in zip(shape, expected.shape, strict=True))
    expected[kept] = x[kept]
    np.testing.assert_array_equal(pad_or_trim(x, length, axis=axis), expected)
    tensor = pad_or_trim(torch.from_numpy(x), length, axis=axis)
    assert isinstance(tensor, torch.Tensor)
    np.testing.assert_array_equal(tensor.numpy(), expected)


def test_pad_or_trim_makes_windows_by_default() -> None:
    assert pad_or_trim(np.ones(500000, np.float32)).shape == (480000,)
    assert pad_or_trim(torch.ones(3, 1000)).shape == (3, 480000)


def defined(x: torch.Tensor, padding: int, n_mels: int) -> torch.Tensor:
    """The spectrogram by its definition, over the whole sound at once."""
    x = F.pad(x, (0, padding))
    x = F.pad(x.reshape(-1, x.shape[-1]), (200, 200), mode="reflect").reshape(*x.shape[:-1], -1)
    frames = x.unfold(-1, 400, 160)[..., : (x.shape[-1] - 400) // 160, :]
    power = torch.fft.rfft(frames * torch.hann_window(400)).abs() ** 2
    log = (power @ mel_filters("cpu", n_mels).T).clamp(min=1e-10).log10().mT
    return (torch.maximum(log, log.max() - 8) + 4) / 4


@given(
    n=st.integers(0, 2500), padding=st.integers(0, 2500), n_batch=st.integers(0, 3), block=st.integers(1, 16),
    n_mels=st.sampled_from([80, 128]),
)  # fmt: skip
@example(n=201, padding=0, n_batch=0, block=1, n_mels=80)
@example(n=0, padding=480000, n_batch=0, block=3000, n_mels=80)
@settings(max_examples=60, deadline=None)
def test_spectrogram_is_its_definition_however_it_is_cut(
    n: int, padding: int, n_batch: int, block: int, n_mels: int
) -> None:
    x = torch.from_numpy(np.random.default_rng(n).standard_normal((n_batch or 1, n)).astype(np.float32) * 0.1)
    x = x if n_batch else x[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audio, "BLOCK_FRAMES", block)
        if n + padding <= 200:
            with pytest.raises(AudioError, match="too few for a spectrogram"):
                log_mel_spectrogram(x, n_mels, padding)
            return
        mel = log_mel_spectrogram(x, n_mels, padding)
    assert mel.dtype == torch.float32
    assert mel.shape == (*x.shape[:-1], n_mels, (n + padding) // 160)
    torch.testing.assert_close(mel, defined(x, padding, n_mels), atol=1e-5, rtol=0)


def test_the_loudest_of_a_batch_sets_the_level_for_all() -> None:
    loud, soft = floats(melody(seed=1))[0], floats(melody(seed=2))[0] / 3000
    batch = log_mel_spectrogram(np.stack([loud, soft]))
    torch.testing.assert_close(batch[0], log_mel_spectrogram(loud))
    assert batch[1].min() == batch[0].max() - 2
    assert log_mel_spectrogram(soft).min() < batch[1].min()


def test_spectrogram_takes_what_load_audio_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = melody()
    expected = log_mel_spectrogram(floats(x[0]))
    (tmp_path / "a.wav").write_bytes(wav(x))
    for source in (str(tmp_path / "a.wav"), tmp_path / "a.wav", wav(x), io.BytesIO(wav(x)), x[0],
                   torch.from_numpy(floats(x[0])).double()):  # fmt: skip
        assert torch.equal(log_mel_spectrogram(source), expected)
    monkeypatch.setattr(audio, "load_audio", lambda file: floats(x[0, :8000]))
    assert log_mel_spectrogram("anything").shape == (80, 50)


def test_silence_has_a_spectrogram() -> None:
    mel = log_mel_spectrogram(np.zeros(0, np.float32), padding=480000)
    assert mel.shape == (80, 3000)
    assert (mel == -1.5).all()  # log10 of the least power, 1e-10, plus 4, over 4


def test_gradients_flow_and_kept_constants_serve_every_mode() -> None:
    audio._mel_filters.cache_clear()
    audio._window.cache_clear()
    x = torch.from_numpy(floats(melody())[0])
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        expected = log_mel_spectrogram(x).clone()
    x.requires_grad_()
    mel = log_mel_spectrogram(x)
    torch.testing.assert_close(mel.detach(), expected)
    mel.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert x.grad.any()
    assert not log_mel_spectrogram(x.detach()).requires_grad


def test_mel_filters() -> None:
    for n_mels in (80, 128):
        filters = mel_filters("cpu", n_mels)
        assert filters.shape == (n_mels, 201)
        assert filters.dtype == torch.float32
        assert mel_filters(torch.device("cpu"), n_mels) is filters
        assert (filters.argmax(dim=1).diff() >= 0).all()
    for call in (lambda: mel_filters("cpu", 64), lambda: log_mel_spectrogram(np.zeros(1600), 64)):
        with pytest.raises(OptionError, match="n_mels=64"):
            call()
    with pytest.raises(ShapeError, match=r"\(1, 2, 300\)"):
        log_mel_spectrogram(torch.zeros(1, 2, 300))


# --- against the original -----------------------------------------------------------------------------------------


MORE_FORMATS = [
    ("webm", "libopus", 48000), ("ogg", "libopus", 24000), ("mp4", "aac", 44100), ("au", "pcm_s16be", 8000),
    ("matroska", "flac", 96000), ("caf", "pcm_s16le", 44100), ("w64", "pcm_s24le", 192000), ("adts", "aac", 22050),
    ("ac3", "ac3", 48000), ("mp2", "mp2", 32000), ("wv", "wavpack", 44100), ("avi", "libmp3lame", 44100),
    ("tta", "tta", 44100),
]  # fmt: skip


def various(recordings: list[dict[str, str]], folder: Path) -> list[str]:
    """At most 5 recordings of every format that there is, and one in every other format that we can make."""
    by_format: dict[str, list[str]] = {}
    for row in recordings:
        by_format.setdefault(Path(row["path"]).suffix, []).append(row["path"])
    paths = [path for found in by_format.values() for path in found[:: len(found) // 5 + 1]]
    spoken = [row["path"] for row in recordings if row["path"].endswith(".flac")]
    for i, (format, codec, rate) in enumerate(MORE_FORMATS):
        x = (load_audio(spoken[i], rate) * 32768).astype(np.int16)
        path = folder / f"made.{format}.{codec}"
        path.write_bytes(encode(np.stack([x, np.roll(x, 99)]), format, codec, rate))
        paths.append(str(path))
    return paths


def differs_by_version(path: str) -> bool:
    """Where FFmpeg 5.1 and 9 differ among themselves: mp3 below 32 kHz (mended by 7), the end of m4a (since 9)."""
    with av.open(path) as container:
        codec = container.streams.audio[0].codec_context
        return (codec.name.startswith("mp3") and codec.sample_rate < 32000) or codec.name == "aac"


@pytest.mark.shared
@pytest.mark.peers
@pytest.mark.timeout(600)
def test_samples_and_spectrograms_are_those_of_the_original(
    dev_recordings: list[dict[str, str]], original: Any, tmp_path: Path
) -> None:
    if shutil.which("ffmpeg") is None:
        pytest.skip("the original needs the ffmpeg program; it is not on PATH")
    paths = various(dev_recordings, tmp_path)
    code = (
        "import numpy as np, torch, whisper.audio as A\n"
        "answer = []\n"
        "for i, path in enumerate(arguments['paths']):\n"
        "    x = A.load_audio(path)\n"
        "    np.savez(f\"{arguments['folder']}/{i}.npz\", x=x, a=A.log_mel_spectrogram(x, 80, 480000).numpy(),\n"
        "             b=A.log_mel_spectrogram(x, 128).numpy())\n"
        "    answer.append(len(x))\n"
    )
    lengths = original(code, tmp_path, paths=paths, folder=str(tmp_path))
    same, formats = 0, set()
    for i, (path, length) in enumerate(zip(paths, lengths, strict=True)):
        with np.load(tmp_path / f"{i}.npz") as theirs, warnings.catch_warnings():
            warnings.simplefilter("error")
            ours = load_audio(path)
            equal = len(ours) == length and np.abs(ours - theirs["x"]).max() <= 4 / 32768
            assert equal or differs_by_version(path), (path, len(ours), length)
            same += equal
            formats |= {Path(path).suffix} if equal else set()
            for key, n_mels, padding in (("a", 80, 480000), ("b", 128, 0)):
                mel = log_mel_spectrogram(theirs["x"], n_mels, padding).numpy()
                assert mel.shape == theirs[key].shape
                assert np.abs(mel - theirs[key]).max() <= 1e-5, path
    print(f"\n{same} of {len(paths)} recordings equal, in {len(formats)} formats")
    assert same >= 20
    assert len(formats) >= 8
