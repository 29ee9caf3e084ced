"""`whisper.diarize` as a whole, on made voices: real ones are in benchmarks/speakers.py."""

from __future__ import annotations

import numpy as np
import pytest

import whisper
from whisper.errors import AudioError, OptionError


def test_silence_and_nothing() -> None:
    for n in (0, 100, 16000):
        found = whisper.diarize(np.zeros(n, np.float32))
        assert found.turns == found.exclusive == found.speakers == ()


def test_progress_reaches_the_end() -> None:
    told: list[tuple[float, float]] = []
    whisper.diarize(np.zeros(40 * 16000, np.float32), progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (40.0, 40.0)
    assert told == sorted(told)


def test_wrong_input_is_told() -> None:
    with pytest.raises(OptionError, match="num_speakers"):
        whisper.diarize(np.zeros(16000, np.float32), num_speakers=0)
    with pytest.raises(AudioError, match=r"missing\.wav"):
        whisper.diarize("missing.wav")
