"""Word times and speech activity: what must hold for any words, and what becomes of the usual faults."""

import copy
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whisper.model import ModelDimensions
from whisper.transcription.word_snapping import DELAYS, delay_of, snap_words, undo_delay

Times = list[tuple[float, float]]


def segment(times: Times, text: str = "word") -> Any:
    words = [{"word": f" {text}{i}", "start": a, "end": b, "probability": 0.5} for i, (a, b) in enumerate(times)]
    return {"id": 0, "start": -1.0, "end": -1.0, "text": "".join(w["word"] for w in words), "words": words}


def snapped(times: Times, speech: Times, **bounds: float) -> Times:
    segments = [segment(times)]
    snap_words(segments, speech, **bounds)
    return [(word["start"], word["end"]) for word in segments[0]["words"]]


def overlap(a: tuple[float, float], b: tuple[float, float]) -> float:
    return max(0.0, min(a[1], b[1]) - max(a[0], b[0]))


# ---------------------------------------------------------------------------------------------------------
# For any words and any speech
# ---------------------------------------------------------------------------------------------------------

seconds = st.integers(0, 3000).map(lambda n: n / 100)
words = st.lists(st.tuples(seconds, seconds).map(lambda pair: tuple(sorted(pair))), max_size=12)  # also in no order


@st.composite
def ordinary_words(draw: Any, most: int = 15) -> Times:
    """Words without a gap, as cross-attention gives them, some of no length."""
    edges = sorted(draw(st.lists(seconds, min_size=2, max_size=most + 1)))
    return list(pairwise(edges))


@st.composite
def speeches(draw: Any) -> Times:
    edges = sorted(draw(st.lists(st.integers(0, 31000), unique=True, max_size=10)))  # to the millisecond
    return [(a / 1000, b / 1000) for a, b in zip(edges[::2], edges[1::2], strict=False)]


def pauses(speech: Times, end: float = 100.0) -> Times:
    """What `snap_words` calls a pause: at least 0.2 s between speech segments that a word fits into."""
    joined: list[list[float]] = []
    for start, stop in speech:
        if joined and start - joined[-1][1] < 0.18:  # less 0.02 for the rounding of both to 0.01 s
            joined[-1][1] = stop
        elif stop - start >= 0.12:
            joined.append([start, stop])
    edges = [0.0, *(edge for span in joined for edge in span), end]
    return list(zip(edges[::2], edges[1::2], strict=True))


@given(words | ordinary_words(), speeches(), st.integers(1, 4))
def test_words_are_in_order_and_stay_what_they_are(times: Times, speech: Times, n_segments: int) -> None:
    segments = [segment(times[i::n_segments]) for i in range(n_segments)]  # their order does not matter
    before = copy.deepcopy(segments)
    snap_words(segments, speech)
    flat = [word for s in segments for word in s["words"]]
    assert all(word["start"] < word["end"] for word in flat)
    assert all(a["end"] <= b["start"] for a, b in pairwise(flat))
    for new, old in zip(segments, before, strict=True):
        assert [(w["word"], w["probability"]) for w in new["words"]] == [
            (w["word"], w["probability"]) for w in old["words"]
        ]
        if new["words"]:
            assert (new["start"], new["end"]) == (new["words"][0]["start"], new["words"][-1]["end"])
        else:
            assert new == old


@given(words | ordinary_words(), speeches(), st.integers(0, 900), st.integers(1500, 4000))
def test_a_second_time_changes_nothing(times: Times, speech: Times, begin: int, end: int) -> None:
    bounds = {"begin": begin / 100, "end": end / 100}
    once = snapped(times, speech, **bounds)
    assert snapped(once, speech, **bounds) == once
    assert all(bounds["begin"] <= start and stop <= bounds["end"] for start, stop in once)


@given(words | ordinary_words(), speeches())
def test_no_word_reaches_over_a_pause_of_a_second(times: Times, speech: Times) -> None:
    for word in snapped(times, speech):
        assert all(overlap(word, pause) <= 1.001 for pause in pauses(speech)), word


@given(ordinary_words(most=2), st.integers(1, 25), st.integers(1, 5))
def test_no_word_begins_in_a_pause_with_room_beside_it(times: Times, n: int, length: int) -> None:
    """Speech of 2 s or more: room for two words, wherever they were."""
    speech = [(2.0 * length * i, 2.0 * length * i + length + 1) for i in range(n)]
    for start, _ in snapped(times, speech):
        assert any(a <= start < b for a, b in speech), start


