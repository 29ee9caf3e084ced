"""Block formats: against their description number by number, against numbers of gguf, and back."""

from __future__ import annotations

import hashlib
import random
import struct
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from whisper.checkpoints.formats.ggml.blocks import BLOCK_FORMATS, BlockFormat

BY_NAME = {blocks.name: blocks for blocks in BLOCK_FORMATS.values()}
HALVES = {  # where a block has its float16 numbers, if not at its beginning alone
    "q4_1": (0, 2), "q5_1": (0, 2),
    "q2_K": (80, 82), "q3_K": (108,), "q4_K": (0, 2), "q5_K": (0, 2), "q6_K": (208,),
}  # fmt: skip
WRITTEN = [blocks for blocks in BLOCK_FORMATS.values() if blocks.pack]


def some_blocks(blocks: BlockFormat, n: int = 40) -> bytes:
    """Random bytes with float16 numbers of the size of weights where those must be."""
    generator = random.Random(blocks.name)
    data = bytearray(generator.randbytes(n * blocks.n_bytes))
    for start in range(0, len(data), blocks.n_bytes):
        for offset in HALVES.get(blocks.name, (0,)):
            struct.pack_into("<e", data, start + offset, generator.gauss(0, 0.02))
    return bytes(data)


def as_tensor(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


# ---------------------------------------------------------------------------------------------------------
# Each format again, one number at a time: which bits of block `b` make number `i`
# ---------------------------------------------------------------------------------------------------------


def half(b: bytes, offset: int) -> float:
    return float(struct.unpack_from("<e", b, offset)[0])


def low_then_high(b: bytes, i: int) -> int:
    """Number `i` of 32 in the halves of 16 bytes."""
    return b[i] & 15 if i < 16 else b[i - 16] >> 4


def two_bits(b: bytes, i: int) -> int:
    """Number `i` of 256 in 64 bytes."""
    return b[i // 128 * 32 + i % 32] >> 2 * (i % 128 // 32) & 3


def pair(b: bytes, group: int) -> tuple[int, int]:
    """Scale and minimum of a group of 32 numbers, in 12 bytes."""
    if group < 4:
        return b[group] & 63, b[group + 4] & 63
    return b[group + 4] & 15 | (b[group - 4] >> 6) << 4, b[group + 4] >> 4 | (b[group] >> 6) << 4


def q3_k(b: bytes, i: int) -> float:
    group, scales = i // 16, b[96:108]
    low = scales[group] & 15 if group < 8 else scales[group - 8] >> 4
    scale = low | (scales[8 + group % 4] >> 2 * (group // 4) & 3) << 4
    third = b[i % 32] >> (i // 32) & 1
    return half(b, 108) * (scale - 32) * (two_bits(b[32:96], i) - (0 if third else 4))


def q4_k(b: bytes, i: int, fifth: int = 0, codes: int = 16) -> float:
    group = i // 32
    scale, minimum = pair(b[4:16], group)
    byte = b[codes + group // 2 * 32 + i % 32]
    code = (byte >> 4 if group % 2 else byte & 15) + 16 * fifth
    return half(b, 0) * scale * code - half(b, 2) * minimum


def q6_k(b: bytes, i: int) -> float:
    part, within = divmod(i, 128)
    byte = b[part * 64 + within % 64]
    low = byte & 15 if within < 64 else byte >> 4
    high = b[128 + part * 32 + within % 32] >> 2 * (within // 32) & 3
    scale = struct.unpack_from("<16b", b, 192)[i // 16]
    return half(b, 208) * scale * ((low | high << 4) - 32)


def bit(b: bytes, i: int) -> int:
    return b[i // 8] >> i % 8 & 1


NUMBER: dict[str, Callable[[bytes, int], float]] = {
    "q4_0": lambda b, i: half(b, 0) * (low_then_high(b[2:], i) - 8),
    "q4_1": lambda b, i: half(b, 0) * low_then_high(b[4:], i) + half(b, 2),
    "q5_0": lambda b, i: half(b, 0) * ((low_then_high(b[6:], i) | bit(b[2:6], i) << 4) - 16),
    "q5_1": lambda b, i: half(b, 0) * (low_then_high(b[8:], i) | bit(b[4:8], i) << 4) + half(b, 2),
    "q8_0": lambda b, i: half(b, 0) * struct.unpack_from("<32b", b, 2)[i],
    "q2_K": lambda b, i: half(b, 80) * (b[i // 16] & 15) * two_bits(b[16:80], i) - half(b, 82) * (b[i // 16] >> 4),
    "q3_K": q3_k,
    "q4_K": q4_k,
    "q5_K": lambda b, i: q4_k(b, i, fifth=b[16 + i % 32] >> (i // 32) & 1, codes=48),
    "q6_K": q6_k,
}


@pytest.mark.parametrize("name", BY_NAME)
def test_each_number_is_made_of_its_own_bits(name: str) -> None:
    blocks = BY_NAME[name]
    data = some_blocks(blocks, 4)
    cut = [data[start : start + blocks.n_bytes] for start in range(0, len(data), blocks.n_bytes)]
    expected = torch.tensor([NUMBER[name](b, i) for b in cut for i in range(blocks.n_numbers)], dtype=torch.float32)
    torch.testing.assert_close(blocks.dequantise(as_tensor(data)), expected, rtol=1e-5, atol=1e-7)


# the SHA-256 of the float32 numbers that gguf 0.19.0 (MIT) makes of `some_blocks`
GGUF = {
    "q4_0": "12dc1b485c171cc8",
    "q4_1": "ec30f3534d753a89",
    "q5_0": "8302531c520cb6d1",
    "q5_1": "5461262691d42643",
    "q8_0": "72a3f2ceb98dc4b8",
    "q2_K": "945012fbf8df14ff",
    "q3_K": "15c9e74d97a8f7be",
    "q4_K": "19966d6804908947",
    "q5_K": "db9619fc6d72c0a5",
    "q6_K": "6289579d30c9200a",
}


@pytest.mark.parametrize("name", BY_NAME)
def test_numbers_are_those_of_gguf_to_the_last_bit(name: str) -> None:
    numbers = BY_NAME[name].dequantise(as_tensor(some_blocks(BY_NAME[name])))
    assert hashlib.sha256(numbers.numpy().tobytes()).hexdigest()[:16] == GGUF[name]


# ---------------------------------------------------------------------------------------------------------
# Writing
# ---------------------------------------------------------------------------------------------------------


def some_numbers() -> Tensor:
    """Blocks of 32 of many kinds: of weights, of zeros, with two largest, of ties, and too small for a scale."""
    generator = random.Random(0)
    rows = [[generator.gauss(0, 0.05) for _ in range(32)] for _ in range(30)]
    rows += [[0.0] * 32, [0.25, -0.25] * 16, [generator.randrange(-20, 21) / 8 for _ in range(32)]]
    rows += [[-1.0] + [0.5] * 31, [3.0] * 32]
    return torch.tensor(rows, dtype=torch.float32)


# the SHA-256 of the bytes that gguf 0.19.0 (MIT) makes of `some_numbers`
GGUF_BYTES = {
    "q4_0": "ef00a42c1913a7aa",
    "q4_1": "1837da088786634a",
    "q5_0": "f974b96bf770aaa2",
    "q5_1": "0f5394e9b55b93f2",
    "q8_0": "0b500f12b8815aec",
}


@pytest.mark.parametrize("name", [blocks.name for blocks in WRITTEN])
def test_bytes_are_those_of_gguf(name: str) -> None:
    data = BY_NAME[name].quantise(some_numbers())
    assert hashlib.sha256(data.numpy().tobytes()).hexdigest()[:16] == GGUF_BYTES[name]


@pytest.mark.parametrize("blocks", WRITTEN, ids=lambda blocks: blocks.name)
def test_what_is_written_is_as_near_as_its_bits_allow(blocks: BlockFormat) -> None:
    numbers = some_numbers()
    again = blocks.dequantise(blocks.quantise(numbers)).view_as(numbers)
    bits = int(blocks.name[1])
    spread = numbers.amax(1) - numbers.amin(1) if blocks.name.endswith("1") else 2 * numbers.abs().amax(1)
    step = spread / (2**bits - 1)
    # of signed codes there is one less on the side away from the largest, so an end of the range can lose a whole step
    furthest = (0.51 if blocks.name.endswith("1") or bits == 8 else 1.1) * step + numbers.abs().amax(1) * 2**-10
    assert ((again - numbers).abs().amax(1) <= furthest).all()


@pytest.mark.parametrize("blocks", WRITTEN, ids=lambda blocks: blocks.name)
def test_numbers_too_small_for_a_scale_become_zero(blocks: BlockFormat) -> None:
    tiny = torch.full((1, 32), 1e-42, dtype=torch.float32)
    tiny[0, ::2] *= -1
    assert blocks.dequantise(blocks.quantise(tiny)).abs().max() == 0


@pytest.mark.parametrize("blocks", WRITTEN, ids=lambda blocks: blocks.name)
def test_a_long_tensor_is_like_its_parts(blocks: BlockFormat) -> None:
    numbers = torch.randn(9000, 32, generator=torch.Generator().manual_seed(0))  # more than are taken at once
    data = blocks.quantise(numbers)
    assert torch.equal(data[-blocks.n_bytes * 900 :], blocks.quantise(numbers[-900:]))
    assert torch.equal(blocks.dequantise(data)[-900 * 32 :], blocks.dequantise(data[-blocks.n_bytes * 900 :]))


def test_a_block_by_hand() -> None:
    numbers = torch.tensor([[*range(-8, 8), *range(-8, 8)]], dtype=torch.float32)  # -8 has the largest magnitude
    data = BY_NAME["q4_0"].quantise(numbers)
    assert bytes(data.tolist()) == struct.pack("<e", 1.0) + bytes(code | code << 4 for code in range(16))
    assert torch.equal(BY_NAME["q4_0"].dequantise(data), numbers.flatten())
    upwards = torch.arange(32, dtype=torch.float32)
    data = BY_NAME["q5_1"].quantise(upwards)
    assert bytes(data[:8].tolist()) == struct.pack("<ee", 1.0, 0.0) + bytes([0, 0, 255, 255])  # fifth bits of 16 to 31
    assert bytes(data[8:].tolist()) == bytes(code | code << 4 for code in range(16))
