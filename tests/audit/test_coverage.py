"""Speech compared with text, on numbers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whisper.audit.coverage import (
    MIN_SPEECH_SEGMENT_SECONDS,
    MIN_UNCOVERED_SECONDS,
    TEXT_TIME_TOLERANCE,
    ends_in_repetition,
    is_echo,
    repeats_start,
    shares_run,
    text_spans,
    uncovered_speech,
)


def segment(start: float, end: float, text: str = " a", **more: Any) -> Any:
    return {"start": start, "end": end, "text": text, **more}


def test_text_covers_its_words_where_they_are_known() -> None:
    words = [{"word": " a", "start": 1.0, "end": 1.5, "probability": 1.0}]
    segments = [segment(0, 9, words=words), segment(10, 12), segment(12, 15, "  ")]
    assert text_spans(segments) == [(1.0, 1.5), (10, 12)]


@pytest.mark.parametrize(
    ("speech", "covered", "expected"),
    [
        ([(0, 4)], [], [(0, 4)]),
        ([(0, 4)], [(0, 4)], []),
        ([(0, 10)], [(0, 3)], [(3 + TEXT_TIME_TOLERANCE, 10)]),
        ([(0, 10)], [(4, 5)], [(0, 4 - TEXT_TIME_TOLERANCE), (5 + TEXT_TIME_TOLERANCE, 10)]),
        ([(0, 10)], [(4, 9)], [(0, 4 - TEXT_TIME_TOLERANCE)]),  # what is left behind is too short
        ([(0, 1), (1.5, 2.5)], [], [(0, 2.5)]),  # joined
        ([(0, 1), (2.5, 3.5)], [], [(0, 1), (2.5, 3.5)]),
        ([(0, 0.5), (0.9, 1.3)], [], [(0, 1.3)]),
        (
            [(0, MIN_UNCOVERED_SECONDS - 0.01)],
            [(1.5, 2)],
            [(0, MIN_UNCOVERED_SECONDS - 0.01)],
        ),  # all between two pauses
        ([(0, MIN_SPEECH_SEGMENT_SECONDS - 0.01)], [], []),
        ([(0, 2)], [(MIN_UNCOVERED_SECONDS + TEXT_TIME_TOLERANCE - 0.01, 2)], []),  # a part
        ([(0, 40)], [], [(0, 30)]),  # not behind what was read
    ],
)
def test_uncovered_speech(speech: Any, covered: Any, expected: Any) -> None:
    assert [t for gap in uncovered_speech(speech, covered, 0, 30) for t in gap] == pytest.approx(
        [t for gap in expected for t in gap]
    )


times = st.lists(st.integers(0, 3000), unique=True, max_size=12).map(sorted)


def spans(values: list[int]) -> list[tuple[float, float]]:
    return [(a / 100, b / 100) for a, b in zip(values[::2], values[1::2], strict=False)]


@given(times, times)
def test_uncovered_speech_has_no_text_and_loses_little(of_speech: list[int], of_text: list[int]) -> None:
    speech, text = spans(of_speech), spans(of_text)
    found = uncovered_speech(speech, text, 0, 30)
    steps = [i / 20 + 0.013 for i in range(600)]

    def holds(some: list[tuple[float, float]], at: float, slack: float = 0.0) -> bool:
        return any(a - slack <= at <= b + slack for a, b in some)

    for at in steps:
        assert not (holds(found, at) and holds(text, at))
    lost = [
        at for at in steps if holds(speech, at) and not holds(text, at, TEXT_TIME_TOLERANCE) and not holds(found, at)
    ]
    assert len(lost) / 20 <= (MIN_UNCOVERED_SECONDS + 0.1) * (len(text) + len(speech) + 1)


def test_an_echo_stands_in_its_neighbours_text() -> None:
    assert is_echo(" and the dog.", " The cat and the dog ran.")
    assert not is_echo(" and the horse.", " The cat ran.")
    assert not is_echo(" ...", " The cat")


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([" So.", " so", " So!"], True),
        ([" a b", " c d", " a b", " c d", " a b", " c d"], True),
        ([" x", " So.", " So.", " So."], True),
        ([" So.", " So."], False),
        ([" So.", " so", " So!", " No."], False),
        (["", "", ""], False),
        ([], False),
    ],
)
def test_repetition_across_windows(texts: list[str], expected: bool) -> None:
    assert ends_in_repetition(texts) is expected


def test_a_run_of_tokens_is_found_wherever_it_stands() -> None:
    earlier = list(range(100, 130))
    assert shares_run([1, 2, *range(110, 122), 3], earlier)
    assert not shares_run([1, 2, *range(110, 121), 3], earlier)
    assert not shares_run([*range(110, 116), 7, *range(116, 122)], earlier)
    assert not shares_run([], earlier)
    assert not shares_run(earlier, [])


def test_three_segments_that_begin_alike_are_found() -> None:
    earlier = [[1, 2, 3, 4], [7, 8, 9, 9], [1, 2, 3, 5, 6]]
    assert repeats_start([[8, 8, 8, 8], [1, 2, 3, 9]], earlier)
    assert repeats_start([[1, 2, 3, 4]] * 3, [])
    assert not repeats_start([[1, 2, 3, 4]], earlier[:2])
    assert not repeats_start([[7, 8, 8, 8]], [*earlier, [1, 2, 3, 7]])  # none of this text
    assert not repeats_start([[1, 2, 3]] * 3, [])  # whole short segments: yes, yes, yes
