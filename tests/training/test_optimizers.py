"""The optimizers."""

from __future__ import annotations

import torch
from torch import nn

from whisper.training import optimizers


def test_orthogonalise_brings_singular_values_near_one():
    torch.manual_seed(0)
    for shape in ((2, 64, 64), (2, 32, 128), (2, 128, 32)):
        values = torch.linalg.svdvals(optimizers.orthogonalize(torch.randn(shape)))
        assert values.max() < 1.35
        assert values.median() > 0.6


def named(network: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return list(network.named_parameters())


def test_muon_has_the_matrices_of_blocks_and_adamw_the_rest():
    network = nn.ModuleDict(
        {"blocks": nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 8)]), "embedding": nn.Embedding(9, 4)}
    )
    parameters = [(f"decoder.{name}", p) for name, p in named(network)]
    made = optimizers.muon(parameters, 0.1, 0.0)
    assert [type(o).__name__ for o in made] == ["Muon", "Muon", "AdamW"]
    held = [p for o in made for group in o.param_groups for p in group["params"]]
    assert sorted(map(id, held)) == sorted(id(p) for _, p in parameters)


def test_muon_alone_where_only_matrices_are_trained():
    matrices = [("decoder.blocks.0.attn.query.parametrizations.weight.0.up", nn.Parameter(torch.zeros(4, 2)))]
    assert [type(o).__name__ for o in optimizers.muon(matrices, 0.1, 0.0)] == ["Muon"]


def test_both_make_a_loss_fall():
    for maker in (optimizers.muon, optimizers.adamw):
        torch.manual_seed(0)
        network = nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(8, 8)])})
        layer, x, wanted = network["blocks"][0], torch.randn(32, 8), torch.randn(32, 8)
        made = maker([(f"encoder.{name}", p) for name, p in named(network)], 0.02, 0.01)
        losses = []
        for _ in range(40):
            loss = (layer(x) - wanted).square().mean()
            network.zero_grad()
            loss.backward()
            for optimiser in made:
                optimiser.step()
            losses.append(loss.item())
        assert losses[-1] < 0.8 * losses[0]


def test_weight_decay_is_for_matrices_only():
    layer = nn.Linear(4, 4)
    nn.init.ones_(layer.bias)
    (optimiser,) = optimizers.adamw(named(layer), 0.1, 0.5)
    for parameter in layer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    weight = layer.weight.detach().clone()
    optimiser.step()
    assert (layer.weight.abs() < weight.abs()).all()
    assert (layer.bias == 1).all()
