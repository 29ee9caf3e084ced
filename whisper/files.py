"""Atomic writing of files and folders: they appear complete or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from .errors import OptionError

Path = str | os.PathLike[str]


@contextmanager
def atomic_write(
    path: Path, *, fsync: bool = True, encoding: str | None = None, temporary: Path | None = None
) -> Iterator[Any]:
    """Open a file for writing that takes its place at the end of the ``with`` block, or leaves no trace.

    Until then `path` is what it was before, also after an error in the block or Ctrl-C; afterwards it
    is all that was written. Through a symbolic link the file is written that the link leads to, as by
    `open`.

    Parameters
    ----------
    path
        Where the file is to be. Its folder must exist.
    fsync
        Wait until the contents are on the disk, so that even a power failure leaves the old file or
        the new one. Without it, which is quicker, that holds only where the process alone ends.
    encoding
        Of a text file; None for bytes.
    temporary
        Where the contents are until the end, in the same file system. By default a name of its own
        beside the file, so that several processes may write. A process that is killed leaves it.

    Raises
    ------
    OptionError
        No file can have this name. (A ValueError.)
    OSError
        The folder is missing, or cannot be written to.
    """
    unfinished = temporary_beside(path) if temporary is None else os.fspath(temporary)
    target = os.path.realpath(path)
    try:
        with open(unfinished, "wb" if encoding is None else "w", encoding=encoding) as file:
            yield file
            if fsync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(unfinished, target)
    except BaseException:  # whatever it was, also Ctrl-C: half a file must not stay
        with suppress(OSError):
            os.remove(unfinished)
        raise


@contextmanager
def atomic_folder(path: Path) -> Iterator[str]:
    """Make a folder that takes its place at the end of the ``with`` block, or leaves no trace.

    Parameters
    ----------
    path
        Where the folder is to be. Its parent must exist; the folder itself must not, or must be empty.

    Yields
    ------
    str
        Where to write the files until then: an empty folder beside it.

    Raises
    ------
    OptionError
        There is something at `path`, or no folder can have this name. (A ValueError.)
    OSError
        The parent is missing, or cannot be written to.
    """
    unfinished = temporary_beside(os.path.normpath(path))
    target = os.path.realpath(path)
    if os.path.lexists(target) and not (os.path.isdir(target) and not os.listdir(target)):
        raise OptionError(f"{os.fspath(path)} is there already, and a folder is not written over; give another name")
    os.mkdir(unfinished)
    try:
        yield unfinished
        if os.path.isdir(target):
            os.rmdir(target)  # empty; elsewhere than on POSIX systems no folder takes another's place
        os.rename(unfinished, target)
    except BaseException:  # whatever it was, also Ctrl-C: half a folder must not stay
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def temporary_beside(path: Path) -> str:
    """Name a file in the folder that `path` leads to: a rename is atomic only within a file system."""
    try:
        folder = os.path.dirname(os.path.realpath(path))
    except ValueError as error:  # a null, or letters that the file system has not
        raise OptionError(f"no file can be called {path!a}: {error}") from None
    if not os.path.isdir(folder):
        raise FileNotFoundError(errno.ENOENT, "the output folder does not exist", folder)
    return os.path.join(folder, f".whisper-{uuid.uuid4().hex}.tmp")
