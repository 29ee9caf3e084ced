"""Recordings in any container and codec, decoded to mono 16-bit samples at one rate, through PyAV.

FFmpeg's own libraries, which the PyAV wheel carries, do the work with the defaults that the `ffmpeg` program
uses, so the samples are those of ``ffmpeg -i FILE -f s16le -ac 1 -ar RATE -`` and the program is not needed.
Knows nothing of Whisper, and of sound only samples: no spectrogram, no trimming, no loudness.
"""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from .errors import AudioError

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+:")  # two letters and more: a drive of Windows is no scheme
_FRAME_SAMPLES = 1 << 16  # what the resampler hands over at once; few large pieces cost less than many small


def decode(
    source: str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO, rate: int
) -> np.ndarray:
    """Decode the best audio stream of `source`, mixed down to one channel, at `rate` hertz.

    Parameters
    ----------
    source
        A path, a URL that FFmpeg understands, the contents of a file, or a binary file object. A file object is
        read from its beginning and neither closed nor moved; one that cannot seek is read to its end.
    rate
        Samples per second of the result.

    Returns
    -------
    Samples, shape ``(n_samples,)``, int16; without any where the recording is valid but has none.

    Raises
    ------
    AudioError
        There is no such file, it is empty, it is no recording, or it has no audio stream.
    """
    import av

    name, opened, options = _openable(source)
    place = opened.tell() if isinstance(opened, io.IOBase) and opened is source else None
    try:
        with av.open(opened, mode="r", metadata_errors="ignore", options=options) as container:
            stream = _best_stream(container.streams.audio, name)
            stream.thread_type = "AUTO"
            pieces = list(_resampled(_frames(container, stream, name), rate))
    except av.FFmpegError as error:
        raise AudioError(f"{name} cannot be read as a recording: {error.strerror or error}") from error
    finally:
        if place is not None:
            opened.seek(place)
    return np.concatenate(pieces) if pieces else np.zeros(0, np.int16)


def resample(samples: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """Mix ``(n_channels, n_samples)`` down to one channel and bring it from `rate` to `new_rate` hertz.

    int16 and int32 come back as int16, exactly as from a file with these samples; float32 comes back as
    float32 and is never clipped.
    """
    import av
    from av.audio.layout import AudioLayout

    formats = {"int16": ("s16p", "s16"), "int32": ("s32p", "s16"), "float32": ("fltp", "flt")}
    source_format, target_format = formats[samples.dtype.name]
    layout = AudioLayout(_DEFAULT_LAYOUTS[len(samples)])

    def frames() -> Iterator[AudioFrame]:
        for start in range(0, samples.shape[1], _FRAME_SAMPLES):
            piece = np.ascontiguousarray(samples[:, start : start + _FRAME_SAMPLES])
            frame = av.AudioFrame.from_ndarray(piece, format=source_format, layout=layout)
            frame.sample_rate = rate
            yield frame

    pieces = list(_resampled(frames(), new_rate, target_format))
    return (
        np.concatenate(pieces) if pieces else np.zeros(0, target_format == "s16" and np.int16 or np.float32)
    )


# FFmpeg's layout for a number of channels that nobody named (libavutil/channel_layout.c)
_DEFAULT_LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}


def _openable(source: Any) -> tuple[str, Any, dict[str, str]]:
    """How to call the source in a message, what to hand to PyAV, and the demuxer's options."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        if len(source) == 0:
            raise AudioError("the recording is empty: 0 bytes were given")
        return f"the recording of {len(source):,} bytes", io.BytesIO(source), _CLOSED
    if isinstance(source, (str, os.PathLike)):
        return _openable_path(os.fspath(source))
    name = f"the file object {getattr(source, 'name', '') or type(source).__name__}"
    if not (hasattr(source, "seekable") and source.seekable()):
        contents = source.read()
        if not isinstance(contents, bytes):
            raise AudioError(f"{name} gives {type(contents).__name__}, not bytes; open it in binary mode")
        if not contents:
            raise AudioError(f"{name} is empty")
        return name, io.BytesIO(contents), _CLOSED
    return name, source, _CLOSED


# A playlist that comes as bytes (an upload) may not make us open other files or addresses.
_CLOSED = {"protocol_whitelist": "none"}


def _openable_path(path: str) -> tuple[str, str, dict[str, str]]:
    if not os.path.exists(path):
        if _URL.match(path):
            return path, path, {}
        raise AudioError(f"there is no file {path!r}")
    if os.path.isdir(path):
        raise AudioError(f"{path!r} is a folder, not a recording")
    if os.path.isfile(path) and os.path.getsize(path) == 0:
        raise AudioError(f"{path!r} is empty (0 bytes)")
    return repr(path), "file:" + path, {}


def _best_stream(streams: Any, name: str) -> AudioStream:
    """The stream that the `ffmpeg` program takes: the default one, then the one with most channels."""
    from av.stream import Disposition

    usable = [s for s in streams if s.codec_context is not None and s.codec_context.channels > 0]
    if not usable:
        raise AudioError(f"{name} has no audio stream")
    best: AudioStream = max(
        usable, key=lambda s: s.codec_context.channels + 5_000_000 * bool(s.disposition & Disposition.default)
    )
    return best


def _frames(container: Any, stream: AudioStream, name: str) -> Iterator[AudioFrame]:
    """Decode packet by packet; a packet that cannot be decoded is left out, counted, and told at the end."""
    import av

    broken, heard = 0, False
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.FFmpegError:
            broken += 1
            continue
        for frame in frames:
            heard = True
            yield frame
    if broken and not heard:
        raise AudioError(f"{name} cannot be decoded: all of its {broken} packets of {stream.name} are broken")
    if broken:
        warnings.warn(f"{name}: {broken} broken packets were left out", RuntimeWarning, stacklevel=4)


def _resampled(frames: Iterator[AudioFrame], rate: int, format: str = "s16") -> Iterator[np.ndarray]:
    """One channel at `rate` from frames that may change their rate, layout or format on the way."""
    import av

    resampler, shape = None, None
    for frame in frames:
        frame.pts = None  # like the program, which neither fills gaps nor drops overlaps
        if (new_shape := (frame.format.name, frame.layout.name, frame.sample_rate)) != shape:
            if resampler is not None:
                yield from _flat(resampler.resample(None))
            resampler = av.AudioResampler(format, "mono", rate, _FRAME_SAMPLES)
            shape = new_shape
        yield from _flat(resampler.resample(frame))
    if resampler is not None:
        yield from _flat(resampler.resample(None))


def _flat(frames: list[AudioFrame]) -> Iterator[np.ndarray]:
    for frame in frames:
        yield frame.to_ndarray().reshape(-1)  # (1, n) -> (n,)
