"""Low-rank fine-tuning (Hu et al. 2021): beside each frozen matrix a small pair of matrices learns.

Written as a parametrisation of the weights, so that whoever reads ``layer.weight`` sees the sum and no other code
knows. `merged` gives the weights of an ordinary network. Chooses no ranks and trains nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .errors import OptionError

TARGETS = ("query", "key", "value", "out", "mlp")


class LowRank(nn.Module):
    """A matrix of `rank` beside a weight ``(n_out, n_in)``; zero at first, so nothing changes before the first step."""

    def __init__(self, n_out: int, n_in: int, rank: int, alpha: float) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.randn(rank, n_in, dtype=torch.float32, device="cpu") * n_in**-0.5)
        self.up = nn.Parameter(torch.zeros(n_out, rank, dtype=torch.float32, device="cpu"))
        self.scale = alpha / rank

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.scale * (self.up @ self.down)


def add(network: nn.Module, rank: int, alpha: float, targets: tuple[str, ...] = ("query", "value")) -> int:
    """Freeze `network` and put matrices of `rank` beside the weights of `targets` (of `TARGETS`); return how many.

    Raises
    ------
    OptionError
        Where the rank is no positive number, or a target is unknown.
    """
    if rank < 1:
        raise OptionError(f"lora_rank must be at least 1, not {rank}")
    if wrong := [target for target in targets if target not in TARGETS]:
        raise OptionError(f"lora_targets has no {wrong[0]!r}; there are {', '.join(TARGETS)}")
    network.requires_grad_(False)
    chosen = list(_linears(network, targets))
    for layer in chosen:
        device = layer.weight.device
        pair = LowRank(layer.out_features, layer.in_features, rank, alpha).to(device)
        parametrize.register_parametrization(layer, "weight", pair)
    return len(chosen)


def merged(network: nn.Module) -> dict[str, Tensor]:
    """The state of `network` with each pair added to its weight, under the names of a network without pairs."""
    state = {name: tensor for name, tensor in network.state_dict().items() if ".parametrizations." not in name}
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Linear) and parametrize.is_parametrized(layer, "weight"):
            state[f"{name}.weight"] = layer.weight.detach()
    return state


def _linears(network: nn.Module, targets: tuple[str, ...]) -> Iterator[nn.Linear]:
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Linear):
            parts = name.split(".")
            if parts[-1] in targets or ("mlp" in targets and "mlp" in parts):
                yield layer
