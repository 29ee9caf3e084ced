"""The command starts without torch where packed weights are on disk, and writes what it writes with it."""

import json
import os
import subprocess
import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from whisper import load_model, transcribe
from whisper.cli import quick_start
from whisper.cli.common import ModelOptions
from whisper.runtime.native import kernels, packed_files
from whisper.runtime.packed_model import PackedModel

from ..conftest import ROOT

COMMAND = """
import sys
from whisper.cli.main import cli
sys.argv[0] = "whisper"
code = cli(sys.argv[1:])
print("torch" in sys.modules, code)
"""

needs_kernels = pytest.mark.skipif(
    kernels.load() is None or any(map(os.path.exists, quick_start.GPUS)) or sys.platform == "win32",
    reason="the quick start is for compiled kernels on a machine without a GPU",
)


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """Two seconds of noise that grows and falls, in two channels."""
    random = np.random.default_rng(0)
    samples = random.normal(size=(32000, 2)) * np.sin(np.arange(32000) / 2000)[:, None] * 8000
    path = tmp_path / "noise.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((2, 2, 16000, 0, "NONE", ""))
        file.writeframes(samples.clip(-32000, 32000).astype("<i2").tobytes())
    return path


def run(tmp_path: Path, *arguments: str, packed: str = "") -> str:
    """Run the command in a process whose name is the command's, and return what it printed last."""
    script = tmp_path / "whisper"
    script.write_text(COMMAND)
    environment = {
        **os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), packed_files.VARIABLE: packed, "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    command = [sys.executable, str(script), *arguments, "--model", "nano", "--output_dir", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


@needs_kernels
def test_the_second_start_needs_no_torch_and_gives_the_same(tmp_path: Path, sound: Path) -> None:
    options = ("--language", "en", "--temperature", "0", "--word_timestamps", "True", "-f", "json", "--threads", "1")
    results = []
    for torch_is_there in (True, False):
        assert run(tmp_path, str(sound), *options) == f"{torch_is_there} 0"
        results.append(json.loads((tmp_path / "out" / "noise.json").read_text()))
    assert results[0] == results[1]


@needs_kernels
def test_what_needs_torch_gets_it(tmp_path: Path, sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(packed_files.VARIABLE)
    options: dict[str, Any] = {"language": "en", "temperature": 0.5, "seed": 1, "no_speech_threshold": None}
    given = (
        {"hotwords": "noise", "hotword_boost": 3.0, "best_of": 2}, {"vad_filter": True}, {"channels": "separate"},
        {"audit": True}, {"beam_size": 2, "temperature": 0.0, "word_timestamps": True}, {"fp16": False},
    )  # fmt: skip
    whole = load_model("nano", device="cpu")
    model: Any = quick_start.load(ModelOptions(), "nano", True, lambda: whole)
    assert type(model) is PackedModel
    for more in given:
        found, expected = (transcribe(each, str(sound), **{**options, **more}) for each in (model, whole))
        assert found["text"] == expected["text"]
        assert len(found["segments"]) == len(expected["segments"])


@pytest.mark.parametrize(("device", "quick"), [("cpu", True), ("auto", True), ("cuda", False), ("mps", False)])
def test_only_the_processor_starts_quickly(monkeypatch: pytest.MonkeyPatch, device: str, quick: bool) -> None:
    monkeypatch.setattr(quick_start, "GPUS", ())
    monkeypatch.setattr("platform.system", lambda: "Linux")
    assert quick_start.may_be_quick(device) == quick
    monkeypatch.setattr(quick_start, "GPUS", (sys.executable,))
    assert not quick_start.may_be_quick(device)


@pytest.mark.parametrize("why", ["exact", "no file", "a name of a hub"])
def test_otherwise_the_whole_model_is_loaded(why: str) -> None:
    model = object()
    name = "somebody/something" if why == "a name of a hub" else "nano"
    assert quick_start.load(ModelOptions(device="cpu"), name, why != "exact", lambda: model) is model  # type: ignore[arg-type, return-value]
