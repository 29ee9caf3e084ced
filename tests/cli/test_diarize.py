"""``whisper diarize``: turns as files; the networks themselves are tested in ``tests/speakers``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from whisper import subtitles
from whisper.cli.main import cli
from whisper.speakers import diarize as module
from whisper.speakers.diarization import Diarization, Turn

FOUND = Diarization(
    turns=(Turn(0.5, 2.0, "SPEAKER_00"), Turn(1.75, 3.25, "Ann B")),
    exclusive=(Turn(0.5, 2.0, "SPEAKER_00"), Turn(2.0, 3.25, "Ann B")),
    speakers=("SPEAKER_00", "Ann B"),
)


@pytest.fixture(autouse=True)
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """In a folder with a recording; what `diarize` is called with."""
    calls: list[dict[str, Any]] = []

    def diarize(audio: str, **options: Any) -> Diarization:
        calls.append({"audio": audio, **options})
        return FOUND

    monkeypatch.setattr(module, "diarize", diarize)
    monkeypatch.chdir(tmp_path)
    Path("talk.wav").write_bytes(b"x")
    return calls


def test_rttm_and_what_is_printed(capsys: pytest.CaptureFixture[str], asked: list[dict[str, Any]]) -> None:
    assert cli(["diarize", "talk.wav", "--max_speakers", "3"]) == 0
    assert Path("talk.rttm").read_text().splitlines() == [
        "SPEAKER talk 1 0.500 1.500 <NA> <NA> SPEAKER_00 <NA> <NA>",
        "SPEAKER talk 1 1.750 1.500 <NA> <NA> Ann_B <NA> <NA>",
    ]
    told = capsys.readouterr()
    assert told.out.splitlines() == [
        "[00:00.500 --> 00:02.000] SPEAKER_00", "[00:01.750 --> 00:03.250] Ann B",
    ]  # fmt: skip
    assert "talk.rttm written: 2 turns of 2 speakers" in told.err
    assert asked[0]["audio"] == "talk.wav"
    assert (asked[0]["max_speakers"], asked[0]["num_speakers"]) == (3, None)


def test_json_has_the_exclusive_turns(tmp_path: Path) -> None:
    assert cli(["diarize", "talk.wav", "-f", "json", "-o", "out"]) == 0
    told = json.loads(Path("out/talk.json").read_text())
    assert told["speakers"] == ["SPEAKER_00", "Ann B"]
    assert told["turns"][1] == {"start": 1.75, "end": 3.25, "speaker": "Ann B"}
    assert [turn["start"] for turn in told["exclusive"]] == [0.5, 2.0]


@pytest.mark.parametrize(("name", "ending"), [("audacity", "labels.txt"), ("textgrid", "TextGrid"), ("eaf", "eaf")])
def test_other_formats_have_the_names_as_texts(name: str, ending: str) -> None:
    assert cli(["diarize", "talk.wav", "-f", name]) == 0
    read = subtitles.read(f"talk.{ending}")["segments"]
    assert [(s["start"], s["end"], s["text"].strip()) for s in read] == [
        (0.5, 2.0, "SPEAKER_00"),
        (1.75, 3.25, "Ann B"),
    ]
    if name != "audacity":
        assert [s["speaker"] for s in read] == ["SPEAKER_00", "Ann B"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["talk.wav", "--num_speakers", "0"], 2, "num_speakers"),
        (["talk.wav", "--num_speakers", "2", "--max_speakers", "3"], 2, "leave min_speakers and max_speakers out"),
        (["talk.wav", "-f", "srt"], 2, "rttm"),
        (["talk.wav", "../talk.wav"], 2, "the same name"),
        (["none.wav"], 1, "none.wav: there is no such file"),
    ],
)
def test_what_goes_wrong_is_said(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        ended: object = cli(["diarize", *arguments])
    except SystemExit as error:
        ended = error.code
    assert ended == code
    assert message in capsys.readouterr().err


def test_one_that_fails_does_not_stop_the_others() -> None:
    assert cli(["diarize", "none.wav", "talk.wav"]) == 1
    assert Path("talk.rttm").exists()
    assert not Path("none.rttm").exists()
