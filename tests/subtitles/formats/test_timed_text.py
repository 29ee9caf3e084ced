"""SubRip, WebVTT and SBV of other programs, and the exact bytes of ours."""

from __future__ import annotations

import pytest

from whisper.subtitles.cues import Cue, TimedWord
from whisper.subtitles.formats.timed_text import read_sbv, read_srt, read_vtt
from whisper.subtitles.transcript_files import written

from ..talks import PLAIN, TALK


def test_srt_to_the_byte() -> None:
    assert written(TALK, "srt") == (
        '1\n00:00:00,500 --> 00:00:02,000\nAnn: He said "hi" & <\u2060b><\u2060/b>.\n\n'.replace(
            "<\u2060b><\u2060/b>", "<\u2060b>left<\u2060/b>"
        )
        + "2\n00:00:02,500 --> 00:00:04,000\nBob B.: A -> &amp;\n\n"
        "3\n01:02:05,240 --> 01:02:06,520\nÜnïcode 日本語 👩‍👩‍👧.\n\n"
    )


def test_srt_of_others() -> None:
    text = (
        '\ufeff1\r\n0:00:01.5 --> 00:00:02,5 X1:1 X2:2\r\n<i>Hello</i>\r\n<font color="red">you</font>\r\n\r\n'
        "second part\r\n\r\n2\r\n00:00:03,000 --> 00:00:04,000\r\n{\\an8}[SPEAKER_01]: 42\r\n\r\n"
        "00:00:05,000 --> 00:00:06,000\r\nno number\r\n7\r\n"
    )
    found = [(p.start, p.end, p.text, p.speaker) for p in read_srt(text.lstrip("\ufeff")).pieces]
    assert found == [
        (1.5, 2.5, "Hello you second part", None),
        (3.0, 4.0, "42", "SPEAKER_01"),
        (5.0, 6.0, "no number 7", None),
    ]


def test_vtt_of_others() -> None:
    text = (
        "WEBVTT - a title\nKind: captions\nLanguage: fr\n\nSTYLE\n::cue { color: red }\n\nNOTE\n00:01.000 in a note\n\n"
        "name of a cue\n00:01.000 --> 00:03.000 align:start\n<v.loud Zoë>Bonjour <c.x>à</c> tous &lt;3</v>\n"
        "<v Léo>Salut&nbsp;!\n\n1:00:00.000 --> 1:00:02.000\nun <1:00:01.000>deux trois\n"
    )
    timed = read_vtt(text)
    assert timed.language == "fr"
    assert [(p.start, p.end, p.text, p.speaker) for p in timed.pieces] == [
        (1.0, 3.0, "Bonjour à tous <3", "Zoë"),
        (1.0, 3.0, "Salut !", "Léo"),
        (3600.0, 3602.0, "un deux trois", None),
    ]
    assert [(w.text, w.start) for w in timed.pieces[2].words] == [
        ("un", 3600.0), ("deux", 3601.0), (" trois", pytest.approx(3601.4)),
    ]  # fmt: skip


def test_sbv_of_youtube() -> None:
    assert [(p.start, p.text) for p in read_sbv("0:00:00.599,0:00:04.160\n>> Hi[br]there\n\n").pieces] == [
        (0.599, ">> Hi there")
    ]


def test_vtt_with_a_voice_for_each_line() -> None:
    cue = Cue(0.0, 2.0, ((TimedWord("Hi.", 0.0, 1.0, "A & B"),), (TimedWord("Ho.", 1.0, 2.0, "C"),)))
    text = str(written(PLAIN, "vtt", cues=[cue]))
    assert text.endswith("00:00:00.000 --> 00:00:02.000\n<v A &amp; B>Hi.</v>\n<v C>Ho.</v>\n\n")
    pieces = read_vtt(text).pieces
    assert [(p.text, p.speaker) for p in pieces] == [("Hi.", "A & B"), ("Ho.", "C")]


def test_a_cue_lasts_at_least_a_millisecond() -> None:
    cue = Cue(1.0, 1.0, ((TimedWord("x", 1.0, 1.0),),))
    assert "00:00:01,000 --> 00:00:01,001" in str(written(PLAIN, "srt", cues=[cue]))
