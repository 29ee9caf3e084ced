"""The rules as numbers forbid what the filters of the reference path forbid."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from whisper.runtime.pytorch.token_selection import apply_rules
from whisper.sampling.logit_filters import ApplyTimestampRules, LogitFilter, SuppressBlank, SuppressTokens
from whisper.sampling.token_rules import RowRules, rules
from whisper.tokenizer import get_tokenizer

TOKENIZER = get_tokenizer(True, num_languages=99, language="en", task="transcribe")
N_VOCAB, BEGIN, EOT = 51865, TOKENIZER.timestamp_begin, TOKENIZER.eot
PROMPT = [50361, 5, BEGIN + 700, 50258]  # timestamps before the first sampled token count for nothing


def by_filters(logits: Tensor, sampled: list[int], options: dict[str, Any]) -> Tensor:
    """What the reference path leaves of one row."""
    filters: list[LogitFilter] = []
    if options["suppress_blank"]:
        filters.append(SuppressBlank(TOKENIZER, len(PROMPT)))
    if options["suppress_tokens"]:
        filters.append(SuppressTokens(options["suppress_tokens"]))
    if options["timestamps"]:
        filters.append(ApplyTimestampRules(TOKENIZER, len(PROMPT), options["max_initial_timestamp_index"]))
    logits = logits[None].clone()
    for f in filters:
        f.apply(logits, torch.tensor([[*PROMPT, *sampled]]))
    return logits[0]


OPTIONS = st.fixed_dictionaries(
    {
        "suppress_blank": st.booleans(),
        "suppress_tokens": st.sampled_from([[], [1, 2, 50358, 50257], [7]]),
        "timestamps": st.booleans(),
        "max_initial_timestamp_index": st.sampled_from([None, 0, 50, 1499, 4000]),
    }
)
TOKEN = st.one_of(st.integers(0, N_VOCAB - 1), st.integers(BEGIN, N_VOCAB - 1), st.just(N_VOCAB - 1), st.just(EOT))
ROW = st.tuples(OPTIONS, st.lists(TOKEN, max_size=6))


@settings(deadline=None, max_examples=60)
@given(st.lists(ROW, min_size=1, max_size=4), st.integers(0, 9), st.sampled_from([-6.0, 0.0, 3.0]), st.booleans())
def test_every_row_may_say_what_the_filters_let_it_say(
    rows: list[tuple[dict[str, Any], list[int]]], seed: int, favour: float, ties: bool
) -> None:
    logits = torch.randn(len(rows), N_VOCAB, generator=torch.Generator().manual_seed(seed)) * 2
    logits[:, BEGIN:] += favour  # so that timestamps win together, or do not
    if ties:
        logits = logits.round()
    expected = torch.stack([by_filters(logits[i], sampled, o) for i, (o, sampled) in enumerate(rows)])
    apply_rules(logits, rules([RowRules.make(TOKENIZER, N_VOCAB, **o).next_rule(sampled) for o, sampled in rows]))
    assert torch.equal(logits, expected)


def test_rows_of_equal_options_share_their_sets() -> None:
    one = RowRules.make(TOKENIZER, N_VOCAB, suppress_tokens=[3, 1])
    two = RowRules.make(TOKENIZER, N_VOCAB, suppress_tokens=(1, 3), max_initial_timestamp_index=5)
    other = RowRules.make(TOKENIZER, N_VOCAB, suppress_tokens=[1])
    joined = rules([r.next_rule(s) for r, s in [(one, [5]), (two, [6]), (other, [5]), (one, [])]])
    assert [ids.tolist() for ids in joined.suppressed] == [
        [1, 3, TOKENIZER.no_timestamps], [1, TOKENIZER.no_timestamps], [1, 3, 220, EOT, TOKENIZER.no_timestamps],
    ]  # fmt: skip
    assert joined.suppressed_by.tolist() == [0, 0, 1, 2]
