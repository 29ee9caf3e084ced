"""Sources of a recording: a path, a URL, standard input, bytes, a file object.

Interprets names in one way for Python and for the command, and returns what FFmpeg's libraries can
open. Decodes nothing. Standard input is read once and to its end, because most containers need seeking.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import reprlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple, TypeAlias, cast

from ..errors import AudioError
from .spool import Spool, SpoolReader

Source: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO"

# What the ffmpeg program, or the system, calls standard input; a file of such a name is ./- or ./pipe:0
NAME_IN_MESSAGES = "name_in_messages"  # attribute of a file object that has a better name than its own
_STANDARD_INPUT = frozenset({"-", "pipe:", "pipe:0", "fd:", "fd:0", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"})
_PROTOCOL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+(,[^:]*)?:")  # two letters and more: a drive of Windows is none
# A playlist that arrives as bytes (say, an upload) may not make us open files or addresses that it names.
_CLOSED = {"protocol_whitelist": "none"}
_NAMES = reprlib.Repr()
_NAMES.maxstring = 500  # characters of a name in a message
_READ = 1 << 20  # bytes read at once from what cannot seek


class Opened(NamedTuple):
    """A source as FFmpeg is to open it."""

    name: str  # in messages
    file: Any  # a name for FFmpeg, or a binary file object
    options: dict[str, str]  # of the demuxer


def openable(source: Any) -> Opened:
    """Determine the kind of a source.

    Raises
    ------
    AudioError
        There is no such file, it is empty, or the source is none.
    """
    if is_standard_input(source):
        return Opened("standard input", _read_standard_input(), _CLOSED)
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
        own = getattr(source, "name", None)
        name = repr(own) if own and isinstance(own, str) else f"the file object {own or type(source).__name__}"
        name = str(getattr(source, NAME_IN_MESSAGES, name))
        file = _Foreign(source, name)
        if hasattr(source, "seekable") and not isinstance(source, io.TextIOBase) and file.ask("seekable"):
            return Opened(name, file, _CLOSED)
        spool = _spooled(file)  # it cannot seek: its contents, as a file object that can
        if spool.n_bytes:
            return Opened(name, cast("BinaryIO", SpoolReader(spool)), _CLOSED)
        contents = b""
    if len(contents) == 0:
        raise AudioError(f"{name} is empty (0 bytes)")
    return Opened(name, io.BytesIO(contents), _CLOSED)


@contextlib.contextmanager
def contents_of(opened: Opened) -> Iterator[Any]:
    """Reopen a source as a file object; None if it cannot be read a second time."""
    if not isinstance(opened.file, str):
        yield opened.file
        return
    path = opened.file.removeprefix("file:")
    if path == opened.file or not os.path.isfile(path):
        yield None
        return
    with open(path, "rb") as file:
        yield file


# ---------------------------------------------------------------------------------------------------------
# Names
# ---------------------------------------------------------------------------------------------------------


def may_be_there(name: str) -> bool:
    """Whether there may be a recording of this name: a file, standard input, or what one of FFmpeg's protocols reads.

    Raises
    ------
    AudioError
        It is standard input, of which nothing can be read.
    """
    if is_standard_input(name):
        standard_input()
        return True
    if os.path.exists(name):
        return True
    path = _file_of(name)
    return bool(_PROTOCOL.match(name)) if path is None else os.path.exists(path)


def is_standard_input(source: object) -> bool:
    """Whether a name stands for standard input.

    pathlib makes ``-`` of ``./-``, so a path object that leads to a file of such a name means the file.
    """
    if isinstance(source, os.PathLike):
        name = os.fspath(source)
        return name in _STANDARD_INPUT and not os.path.isfile(name)
    return isinstance(source, str) and source in _STANDARD_INPUT


def check_read_once(sources: Sequence[Any]) -> None:
    """Raise `AudioError` if several sources are standard input, which can be read only once."""
    n = sum(map(is_standard_input, sources))
    if n > 1:
        raise AudioError(f"{n} of the recordings are standard input, which can be read only once")


def can_be_read_again(source: object) -> bool:
    """Whether a source gives the same sound a second time: a file's name, bytes and samples do, not a stream."""
    if isinstance(source, (str, bytes, os.PathLike)):
        return not is_standard_input(source) and (isinstance(source, bytes) or os.path.isfile(os.fspath(source)))
    return not hasattr(source, "read")


