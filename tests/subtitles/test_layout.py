"""The layout by rules: each rule over words at random, and the best of all ways to cut, found by trying them all."""

from __future__ import annotations

import io
import itertools
import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from whisper.errors import OptionError, ResultError, UnknownOptionError
from whisper.output.writers import WriteSRT, WriteVTT
from whisper.subtitles.cues import Cue
from whisper.subtitles.layout import PART, SENTENCES, TURN, cue_cost, cues_of, lay_out
from whisper.subtitles.line_breaking import TORN, may_break
from whisper.subtitles.lines import best_lines
from whisper.subtitles.passage import Passage
from whisper.subtitles.rules import PRESETS, preset
from whisper.subtitles.spoken_words import spoken_words
from whisper.subtitles.text_width import width

from ..transcripts import FOX, result, segment, spoken, without_words
from .guidelines import GUIDES, broken
from .speech import SPACED, results

RULED = st.sampled_from([*PRESETS])
QUICK = settings(max_examples=60, deadline=None)


def lines_of(cue: Cue) -> list[str]:
    return ["".join(word.text for word in line) for line in cue.lines]


def letters(texts: Any) -> str:
    return "".join("".join(texts).split())


def srt_of(made: dict[str, Any], **rules: Any) -> str:
    file = io.StringIO()
    WriteSRT(".").write_result(made, file, **rules)
    return file.getvalue()


# ---------------------------------------------------------------------------------------------------------
# Rules that always hold, whatever the words are
# ---------------------------------------------------------------------------------------------------------


@QUICK
@given(made=results(wild=True), name=RULED)
def test_no_word_is_lost_and_all_keep_their_order(made: dict[str, Any], name: str) -> None:
    cues = lay_out(made, name)
    assert letters(text for cue in cues for text in lines_of(cue)) == letters(made["text"])


@QUICK
@given(made=results(wild=True), name=RULED)
def test_lines_are_no_longer_and_no_more_than_allowed(made: dict[str, Any], name: str) -> None:
    rules = preset(name, made["language"])
    for cue in lay_out(made, name):
        lines = lines_of(cue)
        assert 1 <= len(lines) <= rules.max_line_count
        assert all(line and width(line, rules.full_width) <= rules.max_line_width for line in lines)
        assert all(line == line.strip() for line in lines)


@QUICK
@given(made=results(wild=True), name=RULED)
def test_cues_follow_one_another_with_the_least_gap_or_more(made: dict[str, Any], name: str) -> None:
    cues = lay_out(made, name)
    for cue, following in pairwise(cues):
        gap = round(1000 * following.start) - round(1000 * cue.end)
        assert gap >= preset(name, made["language"]).gap_ms or cue.end - cue.start <= 0.0011
    assert all(cue.end > cue.start >= 0 for cue in cues)


@QUICK
@given(made=results(wild=True), name=RULED)
def test_no_cue_is_shown_for_longer_than_allowed(made: dict[str, Any], name: str) -> None:
    longest = preset(name).max_duration
    assert all(cue.end - cue.start <= longest + 1e-6 for cue in lay_out(made, name))


@QUICK
@given(made=results(wild=True), words=st.integers(1, 5))
def test_no_cue_has_more_words_than_allowed(made: dict[str, Any], words: int) -> None:
    assume(made["language"] in ("en", "es", "ar"))
    for cue in lay_out(made, "social", max_words_per_line=words):
        assert len("".join(lines_of(cue)).split()) <= words or "--" in "".join(lines_of(cue))


@QUICK
@given(made=results(), name=RULED)
def test_no_cue_goes_over_a_long_pause(made: dict[str, Any], name: str) -> None:
    rules = preset(name, made["language"])
    for cue in lay_out(made, name):
        space = " " if made["language"] in SPACED else ""
        words = [word for line in cue.lines for word in line]
        for word, following in pairwise(words):
            held = not may_break(word.text, space + following.text.strip())
            assert held or following.start - word.end <= rules.max_pause + 1e-6


# ---------------------------------------------------------------------------------------------------------
# Rules that the pace of speech can make impossible
# ---------------------------------------------------------------------------------------------------------


@QUICK
@given(made=results(languages=("en", "de", "fr", "es")), name=st.sampled_from(["netflix", "bbc", "ebu"]))
def test_a_cue_is_short_only_where_the_next_word_comes_too_soon(made: dict[str, Any], name: str) -> None:
    rules = preset(name, made["language"])
    cues = lay_out(made, name)
    for n, cue in enumerate(cues):
        if cue.end - cue.start < rules.min_duration - 0.001:
            assert n + 1 < len(cues)
            assert cues[n + 1].start - cue.start < rules.min_duration + rules.gap_ms / 1000 + 0.002


