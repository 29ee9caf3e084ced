"""Weights are read from their file when they are wanted, and a file that was written into is noticed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from whisper import huggingface, stored
from whisper.checkpoints import load_model, read_checkpoint, save_checkpoint
from whisper.deferred import deferred
from whisper.errors import CheckpointError
from whisper.stored import FileTensors, StoredTensors
from whisper.weights import build, expected_shapes, skeleton

from .test_checkpoints import DIMS, little_model, logits

pytestmark = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="this system reads all weights at once")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint that counts as large."""
    monkeypatch.setattr(stored, "SMALL", 0)
    save_checkpoint(little_model(), tmp_path / "little.pt", half=True)
    return tmp_path / "little.pt"


def is_mapped(file: Path) -> bool:
    return str(file) in Path("/proc/self/maps").read_text()


def test_tensors_are_read_when_asked_for_and_are_their_owners(file: Path) -> None:
    tensors = read_checkpoint(str(file)).tensors
    assert isinstance(tensors, FileTensors)
    assert not tensors._held
    assert not is_mapped(file)
    wanted = little_model().state_dict()
    assert set(tensors) == set(wanted)
    for name, tensor in wanted.items():
        assert torch.equal(tensors[name], tensor.half()), name
        assert (tensors.views[name].shape, tensors.views[name].dtype) == (tensor.shape, torch.float16)
    tensors["decoder.ln.weight"].zero_()
    assert torch.equal(tensors["decoder.ln.weight"], wanted["decoder.ln.weight"].half())


def test_a_file_may_be_deleted_or_replaced(file: Path) -> None:
    model, other = load_model(file), load_model(file)
    save_checkpoint(little_model(1), file, half=True)
    wanted = build(read_checkpoint(str(file)))
    assert torch.equal(logits(wanted), logits(load_model(file)))
    assert not torch.equal(logits(wanted), logits(model))
    file.unlink()
    assert torch.equal(logits(other), logits(model))


@pytest.mark.parametrize("truncated", [False, True])
def test_a_file_that_was_written_into_is_an_error(file: Path, truncated: bool) -> None:
    model = load_model(file)
    old = file.stat()
    with open(file, "r+b") as content:
        if truncated:
            content.truncate(old.st_size // 2)
        else:
            content.seek(old.st_size // 2)
            content.write(b"\0\1\2\3" * 16)
    os.utime(file, ns=(old.st_atime_ns, old.st_mtime_ns + 1000))  # clocks of file systems are coarse
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"little.pt was changed in place after the model was loaded"):
            model.encoder  # noqa: B018
    assert model.dims == DIMS


def test_files_are_closed_when_nobody_wants_them_any_more(file: Path) -> None:
    def n_open() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = n_open()
    model = load_model(file)
    assert n_open() == before + 1
    model.decoder  # noqa: B018
    assert n_open() == before
    model = load_model(file)
    del model
    assert n_open() == before


def test_tensors_that_lie_apart_and_small_files_are_held(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = torch.load(file)
    state: dict[str, Tensor] = checkpoint["model_state_dict"]
    state["encoder.conv1.weight"] = state["encoder.conv1.weight"].transpose(0, 1).contiguous().transpose(0, 1)
    torch.save(checkpoint, file)
    tensors = read_checkpoint(str(file)).tensors
    assert isinstance(tensors, FileTensors)
    assert set(tensors._held) == {"encoder.conv1.weight"}
    assert torch.equal(logits(load_model(file)), logits(load_model(file, in_memory=True)))

    monkeypatch.setattr(stored, "SMALL", file.stat().st_size)
    assert isinstance(read_checkpoint(str(file)).tensors, dict)
    monkeypatch.setattr(stored, "SMALL", 0)
    monkeypatch.setattr(stored.OpenFile, "mappings", lambda _: [])  # as on another system
    assert isinstance(read_checkpoint(str(file)).tensors, dict)
    assert not is_mapped(file)


def test_folders_of_shards_stay_in_their_files_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import save_file

    monkeypatch.setattr(stored, "SMALL", 0)
    state = {name: tensor.bfloat16() for name, tensor in little_model().state_dict().items()}
    for i, part in enumerate(("encoder", "decoder")):
        save_file({n: t for n, t in state.items() if n.startswith(part)}, tmp_path / f"{i}.safetensors")
    files, tensors = huggingface._read_shards(str(tmp_path), ["0.safetensors", "1.safetensors"])
    left = stored.left_in_files(tensors, files)
    del tensors
    assert isinstance(left, FileTensors)
    assert not left._held
    assert not is_mapped(tmp_path / "0.safetensors")
    assert all(torch.equal(left[name], tensor) for name, tensor in state.items())


def test_the_bundled_model_is_unpacked_tensor_by_tensor() -> None:
    model = load_model("nano", device="cpu")
    tensors = deferred(model).source.tensors  # type: ignore[union-attr]
    assert isinstance(tensors, StoredTensors)
    state = model.state_dict()
    assert all(torch.equal(tensors[name], state[name]) for name in state)
    assert {n: t.shape for n, t in tensors.views.items()} == {n: t.shape for n, t in state.items()}


def test_shapes_are_those_of_the_network() -> None:
    found = {name: tuple(tensor.shape) for name, tensor in skeleton(DIMS).state_dict().items()}
    assert expected_shapes(DIMS) == found
