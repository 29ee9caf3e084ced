"""What files and folders are is told by their content; what is no checkpoint is named in one sentence."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from whisper.checkpoints.load import load_model
from whisper.checkpoints.save import save_checkpoint
from whisper.errors import CheckpointError

from ...models import random_model
from ...test_audio import wav
from . import test_huggingface as huggingface
from . import test_mlx as mlx

# ---------------------------------------------------------------------------------------------------------
# Folders and files that are read
# ---------------------------------------------------------------------------------------------------------


def test_a_folder_that_holds_one_checkpoint_is_that_checkpoint(tmp_path: Path) -> None:
    model = mlx.little_model()
    (tmp_path / "README.md").write_text("my models")
    (tmp_path / "base.mp3").write_bytes(b"ID3" + bytes(100))
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("a.txt", "nothing")
    save_checkpoint(model, tmp_path / "base.pt")
    assert huggingface.same(load_model(tmp_path), model)
    save_checkpoint(model, tmp_path / "without-ending")
    with pytest.raises(CheckpointError, match=r"holds 2 checkpoints; give .* one of them \(base.pt, without-ending\)"):
        load_model(tmp_path)


def test_a_folder_with_a_ctranslate2_file_alone(tmp_path: Path) -> None:
    model = random_model(1, n_state=8, n_audio_layer=1, n_text_layer=1)
    save_checkpoint(model, tmp_path / "ct2", format="ctranslate2")
    (tmp_path / "models").mkdir()
    shutil.copy(tmp_path / "ct2" / "model.bin", tmp_path / "models" / "my-whisper.bin")
    assert huggingface.same(load_model(tmp_path / "models"), model)
    assert huggingface.same(load_model(tmp_path / "ct2" / "model.bin"), model)


def test_a_folder_in_the_cache_of_hugging_face(tmp_path: Path) -> None:
    model = huggingface.little_model()
    folder = tmp_path / "models--owner--little"
    huggingface.write(folder / "snapshots" / "abc123", huggingface.their_tensors(model))
    huggingface.write(folder / "snapshots" / "def456", {})
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc123\n")
    assert huggingface.same(load_model(folder), model)
    (folder / "refs" / "main").write_text("../../evil")
    shutil.rmtree(folder / "snapshots" / "def456")
    assert huggingface.same(load_model(folder), model)


def test_names_do_not_matter(tmp_path: Path) -> None:
    model = mlx.little_model()
    save_checkpoint(model, tmp_path / "model.safetensors")
    assert huggingface.same(load_model(tmp_path / "model.safetensors"), model)
    huggingface.write(tmp_path / "hf", {})
    torch.save(huggingface.their_tensors(huggingface.little_model()), tmp_path / "hf" / "model.safetensors")
    assert huggingface.same(load_model(tmp_path / "hf"), huggingface.little_model())


def test_a_pt_file_beside_the_configuration_of_another_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(huggingface.config()))
    model = mlx.little_model()
    save_checkpoint(model, tmp_path / "mine.pt")
    assert huggingface.same(load_model(tmp_path / "mine.pt"), model)
    assert huggingface.same(load_model(tmp_path), model)


# ---------------------------------------------------------------------------------------------------------
# Files that are something else
# ---------------------------------------------------------------------------------------------------------


def _tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.txt"), io.BytesIO())
    return file.getvalue()


def _zip(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return file.getvalue()


def _npy() -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


def _gguf(architecture: bytes) -> bytes:
    key = b"general.architecture"
    name = struct.pack("<Q", len(key)) + key + struct.pack("<IQ", 8, len(architecture)) + architecture
    return b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + name + bytes(100)


FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty; get it again"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5", "a Git LFS pointer, .* git lfs pull"),
    "html": (b"\r\n<!DOCTYPE html><html>404</html>", "is a web page, .*; download the model again"),
    "xml": (b'<?xml version="1.0"?><Error>NoSuchKey</Error>', "is a web page, .*; download the model again"),
    "openvino": (b'<?xml version="1.0"?>\n<net name="Model0" version="11">', "the graph of an OpenVINO model"),
    "json": (b'{"d_model": 512}', "is a JSON file, and weights are missing; give the folder"),
    "text": (b"nothing here\n", "is a text file without weights"),
    "text with a mark": (b"\xef\xbb\xbfnothing here\n", "is a text file without weights"),
    "wav": (wav(np.zeros((1, 100), dtype=np.int16)), "is a recording, not a model"),
    "mp3": (b"\xff\xfb\x90\x00" + bytes(100), "is a recording, not a model"),
    "m4a": (b"\0\0\0\x20ftypM4A " + bytes(100), "is a recording, not a model"),
    "webm": (b"\x1aE\xdf\xa3" + bytes(100), "is a recording, not a model"),
    "onnx": (b"\x08\x07\x12\x07pytorch\x1a\x052.4.0:\xd3" + bytes(90), "is an ONNX graph, .* get model.safetensors"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "is an HDF5 file, .*; get model.safetensors"),
    "flax": (b"\x81\xa5model\x82\xa7decoder\x83" + bytes(100), "a msgpack file, as Flax .*; get model.safetensors"),
    "tensorrt": (b"ftrt\0\0\0\0" + bytes(100), "is a TensorRT engine, .*; give the .pt file"),
    "gguf": (_gguf(b"llama"), "is a GGUF file of a llama model, .*; give"),
    "tar": (_tar(), "is a tar archive; unpack it"),
    "gzip": (gzip.compress(b"x" * 99), "is a compressed archive; unpack it"),
    "xz": (b"\xfd7zXZ\0" + bytes(99), "is a compressed archive; unpack it"),
    "zip": (_zip("a.txt", "base.pt"), "is a zip archive, and data.pkl, .*; unpack it"),
    "npy": (_npy(), "is a single numpy array, .*; give the folder"),
    "npz": (_zip("decoder.ln.weight.npy"), "a file of weights alone, and its dimensions are missing; give"),
    "pdf": (b"%PDF-1.7\n%\xe2\xe3", "is a PDF document, not a model"),
    "zeros": (bytes(4096), "begins with nothing but zeros, .*; download it again"),
    "truncated": (b"PK\x03\x04" + bytes(200), "is truncated: a torch or zip file whose end is missing"),
    "noise": (bytes(range(1, 200)) + b"\0", "is no checkpoint of a known kind .it begins with 01 02 .*; give"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_no_checkpoint_is_named(kind: str, tmp_path: Path) -> None:
    content, says = FILES[kind]
    path = tmp_path / "model.bin"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=says) as caught:
        load_model(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "; " in message  # what it is; what to do
    assert "\n" not in message


@pytest.mark.parametrize("ending", [".incomplete", ".part", ".crdownload"])
def test_an_unfinished_download_is_named(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"base.pt{ending}"
    path.write_bytes(bytes(range(1, 200)))
    with pytest.raises(CheckpointError, match=r"is an unfinished download, .*; let the download finish"):
        load_model(path)


# ---------------------------------------------------------------------------------------------------------
# Folders that are something else
# ---------------------------------------------------------------------------------------------------------


def _files(*names: str, **contents: str) -> Callable[[Path], Any]:
    def make(folder: Path) -> None:
        for name in names:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(b"\x89HDF\r\n\x1a\n")
        for name, content in contents.items():
            (folder / f"{name}.json").write_text(content)

    return make


CONFIG = json.dumps(huggingface.config())
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5"


def _pointer(folder: Path, name: str) -> None:
    (folder / "config.json").write_text(CONFIG)
    (folder / name).write_bytes(POINTER)


FOLDERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty": (_files(), "is an empty folder; give"),
    "flax": (_files("flax_model.msgpack", config=CONFIG), r"holds Flax weights .flax_model.msgpack., and no weights"),
    "flax and tf": (_files("flax_model.msgpack", "tf_model.h5", config=CONFIG), "Flax .* and TensorFlow .*; get"),
    "onnx": (_files("encoder_model.onnx", "decoder_model.onnx", config=CONFIG), "ONNX graphs .decoder_model.onnx, "),
    "onnx folder": (_files("onnx/encoder_model.onnx", config=CONFIG), "holds ONNX graphs"),
    "openvino": (_files("openvino_encoder_model.xml", "openvino_encoder_model.bin"), "holds an OpenVINO graph"),
    "coreml": (_files("AudioEncoder.mlmodelc/model.mil"), "holds a CoreML model .AudioEncoder.mlmodelc."),
    "inside coreml": (_files("model.mil", "coremldata.bin"), "holds a CoreML model"),
    "tensorrt": (_files("rank0.engine", config="{}"), "holds TensorRT engines .rank0.engine."),
    "gguf": (_files("whisper-Q4_K.gguf"), "holds a GGUF model"),
    "unfinished": (_files("base.pt.incomplete"), "holds an unfinished download"),
    "archive": (_files("whisper-base.tar.gz"), "holds an archive"),
    "adapter": (_files(adapter_config="{}"), r"holds an adapter .LoRA. without its base model; merge"),
    "no weights": (_files("README.md", config=CONFIG), "holds config.json, and the weights are missing"),
    "something": (_files("a.txt", "b.txt"), r"holds no checkpoint .a.txt, b.txt., and config.json is missing; give"),
    "pointer": (lambda f: _pointer(f, "model.safetensors"), "model.safetensors is a Git LFS pointer"),
    "pointer for torch": (lambda f: _pointer(f, "pytorch_model.bin"), "pytorch_model.bin is a Git LFS pointer"),
    "pointer for mlx": (lambda f: _pointer(f, "weights.npz"), "weights.npz is a Git LFS pointer"),
    "pointer for ctranslate2": (lambda f: _pointer(f, "model.bin"), "model.bin is a Git LFS pointer"),
    "bad config": (_files(config="[1]"), "config.json holds a list, not an object"),
    "deep config": (_files("model.safetensors", config='{"a":' * 100000), "cannot be read as JSON"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_folder_that_is_no_checkpoint_is_named(kind: str, tmp_path: Path) -> None:
    make, says = FOLDERS[kind]
    make(tmp_path)
    with pytest.raises(CheckpointError, match=says) as caught:
        load_model(tmp_path)
    message = str(caught.value)
    assert str(tmp_path) in message
    assert "; " in message
    assert "\n" not in message
