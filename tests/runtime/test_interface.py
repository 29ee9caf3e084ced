"""What every runner must do: give the reference path's logits, whatever is asked together, in pieces, or anew.

One suite for all that fill the contract. float32 is compared closely; the others by the tokens that they would choose,
and with themselves: a row gives the same bits alone and in any batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from whisper import load_model
from whisper.device.hardware import free_memory
from whisper.errors import OptionError, ShapeError
from whisper.model import KVCache, Whisper, disable_sdpa
from whisper.runtime.interface import Batch, EncodedWindow, RowTable, Runner, check_room
from whisper.runtime.native import kernels
from whisper.runtime.native import runner as native_runner
from whisper.runtime.pytorch.runner import TorchRunner
from whisper.runtime.pytorch.token_selection import apply_rules, best_tokens
from whisper.sampling.token_rules import RowRules, rules
from whisper.tokenizer import get_tokenizer

from ..models import random_model
from .short_windows import encode_by_modules, in_full, repeats

START = [2958, 2959, 359]
TEXTS = [[*START, 64, 440, 1001, 7], [*START, 63, 9, 8], [61, 11, 12, 13, 14, 15, *START, 64, 5], START]


def torch_factory(compute_type: str) -> Callable[[Whisper], Runner]:
    return lambda model: TorchRunner(model.dims, model.state_dict(), compute_type)


def run_again(function: Callable[[], Tensor]) -> tuple[Callable[[], Any], Tensor]:
    """Stands for a CUDA graph: a replay reads the captured inputs and writes into the captured result."""
    result = function()
    return lambda: result.copy_(function()), result


def static_factory(compute_type: str) -> Callable[[Whisper], Runner]:
    return lambda model: TorchRunner(model.dims, model.state_dict(), compute_type, capture=run_again)


def cuda_factory(compute_type: str) -> Callable[[Whisper], Runner]:
    return lambda model: TorchRunner(model.dims, model.state_dict(), compute_type, "cuda")


def native_factory(compute_type: str) -> Callable[[Whisper], Runner]:
    def make(model: Whisper) -> Runner:
        if kernels.load() is None:
            pytest.skip(f"the compiled kernels are not here: {kernels.why_not()}")
        return native_runner.NativeRunner(model.dims, model.state_dict(), compute_type)

    return make


FACTORIES = {
    "torch float32": torch_factory("float32"),
    "torch bfloat16": torch_factory("bfloat16"),
    "torch int8": torch_factory("int8"),
    "torch float32, fixed shapes": static_factory("float32"),
    "torch int8, fixed shapes": static_factory("int8"),
    "native float32": native_factory("float32"),
    "native bfloat16": native_factory("bfloat16"),
    "native int8": native_factory("int8"),
}
CUDA = {
    "cuda float32": cuda_factory("float32"),
    "cuda float16": cuda_factory("float16"),
    "cuda int8": cuda_factory("int8"),
}
RUNNERS = [
    *((name, "random") for name in FACTORIES),
    ("torch int8", "nano"),
    ("native int8", "nano"),  # its heads are wide enough for keys and values in int8
    ("native bfloat16", "nano"),  # and its products for whole tiles of AMX
    *(pytest.param((name, "random"), marks=pytest.mark.gpu) for name in CUDA),
]


def small_model() -> Whisper:
    """Random weights, three layers, and a vocabulary that is small and odd."""
    model = random_model(3, n_text_layer=3)
    model.dims.n_vocab = 3001
    model.decoder.token_embedding.weight = torch.nn.Parameter(model.decoder.token_embedding.weight[:3001].clone())
    return model


@pytest.fixture(scope="module", params=RUNNERS, ids=str)
def pair(request: pytest.FixtureRequest) -> tuple[str, Whisper]:
    name, which = request.param
    return name, small_model() if which == "random" else load_model("nano", device="cpu")


@pytest.fixture(scope="module")
def model(pair: tuple[str, Whisper]) -> Whisper:
    return pair[1]


@pytest.fixture(scope="module")
def features(model: Whisper) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    mels = torch.randn(2, model.dims.n_mels, 3000, generator=generator)
    with torch.no_grad():
        return list(model.encoder(mels))


@pytest.fixture(scope="module")
def runner(pair: tuple[str, Whisper]) -> Runner:
    return (FACTORIES | CUDA)[pair[0]](pair[1])


@pytest.fixture(scope="module")
def exact(pair: tuple[str, Whisper]) -> bool:
    """Whether a row must give the same bits in any batch: in low precision, on a CPU, shapes as they come."""
    return pair[0] in FACTORIES and "float32" not in pair[0] and "fixed shapes" not in pair[0]


@pytest.fixture
def audios(runner: Runner, features: list[Tensor]) -> list[EncodedWindow]:
    return [runner.project(f) for f in features]


def read(runner: Runner, row: int, tokens: Sequence[int], audio: EncodedWindow, start: int = 0) -> Tensor:
    """Run tokens of one row, and return the logits after each."""
    n = len(tokens)
    return runner.forward(Batch(tokens, [row] * n, range(start, start + n), [audio] * n, range(n))).clone()


@torch.no_grad()
def reference(model: Whisper, features: Tensor, tokens: Sequence[int]) -> Tensor:
    return model.decoder(torch.tensor([list(tokens)]), features[None])[0]


def assert_close(runner: Runner, got: Tensor, expected: Tensor) -> None:
    """float32 is the same; the others rank tokens much as the reference does."""
    got, expected = got.cpu(), expected.cpu()
    if runner.compute_type == "float32":
        assert (got - expected).abs().max() < 1e-4 * max(1.0, float(expected.abs().max()))
    else:
        spread = float((expected - expected.mean(dim=-1, keepdim=True)).std())
        bound = {"float16": 0.05, "bfloat16": 0.1, "int8": 0.25}[runner.compute_type]
        assert float((got - expected).std()) < bound * spread


# ---------------------------------------------------------------------------------------------------------
# Sound
# ---------------------------------------------------------------------------------------------------------


def test_encode(runner: Runner, model: Whisper, features: list[Tensor]) -> None:
    mels = torch.randn(2, model.dims.n_mels, 3000, generator=torch.Generator().manual_seed(0))
    encoded = runner.encode(list(mels))
    for mel, got, expected in zip(mels, encoded, features, strict=True):
        assert got.dtype == torch.float32
        assert_close(runner, runner.encode([mel])[0], got)
        assert_close(runner, got, expected)
    for n in (2999, 3002, 0):
        mel = torch.zeros(model.dims.n_mels, n)
        with pytest.raises(ShapeError, match=f"{n}\\)"):
            runner.encode([mel])


def test_features_of_another_shape_are_refused(runner: Runner, features: list[Tensor]) -> None:
    with pytest.raises(ShapeError, match="1501"):
        runner.project(torch.cat([features[0], features[1][:1]]))


# ---------------------------------------------------------------------------------------------------------
# Text
# ---------------------------------------------------------------------------------------------------------


def test_a_text_at_once_in_pieces_and_token_by_token(
    runner: Runner, model: Whisper, features: list[Tensor], audios: list[EncodedWindow]
) -> None:
    rows = runner.take_rows(3)
    for text in TEXTS:
        expected = reference(model, features[0], text)
        at_once = read(runner, rows[0], text, audios[0])
        pieces = [read(runner, rows[1], text[a:b], audios[0], a) for a, b in ((0, 2), (2, len(text)))]
        steps = [read(runner, rows[2], [token], audios[0], i) for i, token in enumerate(text)]
        for got in (at_once, torch.cat(pieces), torch.cat(steps)):
            assert got.dtype == torch.float32
            assert_close(runner, got, expected)
    runner.free_rows(rows)


def test_a_long_text_to_the_last_position(
    runner: Runner, model: Whisper, features: list[Tensor], audios: list[EncodedWindow]
) -> None:
    n_ctx = model.dims.n_text_ctx
    text = (START + list(range(300, 300 + n_ctx)))[:n_ctx]
    expected = reference(model, features[1], text)
    [row] = runner.take_rows(1)
    whole = range(n_ctx)
    for items in (whole[:383], whole[383:384], whole[384:385], whole[385 : n_ctx - 1], whole[n_ctx - 1 :]):
        got = runner.forward(
            Batch([text[i] for i in items], [row] * len(items), items, [audios[1]] * len(items), [len(items) - 1])
        )
        assert_close(runner, got[0], expected[items[-1]])
    with pytest.raises(ShapeError, match="449"):
        read(runner, row, [7], audios[1], n_ctx)
    runner.free_rows([row])


BEFORE = {1: TEXTS[1], 3: (START * 30)[:70], 4: START, 5: (START * 30)[:63], 6: (START * 30)[:64]}  # by row


def mixture(rows: list[int], audios: list[EncodedWindow]) -> list[tuple[int, int, int, EncodedWindow]]:
    """A batch of two prompts and of single steps at different lengths, as items."""
    items = [(token, rows[0], i, audios[0]) for i, token in enumerate(TEXTS[0])]
    items.append((77, rows[1], len(BEFORE[1]), audios[1]))
    items += [(token, rows[2], i, audios[2]) for i, token in enumerate(TEXTS[2])]
    return items + [(75 + i, rows[i], len(BEFORE[i]), audios[i]) for i in range(3, 7)]


def test_prompts_and_steps_of_any_rows_in_one_call(
    runner: Runner, model: Whisper, features: list[Tensor], exact: bool
) -> None:
    """And each row gives what it gives alone: with int8 and bfloat16 to the bit."""
    audios = [runner.project(features[i % 2]) for i in range(7)]
    sets = [runner.take_rows(7) for _ in range(2)]
    for rows in sets:
        for i, text in BEFORE.items():
            read(runner, rows[i], text, audios[i])
    items = mixture(sets[0], audios)
    together = runner.forward(Batch(*_columns(items), range(len(items)))).clone()

    items = mixture(sets[1], audios)
    for i, row in enumerate(sets[1]):
        own = [j for j, item in enumerate(items) if item[1] == row]
        alone = runner.forward(Batch(*_columns([items[j] for j in own]), range(len(own)))).clone()
        if exact:
            assert torch.equal(together[own], alone)
        text = [*BEFORE.get(i, []), *(items[j][0] for j in own)]
        assert_close(runner, together[own], reference(model, features[i % 2], text)[-len(own) :])
    for rows in sets:
        runner.free_rows(rows)


def _columns(items: list[tuple[int, int, int, EncodedWindow]]) -> Any:
    return [list(column) for column in zip(*items, strict=True)]


def test_only_what_is_wanted_comes_back_in_its_order(runner: Runner, audios: list[EncodedWindow]) -> None:
    rows = runner.take_rows(2)
    whole = read(runner, rows[0], TEXTS[0], audios[0])
    n = len(TEXTS[0])
    some = runner.forward(Batch(TEXTS[0], [rows[1]] * n, range(n), [audios[0]] * n, [n - 1, 2]))
    assert some.shape == (2, whole.shape[1])
    assert_close(runner, some, whole[[n - 1, 2]])
    some.fill_(0)  # the caller may write into it
    backwards = range(n - 1, -1, -1)
    assert_close(
        runner, runner.forward(Batch(TEXTS[0], [rows[1]] * n, range(n), [audios[0]] * n, backwards)), whole.flip(0)
    )
    runner.free_rows(rows)


def test_nine_rows_give_what_one_gives(runner: Runner, features: list[Tensor], exact: bool) -> None:
    others = [runner.project(features[0] * (1 + i / 10)) for i in range(9)]
    rows = runner.take_rows(9)
    for row, audio in zip(rows, others, strict=True):
        read(runner, row, TEXTS[0], audio)
    n = len(TEXTS[0])
    together = runner.forward(Batch(range(9), rows, [n] * 9, others, range(9))).clone()
    for i in range(9):
        alone = runner.forward(Batch([i], [rows[i]], [n], [others[i]], [0]))
        assert_close(runner, alone[0], together[i])
        if exact:
            assert torch.equal(alone[0], together[i])
    runner.free_rows(rows)


LENGTHS = [3000, 24, 1008, 2976, 1008]  # frames of windows that are encoded together


def test_windows_of_any_length_are_encoded_together(runner: Runner, model: Whisper) -> None:
    """As the network encodes them; on a CPU each as alone to the bit, whatever was encoded before."""
    generator = torch.Generator().manual_seed(1)
    mels = [torch.randn(model.dims.n_mels, n, generator=generator) for n in LENGTHS]
    together = [encoded.clone() for encoded in runner.encode(mels)]
    for mel, encoded in zip(mels, together, strict=True):
        assert encoded.shape == (len(repeats(mel.shape[1] // 2)), model.dims.n_audio_state)
        assert_close(runner, encoded, encode_by_modules(model, mel))
    for i in (1, 0, 3, 2, 4):
        alone = runner.encode([mels[i]])[0]
        assert torch.equal(alone, together[i]) if alone.device.type == "cpu" else alone.isfinite().all()


def test_windows_of_any_length_in_one_batch(
    runner: Runner, model: Whisper, features: list[Tensor], exact: bool
) -> None:
    """A full window after short ones is what it was before; of short ones no position behind their end is read."""
    sizes = [1500, 24, 504, 1488, 12]
    own = [features[i % 2][: len(repeats(n_own))] for i, n_own in enumerate(sizes)]
    before = runner.project(features[0])
    rows = runner.take_rows(6)
    at_first = read(runner, rows[5], TEXTS[0], before)
    windows = [runner.project(f) for f in own]
    items = [(token, rows[i], p, windows[i]) for i in range(5) for p, token in enumerate(TEXTS[0])]
    together = runner.forward(Batch(*_columns(items), range(len(items)))).clone().view(5, len(TEXTS[0]), -1)
    for i, f in enumerate(own):
        assert_close(runner, together[i], reference(model, in_full(f, sizes[i]), TEXTS[0]))
        alone = read(runner, rows[5], TEXTS[0], windows[i])
        assert torch.equal(alone, together[i]) if exact else True
    windows.clear()
    items.clear()
    assert torch.equal(read(runner, rows[5], TEXTS[0], runner.project(features[0])), at_first)
    runner.free_rows(rows)


def test_attention_over_a_short_window(runner: Runner, model: Whisper, features: list[Tensor]) -> None:
    n_own, tokens, heads = 336, [*START, 63, *range(500, 520), 57], [(model.dims.n_text_layer - 1, 1), (0, 0)]
    own, cache = features[1][: len(repeats(n_own))], KVCache(record_attention=True)
    with disable_sdpa(), torch.no_grad():
        model.decoder(torch.tensor([tokens]), in_full(own, n_own)[None], kv_cache=cache)
    assert cache.cross_qk is not None
    expected = torch.stack([cache.cross_qk[layer][0, head] for layer, head in heads])
    qk, _ = runner.attention_scores(runner.project(own), tokens, heads, 3, 21)
    assert qk.shape == (2, len(tokens), len(own))
    qk, expected = (scores[..., :n_own] for scores in (qk, expected))
    qk, expected = (scores - scores.mean(dim=-1, keepdim=True) for scores in (qk, expected))
    assert_close(runner, qk, expected)


# ---------------------------------------------------------------------------------------------------------
# Rows
# ---------------------------------------------------------------------------------------------------------


def test_beams_that_change_place(
    runner: Runner, model: Whisper, features: list[Tensor], audios: list[EncodedWindow]
) -> None:
    """Each row continues what the row it follows was, through several moves."""
    rows = runner.take_rows(5)[1:4]  # in the middle of others
    texts = {row: list(START) for row in rows}
    read(runner, rows[0], START, audios[0])
    runner.reorder(rows, [rows[0]] * 3)
    moves = [[0, 1, 2], [2, 0, 0], [1, 1, 0], [0, 2, 1], [2, 2, 2]]
    for step, sources in enumerate(moves):
        new = [100 + 10 * step + i for i in range(3)]
        position = len(START) + step
        got = runner.forward(Batch(new, rows, [position] * 3, [audios[0]] * 3, range(3)))
        for i, row in enumerate(rows):
            texts[row] = [*texts[row], new[i]]
            assert_close(runner, got[i], reference(model, features[0], texts[row])[-1])
        runner.reorder(rows, [rows[s] for s in sources])
        texts = {row: texts[rows[s]] for row, s in zip(rows, sources, strict=True)}
    runner.free_rows([rows[0] - 1, *rows, rows[-1] + 1])


def test_rows_taken_again_remember_nothing(runner: Runner, audios: list[EncodedWindow]) -> None:
    fresh = runner.take_rows(4)
    before = [read(runner, row, TEXTS[0], audios[0]) for row in fresh]
    runner.reorder(fresh, [fresh[1]] * 4)
    for row in fresh[:3]:
        read(runner, row, START * 20, audios[1], len(TEXTS[0]))
    runner.free_rows(fresh[1:])
    again = runner.take_rows(40)  # among them the three, and so many that the cache grows
    assert len(set(again) | {fresh[0]}) == 41
    for row in again[:3] + again[-1:]:
        assert torch.equal(read(runner, row, TEXTS[0], audios[0]), before[0])
    kept = read(runner, fresh[0], [5], audios[0], len(TEXTS[0]) + 60)
    assert kept.isfinite().all()
    runner.free_rows([fresh[0], *again])


def test_row_table() -> None:
    table = RowTable(6)
    assert table.take(3) == [0, 1, 2]
    table.write([0, 0, 1], [0, 1, 0])
    table.reorder([1, 2], [0, 1])
    assert table.table[:, :2].tolist() == [[0, 0], [0, 0], [1, 0]]
    table.write([1, 2], [2, 2])
    assert table.table[1:, 2].tolist() == [1, 2]
    table.free([1])
    assert (table.n_rows, table.n_taken) == (3, 2)
    assert table.take(2) == [1, 3]
    assert table.table.shape == (4, 6)


# ---------------------------------------------------------------------------------------------------------
# Word times, choice
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", [-1, 51865, 2**40])
def test_tokens_that_are_none_do_not_read_foreign_memory(token: int) -> None:
    runner = native_factory("float32")(random_model(1, n_state=32))
    audio = runner.project(torch.zeros(1500, 32))
    rows = runner.take_rows(1)
    with pytest.raises(ShapeError, match="for a vocabulary of 51865"):
        runner.forward(Batch([1, token], rows * 2, [0, 1], [audio] * 2, [1]))


def test_more_rows_than_memory_has_are_refused() -> None:
    dims, cpu = random_model(1, n_state=32).dims, torch.device("cpu")
    assert 0 < free_memory(cpu) < 2**50
    check_room(100, dims, cpu)
    with pytest.raises(OptionError, match="asks for 1000000000 texts at once"):
        check_room(10**9, dims, cpu)


def test_the_memory_of_many_rows_is_given_back() -> None:
    runner = native_factory("float32")(random_model(1, n_state=32))
    few, many = runner.take_rows(2), runner.take_rows(200)
    runner.free_rows(many)
    assert runner.take_rows(1) == [2]  # while others run, nothing is moved
    runner.free_rows([*few, 2])
    assert len(runner._kv_rows) == 0  # type: ignore[attr-defined]
    assert runner.take_rows(3) == [0, 1, 2]


def test_attend_sees_what_the_reference_sees(
    runner: Runner, model: Whisper, features: list[Tensor], audios: list[EncodedWindow]
) -> None:
    tokens = [*START, 63, *range(500, 520), 57]
    heads = [(model.dims.n_text_layer - 1, 1), (0, 0), (model.dims.n_text_layer - 1, 0)]
    cache = KVCache(record_attention=True)
    with disable_sdpa(), torch.no_grad():
        logits = model.decoder(torch.tensor([tokens]), features[1][None], kv_cache=cache)[0]
    assert cache.cross_qk is not None
    expected = torch.stack([cache.cross_qk[layer][0, head] for layer, head in heads])
    qk, got = runner.attention_scores(audios[1], tokens, heads, 3, 21)
    assert qk.shape == expected.shape
    assert qk.dtype == torch.float32
    qk, expected = (scores - scores.mean(dim=-1, keepdim=True) for scores in (qk, expected))  # all that a softmax sees
    assert_close(runner, qk, expected)
    assert_close(runner, got, logits[3:24])


@pytest.mark.parametrize("n_best", [1, 6])
def test_choose_follows_the_rules(runner: Runner, n_best: int) -> None:
    tokenizer = get_tokenizer(True, num_languages=99, language="en", task="transcribe")
    begin, n_vocab = tokenizer.timestamp_begin, 51865
    own = RowRules.make(tokenizer, n_vocab, suppress_tokens=[1, 2, 900], max_initial_timestamp_index=50)
    plain = RowRules.make(tokenizer, n_vocab, suppress_tokens=[7], timestamps=False)
    histories = [(own, []), (own, [begin, 5]), (plain, []), (own, [begin, 5, begin + 9]), (plain, [3])]
    row_rules = rules([r.next_rule(sampled) for r, sampled in histories])
    for seed, favour in enumerate((-6.0, 0.0, 4.0)):
        logits = torch.randn(5, n_vocab, generator=torch.Generator().manual_seed(seed)) * 2
        logits[:, begin:] += favour
        logits[3, eot := tokenizer.eot] = logits[3, eot + 1] = 9.0  # equal: the lower comes first
        expected = logits.clone()
        apply_rules(expected, row_rules)
        expected_ids, expected_logprobs = best_tokens(expected, n_best)
        ids, logprobs = runner.select_tokens(logits, row_rules, n_best)
        assert ids.tolist() == expected_ids.tolist()
        assert np.allclose(logprobs, expected_logprobs, atol=1e-4)
        assert torch.equal(logits, expected)


def test_its_memory_is_told(runner: Runner, model: Whisper) -> None:
    d = model.dims
    numbers = 2 * d.n_text_layer * d.n_text_state
    assert runner.row_bytes >= 2 * numbers * d.n_text_ctx
    assert runner.window_bytes >= numbers * d.n_audio_ctx  # int8 at the least
