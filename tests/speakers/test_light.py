"""From local speakers to turns: votes of windows, names, and what the number of speakers is held to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from whisper.speakers import light
from whisper.speakers.clustering import normalized
from whisper.speakers.diarization import Hints, Turn
from whisper.speakers.local_speakers import LocalSpeakers
from whisper.speakers.networks.segmentation import frame_time


def local_speakers(order: list[int], size: int = 16) -> LocalSpeakers:
    """Windows of 20 frames every 10, in each of which one of some voices speaks, as another local speaker each time."""
    n = len(order)
    local = np.arange(n) % 3
    classes = np.repeat((local + 1).astype(np.uint8)[:, None], 20, 1)
    vectors = normalized(np.eye(max(order) + 1, size, dtype=np.float32)[order] + 0.01)
    return of_whole_voices(np.arange(n) * 10, classes, np.arange(n), local, vectors)


def of_whole_voices(
    starts: np.ndarray, classes: np.ndarray, windows: np.ndarray, local: np.ndarray, vectors: np.ndarray
) -> LocalSpeakers:
    """Local speakers with 5 s each, all in one piece."""
    n = len(vectors)
    return LocalSpeakers(
        starts, classes, windows, local, vectors, np.full(n, 5.0),
        pieces=vectors, owners=np.arange(n), begins=np.zeros(n, np.intp), ends=np.full(n, classes.shape[1]),
    )  # fmt: skip


@pytest.mark.parametrize("k", [1, 2, 5])
def test_voices_that_differ_are_speakers(k: int) -> None:
    found = local_speakers([i * k // 20 for i in range(20)])
    assert len(light.speaker_vectors(found, Hints())) == k


@pytest.mark.parametrize(("hints", "n"), [(Hints(2, 2), 2), (Hints(5, None), 5), (Hints(1, 1), 1), (Hints(1, 2), 2)])
def test_the_number_of_speakers_is_kept(hints: Hints, n: int) -> None:
    found = local_speakers([i * 3 // 20 for i in range(20)])
    assert len(light.speaker_vectors(found, hints)) == n


def test_many_voices_are_grouped_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    found = local_speakers([i % 4 for i in range(80)])
    whole = light.speaker_vectors(found, Hints())
    monkeypatch.setattr(light, "MOST_VECTORS", 12)
    parts = light.speaker_vectors(found, Hints())
    assert len(parts) == len(whole) == 4
    assert (whole @ parts.T).max(1) == pytest.approx(1, abs=1e-5)


def test_small_groups_join_the_nearest_that_is_near() -> None:
    vectors = normalized(np.array([[1, 0, 0], [1, 0.1, 0], [0.8, 0.6, 0], [0, 1, 0], [0, 0, 1]], np.float32))
    weights = np.array([50.0, 50.0, 0.5, 50.0, 0.5])
    given = np.array([0, 0, 1, 2, 3])
    assert light.without_small(vectors, weights, given, 1).tolist() == [0, 0, 0, 1, 2]  # the last is near to none
    assert light.without_small(vectors, weights, given, 4).tolist() == [0, 0, 1, 2, 3]


def test_local_speakers_of_a_window_are_different_people() -> None:
    alike = normalized(np.ones((2, 2), np.float32))
    found = of_whole_voices(np.array([0]), np.ones((1, 20), np.uint8), np.array([0, 0]), np.array([0, 1]), alike)
    assert sorted(light.speakers_of(found, np.eye(2, dtype=np.float32)).tolist()) == [0, 1]


def test_pieces_of_one_local_speaker_may_be_of_two_people() -> None:
    voices = np.eye(2, dtype=np.float32)
    whole = normalized(voices.sum(0, keepdims=True))
    found = replace(
        of_whole_voices(np.array([0]), np.ones((1, 20), np.uint8), np.array([0]), np.array([0]), whole),
        pieces=voices, owners=np.array([0, 0]), begins=np.array([0, 12]), ends=np.array([12, 20]),
    )  # fmt: skip
    labels = light.speakers_of(found, voices)
    assert labels.tolist() == [0, 1]
    counted, n_at_once = light.votes(found, labels)
    assert counted.tolist() == [[1, 0]] * 12 + [[0, 1]] * 8
    assert n_at_once.tolist() == [1] * 20


def test_windows_vote() -> None:
    found = local_speakers([0, 0, 1])
    counted, n_at_once = light.votes(found, np.array([0, 0, 1]))
    assert counted.shape == (40, 2)
    assert n_at_once.tolist() == [1] * 40
    assert counted[25].tolist() == [0.5, 0.5]
    assert counted[35].tolist() == [0, 1]


def test_turns_of_votes() -> None:
    counted = np.zeros((600, 3), np.float32)
    counted[10:200, 2] = 1  # is heard first
    counted[150:300, 0] = 0.8
    counted[310:400, 0] = 0.8  # after a short pause
    counted[590:592, 1] = 1  # too short
    n = (counted > 0).sum(1)
    found = light.from_votes(counted, n, 11.0)
    assert found.speakers == ("SPEAKER_00", "SPEAKER_01")
    first, second = found.turns
    assert first == Turn(round(frame_time(10), 3), round(frame_time(200), 3), "SPEAKER_00")
    assert second == Turn(round(frame_time(150), 3), round(frame_time(400), 3), "SPEAKER_01")
    assert all(a.end <= b.start for a, b in zip(found.exclusive, found.exclusive[1:], strict=False))


def test_no_turn_ends_behind_the_recording() -> None:
    counted = np.ones((100, 1), np.float32)
    found = light.from_votes(counted, np.ones(100, int), 1.5)
    assert found.turns == (Turn(round(frame_time(0), 3), 1.5, "SPEAKER_00"),)
