"""Failures: their kinds, and what follows from each."""

from __future__ import annotations

import errno

import pytest

from whisper.errors import AudioError, CancelledError, OptionError
from whisper.jobs.failures import KINDS, after, kind_of, mending


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (AudioError("no sound"), "audio"),
        (FileNotFoundError(errno.ENOENT, "No such file", "a"), "missing"),
        (PermissionError(errno.EACCES, "Permission denied", "a"), "permission"),
        (OSError(errno.EIO, "Input/output error", "a"), "reading"),
        (OptionError("there is no track 3"), "options"),
        (MemoryError(), "memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "memory"),
        (CancelledError("ended"), "cancelled"),
        (ZeroDivisionError("division by zero"), "error"),
    ],
)
def test_every_error_has_a_kind(error: Exception, kind: str) -> None:
    assert kind_of(error)[0] == kind


def test_what_cannot_pass_is_not_tried_again() -> None:
    assert all(after(kind, 1, 0, 5).state == "failed" for kind in KINDS if not KINDS[kind].passes)


def test_what_may_pass_is_tried_again_each_time_later() -> None:
    waits = [after("reading", n, 0, 3) for n in (1, 2, 3, 4)]
    assert [w.state for w in waits] == ["waiting"] * 3 + ["failed"]
    assert [w.wait_s for w in waits[:3]] == [5, 10, 20]


def test_a_crash_is_tried_once_more_alone() -> None:
    assert after("crash", 1, 0, 0) == ("waiting", 0.0, True)
    assert after("crash", 2, 1, 9).state == "failed"


def test_every_kind_says_what_mends_it() -> None:
    for kind in KINDS:
        told = mending(kind, "my out")
        assert told
        assert "retry" not in told or f"whisper jobs retry 'my out' --kind {kind}" in told
