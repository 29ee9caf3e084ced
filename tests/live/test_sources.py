"""Where live sound comes from."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import whisper
from whisper.errors import AudioError, MissingDependencyError, OptionError
from whisper.live import sources
from whisper.live.sources import SourceOptions, container, in_real_time, microphone, pieces_of, raw, scaled

from ..conftest import ROOT

READING = ROOT / "examples" / "reading.opus"


class Pipe(io.RawIOBase):
    """Gives its bytes in small parts, and cannot seek."""

    def __init__(self, data: bytes, part: int = 1000) -> None:
        self._file, self._part = io.BytesIO(data), part

    def readable(self) -> bool:
        return True

    def read(self, n: int = -1) -> bytes:
        return self._file.read(min(n, self._part) if n >= 0 else self._part)


def joined(pieces: Iterator[Any]) -> np.ndarray:
    return np.concatenate(list(pieces))


@pytest.mark.parametrize("part", [999, 4096])
def test_raw_samples_come_whole_however_they_are_cut(part: int) -> None:
    samples = (np.sin(np.arange(40000) / 20) * 20000).astype("<i2")
    got = joined(raw(Pipe(samples.tobytes(), part), SourceOptions(format="s16le")))
    np.testing.assert_array_equal(got, samples.astype(np.float32) / 32768)


def test_raw_samples_of_another_rate_are_resampled() -> None:
    samples = (np.sin(np.arange(48000) / 20) * 20000).astype("<i2")
    got = joined(raw(Pipe(samples.tobytes()), SourceOptions(format="s16le", rate=48000)))
    assert got.dtype == np.float32
    assert len(got) == pytest.approx(16000, abs=50)


def test_telephone_sound() -> None:
    got = joined(raw(Pipe(b"\xff" * 800), SourceOptions(format="ulaw", rate=8000)))
    assert len(got) == pytest.approx(1600, abs=40)
    assert np.abs(got).max() < 0.01


def test_a_container_is_decoded_from_a_pipe() -> None:
    got = joined(container(Pipe(READING.read_bytes())))  # type: ignore[arg-type]
    expected = whisper.load_audio(str(READING))
    assert abs(len(got) - len(expected)) < 1600
    assert np.corrcoef(got[: 16000 * 5], expected[: 16000 * 5])[0, 1] > 0.99


def test_a_container_gives_sound_before_its_end() -> None:
    data = READING.read_bytes()
    pipe = Pipe(data[: len(data) // 2])
    first = next(container(pipe))  # type: ignore[arg-type]
    assert pipe._file.tell() < len(data) // 4
    assert len(first) <= 1600


def test_what_is_no_recording_is_named() -> None:
    with pytest.raises(AudioError, match="--format s16le"):
        joined(container(Pipe(b"nothing of the kind" * 500)))  # type: ignore[arg-type]


def test_a_file_is_played_at_its_own_speed() -> None:
    now, slept = [100.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    pieces = [np.zeros(1600, np.float32)] * 10
    for _ in in_real_time(pieces, lambda: now[0], sleep):
        now[0] += 0.02  # what the program does with it
    assert now[0] == pytest.approx(101.0, abs=0.03)
    assert slept[1] == pytest.approx(0.08)


def test_a_late_program_is_not_made_to_wait() -> None:
    now = iter(np.arange(0, 1000, 5.0))
    list(in_real_time([np.zeros(1600, np.float32)] * 5, lambda: float(next(now)), lambda s: pytest.fail(f"slept {s}")))


def test_pieces_are_small_and_scaled() -> None:
    pieces = list(scaled([np.full(4000, -32768, np.int16)]))
    assert [len(piece) for piece in pieces] == [1600, 1600, 800]
    assert pieces[0][0] == -1.0


def test_a_format_belongs_to_standard_input(tmp_path: Any) -> None:
    with pytest.raises(OptionError, match="standard input"):
        pieces_of(str(READING), SourceOptions(format="s16le"))
    with pytest.raises(OptionError):
        SourceOptions(format="mp3")
    with pytest.raises(AudioError, match="no file"):
        next(pieces_of(str(tmp_path / "none.wav"), SourceOptions()))


def test_standard_input_is_read_as_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=Pipe(READING.read_bytes())))
    assert len(next(pieces_of("-", SourceOptions())))
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=Pipe(bytes(3200))))
    assert len(joined(pieces_of("-", SourceOptions(format="s16le")))) == 1600


class FakeSoundDevice:
    """As much of sounddevice as is used."""

    class PortAudioError(Exception):
        """Never raised."""

    def __init__(self, known: bool = True) -> None:
        self.known, self.asked = known, []

    def query_devices(self, device: Any, kind: str) -> dict[str, float]:
        self.asked.append((device, kind))
        if not self.known:
            raise ValueError("No input device matching")
        return {"default_samplerate": 48000.0}

    def RawInputStream(self, *, callback: Any, blocksize: int, **_: Any) -> Any:  # noqa: N802  theirs
        class Stream:
            n_left = 20

            @property
            def active(self) -> bool:
                self.n_left -= 1
                callback(bytes(2 * blocksize), blocksize, None, None)
                return self.n_left > 0

            def __enter__(self) -> Stream:
                return self

            def __exit__(self, *_: object) -> None:
                pass

        return Stream()


def test_a_microphone_is_heard_until_it_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeSoundDevice()
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    lengths: list[int] = []
    with pytest.raises(AudioError, match="has stopped"):
        lengths.extend(map(len, pieces_of(None, SourceOptions(microphone="2"))))
    assert fake.asked == [(2, "input")]
    assert sum(lengths) == pytest.approx(19 * 800, abs=60)


def test_an_unknown_microphone_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", FakeSoundDevice(known=False))
    with pytest.raises(AudioError, match="No input device"):
        next(microphone("phone"))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(MissingDependencyError, match=r"sotto\[live\]"):
        next(microphone())


def test_reading_that_fails_is_an_audio_error() -> None:
    class Broken(io.RawIOBase):
        def read(self, n: int = -1) -> bytes:
            raise OSError("gone")

    with pytest.raises(AudioError, match="gone"):
        next(raw(Broken(), SourceOptions(format="s16le")))  # type: ignore[arg-type]
    assert sources.PIECE == 1600
