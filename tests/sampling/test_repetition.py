"""Repetition loops are found early, whatever they repeat; plausible repetitions are no loops."""

from __future__ import annotations

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from whisper.sampling import repetition

BEGIN, EOT = 50364, 50257
WORD = st.integers(0, EOT - 1)
PHRASE = st.lists(WORD, min_size=1, max_size=30)


def at(seconds: float) -> int:
    return BEGIN + round(seconds * 50)


def first_detection(tokens: list[int]) -> tuple[int, repetition.Loop] | None:
    """How many tokens are sampled before the loop is detected, and the loop."""
    for n in range(1, len(tokens) + 1):
        if loop := repetition.detect(tokens[:n], BEGIN):
            return n, loop
    return None


def text_of(tokens: list[int]) -> list[int]:
    return [t for t in tokens if t < BEGIN]


@settings(deadline=None)
@given(st.lists(WORD, max_size=20), PHRASE)
def test_a_loop_without_timestamps_ends_early_and_keeps_one_repetition(before: list[int], phrase: list[int]) -> None:
    said = [at(0), *before, *phrase * 60]
    detected = first_detection(said)
    assert detected
    n, loop = detected
    repetitions = max(4, -(-40 // len(phrase)))
    assert n <= 1 + len(before) + repetitions * len(phrase) <= 224 - 50
    kept = text_of(said[: loop.keep])
    # the words before it, and no word of the phrase twice that it does not have twice itself
    assert kept[: len(before)] == before[: len(kept)]
    assert len(kept) <= len(before) + len(phrase)
    assert set(phrase) <= set(kept)


@settings(deadline=None)
@given(PHRASE, st.integers(1, 6), st.integers(1, 3), st.floats(0, 20))
def test_a_loop_whose_times_hardly_advance_ends_early(phrase: list[int], steps: int, parts: int, start: float) -> None:
    assume(len(phrase) >= 3 * parts)
    said = [at(start), 7, 8, at(start + 0.5)]
    time = said[-1]
    for _ in range(60):
        size = len(phrase) // parts
        for part in range(parts):
            cut = phrase[part * size : None if part == parts - 1 else (part + 1) * size]
            said += [time, *cut, time + steps]
            time += steps
    assume(len(phrase) / 15 > parts * steps / 50 + 0.1)  # faster than speech
    detected = first_detection(said)
    assert detected
    n, loop = detected
    n_repetitions = (len(text_of(said[:n])) - 2) / len(phrase)
    assert n_repetitions <= 7 or n < 120
    kept = said[: loop.keep]
    assert text_of(kept)[:2] == [7, 8]
    assert len(text_of(kept)) - 2 < 2 * len(phrase)
    assert kept[-1] >= BEGIN or loop.period < len(phrase)  # the part that is kept has an end


@settings(deadline=None)
@given(
    st.lists(WORD, min_size=1, max_size=12),
    st.lists(st.tuples(st.floats(0, 0.5), st.floats(1, 1.5)), min_size=10, max_size=12),
    st.integers(1, 3),
)
def test_a_phrase_spoken_ten_times_is_no_loop(
    phrase: list[int], gaps: list[tuple[float, float]], together: int
) -> None:
    said, time = [], 0.0
    for i, (gap, factor) in enumerate(gaps):
        start = time + gap
        time = start + factor * max(0.3, len(phrase) / 8)  # fast, but speech
        if i % together == 0:
            said.append(at(start))
        said += phrase
        if i % together == together - 1:
            said.append(at(time))
    assume(time < 30)
    assert first_detection(said) is None


def test_ten_times_the_same_three_words_in_one_breath_are_no_loop() -> None:
    assert first_detection([at(0), *[1, 2, 3] * 10, at(12), EOT]) is None
    assert first_detection([at(0), *[5] * 30, at(28), EOT]) is None  # counting heads
    assert first_detection([at(29.5), *[1, 2, 3] * 10])  # in half a second they are


def test_counting_is_no_loop() -> None:
    assert first_detection([at(0), *[t for i in range(100) for t in (11, 1000 + i)]]) is None


def test_nothing_at_all() -> None:
    assert repetition.detect([], BEGIN) is None
    assert repetition.detect([at(0)], BEGIN) is None
