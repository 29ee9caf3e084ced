"""The packed form: what it keeps, what it costs, and that it is the same numbers each time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from whisper.checkpoints import bundled
from whisper.checkpoints.bundled import pack, read_card, unpack
from whisper.checkpoints.formats.tensor_files import read_safetensors
from whisper.checkpoints.lazy_tensors import keep
from whisper.errors import CheckpointError
from whisper.model import ModelDimensions, Whisper

DIMS = ModelDimensions(8, 20, 32, 2, 2, 500, 12, 32, 4, 2)
USED = [3, 7, 250, 499]
EMBEDDING = "decoder.token_embedding.weight"


def little_model() -> Whisper:
    torch.manual_seed(0)
    model = Whisper(DIMS)
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    model.decoder.token_embedding.weight.data[[i for i in range(500) if i not in USED]] = torch.randn(32)
    heads = torch.zeros(2, 4, dtype=torch.bool)
    heads[1, 2] = True
    model.set_alignment_mask(heads)
    return model


def test_float16_is_the_model_rounded_once(tmp_path: Path) -> None:
    model, path = little_model(), tmp_path / "m.safetensors"
    size = pack(model, path, USED, {"licence": "MIT", "wer": 0.5, "name": "kleiner Bär"})
    assert size == path.stat().st_size
    loaded = unpack(path)
    for name, tensor in model.state_dict().items():
        expected = tensor if name == "encoder.positional_embedding" else tensor.half().float()
        assert torch.equal(loaded.state_dict()[name], expected), name
    assert loaded.alignment_heads.indices().T.tolist() == [[1, 2]]
    assert read_card(path) == {"licence": "MIT", "wer": 0.5, "name": "kleiner Bär"}

    stored = load_file(path)
    assert stored[EMBEDDING].shape == (len(USED) + 1, 32)
    assert "encoder.positional_embedding" not in stored


def test_int8_is_within_half_a_step(tmp_path: Path) -> None:
    model = little_model()
    model.decoder.blocks[0].mlp[0].weight.data[5] = 0  # no scale to divide by
    sizes = [pack(model, tmp_path / f"{int8}.safetensors", USED, {}, int8=int8) for int8 in (False, True)]
    assert sizes[1] < 0.65 * sizes[0]
    loaded = unpack(tmp_path / "True.safetensors").state_dict()
    stored = load_file(tmp_path / "True.safetensors")
    for name, tensor in model.state_dict().items():
        rows, got = tensor.flatten(1) if tensor.ndim > 1 else tensor[:, None], loaded[name].reshape(len(tensor), -1)
        if name.endswith(".weight") and tensor.ndim > 1:
            assert stored[name].dtype == torch.int8, name
            assert stored[name + ".scale"].dtype == torch.float16
            step = rows.abs().amax(dim=1, keepdim=True) / 127
            # half a step of rounding; a scale rounded down in float16 costs at most 127 / 2048 of one more
            assert ((rows - got).abs() <= 0.57 * step).all(), name
        else:
            assert torch.allclose(rows, got, atol=1e-3), name
    mel, tokens = torch.randn(1, 8, 40), torch.tensor([[3, 7, 250]])
    with torch.no_grad():
        wanted, given = model(mel, tokens), unpack(tmp_path / "True.safetensors")(mel, tokens)
    assert (wanted - given).abs().max() < 0.05 * wanted.std()


@pytest.mark.parametrize("int8", [False, True])
def test_packed_again_it_is_the_same(tmp_path: Path, int8: bool) -> None:
    """The numbers after unpacking are a fixed point, and the same file comes of the same model."""
    one, two, three = (tmp_path / f"{i}.safetensors" for i in range(3))
    pack(little_model(), one, USED, {"b": 1, "a": 2}, int8=int8)
    pack(little_model(), two, reversed(USED), {"a": 2, "b": 1}, int8=int8)
    assert one.read_bytes() == two.read_bytes()
    pack(unpack(one), three, USED, {}, int8=int8)
    first, second = unpack(one).state_dict(), unpack(three).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_row_of_the_others(tmp_path: Path) -> None:
    model, path = little_model(), tmp_path / "m.safetensors"
    model.decoder.token_embedding.weight.data[100] += 1
    with pytest.raises(CheckpointError, match=r"496 tokens not in use have different rows.*fill_row"):
        pack(model, path, USED, {})
    assert not path.exists()
    pack(model, path, USED, {}, fill_row=torch.full((32,), -2.0))
    table = unpack(path).decoder.token_embedding.weight
    assert (table[[0, 100, 498]] == -2).all()
    assert torch.equal(table[USED], model.decoder.token_embedding.weight[USED].half().float())
    with pytest.raises(CheckpointError, match="token ids 3 to 500 do not fit a vocabulary of 500"):
        pack(model, path, [3, 500], {})


def test_too_large_is_refused_and_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bundled.MAX_BYTES == 25_000_000
    path = tmp_path / "m.safetensors"
    size = pack(little_model(), path, USED, {})
    kept = path.read_bytes()
    monkeypatch.setattr(bundled, "MAX_BYTES", size - 1)
    with pytest.raises(CheckpointError, match=f"has {size} bytes, and {size - 1} are allowed"):
        pack(little_model(), path, USED, {})
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [kept]


def test_numbers_that_do_not_fit(tmp_path: Path) -> None:
    model = little_model()
    model.decoder.ln.bias.data[0] = 1e5
    with pytest.raises(CheckpointError, match=r"decoder.ln.bias has numbers that float16 cannot hold"):
        pack(model, tmp_path / "m.safetensors", USED, {})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t, h: h.update(version=2), "packed form 2, and 1 is known here; update sotto"),
        (lambda t, h: h["dims"].pop("n_mels"), "n_mels is missing"),
        (lambda t, h: h.pop("alignment_heads"), "alignment heads"),
        (lambda t, h: t.pop("used_token_ids"), "no row for each of its 0 tokens"),
        (lambda t, h: t.update(used_token_ids=torch.tensor([1, 2, 3, 900])), "no row for each"),
        (lambda t, h: t.pop("decoder.ln.weight"), "1 of .* tensors are missing .decoder.ln.weight"),
        (lambda t, h: t.update({"encoder.conv1.weight.scale": torch.ones(3)}), "scales that do not fit"),
    ],
)
def test_a_damaged_file(tmp_path: Path, change: Any, says: str) -> None:
    path = tmp_path / "m.safetensors"
    pack(little_model(), path, USED, {})
    tensors = load_file(path)
    header = json.loads(read_safetensors(keep([str(path)])[0])[1]["sotto"])
    change(tensors, header)
    save_file(tensors, tmp_path / "changed.safetensors", metadata={"sotto": json.dumps(header)})
    with pytest.raises(CheckpointError, match=says):
        unpack(tmp_path / "changed.safetensors")
