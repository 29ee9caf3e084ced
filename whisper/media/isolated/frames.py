"""What a decoder process and its owner say to each other: one line with a file descriptor there, frames back.

Both ends check what they read: the decoder process has seen a stranger's file, and may be under its control.
"""

from __future__ import annotations

import array
import json
import socket
import struct
from collections.abc import Mapping
from typing import Any

READY, PIECE, WARNING, FAILURE, FAULT, DONE = b"R", b"P", b"W", b"E", b"F", b"D"
KINDS = (READY, PIECE, WARNING, FAILURE, FAULT, DONE)
HEADER = struct.Struct("!cHI")  # kind, channels, bytes that follow
MOST_BYTES = 64 << 20  # of one frame; a piece of 255 channels has half of it
MOST_JOB_BYTES = 1 << 14


def send_job(connection: socket.socket, job: Mapping[str, Any], descriptor: int) -> None:
    """Hand a file to a decoder process, and say how it is to be decoded."""
    line = json.dumps(job).encode() + b"\n"
    n = connection.sendmsg([line], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))])
    connection.sendall(line[n:])


def receive_job(connection: socket.socket) -> tuple[dict[str, Any], int] | None:
    """Wait for the next file; None where the owner has closed the connection."""
    line, descriptors = b"", list[int]()
    while not line.endswith(b"\n"):
        data, found, _, _ = socket.recv_fds(connection, MOST_JOB_BYTES, 1)
        descriptors += found
        if not data:
            return None
        line += data
    job: dict[str, Any] = json.loads(line)
    return job, descriptors[0]


def send(connection: socket.socket, kind: bytes, data: Any = b"", n_channels: int = 0) -> None:
    """Send one frame."""
    view = memoryview(data).cast("B")
    connection.sendall(HEADER.pack(kind, n_channels, len(view)))
    connection.sendall(view)


def read_header(header: bytes | bytearray) -> tuple[bytes, int, int] | None:
    """Return kind, channels and number of bytes of a frame; None where no frame begins like this."""
    kind, n_channels, n_bytes = HEADER.unpack(header)
    is_whole = n_channels > 0 and n_bytes % (2 * n_channels) == 0
    if kind not in KINDS or n_bytes > MOST_BYTES or (kind == PIECE and not is_whole):
        return None
    return kind, n_channels, n_bytes
