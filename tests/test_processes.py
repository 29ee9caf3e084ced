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

END = {"daemon threads"}  # it depends on the moment: played several times


def play(scene: str, *arguments: str, **environment: str) -> None:
    command = [sys.executable, "-m", "tests.children", scene, *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=110
    )
    assert (done.returncode, done.stdout.split()[-1:]) == (0, ["ok"]), done.stderr[-6000:]


@pytest.mark.parametrize("scene", [name for name in SCENES if name not in END])
def test_scenes(scene: str, tmp_path: Path) -> None:
    play(scene, str(tmp_path))


@pytest.mark.skipif(kernels.load() is None, reason="there are none: the scenes were played so")
@pytest.mark.parametrize("scene", ["fork after use", "fork in the middle"])
def test_scenes_without_kernels(scene: str) -> None:
    play(scene, SOTTO_KERNELS="off")


@pytest.mark.parametrize("seconds", ["0.1", "0.5", "1.2"])
def test_python_ends_while_daemon_threads_transcribe(seconds: str) -> None:
    play("daemon threads", seconds)
