"""Every example runs as it stands and prints what it promises."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .real_models import needs

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
SAMPLE = str(EXAMPLES / "sample.flac")
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "SOTTO_FIND"}


def run(name: str, *arguments: str, cwd: Path, timeout: float = 100) -> str:
    command = [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=timeout, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_all_examples_are_tried_here() -> None:
    assert {p.name for p in EXAMPLES.glob("*.py")} == {
        "transcribe.py", "karaoke.py", "threads.py", "fine_tune.py",
    }  # fmt: skip


def test_transcribe(tmp_path: Path) -> None:
    language, *lines = run("transcribe.py", SAMPLE, "nano", cwd=tmp_path).splitlines()
    assert language == "language: en"
    assert lines
    assert all(" - " in line for line in lines)


@needs("base")
def test_transcribe_as_it_stands(tmp_path: Path) -> None:
    language, *lines = run("transcribe.py", cwd=tmp_path).splitlines()
    assert language == "language: en"
    assert "brought calligraphy to perfection" in " ".join(line.split(maxsplit=3)[3] for line in lines)


def test_karaoke(tmp_path: Path) -> None:
    shown = run("karaoke.py", SAMPLE, ".", "nano", cwd=tmp_path)
    assert shown.startswith("WEBVTT")
    assert "<u>" in shown
    assert (tmp_path / "sample.vtt").is_file()


@pytest.mark.slow
@needs("base")
def test_threads(tmp_path: Path) -> None:
    lines = run("threads.py", *[SAMPLE] * 3, cwd=tmp_path).splitlines()
    texts = {line.split(":", 1)[1] for line in lines}
    assert len(lines) == 3
    assert len(texts) == 1


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_fine_tune(tmp_path: Path) -> None:
    before, after = run("fine_tune.py", cwd=tmp_path, timeout=900).splitlines()[-2:]
    assert before == "nano: computer one two three smart mirror"
    assert after.endswith("model.pt: sotto voce one two three looking glass")
    assert (tmp_path / "fine-tuned" / "out" / "curves.png").is_file()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("transcribe.py", marks=pytest.mark.slow),
        "karaoke.py",
        pytest.param("threads.py", marks=[needs("base"), pytest.mark.slow]),
    ],
)
def test_a_missing_recording_is_told(name: str, tmp_path: Path) -> None:
    models = {"transcribe.py": ["nano"], "karaoke.py": [".", "nano"], "threads.py": []}
    command = [sys.executable, str(EXAMPLES / name), "missing.wav", *models[name]]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=100, env=ENVIRONMENT)
    assert done.returncode == 1
    assert "AudioError" in done.stderr
    assert "missing.wav" in done.stderr
