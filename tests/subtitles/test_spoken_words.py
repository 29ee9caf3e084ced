"""Words of a result, made fit to be laid out: every one is there, and has a time that can be shown."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings

from whisper.subtitles.spoken_words import FASTEST, SLOWEST, spoken_words, spread

from ..transcripts import result, segment, spoken, without_words
from .speech import results


@settings(max_examples=60, deadline=None)
@given(made=results(wild=True))
def test_times_are_in_order_and_no_word_takes_longer_than_anyone_speaks(made: dict[str, Any]) -> None:
    words = spoken_words(made).words
    assert "".join(word.text for word in words) == made["text"]
    for word, following in pairwise(words):
        length = len(word.text.strip())
        assert following.start - word.start >= FASTEST * length - 0.002
        assert 0 <= word.end - word.start <= SLOWEST[0] + SLOWEST[1] * length + 0.002


@pytest.mark.parametrize("bad", [float("nan"), -3.0])
def test_times_that_are_none_are_replaced(bad: float) -> None:
    words = spoken_words(result(segment([(" a", 1.0, 1.2), (" b", bad, bad), (" c", 2.0, 2.2)]))).words
    assert [word.start for word in words] == [1.0, 1.01, 2.0]


def test_a_word_that_lasts_into_silence_is_cut_short() -> None:
    (word,) = spoken_words(result(segment([(" yes", 1.0, 60.0)]))).words
    assert word.end == pytest.approx(1.0 + 2.0 + 0.6)


def test_marks_that_stand_alone_are_said_with_their_words() -> None:
    """A pause that the model heard between a mark and its word is before or behind both."""
    heard = [(" oui", 0.0, 0.5), (" «", 0.5, 0.7), (" bien", 2.0, 2.4), (" »", 4.0, 4.2), (" ?", 5.0, 5.2)]
    words = spoken_words(result(segment(heard))).words
    assert [word.text for word in words] == [text for text, *_ in heard]
    assert [word.start for word in words] == pytest.approx([0, 1.99, 2.0, 2.4, 2.41], abs=0.011)
    assert words[-1].end < 2.5


def test_line_breaks_and_control_characters_are_no_text() -> None:
    words = spoken_words(result(segment([(" a\nb", 0.0, 1.0), (" \x07", 1.0, 1.2), (" c", 1.2, 2.0)]))).words
    assert [word.text for word in words] == [" a b", " c"]


def test_speakers_come_from_words_segments_and_channels() -> None:
    one, two, three = spoken(" a b"), {**spoken(" c", 2.0), "speaker": "Ann"}, {**spoken(" d", 3.0), "channel": 1}
    one["words"][1]["speaker"] = "Bob"
    assert [word.speaker for word in spoken_words(result(one, two, three)).words] == [None, "Bob", "Ann", "channel 1"]


def test_segments_that_overlap_follow_one_another() -> None:
    made = result({**spoken(" a b c d", 0.0), "channel": 0}, {**spoken(" x y", 0.5), "channel": 1})
    made["segments"].reverse()
    spoken_ = spoken_words(made)
    assert "".join(word.text for word in spoken_.words) == " a b c d x y"
    assert spoken_.segment_starts == (0, 4)


def test_segments_without_words_share_their_time_by_length() -> None:
    words = spoken_words(without_words(result(spoken(" a bcd ef", pace=1.0)))).words
    assert [(word.text, word.start) for word in words] == [(" a", 0.0), (" bcd", 0.667), (" ef", 2.0)]
    assert len(spread("今日はとても天気です。明日、雨が降る", 0, 4)) == 18
