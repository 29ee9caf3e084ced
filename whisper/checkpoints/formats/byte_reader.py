"""Reads numbers, texts and arrays of a binary file in their order, each checked against the file's end.

For formats that no light library reads. A length in the file is never believed before it has been compared with the
bytes that are left, so that a forged one ends in an error and takes no memory.
"""

from __future__ import annotations

import struct

from ...errors import CheckpointError
from ..lazy_tensors import KeptFile


class ByteReader:
    """A position in a file that only moves forward; all numbers are little-endian.

    Parameters
    ----------
    file
        The file.
    """

    def __init__(self, file: KeptFile) -> None:
        self.file = file
        self.position = 0
        self.size = file.size

    @property
    def left(self) -> int:
        """How many bytes follow."""
        return self.size - self.position

    def skip(self, size: int, what: str) -> int:
        """Move on by `size` bytes and return where they begin; `what` they are is for the error.

        Raises
        ------
        CheckpointError
            Where the file ends before.
        """
        if size > self.left:
            raise CheckpointError(
                f"{self.file.path} is truncated: {what} needs {size} bytes at byte {self.position}, and "
                f"{self.left} are left of {self.size}; get it again from where it came"
            )
        start = self.position
        self.position += size
        return start

    def bytes(self, size: int, what: str) -> bytes:
        """Return the next `size` bytes."""
        return self.file.bytes_at(self.skip(size, what), size)

    def numbers(self, form: str, what: str) -> tuple[int, ...]:
        """Return the next numbers, which `form` describes as `struct` does, without a byte order."""
        return struct.unpack("<" + form, self.bytes(struct.calcsize("<" + form), what))

    def number(self, form: str, what: str) -> int:
        """Return the next number."""
        return self.numbers(form, what)[0]
