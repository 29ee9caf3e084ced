"""What the processor can do, by the names that Linux has for it ("avx2", "avx512_vnni", "asimddp"), and what is free.

Asks the processor (through the kernel, or through torch) and decides nothing.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# torch's names, where they are not Linux's own
_FROM_TORCH = {
    "avx512_f": "avx512f", "avx512_bw": "avx512bw", "avx512_vl": "avx512vl", "avx512_dq": "avx512dq",
    "fma3": "fma", "neon": "asimd", "dot": "asimddp", "fp16_arith": "asimdhp",
}  # fmt: skip

_APPLE = frozenset({"asimd", "asimddp", "asimdhp"})  # every ARM processor that Apple put into a computer


@functools.lru_cache(maxsize=1)
def machine() -> str:
    """Return the kind of processor: "x86_64", "arm64", or as the system calls it."""
    name = platform.machine().lower()
    return {"amd64": "x86_64", "x64": "x86_64", "aarch64": "arm64"}.get(name, name)


@functools.lru_cache(maxsize=1)
def processor() -> frozenset[str]:
    """Return the names of the instruction sets that this processor and its system offer."""
    return _from_linux() or _from_torch()


def _from_linux() -> frozenset[str]:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:  # one block per core, all alike: the first does
                name, _, value = line.partition(":")
                if name.strip().lower() in ("flags", "features"):
                    return frozenset(value.split())
    except OSError:
        pass
    return frozenset()


def _from_torch() -> frozenset[str]:
    import torch

    if hasattr(torch.cpu, "get_capabilities"):
        found = torch.cpu.get_capabilities()
        return frozenset(_FROM_TORCH.get(name, name) for name, value in found.items() if value is True)
    if machine() == "arm64" and platform.system() == "Darwin":
        return _APPLE
    avx2 = {"avx2", "fma", "f16c", "bmi2"}  # every processor with AVX2 has the other three
    known = {"AVX2": avx2, "AVX512": avx2 | {"avx512f", "avx512bw", "avx512vl", "avx512dq"}}
    return frozenset(known.get(torch.backends.cpu.get_cpu_capability(), ()))


def processor_name() -> str:
    """Return what the processor is called, as well as the system knows."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name.strip().lower() == "model name":
                    return value.strip()
    except OSError:
        pass
    return platform.processor() or machine()


def has_int8() -> bool:
    """Whether products of int8 take one instruction."""
    return bool(processor() & {"avx512_vnni", "avx_vnni", "asimddp"})


def has_bfloat16() -> bool:
    """Whether products of bfloat16 take one instruction."""
    return bool(processor() & {"avx512_bf16", "amx_bf16", "bf16"})


def has_bfloat16_tiles() -> bool:
    """Whether products of bfloat16 are computed on tiles of matrices (AMX), faster than those of int8 on vectors."""
    return "amx_bf16" in processor()


def usable_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def physical_cores() -> int:
    """Return on how many cores this process may compute; two threads that share one count once."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    siblings = set()
    for i in usable:
        try:
            text = Path(f"/sys/devices/system/cpu/cpu{i}/topology/thread_siblings_list").read_text(encoding="ascii")
        except OSError:
            text = str(i)
        siblings.add(text)
    return len(siblings)


def free_memory(device: torch.device) -> int:
    """Return how many bytes are free on a device, 0 where the system does not say."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        try:
            free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
        except (AttributeError, OSError, ValueError):
            return 0
    with contextlib.suppress(OSError, ValueError):  # a container may be given less; "max" is no number
        free = min(free, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")) // 2)
    return free
