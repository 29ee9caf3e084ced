"""The optimizers: Muon for matrices of networks from scratch, AdamW for everything else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Muon(torch.optim.Optimizer):
    """Momentum with orthogonalized updates (Jordan et al. 2024), scaled like Adam's updates.

    Matrices of one shape are updated together. The scale is that of Liu et al. 2025,
    arXiv:2502.16982.
    """

    def __init__(self, matrices: Sequence[nn.Parameter], lr: float, weight_decay: float) -> None:
        by_shape: dict[tuple[int, ...], list[nn.Parameter]] = {}
        for matrix in matrices:
            by_shape.setdefault(tuple(matrix.shape), []).append(matrix)
        super().__init__([{"params": group} for group in by_shape.values()], {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # closures are not supported
        for group in self.param_groups:
            updates = []
            for matrix in group["params"]:
                state = self.state[matrix]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(matrix)
                state["momentum"].lerp_(matrix.grad, 0.05)
                updates.append(matrix.grad.lerp(state["momentum"], 0.95))
            directions = orthogonalize(torch.stack(updates))
            scale = 0.2 * max(group["params"][0].shape) ** 0.5
            for matrix, direction in zip(group["params"], directions, strict=True):
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(direction, alpha=-group["lr"] * scale)


def orthogonalize(matrices: Tensor) -> Tensor:
    """Bring all singular values of ``(n, rows, columns)`` close to 1, by Newton-Schulz steps."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.transpose(1, 2) if tall else matrices).to(torch.bfloat16)
    x = x / (x.float().norm(dim=(1, 2), keepdim=True) + 1e-7).to(x.dtype)
    for _ in range(5):
        a = x @ x.transpose(1, 2)
        b = -4.7750 * a + 2.0315 * (a @ a)
        x = 3.4445 * x + b @ x
    result: Tensor = (x.transpose(1, 2) if tall else x).float()
    return result


def muon(parameters: Iterable[tuple[str, nn.Parameter]], rate: float, decay: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the transformer blocks, AdamW for everything else."""
    matrices, others = list[nn.Parameter](), list[nn.Parameter]()
    for name, parameter in parameters:
        (matrices if ".blocks." in name and parameter.ndim == 2 else others).append(parameter)
    square = [m for m in matrices if m.shape[0] == m.shape[1]]
    rectangular = [m for m in matrices if m.shape[0] != m.shape[1]]
    rest = [torch.optim.AdamW(others, rate, betas=(0.9, 0.98), weight_decay=0.0)] if others else []  # none with LoRA
    # two optimizers, which are stepped in parallel
    return [*(Muon(group, rate, decay) for group in (square, rectangular) if group), *rest]


def adamw(parameters: Iterable[tuple[str, nn.Parameter]], rate: float, decay: float) -> list[torch.optim.Optimizer]:
    """AdamW with weight decay of matrices only."""
    matrices, others = list[nn.Parameter](), list[nn.Parameter]()
    for _, parameter in parameters:
        (matrices if parameter.ndim >= 2 else others).append(parameter)
    groups = [
        {"params": group, "weight_decay": decay_} for group, decay_ in ((matrices, decay), (others, 0.0)) if group
    ]
    return [torch.optim.AdamW(groups, rate, betas=(0.9, 0.98), eps=1e-6)]
