"""Where live sound comes from: a microphone, standard input, or a file that is played at its own speed.

Each source is an iterator of float32 samples at 16 kHz, which waits for the next sound. Knows no session.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import numpy as np

from ..errors import AudioError, MissingDependencyError, OptionError
from ..media.arriving import ALAW, ULAW, Decoder, Resampler
from ..media.reader import stream
from ..media.sources import is_standard_input, standard_input
from ..options.types import TEXT, check_values, one_of, option, whole
from ..spans import SAMPLE_RATE

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame

Samples = np.ndarray[Any, np.dtype[np.float32]]
Clock: TypeAlias = Callable[[], float]
Sleep: TypeAlias = Callable[[float], None]

SOURCE = "where the sound comes from"
AUTO, PCM = "auto", "s16le"
PIECE = SAMPLE_RATE // 10  # samples that a file or a microphone gives at once
READ = 1 << 15  # bytes, at most
LOOK = 0.2  # seconds between two looks at whether the microphone's program was interrupted
# what the demuxer reads before it starts, and no file or address that the sound names
STREAMED = {"probesize": "4096", "analyzeduration": "0", "protocol_whitelist": "none"}


@dataclass(frozen=True)
class SourceOptions:
    """How the sound arrives.

    Raises
    ------
    OptionError
        A value is of another type or out of its range.
    """

    format: str = option(
        SOURCE, AUTO, one_of(AUTO, PCM, ULAW, ALAW),
        "what standard input holds: auto, a file of any common format that can be read from a pipe; s16le, raw 16-bit "
        "samples of one channel; ulaw or alaw, G.711",
    )  # fmt: skip
    rate: int = option(SOURCE, SAMPLE_RATE, whole(4000, 192000), "hertz of raw sound on standard input")
    microphone: str | None = option(
        SOURCE, None, TEXT, "name, or a part of it, or number of the microphone; where not given, the system's default"
    )

    def __post_init__(self) -> None:
        check_values(self)


def pieces_of(source: str | None, options: SourceOptions) -> Iterator[Samples]:
    """Return the sound of a source as it comes.

    Parameters
    ----------
    source
        The path or address of a recording, ``-`` for standard input, None for a microphone.
    options
        How it arrives.

    Raises
    ------
    AudioError
        It cannot be read, or there is no microphone; with the first piece.
    MissingDependencyError
        A microphone needs a package, or a library, that is not installed.
    OptionError
        Options of standard input are given with another source.
    """
    if options.format != AUTO and (source is None or not is_standard_input(source)):
        raise OptionError(f"format {options.format} is for standard input: give - as the source")
    if source is None:
        return microphone(options.microphone)
    if is_standard_input(source):
        file = standard_input()
        return container(file) if options.format == AUTO else raw(file, options)
    return in_real_time(scaled(stream(source, SAMPLE_RATE)))


def scaled(pieces: Iterable[Any]) -> Iterator[Samples]:
    """Give 16-bit samples as floats, in pieces of a tenth of a second at most."""
    for piece in pieces:
        floats = piece.astype(np.float32) / np.float32(32768.0)
        for begin in range(0, len(floats), PIECE):
            yield floats[begin : begin + PIECE]


def in_real_time(
    pieces: Iterable[Samples], clock: Clock = time.monotonic, sleep: Sleep = time.sleep
) -> Iterator[Samples]:
    """Give each piece when it would have been spoken, counted from when the first was asked for."""
    start, n = clock(), 0
    for piece in pieces:
        n += len(piece)
        if (wait := start + n / SAMPLE_RATE - clock()) > 0:
            sleep(wait)
        yield piece


def raw(file: BinaryIO, options: SourceOptions) -> Iterator[Samples]:
    """Give the samples of raw sound as its bytes come."""
    decoder = Decoder("pcm" if options.format == PCM else options.format, options.rate, SAMPLE_RATE)
    while data := _read(file, READ):
        yield from scaled([decoder.push(data)])
    yield from scaled([decoder.finish()])


def container(file: BinaryIO) -> Iterator[Samples]:
    """Give the samples of a recording that comes through a pipe, whose format needs no seeking."""
    import av

    try:
        with av.open(_Pipe(file), mode="r", metadata_errors="ignore", options=STREAMED) as opened:
            if not opened.streams.audio:
                raise AudioError("standard input has no sound in it")
            yield from scaled(_decoded(opened.decode(opened.streams.audio[0])))
    except av.FFmpegError as error:
        raise AudioError(
            f"standard input cannot be read as a recording while it comes: {error.strerror or error}; send raw samples "
            "with --format s16le --rate HERTZ, or a format that needs no seeking, such as Ogg, WebM, MP3 or WAV"
        ) from error


def _decoded(frames: Iterable[AudioFrame]) -> Iterator[Any]:
    """Mix to one channel, and resample; a frame of another shape than those before begins anew."""
    import av

    mixer, shape = None, None
    for frame in frames:
        frame.pts = None
        if shape != (shape := (frame.format.name, frame.layout.name, frame.sample_rate)) or mixer is None:
            if mixer is not None:
                yield from (out.to_ndarray()[0] for out in mixer.resample(None))
            mixer = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
        yield from (out.to_ndarray()[0] for out in mixer.resample(frame))
    if mixer is not None:
        yield from (out.to_ndarray()[0] for out in mixer.resample(None))


class _Pipe:
    """A file object for PyAV that gives what has come, and does not wait for as much as is asked for."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, n: int = -1) -> bytes:
        return _read(self._file, READ if n < 0 else n)


def _read(file: BinaryIO, n: int) -> bytes:
    read: Callable[[int], bytes] = getattr(file, "read1", file.read)
    try:
        return read(n)
    except OSError as error:
        raise AudioError(f"standard input cannot be read: {error}") from error


def microphone(name: str | None = None) -> Iterator[Samples]:
    """Give what a microphone hears, until the iterator is closed.

    Parameters
    ----------
    name
        A part of its name, or its number; None for the system's default.

    Raises
    ------
    AudioError
        There is no such microphone, or it fails.
    MissingDependencyError
        sounddevice is not installed, or the library PortAudio.
    """
    try:
        import sounddevice
    except ImportError:
        raise MissingDependencyError("a microphone needs the package sounddevice", "live") from None
    except OSError as error:
        raise MissingDependencyError(
            f"a microphone needs the library PortAudio ({error}): install it (libportaudio2 on Debian and Ubuntu), or "
            "send the sound in: arecord -f S16_LE -r 16000 | whisper live - --format s16le"
        ) from None
    device = int(name) if name is not None and name.isdecimal() else name
    heard: queue.Queue[bytes] = queue.Queue()  # not `SimpleQueue`, whose `get` may outlast its timeout: CPython 3.11

    def take(data: Any, n_frames: int, at: Any, status: Any) -> None:
        heard.put(bytes(data))

    try:
        rate = int(sounddevice.query_devices(device, "input")["default_samplerate"])
        resampler = Resampler(rate, SAMPLE_RATE)
        with sounddevice.RawInputStream(
            samplerate=rate, blocksize=rate // 20, device=device, channels=1, dtype="int16", callback=take
        ) as opened:
            while opened.active:
                try:
                    data = heard.get(timeout=LOOK)
                except queue.Empty:
                    continue
                yield from scaled([resampler.push(np.frombuffer(data, np.int16))])
    except (sounddevice.PortAudioError, ValueError) as error:
        raise AudioError(f"the microphone cannot be used: {error}") from error
    raise AudioError("the microphone has stopped: it may have been unplugged")
