"""Recordings that are spoilt, lie about themselves or are something else; paths and file objects of every kind."""

from __future__ import annotations

import io
import os
import random
import struct
import threading
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ..containers import Track, container
from ..test_audio import OneWay, encode, wav
from . import INF, NAN, RATE, Case, speech

FORMATS = [
    ("wav", "pcm_s16le"), ("wav", "pcm_f32le"), ("flac", "flac"), ("mp3", "libmp3lame"), ("ipod", "aac"),
    ("ipod", "alac"), ("ogg", "libopus"), ("webm", "libopus"), ("adts", "aac"), ("aiff", "pcm_s16be"),
    ("matroska", "flac"), ("caf", "pcm_s16le"), ("wav", "pcm_mulaw"),
]  # fmt: skip


@cache
def sound_file(format: str, codec: str) -> bytes:
    rate = 48000 if codec == "libopus" else RATE
    return encode(speech(), format, codec, rate=rate)


def truncated(contents: bytes, rng: random.Random) -> bytes:
    return contents[: rng.randrange(1, len(contents))]


def flipped(contents: bytes, rng: random.Random) -> bytes:
    changed = bytearray(contents)
    for _ in range(rng.choice([1, 3, 30, 300])):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def head_flipped(contents: bytes, rng: random.Random) -> bytes:
    changed = bytearray(contents)
    for _ in range(rng.choice([1, 2, 8])):
        changed[rng.randrange(min(200, len(changed)))] = rng.randrange(256)
    return bytes(changed)


def hole(contents: bytes, rng: random.Random) -> bytes:
    start, size = rng.randrange(len(contents)), rng.randrange(1, 3000)
    return contents[:start] + bytes(size) + contents[start + size :]


def cut_out(contents: bytes, rng: random.Random) -> bytes:
    start, size = rng.randrange(len(contents)), rng.randrange(1, 3000)
    return contents[:start] + contents[start + size :]


def doubled(contents: bytes, rng: random.Random) -> bytes:
    return contents + contents[rng.randrange(len(contents)) :]


def preceded(contents: bytes, rng: random.Random) -> bytes:
    return rng.randbytes(rng.randrange(1, 2000)) + contents


MUTATIONS = [truncated, flipped, head_flipped, hole, cut_out, doubled, preceded]


def broken_files(n: int, seed: int = 1) -> Iterator[Case]:
    """Recordings of all kinds, each spoilt in one of seven ways, handed over in one of three."""
    for i in range(n):
        rng = random.Random(f"{seed} {i}")
        format, codec = rng.choice(FORMATS)
        mutation = rng.choice(MUTATIONS)
        way, ending = rng.choice(["path", "bytes", "file", "stream"]), rng.choice([format, "wav", "mp3", "txt"])

        def make(folder: Path, i: int = i, made: Any = (format, codec, mutation, way, ending)) -> Any:
            format, codec, mutation, way, ending = made
            contents = mutation(sound_file(format, codec), random.Random(f"{seed} {i} contents"))
            return handed_over(contents, way, folder / f"recording.{ending}")

        yield Case(f"{format}-{codec}-{mutation.__name__}-{way}-{i}", "load_audio" if i % 4 else "transcribe", make)


def handed_over(contents: bytes, way: str, path: Path) -> Any:
    if way == "path":
        path.write_bytes(contents)
        return str(path)
    return {"bytes": bytes, "file": io.BytesIO, "stream": OneWay, "array": bytearray, "view": memoryview}[way](contents)


def riff(
    *, tag: int = 1, channels: int = 1, rate: int = RATE, bits: int = 16, align: int | None = None,
    size: int | None = None, data: bytes | None = None, extra: bytes = b"", total: int | None = None,
) -> bytes:  # fmt: skip
    """A WAV file whose header says what one likes."""
    data = speech()[0, :8000].tobytes() if data is None else data
    align = channels * bits // 8 if align is None else align
    numbers = (tag, channels, rate % 2**32, rate * align % 2**32, align % 2**16, bits)
    head = struct.pack("<HHIIHH", *numbers) + extra
    size = len(data) if size is None else size
    body = b"WAVEfmt " + struct.pack("<I", len(head)) + head + b"data" + struct.pack("<I", size) + data
    return b"RIFF" + struct.pack("<I", len(body) if total is None else total) + body


