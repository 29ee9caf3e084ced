"""Checkpoints of every format, spoilt: each loads or ends in a `CheckpointError`, within memory and time.

A format is one entry of `FORMATS`: how a small checkpoint of it is made. Damage comes from a seed, and most of it
goes where numbers mean something: the head, the end, and what surrounds the names of tensors.
"""

from __future__ import annotations

import json
import random
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from whisper.checkpoints import lazy_tensors
from whisper.checkpoints.load import load_model
from whisper.checkpoints.save import save_checkpoint
from whisper.errors import CheckpointError

from .checkpoints.formats import test_huggingface as huggingface
from .checkpoints.formats import test_mlx as mlx
from .models import random_model

MEMORY = 256 << 20  # bytes that loading a checkpoint of 2 MB may take
SECONDS = 5.0  # of this process
DEFAULT, MORE = 25, 750  # of each format; with all formats 10,000 in the longer run


def _saved(folder: Path, n_state: int = 8, **options: str) -> Path:
    model = random_model(1, n_state=n_state, n_audio_layer=1, n_text_layer=1)
    save_checkpoint(model, folder / "model", **options)  # type: ignore[arg-type]
    for unread in folder.glob("*/tokenizer.json"):
        unread.unlink()
    return folder / "model"


def _legacy(folder: Path) -> Path:
    state = torch.load(_saved(folder), weights_only=True)
    torch.save(state, folder / "old.pt", _use_new_zipfile_serialization=False)
    return folder / "old.pt"


def _huggingface(folder: Path, form: str) -> Path:
    tensors = huggingface.their_tensors(huggingface.little_model())
    generation = {"alignment_heads": [[0, 3]], "no_timestamps_token_id": 50363}
    if form == "int8":
        how = {"quant_method": "bitsandbytes", "load_in_8bit": True}
        return huggingface.write(folder, huggingface.in_int8(tensors), generation, quantization_config=how)
    huggingface.write(folder, tensors if form == "safetensors" else {}, generation)
    if form == "bin":
        torch.save(tensors, folder / "pytorch_model.bin")
    elif form == "shards":
        huggingface.shard(folder, tensors, "safetensors")
    return folder


def _mlx(folder: Path, form: str, bits: int = 0) -> Path:
    tensors = mlx.mlx_tensors(mlx.little_model(), torch.float16)
    return mlx.write(folder, mlx.quantized(tensors, bits, 32) if bits else tensors, form)


FORMATS: dict[str, Callable[[Path], Path]] = {
    "pt": _saved,
    "pt, before zip": _legacy,
    **{f"hugging face, {form}": partial(_huggingface, form=form) for form in ("safetensors", "bin", "shards", "int8")},
    "mlx, npz": partial(_mlx, form="npz"),
    "mlx, npz deflated": partial(_mlx, form="npz, deflated", bits=4),
    "mlx, 3 bits": partial(_mlx, form="newer", bits=3),
    **{f"ctranslate2, {p}": partial(_saved, format="ctranslate2", precision=p) for p in ("float16", "int8", "int16")},
    "ggml, float16": partial(_saved, format="ggml"),
    **{f"ggml, {p}": partial(_saved, n_state=32, format="ggml", precision=p) for p in ("q5_1", "q8_0")},
}


# ---------------------------------------------------------------------------------------------------------
# Damage
# ---------------------------------------------------------------------------------------------------------

NUMBERS = [0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 1 << 24, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1]
VALUES = [None, True, -1, 0, 1, 3, 1.5, 10**6, 2**70, float("nan"), "x", "", [], [1], {}, [[0, 99]], [["a", None]]]


