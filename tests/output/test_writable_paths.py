"""Files that cannot be written are told before a model is loaded."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from whisper.cli.main import cli
from whisper.errors import OptionError
from whisper.output.writable_paths import check_file, make_folder


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a recording, in which no model can be loaded."""
    monkeypatch.chdir(tmp_path)

    def load_model(*_: Any, **__: Any) -> None:
        raise AssertionError("a model is loaded")

    monkeypatch.setattr(sys.modules["whisper.checkpoints"], "load_model", load_model)
    for name in ("a.wav", "file", "m.tsv"):
        Path(name).write_text("file\ttext\na.wav\tone\n")
    Path("here/a.srt").mkdir(parents=True)
    Path("here/a.report.json").mkdir()
    return tmp_path


REFUSED = [
    (["-o", "file"], "--output_dir/-o: files cannot be written into the folder 'file'"),
    (["-o", "file/below"], "'file/below'"),
    (["-o", "n" * 300], "nnn"),
    (["-o", "a\0b"], "null"),
    (["-o", ""], "the folder ''"),
    (["-o", "here"], "a.srt' cannot be written: a folder of this name is in its place"),
    (["-o", "here", "-f", "srt"], "a.srt'"),
    (["-o", "here", "-f", "txt", "--report", "True"], "a.report.json'"),
]


@pytest.mark.parametrize(("arguments", "told"), REFUSED, ids=lambda value: ascii(value)[:30])
def test_the_command_refuses_at_once(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli(["a.wav", "--model", "nano", *arguments])
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert told in said
    assert "Traceback" not in said


@pytest.mark.parametrize("flag", ["--json", "--html", "--cache"])
@pytest.mark.parametrize("path", ["here", "missing/x", "file/x", "n" * 300])
def test_eval_refuses_at_once(flag: str, path: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli(["eval", "m.tsv", "--model", "nano", flag, path])
    assert left.value.code == 2
    assert f"argument {flag}" in capsys.readouterr().err


def test_a_folder_without_permission(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Root may write anywhere, so the system's answer is played."""
    real = open

    def denied(path: Any, mode: str = "r", *rest: Any, **more: Any) -> Any:
        if "x" in mode:
            raise PermissionError(13, "Permission denied", path)
        return real(path, mode, *rest, **more)

    monkeypatch.setattr("builtins.open", denied)
    with pytest.raises(SystemExit):
        cli(["a.wav", "--model", "nano", "-o", "locked"])
    assert "files cannot be written into the folder 'locked': Permission denied" in capsys.readouterr().err


def test_nothing_is_left_behind(folder: Path) -> None:
    make_folder("new/er")
    check_file("new/er/a.srt")
    Path("new/er/b.srt").write_text("kept")
    check_file("new/er/b.srt")
    assert os.listdir("new/er") == ["b.srt"]
    assert Path("new/er/b.srt").read_text() == "kept"


@pytest.mark.skipif(os.name != "posix", reason="links")
def test_links(folder: Path) -> None:
    os.symlink(folder / "nowhere" / "x", "dangling")
    os.symlink(folder / "x", "waiting")
    with pytest.raises(OptionError, match="does not exist"):
        check_file("dangling")
    check_file("waiting")
