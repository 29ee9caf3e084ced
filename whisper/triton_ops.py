"""Triton kernels under the names that programs for the original import; word times here do not need them.

`timing` warps on the CPU, where a window's matrix of a few hundred kilobytes takes milliseconds, and takes medians
with torch on every device, so that a machine without a compiler gives the same times.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError as error:
    raise RuntimeError("whisper.triton_ops needs Triton: pip install triton") from error


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def dtw_kernel(
    cost: Any, trace: Any, x: Any, x_stride: Any, cost_stride: Any, trace_stride: Any, N: Any, M: Any,
    BLOCK_SIZE: tl.constexpr,
) -> None:  # fmt: skip
    """Fill cost and trace of a skewed matrix, one anti-diagonal after the other, in one program of M lanes.

    Row k of `x` is anti-diagonal k of the matrix; rows k + 2 of `cost` and `trace` belong to it, and ``cost[0, 0]``
    is 0, all else infinity. A trace is 0 for diagonal, 1 for up, 2 for left.
    """
    lane = tl.arange(0, BLOCK_SIZE)
    inside = lane < M
    for k in range(1, N + M + 1):
        tl.debug_barrier()  # the lanes read what their neighbours wrote for the last diagonal
        diagonal = tl.load(cost + (k - 1) * cost_stride + lane, mask=inside)
        up = tl.load(cost + k * cost_stride + lane, mask=inside)
        left = tl.load(cost + k * cost_stride + lane + 1, mask=inside)
        here = tl.load(x + (k - 1) * x_stride + lane, mask=inside, other=0)
        best = tl.minimum(diagonal, tl.minimum(up, left))
        step = tl.where(diagonal <= best, 0, tl.where(up <= best, 1, 2))
        tl.store(cost + (k + 1) * cost_stride + lane + 1, here + best, mask=inside)
        tl.store(trace + (k + 1) * trace_stride + lane + 1, step, mask=inside)


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _median_kernel(
    y: Any, x: Any, x_stride: Any, y_stride: Any, n: Any, WIDTH: tl.constexpr, BLOCK_SIZE: tl.constexpr
) -> None:
    """Write the running median of one row: of WIDTH neighbours, the one that half of them precede."""
    row = tl.program_id(0)
    place = tl.arange(0, BLOCK_SIZE)
    inside = place < n
    source = x + row * x_stride + place
    median = tl.zeros([BLOCK_SIZE], dtype=tl.float32)
    for i in tl.static_range(WIDTH):
        candidate = tl.load(source + i, mask=inside, other=0).to(tl.float32)
        rank = tl.zeros([BLOCK_SIZE], dtype=tl.int32)
        for j in tl.static_range(WIDTH):
            other = tl.load(source + j, mask=inside, other=0).to(tl.float32)
            before = (other <= candidate) if j < i else (other < candidate)
            rank += before.to(tl.int32)
        median = tl.where(rank == WIDTH // 2, candidate, median)
    tl.store(y + row * y_stride + place, median, mask=inside)


def median_kernel(filter_width: int) -> Any:
    """Return the kernel for a filter width; all widths share one, specialised when it is launched."""
    if filter_width < 1 or filter_width % 2 == 0:
        raise ValueError(f"filter_width must be odd, not {filter_width}")
    return _median_kernel


def median_filter_cuda(x: Tensor, filter_width: int) -> Tensor:
    """Return the running median along the last dimension, without padding.

    Parameters
    ----------
    x
        ``(..., n + filter_width - 1)``, already padded, in float32 or half precision, on a CUDA device.
    filter_width
        Odd number of elements.
    """
    kernel = median_kernel(filter_width)
    padded = x.contiguous().view(-1, x.shape[-1])
    n = x.shape[-1] - filter_width + 1
    y = padded.new_empty(padded.shape[0], n)
    block = triton.next_power_of_2(n)
    kernel[(padded.shape[0],)](y, padded, padded.stride(0), y.stride(0), n, WIDTH=filter_width, BLOCK_SIZE=block)
    return y.view(*x.shape[:-1], n)
