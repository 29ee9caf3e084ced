"""A model of packed weights has what a transcription asks for, and gets the rest from the whole one."""

from typing import Any

import pytest

from whisper.model import Whisper
from whisper.runtime import choice, select
from whisper.runtime.packed_model import PackedModel

from .test_fingerprint import DIMS


@pytest.fixture
def whole() -> Whisper:
    return Whisper(DIMS).eval()


def packed(whole: Whisper, loaded: list[Whisper]) -> Any:
    def load() -> Whisper:
        loaded.append(whole)
        return whole

    heads = whole.alignment_heads.indices().T.tolist()
    return PackedModel(select.runner_for(whole, fp16=True), DIMS, heads, "int8", "q5_1", load)


def test_it_says_what_the_whole_one_says_without_it(whole: Whisper) -> None:
    loaded: list[Whisper] = []
    model = packed(whole, loaded)
    assert model.device == whole.device
    assert str(model.device) == "cpu"
    assert (model.is_multilingual, model.num_languages) == (whole.is_multilingual, whole.num_languages)
    assert model.alignment_heads.indices().T.tolist() == whole.alignment_heads.indices().T.tolist()
    assert choice.usable(model)
    assert choice.runner_for(model, fp16=True) is model.runner
    assert model.quantised == "q5_1"
    assert not loaded


def test_the_rest_is_that_of_the_whole_one(whole: Whisper) -> None:
    loaded: list[Whisper] = []
    model = packed(whole, loaded)
    assert model.encoder is whole.encoder
    assert choice.runner_for(model, fp16=False) is select.runner_for(whole, fp16=False)
    assert loaded == [whole]
    with pytest.raises(AttributeError, match="nothing_of_this_name"):
        model.nothing_of_this_name  # noqa: B018


def test_a_device_without_torch_is_that_of_torch(whole: Whisper, monkeypatch: pytest.MonkeyPatch) -> None:
    model = packed(whole, [])
    monkeypatch.setattr("whisper.runtime.packed_model.is_here", lambda: False)
    assert model.device == whole.device
    assert model.device != "cuda"
    assert len({model.device, model.device}) == 1
