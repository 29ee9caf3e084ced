"""Recordings in any container and codec, decoded to mono 16-bit samples at one rate, through PyAV.

FFmpeg's own libraries, which the PyAV wheel carries, do the work with the defaults that the `ffmpeg` program
uses, so the samples are those of ``ffmpeg -i FILE -f s16le -ac 1 -ar RATE -`` and the program is not needed.
Damaged parts are skipped as the program skips them, and always with a warning. Computes no
spectrogram, and changes neither length nor loudness.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from ..errors import AudioError
from .containers import Recording
from .sources import Opened, openable
from .sources import Source as Source

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.filter import Graph

Samples: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

_PIECE = 1 << 16  # samples that the resampler takes and gives at once: few large pieces cost less than many small
# FFmpeg's default layout for a number of channels (libavutil/channel_layout.c).
_LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
_COMMON = "WAV, FLAC, MP3, M4A, MP4, Ogg, Opus, WebM, AAC, AMR, AIFF, CAF or WMA"  # in a message
_FORMATS = {"int16": ("s16", "s16"), "int32": ("s32", "s16"), "float32": ("flt", "flt")}


def decode(source: Source, rate: int, *, audio_track: int | str | None = None, container_time: bool = False) -> Samples:
    """Decode an audio track of `source`, mixed down to one channel, at `rate` hertz.

    Parameters
    ----------
    source
        A path, a URL that FFmpeg understands, ``-`` for standard input, the contents of a file, or a binary file
        object. A file object is read from its beginning and neither closed nor moved; one that cannot seek is read to
        its end.
    rate
        Samples per second of the result.
    audio_track
        Its number among the audio tracks, from 0, or its language; None is the one that the `ffmpeg` program takes.
    container_time
        Insert silence before a late start and into gaps, so that times are those of the container.

    Returns
    -------
    Samples, shape ``(n_samples,)``, int16; none where the recording is valid but has none.

    Raises
    ------
    AudioError
        There is no such file, it is empty, it is no recording, it has no audio stream, or nothing in it can be
        decoded.
    OptionError
        It has no such track.

    Warns
    -----
    RuntimeWarning
        Some of the recording is broken, missing or not read; the rest is returned. Or it has several tracks, or times
        are not the container's.
    """
    pieces = stream(source, rate, audio_track=audio_track, container_time=container_time)
    return np.concatenate([np.zeros(0, np.int16), *pieces])


def stream(
    source: Source,
    rate: int,
    *,
    apart: bool = False,
    audio_track: int | str | None = None,
    container_time: bool = False,
    formats: Sequence[str] | None = None,
) -> Iterator[Samples]:
    """Decode like `decode`, piece by piece as they are asked for: of any recording only a little is in memory.

    The errors come with the first piece, the warnings with the end. Until then a file object belongs to the iterator.
    With `apart` the channels are not mixed, and there may be any number of them: each piece is ``(n_channels, n)``,
    with as many as the recording has where it begins. With `formats`, FFmpeg's names of containers, others are refused.
    """
    import av

    opened = openable(source)
    if formats is not None:
        opened = opened._replace(options={**opened.options, "format_whitelist": ",".join(formats)})
    name, file, options = opened
    place = None if isinstance(file, str) else file.tell()
    try:
        if place is not None:
            file.seek(0)
        with av.open(file, mode="r", metadata_errors="ignore", options=options) as container:
            frames = Recording(opened, container, audio_track, container_time).frames()
            for piece in _resampled(frames, rate, apart=apart):
                yield piece if apart else piece[0]
    except _LayoutError as error:
        raise AudioError(f"{name} {error}") from None
    except av.FFmpegError as error:
        if formats is not None and (refused := _refused_format(opened)):
            raise AudioError(
                f"{name} is in the format {refused}, which is not read here; use one of {_COMMON}"
            ) from None
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


def _refused_format(opened: Opened) -> str | None:
    """Return the format that is not in the list of those allowed; None where it is, or is not known.

    FFmpeg's error does not name it, but its log does.
    """
    import av

    level = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)
    try:
        if not isinstance(opened.file, str):
            opened.file.seek(0)
        with av.logging.Capture() as lines, contextlib.suppress(av.FFmpegError):
            av.open(opened.file, metadata_errors="ignore", options=opened.options).close()
    finally:
        av.logging.set_level(level)
    return next((demuxer for _, demuxer, text in lines if text.startswith("Format not on whitelist")), None)


class _LayoutError(Exception):
    """Channels that cannot be mixed down; the caller adds the name of the recording."""


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
        new_shape = frame.format.name, frame.layout.name, frame.sample_rate
        if new_shape != shape:
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
