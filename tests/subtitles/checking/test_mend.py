"""Mending: what breaks a rule is laid out anew, what does not stays, and nothing is lost."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whisper.subtitles.checking.check import check_by
from whisper.subtitles.checking.cue_files import CueFile, FileCue, cue_of, parse, written
from whisper.subtitles.checking.mend import mended
from whisper.subtitles.rules import Rules, preset
from whisper.subtitles.text_width import MARKUP

from ..speech import SCRIPTS

NETFLIX = preset("netflix", "en")


def srt(*cues: tuple[float, float, str]) -> CueFile:
    return CueFile("srt", tuple(FileCue(round(1000 * a), round(1000 * b), text) for a, b, text in cues))


def shown(file: CueFile) -> list[str]:
    return [cue.text for cue in file.cues]


def broken(file: CueFile, rules: Rules = NETFLIX) -> set[str]:
    return {finding.rule for finding in check_by([cue_of(c, rules.language) for c in file.cues], rules, markup=True)}


def letters(file: CueFile) -> str:
    return re.sub(r"\s", "", MARKUP.sub("", "".join(shown(file))))


@st.composite
def files(draw: st.DrawFn) -> tuple[CueFile, str]:
    """A file as people and programs make them: long and short lines, tags, overlaps, dashes."""
    language = draw(st.sampled_from([*SCRIPTS]))
    space = "" if language in ("ja", "zh", "th") else " "
    now, cues = 0, []
    for _ in range(draw(st.integers(1, 8))):
        lines = draw(
            st.lists(st.lists(st.sampled_from(SCRIPTS[language]), min_size=1, max_size=14), min_size=1, max_size=4)
        )
        tag = draw(st.sampled_from(["", "", "i", "b"]))
        text = "\n".join(space.join(words) for words in lines)
        text = "- " + text.replace("\n", "\n- ") if draw(st.booleans()) and len(lines) == 2 else text
        length = draw(st.integers(300, 9000))
        cues.append(FileCue(now, now + length, f"<{tag}>{text}</{tag}>" if tag else text))
        now += length + draw(st.sampled_from([-50, 0, 10, 84, 200, 3000]))
        now = max(now, cues[-1].start)
    return CueFile("srt", tuple(cues)), language


@settings(max_examples=60, deadline=None)
@given(made=files(), name=st.sampled_from(["netflix", "bbc", "ebu"]))
def test_no_text_is_lost_and_what_can_be_kept_is_kept(made: tuple[CueFile, str], name: str) -> None:
    file, language = made
    rules = preset(name, language)
    new = mended(file, rules)
    assert letters(new) == letters(file)
    assert broken(new, rules) <= {"reading speed", "too short", "torn"}
    for cue in new.cues:
        opened = re.findall(r"<([ib])>", cue.text)
        assert sorted(opened) == sorted(re.findall(r"</([ib])>", cue.text))
    assert parse(written(new)).cues == new.cues


@settings(max_examples=40, deadline=None)
@given(made=files(), name=st.sampled_from(["netflix", "bbc"]))
def test_mending_twice_is_mending_once(made: tuple[CueFile, str], name: str) -> None:
    """What is mended breaks no more when it is mended again."""
    file, language = made
    rules = preset(name, language)
    once = mended(file, rules)
    assert broken(mended(once, rules), rules) <= broken(once, rules) | {"reading speed", "too short", "torn"}


def test_what_breaks_nothing_stays_as_it_is() -> None:
    file = srt(
        (0, 2, "Fine as\nit is."), (2.5, 5, "<i>And this, too:</i>\nit was set by hand."), (9, 11, "- Yes?\n- No.")
    )
    assert mended(file, NETFLIX) == file


def test_a_long_cue_becomes_several_with_their_tags() -> None:
    file = srt(
        (0, 9, "<i>It was a long sentence, which went on and on, and which nobody wanted to read in one piece.</i>")
    )
    new = mended(file, NETFLIX)
    assert len(new.cues) >= 2
    assert all(cue.text.startswith("<i>") and cue.text.endswith("</i>") for cue in new.cues)
    assert broken(new) == set()


def test_scraps_are_joined() -> None:
    file = srt((0, 0.3, "I think"), (0.3, 0.6, "that it"), (0.6, 2.5, "will rain."))
    assert shown(mended(file, NETFLIX)) == ["I think that it will rain."]


@pytest.mark.parametrize(
    "changed", [{"settings": "line:0"}, {"before": "NOTE here"}, {"text": r"{\an8}that it"}, {"text": "- Yes.\n- No."}]
)
def test_cues_of_another_place_or_with_a_comment_are_not_joined(changed: dict[str, Any]) -> None:
    file = srt((0, 0.3, "I think"), (0.3, 0.6, "that it"))
    first, second = file.cues
    new = mended(replace(file, cues=(first, replace(second, **changed))), NETFLIX)
    assert len(new.cues) == 2
    assert (new.cues[1].settings, new.cues[1].before) == (changed.get("settings", ""), changed.get("before", ""))


def test_a_cue_that_cannot_be_joined_may_start_later() -> None:
    new = mended(srt((0, 0.4, r"{\an8}Above."), (0.4, 4, "Below.")), NETFLIX)
    assert broken(new) == set()
    assert new.cues[1].start <= 920
    assert shown(new) == [r"{\an8}Above.", "Below."]


def test_comments_before_cues_without_text_stay() -> None:
    cues = (
        FileCue(0, 1000, "", before="NOTE one"),
        FileCue(2000, 4000, "Hello."),
        FileCue(5000, 6000, "", before="NOTE 2"),
    )
    new = mended(CueFile("vtt", cues, tail="NOTE 3"), NETFLIX)
    assert (len(new.cues), new.cues[0].before, new.tail) == (1, "NOTE one", "NOTE 2\n\nNOTE 3")


def test_no_cue_is_left_over_a_cut() -> None:
    rules = replace(NETFLIX, cuts=(4.0,))
    file = srt((1, 7, "The first half of it was said, and then came the second half of it."))
    assert broken(file, rules) >= {"cut"}
    assert broken(mended(file, rules), rules) == set()
