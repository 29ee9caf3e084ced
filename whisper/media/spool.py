"""A growing buffer of bytes: in memory while it is small, then in a temporary file.

Data are appended at the end and read at any offset; the file is deleted with the object. Knows nothing of sound.
"""

from __future__ import annotations

import io
import os
import tempfile
import warnings
import weakref
from typing import Any

import numpy as np

IN_MEMORY = 32 << 20  # bytes: 17 minutes of 16-bit samples at 16 kHz


class Spool:
    """A file without a name, written at its end and read anywhere.

    Its place on disk is where `tempfile` puts things if a program or the user has said so (TMPDIR), else ``/var/tmp``
    where there is one: what lies in ``/tmp`` may be held in memory, and this is to save memory. Where no place can be
    written to or the disk is full, everything stays in memory, with a RuntimeWarning.

    Parameters
    ----------
    in_memory
        More bytes than this go to disk.
    """

    def __init__(self, in_memory: int = IN_MEMORY) -> None:
        self.n_bytes = 0
        self.file: Any = io.BytesIO()  # to read from; `append` moves its position, and may replace it
        self._in_memory: float = in_memory

    def append(self, data: Any) -> None:
        """Write bytes (or an array's, contiguous) at the end."""
        view = memoryview(data).cast("B")
        try:
            if isinstance(self.file, io.BytesIO) and self.n_bytes + len(view) > self._in_memory:
                self._move_to_disk()
            self._write(view)
        except OSError as error:
            self._move_to_memory(error)
            self._write(view)
        self.n_bytes += len(view)

    def read(self, offset: int, n_bytes: int) -> bytes:
        """Bytes from `offset` on; fewer where it ends before."""
        self.file.seek(offset)
        pieces = []
        while n_bytes > 0 and (piece := self.file.read(n_bytes)):
            pieces.append(piece)
            n_bytes -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def array(self, dtype: Any) -> np.ndarray[Any, Any]:
        """All bytes as numbers, ``(n,)``, which may be written to; when it is asked for, no more can be appended."""
        if self.n_bytes == 0:
            return np.zeros(0, dtype)
        if isinstance(self.file, io.BytesIO):
            return np.frombuffer(self.file.getbuffer(), dtype)
        return np.memmap(self.file, dtype, mode="r+")

    def _write(self, view: memoryview) -> None:
        self.file.seek(self.n_bytes)
        while len(view) > 0:
            view = view[self.file.write(view) :]

    def _move_to_disk(self) -> None:
        memory = self.file
        self.file = tempfile.TemporaryFile(buffering=0, dir=temporary_folder())  # noqa: SIM115
        weakref.finalize(self, self.file.close).atexit = False  # it has no name, and disappears with the process, too
        kept, self.n_bytes = self.n_bytes, 0
        try:
            self._write(memory.getbuffer()[:kept])
        except OSError:
            self.file = memory
            raise
        finally:
            self.n_bytes = kept

    def _move_to_memory(self, error: OSError) -> None:
        """Keep everything in memory from now on."""
        if not isinstance(self.file, io.BytesIO):
            self.file = io.BytesIO(self.read(0, self.n_bytes))
        self._in_memory = float("inf")
        warnings.warn(
            f"no temporary file could be written ({error.strerror or error}), so the recording is held in memory; "
            "set TMPDIR to a folder with room",
            RuntimeWarning,
            stacklevel=2,
        )


class SpoolReader(io.RawIOBase):
    """A seekable, read-only binary file object over a spool."""

    def __init__(self, spool: Spool) -> None:
        self._spool, self._place = spool, 0

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that it can seek."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer from here on; returns how many bytes there were."""
        data = self._spool.read(self._place, len(buffer))
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place; returns it, from the beginning."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._spool.n_bytes}[whence]
        self._place = max(base + offset, 0)
        return self._place


def temporary_folder() -> str | None:
    """Folder of temporary files that save memory; None for the default of `tempfile`."""
    is_chosen = tempfile.tempdir is not None or any(os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
    return "/var/tmp" if not is_chosen and os.access("/var/tmp", os.W_OK) else None
