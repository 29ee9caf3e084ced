"""The options of a live session, and what of them reaches `transcribe`."""

from __future__ import annotations

from typing import Any

import pytest

from whisper.errors import OptionError
from whisper.live.options import DELAYS, LiveOptions
from whisper.transcription.settings import check_without_model


@pytest.mark.parametrize(
    ("name", "value"),
    [("language", "klingon"), ("threshold", 0), ("silence_s", 0.01), ("max_item_s", 31), ("delay", "soon"),
     ("turn_detection", "semantic"), ("prefix_padding_s", -1), ("temperature", "hot"), ("interim", "no")],
)  # fmt: skip
def test_wrong_values_are_refused(name: str, value: Any) -> None:
    with pytest.raises(OptionError):
        LiveOptions(**{name: value})


def test_the_options_of_the_text_are_those_of_transcribe() -> None:
    options = LiveOptions(language="German", hotwords="Sotto", initial_prompt="Names", audit=True).for_transcribe()
    check_without_model(options)
    assert (options["language"], options["hotword_boost"], options["seed"]) == ("German", 2.0, 0)
    assert "threshold" not in options
    assert "hotword_boost" not in LiveOptions().for_transcribe()


def test_a_longer_delay_waits_longer() -> None:
    delays = list(DELAYS.values())
    assert delays == sorted(delays, key=lambda delay: (delay.guard, delay.agreement))
    assert [delay.interval for delay in delays] == sorted(delay.interval for delay in delays)
