"""Captures a function at fixed shapes as a CUDA graph, and replays it: a decode step is a thousand small kernels.

Inputs are copied into the tensors of the capture, so their shapes may not change: for other shapes, pad
the inputs or capture again. Knows nothing of Whisper. Graphs can be switched off with ``SOTTO_CUDA_GRAPHS=0``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...errors import ShapeError

VARIABLE = "SOTTO_CUDA_GRAPHS"
WARM_UPS = 2  # before a capture libraries choose their kernels and take their memory

# runs a function without arguments once, and returns how to run it again and the tensor that then holds its result
Capture = Callable[[Callable[[], Tensor]], tuple[Callable[[], Any], Tensor]]


def enabled(device: torch.device, wanted: bool | None = None) -> bool:
    """Whether to capture on `device`: `wanted` where that is said, else unless the environment says no."""
    if device.type != "cuda":
        return False
    return os.environ.get(VARIABLE, "1") != "0" if wanted is None else wanted


class CudaCapture:
    """Captures on the current CUDA device; all graphs of one of these share their working memory.

    So they must not run at the same time, and a result holds until the next replay.
    """

    def __init__(self) -> None:
        self._memory: Any = None

    def __call__(self, function: Callable[[], Tensor]) -> tuple[Callable[[], Any], Tensor]:
        current, aside = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(current)
        with torch.cuda.stream(aside):
            for _ in range(WARM_UPS):
                function()
        current.wait_stream(aside)
        if self._memory is None:
            self._memory = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        # "thread_local": another thread may use the device meanwhile
        with torch.cuda.graph(graph, pool=self._memory, capture_error_mode="thread_local"):
            result = function()
        return graph.replay, result


class Graphed:
    """A function captured for the shapes of its example inputs.

    Parameters
    ----------
    function
        Takes the inputs by name and returns a tensor. It is run several times while it is captured, so running it
        twice must do what running it once does; and it may not ask the device for a value.
    inputs
        Examples, by name. They are copied.
    capture
        A `CudaCapture`; for tests, anything that stands in for it.
    """

    def __init__(self, function: Callable[..., Tensor], inputs: dict[str, Tensor], capture: Capture) -> None:
        self._inputs = {name: tensor.clone() for name, tensor in inputs.items()}
        self._replay, self._result = capture(lambda: function(**self._inputs))

    def __call__(self, **inputs: Tensor) -> Tensor:
        """Run it on other inputs of the same shapes; the result is overwritten by the next call.

        Raises
        ------
        ShapeError
            An input has another shape or type than the example, or is missing or unknown.
        """
        if inputs.keys() != self._inputs.keys():
            raise ShapeError(f"the graph was captured with {', '.join(self._inputs)}, and not {', '.join(inputs)}")
        for name, held in self._inputs.items():
            given = inputs[name]
            if (given.shape, given.dtype) != (held.shape, held.dtype):
                raise ShapeError(
                    f"{name}: the graph was captured for {tuple(held.shape)} of {held.dtype}, got {tuple(given.shape)} "
                    f"of {given.dtype}; pad it to that shape, capture another Graphed, or set {VARIABLE}=0"
                )
            held.copy_(given, non_blocking=True)
        self._replay()
        return self._result
