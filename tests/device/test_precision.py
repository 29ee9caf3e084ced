"""Precisions are what the device has, and "auto" is what it does well."""

from __future__ import annotations

import pytest

from whisper.device import precision
from whisper.errors import OptionError


@pytest.mark.parametrize(
    ("machine", "int8", "bfloat16", "auto"),
    [
        ("x86_64", True, True, "int8"), ("x86_64", False, True, "bfloat16"), ("x86_64", False, False, "float32"),
        ("arm64", True, True, "float32"),  # whose kernels have no instructions for either
    ],
)  # fmt: skip
def test_the_precision_that_a_processor_does_well(
    machine: str, int8: bool, bfloat16: bool, auto: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "machine", lambda: machine)
    monkeypatch.setattr(precision, "has_int8", lambda: int8)
    monkeypatch.setattr(precision, "has_bfloat16", lambda: bfloat16)
    assert precision.resolve("auto", "cpu") == auto
    for name in ("float32", "bfloat16", "int8"):
        assert precision.resolve(name, "cpu") == name


def test_a_precision_that_cannot_be_is_an_error() -> None:
    with pytest.raises(OptionError, match=r"'int4'; it can be auto, float32, bfloat16, float16, int8"):
        precision.resolve("int4", "cpu")
    with pytest.raises(OptionError, match=r"'float16' does not run on cpu; there it can be auto, "):
        precision.resolve("float16", "cpu")
