"""The ``.pt`` files of openai-whisper read without torch, as `StoredArrays`.

Takes their plain form alone: records of float16 or float32 without gaps, and all tensors of a Whisper. Whatever else a
file is, `recognize` reads it or says what is wrong. No code in a file is run: its pickle may name five things, which
do nothing but say where numbers lie.
"""

from __future__ import annotations

import collections
import io
import math
import os
import pickle
import struct
import sys
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ...network.dimensions import ModelDimensions, expected_shapes
from ..published import _ALIGNMENT_HEADS
from ..stored_arrays import Place, Source, StoredArrays, heads_of

_LONGEST_PICKLE = 1 << 24  # bytes: no pickle of a Whisper comes near it
_LARGEST = 1 << 20  # of the ten numbers
_TYPES = {"HalfStorage": np.float16, "FloatStorage": np.float32}
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a record in a zip file; its name and more follow
# what can go wrong in strange bytes
_ERRORS = (
    OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, EOFError, RecursionError,
    NotImplementedError, struct.error, pickle.UnpicklingError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def read(source: Source) -> StoredArrays | None:
    """Read where the tensors of a ``.pt`` file lie; None where it is not of the plain form."""
    if len(source.files) != 1:
        return None
    try:
        with open(source.files[0], "rb") as file:
            if file.read(4) != b"PK\x03\x04":
                return None
            with zipfile.ZipFile(file) as archive:
                checkpoint, records = _unpickled(archive)
                dims = _dimensions(checkpoint["dims"])
                places = _places(checkpoint["model_state_dict"], dims, file, records)
        own = checkpoint.get("alignment_heads")
        dump = _ALIGNMENT_HEADS.get(source.name, own if isinstance(own, (str, bytes)) else None)
        return StoredArrays(source, dims, heads_of(dump, dims), places)
    except _ERRORS:
        return None


# ---------------------------------------------------------------------------------------------------------
# The pickle
# ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Storage:
    """Numbers of one type, a record of the file."""

    dtype: type[np.generic]
    key: str
    size: int


@dataclass(frozen=True)
class _Outline:
    """A tensor without its numbers."""

    storage: _Storage
    offset: int  # in numbers
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Unpickler(pickle.Unpickler):
    """Knows what stands in the pickle of a state dict, and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        known = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _outline,
            ("torch._utils", "_rebuild_parameter"): _parameter,
            **{("torch", kind): kind for kind in _TYPES},
        }
        return known[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        what, kind, key, _, size = pid
        if what != "storage":
            raise ValueError("no storage")
        return _Storage(_TYPES[kind], key, size)


def _outline(storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any) -> _Outline:
    return _Outline(storage, offset, shape, strides)


def _parameter(data: _Outline, *_: Any) -> _Outline:
    return data


def _unpickled(archive: zipfile.ZipFile) -> tuple[dict[str, Any], dict[str, zipfile.ZipInfo]]:
    """Return what ``torch.save`` was given, and the records by their names in the folder that all of them lie in."""
    found = archive.infolist()
    folder = next(record.filename.removesuffix("data.pkl") for record in found if record.filename.endswith("/data.pkl"))
    records = {record.filename.removeprefix(folder): record for record in found}
    is_plain = len(records) == len(found) and all(record.filename.startswith(folder) for record in found)
    if not is_plain or records["data.pkl"].file_size > _LONGEST_PICKLE or "constants.pkl" in records:
        raise ValueError("no state dict")
    if "byteorder" in records and archive.read(records["byteorder"]) != sys.byteorder.encode():
        raise ValueError("of another machine")
    content = _Unpickler(io.BytesIO(archive.read(records["data.pkl"]))).load()
    if type(content) is not dict:
        raise ValueError("no dictionary")
    return content, records


def _dimensions(dims: Any) -> ModelDimensions:
    if dims.keys() != {field.name for field in fields(ModelDimensions)}:
        raise ValueError("other dimensions")
    if not all(type(number) is int and 0 < number <= _LARGEST for number in dims.values()):
        raise ValueError("no dimensions")
    found = ModelDimensions(**dims)
    if found.n_audio_state % found.n_audio_head or found.n_text_state % found.n_text_head:
        raise ValueError("other heads")
    return found


# ---------------------------------------------------------------------------------------------------------
# The records
# ---------------------------------------------------------------------------------------------------------


def _places(
    state: Any, dims: ModelDimensions, file: io.BufferedReader, records: Mapping[str, zipfile.ZipInfo]
) -> dict[str, Place]:
    """Return where the tensors lie, which are those of `dims` and no others, each without gaps in a stored record."""
    if dims.n_audio_layer + dims.n_text_layer > len(state):  # a forged number must not name a million tensors
        raise ValueError("too few tensors")
    shapes = expected_shapes(dims)
    if state.keys() != shapes.keys():
        raise ValueError("other tensors")
    places = {}
    for name, shape in shapes.items():
        tensor: _Outline = state[name]
        storage, record = tensor.storage, records[f"data/{tensor.storage.key}"]
        if type(tensor.offset) is not int or type(storage.size) is not int:
            raise ValueError("no numbers")
        itemsize = np.dtype(storage.dtype).itemsize
        strides = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
        is_plain = (tensor.shape, tensor.strides) == (shape, strides)
        fits = 0 <= tensor.offset <= storage.size - math.prod(shape)
        is_stored = record.compress_type == zipfile.ZIP_STORED and not record.flag_bits & 1
        if not (is_plain and fits and is_stored and record.file_size == storage.size * itemsize):
            raise ValueError("not plain")
        places[name] = Place(_start(file, record) + tensor.offset * itemsize, storage.dtype, shape)
    return places


def _start(file: io.BufferedReader, record: zipfile.ZipInfo) -> int:
    """Return where the content of a stored record begins."""
    file.seek(record.header_offset)
    magic, n_name, n_extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    start = record.header_offset + _LOCAL_HEADER.size + n_name + n_extra
    if magic != b"PK\x03\x04" or start + record.file_size > os.fstat(file.fileno()).st_size:
        raise ValueError("it is truncated")
    return int(start)
