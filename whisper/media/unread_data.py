"""Finds data that FFmpeg does not read: sound behind the end stated in a header, a second recording in the file.

Parses the chunks of containers that state where their sound ends; those with independent packets
(MP3, FLAC, Ogg, Matroska, MPEG-TS ...) are read to the end of the file anyway. Decodes nothing.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

LEAST = 0.1  # seconds; less is padding, or a remainder of the encoder
_MOV = "mov,mp4,m4a,3gp,3g2,mj2"
_MUCH = 16384  # bytes; more than what usually follows the sound
_PIECE = 1 << 20  # bytes read at once
_FAR = 16 << 20  # bytes that are searched for a further recording, if chunks do not lead to it

# how a further recording of the same kind begins
_BEGINNINGS = {
    "wav": re.compile(rb"(RIFF|RIFX|RF64|BW64)....WAVE", re.DOTALL),
    "w64": re.compile(rb"riff\x2e\x91\xcf\x11"),
    "aiff": re.compile(rb"FORM....AIF[FC]", re.DOTALL),
    "caf": re.compile(rb"caff\x00\x01"),
    "flv": re.compile(rb"FLV\x01[\x01\x04\x05]\x00\x00\x00\x09"),
    "tta": re.compile(rb"TTA1\x01\x00"),
    "voc": re.compile(rb"Creative Voice File\x1a"),
}


class Rest(NamedTuple):
    """What was not read."""

    begin: int  # place in the file
    n_bytes: int
    is_recording: bool  # whether a further recording begins there


def rest_of(file: Any, size: int, format: str, end: int) -> Rest | None:
    """Return the unread data behind the last packet, except chunks that may follow the sound.

    Parameters
    ----------
    file
        The recording, which can seek.
    size
        Its bytes.
    format
        FFmpeg's name of its container.
    end
        Place behind the last packet.
    """
    if format == _MOV:
        return _second_movie(file, size, end)
    beginning = _BEGINNINGS.get(format)
    if beginning is None or end >= size:
        return None
    if format in _CHUNKS:
        at = _behind_chunks(file, size, format, end)
        return Rest(at, size - at, bool(beginning.match(_read(file, at, 16)))) if at < size else None
    found = beginning.search(_read(file, end, min(size - end, _FAR)))
    return Rest(end + found.start(), size - end - found.start(), True) if found else None


def unseen_rest(size: int, format: str, end: int) -> Rest | None:
    """Return the unread data behind the last packet of a file that cannot be read again, if large."""
    return Rest(end, size - end, False) if format in _CHUNKS and size - end >= _MUCH else None


def resumption(file: Any, size: int, format: str, place: int) -> list[tuple[int, int]] | None:
    """Return the parts of a file which together are a recording that begins behind `place`, as spans of bytes.

    For containers in which FFmpeg stops at damage although later parts can be decoded without it: fragments of
    MP4, blocks of WavPack. None where no such part follows.
    """
    if format == "wv":
        at = _find(file, size, place, rb"wvpk[\s\S]{4}[\x02-\x10]\x04")
        return None if at is None else [(at, size)]
    if format != _MOV:
        return None
    head = next(((at, tag) for at, tag, _ in _boxes(file, size) if tag in (b"moof", b"mdat")), None)
    if head is None or head[1] != b"moof":  # not fragmented: its index says where everything is
        return None
    at = _find(file, size, place, rb"moof\x00\x00\x00\x10mfhd")
    return None if at is None else [(0, head[0]), (at - 4, size)]


# ---------------------------------------------------------------------------------------------------------
# Chunks
# ---------------------------------------------------------------------------------------------------------


def _riff(head: bytes) -> int:
    n: int = struct.unpack("<I", head[4:8])[0]
    return 8 + n + n % 2 if _is_text(head[:4]) else 0


def _aiff(head: bytes) -> int:
    n: int = struct.unpack(">I", head[4:8])[0]
    return 8 + n + n % 2 if _is_text(head[:4]) else 0


def _caf(head: bytes) -> int:
    n: int = struct.unpack(">q", head[4:12])[0]
    return 12 + n if _is_text(head[:4]) and n >= 0 else 0


def _w64(head: bytes) -> int:
    n: int = struct.unpack("<Q", head[16:24])[0]  # with the head itself
    return n + -n % 8 if n >= 24 else 0


# bytes of a chunk's head, and its whole length; 0 where it is no chunk
_CHUNKS: dict[str, tuple[int, Callable[[bytes], int]]] = {
    "wav": (8, _riff), "aiff": (8, _aiff), "caf": (12, _caf), "w64": (24, _w64),
}  # fmt: skip


def _is_text(tag: bytes) -> bool:
    return all(0x20 <= letter < 0x7F for letter in tag)


def _behind_chunks(file: Any, size: int, format: str, at: int) -> int:
    """Return the place behind whatever chunks, tags and zeros follow `at`; a further recording is no chunk."""
    if _length(file, size, format, at) is None:  # not every writer pads an odd length
        alignment = {"w64": 8, "caf": 1}.get(format, 2)
        at += -at % alignment
    while at < size:
        length = _length(file, size, format, at)
        if length is None:
            length = _zeros(file, size, at)
        if length == 0:
            return at
        at += length
    return size


def _length(file: Any, size: int, format: str, at: int) -> int | None:
    """Return the length of the chunk or tag at a place: 0 of a further recording, None of anything else."""
    n_head, length_of = _CHUNKS[format]
    head = _read(file, at, max(n_head, 16))
    if _BEGINNINGS[format].match(head):
        return 0
    length = _id3(head) or (length_of(head) if len(head) >= n_head else 0)
    return length if 0 < length <= size - at + 1 else None  # the last one may lack its padding


def _id3(head: bytes) -> int:
    """Return the length of an ID3v2 tag; 0 where there is none."""
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    return 10 + sum((byte & 0x7F) << 7 * (3 - i) for i, byte in enumerate(head[6:10]))


def _zeros(file: Any, size: int, at: int) -> int:
    """Return how many zeros there are from `at` on; 0 for fewer than 8, which may be sound."""
    begin = at
    while at < size:
        piece = _read(file, at, _PIECE)
        left = piece.lstrip(b"\0")
        at += len(piece) - len(left)
        if left or not piece:
            break
    return at - begin if at - begin >= 8 or at == size else 0


# ---------------------------------------------------------------------------------------------------------
# MP4
# ---------------------------------------------------------------------------------------------------------


def _boxes(file: Any, size: int) -> Iterator[tuple[int, bytes, int]]:
    """Place, name and length of each box at the top of an MP4, as far as they make sense."""
    at = 0
    while at + 8 <= size:
        head = _read(file, at, 16)
        if len(head) < 8:
            return
        length, tag = struct.unpack(">I4s", head[:8])
        if length == 1 and len(head) == 16:
            length = struct.unpack(">Q", head[8:])[0]
        length = length or size - at
        if length < 8 or not _is_text(tag):
            return
        yield at, tag, length
        at += length


def _second_movie(file: Any, size: int, end: int) -> Rest | None:
    has_index = False
    for at, tag, _ in _boxes(file, size):
        if tag == b"ftyp" and has_index and at >= end:
            return Rest(at, size - at, True)
        has_index = has_index or tag == b"moov"
    return None


# ---------------------------------------------------------------------------------------------------------
# Bytes
# ---------------------------------------------------------------------------------------------------------


def _read(file: Any, at: int, n: int) -> bytes:
    file.seek(at)
    data: bytes = file.read(n)
    return data


def _find(file: Any, size: int, begin: int, pattern: bytes) -> int | None:
    """Return the first place from `begin` on where a pattern of at most 16 bytes fits."""
    for at in range(begin, size, _PIECE):
        if found := re.search(pattern, _read(file, at, _PIECE + 16)):
            return at + found.start()
    return None
