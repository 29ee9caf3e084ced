"""Files of results that openai-whisper cannot make: labels in every format, and text that no reader takes for markup.

Each file is read back by a reader that is as strict as its format.
"""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whisper.errors import OptionError
from whisper.output import writers
from whisper.output.writers import WORD_JOINER, WriteSRT, WriteVTT
from whisper.transcription.window_loop import verbose_line

LAYOUTS: list[dict[str, Any]] = [
    {}, {"max_line_width": 34}, {"max_line_width": 34, "max_line_count": 2}, {"max_words_per_line": 2},
    {"highlight_words": True}, {"highlight_words": True, "max_line_width": 30, "max_line_count": 1},
]  # fmt: skip


class Shown(NamedTuple):
    """A cue as a player shows it."""

    start: float
    end: float
    text: str  # without tags, entities and labels
    channel: str | None = None
    language: str | None = None
    lines: int = 1
    width: int = 0


def seconds(time: str) -> float:
    hours, minutes, rest = (["0", *time.replace(",", ".").split(":")])[-3:]
    return int(hours) * 3600 + int(minutes) * 60 + float(rest)


def blocks(text: str) -> list[list[str]]:
    """The blocks of a file, whose lines are what any reader may take for a line."""
    assert text.endswith("\n\n")
    return [block.splitlines() for block in text[:-2].split("\n\n")]


def times(line: str, pattern: str) -> tuple[float, float]:
    found = re.fullmatch(f"({pattern}) --> ({pattern})", line)
    assert found, line
    assert seconds(found[1]) < seconds(found[2]), line
    return seconds(found[1]), seconds(found[2])


def read_srt(text: str) -> list[Shown]:
    cues = []
    for number, (count, when, *lines) in enumerate(blocks(text) if text else [], start=1):
        assert count == str(number)
        assert lines
        assert all(line.strip() and "-->" not in line for line in lines), lines
        joined = re.sub("</?u>", "", "\n".join(lines))
        assert not re.search(r"<[A-Za-z/!?]|\{\\|\0", joined), joined  # what players take for a tag
        label = re.match(r"(?:\[channel (\d)\] )?(?:\[(\w+)\] )?", joined)
        assert label
        rest = joined[label.end() :].replace(WORD_JOINER, "")
        width = max(map(len, joined.replace(WORD_JOINER, "").split("\n")))
        cues.append(Shown(*times(when, r"\d\d+:\d\d:\d\d,\d{3}"), rest, *label.groups(), len(lines), width))
    assert all(a.start <= b.start for a, b in pairwise(cues))
    return cues


def read_vtt(text: str) -> list[Shown]:
    head, *rest = blocks(text)
    assert head == ["WEBVTT"]
    cues = []
    for when, *lines in rest:
        assert lines
        assert all(line.strip() and "-->" not in line for line in lines), lines
        joined = "\n".join(lines)
        voice = re.match(r"<v channel (\d)>", joined)
        inner = joined[voice.end() :] if voice else joined
        spoken = re.fullmatch(r"<lang (\w+)>(.*)</lang>", inner, re.DOTALL)
        inner = spoken[2] if spoken else inner
        assert inner.count("<u>") == inner.count("</u>") <= 1
        plain = re.sub("</?u>", "", inner)
        assert not re.search(r"[<>\0]|&(?!amp;|lt;|gt;)", plain), plain
        plain = html.unescape(plain)
        width = max(map(len, plain.split("\n")))
        found = voice and voice[1], spoken and spoken[1]
        cues.append(Shown(*times(when, r"(?:\d\d+:)?\d\d:\d\d\.\d{3}"), plain, *found, len(lines), width))
    assert all(a.start <= b.start for a, b in pairwise(cues))
    return cues


READERS = {"srt": read_srt, "vtt": read_vtt}


def written(made: dict[str, Any], extension: str, **options: Any) -> str:
    file = io.StringIO()
    writers.WRITERS[extension](".").write_result(made, file=file, options=options)
    return file.getvalue()


def segment(words: Sequence[str], start: float, pace: float = 0.5, **more: Any) -> dict[str, Any]:
    timed = [
        {"word": word, "start": round(start + i * pace, 2), "end": round(start + (i + 1) * pace, 2), "probability": 1.0}
        for i, word in enumerate(words)
    ]
    ends = {"start": start, "end": round(start + pace * len(words), 2)}
    return {**ends, "text": "".join(words), "words": timed, **more}


