"""Decoding in a process of its own: the same samples, and what a hostile file costs."""

import contextlib
import io
import os
import signal
import threading
import time
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from whisper.errors import AudioError, CancelledError, OptionError
from whisper.media import reader
from whisper.media.isolated import decoders as room
from whisper.media.isolated.decoders import Decoders
from whisper.media.isolated.limits import Limits

from ...conftest import ROOT

SAMPLE = ROOT / "examples" / "sample.flac"
pytestmark = pytest.mark.skipif(not room.is_possible(), reason="files cannot be handed to another process here")


@pytest.fixture(scope="module")
def one() -> Iterator[Decoders]:
    made = Decoders(1)
    made.start()
    yield made
    made.close()


def wav(seconds: float, n_channels: int = 1) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(n_channels)
        writer.setsampwidth(2)
        writer.setframerate(16000)
        writer.writeframes(np.random.default_rng(0).bytes(int(16000 * seconds) * 2 * n_channels))
    return file.getvalue()


def samples(of: Iterator[Any]) -> Any:
    return np.concatenate(list(of), axis=-1)


def encoded(container: str, codec: str) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        rate = 48000 if codec == "ac3" else 16000
        stream = out.add_stream(codec, rate=rate, layout="mono")
        for piece in reader.stream(SAMPLE, rate):
            frame = av.AudioFrame.from_ndarray(piece[None], format="s16", layout="mono")
            frame.sample_rate = rate
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return file.getvalue()


@pytest.mark.parametrize("rate", [16000, 8000])
def test_samples_are_those_of_the_reader(one: Decoders, rate: int) -> None:
    expected = reader.decode(SAMPLE, rate)
    with open(SAMPLE, "rb") as file:
        for source in (SAMPLE, SAMPLE.read_bytes(), file, io.BytesIO(SAMPLE.read_bytes())):
            assert np.array_equal(samples(one.stream(source, rate)), expected)
        assert file.tell() == 0


@pytest.mark.parametrize(
    ("container", "codec"),
    [("mp3", "libmp3lame"), ("ipod", "aac"), ("webm", "libopus"), ("ogg", "libopus"), ("adts", "aac"),
     ("aiff", "pcm_s16be"), ("caf", "pcm_s16be"), ("mpegts", "aac"), ("ac3", "ac3"), ("mov", "aac")],
)  # fmt: skip
def test_formats_that_people_send(one: Decoders, container: str, codec: str) -> None:
    data = encoded(container, codec)
    assert np.array_equal(samples(one.stream(data, 16000)), reader.decode(data, 16000))


def test_channels_apart(one: Decoders) -> None:
    data = wav(1, 3)
    assert np.array_equal(samples(one.stream(data, 16000, apart=True)), samples(reader.stream(data, 16000, apart=True)))


def test_warnings_and_errors_come_over(one: Decoders) -> None:
    with pytest.warns(RuntimeWarning, match="truncated"):
        samples(one.stream(SAMPLE.read_bytes()[:-20000], 16000))
    with pytest.raises(OptionError, match="no audio track 7"):
        samples(one.stream(SAMPLE, 16000, audio_track=7))
    with pytest.raises(AudioError, match="cannot be read as a recording"):
        samples(one.stream(b"no sound at all", 16000))
    with pytest.raises(AudioError, match="no file"):
        samples(one.stream("https://example.org/a.mp3", 16000))


PLAYLISTS = {
    "concat": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "srt": b"1\n00:00:00,000 --> 00:00:01,000\na\n\n" * 40,
}


@pytest.mark.parametrize("name", list(PLAYLISTS))
def test_other_formats_are_refused_by_name(one: Decoders, name: str) -> None:
    with pytest.raises(AudioError, match=f"in the format {name}, which is not read here; use one of WAV"):
        samples(one.stream(PLAYLISTS[name], 16000))


def working(of: Decoders, **options: Any) -> tuple[Any, Any]:
    """A stream that has begun, and its process."""
    found: list[Any] = []
    take = of._take
    of._take = lambda job, fd: found.append(take(job, fd)) or found[-1]  # type: ignore[method-assign, func-returns-value]
    try:
        pieces = of.stream(wav(400), 16000, **options)
        next(pieces)
    finally:
        of._take = take  # type: ignore[method-assign]
    return pieces, found[0].process


