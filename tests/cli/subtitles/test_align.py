"""``whisper align``: texts of every kind in, words with times out, and what goes wrong before a model is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import whisper
from whisper import subtitles
from whisper.cli.main import cli

from ...alignment.test_align import SAID, SAMPLE

NANO = ("--model", "nano", "--fp16", "False", "--language", "en")


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("said.txt").write_text("\n\n".join(SAID) + "\n")


def test_a_plain_text_is_what_align_finds(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["align", SAMPLE, "said.txt", *NANO, "-o", "out"]) == 0
    found = json.loads(Path("out", "sample.json").read_text())
    assert found == whisper.align(whisper.load_model("nano", device="cpu"), SAMPLE, SAID, fp16=False, language="en")
    assert "6 of 6 words have a place in the recording" in capsys.readouterr().err


def test_subtitles_get_new_times_and_keep_their_speakers() -> None:
    cues = "".join(f"00:00:0{i}.000 --> 00:00:0{i + 1}.000\n<v Voice {i}>{line}\n\n" for i, line in enumerate(SAID))
    Path("old.vtt").write_text("WEBVTT\n\n" + cues)
    assert cli(["align", SAMPLE, "old.vtt", *NANO, "-f", "ass", "--karaoke", "True"]) == 0
    found = subtitles.read("sample.ass")
    assert [s["text"].strip() for s in found["segments"]] == SAID
    assert [s["speaker"] for s in found["segments"]] == ["Voice 0", "Voice 1", "Voice 2"]
    assert found["segments"][-1]["start"] > 3
    assert [w["word"] for w in found["segments"][1]["words"]] == [" one", " two", " three"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.wav", "said.txt"], "none.wav: there is no such file"),
        ([SAMPLE, "none.txt"], "none.txt: there is no such file"),
        ([SAMPLE, "empty.txt"], "empty.txt has no words"),
        ([SAMPLE, "bad.txt"], "bad.txt: the text is not utf-8"),
        ([SAMPLE, "bad.srt"], "bad.srt: no line has the times of a cue"),
        ([SAMPLE, "said.txt", "--language", "Klingon"], "Unsupported language"),
        ([SAMPLE, "said.txt", "-f", "doc"], "not ('doc',)"),
        ([SAMPLE], "the following arguments are required: TEXT"),
    ],
)
def test_usage_errors_come_before_the_model(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("empty.txt").write_text(" \n")
    Path("bad.txt").write_bytes(b"\xff\xffa")
    Path("bad.srt").write_text("no cue")
    with pytest.raises(SystemExit) as leaving:
        cli(["align", *arguments, "--model", "nano"])
    assert leaving.value.code == 2
    assert message in capsys.readouterr().err


def test_a_recording_without_sound_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.wav").write_bytes(b"no sound")
    assert cli(["align", "a.wav", "said.txt", *NANO]) == 1
    assert "whisper: error: " in capsys.readouterr().err
    assert not Path("a.json").exists()