@QUICK
@given(made=results(), name=st.sampled_from(["netflix", "bbc", "ebu"]))
def test_reading_speed_is_kept_where_silence_allows_it(made: dict[str, Any], name: str) -> None:
    """A cue that is read too fast is shown as long as it can be: until the next one, or `max_lead_out` after it."""
    rules = preset(name, made["language"])
    cues = lay_out(made, name)
    for cue, following in itertools.zip_longest(cues, cues[1:]):
        size = sum(width(line, rules.full_width) for line in lines_of(cue)) + len(cue.lines) - 1
        if size / (cue.end - cue.start) > rules.max_cps * 1.02:
            until = min(cue.start + rules.max_duration, cue.lines[-1][-1].end + rules.max_lead_out)
            if following:
                until = min(until, following.start - rules.gap_ms / 1000)
            assert cue.end >= until - 0.002


@QUICK
@given(made=results(), name=RULED)
def test_small_gaps_are_closed_unless_a_cue_would_be_shown_too_long(made: dict[str, Any], name: str) -> None:
    rules = preset(name, made["language"])
    for cue, following in pairwise(lay_out(made, name)):
        gap = round(1000 * (following.start - cue.end))
        if rules.gap_ms < gap < 1000 * rules.close_gaps:
            assert cue.end - cue.start >= rules.max_duration - 0.002


@QUICK
@given(made=results(wild=True), cuts=st.lists(st.floats(0, 30), max_size=8), name=RULED)
def test_a_cue_crosses_a_cut_only_where_the_shots_are_too_short_to_read(
    made: dict[str, Any], cuts: list[float], name: str
) -> None:
    """With shots of three seconds or more: only where one of the two cues beside the cut would be too short."""
    cuts = [cut for n, cut in enumerate(sorted(cuts)) if n == 0 or cut - sorted(cuts)[n - 1] >= 3]
    rules = preset(name, made["language"])
    cues = lay_out(made, name, cuts=cuts)
    for cue, following in itertools.zip_longest(cues, cues[1:]):
        until = following.start - rules.gap_ms / 1000 if following else math.inf
        for cut in cuts:
            if round(1000 * cue.start) < round(1000 * cut) < round(1000 * cue.end):
                words = [word for line in cue.lines for word in line]
                at = max(
                    k for k, word in enumerate(words) if k == 0 or (words[k].start + words[k].end) / 2 < cut + 0.001
                )
                space = " " if made["language"] in SPACED else ""
                may_part = at + 1 < len(words) and may_break(words[at].text, space + words[at + 1].text.strip())
                second = max(cut, words[at + 1].start) if may_part else cut
                shorter = min(cut - rules.gap_ms / 1000 - cue.start, until - second)
                assert shorter < rules.min_duration + 0.002 or not may_part


def test_a_cut_between_two_words_parts_their_cues() -> None:
    made = result(spoken(" One two three four five six seven eight nine ten."))
    assert len(lay_out(made)) == 1
    cues = lay_out(made, cuts=[2.05])
    assert [lines_of(cue) for cue in cues] == [["One two three four five"], ["six seven eight nine ten."]]
    assert (cues[0].end, cues[1].start) == (pytest.approx(2.05 - 0.084), 2.05)


@pytest.mark.parametrize("name", GUIDES)
@settings(max_examples=40, deadline=None)
@given(made=results(languages=("en", "de", "fr", "es", "ar")))
def test_the_guidelines_find_nothing_but_what_speech_itself_breaks(name: str, made: dict[str, Any]) -> None:
    """At an ordinary pace: only words that are said faster than they can be read, and turns that come too soon."""
    found = {rule for rule, _ in broken(srt_of(made, subtitle_preset=name), GUIDES[name])}
    assert found <= {"fast", "short"}


def test_a_pause_behind_a_lone_quotation_mark_is_not_inside_a_cue() -> None:
    words = [(" le", 0.0, 0.19), (" le", 0.19, 0.38), (" le", 0.38, 0.57), (" le", 0.57, 0.76), (" «", 0.76, 0.95)]
    made = {**result(segment([*words, (" quatre-vingts", 2.45, 3.87), (" le", 3.87, 4.06)])), "language": "fr"}
    assert not broken(srt_of(made, subtitle_preset="social"), GUIDES["social"])


