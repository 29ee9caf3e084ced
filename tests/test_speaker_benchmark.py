"""What benchmarks/speakers.py stands on: conversations that are what they say, and honest counts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from .test_rivals import imported

RATE = 16000


@pytest.fixture(scope="module")
def conversations() -> Iterator[ModuleType]:
    yield from imported("conversations")


@pytest.fixture(scope="module")
def speakers() -> Iterator[ModuleType]:
    yield from imported("speakers")


@pytest.fixture(scope="module")
def speaker_work() -> Iterator[ModuleType]:
    yield from imported("speaker_work")


def spoken(seconds: float, hertz: float) -> np.ndarray:
    n = int(seconds * RATE)
    return (0.1 * np.sin(2 * np.pi * hertz * np.arange(n) / RATE)).astype(np.float32)


def silent(seconds: float) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 1e-5, int(seconds * RATE)).astype(np.float32)


def clip(hertz: float, seconds: float = 1.5) -> tuple[np.ndarray, list[tuple[str, float, float]]]:
    """A sound, a pause of 0.5 s, and another, with a word for each."""
    parts = [silent(0.2), spoken(seconds, hertz), silent(0.5), spoken(seconds, hertz), silent(0.2)]
    words = [("one", 0.2, 0.2 + seconds), ("two", 0.7 + seconds, 0.7 + 2 * seconds)]
    return np.concatenate(parts), words


@pytest.fixture
def tapes(conversations: ModuleType) -> list[Any]:
    return [conversations.record(f"s{k}", iter([clip(200 + 100 * k)] * 8)) for k in range(4)]


def test_pauses_are_no_speech_and_short_ones_are(conversations):
    sound = [silent(0.5), spoken(1, 300), silent(0.4), spoken(1, 300), silent(0.15), spoken(1, 300), silent(0.5)]
    spans = conversations.speech_spans(np.concatenate(sound))
    assert np.array(spans) == pytest.approx(np.array([(0.5, 1.5), (1.9, 4.05)]), abs=0.011)


def test_a_tape_is_cut_in_pauses_and_outside_of_words(conversations, tapes):
    tape = tapes[0]
    assert tape.cuts[0] == 0
    assert tape.cuts[-1] == pytest.approx(len(tape.samples) / RATE)
    assert len(tape.cuts) == 17
    for cut in tape.cuts[1:-1]:
        assert not any(start < cut < end for start, end in tape.speech)
    level = [np.abs(tape.samples[int(a * RATE) : int(b * RATE)]).mean() for a, b in tape.speech]
    assert min(level) > 0.03
    whole = conversations.Tape("x", tape.samples, tape.speech, [("long", 0.1, 100.0)])
    assert len(whole.cuts) == 2  # a word over all pauses: no cut


@pytest.mark.parametrize(("overlap", "seed"), [*itertools.product((0.0, 0.1, 0.2), range(4))])
def test_a_conversation_is_what_its_reference_says(conversations, tapes, overlap, seed):
    rng = np.random.default_rng(seed)
    made = conversations.converse("x", "read", tapes, overlap, "study", rng)
    assert made.speakers == len({name for _, _, name in made.turns}) == 4
    assert (made.overlap > 0) == (overlap > 0)
    assert made.overlap < overlap + 0.1
    end = len(made.samples) / RATE
    assert all(0 <= start < stop <= end for start, stop, _ in made.turns)
    for name in {name for _, _, name in made.turns}:  # nobody speaks over himself
        own = [(start, stop) for start, stop, who in made.turns if who == name]
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(own))
    inside = [
        any(a - 0.01 <= s and e <= b + 0.02 and n == who for a, b, n in made.turns) for _, s, e, who in made.words
    ]
    assert all(inside)
    times = np.arange(0, end - 0.05, 0.01)
    talked = np.zeros(len(times), bool)
    for start, stop, _ in made.turns:
        talked |= (times >= start) & (times < stop - 0.01)
    level = np.array([np.abs(made.samples[int(t * RATE) : int(t * RATE) + 160]).mean() for t in times])
    assert np.median(level[talked]) > 3 * np.median(level[~talked])
    again = conversations.converse("x", "read", tapes, overlap, "study", np.random.default_rng(seed))
    assert (made.samples == again.samples).all()


def test_a_room_adds_echoes_that_fade(conversations):
    rng = np.random.default_rng(0)
    study, hall = (conversations.impulse_response(*conversations.ROOMS[room], rng) for room in ("study", "hall"))
    assert len(hall) > 2 * len(study)
    for response in (study, hall):
        assert response[0] == 1
        quarter = len(response) // 4
        assert (response[1:quarter] ** 2).sum() > 100 * (response[-quarter:] ** 2).sum()
    assert (hall[1:] ** 2).sum() > (study[1:] ** 2).sum()


def test_words_get_the_speaker_of_their_time_or_the_nearest(speakers):
    turns = [[0.0, 2.0, "a"], [2.0, 3.0, "b"], [9.0, 10.0, "a"]]
    words = [["x", 0.5, 1.0], ["y", 1.8, 2.6], ["z", 3.5, 3.7], ["w", 8.0, 8.5]]
    assert speakers.with_speakers(words, turns) == [("x", "a"), ("y", "b"), ("z", "b"), ("w", "a")]
    assert speakers.with_speakers(words, []) == [(word, "nobody") for word in "xyzw"]


def test_word_errors_count_wrong_words_and_wrong_speakers(speakers):
    job = {"name": "j", "words": [["good", 0, 1, "A"], ["day", 1, 2, "A"], ["to", 2, 3, "B"], ["you", 3, 4, "B"]]}
    words = {"j": {"words": [["Good", 0, 1], [" day", 1, 2], [" to", 2, 3], [" me.", 3, 4]]}}
    right = speakers.word_figures([job], words, {"j": {"turns": [[0, 2, "x"], [2, 4, "y"]]}})
    assert right == {"cpwer": 25.0, "wer": 25.0}
    late = speakers.word_figures([job], words, {"j": {"turns": [[0, 3, "x"], [3, 4, "y"]]}})
    assert late == {"cpwer": 75.0, "wer": 25.0}


def test_speakers_are_matched_by_the_time_they_share(speakers):
    reference = [[0, 4, "A"], [4, 6, "B"]]
    assert speakers.matched(reference, [[0, 4.5, "y"], [4.5, 6, "x"]]) == {"y": "A", "x": "B"}
    assert speakers.matched(reference, [[0, 3, "y"], [3, 4, "z"]]) == {"y": "A"}


def test_turns_of_one_speaker_are_joined_where_they_touch(speaker_work):
    turns = [[0, 2, "a"], [2, 3, "a"], [2.5, 4, "b"], [5, 6, "a"], [5.5, 5.7, "a"], [7, 7, "b"]]
    assert speaker_work.joined(turns) == [(0, 3, "a"), (2.5, 4, "b"), (5, 6, "a")]


def test_results_that_a_kill_cut_off_are_left_out(speakers, tmp_path):
    path = tmp_path / "sotto.jsonl"
    path.write_text('{"name": "a", "turns": []}\n{"name": "b", "tu')
    assert speakers.read(path) == {"a": {"name": "a", "turns": []}}
    assert speakers.read(tmp_path / "none") == {}


def test_the_table_has_a_row_for_each_system_and_stays_between_its_marks(speakers, tmp_path):
    jobs = [
        {"name": str(i), "family": "read", "room": "hall", "speakers": 2, "overlap": 0.05 * i, "words": []}
        for i in (1, 2)
    ]
    part = {"total": 10, "confusion": 1, "missed": 2, "false_alarm": 0.5, "simpleder": 0.35}
    scored = {job["name"]: {"none": part, "collar": part} for job in jobs}
    found = {"1": {"turns": [[0, 1, "a"], [1, 2, "b"]]}, "2": {"turns": [[0, 1, "a"]]}}
    figures = {"sotto": {group: speakers.summed(own, found, scored) for group, own in speakers.groups(jobs)}}
    assert figures["sotto"]["all"]["der"] == figures["sotto"]["all"]["simpleder"] == 35
    assert figures["sotto"]["all"]["count"] == 50
    text = speakers.table(figures)
    assert "| sotto | 35.0 | 10.0 | 20.0 | 5.0 | 35.0 | 50 % |" in text
    assert "| overlap 4 to 9 % | 1 |" in text
    document = tmp_path / "x.md"
    document.write_text(f"before\n{speakers.BEGIN}old\n{speakers.END}after\n")
    speakers.write_table(document, text)
    assert document.read_text() == f"before\n{speakers.BEGIN}{text}{speakers.END}after\n"
