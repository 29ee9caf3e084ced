"""Lyrics of other programs."""

from __future__ import annotations

import pytest

from whisper.errors import DataError
from whisper.subtitles.formats.lrc import read_lrc


def test_lines_of_others() -> None:
    text = "[ar:Some One]\n[offset:+500]\n[00:10.50][01:00]Chorus\n[00:20.00]\n[00:30:25] <00:30.25>a <00:31.00> b c\n"
    pieces = read_lrc(text).pieces
    assert [(p.start, p.end, p.text.strip()) for p in pieces] == [
        (10.0, 19.5, "Chorus"), (29.75, 59.5, "a b c"), (59.5, 64.5, "Chorus"),
    ]  # fmt: skip
    assert [(w.text, w.start) for w in pieces[1].words][:2] == [(" a", 29.75), (" b", 30.5)]


def test_what_is_no_lrc_is_refused() -> None:
    with pytest.raises(DataError, match="no line has a time"):
        read_lrc("plain text")