# ---------------------------------------------------------------------------------------------------------
# The best of all
# ---------------------------------------------------------------------------------------------------------


def cost_of(passage: Passage, bounds: tuple[int, ...]) -> float:
    """What a way to cut costs, summed up anew."""
    total = 0.0
    for i, j in pairwise(bounds):
        inside = range(i + 1, j)
        if any(passage.starts[k] - passage.speech_ends[k - 1] > 1000 * passage.rules.max_pause for k in inside):
            return math.inf
        if any(passage.starts[k] - passage.starts[i] >= 1000 * passage.rules.max_duration for k in inside):
            return math.inf
        pauses = ((passage.starts[k] - passage.speech_ends[k - 1]) / 1000 for k in inside)
        total += sum(8.0 * max(0.0, pause - 0.6) for pause in pauses)
        ends = [k for k in inside if passage.sentence_ends[k - 1]]
        total += SENTENCES * len(ends) + TURN * sum(passage.turns[k] for k in inside)
        total += PART * (bool(ends) and not passage.sentence_ends[j - 1])
        total += best_lines(passage, i, j).cost + cue_cost(passage, i, j)
    return total


@settings(max_examples=40, deadline=None)
@given(made=results(languages=("en",), wild=True))
def test_no_other_way_to_cut_costs_less(made: dict[str, Any]) -> None:
    spoken_ = spoken_words(made)
    rules = preset("netflix", "en")
    words = spoken_.words[:9]
    passage = Passage(words, rules, [k for k in spoken_.segment_starts if k < len(words)])
    n = len(words)
    ways = (
        (0, *bounds, n) for size in range(n) for bounds in itertools.combinations(range(1, n), size)
    )  # fmt: skip
    least = min(cost_of(passage, bounds) for bounds in ways)
    sizes = [sum(len(line) for line in cue.lines) for cue in cues_of(passage)]
    chosen = cost_of(passage, tuple(itertools.accumulate([0, *sizes])))
    assume(least < math.inf)
    assert chosen == pytest.approx(least)


@QUICK
@given(made=results(languages=("en", "de", "fr", "es")))
def test_nothing_is_torn_apart_where_two_lines_could_hold_it(made: dict[str, Any]) -> None:
    """A line ends between an article and its noun only if the cue has no other way to break that fits."""
    language = made["language"]
    for cue in lay_out(made):
        words = [replace(word, text=" " + word.text.strip()) for line in cue.lines for word in line]
        passage = Passage(words, preset("netflix", language))
        at = len(cue.lines[0])
        if len(cue.lines) == 2 and passage.costs[at] >= TORN:
            fitting = [
                k
                for k in range(1, len(words))
                if passage.width(0, k) <= 42 and passage.width(k, len(words)) <= 42 and passage.costs[k] < 12
            ]
            assert not fitting


# ---------------------------------------------------------------------------------------------------------
# Speakers, sounds, shapes
# ---------------------------------------------------------------------------------------------------------


def by(speaker: str, text: str, start: float, pace: float = 0.15) -> dict[str, Any]:
    return {**spoken(text, start=start, pace=pace), "speaker": speaker}


TALK = result(by("Ann", " Is it ready?", 0.0), by("Bob", " Not yet.", 0.5), by("Ann", " Then we wait for it.", 6.0))
SLOW = result(by("Ann", " Is it ready?", 0.0, 0.4), by("Bob", " Not yet.", 1.3, 0.4))


@pytest.mark.parametrize(
    ("language", "first", "second"), [("en", "-Is", "-Not"), ("es", "- Is", "- Not"), ("nl", "Is", "-Not")]
)
def test_two_speakers_in_a_cue_have_dashes(language: str, first: str, second: str) -> None:
    cues = lay_out({**TALK, "language": language})
    assert lines_of(cues[0]) == [f"{first} it ready?", f"{second} yet."]
    assert lines_of(cues[1]) == ["Then we wait for it."]
    assert [cue.speaker for cue in cues] == [None, "Ann"]


def test_speakers_who_leave_the_time_for_it_have_a_cue_each() -> None:
    assert [lines_of(cue) for cue in lay_out(SLOW)] == [["Is it ready?"], ["Not yet."]]


def test_names_stand_where_the_speaker_changes() -> None:
    shown = [lines_of(cue) for cue in lay_out(TALK, speaker_style="name")]
    assert shown == [["Ann: Is it ready?", "Bob: Not yet."], ["Ann: Then we wait for it."]]


