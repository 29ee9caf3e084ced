"""A loaded model has no modules until somebody reaches for them; then it is like any other, whoever it was."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from whisper.checkpoints.load import load_model, save_checkpoint
from whisper.errors import CheckpointError
from whisper.lazy_modules import DeferredModules, deferred
from whisper.model import AudioEncoder, Whisper
from whisper.runtime import select

from .checkpoints.test_load import DIMS, little_model, logits


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_checkpoint(little_model(), tmp_path / "little.pt")
    return tmp_path / "little.pt"


@pytest.fixture
def model(file: Path) -> Whisper:
    loaded = load_model(file, device="cpu")
    assert deferred(loaded) is not None
    return loaded


def _pickled(model: Whisper) -> Whisper:
    return pickle.loads(pickle.dumps(model))


def _saved(model: Whisper) -> Whisper:
    buffer = io.BytesIO()
    torch.save(model, buffer)
    return torch.load(io.BytesIO(buffer.getvalue()), weights_only=False)


def _built(state: Any) -> Whisper:
    plain = Whisper(DIMS)
    plain.load_state_dict(state)
    return plain


# every way in, and what comes out that must be a model with the weights of the file
REACHES: dict[str, Callable[[Whisper], Any]] = {
    "encoder": lambda m: m.encoder and m,
    "parameters": lambda m: list(m.parameters()) and m,
    "buffers": lambda m: list(m.named_buffers()) and m,
    "state_dict": lambda m: _built(m.state_dict()),
    "named_modules": lambda m: dict(m.named_modules()) and m,
    "children": lambda m: list(m.children()) and m,
    "dir": lambda m: dir(m) and m,
    "repr": lambda m: "AudioEncoder" in repr(m) and m,
    "apply": lambda m: m.apply(lambda _: None),
    "double": lambda m: m.double().float(),
    "submodule": lambda m: m.get_submodule("decoder.blocks.0") and m,
    "load_state_dict": lambda m: m.load_state_dict(little_model().state_dict()) and m,
    "deepcopy": copy.deepcopy,
    "pickle": _pickled,
    "torch.save": _saved,
    "requires_grad_": lambda m: m.requires_grad_(False),
    "hook": lambda m: m.decoder.register_forward_hook(lambda *_: None) and m,
    "vars": lambda m: dict(vars(m)["_modules"]) and {**vars(m)["_modules"]} and m,
}


@pytest.mark.parametrize("way", REACHES)
def test_whoever_reaches_inside_finds_a_model_like_any_other(way: str, model: Whisper) -> None:
    reached = REACHES[way](model)
    assert deferred(model) is None
    assert type(vars(model)["_modules"]) is dict
    assert list(vars(model)["_modules"]) == ["encoder", "decoder"]
    for found in (model, reached):
        assert type(found) is Whisper
        assert torch.equal(logits(found), logits(little_model()))
    assert next(model.parameters()).dtype == torch.float32


def test_what_can_be_known_without_modules_makes_none(model: Whisper) -> None:
    assert (model.device, model.dims, model.is_multilingual) == (torch.device("cpu"), DIMS, False)
    assert model.alignment_heads.indices().T.tolist() == [[0, 1], [2, 3]]
    model.set_alignment_mask(torch.ones(3, 4, dtype=torch.bool))
    model.note = "mine"
    assert hasattr(model, "encoder_of_mine") is False
    assert model.eval() is model.to("cpu") is model.to(torch.float32) is model.to(device="cpu", dtype=torch.float32)
    assert select.usable(model)
    assert deferred(model) is not None
    assert not model.decoder.blocks[0].training
    assert model.train().decoder.blocks[0].training


def test_parts_can_be_put_in_and_taken_out(model: Whisper) -> None:
    part = little_model(1).encoder
    model.encoder = part
    assert model.encoder is part
    assert torch.equal(model.decoder.ln.weight, little_model().decoder.ln.weight)
    del model.decoder
    assert not hasattr(model, "decoder")


def test_a_shallow_copy_shares_the_modules(model: Whisper) -> None:
    other = copy.copy(model)
    assert other.device == model.device
    assert other.encoder is model.encoder
    assert other.eval().decoder is model.decoder


def test_they_can_be_trained_wherever_they_were_made(model: Whisper) -> None:
    with torch.inference_mode():
        model.encoder  # noqa: B018
    model(torch.zeros(1, 8, 40), torch.zeros(1, 2, dtype=torch.long)).sum().backward()
    assert model.decoder.ln.weight.grad is not None


def test_many_threads_find_the_same_modules(model: Whisper) -> None:
    found: list[nn.Module] = []
    threads = [threading.Thread(target=lambda: found.append(model.encoder)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, found))) == 1
    assert isinstance(found[0], AudioEncoder)


def test_a_failure_is_told_again_and_hurts_nothing() -> None:
    owner, attempts = nn.Module(), []

    def make() -> Any:
        attempts.append(1)
        if len(attempts) < 3:
            raise CheckpointError("gone")
        return {"part": nn.Linear(2, 2)}

    modules = DeferredModules(owner, ("part",), make, torch.device("cpu"), "source")
    modules.install()
    assert modules.packed(lambda made: list(made)) == "source"
    for _ in range(2):
        with pytest.raises(CheckpointError, match="gone"):
            owner.part  # noqa: B018
    assert isinstance(owner.part, nn.Linear)
    assert (modules.mark, modules.source, len(attempts)) == (["part"], None, 3)
    assert modules.packed(list) is None


def test_a_dropped_model_goes_at_once(model: Whisper, file: Path) -> None:
    gone = weakref.ref(load_model(file))
    assert gc.isenabled()
    assert gone() is None


# ---------------------------------------------------------------------------------------------------------
# With the fast path
# ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    seen: list[dict[str, torch.Tensor]] = []

    def make_runner(dims: Any, tensors: Any, *_: Any) -> Any:
        seen.append(dict(tensors))
        return type("Runner", (), {})()

    monkeypatch.setattr(select, "make_runner", make_runner)
    return seen


def test_what_was_packed_stays_while_the_modules_are_as_they_were_made(model: Whisper, packed: list[Any]) -> None:
    runner = select.runner_for(model, True)
    assert deferred(model) is not None
    for name, tensor in little_model().state_dict().items():
        assert torch.equal(packed[0][name], tensor), name
    model.encoder  # noqa: B018
    assert select.usable(model)
    assert select.runner_for(model, True) is runner
    model.decoder.ln.weight.data += 1
    assert select.runner_for(model, True) is not runner
    assert torch.equal(packed[1]["decoder.ln.weight"], model.decoder.ln.weight)


def test_what_was_changed_before_anybody_looked_again_is_packed_anew(model: Whisper, packed: list[Any]) -> None:
    runner = select.runner_for(model, True)
    model.decoder.blocks[1].mlp[0].weight.data *= 1.01
    assert select.runner_for(model, True) is not runner


def test_decoding_makes_no_modules() -> None:
    model = load_model("nano", device="cpu")
    if not select.usable(model):
        pytest.skip("no fast path here")
    model.decode(torch.zeros(80, 3000))
    assert deferred(model) is not None
