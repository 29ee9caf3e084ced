"""Subtitles put into a video as tracks, through PyAV: every packet of picture and sound is copied as it is.

Knows no transcript: takes the text of an SRT, ASS or WebVTT file for each track. Encodes nothing.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from heapq import merge
from typing import Any

from ..errors import AudioError, MissingDependencyError, OptionError
from ..files import Path, atomic_write
from ..subtitles.plain_text import WORD_JOINER
from ..utils import warn_caller

KEPT = (
    "video",
    "audio",
    "subtitle",
    "attachment",
)  # kinds of streams; others are of the camera, and no player reads them
_ENDINGS = {
    ".mp4": "mp4", ".m4v": "mp4", ".m4a": "mp4", ".mov": "mov", ".mkv": "matroska", ".mka": "matroska", ".webm": "webm",
}  # fmt: skip
_FORMATS = {"mp4": ("srt",), "mov": ("srt",), "webm": ("webvtt",), "matroska": ("srt", "ass", "webvtt")}
_STATISTICS = ("DURATION", "BPS", "NUMBER_OF_", "_STATISTICS_", "ENCODER")  # of Matroska, which are made anew
# the style that text in MP4 has unless a player has another
_STYLE = b"""[Script Info]
ScriptType: v4.00+
[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, \
StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding
Style: Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,0
[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""


@dataclass(frozen=True)
class TextTrack:
    """Subtitles that become a track.

    Parameters
    ----------
    text
        Of a file of this format; times count from the start of the video.
    format
        ``srt``, ``ass`` or ``webvtt``; see `formats_of`.
    language
        Three letters of ISO 639-2; empty where it is unknown.
    title
        What players show in their menu.
    """

    text: str
    format: str
    language: str = ""
    title: str = ""


def formats_of(path: Path) -> tuple[str, ...]:
    """Return the formats of text tracks that a video of this name can have, the usual one first.

    Raises
    ------
    OptionError
        No such container is written.
    """
    return _FORMATS[_container_of(path)]


def has_container(path: Path) -> bool:
    """Whether the ending is that of a container with text tracks."""
    return os.path.splitext(os.fspath(path))[1].lower() in _ENDINGS


def _container_of(path: Path) -> str:
    ending = os.path.splitext(os.fspath(path))[1].lower()
    if ending not in _ENDINGS:
        raise OptionError(f"{os.fspath(path)!r} names no container with text tracks: end it in {', '.join(_ENDINGS)}")
    return _ENDINGS[ending]


def embed(video: Path, target: Path, tracks: Sequence[TextTrack]) -> None:
    """Write a video again with further tracks of text, whole or not at all.

    Picture, sound, subtitles, attachments, chapters and tags stay what they are; streams of data, such as the
    time code of a camera, are left out with a warning. The first new track is shown by default, unless the video has
    one that is.

    Parameters
    ----------
    video
        The file.
    target
        Where to write; its ending says the container. Never the video itself.
    tracks
        What to add, in this order behind the tracks that there are.

    Raises
    ------
    AudioError
        The video cannot be read, or the container cannot hold one of its tracks. (A RuntimeError.)
    OptionError
        The target is the video, its container has no such text, or a track has no text. (A ValueError.)
    MissingDependencyError
        PyAV is older than 15.
    OSError
        The target cannot be written.
    """
    container = _container_of(target)
    for track in tracks:
        if track.format not in _FORMATS[container]:
            raise OptionError(f"{container} holds text as {', '.join(_FORMATS[container])}, not as {track.format}")
    if os.path.exists(target) and os.path.samefile(video, target):
        raise OptionError(f"{os.fspath(target)} is the video itself: give another name")
    import av

    if not hasattr(av.container.OutputContainer, "add_stream_from_template"):
        raise MissingDependencyError("writing tracks of text needs PyAV 15 or newer: pip install -U av")
    try:
        with (
            av.open(os.fspath(video)) as source,
            atomic_write(target) as file,
            av.open(file, "w", format=container) as out,
        ):
            _copy(source, out, tracks, container)
    except av.FFmpegError as error:
        if isinstance(error, FileNotFoundError):
            raise AudioError(f"{os.fspath(video)} does not exist") from None
        what = "cannot be read, or not be written as " + container
        raise AudioError(f"{os.fspath(video)} {what}: {error.strerror or error}") from error


def _copy(source: Any, out: Any, tracks: Sequence[TextTrack], container: str) -> None:
    """Copy all streams, and put the new ones among their packets in the order of time."""
    streams = {s.index: _copy_stream(out, s) for s in source.streams if s.type in KEPT}
    if lost := [s for s in source.streams if s.index not in streams]:
        warn_caller(f"{len(lost)} stream{'s' * (len(lost) > 1)} of data in the video cannot be copied, and left out")
    out.metadata.update({k: v for k, v in source.metadata.items() if not k.upper().startswith(_STATISTICS)})
    if hasattr(source, "chapters") and (chapters := source.chapters()):
        out.set_chapters(chapters)
    shown = any(s.type == "subtitle" and s.disposition & _default() for s in source.streams)
    start = (source.start_time or 0) / 1e6  # seconds: where times of texts count from
    with ExitStack() as stack:
        new = [
            _packets_of_text(stack, out, track, start, container, is_default=i == 0 and not shown)
            for i, track in enumerate(tracks)
        ]
        for packet in merge(_packets(source, streams), *new, key=_time):
            out.mux(packet)


def _default() -> Any:
    from av.stream import Disposition

    return Disposition.default


def _time(packet: Any) -> float:
    at = packet.dts if packet.dts is not None else packet.pts
    return 0.0 if at is None else float(at * packet.time_base)


def _copy_stream(out: Any, stream: Any) -> Any:
    try:
        copied = out.add_stream_from_template(stream)
    except ValueError as error:  # the container has no place for this codec
        raise AudioError(f"a track of {stream.type} cannot be copied: {error}") from error
    kept = {k: v for k, v in stream.metadata.items() if not k.upper().startswith(_STATISTICS)}
    if "name" in kept:  # so MP4 is read; it is written as the title
        kept.setdefault("title", kept.pop("name"))
    copied.metadata.update(kept)
    copied.disposition = stream.disposition
    return copied


def _packets(source: Any, streams: dict[int, Any]) -> Iterator[Any]:
    """Give the packets of the video in the order of the file, each for its stream in the new one."""
    for packet in source.demux([s for s in source.streams if s.index in streams and s.type != "attachment"]):
        if packet.size:  # those without contents only end a stream
            packet.stream = streams[packet.stream_index if hasattr(packet, "stream_index") else packet.stream.index]
            yield packet


def _packets_of_text(
    stack: ExitStack, out: Any, track: TextTrack, start: float, container: str, is_default: bool
) -> Iterator[Any]:
    """Add the stream of a track, and give its packets."""
    import av

    texts = stack.enter_context(av.open(io.BytesIO(track.text.encode("utf-8")), format=track.format))
    (read,) = texts.streams.subtitles
    is_mp4 = container in ("mp4", "mov")
    if is_mp4:
        stream = out.add_stream("mov_text")
        stream.codec_context.subtitle_header = _STYLE
    else:
        stream = out.add_stream_from_template(read)
    stream.metadata.update({"language": track.language or "und", **({"title": track.title} if track.title else {})})
    stream.disposition = _default() if is_default else av.stream.Disposition(0)
    packets = [packet for packet in texts.demux(read) if packet.size]
    if not packets:
        raise OptionError("there is no text to put into the video")
    return iter([_moved(packet, stream, start, is_mp4) for packet in packets])


def _moved(packet: Any, stream: Any, start: float, is_mp4: bool) -> Any:
    """Return a packet for its new stream; in MP4 the length of the text stands before it."""
    import av

    moved = packet
    if is_mp4:
        # MP4 has no tags that a word joiner must part
        text = bytes(packet).decode("utf-8").replace(WORD_JOINER, "").encode("utf-8")[:65535]
        moved = av.Packet(len(text).to_bytes(2, "big") + text)
        moved.time_base, moved.duration, moved.pts, moved.dts = (
            packet.time_base, packet.duration, packet.pts, packet.dts,
        )  # fmt: skip
    offset = round(start / packet.time_base)
    moved.pts, moved.dts = moved.pts + offset, moved.dts + offset
    moved.stream = stream
    return moved
