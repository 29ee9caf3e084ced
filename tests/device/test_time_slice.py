"""A short time slice is taken where the kernel takes slices, stays with its thread, and is harmless elsewhere."""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Callable
from typing import TypeVar

import pytest

from whisper.device import time_slice

T = TypeVar("T")
takes_slices = pytest.mark.skipif(
    platform.system() != "Linux"
    or platform.machine() not in time_slice.CALLS
    or tuple(int(part) for part in platform.release().split(".")[:2]) < (6, 12),
    reason="needs Linux 6.12",
)


def on_a_thread(work: Callable[[], T]) -> T:
    """Return what `work` returns on a thread of its own: what it changes ends with that."""
    found: list[T] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join()
    return found[0]


@takes_slices
def test_the_slice_is_the_threads_alone() -> None:
    usual = on_a_thread(time_slice.slice_ns)  # a server that ran on this thread has left it a short one

    def work() -> tuple[bool, int | None, int | None]:
        return time_slice.have_turns_soon(), time_slice.slice_ns(), on_a_thread(time_slice.slice_ns)

    is_taken, mine, of_a_child = on_a_thread(work)
    if not is_taken:  # a container may forbid the call
        assert mine == usual
        return
    assert mine == time_slice.SHORT_NS
    assert usual is not None
    assert usual > time_slice.SHORT_NS
    assert of_a_child == usual
    assert on_a_thread(time_slice.slice_ns) == usual


@takes_slices
def test_niceness_stays() -> None:
    def work() -> int:
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + 1)
        chosen = os.getpriority(os.PRIO_PROCESS, thread)
        time_slice.have_turns_soon()
        return os.getpriority(os.PRIO_PROCESS, thread) - chosen

    assert on_a_thread(work) == 0


@pytest.mark.parametrize("calls", [{}, {platform.machine(): (100_000, 100_001)}], ids=["other machine", "refused"])
def test_refusal_is_harmless(monkeypatch: pytest.MonkeyPatch, calls: dict[str, tuple[int, int]]) -> None:
    usual = time_slice.slice_ns()
    with monkeypatch.context() as patch:
        patch.setattr(time_slice, "CALLS", calls)
        assert on_a_thread(time_slice.have_turns_soon) is False
        assert time_slice.slice_ns() is None
    assert time_slice.slice_ns() == usual


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_slice.sys, "platform", "win32")
    assert on_a_thread(time_slice.have_turns_soon) is False
