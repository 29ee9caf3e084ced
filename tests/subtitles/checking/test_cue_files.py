"""SRT and VTT files, read and written back: nothing in them is lost."""

from __future__ import annotations

from pathlib import Path

import pysubs2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whisper.errors import DataError
from whisper.subtitles.checking.cue_files import FileCue, balanced, cue_of, parse, read_file, words_of, written

VTT = """WEBVTT - a title
Language: en

STYLE
::cue { color: yellow }

NOTE of somebody

intro
00:01.000 --> 00:02.500 line:85% align:center
<v Ann Smith>Hello <i>you</i> &amp; me

00:00:03.000 --> 01:00:04.000
<c.loud>Two</c>
lines

NOTE the end
"""


def test_webvtt_is_written_back_as_it_was() -> None:
    file = parse(VTT)
    assert [(c.start, c.end, c.settings, c.identifier) for c in file.cues] == [
        (1000, 2500, "line:85% align:center", "intro"), (3000, 3604000, "", ""),
    ]  # fmt: skip
    assert file.cues[0].before.startswith("STYLE")
    assert "NOTE of somebody" in file.cues[0].before
    again = written(file)
    assert parse(again) == file
    assert again.replace("00:00:01.000 --> 00:00:02.500", "00:01.000 --> 00:02.500") == VTT


@pytest.mark.parametrize(
    "text",
    [
        "1\n00:00:01,000 --> 00:00:02,000\none\n\n2\n00:00:03,000 --> 00:00:04,000\ntwo\n",
        "\ufeff1\r\n00:00:01,000 --> 00:00:02,000\r\none\r\n\r\n2\r\n00:00:03,000 --> 00:00:04,000\r\ntwo",
        "00:00:01.000 --> 00:00:02.000\none\n00:00:03.000 --> 00:00:04.000\ntwo",
        "1\n0:0:1,0 --> 0:0:2,0\none\n2\n0:0:3,0 --> 0:0:4,0\ntwo",
    ],
)
def test_subrip_of_every_sort_is_read(text: str) -> None:
    found = [(cue.start, cue.end, cue.text) for cue in parse(text).cues]
    assert found == [(1000, 2000, "one"), (3000, 4000, "two")]


def test_text_behind_a_blank_line_belongs_to_its_cue() -> None:
    (cue,) = parse("1\n00:00:01,000 --> 00:00:02,000\none\n\nmore\n").cues
    assert cue.lines == ["one", "more"]


@settings(max_examples=80, deadline=None)
@given(
    texts=st.lists(st.text("ab c\u00e9日.,!?-", min_size=1).filter(lambda t: t.strip() and "--" not in t), min_size=1),
    gap=st.integers(0, 5000),
)
def test_an_independent_reader_sees_what_is_written(texts: list[str], gap: int) -> None:
    lines = "\n\n".join(
        f"{n}\n00:00:{n % 60:02d},000 --> 00:00:{n % 60:02d},{gap % 1000:03d}\n{text.strip()}"
        for n, text in enumerate(texts)
    )
    file = parse(lines)
    read = pysubs2.SSAFile.from_string(written(file), format_="srt")
    assert [(e.start, e.end, e.plaintext) for e in read] == [(c.start, c.end, c.text) for c in file.cues]


@pytest.mark.parametrize("bad", ["hello", "1\nhello --> you\nthere", "{}", "<tt></tt>"])
def test_what_is_neither_is_named(bad: str, tmp_path: Path) -> None:
    (tmp_path / "bad.srt").write_text(bad, encoding="utf-8")
    with pytest.raises(DataError, match=r"bad\.srt: "):
        read_file(tmp_path / "bad.srt")


@pytest.mark.parametrize(
    ("line", "language", "words"),
    [
        ("a <i>bc</i>, d", "en", ["a", " <i>bc</i>,", " d"]),
        ("<v Ann Smith>Hello <b> you </b> there", "en", ["<v Ann Smith>Hello", " <b>you </b>", " there"]),
        (r"{\an8}<i>one two</i>", "en", [r"{\an8}<i>one", " two</i>"]),
        ("<i>今日</i>は3.5度", "ja", ["<i>今", "日</i>", "は", "3.5", "度"]),
    ],
)
def test_tags_belong_to_the_words_beside_them(line: str, language: str, words: list[str]) -> None:
    assert words_of(line, language) == words
    assert "".join(words_of(line, language)).replace(" ", "") == line.replace(" ", "")


def test_words_share_the_time_of_their_cue_by_length() -> None:
    cue = cue_of(FileCue(1000, 3000, "a <i>bcd</i>\nefgh"))
    assert [(w.text, w.start) for line in cue.lines for w in line] == [
        ("a", 1.0), (" <i>bcd</i>", pytest.approx(1.222, abs=1e-3)), ("efgh", pytest.approx(2.111, abs=1e-3)),
    ]  # fmt: skip


def test_tags_are_closed_and_opened_again_where_text_is_parted() -> None:
    assert list(balanced([r"{\an8}<i>one", "two</i> <b>three", "four</b> five"])) == [
        r"{\an8}<i>one</i>",
        r"{\an8}<i>two</i> <b>three</b>",
        r"{\an8}<b>four</b> five",
    ]
