"""MLX folders, built here by hand from what mlx documents, and by mlx itself where it has an environment."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from whisper.checkpoints.formats import mlx, recognize
from whisper.checkpoints.load import load_model
from whisper.errors import CheckpointError
from whisper.model import ModelDimensions, Whisper

from ...conftest import ROOT
from .test_huggingface import config as huggingface_config
from .test_huggingface import same

DIMS = ModelDimensions(8, 20, 64, 2, 1, 60, 12, 64, 4, 2)
HEADS = [[0, 3], [1, 0], [1, 2]]


def little_model(dims: ModelDimensions = DIMS) -> Whisper:
    torch.manual_seed(0)
    model = Whisper(dims)
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return model


def mlx_tensors(model: Whisper, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    made: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        if name == "encoder.positional_embedding":
            continue
        if "conv" in name and tensor.ndim == 3:
            tensor = tensor.swapaxes(1, 2)
        made[name.replace("mlp.0", "mlp1").replace("mlp.2", "mlp2")] = tensor.to(dtype).contiguous()
    return {**made, "alignment_heads": torch.tensor(HEADS, dtype=torch.int32)}


def quantized(tensors: dict[str, Tensor], bits: int, group: int) -> dict[str, Tensor]:
    """Quantise as mlx does; each row is one long number, written by Python itself."""
    made = {}
    for name, tensor in tensors.items():
        if tensor.ndim != 2 or not name.endswith(".weight"):
            made[name] = tensor
            continue
        groups = tensor.float().reshape(len(tensor), -1, group)
        low, high = groups.amin(2), groups.amax(2)
        scales = ((high - low) / (2**bits - 1)).to(tensor.dtype)
        steps = ((groups - low[..., None]) / scales.float()[..., None]).round().clamp(0, 2**bits - 1).long()
        rows = []
        for row in steps.flatten(1).tolist():
            number = sum(step << (i * bits) for i, step in enumerate(row))
            rows.append(np.frombuffer(number.to_bytes(len(row) * bits // 8, "little"), dtype=np.uint32))
        made[name] = torch.from_numpy(np.stack(rows))
        made[name.replace(".weight", ".scales")] = scales
        made[name.replace(".weight", ".biases")] = low.to(tensor.dtype)
    return made


def arrays(tensors: dict[str, Tensor]) -> dict[str, np.ndarray]:
    return {n: (t.view(torch.int16) if t.dtype == torch.bfloat16 else t).numpy() for n, t in tensors.items()}


def write_npz(tensors: dict[str, Tensor], path: Path) -> None:
    np.savez(path, **arrays(tensors))  # type: ignore[arg-type]


def write_deflated(tensors: dict[str, Tensor], path: Path) -> None:
    np.savez_compressed(path, **arrays(tensors))  # type: ignore[arg-type]


FORMS: dict[str, tuple[str, Callable[[dict[str, Tensor], Path], None]]] = {
    "npz": ("weights.npz", write_npz), "npz, deflated": ("weights.npz", write_deflated),
    "safetensors": ("weights.safetensors", save_file), "newer": ("model.safetensors", save_file),
}  # fmt: skip


def write(folder: Path, tensors: dict[str, Tensor], form: str = "npz", **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    name, save = FORMS[form]
    save(tensors, folder / name)
    (folder / "config.json").write_text(json.dumps({**asdict(DIMS), "model_type": "whisper", **changes}))
    return folder


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("as_file", [False, True])
def test_folders_in_every_form(tmp_path: Path, form: str, as_file: bool) -> None:
    model = little_model()
    write(tmp_path, mlx_tensors(model), form)
    loaded = load_model(tmp_path / FORMS[form][0] if as_file else tmp_path)
    assert loaded.dims == DIMS
    assert same(loaded, model)
    assert loaded.alignment_heads.indices().T.tolist() == HEADS


@pytest.mark.parametrize("form", ["safetensors", "npz"])
def test_half_precision(tmp_path: Path, form: str) -> None:
    model = little_model()
    write(tmp_path, mlx_tensors(model, torch.float16), form)
    loaded = load_model(tmp_path).state_dict()
    assert torch.equal(loaded["decoder.ln.weight"], model.decoder.ln.weight.half().float())
    assert torch.equal(loaded["encoder.conv1.weight"], model.encoder.conv1.weight.half().float())


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize(("form", "dtype", "group"), [
    ("npz", torch.float32, 32), ("safetensors", torch.float16, 64), ("newer", torch.bfloat16, 64),
])  # fmt: skip
def test_quantised(tmp_path: Path, bits: int, form: str, dtype: torch.dtype, group: int) -> None:
    model = little_model()
    tensors = quantized(mlx_tensors(model, dtype), bits, group)
    write(tmp_path, tensors, form, quantization={"bits": bits, "group_size": group})
    loaded = load_model(tmp_path).state_dict()
    for name in ("decoder.token_embedding", "encoder.blocks.0.mlp.0", "encoder.blocks.0.mlp.2"):
        theirs = name.replace("mlp.0", "mlp1").replace("mlp.2", "mlp2")
        largest_step = float(tensors[f"{theirs}.scales"].max())
        rounding = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}[dtype] * 2**bits
        error = (loaded[f"{name}.weight"] - model.state_dict()[f"{name}.weight"]).abs().max()
        assert 0 < error <= largest_step * (0.51 + rounding), name


def test_numbers_by_hand() -> None:
    three_bits = torch.tensor([0b10_001_000, 0b1_100_011_0, 0b111_110_10], dtype=torch.uint8)
    assert mlx.unpacked(three_bits, 3).tolist() == [0, 1, 2, 3, 4, 5, 6, 7]


def test_mixed_bits_and_names_of_hugging_face_in_the_configuration(tmp_path: Path) -> None:
    """As mlx-audio writes folders: its configuration is Hugging Face's, and single layers may have other bits."""
    model = little_model()
    tensors = mlx_tensors(model)
    part = {name: tensor for name, tensor in tensors.items() if ".mlp1." in name}
    tensors = {**quantized(tensors, 4, 64), **quantized(part, 8, 32)}
    write(tmp_path, tensors, "newer")
    (tmp_path / "config.json").write_text(json.dumps(huggingface_config(DIMS)))
    loaded = load_model(tmp_path).state_dict()
    assert (loaded["encoder.blocks.0.mlp.0.weight"] - model.encoder.blocks[0].mlp[0].weight).abs().max() < 5e-3
    assert torch.equal(loaded["encoder.conv2.weight"], model.encoder.conv2.weight)


