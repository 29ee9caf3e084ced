"""Cues as players show them: right-to-left lines, and words in their turn."""

from __future__ import annotations

from whisper.subtitles.cues import Cue, TimedWord
from whisper.subtitles.shown import RIGHT_TO_LEFT_MARK as MARK
from whisper.subtitles.shown import colours, cue_words, word_by_word


def cue(*lines: str, speaker: str | None = None) -> Cue:
    at, made = 0.0, []
    for line in lines:
        words = []
        for text in line.replace(" ", "\0 ").split("\0"):
            words.append(TimedWord(text, at, at + 0.4, speaker))
            at += 0.5
        made.append(tuple(words))
    return Cue(0.0, at, tuple(made), speaker)


def test_a_line_break_stands_before_the_first_word_of_a_line() -> None:
    assert "".join(cue_words(cue("one two", "three"))) == "one two\nthree"


def test_lines_from_right_to_left_have_marks_where_they_begin_or_end_with_something_else() -> None:
    lines = "".join(cue_words(cue("- مرحبا بك.", "كتاب جديد"), "ar")).split("\n")
    assert lines == [f"{MARK}- مرحبا بك.{MARK}", "كتاب جديد"]
    assert MARK not in "".join(cue_words(cue("- hello."), "en"))


def test_words_have_their_turn_without_gaps() -> None:
    assert list(word_by_word(cue("one two", "three"))) == [(0.0, 0.5, 0), (0.5, 1.0, 1), (1.0, 1.5, 2)]


def test_speakers_have_colours_in_their_order() -> None:
    cues = [cue("a", speaker=name) for name in ("Ann", "Bob", "Ann", "Cid", "Dan", "Eve")]
    assert colours(cues) == {"Ann": "white", "Bob": "yellow", "Cid": "cyan", "Dan": "lime", "Eve": "white"}
