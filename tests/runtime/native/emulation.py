"""Kernels for another processor, run under emulation: jobs for driver.cpp, compilers, emulators.

A job is a model as `packing.Packer` packs it, recorded by a library that only listens, and a list of calls.
"""

from __future__ import annotations

import ctypes
import shutil
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from whisper.model import Whisper
from whisper.runtime.interface import n_own_positions, n_positions_with_padding
from whisper.runtime.native import build
from whisper.runtime.native.packing import Packer
from whisper.runtime.native.runner import TYPES

DRIVER = Path(__file__).with_name("driver.cpp")
KINDS = {"i": np.int32, "f": np.float32, "d": np.float64, "b": np.uint8}

Results = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Target:
    """A processor to build for: its compiler, and what runs its programs here; nothing where it is our own."""

    machine: str  # as `hardware.machine` calls it
    compiler: str
    emulator: tuple[str, ...] = ()
    packages: str = ""  # of Debian

    def missing(self) -> str:
        """What is not here, and how to get it; empty where all is."""
        lacking = [program for program in (self.compiler, *self.emulator[:1]) if not shutil.which(program)]
        return f"{' and '.join(lacking)} missing: apt-get install {self.packages}" if lacking else ""

    def build(self, folder: Path, variants: Sequence[build.Variant]) -> dict[str, Path]:
        """Compile the driver and the kernels as an installation does, into ``folder``; returns these by variant."""
        folder.mkdir(exist_ok=True)
        flags = ["-O1", "-std=c++17", f"-I{build.SOURCES}"]
        subprocess.run([self.compiler, *flags, str(DRIVER), "-o", str(folder / "driver"), "-ldl"], check=True)
        outcomes = {variant.name: build._compile([self.compiler], variant, folder) for variant in variants}
        for name, outcome in outcomes.items():
            assert isinstance(outcome, Path), f"{name}: {outcome}"
        return {name: Path(str(outcome)) for name, outcome in outcomes.items()}

    def run(self, kernels: Path, job: Path, results: Path, cpu: str = "max") -> Results:
        """Run a job with a library that `build` made, on an emulated processor `cpu`."""
        emulator = [word.format(cpu=cpu) for word in self.emulator]
        command = [*emulator, str(kernels.parent / "driver"), str(kernels), str(job), str(results)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{done.returncode}: {done.stderr}"
        return read_results(results)


TARGETS = {
    "aarch64": Target(
        "arm64", "aarch64-linux-gnu-g++", ("qemu-aarch64", "-cpu", "{cpu}", "-L", "/usr/aarch64-linux-gnu"),
        "g++-aarch64-linux-gnu qemu-user",
    ),
    "x86_64": Target("x86_64", "g++", packages="g++"),
}  # fmt: skip


# ---------------------------------------------------------------------------------------------------------
# Jobs
# ---------------------------------------------------------------------------------------------------------


@dataclass
class Matrix:
    """A matrix as `sotto_linear_new` and `sotto_linear_pack` get it."""

    shape: tuple[int, int, int, int]  # dtype, n, k, keep_remainder
    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32] | None = None


@dataclass
class Recorder:
    """Stands in for the library while a model is packed; its dtypes are those of processors without bfloat16."""

    matrices: list[Matrix] = field(default_factory=list)

    def sotto_sensitive_dtype(self, dtype: int) -> int:
        return dtype

    def sotto_unquantized_dtype(self, dtype: int) -> int:
        return TYPES["bfloat16"] if dtype == TYPES["bfloat16"] else TYPES["float32"]

    def sotto_linear_new(self, arena: object, dtype: int, n: int, k: int, keep_remainder: int) -> int:
        self.matrices.append(Matrix((dtype, n, k, int(keep_remainder)), np.zeros((n, k), np.float32)))
        return len(self.matrices)

    def sotto_linear_pack(
        self, linear: int, first: int, count: int, weight: ctypes.c_void_p, bias: ctypes.c_void_p | None, n_threads: int
    ) -> None:
        matrix = self.matrices[linear - 1]
        matrix.weight[first : first + count] = _floats_at(weight, count * matrix.shape[2]).reshape(count, -1)
        if bias is not None:
            if matrix.bias is None:
                matrix.bias = np.zeros(matrix.shape[1], np.float32)
            matrix.bias[first : first + count] = _floats_at(bias, count)


