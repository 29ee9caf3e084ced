"""The weights that tell speakers apart: they come with the package, and are read when they are first needed.

Two networks in one file, `assets/speakers.safetensors`, made by `scripts/speaker-weights`: pyannote's segmentation-3.0
(MIT, CNRS) and 3D-Speaker's CAM++ (Apache-2.0); notices in `assets/LICENSE.speakers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from ...device.hardware import has_bfloat16
from ...device.torch_state import clean_state

FILE = Path(__file__).parents[2] / "assets" / "speakers.safetensors"

Weights = Mapping[str, Tensor]


@lru_cache(maxsize=2)
def load(network: str) -> dict[str, Tensor]:
    """Return the weights of "segmentation" or "encoder" in float32, by their names in the original."""
    from safetensors import safe_open

    prefix = network + "."
    with clean_state(), safe_open(str(FILE), framework="pt", device="cpu") as file:
        names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118 (no mapping)
        return {name.removeprefix(prefix): file.get_tensor(name).to(torch.float32) for name in names}


def quick_dtype() -> torch.dtype:
    """Return the precision in which the large layers run: bfloat16 where the processor has it, 3 times as fast."""
    return torch.bfloat16 if has_bfloat16() else torch.float32


def recurrent_weights(weights: Weights, n_layers: int, directions: int, dtype: torch.dtype) -> list[Tensor]:
    """Return the weights of an LSTM in the order in which `torch.lstm` takes them."""
    return [
        weights[f"lstm.{kind}_l{layer}{suffix}"].to(dtype)
        for layer in range(n_layers)
        for suffix in ("", "_reverse")[:directions]
        for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    ]
