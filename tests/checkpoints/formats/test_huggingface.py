"""Hugging Face folders, built here by hand in the names that `transformers` uses, and a hub that is made up."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from whisper.checkpoints.load import load_model
from whisper.errors import CheckpointError
from whisper.model import ModelDimensions, Whisper

DIMS = ModelDimensions(8, 20, 16, 2, 3, 60, 12, 16, 4, 2)

# ours -> theirs, written down apart from the program's own table
THEIRS = {
    "encoder.positional_embedding": "encoder.embed_positions.weight",
    "decoder.positional_embedding": "decoder.embed_positions.weight",
    "decoder.token_embedding.weight": "decoder.embed_tokens.weight",
    "encoder.ln_post": "encoder.layer_norm",
    "decoder.ln": "decoder.layer_norm",
}
IN_A_LAYER = {
    "attn": "self_attn", "cross_attn": "encoder_attn", "query": "q_proj", "key": "k_proj", "value": "v_proj",
    "out": "out_proj", "attn_ln": "self_attn_layer_norm", "cross_attn_ln": "encoder_attn_layer_norm",
    "mlp.0": "fc1", "mlp.2": "fc2", "mlp_ln": "final_layer_norm",
}  # fmt: skip


def their_name(name: str) -> str:
    if layer := re.fullmatch(r"(\w+)\.blocks\.(\d+)\.(.*)\.(weight|bias)", name):
        side, number, inner, kind = layer.groups()
        parts = [inner] if inner.startswith("mlp.") else inner.split(".")
        return ".".join([side, "layers", number, *(IN_A_LAYER[part] for part in parts), kind])
    stem, _, kind = name.rpartition(".")
    return THEIRS.get(name) or (f"{THEIRS[stem]}.{kind}" if stem in THEIRS else name)


def little_model(dims: ModelDimensions = DIMS) -> Whisper:
    torch.manual_seed(0)
    model = Whisper(dims)
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return model


def their_tensors(model: Whisper, prefix: str = "model.") -> dict[str, Tensor]:
    return {prefix + their_name(name): tensor.clone() for name, tensor in model.state_dict().items()}


def config(dims: ModelDimensions = DIMS, **changes: Any) -> dict[str, Any]:
    return {
        "model_type": "whisper", "num_mel_bins": dims.n_mels, "max_source_positions": dims.n_audio_ctx,
        "d_model": dims.n_audio_state, "encoder_attention_heads": dims.n_audio_head,
        "encoder_layers": dims.n_audio_layer, "vocab_size": dims.n_vocab,
        "max_target_positions": dims.n_text_ctx, "decoder_attention_heads": dims.n_text_head,
        "decoder_layers": dims.n_text_layer, "encoder_ffn_dim": 4 * dims.n_audio_state,
        "decoder_ffn_dim": 4 * dims.n_text_state, "activation_function": "gelu", "scale_embedding": False,
        **changes,
    }  # fmt: skip


def write(folder: Path, tensors: dict[str, Tensor], generation: Any = None, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config(**changes)))
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    if tensors:
        save_file(tensors, folder / "model.safetensors")
    return folder


def same(loaded: Whisper, model: Whisper) -> bool:
    pairs = zip(loaded.state_dict().items(), model.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def shard(folder: Path, tensors: dict[str, Tensor], ending: str) -> None:
    names, stem = list(tensors), "model" if ending == "safetensors" else "pytorch_model"
    where = {n: f"{stem}-0000{1 + i % 2}-of-00002.{ending}" for i, n in enumerate(names)}
    for file in set(where.values()):
        part = {n: tensors[n] for n in names if where[n] == file}
        save_file(part, folder / file) if ending == "safetensors" else torch.save(part, folder / file)
    (folder / f"{stem}.{ending}.index.json").write_text(json.dumps({"weight_map": where}))


@pytest.mark.parametrize("form", ["safetensors", "bin", "safetensors shards", "bin shards"])
@pytest.mark.parametrize("prefix", ["model.", ""])
def test_folders_in_every_form(tmp_path: Path, form: str, prefix: str) -> None:
    model = little_model()
    tensors = their_tensors(model, prefix)
    write(tmp_path, tensors if form == "safetensors" else {}, {"alignment_heads": [[0, 3], [1, 2]]})
    if form == "bin":
        tied = {**tensors, "proj_out.weight": tensors[prefix + "decoder.embed_tokens.weight"]}
        torch.save(tied, tmp_path / "pytorch_model.bin")
    elif "shards" in form:
        shard(tmp_path, tensors, form.split()[0])
    loaded = load_model(tmp_path)
    assert loaded.dims == DIMS
    assert same(loaded, model)
    assert loaded.alignment_heads.indices().T.tolist() == [[0, 3], [1, 2]]


def test_distilled_half_and_without_sinusoids(tmp_path: Path) -> None:
    model = little_model(replace(DIMS, n_text_layer=1, n_text_ctx=9))
    tensors = {name: tensor.half() for name, tensor in their_tensors(model).items()}
    del tensors["model.encoder.embed_positions.weight"]
    folder = write(tmp_path, tensors, {"alignment_heads": [[0, 0], [7, 1]]}, dims=model.dims)
    with pytest.warns(UserWarning, match=r"head \[7, 1\].*another model's"):
        loaded = load_model(str(folder))
    assert loaded.dims == model.dims
    assert torch.equal(loaded.encoder.positional_embedding, model.encoder.positional_embedding)
    assert torch.equal(loaded.decoder.ln.weight, model.decoder.ln.weight.half().float())
    assert loaded.alignment_heads.indices().T.tolist() == [[0, h] for h in range(4)]  # the default


def test_tokens_behind_the_vocabulary_are_cut(tmp_path: Path) -> None:
    model = little_model(replace(DIMS, n_vocab=51870))
    write(tmp_path, their_tensors(model), {"no_timestamps_token_id": 50363}, dims=model.dims)
    with pytest.warns(UserWarning, match="5 tokens behind Whisper's 51865"):
        loaded = load_model(tmp_path)
    assert (loaded.dims.n_vocab, loaded.num_languages) == (51865, 99)
    assert torch.equal(loaded.decoder.token_embedding.weight, model.decoder.token_embedding.weight[:51865])
    (tmp_path / "generation_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"51870 tokens, more than any Whisper.*generation_config.json"):
        load_model(tmp_path)


def _changed(**changes: Any) -> Callable[[Path], Any]:
    return lambda folder: write(folder, their_tensors(little_model()), **changes)


def _adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")


def _untied(folder: Path) -> None:
    write(folder, {**their_tensors(little_model()), "proj_out.weight": torch.zeros(60, 16)})


def _missing_shard(folder: Path) -> None:
    write(folder, {})
    shard(folder, their_tensors(little_model()), "safetensors")
    (folder / "model-00002-of-00002.safetensors").unlink()


def _escaping_shard(folder: Path) -> None:
    write(folder, {})
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../model.safetensors"}}')


def _truncated(folder: Path) -> None:
    write(folder, their_tensors(little_model()))
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def _incomplete(folder: Path) -> None:
    tensors = their_tensors(little_model())
    del tensors["model.encoder.layers.2.fc1.weight"]
    write(folder, tensors)


def _broken_config(folder: Path) -> None:
    write(folder, their_tensors(little_model()))
    (folder / "config.json").write_text('{"d_model":')


NF4 = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty": (lambda _: None, "is an empty folder"),
    "adapter": (_adapter, r"adapter \(LoRA\) without its base model.*merge"),
    "other model": (_changed(model_type="wav2vec2"), "type 'wav2vec2', not 'whisper'"),
    "gptq": (_changed(quantization_config={"quant_method": "gptq"}), "is quantised by gptq, .*made from"),
    "awq": (_changed(quantization_config={"quant_method": "awq", "bits": 4}), "is quantised by awq, .*made from"),
    "torchao": (_changed(quantization_config={"quant_method": "torchao"}), "is quantised by torchao, .*made from"),
    "nf4": (_changed(quantization_config=NF4), "is quantised by bitsandbytes nf4, which is not read; load the model"),
    "unknown": (_changed(quantization_config="yes"), "is quantised by yes"),
    "wide": (_changed(encoder_ffn_dim=65), "encoder_ffn_dim = 65 where Whisper has 64"),
    "no number": (_changed(vocab_size=None), "n_vocab = None"),
    "no weights": (
        lambda folder: write(folder, {}),
        "holds config.json, and the weights are missing",
    ),
    "untied": (_untied, "proj_out of its own"),
    "missing shard": (_missing_shard, "1 of 2 shards are missing .model-00002-of-00002.safetensors"),
    "escaping shard": (_escaping_shard, "shards are missing"),
    "truncated": (_truncated, "no whole safetensors file"),
    "incomplete": (_incomplete, "1 of .* tensors are missing .encoder.blocks.2.mlp.0.weight"),
    "broken config": (_broken_config, "config.json cannot be read as JSON"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_whisper_folder(kind: str, tmp_path: Path) -> None:
    make, says = REFUSED[kind]
    make(tmp_path)
    with pytest.raises(CheckpointError, match=says) as caught:
        load_model(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_file_of_weights_is_read_with_the_configuration_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = little_model()
    write(tmp_path, their_tensors(model))
    torch.save(their_tensors(model), tmp_path / "pytorch_model.bin")
    for name in ("model.safetensors", "pytorch_model.bin"):
        assert same(load_model(tmp_path / name), model)
    monkeypatch.chdir(tmp_path)
    assert same(load_model("model.safetensors"), model)
    (tmp_path / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"give the folder that holds it and its config.json"):
        load_model(tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"Hugging Face model, .* config.json; give the folder that holds both"):
        load_model(tmp_path / "pytorch_model.bin")


@pytest.mark.parametrize("variant", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("form", ["safetensors", "safetensors shards", "bin"])
def test_a_variant_is_read_where_the_main_file_is_missing(tmp_path: Path, form: str, variant: str) -> None:
    model = little_model()
    dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[variant]
    tensors = {name: tensor.to(dtype) for name, tensor in their_tensors(model).items()}
    write(tmp_path, {})
    if form == "safetensors":
        save_file(tensors, tmp_path / f"model.{variant}.safetensors")
    elif form == "bin":
        torch.save(tensors, tmp_path / f"pytorch_model.{variant}.bin")
    else:
        shard(tmp_path, tensors, "safetensors")
        (tmp_path / "model.safetensors.index.json").rename(tmp_path / f"model.safetensors.index.{variant}.json")
    loaded = load_model(tmp_path).state_dict()
    assert all(torch.equal(loaded[name], tensor.to(dtype).float()) for name, tensor in model.state_dict().items())
    save_file(their_tensors(model), tmp_path / "model.safetensors")  # which is the better one
    assert same(load_model(tmp_path), model)


def test_large_v3_has_128_bands_and_cantonese(tmp_path: Path) -> None:
    model = little_model(replace(DIMS, n_mels=128, n_vocab=51866))
    write(tmp_path, their_tensors(model), {"no_timestamps_token_id": 50364}, dims=model.dims)
    loaded = load_model(tmp_path)
    assert (loaded.dims, loaded.num_languages) == (model.dims, 100)
    assert same(loaded, model)


def test_heads_that_no_file_names_are_those_of_the_published_model(tmp_path: Path) -> None:
    dims = ModelDimensions(80, 10, 24, 6, 4, 51865, 8, 24, 6, 4)  # of tiny, but narrower
    write(tmp_path, their_tensors(little_model(dims)), dims=dims)
    assert load_model(tmp_path).alignment_heads.indices().T.tolist() == [[2, 2], [3, 0], [3, 2], [3, 3], [3, 4], [3, 5]]


def in_int8(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """As bitsandbytes stores linear layers: rows of int8, and the largest number of each."""
    made = {}
    for name, tensor in tensors.items():
        if tensor.ndim == 2 and "layers" in name:
            largest = tensor.abs().amax(dim=1)
            made[name] = (tensor / largest[:, None] * 127).round().to(torch.int8)
            made[name.replace("weight", "SCB")] = largest
            made[name.replace("weight", "weight_format")] = torch.tensor(0, dtype=torch.uint8)
        else:
            made[name] = tensor.half()
    return made


def test_int8_of_bitsandbytes(tmp_path: Path) -> None:
    model = little_model()
    tensors = in_int8(their_tensors(model))
    how = {"quant_method": "bitsandbytes", "load_in_8bit": True, "load_in_4bit": False}
    write(tmp_path, tensors, quantization_config=how)
    loaded = load_model(tmp_path).state_dict()
    for name, tensor in model.state_dict().items():
        close = tensor.abs().max() / 254 + 1e-6 if "blocks" in name and tensor.ndim == 2 else tensor.abs().max() / 1024
        assert (loaded[name] - tensor).abs().max() <= close, name

    spoilt = {
        "scale SCB that does not fit": {"model.encoder.layers.0.fc1.SCB": torch.ones(3)},
        "order of one kind of GPU": {"model.encoder.layers.0.fc1.weight_format": torch.tensor(2, dtype=torch.uint8)},
    }
    for says, changed in spoilt.items():
        write(tmp_path, {**tensors, **changed}, quantization_config=how)
        with pytest.raises(CheckpointError, match=says):
            load_model(tmp_path)
