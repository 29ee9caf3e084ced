"""Hints of the number of speakers, and names."""

from __future__ import annotations

from typing import Any

import pytest

from whisper.errors import OptionError
from whisper.speakers.diarization import Diarization, Hints, Turn


def test_hints() -> None:
    assert Hints.of() == Hints(1, None)
    assert Hints.of(3) == Hints(3, 3)
    assert Hints.of(3).number == 3
    assert Hints.of(min_speakers=2, max_speakers=4) == Hints(2, 4)
    assert Hints.of(max_speakers=4).number is None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"num_speakers": 0}, "num_speakers must be"),
        ({"num_speakers": True}, "num_speakers must be"),
        ({"max_speakers": 1.5}, "max_speakers must be"),
        ({"num_speakers": 2, "max_speakers": 3}, "leave min_speakers"),
        ({"min_speakers": 4, "max_speakers": 3}, "less than min_speakers"),
    ],
)
def test_wrong_numbers(given: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        Hints.of(**given)


def test_renamed() -> None:
    turns = (Turn(0, 1, "SPEAKER_00"), Turn(1, 2, "SPEAKER_01"))
    found = Diarization(turns, turns, ("SPEAKER_00", "SPEAKER_01")).renamed({"SPEAKER_01": "Ana"})
    assert found.speakers == ("SPEAKER_00", "Ana")
    assert [turn.speaker for turn in found.turns] == [turn.speaker for turn in found.exclusive] == ["SPEAKER_00", "Ana"]