DOUBLES = np.array([0.1, -0.1, NAN, 0.2] * 2000).tobytes()
LIES: dict[str, dict[str, Any]] = {
    "0 Hz": {"rate": 0}, "1 Hz": {"rate": 1}, "7 Hz": {"rate": 7}, "2^31 Hz": {"rate": 2**31},
    "2^31-1 Hz": {"rate": 2**31 - 1}, "2^32-1 Hz": {"rate": 2**32 - 1}, "10 MHz": {"rate": 10_000_000},
    "96000 Hz": {"rate": 96000}, "prime Hz": {"rate": 44101}, "99991 Hz": {"rate": 99991},
    "0 channels": {"channels": 0}, "7 channels": {"channels": 7}, "8 channels": {"channels": 8},
    "9 channels": {"channels": 9}, "255 channels": {"channels": 255}, "65535 channels": {"channels": 65535},
    "0 bits": {"bits": 0}, "1 bit": {"bits": 1}, "4 bits": {"bits": 4}, "12 bits": {"bits": 12},
    "17 bits": {"bits": 17},
    "32 bits": {"bits": 32}, "64 bits": {"bits": 64}, "65535 bits": {"bits": 65535},
    "align 0": {"align": 0}, "align 1": {"align": 1}, "align 3": {"align": 3}, "align 65535": {"align": 65535},
    "no data": {"data": b""}, "one byte": {"data": b"x"}, "odd bytes": {"data": bytes(range(255))},
    "says 0 bytes": {"size": 0}, "says too many": {"size": 2**31}, "says 2^32-1": {"size": 2**32 - 1},
    "says too few": {"size": 100}, "says half": {"size": 8001}, "says 1": {"size": 1},
    "then another": {"size": 4000, "data": speech()[0, :2000].tobytes() + wav(speech())},
    "then a chunk": {"size": 16000, "data": speech()[0, :8000].tobytes() + b"LIST\x04\0\0\0INFO"},
    "then a lying chunk": {"size": 16000, "data": speech()[0, :8000].tobytes() + b"LIST\xff\xff\xff\xffINFO" * 99},
    "then zeros": {"size": 16000, "data": speech()[0, :8000].tobytes() + bytes(99999)},
    "float32 some nan": {"tag": 3, "bits": 32, "data": np.where(np.arange(8000) % 7, 0.1, NAN).astype("<f4").tobytes()},
    "some huge": {"tag": 3, "bits": 32, "data": np.where(np.arange(8000) % 9, 0.1, 1e19).astype("<f4").tobytes()},
    "riff says 0": {"total": 0}, "riff says 2^32-1": {"total": 2**32 - 1},
    "format 0": {"tag": 0}, "format adpcm": {"tag": 2}, "format mp3": {"tag": 0x55}, "format 0xfffe": {"tag": 0xFFFE},
    "format 0xffff": {"tag": 0xFFFF}, "format alaw": {"tag": 6, "bits": 8}, "format aac": {"tag": 0xFF},
    "float64 nan": {"tag": 3, "bits": 64, "data": DOUBLES},
    "float64 inf": {"tag": 3, "bits": 64, "data": np.full(4000, INF).tobytes()},
    "float64 1e300": {"tag": 3, "bits": 64, "data": np.full(4000, 1e300).tobytes()},
    "float32 huge": {"tag": 3, "bits": 32, "data": np.full(8000, 3e38, np.float32).tobytes()},
    "float32 denormal": {"tag": 3, "bits": 32, "data": np.full(8000, 1e-44, np.float32).tobytes()},
    "float 16 bits": {"tag": 3, "bits": 16}, "float 24 bits": {"tag": 3, "bits": 24},
    "long header": {"extra": bytes(60000)}, "2 channels of 1": {"channels": 2, "align": 2},
}  # fmt: skip


