"""Scores of texts and times: hand-computed cases, and the same counts as jiwer."""

from __future__ import annotations

import builtins
import sys
from typing import Any

import jiwer
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whisper.errors import DataError, MissingDependencyError
from whisper.evaluation.scoring import (
    Edits,
    align,
    characters_of,
    count_edits,
    make_difference,
    make_score,
    match_times,
    normalize,
    score_times,
    score_words,
    word_errors,
    words_of,
)


def test_texts_are_compared_by_their_languages_rules() -> None:
    assert words_of("Mr. Brown's colour [cough], twenty-one!", "en") == ["mister", "brown", "is", "color", "21"]
    assert words_of("Ça va, déjà?", "fr") == ["ça", "va", "déjà"]
    assert words_of("你好，世界", "zh") == ["你", "好", "世", "界"]
    assert words_of("สวัสดี", "th") == ["ส", "ว", "ส", "ด"]  # the standard normaliser drops vowels above
    assert characters_of("Ça va!", "fr") == list("ça va")
    assert characters_of("你好， 世界", "zh") == list("你好世界")
    assert normalize("  A\tb ", None) == "a b"


def test_an_alignment_by_hand() -> None:
    steps = align(["the", "quick", "brown", "fox", "ran"], ["the", "quack", "fox", "ran", "away"])
    kinds = [step.kind for step in steps]
    assert sorted(kinds[1:3]) == ["deletion", "substitution"]  # either of the two words may be the one that is missing
    assert [kinds[0], *kinds[3:]] == ["hit", "hit", "hit", "insertion"]
    edits = count_edits(steps)
    assert edits == Edits(hits=3, substitutions=1, deletions=1, insertions=1)
    assert (edits.errors, edits.total) == (3, 5)
    assert edits + edits == Edits(6, 2, 2, 2)
    assert count_edits(align([], ["x"])) == Edits(insertions=1)
    assert count_edits(align(["x"], [])) == Edits(deletions=1)


TEXTS = st.lists(st.sampled_from(["a", "b", "c", "dd", "ee"]), max_size=12)


@settings(max_examples=150, deadline=None)
@given(reference=TEXTS.filter(bool), hypothesis=TEXTS)
def test_counts_are_jiwers(reference: list[str], hypothesis: list[str]) -> None:
    steps = align(reference, hypothesis)
    theirs = jiwer.process_words(" ".join(reference), " ".join(hypothesis))
    ours = count_edits(steps)
    assert (ours.hits, ours.substitutions, ours.deletions, ours.insertions) == (
        theirs.hits, theirs.substitutions, theirs.deletions, theirs.insertions,
    )  # fmt: skip
    assert [step.reference for step in steps if step.reference is not None] == reference
    assert [step.hypothesis for step in steps if step.hypothesis is not None] == hypothesis
    assert word_errors(reference, hypothesis) == ours.errors
    letters = " ".join(reference), " ".join(hypothesis)
    characters = count_edits(align(*(characters_of(text, None) for text in letters)))
    assert characters.errors / characters.total == pytest.approx(jiwer.cer(*letters))


def test_a_rate_is_that_of_all_words_together() -> None:
    score = score_words(["Big trees.", "grow"], ["big trees", "row"])
    assert (score.errors, score.total, score.clips) == (1, 3, 2)
    assert score.low <= score.rate == 1 / 3 <= score.high
    assert str(make_score([1], [4])) == "25.0 % (1 of 4, 1 clip)"  # one clip says nothing about others


def test_intervals_have_their_coverage() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for seed in range(100):
        score = make_score(rng.binomial(10, 0.2, size=60).tolist(), [10] * 60, seed)
        held += score.low <= 0.2 <= score.high
    assert 88 <= held <= 100


def test_the_interval_without_errors_is_not_empty() -> None:
    score = make_score([0] * 60, [1] * 60)
    assert (score.low, score.rate) == (0, 0)
    assert score.high == pytest.approx(1 - 0.025 ** (1 / 60))  # 6 %, Clopper and Pearson's
    assert make_score([1] * 60, [1] * 60).low == pytest.approx(0.025 ** (1 / 60))
    with pytest.raises(DataError, match="empty"):
        make_score([], [])


def test_a_difference_is_paired() -> None:
    """Clips differ far more than the models do: two intervals overlap, and that of the difference is clear."""
    rng = np.random.default_rng(1)
    first = rng.integers(0, 10, 80)
    second = np.maximum(first - rng.integers(0, 2, 80), 0)
    totals = [10] * 80
    one, other = make_score(first.tolist(), totals), make_score(second.tolist(), totals)
    difference = make_difference(first.tolist(), second.tolist(), totals)
    assert other.high > one.low
    assert difference.significant
    assert difference.value == pytest.approx(other.rate - one.rate)
    assert difference.low <= difference.value <= difference.high < 0
    same = make_difference(first.tolist(), first.tolist(), totals)
    assert (same.value, same.significant) == (0, False)


def test_times_of_the_words_that_both_have() -> None:
    reference = [("One", 0.0, 0.5), ("two", 0.6, 1.0), ("three", 1.2, 1.5)]
    hypothesis = [("one,", 0.1, 0.5), ("and", 0.5, 0.6), ("tree", 0.6, 1.0), ("Three.", 1.0, 1.52)]
    errors = match_times(reference, hypothesis)
    assert np.array(errors) == pytest.approx(np.array([(0.1, 0.0), (-0.2, 0.02)]))
    score = score_times([errors, []], n_words=3)
    assert score is not None
    assert (score.words, score.matched, score.clips) == (3, 2, 1)
    assert score.starts.median == pytest.approx(0.15)
    assert score.starts.bias == pytest.approx(-0.05)
    assert score.starts.within == (0.0, 0.5, 1.0)
    assert score.ends.within == (1.0, 1.0, 1.0)
    assert score.both.p90 == pytest.approx(np.percentile([0.1, 0.0, 0.2, 0.02], 90))
    assert score_times([[], []], n_words=3) is None


def test_the_interval_of_a_median_is_that_of_repeated_clips() -> None:
    rng = np.random.default_rng(2)
    clips = [rng.normal(0, 0.1, (int(n), 2)).tolist() for n in rng.integers(1, 9, 40)]
    score = score_times(clips, 400)
    assert score is not None
    draws = rng.integers(40, size=(2000, 40))
    medians = [np.median(np.abs(np.concatenate([np.ravel(clips[i]) for i in draw]))) for draw in draws]
    assert [score.both.low, score.both.high] == pytest.approx(list(np.percentile(medians, [2.5, 97.5])), abs=0.004)


def test_without_rapidfuzz_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if name.startswith("rapidfuzz"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.delitem(sys.modules, "rapidfuzz.distance", raising=False)
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(MissingDependencyError, match=r"sotto\[eval\]"):
        align(["a"], ["b"])
