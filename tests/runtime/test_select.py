"""Who watches gets the reference path; who changes weights gets a new runner; precisions are what the device has."""

from __future__ import annotations

import copy
import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from whisper import model as network
from whisper.errors import OptionError
from whisper.model import ModelDimensions, Whisper
from whisper.runtime import select
from whisper.training.lora import LowRank

DIMS = ModelDimensions(8, 20, 16, 2, 2, 60, 12, 16, 4, 3)


class Stub:
    def __init__(self, dims: Any, tensors: Any, compute_type: str, device: Any) -> None:
        self.compute_type, self.device = compute_type, device
        self.sums = {name: float(tensor.double().sum()) for name, tensor in tensors.items()}


@pytest.fixture(autouse=True)
def stubs(monkeypatch: pytest.MonkeyPatch) -> list[Stub]:
    made: list[Stub] = []
    monkeypatch.setattr(select, "make_runner", lambda *a: made.append(Stub(*a)) or made[-1])
    return made


@pytest.fixture
def model() -> Whisper:
    torch.manual_seed(0)
    return Whisper(DIMS)


# ---------------------------------------------------------------------------------------------------------
# Watchers
# ---------------------------------------------------------------------------------------------------------


class Mine(Whisper):
    pass


def _lora(model: Whisper) -> None:
    query = model.decoder.blocks[0].attn.query
    torch.nn.utils.parametrize.register_parametrization(query, "weight", LowRank(16, 16, 2, 4.0))


def _replaced_layer(model: Whisper) -> None:
    model.encoder.blocks[0].mlp[0] = nn.Linear(16, 64)


WATCHERS: dict[str, Callable[[Whisper], Any]] = {
    "hook": lambda m: m.decoder.blocks[1].cross_attn.register_forward_hook(lambda *_: None),
    "hook on top": lambda m: m.register_forward_hook(lambda *_: None),
    "pre-hook": lambda m: m.encoder.conv1.register_forward_pre_hook(lambda *_: None),
    "forward": lambda m: setattr(m.encoder, "forward", lambda x: x),
    "attention": lambda m: setattr(m.decoder.blocks[0].attn, "qkv_attention", lambda *_: None),
    "embed_audio": lambda m: setattr(m, "embed_audio", lambda mel: mel),
    "layer": _replaced_layer,
    "lora": _lora,
    "pruned": lambda m: m.decoder.blocks.__delitem__(0),
    "integers": lambda m: setattr(m.decoder.ln, "weight", nn.Parameter(torch.ones(16, dtype=torch.int8), False)),
    "elsewhere": lambda m: m.encoder.to("meta"),
    "odd heads": lambda m: setattr(m.encoder.blocks[0], "attn", network.MultiHeadAttention(16, 4)),
    "own encoder": lambda m: setattr(m, "encoder", nn.Identity()),
}


@pytest.mark.parametrize("asked_before", [False, True])
@pytest.mark.parametrize("kind", WATCHERS)
def test_who_watches_one_model_gets_the_reference_path(kind: str, asked_before: bool, model: Whisper) -> None:
    if asked_before:
        assert select.usable(model)
    handle = WATCHERS[kind](model)
    assert not select.usable(model)
    assert select.usable(Whisper(DIMS))
    if hasattr(handle, "remove"):
        handle.remove()
        assert select.usable(model)


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (network.AudioEncoder, "forward"), (network.MultiHeadAttention, "qkv_attention"),
        (network.MultiHeadAttention, "use_sdpa"), (network.Whisper, "logits"), (nn.GELU, "forward"),
        (network, "scaled_dot_product_attention"),
    ],
)  # fmt: skip
def test_who_replaces_a_function_for_all_gets_the_reference_path(
    owner: Any, name: str, model: Whisper, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert select.usable(model)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, False)
        assert not select.usable(model)
    assert select.usable(model)


def test_other_watchers(model: Whisper) -> None:
    assert not select.usable(Mine(DIMS))
    assert not select.usable(nn.Linear(2, 2))
    assert not select.usable(Whisper(DIMS).to("meta"))
    with network.disable_sdpa():
        assert not select.usable(model)
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    assert not select.usable(model)
    handle.remove()
    assert select.usable(model)


def test_what_changes_no_result_is_no_watcher(model: Whisper) -> None:
    model.eval().requires_grad_(False).half()
    model.note = model.decoder.note = "mine"
    model.set_alignment_mask(torch.ones(3, 4, dtype=torch.bool))
    assert select.usable(model)


# ---------------------------------------------------------------------------------------------------------
# Runners
# ---------------------------------------------------------------------------------------------------------


def _train(model: Whisper) -> None:
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    model.decoder.blocks[2].mlp[2].bias.sum().backward()
    optimiser.step()


CHANGES: dict[str, Callable[[Whisper], Any]] = {
    "training": _train,
    "data": lambda m: m.encoder.blocks[1].mlp[0].weight.data.add_(1e-6),
    "load_state_dict": lambda m: m.load_state_dict(Whisper(DIMS).state_dict()),
    "assigned": lambda m: setattr(m.decoder.ln, "bias", nn.Parameter(torch.ones(16))),
    "buffer": lambda m: m.encoder.positional_embedding.mul_(2),
    "half": lambda m: m.half(),
    "same layer": lambda m: setattr(m.decoder.blocks[0], "attn", network.MultiHeadAttention(16, 4)),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_changed_weights_are_packed_anew(kind: str, model: Whisper) -> None:
    before = select.runner_for(model, True), select.runner_for(model, False)
    assert select.usable(model)
    CHANGES[kind](model)
    assert select.usable(model)
    after = select.runner_for(model, True), select.runner_for(model, False)
    assert before[0] is not after[0]
    assert before[1] is not after[1]
    assert after[0] is select.runner_for(model, True)
    named = {name: float(tensor.double().sum()) for name, tensor in model.state_dict().items()}
    assert after[0].sums == after[1].sums == named != before[0].sums


def test_a_runner_is_made_once_for_each_precision_and_model(model: Whisper, stubs: list[Stub]) -> None:
    runners: list[Any] = []
    threads = [threading.Thread(target=lambda: runners.append(select.runner_for(model, False))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(runner) for runner in runners}) == 1
    assert runners[0].compute_type == "float32"
    other = copy.deepcopy(model)
    assert select.runner_for(other, False) is not runners[0]
    model.compute_type = "bfloat16"
    assert select.runner_for(model, True).compute_type == "bfloat16"
    assert select.runner_for(model, False) is runners[0]
    assert len(stubs) == 3


def test_a_runner_goes_with_its_model(stubs: list[Stub]) -> None:
    model = Whisper(DIMS)
    runner = weakref.ref(select.runner_for(model, True))
    stubs.clear()
    gc.disable()
    try:
        del model  # at once, not when the collector comes around: it may be gigabytes
        assert runner() is None
    finally:
        gc.enable()


def test_a_precision_that_the_device_does_not_have(model: Whisper) -> None:
    model.compute_type = "float16"
    with pytest.raises(OptionError, match="does not run on cpu"):
        select.runner_for(model, True)
    assert select.runner_for(model, False).compute_type == "float32"
