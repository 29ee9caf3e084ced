"""Recordings in any container and codec, decoded to mono 16-bit samples at one rate, through PyAV.

FFmpeg's own libraries, which the PyAV wheel carries, do the work with the defaults that the `ffmpeg` program
uses, so the samples are those of ``ffmpeg -i FILE -f s16le -ac 1 -ar RATE -`` and the program is not needed.
What cannot be decoded is left out as the program leaves it out, but never without a warning.
Knows nothing of Whisper, and of sound only samples: no spectrogram, no trimming, no loudness.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import reprlib
import warnings
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, cast

import numpy as np

from .errors import AudioError
from .spool import Spool, SpoolReader

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.filter import Graph

Source: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO"
Samples: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+:")  # two letters and more: a drive of Windows is no scheme
# A playlist that arrives as bytes (say, an upload) may not make us open files or addresses that it names.
_CLOSED = {"protocol_whitelist": "none"}
_PATHS = reprlib.Repr()
_PATHS.maxstring = 500  # characters of a name that may be no name at all
_READ = 1 << 20  # bytes read at once from what cannot seek
_PIECE = 1 << 16  # samples that the resampler takes and gives at once: few large pieces cost less than many small
# Containers that state their length, where others estimate it from the bit rate or say nothing.
_EXACT = {"mov,mp4,m4a,3gp,3g2,mj2", "flac", "aiff", "caf", "w64", "au"}
_GAP = 0.015  # seconds; the shortest packets in use last 20 ms, and rounded time stamps waver by 10 at most
# FFmpeg's layout for a number of channels that nobody named (libavutil/channel_layout.c).
_LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
_FORMATS = {"int16": ("s16", "s16"), "int32": ("s32", "s16"), "float32": ("flt", "flt")}


def decode(source: Source, rate: int) -> Samples:
    """Decode the best audio stream of `source`, mixed down to one channel, at `rate` hertz.

    Parameters
    ----------
    source
        A path, a URL that FFmpeg understands, the contents of a file, or a binary file object. A file object
        is read from its beginning and neither closed nor moved; one that cannot seek is read to its end.
    rate
        Samples per second of the result.

    Returns
    -------
    Samples, shape ``(n_samples,)``, int16; none where the recording is valid but has none.

    Raises
    ------
    AudioError
        There is no such file, it is empty, it is no recording, it has no audio stream, or nothing in it can be
        decoded.

    Warns
    -----
    RuntimeWarning
        Some of the recording is broken, or its end is missing; the rest is returned.
    """
    return np.concatenate([np.zeros(0, np.int16), *stream(source, rate)])


def stream(source: Source, rate: int, *, apart: bool = False) -> Iterator[Samples]:
    """Decode like `decode`, piece by piece as they are asked for: of any recording only a little is in memory.

    The errors come with the first piece, the warnings with the end. Until then a file object belongs to the iterator.
    With `apart` the channels are not mixed, and there may be any number of them: each piece is ``(n_channels, n)``,
    with as many as the recording has where it begins.
    """
    import av

    name, file, options = _openable(source)
    place = None if isinstance(file, str) else file.tell()
    try:
        if place is not None:
            file.seek(0)
        with av.open(file, mode="r", metadata_errors="ignore", options=options) as container:
            for piece in _resampled(_Recording(container, name).frames(), rate, apart=apart):
                yield piece if apart else piece[0]
    except _LayoutError as error:
        raise AudioError(f"{name} {error}") from None
    except av.FFmpegError as error:
        raise AudioError(f"{name} cannot be read as a recording: {error.strerror or error}") from error
    finally:
        if place is not None:
            file.seek(place)


def resample(samples: Samples, rate: int, new_rate: int) -> Samples:
    """Mix ``(n_channels, n_samples)`` down to one channel and bring it from `rate` to `new_rate` hertz.

    int16 and int32 come back as int16, just as from a file that holds these samples; float32 comes back as
    float32 and is never clipped. At most 8 channels.
    """
    import av

    source_format, target_format = _FORMATS[samples.dtype.name]

    def frames() -> Iterator[AudioFrame]:
        for start in range(0, samples.shape[1], _PIECE):
            # Interleaved, (1, n_samples * n_channels): PyAV 18 miscounts the planes of 8 separate channels.
            piece = samples[:, start : start + _PIECE].T.reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(piece, format=source_format, layout=_LAYOUTS[len(samples)])
            frame.sample_rate = rate
            yield frame

    pieces = [piece[0] for piece in _resampled(frames(), new_rate, target_format)]
    return np.concatenate([np.zeros(0, np.int16 if target_format == "s16" else np.float32), *pieces])


def _openable(source: Any) -> tuple[str, Any, dict[str, str]]:
    """How to call the source in a message, what PyAV is to open, and the options of the demuxer."""
    if isinstance(source, (str, os.PathLike)):
        return _openable_path(os.fspath(source))
    if isinstance(source, (bytes, bytearray, memoryview)):
        name, contents = "the recording given as bytes", source
    elif isinstance(source, type) or not hasattr(source, "read"):
        raise AudioError(
            f"{type(source).__name__} is nothing to read sound from: give a path, bytes, a binary file object, "
            "or samples as an array"
        )
    else:
        name = f"the file object {getattr(source, 'name', None) or type(source).__name__}"
        file = _Foreign(source, name)
        if hasattr(source, "seekable") and not isinstance(source, io.TextIOBase) and file.ask("seekable"):
            return name, file, _CLOSED
        return name, _read_to_the_end(file, name), _CLOSED
    if len(contents) == 0:
        raise AudioError(f"{name} is empty (0 bytes)")
    return name, io.BytesIO(contents), _CLOSED


class _Foreign:
    """A file object of somebody else, for PyAV: what it raises is an `AudioError`, and what it gives is looked at.

    PyAV copies whatever `read` gives into a buffer of the size that it asked for.
    """

    def __init__(self, source: Any, name: str) -> None:
        self._source, self._name = source, name

    def ask(self, method: str, *arguments: Any) -> Any:
        try:
            return getattr(self._source, method)(*arguments)
        except Exception as error:  # whatever somebody else's code raises
            raise AudioError(f"{self._name} fails to {method}: {type(error).__name__}: {error}") from error

    def piece(self, size: int) -> bytes | bytearray:
        data = self.ask("read", size)
        if not isinstance(data, (bytes, bytearray)):
            raise AudioError(f"{self._name} gives {type(data).__name__}, not bytes; open it in binary mode")
        return data

    def read(self, size: int) -> bytes:
        data = self.piece(size)
        if len(data) > size:
            raise AudioError(f"{self._name} gives {len(data)} bytes where {size} were asked for")
        return bytes(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        place = self.ask("seek", offset, whence)
        return self.tell() if place is None else self._place(place)

    def tell(self) -> int:
        return self._place(self.ask("tell"))

    def _place(self, place: Any) -> int:
        if not isinstance(place, int):
            raise AudioError(f"{self._name} is at the place {reprlib.repr(place)}, which is no whole number")
        return place


def _read_to_the_end(source: _Foreign, name: str) -> BinaryIO:
    """What a file object holds that cannot seek, as one that can."""
    spool = Spool()
    while piece := source.piece(_READ):
        spool.append(piece)
    if spool.n_bytes == 0:
        raise AudioError(f"{name} is empty (0 bytes)")
    return cast("BinaryIO", SpoolReader(spool))


def _openable_path(path: str | bytes) -> tuple[str, str, dict[str, str]]:
    path = os.fsdecode(path)
    if not os.path.exists(path):
        if _URL.match(path):
            return path, path, {}
        raise AudioError(f"there is no file {_PATHS.repr(path)}")
    if os.path.isdir(path):
        raise AudioError(f"{path!r} is a folder, not a recording")
    if os.path.isfile(path) and os.path.getsize(path) == 0:
        raise AudioError(f"{path!r} is empty (0 bytes)")
    return repr(path), "file:" + path, {}  # a name may hold a colon, which FFmpeg would take for a protocol


class _LayoutError(Exception):
    """Channels that cannot be mixed down, told without the name of the recording."""


class _Recording:
    """The audio stream of an open container, and the account of what of it could not be had."""

    def __init__(self, container: Any, name: str) -> None:
        self.container, self.name = container, name
        self.stream = self._best_stream()
        self.stream.thread_type = "AUTO"
        self.decoded = 0.0  # seconds
        self.n_broken = 0  # packets
        self.missing = 0.0  # seconds that the time stamps jump over
        self.first_gap = -1.0  # where the first jump is, in seconds of what was decoded
        self.expected: float | None = None  # the next time stamp, in seconds
        self.stopped = ""  # why reading ended early

    def frames(self) -> Iterator[AudioFrame]:
        """Every frame that can be decoded; the account is given at the end."""
        import av

        # Only uncompressed floats can carry NaN; conversion to integers would turn it into the loudest click.
        floats = self.stream.codec_context.name.startswith("pcm_f")
        for packet in self._packets():
            try:
                frames = self.stream.decode(packet)
            except av.FFmpegError:
                self.n_broken += 1
                continue
            for frame in frames:
                if floats and not np.isfinite(frame.to_ndarray()).all():
                    raise AudioError(f"{self.name} has samples that are NaN or infinite near {self.decoded:.2f} s")
                self._follow(frame)
                yield frame
        self._account()

    def _follow(self, frame: AudioFrame) -> None:
        """Add up what lies between the frames: some decoders (alac, opus) drop a broken packet without a word."""
        seconds = frame.samples / (frame.sample_rate or 1)
        if frame.time is not None:
            jump = frame.time - self.expected if self.expected is not None else 0.0
            if abs(jump) >= _GAP:
                self.missing += jump
                self.first_gap = self.decoded if self.first_gap < 0 else self.first_gap
            self.expected = frame.time + seconds
        self.decoded += seconds

    def _packets(self) -> Iterator[Any]:
        import av

        packets = self.container.demux(self.stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.FFmpegError as error:  # the program, too, keeps what it has read until here
                self.stopped = error.strerror or str(error)
                yield None  # asks the decoder for what it still holds
                return
            yield packet

    def _best_stream(self) -> Any:
        """The stream that the `ffmpeg` program takes: a default one, then the one with most channels."""

        def score(stream: Any) -> int:
            disposition = getattr(stream, "disposition", None)  # PyAV 13 does not tell it
            is_default = getattr(disposition, "value", 0) & 1  # AV_DISPOSITION_DEFAULT
            return int(stream.codec_context.channels) + 5_000_000 * is_default

        streams = self.container.streams.audio
        if not streams:
            raise AudioError(f"{self.name} has no audio stream")
        usable = [s for s in streams if s.codec_context is not None and s.codec_context.channels > 0]
        if not usable:
            raise AudioError(f"{self.name} has an audio stream of an unknown codec: broken, or no recording at all")
        return max(usable, key=score)

    def _seconds(self, duration: int | None) -> float:
        return float((duration or 0) * (self.stream.time_base or 0))

    def _account(self) -> None:
        """Report what was lost: an error where nothing is left, a warning where something is."""
        promised = self._seconds(self.stream.duration) if self.container.format.name in _EXACT else 0.0
        if self.decoded == 0 and (self.n_broken or self.stopped or promised > 0.1):
            raise AudioError(f"{self.name} is truncated or broken: none of its sound can be decoded")
        losses = []
        if self.n_broken:
            losses.append(f"{self.n_broken} broken packets were left out")
        if self.missing >= _GAP:
            losses.append(f"{self.missing:.2f} s of its time hold no sound, the first at {self.first_gap:.2f} s")
        if self.stopped:
            losses.append(f"reading stopped after {self.decoded:.2f} s ({self.stopped})")
        elif promised - self.decoded - self.missing > max(0.5, 0.01 * promised):
            losses.append(f"it is truncated: {self.decoded:.2f} s of {promised:.2f} s are there")
        if losses:
            warnings.warn(f"{self.name}: {'; '.join(losses)}", RuntimeWarning, stacklevel=2)


def _resampled(
    frames: Iterable[AudioFrame], rate: int, format: str = "s16", *, apart: bool = False
) -> Iterator[Samples]:
    """One channel at `rate`, or those of the first frame, from frames that may change their rate, layout or format.

    Each piece is ``(n_channels, n)``.
    """
    graph: Graph | None = None
    shape: tuple[str, str, int] | None = None
    target = "" if apart else "mono"
    for frame in frames:
        frame.pts = None  # like the program, which neither fills gaps nor drops overlaps
        if (new_shape := (frame.format.name, frame.layout.name, frame.sample_rate)) != shape:
            if graph is not None:
                yield from _pushed(graph, None)
            shape = new_shape
            target = target or frame.layout.name
            graph = _graph(*shape, rate, format, target)
        yield from _pushed(cast("Graph", graph), frame)
    if graph is not None:
        yield from _pushed(graph, None)


def _graph(source_format: str, layout: str, source_rate: int, rate: int, format: str, target_layout: str) -> Graph:
    """The filters that the `ffmpeg` program builds for ``-ac N -ar RATE``."""
    import av
    from av.filter import Graph

    graph = Graph()
    source = graph.add(
        "abuffer",
        sample_rate=str(source_rate),
        sample_fmt=source_format,
        channel_layout=layout,
        time_base=f"1/{source_rate}",
    )
    # Between floats swresample would let a mixture grow louder than its parts; to integers it never does.
    convert = graph.add("aresample", **({"rematrix_maxval": "1"} if format == "flt" else {}))
    target = graph.add("aformat", sample_rates=str(rate), sample_fmts=format, channel_layouts=target_layout)
    graph.link_nodes(source, convert, target, graph.add("abuffersink"))
    try:
        graph.configure()
    except av.FFmpegError as error:
        raise _LayoutError(
            f"has {layout}, and FFmpeg does not know which is which ({source_format}, {source_rate} Hz); "
            "mix them down first"
        ) from error
    graph.set_audio_frame_size(_PIECE)
    return graph


def _pushed(graph: Graph, frame: AudioFrame | None) -> Iterator[Samples]:
    """Give a frame to the graph, or the end, and take what it has ready, each ``(n_channels, n_samples)``."""
    import av

    graph.push(frame)
    with contextlib.suppress(av.EOFError, av.BlockingIOError):  # it has no more, or no more yet
        while True:
            ready = cast("AudioFrame", graph.pull())
            yield ready.to_ndarray().reshape(-1, ready.layout.nb_channels).T  # (1, n * n_channels) -> (n_channels, n)