def _place(content: bytes, rng: random.Random) -> int:
    """A place in a file, as a rule one that says something of the rest."""
    size = len(content)
    kind = rng.choice(["head", "start", "end", "name", "name", "anywhere"])
    if kind == "name":
        found = content.find(b"coder", rng.randrange(size))
        if found >= 0:
            return max(0, min(size - 1, found + rng.randrange(-40, 60)))
    span = {"head": range(min(size, 100)), "start": range(min(size, 5000)), "end": range(max(0, size - 5000), size)}
    return rng.choice(span.get(kind, range(size)))


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Change a file in one to three places."""
    for _ in range(rng.choice([1, 1, 2, 3])):
        place = _place(content, rng)
        kind = rng.choice(["number", "number", "number", "bit", "truncated", "cut out", "zeros", "inserted"])
        size = rng.choice([1, 2, 4, 8, 100, 5000])
        if kind == "number":
            size = min(size, 8)
            number = rng.choice([*NUMBERS, rng.randrange(256), rng.randrange(2**64)]) % (1 << 8 * size)
            content = content[:place] + number.to_bytes(size, "little") + content[place + size :]
        elif kind == "bit":
            content = content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :]
        elif kind == "truncated":
            content = content[: max(place, 1)]
        elif kind == "inserted":
            content = content[:place] + rng.randbytes(size) + content[place:]
        else:
            content = content[:place] + (bytes(size) if kind == "zeros" else b"") + content[place + size :]
        content = content or b"\0"
    return content


def damaged_json(content: bytes, rng: random.Random) -> bytes:
    """Change, take out or add one value, at the top or in a list or object below it."""
    given = json.loads(content)
    inner = [given, *(value for value in given.values() if isinstance(value, (dict, list)) and value)]
    where: Any = rng.choice(inner)
    key = rng.choice(list(where) if isinstance(where, dict) else range(len(where)))
    if rng.random() < 0.2:
        del where[key]
    else:
        where[key] = rng.choice(VALUES)
    return json.dumps(given).encode()


def spoil(path: Path, rng: random.Random) -> None:
    """Damage a checkpoint, or one file of a folder."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    file = rng.choice([file for file in files if file.name != "preprocessor_config.json"])
    as_json = file.suffix == ".json" and file.name != "vocabulary.json" and rng.random() < 0.8
    file.write_bytes((damaged_json if as_json else damaged)(file.read_bytes(), rng))


# ---------------------------------------------------------------------------------------------------------
# The run
# ---------------------------------------------------------------------------------------------------------


@contextmanager
def little_memory() -> Iterator[None]:
    """Let this process have `MEMORY` bytes more than it has now, where the system can count them."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError):
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def check(whole: Path, tmp_path: Path, seeds: range, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy_tensors, "JUST_NOW", 0.0)  # nobody else writes to these files
    load_model(whole, device="cpu").state_dict()
    n_refused = 0
    for seed in seeds:
        path = tmp_path / "spoilt"
        shutil.rmtree(path, ignore_errors=True)
        (shutil.copytree if whole.is_dir() else shutil.copy)(whole, path)
        spoil(path, random.Random(seed))
        start = time.process_time()
        message = ""
        try:
            with warnings.catch_warnings(), little_memory():
                warnings.simplefilter("ignore")
                load_model(path, device="cpu").state_dict()
        except CheckpointError as error:
            message = str(error)
            n_refused += 1
        except BaseException as error:  # also what no program should catch: told with its seed
            raise AssertionError(f"seed {seed}: {error!r}") from error
        assert "\n" not in message, seed
        assert len(message) < 1000, seed
        assert time.process_time() - start < SECONDS, seed
    assert n_refused > len(seeds) / 10, "the damage hit nothing"


@pytest.mark.parametrize("format", FORMATS)
def test_damage_ends_in_an_error_of_ours(format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "whole").mkdir()
    check(FORMATS[format](tmp_path / "whole"), tmp_path, range(DEFAULT), monkeypatch)


@pytest.mark.exhaustive
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("format", FORMATS)
def test_much_damage_ends_in_an_error_of_ours(format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "whole").mkdir()
    check(FORMATS[format](tmp_path / "whole"), tmp_path, range(DEFAULT, DEFAULT + MORE), monkeypatch)
