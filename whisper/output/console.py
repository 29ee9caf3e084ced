"""Printing to standard streams that may be missing, closed, broken pipes, or unable to encode the text.

A message that cannot be printed is dropped or shown in part, and the work goes on. Writes no files.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

_GONE = (errno.EPIPE, errno.EBADF, errno.EIO, errno.EINVAL)  # Windows reports a broken pipe as EINVAL


def show(text: str, stream: TextIO | None) -> None:
    """Print a line and flush it, if the stream is usable; characters that it cannot encode become ``?``.

    Raises
    ------
    OSError
        Any error but a missing reader, such as a full disk.
    """
    if stream is None or getattr(stream, "closed", False):
        return
    try:
        try:
            print(text, file=stream, flush=True)
        except UnicodeEncodeError:
            encoding = getattr(stream, "encoding", None) or "ascii"
            print(text.encode(encoding, "replace").decode(encoding), file=stream, flush=True)
    except OSError as error:
        if error.errno not in _GONE:
            raise


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a stream is a terminal."""
    try:
        return stream is not None and stream.isatty()
    except (ValueError, OSError):  # it is closed
        return False


@contextmanager
def standard_streams() -> Iterator[None]:
    """Replace missing output streams by the null device, and print ``?`` for characters that a stream cannot encode.

    Standard input stays as it is; reading it reports that it is closed.

    Closed file descriptors from 0 to 2 are opened: otherwise the next file would get one of them, and
    messages of libraries would be written into that file.
    """
    while (opened := os.open(os.devnull, os.O_RDWR)) < 3:  # the lowest that is free
        pass
    os.close(opened)
    before = sys.stdout, sys.stderr
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        sys.stdout, sys.stderr = (
            nowhere if stream is None or getattr(stream, "closed", False) else stream for stream in before
        )
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="replace")
        try:
            yield
        finally:
            for stream in (sys.stdout, sys.stderr):
                _drain(stream)
            sys.stdout, sys.stderr = before


def _drain(stream: TextIO) -> None:
    """Flush a stream; without a reader, send its buffer to the null device, so that the exit is silent, too."""
    try:
        stream.flush()
    except (OSError, ValueError):
        try:
            number = stream.fileno()
        except (OSError, ValueError):  # it has none
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)
