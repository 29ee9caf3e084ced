"""What may not be said: each rule by hand, and each row for itself."""

import pytest
import torch
from torch import Tensor

from whisper.sampling.logit_filters import ApplyTimestampRules, LogitFilter, SuppressBlank, SuppressTokens
from whisper.tokenizer import Tokenizer, get_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return get_tokenizer(True, num_languages=99, language="en", task="transcribe")


def allowed(filter_: LogitFilter, tokens: list[int], n_vocab: int, logits: Tensor | None = None) -> set[int]:
    logits = torch.zeros(1, n_vocab) if logits is None else logits
    filter_.apply(logits, torch.tensor([tokens]))
    return set((logits[0] > -torch.inf).nonzero()[:, 0].tolist())


def test_timestamp_rules(tokenizer: Tokenizer) -> None:
    n_vocab, begin, eot = 51865, tokenizer.timestamp_begin, tokenizer.eot
    everything = set(range(n_vocab)) - {tokenizer.no_timestamps}
    rules = ApplyTimestampRules(tokenizer, 2, 50)
    favoured = torch.zeros(1, n_vocab)
    favoured[0, [100, eot]] = 50.0  # a word and the end so likely that timestamps do not win together

    def after(sampled: list[int]) -> set[int]:
        return allowed(rules, [1, 2, *sampled], n_vocab, favoured.clone())

    assert after([]) == set(range(begin, begin + 51))
    assert after([begin + 10]) == {t for t in everything if t < begin}
    assert after([begin + 10, 5]) == {t for t in everything if t < begin or t > begin + 10}
    assert after([begin + 10, 5, begin + 20]) == {t for t in everything if t >= begin + 20 or eot <= t < begin}
    assert after([begin + 10, 5, begin + 20, begin + 20]) == {t for t in everything if t < begin}
    assert after([begin, 5, begin + 20, begin + 30, 6]) == {t for t in everything if not begin <= t <= begin + 30}


def test_timestamps_win_together(tokenizer: Tokenizer) -> None:
    n_vocab, begin = 51865, tokenizer.timestamp_begin
    logits = torch.full((1, n_vocab), -20.0)
    logits[0, 100] = 0.0
    logits[0, begin + 30 : begin + 60] = -1.0  # each below the word, all thirty above it
    assert allowed(ApplyTimestampRules(tokenizer, 2, None), [1, 2, begin, 5], n_vocab, logits) == set(
        range(begin + 1, n_vocab)
    )


def test_timestamp_rules_treat_each_row_for_itself(tokenizer: Tokenizer) -> None:
    begin = tokenizer.timestamp_begin
    rows = [[begin + 10, 5, 6], [begin + 10, 5, begin + 20], [begin + 10, begin + 12, 6], [begin, 7, 8]]
    rules = ApplyTimestampRules(tokenizer, 0, None)
    together = torch.randn(4, 51865, generator=torch.Generator().manual_seed(0)) * 3
    alone = [row.clone()[None] for row in together]
    rules.apply(together, torch.tensor(rows))
    for i, row in enumerate(rows):
        rules.apply(alone[i], torch.tensor([row]))
        assert torch.equal(alone[i][0], together[i])


def test_blank_is_suppressed_at_the_start_only(tokenizer: Tokenizer) -> None:
    rule = SuppressBlank(tokenizer, 3)
    blank = {*tokenizer.encode(" "), tokenizer.eot}
    assert allowed(rule, [1, 2, 3], 51865) == set(range(51865)) - blank
    assert len(allowed(rule, [1, 2, 3, 4], 51865)) == 51865


def test_suppressed_tokens_never_come() -> None:
    rule = SuppressTokens([3, 5])
    assert allowed(rule, [1], 8) == {0, 1, 2, 4, 6, 7}
    assert allowed(rule, [1, 2], 8) == {0, 1, 2, 4, 6, 7}  # and not at the first step alone
    assert len(allowed(SuppressTokens([]), [1], 8)) == 8
