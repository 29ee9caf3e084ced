"""What a recording is: the digest of its content, and what tells cheaply that this may have changed."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

_READ = 1 << 20


@dataclass(frozen=True)
class Stamp:
    """What tells cheaply that a file may have changed: its size, and when it was written or its version."""

    size: int  # bytes
    version: str

    @classmethod
    def of_status(cls, status: os.stat_result) -> Stamp:
        """Read it off the status of a file."""
        return cls(status.st_size, str(status.st_mtime_ns))


def content_of(path: str) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(_READ):
            digest.update(piece)
    return digest.hexdigest()
