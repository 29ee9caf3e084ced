"""The doctor names what is there, finds what is broken, says what to do, and survives its patients."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import pytest
import torch

from whisper.checkpoints import bundled, load
from whisper.cli import doctor
from whisper.cli.doctor import Fact, examine, report
from whisper.cli.main import cli
from whisper.device import hardware
from whisper.runtime import select
from whisper.runtime.native import kernels
from whisper.version import __release__


def fact(facts: list[Fact], group: str, name: str) -> Fact:
    (found,) = [f for f in facts if (f.group, f.name) == (group, name)]
    return found


def test_a_healthy_installation(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert doctor.main() == 0
    said = capsys.readouterr().out
    for known in (
        __release__, torch.__version__, "libavcodec", hardware.machine(), "auto is",
        "nano (bundled)", "OMP_NUM_THREADS", "OK: 16000 samples", "OK: nano listened", "fast path, float32",
    ):  # fmt: skip
        assert known in said
    assert said.endswith("Everything works.\n")
    assert not [line for line in said.splitlines() if line.startswith("!")]


def test_it_needs_no_recording(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: [Fact("Group", "part", "gone", "put it back", broken=True)])
    with pytest.raises(SystemExit) as left:
        cli(["--doctor"])
    assert left.value.code == 1
    assert capsys.readouterr().out == "Group\n! part  gone\n        -> put it back\n\nBroken: part.\n"


def test_what_is_missing_or_unusable_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = importlib.metadata.version

    def without_av(name: str) -> str:
        if name == "av":
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", without_av)
    monkeypatch.setattr(bundled, "BUNDLED", str(tmp_path / "nano.safetensors"))
    monkeypatch.setenv(kernels.VARIABLE, "quick")
    facts = examine(self_test=False)
    broken = {f.name: f.advice for f in facts if f.broken}
    assert set(broken) == {"av", "nano (bundled)", "loaded"}
    assert broken["av"] == "pip install av"
    assert "install sotto again" in broken["nano (bundled)"]
    assert "SOTTO_KERNELS is 'quick'" in broken["loaded"]
    assert "Broken: av, loaded, nano (bundled)." in report(facts)


def test_a_probe_that_fails_is_a_fact(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken_driver() -> bool:
        raise RuntimeError("the driver is on strike")

    monkeypatch.setattr(torch.cuda, "is_available", broken_driver)
    facts = examine(self_test=False)
    assert fact(facts, "Devices", "examination").value == "failed: RuntimeError: the driver is on strike"
    assert fact(facts, "Devices", "examination").broken
    assert fact(facts, "Extras", "hub")


def test_a_fast_path_that_computes_something_else_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong:
        def encode(self, mels: list[torch.Tensor]) -> list[torch.Tensor]:
            return [torch.zeros(1500, 256)]

    monkeypatch.setattr(select, "make_runner", lambda *_: Wrong())
    monkeypatch.setattr(sys.modules["whisper.transcribe"], "transcribe", lambda *_, **__: {})
    facts = list(doctor._self_test())
    found = fact(facts, "Self-test", "fast path, float32")
    assert found.broken
    assert found.value.startswith("FAIL: 1.0e+00")
    assert "SOTTO_KERNELS=off" in found.advice


def test_what_lies_in_the_model_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert "not there yet" in fact(list(doctor._models()), "Models", "folder").value
    folder = Path(load.cache_folder())
    folder.mkdir()
    (folder / "tiny.en.pt").write_bytes(bytes(2_000_000))
    (folder / "base.pt.part").write_bytes(bytes(10))
    facts = list(doctor._models())
    assert fact(facts, "Models", "tiny.en").value == f"2 MB, own cache; openai-whisper, broken: {folder / 'tiny.en.pt'}"
    assert fact(facts, "Models", "unfinished").value == "1 downloads, 0 MB"
