"""What is left unread is told: data behind the end that a header names, further recordings in the same file."""

from __future__ import annotations

import io
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whisper.audio import load_audio
from whisper.media.unread_data import Rest, rest_of

from ..test_audio import RATE, OneWay, encode, floats, melody, wav

X, Y = melody(2.0, seed=1), melody(1.0, seed=2)


def told(contents: object, match: str, **options: object) -> np.ndarray:
    with pytest.warns(RuntimeWarning, match=match) as caught:
        loaded = load_audio(contents, **options)  # type: ignore[arg-type]
    assert len(caught) == 1
    return loaded


def silent(contents: bytes) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return load_audio(contents)


def chunk(tag: bytes, body: bytes, order: str = "<") -> bytes:
    return tag + struct.pack(order + "I", len(body)) + body + b"\0" * (len(body) % 2)


def with_size(contents: bytes, size: int) -> bytes:
    """A WAV file whose header gives its data another size."""
    at = contents.index(b"data") + 4
    return contents[:at] + struct.pack("<I", size) + contents[at + 4 :]


def rf64(samples: np.ndarray, size: int | None = None) -> bytes:
    data = samples.tobytes()
    size = len(data) if size is None else size
    ds64 = struct.pack("<QQQI", 72 + size, size, size // 2, 0)
    head = struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16)
    return b"RF64" + b"\xff" * 4 + b"WAVE" + chunk(b"ds64", ds64) + chunk(b"fmt ", head) + b"data" + b"\xff" * 4 + data


# ---------------------------------------------------------------------------------------------------------
# A header that counts too little
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0001, 0.1, 0.5, 0.9])
def test_a_wav_whose_header_counts_too_little(share: float, tmp_path: Path) -> None:
    n = int(X.shape[1] * share) * 2
    contents = with_size(wav(X), n)
    match = (
        rf"header counts less data than there are.* not read \({2 * X.shape[1] - n} bytes, about {2 - n / 32000:.2f} s"
    )
    assert len(told(contents, match)) == n // 2
    (tmp_path / "a.wav").write_bytes(contents)
    for source in (str(tmp_path / "a.wav"), tmp_path / "a.wav", io.BytesIO(contents), OneWay(contents)):
        assert len(told(source, match)) == n // 2


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFFF, 10**6])
def test_sizes_that_mean_unknown_and_too_large_ones_are_read_whole(size: int) -> None:
    np.testing.assert_array_equal(silent(with_size(wav(X), size)), floats(X[0]))


