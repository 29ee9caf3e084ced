"""The compiled kernels are given what they take, or an error comes instead: never a look at foreign memory."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from whisper import timing
from whisper.errors import ShapeError
from whisper.model import Whisper
from whisper.runtime.interface import Batch, EncodedWindow, RowTable, TokenMask
from whisper.runtime.native import kernels
from whisper.runtime.native.pointers import address
from whisper.tokenizer import get_tokenizer

from ...models import random_model

needs_kernels = pytest.mark.skipif(kernels.load() is None, reason="the compiled kernels are not here")


@pytest.mark.parametrize(
    "array",
    [
        torch.zeros(4, dtype=torch.float16),
        torch.zeros(4, dtype=torch.float64),
        torch.zeros(4, dtype=torch.int32),
        torch.zeros(4, device="meta"),
        torch.zeros(3),
        torch.zeros(5),
        torch.zeros(8)[::2],
        torch.zeros(4).to_sparse(),
        np.zeros(4, np.float32)[::-1],
        np.zeros(4, np.float64),
        [0.0] * 4,
        None,
    ],
    ids=str,
)
def test_another_array_is_refused(array: Any) -> None:
    dtype = np.float32 if isinstance(array, np.ndarray) else torch.float32
    with pytest.raises(ShapeError, match="logits"):
        address(array, dtype, 4, "logits")


def test_the_address_is_that_of_the_first_number() -> None:
    tensor, array = torch.arange(6, dtype=torch.float32), np.arange(6, dtype=np.float32)
    assert address(tensor[2:], torch.float32, 4, "x") == tensor.data_ptr() + 8
    assert address(array[2:], np.float32, 4, "x") == array.ctypes.data + 8
    array.setflags(write=False)
    assert address(array, np.float32, 6, "x") == array.ctypes.data
    address(array[:0], np.float32, 0, "nothing")


@pytest.fixture(scope="module")
def model() -> Whisper:
    return random_model(11)


@pytest.fixture(scope="module")
def runner(model: Whisper) -> Any:
    from whisper.runtime.native.runner import NativeRunner

    return NativeRunner(model.dims, model.state_dict(), "float32")


@pytest.fixture(scope="module")
def heard(runner: Any) -> EncodedWindow:
    audio: EncodedWindow = runner.project(runner.encode([torch.randn(80, 3000)])[0])
    return audio


GOOD: dict[str, Any] = {"tokens": [5, 6], "rows": [0, 0], "positions": [0, 1], "wanted": [1]}
BAD: dict[str, dict[str, Any]] = {
    "no items": {"tokens": [], "rows": [], "positions": []},
    "a token behind the vocabulary": {"tokens": [5, 51865]},
    "a negative token": {"tokens": [-1, 5]},
    "a row too few": {"rows": [0]},
    "a row that nobody took": {"rows": [0, 3]},
    "a negative row": {"rows": [0, -1]},
    "a position behind the context": {"positions": [0, 448]},
    "a negative position": {"positions": [-1, 0]},
    "an item that is not there": {"wanted": [2]},
    "a negative item": {"wanted": [-1]},
}


@needs_kernels
@pytest.mark.parametrize("what", BAD)
def test_a_batch_that_leads_elsewhere_is_refused(what: str, runner: Any, heard: EncodedWindow) -> None:
    row = runner.take_rows(1)
    assert row == [0]
    given = {**GOOD, **BAD[what]}
    try:
        with pytest.raises(ShapeError):
            runner.forward(batch_of(heard, given))
        expected = runner.forward(batch_of(heard, GOOD)).clone()
        assert torch.equal(runner.forward(batch_of(heard, GOOD)), expected)
    finally:
        runner.free_rows(row)


def batch_of(window: EncodedWindow, given: dict[str, Any]) -> Batch:
    windows = [window] * len(given["tokens"])
    return Batch(given["tokens"], given["rows"], given["positions"], windows, given["wanted"])


@needs_kernels
def test_audios_of_others_and_features_of_no_sound_are_refused(runner: Any, heard: EncodedWindow) -> None:
    row = runner.take_rows(1)
    others = [
        dataclasses.replace(heard, cross_kv=heard.cross_kv[:-1]),
        dataclasses.replace(heard, cross_kv=heard.cross_kv.astype(np.float32)),
        dataclasses.replace(heard, cross_kv=None),
    ]
    for audio in others:
        with pytest.raises(ShapeError):
            runner.forward(Batch([5], row, [0], [audio], [0]))
    runner.free_rows(row)
    for features in (torch.zeros(1500, 63), torch.zeros(1501, 64), torch.zeros(0, 64), torch.zeros(1, 1500, 64)):
        with pytest.raises(ShapeError):
            runner.project(features)
    for mel in (torch.zeros(80, 2999), torch.zeros(128, 3000), torch.zeros(1, 80, 3000)):
        with pytest.raises(ShapeError):
            runner.encode([mel])
    assert runner.encode([]) == []


@needs_kernels
def test_features_of_any_precision_and_layout_are_heard_alike(runner: Any, heard: EncodedWindow) -> None:
    row = runner.take_rows(1)
    expected = runner.forward(Batch([5], row, [0], [heard], [0])).clone()
    for features in (
        heard.features.double(),
        heard.features.t().contiguous().t(),
        heard.features.clone().requires_grad_(),
    ):
        assert torch.equal(runner.forward(Batch([5], row, [0], [runner.project(features)], [0])), expected)
    runner.free_rows(row)


@needs_kernels
@pytest.mark.parametrize("head", [(2, 0), (0, 2), (-1, 0), (0, -1)])
def test_heads_that_the_decoder_does_not_have_are_refused(
    head: tuple[int, int], runner: Any, heard: EncodedWindow
) -> None:
    with pytest.raises(ShapeError, match="head"):
        runner.attention_scores(heard, [5, 6, 7], [head], 1, 1)
    with pytest.raises(ShapeError):
        runner.attention_scores(heard, [5, 6, 7], [(0, 0)], 2, 2)
    assert runner.attention_scores(heard, [5, 6, 7], [(0, 0)], 1, 2)[0].shape == (1, 3, 1500)


def rules(**changes: Any) -> TokenMask:
    def ints(value: int) -> Any:
        return np.full(2, value, np.int32)

    given: dict[str, Any] = {
        "suppressed": [np.array([1, 2], np.int32)], "suppressed_by": ints(0), "text_from": ints(0),
        "timestamps_from": ints(50), "timestamps_to": ints(60),
        "timestamp_mass": np.zeros(2, np.bool_), "timestamp_begin": 50,
    }  # fmt: skip
    return TokenMask(**{**given, **changes})


@needs_kernels
@pytest.mark.parametrize(
    "changes",
    [
        {"suppressed": [np.array([1, 60], np.int32)]},
        {"suppressed": [np.array([-1, 2], np.int32)]},
        {"suppressed": [np.array([1, 2])]},
        {"suppressed_by": np.array([0, 1], np.int32)},
        {"suppressed_by": np.array([-1, 0], np.int32)},
        {"suppressed_by": np.zeros(1, np.int32)},
        {"text_from": np.zeros(2)},
        {"timestamps_to": np.zeros((2, 2), np.int32)[:, 0]},
        {"timestamp_mass": np.zeros(2, np.int32)},
        {"timestamp_begin": 61},
        {"timestamp_begin": -1},
    ],
    ids=str,
)
def test_rules_that_do_not_fit_the_logits_are_refused(changes: dict[str, Any], runner: Any) -> None:
    logits = torch.randn(2, 60)
    with pytest.raises(ShapeError):
        runner.select_tokens(logits, rules(**changes), 1)
    assert runner.select_tokens(logits, rules(), 1)[0].shape == (2, 1)


@needs_kernels
def test_logits_that_are_none_are_refused(runner: Any) -> None:
    for logits in (torch.randn(60), torch.randn(0, 60), torch.randn(2, 60).half(), torch.randn(2, 120)[:, ::2]):
        with pytest.raises(ShapeError):
            runner.select_tokens(logits, rules(), 1)
    for n_best in (0, -1, 61):
        with pytest.raises(ShapeError):
            runner.select_tokens(torch.randn(2, 60), rules(), n_best)


@needs_kernels
def test_weights_of_another_network_are_refused(model: Whisper) -> None:
    from whisper.runtime.native.runner import NativeRunner

    for name in ("decoder.blocks.1.mlp.0.bias", "encoder.conv1.weight", "decoder.positional_embedding"):
        state = dict(model.state_dict())
        state[name] = state[name][:-1]
        with pytest.raises(ShapeError, match=name):
            NativeRunner(model.dims, state, "int8")


def test_rows_are_given_back_once() -> None:
    table = RowTable(4)
    rows = table.take(2)
    for wrong in ([2], [-1], [0, 0]):
        with pytest.raises(ShapeError):
            table.free(wrong)
    table.free(rows)
    with pytest.raises(ShapeError, match="not taken"):
        table.free(rows)
    with pytest.raises(ShapeError):
        table.reorder([0], [0])
    assert (table.take(3), table.n_taken) == ([0, 1, 2], 3)


def test_words_of_tokens_that_are_no_text_are_refused(model: Whisper) -> None:
    tokenizer = get_tokenizer(True, language="en")
    for tokens in ([tokenizer.timestamp_begin], [5, tokenizer.eot], [-1]):
        with pytest.raises(ShapeError):
            timing._probabilities(torch.randn(2, 51865), tokenizer.eot, tokens)
    with pytest.raises(ShapeError):
        timing._probabilities(torch.randn(1, 51865), tokenizer.eot, [5, 6])
