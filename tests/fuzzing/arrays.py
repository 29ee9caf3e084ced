"""Arrays and tensors of every type and shape, as sound and as spectrograms, and what is neither file nor array."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from . import INF, NAN, Case, floats

DTYPES = [
    "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64",
    "longdouble", "complex64", "complex128", "object", "U8", "S8", ">f4", ">i2", "datetime64[s]", "timedelta64[s]",
    "V4",
]  # fmt: skip
SHAPES: list[tuple[int, ...]] = [
    (), (0,), (1,), (0, 0), (0, 2), (2, 0), (1, 1), (1, 1, 1), (1, 0, 1), (3, 900), (900, 3), (9, 900), (8, 8), (9, 9),
    (1, 900), (900, 1), (2, 2), (200,), (201,), (1, 2, 900), (2, 1), (1, 2), (160,),
]  # fmt: skip
TORCH_DTYPES = [
    torch.bool, torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16,
    torch.float32, torch.float64, torch.complex64, torch.uint16, torch.float8_e4m3fn,
]  # fmt: skip


def sound_as(dtype: str) -> np.ndarray:
    kind = np.dtype(dtype).kind
    if kind in "iu":
        info = np.iinfo(dtype)
        return (floats() * (info.max // 2)).astype(np.int64).clip(info.min, info.max).astype(dtype)
    if kind in "bfc":
        return floats().astype(dtype)
    return np.array(["abc"] * 300).astype("U8").astype(object).astype(dtype) if kind in "OUS" else np.zeros(300, dtype)


def odd_arrays() -> dict[str, Callable[[], Any]]:
    x = floats()

    def with_value(value: float, at: int = 700) -> np.ndarray:
        y = x.copy()
        y[at] = value
        return y

    def read_only() -> np.ndarray:
        y = x.copy()
        y.setflags(write=False)
        return y

    class Labelled(np.ndarray):
        pass

    return {
        "nan": lambda: with_value(NAN), "inf": lambda: with_value(INF), "-inf": lambda: with_value(-INF),
        "nan at the end": lambda: with_value(NAN, -1),
        "inf and -inf": lambda: np.concatenate([with_value(INF), with_value(-INF)]),
        "a third nan": lambda: np.where(np.arange(len(x)) % 3, x, NAN).astype(np.float32),
        "nan on one of three channels": lambda: np.stack([x, x * NAN, x]),
        "a long nan": lambda: np.append(np.tile(x, 30), NAN).astype(np.float32), "1e20": lambda: with_value(1e20),
        "-1e300 in doubles": lambda: np.append(x.astype(np.float64), -1e300),
        "half inf": lambda: with_value(INF)[700:702],
        "all nan": lambda: np.full(2000, NAN, np.float32), "huge": lambda: x * 1e30,
        "hugest": lambda: np.full(2000, 3e38, np.float32),
        "huge doubles": lambda: np.full(2000, 1e300), "tiny": lambda: x * 1e-40, "loud": lambda: x * 1e4,
        "constant": lambda: np.ones(2000, np.float32),
        "strided": lambda: x[::3], "reversed": lambda: x[::-1], "read only": read_only,
        "column": lambda: np.stack([x, x], axis=1)[:, 0],
        "fortran": lambda: np.asfortranarray(np.stack([x, x])), "transposed": lambda: np.stack([x, x]).T,
        "broadcast": lambda: np.broadcast_to(x[:1], (2, 900)),
        "zero stride": lambda: np.lib.stride_tricks.as_strided(x, (900,), (0,)),
        "unaligned": lambda: np.frombuffer(b"x" + x.tobytes(), np.float32, offset=1),
        "masked": lambda: np.ma.masked_array(x, mask=np.abs(x) > 0.01), "matrix": lambda: np.matrix(x),
        "subclass": lambda: x.view(Labelled),
        "record": lambda: np.zeros(300, [("left", "f4"), ("right", "f4")]), "mapped": lambda: x.copy(),
        "scalar": lambda: np.float32(0.5),
        "of objects": lambda: np.array([0.1, None, "x"], dtype=object),
        "of arrays": lambda: np.array([x[:5], x[:7]], dtype=object),
    }  # fmt: skip


def odd_tensors() -> dict[str, Callable[[], Any]]:
    def x() -> torch.Tensor:
        return torch.from_numpy(floats().copy())

    return {
        "gradient": lambda: x().requires_grad_(), "of a graph": lambda: x().requires_grad_() * 2,
        "parameter": lambda: torch.nn.Parameter(x()), "meta": lambda: torch.empty(2000, device="meta"),
        "sparse": lambda: x().to_sparse(), "sparse rows": lambda: torch.stack([x(), x()]).to_sparse_csr(),
        "quantized": lambda: torch.quantize_per_tensor(x(), 0.01, 0, torch.qint8), "0-d": lambda: torch.tensor(0.5),
        "empty": lambda: torch.empty(0), "reversed": lambda: x().flip(0), "expanded": lambda: x()[:1].expand(2000),
        "strided": lambda: x()[::2], "conjugate": lambda: torch.complex(x(), x()).conj(),
        "negative view": lambda: torch._neg_view(x()),
        "nan": lambda: x() * NAN, "one nan": lambda: torch.cat([x(), torch.tensor([NAN])]),
        "one nan of a batch": lambda: torch.stack([torch.cat([x(), torch.tensor([INF])])] * 2),
        "one nan in half": lambda: torch.cat([x(), torch.tensor([NAN])]).half(),
        "inf": lambda: x() * INF, "huge": lambda: x() * 1e38, "3-d": lambda: x()[None, None],
        "nested": lambda: torch.nested.nested_tensor([x()[:5], x()[:7]], layout=torch.jagged),
        "inference": in_inference,
    }  # fmt: skip


def in_inference() -> torch.Tensor:
    with torch.inference_mode():
        return torch.from_numpy(floats().copy()) * 1


def arrays() -> Iterator[Case]:
    doors = ["load_audio", "transcribe", "log_mel_spectrogram", "iter_segments"]
    made: dict[str, Callable[[], Any]] = {}
    for dtype in DTYPES:
        made[f"dtype {dtype}"] = lambda dtype=dtype: sound_as(dtype)
    for shape in SHAPES:
        made[f"shape {shape}"] = lambda shape=shape: np.resize(floats(), shape)
    made |= odd_arrays()
    for torch_dtype in TORCH_DTYPES:
        made[f"tensor {torch_dtype}"] = lambda dtype=torch_dtype: (torch.from_numpy(floats().copy()) * 100).to(dtype)
    made |= {f"tensor {name}": make for name, make in odd_tensors().items()}
    for i, (name, make) in enumerate(made.items()):
        for door in (doors[i % 4], doors[(i + 1 + i // 4 % 3) % 4]):
            yield Case(f"array-{name}", door, lambda _, make=make: make())


def no_sounds() -> Iterator[Case]:
    """What is neither file nor array."""
    made: dict[str, Any] = {
        "None": None, "number": 5, "float": 0.5, "nan": NAN, "flag": True, "dict": {"a": 1}, "set": {1}, "complex": 1j,
        "function": len, "type": bytes, "slice": slice(1), "range": range(5), "ellipsis": ..., "list": [0.0, 0.1],
        "list of None": [None], "list of lists": [[0.1]], "nested lists": [[[]]], "list of text": ["", "x"],
        "tuple": (1, 2),
        "empty list": [], "list of arrays": [np.zeros(300, np.float32), None], "text number": "0.5", "module": math,
    }  # fmt: skip
    for i, (name, value) in enumerate(made.items()):
        yield Case(f"thing-{name}", ["transcribe", "load_audio"][i % 2], lambda _, value=value: value)
        if i % 3 == 0:
            yield Case(f"thing-{name}", "iter_segments", lambda _, value=value: value)


# ---------------------------------------------------------------------------------------------------------
# Windows
# ---------------------------------------------------------------------------------------------------------


def windows() -> Iterator[Case]:
    """What is no spectrogram of 30 s."""
    good = (80, 3000)
    made: dict[str, Callable[[], Any]] = {
        "0-d": lambda: torch.tensor(0.0), "1-d": lambda: torch.zeros(80), "4-d": lambda: torch.zeros(1, 1, *good),
        "short": lambda: torch.zeros(80, 2999), "long": lambda: torch.zeros(80, 3001),
        "turned": lambda: torch.zeros(3000, 80),
        "128 bands": lambda: torch.zeros(128, 3000), "no bands": lambda: torch.zeros(0, 3000),
        "no frames": lambda: torch.zeros(80, 0),
        "empty batch": lambda: torch.zeros(0, *good), "batch": lambda: torch.zeros(2, *good),
        "float64": lambda: torch.zeros(good, dtype=torch.float64),
        "float16": lambda: torch.zeros(good).half(), "bfloat16": lambda: torch.zeros(good).bfloat16(),
        "int64": lambda: torch.zeros(good).long(),
        "uint8": lambda: torch.zeros(good).byte(), "bool": lambda: torch.zeros(good).bool(),
        "complex": lambda: torch.zeros(good, dtype=torch.complex64),
        "nan": lambda: torch.full(good, NAN), "inf": lambda: torch.full(good, INF),
        "huge": lambda: torch.full(good, 1e38),
        "one nan": lambda: torch.zeros(good).index_put((torch.tensor(3), torch.tensor(5)), torch.tensor(NAN)),
        "turned view": lambda: torch.zeros(3000, 80).T, "gradient": lambda: torch.zeros(good, requires_grad=True),
        "meta": lambda: torch.zeros(good, device="meta"), "sparse": lambda: torch.zeros(good).to_sparse(),
        "array": lambda: np.zeros(good, np.float32),
        "None": lambda: None, "text": lambda: "recording.wav", "list": lambda: [[0.0] * 3000] * 80,
        "features nan": lambda: torch.full((1500, 384), NAN),
    }  # fmt: skip
    for name, make in made.items():
        for door in ("decode", "detect_language"):
            yield Case(f"window-{name}", door, lambda _, make=make: make())