def result(*segments: dict[str, Any], words: bool = True) -> dict[str, Any]:
    kept = [s if words else {k: v for k, v in s.items() if k != "words"} for s in segments]
    return {"text": "".join(s["text"] for s in segments), "segments": kept, "language": "en"}


TALK = (
    segment([" Good", " morning,", " how", " can", " I", " help", " you", " today?"], 0.0, channel=0),
    segment([" Guten", " Tag,"], 0.6, channel=1, language="de"),
    segment([" I", " have", " a", " question."], 1.7, channel=1, language="en"),
    segment([" Go", " on."], 4.5, channel=0),
)
NASTY = (
    " a",
    " -->",
    " <b>x</b>",
    " R&D",
    " {\\an8}",
    " one\n\ntwo",
    " \0",
    " 1 < 2",
    " &amp;",
    " --",
    "-->",
    " <",
    "i>",
)


# ---------------------------------------------------------------------------------------------------------
# Labels
# ---------------------------------------------------------------------------------------------------------


def test_each_format_says_who_speaks_in_which_language() -> None:
    made = result(*TALK, words=False)
    assert written(made, "srt") == (
        "1\n00:00:00,000 --> 00:00:04,000\n[channel 0] Good morning, how can I help you today?\n\n"
        "2\n00:00:00,600 --> 00:00:01,600\n[channel 1] [de] Guten Tag,\n\n"
        "3\n00:00:01,700 --> 00:00:03,700\n[channel 1] [en] I have a question.\n\n"
        "4\n00:00:04,500 --> 00:00:05,500\n[channel 0] Go on.\n\n"
    )
    assert written(made, "vtt").startswith(
        "WEBVTT\n\n00:00.000 --> 00:04.000\n<v channel 0>Good morning, how can I help you today?\n\n"
        "00:00.600 --> 00:01.600\n<v channel 1><lang de>Guten Tag,</lang>\n\n"
    )
    assert written(made, "txt").splitlines()[1:] == [
        "[channel 1] [de] Guten Tag,", "[channel 1] [en] I have a question.", "[channel 0] Go on.",
    ]  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(written(made, "tsv")), delimiter="\t", quoting=csv.QUOTE_NONE))
    assert rows[1] == {"start": "600", "end": "1600", "text": "Guten Tag,", "channel": "1", "language": "de"}
    assert rows[3]["language"] == ""
    assert json.loads(written(made, "json")) == made


def test_languages_alone_get_a_column_and_a_label() -> None:
    made = result(segment([" Hallo."], 0.0, language="de"), segment([" Hi."], 1.0, language="en"))
    assert written(made, "tsv") == "start\tend\ttext\tlanguage\n0\t500\tHallo.\tde\n1000\t1500\tHi.\ten\n"
    assert written(made, "txt") == "[de] Hallo.\n[en] Hi.\n"
    assert "\n<lang de>Hallo.</lang>\n" in written(made, "vtt")
    assert "\n[en] Hi.\n" in written(made, "srt", max_line_width=40, max_line_count=2)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("extension", READERS)
def test_no_layout_mixes_channels_or_languages(extension: str, layout: dict[str, Any]) -> None:
    cues = READERS[extension](written(result(*TALK), extension, **layout))
    for label in {(cue.channel, cue.language) for cue in cues}:
        said = "".join(s["text"] for s in TALK if (str(s["channel"]), s.get("language")) == label).split()
        shown = [cue.text.split() for cue in cues if (cue.channel, cue.language) == label]
        if layout.get("highlight_words"):
            assert {word for words in shown for word in words} == set(said)
        else:
            assert [word for words in shown for word in words] == said
    assert len({(cue.channel, cue.language) for cue in cues}) == 3
    assert all(cue.width <= layout.get("max_line_width", 1000) for cue in cues)
    assert all(cue.lines <= layout.get("max_line_count", 9) for cue in cues)


def test_the_label_of_a_segment_can_break_nothing() -> None:
    made = result(segment([" Hi."], 0.0, channel="a>\n\n1 --> 2\t&", language="<x>"))
    assert written(made, "vtt").count("\n\n") == 2
    assert written(made, "srt").count("\n\n") == 1
    assert len(written(made, "tsv").splitlines()[1].split("\t")) == 5
    assert len(written(made, "txt").splitlines()) == 1


