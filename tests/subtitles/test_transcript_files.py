"""Writing to a path and reading from it: formats told by names, errors that name the file, nothing half written."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest

import whisper.subtitles
from whisper.errors import DataError, MissingDependencyError, OptionError, ResultError
from whisper.subtitles import Cue, TimedWord, read, write

from .talks import PLAIN, TALK, TEXTS


@pytest.mark.parametrize(
    ("name", "begins"),
    [("a.srt", "1\n"), ("a.ASS", "[Script"), ("a.ebuttd.xml", "<?xml"), ("a.xml", "<?xml"), ("a.labels.txt", "0.5"),
     ("a.txt", "Ann:"), ("a.podcast.json", '{\n "version'), ("a.json", '{"text'), ("a.textgrid", "File type")],
)  # fmt: skip
def test_the_ending_tells_the_format(name: str, begins: str, tmp_path: Path) -> None:
    write(TALK, tmp_path / name)
    assert (tmp_path / name).read_text("utf-8").startswith(begins)


def test_cues_may_be_given(tmp_path: Path) -> None:
    words = (TimedWord(" two", 1.0, 1.5), TimedWord(" lines", 1.5, 2.0))
    write(PLAIN, tmp_path / "a.srt", cues=[Cue(1.0, 2.0, ((words[0],), (words[1],)))])
    assert (tmp_path / "a.srt").read_text() == "1\n00:00:01,000 --> 00:00:02,000\ntwo\nlines\n\n"


def test_a_result_has_all_that_one_of_transcribe_has(tmp_path: Path) -> None:
    write(PLAIN, tmp_path / "a.vtt", karaoke=True)
    found = read(tmp_path / "a.vtt")
    assert found["text"] == " One two. Three."
    assert found["language"] == "de"
    first = found["segments"][0]
    assert first.keys() == {
        "id", "seek", "start", "end", "text", "tokens", "temperature", "avg_logprob", "compression_ratio",
        "no_speech_prob", "words",
    }  # fmt: skip
    assert first["words"][1] == {"word": " two.", "start": 0.5, "end": 1.0, "probability": 1.0}
    assert read(tmp_path / "a.vtt", language="French")["language"] == "fr"


def test_what_is_read_can_be_written_and_searched_again(tmp_path: Path) -> None:
    write(TALK, tmp_path / "a.eaf")
    write(read(tmp_path / "a.eaf"), tmp_path / "b.json")
    again = read(tmp_path / "b.json")
    assert [s["text"].strip() for s in again["segments"]] == TEXTS
    assert again["segments"] == read(tmp_path / "a.eaf")["segments"]


def test_errors_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.srt"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"a\.srt: the text is not utf-16"):
        read(path)
    path.write_text("no cue at all")
    with pytest.raises(DataError, match=r"a\.srt: no line has the times of a cue"):
        read(path)
    path.write_text("1\n00:00:02,000 --> 00:00:01,000\nback in time\n")
    with pytest.raises(DataError, match=r"a\.srt: text 1 lasts from 2.0 to 1.0 s: 'back in time'"):
        read(path)
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "missing.srt")
    with pytest.raises(OptionError, match="path must be text or a path"):
        read(1)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="tells no format"):
        write(PLAIN, tmp_path / "a.doc")
    with pytest.raises(ResultError, match=r"b\.srt cannot be written"):
        write({"segments": None}, tmp_path / "b.srt")
    assert not (tmp_path / "b.srt").exists()


def test_a_huge_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whisper.subtitles.transcript_files.MOST_BYTES", 10)
    (tmp_path / "a.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nx\n")
    with pytest.raises(DataError, match="more than"):
        read(tmp_path / "a.srt")


def test_utf_16_and_marks_are_read(tmp_path: Path) -> None:
    text = "1\r\n00:00:00,000 --> 00:00:01,000\r\nZoë\r\n"
    for encoding in ("utf-8-sig", "utf-16"):
        (tmp_path / "a.srt").write_bytes(text.encode(encoding))
        assert read(tmp_path / "a.srt")["text"] == " Zoë"


def test_docx_without_python_docx_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def missing(name: str, *arguments: Any) -> Any:
        if name == "docx":
            raise ImportError(name)
        return imported(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(MissingDependencyError, match=r"sotto\[docx\]"):
        whisper.subtitles.write(PLAIN, tmp_path / "a.docx")
    assert list(tmp_path.iterdir()) == []
