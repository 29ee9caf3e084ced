"""Containers that tests write: several tracks, with languages, sound that begins late, gaps, a picture beside it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np

from .test_audio import LAYOUTS, RATE


@dataclass(frozen=True)
class Track:
    """An audio track: when each stretch of its sound begins, in seconds, and the sound, int16 ``(n_channels, n)``."""

    stretches: Sequence[tuple[float, np.ndarray]]
    codec: str = "flac"
    language: str = ""
    title: str = ""
    is_default: bool = False
    rate: int = RATE


def container(format: str, *tracks: Track, picture: float = 0.0, options: dict[str, str] | None = None) -> bytes:
    """The contents of a file; with a picture from `picture` seconds' length on, which begins at 0."""
    file = io.BytesIO()
    with av.open(file, "w", format=format, options=options or {}) as out:
        video = out.add_stream("mpeg4", rate=5, width=16, height=16, pix_fmt="yuv420p") if picture else None
        streams = [_add(out, track) for track in tracks]
        packets = [p for stream, track in zip(streams, tracks, strict=True) for p in _packets(stream, track)]
        if video is not None:
            for i in range(round(picture * 5)):
                frame = av.VideoFrame(16, 16, "yuv420p")
                frame.pts = i
                packets += video.encode(frame)
            packets += video.encode(None)
        for packet in sorted(packets, key=lambda p: (p.dts or 0) * p.time_base):
            out.mux(packet)
    return file.getvalue()


def _add(out: av.container.OutputContainer, track: Track) -> av.AudioStream:
    stream = out.add_stream(track.codec, rate=track.rate, layout=LAYOUTS[len(track.stretches[0][1])])
    if track.language:
        stream.metadata["language"] = track.language
    if track.title:
        stream.metadata["title"] = track.title
    stream.disposition = av.stream.Disposition.default if track.is_default else av.stream.Disposition(0)
    return stream


def _packets(stream: av.AudioStream, track: Track) -> list[av.Packet]:
    """Encode each stretch at its time; between two of them no packet is made."""
    packets = []
    stream.codec_context.open()
    size = stream.codec_context.frame_size or 1024  # of a last one that is not full, nothing is written
    to = av.AudioResampler(stream.format, stream.layout, track.rate, size)
    for begin, samples in track.stretches:
        for at in range(0, samples.shape[1] - samples.shape[1] % size, size):
            piece = samples[:, at : at + size].T.reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(piece), "s16", LAYOUTS[len(samples)])
            frame.sample_rate, frame.time_base = track.rate, Fraction(1, track.rate)
            frame.pts = round(begin * track.rate) + at
            for ready in to.resample(frame):
                ready.pts, ready.time_base = frame.pts, frame.time_base
                packets += stream.encode(ready)
    return packets + stream.encode(None)
