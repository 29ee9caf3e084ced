"""The tokens that are selected are the best, in order, and the same in any batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from whisper.runtime.pytorch.token_selection import apply_rules, best_tokens
from whisper.sampling.token_rules import RowRules, rules
from whisper.tokenizer import get_tokenizer

TOKENIZER = get_tokenizer(True, num_languages=99, language="en", task="transcribe")
N_VOCAB, BEGIN = 51865, TOKENIZER.timestamp_begin


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 5), st.integers(1, 9), st.integers(0, 99), st.sampled_from([1.0, 4.0]), st.booleans())
def test_the_best_come_in_order_and_equal_ones_by_id(
    n_rows: int, n_best: int, seed: int, spread: float, forbidden: bool
) -> None:
    logits = (torch.randn(n_rows, 3000, generator=torch.Generator().manual_seed(seed)) * spread).round()
    if forbidden:
        logits[0, 5:] = -torch.inf  # fewer are left than are asked for
    ids, logprobs = best_tokens(logits, n_best)
    expected = np.argsort(-logits.numpy(), axis=-1, kind="stable")[:, :n_best]
    assert ids.tolist() == expected.tolist()
    assert ids.dtype == np.int32
    reference = torch.log_softmax(logits, dim=-1).numpy()
    assert np.array_equal(logprobs, np.take_along_axis(reference, expected, axis=-1))


@pytest.mark.parametrize("n_threads", [1, 2])
def test_a_row_has_the_same_choice_alone_and_in_any_batch(n_threads: int) -> None:
    logits = torch.randn(9, N_VOCAB, generator=torch.Generator().manual_seed(1)) * 3
    row_rules = [RowRules.make(TOKENIZER, N_VOCAB).next_rule([BEGIN, 5 + i]) for i in range(9)]
    before = torch.get_num_threads()
    alone = []
    for i in range(9):
        row = logits[i : i + 1].clone()
        apply_rules(row, rules(row_rules[i : i + 1]))
        alone.append(best_tokens(row, 3))
    torch.set_num_threads(n_threads)
    try:
        apply_rules(logits, rules(row_rules))
        ids, logprobs = best_tokens(logits, 3)
    finally:
        torch.set_num_threads(before)
    for i, (ids_alone, logprobs_alone) in enumerate(alone):
        assert np.array_equal(ids[i], ids_alone[0])
        assert np.array_equal(logprobs[i], logprobs_alone[0])
