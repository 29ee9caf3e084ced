"""Options are checked at the door, and stand once."""

import dataclasses
import inspect
import math
from typing import Any

import pytest

from whisper.decoding import DecodingOptions
from whisper.errors import OptionError, UnknownOptionError
from whisper.options import TranscribeOptions, check_names, is_number
from whisper.transcribe import transcribe


def test_the_signature_of_transcribe_is_the_dataclass() -> None:
    parameters = inspect.signature(transcribe).parameters
    keywords = {n: p.default for n, p in parameters.items() if p.kind is p.KEYWORD_ONLY}
    assert keywords == {f.name: f.default for f in dataclasses.fields(TranscribeOptions)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": ()}, "temperature is empty"),
        ({"temperature": "0.2"}, "temperature.*'0.2'"),
        ({"temperature": [0, -1]}, "temperature.*-1"),
        ({"temperature": math.nan}, "temperature.*nan"),
        ({"temperature": [None]}, "temperature.*None"),
        ({"logprob_threshold": "-1"}, "logprob_threshold.*'-1'"),
        ({"no_speech_threshold": True}, "no_speech_threshold.*True"),
        ({"hallucination_silence_threshold": math.nan}, "hallucination_silence_threshold"),
        ({"hallucination_silence_threshold": -1.0}, "hallucination_silence_threshold.*-1"),
        ({"initial_prompt": 5}, "initial_prompt must be text, not int"),
    ],
)
def test_wrong_values_name_the_option_and_the_value(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        TranscribeOptions(**options)


@pytest.mark.parametrize(("given", "ladder"), [(0, (0.0,)), (0.5, (0.5,)), ([0, 1], (0.0, 1.0))])
def test_temperatures(given: Any, ladder: tuple[float, ...]) -> None:
    assert TranscribeOptions(temperature=given).temperatures() == ladder


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(UnknownOptionError, match="'langauge'; did you mean 'language'"):
        check_names({"langauge": "en"}, "transcribe", DecodingOptions)
    with pytest.raises(UnknownOptionError, match="there are task, language"):
        check_names({"xyzzy": 1}, "transcribe", DecodingOptions)
    check_names({"language": "en", "beam_size": 5}, "transcribe", DecodingOptions)


def test_numbers() -> None:
    import numpy as np

    assert all(is_number(x) for x in (0, -1.5, np.float32(2), np.int64(3), math.inf))
    assert not any(is_number(x) for x in (None, "1", True, math.nan, [1], b"1"))
