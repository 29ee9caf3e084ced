"""Known words and recognised words: which are the same, and the times of the others between them."""

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whisper.alignment import text_matching
from whisper.alignment.text_matching import interpolate_times, match

WORDS = [
    "the", "old", "man", "sat", "down", "by", "a", "river", "and", "waited", "for", "his", "friend", "who", "never",
    "came",
]  # fmt: skip
some_words = st.lists(st.sampled_from([*WORDS, "—", "Río", "7", "水"]), max_size=20)


@given(some_words, some_words)
def test_the_order_is_kept_and_no_word_is_matched_twice(known: list[str], recognised: list[str]) -> None:
    found = [j for j in match(known, recognised).tolist() if j >= 0]
    assert found == sorted(set(found))
    assert all(j < len(recognised) for j in found)


@given(st.lists(st.sampled_from(WORDS), max_size=20))
def test_the_same_words_are_found(words: list[str]) -> None:
    assert match(words, [f" {word.upper()}," for word in words]).tolist() == list(range(len(words)))


def test_parts_that_the_other_lacks_are_unmatched_and_misrecognised_words_are_found() -> None:
    assert match(["not", "said", *WORDS], WORDS).tolist()[2:] == list(range(16))
    assert match(WORDS, [*WORDS[:4], "something", "else", *WORDS[4:]]).tolist() == [0, 1, 2, 3, *range(6, 18)]
    assert match(["his", "name", "is", "Barry", "Baldwin"], ["name", "iss", "bary", "bolwin"]).tolist() == [
        -1, 0, 1, 2, 3,
    ]  # fmt: skip
    assert match(["—", "..."], ["river"]).tolist() == [-1, -1]
    assert match(["river"], []).tolist() == [-1]


def test_long_texts_are_cut_at_phrases_that_are_in_both(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(3)
    recognised = [draw.choice(WORDS) + draw.choice("abc") for _ in range(900)]
    missing, inserted = set(range(300, 420)), ["never"] * 100
    known = [*recognised[:300], *recognised[420:700], *inserted, *recognised[700:]]
    expected = [*range(300), *range(420, 700), *[-1] * 100, *range(700, 900)]
    monkeypatch.setattr(text_matching, "MAX_CELLS", 10_000)
    found = match(known, recognised).tolist()
    assert np.mean(np.array(found) == expected) > 0.97
    assert sum(j in missing for j in found) < 5
    assert max((b[0] - a[0]) * (b[1] - a[1]) for a, b in zip(*cuts(known, recognised), strict=True)) <= 20_000


def cuts(known: list[str], recognised: list[str]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    places = text_matching._cuts(known, recognised)
    assert places == sorted(places)
    assert places[-1] == (len(known), len(recognised))
    return places[:-1], places[1:]


@given(
    st.lists(st.tuples(st.integers(1, 12), st.none() | st.floats(0, 1)), min_size=1, max_size=12), st.floats(0.01, 60)
)
def test_times_never_go_back_and_stay_within_the_speech(words: list[tuple[int, float | None]], total: float) -> None:
    known = iter(sorted(share for _, share in words if share is not None))
    anchors = np.array([math.nan if share is None else next(known) * total for _, share in words])
    times = interpolate_times([letters for letters, _ in words], anchors, total)
    assert ((times == anchors) | np.isnan(anchors)).all()
    placed = times[~np.isnan(times)]
    assert (np.diff(placed) >= -1e-9).all()
    assert ((placed >= -1e-9) & (placed <= total + 1e-9)).all()


@pytest.mark.parametrize(
    ("anchors", "total", "expected"),
    [
        ([None, None, None, None], 4.0, [0.5, 1.5, 2.5, 3.5]),  # nothing recognised: evenly
        ([1.0, None, None, 3.0], 4.0, [1.0, 1.5, 2.5, 3.0]),  # between two
        ([1.0, None, None, 99.0], 99.0, [1.0, 2.0, 98.0, 99.0]),  # much that the text lacks: beside their neighbours
        ([None, None, None, 50.0], 99.0, [45.0, 47.0, 49.0, 50.0]),
        ([50.0, None, None, None], 99.0, [50.0, 51.0, 53.0, 55.0]),
    ],
)
def test_words_between_recognised_ones(anchors: list[float | None], total: float, expected: list[float]) -> None:
    times = interpolate_times([5] * 4, np.array(anchors, dtype=float), total)
    assert times.tolist() == pytest.approx(expected)


def test_words_without_time_for_them_have_none() -> None:
    times = interpolate_times([5, *[10] * 40, 5], np.array([1.0, *[math.nan] * 40, 2.0]), 9.0)
    assert np.isnan(times[1:-1]).all()
