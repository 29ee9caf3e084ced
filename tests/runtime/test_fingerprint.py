"""Whatever is done to a number of the weights, and in whatever way, the next call sees it."""

from __future__ import annotations

import copy
import ctypes
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from whisper.checkpoints.load import load_model, save_checkpoint
from whisper.checkpoints.weights import tensors_of
from whisper.device.hardware import machine, processor
from whisper.lazy_modules import deferred
from whisper.model import ModelDimensions, Whisper
from whisper.runtime import fingerprint, select
from whisper.runtime.fingerprint import Fingerprint, digests
from whisper.runtime.interface import Batch
from whisper.runtime.native import kernels
from whisper.runtime.native.build import variants_for

from ..models import random_model

DIMS = ModelDimensions(16, 20, 32, 2, 2, 60, 12, 32, 2, 2)  # which the kernels take
TOKEN, N_TOKENS = 30, 8  # both in the middle


@pytest.fixture(params=["kernels", "torch"], autouse=True)
def computed_by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "torch":
        monkeypatch.setenv(kernels.VARIABLE, "off")
    elif kernels.load() is None:
        pytest.skip(f"no compiled kernels: {kernels.why_not()}")
    return str(request.param)


# ---------------------------------------------------------------------------------------------------------
# Digests
# ---------------------------------------------------------------------------------------------------------