def test_colours_part_the_cues_of_speakers() -> None:
    cues = lay_out(TALK, "bbc")
    assert [cue.speaker for cue in cues] == ["Ann", "Bob", "Ann"]
    srt = srt_of(TALK, subtitle_preset="bbc")
    assert '<font color="white">Is it ready?</font>' in srt
    assert '<font color="yellow">Not yet.</font>' in srt
    voices = [text for _, _, text in WriteVTT(".").iterate_result(TALK, subtitle_preset="bbc")]
    assert voices[1] == "<v Bob><c.yellow>Not yet.</c>"


@QUICK
@given(made=results(languages=("en",)), names=st.lists(st.sampled_from(["Ann", "Bob", "Charlotte " * 6]), min_size=1))
def test_lines_with_names_and_dashes_are_no_longer_than_allowed(made: dict[str, Any], names: list[str]) -> None:
    for n, one in enumerate(made["segments"]):
        one["speaker"] = names[n % len(names)]
    for style in ("name", "dash"):
        cues = lay_out(made, speaker_style=style)
        assert all(len(line) <= 42 for cue in cues for line in lines_of(cue))
        assert all(len(cue.lines) <= 2 for cue in cues)


SOUNDS = result(spoken(" (door slams) Who is there? [Laughter] ♪ It (the dog) ran."))


@pytest.mark.parametrize(
    ("sounds", "text"),
    [
        ("keep", "(door slams) Who is there? [Laughter] ♪ It (the dog) ran."),
        ("drop", "Who is there? It ran."),
        ("brackets", "[door slams] Who is there? [laughter] ♪ It [the dog] ran."),
    ],
)
def test_sounds_are_kept_left_out_or_in_brackets(sounds: str, text: str) -> None:
    shown = " ".join(line for cue in lay_out(SOUNDS, sounds=sounds) for line in lines_of(cue))
    assert shown == text


def test_lines_are_balanced_or_bottom_heavy() -> None:
    made = result(spoken(" one two three four five six seven eight nine ten eleven twelve"))
    (even,), (heavy,) = (lay_out(made, line_shape=s, max_cps=0) for s in ("balanced", "bottom-heavy"))
    first, second = map(len, lines_of(even))
    assert abs(first - second) <= 6
    first, second = map(len, lines_of(heavy))
    assert first <= second


def test_a_text_that_fits_on_one_line_has_one() -> None:
    assert [len(cue.lines) for cue in lay_out(result(spoken(" It fits, and it is short.")))] == [1]


# ---------------------------------------------------------------------------------------------------------
# Results of every kind
# ---------------------------------------------------------------------------------------------------------


def test_segments_without_word_times_share_their_time() -> None:
    cues = lay_out(without_words(FOX))
    assert letters(text for cue in cues for text in lines_of(cue)) == letters(FOX["text"])
    assert all(len(line) <= 42 for cue in cues for line in lines_of(cue))


def test_preset_whisper_gives_a_cue_for_each_segment() -> None:
    cues = lay_out(FOX, "whisper")
    assert [lines_of(cue)[0] for cue in cues] == [s["text"].strip() for s in FOX["segments"]]


def test_nothing_said_gives_no_cues() -> None:
    assert lay_out(result()) == []
    assert lay_out(result(segment([]))) == []


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"max_cps": -1}, "max_cps must be"), ({"max_line_width": 3}, "at least 8"), ({"min_gap": 200}, "min_gap"),
        ({"min_duration": 8}, "max_duration must be more"), ({"cuts": "/no/such/file"}, "cannot be read"),
        ({"speaker_style": "hat"}, "one of none, dash"), ({"cuts": [-1]}, "cuts must be"),
    ],
)  # fmt: skip
def test_a_rule_that_cannot_be_meant_is_refused(rules: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        lay_out(FOX, **rules)


def test_what_is_no_rule_no_preset_and_no_result_is_refused() -> None:
    with pytest.raises(UnknownOptionError, match="did you mean 'max_cps'"):
        lay_out(FOX, max_cpss=1)
    with pytest.raises(OptionError, match="netflix"):
        lay_out(FOX, "netflicks")
    with pytest.raises(ResultError):
        lay_out({"segments": [{"text": 1}]})


def test_input_is_not_changed_and_the_same_input_gives_the_same_cues() -> None:
    before = repr(FOX)
    assert lay_out(FOX) == lay_out(FOX)
    assert repr(FOX) == before
