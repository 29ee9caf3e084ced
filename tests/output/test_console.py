"""The command and `transcribe` without a console, with a poor one, and with one that its reader has left."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import whisper
from tests.models import random_model
from whisper.cli.main import cli
from whisper.output.console import is_terminal, show, standard_streams
from whisper.output.progress import ProgressBar

SAID = {"text": " 你好 é", "language": "zh", "segments": [{"start": 0.0, "end": 1.0, "text": " 你好 é"}]}
BODY = f"""
import os, sys, types, warnings, whisper
from whisper.output.console import show
def transcribe(model, audio, **options):
    warnings.warn("something to know", RuntimeWarning)
    for _ in range(3000):
        show("你好 é" * 20, sys.stdout)
    return {SAID!r}
sys.modules['whisper.transcribe'].transcribe = transcribe
sys.modules['whisper.checkpoints'].load_model = lambda *_, **__: types.SimpleNamespace(is_multilingual=True)
from whisper.cli import cli
"""
posix = pytest.mark.skipif(os.name != "posix", reason="file descriptors as POSIX has them")


def run(shell: str, folder: Path, before: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command on a.wav in a shell line, where "$@" is the command."""
    (folder / "a.wav").touch()
    (folder / "b.wav").touch()
    code = f"{BODY}\n{before}\nsys.exit(cli(['a.wav', 'b.wav', '-o', 'out', '-f', 'txt']))"
    path = os.pathsep.join([str(Path(whisper.__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        ["sh", "-c", shell, "sh", sys.executable, "-c", code], cwd=folder, capture_output=True, text=True,
        encoding="utf-8", env={**os.environ, "PYTHONPATH": path, **environment}, timeout=100, check=False,
    )  # fmt: skip


def written(folder: Path) -> list[str]:
    return [(folder / "out" / name).read_text(encoding="utf-8") for name in sorted(os.listdir(folder / "out"))]


@posix
@pytest.mark.parametrize(
    ("shell", "before"),
    [
        ('"$@" <&- >&- 2>&-; echo $? >&9', ""),  # a service: no descriptors at all
        ('"$@" 2>&-; echo $? >&9', ""),
        ('"$@"; echo $? >&9', "sys.stdin = sys.stdout = sys.stderr = None"),  # pythonw
        ('"$@"; echo $? >&9', "sys.stdout.close(); sys.stderr.close()"),
        ('"$@" | head -1 > first; echo ${PIPESTATUS} >&9', ""),
    ],
)
def test_files_are_written_whoever_listens(shell: str, before: str, tmp_path: Path) -> None:
    done = run(f"exec 9>status; {shell.replace('${PIPESTATUS}', '0')}", tmp_path, before)
    assert (tmp_path / "status").read_text() == "0\n", done.stderr
    assert written(tmp_path) == ["你好 é\n", "你好 é\n"]
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


@posix
def test_a_reader_that_leaves_does_not_change_the_exit_code(tmp_path: Path) -> None:
    done = run('{ "$@"; echo $? > status; } | head -1', tmp_path)
    assert (tmp_path / "status").read_text() == "0\n"
    assert done.stdout.startswith("你好")
    assert written(tmp_path) == ["你好 é\n"] * 2
    assert "2 of 2 recordings" in done.stderr


@posix
@pytest.mark.parametrize(("encoding", "line"), [("ascii", "?? ?"), ("cp1252", "?? é")])
def test_a_poor_console_shows_question_marks(encoding: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    done = run('"$@" > screen', tmp_path, PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "screen").read_bytes().decode(encoding).startswith(line)
    assert written(tmp_path) == ["你好 é\n"] * 2


class Gone(io.StringIO):
    """A stream whose other end is not there any more."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


def streams() -> list[Any]:
    closed = io.StringIO()
    closed.close()
    return [None, closed, Gone(), io.TextIOWrapper(io.BytesIO(), "cp1252"), io.TextIOWrapper(io.BytesIO(), "ascii")]


@pytest.mark.parametrize("i", range(5))
@pytest.mark.parametrize("verbose", [True, False])
def test_transcribe_prints_what_it_can(i: int, verbose: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, sound = random_model(3), np.random.default_rng(1).standard_normal(16000).astype(np.float32) * 0.1
    options: dict[str, Any] = {"fp16": False, "temperature": 0.0, "sample_len": 6}
    expected = model.transcribe(sound, **options)
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, streams()[i])
    assert model.transcribe(sound, verbose=verbose, **options) == expected
    assert model.transcribe([sound], verbose=verbose, **options) == [expected]


def test_show() -> None:
    for stream in streams()[:3]:
        show("text", stream)
        assert not is_terminal(stream)
        ProgressBar(10, True).advance(10)
    poor = streams()[3]
    show("é 你", poor)
    assert poor.buffer.getvalue().split() == [b"\xe9", b"?"]

    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="space"):
        show("text", Full())


def test_streams_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    with pytest.raises(SystemExit) as left:
        cli(["--no_such_option"])
    assert left.value.code == 2
    with pytest.raises(SystemExit) as left:
        cli(["--help"])
    assert left.value.code == 0
    with standard_streams():
        print("nowhere", file=sys.stderr)
    assert sys.stdout is None
    assert sys.stderr is None
