"""The files of a job: the bytes of the writers, whole or absent, and kept results that are read again."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from whisper.jobs.outputs import Outputs, PlaceLostError, kept_name, read_result
from whisper.output.writers import get_writer

from .fakes import transcript_of

TRANSCRIPT = transcript_of("0123456789abcdef" * 4)
FORMATS = ("txt", "vtt", "srt", "tsv", "json", "ass", "stm", "ttml", "csv")


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def test_files_are_those_of_the_writers(tmp_path: Path) -> None:
    sizes = Outputs(tmp_path, FORMATS).write(os.path.join("deep", "er", "a talk"), TRANSCRIPT)
    expected = tmp_path / "expected"
    expected.mkdir()
    for name in FORMATS:
        get_writer(name, expected)(TRANSCRIPT, "a talk.", {})
    written = files_of(tmp_path / "deep" / "er")
    assert written == files_of(expected)
    assert sorted(sizes.values()) == sorted(map(len, written.values()))
    assert list((tmp_path / ".sotto" / "staging").iterdir()) == []


def test_rules_and_contents_reach_the_writers(tmp_path: Path) -> None:
    plain, changed = Outputs(tmp_path, ("vtt",)), Outputs(tmp_path, ("vtt",), {}, {"cue_settings": "line:85%"})
    assert plain.layout_digest != changed.layout_digest
    changed.write("a", TRANSCRIPT)
    assert "line:85%" in (tmp_path / "a.vtt").read_text()


def test_translations_are_laid_out_as_english(tmp_path: Path) -> None:
    transcript = {**TRANSCRIPT, "language": "ja"}
    for is_translation, language in ((False, "ja"), (True, "en")):
        Outputs(tmp_path, ("ttml",), is_translation=is_translation).write("a", transcript)
        assert f'xml:lang="{language}"' in (tmp_path / "a.ttml").read_text()


def test_a_kept_result_is_read_again_and_a_damaged_one_is_not(tmp_path: Path) -> None:
    name = Outputs(tmp_path, ()).keep("c" * 64, "r" * 32, {"transcript": TRANSCRIPT})
    assert name == kept_name("c" * 64, "r" * 32)
    assert read_result(tmp_path, name) == {"transcript": TRANSCRIPT}
    path = tmp_path / ".sotto" / name
    whole = path.read_bytes()
    for damaged in (b"", whole[:50], whole[:-9] + b"\0" * 9, b"{}"):
        path.write_bytes(damaged)
        assert read_result(tmp_path, name) is None
    path.unlink()
    assert read_result(tmp_path, name) is None


def test_equal_results_are_equal_bytes(tmp_path: Path) -> None:
    outputs = Outputs(tmp_path, ())
    path = tmp_path / ".sotto" / outputs.keep("c", "r", {"transcript": TRANSCRIPT})
    before = path.read_bytes()
    outputs.keep("c", "r", {"transcript": TRANSCRIPT})
    assert path.read_bytes() == before


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.ESTALE, errno.EIO])
def test_a_place_that_is_lost_is_told_from_a_file_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def replace(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(PlaceLostError, match="same command"):
        Outputs(tmp_path, ("txt",)).write("a", TRANSCRIPT)
    with pytest.raises(PlaceLostError):
        Outputs(tmp_path, ()).keep("c", "r", {})
    monkeypatch.undo()
    assert not (tmp_path / "a.txt").exists()
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(OSError, match="directory"):
        Outputs(tmp_path, ("txt",)).write("a", TRANSCRIPT)


def test_space_that_must_stay_free(tmp_path: Path) -> None:
    Outputs(tmp_path, ()).check_space()
    with pytest.raises(PlaceLostError, match="--min_free_space"):
        Outputs(tmp_path, (), min_free=1e18).check_space()


def test_what_a_killed_runner_left_is_removed(tmp_path: Path) -> None:
    outputs = Outputs(tmp_path, ("txt",))
    outputs.write("a", TRANSCRIPT)
    left = tmp_path / ".sotto" / "staging" / "x"
    left.mkdir()
    (left / "a.txt").write_text("half")
    (tmp_path / ".sotto" / "results").mkdir()
    (tmp_path / ".sotto" / "results" / ".whisper-1.tmp").write_text("half")
    foreign = tmp_path / ".whisper-1.tmp"
    foreign.write_text("somebody else's")
    outputs.remove_unfinished()
    assert not left.exists()
    assert not list((tmp_path / ".sotto" / "results").iterdir())
    assert foreign.exists()
