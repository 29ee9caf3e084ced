"""Forks, other processes, signals and the end of Python: what works in one process works in the next.

The scenes are played by `children`, each in a process of its own.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import urlopen

import pytest

from whisper.runtime.native import kernels

from ..children import SAMPLE, SCENES
from ..conftest import ROOT

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


QUICK = ("forks", "copies", "engines", "cannot")  # the others start many processes, each of which imports torch


@pytest.mark.timeout(160)
@pytest.mark.parametrize(
    "scenes",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in SCENES
        if name != "daemon threads"
    ],
)
def test_what_works_in_one_process_works_in_the_next(scenes: str, tmp_path: Path) -> None:
    play(scenes, str(tmp_path))


@pytest.mark.slow
@pytest.mark.timeout(160)
@pytest.mark.skipif(kernels.load() is None, reason="there are none: the scenes were played so")
def test_without_kernels(tmp_path: Path) -> None:
    play("forks", str(tmp_path), SOTTO_KERNELS="off")


@pytest.mark.parametrize("seconds", ["0.1", pytest.param("1.2", marks=pytest.mark.slow)])
def test_python_ends_while_daemon_threads_transcribe(seconds: str) -> None:
    play("daemon threads", seconds)


APP = """
import whisper
model = whisper.load_model("nano", device="cpu")
sound = whisper.load_audio({sample!r})[16000:56000]
def read():
    return model.transcribe(sound, language="en", temperature=0.0)["text"].encode()
expected = read()
def app(environ, start_response):
    start_response("200 OK", [])
    return [b"equal" if read() == expected else b"different"]
"""


@pytest.mark.slow
@pytest.mark.timeout(160)
def test_gunicorn_preload(tmp_path: Path) -> None:
    """Its master loads the model and uses it; two workers with two threads each, forked from it, answer."""
    pytest.importorskip("gunicorn")
    (tmp_path / "app.py").write_text(APP.format(sample=SAMPLE))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        number = listening.fileno()
        options = ["--preload", "--workers", "2", "--threads", "2", "--timeout", "100", "--bind", f"fd://{number}"]
        master = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", *options, "--pythonpath", str(tmp_path), "app:app"],
            cwd=ROOT, env={**os.environ, **QUIET}, pass_fds=[number],
        )  # fmt: skip
        try:
            with ThreadPoolExecutor(4) as pool:
                url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
                answers = list(pool.map(lambda _: urlopen(url, timeout=100).read(), range(6)))
        finally:
            master.terminate()
            master.wait(30)
    assert answers == [b"equal"] * 6
