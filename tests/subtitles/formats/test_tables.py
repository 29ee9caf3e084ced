"""Tables of other programs."""

from __future__ import annotations

import pytest

from whisper.errors import DataError
from whisper.subtitles.formats.tables import read_audacity, read_csv, read_tsv


def test_csv_of_whisper_cpp_is_in_milliseconds_and_ours_in_seconds() -> None:
    assert [(p.start, p.end, p.text) for p in read_csv('start,end,text\n0,1500," Hi, you"\n').pieces] == [
        (0.0, 1.5, " Hi, you")
    ]
    ours = read_csv('start,end,speaker,text\r\n0.000,1.500,Ann,"two ""words"""\r\n').pieces
    assert [(p.end, p.speaker, p.text) for p in ours] == [(1.5, "Ann", 'two "words"')]


def test_tsv_and_labels() -> None:
    assert [(p.start, p.text) for p in read_tsv("start\tend\ttext\n1240\t2000\tx y\n").pieces] == [(1.24, "x y")]
    labels = read_audacity("0,500000\t1.000000\tone\n\\\t100.0\t200.0\n1.0\t1.0\t\n")
    assert [(p.start, p.end, p.text) for p in labels.pieces] == [(0.5, 1.0, "one"), (1.0, 1.0, "")]


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "start,end,text\nx,1,y\n", "start,end,text\n1\n"])
def test_other_tables_are_refused(text: str) -> None:
    with pytest.raises(DataError):
        read_csv(text)
    with pytest.raises(DataError, match="line 1 is no label"):
        read_audacity(text)
