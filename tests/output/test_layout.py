"""Words become lines and cues: as many as are asked for, and none is lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whisper.errors import OptionError
from whisper.output.layout import Layout, Word, break_lines, stack_cues
from whisper.output.writers import WriteSRT, WriteVTT

from ..transcripts import FOX, result, segment, spoken


def test_lines_and_cues_filled_up_across_segments() -> None:
    cues = list(WriteVTT(".").iterate_result(FOX, max_line_width=20, max_line_count=2))
    assert cues == [
        ("00:00.000", "00:03.200", "The quick brown fox\njumps over the lazy"),
        ("00:03.200", "00:06.900", "dog, twice, and then\nsleeps. Nobody saw"),
        ("00:07.000", "00:07.400", "it."),  # a pause of more than three seconds follows
        ("00:12.500", "00:14.100", "But the hen did."),
    ]


def test_words_per_cue_within_segments() -> None:
    short = result(spoken(" one two three four"), spoken(" five", start=2.0))
    cues = [text for _, _, text in WriteSRT(".").iterate_result(short, max_words_per_line=3)]
    assert cues == ["one two three", " four".strip(), "five"]


def test_highlight_shows_the_silences_too() -> None:
    made = result(segment([(" a", 0.0, 0.5), (" b", 1.0, 1.5)]))
    assert list(WriteVTT(".").iterate_result(made, {"highlight_words": True})) == [
        ("00:00.000", "00:00.500", "<u>a</u> b"),
        ("00:00.500", "00:01.000", "a b"),
        ("00:01.000", "00:01.500", "a <u>b</u>"),
    ]


def test_a_segment_without_words_among_others_is_not_lost() -> None:
    made = result(spoken(" one two"), {"start": 2.0, "end": 3.0, "text": " three"}, spoken(" four", start=3.0))
    assert [cue[2] for cue in WriteSRT(".").iterate_result(made)] == ["one two", "three", "four"]
    wide = WriteSRT(".").iterate_result(made, max_line_width=80, max_line_count=1)
    assert [cue[2] for cue in wide] == ["one two three four"]


def test_a_negative_number_of_words_is_refused() -> None:
    with pytest.raises(OptionError, match="max_words_per_line"):
        list(WriteSRT(".").iterate_result(FOX, max_words_per_line=-1))


@given(
    texts=st.lists(st.text(" abc你", min_size=1, max_size=8), max_size=30),
    width=st.integers(1, 20),
    count=st.integers(1, 3),
)
def test_cues_keep_every_word_and_their_bounds(texts: list[str], width: int, count: int) -> None:
    words = [Word(text, float(i), i + 1.0) for i, text in enumerate(texts)]
    layout = Layout(max_line_width=width, max_line_count=count)
    cues = stack_cues(break_lines([words], layout), count)
    assert [(w.text.strip(), w.start) for cue in cues for w in cue] == [(w.text.strip(), w.start) for w in words]
    longest = max((len(text) for text in texts), default=0)
    for cue in cues:
        lines = "".join(word.text for word in cue).split("\n")
        assert len(lines) <= count
        assert all(len(line) <= max(width, longest) for line in lines)