def test_the_screen_names_the_language_and_the_speaker() -> None:
    shown: Any = {"start": 0.0, "end": 1.0, "text": " Hallo.", "language": "de"}
    assert verbose_line(shown) == "[00:00.000 --> 00:01.000] [de] Hallo."
    assert verbose_line({**shown, "speaker": "Ana"}) == "[00:00.000 --> 00:01.000] [de] Ana: Hallo."
    assert verbose_line({"start": 0.0, "end": 1.0, "text": " Hi.", "speaker": "Ana"}) == (  # type: ignore[typeddict-item]
        "[00:00.000 --> 00:01.000]  Ana: Hi."
    )


# ---------------------------------------------------------------------------------------------------------
# Escapes
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("extension", READERS)
def test_arrows_tags_entities_and_blank_lines(extension: str, layout: dict[str, Any], words: bool) -> None:
    made = result(segment(NASTY, 1.0), segment([" fine"], 9.0), words=words)
    cues = READERS[extension](written(made, extension, escape_cues=True, **layout))
    assert "fine" in cues[-1].text
    shown = " ".join(cue.text for cue in cues)
    for word in ("<b>x</b>", "R&D", "{\\an8}", "1 < 2", "&amp;"):
        assert all(part in shown for part in word.split()), word


def test_escapes_as_they_stand_in_the_files() -> None:
    made = result(segment(NASTY[:6], 0.0), words=False)
    assert "\na --&gt; &lt;b&gt;x&lt;/b&gt; R&amp;D {\\an8} one two\n\n" in written(made, "vtt", escape_cues=True)
    srt = f"\na -> <{WORD_JOINER}b>x<{WORD_JOINER}/b> R&D {{{WORD_JOINER}\\an8}} one two\n\n"
    assert srt in written(made, "srt", escape_cues=True)
    assert written(made, "txt", escape_cues=True).count("\n") == 1
    assert written(made, "tsv", escape_cues=True).count("\n") == 2
    labelled = result(segment(NASTY, 0.0, channel=0))
    assert written(labelled, "vtt") == written(labelled, "vtt", escape_cues=True)
    assert "<b>" in written(labelled, "vtt", escape_cues=False)


def test_the_originals_bytes_stay_the_default() -> None:
    made = result(segment([" a", " -->", " <b>", " R&D"], 0.0))
    assert written(made, "srt") == "1\n00:00:00,000 --> 00:00:02,000\na --> <b> R&D\n\n"
    assert written(made, "vtt", escape_cues=False) == "WEBVTT\n\n00:00.000 --> 00:02.000\na --> <b> R&D\n\n"


def test_cues_without_text_or_length() -> None:
    empty = segment([], 3.0, channel=0)
    made = result(segment([" Hi."], 1.0, pace=0.0, channel=0), empty, segment([" "], 4.0, channel=1))
    for words in (True, False):
        shown = result(*made["segments"], words=words)
        assert [(c.start, c.end, c.text) for c in read_srt(written(shown, "srt"))] == [(1.0, 1.001, "Hi.")]
        assert len(read_vtt(written(shown, "vtt"))) == 1
        assert written(shown, "txt") == "[channel 0] Hi.\n"


def test_a_wrong_flag_is_refused() -> None:
    for extension in ("srt", "vtt", "txt", "tsv"):
        with pytest.raises(OptionError, match="escape_cues"):
            written(result(*TALK), extension, escape_cues="yes")
    assert list(WriteSRT(".").iterate_result(result(), escape_cues=True)) == []
    assert list(WriteVTT(".").iterate_result(result(*TALK), {"escape_cues": True}, escape_cues=None))


WORDS = st.lists(st.text("ab <>&-{\\}/!\n\r\u2028\u0085\0\t;你", max_size=6), max_size=6)


@given(
    spoken=st.lists(st.tuples(WORDS, st.integers(0, 2)), max_size=5),
    layout=st.sampled_from(LAYOUTS),
    timed=st.booleans(),
)
def test_whatever_is_said_comes_back(spoken: list[tuple[list[str], int]], layout: dict[str, Any], timed: bool) -> None:
    segments = [segment([" " + w for w in words], i, 0.1, channel=c) for i, (words, c) in enumerate(spoken)]
    made = result(*segments, words=timed)
    for extension, read in READERS.items():
        cues = read(written(made, extension, **layout))
        if layout.get("highlight_words") and timed:
            continue
        for channel in range(3):
            said = "".join(s["text"] for s in segments if s["channel"] == channel).replace("\0", "")
            shown = "".join(cue.text for cue in cues if cue.channel == str(channel))
            if extension == "srt":  # an arrow is shortened there
                said, shown = said.replace("-", ""), shown.replace("-", "")
            assert "".join(shown.split()) == "".join(said.split())
    assert len(written(made, "tsv").splitlines()) == 1 + len(segments)
