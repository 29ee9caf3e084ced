"""What follows from a window's tokens and scores: pure functions, by example and by property."""

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whisper.options.transcription import TranscribeOptions
from whisper.transcription.segments import (
    SplitWindow,
    TimedTokens,
    clear_empty_segments,
    is_segment_anomaly,
    is_silence,
    make_segments,
    needs_fallback,
    seek_after_words,
    skip_hallucinations,
    split_at_timestamps,
    word_anomaly_score,
)
from whisper.transcription.windows import Window

T = 1000  # the id of <|0.00|>; below it text, and eot at 900
WINDOW = Window(0, 500, 2500)  # from 5 s to 30 s


@dataclass
class Scores:
    avg_logprob: float = -0.3
    compression_ratio: float = 1.2
    no_speech_prob: float = 0.1


# -- judging ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "options", "expected"),
    [
        (Scores(), {}, False),
        (Scores(compression_ratio=2.5), {}, True),
        (Scores(compression_ratio=2.5), {"compression_ratio_threshold": None}, False),
        (Scores(avg_logprob=-1.1), {}, True),
        (Scores(avg_logprob=-1.1), {"logprob_threshold": None}, False),
        (Scores(avg_logprob=-1.1, no_speech_prob=0.7), {}, False),
        (Scores(avg_logprob=-1.1, no_speech_prob=0.7, compression_ratio=9), {}, False),
        (Scores(avg_logprob=-0.9, no_speech_prob=0.7, compression_ratio=9), {}, True),
        (Scores(avg_logprob=-1.1, no_speech_prob=0.7), {"no_speech_threshold": None}, True),
    ],
)
def test_fallback(scores: Scores, options: dict[str, Any], expected: bool) -> None:
    assert needs_fallback(scores, TranscribeOptions(**options)) is expected


@pytest.mark.parametrize(
    ("scores", "options", "expected"),
    [
        (Scores(no_speech_prob=0.7), {}, False),  # sure of its text
        (Scores(no_speech_prob=0.7, avg_logprob=-1.0), {}, True),
        (Scores(no_speech_prob=0.5, avg_logprob=-3.0), {}, False),
        (Scores(no_speech_prob=0.7), {"logprob_threshold": None}, True),
        (Scores(no_speech_prob=0.99, avg_logprob=-9), {"no_speech_threshold": None}, False),
    ],
)
def test_silence(scores: Scores, options: dict[str, Any], expected: bool) -> None:
    assert is_silence(scores, TranscribeOptions(**options)) is expected


# -- splitting ----------------------------------------------------------------------------------------------


def test_a_pair_of_timestamps_ends_a_part_and_the_incomplete_rest_is_decoded_again() -> None:
    split = split_at_timestamps([T, 1, 2, T + 100, T + 150, 3], WINDOW, T, 2)
    assert split == SplitWindow([TimedTokens(5.0, 7.0, [T, 1, 2, T + 100])], 500 + 100 * 2, False)


def test_a_single_timestamp_at_the_end_means_silence_after_it() -> None:
    split = split_at_timestamps([T, 1, T + 100, T + 150, 3, T + 200], WINDOW, T, 2)
    assert [(p.start, p.end) for p in split.parts] == [(5.0, 7.0), (8.0, 9.0)]
    assert split.seek == 3000
    assert split.single_timestamp_ending


def test_a_single_part_ends_at_its_last_timestamp() -> None:
    assert split_at_timestamps([T, 1, 2, T + 100], WINDOW, T, 2).parts == [TimedTokens(5.0, 7.0, [T, 1, 2, T + 100])]


@pytest.mark.parametrize("tokens", [[], [1, 2], [T, 1, 2], [1, T]])
def test_without_a_usable_timestamp_the_part_is_the_window(tokens: list[int]) -> None:
    split = split_at_timestamps(tokens, WINDOW, T, 2)
    assert split.parts == [TimedTokens(5.0, 30.0, tokens)]
    assert split.seek == 3000


def test_two_timestamps_at_the_end_close_the_part_and_the_next_window_begins_there() -> None:
    split = split_at_timestamps([T, 1, T + 100, T + 100], WINDOW, T, 2)
    assert split.parts == [TimedTokens(5.0, 7.0, [T, 1, T + 100])]
    assert split.seek == 700


@given(st.lists(st.one_of(st.integers(0, 899), st.integers(T, T + 1500)), max_size=40))
def test_no_token_is_lost_before_the_place_where_the_next_window_begins(tokens: list[int]) -> None:
    split = split_at_timestamps(tokens, WINDOW, T, 2)
    kept = [t for part in split.parts for t in part.tokens]
    assert kept == tokens[: len(kept)]
    if len(kept) < len(tokens):  # the rest is what follows the last pair
        assert split.seek == 500 + 2 * (kept[-1] - T)
    else:
        assert split.seek in (3000, 500 + 2 * (tokens[-1] - T) if tokens else 3000)


