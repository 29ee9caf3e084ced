"""One model in every kind of file and folder that people have: all give the same weights, and the same transcript."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from whisper.audio import load_audio
from whisper.checkpoints.load import load_model
from whisper.checkpoints.save import save_checkpoint
from whisper.model import Whisper

from .checkpoints.formats import test_huggingface as huggingface
from .checkpoints.formats import test_mlx as mlx
from .conftest import ROOT
from .real_models import load_installed, needs

pytestmark = [needs("tiny.en"), pytest.mark.slow]


@pytest.fixture(scope="module")
def model() -> Whisper:
    return load_installed("tiny.en")


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    return load_audio(str(ROOT / "examples" / "sample.flac"))[: 10 * 16000]


@pytest.fixture(scope="module")
def text(model: Whisper, sound: np.ndarray) -> str:
    return str(model.transcribe(sound, fp16=False)["text"])


def _huggingface(model: Whisper, folder: Path) -> Path:
    save_checkpoint(model, folder / "hf", format="huggingface", precision="float16")
    return folder / "hf"


def _bin(model: Whisper, folder: Path) -> Path:
    made = _huggingface(model, folder)
    torch.save(load_file(made / "model.safetensors"), made / "pytorch_model.bin")
    (made / "model.safetensors").unlink()
    return made


def _shards(model: Whisper, folder: Path) -> Path:
    made = _huggingface(model, folder)
    huggingface.shard(made, load_file(made / "model.safetensors"), "safetensors")
    (made / "model.safetensors").unlink()
    return made


def _variant(model: Whisper, folder: Path) -> Path:
    made = _huggingface(model, folder)
    (made / "model.safetensors").rename(made / "model.fp16.safetensors")
    return made


def _file(model: Whisper, folder: Path) -> Path:
    return _huggingface(model, folder) / "model.safetensors"


def _cache(model: Whisper, folder: Path) -> Path:
    made = _huggingface(model, folder)
    cached = folder / "models--openai--whisper-tiny.en"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("87c7102498dcde7456f24cfd30239ca606ed9063")
    (cached / "snapshots").mkdir()
    made.rename(cached / "snapshots" / "87c7102498dcde7456f24cfd30239ca606ed9063")
    return cached


def _mlx(model: Whisper, folder: Path, name: str) -> Path:
    tensors = mlx.mlx_tensors(model, torch.float16)
    tensors["alignment_heads"] = model.alignment_heads.indices().T.to(torch.int32).contiguous()
    dims = {name: int(value) for name, value in vars(model.dims).items()}
    return mlx.write(folder, tensors, name, **dims)


def _ctranslate2_file(model: Whisper, folder: Path) -> Path:
    save_checkpoint(model, folder / "ct2", format="ctranslate2", precision="float16")
    (folder / "alone").mkdir()
    shutil.move(folder / "ct2" / "model.bin", folder / "alone" / "model.bin")
    return folder / "alone"


def _ggml(model: Whisper, folder: Path) -> Path:
    save_checkpoint(model, folder / "ggml-tiny.en.bin", format="ggml", precision="float16")
    return folder  # as whisper.cpp's models/


def _pt(model: Whisper, folder: Path) -> Path:
    save_checkpoint(model, folder / "tiny.en.pt", half=True)
    return folder / "tiny.en.pt"


KINDS: dict[str, Callable[[Whisper, Path], Path]] = {
    "openai-whisper's .pt": _pt,
    "Hugging Face, safetensors": _huggingface,
    "Hugging Face, bin": _bin,
    "Hugging Face, shards": _shards,
    "Hugging Face, fp16 variant": _variant,
    "Hugging Face, the file alone": _file,
    "Hugging Face, in its cache": _cache,
    "MLX, npz": lambda model, folder: _mlx(model, folder, "npz"),
    "MLX, safetensors": lambda model, folder: _mlx(model, folder, "newer"),
    "CTranslate2, model.bin alone": _ctranslate2_file,
    "whisper.cpp's folder": _ggml,
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_model(kind: str, model: Whisper, sound: np.ndarray, text: str, tmp_path: Path) -> None:
    path = KINDS[kind](model, tmp_path)
    loaded = load_model(path, device="cpu")
    assert loaded.dims == model.dims
    assert torch.equal(loaded.alignment_heads.to_dense(), model.alignment_heads.to_dense())
    state = loaded.state_dict()
    if kind.startswith("MLX"):  # which leaves out the sinusoids; OpenAI's were computed elsewhere, in float16
        positions = state.pop("encoder.positional_embedding")
        assert (positions - model.encoder.positional_embedding).abs().max() < 1e-3
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in state.items())
    assert loaded.transcribe(sound, fp16=False)["text"] == text
    assert "smart mirror" in text
