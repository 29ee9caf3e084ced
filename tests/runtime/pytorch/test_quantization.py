"""Packed weights: close to what they were, of any shape, and no row knows its neighbours."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from whisper.device.hardware import has_bfloat16
from whisper.errors import OptionError
from whisper.runtime.pytorch.quantization import COMPUTE_TYPES, Buffers, PackedFloat, pack, pack_together

NOISE = {"float32": 1e-6, "float16": 2e-3, "bfloat16": 1e-2, "int8": 2e-2}  # of the result's spread


def layer(n_in: int, n_out: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(n_in)
    weight = torch.randn(n_out, n_in, generator=generator) * torch.logspace(-3, 0, n_out)[:, None]
    return weight, torch.randn(n_out, generator=generator)


def sound(n_rows: int, n_in: int) -> torch.Tensor:
    """Rows of very different size: one scale for all would drown the small ones."""
    x = torch.randn(n_rows, n_in, generator=torch.Generator().manual_seed(7))
    return x * torch.logspace(-2, 2, n_rows)[:, None]


@pytest.mark.parametrize("compute_type", COMPUTE_TYPES)
@pytest.mark.parametrize(("n_rows", "n_in", "n_out"), [(1, 64, 64), (5, 37, 51), (40, 128, 3001)])
def test_products_are_close(compute_type: str, n_rows: int, n_in: int, n_out: int) -> None:
    weight, bias = layer(n_in, n_out)
    x = sound(n_rows, n_in)
    for b in (bias, None):
        packed = pack(weight, b, compute_type)
        got, expected = packed.linear(x), F.linear(x, weight, b)
        assert got.dtype == x.dtype
        noise = (got - expected).std(dim=1) / expected.std(dim=1)
        assert (noise <= NOISE[compute_type] + (0 if b is None else 1e-7)).all(), noise
    rows = packed.rows(torch.tensor([3, 0, 50]))
    assert (rows - weight[[3, 0, 50]]).norm() <= 2e-2 * weight[[3, 0, 50]].norm()


@pytest.mark.parametrize(
    ("compute_type", "n_digits"),
    [
        ("int8", 1),
        ("int8", 2),
        pytest.param(
            "bfloat16", 1,
            marks=pytest.mark.skipif(
                not has_bfloat16(), reason="without bfloat16 in the processor oneDNN sums by the number of threads"
            ),
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize(("n_in", "n_out"), [(64, 64), (37, 51), (2048, 2048), (384, 1536)])
def test_a_row_gives_the_same_bits_in_any_batch_with_any_number_of_threads(
    compute_type: str, n_digits: int, n_in: int, n_out: int
) -> None:
    packed = pack(*layer(n_in, n_out), compute_type, n_digits=n_digits)
    x = sound(33, n_in)
    alone = torch.cat([F.gelu(packed.linear(x[i : i + 1])) for i in range(33)])
    before = torch.get_num_threads()
    try:
        for n_threads in (1, 2, 3):
            torch.set_num_threads(n_threads)
            for rows in (slice(0, 7), slice(3, 5), slice(0, 33), slice(20, 33)):
                assert torch.equal(F.gelu(packed.linear(x[rows])), alone[rows])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("n_rows", [1, 7, 3000])
def test_two_digits_keep_the_small_channels_beside_a_large_one(n_rows: int) -> None:
    """Weights that 8 bits hold exactly, so that all noise comes from the input."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randint(-126, 127, (48, 64), generator=generator).float()
    weight[:, 5], weight[:, 6] = 127, 0
    x = torch.randn(n_rows, 64, generator=generator)
    x[:, 6] = 30  # takes the range of a digit, and changes no result
    expected = F.linear(x, weight)
    noise = [
        float((pack(weight, None, "int8", n_digits=n).linear(x) - expected).norm() / expected.norm()) for n in (1, 2)
    ]
    assert noise[0] > 1e-2
    assert noise[1] < 1e-3


def test_the_largest_logits_are_those_of_finer_weights() -> None:
    weight, _ = layer(64, 3001)
    x = sound(5, 64)
    rough, fine = (pack(weight, None, "int8", n_digits=2, keep_remainder=keep) for keep in (False, True))
    expected, got = F.linear(x, weight), fine.linear(x)
    largest = expected.argmax(1, keepdim=True)
    error, error_of_rough = ((y - expected).gather(1, largest).abs() for y in (got, rough.linear(x)))
    assert error.mean() < 0.1 * error_of_rough.mean()
    assert torch.equal(got.argmax(1, keepdim=True), largest)
    alone = torch.cat([fine.linear(x[i : i + 1]) for i in range(5)])
    assert torch.equal(got, alone)
    ids = torch.tensor([3, 2000])
    assert (fine.rows(ids) - weight[ids]).norm() < 0.02 * (rough.rows(ids) - weight[ids]).norm()


@pytest.mark.parametrize("n_digits", [1, 2])
def test_a_row_of_zeros_and_one_of_nonsense_hurt_nobody(n_digits: int) -> None:
    weight, bias = layer(64, 64)
    packed = pack(weight, bias, "int8", n_digits=n_digits)
    x = sound(4, 64)
    expected = packed.linear(x)
    x[1], x[2] = 0.0, torch.nan
    got = packed.linear(x)
    assert torch.equal(got[[0, 3]], expected[[0, 3]])
    assert torch.equal(got[1], bias)


def test_float32_is_not_copied_and_half_precision_not_twice() -> None:
    weight, bias = layer(64, 64)
    packed = pack(weight, bias, "float32")
    assert isinstance(packed, PackedFloat)
    assert packed.weight.data_ptr() == weight.data_ptr()
    half = weight.half()
    packed = pack(half, bias, "float16")
    assert isinstance(packed, PackedFloat)
    assert packed.weight.data_ptr() == half.data_ptr()


@pytest.mark.parametrize("compute_type", COMPUTE_TYPES)
def test_layers_together_give_what_each_gives(compute_type: str) -> None:
    layers = [layer(64, 64), (layer(64, 32)[0], None), layer(64, 8)]
    x = sound(5, 64)
    for got, (weight, bias) in zip(pack_together(layers, compute_type).linear(x), layers, strict=True):
        assert torch.equal(got, pack(weight, bias, compute_type).linear(x))


def test_buffers_keep_large_memory_and_only_that() -> None:
    buffers, cpu = Buffers(), torch.device("cpu")
    large = buffers.take("a", (300, 300), torch.float32, cpu)
    assert buffers.take("a", (200, 400), torch.float32, cpu).data_ptr() == large.data_ptr()
    assert buffers.take("b", (300, 300), torch.float32, cpu).data_ptr() != large.data_ptr()
    assert buffers.take("a", (300, 300), torch.int8, cpu).data_ptr() != large.data_ptr()
    assert buffers.take("a", (10, 10), torch.float32, cpu).data_ptr() != large.data_ptr()


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(OptionError, match="int4"):
        pack(*layer(8, 8), "int4")