def shown(name: str) -> str:
    """Return a name as it is put in messages: what ``data:`` holds may be megabytes."""
    return name if len(name) <= _NAMES.maxstring else f"{name[:60]}... ({len(name)} characters)"


def _file_of(name: str) -> str | None:
    """Return the path that a name of FFmpeg's protocol ``file:`` leads to; None for other names."""
    return name[5:] if name[:5].lower() == "file:" else None


def _openable_path(path: str | bytes) -> Opened:
    path = os.fsdecode(path)
    if not os.path.exists(path):
        inner = _file_of(path)
        if inner is None and _PROTOCOL.match(path):
            return Opened(shown(path), path, {})
        path = path if inner is None else inner
    if not os.path.exists(path):
        raise AudioError(f"there is no file {_NAMES.repr(path)}")
    if os.path.isdir(path):
        raise AudioError(f"{path!r} is a folder, not a recording")
    if os.path.isfile(path) and os.path.getsize(path) == 0:
        raise AudioError(f"{path!r} is empty (0 bytes)")
    return Opened(repr(path), "file:" + path, {})  # a name may hold a colon, which FFmpeg would take for a protocol


# ---------------------------------------------------------------------------------------------------------
# Standard input
# ---------------------------------------------------------------------------------------------------------


def standard_input() -> BinaryIO:
    """Return standard input; `AudioError` if it is missing or a terminal."""
    text = sys.stdin
    if text is None or getattr(text, "closed", False):
        raise AudioError("standard input is closed: give the path of a recording, or send one into it")
    if hasattr(text, "isatty") and text.isatty():
        raise AudioError("standard input is a terminal: give the path of a recording, or send one into it with | or <")
    stream = getattr(text, "buffer", None)
    if stream is None and not isinstance(text, io.TextIOBase):
        stream = text  # a program has put a binary stream there
    if stream is None:
        raise AudioError(f"standard input is text here ({type(text).__name__}): give the recording as bytes")
    return cast("BinaryIO", stream)


def _read_standard_input() -> BinaryIO:
    name = "standard input"
    source = _Foreign(standard_input(), name)
    spool = _spooled(source)
    if spool.n_bytes == 0:
        raise AudioError(f"{name} is empty (0 bytes): nothing was sent into it, or it has been read already")
    return cast("BinaryIO", SpoolReader(spool))


# ---------------------------------------------------------------------------------------------------------
# File objects
# ---------------------------------------------------------------------------------------------------------


class _Foreign:
    """The caller's file object, for PyAV: its exceptions become `AudioError`, and what it returns is checked.

    PyAV copies whatever `read` gives into a buffer of the size that it asked for.
    """

    def __init__(self, source: Any, name: str) -> None:
        self._source, self._name = source, name

    def ask(self, method: str, *arguments: Any) -> Any:
        try:
            return getattr(self._source, method)(*arguments)
        except Exception as error:  # the caller's code may raise anything
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


def _spooled(source: _Foreign) -> Spool:
    spool = Spool()
    while piece := source.piece(_READ):
        spool.append(piece)
    return spool


class Spans(io.RawIOBase):
    """A binary file object over the concatenated parts of another one.

    Parameters
    ----------
    file
        Can seek.
    spans
        Offset of the first byte of each part, and of the one behind its last.
    """

    def __init__(self, file: Any, spans: Sequence[tuple[int, int]]) -> None:
        self._file, self._spans, self._place = file, list(spans), 0
        self._size = sum(end - begin for begin, end in spans)

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that it can seek."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer from here on, to the end of a part; returns how many bytes there were."""
        before = 0
        for begin, end in self._spans:
            if self._place < before + end - begin:
                at = begin + self._place - before
                self._file.seek(at)
                data = self._file.read(min(len(buffer), end - at))
                buffer[: len(data)] = data
                self._place += len(data)
                return len(data)
            before += end - begin
        return 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place; returns it, from the beginning."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        self._place = max(base + offset, 0)
        return self._place
