"""Word errors by speaker: the best of all ways to match them, as trying each shows."""

from __future__ import annotations

import random
from itertools import permutations, zip_longest

import pytest

from whisper.evaluation.scoring import word_errors
from whisper.evaluation.speaker_scoring import MOST_SPEAKERS, speaker_word_errors


def by_trying_all(reference: list[list[str]], found: list[list[str]]) -> int:
    few, many = sorted((reference, found), key=len)
    return min(sum(word_errors(a, b) for a, b in zip_longest(few, order, fillvalue=[])) for order in permutations(many))


@pytest.mark.parametrize("seed", range(30))
def test_the_best_match_is_found(seed):
    rng = random.Random(seed)
    draw = [[rng.choices("abcd", k=rng.randrange(6)) for _ in range(rng.randrange(1, 5))] for _ in range(2)]
    reference, found = ({str(i): words for i, words in enumerate(side)} for side in draw)
    assert speaker_word_errors(reference, found) == by_trying_all(*draw)


def test_names_do_not_matter_and_a_word_of_another_counts_twice():
    it, never = ["so", "it", "is"], ["no", "never"]
    reference = {"Ann": it, "Bo": never}
    assert speaker_word_errors(reference, {"x": never, "y": it}) == 0
    assert speaker_word_errors(reference, {"x": it[:2], "y": it[2:] + never}) == 2
    assert speaker_word_errors(reference, {"x": it + never}) == 4  # two inserted, two deleted
    assert speaker_word_errors(reference, {}) == 5
    assert speaker_word_errors({}, {}) == 0


def test_too_many_speakers_are_an_error():
    crowd = {str(i): ["a"] for i in range(MOST_SPEAKERS + 1)}
    assert speaker_word_errors(crowd, {"x": ["a"]}) == MOST_SPEAKERS
    with pytest.raises(ValueError, match="at most 16"):
        speaker_word_errors(crowd, crowd)
