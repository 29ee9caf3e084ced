"""``whisper speakers enrol``: voices as files; what they sound like is tested in ``tests/speakers``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from whisper.cli.main import cli
from whisper.errors import AudioError
from whisper.speakers import voices
from whisper.speakers.voices import Voice

SIZE = 192


def pointing(i: int, seconds: float) -> Voice:
    return Voice(tuple(float(k == i) for k in range(SIZE)), seconds)


@pytest.fixture(autouse=True)
def recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder with recordings, of which one has no speech."""
    heard = {"a.wav": pointing(0, 30.0), "b.wav": pointing(1, 40.0)}

    def enrol(audio: str) -> Voice:
        if audio not in heard:
            raise AudioError("there is less than 1 s of speech")
        return heard[audio]

    monkeypatch.setattr(voices, "enrol", enrol)
    monkeypatch.chdir(tmp_path)
    for name in ("a.wav", "b.wav", "silence.wav"):
        Path(name).write_bytes(b"x")


def test_a_voice_becomes_a_file_that_is_read_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["speakers", "enrol", "Ann B", "a.wav", "-o", "voices"]) == 0
    kept = Voice.load("voices/Ann B.json")
    assert (kept.vector, kept.seconds) == (pointing(0, 30.0).vector, 30.0)
    assert "--known_speakers Ann B=voices/Ann B.json" in capsys.readouterr().err


def test_several_recordings_are_one_voice() -> None:
    assert cli(["speakers", "enrol", "Ann", "a.wav", "b.wav"]) == 0
    kept = Voice.load("Ann.json")
    assert kept.vector[:3] == pytest.approx((0.6, 0.8, 0.0))
    assert np.linalg.norm(kept.vector) == pytest.approx(1, abs=1e-5)
    assert kept.seconds == 70


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["enrol", "a/b", "a.wav"], 2, "a name has letters"),
        (["enrol", " ", "a.wav"], 2, "a name has letters"),
        (["enrol", "Ann", "none.wav"], 1, "none.wav: there is no such file"),
        (["enrol", "Ann", "a.wav", "silence.wav"], 1, "silence.wav: there is less"),
        (["forget", "Ann", "a.wav"], 2, "enrol"),
    ],
)
def test_what_goes_wrong_is_said(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        ended: object = cli(["speakers", *arguments])
    except SystemExit as error:
        ended = error.code
    assert ended == code
    assert message in capsys.readouterr().err
    assert not Path("Ann.json").exists()
