"""The width of text, as a screen shows it."""

from __future__ import annotations

import pytest

from whisper.subtitles.text_width import graphemes, width


@pytest.mark.parametrize(
    ("text", "columns", "full_width"),
    [
        ("abc", 3, 1.5), ("", 0, 0), ("今日", 4, 2), ("ｱｲ", 2, 1), ("e\u0301te\u0301", 3, 1.5), ("한국", 4, 2),
        ("\u200fab\u2060", 2, 1), ("👩‍👩‍👧", 2, 1), ("❤️", 2, 1), ("สวัสดี", 4, 2),
    ],
)  # fmt: skip
def test_characters_count_as_a_reader_sees_them(text: str, columns: float, full_width: float) -> None:
    assert (width(text), width(text, full_width=True)) == (columns, full_width)


def test_tags_have_no_width_in_files() -> None:
    text = r"{\an8}<i>a</i> <c.yellow>b</c><00:00:01.000> <v Ann>c & d < e"
    assert width(text, markup=True) == len("a b c & d < e")
    assert width("a < b", markup=True) == 5
    assert width("<i>a</i>") == 8


def test_clusters_are_not_taken_apart() -> None:
    assert graphemes("e\u0301👩‍👧x") == ("e\u0301", "👩‍👧", "x")