def test_tensors_are_made_one_at_a_time(tmp_path: Path) -> None:
    write(tmp_path, quantized(mlx_tensors(little_model()), 4, 64), "npz, deflated")
    weights = recognize.read(str(tmp_path))
    name = "decoder.token_embedding.weight"
    assert weights.tensors[name].data_ptr() != weights.tensors[name].data_ptr()
    assert weights.tensors.views[name].is_meta  # type: ignore[attr-defined]


def test_heads_that_the_file_does_not_name(tmp_path: Path) -> None:
    dims = replace(DIMS, n_audio_layer=4, n_text_layer=4, n_text_state=24, n_text_head=6, n_vocab=51864)
    dims.n_audio_state = dims.n_text_state
    dims.n_audio_head = dims.n_text_head
    tensors = mlx_tensors(little_model(dims))
    del tensors["alignment_heads"]
    write(tmp_path, tensors, "safetensors", **asdict(dims))
    assert load_model(tmp_path).alignment_heads.indices().T.tolist() == [
        [1, 0], [2, 0], [2, 5], [3, 0], [3, 1], [3, 2], [3, 3], [3, 4]
    ]  # fmt: skip


def _without(name: str) -> Callable[[dict[str, Tensor]], Any]:
    return lambda tensors: tensors.pop(name)


def _with(name: str, tensor: Tensor) -> Callable[[dict[str, Tensor]], Any]:
    return lambda tensors: tensors.update({name: tensor})


