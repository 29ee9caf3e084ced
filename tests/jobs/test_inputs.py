"""Inputs: folders, globs, manifests, lists; and what is never one."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import pytest

from whisper.errors import DataError, OptionError
from whisper.jobs.inputs import Input, begin, find


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    names = "b.wav a.MP3 sub/c.flac sub/deep/d.mkv .hidden.wav .cache/e.wav notes.txt out/f.wav elsewhere/g.wav"
    for name in names.split():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "elsewhere" / ".sotto").mkdir()
    (tmp_path / "folder.wav").mkdir()
    return tmp_path


def found(folder: Path, *inputs: str | Path) -> list[Input]:
    return list(find(inputs, str(folder / "out")))


def test_a_folder_gives_its_recordings_and_keeps_the_tree(folder: Path) -> None:
    names = [one.name for one in found(folder, folder)]
    assert names == ["a", "b", os.path.join("sub", "c"), os.path.join("sub", "deep", "d")]


def test_files_globs_and_lists(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert [one.source for one in found(folder, "notes.txt")] == [str(folder / "notes.txt")]  # named is meant
    assert [one.name for one in found(folder, "sub/**/*.flac", "*.wav")] == ["c", "b"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("b.wav\n\nsub\n"))
    assert [one.name for one in found(folder, "-")] == ["b", "c", os.path.join("deep", "d")]
    for wrong, reason in (("*.opus", "nothing fits"), ("nowhere", "there is no file or folder")):
        with pytest.raises(OptionError, match=reason):
            found(folder, wrong)


def test_what_is_missing_or_no_file_is_kept_and_has_no_stamp(folder: Path) -> None:
    os.symlink("nowhere", folder / "sub" / "dangling.wav")
    os.mkfifo(folder / "sub" / "pipe.wav")
    stamps = {one.name: one.stamp for one in found(folder, folder / "sub", folder / "none.wav")}
    assert stamps["dangling"] is stamps["pipe"] is stamps["none"] is None
    assert stamps["c"] is not None


def test_names_that_are_not_utf_8_or_have_marks(folder: Path) -> None:
    names = [os.fsdecode(b"caf\xe9.wav"), "new\nline.wav", "quote'\".wav", "[x].wav", "a;rm -rf.wav"]
    for name in names:
        (folder / "odd").mkdir(exist_ok=True)
        (folder / "odd" / name).write_text("x")
    assert sorted(os.path.basename(one.source) for one in found(folder, folder / "odd")) == sorted(names)


def test_a_manifest_gives_parts_languages_and_priorities(folder: Path) -> None:
    rows = [
        {"file": "b.wav", "text": "", "language": "German", "priority": "5"},
        {"file": "sub/c.flac", "text": "", "start": 1.5, "end": 4},
        {"file": "sub/c.flac", "text": "", "start": 4, "end": 9},
    ]
    (folder / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    b, c, c2 = found(folder, folder / "list.jsonl")
    assert (b.overrides, b.priority) == ('{"language": "de"}', 5)
    assert c.overrides == '{"clip_timestamps": [1.5, 4.0]}'
    assert (c.source, c.seconds) == (c2.source, 2.5)
    assert c.key != c2.key
    assert [c.name, c2.name] == [os.path.join("sub", "c.1.50-4.00"), os.path.join("sub", "c.4.00-9.00")]


def test_a_manifest_that_cannot_be_used_is_refused(folder: Path) -> None:
    (folder / "list.tsv").write_text("file\ttext\tpriority\nb.wav\t\thigh\n")
    with pytest.raises(DataError, match="a priority is a whole number"):
        found(folder, folder / "list.tsv")
    (folder / "list.tsv").write_text("file\ttext\tstart\tend\nb.wav\t\t5\t4\n")
    with pytest.raises(DataError, match=r"line 2 of .* cannot be used"):
        found(folder, folder / "list.tsv")


def test_a_row_whose_file_is_missing_stays_in_the_list(folder: Path) -> None:
    (folder / "list.tsv").write_text("file\ttext\nb.wav\t\nsub/none.wav\t\n")
    assert [(one.name, one.stamp is None) for one in found(folder, folder / "list.tsv")] == [
        ("b", False), (os.path.join("sub", "none"), True),
    ]  # fmt: skip


def test_a_row_whose_file_is_missing_or_an_address_keeps_its_options(folder: Path) -> None:
    pytest.importorskip("fsspec")
    (folder / "list.tsv").write_text(
        "file\tlanguage\tstart\tend\tpriority\nnone.wav\tde\t1\t2\t3\nmemory://b/none.wav\tfr\t4\t5\t6\n"
    )
    first, second = found(folder, folder / "list.tsv")
    assert json.loads(first.overrides) == {"language": "de", "clip_timestamps": [1.0, 2.0]}
    assert json.loads(second.overrides) == {"language": "fr", "clip_timestamps": [4.0, 5.0]}
    assert [first.priority, second.priority] == [3, 6]
    (folder / "list.tsv").write_text("file\tstart\nmemory://b/none.wav\tsoon\n")
    with pytest.raises(DataError, match="start is not a number"):
        found(folder, folder / "list.tsv")


def test_no_name_leads_out_of_the_folder_of_the_job(folder: Path) -> None:
    (folder / "list.tsv").write_text("file\ttext\n../" + folder.name + "/b.wav\t\n")
    (one,) = found(folder, folder / "list.tsv")
    assert one.name == "b"


def test_every_name_is_checked_before_the_first_recording_is_given(folder: Path) -> None:
    with pytest.raises(OptionError, match="nowhere"):
        find([folder / "b.wav", folder / "nowhere"], str(folder / "out"))


def test_a_job_begins_where_one_recording_is_there(folder: Path) -> None:
    out = str(folder / "out")
    gone = [folder / "gone.wav", folder / "lost.wav"]
    assert [one.name for one in begin([*gone, folder / "b.wav", folder / "sub"], out)] == [
        "gone", "lost", "b", "c", os.path.join("deep", "d"),
    ]  # fmt: skip
    with pytest.raises(OptionError, match=r"gone\.wav', nor any of 1 more"):
        begin(gone, out)
    (folder / "empty").mkdir()
    with pytest.raises(OptionError, match=r"no recordings in .*empty"):
        begin([folder / "empty"], out)
