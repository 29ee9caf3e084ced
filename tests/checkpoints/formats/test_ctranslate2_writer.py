"""CTranslate2 folders that we write, read again by us; what CTranslate2 says of them is in `test_ctranslate2_peers`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from whisper.checkpoints.formats.ctranslate2_writer import PRECISIONS
from whisper.checkpoints.load import load_model
from whisper.checkpoints.save import save_checkpoint
from whisper.errors import CheckpointError, OptionError
from whisper.model import ModelDimensions, Whisper

from .test_ctranslate2 import little_model
from .test_huggingface import same

DIMS = ModelDimensions(8, 20, 4, 2, 1, 51865, 12, 4, 2, 2)
HALF_STEPS = {"float32": 0.0, "float16": 2**-11, "bfloat16": 2**-8, "int16": 2**-11}  # of the largest; int8: 1 / 254


@pytest.fixture(scope="module")
def model() -> Whisper:
    model = little_model(DIMS)
    model.set_alignment_mask(torch.tensor([[False, True], [True, False]]))
    return model


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_is_written_is_read(precision: str, model: Whisper, tmp_path: Path) -> None:
    save_checkpoint(model, tmp_path / "out", format="ctranslate2", precision=precision)
    loaded = load_model(tmp_path / "out")
    assert loaded.dims == DIMS
    assert loaded.alignment_heads.indices().T.tolist() == [[0, 1], [1, 0]]
    rest = getattr(torch, precision.removeprefix("int8_") if "float" in precision else "float32")
    largest = max(float(tensor.abs().max()) for tensor in model.state_dict().values())
    for name, tensor in model.state_dict().items():
        found = loaded.state_dict()[name]
        if tensor.ndim == 1 or name.endswith("positional_embedding"):
            assert torch.equal(found, tensor.to(rest).float()), name
        else:
            atol = HALF_STEPS.get(precision, 1 / 254) * 1.001 * largest
            assert torch.allclose(found, tensor, rtol=0, atol=atol), name
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_in_float32_nothing_is_lost(model: Whisper, tmp_path: Path) -> None:
    save_checkpoint(model, tmp_path / "out", format="ctranslate2")
    assert same(load_model(tmp_path / "out"), model)


def test_half_means_float16(model: Whisper, tmp_path: Path) -> None:
    save_checkpoint(model, tmp_path / "a", True, format="ctranslate2")
    save_checkpoint(model, tmp_path / "b", format="ctranslate2", precision="float16")
    assert (tmp_path / "a" / "model.bin").read_bytes() == (tmp_path / "b" / "model.bin").read_bytes()


def test_int8_keeps_the_other_tensors_as_they_are(model: Whisper, tmp_path: Path) -> None:
    halved = little_model(DIMS).half()
    save_checkpoint(halved, tmp_path / "a", format="ctranslate2", precision="int8")
    save_checkpoint(halved, tmp_path / "b", format="ctranslate2", precision="int8_float16")
    assert (tmp_path / "a" / "model.bin").read_bytes() == (tmp_path / "b" / "model.bin").read_bytes()


def test_integers_are_the_same_when_written_again(model: Whisper, tmp_path: Path) -> None:
    save_checkpoint(model, tmp_path / "a", format="ctranslate2", precision="int8")
    save_checkpoint(load_model(tmp_path / "a"), tmp_path / "b", format="ctranslate2", precision="int8")
    again, once = load_model(tmp_path / "b").state_dict(), load_model(tmp_path / "a").state_dict()
    for name, tensor in once.items():
        assert torch.allclose(again[name], tensor, rtol=1e-6, atol=0), name


def test_rows_of_zeros_stay_zeros(tmp_path: Path) -> None:
    model = little_model(DIMS)
    with torch.no_grad():
        model.decoder.token_embedding.weight[7] = 0
        model.decoder.token_embedding.weight[8] = 1e-40
        model.encoder.conv1.weight.zero_()
    for precision in ("int8", "int16"):
        save_checkpoint(model, tmp_path / precision, format="ctranslate2", precision=precision)
        loaded = load_model(tmp_path / precision)
        assert loaded.decoder.token_embedding.weight[7:9].abs().max() < 1e-3
        assert not loaded.encoder.conv1.weight.any()


def test_the_files_beside_the_weights(model: Whisper, tmp_path: Path) -> None:
    path = tmp_path / "out"
    save_checkpoint(model, path, format="ctranslate2")
    names = ["config.json", "preprocessor_config.json", "tokenizer.json", "vocabulary.json"]
    files: dict[str, Any] = {name: json.loads((path / name).read_text(encoding="utf-8")) for name in names}
    assert {file.name for file in path.iterdir()} == {"model.bin", *names}
    config = files["config.json"]
    assert config["alignment_heads"] == [[0, 1], [1, 0]]
    assert config["lang_ids"] == list(range(50259, 50358))
    assert config["suppress_ids_begin"] == [220, 50257]
    # those of openai/whisper-base on the Hugging Face hub begin and end so
    assert config["suppress_ids"][:6] == [1, 2, 7, 8, 9, 10]
    assert config["suppress_ids"][-6:] == [50258, 50358, 50359, 50360, 50361, 50362]
    assert files["preprocessor_config.json"]["feature_size"] == 8
    assert len(files["vocabulary.json"]) == 51865
    assert files["vocabulary.json"][50362:50365] == ["<|nocaptions|>", "<|notimestamps|>", "<|0.00|>"]


def test_nothing_is_written_over(model: Whisper, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    for name in ("file", "folder"):
        with pytest.raises(OptionError, match="is there already"):
            save_checkpoint(model, tmp_path / name, format="ctranslate2")
    save_checkpoint(model, tmp_path / "empty", format="ctranslate2")
    assert (tmp_path / "file").read_text() == (tmp_path / "folder" / "file").read_text() == "mine"
    assert len(list((tmp_path / "empty").iterdir())) == 5


@pytest.mark.parametrize(("value", "message"), [(1e6, "cannot hold; save in float32"), (float("nan"), "not finite")])
def test_numbers_that_do_not_fit_leave_no_folder(value: float, message: str, tmp_path: Path) -> None:
    model = little_model(DIMS)
    with torch.no_grad():
        model.decoder.ln.bias[0] = value
    with pytest.raises(CheckpointError, match=message):
        save_checkpoint(model, tmp_path / "out", format="ctranslate2", precision="int8_float16")
    assert not list(tmp_path.iterdir())


def test_an_unusual_vocabulary_has_no_texts(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="a vocabulary of 60 tokens is none of Whisper's"):
        save_checkpoint(little_model(), tmp_path / "out", format="ctranslate2")
