"""Grouping of vectors, against a plain implementation that joins by looking at all pairs."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whisper.speakers.clustering import assigned, centroids, cut, linkage, normalized


def vectors(n: int, seed: int, size: int = 8) -> np.ndarray:
    return normalized(np.random.default_rng(seed).standard_normal((n, size)).astype(np.float32))


def joined_by_hand(v: np.ndarray, w: np.ndarray) -> list[float]:
    """The distances of average linkage, from all pairs of all groups."""
    groups, distances = [[i] for i in range(len(v))], []
    d = 1 - v.astype(float) @ v.T.astype(float)

    def mean(a: list[int], b: list[int]) -> float:
        return float(sum(w[i] * w[j] * d[i, j] for i in a for j in b) / (w[a].sum() * w[b].sum()))

    while len(groups) > 1:
        pairs = [(mean(a, b), i, j) for i, a in enumerate(groups) for j, b in enumerate(groups) if i < j]
        distance, i, j = min(pairs)
        distances.append(distance)
        groups[i] += groups.pop(j)
    return distances


@given(st.integers(1, 12), st.integers(0, 10_000))
def test_linkage_is_average_linkage(n: int, seed: int) -> None:
    v = vectors(n, seed)
    w = np.random.default_rng(seed).uniform(0.5, 3, n)
    joins = linkage(v, w)
    assert [distance for distance, _, _ in joins] == pytest.approx(joined_by_hand(v, w))


@given(st.integers(1, 20), st.integers(1, 25), st.integers(0, 1000))
def test_a_known_number_is_kept(n: int, k: int, seed: int) -> None:
    labels = cut(linkage(vectors(n, seed), np.ones(n)), n, 0.2, k, k)
    assert len(set(labels.tolist())) == min(k, n)
    assert sorted(set(labels.tolist())) == list(range(min(k, n)))


def test_groups_that_lie_apart_are_found() -> None:
    rng = np.random.default_rng(0)
    middles = normalized(np.eye(4, 16, dtype=np.float32))
    truth = rng.integers(0, 4, 60)
    v = normalized(middles[truth] + rng.normal(0, 0.05, (60, 16)).astype(np.float32))
    labels = cut(linkage(v, np.ones(60)), 60, 0.3)
    assert len({(a, b) for a, b in zip(labels.tolist(), truth.tolist(), strict=True)}) == 4
    found = centroids(v, np.ones(60), labels)
    assert np.abs(found @ middles.T).max(1).min() > 0.99


def test_limits_of_the_number() -> None:
    v = vectors(10, 3)
    joins = linkage(v, np.ones(10))
    assert len(set(cut(joins, 10, 9.0, 3).tolist())) == 3
    assert len(set(cut(joins, 10, -1.0, 1, 4).tolist())) == 4


@given(st.integers(1, 3), st.integers(1, 6), st.integers(0, 1000))
def test_assignment_is_the_best_one(n_local: int, n_speakers: int, seed: int) -> None:
    s = np.random.default_rng(seed).standard_normal((n_local, n_speakers)).astype(np.float32)
    labels = assigned(s)
    if n_speakers < n_local:
        assert labels.tolist() == s.argmax(1).tolist()
        return
    best = max(sum(s[i, j] for i, j in enumerate(p)) for p in permutations(range(n_speakers), n_local))
    assert len(set(labels.tolist())) == n_local
    assert s[np.arange(n_local), labels].sum() == pytest.approx(best)
