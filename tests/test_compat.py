"""What a program has replaced is noticed where it counts, and only there."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

import whisper  # noqa: F401  # every module remembers its originals when it is imported
from whisper import compat


class Greeter:
    def greet(self) -> str:
        return "hello"


@pytest.mark.parametrize("change", [lambda: setattr(Greeter, "greet", len), lambda: delattr(Greeter, "greet")])
def test_a_replaced_or_removed_method_is_noticed_until_it_is_back(change: Any) -> None:
    original = Greeter.greet
    compat.remember("greeting", (vars(Greeter), ["greet"]))
    assert not compat.replaced("greeting")
    change()
    assert compat.replaced("greeting")
    Greeter.greet = original  # type: ignore[method-assign]
    assert not compat.replaced("greeting")
    del compat._originals["greeting"]


@pytest.mark.parametrize(
    ("what", "module", "name"),
    [
        ("audio.load_audio", "audio", "load_audio"),
        ("decoding", "decoding", "decode"),
        ("decoding", "decoding", "compression_ratio"),
        ("decoding", "decoding", "DecodingTask"),
        ("decoding", "decoding", "DecodingTask.run"),
        ("decoding", "decoding", "SuppressTokens.apply"),
        ("model", "model", "matmul"),
        ("model", "model", "F"),
        ("model", "model", "Linear.forward"),
        ("model", "model", "MultiHeadAttention.use_sdpa"),
        ("timing.find_alignment", "timing", "find_alignment"),
        ("timing.median_filter", "timing", "median_filter"),
        ("transcribe.add_word_timestamps", "transcribe", "add_word_timestamps"),
        ("transcribe.log_mel_spectrogram", "transcribe", "log_mel_spectrogram"),
        ("Whisper.decode", "model", "Whisper.decode"),
        ("Whisper.decode", "model", "Whisper.detect_language"),
    ],
)
def test_only_what_is_replaced_is_noticed(what: str, module: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = sorted(compat._originals)
    assert not [group for group in groups if compat.replaced(group)]
    owner: Any = importlib.import_module(f"whisper.{module}")
    *classes, attribute = name.split(".")
    for part in classes:
        owner = getattr(owner, part)
    monkeypatch.setattr(owner, attribute, object())
    assert [group for group in groups if compat.replaced(group)] == [what]
