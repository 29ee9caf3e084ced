"""Packed weights on disk: what was packed once is read back as it is, at the speed of the disk, and never packed again.

One file for each model, precision and set of kernels, in the folder ``packed`` beside the downloaded models. It holds
the arena of the matrices, region by region, and the float32 arrays, each with its digest; a file that is damaged,
truncated or of other kernels is not there. Written atomically, by whoever packs first; the files that were not used
for longest go where all together take more than `MOST_BYTES`. ``SOTTO_PACKED=0`` neither reads nor writes any.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO

from ...checkpoints.cache import cache_folder
from ...errors import CheckpointError
from ...files import atomic_write
from . import kernels

VARIABLE = "SOTTO_PACKED"
MOST_BYTES = 4 << 30  # of all files together
_MAGIC = b"SOTTOPK1"
_ENDING = ".packed"
_MOST_HEADER = 1 << 20

Block = tuple[int, int]  # address and size, in bytes


class PackedFileError(CheckpointError):
    """A file of packed weights is not what it was when it was written."""


@dataclass(frozen=True)
class Header:
    """What a file says of itself."""

    about: dict[str, Any]  # of the model: whatever the writer gave
    sizes: list[int]  # bytes of each block
    digests: list[int]  # of each block


def folder() -> str:
    """Return the folder of the files."""
    return os.path.join(cache_folder(), "packed")


def path_for(identity: str, compute_type: str) -> str | None:
    """Return where a model's packed weights are, or would be; None where there shall be none.

    Parameters
    ----------
    identity
        Of the checkpoint (`checkpoints.identity`); empty where it has none.
    compute_type
        What is packed in: "bfloat16" or "int8". Float32 is not kept: the file would be as large as it is rarely read.
    """
    library = kernels.load()
    if not identity or compute_type == "float32" or library is None or os.environ.get(VARIABLE) == "0":
        return None
    # other kernels may lay out weights in another way, and are another file
    now = os.stat(library._name)
    content = json.dumps([identity, compute_type, kernels.which(), kernels.ABI, now.st_size, now.st_mtime_ns])
    return os.path.join(folder(), hashlib.sha256(content.encode("ascii")).hexdigest()[:40] + _ENDING)


# ---------------------------------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------------------------------


def read_header(path: str) -> Header | None:
    """Return the header of a file; None where there is no file, or no whole one."""
    with suppress(OSError), open(path, "rb", buffering=0) as file:
        return _header(file)
    return None


def read_into(path: str, blocks: Sequence[Block], n_threads: int) -> None:
    """Read a file into memory.

    Parameters
    ----------
    path
        The file.
    blocks
        Where to, in the order in which they were written.
    n_threads
        That compare the digests.

    Raises
    ------
    PackedFileError
        It does not fit, or is damaged; then it is removed, so that the next who packs writes it anew.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            header = _header(file)
            if header is None or header.sizes != [size for _, size in blocks]:
                raise ValueError("other sizes")
            for address, size in blocks:
                _read_block(file, address, size)
        if digests(blocks, n_threads) != header.digests:
            raise ValueError("other contents")
    except (OSError, ValueError) as error:
        with suppress(OSError):
            os.remove(path)
        raise PackedFileError(f"{path} is damaged ({error}); the weights are packed again") from error
    with suppress(OSError):
        os.utime(path)  # for `_tidy`: used just now


def _header(file: BinaryIO) -> Header | None:
    """Read the header; None where it is damaged, or the file has another size than it says."""
    start = file.read(len(_MAGIC) + 36)
    if len(start) < len(_MAGIC) + 36 or not start.startswith(_MAGIC):
        return None
    (size,), digest = struct.unpack_from("<I", start, len(_MAGIC)), start[len(_MAGIC) + 4 :]
    content = file.read(size) if size <= _MOST_HEADER else b""
    if hashlib.sha256(content).digest() != digest:
        return None
    header = json.loads(content)
    offset = len(start) + size
    if os.fstat(file.fileno()).st_size != offset + sum(header["sizes"]):
        return None
    return Header(header["about"], header["sizes"], header["digests"])


def _read_block(file: Any, address: int, size: int) -> None:
    """Read what comes next into memory."""
    while size:
        n = file.readinto((ctypes.c_char * size).from_address(address))  # at most 2 GB come at once
        if not n:
            raise ValueError("it has become shorter")
        address, size = address + n, size - n


def digests(blocks: Sequence[Block], n_threads: int) -> list[int]:
    """Return numbers of 64 bits in which every byte of each block and its place count."""
    library = kernels.load()
    assert library is not None
    addresses = (ctypes.c_size_t * len(blocks))(*(address for address, _ in blocks))
    sizes = (ctypes.c_size_t * len(blocks))(*(size for _, size in blocks))
    found = (ctypes.c_uint64 * len(blocks))()
    if library.sotto_digests(addresses, sizes, len(blocks), found, n_threads):
        raise MemoryError("not enough memory to compare the weights")
    return list(found)


# ---------------------------------------------------------------------------------------------------------
# Writing
# ---------------------------------------------------------------------------------------------------------


def write(path: str, blocks: Sequence[Block], about: Mapping[str, Any], n_threads: int) -> None:
    """Write a file; where the disk is full or the folder cannot be written to, there is none.

    Parameters
    ----------
    path
        From `path_for`.
    blocks
        What to write.
    about
        What to say of the model, for `read_header`.
    n_threads
        That compute the digests.
    """
    sizes = [size for _, size in blocks]
    if sum(sizes) > MOST_BYTES:
        return
    content = json.dumps({"about": dict(about), "sizes": sizes, "digests": digests(blocks, n_threads)}).encode("utf-8")
    start = _MAGIC + struct.pack("<I", len(content)) + hashlib.sha256(content).digest()
    with suppress(OSError):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with atomic_write(path, fsync=False) as file:  # what a power failure leaves is found to be damaged
            file.write(start + content)
            for address, size in blocks:
                file.write((ctypes.c_char * size).from_address(address))
        _tidy(path)


def can_write() -> bool:
    """Whether the folder is there, or can be made, and takes files."""
    with suppress(OSError):
        os.makedirs(folder(), exist_ok=True)
    return os.access(folder(), os.W_OK | os.X_OK)


def _tidy(newest: str) -> None:
    """Remove the files that were not used for longest, until the others take no more than `MOST_BYTES`."""
    files = []
    with os.scandir(os.path.dirname(newest)) as entries:
        for entry in entries:
            if entry.name.endswith(_ENDING) and entry.is_file():
                now = entry.stat()
                files.append((entry.path != newest, -now.st_mtime_ns, now.st_size, entry.path))
    total = 0
    for _, _, size, path in sorted(files):
        total += size
        if total > MOST_BYTES:
            with suppress(OSError):
                os.remove(path)
