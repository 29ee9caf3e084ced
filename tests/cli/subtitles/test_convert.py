"""``whisper convert``: from one format into another."""

from __future__ import annotations

from pathlib import Path

import pytest

from whisper import subtitles
from whisper.cli.main import cli

from ...subtitles.talks import PLAIN, TALK, TEXTS


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    subtitles.write(TALK, "talk.json")
    subtitles.write(PLAIN, "plain.srt")


def test_a_transcript_becomes_subtitles(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["convert", "talk.json", "talk.ass", "--karaoke", "True"]) == 0
    assert [s["text"].strip() for s in subtitles.read("talk.ass")["segments"]] == TEXTS
    assert "{\\k20}He" in Path("talk.ass").read_text()
    assert "talk.ass written: ass, 3 texts" in capsys.readouterr().err


def test_the_layout_is_openai_whispers() -> None:
    options = ["--max_line_width", "10", "--max_line_count", "1"]
    assert cli(["convert", "talk.json", "talk.srt", *options]) == 0
    assert len(subtitles.read("talk.srt")["segments"]) > 3


def test_formats_and_language_may_be_said() -> None:
    Path("a.bin").write_bytes(Path("plain.srt").read_bytes())
    assert cli(["convert", "a.bin", "b.bin", "--read_as", "srt", "--write_as", "vtt", "--language", "German"]) == 0
    assert Path("b.bin").read_text().startswith("WEBVTT\nLanguage: de\n")


def test_what_has_no_word_times_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["convert", "plain.srt", "plain.ass", "--karaoke", "True"]) == 0
    assert "has no times of words" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["plain.srt", "plain.srt"], 2, "is the file that is read"),
        (["plain.srt", "plain.doc"], 2, "tells no format"),
        (["plain.srt", "nowhere/plain.vtt"], 2, "nowhere"),
        (["plain.srt", "plain.vtt", "--cue_settings", "below"], 2, "cue_settings"),
        (["none.srt", "plain.vtt"], 1, "none.srt: there is no such file"),
        (["plain.srt", "plain.ctm"], 1, "word_timestamps=True"),
        (["bad.vtt", "plain.srt"], 1, "bad.vtt has no text"),
    ],
)
def test_what_goes_wrong_is_said(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("bad.vtt").write_text("WEBVTT\n\n")
    try:
        found = cli(["convert", *arguments])
    except SystemExit as leaving:
        found = int(leaving.code or 0)
    assert found == code
    assert message in capsys.readouterr().err
    assert not any(Path(name).exists() for name in ("plain.vtt", "plain.ctm"))


def test_rules_lay_cues_out() -> None:
    assert cli(["convert", "talk.json", "talk.srt", "--subtitle_preset", "bbc"]) == 0
    assert cli(["convert", "talk.json", "plain.vtt", "--subtitle_preset", "netflix", "--max_line_width", "20"]) == 0
    lines = [line for line in Path("plain.vtt").read_text().splitlines() if "said" in line]
    assert lines