def bits(n_bytes: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (n_bytes,), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_every_bit_of_every_number_counts(dtype: torch.dtype) -> None:
    numbers = bits(1800).view(dtype)
    seen = {tuple(digests([numbers]))}
    for byte in range(numbers.nbytes):
        changed = numbers.clone()
        changed.view(torch.uint8)[byte] ^= 1 << byte % 8
        seen.add(tuple(digests([changed])))
    assert len(seen) == numbers.nbytes + 1


def test_places_count() -> None:
    numbers = bits(1 << 16).view(torch.int32).float()
    found = digests([numbers])
    for i, j in [(0, 1), (0, 16), (3, 259), (5, 5 + 4096), (100, 16000)]:
        changed = numbers.clone()
        changed[i], changed[j] = numbers[j], numbers[i]
        assert digests([changed]) != found, (i, j)
    assert digests([numbers.flip(0)]) != found
    assert digests([numbers.roll(1)]) != found
    assert digests([numbers[:128], numbers[128:]]) != digests([numbers[128:], numbers[:128]])


def test_signs_and_steps_do_not_cancel() -> None:
    numbers = torch.randn(64, 512, generator=torch.Generator().manual_seed(0))
    found = {tuple(digests([numbers]))}
    changes: list[Callable[[Tensor], Any]] = [
        lambda t: t.neg_(), lambda t: t[7].neg_(), lambda t: t[:, 7].neg_(), lambda t: t[:, 8:24].neg_(),
        lambda t: t[:2, 0].neg_(), lambda t: t[0, :2].neg_(), lambda t: t[:, ::2].neg_(), lambda t: t.zero_(),
        lambda t: t.view(torch.int32).add_(1), lambda t: t.view(torch.int32)[:, :2].add_(1 << 30),
        lambda t: t[::2].copy_(t[1::2].clone()), lambda t: t.copy_(t[torch.randperm(64)]),
    ]  # fmt: skip
    for change in changes:
        changed = numbers.clone()
        change(changed)
        found.add(tuple(digests([changed])))
    assert len(found) == len(changes) + 1


def test_large_ones_count_to_their_end(computed_by: str) -> None:
    numbers = bits((3 << 20) + 5)
    found = digests([numbers])
    for place in (0, (1 << 20) - 1, 1 << 20, (2 << 20) + 77, len(numbers) - 1):
        numbers[place] ^= 1
        assert digests([numbers]) != found
        numbers[place] ^= 1
    assert digests([numbers]) == found
    pieces = numbers[: 2 << 20].view(2, -1)
    assert digests([pieces]) != digests([pieces.flip(0).contiguous()])
    empty = torch.empty(0)
    assert digests([]) == []
    assert digests([empty, numbers]) == digests([empty, numbers.clone()])
    if computed_by == "kernels":
        assert len({tuple(digests([numbers[:n]])) for n in range(130)}) == 130  # zeros at the end, too
        assert digests([torch.zeros(3)]) != digests([torch.zeros(4)])


def test_how_it_lies_in_memory_and_how_many_threads_look_do_not_count(computed_by: str) -> None:
    numbers = bits(5 << 20).view(torch.float32).view(1024, -1)
    found, before = digests([numbers, numbers.t()]), torch.get_num_threads()
    moved = torch.empty(numbers.numel() + 1)[1:].view(numbers.shape).copy_(numbers)
    assert digests([moved, moved.t().contiguous()]) == found
    try:
        for n_threads in (1, 2, 5):
            torch.set_num_threads(n_threads)
            assert digests([numbers, numbers.t()]) == found
    finally:
        torch.set_num_threads(before)


def test_all_kernels_find_the_same(computed_by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if computed_by == "torch":
        pytest.skip("it has digests of its own")
    numbers, found = [bits((1 << 20) + 999), bits(37)], set()
    for variant in variants_for(machine()):
        if variant.needs <= processor() and not isinstance(kernels._open(variant), str):
            monkeypatch.setenv(kernels.VARIABLE, variant.name)
            found.add(tuple(digests(numbers)))
    assert len(found) == 1


def test_a_fingerprint_is_of_these_tensors_and_their_numbers() -> None:
    tensors = [torch.randn(5, 7), torch.randn(3)]
    found = Fingerprint(tensors)
    assert found.is_that_of(list(tensors))
    assert not found.is_that_of(tensors[::-1])
    assert not found.is_that_of(tensors[:1])
    assert not found.is_that_of([t.clone() for t in tensors])
    tensors[0].data = tensors[0].data.view(7, 5)
    assert not found.is_that_of(tensors)
    tensors[0].data = tensors[0].data.view(5, 7)
    assert found.is_that_of(tensors)
    with torch.inference_mode():
        tensors[1].data[1] += 1
    assert not found.is_that_of(tensors)


# ---------------------------------------------------------------------------------------------------------
# Models
# ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def model() -> Whisper:
    torch.manual_seed(0)
    return Whisper(DIMS).eval()


MEL = torch.randn(16, 40, generator=torch.Generator().manual_seed(1))


def heard(model: Whisper) -> Tensor:
    """The logits of the fast path."""
    assert select.usable(model)
    runner = select.runner_for(model, False)
    audio = runner.project(runner.encode([MEL])[0])
    rows = runner.take_rows(1)
    n = N_TOKENS
    logits = runner.forward(Batch([TOKEN] * n, rows * n, range(n), [audio] * n, range(n))).clone()
    runner.free_rows(rows)
    return logits


def expected(model: Whisper) -> Tensor:
    """The same of the plain modules, which nobody packs."""
    with torch.no_grad():
        return model(MEL[None], torch.full((1, N_TOKENS), TOKEN))[0]


def assert_follows(model: Whisper, before: Tensor) -> None:
    after = heard(model)
    torch.testing.assert_close(after, expected(model), rtol=1e-3, atol=1e-3)
    difference = float((after - before).abs().max())
    assert difference > 0.01


PLACES = {
    "convolution": ("encoder.conv2.weight", 32 * 16 * 3 + 50),
    "bias of a convolution": ("encoder.conv1.bias", 15),
    "positions of the encoder": ("encoder.positional_embedding", 10 * 32 + 7),
    "key": ("encoder.blocks.0.attn.key.weight", 16 * 32 + 5),
    "norm": ("encoder.ln_post.weight", 16),
    "bias of a norm": ("decoder.blocks.1.mlp_ln.bias", 17),
    "perceptron": ("decoder.blocks.0.mlp.2.weight", 16 * 128 + 77),
    "bias": ("decoder.blocks.1.cross_attn.out.bias", 13),
    "row of the vocabulary": ("decoder.token_embedding.weight", TOKEN * 32 + 11),
    "positions of the decoder": ("decoder.positional_embedding", 6 * 32 + 9),
}


@pytest.mark.parametrize("place", PLACES)
def test_one_number_in_the_middle(place: str, model: Whisper) -> None:
    name, index = PLACES[place]
    before = heard(model)
    model.state_dict()[name].data.view(-1)[index] += 30
    assert_follows(model, before)


def test_any_number_of_any_tensor(model: Whisper) -> None:
    """Drawn at random: one number or two swapped, written behind torch's back, and put back."""
    draw = np.random.default_rng(0)
    tensors = tensors_of(model)
    found = Fingerprint(tensors)
    for _ in range(500):
        numbers = tensors[draw.integers(len(tensors))].detach().numpy().reshape(-1)
        i, j = draw.integers(len(numbers), size=2)
        before = numbers[[i, j]].copy()
        numbers[[i, j]] = before[::-1] if draw.random() < 0.5 else [draw.normal(), before[1]]
        changed = numbers[[i, j]].tobytes() != before.tobytes()
        assert found.is_that_of(tensors) != changed
        numbers[[j, i]] = before[::-1]
    assert found.is_that_of(tensors)


def _weight(model: Whisper) -> nn.Parameter:
    return model.decoder.blocks[1].mlp[0].weight


def _at(tensor: Tensor) -> int:
    return tensor.data_ptr() + 4 * (tensor.numel() // 2)


def _data(model: Whisper) -> Callable[[], Any]:
    return lambda: _weight(model).data.view(-1)[2048].add_(30)


def _no_grad(model: Whisper) -> Callable[[], Any]:
    return torch.no_grad()(lambda: _weight(model).view(-1)[2048].add_(30))


def _inference(model: Whisper) -> Callable[[], Any]:
    return torch.inference_mode()(lambda: _weight(model).view(-1)[2048].add_(30))


def _kept_alias(model: Whisper) -> Callable[[], Any]:
    alias = _weight(model).detach().view(-1)[2000:2100]
    return lambda: alias.mul_(-30)


def _kept_numpy(model: Whisper) -> Callable[[], Any]:
    view = _weight(model).detach().numpy()
    return lambda: view.__setitem__((64, 3), 30)


def _kept_dlpack(model: Whisper) -> Callable[[], Any]:
    view = np.from_dlpack(_weight(model).detach())
    other = torch.from_dlpack(_weight(model).detach())
    assert view[64, 3] == other[64, 3]
    return lambda: other[64].fill_(30)


def _kept_address(model: Whisper) -> Callable[[], Any]:
    number = ctypes.c_float.from_address(_at(_weight(model)))  # of which torch and Python know nothing
    return lambda: setattr(number, "value", 30.0)


def _memory(model: Whisper) -> Callable[[], Any]:
    address = _at(_weight(model))
    return lambda: ctypes.memmove(address, (ctypes.c_float * 2)(30.0, -30.0), 8)


def _storage(model: Whisper) -> Callable[[], Any]:
    storage = _weight(model).untyped_storage()
    return lambda: storage.__setitem__(4 * 2048 + 3, 0x42)  # the upper byte of a float32


def _other_thread(model: Whisper) -> Callable[[], Any]:
    change = _kept_numpy(model)

    def run() -> None:
        thread = threading.Thread(target=change)
        thread.start()
        thread.join()

    return run


def _two_swapped(model: Whisper) -> Callable[[], Any]:
    _weight(model).data.view(-1)[2048] = 30.0

    def swap() -> None:
        numbers = _weight(model).data.view(-1)
        numbers[[2048, 2048 + 512]] = numbers[[2048 + 512, 2048]]

    return swap


def _two_tensors_swapped(model: Whisper) -> Callable[[], Any]:
    attn = model.decoder.blocks[0].attn
    return lambda: torch.utils.swap_tensors(attn.query.weight, attn.value.weight)


def _data_swapped(model: Whisper) -> Callable[[], Any]:
    query, value = model.decoder.blocks[0].attn.query.weight, model.decoder.blocks[0].attn.value.weight

    def swap() -> None:
        query.data, value.data = value.data, query.data

    return swap


def _blocks_swapped(model: Whisper) -> Callable[[], Any]:
    blocks = model.decoder.blocks

    def swap() -> None:
        blocks[0], blocks[1] = blocks[1], blocks[0]

    return swap


def _pruned(model: Whisper) -> Callable[[], Any]:
    return lambda: _weight(model).data[:, 1:31].zero_()


def _parameter(model: Whisper) -> Callable[[], Any]:
    return lambda: setattr(model.decoder.ln, "bias", nn.Parameter(torch.ones(32)))


def _buffer(model: Whisper) -> Callable[[], Any]:
    return lambda: model.encoder.register_buffer("positional_embedding", torch.randn(20, 32))


def _set(model: Whisper) -> Callable[[], Any]:
    return torch.no_grad()(lambda: _weight(model).set_(torch.randn(128, 32)))


def _from_vector(model: Whisper) -> Callable[[], Any]:
    vector = nn.utils.parameters_to_vector(model.parameters())
    return lambda: nn.utils.vector_to_parameters(vector * 1.5, model.parameters())


def _state_dict(model: Whisper) -> Callable[[], Any]:
    state = {name: tensor * 1.5 for name, tensor in model.state_dict().items()}
    return lambda: model.load_state_dict(state, assign=True)


def _lora_merge(model: Whisper) -> Callable[[], Any]:
    change = torch.randn(128, 2) @ torch.randn(2, 32)
    return lambda: setattr(_weight(model), "data", _weight(model).data + change)


def _optimiser(kind: type[torch.optim.Optimizer], **options: Any) -> Callable[[Whisper], Callable[[], Any]]:
    def prepare(model: Whisper) -> Callable[[], Any]:
        optimiser = kind(model.parameters(), lr=0.1, **options)  # type: ignore[call-arg]

        def step() -> None:
            model(MEL[None], torch.full((1, 3), TOKEN)).square().mean().backward()
            optimiser.step()

        return step

    return prepare


WAYS: dict[str, Callable[[Whisper], Callable[[], Any]]] = {
    "data": _data,
    "no_grad": _no_grad,
    "inference_mode": _inference,
    "kept alias": _kept_alias,
    "kept numpy view": _kept_numpy,
    "kept DLPack view": _kept_dlpack,
    "kept address": _kept_address,
    "memmove": _memory,
    "storage": _storage,
    "another thread": _other_thread,
    "two numbers swapped": _two_swapped,
    "two tensors swapped": _two_tensors_swapped,
    "two tensors' data swapped": _data_swapped,
    "two blocks swapped": _blocks_swapped,
    "pruned": _pruned,
    "parameter assigned": _parameter,
    "buffer assigned": _buffer,
    "set_": _set,
    "vector_to_parameters": _from_vector,
    "load_state_dict": _state_dict,
    "merged LoRA": _lora_merge,
    "SGD": _optimiser(torch.optim.SGD),
    "AdamW": _optimiser(torch.optim.AdamW, foreach=True),
    "fused Adam": _optimiser(torch.optim.Adam, fused=True),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_change_weights(way: str, model: Whisper) -> None:
    change = WAYS[way](model)  # what it keeps is from before the first call
    before = heard(model)
    change()
    assert_follows(model, before)
    change()
    torch.testing.assert_close(heard(model), expected(model), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("way", ["data", "kept numpy view", "kept address", "memmove", "storage", "pruned"])
@pytest.mark.parametrize("packed_before", [False, True])
def test_weights_of_a_loaded_model(way: str, packed_before: bool, model: Whisper, tmp_path: Path) -> None:
    save_checkpoint(model, tmp_path / "model.pt", half=True)
    loaded = load_model(tmp_path / "model.pt", device="cpu")
    before = heard(load_model(tmp_path / "model.pt", device="cpu"))
    if packed_before:
        assert torch.equal(heard(loaded), before)
        assert deferred(loaded) is not None
    change = WAYS[way](loaded)
    change()
    assert_follows(loaded, before)


def test_nothing_is_packed_twice_or_compared_in_vain(
    model: Whisper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    monkeypatch.setattr(fingerprint, "digests", lambda tensors: looked.append(len(tensors)) or digests(tensors))
    save_checkpoint(model, tmp_path / "model.pt")
    loaded = load_model(tmp_path / "model.pt", device="cpu")
    runner = select.runner_for(loaded, False)
    assert select.runner_for(loaded.eval().to("cpu"), False) is runner
    assert not looked  # nobody has reached inside
    assert next(loaded.parameters()).device == loaded.device
    assert len(looked) == 1
    assert select.runner_for(loaded, False) is runner
    assert len(looked) == 2
    _weight(loaded).data[0, 0] += 0  # written to, and still equal
    assert select.runner_for(loaded, False) is runner
    assert load_model(tmp_path / "model.pt", device="cpu").encoder is not loaded.encoder
    assert len(looked) == 3  # who never packed compares nothing


def test_changed_while_they_are_packed(model: Whisper, monkeypatch: pytest.MonkeyPatch) -> None:
    make_runner = select.make_runner

    def slow(*arguments: Any) -> Any:
        runner = make_runner(*arguments)
        _weight(model).data[5, 5] += 30  # by another thread, say
        return runner

    monkeypatch.setattr(select, "make_runner", slow)
    runner = select.runner_for(model, False)
    monkeypatch.setattr(select, "make_runner", make_runner)
    assert select.runner_for(model, False) is not runner
    torch.testing.assert_close(heard(model), expected(model), rtol=1e-3, atol=1e-3)


def test_other_dtypes_and_shapes_behind_the_same_parameter_are_seen(model: Whisper) -> None:
    heard(model)
    weight = _weight(model)
    kept = weight.data
    weight.data = kept.double()
    torch.testing.assert_close(heard(model), expected(model.float()), rtol=1e-3, atol=1e-3)
    embedding = model.decoder.token_embedding.weight
    embedding.data = torch.cat([embedding.data, torch.randn(4, 32)])
    assert not select.usable(model)
    embedding.data = embedding.data[:60]
    assert select.usable(model)
    weight.requires_grad_(False).data = kept.to(torch.int8)
    assert not select.usable(model)


def test_torch_may_swap_tensors(model: Whisper) -> None:
    before = heard(model)
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        model.encoder.double()  # which fails where anybody holds weak references
        model.decoder.double()
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    torch.testing.assert_close(heard(model), before, rtol=1e-3, atol=1e-3)


def test_memory_that_is_given_back_hurts_no_runner(model: Whisper, computed_by: str) -> None:
    if computed_by == "torch":
        pytest.skip("its runner works on the tensors themselves, and torch knows that they have no memory")
    runner = select.runner_for(model, False)
    wanted = runner.encode([MEL])[0].clone()
    for tensor in (*model.parameters(), *model.buffers()):
        if not tensor.is_sparse:
            tensor.data.untyped_storage().resize_(0)
    torch.empty(1 << 16).fill_(7)
    assert torch.equal(runner.encode([MEL])[0], wanted)


def test_refresh_packs_anew(model: Whisper) -> None:
    runner, before = select.runner_for(model, False), heard(model)
    assert model.refresh() is None
    assert select.runner_for(model, False) is not runner
    assert torch.equal(heard(model), before)
    copied = copy.deepcopy(model)
    copied.refresh()  # of which nothing was packed
    assert torch.equal(heard(copied), before)


def test_what_is_changed_while_a_list_runs_is_heard_in_the_next_call() -> None:
    model, noise = random_model(3), np.random.default_rng(0).normal(0, 0.1, (2, 16000)).astype(np.float32)
    options: dict[str, Any] = {"language": "en", "fp16": False, "temperature": 0.0, "sample_len": 12}
    changed: list[float] = []

    def change(done: float, _total: float) -> None:
        if not changed:
            changed.append(done)
            model.decoder.positional_embedding.data[1:] *= -3

    before = model.transcribe(noise[1], **options)
    model.transcribe(list(noise), progress=change, **options)
    assert changed
    after = model.transcribe(noise[1], **options)
    assert after["segments"] == copy.deepcopy(model).transcribe(noise[1], **options)["segments"] != before["segments"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_weights_in_shared_memory_may_be_changed_by_another_process(model: Whisper) -> None:
    model.encoder.share_memory()
    model.decoder.share_memory()
    before = heard(model)
    if (child := os.fork()) == 0:
        ctypes.memset(_at(_weight(model)), 0x42, 400)
        os._exit(0)
    os.waitpid(child, 0)
    assert_follows(model, before)
