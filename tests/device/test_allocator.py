"""malloc keeps little, in this process and in those that it starts."""

import ctypes
import subprocess
import sys
from typing import Any

import pytest

from whisper.device import allocator

from ..conftest import ROOT


def test_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    class Libc:
        def __init__(self, name: Any) -> None:
            self.mallopt = lambda *given: asked.append(given)

    monkeypatch.setattr(ctypes, "CDLL", Libc)
    allocator.keep_little()
    assert asked == [(-8, allocator.ARENAS), (-3, allocator.LARGE)]
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())  # a libc without that
    allocator.keep_little()


def test_new_processes() -> None:
    made = allocator.keeping_little({"PATH": "/bin"})
    assert made == {"MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": str(1 << 20), "PATH": "/bin"}
    assert allocator.keeping_little({"MALLOC_ARENA_MAX": "5"})["MALLOC_ARENA_MAX"] == "5"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux how much it has")
def test_large_blocks_go_back() -> None:
    """Blocks between which others stay: without the limit the first that is freed lets all later ones be kept."""
    code = """
import ctypes, sys
from whisper.device import allocator
libc = ctypes.CDLL(None)
if not hasattr(libc, "mallopt"):
    sys.exit(77)
if sys.argv[1] == "1":
    allocator.keep_little()
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
def taken(n):
    pointer = libc.malloc(n)
    ctypes.memset(pointer, 1, n)
    return pointer
libc.free(taken(16 << 20))
blocks, small = [], []
for _ in range(30):
    blocks.append(taken(4 << 20))
    small.append(taken(500_000))
for pointer in blocks:
    libc.free(pointer)
print(int(open("/proc/self/statm").read().split()[1]) * 4096 >> 20)
"""
    held = []
    for limited in "01":
        done = subprocess.run(
            [sys.executable, "-c", code, limited], capture_output=True, text=True, check=False, cwd=ROOT
        )
        if done.returncode == 77:
            pytest.skip("another libc")
        held.append(int(done.stdout))
    assert held[0] - held[1] > 80
