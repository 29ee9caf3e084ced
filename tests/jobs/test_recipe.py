"""Recipes: what changes a result changes the digest, and nothing else does."""

from __future__ import annotations

from pathlib import Path

import pytest

from whisper.errors import ModelNotFoundError, OptionError
from whisper.jobs.recipe import Recipe, differences, effective, model_digest


def test_defaults_and_what_changes_no_result_do_not_count() -> None:
    assert (
        effective({"language": None, "beam_size": None, "verbose": True, "temperature": (0, 0.2, 0.4, 0.6, 0.8, 1)})
        == {}
    )
    assert effective({"temperature": (0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0)}) == {}
    assert effective({"beam_size": 5, "vad_filter": True, "temperature": 0}) == {
        "beam_size": 5, "vad_filter": True, "temperature": 0,
    }  # fmt: skip


def test_wrong_options_are_refused() -> None:
    with pytest.raises(OptionError):
        effective({"beam_size": 0})


def test_digests_follow_options_model_precision_and_what_is_of_one_recording() -> None:
    recipe = Recipe({"language": "en"}, "m", "int8")
    others = [
        Recipe({"language": "de"}, "m", "int8"),
        Recipe({"language": "en"}, "n", "int8"),
        Recipe({"language": "en"}, "m", "float32"),
    ]
    digests = {recipe.digest(), recipe.digest('{"language": "fr"}'), *(other.digest() for other in others)}
    assert len(digests) == 5
    assert Recipe({"language": "en"}, "m", "int8").digest() == recipe.digest()


def test_differences_are_told() -> None:
    before = Recipe({"language": "en", "beam_size": 5}, "m", "int8").to_json()
    now = Recipe({"language": "de", "patience": 1.5}, "n", "int8").to_json()
    assert differences(before, now) == [
        "model m -> n", "beam_size 5 -> default", "language en -> de", "patience default -> 1.5"
    ]  # fmt: skip
    assert differences(now, now) == []


def test_a_model_is_what_it_holds(tmp_path: Path) -> None:
    one, other = tmp_path / "one.pt", tmp_path / "other.pt"
    one.write_bytes(b"weights")
    other.write_bytes(b"weights")
    assert model_digest(str(one)) == model_digest(str(other))
    other.write_bytes(b"Weights")
    assert model_digest(str(one)) != model_digest(str(other))
    assert model_digest(str(tmp_path)) != (before := model_digest(str(tmp_path / "one.pt")))
    assert before.startswith("file:")


def test_a_published_model_is_what_was_published_wherever_it_lies() -> None:
    assert model_digest("base").startswith("published:base:ed3a0b6b1c0edf87")
    assert model_digest("large") == model_digest("large-v3")
    assert model_digest("nano").startswith("bundled:")
    assert model_digest("owner/name") == "hub:owner/name"
    with pytest.raises(ModelNotFoundError):
        model_digest("./none.pt")
