"""Forks, other processes, signals and the end of Python: what works in one process works in the next.

The scenes are played by `children`, each in a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from whisper import kernels

from .children import SCENES
from .conftest import ROOT

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

# threads that spin while they wait for each other stand still on a machine that is busy with other tests
QUIET = {"OMP_WAIT_POLICY": "PASSIVE"}


def play(scenes: str, *arguments: str, **environment: str) -> None:
    command = [sys.executable, "-m", "tests.children", scenes, *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **QUIET, **environment}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=150,
    )  # fmt: skip
    assert (done.returncode, done.stdout.split()[-1:]) == (0, ["ok"]), done.stderr[-6000:]


@pytest.mark.timeout(160)
@pytest.mark.parametrize("scenes", [name for name in SCENES if name != "daemon threads"])
def test_what_works_in_one_process_works_in_the_next(scenes: str, tmp_path: Path) -> None:
    play(scenes, str(tmp_path))


@pytest.mark.timeout(160)
@pytest.mark.skipif(kernels.load() is None, reason="there are none: the scenes were played so")
def test_without_kernels(tmp_path: Path) -> None:
    play("forks", str(tmp_path), SOTTO_KERNELS="off")


@pytest.mark.parametrize("seconds", ["0.1", "1.2"])
def test_python_ends_while_daemon_threads_transcribe(seconds: str) -> None:
    play("daemon threads", seconds)