def test_other_headers_that_count_too_little() -> None:
    data = X.astype(">i2").tobytes()
    aiff = bytearray(encode(X, "aiff", "pcm_s16be"))
    at = aiff.index(b"SSND") + 4
    aiff[at : at + 4] = struct.pack(">I", 8 + len(data) // 2)
    caf = bytearray(encode(X, "caf", "pcm_s16le"))
    at = caf.index(b"data") + 4
    caf[at : at + 8] = struct.pack(">q", 4 + len(data) // 2)
    w64 = bytearray(encode(X, "w64", "pcm_s16le"))
    at = w64.index(b"data") + 16
    w64[at : at + 8] = struct.pack("<Q", 24 + len(data) // 2)
    for contents in (bytes(aiff), bytes(caf), bytes(w64), rf64(X, len(data) // 2)):
        loaded = told(contents, r"not read \(3\d{4} bytes, about 1\.\d\d s")
        assert len(loaded) == pytest.approx(RATE, abs=20)
    au = b".snd" + struct.pack(">IIIII", 24, len(data) // 2, 3, RATE, 1) + data
    assert len(silent(au)) == 2 * RATE  # FFmpeg reads on


# ---------------------------------------------------------------------------------------------------------
# A further recording
# ---------------------------------------------------------------------------------------------------------

SIZED = [("wav", "pcm_s16le"), ("wav", "pcm_f32le"), ("wav", "pcm_mulaw"), ("w64", "pcm_s16le"), ("aiff", "pcm_s16be"),
         ("caf", "pcm_s16le"), ("caf", "alac"), ("ipod", "aac"), ("ipod", "alac"), ("tta", "tta"),
         ("voc", "pcm_u8")]  # fmt: skip


@pytest.mark.parametrize(("format", "codec"), SIZED)
def test_a_second_recording_is_told_with_its_length(format: str, codec: str) -> None:
    first, second = encode(X, format, codec), encode(Y, format, codec)
    loaded = told(
        first + second,
        rf"another recording that begins behind its end is not read \({len(second)} bytes, about (1\.0|0\.9)",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_array_equal(loaded, load_audio(first))


def test_further_wavs_of_other_kinds_and_more_than_one() -> None:
    stereo = wav(melody(1.5, 8000, 2), 8000)
    told(wav(X) + stereo, r"another recording .* about 1\.50 s, from byte 64044 on")
    told(wav(X) + wav(Y) + wav(X), r"another recording .* about 3\.00 s")
    told(wav(X) + rf64(Y), r"another recording .* about 1\.00 s")
    told(rf64(X) + wav(Y), r"another recording .* about 1\.00 s")
    odd = encode(X, "wav", "pcm_mulaw")
    odd = odd[: odd.index(b"data") + 4] + struct.pack("<I", 31999) + odd[odd.index(b"data") + 8 :][:31999]
    told(odd + b"\0" + wav(Y), r"another recording .* about 1\.0\d s")
    told(odd + chunk(b"LIST", b"INFOabcd") + wav(Y), r"not read .* about 1\.0\d s")


def test_files_that_a_protocol_joins_are_told_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.wav").write_bytes(wav(X))
    Path("b.wav").write_bytes(wav(Y))
    np.testing.assert_array_equal(told("concat:a.wav|b.wav", r"not read \(32044 bytes, about 1\.00 s"), floats(X[0]))


READ_ON = [("mp3", "libmp3lame"), ("flac", "flac"), ("ogg", "libopus"), ("ogg", "flac"), ("adts", "aac"),
           ("matroska", "flac"), ("mpegts", "mp2")]  # fmt: skip


@pytest.mark.parametrize(("format", "codec"), READ_ON)
def test_what_stands_packet_for_packet_is_read_on(format: str, codec: str) -> None:
    rate = 48000 if codec == "libopus" else RATE
    first, second = (encode(melody(seconds, rate), format, codec, rate) for seconds in (2.0, 1.0))
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        loaded = load_audio(first + second)
    assert len(loaded) == pytest.approx(3.0 * RATE, abs=0.25 * RATE)
    assert not [w for w in heard if "not read" in str(w.message)]


# ---------------------------------------------------------------------------------------------------------
# What ordinarily follows
# ---------------------------------------------------------------------------------------------------------


def test_chunks_tags_and_padding_behind_the_sound_are_no_loss() -> None:
    info = chunk(b"LIST", b"INFO" + chunk(b"INAM", b"a name") + chunk(b"ICMT", b"x" * 90000))
    id3 = b"ID3\x04\x00\x00" + bytes([0, 0, 4, 0]) + bytes(512)
    more = [
        info, chunk(b"id3 ", id3), chunk(b"cue ", bytes(28)), chunk(b"bext", bytes(602)), chunk(b"_PMX", b"<x" * 9000),
        id3, bytes(100000), b"TAG" + b"x" * 125, chunk(b"odd ", b"x" * 33333)[:-1], b"\0",
    ]  # fmt: skip
    for behind in (*more, info + chunk(b"smpl", bytes(36)) + id3):
        np.testing.assert_array_equal(silent(wav(X) + behind), floats(X[0]))
        np.testing.assert_array_equal(silent(rf64(X) + behind), floats(X[0]))
    big = [chunk(b"NAME", b"a title", ">"), chunk(b"ANNO", b"x" * 50001, ">"), chunk(b"APPL", bytes(9000), ">")]
    for behind in (*big, b"".join(big)):
        np.testing.assert_array_equal(silent(encode(X, "aiff", "pcm_s16be") + behind), floats(X[0]))
    free = b"free" + struct.pack(">q", 40000) + b"x" * 40000
    np.testing.assert_array_equal(silent(encode(X, "caf", "pcm_s16le") + free), floats(X[0]))
    movie = encode(X, "ipod", "alac")
    np.testing.assert_array_equal(silent(movie + struct.pack(">I4s", 50008, b"free") + bytes(50000)), floats(X[0]))


def test_files_as_they_are_made_have_no_rest() -> None:
    for format, codec in SIZED[:-1]:
        loaded = silent(encode(X, format, codec))
        assert len(loaded) == pytest.approx(2 * RATE, abs=1100)


@given(tail=st.binary(max_size=300), n=st.integers(0, 300))
@settings(max_examples=200, deadline=None)
def test_any_bytes_behind_any_end_are_looked_at_and_survived(tail: bytes, n: int) -> None:
    for format in ("wav", "w64", "aiff", "caf", "flv", "tta", "voc", "mov,mp4,m4a,3gp,3g2,mj2", "mp3"):
        contents = b"\1" * n + tail
        rest = rest_of(io.BytesIO(contents), len(contents), format, n)
        if rest is not None:
            assert n <= rest.begin < len(contents) == rest.begin + rest.n_bytes
    assert rest_of(io.BytesIO(b"x" * 99), 99, "wav", 50) == Rest(50, 49, False)
    assert rest_of(io.BytesIO(bytes(99)), 99, "wav", 50) is None


def test_a_file_object_that_will_not_be_read_again_costs_nothing() -> None:
    class Once(io.BytesIO):
        n_left = 40

        def seek(self, offset: int, whence: int = 0) -> int:
            self.n_left -= 1
            return super().seek(offset, whence)

    np.testing.assert_array_equal(silent(Once(wav(X))), floats(X[0]))  # type: ignore[arg-type]
