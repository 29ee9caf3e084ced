"""Presets by language, numbers in place of theirs, and lists of cuts."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from whisper.errors import OptionError
from whisper.subtitles.rules import PRESETS, RuleOptions, Rules, preset, read_cuts, rules_of

from ..conftest import ROOT


@pytest.mark.parametrize(
    ("name", "language", "width", "cps", "dash"),
    [
        ("netflix", "en", 42, 17, "-"), ("netflix", "de", 42, 17, "-"), ("netflix", "fr", 42, 17, "- "),
        ("netflix", "ja", 13, 7, "-"), ("netflix", "zh", 16, 9, "-"), ("netflix", "ko", 16, 12, "- "),
        ("netflix", "th", 35, 17, "- "), ("bbc", "en", 37, 15, "-"), ("ebu", "zh", 16, 9, "-"),
        ("social", "zh", 10, float("inf"), "-"),
    ],
)  # fmt: skip
def test_presets_have_the_numbers_of_their_language(
    name: str, language: str, width: int, cps: float, dash: str
) -> None:
    rules = preset(name, language)
    assert (rules.max_line_width, rules.max_cps, rules.dash) == (width, cps, dash)


def test_every_number_is_an_option() -> None:
    fixed = {"dash", "first_dash", "language"}  # of the language
    assert {f.name for f in fields(Rules)} - fixed == {f.name for f in fields(RuleOptions)} - {"subtitle_preset"}


def test_what_is_given_is_in_place_of_the_presets_number() -> None:
    given = {"max_line_width": 30, "max_cps": 0, "min_gap": 3, "fps": 25, "highlight_words": True, "cuts": [2, 1, 2]}
    rules = rules_of("ebu", "English", given, "f")
    assert (rules.max_line_width, rules.max_cps, rules.gap_ms, rules.highlight_words) == (30, float("inf"), 120, True)
    assert rules.cuts == (1.0, 2.0)
    assert rules.language == "en"
    assert rules.max_line_count == PRESETS["ebu"].max_line_count


def test_openai_whispers_values_for_nothing_leave_the_presets() -> None:
    options = {"max_line_width": None, "max_line_count": 0, "highlight_words": False, "subtitle_preset": "karaoke"}
    rules = RuleOptions.within(options).rules("en")
    assert (rules.max_line_width, rules.max_line_count, rules.highlight_words) == (42, 2, True)


def test_two_frames_are_two_frames_or_more() -> None:
    assert [rules_of("netflix", "en", {"fps": fps}, "f").gap_ms for fps in (23.976, 24, 25, 30, 50)] == [
        84, 84, 80, 67, 40,
    ]  # fmt: skip


def test_cuts_are_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "cuts.txt"
    file.write_text("# scene, by hand\n12.5\n00:01:02,250\n\n1:00:00 interview\n3\n", encoding="utf-8")
    assert read_cuts(file) == (3.0, 12.5, 62.25, 3600.0)
    assert RuleOptions(subtitle_preset="bbc", cuts=str(file)).rules("en").cuts[0] == 3.0
    file.write_text("1.0\nsoon\n", encoding="utf-8")
    with pytest.raises(OptionError, match=r"line 2: 'soon' is no time"):
        read_cuts(file)


def test_rules_without_a_preset_have_no_effect_and_say_so() -> None:
    assert RuleOptions(max_cps=12, max_line_width=3).without_effect() == ["max_cps"]
    with pytest.raises(OptionError, match="need subtitle_preset"):
        RuleOptions(max_cps=12).rules("en")


def test_the_page_has_the_numbers_of_the_presets() -> None:
    page = (ROOT / "docs" / "subtitles.md").read_text(encoding="utf-8")
    rows = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in page.splitlines() if line[:1] == "|"]
    names = rows[0][1:]
    assert names == [*PRESETS]
    for row in rows[2:14]:
        for name, cell in zip(names, row[1:], strict=True):
            value = getattr(PRESETS[name], row[0])
            nothing = value is None or value == float("inf")
            assert cell == ("none" if nothing else value if isinstance(value, str) else f"{value:.3g}"), (name, row[0])
