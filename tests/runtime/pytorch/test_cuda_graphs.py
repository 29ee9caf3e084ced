"""Captured steps: once per shape, again when memory moves, errors that say what to do, and not at all if so wished."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from whisper.errors import ShapeError
from whisper.runtime.interface import Batch
from whisper.runtime.pytorch.cuda_graphs import VARIABLE, CudaCapture, Graphed, enabled
from whisper.runtime.pytorch.runner import TorchRunner

from ..test_interface import run_again, small_model


def scaled(x: Tensor, factor: Tensor) -> Tensor:
    return x * factor


def test_a_replay_reads_new_inputs_and_leaves_the_callers_alone() -> None:
    x, factor = torch.ones(3), torch.tensor(2.0)
    graph = Graphed(scaled, {"x": x, "factor": factor}, run_again)
    assert graph(x=torch.arange(3.0), factor=torch.tensor(5.0)).tolist() == [0, 5, 10]
    assert graph(x=torch.ones(3), factor=torch.tensor(-1.0)).tolist() == [-1, -1, -1]
    assert (x.tolist(), factor.item()) == ([1, 1, 1], 2)


def test_errors_name_the_argument_both_shapes_and_the_way_out() -> None:
    graph = Graphed(scaled, {"x": torch.ones(3), "factor": torch.tensor(2.0)}, run_again)
    with pytest.raises(ShapeError, match=rf"^x: .*\(3,\).*\(4,\).*pad it.*{VARIABLE}=0"):
        graph(x=torch.ones(4), factor=torch.tensor(2.0))
    with pytest.raises(ShapeError, match=r"^factor: .*float32.*float64"):
        graph(x=torch.ones(3), factor=torch.tensor(2.0, dtype=torch.float64))
    with pytest.raises(ShapeError, match="captured with x, factor, and not x"):
        graph(x=torch.ones(3))


def test_the_off_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    monkeypatch.delenv(VARIABLE, raising=False)
    assert [enabled(cuda), enabled(cuda, False), enabled(cpu), enabled(cpu, True)] == [True, False, False, False]
    monkeypatch.setenv(VARIABLE, "0")
    assert [enabled(cuda), enabled(cuda, True)] == [False, True]


def test_a_step_is_captured_once_per_bucket_and_again_when_a_cache_has_moved() -> None:
    captured = []

    def capture(function: Callable[[], Tensor]) -> tuple[Callable[[], Any], Tensor]:
        captured.append(function)
        return run_again(function)

    model = small_model()
    runner = TorchRunner(model.dims, model.state_dict(), "float32", capture=capture)
    audios = [runner.project(torch.randn(1500, 64)) for _ in range(2)]
    rows = runner.take_rows(4)

    def step(n: int, position: int) -> int:
        """How many captures a step of `n` rows took."""
        before = len(captured)
        runner.forward(Batch([5] * n, rows[:n], [position] * n, [audios[i % 2] for i in range(n)], range(n)))
        return len(captured) - before

    assert [step(3, 0), step(3, 1), step(4, 2), step(2, 3)] == [1, 0, 0, 1]  # 3 and 4 are one bucket
    rows += runner.take_rows(9)  # the cache of rows moves
    assert [step(4, 4), step(4, 5)] == [1, 0]
    audios.append(runner.project(torch.randn(1500, 64)))  # that of audios moves
    assert [step(4, 6), step(4, 7)] == [1, 0]


def test_slots_of_audios_that_are_gone_are_used_again() -> None:
    model = small_model()
    runner = TorchRunner(model.dims, model.state_dict(), "float32", capture=run_again)
    features = torch.randn(1500, 64)
    held = [runner.project(features) for _ in range(12)]
    assert [audio.cross_kv.slot for audio in held] == list(range(12))
    del held[3]
    assert runner.project(features).cross_kv.slot == 3
    held.clear()
    last = runner.project(features)
    static = runner._static
    assert static is not None
    assert (last.cross_kv.slot, static.slots.pool.shape[2]) == (0, 1)  # nor is their memory kept


@pytest.mark.gpu
def test_a_graph_on_the_device() -> None:
    capture = CudaCapture()
    inputs = {"x": torch.ones(3, device="cuda"), "factor": torch.tensor(2.0, device="cuda")}
    graphs = [Graphed(scaled, inputs, capture) for _ in range(2)]
    for i, graph in enumerate(graphs):
        got = graph(x=torch.arange(3.0, device="cuda"), factor=torch.tensor(5.0 + i, device="cuda"))
        assert got.tolist() == [0, 5 + i, 2 * (5 + i)]
