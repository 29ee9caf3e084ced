"""Choosing tokens: greedy, sampled, by beams; and the ranking of candidates."""

import math
from typing import Any

import pytest
import torch

from whisper.sampling.search import BeamSearchDecoder, GreedyDecoder, MaximumLikelihoodRanker


def test_greedy_takes_the_best_and_stops_counting_after_the_end() -> None:
    greedy = GreedyDecoder(0.0, eot=3)
    sums = torch.zeros(2)
    logits = torch.log(torch.tensor([[0.1, 0.6, 0.2, 0.1], [0.1, 0.6, 0.2, 0.1]]))
    tokens, completed = greedy.update(torch.tensor([[0], [3]]), logits, sums)
    assert tokens.tolist() == [[0, 1], [3, 3]]
    assert not completed
    assert sums.tolist() == pytest.approx([math.log(0.6), 0.0])
    tokens, completed = greedy.update(torch.tensor([[3], [3]]), logits, sums)
    assert completed


def test_sampling_follows_the_tempered_distribution() -> None:
    torch.manual_seed(0)
    probabilities = torch.tensor([0.5, 0.3, 0.2])
    tokens, _ = GreedyDecoder(2.0, eot=9).update(
        torch.zeros(20000, 1, dtype=torch.long), probabilities.log().expand(20000, 3), torch.zeros(20000)
    )
    tempered = probabilities.sqrt() / probabilities.sqrt().sum()
    assert torch.bincount(tokens[:, 1]) / 20000 == pytest.approx(tempered, abs=0.015)


class TableInference:
    """Stands for the network: remembers how the rows were moved."""

    def __init__(self) -> None:
        self.moves: list[list[int]] = []

    def rearrange_kv_cache(self, source_indices: Any) -> None:
        self.moves.append(list(source_indices))


def search(table: dict[tuple[int, ...], list[float]], beam: int, patience: float, steps: int) -> Any:
    """Run a beam search in a language of three words and an end (3), given by next-token probabilities."""
    inference = TableInference()
    decoder = BeamSearchDecoder(beam, 3, inference, patience)
    tokens, sums = torch.full((beam, 1), 9), torch.zeros(beam)
    for _ in range(steps):
        rows = [table.get(tuple(row[1:]), [0.25] * 4) for row in tokens.tolist()]
        tokens, completed = decoder.update(tokens, torch.tensor(rows).log(), sums)
        if completed:
            break
    candidates, scores = decoder.finalize(tokens[None], sums[None])
    found = {tuple(t.tolist()[1:]): s for t, s in zip(candidates[0], scores[0], strict=True)}
    return found, inference.moves


def test_beam_search_finds_what_greedy_misses() -> None:
    table = {
        (): [0.5, 0.4, 0.05, 0.05],
        (0,): [0.3, 0.3, 0.2, 0.2],  # the greedy way: spreads out
        (1,): [0.02, 0.03, 0.05, 0.9],  # the better sentence: ends surely
    }
    found, moves = search(table, beam=2, patience=1.0, steps=4)
    assert max(found, key=found.__getitem__) == (1, 3)
    assert found[(1, 3)] == pytest.approx(math.log(0.4 * 0.9), abs=1e-5)
    assert moves[0] == [1, 1]  # at the first step all rows are the same; the last to offer a sequence counts
    assert len(found) >= 2


def test_unfinished_beams_fill_up_the_candidates() -> None:
    found, _ = search({(): [0.6, 0.3, 0.1, 0.0], (0,): [0.9, 0.1, 0, 0], (1,): [0.9, 0.1, 0, 0]}, 2, 1.0, 2)
    assert set(found) == {(0, 0, 3), (1, 0, 3)}
    assert found[(0, 0, 3)] == pytest.approx(math.log(0.54), abs=1e-5)


def test_patience_waits_for_more_candidates() -> None:
    table = {(): [0.3, 0.1, 0.2, 0.4]} | {(i,): [0.1, 0.1, 0.1, 0.7] for i in range(3)}
    hasty, _ = search(table, 2, 0.5, 5)
    patient, _ = search(table, 2, 2.0, 5)
    assert (3,) in hasty
    assert len(patient) > len(hasty)


def test_ranking() -> None:
    tokens = [[torch.zeros(2), torch.zeros(10)]]
    assert MaximumLikelihoodRanker(None).rank(tokens, [[-2.0, -5.0]]) == [1]
    assert MaximumLikelihoodRanker(0.0).rank(tokens, [[-2.0, -5.0]]) == [0]
    assert MaximumLikelihoodRanker(1.0).rank(tokens, [[-2.0, -5.0]]) == [0]
    assert MaximumLikelihoodRanker(None).rank([[torch.zeros(0), torch.zeros(3)]], [[-0.1, -9.0]]) == [1]
