"""The block formats of GGML: 32 or 256 numbers share their scales, and take from 2 to 8 bits each.

Layouts are those of ggml (ggml-common.h and ggml-quants.c, MIT licence). In each, ``d`` and ``m`` are float16: the
scale of a block, and in some formats the offset that is added or, as ``dmin``, the scale of those subtracted. Knows no
files and no models. All ten can be read; the five of 32 numbers, which every width of Whisper can have, can be written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_NUMBERS_AT_ONCE = 1 << 18  # what is made of them meanwhile stays in the processor's cache
_SMALLEST = torch.finfo(torch.float32).tiny  # a smaller scale is zero in float16, and its inverse may be infinite


@dataclass(frozen=True)
class BlockFormat:
    """How numbers are packed into blocks of bytes."""

    name: str
    n_numbers: int  # in a block
    n_bytes: int  # of a block
    unpack: Callable[[Tensor], Tensor]  # uint8 (n_blocks, n_bytes) -> float32 (n_blocks, n_numbers)
    pack: Callable[[Tensor], Tensor] | None = None  # the other way

    def dequantise(self, data: Tensor) -> Tensor:
        """Return the numbers of whole blocks.

        Parameters
        ----------
        data
            The bytes of the blocks, uint8 of one dimension.

        Returns
        -------
        Tensor
            Their numbers in order, float32 of one dimension.
        """
        blocks = data.view(-1, self.n_bytes)
        numbers = torch.empty(len(blocks), self.n_numbers, dtype=torch.float32, device="cpu")
        return self._in_steps(self.unpack, blocks, numbers)

    def quantise(self, numbers: Tensor) -> Tensor:
        """Return `numbers`, float32 and as many as whole blocks have, as the uint8 bytes of their blocks.

        Rounded as ggml's reference functions round (``quantize_row_*_ref``), so that the bytes are those of
        whisper.cpp's own tool. Numbers must be finite, and such that a scale of theirs is, in float16.
        """
        assert self.pack is not None, f"{self.name} is read only"
        rows = numbers.reshape(-1, self.n_numbers)
        blocks = torch.empty(len(rows), self.n_bytes, dtype=torch.uint8, device="cpu")
        return self._in_steps(self.pack, rows, blocks)

    def _in_steps(self, convert: Callable[[Tensor], Tensor], blocks: Tensor, converted: Tensor) -> Tensor:
        """Fill `converted` with what `convert` makes of some blocks at a time, which bounds the memory it takes."""
        step = _NUMBERS_AT_ONCE // self.n_numbers
        for start in range(0, len(blocks), step):
            converted[start : start + step] = convert(blocks[start : start + step])
        return converted.view(-1)


# ---------------------------------------------------------------------------------------------------------
# Parts of blocks
# ---------------------------------------------------------------------------------------------------------


def _scale(blocks: Tensor, offset: int) -> Tensor:
    """Return the float16 at `offset` of each block as float32, ``(n_blocks, 1)``."""
    return blocks[:, offset : offset + 2].contiguous().view(torch.float16).float()


def _signed(data: Tensor) -> Tensor:
    """Return bytes as signed integers."""
    return data.contiguous().view(torch.int8)


def _bits(data: Tensor, width: int, n: int) -> Tensor:
    """Cut each byte, from its lowest bits on, into `n` codes of `width` bits: ``(..., k)`` to ``(..., n, k)``."""
    shifts = torch.arange(0, n * width, width, dtype=torch.uint8, device="cpu")
    return (data.unsqueeze(-2) >> shifts[:, None]) & ((1 << width) - 1)


def _halves(data: Tensor) -> Tensor:
    """Return the low halves of all bytes, then the high ones: ``(n_blocks, k)`` to ``(n_blocks, 2 k)``."""
    return _bits(data, 4, 2).flatten(1)


def _one_bit_each(data: Tensor) -> Tensor:
    """Return the bits of all bytes in their order: ``(n_blocks, k)`` to ``(n_blocks, 8 k)``."""
    return _bits(data, 1, 8).transpose(1, 2).flatten(1)


def _scaled(codes: Tensor, scales: Tensor, minimums: Tensor | None = None) -> Tensor:
    """Return ``scale * code - minimum``: codes in groups, ``(n_blocks, n_groups, k)``, the others one for a group."""
    numbers = codes.float().mul_(scales.unsqueeze(-1))
    if minimums is not None:
        numbers.sub_(minimums.unsqueeze(-1))
    return numbers.flatten(1)


# ---------------------------------------------------------------------------------------------------------
# Blocks of 32 numbers
# ---------------------------------------------------------------------------------------------------------


def _unpack_q4_0(blocks: Tensor) -> Tensor:
    """``d, 16 bytes``: d (q - 8); the low halves of the bytes are the first sixteen q."""
    return _halves(blocks[:, 2:]).float().sub_(8).mul_(_scale(blocks, 0))


def _unpack_q4_1(blocks: Tensor) -> Tensor:
    """``d, m, 16 bytes``: d q + m."""
    return _halves(blocks[:, 4:]).float().mul_(_scale(blocks, 0)).add_(_scale(blocks, 2))


def _unpack_q5_0(blocks: Tensor) -> Tensor:
    """``d, 4 bytes, 16 bytes``: d (q - 16); bit i of the first four is the fifth bit of the i-th q."""
    codes = _halves(blocks[:, 6:]) | _one_bit_each(blocks[:, 2:6]) << 4
    return codes.float().sub_(16).mul_(_scale(blocks, 0))


def _unpack_q5_1(blocks: Tensor) -> Tensor:
    """``d, m, 4 bytes, 16 bytes``: d q + m."""
    codes = _halves(blocks[:, 8:]) | _one_bit_each(blocks[:, 4:8]) << 4
    return codes.float().mul_(_scale(blocks, 0)).add_(_scale(blocks, 2))


def _unpack_q8_0(blocks: Tensor) -> Tensor:
    """``d, 32 signed bytes``: d q."""
    return _signed(blocks[:, 2:]).float().mul_(_scale(blocks, 0))


def _pack_q4_0(numbers: Tensor) -> Tensor:
    d, inverse = _largest_to(-8, numbers)
    codes = _codes(numbers * inverse + 8.5, 15)
    return torch.cat([_half(d), _paired(codes)], dim=1)


def _pack_q4_1(numbers: Tensor) -> Tensor:
    d, m, inverse = _range_to(15, numbers)
    codes = _codes((numbers - m) * inverse + 0.5, 15)
    return torch.cat([_half(d), _half(m), _paired(codes)], dim=1)


def _pack_q5_0(numbers: Tensor) -> Tensor:
    d, inverse = _largest_to(-16, numbers)
    codes = _codes(numbers * inverse + 16.5, 31)
    return torch.cat([_half(d), _fifth_bits(codes), _paired(codes & 15)], dim=1)


def _pack_q5_1(numbers: Tensor) -> Tensor:
    d, m, inverse = _range_to(31, numbers)
    codes = _codes((numbers - m) * inverse + 0.5, 31)
    return torch.cat([_half(d), _half(m), _fifth_bits(codes), _paired(codes & 15)], dim=1)


def _pack_q8_0(numbers: Tensor) -> Tensor:
    d = numbers.abs().amax(dim=1, keepdim=True) / 127
    scaled = numbers * _inverse(d)
    whole = scaled.trunc()
    codes = whole + ((scaled - whole) * 2).trunc()  # a half is rounded away from zero, as roundf does
    return torch.cat([_half(d), codes.to(torch.int8).view(torch.uint8)], dim=1)


def _largest_to(code: int, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scale by which the number of largest magnitude, whatever its sign, becomes `code`; and its inverse."""
    largest = numbers.gather(1, numbers.abs().argmax(dim=1, keepdim=True))  # the first of them, as in ggml
    d = largest / code
    return d, _inverse(d)


