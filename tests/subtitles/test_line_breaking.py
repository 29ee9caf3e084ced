"""Where lines may end, by script, and where they had better not, by language."""

from __future__ import annotations

import math

import pytest

from whisper.subtitles import line_breaking
from whisper.subtitles.cues import TimedWord
from whisper.subtitles.line_breaking import (
    AFTER_LINK,
    CLAUSE,
    CONJUNCTION,
    IN_PHRASE,
    PLAIN,
    PREPOSITION,
    SENTENCE,
    TORN,
    break_costs,
    ends_sentence,
    may_break,
)
from whisper.subtitles.spoken_words import spread


def costs(text: str, language: str | None) -> dict[str, float]:
    """What a break before each word costs, by the word, without pauses."""
    words = spread(text, 0.0, 10.0)
    return {word.text.strip(): cost for word, cost in zip(words, break_costs(words, language), strict=True)}


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("en", "He saw the house, and Dr. Watson left at 7 o'clock. Then", {
            "saw": TORN, "house,": TORN, "and": CLAUSE, "Watson": TORN, "at": PREPOSITION, "7": AFTER_LINK,
            "o'clock.": TORN, "Then": SENTENCE,
        }),
        ("en", "people like Mary Smith but others wait", {"Smith": TORN, "but": CONJUNCTION, "wait": PLAIN}),
        ("en", "we waited because J. Smith was late", {"because": CONJUNCTION, "J.": AFTER_LINK, "Smith": TORN}),
        ("de", "Heute kam der Hund mit einem Ball, weil Frau Müller rief", {
            "Hund": TORN, "mit": PREPOSITION, "Ball,": TORN, "weil": CLAUSE, "Müller": TORN,
        }),
        ("fr", "Hier il a mangé une pomme avec Marie et puis", {
            "a": TORN, "mangé": TORN, "pomme": TORN, "avec": PREPOSITION, "et": CONJUNCTION,
        }),
        ("es", "Ayer vino el señor con su perro porque no llovía", {
            "señor": TORN, "con": PREPOSITION, "perro": TORN, "porque": CONJUNCTION, "llovía": TORN,
        }),
        (None, "the house, and more", {"house,": PLAIN, "and": CLAUSE, "more": PLAIN}),
    ],
)  # fmt: skip
def test_phrases_are_held_together(language: str | None, text: str, expected: dict[str, float]) -> None:
    found = costs(text, language)
    assert {word: found[word] for word in expected} == expected


@pytest.mark.parametrize(
    ("left", "right", "allowed"),
    [
        (" one", " two", True), (" one", "two", False), (" twenty-", "five", True), (" 20", "-year", False),
        (" bien", " ?", False), (" bien", "\u00a0?", False), (" «", " bien", False), (" 10", "\u202f%", False),
        ("今日", "は", True), ("今日", "。", False), ("。", "明", True), ("「", "東", False), ("京", "」", False),
        ("コ", "ー", False), ("ヒ", "ッ", False), ("ー", "ヒ", True), ("，", "好", True), ("好", "！", False),
        ("ก", "า", False), ("เ", "ก", False), ("ก", "ั", False), ("น", "อ", True), (" مرحبا", " بك", True),
        ("한", "국", True), (" bien", " »", False), (" -", " yes", True), (" one", " -two", True),
    ],
)  # fmt: skip
def test_what_scripts_allow(left: str, right: str, allowed: bool) -> None:
    assert may_break(left, right) is allowed


def test_sentences_end_at_full_stops_of_every_script_but_not_at_titles_and_initials() -> None:
    for text in (" end.", " end!", ' end."', "です。", " है।", "؟", " No…", " U.S. end?"):
        assert ends_sentence(text, "en"), text
    for text in (" Mr.", " J.", " U.S.", " end,", " e.g.", ""):
        assert not ends_sentence(text, "en"), text


def test_pauses_and_segments_make_a_break_better() -> None:
    words = [TimedWord(" one", 0, 1), TimedWord(" two", 1, 2), TimedWord(" three", 2.7, 3), TimedWord(" four", 3, 4)]
    assert break_costs(words, "en", segment_starts=[3]) == [0.0, PLAIN, PLAIN - 3.0, CLAUSE]


def test_tags_count_for_nothing() -> None:
    words = [TimedWord(" <i>the</i>", 0, 1), TimedWord(" dog</i>", 1, 2)]
    assert break_costs(words, "en", markup=True)[1] == TORN


@pytest.mark.parametrize("language", ["ja", "th", "zh"])
def test_phrases_of_scripts_without_spaces_come_from_budoux(language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("budoux")
    texts = {"ja": "今日はとても天気です", "th": "วันนี้อากาศดีมาก", "zh": "我们的使命是整合全球信息"}
    words = [TimedWord(character, 0.0, 0.0) for character in texts[language]]
    found = break_costs(words, language)
    assert CONJUNCTION in found[1:]
    assert max(cost for cost in found if math.isfinite(cost)) in (IN_PHRASE, TORN)
    monkeypatch.setattr(line_breaking, "_phrase_parser", lambda language: None)
    without = break_costs(words, language)
    assert CONJUNCTION not in without
    assert [math.isinf(cost) for cost in without] == [math.isinf(cost) for cost in found]
