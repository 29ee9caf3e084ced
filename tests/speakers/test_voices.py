"""Known voices: enrolled, kept as files, and found again among speakers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import whisper
from whisper.errors import AudioError, DataError
from whisper.speakers.clustering import normalized
from whisper.speakers.voices import ALIKE, Voice, recognised, voices_of


def voice(i: int) -> Voice:
    return Voice(tuple(np.eye(192)[i].tolist()), 5.0)


def test_a_voice_is_kept_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "ana.json"
    voice(3).save(path)
    assert Voice.load(path) == voice(3)
    assert voices_of({"Ana": str(path), "Bob": voice(1)}) == {"Ana": voice(3), "Bob": voice(1)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"backend": "other"}, "enrol it again"),
        ({"version": 99}, "enrol it again"),
        ({"vector": [1.0]}, "enrol it again"),
        ({"vector": ["x"]}, "no voice"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    path = tmp_path / "ana.json"
    voice(0).save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(DataError, match=words):
        Voice.load(path)
    path.write_text("RIFF")
    with pytest.raises(DataError, match="no voice"):
        Voice.load(path)


def test_silence_is_no_voice() -> None:
    with pytest.raises(AudioError, match="less than 1 s of speech"):
        whisper.enrol(np.zeros(32000, np.float32))


def test_the_surest_pairs_come_first_and_strangers_have_no_name() -> None:
    between = np.sqrt(1 - 0.95**2)
    speakers = np.zeros((4, 192), np.float32)
    speakers[0, :2] = 0.95, between  # like 0
    speakers[1, 0] = 1  # more like 0
    speakers[2, 5] = 1  # a stranger
    speakers[3, 1] = 1
    found = recognised(normalized(speakers), {"Ana": voice(0), "Bob": voice(1), "Eve": voice(7)})
    assert found == {1: "Ana", 3: "Bob"}
    assert between < ALIKE