def _range_to(code: int, numbers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the scale by which the range of the numbers becomes 0 to `code`, the least number, and the inverse."""
    least = numbers.amin(dim=1, keepdim=True)
    d = (numbers.amax(dim=1, keepdim=True) - least) / code
    return d, least, _inverse(d)


def _inverse(d: Tensor) -> Tensor:
    return torch.where(d.abs() >= _SMALLEST, 1 / d, 0)


def _codes(numbers: Tensor, largest: int) -> Tensor:
    return numbers.clamp_(max=largest).to(torch.uint8)


def _half(d: Tensor) -> Tensor:
    return d.half().view(torch.uint8)


def _paired(codes: Tensor) -> Tensor:
    return codes[:, :16] | codes[:, 16:] << 4


def _fifth_bits(codes: Tensor) -> Tensor:
    shifts = torch.arange(8, dtype=torch.uint8, device="cpu")
    return ((codes >> 4).view(-1, 4, 8) << shifts).sum(dim=2, dtype=torch.uint8)


# ---------------------------------------------------------------------------------------------------------
# Blocks of 256 numbers ("k-quants"), whose groups of 16 or 32 have scales of their own, in few bits
# ---------------------------------------------------------------------------------------------------------


def _unpack_q2_k(blocks: Tensor) -> Tensor:
    """``16 bytes, 64 bytes, d, dmin``: for 16 groups of 16, d s q - dmin m.

    The first bytes have s in their low halves and m in their high ones. The others are two halves of the block, in
    which each two bits of the 32 bytes are 32 numbers.
    """
    codes = _bits(blocks[:, 16:80].view(-1, 2, 32), 2, 4).reshape(-1, 16, 16)
    scales, minimums = blocks[:, :16] & 15, blocks[:, :16] >> 4
    return _scaled(codes, _scale(blocks, 80) * scales, _scale(blocks, 82) * minimums)


def _unpack_q3_k(blocks: Tensor) -> Tensor:
    """``32 bytes, 64 bytes, 12 bytes, d``: for 16 groups of 16, d (s - 32) q, where q is from -4 to 3.

    The low two bits of q lie as in q2_K; bit j of the i-th of the first bytes is the third of the i-th number of the
    j-th 32. Of each s the low four bits lie in the first eight of the 12 bytes, two bits in the other four.
    """
    low = _bits(blocks[:, 32:96].view(-1, 2, 32), 2, 4).view(-1, 8, 32)
    codes = (low | _bits(blocks[:, :32], 1, 8) << 2).view(torch.int8) - 4
    packed = blocks[:, 96:108]
    scales = (_halves(packed[:, :8]) | _bits(packed[:, 8:], 2, 4).flatten(1) << 4).view(torch.int8) - 32
    return _scaled(codes.view(-1, 16, 16), _scale(blocks, 108) * scales)


def _unpack_q4_k(blocks: Tensor) -> Tensor:
    """``d, dmin, 12 bytes, 128 bytes``: for 8 groups of 32, d s q - dmin m.

    Of each 32 of the last bytes the low halves are a group, and the high halves the next.
    """
    codes = _bits(blocks[:, 16:].view(-1, 4, 32), 4, 2).view(-1, 8, 32)
    scales, minimums = _six_bit_pairs(blocks[:, 4:16])
    return _scaled(codes, _scale(blocks, 0) * scales, _scale(blocks, 2) * minimums)


def _unpack_q5_k(blocks: Tensor) -> Tensor:
    """``d, dmin, 12 bytes, 32 bytes, 128 bytes``: as q4_K.

    Bit j of the i-th of the 32 bytes is the fifth bit of the i-th number of group j.
    """
    low = _bits(blocks[:, 48:].view(-1, 4, 32), 4, 2).view(-1, 8, 32)
    codes = low | _bits(blocks[:, 16:48], 1, 8) << 4
    scales, minimums = _six_bit_pairs(blocks[:, 4:16])
    return _scaled(codes, _scale(blocks, 0) * scales, _scale(blocks, 2) * minimums)


def _unpack_q6_k(blocks: Tensor) -> Tensor:
    """``128 bytes, 64 bytes, 16 signed bytes, d``: for 16 groups of 16, d s (q - 32).

    In each half of the block the low four bits of 128 numbers are the low halves of 64 bytes, then the high halves;
    two more bits are each two bits of 32 bytes.
    """
    low = _bits(blocks[:, :128].view(-1, 2, 64), 4, 2).view(-1, 8, 32)
    high = _bits(blocks[:, 128:192].view(-1, 2, 32), 2, 4).view(-1, 8, 32)
    codes = (low | high << 4).view(torch.int8) - 32
    return _scaled(codes.view(-1, 16, 16), _scale(blocks, 208) * _signed(blocks[:, 192:208]))


def _six_bit_pairs(packed: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scales and minimums, ``(n_blocks, 8)`` each, of 12 bytes.

    The first four of both are the low six bits of the first and the next four bytes, whose two high bits complete the
    other four: their low bits are the low halves (scales) and the high ones (minimums) of the last four bytes.
    """
    first, second, third = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = torch.cat([first & 63, third & 15 | first >> 6 << 4], dim=1)
    minimums = torch.cat([second & 63, third >> 4 | second >> 6 << 4], dim=1)
    return scales, minimums


BLOCK_FORMATS = {  # by the number of the type in a file: ggml's `enum ggml_type`
    2: BlockFormat("q4_0", 32, 18, _unpack_q4_0, _pack_q4_0),
    3: BlockFormat("q4_1", 32, 20, _unpack_q4_1, _pack_q4_1),
    6: BlockFormat("q5_0", 32, 22, _unpack_q5_0, _pack_q5_0),
    7: BlockFormat("q5_1", 32, 24, _unpack_q5_1, _pack_q5_1),
    8: BlockFormat("q8_0", 32, 34, _unpack_q8_0, _pack_q8_0),
    10: BlockFormat("q2_K", 256, 84, _unpack_q2_k),
    11: BlockFormat("q3_K", 256, 110, _unpack_q3_k),
    12: BlockFormat("q4_K", 256, 144, _unpack_q4_k),
    13: BlockFormat("q5_K", 256, 176, _unpack_q5_k),
    14: BlockFormat("q6_K", 256, 210, _unpack_q6_k),
}