REFUSED: dict[str, tuple[Callable[[dict[str, Tensor]], Any], str]] = {
    "no biases": (_without("encoder.blocks.0.mlp1.biases"), "as mxfp4 and nvfp4 have them"),
    "no scales": (_without("encoder.blocks.0.mlp1.scales"), "tensors that a Whisper of its dimensions does not have"),
    "few scales": (_with("encoder.blocks.0.mlp1.scales", torch.zeros(3, 1)), "its parts do not fit together"),
    "odd width": (
        _with("encoder.blocks.0.mlp1.weight", torch.zeros(256, 7, dtype=torch.int32).view(torch.uint32)),
        "its parts do not fit together",
    ),
    "heads": (_with("alignment_heads", torch.tensor([[5, 0]])), "not pairs of one of 2 layers"),
    "twice": (_with("model.decoder.ln.weight", torch.zeros(64)), "twice under different names"),
    "incomplete": (_without("decoder.ln.weight"), r"1 of \d+ tensors are missing .decoder.ln.weight"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused(kind: str, tmp_path: Path) -> None:
    spoil, says = REFUSED[kind]
    tensors = quantized(mlx_tensors(little_model()), 4, 64)
    spoil(tensors)
    write(tmp_path, tensors, "safetensors")
    with pytest.raises(CheckpointError, match=says) as caught:
        load_model(tmp_path)
    assert "\n" not in str(caught.value)


def test_without_configuration_or_weights(tmp_path: Path) -> None:
    write(tmp_path, mlx_tensors(little_model()))
    (tmp_path / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"give the folder that holds it and its config.json"):
        load_model(tmp_path / "weights.npz")


def test_pickled_arrays_are_not_opened(tmp_path: Path) -> None:
    write(tmp_path, mlx_tensors(little_model()))
    evil = np.empty(1, dtype=object)
    evil[0] = {"a": 1}
    np.savez(tmp_path / "weights.npz", **{"decoder.ln.weight": evil}, allow_pickle=True)
    with pytest.raises(CheckpointError, match=r"type \|O or the order is not one of weights"):
        load_model(tmp_path)


# ---------------------------------------------------------------------------------------------------------
# Beside mlx
# ---------------------------------------------------------------------------------------------------------

# What mlx-whisper's own conversion does, on the tensors of a safetensors file, and what its network answers.
CONVERT = """
import json, sys
from pathlib import Path
import mlx.core as mx, mlx.nn as nn, numpy as np
from mlx.utils import tree_flatten, tree_unflatten
sys.modules["mlx_whisper"] = package = type(sys)("mlx_whisper")
package.__path__ = [str(Path(mx.__file__).parents[1] / "mlx_whisper")]  # without its __init__: transcribe wants numba
audio = sys.modules["mlx_whisper.audio"] = type(sys)("mlx_whisper.audio")
audio.CHUNK_LENGTH = 30
from mlx_whisper.whisper import ModelDimensions, Whisper
source, folder, bits, name = sys.argv[1:]
folder = Path(folder)
config = json.loads((folder / "config.json").read_text())
model = Whisper(ModelDimensions(**{k: v for k, v in config.items() if k.startswith("n_")}), mx.float32)
model.update(tree_unflatten(list(mx.load(source).items())))
if int(bits):
    nn.quantize(model, 64, int(bits))
    config["quantization"] = {"group_size": 64, "bits": int(bits)}
    (folder / "config.json").write_text(json.dumps(config))
weights = dict(tree_flatten(model.parameters()))
if name.endswith(".npz"):
    np.savez(str(folder / name), **weights)
else:
    mx.save_safetensors(str(folder / name), weights)
mel = mx.array(np.load(folder / "mel.npy")).swapaxes(1, 2)
tokens = mx.array([[1, 5, 9], [2, 2, 59]])
np.save(folder / "logits.npy", np.array(model.logits(tokens, model.embed_audio(mel))))
"""


@pytest.mark.peers
@pytest.mark.parametrize("name", ["weights.npz", "model.safetensors"])
@pytest.mark.parametrize("bits", [0, 2, 3, 4, 5, 6, 8])
def test_what_mlx_writes(tmp_path: Path, bits: int, name: str) -> None:
    python = ROOT / ".venv-peers" / "mlx" / "bin" / "python"
    if not python.exists():
        pytest.skip(f"mlx has no environment here ({python}); run scripts/peers mlx")
    model = little_model()
    save_file(mlx_tensors(model), tmp_path / "source.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({**asdict(DIMS), "model_type": "whisper"}))
    mel = torch.randn(2, DIMS.n_mels, 2 * DIMS.n_audio_ctx, generator=torch.Generator().manual_seed(1))
    np.save(tmp_path / "mel.npy", mel.numpy())
    command = [str(python), "-c", CONVERT, str(tmp_path / "source.safetensors"), str(tmp_path), str(bits), name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-2000:]
    loaded = load_model(tmp_path)
    assert loaded.alignment_heads.indices().T.tolist() == HEADS
    with torch.no_grad():
        found = loaded(mel, torch.tensor([[1, 5, 9], [2, 2, 59]]))
    expected = torch.from_numpy(np.load(tmp_path / "logits.npy"))
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-4 * float(expected.abs().max()))
