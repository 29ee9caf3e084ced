"""Reads the arrays of a numpy ``.npz`` file as tensors, each from the file when it is asked for.

numpy's own reader would load an array as a whole before its size can be checked, and knows no bfloat16. Its parser of
array headers is used; pickled arrays, which could hold code, are refused.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from ...errors import CheckpointError
from ..lazy_tensors import ComputedTensors, KeptFile

_DTYPES = {
    "<f2": torch.float16, "<f4": torch.float32, "<f8": torch.float64, "|u1": torch.uint8, "|i1": torch.int8,
    "<i2": torch.int16, "<i4": torch.int32, "<i8": torch.int64, "<u4": torch.uint32, "|b1": torch.bool,
    "|V2": torch.bfloat16, "<V2": torch.bfloat16,  # numpy has none; MLX writes it as two bytes of nothing special
}  # fmt: skip
# What `zipfile` raises for a damaged archive
ZIP_ERRORS = (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, OverflowError, EOFError, struct.error)
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a zip member: its signature, and the lengths of name and extra field
_MOST_DEFLATED = 1032  # times smaller is the most that deflate can make anything
_HEADER_BYTES = 1 << 14


def read_npz(file: KeptFile) -> ComputedTensors:
    """Return the arrays of `file` by name, without their ``.npy``.

    Raises
    ------
    CheckpointError
        Where the archive is damaged, an array is of a type that weights do not have, or sizes do not fit together.
    """
    makers = {}
    try:
        with zipfile.ZipFile(_opened(file)) as archive:
            for member in archive.infolist():
                if member.filename.endswith(".npy"):
                    array = _Array(file, member)
                    makers[member.filename.removesuffix(".npy")] = (array.outline, array.read)
    except ZIP_ERRORS as error:
        raise CheckpointError(
            f"{file.path} is damaged or truncated: it is no whole npz archive ({error}); "
            "get it again from where it came"
        ) from error
    return ComputedTensors(makers)


def is_npz(file: KeptFile) -> bool:
    """Whether a file is a zip archive of numpy arrays."""
    if not file.bytes_at(0, 4).startswith(b"PK\x03\x04"):
        return False
    try:
        with zipfile.ZipFile(_opened(file)) as archive:
            return any(name.endswith(".npy") for name in archive.namelist())
    except ZIP_ERRORS:
        return False


def _opened(file: KeptFile) -> BinaryIO | str:
    return file.place if file.content is None else io.BytesIO(file.content)


class _Array:
    """One array in an archive: where it lies, and what its header says."""

    def __init__(self, file: KeptFile, member: zipfile.ZipInfo) -> None:
        self._file, self._member = file, member
        size = member.file_size
        deflated = member.compress_type == zipfile.ZIP_DEFLATED
        if member.flag_bits & 1 or not (deflated or member.compress_type == zipfile.ZIP_STORED):
            raise self._error("it is encrypted, or compressed in an unusual way")
        if size > (member.compress_size * _MOST_DEFLATED if deflated else member.compress_size):
            raise self._error(f"it is said to unpack to {size} bytes, and {member.compress_size} are there")
        self._start = self._start_of_data()
        if self._start + member.compress_size > file.size:
            raise self._error("it ends behind the end of the file")
        self._header_size, self.outline = self._header()
        needed = self.outline.numel() * self.outline.element_size()
        if self._header_size + needed != size:
            raise self._error(
                f"its shape {tuple(self.outline.shape)} takes {needed} bytes of {size - self._header_size}"
            )

    def _error(self, reason: str) -> CheckpointError:
        return CheckpointError(
            f"{self._file.path} is damaged: of {self._member.filename} {reason}; get it again from where it came"
        )

    def _start_of_data(self) -> int:
        offset = self._member.header_offset
        head = self._file.bytes_at(offset, _LOCAL_HEADER.size) if offset >= 0 else b""
        if len(head) < _LOCAL_HEADER.size or not head.startswith(b"PK\x03\x04"):
            raise self._error("the header is missing")
        _, name, extra = _LOCAL_HEADER.unpack(head)
        return offset + int(_LOCAL_HEADER.size) + int(name) + int(extra)

    def _header(self) -> tuple[int, Tensor]:
        """Return the size of the array's header, and shape and dtype as a tensor without data."""
        head = io.BytesIO(self._unpacked(_HEADER_BYTES))
        try:
            version = np.lib.format.read_magic(head)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, by_columns, dtype = read(head)
        except Exception as error:  # a text that is parsed as Python's literals can fail in many ways
            raise self._error(f"the header cannot be read ({type(error).__name__})") from error
        if dtype.str not in _DTYPES or (by_columns and len(shape) > 1):
            raise self._error(f"the type {dtype.str} or the order is not one of weights")
        if any(n < 0 for n in shape) or math.prod(shape) > self._member.file_size:
            raise self._error(f"its shape {shape} takes more bytes than it has")
        return head.tell(), torch.empty(shape, dtype=_DTYPES[dtype.str], device="meta")

    def _unpacked(self, most: int) -> bytes:
        """Return the first `most` bytes of the array's file; all of them where it has fewer."""
        if self._member.compress_type == zipfile.ZIP_STORED:
            return self._file.bytes_at(self._start, min(most, self._member.compress_size))
        packed = self._file.bytes_at(self._start, min(self._member.compress_size, max(most, 1 << 16)))
        try:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, most)
        except zlib.error as error:
            raise self._error(f"the data cannot be unpacked ({error})") from error

    def read(self) -> Tensor:
        """Return the array, in memory of the caller's."""
        size = self._member.file_size - self._header_size
        if self._member.compress_type == zipfile.ZIP_STORED:
            data = self._file.read(self._start + self._header_size, size)
        else:
            packed = bytes(self._file.read(self._start, self._member.compress_size).numpy().data)
            try:
                content = bytearray(zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, self._member.file_size))
            except zlib.error as error:
                raise self._error(f"the data cannot be unpacked ({error})") from error
            if len(content) != self._member.file_size or zlib.crc32(content) != self._member.CRC:
                raise self._error("the data is not what was packed")
            data = torch.frombuffer(content, dtype=torch.uint8)[self._header_size :].clone()
        return data.view(self.outline.dtype).reshape(self.outline.shape)