def test_a_crash_is_an_error_of_its_file_alone(one: Decoders) -> None:
    pieces, process = working(one)
    os.kill(process.pid, signal.SIGSEGV)
    with pytest.raises(AudioError, match="made its decoder crash"):
        samples(pieces)
    assert len(samples(one.stream(SAMPLE, 16000))) > 16000


def test_a_process_that_dies_while_it_waits_is_replaced(one: Decoders) -> None:
    samples(one.stream(SAMPLE, 16000))
    waiting = one._idle[0].process
    waiting.kill()
    waiting.wait()
    assert len(samples(one.stream(SAMPLE, 16000))) > 16000


def test_a_hang_is_ended() -> None:
    with contextlib.closing(Decoders(0, Limits(stall_s=0.2))) as made:
        pieces, process = working(made)
        os.kill(process.pid, signal.SIGSTOP)
        with pytest.raises(AudioError, match=r"no progress: nothing was decoded for 0\.2 s"):
            samples(pieces)
        assert process.poll() is not None


def test_cancel_and_leaving_end_the_process(one: Decoders) -> None:
    cancel = threading.Event()
    pieces, process = working(one, cancel=cancel)
    cancel.set()
    with pytest.raises(CancelledError):
        next(pieces)
    assert process.poll() is not None
    pieces, process = working(one)
    pieces.close()
    assert process.poll() is not None


def test_memory_and_time_are_bounded() -> None:
    wide = wav(5, 250)  # a second of it has 8 MB, and a piece 32
    with contextlib.closing(Decoders(0, Limits(memory_mb=24))) as made, pytest.raises(AudioError):
        samples(made.stream(wide, 16000, apart=True))
    with contextlib.closing(Decoders(0, Limits(cpu_s=-1))) as made, pytest.raises(AudioError, match="of the processor"):
        samples(made.stream(wide, 192000, apart=True))


@pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="Linux tells the limits of a process")
def test_a_process_is_confined(one: Decoders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOTTO_API_KEYS", "secret")
    one._idle.pop().end()
    samples(one.stream(SAMPLE, 16000))
    place = Path(f"/proc/{one._idle[0].process.pid}")
    limits = (place / "limits").read_text()
    for name, value in (("Max file size", "0"), ("Max core file size", "0"), ("Max open files", "64")):
        assert next(line for line in limits.splitlines() if line.startswith(name)).split()[-3] == value
    assert "NoNewPrivs:\t1" in (place / "status").read_text()
    assert b"secret" not in (place / "environ").read_bytes()
    assert "torch" not in (place / "maps").read_text()
    ends = time.monotonic() + 10  # the worker closes the recording after its last piece
    while len(os.listdir(place / "fd")) > 4 and time.monotonic() < ends:
        time.sleep(0.01)
    assert len(os.listdir(place / "fd")) == 4  # the null device, and the socket


def test_nothing_is_left_behind() -> None:
    with contextlib.closing(Decoders(1)) as made:
        samples(made.stream(SAMPLE, 16000))
        before = set(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else set()
        for _ in range(5):
            samples(made.stream(SAMPLE, 16000))
        after = set(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else set()
        process = made._idle[0].process
    assert len(after) == len(before)
    assert process.poll() is not None


def test_files_wait_for_a_busy_process_rather_than_starting_another(
    one: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_PATIENCE", 30.0)
    samples(one.stream(SAMPLE, 16000))  # now one waits
    started: list[Any] = []
    start = room._Process.__init__

    def counted(self: Any, limits: Limits) -> None:
        started.append(self)
        start(self, limits)

    monkeypatch.setattr(room._Process, "__init__", counted)
    lengths: list[int] = []

    def read() -> None:
        lengths.append(len(samples(one.stream(SAMPLE, 16000))))

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lengths) == 8
    assert len(set(lengths)) == 1
    assert not started


def test_a_long_file_holds_up_no_other(one: Decoders) -> None:
    samples(one.stream(SAMPLE, 16000))
    pieces, process = working(one)
    begun = time.monotonic()
    assert len(samples(one.stream(SAMPLE, 16000))) > 16000
    waited = time.monotonic() - begun
    assert process.poll() is None  # the long one is still under way
    assert waited >= room._PATIENCE
    pieces.close()


def test_a_system_that_cannot_hand_files_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "is_possible", lambda: False)
    made = Decoders(1)
    made.start()
    assert np.array_equal(samples(made.stream(SAMPLE, 16000)), reader.decode(SAMPLE, 16000))
    with pytest.raises(AudioError, match="in the format concat"):
        samples(made.stream(PLAYLISTS["concat"], 16000))
