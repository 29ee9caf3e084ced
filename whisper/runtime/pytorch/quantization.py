"""Packed weights in float32, bfloat16, float16 or int8, and the matrix products with them.

Four kinds: `float32` as it is and not copied, `bfloat16` and `float16` as they are, and `int8` with a scale per output
channel. A product of int8 quantises each row of its input by that row's own largest value and sums integers, which is
exact: so the result of a row depends neither on its neighbours nor on the number of threads. (Torch's own
``linear_dynamic`` takes one scale for the whole batch.) The input has one digit of 8 bits or two, 15 bits together,
which are two rows of the product. Knows nothing of Whisper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import OptionError
from ...model import matmul

COMPUTE_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "int8": torch.int8}
ALIGNED = 8  # torch._int_mm on CUDA takes only multiples of it
MIN_ROWS_CUDA = 24  # and more than 16 rows
AT_ONCE = 1 << 18  # numbers of a product's input or output that are worked on together: 1 MB
SAME_SUMS = 32  # rows: from 2 to so many, oneDNN sums each in the same order (bfloat16, with AMX)
N_REFINED = 64  # numbers of a row of logits
SMALLEST_KEPT = 1 << 16  # elements; smaller buffers cost less to make than to look up


class Buffers:
    """Memory kept from call to call: the system maps and clears every large new tensor, page by page.

    What is taken under a name is valid until that name is taken again; for one thread.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[str, torch.dtype, torch.device], Tensor] = {}

    def take(self, name: str, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return a tensor of any contents."""
        n = math.prod(shape)
        if n < SMALLEST_KEPT or device.type != "cpu":  # CUDA's allocator keeps memory itself
            return torch.empty(shape, dtype=dtype, device=device)
        held = self._held.get((name, dtype, device))
        if held is None or held.numel() < n:
            held = self._held[name, dtype, device] = torch.empty(n, dtype=dtype, device=device)
        return held[:n].view(shape)


class Packed:
    """The weights of a linear layer; see `pack`."""

    n_in: int
    n_out: int

    def linear(self, x: Tensor, out: Tensor | None = None, gelu: bool = False) -> Tensor:
        """Return ``x @ weight.T + bias`` in the precision of `x`, ``(n_rows, n_in)`` to ``(n_rows, n_out)``.

        `out` is memory that the result may take; `gelu` applies that function to the result.
        """
        raise NotImplementedError

    def rows(self, ids: Tensor) -> Tensor:
        """Return the rows `ids` of the weight, ``(len(ids), n_in)``, float: a tied embedding."""
        raise NotImplementedError


class PackedFloat(Packed):
    """Weights of floating point; the input is converted to their precision, and the result back."""

    def __init__(self, weight: Tensor, bias: Tensor | None, rows_vary: bool = True) -> None:
        self.weight, self.bias = weight, bias
        self.n_out, self.n_in = weight.shape
        # oneDNN sums a single row of bfloat16 in another order than several, and, with AMX, more than 32 in another
        # one again: a row must get the same bits whatever stands beside it. (Where the processor has no bfloat16,
        # oneDNN emulates it and sums by the number of threads, too; nothing here can mend that.)
        self.batch_invariant = rows_vary and weight.device.type == "cpu" and weight.dtype != torch.float32

    def linear(self, x: Tensor, out: Tensor | None = None, gelu: bool = False) -> Tensor:
        y = self._product(x)
        return torch.ops.aten.gelu_(y) if gelu else y

    def _product(self, x: Tensor) -> Tensor:
        if self.weight.dtype == x.dtype == torch.float32:
            return matmul(x, self.weight, self.bias)
        y = x.to(self.weight.dtype)
        if not self.batch_invariant:
            return F.linear(y, self.weight, self.bias).to(x.dtype)
        return torch.cat([self._few_rows(rows) for rows in torch.split(y, SAME_SUMS)]).to(x.dtype)

    def _few_rows(self, y: Tensor) -> Tensor:
        if len(y) == 1:
            return F.linear(y.expand(2, -1), self.weight, self.bias)[:1]
        return F.linear(y, self.weight, self.bias)

    def rows(self, ids: Tensor) -> Tensor:
        return self.weight[ids]


class PackedInt8(Packed):
    """Weights of 8 bits, symmetric, with a scale per output channel; inputs of one digit or two.

    Where the remainder of the weights is kept, what rounding left of them in 256ths of a step, the `N_REFINED` largest
    numbers of each row of a result are those of weights of 16 bits: of the logits of a vocabulary only the largest
    matter, and for them only few rows of the weight are read again.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, buffers: Buffers, n_digits: int = 1, keep_remainder: bool = False
    ) -> None:
        self.n_out, self.n_in = weight.shape
        self.buffers, self.n_digits = buffers, n_digits
        self.largest = 127 if n_digits == 1 else 127 * 128  # of a quantised input
        limit = weight.float().abs().amax(dim=1, keepdim=True).clamp_(min=1e-30)  # (n_out, 1)
        # zeros that change no sum; the memory of (out, in) read as its transpose is what _int_mm is fastest with
        on_cuda = weight.device.type == "cuda"
        shape = (_up(self.n_out), _up(self.n_in)) if on_cuda else weight.shape
        self.weight = torch.zeros(shape, dtype=torch.int8, device=weight.device)
        exact = weight.float() * (127 / limit)
        self.weight[: self.n_out, : self.n_in] = whole = exact.round()
        self.remainder = (exact - whole).mul_(256).round_().clamp_(max=127).to(torch.int8) if keep_remainder else None
        self.transposed = self.weight.t()
        self.scale = (limit[:, 0] / 127).contiguous()  # (n_out,)
        self.bias = None if bias is None else bias.float()
        self.min_rows = MIN_ROWS_CUDA if on_cuda else 1

    def linear(self, x: Tensor, out: Tensor | None = None, gelu: bool = False) -> Tensor:
        y = self._linear(x, out, gelu)
        return y if self.remainder is None else self._refined(y, x)

    def _refined(self, y: Tensor, x: Tensor) -> Tensor:
        """Add to the largest numbers of each row of `y` what the remainder of the weights gives, in place."""
        assert self.remainder is not None
        ids = y.topk(min(N_REFINED, self.n_out), dim=1, sorted=False).indices  # (n_rows, n_refined)
        lacking = (self.remainder[ids].to(x.dtype) * x[:, None]).sum(-1).float() * self.scale[ids] / 256
        return y.scatter_add_(1, ids, lacking.to(y.dtype))

    def _linear(self, x: Tensor, out: Tensor | None, gelu: bool) -> Tensor:
        n_rows, dtype = len(x), x.dtype
        if self.min_rows == 1 and n_rows * max(self.n_in, self.n_out) < SMALLEST_KEPT and dtype == torch.float32:
            return self._small_product(x, gelu)
        if out is None or out.dtype != torch.float32:
            out = torch.empty(n_rows, self.n_out, dtype=torch.float32, device=x.device)
        # so many rows at a time that the steps between meet in the cache
        step = n_rows if x.device.type == "cuda" else max(32, AT_ONCE // max(self.n_in, self.n_out))
        for i in range(0, n_rows, step):
            self._product(x[i : i + step], out[i : i + step], gelu)
        return out if dtype == torch.float32 else out.to(dtype)

    def _small_product(self, x: Tensor, gelu: bool) -> Tensor:
        """As `_product`, with the fewest calls: for few rows each costs as much as the product."""
        row_scale = x.abs().amax(dim=1, keepdim=True).clamp_(min=1e-30).div_(self.largest)
        whole = (x / row_scale).round_()
        if self.n_digits == 2:
            high = (whole / 128).floor_()
            whole = torch.cat([high, whole.sub_(high, alpha=128)])
        sums = torch._int_mm(whole.to(torch.int8), self.transposed)
        out = self._joined(sums, len(x)).mul_(row_scale).mul_(self.scale)
        if self.bias is not None:
            out.add_(self.bias)
        return torch.ops.aten.gelu_(out) if gelu else out

    def _product(self, x: Tensor, out: Tensor, gelu: bool) -> None:
        whole, row_scale = self._quantised(x)
        sums = self.buffers.take("sums", (len(whole), len(self.weight)), torch.int32, x.device)
        torch._int_mm(whole, self.transposed, out=sums)
        self._joined(sums[:, : self.n_out], len(out), out)
        # one rounding in each step: a fused step rounds differently in a vector and in its tail
        out.mul_(row_scale).mul_(self.scale)
        if self.bias is not None:
            out.add_(self.bias)
        if gelu:
            torch.ops.aten.gelu_(out)

    def _joined(self, sums: Tensor, n_rows: int, out: Tensor | None = None) -> Tensor:
        """Return the sums of `n_rows` rows as float32, those of both digits as one; further rows are padding."""
        if out is None:
            out = torch.empty(n_rows, sums.shape[1], dtype=torch.float32, device=sums.device)
        out.copy_(sums[:n_rows])
        return out if self.n_digits == 1 else out.mul_(128).add_(sums[n_rows : 2 * n_rows])

    def _quantised(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return `x` in 8 bits, padded to the weight's width and the least number of rows, and each row's scale.

        Rows of the low digit, from 0 to 127, lie behind those of the high one.
        """
        x = x.float()
        scaled = self.buffers.take("scaled", x.shape, torch.float32, x.device)
        scale = torch.abs(x, out=scaled).amax(dim=1, keepdim=True).clamp_(min=1e-30).div_(self.largest)  # (n_rows, 1)
        torch.div(x, scale, out=scaled).round_()
        n_used = self.n_digits * len(x)
        n_rows = n_used if self.min_rows == 1 else _up(max(n_used, self.min_rows))
        whole = self.buffers.take("whole", (n_rows, self.weight.shape[1]), torch.int8, x.device)
        if whole.shape != (n_used, self.n_in):
            whole.zero_()
        if self.n_digits == 2:
            high = (scaled / 128).floor_()
            whole[len(x) : n_used, : self.n_in] = scaled.sub_(high, alpha=128)
            scaled = high
        whole[: len(x), : self.n_in] = scaled
        return whole, scale

    def rows(self, ids: Tensor) -> Tensor:
        rows = self.weight[ids, : self.n_in].float()
        if self.remainder is not None:
            rows += self.remainder[ids] / 256
        return rows * self.scale[ids, None]


class Together:
    """Layers with the same input: one product of 8 or 16 bits, or several of float32, which is not copied."""

    def __init__(self, parts: Sequence[Packed], n_outs: Sequence[int]) -> None:
        self._parts = parts
        self._n_outs = list(n_outs)

    def linear(self, x: Tensor, out: Tensor | None = None) -> Sequence[Tensor]:
        """Return the result of each layer; `out`, of all of them, may be taken for it."""
        if len(self._parts) == 1:
            return torch.split(self._parts[0].linear(x, out), self._n_outs, dim=-1)
        return [part.linear(x) for part in self._parts]


def _up(n: int) -> int:
    return -(-n // ALIGNED) * ALIGNED


def pack(
    weight: Tensor,
    bias: Tensor | None,
    compute_type: str,
    *,
    device: torch.device | str | None = None,
    buffers: Buffers | None = None,
    rows_vary: bool = True,
    n_digits: int = 1,
    keep_remainder: bool = False,
) -> Packed:
    """Pack a linear layer.

    Parameters
    ----------
    weight, bias
        ``(n_out, n_in)`` and ``(n_out,)``, in any precision; not changed, and shared where they are as needed.
    compute_type
        "float32", "bfloat16", "float16" or "int8".
    device
        Where to compute; by default where `weight` is.
    buffers
        Shared by layers that never run at the same time.
    rows_vary
        Whether the number of rows changes from call to call: then a row gets the same bits whatever that number is.
    n_digits
        Digits of 8 bits of the input of an int8 layer: 1, or 2, which take twice the arithmetic.
    keep_remainder
        For logits, in int8: the largest of each row are those of weights of 16 bits; see `PackedInt8`.

    Raises
    ------
    OptionError
        There is no such compute type.
    """
    if compute_type not in COMPUTE_TYPES:
        raise OptionError(f"compute_type must be one of {', '.join(COMPUTE_TYPES)}, not {compute_type!r}")
    weight = weight.detach().to(device)
    bias = None if bias is None else bias.detach().to(device)
    if compute_type == "int8":
        return PackedInt8(weight, bias, buffers or Buffers(), n_digits, keep_remainder)
    dtype = COMPUTE_TYPES[compute_type]
    return PackedFloat(weight.to(dtype).contiguous(), None if bias is None else bias.to(dtype), rows_vary)


def pack_together(
    layers: Sequence[tuple[Tensor, Tensor | None]],
    compute_type: str,
    *,
    device: torch.device | str | None = None,
    buffers: Buffers | None = None,
    rows_vary: bool = True,
    n_digits: int = 1,
) -> Together:
    """Pack the weights and biases of layers that have the same input; see `pack`."""
    n_outs = [len(weight) for weight, _ in layers]
    if compute_type != "float32":
        weight = torch.cat([w.detach().float() for w, _ in layers])
        bias = torch.cat([w.new_zeros(len(w)).float() if b is None else b.detach().float() for w, b in layers])
        layers = [(weight, bias)]
    options: dict[str, Any] = {"device": device, "buffers": buffers, "rows_vary": rows_vary, "n_digits": n_digits}
    packed = [pack(w, b, compute_type, **options) for w, b in layers]
    return Together(packed, n_outs)
