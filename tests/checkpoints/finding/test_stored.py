"""What the headers of a checkpoint tell: format and precision of each kind, and nothing of what is not whole."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from whisper.checkpoints.finding.stored import CTRANSLATE2, GGML, HUGGING_FACE, MLX, OPENAI, Stored, stored_as
from whisper.checkpoints.save import save_checkpoint

from .conftest import little

TYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def tensors(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    return {name: torch.zeros(4, 4, dtype=dtype, device="cpu") for name in ("a", "b")}


def folder(tmp_path: Path, **config: object) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    return path


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_openai(precision: str, tmp_path: Path) -> None:
    save_checkpoint(little(), tmp_path / "a.pt", precision=precision)
    found = stored_as(str(tmp_path / "a.pt"))
    assert found == Stored(OPENAI, precision, (tmp_path / "a.pt").stat().st_size)
    assert found.is_exact


@pytest.mark.parametrize(
    ("precision", "expected"),
    [
        ("float32", "float32"), ("float16", "float16"), ("bfloat16", "bfloat16"), ("int8", "int8"), ("int16", "int16"),
        ("int8_float16", "int8"),
    ],
)  # fmt: skip
def test_ctranslate2_whole_and_in_parts(precision: str, expected: str, tmp_path: Path) -> None:
    save_checkpoint(little(), tmp_path / "a", format="ctranslate2", precision=precision)
    content = (tmp_path / "a" / "model.bin").read_bytes()
    whole = Stored(CTRANSLATE2, expected, len(content))
    assert stored_as(str(tmp_path / "a")) == stored_as(str(tmp_path / "a" / "model.bin")) == whole
    for cut in (1, 5, 100, len(content) // 2, len(content) - 1):
        (tmp_path / "1").write_bytes(content[:cut])
        (tmp_path / "2").write_bytes(content[cut:])
        assert stored_as(str(tmp_path / "1"), str(tmp_path / "2")) == whole
        assert stored_as(str(tmp_path / "1")) is None


@pytest.mark.parametrize("precision", TYPES)
@pytest.mark.parametrize("shards", [1, 2])
def test_hugging_face(precision: str, shards: int, tmp_path: Path) -> None:
    path = folder(tmp_path, model_type="whisper", d_model=4)
    if shards == 1:
        save_file(tensors(TYPES[precision]), path / "model.safetensors")
    else:
        for number, name in enumerate("ab"):
            save_file({name: tensors(TYPES[precision])[name]}, path / f"{number}.safetensors")
        index = {"weight_map": {"a": "0.safetensors", "b": "1.safetensors"}}
        (path / "model.safetensors.index.json").write_text(json.dumps(index))
    size = sum(file.stat().st_size for file in path.glob("*.safetensors"))
    assert stored_as(str(path)) == Stored(HUGGING_FACE, precision, size)
    (path / ("1.safetensors" if shards == 2 else "model.safetensors")).unlink()
    assert stored_as(str(path)) is None


def test_hugging_face_in_torchs_own_files(tmp_path: Path) -> None:
    path = folder(tmp_path, model_type="whisper", d_model=4)
    torch.save(tensors(torch.float16), path / "pytorch_model.bin")
    found = stored_as(str(path))
    assert found is not None
    assert (found.format, found.precision) == (HUGGING_FACE, "float16")


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
@pytest.mark.parametrize("bits", [None, 4])
def test_mlx(ending: str, bits: int | None, tmp_path: Path) -> None:
    path = folder(tmp_path, n_mels=80, quantization={"group_size": 64, "bits": bits} if bits else None)
    if ending == "npz":
        np.savez(path / "weights.npz", a=np.zeros((4, 4), np.float16), b=np.zeros((4, 4), np.float16))
    else:
        save_file(tensors(torch.float16), path / "weights.safetensors")
    found = stored_as(str(path))
    assert found is not None
    assert (found.format, found.precision) == (MLX, "4-bit" if bits else "float16")


@pytest.mark.parametrize(
    ("kind", "precision"), [(1, "float16"), (0, "float32"), (2008, "q5_0"), (2014, "q6_K"), (99, "quantised")]
)
def test_ggml(kind: int, precision: str, tmp_path: Path) -> None:
    (tmp_path / "ggml-base.bin").write_bytes(b"lmgg" + struct.pack("<11i", *range(10), kind) + b"x" * 100)
    assert stored_as(str(tmp_path / "ggml-base.bin")) == Stored(GGML, precision, 148)


FOREIGN: dict[str, Callable[[Path], object]] = {
    "nothing": lambda path: None,
    "an empty file": lambda path: path.touch(),
    "a Git LFS pointer": lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"),
    "text": lambda path: path.write_text("<html>" * 100),
    "an empty folder": lambda path: path.mkdir(),
    "another zip": lambda path: path.write_bytes(b"PK\5\6" + bytes(18)),
    "GGML's header alone": lambda path: path.write_bytes(b"lmgg"),
    "a forged count": lambda path: path.write_bytes(
        struct.pack("<IH", 6, 12) + b"WhisperSpec\0" + struct.pack("<II", 3, 0xFFFFFFFF)
    ),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_what_is_no_checkpoint(what: str, tmp_path: Path) -> None:
    FOREIGN[what](tmp_path / "it")
    assert stored_as(str(tmp_path / "it")) is None


def test_whatever_the_bytes_nothing_is_raised(tmp_path: Path) -> None:
    save_checkpoint(little(), tmp_path / "a", format="ctranslate2", precision="int8")
    content = (tmp_path / "a" / "model.bin").read_bytes()
    rng = random.Random(0)
    for _ in range(100):
        forged = bytearray(content[: rng.choice([60, 2000, len(content)])])
        for _ in range(3):
            forged[rng.randrange(min(len(forged), 400))] = rng.randrange(256)
        (tmp_path / "forged").write_bytes(forged)
        found = stored_as(str(tmp_path / "forged"))
        assert found is None or found.size == len(forged)


def test_a_description_of_another_shape_is_none(tmp_path: Path) -> None:
    path = folder(tmp_path, model_type="whisper", d_model=4)
    for content in (
        "[]",
        "null",
        '{"n_mels": 80, "quantization": []}',
        '{"model_type": "whisper"}',
        "{",
        "[" * 100_000,
    ):
        (path / "config.json").write_text(content)
        (path / "model.safetensors.index.json").write_text('{"weight_map": [3]}')
        assert stored_as(str(path)) is None
