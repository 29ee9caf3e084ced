"""ASS and SSA of other programs."""

from __future__ import annotations

import pytest

from whisper.errors import DataError
from whisper.subtitles.formats.ass import read_ass

SSA = (
    "[Script Info]\nScriptType: v4.00\n\n[V4 Styles]\nFormat: Name\nStyle: Default\n\n[Events]\n"
    "Format: Marked, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"
    "Comment: Marked=0,0:00:00.00,0:00:01.00,Default,,0,0,0,,not shown\n"
    "Dialogue: Marked=0,0:00:01.00,0:00:03.00,Default,Zoë,0,0,0,,{\\i1}One,{\\i0} two\\Nthree\n"
    "Dialogue: Marked=0,0:00:03.00,0:00:04.00,Default,,0,0,0,,{\\p1}m 0 0 l 100 0{\\p0}\n"
    "Dialogue: Marked=0,0:00:05.00,0:00:06.00,Default,,0,0,0,,{\\K20}{\\kf30}La {\\ko50}la\n"
)


def test_what_others_write() -> None:
    pieces = [p for p in read_ass(SSA).pieces if p.text]
    assert [(p.start, p.end, p.text, p.speaker) for p in pieces] == [
        (1.0, 3.0, "One, two three", "Zoë"), (5.0, 6.0, "La la", None),
    ]  # fmt: skip
    assert [(w.text, w.start, w.end) for w in pieces[1].words] == [
        ("La", pytest.approx(5.2), pytest.approx(5.5)), ("la", pytest.approx(5.5), 6.0),
    ]  # fmt: skip


def test_a_line_without_columns_is_refused() -> None:
    with pytest.raises(DataError, match="line 2 has no start"):
        read_ass("[Events]\nDialogue: 0,0:00:01.00\n")