def test_more_words_than_hundredths_of_a_second_reach_past_the_end() -> None:
    times = snapped([(1.0, 1.0)] * 5, [(0.0, 9.0)], begin=1.0, end=1.03)
    assert times == [(1.0, 1.01), (1.01, 1.02), (1.02, 1.03), (1.03, 1.04), (1.04, 1.05)]


# ---------------------------------------------------------------------------------------------------------
# The usual faults
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("times", "speech", "expected"),
    [
        # a pause given to the word behind it, to the word before it, and to both
        ([(0.0, 1.0), (1.0, 5.0)], [(0.1, 1.0), (4.5, 5.0)], [(0.1, 1.0), (4.5, 5.0)]),
        ([(0.0, 4.4), (4.4, 5.0)], [(0.1, 1.0), (4.5, 5.0)], [(0.1, 1.0), (4.5, 5.0)]),
        ([(0.0, 2.0), (2.0, 5.0)], [(0.1, 1.0), (4.5, 5.0)], [(0.1, 1.0), (4.5, 5.0)]),
        # a word that begins in the tail of the speech before
        ([(0.0, 0.8), (0.8, 5.0)], [(0.1, 1.0), (4.5, 5.0)], [(0.1, 0.8), (4.5, 5.0)]),
        # a gap that is no pause is left alone
        ([(0.0, 0.5), (0.5, 1.5)], [(0.0, 0.9), (1.05, 2.0)], [(0.0, 0.5), (0.5, 1.5)]),
        # a word that lies wholly in a pause: into the free end of the speech before, or shared with a neighbour
        ([(0.0, 0.5), (1.2, 1.4), (4.5, 5.0)], [(0.0, 1.0), (4.5, 5.0)], [(0.0, 0.5), (0.5, 0.7), (4.5, 5.0)]),
        ([(0.0, 1.0), (4.0, 4.3), (4.3, 5.0)], [(0.0, 1.0), (4.4, 5.0)], [(0.0, 1.0), (4.4, 4.61), (4.61, 5.0)]),
        # no room on the nearer side, and then on neither: left there, with no more than a second
        ([(0.8, 1.0), (1.2, 1.4), (4.5, 5.0)], [(0.9, 1.0), (4.0, 5.0)], [(0.9, 1.0), (4.0, 4.2), (4.5, 5.0)]),
        ([(0.9, 1.0), (1.2, 3.0), (4.5, 4.6)], [(0.9, 1.0), (4.5, 4.6)], [(0.9, 1.0), (2.0, 3.0), (4.5, 4.6)]),
        ([(1.0, 4.0), (4.0, 4.0)], [], [(3.0, 4.0), (4.0, 4.01)]),
    ],
)
def test_usual_faults(times: Times, speech: Times, expected: Times) -> None:
    assert snapped(times, speech) == expected


def test_what_was_added_to_the_speech_is_no_room_for_words() -> None:
    times, padded = [(0.0, 1.0), (1.0, 6.0), (6.0, 6.2)], [(0.0, 1.2), (4.3, 5.2), (5.9, 6.3)]
    assert snapped(times, padded, padding=0.2) == [(0.0, 1.0), (4.5, 5.0), (6.05, 6.15)]


def test_words_of_no_length_and_marks_get_one_inside_their_speech() -> None:
    times = snapped([(0.5, 0.5), (0.5, 0.5), (0.5, 1.0), (1.0, 1.0)], [(0.5, 1.0), (9.0, 10.0)])
    assert times == [(0.5, 0.51), (0.51, 0.52), (0.52, 0.9), (0.9, 1.0)]


# ---------------------------------------------------------------------------------------------------------
# The delay of cross-attention
# ---------------------------------------------------------------------------------------------------------


@given(times=words, begin=seconds, end=seconds, delay=st.sampled_from([-0.05, 0.0, 0.1]))
def test_words_move_by_the_delay_and_not_out_of_their_window(
    times: Times, begin: float, end: float, delay: float
) -> None:
    begin, end = sorted((begin, end))
    segments = [segment(times), {"start": 1.0, "end": 2.0}]
    undo_delay(segments, delay, begin, end)
    for word, (start, stop) in zip(segments[0]["words"], times, strict=True):
        assert begin <= word["start"] <= word["end"] <= end
        if begin + 0.1 <= start <= stop <= end - 0.1:
            assert (word["start"], word["end"]) == (start - delay, stop - delay)
    assert segments[1] == {"start": 1.0, "end": 2.0}


def test_only_measured_models_have_a_delay() -> None:
    assert delay_of(ModelDimensions(80, 1500, 384, 6, 4, 51864, 448, 384, 6, 4)) == DELAYS["tiny.en"]
    assert delay_of(ModelDimensions(80, 1500, 512, 8, 6, 51864, 448, 512, 8, 6)) == 0  # base.en