def test_segments_carry_the_windows_scores_and_only_text_becomes_text() -> None:
    split = split_at_timestamps([T, 7, 8, 900, T + 100], WINDOW, T, 2)
    (segment,) = make_segments(split, WINDOW, Scores(), 0.2, 900, lambda tokens: "-".join(map(str, tokens)))
    assert segment == {
        "id": 0, "seek": 500, "start": 5.0, "end": 7.0, "text": "7-8", "tokens": [T, 7, 8, 900, T + 100],
        "temperature": 0.2, "avg_logprob": -0.3, "compression_ratio": 1.2, "no_speech_prob": 0.1,
    }  # fmt: skip


def test_segments_without_text_or_length_prompt_nothing() -> None:
    segments = [make("a", 1, 2), make("  ", 2, 3), make("b", 4, 4)]
    clear_empty_segments(segments)
    assert [(s["text"], s["tokens"]) for s in segments] == [("a", [5]), ("", []), ("", [])]


# -- words --------------------------------------------------------------------------------------------------


def make(text: str, start: float, end: float, words: list[tuple[str, float, float, float]] | None = None) -> Any:
    segment: dict[str, Any] = {"text": text, "start": start, "end": end, "tokens": [5]}
    if words is not None:
        segment["words"] = [{"word": w, "start": s, "end": e, "probability": p} for w, s, e, p in words]
    return segment


GOOD = [(" good", 0.0, 0.4, 0.9), (" words", 0.4, 0.8, 0.9)]


def at(seconds: float, words: list[tuple[str, float, float, float]]) -> Any:
    moved = [(w, s + seconds, e + seconds, p) for w, s, e, p in words]
    return make("x", moved[0][1], moved[-1][2], moved)


BAD = [(" uh", 0.0, 0.02, 0.05), (" oh", 0.02, 0.04, 0.05)]


def test_anomalous_words() -> None:
    def score(start: float, end: float, probability: float) -> float:
        return word_anomaly_score({"word": "a", "start": start, "end": end, "probability": probability})

    assert score(0, 0.5, 0.9) == 0
    assert score(0, 0.5, 0.1) == 1
    assert score(0, 0.033, 0.9) == pytest.approx(1.5)
    assert score(0, 3.5, 0.9) == pytest.approx(1.5)


def test_only_anomalous_segments_are_anomalies() -> None:
    assert is_segment_anomaly(at(0, BAD))
    assert not is_segment_anomaly(at(0, GOOD))
    assert not is_segment_anomaly(make("", 0, 1, []))
    assert not is_segment_anomaly(None)


def test_the_next_window_begins_behind_the_last_word() -> None:
    split = SplitWindow([], 2000, False)
    assert seek_after_words(split, [at(6.0, GOOD)], WINDOW) == 680
    assert seek_after_words(SplitWindow([], 3000, True), [at(6.0, GOOD)], WINDOW) == 3000
    assert seek_after_words(split, [at(1.0, GOOD)], WINDOW) == 2000  # before the window: not used
    assert seek_after_words(split, [], WINDOW) == 2000
    assert seek_after_words(split, [at(6.0, GOOD)], WINDOW, delay=0.1) == 690
    assert seek_after_words(split, [at(29.15, GOOD)], WINDOW, delay=0.1) == WINDOW.seek + WINDOW.size


def test_a_hallucination_after_a_silence_moves_the_seek_to_the_end_of_the_silence() -> None:
    kept = skip_hallucinations([at(9.0, BAD)], SplitWindow([], 3000, True), WINDOW, 9000, 2.0, last_speech=4.0)
    assert kept.retry
    assert kept.segments == []
    assert kept.seek == 900


def test_a_hallucination_between_silences_is_dropped_with_all_after_them() -> None:
    segments = [at(5.5, GOOD), at(12.0, BAD), at(20.0, GOOD)]
    kept = skip_hallucinations(segments, SplitWindow([], 3000, True), WINDOW, 9000, 2.0, last_speech=5.0)
    assert kept.segments == segments[:1]
    assert kept.seek == 1200
    assert len(segments) == 3  # the caller's list is its own


def test_a_hallucination_at_the_end_of_the_recording_ends_it() -> None:
    kept = skip_hallucinations(
        [at(5.5, GOOD), at(27.0, BAD)], SplitWindow([], 3000, True), WINDOW, 2800, 2.0, last_speech=5.0
    )
    assert kept.seek == 2800


def test_anomalous_words_amid_speech_are_kept() -> None:
    segments = [at(5.5, GOOD), at(8.1, BAD), at(8.4, GOOD)]
    kept = skip_hallucinations(segments, SplitWindow([], 3000, True), WINDOW, 9000, 2.0, last_speech=5.0)
    assert kept.segments == segments
    assert kept.seek == 3000


def test_a_short_silence_at_the_end_is_not_decoded_again() -> None:
    unfinished = SplitWindow([], 2900, False)
    assert skip_hallucinations([at(33.5, GOOD)], unfinished, WINDOW, 9000, 2.0, 5.0).seek == 3000
    assert skip_hallucinations([at(15.0, GOOD)], unfinished, WINDOW, 9000, 2.0, 5.0).seek == 1580