def lying_headers() -> Iterator[Case]:
    for i, (name, lie) in enumerate(LIES.items()):
        way = ["bytes", "path", "file", "stream"][i % 4]
        door = "transcribe" if i % 3 == 0 else "load_audio"
        yield Case(
            f"wav-{name}", door, lambda folder, lie=lie, way=way: handed_over(riff(**lie), way, folder / "lie.wav")
        )


def zipped(contents: bytes, name: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, contents)
    return file.getvalue()


def no_recordings() -> Iterator[Case]:
    """Contents that are something else."""
    sound = wav(speech())
    contents: dict[str, bytes] = {
        "empty": b"", "one byte": b"\0", "newline": b"\n", "text": b"To be or not to be\n" * 200,
        "utf-16": "to be".encode("utf-16") * 99, "json": b'{"text": "hello"}', "html": b"<html><body>404</body></html>",
        "zip": zipped(b"text", "a.txt"), "zip of wav": zipped(sound, "a.wav"),
        "zip of zip": zipped(zipped(sound, "a.wav"), "b"),
        "wav in wav": wav(np.frombuffer(sound[: len(sound) // 2 * 2], np.int16)[None]), "zeros": bytes(9999),
        "ones": b"\xff" * 9999, "random": random.Random(1).randbytes(9999), "riff alone": b"RIFF",
        "head alone": sound[:44],
        "flac alone": b"fLaC", "id3 alone": b"ID3\x04\0\0\x7f\x7f\x7f\x7f", "ogg alone": b"OggS",
        "mp4 alone": b"\0\0\0 ftypM4A ",
        "mp3 frame": b"\xff\xfb\x90\x64" * 200, "png": b"\x89PNG\r\n\x1a\n" + bytes(500),
        "pdf": b"%PDF-1.7\n" + bytes(500),
        "playlist": b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", "concat": b"ffconcat version 1.0\nfile /etc/passwd\n",
        "subtitles": b"1\n00:00:00,000 --> 00:00:02,000\nhello\n", "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\n",
        "torch": b"\x80\x02}q\0.",
    }  # fmt: skip
    for i, (name, content) in enumerate(contents.items()):
        way = ["path", "bytes", "file", "stream", "array", "view"][i % 6]
        door = ["load_audio", "transcribe", "log_mel_spectrogram"][i % 3]
        ending = ["wav", "mp3", "mp4", "flac"][i % 4]
        yield Case(
            f"contents-{name}", door,
            lambda folder, content=content, way=way, ending=ending: handed_over(content, way, folder / f"a.{ending}"),
        )  # fmt: skip


def paths() -> Iterator[Case]:
    """Names that lead to nothing that can be read, or look as if they did not."""

    def fifo(folder: Path) -> str:
        path = folder / "pipe.wav"
        os.mkfifo(path)
        threading.Thread(target=lambda: path.write_bytes(wav(speech())), daemon=True).start()
        return str(path)

    def link(folder: Path, to: str) -> Path:
        (folder / "link.wav").symlink_to(to)
        return folder / "link.wav"

    def named(folder: Path, name: Any) -> Any:
        path = os.path.join(os.fsencode(folder) if isinstance(name, bytes) else str(folder), name)
        with open(path, "wb") as file:
            file.write(wav(speech()))
        return os.fsdecode(path)

    def locked(folder: Path) -> Path:
        path = Path(named(folder, "locked.wav"))
        path.chmod(0)
        return path

    made: dict[str, Callable[[Path], Any]] = {
        "folder": lambda folder: folder, "folder as text": lambda folder: str(folder) + "/", "no text": lambda _: "",
        "space": lambda _: " ", "dot": lambda _: ".", "null": lambda _: "a\0b.wav", "long": lambda _: "a" * 5000,
        "long folders": lambda _: "/".join(["a" * 200] * 50), "newline": lambda _: "a\nb.wav",
        "surrogate": lambda _: "\ud800.wav",
        "device": lambda _: os.devnull, "missing": lambda folder: folder / "missing.wav",
        "tilde": lambda _: "~/nothing.wav",
        "http": lambda _: "http://127.0.0.1:9/a.wav", "scheme": lambda _: "foo:bar", "lavfi": lambda _: "lavfi:sine",
        "rtsp": lambda _: "rtsp://127.0.0.1:9/a",
        "concat": lambda _: "concat:/etc/passwd|/etc/hosts", "data": lambda _: "data:audio/wav;base64,AAAA",
        "data nothing": lambda _: "data:,",
        "file url": lambda _: "file:///nowhere.wav", "pipe url": lambda _: "subfile:,start,0,end,0,,:/etc/passwd",
        "crypto": lambda _: "crypto:x",
        "loop": lambda folder: link(folder, "link.wav"), "dangling": lambda folder: link(folder, "nothing"),
        "locked": locked, "fifo": fifo, "no utf-8": lambda folder: named(folder, b"\xff\xfe.wav"),
        "quotes": lambda folder: named(folder, "a'b\"c;|&%d[0]*?.wav"),
        "line in name": lambda folder: named(folder, "a\nb.wav"),
        "of a colon": lambda folder: named(folder, "http:x.wav"),
        "standard input": lambda _: "-", "pipe": lambda _: "pipe:0", "its device": lambda _: "/dev/stdin",
        "fd": lambda _: "fd:0", "a pipe that is none": lambda _: "pipe:99", "file protocol": lambda _: "file:",
        "data without end": lambda _: "data:audio/wav;base64," + "A" * 100000,
        "no ending": lambda folder: named(folder, "recording"),
    }  # fmt: skip
    for i, (name, make) in enumerate(made.items()):
        yield Case(f"path-{name}", ["load_audio", "transcribe"][i % 2], make)


def forged_containers(n: int, seed: int = 5) -> Iterator[Case]:
    """Several tracks, with late beginnings, gaps, overlaps and jumps of their time stamps, whole and spoilt."""
    sound = np.tile(speech(), 2)[:, : 1152 * 20]
    for i in range(n):
        rng = random.Random(f"{seed} {i}")

        def make(folder: Path, i: int = i) -> Any:
            rng = random.Random(f"{seed} {i} contents")
            tracks = []
            for _ in range(rng.choice([1, 1, 2, 3])):
                begins, at = [], 0.0
                for _ in range(rng.randrange(1, 4)):
                    at += rng.choice([0.0, 0.0, 0.05, 2.0, 3600.0, 1e5, 3e7])
                    begins.append(at)
                    at += sound.shape[1] / RATE
                tracks.append(
                    Track([(begin, sound) for begin in begins], language=rng.choice(["", "eng", "ger", "qaa"]))
                )
            contents = container("matroska", *tracks, picture=rng.choice([0.0, 5.0]))
            contents = rng.choice([lambda c, _: c, *MUTATIONS])(contents, rng)
            return handed_over(contents, rng.choice(["path", "bytes", "file", "stream"]), folder / "film.mkv")

        track = rng.choice([None, None, 0, 1, 7, "en", "German", "qaa", "x" * 9])
        keeps, separate = rng.choice([False, True]), rng.choice(["mix", "separate"])
        options = {"audio_track": lambda track=track: track, "container_time": lambda keeps=keeps: keeps}
        if i % 4 == 0:  # an hour of silence is much for a model
            options = {**options, "channels": lambda separate=separate: separate, "clip_timestamps": lambda: "0,3"}
        yield Case(f"film-{track}-{keeps}-{i}", "transcribe" if i % 4 == 0 else "load_audio", make, options)


class Odd(io.BytesIO):
    """A file object some of whose methods are somebody else's."""

    def __init__(self, contents: bytes, **methods: Callable[..., Any]) -> None:
        super().__init__(contents)
        for name, method in methods.items():
            setattr(self, name, method)


class Reader:
    """Nothing but ``read``."""

    def __init__(self, read: Callable[..., Any]) -> None:
        self.read = read


def raising(error: BaseException) -> Callable[..., Any]:
    def function(*_: Any, **__: Any) -> Any:
        raise error

    return function


def file_objects() -> Iterator[Case]:
    sound = wav(speech())

    def pieces(*answers: Any) -> Callable[..., Any]:
        left = list(answers)
        return lambda *_: left.pop(0) if left else b""

    def closed(_: Path) -> Any:
        file = io.BytesIO(sound)
        file.close()
        return file

    made: dict[str, Callable[[Path], Any]] = {
        "read raises OSError": lambda _: Reader(raising(OSError("the disk is gone"))),
        "read raises ValueError": lambda _: Reader(raising(ValueError("closed"))),
        "read gives None": lambda _: Reader(lambda *_: None),
        "read gives text": lambda _: Reader(lambda *_: "abc"),
        "read gives numbers": lambda _: Reader(lambda *_: 5),
        "read gives nothing": lambda _: Reader(lambda *_: b""),
        "read gives single bytes": lambda _: Reader(pieces(*(sound[i : i + 1] for i in range(3000)))),
        "read gives None late": lambda _: Reader(pieces(sound, None)),
        "read gives text late": lambda _: Reader(pieces(sound[:5000], "abc")),
        "read raises late": lambda _: Reader(lambda *_, answers=[sound]: answers.pop()),
        "read gives more than asked": lambda _: Reader(pieces(sound * 50)),
        "read gives views": lambda _: Reader(pieces(memoryview(sound))),
        "read takes no size": lambda _: Reader(lambda answers=[sound, b""]: answers.pop(0)),
        "read is no function": lambda _: Reader(5),  # type: ignore[arg-type]
        "seekable, read raises": lambda _: Odd(sound, read=raising(OSError("the disk is gone"))),
        "seekable, read gives None": lambda _: Odd(sound, read=lambda *_: None),
        "seekable, read gives text": lambda _: Odd(sound, read=lambda *_: "abc"),
        "seekable, read gives too much": lambda _: Odd(sound, read=lambda *_: sound),
        "seekable, read gives little": lambda _: Odd(sound, read=pieces(b"R", b"I", b"F")),
        "seek raises": lambda _: Odd(sound, seek=raising(OSError("no seek"))),
        "seek gives None": lambda _: Odd(sound, seek=lambda *_: None),
        "seek goes nowhere": lambda _: Odd(sound, seek=lambda *_: 0),
        "seek gives text": lambda _: Odd(sound, seek=lambda *_: "0"),
        "tell raises": lambda _: Odd(sound, tell=raising(OSError("no tell"))),
        "tell gives None": lambda _: Odd(sound, tell=lambda *_: None),
        "seekable raises": lambda _: Odd(sound, seekable=raising(ValueError("who knows"))),
        "seekable lies": lambda _: Odd(sound, seekable=lambda: False),
        "closed": closed,
        "text": lambda _: io.StringIO("abc"),
        "text file": lambda folder: (folder / "a.txt").open("w+", encoding="utf-8"),
        "written only": lambda folder: (folder / "a.wav").open("wb"),
        "folder opened": lambda folder: os.open(folder, os.O_RDONLY),
        "name raises": lambda _: Reader(lambda *_: b""),
        "string table": lambda _: struct.Struct("<I"),
        "class": lambda _: io.BytesIO,
        "empty file": lambda _: io.BytesIO(),
        "at its end": lambda _: at_end(io.BytesIO(sound)),
    }
    for i, (name, make) in enumerate(made.items()):
        yield Case(f"object-{name}", ["load_audio", "transcribe"][i % 2], make)


def at_end(file: io.BytesIO) -> io.BytesIO:
    file.seek(0, os.SEEK_END)
    return file
