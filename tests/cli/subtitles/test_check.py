"""``whisper check``: what it prints, writes and returns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from whisper.cli.main import cli

BAD = "1\n00:00:01,000 --> 00:00:09,500\nA line that is far too long, and that is shown for much too long as well.\n"
GOOD = "1\n00:00:01,000 --> 00:00:03,000\nThis one is fine.\n"


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    path = tmp_path / "talk.srt"
    path.write_text(BAD, encoding="utf-8")
    return path


def test_findings_are_listed_and_counted(bad: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["check", str(bad), "--language", "en"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "    1  00:00:01.000  line width: 73 characters in a line, at most 42 allowed"
    assert lines[1] == "    1  00:00:01.000  too long: 8.5 s long, at most 7 allowed"
    assert lines[2] == f"{bad}: 2 findings in 1 cue (200.0 per 100): line width 1, too long 1"
    assert bad.read_text(encoding="utf-8") == BAD


def test_a_file_that_breaks_nothing_is_clean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.srt").write_text(GOOD, encoding="utf-8")
    assert cli(["check", str(tmp_path / "a.srt"), "--preset", "bbc", "--mend", "in_place"]) == 0
    assert capsys.readouterr().out.endswith("nothing in 1 cue\n")
    assert (tmp_path / "a.srt").read_text(encoding="utf-8") == GOOD


def test_mended_beside_or_in_place(bad: Path) -> None:
    assert cli(["check", str(bad), "--language", "en", "--mend", "beside"]) == 0
    beside = bad.with_name("talk.mended.srt").read_text(encoding="utf-8")
    assert beside.count("-->") == 2
    assert bad.read_text(encoding="utf-8") == BAD
    assert cli(["check", str(bad), "--language", "en", "--mend", "in_place"]) == 0
    assert bad.read_text(encoding="utf-8") == beside


def test_every_number_can_be_given(bad: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["check", str(bad), "--max_line_width", "80", "--max_duration", "10"]) == 0
    assert cli(["check", str(bad), "--max_line_width", "80", "--max_duration", "10", "--max_cps", "5"]) == 1
    assert "reading speed" in capsys.readouterr().out


def test_json_has_what_was_found_and_what_is_left(bad: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["check", str(bad), "--json", "--mend", "beside"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [finding["rule"] for finding in found["findings"]] == ["line width", "too long"]
    assert (found["left"], found["mended"]) == ([], str(bad.with_name("talk.mended.srt")))


def test_a_bad_file_does_not_stop_the_others(bad: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "none.srt").write_text("no subtitles", encoding="utf-8")
    assert cli(["check", str(tmp_path / "none.srt"), str(tmp_path / "missing.srt"), str(bad)]) == 1
    output = capsys.readouterr()
    assert "neither srt nor vtt" in output.err
    assert "missing.srt" in output.err
    assert "2 findings" in output.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "netflicks"], "invalid choice: 'netflicks'"),
        (["--language", "Klingon"], "Klingon"),
        (["--max_cps", "-1"], "max_cps must be"),
        (["--speaker_style", "dash"], "unrecognized arguments"),
    ],
)
def test_wrong_arguments_are_named(
    bad: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as leaving:
        cli(["check", str(bad), *arguments])
    assert leaving.value.code == 2
    assert message in capsys.readouterr().err


def test_a_recording_called_check_is_a_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from whisper.cli.main import command_of

    monkeypatch.chdir(tmp_path)
    Path("check").touch()
    assert command_of(["check"]) is None
    assert command_of(["check", "a.SRT"]) == "check"
