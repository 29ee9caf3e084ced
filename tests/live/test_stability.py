"""Stable text: sent once, away from the edge of the sound, and a whole text at the end."""

from __future__ import annotations

import pytest

from whisper.live.refresh import HeardWord
from whisper.live.stability import ItemText

from .fakes import words


def test_a_word_near_the_edge_waits() -> None:
    text = ItemText(guard=0.4, agreement=False)
    assert text.take(words("one two three"), heard=1.5) == "one two"
    assert text.interim == " three"
    assert text.take(words("one two three four"), heard=2.0) == " three"
    assert text.text == "one two three"
    assert len(text.tokens) == 3


def test_a_word_waits_for_a_second_hypothesis() -> None:
    text = ItemText(guard=0.4, agreement=True)
    assert text.take(words("one too"), heard=5) == ""
    assert text.interim == "one too"
    assert text.take(words("one two three"), heard=5) == "one"
    assert text.take(words("one two three"), heard=5) == " two three"
    assert text.interim == ""


def test_an_improbable_word_waits_for_more_sound_and_those_behind_it_with_it() -> None:
    text = ItemText(guard=0.4, agreement=False, doubtful_guard=1.0)
    heard = [HeardWord(" one", (1,), 0.5), HeardWord(",", (2,), 0.5, 0.1), HeardWord(" too", (3,), 1.0, 0.3)]
    heard.append(HeardWord(" three", (4,), 1.2))
    assert text.take(heard, heard=1.9) == "one,"
    assert text.interim == " too three"
    assert text.take(heard, heard=2.0) == " too three"


def test_a_mark_at_the_end_waits_for_a_word_behind_it() -> None:
    text = ItemText(guard=0, agreement=False)
    ends = [HeardWord(" one", (1,), 0.5), HeardWord(".", (2,), 0.6)]
    assert text.take(ends, heard=5) == "one"
    assert text.interim == "."
    assert text.take([*ends, HeardWord(" Two", (3,), 1.0)], heard=5) == ". Two"


def test_a_word_that_begins_in_the_stable_text_is_completed() -> None:
    text = ItemText(guard=0, agreement=False)
    assert text.take([HeardWord(" don", (1,), 0.5)], heard=5) == "don"
    assert text.take([HeardWord(" don't", (1, 2, 3), 0.6), HeardWord(" go", (4,), 0.9)], heard=5) == "'t go"
    assert text.tokens == (1, 2, 3, 4)


@pytest.mark.parametrize(
    ("stable", "final", "rest"),
    [
        ("", " All of it.", "All of it."),
        ("The cat", " The cat sat.", " sat."),
        ("The cat sat on", " The hat sat on the mat.", " the mat."),
        ("Hullo", " Hello, world.", ", world."),
        ("So, then,", " So. Then, go.", " go."),
        ("one two three", " One, two, three.", "."),
        ("one two", "", ""),
        ("something else", " No", ""),
        ("東京は", " 東京が大きい。", "大きい。"),
        ("the the cat", " The cat sat down.", " sat down."),
    ],
)
def test_the_final_text_completes_the_stable_one(stable: str, final: str, rest: str) -> None:
    text = ItemText(guard=0, agreement=False)
    text._add(stable)
    assert text.complete(final) == rest
    assert text.text == stable + rest


def test_stable_text_is_never_taken_back() -> None:
    text, sent = ItemText(guard=0.2, agreement=True), ""
    for i in range(1, 10):
        delta = text.take(words("one two three four five six seven eight nine"[: 5 * i]), heard=0.5 * i)
        sent += delta
        assert text.text == sent
