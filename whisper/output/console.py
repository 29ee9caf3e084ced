"""Standard streams as they may be: missing, closed, left by their reader, or without the letters.

Nothing that is printed is worth a transcription: what cannot be shown is not, and the work goes on. Files are for
others to write.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

_GONE = (errno.EPIPE, errno.EBADF, errno.EIO, errno.EINVAL)  # the last is Windows' word for a broken pipe


def show(text: str, stream: TextIO | None) -> None:
    """Print a line and flush it, as far as there is a stream that takes it; letters that it lacks become ``?``.

    Raises
    ------
    OSError
        Of another kind than that nobody reads, such as a full disk behind the stream.
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
    """Whether somebody watches a stream."""
    try:
        return stream is not None and stream.isatty()
    except (ValueError, OSError):  # it is closed
        return False


@contextmanager
def standard_streams() -> Iterator[None]:
    """Give a program without a console output that leads nowhere, and print ``?`` for letters that a console lacks.

    Standard input stays as it is: what reads it says that it is closed.

    File descriptors 0 to 2 are opened where they are closed: else the next file would get one of them, and a message
    that a library writes there would end up in that file.
    """
    while (opened := os.open(os.devnull, os.O_RDWR)) < 3:  # the lowest that is free
        pass
    os.close(opened)
    before = sys.stdout, sys.stderr
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        sys.stdout, sys.stderr = (nowhere if _is_missing(stream) else stream for stream in before)
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="replace")
        try:
            yield
        finally:
            for stream in (sys.stdout, sys.stderr):
                _drain(stream)
            sys.stdout, sys.stderr = before


def _is_missing(stream: Any) -> bool:
    return stream is None or bool(getattr(stream, "closed", False))


def _drain(stream: TextIO) -> None:
    """Flush a stream; where its reader has left, let what it holds go nowhere, so that the exit is silent, too."""
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
