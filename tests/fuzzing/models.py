"""Names, devices, files and folders of which no model can be made."""

from __future__ import annotations

import io
import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..models import random_model
from ..test_audio import wav
from . import NAN, ROOT, Case, given, shown, speech
from .files import MUTATIONS, handed_over, zipped


def saved(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


@cache
def checkpoint() -> bytes:
    """A model of one narrow layer with 300 kB."""
    model = random_model(1, n_state=8, n_head=2, n_audio_layer=1, n_text_layer=1)
    return saved({"dims": asdict(model.dims), "model_state_dict": model.state_dict()})


@cache
def nano() -> bytes:
    return (ROOT / "whisper" / "assets" / "nano.safetensors").read_bytes()


def models() -> Iterator[Case]:
    yield from (
        Case(f"name-{shown(name)}", "load_model", lambda _, name=name: name)
        for name in [
            "", " ", "nan0", "Tiny", "tiny.EN", "nano ", "\0", "a" * 5000, "../..", "/", ".", "a/b/c", "openai/",
            "/nano", "\ud800", "nano.pt", "x.safetensors",
            None, 5, 0.5, b"nano", b"\xff", ["nano"], {"nano"}, True, NAN, ..., int, Path("nowhere"), Path("."),
            np.str_("nan0"), np.array("nano"),
        ]
    )  # fmt: skip
    for name, value in [
        ("device", "gpu"), ("device", "cuda:99"), ("device", ""), ("device", 5), ("device", -1), ("device", NAN),
        ("device", "meta"), ("device", "mps"), ("device", []),
        ("device", "cpu:7"), ("device", "xpu"), ("device", b"cpu"), ("device", True), ("download_root", 5),
        ("download_root", "\0"), ("download_root", b"x"), ("in_memory", "yes"),
        ("compute_type", "int4"), ("compute_type", None), ("compute_type", 8), ("compute_type", "INT8"),
        ("compute_type", []), ("compute_type", torch.float16), ("compute_type", "float16"),
    ]:  # fmt: skip
        yield Case(f"nano-{name}={value!r}", "load_model", lambda _: "nano", given({name: value}))


def contents() -> dict[str, Callable[[], bytes]]:
    """Files that are no checkpoints, by name."""
    narrow = torch.load(io.BytesIO(checkpoint()), weights_only=True)
    state = narrow["model_state_dict"]
    first, tensor = next(iter(state.items()))

    def changed(**parts: Any) -> Callable[[], bytes]:
        return lambda: saved({**narrow, **parts})

    def with_first(value: Any) -> Callable[[], bytes]:
        return changed(model_state_dict={**state, first: value})

    made: dict[str, Callable[[], bytes]] = {
        "empty": bytes, "text": lambda: b"not a model", "zeros": lambda: bytes(5000),
        "zip": lambda: zipped(b"x", "data.pkl"), "wav": lambda: wav(speech()), "list": lambda: saved([1, 2]),
        "number": lambda: saved(5), "tensor": lambda: saved(torch.zeros(3)), "bare": lambda: saved(dict(state)),
        "no dims": lambda: saved({"model_state_dict": state}), "dims text": changed(dims="large"),
        "dims None": changed(dims=None), "no weights": changed(model_state_dict={}),
        "weights list": changed(model_state_dict=[1]),
        "weights numbers": changed(model_state_dict=dict.fromkeys(state, 1)),
        "one missing": changed(model_state_dict={name: t for name, t in state.items() if name != first}),
        "one too many": changed(model_state_dict={**state, "x": tensor}),
        "a number's": changed(model_state_dict={**state, 5: tensor}), "wrong shape": with_first(tensor[..., :1]),
        "complex": with_first(tensor.cfloat()), "bool": with_first(tensor.bool()),
        "sparse": with_first(tensor.to_sparse()), "meta": with_first(tensor.to("meta")),
        "nan": with_first(tensor * NAN),
        "heads text": changed(alignment_heads="x"), "heads number": changed(alignment_heads=5),
        "pickle": lambda: b"cos\nsystem\n(S'true'\ntR.", "safetensors head": lambda: b"\x10" + bytes(7) + b'{"a": 1}',
        "safetensors lie": lambda: b"\xff" * 7 + b"\x7f{}", "safetensors json": lambda: struct.pack("<Q", 4) + b"{{{{",
        "gguf": lambda: b"GGUF\x03\0\0\0" + bytes(99), "ggml": lambda: b"lmgg" + bytes(99),
    }  # fmt: skip
    for i, dim in enumerate(narrow["dims"]):
        for value in ((0, 10**12, "8"), (-1, 3, None), (1.5, NAN, 2**70))[i % 3]:
            made[f"{dim}={value}"] = changed(dims={**narrow["dims"], dim: value})
    return made


FOLDERS: dict[str, dict[str, str]] = {
    "empty": {}, "config": {"config.json": "{}"}, "text": {"config.json": "x"}, "list": {"config.json": "[]"},
    "weights": {"model.safetensors": "x"}, "null": {"config.json": "null", "model.safetensors": ""},
    "numbers": {"config.json": '{"d_model": "x"}', "model.safetensors": "x"},
}  # fmt: skip


def checkpoints(n: int, seed: int = 5) -> Iterator[Case]:
    """Files and folders that are no checkpoints, then `n` checkpoints that are spoilt."""
    for name, make in contents().items():
        yield Case(f"file-{name}", "load_model", lambda folder, make=make: handed_over(make(), "path", folder / "a.pt"))
    for name, files in FOLDERS.items():
        yield Case(f"folder-{name}", "load_model", lambda folder, files=files: filled(folder, files))
    for i in range(n):
        rng = random.Random(f"{seed} {i}")
        mutation, whole = rng.choice(MUTATIONS), rng.choice([checkpoint, checkpoint, nano])
        ending = rng.choice(["pt", "safetensors", "bin"])

        def spoilt(folder: Path, i: int = i, made: Any = (mutation, whole, ending)) -> Any:
            mutation, whole, ending = made
            return handed_over(mutation(whole(), random.Random(f"{seed} {i}")), "path", folder / f"a.{ending}")

        name = f"file-{whole.__name__}-{mutation.__name__}-{i}"
        yield Case(name, "load_model", spoilt, given({"in_memory": i % 3 == 0}))


def filled(folder: Path, files: dict[str, str]) -> str:
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")
    return str(folder)