def _floats_at(pointer: ctypes.c_void_p, n: int) -> npt.NDArray[np.float32]:
    return np.frombuffer(ctypes.string_at(pointer, 4 * n), np.float32)


@dataclass(frozen=True)
class Calls:
    """What is called on the model, beside encoding `mel`."""

    mel: npt.NDArray[np.float32]  # (n_mels, 2 n)
    n_rows: int
    heads: Sequence[int]  # whose scores are recorded: layer * n_head + head
    batches: Sequence[tuple[Sequence[int], ...]]  # tokens, rows, positions, logit_indices
    timestamp_begin: int
    n_best: int = 5
    suppressed: Sequence[int] = (0, 5, 17)


def write_job(path: Path, model: Whisper, compute_type: str, calls: Calls, n_threads: int = 1) -> None:
    """Write a job: the order of its arrays is the order in which driver.cpp takes them."""
    recorder = Recorder()
    packer = Packer(recorder, model.dims, TYPES[compute_type], None, model.state_dict())  # type: ignore[arg-type]
    kept = {array.ctypes.data: array for array in packer.kept}
    arrays: list[npt.NDArray[Any]] = [_ints(n_threads)]
    for part in ("encoder", "decoder"):
        dims, linears, pointers = packer.parts[part]
        arrays += [_ints(*(getattr(dims, name) for name, _ in dims._fields_)), _ints(len(linears))]
        for number in linears:
            matrix = recorder.matrices[number - 1]
            bias = np.zeros(0, np.float32) if matrix.bias is None else matrix.bias
            arrays += [_ints(*matrix.shape), matrix.weight.ravel(), bias]
        arrays += [_ints(len(pointers)), *(kept[pointer].ravel() for pointer in pointers)]
    n_own = n_own_positions(torch.from_numpy(calls.mel), model.dims)
    arrays += [
        _ints(n_own),
        _ints(n_positions_with_padding(n_own, model.dims)),
        calls.mel.ravel(),
        _ints(calls.n_rows),
        _ints(*calls.heads),
    ]
    arrays += [_ints(len(calls.batches)), *(_ints(*column) for batch in calls.batches for column in batch)]
    arrays += [_ints(calls.n_best, calls.timestamp_begin), _ints(*calls.suppressed)]
    arrays += other_inputs()
    with open(path, "wb") as file:
        for array in arrays:
            kind = next(kind for kind, dtype in KINDS.items() if array.dtype == dtype)
            file.write(kind.encode() + struct.pack("<Q", array.size) + array.tobytes())


def other_inputs() -> list[npt.NDArray[Any]]:
    """Bytes to digest; scores of cross-attention (heads, tokens, positions); costs of a path."""
    random = np.random.default_rng(1)
    shape = (3, 11, 157)
    qk = random.normal(size=shape).astype(np.float32)
    return [
        random.integers(0, 256, 100_003).astype(np.uint8), _ints(*shape), qk.ravel(),
        random.normal(size=shape[1:]).ravel(),
    ]  # fmt: skip


def _ints(*numbers: int) -> npt.NDArray[np.int32]:
    return np.array(numbers, dtype=np.int32)


def read_results(path: Path) -> Results:
    """The named arrays that the driver wrote."""
    results, data, at = Results(), path.read_bytes(), 0
    while at < len(data):
        end = data.index(b"\n", at)
        dtype = np.dtype(KINDS[chr(data[end + 1])])
        (n,) = struct.unpack_from("<Q", data, end + 2)
        results[data[at:end].decode()] = np.frombuffer(data, dtype, n, end + 10)
        at = end + 10 + n * dtype.itemsize
    return results
