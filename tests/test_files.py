"""A file appears whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from whisper.errors import OptionError
from whisper.files import atomic_folder, atomic_write


@pytest.mark.parametrize("given", [{}, {"fsync": False}, {"temporary": "other.part"}])
def test_a_file_is_as_it_was_until_the_end(given: dict[str, Any], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with atomic_write(path, **given) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"new"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_error_leaves_what_was_there(error: type[BaseException], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")

    def break_off(name: str) -> None:
        with atomic_write(tmp_path / name) as file:
            file.write(b"ne")
            raise error

    for name in ("file", "another"):
        with pytest.raises(error):
            break_off(name)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"file": b"old"}


def test_a_failed_rename_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError), atomic_write(tmp_path / "folder") as file:
        file.write(b"new")
    assert os.listdir(tmp_path) == ["folder"]


def test_text_is_encoded(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "file", encoding="utf-8") as file:
        file.write("é")
    assert (tmp_path / "file").read_bytes() == "é".encode()


def test_the_disk_is_waited_for_unless_told_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr("whisper.files.os.fsync", synced.append)
    for fsync, expected in ((False, 0), (True, 1)):
        with atomic_write(tmp_path / "file", fsync=fsync) as file:
            file.write(b"new")
        assert len(synced) == expected


@pytest.mark.skipif(os.name != "posix", reason="permissions and links as POSIX has them")
def test_links_stay_links_and_permissions_are_the_usual(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target" / "file")
    with atomic_write(tmp_path / "link") as file:
        file.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target" / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"), atomic_write(tmp_path / "nowhere" / "file"):
        pass
    with pytest.raises(OptionError, match="no file can be called"), atomic_write("a\0b"):
        pass


def test_a_folder_is_not_there_until_the_end(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for name in ("new", "new2/", "empty"):
        path = tmp_path / name
        with atomic_folder(name) as folder:
            Path(folder, "file").write_text("x")
            assert not path.exists() or not list(path.iterdir())
        assert [p.name for p in path.iterdir()] == ["file"]
    assert {p.name for p in tmp_path.iterdir()} == {"new", "new2", "empty"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_error_leaves_no_folder(error: type[BaseException], tmp_path: Path) -> None:
    def break_off() -> None:
        with atomic_folder(tmp_path / "new") as folder:
            Path(folder, "file").write_text("x")
            raise error

    with pytest.raises(error):
        break_off()
    assert not list(tmp_path.iterdir())


def test_a_folder_takes_the_place_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("x")
    (tmp_path / "file").write_text("x")
    for name in ("full", "file"):
        with pytest.raises(OptionError, match="is there already"), atomic_folder(tmp_path / name):
            pytest.fail("begun")
    with pytest.raises(FileNotFoundError), atomic_folder(tmp_path / "nowhere" / "new"):
        pytest.fail("begun")
