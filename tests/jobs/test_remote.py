"""Recordings that fsspec opens, from a file system in memory and from an archive."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from whisper.errors import DataError, MissingDependencyError, OptionError
from whisper.jobs import remote
from whisper.jobs import run as run_jobs
from whisper.jobs.inputs import find

from .sounds import OPTIONS, talking_model, write_wav

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Any]:
    system = fsspec.filesystem("memory")
    for i, name in enumerate(("a.wav", "sub/b.wav", "notes.txt")):
        system.pipe(f"/bucket/{name}", write_wav(tmp_path / "x.wav", 1 + i, i).read_bytes())
    yield system
    system.rm("/bucket", recursive=True)


def test_what_is_an_address() -> None:
    assert remote.is_address("s3://bucket/a.wav")
    assert remote.is_address("zip://*.wav::memory://bucket/x.zip")
    assert not any(map(remote.is_address, ("/a/b.wav", "C:\\a.wav", "C:/a.wav", "-", "a:b.wav")))


def test_folders_globs_and_single_objects(memory: Any) -> None:
    names = lambda *inputs: [(one.source, one.name) for one in find(inputs, "out")]  # noqa: E731
    both = [("memory:///bucket/a.wav", "a"), ("memory:///bucket/sub/b.wav", "sub/b")]
    assert names("memory://bucket") == both
    assert names("memory://bucket/**/*.wav") == both
    assert names("memory://bucket/sub/b.wav") == [("memory://bucket/sub/b.wav", "b")]
    (gone,) = find(["memory://bucket/none.wav"], "out")
    assert gone.stamp is None


def test_a_manifest_at_an_address(memory: Any) -> None:
    memory.pipe("/bucket/lists/x.csv", b"file,priority\n../a.wav,1\nmemory://bucket/sub/b.wav,2\n../sub,3\nc.wav,4\n")
    rows = [
        (one.source, one.name, one.priority, one.stamp is None) for one in find(["memory://bucket/lists/x.csv"], "o")
    ]
    assert rows == [
        ("memory://bucket/a.wav", "a", 1, False),
        ("memory://bucket/sub/b.wav", "b", 2, False),
        ("memory:///bucket/sub/b.wav", "b", 3, False),
        ("memory://bucket/lists/c.wav", "c", 4, True),
    ]
    for content, wrong in ((b"file\n\n", DataError), (b"file,start\na.wav,-1\n", DataError)):
        memory.pipe("/bucket/lists/x.csv", content)
        with pytest.raises(wrong, match=r"x\.csv"):
            list(find(["memory://bucket/lists/x.csv"], "o"))
    with pytest.raises(OptionError, match=r"the manifest .*none\.csv cannot be read"):
        list(find(["memory://bucket/none.csv"], "o"))


def test_an_object_that_changes_has_another_stamp(memory: Any) -> None:
    before = remote.stamp_of("memory://bucket/a.wav")
    memory.pipe("/bucket/a.wav", b"longer" * 100_000)
    assert remote.stamp_of("memory://bucket/a.wav") != before
    assert remote.stamp_of("memory://bucket/none.wav") is None


def test_a_copy_is_there_only_meanwhile(memory: Any) -> None:
    with remote.fetched("memory://bucket/a.wav") as (path, stamp):
        assert Path(path).read_bytes() == memory.cat("/bucket/a.wav")
        assert stamp == remote.stamp_of("memory://bucket/a.wav")
    assert not Path(path).exists()
    with pytest.raises(FileNotFoundError), remote.fetched("memory://bucket/none.wav"):
        pass


def test_errors_of_file_systems_are_ours(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: object, **__: object) -> None:
        raise RuntimeError("the network is gone")

    monkeypatch.setattr(type(memory), "_open", breaks)
    with pytest.raises(OSError, match="the network is gone"), remote.fetched("memory://bucket/a.wav"):
        pass
    with pytest.raises(OptionError, match="cannot be opened"):
        list(find(["nosuchthing://bucket"], "out"))
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(MissingDependencyError, match=r"sotto\[remote\]"):
        list(find(["memory://bucket"], "out"))


def test_an_archive_is_transcribed(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for i in range(2):
            archive.write(write_wav(tmp_path / f"{i}.wav", 1 + i, i), f"deep/{i}.wav")
    results = list(
        run_jobs(
            f"zip://**/*.wav::file://{tmp_path}/x.zip",
            tmp_path / "out",
            model=talking_model(tmp_path),
            threads=1,
            **OPTIONS,
        )
    )
    assert sorted((r.state, r.seconds) for r in results) == [("done", 1.0), ("done", 2.0)]
    assert (tmp_path / "out" / "deep" / "1.txt").read_text()
