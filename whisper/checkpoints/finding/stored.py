"""What a checkpoint on disk is, from its first bytes: format, precision and size, in about a millisecond.

For choosing among copies before one is read. Reads headers alone, opens no pickle and raises nothing; whether the
weights are good is found out by reading them (`formats`).
"""

from __future__ import annotations

import json
import os
import re
import struct
import zipfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, BinaryIO

from ..formats.ctranslate2.layout import SPEC_NAME, TYPES

EXACT = ("float32", "float16")  # the published weights are float16, so that both hold the same numbers

OPENAI, HUGGING_FACE, CTRANSLATE2, GGML, MLX = "openai-whisper", "Hugging Face", "CTranslate2", "GGML", "MLX"

_HEADER_LIMIT = 1 << 26  # bytes: no header of a Whisper comes near it
_MOST_VARIABLES = 20_000

_TORCH_STORAGES = {  # as they are named in the pickle of torch's files
    b"FloatStorage": "float32", b"HalfStorage": "float16", b"BFloat16Storage": "bfloat16",
    b"DoubleStorage": "float64", b"CharStorage": "int8", b"ByteStorage": "int8",
}  # fmt: skip
_SAFETENSORS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_NUMPY = {"f8": "float64", "f4": "float32", "f2": "float16"}
_GGML = {
    0: "float32", 1: "float16", 2: "q4_0", 3: "q4_1", 7: "q8_0", 8: "q5_0", 9: "q5_1", 10: "q2_K",
    11: "q3_K", 12: "q4_K", 13: "q5_K", 14: "q6_K",
}  # fmt: skip
_HUGGING_FACE_FILES = (
    "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json",
)  # fmt: skip
_MLX_FILES = ("weights.safetensors", "model.safetensors", "weights.npz")


@dataclass(frozen=True)
class Stored:
    """A checkpoint as its headers describe it."""

    format: str
    precision: str  # the least exact one of its matrices
    size: int  # bytes, of the files that hold weights

    @property
    def is_exact(self) -> bool:
        """Whether the numbers are those that were published."""
        return self.precision in EXACT


def stored_as(*paths: str) -> Stored | None:
    """Return what lies at `paths`: a folder, a file, or a file in parts; None where that is no whole checkpoint."""
    try:
        if len(paths) == 1 and os.path.isdir(paths[0]):
            return _folder(paths[0])
        return _file(paths)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, StopIteration, struct.error, RecursionError):
        return None
    except (zipfile.BadZipFile, NotImplementedError):
        return None


def _folder(folder: str) -> Stored | None:
    binary = os.path.join(folder, "model.bin")
    if os.path.isfile(binary) and (found := _file([binary])) and found.format == CTRANSLATE2:
        return found
    config = _json(os.path.join(folder, "config.json"))
    if "n_mels" in config:
        return _mlx(folder, config)
    if config.get("model_type") != "whisper":
        return None
    name = _first(folder, _HUGGING_FACE_FILES)
    if name.endswith(".index.json"):
        names = sorted(set(_json(os.path.join(folder, name))["weight_map"].values()))
        paths = [os.path.join(folder, n) for n in names]
    else:
        paths = [os.path.join(folder, name)]
    precision = _least_exact(p for path in paths for p in _tensor_precisions(path))
    if config.get("quantization_config"):
        precision = "quantised"
    return Stored(HUGGING_FACE, precision, _total(paths))


def _first(folder: str, names: Iterable[str]) -> str:
    return next(name for name in names if os.path.isfile(os.path.join(folder, name)))


def _mlx(folder: str, config: dict[str, Any]) -> Stored:
    path = os.path.join(folder, _first(folder, _MLX_FILES))
    precision = _least_exact(_npz_precisions(path) if path.endswith(".npz") else _tensor_precisions(path))
    if quantization := config.get("quantization"):
        precision = f"{int(quantization['bits'])}-bit"
    return Stored(MLX, precision, _total([path]))


def _file(paths: Sequence[str]) -> Stored | None:
    with ExitStack() as opened:
        parts = Parts([opened.enter_context(open(path, "rb")) for path in paths])
        first = parts.take(4)
        if first[:2] == b"PK" and len(paths) == 1:
            return Stored(OPENAI, _least_exact(_torch_precisions(paths[0])), parts.size)
        if first == b"lmgg":
            kind = struct.unpack("<11i", parts.take(44))[10] % 1000
            return Stored(GGML, _GGML.get(kind, "quantised"), parts.size)
        version = int.from_bytes(first, "little")
        if not 3 <= version <= 6 or parts.string() != SPEC_NAME:
            return None
        parts.skip(4)  # the revision
        variables, _ = ctranslate2_variables(parts, version)
        precisions = {variable.type for variable in variables.values() if variable.shape}  # scalars are settings
        return Stored(CTRANSLATE2, _least_exact(precisions), parts.size)


