"""The Triton kernels, run by Triton's interpreter on the CPU, where the original (and Triton) is installed."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from whisper.timing import backtrace, dtw_cpu, median_filter

from .conftest import Original

SOURCE = Path(__file__).resolve().parent.parent / "whisper" / "triton_ops.py"
CODE = """
import os
os.environ["TRITON_INTERPRET"] = "1"
import importlib.util, numpy as np, torch
spec = importlib.util.spec_from_file_location("ours", arguments["source"])
ours = importlib.util.module_from_spec(spec)
spec.loader.exec_module(ours)
x = torch.tensor(arguments["x"], dtype=torch.float32)
M, N = x.shape
padded = torch.nn.functional.pad(x, (3, 3), mode="reflect")
median = ours.median_filter_cuda(padded[None], 7)[0]
wide = torch.nn.functional.pad(x, (0, M + 1), value=np.inf).flatten()
skewed = wide[: M * (N + M)].reshape(M, N + M).T.contiguous()
cost = torch.full((N + M + 2, M + 2), np.inf)
cost[0, 0] = 0
trace = torch.zeros_like(cost, dtype=torch.int32)
ours.dtw_kernel[(1,)](cost, trace, skewed, skewed.stride(0), cost.stride(0), trace.stride(0), N, M, BLOCK_SIZE=64)
trace = trace.T.flatten()[: (M + 1) * (M + N + 3)].reshape(M + 1, M + N + 3)[:, : N + 1]
answer = {"median": median.tolist(), "trace": trace.tolist()}
"""


@pytest.mark.peers
def test_kernels_give_what_timing_gives(original: Original, tmp_path: Path) -> None:
    import torch

    x = np.random.default_rng(0).normal(size=(12, 40)).astype(np.float32)
    answer = original(CODE, tmp_path, source=str(SOURCE), x=x.tolist())
    assert torch.allclose(torch.tensor(answer["median"]), median_filter(torch.tensor(x), 7))
    assert backtrace(np.array(answer["trace"])).tolist() == dtw_cpu(x.astype(np.float64)).tolist()


@pytest.mark.skipif(importlib.util.find_spec("triton") is not None, reason="Triton is installed here")
def test_without_triton_the_error_says_what_to_install() -> None:
    with pytest.raises(RuntimeError, match="pip install triton"):
        importlib.import_module("whisper.triton_ops")
