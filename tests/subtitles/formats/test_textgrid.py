"""TextGrids of Praat: both forms, what overlaps, quotes."""

from __future__ import annotations

import pytest

from whisper.errors import DataError
from whisper.subtitles.formats.textgrid import read_textgrid
from whisper.subtitles.transcript_files import written

from ..talks import result, segment, word

SHORT = (
    'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0\n2\n<exists>\n2\n"IntervalTier"\n"Ann"\n0\n2\n2\n'
    '0\n1\n""\n1\n2\n"say ""a"" 5"\n"TextTier"\n"tones"\n0\n2\n1\n0.5\n"H*"\n'
)


def test_the_short_form() -> None:
    pieces = read_textgrid(SHORT).pieces
    assert [(p.start, p.end, p.text, p.speaker) for p in pieces] == [
        (1.0, 2.0, 'say "a" 5', "Ann"), (0.5, 0.5, "H*", "tones"),
    ]  # fmt: skip


def test_what_overlaps_within_a_tier_loses_no_text() -> None:
    made = result(
        segment([word(" one", 0.0, 2.0)]), segment([word(" two", 1.0, 3.0)]), segment([word(" three", 1.5, 2.5)])
    )
    texts = [(p.start, p.end, p.text) for p in read_textgrid(str(written(made, "textgrid"))).pieces]
    assert texts == [(0.0, 2.0, "one"), (2.0, 3.0, "two three")]


@pytest.mark.parametrize("text", ["", "no grid", SHORT[:120], SHORT.replace('"Ann"\n0', '"Ann"\nx')])
def test_damage_is_named(text: str) -> None:
    with pytest.raises(DataError, match="TextGrid"):
        read_textgrid(text)
