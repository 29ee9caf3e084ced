"""The command starts without torch where packed weights are on disk, and writes what it writes with it."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from whisper import load_model, transcribe
from whisper.checkpoints import save_checkpoint
from whisper.checkpoints.formats import openai_arrays
from whisper.checkpoints.stored_arrays import StoredArrays
from whisper.cli import quick_start
from whisper.cli.common import ModelOptions
from whisper.errors import DownloadError
from whisper.model import ModelDimensions, Whisper
from whisper.runtime import select
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


def run(tmp_path: Path, *arguments: str) -> str:
    """Run the command in a process whose name is the command's, and return what it printed last."""
    script = tmp_path / "whisper"
    script.write_text(COMMAND)
    environment = {
        **os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), packed_files.VARIABLE: "", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    command = [sys.executable, str(script), *arguments, "--output_dir", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


OPTIONS = (
    "--language", "en", "--temperature", "0", "--temperature_increment_on_fallback", "None", "-f", "json",
    "--threads", "1",
)  # fmt: skip
DIMS = ModelDimensions(80, 1500, 32, 2, 2, 51864, 448, 32, 2, 2)


@pytest.fixture
def little(tmp_path: Path) -> str:
    """A checkpoint of random numbers that `transcribe` takes, in a ``.pt`` file."""
    torch.manual_seed(0)
    path = tmp_path / "little.pt"
    save_checkpoint(Whisper(DIMS), path, half=True)
    return str(path)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of packed weights of `run`, also for this process."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(packed_files.VARIABLE)
    return Path(packed_files.folder())


@needs_kernels
@pytest.mark.parametrize("kind", ["nano", "pt"])
def test_no_start_needs_torch_and_all_give_the_same(tmp_path: Path, sound: Path, little: str, kind: str) -> None:
    """The first one packs, in a child with torch or here without it; the second one reads."""
    results = []
    for _ in range(2):
        more = (little,) if kind == "pt" else ("nano", "--word_timestamps", "True")
        assert run(tmp_path, str(sound), *OPTIONS, "--model", *more) == "False 0"
        results.append(json.loads((tmp_path / "out" / "noise.json").read_text()))
    assert results[0] == results[1]


@needs_kernels
def test_what_is_packed_without_torch_is_what_load_model_packs(
    tmp_path: Path, sound: Path, little: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, str(sound), *OPTIONS, "--model", little)
    (found,) = home.iterdir()
    content = found.read_bytes()
    found.unlink()
    monkeypatch.setattr("whisper.checkpoints.lazy_tensors.SMALL", 0)
    select.runner_for(load_model(little, device="cpu"), fp16=True)
    assert found.read_bytes() == content


@needs_kernels
@pytest.mark.parametrize("model", ["nano", "pt"])
def test_where_nothing_can_be_kept_the_result_is_the_same(
    tmp_path: Path, sound: Path, little: str, home: Path, model: str
) -> None:
    """Then a model that is read with torch is read in this process, once."""
    home.parent.mkdir(parents=True)
    home.write_text("a file where the folder would be")
    name, needs_torch = ("nano", True) if model == "nano" else (little, False)
    assert run(tmp_path, str(sound), *OPTIONS, "--model", name) == f"{needs_torch} 0"
    text = json.loads((tmp_path / "out" / "noise.json").read_text())["text"]
    home.unlink()
    run(tmp_path, str(sound), *OPTIONS, "--model", name)
    assert json.loads((tmp_path / "out" / "noise.json").read_text())["text"] == text


@needs_kernels
def test_a_file_that_changes_while_it_is_packed_is_loaded_again(
    little: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whisper.checkpoints.stored_arrays.JUST_NOW", 0)
    read = StoredArrays.__getitem__

    def read_and_touch(self: StoredArrays, name: str) -> Any:
        os.utime(little)
        return read(self, name)

    monkeypatch.setattr(StoredArrays, "__getitem__", read_and_touch)
    loaded: list[Any] = []

    def whole() -> Any:
        assert not home.exists()
        loaded.append(load_model(little, device="cpu"))
        return loaded[0]

    model: Any = quick_start.load(ModelOptions(device="cpu"), little, True, whole)
    assert loaded
    assert model.dims == DIMS


@pytest.fixture
def published(little: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model in the folder of downloads, under the name of tiny.en."""
    monkeypatch.setattr("whisper.checkpoints.stored_arrays.JUST_NOW", 0)
    path = home.parent / "tiny.en.pt"
    home.parent.mkdir(parents=True)
    shutil.copy(little, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.delitem(openai_arrays._ALIGNMENT_HEADS, "tiny.en")  # of another number of layers
    monkeypatch.setitem(quick_start._MODELS, "tiny.en", f"https://example.org/{digest}/tiny.en.pt")
    return path


@needs_kernels
def test_a_model_is_downloaded_without_torch(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = published.rename(published.with_name("elsewhere"))

    def download(url: str, root: str, in_memory: bool) -> str:
        assert (url, root, in_memory) == (quick_start._MODELS["tiny.en"], str(published.parent), False)
        return shutil.copy(elsewhere, published)

    monkeypatch.setattr(quick_start, "_download", download)
    whole = object()
    model: Any = quick_start.load(ModelOptions(device="cpu"), "tiny.en", True, lambda: whole)  # type: ignore[arg-type, return-value]
    assert type(model) is PackedModel
    assert model.dims == DIMS


@needs_kernels
def test_what_cannot_be_downloaded_is_explained(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published.unlink()

    def fail(*_: Any) -> None:
        raise DownloadError("cannot reach example.org")

    monkeypatch.setattr(quick_start, "_download", fail)
    message = "model tiny.en is not on this machine and cannot be downloaded: cannot reach example.org; no other model"
    with pytest.raises(DownloadError, match=message):
        quick_start.load(ModelOptions(device="cpu"), "tiny.en", True, lambda: pytest.fail("it was loaded"))


@needs_kernels
@pytest.mark.parametrize("is_whole", [True, False])
def test_a_download_is_verified_before_it_is_packed(published: Path, is_whole: bool) -> None:
    if not is_whole:
        with open(published, "ab") as file:
            file.write(b"\0")
    whole = object()
    model: Any = quick_start.load(ModelOptions(device="cpu"), "tiny.en", True, lambda: whole)  # type: ignore[arg-type, return-value]
    assert (model is whole) != is_whole
    assert not is_whole or model.dims == DIMS


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
