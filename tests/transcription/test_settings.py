"""The settings of a call: data that nothing changes, and whether the call is cancelled."""

import threading
from dataclasses import FrozenInstanceError
from types import SimpleNamespace
from typing import Any

import pytest

from whisper.decoding import DecodingOptions
from whisper.errors import CancelledError, OptionError
from whisper.options.transcription import TranscribeOptions
from whisper.transcription.call import Call
from whisper.transcription.settings import TranscribeSettings, check_settings

from ..models import random_model


def settings(decoding: dict[str, Any] | None = None, **options: Any) -> TranscribeSettings:
    given = DecodingOptions(**{"language": "en", "fp16": False, **(decoding or {})})
    return check_settings(random_model(0), TranscribeOptions(**options), given)


def test_settings_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        settings().languages = ("de",)  # type: ignore[misc]


def test_the_audit_decides_for_options_that_are_not_given() -> None:
    assert (settings().audits, settings().skips_silence, settings().keeps_within) == (False, False, False)
    in_chunks = settings(batch_size=2)
    assert (in_chunks.audits, in_chunks.skips_silence, in_chunks.keeps_within) == (True, True, True)
    assert not settings(batch_size=2, audit=False).audits
    assert not settings(audit=True, vad_filter=False).skips_silence
    assert settings(channels="separate").keeps_within


def test_rows_are_enough_for_every_temperature_and_for_retries() -> None:
    assert settings().n_rows == 1
    assert settings({"beam_size": 2}).n_rows == 2
    assert settings({"best_of": 4}, temperature=(0, 0.5)).n_rows == 4
    assert settings(audit=True).n_rows == 5
    assert settings({"beam_size": 2}, audit=True).n_rows == 2


def test_the_prompt_is_kept_as_tokens() -> None:
    assert settings().initial_prompt == ()
    made = settings(initial_prompt=" hello ")
    assert made.tokenizer("en").decode(list(made.initial_prompt)) == " hello"


@pytest.mark.parametrize(
    ("decoding", "options"),
    [({"task": "sing"}, {}), ({"prompt": "x"}, {}), ({"temperature": 1.0}, {}), ({}, {"clip_timestamps": "3,1"})],
)
def test_wrong_options_are_found_before_anything_is_read(decoding: dict[str, Any], options: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        settings(decoding, **options)


def test_a_call_is_cancelled_once_its_event_is_set() -> None:
    event, backend = threading.Event(), SimpleNamespace(takes_short_windows=False)
    call = Call(settings(cancel=event), backend)  # type: ignore[arg-type]
    call.raise_if_cancelled()
    event.set()
    with pytest.raises(CancelledError):
        call.raise_if_cancelled()
