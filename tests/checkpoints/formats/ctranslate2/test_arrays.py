"""CTranslate2's files without torch: the same numbers as with it, and whatever is unusual is left to the reader."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from whisper.checkpoints.formats import recognize
from whisper.checkpoints.formats.ctranslate2 import arrays
from whisper.checkpoints.load import _describe, parse_alignment_heads
from whisper.checkpoints.published import _ALIGNMENT_HEADS
from whisper.checkpoints.stored_arrays import Source, StoredArrays
from whisper.model import ModelDimensions

from .test_reader import Variables, cast, file_of, little_model, quantized, their_variables

DIMS = ModelDimensions(8, 20, 36, 6, 1, 60, 12, 36, 6, 4)  # the decoder's heads are those of tiny
VARIABLES = their_variables(little_model(DIMS, torch.float16))
HALF = cast(VARIABLES, torch.float16)


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are read at once, though they were written just now; weights stay in their file."""
    monkeypatch.setattr("whisper.checkpoints.stored_arrays.JUST_NOW", 0)
    monkeypatch.setattr("whisper.checkpoints.lazy_tensors.SMALL", 0)


def read(*paths: Path, name: str = "tiny", dims: ModelDimensions = DIMS) -> StoredArrays | None:
    source = Source.of(list(map(str, paths)), name, within="model.bin")
    assert source is not None
    return arrays.read(source, dims)


def written(folder: Path, content: bytes, **files: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "model.bin").write_bytes(content)
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    return folder / "model.bin"


@pytest.mark.parametrize("version", [3, 4, 6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_numbers_are_those_that_the_reader_reads(tmp_path: Path, dtype: torch.dtype, version: int) -> None:
    if version == 3 and dtype == torch.float16:  # whose types are told apart by the size of a number
        assert read(written(tmp_path, file_of(HALF, version=3))) is None
        return
    path = written(tmp_path, file_of(cast(VARIABLES, dtype), version=version))
    found, expected = read(path), recognize.read(str(path))
    expected.alignment_heads = parse_alignment_heads(_ALIGNMENT_HEADS["tiny"], DIMS, "")
    _describe(expected)
    assert found is not None
    assert found.origin.about == expected.tensors.origin.about  # type: ignore[attr-defined]
    assert set(found) == set(expected.tensors)
    for name, array in found.items():
        assert np.array_equal(array, expected.tensors[name].numpy())
        assert array.dtype == str(dtype)[6:]


def test_a_folder_and_a_file_in_parts_are_read(tmp_path: Path) -> None:
    path = written(tmp_path, file_of(HALF), config={}, vocabulary=["a"] * 60)
    whole, in_folder = read(path), read(tmp_path)
    content = path.read_bytes()
    first, second = tmp_path / "model.bin.part1", tmp_path / "model.bin.part2"
    first.write_bytes(content[: len(content) // 2])
    second.write_bytes(content[len(content) // 2 :])
    in_parts = read(first, second)
    assert whole is not None
    assert in_folder is not None
    assert in_parts is not None
    for name, array in whole.items():
        assert np.array_equal(in_folder[name], array)
        assert np.array_equal(in_parts[name], array)


def without(name: str) -> Variables:
    return {key: value for key, value in HALF.items() if key != name}


def with_bias_of_keys() -> Variables:
    bias = HALF["decoder/layer_2/attention/linear_1/bias"].clone()
    bias[0] = 1
    return {**HALF, "decoder/layer_2/attention/linear_1/bias": bias}


EMBEDDING = "decoder/embeddings/weight"
OTHER_FILES: dict[str, Callable[[], bytes]] = {
    "bfloat16": lambda: file_of(cast(VARIABLES, torch.bfloat16)),
    "int8": lambda: file_of(quantized(VARIABLES)),
    "int16": lambda: file_of(quantized(VARIABLES, bits=16, stated=False)),
    "a variable less": lambda: file_of(without("decoder/layer_norm/beta")),
    "a variable more": lambda: file_of({**HALF, "more": torch.ones(1)}),
    "an output layer of its own": lambda: file_of({**HALF, "decoder/projection/weight": HALF[EMBEDDING]}, {}),
    "another alias": lambda: file_of(HALF, {"decoder/projection/weight": "encoder/conv1/weight"}),
    "more tokens": lambda: file_of({**HALF, EMBEDDING: torch.cat([HALF[EMBEDDING], HALF[EMBEDDING][:1]])}),
    "other heads": lambda: file_of({**HALF, "decoder/num_heads": torch.tensor(4, dtype=torch.int16)}),
    "no heads": lambda: file_of(without("decoder/num_heads")),
    "relu": lambda: file_of({**HALF, "decoder/activation": torch.tensor(0, dtype=torch.int8)}),
    "a bias of keys": lambda: file_of(with_bias_of_keys()),
    "another spec": lambda: file_of(HALF, spec="WhisperSpek"),
    "a newer version": lambda: file_of(HALF, version=7),
    "a newer revision": lambda: file_of(HALF, revision=4),
    "truncated": lambda: file_of(HALF)[:-100],
    "longer": lambda: file_of(HALF) + b"\0",
    "empty": lambda: b"",
    "text": lambda: b"\6\0\0\0 and no more",
}


@pytest.mark.parametrize("kind", OTHER_FILES)
def test_whatever_is_unusual_is_left_to_the_reader(tmp_path: Path, kind: str) -> None:
    assert read(written(tmp_path, OTHER_FILES[kind]())) is None


@pytest.mark.parametrize(
    ("files", "fits"),
    [
        ({"config": {}}, True),
        ({"config": {"quantization_type": 1}}, False),
        ({"config": []}, False),
        ({"config": {}, "vocabulary": ["a"] * 59}, False),
        ({"vocabulary": ["a"] * 59}, False),
        ({"config": {}, "vocabulary": ["a"] * 60}, True),
    ],
)
def test_what_lies_beside_it_must_belong_to_it(tmp_path: Path, files: dict[str, Any], fits: bool) -> None:
    assert (read(written(tmp_path, file_of(HALF), **files)) is not None) == fits


def test_a_vocabulary_of_lines_is_counted(tmp_path: Path) -> None:
    path = written(tmp_path, file_of(HALF))
    (tmp_path / "vocabulary.txt").write_text("a\u2028b\n" * 60, encoding="utf-8")
    assert read(path) is not None
    (tmp_path / "vocabulary.txt").write_text("a\n" * 61)
    assert read(path) is None


def test_a_folder_with_other_weights_is_left_to_the_reader(tmp_path: Path) -> None:
    path = written(tmp_path, file_of(HALF))
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert read(path) is None


def test_heads_and_dimensions_must_be_known_by_the_name(tmp_path: Path) -> None:
    path = written(tmp_path, file_of(HALF))
    assert read(path, name="distil-small.en") is None
    assert read(path, name="base") is None  # of another number of layers
    assert read(path, dims=ModelDimensions(8, 20, 36, 6, 1, 61, 12, 36, 6, 4)) is None


def test_random_bytes_are_never_an_error(tmp_path: Path) -> None:
    path, whole = tmp_path / "model.bin", file_of(HALF)
    draw = np.random.default_rng(0)
    names = [whole.index(name.encode()) for name in HALF]
    for _ in range(300):
        content = bytearray(whole)
        for i in draw.integers(-8, 60, 3):
            content[max(int(draw.choice(names)) + int(i), 0)] ^= int(draw.integers(1, 256))
        path.write_bytes(content)
        found = read(path)
        assert found is None or found.dims == DIMS
