"""TTML of other programs: its ways to write times, nested times, agents."""

from __future__ import annotations

import pytest

from whisper.errors import DataError
from whisper.subtitles.formats.ttml import read_ttml

HEAD = '<tt xmlns="http://www.w3.org/ns/ttml" xmlns:ttp="http://www.w3.org/ns/ttml#parameter" xml:lang="en" {}>'


def pieces(body: str, attributes: str = "") -> list[tuple[float, float, str]]:
    text = f"<?xml version='1.0'?>{HEAD.format(attributes)}<body>{body}</body></tt>"
    return [(round(p.start, 4), round(p.end, 4), " ".join(p.text.split())) for p in read_ttml(text).pieces]


@pytest.mark.parametrize(
    ("time", "seconds"),
    [("00:00:01.5", 1.5), ("01:00:00", 3600.0), ("1.25s", 1.25), ("1500ms", 1.5), ("2m", 120.0), ("1h", 3600.0),
     ("48f", 2.0), ("00:00:01:12", 1.5), ("20000000t", 2.0)],
)  # fmt: skip
def test_times(time: str, seconds: float) -> None:
    attributes = 'ttp:frameRate="24" ttp:tickRate="10000000"'
    found = pieces(f'<div><p begin="{time}" end="9h">x</p></div>', attributes)
    assert found == [(seconds, 32400.0, "x")]


def test_times_add_up_and_dur_is_a_length() -> None:
    body = (
        '<div begin="10s" end="20s"><p begin="1s" dur="2s">a<br/>b</p><p begin="5s" end="30s"><span>c</span></p></div>'
    )
    assert pieces(body) == [(11.0, 13.0, "a b"), (15.0, 20.0, "c")]


def test_the_rate_may_be_multiplied() -> None:
    attributes = 'ttp:frameRate="30" ttp:frameRateMultiplier="1000 1001"'
    assert pieces('<p begin="0s" end="30f">x</p>', attributes) == [(0.0, 1.001, "x")]


@pytest.mark.parametrize(
    ("text", "message"),
    [("<html/>", "begins with <tt>"), ("<tt", "no XML"), ("", "no XML"),
     ('<!DOCTYPE tt [<!ENTITY a "b">]><tt>&a;</tt>', "defines entities"),
     (HEAD.format("") + '<body><p begin="1s">x</p></body></tt>', "no end"),
     (HEAD.format("") + '<body><p begin="soon" end="2s">x</p></body></tt>', "'soon' is no time"),
     (HEAD.format('ttp:frameRate="0"') + "</tt>", "above 0")],
)  # fmt: skip
def test_damage_is_named(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_ttml(text)
