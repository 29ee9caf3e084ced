"""``.pt`` files without torch: the same numbers as with it, and whatever is unusual is left to other readers."""

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from whisper.checkpoints import load_model, save_checkpoint
from whisper.checkpoints.formats import openai_arrays, recognize
from whisper.checkpoints.identity import identity_of
from whisper.checkpoints.load import _describe, parse_alignment_heads
from whisper.checkpoints.published import _ALIGNMENT_HEADS
from whisper.checkpoints.stored_arrays import Source, StoredArrays
from whisper.model import ModelDimensions, Whisper

DIMS = ModelDimensions(16, 20, 32, 2, 2, 60, 12, 32, 2, 4)
TINY = ModelDimensions(16, 20, 36, 6, 1, 60, 12, 36, 6, 4)  # the decoder's heads are those of tiny


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are read at once, though they were written just now; weights stay in their file."""
    monkeypatch.setattr("whisper.checkpoints.stored_arrays.JUST_NOW", 0)
    monkeypatch.setattr("whisper.checkpoints.lazy_tensors.SMALL", 0)


def saved(tmp_path: Path, dims: ModelDimensions = DIMS, **options: Any) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "little.pt"
    save_checkpoint(Whisper(dims), path, **options)
    return path


def read(path: Path, name: str = "") -> StoredArrays | None:
    source = Source.of([str(path)], name or str(path))
    assert source is not None
    return openai_arrays.read(source)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_the_numbers_are_those_that_torch_reads(tmp_path: Path, precision: str) -> None:
    path = saved(tmp_path, precision=precision)
    found, expected = read(path), recognize.read(str(path))
    assert found is not None
    assert found.dims == expected.dims == DIMS
    assert set(found) == set(expected.tensors)
    assert len(found) == len(expected.tensors)
    for name, array in found.items():
        assert np.array_equal(array, expected.tensors[name].numpy())
        assert array.dtype == precision


@pytest.mark.parametrize("heads", ["own", "none", "published"])
def test_what_is_said_of_the_model_is_what_load_model_says(tmp_path: Path, heads: str) -> None:
    path = saved(tmp_path, TINY)
    if heads == "none":
        content = torch.load(path)
        del content["alignment_heads"]
        torch.save(content, path)
    name = "tiny" if heads == "published" else str(path)
    found, weights = read(path, name), recognize.read(str(path))
    if heads == "published":
        weights.alignment_heads = parse_alignment_heads(_ALIGNMENT_HEADS[name], weights.dims, "")
    _describe(weights)
    assert found is not None
    assert found.origin.about == weights.tensors.origin.about  # type: ignore[attr-defined]
    assert found.origin.identity == identity_of([str(path)], name)


def test_a_view_into_a_larger_storage_is_read(tmp_path: Path) -> None:
    path = saved(tmp_path)
    content = torch.load(path)
    bias = content["model_state_dict"]["decoder.ln.bias"]
    content["model_state_dict"]["decoder.ln.bias"] = torch.cat([torch.ones(7), bias])[7:]
    torch.save(content, path)
    found = read(path)
    assert found is not None
    assert np.array_equal(found["decoder.ln.bias"], bias.numpy())


# ---------------------------------------------------------------------------------------------------------
# What is not read here
# ---------------------------------------------------------------------------------------------------------


def changed(change: Callable[[dict[str, Any]], object], **options: Any) -> Callable[[Path], None]:
    """Save a checkpoint again after a change of what is in it."""

    def make(path: Path) -> None:
        content = torch.load(path)
        change(content)
        torch.save(content, path, **options)

    return make


def state(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    return changed(lambda content: change(content["model_state_dict"]))


def as_type(dtype: torch.dtype) -> Callable[[Path], None]:
    return state(lambda tensors: tensors.update({name: t.to(dtype) for name, t in tensors.items()}))


def compressed(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)


def with_pickle(content: bytes) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        with zipfile.ZipFile(path) as archive:
            contents = {name: archive.read(name) for name in archive.namelist()}
        contents["little/data.pkl"] = content
        with zipfile.ZipFile(path, "w") as archive:
            for name, each in contents.items():
                archive.writestr(name, each)

    return make


class Code:
    def __reduce__(self) -> Any:
        return os.mkdir, ("hacked",)


NAME = "decoder.token_embedding.weight"
OTHER_FILES: dict[str, Callable[[Path], object]] = {
    "legacy": changed(lambda _: None, _use_new_zipfile_serialization=False),
    "bfloat16": as_type(torch.bfloat16),
    "float64": as_type(torch.float64),
    "with gaps": state(lambda t: t.update({NAME: t[NAME].t().contiguous().t()})),
    "a tensor less": state(lambda t: t.pop("decoder.ln.bias")),
    "a tensor more": state(lambda t: t.update(more=torch.ones(1))),
    "another shape": state(lambda t: t.update({NAME: t[NAME][:-1].clone()})),
    "a number for a tensor": state(lambda t: t.update({NAME: 3})),
    "no dims": changed(lambda content: content.pop("dims")),
    "negative dims": changed(lambda content: content["dims"].update(n_mels=-16)),
    "many layers": changed(lambda content: content["dims"].update(n_text_layer=1 << 20)),
    "heads that do not divide": changed(lambda content: content["dims"].update(n_text_head=3)),
    "dims that are no dictionary": changed(lambda content: content.update(dims=[80])),
    "no state": changed(lambda content: content.update(model_state_dict=[])),
    "damaged heads": changed(lambda content: content.update(alignment_heads="ABzY8")),
    "compressed": compressed,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("PK\3\4 and no more"),
    "no pickle": with_pickle(b"nothing"),
    "code": with_pickle(pickle.dumps({"dims": Code()})),
    "a class of the package": with_pickle(pickle.dumps({"dims": DIMS})),
}


@pytest.mark.parametrize("kind", OTHER_FILES)
def test_whatever_is_unusual_is_left_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.chdir(tmp_path)
    path = saved(tmp_path)
    assert read(path) is not None
    OTHER_FILES[kind](path)
    assert read(path) is None
    assert not (tmp_path / "hacked").exists()


def test_random_bytes_are_never_an_error(tmp_path: Path) -> None:
    path = saved(tmp_path)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        name = next(n for n in archive.namelist() if n.endswith("data.pkl"))
        first = archive.getinfo(name).header_offset
    draw = np.random.default_rng(0)
    for _ in range(300):
        content = bytearray(whole)
        for i in draw.integers(0, 400, 3):
            content[(first, len(whole) - 2000)[int(draw.integers(2))] + int(i)] ^= int(draw.integers(1, 256))
        path.write_bytes(content)
        found = read(path)
        assert found is None or found.dims is not None


def test_the_model_of_a_file_that_is_not_plain_still_loads(tmp_path: Path) -> None:
    path = saved(tmp_path)
    as_type(torch.bfloat16)(path)
    assert read(path) is None
    assert load_model(path, device="cpu").dims == DIMS
