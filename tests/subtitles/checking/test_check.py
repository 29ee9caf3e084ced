"""Findings: each rule that is broken is found, and what the layout makes breaks none that it can keep."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whisper.errors import OptionError
from whisper.output.writers import WriteSRT
from whisper.subtitles import lay_out
from whisper.subtitles.checking import check
from whisper.subtitles.checking.cue_files import FileCue, cue_of, parse
from whisper.subtitles.cues import Cue
from whisper.subtitles.rules import PRESETS

from ..guidelines import GUIDES, broken
from ..speech import results


def cue(start: float, end: float, *lines: str, language: str | None = "en") -> Cue:
    return cue_of(FileCue(round(1000 * start), round(1000 * end), "\n".join(lines)), language)


def rules_broken(*cues: Cue, **options: Any) -> list[tuple[int, str]]:
    return [(finding.cue, finding.rule) for finding in check(cues, language="en", **options)]


@pytest.mark.parametrize(
    ("rule", "bad", "options"),
    [
        ("lines", cue(0, 3, "one", "two", "three"), {}),
        ("line width", cue(0, 7, "x" * 43), {}),
        ("line width", cue(0, 7, "x" * 38), {"preset": "bbc"}),
        ("line width", cue(0, 7, "short enough, but"), {"max_line_width": 12}),
        ("words", cue(0, 2, "one two three four"), {"preset": "social"}),
        ("reading speed", cue(0, 1, "so much that nobody reads it"), {}),
        ("too short", cue(0, 0.8, "Hello."), {}),
        ("too long", cue(0, 7.1, "It stands there, and stands there."), {}),
        ("times", cue(2, 2, "Hello."), {}),
        ("empty", cue(0, 2, "<i></i>"), {"markup": True}),
        ("cut", cue(0, 2, "Over a cut."), {"cuts": [1.0]}),
        ("torn", cue(0, 3, "They came to the", "house by the sea."), {}),
    ],
)
def test_a_cue_that_breaks_a_rule_is_found(rule: str, bad: Cue, options: dict[str, Any]) -> None:
    assert rules_broken(bad, **options) == [(1, rule)]


@pytest.mark.parametrize(
    ("rule", "second"),
    [
        ("overlap", cue(1.9, 4, "Second one.")),
        ("gap", cue(2.05, 4, "Second one.")),
        ("open gap", cue(2.3, 4, "Second.")),
        ("torn", cue(2.6, 4, "house by the sea.")),
    ],
)  # fmt: skip
def test_two_cues_that_break_a_rule_are_found(rule: str, second: Cue) -> None:
    assert rules_broken(cue(0, 2, "They came to the"), second) in ([(1, rule)], [(1, rule), (1, "torn")])
    assert rules_broken(cue(0, 2, "First one."), cue(2.6, 4, "Second one.")) == []


def test_what_is_at_the_limit_breaks_nothing() -> None:
    width = "x" * 42
    assert rules_broken(cue(0, 5, width, width), cue(5.084, 5.918, "Next.")) == []
    assert rules_broken(cue(0, 2, "One."), cue(2, 4, "Two."), preset="bbc") == []


def test_scripts_have_their_widths() -> None:
    japanese = cue(0, 4, "今日はとても天気です", language="ja")
    assert check([japanese], language="ja") == []
    (finding,) = check([cue(0, 4, "今日はとても天気です" * 2, language="ja")], language="ja", max_cps=0)
    assert (finding.rule, finding.value, finding.limit) == ("line width", 20, 13)


def test_a_finding_says_what_was_found_and_what_is_allowed() -> None:
    (finding,) = check([cue(61, 61.5, "Hi.")], max_cps=0)
    assert finding.message == "0.500 s long, at least 0.833"
    assert finding.to_dict()["start"] == 61


def test_no_such_preset_is_refused() -> None:
    with pytest.raises(OptionError, match="one of netflix, bbc"):
        check([], "netflicks")


@settings(max_examples=60, deadline=None)
@given(made=results(), name=st.sampled_from([*PRESETS]))
def test_the_layout_breaks_only_what_speech_does_not_allow(made: dict[str, Any], name: str) -> None:
    allowed = {"reading speed", "too short", "torn"}
    assert {finding.rule for finding in check(lay_out(made, name), name, language=made["language"])} <= allowed


@settings(max_examples=60, deadline=None)
@given(made=results(languages=("en", "de", "es")), name=st.sampled_from([*GUIDES]))
def test_a_checker_of_the_guidelines_finds_the_same(made: dict[str, Any], name: str) -> None:
    """In files of openai-whisper's layout, which breaks many rules, and of ours."""
    names = {
        "lines": "lines", "line width": "width", "too short": "short", "too long": "long", "reading speed": "fast",
        "overlap": "overlap", "gap": "gap", "open gap": "open",
    }  # fmt: skip
    for options in ({}, {"subtitle_preset": name}, {"max_line_width": 50, "max_line_count": 3}):
        file = io.StringIO()
        WriteSRT(".").write_result(made, file, options)
        cues = [cue_of(found) for found in parse(file.getvalue()).cues]
        ours = check(cues, name, markup=True, **({"min_gap": 2} if name in ("bbc", "social") else {}))
        theirs = set(broken(file.getvalue(), GUIDES[name]))
        for rule in {"lines", "line width", "too short", "too long", "reading speed", "overlap"}:
            assert {n for r, n in theirs if r == names[rule]} == {f.cue for f in ours if f.rule == rule}
