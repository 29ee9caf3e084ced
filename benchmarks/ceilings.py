"""What this machine can do at best, and what each stage of Whisper needs at least.

    python benchmarks/ceilings.py --threads 2

Rates are measured: the fastest of the ways that PyTorch has to multiply matrices of several sizes, and to read memory,
for working sets from one that a cache holds to one that none does. Needs are arithmetic: the operations and the bytes
that cannot be avoided. A stage's limit is the longer of the two times; its share is limit / measured.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}  # of a weight
WORKING_SETS = (8, 16, 24, 32, 48, 64, 128, 256)  # MB
PROMPT = 4  # tokens that are read in one step before the first is chosen


# ---------------------------------------------------------------------------------------------------------
# The machine
# ---------------------------------------------------------------------------------------------------------


def best(call: Callable[[], Any], budget: float = 0.25) -> float:
    """Return the shortest time of `call` in seconds, over `budget` seconds."""
    call()
    shortest, until = float("inf"), time.perf_counter() + budget
    while time.perf_counter() < until:
        started = time.perf_counter()
        call()
        shortest = min(shortest, time.perf_counter() - started)
    return shortest


def multiplications(kind: str) -> Iterator[tuple[int, Callable[[], Any]]]:
    """Yield the operations and the call of every way to multiply matrices of `kind` that may be the fastest."""
    import torch
    import torch.nn.functional as F

    packs = getattr(torch.ops.mkldnn, "_reorder_linear_weight", None)
    for rows, width, out in ((1500, 512, 2048), (1500, 768, 3072), (1536, 1536, 1536), (2048, 2048, 2048)):
        n = 2 * rows * width * out
        if kind == "int8":
            x, w = (torch.randint(-127, 127, shape, dtype=torch.int8) for shape in ((rows, width), (out, width)))
            y = torch.empty(rows, out, dtype=torch.int32)
            yield n, lambda x=x, w=w, y=y: torch._int_mm(x, w.t(), out=y)
            continue
        x, w = torch.randn(rows, width), torch.randn(out, width)
        if kind == "bfloat16":
            x, w = x.bfloat16(), w.bfloat16()
        yield n, lambda x=x, w=w: F.linear(x, w)
        if packs is not None:
            packed = packs(w, rows)
            yield n, lambda x=x, p=packed: torch.ops.mkldnn._linear_pointwise(x, p, None, "none", [], "")


def readings(megabytes: int) -> Iterator[tuple[int, Callable[[], Any]]]:
    """Yield the bytes and the call of ways to read `megabytes` once."""
    import torch

    x = torch.randn(megabytes * 2**20 // 4)
    y, rows = torch.randn(1024), x.view(-1, 1024)
    yield 4 * x.numel(), lambda: x.sum()
    yield 4 * x.numel(), lambda: torch.dot(x, x)
    yield 4 * x.numel(), lambda: torch.mv(rows, y)
    yield 4 * x.numel(), lambda: x.amax()


def measure(threads: int) -> dict[str, Any]:
    """Measure rates (operations per second, by kind) and reading (bytes per second, by working set in MB)."""
    import torch

    torch.set_num_threads(threads)
    with torch.inference_mode():
        rates = {
            kind: max(n / best(call) for n, call in multiplications(kind)) for kind in ("float32", "bfloat16", "int8")
        }
        reading = {size: max(n / best(call, 0.15) for n, call in readings(size)) for size in WORKING_SETS}
    return {"rates": rates, "reading": reading}


def read_rate(reading: dict[Any, float], n_bytes: float) -> float:
    """Return the bytes per second for a working set of `n_bytes`: the best of all that are at least as large.

    A smaller one can be read faster, but only because a nearer cache holds it.
    """
    sizes = sorted(int(size) for size in reading)
    larger = [size for size in sizes if size * 2**20 >= n_bytes] or sizes[-1:]
    by_size = {int(size): rate for size, rate in reading.items()}
    return max(by_size[size] for size in larger)


# ---------------------------------------------------------------------------------------------------------
# The model
# ---------------------------------------------------------------------------------------------------------


def encoder_operations(n_mels: int, width: int, layers: int) -> tuple[float, float]:
    """Return the operations of one window: with weights, and without (attention)."""
    convolutions = 2 * 3 * width * (3000 * n_mels + 1500 * width)
    linear = 2 * 1500 * 12 * width**2 * layers
    attention = 2 * 2 * 1500**2 * width * layers
    return convolutions + linear, attention


def listening_operations(width: int, layers: int) -> float:
    """Return the operations that make one window's keys and values for the decoder."""
    return 2 * 1500 * 2 * width**2 * layers


def token_bytes(n_vocab: int, width: int, layers: int, each: int, length: int = 54) -> float:
    """Return the bytes that one token has to read, `each` for a number, with `length` tokens before it on average."""
    return each * (layers * 14 * width**2 + n_vocab * width + layers * 2 * (1500 + length) * width)


def token_operations(n_vocab: int, width: int, layers: int, length: int = 54) -> float:
    """Return the operations of one token."""
    return 2 * (layers * 14 * width**2 + n_vocab * width) + layers * 4 * (1500 + length) * width


def limits(shape: tuple[Any, ...], compute_type: str, machine: dict[str, Any], n_tokens: int) -> dict[str, float]:
    """Return the shortest times in seconds: of the encoder, of a token, and of a window of `n_tokens`.

    Parameters
    ----------
    shape
        As in `rival_models.SIZES`.
    compute_type
        int8 multiplies by weights in int8 and the rest in bfloat16, or in float32 where that is faster; keys and values
        are kept like the weights.
    """
    n_mels, n_vocab, (width, _, layers), (text_width, _, text_layers) = shape
    linear = machine["rates"]["bfloat16" if compute_type == "float16" else compute_type]
    rates = machine["rates"]
    other = rates["float32"] if compute_type == "float32" else max(rates["float32"], rates["bfloat16"])
    with_weights, without = encoder_operations(n_mels, width, layers)
    encoder = with_weights / linear + without / other
    n_bytes = token_bytes(n_vocab, text_width, text_layers, BYTES[compute_type])
    operations = token_operations(n_vocab, text_width, text_layers)
    read = n_bytes / read_rate(machine["reading"], n_bytes)
    one = max(read, operations / linear)
    prompt = max(read, PROMPT * operations / linear) - one  # the first step reads the prompt
    decoding = listening_operations(text_width, text_layers) / linear + prompt + n_tokens * one
    return {"encoder": encoder, "token": decoding / n_tokens, "window": encoder + decoding}


def describe(machine: dict[str, Any]) -> str:
    rates = ", ".join(f"{kind} {rate / 1e9:.0f} Gop/s" for kind, rate in machine["rates"].items())
    reading = ", ".join(f"{size} MB {rate / 1e9:.0f}" for size, rate in machine["reading"].items())
    return f"this machine at best: {rates}; reading, GB/s: {reading}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    machine = measure(parser.parse_args().threads)
    print(describe(machine))
    print(json.dumps(machine))


if __name__ == "__main__":
    main()
