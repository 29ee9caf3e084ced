"""Samples that are no sound cost themselves and nothing else: what follows is as if zeros had been recorded."""

from __future__ import annotations

import itertools
import struct
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import whisper
from whisper.audio import load_audio, log_mel_spectrogram
from whisper.errors import AudioError
from whisper.media.bad_samples import LIMIT, Mending, is_sound, zeroed
from whisper.model import Whisper
from whisper.speech import features
from whisper.speech.features import Features
from whisper.transcription.channels import read_channels

from ..models import random_model
from ..test_audio import encode, floats, melody

RATE = 16000
BAD = [np.nan, np.inf, -np.inf, 1e20, -3e38]
OPTIONS: dict[str, Any] = {"language": "en", "temperature": 0, "sample_len": 12, "fp16": False}


def spoilt(bad: float, at: tuple[int, ...] = (700, 701, 30000), seconds: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """A recording with bad samples, float32 ``(n,)``, and the same with zeros in their place."""
    zeros = floats(melody(seconds)[0])
    zeros[list(at)] = 0
    x = zeros.copy()
    x[list(at)] = bad
    return x, zeros


def told(call: Any, *arguments: Any, match: str = r"3 of \d+ samples are NaN or infinite", **options: Any) -> Any:
    """Call, and see that there is one warning, from this file."""
    with pytest.warns(RuntimeWarning, match=match) as caught:
        result = call(*arguments, **options)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    return result


def float_file(samples: np.ndarray, format: str, rate: int = RATE) -> bytes:
    """A file of uncompressed floats, ``(n,)`` or ``(n_channels, n)``, which holds the very samples."""
    channels = np.atleast_2d(samples)
    n = len(channels)
    if format in ("wav", "wav64"):
        dtype = "<f4" if format == "wav" else "<f8"
        size = int(dtype[2])
        data = channels.T.astype(dtype).tobytes()
        head = struct.pack("<HHIIHH", 3, n, rate, rate * n * size, n * size, 8 * size)
        return (
            b"RIFF" + struct.pack("<I", 36 + len(data)) + b"WAVEfmt " + struct.pack("<I", 16) + head
            + b"data" + struct.pack("<I", len(data)) + data
        )  # fmt: skip
    if format == "au":
        data = channels.T.astype(">f4").tobytes()
        return b".snd" + struct.pack(">IIIII", 24, len(data), 6, rate, n) + data
    raise AssertionError(format)


@pytest.mark.parametrize("bad", BAD)
def test_arrays_and_tensors(bad: float) -> None:
    x, zeros = spoilt(bad)
    for given_ in (x, torch.from_numpy(x), x.astype(np.float64), np.stack([x, zeros]), np.stack([zeros, x], axis=1)):
        before = given_.clone() if isinstance(given_, torch.Tensor) else given_.copy()
        loaded = told(load_audio, given_)
        np.testing.assert_allclose(loaded, zeros, atol=1e-6)
        np.testing.assert_array_equal(np.asarray(given_), np.asarray(before))
    np.testing.assert_array_equal(told(load_audio, x), zeros)
    np.testing.assert_array_equal(told(load_audio, x, 8000, rate=RATE), load_audio(zeros, 8000, rate=RATE))


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("format", ["wav", "wav64", "au"])
def test_files_of_floats(format: str, bad: float) -> None:
    x, zeros = spoilt(bad)
    for rate in (RATE, 44100):
        bad_file, good_file = (float_file(y, format, rate) for y in (x, zeros))
        np.testing.assert_array_equal(told(load_audio, bad_file), load_audio(good_file))
    both = told(load_audio, float_file(np.stack([zeros, x]), format))
    np.testing.assert_array_equal(both, load_audio(float_file(np.stack([zeros, zeros]), format)))
    match = r"recording given as bytes: 3 of 48000 .* sample 700 \(0.04 s\); zeros stand"
    told(load_audio, float_file(x, format), match=match)


def test_other_containers_of_floats() -> None:
    x = floats(melody(2.0)[0])
    for format, codec in (("caf", "pcm_f32be"), ("aiff", "pcm_f32be"), ("matroska", "pcm_f32le"), ("w64", "pcm_f64le")):
        contents = bytearray(encode(melody(2.0), format, codec))
        dtype = np.dtype({"pcm_f32be": ">f4", "pcm_f32le": "<f4", "pcm_f64le": "<f8"}[codec])
        place = contents.index(x[8000:8010].astype(dtype).tobytes())
        contents[place : place + dtype.itemsize] = np.array(np.nan, dtype).tobytes()
        x_zero = x.copy()
        x_zero[8000] = 0
        loaded = told(load_audio, bytes(contents), match="1 of 32000 samples .* sample 8000")
        np.testing.assert_array_equal(loaded, x_zero)


@pytest.mark.parametrize("bad", BAD)
def test_spectrograms_of_one_and_of_a_batch(bad: float) -> None:
    x, zeros = spoilt(bad)
    for padding in (0, 480000):
        assert torch.equal(told(log_mel_spectrogram, x, padding=padding), log_mel_spectrogram(zeros, padding=padding))
    batch = torch.from_numpy(np.stack([zeros[::-1].copy(), x]))
    before = batch.clone()
    expected = log_mel_spectrogram(np.stack([zeros[::-1], zeros]))
    assert torch.equal(told(log_mel_spectrogram, batch, match="the first of them sample 700 of row 1"), expected)
    torch.testing.assert_close(batch, before, equal_nan=True)
    at_the_end, _ = spoilt(bad, (47990, 47998, 47999))  # the last ones are in no frame of their own
    told(log_mel_spectrogram, at_the_end[:48000])


def test_gradients_go_around_what_was_replaced() -> None:
    x, _ = spoilt(np.nan)
    tensor = torch.from_numpy(x).requires_grad_()
    told(log_mel_spectrogram, tensor).sum().backward()
    assert tensor.grad is not None
    assert tensor.grad.isfinite().all()
    assert not tensor.grad[[700, 701, 30000]].any()
    assert tensor.grad.any()


@pytest.mark.parametrize("bad", [np.nan, 1e30])
@pytest.mark.parametrize("dtype", ["float32", "float64", ">f4", "tensor"])
def test_long_arrays_that_are_streamed(monkeypatch: pytest.MonkeyPatch, bad: float, dtype: str) -> None:
    at = (5, 480001, 31 * RATE)
    x, zeros = spoilt(bad, at, 65.0)
    array = torch.from_numpy(x) if dtype == "tensor" else x.astype(dtype)
    held = told(Features.of, array, 80)
    monkeypatch.setattr(features, "HELD", RATE)
    streamed, expected = told(Features.of, array, 80, match="sample 5 "), Features.of(zeros, 80)
    for seek in (0, 2500, 3000, 6000):
        assert torch.equal(streamed.window(seek, 3000), expected.window(seek, 3000))
        assert torch.equal(held.window(seek, 3000), expected.window(seek, 3000))
    for recording in (held, streamed):  # what the search for speech hears
        np.testing.assert_array_equal(recording.samples(0, 10**7), zeros)
    np.testing.assert_array_equal(streamed.loudness(), expected.loudness())


def test_channels_apart() -> None:
    x, zeros = spoilt(np.nan, seconds=6.0)
    other = floats(melody(6.0, seed=5)[0])
    arrays = np.stack([other, x]), np.stack([other, zeros])
    for bad, good in (arrays, [float_file(array, "wav") for array in arrays]):
        found = told(read_channels, bad, match="sample 700 of channel 1")
        for channel, expected in zip(found, read_channels(good), strict=True):
            np.testing.assert_array_equal(channel, expected)


@pytest.fixture(scope="module")
def model() -> Whisper:
    return random_model(2, n_state=32, n_head=1, n_audio_layer=1, n_text_layer=1, end=4.5)


@pytest.mark.parametrize(
    "more", [{}, {"batch_size": 2}, {"audit": True, "vad_parameters": "method=energy"}, {"word_timestamps": True}]
)
def test_transcripts_in_every_mode(model: Whisper, more: dict[str, Any]) -> None:
    x, zeros = spoilt(np.inf, seconds=8.0)
    options = {**OPTIONS, **more}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = model.transcribe(zeros, **options)
    for source in (x, torch.from_numpy(x)):
        assert told(model.transcribe, source, **options) == expected
    ours, clean = told(model.transcribe, [x, zeros], **options)
    assert (ours, clean) == (expected, expected)
    file = model.transcribe(float_file(zeros, "wav"), **options)
    assert told(model.transcribe, float_file(x, "wav"), **options) == file


def test_siblings_of_transcribe(model: Whisper) -> None:
    x, zeros = spoilt(np.nan, seconds=4.0)
    assert told(lambda: list(whisper.iter_segments(model, x, **OPTIONS))) == list(
        whisper.iter_segments(model, zeros, **OPTIONS)
    )
    stereo = np.stack([x, floats(melody(4.0, seed=3)[0])])
    clean = np.stack([zeros, stereo[1]])
    separate = {**OPTIONS, "channels": "separate"}
    assert told(model.transcribe, stereo, **separate) == model.transcribe(clean, **separate)
    assert told(model.transcribe, stereo, **OPTIONS) == model.transcribe(clean, **OPTIONS)
    assert told(whisper.identify_language, model, x, fp16=False) == whisper.identify_language(model, zeros, fp16=False)


@pytest.mark.parametrize("bad", BAD)
def test_where_half_are_bad_there_is_no_recording(bad: float, monkeypatch: pytest.MonkeyPatch) -> None:
    x = floats(melody(2.0)[0])
    x[:16000] = bad
    match = "16000 of 32000 samples are NaN or infinite.*too few others are left"
    for call in (load_audio, log_mel_spectrogram, lambda y: Features.of(y, 80), lambda y: read_channels(y[None])):
        with pytest.raises(AudioError, match=match):
            call(x)
    with pytest.raises(AudioError, match=match):
        load_audio(float_file(x, "wav"))
    monkeypatch.setattr(features, "HELD", 1000)
    with pytest.raises(AudioError, match=match):
        Features.of(x, 80)
    x[0] = 0
    assert np.isfinite(told(load_audio, x, match="15999 of 32000")).all()


@given(
    n=st.integers(1, 400), n_rows=st.integers(1, 3), cuts=st.lists(st.integers(0, 400), max_size=4),
    bad=st.dictionaries(st.integers(0, 399), st.sampled_from(BAD), max_size=9), as_tensor=st.booleans(),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_pieces_are_mended_like_the_whole(
    n: int, n_rows: int, cuts: list[int], bad: dict[int, float], as_tensor: bool
) -> None:
    x = np.random.default_rng(n).standard_normal((n_rows, n)).astype(np.float32)
    expected, places = x.copy(), sorted((at, at % n_rows) for at in bad if at < n)
    for at, row in places:
        x[row, at] = bad[at]
        expected[row, at] = 0
    mending = Mending()
    edges = [0, *sorted(cut for cut in cuts if cut < n), n]
    pieces = [x[:, a:b] for a, b in itertools.pairwise(edges)]
    mended = [mending(torch.from_numpy(piece) if as_tensor else piece) for piece in pieces]
    np.testing.assert_array_equal(np.concatenate([np.asarray(piece) for piece in mended], axis=1), expected)
    assert mending.n_bad == len(places)
    if places:
        with pytest.raises(AudioError) if 2 * len(places) >= x.size else pytest.warns(RuntimeWarning) as caught:
            mending.close()
        message = str(caught.value if hasattr(caught, "value") else caught[0].message)
        assert f"{len(places)} of {x.size} samples" in message
        assert f"the first of them sample {places[0][0]}" in message
    else:
        mending.close()


def test_what_is_sound_is_not_copied() -> None:
    for x in (np.array([1e15, -1e15], np.float32), np.full(500, LIMIT / 2, np.float32), np.zeros(0, np.float32)):
        assert is_sound(x)
        assert zeroed(x) is x
        assert log_mel_spectrogram(np.resize(np.append(x, 0), 900)).isfinite().all()
