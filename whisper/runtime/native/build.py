"""Compiles the kernels: one library for each instruction set, from the sources in ``src/``.

Runs while the package is installed (`hatch_build.py` loads this file by its path) and by ``python -m
whisper.runtime.native``, so it imports the standard library only. A compiler that is missing or fails costs
speed, never the installation. Loading is the business of `kernels`.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(__file__).resolve().parent / "src"
MAIN_SOURCE = "kernels.cpp"
SKIP_VARIABLE = "SOTTO_NO_KERNELS"  # set when the package is built or installed: compile nothing
COMPILERS = ("c++", "g++", "clang++")

# no -ffast-math: the order of summation stays as written, so that a result never depends on the batch
FLAGS = ["-O3", "-std=c++17", "-fPIC", "-shared", "-fno-math-errno", "-fno-trapping-math"]
OPENMP = ["-fopenmp"]  # the threads of PyTorch; without it the kernels run on one thread
# PyTorch may bring an older C++ runtime than the compiler's, so it is linked in; some linkers cannot
STATIC_RUNTIME = ["-static-libstdc++", "-static-libgcc", "-Wl,--exclude-libs,ALL"]


@dataclass(frozen=True)
class Variant:
    """The kernels for one instruction set."""

    name: str
    machines: tuple[str, ...]  # as `capabilities.machine` calls them; empty for all others
    needs: frozenset[str]  # names of `capabilities.processor`
    flags: tuple[str, ...]

    @property
    def file_name(self) -> str:
        """The library's name, with the ending that the system has for libraries."""
        endings = {"Windows": ".dll", "Darwin": ".dylib"}
        return f"kernels-{self.name}{endings.get(platform.system(), '.so')}"


_AVX2 = ("avx2", "fma", "f16c", "bmi2")
_AVX512 = (*_AVX2, "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni")


def _x86(name: str, needs: Sequence[str]) -> Variant:
    return Variant(name, ("x86_64",), frozenset(needs), tuple(map(_flag, needs)))


def _flag(need: str) -> str:
    """Return the compiler's flag for what Linux calls `need`: avx512_bf16 is -mavx512bf16, amx_bf16 is -mamx-bf16."""
    return "-m" + need.replace("amx_", "amx-").replace("_", "")


VARIANTS = (  # the fastest first
    _x86("amx", (*_AVX512, "avx512_bf16", "amx_tile", "amx_bf16", "amx_int8")),
    _x86("avx512", (*_AVX512, "avx512_bf16")),
    _x86("vnni", _AVX512),
    _x86("avx2", _AVX2),
    Variant("dotprod", ("arm64",), frozenset({"asimddp"}), ("-march=armv8.2-a+dotprod",)),
    Variant("generic", (), frozenset(), ()),
)


def variants_for(machine: str) -> list[Variant]:
    """Return the variants for a kind of processor, the fastest first.

    On x86-64 there is none below AVX2: PyTorch alone is faster there.
    """
    return [v for v in VARIANTS if machine in v.machines or (not v.machines and machine != "x86_64")]


def find_compiler() -> list[str] | None:
    """Return the command of the C++ compiler: ``CXX`` of the environment, or the first of `COMPILERS` found."""
    if chosen := shlex.split(os.environ.get("CXX", "")):
        return chosen if shutil.which(chosen[0]) else None
    return next(([name] for name in COMPILERS if shutil.which(name)), None)


def build_all(folder: Path, machine: str, say: Callable[[str], None] = print) -> list[Path]:
    """Compile every variant for `machine` into `folder` and return the libraries that were built.

    A failure is reported to `say` in one line.
    """
    compiler = find_compiler()
    if compiler is None:
        wanted = os.environ.get("CXX") or ", ".join(COMPILERS)
        say(f"sotto: no C++ compiler ({wanted}): the kernels are not built, and PyTorch alone computes")
        return []
    folder.mkdir(parents=True, exist_ok=True)
    variants = variants_for(machine)
    with ThreadPoolExecutor(max_workers=min(len(variants), os.cpu_count() or 1)) as pool:
        outcomes = list(pool.map(lambda variant: _compile(compiler, variant, folder), variants))
    for variant, outcome in zip(variants, outcomes, strict=True):
        if isinstance(outcome, str):
            say(f"sotto: the kernels for {variant.name} are not built: {outcome}")
    return [outcome for outcome in outcomes if isinstance(outcome, Path)]


def _compile(compiler: list[str], variant: Variant, folder: Path) -> Path | str:
    """Return the library, or why there is none; an existing one is replaced by rename, as it may be in use."""
    target = folder / variant.file_name
    reason = ""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".build-") as scratch:
        made = Path(scratch) / variant.file_name
        for runtime in ([*OPENMP, *STATIC_RUNTIME], OPENMP, []):
            command = [*compiler, *FLAGS, *variant.flags, *runtime, str(SOURCES / MAIN_SOURCE), "-o", str(made)]
            try:
                done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=900)
            except (OSError, subprocess.TimeoutExpired) as error:
                return str(error)
            if done.returncode == 0:
                os.replace(made, target)
                return target
            lines = [line for line in done.stderr.splitlines() if "error" in line.lower()]
            reason = (lines or [f"{shlex.join(compiler)} exited with {done.returncode}"])[0][:300]
    return reason