# ---------------------------------------------------------------------------------------------------------
# Precisions, read off headers
# ---------------------------------------------------------------------------------------------------------


def _least_exact(precisions: Iterable[str]) -> str:
    """Return what the whole is: quantised in part is quantised, half in part is half."""
    found = set(precisions)
    inexact = sorted(found - set(EXACT) - {"float64"})
    if inexact:
        return next((name for name in inexact if name != "bfloat16"), "bfloat16")
    return next(name for name in ("float16", "float32", "float64") if name in found)


def _tensor_precisions(path: str) -> set[str]:
    return _torch_precisions(path) if path.endswith(".bin") else _safetensors_precisions(path)


def _torch_precisions(path: str) -> set[str]:
    """Look for the names of storages in the pickle, which is not opened as one."""
    with zipfile.ZipFile(path) as archive:
        name = next(n for n in archive.namelist() if n == "data.pkl" or n.endswith("/data.pkl"))
        if archive.getinfo(name).file_size > _HEADER_LIMIT:
            raise ValueError("no pickle of a Whisper is as long")
        content = archive.read(name)
    return {precision for word, precision in _TORCH_STORAGES.items() if b"\n" + word + b"\n" in content}


def _safetensors_precisions(path: str) -> set[str]:
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(size, _HEADER_LIMIT):
            raise ValueError("no safetensors")
        header = json.loads(file.read(length))
    tensors = [entry for name, entry in header.items() if name != "__metadata__"]
    if max(entry["data_offsets"][1] for entry in tensors) + 8 + length != size:
        raise ValueError("it is truncated")
    return {_SAFETENSORS.get(entry["dtype"], "quantised") for entry in tensors}


def _npz_precisions(path: str) -> set[str]:
    """Look at the largest members, which are the matrices."""
    found = set()
    with zipfile.ZipFile(path) as archive:
        for member in sorted(archive.infolist(), key=lambda member: -member.file_size)[:8]:
            with archive.open(member) as file:
                described = re.search(rb"'descr': '[<>|=]?(\w\d)'", file.read(256))
            found.add(_NUMPY.get(described[1].decode("ascii"), "quantised") if described else "quantised")
    return found


class Parts:
    """A position in a file that may be in parts."""

    def __init__(self, files: Sequence[BinaryIO]) -> None:
        self.files = files
        self.sizes = [os.fstat(file.fileno()).st_size for file in files]
        self.size = sum(self.sizes)
        self.position = 0

    def take(self, size: int) -> bytes:
        """Return the next bytes; a few of a header, so that they may lie in two parts and no more."""
        start = self.position
        self.skip(size)
        content = b""
        for file, length in zip(self.files, self.sizes, strict=True):
            if start < length and len(content) < size:
                file.seek(start)
                content += file.read(size - len(content))
            start = max(start - length, 0)
        return content

    def skip(self, size: int) -> None:
        """Move on."""
        self.position += size
        if self.position > self.size:
            raise ValueError("it is truncated")

    def number(self, form: str) -> int:
        """Return the next number, which `form` describes as `struct` does."""
        return int(struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))[0])

    def string(self) -> str:
        """Return the next text, which ends in a zero."""
        return self.take(self.number("H")).rstrip(b"\0").decode("utf-8")


@dataclass(frozen=True)
class Variable:
    """An array in a file of CTranslate2."""

    type: str
    shape: tuple[int, ...]
    offset: int
    n_bytes: int


def ctranslate2_variables(parts: Parts, version: int) -> tuple[dict[str, Variable], dict[str, str]]:
    """Return what follows the revision of the spec: the variables, and further names of some."""
    found = {}
    for _ in range(min(parts.number("I"), _MOST_VARIABLES)):
        name = parts.string()
        shape = tuple(parts.number("I") for _ in range(parts.number("B")))
        kind = parts.number("B")
        length = parts.number("I")
        if version >= 4:
            type_ = TYPES[kind]
        else:
            type_, length = {1: "int8", 2: "int16", 4: "float32"}[kind], length * kind
        found[name] = Variable(type_, shape, parts.position, length)
        parts.skip(length)
    aliases = {parts.string(): parts.string() for _ in range(min(parts.number("I"), _MOST_VARIABLES))}
    if parts.position != parts.size:
        raise ValueError("it does not end where it should")
    return found, aliases


def _json(path: str) -> dict[str, Any]:
    if os.path.getsize(path) > _HEADER_LIMIT:
        raise ValueError("no description of a model is as long")
    with open(path, encoding="utf-8") as file:
        content = json.load(file)
    return content if isinstance(content, dict) else {}


def _total(paths: Iterable[str]) -> int:
    return sum(map(os.path.getsize, paths))
