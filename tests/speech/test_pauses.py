"""Cuts at pauses: whole, ordered, never too long, and at natural places."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from whisper.errors import OptionError, ShapeError
from whisper.speech.pauses import cut_at_pauses
from whisper.speech.vad import Speech

MINUTE = 6000  # frames


def speech(n_frames: int, floor: float = -60.0, level: float = -30.0, seed: int = 0) -> np.ndarray:
    """Loudness of speech without a pause of 200 ms: syllables of 150 ms, dips of 100 ms between them."""
    rng = np.random.default_rng(seed)
    track = np.where(np.arange(n_frames) % 25 < 15, level, floor) + rng.normal(0, 1.5, n_frames)
    return track.astype(np.float32)


def with_pauses(track: np.ndarray, pauses: list[tuple[int, int]], loudness: float = -60.0) -> np.ndarray:
    for middle, length in pauses:
        track[middle - length // 2 : middle + length // 2] = loudness
    return track


@given(
    n=st.integers(0, 4000), target=st.integers(20, 900), more=st.integers(0, 500), seed=st.integers(0, 99),
    kind=st.sampled_from(["noise", "steps", "constant"]),
)  # fmt: skip
@example(n=101, target=100, more=0, seed=0, kind="constant")
@example(n=400, target=1, more=0, seed=0, kind="noise")
@example(n=2999, target=900, more=0, seed=5, kind="steps")
@settings(max_examples=60, deadline=None)
def test_chunks_are_the_whole_in_order_and_none_is_too_long_or_tiny(
    n: int, target: int, more: int, seed: int, kind: str
) -> None:
    rng = np.random.default_rng(seed)
    track = {
        "noise": rng.normal(-40, 10, n), "constant": np.full(n, -100.0),
        "steps": np.repeat(rng.choice([-100.0, -60.0, -20.0], n // 40 + 1), 40)[:n],
    }[kind].astype(np.float32)  # fmt: skip
    clips = cut_at_pauses(track, n, target, target + more)
    assert [frame for start, end in clips for frame in range(start, end)] == list(range(n))
    lengths = [end - start for start, end in clips]
    assert max(lengths, default=0) <= target + more
    assert min(lengths, default=n) >= min(n, target / 4)


@pytest.mark.parametrize("floor", [-60.0, -90.0, -42.0])
def test_cuts_fall_into_the_middle_of_the_longest_pause_near_the_target(floor: float) -> None:
    track = with_pauses(speech(6 * MINUTE, floor), [(5000, 40), (6200, 150), (6900, 60), (12500, 100), (17900, 80),
                                                   (23000, 70), (24500, 130), (30300, 60)], floor)  # fmt: skip
    cuts = [start for start, _ in cut_at_pauses(track, len(track), MINUTE, 2 * MINUTE)[1:]]
    assert np.abs(np.array(cuts) - [6200, 12500, 17900, 24500, 30300]).max() <= 10


def test_the_noise_floor_is_a_local_one() -> None:
    """A pause on a street is louder than speech in a quiet room, and digital silence hides no other pause."""
    quiet = with_pauses(speech(3 * MINUTE, -80, -55), [(6100, 50), (11900, 50)], -80)
    street = with_pauses(speech(3 * MINUTE, -40, -20), [(6100, 50), (11900, 50)], -40)
    for track in (np.concatenate([quiet, street]), np.concatenate([street, quiet])):
        cuts = [start for start, _ in cut_at_pauses(track, len(track), MINUTE, 2 * MINUTE)[1:]]
        for wanted in (6100, 11900, 24100, 29900):
            assert min(abs(cut - wanted) for cut in cuts) <= 10
    # a tenth of it is digital silence, in holes too short to be pauses; the real pause is room noise
    holes = with_pauses(speech(2 * MINUTE), [(i, 10) for i in range(50, 12000, 70)], -100)
    track = with_pauses(holes, [(6300, 120)], -64)
    assert abs(cut_at_pauses(track, len(track), MINUTE, 2 * MINUTE)[1][0] - 6300) <= 10


def test_without_a_pause_it_is_cut_at_the_quietest_200_ms_in_reach() -> None:
    rng = np.random.default_rng(1)
    noise = rng.normal(-40, 0.3, 2 * MINUTE).astype(np.float32)  # nothing stands out by 6 dB
    noise[7000:7020] -= 3
    assert cut_at_pauses(noise, len(noise), MINUTE, 2 * MINUTE) == [(0, 7010), (7010, 12000)]
    music = (-30 + 4 * np.sin(np.arange(2 * MINUTE) / 3) + rng.normal(0, 1, 2 * MINUTE)).astype(np.float32)
    music[5000:5020] = -39  # between two notes
    (cut, _) = cut_at_pauses(music, len(music), MINUTE, 2 * MINUTE)[1]
    assert abs(cut - 5010) <= 1


def test_silence_is_cut_where_it_was_aimed_and_kept_whole_elsewhere() -> None:
    silence = np.full(4 * MINUTE, -100, np.float32)
    assert cut_at_pauses(silence, len(silence), MINUTE, 7000) == [(i * MINUTE, (i + 1) * MINUTE) for i in range(4)]
    track = np.concatenate([speech(5500), silence[:1200], speech(5500)])
    (_, cut), (again, end) = cut_at_pauses(track, len(track), MINUTE, 2 * MINUTE)
    assert abs(cut - 6100) <= 10
    assert (again, end) == (cut, 12200)


def test_where_speech_is_known_its_pauses_come_before_those_of_loudness() -> None:
    track = with_pauses(speech(4 * MINUTE), [(6000, 200), (12000, 200)])
    nothing = np.zeros(0, np.float32)
    spans = ((0.0, 70.0), (70.5, 140.0), (140.1, 245.0))  # seconds; whispered where it is quiet
    known = Speech(spans, nothing, 245.0, "silero")
    clips = cut_at_pauses(track, len(track), MINUTE, 2 * MINUTE, known)
    assert clips[0] == (0, 7025)
    assert abs(clips[1][1] - 12000) <= 10  # no pause of 200 ms: loudness decides
    later = cut_at_pauses(track[1000:], len(track) - 1000, MINUTE, 2 * MINUTE, known, 1000)
    assert later[0] == (0, 6025)
    silent = cut_at_pauses(track, len(track), MINUTE, 2 * MINUTE, Speech((), nothing, 245.0, "silero"))
    assert silent == [(i * MINUTE, (i + 1) * MINUTE) for i in range(4)]


def test_a_recording_of_nearly_the_target_is_one_chunk() -> None:
    track = with_pauses(speech(8900), [(4450, 200)])
    assert cut_at_pauses(track, 8900, MINUTE, 2 * MINUTE) == [(0, 8900)]
    assert cut_at_pauses(track, 7, MINUTE, 2 * MINUTE) == [(0, 7)]  # the frames after the seventh do not count
    assert len(cut_at_pauses(track, 8900, MINUTE, 7000)) == 2


def test_what_cannot_be_is_refused() -> None:
    track = np.zeros(100, np.float32)
    for target, longest in ((0, 10), (10, 9)):
        with pytest.raises(OptionError, match=f"target={target}, longest={longest}"):
            cut_at_pauses(track, 100, target, longest)
    for wrong in (track, track[None]):
        with pytest.raises(ShapeError, match="for 101 frames"):
            cut_at_pauses(wrong, 101, 10, 20)
