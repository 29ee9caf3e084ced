"""Words and segments with their speakers: every word has one, segments are cut, and nothing of them is lost."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whisper.results import Segment
from whisper.speakers.diarization import Diarization, Turn
from whisper.speakers.words import Speakers, overlaps
from whisper.tokenizer import get_tokenizer

TOKENIZER = get_tokenizer(multilingual=True)


def text_bytes(tokens: Any) -> list[int]:
    encoding = TOKENIZER.encoding
    return [len(encoding.decode_single_token_bytes(t)) if t < TOKENIZER.eot else 0 for t in tokens]


def segment(words: list[tuple[str, float, float]], **more: Any) -> Segment:
    text = "".join(word for word, _, _ in words)
    begin = TOKENIZER.timestamp_begin
    tokens = [begin, *TOKENIZER.encode(text), begin + 100]
    found: Any = {
        "id": 0, "seek": 0, "start": words[0][1], "end": words[-1][2], "text": text, "tokens": tokens,
        "temperature": 0.0, "avg_logprob": -0.1, "compression_ratio": 1.0, "no_speech_prob": 0.0,
        "words": [{"word": w, "start": a, "end": b, "probability": 1.0} for w, a, b in words],
    }  # fmt: skip
    return {**found, **more}


def speakers(*turns: tuple[float, float, str]) -> Speakers:
    found = tuple(Turn(*turn) for turn in turns)
    return Speakers(Diarization(found, found, tuple(dict.fromkeys(t.speaker for t in found))), text_bytes)


def test_a_segment_is_cut_where_the_speaker_changes() -> None:
    whole = segment([(" How", 0, 1), (" are", 1, 2), (" you?", 2, 3), (" Fine,", 3.2, 4), (" 谢谢.", 4, 5)])
    tokens = list(whole["tokens"])
    first, second = speakers((0, 3, "A"), (3.1, 5, "B")).given_to([whole])
    assert (first["text"], first["speaker"], first["start"], first["end"]) == (" How are you?", "A", 0, 3)
    assert (second["text"], second["speaker"], second["start"], second["end"]) == (" Fine, 谢谢.", "B", 3.2, 5)
    assert first["tokens"] + second["tokens"] == tokens
    assert TOKENIZER.decode(first["tokens"]) == first["text"]
    assert TOKENIZER.decode(second["tokens"]) == second["text"]
    assert "overlap" not in first


def test_token_logprobs_are_cut_with_their_tokens() -> None:
    whole = segment([(" one", 0, 1), (" two", 2, 3)])
    whole["token_logprobs"] = [-float(i) for i in range(len(whole["tokens"]))]
    parts = speakers((0, 1, "A"), (2, 3, "B")).given_to([whole])
    assert [len(p["token_logprobs"]) for p in parts] == [len(p["tokens"]) for p in parts]
    assert [x for p in parts for x in p["token_logprobs"]] == whole["token_logprobs"]


def who(given: Speakers, *words: tuple[str, float, float]) -> list[str]:
    return [word["speaker"] for part in given.given_to([segment(list(words))]) for word in part["words"]]


def test_where_nobody_speaks_the_nearest_turn_counts_and_then_who_spoke_before() -> None:
    turns = ((0, 1, "A"), (5, 6, "B"))
    assert who(speakers(*turns), (" a", 0, 1), (" b", 1.2, 1.4), (" c", 3, 3.2), (" d", 4.7, 4.9)) == [*"AAAB"]
    assert who(speakers(*turns), (" x", 2.6, 2.8)) == ["A"]
    assert who(speakers(), (" x", 2.6, 2.8)) == ["SPEAKER_00"]


def test_a_word_that_lasts_into_a_pause_belongs_to_who_began_it() -> None:
    assert who(speakers((0, 1, "A"), (2, 9, "B")), (" well", 0.5, 5.0)) == ["A"]


def test_an_island_within_a_sentence_is_joined() -> None:
    turns = ((0, 1, "A"), (1.1, 1.3, "B"), (1.6, 4, "A"))
    words = [(" I", 0, 1), (" really", 1.05, 1.5), (" think", 1.7, 3)]
    assert who(speakers(*turns), *words) == [*"AAA"]
    ended = [(" I.", 0, 1), (" Really", 1.05, 1.5), (" think", 1.7, 3)]
    assert who(speakers(*turns), *ended) == [*"ABA"]
    believed = ((0, 1, "A"), (1.05, 1.5, "B"), (1.6, 4, "A"))
    assert who(speakers(*believed), *words) == [*"ABA"]


def test_overlap_is_told() -> None:
    found = Diarization((Turn(0, 3, "A"), Turn(2, 4, "B")), (Turn(0, 3, "A"), Turn(3, 4, "B")), ("A", "B"))
    words = [(" a", 0, 1), (" b", 2, 2.9), (" c", 3.1, 4)]
    first, second = Speakers(found, text_bytes).given_to([segment(words)])
    assert [word.get("overlap") for word in first["words"]] == [None, True]
    assert first["overlap"] is True
    assert "overlap" not in second


def test_overlaps_of_turns() -> None:
    turns = [Turn(0, 10, "A"), Turn(2, 4, "B"), Turn(3, 5, "C"), Turn(9, 12, "B")]
    assert [(t.start, t.end) for t in overlaps(turns)] == [(2, 4), (4, 5), (9, 10)]


def test_a_segment_without_words_has_a_speaker() -> None:
    empty: Any = {**segment([(" x", 1, 2)]), "words": []}
    assert speakers((0, 3, "A")).given_to([empty])[0]["speaker"] == "A"


TURNS = st.lists(st.tuples(st.integers(0, 300), st.integers(1, 40), st.sampled_from("ABC")), max_size=8)
WORDS = st.lists(
    st.tuples(st.sampled_from([" a", " 日本", "、語", " é.", " word", " naïve?"]), st.integers(0, 20)),
    min_size=1,
    max_size=12,
)


@given(TURNS, WORDS)
def test_every_word_has_a_speaker_and_nothing_is_lost(turns: list[Any], words: list[Any]) -> None:
    exclusive: list[Turn] = []
    for start, length, name in sorted(turns):
        begin = max(start / 10, exclusive[-1].end if exclusive else 0.0)
        exclusive.append(Turn(begin, begin + length / 10, name))
    timed = [
        (text, sum(n for _, n in words[:i]) / 10, sum(n for _, n in words[: i + 1]) / 10)
        for i, (text, _) in enumerate(words)
    ]
    whole = segment(timed)
    tokens, said = list(whole["tokens"]), [word["word"] for word in whole["words"]]
    found = Speakers(Diarization(tuple(exclusive), tuple(exclusive), ()), text_bytes)
    parts = found.given_to([whole])
    assert [word["word"] for part in parts for word in part["words"]] == said
    assert [token for part in parts for token in part["tokens"]] == tokens
    assert all({word["speaker"] for word in part["words"]} == {part["speaker"]} for part in parts)
    assert all(a["speaker"] != b["speaker"] for a, b in pairwise(parts))
    assert "".join(part["text"] for part in parts) == whole["text"] or len(parts) == 1
    assert parts[0]["start"] == timed[0][1]
    assert parts[-1]["end"] == timed[-1][2]
    assert found.names


def test_who_spoke_before_is_known_over_deliveries() -> None:
    given_to = speakers((0, 1, "A"), (90, 91, "B"))
    assert who(given_to, (" a", 0, 1)) == ["A"]
    assert who(given_to, (" b", 40, 41)) == ["A"]


@pytest.mark.parametrize("text", [" one two", "one two", " one  two "])
def test_the_text_of_parts_is_that_of_their_words(text: str) -> None:
    whole = segment([(" one", 0, 1), (" two", 2, 3)], text=text)
    parts = speakers((0, 1, "A"), (2, 3, "B")).given_to([whole])
    assert [part["text"].strip() for part in parts] == ["one", "two"]
