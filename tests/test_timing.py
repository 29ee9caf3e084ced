"""Word times: the path, the punctuation, the fitting of words into segments."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from whisper.errors import ShapeError
from whisper.model import Whisper
from whisper.timing import (
    WordTiming,
    add_word_timestamps,
    backtrace,
    dtw,
    dtw_cpu,
    find_alignment,
    fit_words,
    median_filter,
    merge_punctuations,
    shorten_at_sentence_ends,
)
from whisper.tokenizer import get_tokenizer

from .models import random_model


def cheapest_cost(x: np.ndarray) -> float:
    """The cost of the best path, by the textbook recursion."""
    cost = np.full((x.shape[0] + 1, x.shape[1] + 1), np.inf)
    cost[0, 0] = 0
    for i in range(1, x.shape[0] + 1):
        for j in range(1, x.shape[1] + 1):
            cost[i, j] = x[i - 1, j - 1] + min(cost[i - 1, j - 1], cost[i - 1, j], cost[i, j - 1])
    return float(cost[-1, -1])


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_path_is_monotonic_complete_and_the_cheapest(n: int, m: int, seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=(n, m)).astype(np.float32).astype(float)
    path = dtw_cpu(x)
    assert path[:, 0].tolist() == [0, 0]
    assert path[:, -1].tolist() == [n - 1, m - 1]
    steps = np.diff(path, axis=1)
    assert ((steps >= 0) & (steps <= 1)).all()
    assert (steps.sum(axis=0) >= 1).all()
    assert x[path[0], path[1]].sum() == pytest.approx(cheapest_cost(x), abs=1e-5)


def test_path_follows_the_diagonal_of_a_clear_matrix() -> None:
    x = torch.ones(4, 8)
    for i in range(4):
        x[i, 2 * i : 2 * i + 2] = -1
    assert dtw(x).tolist() == [[0, 0, 1, 1, 2, 2, 3, 3], [0, 1, 2, 3, 4, 5, 6, 7]]


def test_backtrace_tells_of_a_trace_that_is_none() -> None:
    with pytest.raises(ShapeError, match=r"trace\[1, 1\]"):
        backtrace(np.full((2, 2), 7))


def test_median_filter() -> None:
    x = torch.tensor([[1.0, 9.0, 2.0, 3.0, 50.0, 4.0]])
    assert median_filter(x, 3).tolist() == [[9.0, 2.0, 3.0, 3.0, 4.0, 50.0]]
    assert median_filter(x[0], 3).tolist() == median_filter(x, 3)[0].tolist()
    assert median_filter(x.expand(2, 3, 1, 6), 3).shape == (2, 3, 1, 6)
    assert median_filter(x, 1).tolist() == x.tolist()
    assert median_filter(x[:, :2], 7).tolist() == [[1.0, 9.0]]  # shorter than half the filter
    with pytest.raises(ShapeError, match="odd"):
        median_filter(x, 4)


@pytest.mark.parametrize("width", [1, 3, 5, 7, 9, 11])
def test_median_filter_is_the_middle_of_the_sorted_window(width: int) -> None:
    generator = torch.Generator().manual_seed(width)
    x = torch.randn(3, 300, 40, generator=generator)
    x[1] = x[1].round()  # with ties
    half = width // 2
    windows = torch.nn.functional.pad(x, (half, half), mode="reflect").unfold(-1, width, 1)
    assert torch.equal(median_filter(x, width), windows.sort(dim=-1)[0][..., half])
    x[2, 5, 7] = torch.nan  # as where no head looks at a frame at all
    filtered = median_filter(x, width)
    assert torch.equal(filtered[:2], windows.sort(dim=-1)[0][:2, ..., half])
    assert filtered[2].isnan().sum() == (1 if width == 1 else 0)


def words(*texts: str) -> list[WordTiming]:
    return [WordTiming(t, [i], float(i), float(i + 1), 0.5) for i, t in enumerate(texts)]


def test_punctuation_joins_the_word_that_it_belongs_to() -> None:
    timings = words(' "', "Hello", ",", " my", ' "', " (", "dear", ")", ".", '"')
    merge_punctuations(timings, '"(', '",.)')
    assert [t.word for t in timings] == ["", ' "Hello,', "", " my", "", "", ' " (dear)."', "", "", ""]
    assert [t for timing in timings for t in timing.tokens] == list(range(10))  # no token lost


def test_merging_nothing_is_nothing() -> None:
    timings: list[WordTiming] = []
    merge_punctuations(timings, "(", ")")
    assert timings == []


def test_words_at_sentence_ends_are_cut_to_twice_the_usual_length() -> None:
    timings = words(" a", ".", " b")
    timings[1].end, timings[2].start, timings[2].end = 5.0, 5.0, 9.0
    shorten_at_sentence_ends(timings, 1.2)
    assert [(t.start, t.end) for t in timings] == [(0.0, 1.0), (1.0, 2.2), (7.8, 9.0)]


def fit(
    segment: tuple[float, float], spans: list[tuple[float, float]], typical: float, last: float
) -> tuple[tuple[float, float], list[tuple[float, float]]]:
    s: Any = {"start": segment[0], "end": segment[1]}
    ws: Any = [{"word": "x", "start": a, "end": b, "probability": 1.0} for a, b in spans]
    fit_words(s, ws, typical, last)
    return (s["start"], s["end"]), [(w["start"], w["end"]) for w in ws]


def test_segments_take_their_times_from_their_words() -> None:
    assert fit((1.0, 3.0), [(1.2, 1.6), (1.6, 2.8)], 0.5, 1.0) == ((1.2, 2.8), [(1.2, 1.6), (1.6, 2.8)])


def test_a_word_stretched_over_a_pause_before_it_is_shortened() -> None:
    assert fit((8.0, 9.0), [(4.0, 8.4), (8.4, 9.0)], 0.3, 1.0)[1][0] == (pytest.approx(7.8), 8.4)


def test_first_words_that_reach_before_the_segment_and_last_ones_behind_it_give_way() -> None:
    (start, end), spans = fit((5.0, 7.0), [(4.2, 5.6), (6.8, 9.0)], 0.4, 4.2)
    assert (start, end) == (5.0, 7.0)
    assert spans == [(5.0, 5.6), (6.8, pytest.approx(7.2))]


@pytest.fixture(scope="module")
def model() -> Whisper:
    return random_model(2)


def test_alignment_is_the_same_from_sound_and_from_features(model: Whisper) -> None:
    tokenizer = get_tokenizer(True, language="en")
    text = tokenizer.encode(" And so, my fellow Americans.")
    mel = torch.randn(80, 3000, generator=torch.Generator().manual_seed(0))
    runs = []
    handle = model.encoder.register_forward_hook(lambda *_: runs.append(1))
    by_sound = find_alignment(model, tokenizer, text, mel, 1000)
    with torch.no_grad():
        features = model.embed_audio(mel[None])[0]
    runs.clear()
    by_features = find_alignment(model, tokenizer, text, features, 1000)
    handle.remove()
    assert by_features == by_sound
    assert runs == []  # the encoder does not run again
    assert [t.word for t in by_sound] == [" And", " so", ",", " my", " fellow", " Americans", "."]
    assert all(0 <= t.start <= t.end <= 10.0 for t in by_sound)
    assert [t.start for t in by_sound[1:]] == [t.end for t in by_sound[:-1]]
    assert find_alignment(model, tokenizer, [], mel, 1000) == []


def test_very_short_windows_have_words_too(model: Whisper) -> None:
    tokenizer = get_tokenizer(True, language="en")
    segments: Any = [{"seek": 700, "start": 7.0, "end": 7.01, "tokens": tokenizer.encode(" one two")}]
    add_word_timestamps(
        segments=segments, model=model, tokenizer=tokenizer, mel=torch.zeros(80, 3000), num_frames=1,
        last_speech_timestamp=0.0,
    )  # fmt: skip
    assert [w["word"] for w in segments[0]["words"]] == [" one", " two"]
    assert all(6.9 <= w["start"] <= w["end"] <= 7.1 for w in segments[0]["words"])


def test_words_are_shared_out_among_segments_in_plain_numbers(model: Whisper) -> None:
    tokenizer = get_tokenizer(True, language="en")
    eot = tokenizer.eot
    segments: Any = [
        {"seek": 3000, "start": 30.0, "end": 32.0, "tokens": [eot + 1, *tokenizer.encode(" one two"), eot + 9]},
        {"seek": 3000, "start": 32.0, "end": 32.0, "tokens": []},
        {"seek": 3000, "start": 33.0, "end": 35.0, "tokens": tokenizer.encode(" three.")},
    ]
    mel = torch.randn(80, 3000, generator=torch.Generator().manual_seed(1))
    add_word_timestamps(
        segments=segments, model=model, tokenizer=tokenizer, mel=mel, num_frames=600, last_speech_timestamp=29.0
    )
    assert [[w["word"] for w in s["words"]] for s in segments] == [[" one", " two"], [], [" three."]]
    for word in segments[0]["words"] + segments[2]["words"]:
        assert type(word["start"]) is type(word["end"]) is type(word["probability"]) is float
        assert 29.9 <= word["start"] <= word["end"] <= 36.1
