"""LoRA, low-rank adapters of Hu and others (2021): small trained matrices beside frozen weights.

Implemented as a parametrization of the weights: ``layer.weight`` is the sum, so no other code has
to know. `merged_state_dict` gives the weights of an ordinary model. Chooses no ranks and trains
nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..errors import OptionError

TARGETS = ("query", "key", "value", "out", "mlp")


class LowRank(nn.Module):
    """A matrix of `rank` added to a weight ``(n_out, n_in)``; zero before the first step."""

    def __init__(self, n_out: int, n_in: int, rank: int, alpha: float) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.randn(rank, n_in, dtype=torch.float32, device="cpu") * n_in**-0.5)
        self.up = nn.Parameter(torch.zeros(n_out, rank, dtype=torch.float32, device="cpu"))
        self.scale = alpha / rank

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.scale * (self.up @ self.down)


def add_adapters(network: nn.Module, rank: int, alpha: float, targets: tuple[str, ...] = ("query", "value")) -> int:
    """Freeze `network` and add adapters to the weights named by `targets`; return their number.

    Raises
    ------
    OptionError
        The rank is below 1, or a target is unknown.
    """
    if rank < 1:
        raise OptionError(f"lora_rank must be at least 1, not {rank}")
    if unknown := [target for target in targets if target not in TARGETS]:
        raise OptionError(f"lora_targets has no {unknown[0]!r}; there are {', '.join(TARGETS)}")
    network.requires_grad_(False)
    layers = list(_target_layers(network, targets))
    for layer in layers:
        adapter = LowRank(layer.out_features, layer.in_features, rank, alpha).to(layer.weight.device)
        parametrize.register_parametrization(layer, "weight", adapter)
    return len(layers)


def merged_state_dict(network: nn.Module) -> dict[str, Tensor]:
    """The state of `network` with its adapters merged, as of a network without adapters."""
    state = {name: tensor for name, tensor in network.state_dict().items() if ".parametrizations." not in name}
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Linear) and parametrize.is_parametrized(layer, "weight"):
            state[f"{name}.weight"] = layer.weight.detach()
    return state


def _target_layers(network: nn.Module, targets: tuple[str, ...]) -> Iterator[nn.Linear]:
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Linear):
            parts = name.split(".")
            if parts[-1] in targets or ("mlp" in targets and "mlp" in parts):
                yield layer
