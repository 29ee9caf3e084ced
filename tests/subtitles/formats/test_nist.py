"""CTM and STM of other programs, and RTTM of ours."""

from __future__ import annotations

import pytest

from whisper.errors import DataError
from whisper.subtitles.formats.nist import read_ctm, read_stm
from whisper.subtitles.transcript_files import written


def test_words_become_sentences() -> None:
    text = ";; a comment\nx 1 0.0 0.5 One. 0.9\nx 1 0.5 0.4 two NA\nx 1 2.0 0.5 three\n"
    assert [(p.start, p.end, p.text) for p in read_ctm(text).pieces] == [
        (0.0, 0.5, " One."), (0.5, 0.9, " two"), (2.0, 2.5, " three"),
    ]  # fmt: skip
    two = read_ctm("x A 0 1 hi\nx B 0 1 ho\n").pieces
    assert [(p.speaker, p.text) for p in two] == [("channel A", " hi"), ("channel B", " ho")]
    assert len(read_ctm("".join(f"x 1 {i} 1 w\n" for i in range(100))).pieces) == 3


def test_stm_with_labels() -> None:
    text = "x A ann 0.0 1.5 <o,f0,male> some words\nx A b 2 3 IGNORE_TIME_SEGMENT_IN_SCORING\n"
    assert [(p.end, p.text, p.speaker) for p in read_stm(text).pieces] == [(1.5, "some words", "ann")]


def test_damage_is_named() -> None:
    with pytest.raises(DataError, match="line 2 is not of CTM"):
        read_ctm("x 1 0 1 a\nx 1 0\n")
    with pytest.raises(DataError, match="several recordings"):
        read_ctm("x 1 0 1 a\ny 1 0 1 a\n")
    with pytest.raises(DataError, match="line 1 is not of STM"):
        read_stm("x 1 ann zero 1 a\n")


def test_rttm_has_the_turns_of_a_result_where_it_has_any() -> None:
    segments = [{"start": 0.5, "end": 1.0, "text": " Hi.", "speaker": "Ann"}]
    turns = [{"start": 0.1, "end": 1.25, "speaker": "Ann"}, {"start": 0.9, "end": 2.0, "speaker": "Bo B"}]
    made = {"text": " Hi.", "segments": segments, "language": "en", "turns": turns}
    lines = str(written(made, "rttm", name="talk")).splitlines()
    assert lines == [
        "SPEAKER talk 1 0.100 1.150 <NA> <NA> Ann <NA> <NA>",
        "SPEAKER talk 1 0.900 1.100 <NA> <NA> Bo_B <NA> <NA>",
    ]
    del made["turns"]
    assert str(written(made, "rttm", name="talk")) == "SPEAKER talk 1 0.500 0.500 <NA> <NA> Ann <NA> <NA>\n"
