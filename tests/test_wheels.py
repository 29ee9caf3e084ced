"""`scripts/try-wheel`, with which the wheels are tested where they are built."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from whisper.runtime.native import kernels

from .conftest import ROOT


def tried(argument: str, choice: str) -> tuple[int, str]:
    """The exit code of `scripts/try-wheel` on this checkout, and what it prints; `choice` is of kernels."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SOTTO_KERNELS": choice}
    command = [sys.executable, ROOT / "scripts" / "try-wheel", argument]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment)
    return done.returncode, done.stdout


@pytest.mark.slow
def test_a_wheel_without_kernels_is_told_from_one_with_them() -> None:
    assert tried("plain", "off")[0] == 0
    code, printed = tried("kernels", "off")
    assert code == 1
    assert "switches them off" in printed


@pytest.mark.slow
@pytest.mark.skipif(kernels.load() is None, reason="there are no kernels here")
def test_a_wheel_with_kernels_must_use_them() -> None:
    assert tried("kernels", "")[0] == 0
    assert tried("plain", "")[0] == 1
