"""The first pass: which windows there are, and which sound makes the vector of a voice."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whisper.speakers import local_speakers
from whisper.speakers.local_speakers import find, window_starts
from whisper.speakers.networks import choice
from whisper.speakers.networks.segmentation import HOP, N_FRAMES, WINDOW, frame_time


@given(st.integers(0, 5_000_000))
def test_windows_cover_the_recording(n_samples: int) -> None:
    starts = window_starts(n_samples)
    assert starts[0] == 0
    assert all(start % HOP == 0 for start in starts)
    assert all(0 < b - a <= N_FRAMES * HOP for a, b in pairwise(starts))
    assert starts[-1] + WINDOW >= n_samples
    if n_samples > WINDOW:
        assert starts[-1] + WINDOW - n_samples < HOP


def test_the_frames_of_a_voice_are_those_of_its_time() -> None:
    used = np.zeros(589, np.bool_)
    used[100:200] = True
    frames = local_speakers._mel_frames(used, 0, 1001)
    assert frames[0] / 100 == pytest.approx(frame_time(100), abs=0.011)
    assert frames[-1] / 100 == pytest.approx(frame_time(200), abs=0.011)
    assert np.all(np.diff(frames) == 1)


def test_the_order_of_batches_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    t = np.arange(30 * 16000) / 16000
    voice = sum(np.sin(2 * np.pi * 120 * k * t) / k for k in range(1, 30))
    sound = (0.05 * voice * (np.sin(7 * t) > -0.5) + 0.001 * rng.standard_normal(len(t))).astype(np.float32)

    def run(batch: int) -> local_speakers.LocalSpeakers:
        monkeypatch.setattr(local_speakers, "BATCH", batch)
        results: list[local_speakers.LocalSpeakers] = []

        def whole() -> Generator[float, None, None]:
            results.append((yield from find(sound)))

        assert list(whole())
        return results[0]

    one, many = run(1), run(16)
    assert (one.classes != many.classes).mean() < 0.05  # bfloat16, and no voice: frames near a tie
    assert np.array_equal(one.starts, many.starts)


def test_steps_are_small_so_that_others_may_compute_between(monkeypatch: pytest.MonkeyPatch) -> None:
    t = np.arange(130 * 16000) / 16000
    sound = sum(np.sin(2 * np.pi * 120 * k * t) / k for k in range(1, 30)) * (np.sin(7 * t) > -0.5)
    network, in_step, most = choice.voices(), 0, 0

    def counted(pieces: Sequence[np.ndarray]) -> np.ndarray:
        nonlocal in_step
        in_step += sum(map(len, pieces))
        return network.embed(pieces)

    monkeypatch.setattr(choice, "voices", lambda: network._replace(embed=counted))
    monkeypatch.setattr(local_speakers, "FRAMES", 300)
    n_frames = 0
    for _ in find((0.05 * sound).astype(np.float32)):
        n_frames, most, in_step = n_frames + in_step, max(most, in_step), 0
    assert n_frames > 2 * local_speakers.FRAMES
    assert most <= local_speakers.FRAMES


def test_silence_has_no_voices() -> None:
    steps = find(np.zeros(16000, np.float32))
    assert [next(steps) for _ in range(2)] == [0.0, 1.0]
    with pytest.raises(StopIteration) as end:
        next(steps)
    assert len(end.value.value.vectors) == 0
