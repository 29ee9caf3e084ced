"""Clips, windows and prompts: numbers in, numbers out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whisper.audio import N_FRAMES
from whisper.errors import OptionError
from whisper.transcription.windows import PromptHistory, Window, join_clips, next_window, parse_clips


@pytest.mark.parametrize(
    ("given_clips", "expected"),
    [
        ("0", [(0, 1000)]),
        ("", [(0, 1000)]),
        ([], [(0, 1000)]),
        ("1.5", [(150, 1000)]),
        ("1,2", [(100, 200)]),
        ("1,2,4.004", [(100, 200), (400, 1000)]),
        ([0.5, 9.999], [(50, 1000)]),
        ("0,3600", [(0, 1000)]),  # the original never ends here
        ("0,inf", [(0, 1000)]),
        ("60,70", [(1000, 1000)]),  # behind the recording: nothing
    ],
)
def test_clips(given_clips: object, expected: list[tuple[int, int]]) -> None:
    assert parse_clips(given_clips, 1000) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", ["a", "1,b", "1,,2", [None], "-1", "nan,3", "5,2", [1, 2, 9, 8]])
def test_clips_that_make_no_sense_are_errors(wrong: object) -> None:
    with pytest.raises(OptionError, match="clip_timestamps"):
        parse_clips(wrong, 1000)  # type: ignore[arg-type]


def test_windows_stay_in_their_clips() -> None:
    clips = [(100, 200), (500, 500), (600, 9000)]
    assert next_window(clips, 0, 0) == Window(0, 100, 100)
    assert next_window(clips, 0, 150) == Window(0, 150, 50)
    assert next_window(clips, 0, 200) == Window(2, 600, N_FRAMES)  # the empty clip is passed over
    assert next_window(clips, 2, 8999) == Window(2, 8999, 1)
    assert next_window(clips, 2, 9000) is None
    assert next_window([], 0, 0) is None


def test_times_of_a_window() -> None:
    window = Window(0, 150, 2000)
    assert (window.start, window.duration, window.full_end) == (1.5, 20.0, 31.5)


@given(
    times=st.lists(st.floats(0, 200), max_size=8).map(sorted),
    content=st.integers(0, 15000),
    steps=st.lists(st.integers(1, 4000), min_size=1, max_size=10),
)
def test_whatever_the_steps_every_window_lies_in_its_clip(times: list[float], content: int, steps: list[int]) -> None:
    clips = parse_clips(times, content)
    clip = seek = count = 0
    while (window := next_window(clips, clip, seek)) is not None:
        start, end = clips[window.clip]
        assert start <= window.seek < window.seek + window.size <= end <= content
        assert 0 < window.size <= N_FRAMES
        clip, seek = window.clip, window.seek + steps[count % len(steps)]
        count += 1
        assert count < 70000


def test_prompt_is_the_text_since_the_reset() -> None:
    history = PromptHistory([1, 2], carry=False, max_prompt=5)
    assert history.prompt() == [1, 2]
    history.extend([3, 4])
    assert history.prompt() == [1, 2, 3, 4]
    history.reset()
    assert history.prompt() == []
    history.extend([5])
    assert history.prompt() == [5]
    assert history.text_tokens == [3, 4, 5]


def test_carried_prompt_stays_in_front_and_the_text_is_cut_on_its_left() -> None:
    history = PromptHistory([1, 2], carry=True, max_prompt=5)
    history.extend([3, 4])
    assert history.prompt() == [1, 2, 3, 4]
    history.extend([5, 6])
    assert history.prompt() == [1, 2, 4, 5, 6]
    history.reset()
    assert history.prompt() == [1, 2]


def test_carried_prompt_that_fills_everything_leaves_no_place_for_text() -> None:
    history = PromptHistory([1, 2, 3], carry=True, max_prompt=3)
    history.extend([4])
    assert history.prompt() == [1, 2, 3]


def test_the_callers_prompt_is_not_changed() -> None:
    mine = [1]
    PromptHistory(mine, carry=False, max_prompt=9).extend([2])
    assert mine == [1]


def test_clips_are_joined_where_they_fit_into_one_window() -> None:
    clips = [(0, 100), (300, 500), (900, 1000), (1300, 3100), (3200, 3300)]
    assert join_clips(clips, 3000, 360) == [(0, 500), (900, 3300)]
    assert join_clips(clips, 1000, 360) == [(0, 500), (900, 1000), (1300, 3100), (3200, 3300)]
    assert join_clips(clips, 3000, 0) == clips
    assert join_clips([], 3000, 360) == []
