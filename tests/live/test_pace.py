"""Turns of the sessions of a model, their interval, and how many there may be."""

from __future__ import annotations

import pytest

from whisper.errors import CapacityError
from whisper.live.pace import LOAD, LONGEST_INTERVAL, Pace, pace_of

from ..models import random_model


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def refresh(pace: Pace, clock: Clock, wake: object, seconds: float) -> None:
    assert pace.take_turn(wake)  # type: ignore[arg-type]
    clock.now += seconds
    pace.end_turn(wake, is_whole=True)  # type: ignore[arg-type]


def test_one_refresh_at_a_time_and_the_next_in_line_is_woken(clock: Clock) -> None:
    pace, woken = Pace(clock=clock), []
    sessions = [lambda i=i: woken.append(i) for i in range(3)]
    for wake in sessions:
        pace.join(wake)
    assert [pace.take_turn(wake) for wake in sessions] == [True, False, False]
    assert not pace.take_turn(sessions[2])
    pace.end_turn(sessions[0], is_whole=True)
    assert woken == [1]
    assert not pace.take_turn(sessions[2])  # who asked first comes first
    assert pace.take_turn(sessions[1])
    pace.end_turn(sessions[1], is_whole=True)
    assert woken == [1, 2]


def test_who_gives_up_its_turn_holds_up_nobody(clock: Clock) -> None:
    pace, woken = Pace(clock=clock), []
    first, second = (lambda: woken.append(1)), (lambda: woken.append(2))
    runs = lambda: None  # noqa: E731
    assert pace.take_turn(runs)
    assert not pace.take_turn(first)
    assert not pace.take_turn(second)
    pace.end_turn(runs, is_whole=True)
    pace.give_up_turn(first)
    assert woken == [1, 2]
    assert pace.take_turn(second)


def test_no_refresh_begins_while_a_final_text_is_made(clock: Clock) -> None:
    pace, woken = Pace(clock=clock), []
    wake = lambda: woken.append(1)  # noqa: E731
    with pace.final_text():
        with pace.final_text():
            assert not pace.take_turn(wake)
        assert woken == []
        assert not pace.take_turn(wake)
    assert woken == [1]
    assert pace.take_turn(wake)


def test_a_session_that_leaves_gives_way(clock: Clock) -> None:
    pace, woken = Pace(clock=clock), []
    first, second = (lambda: None), (lambda: woken.append(2))
    runs = lambda: None  # noqa: E731
    pace.take_turn(runs)
    pace.take_turn(first)
    pace.take_turn(second)
    pace.end_turn(runs, is_whole=False)
    pace.leave(first)
    assert woken == [2]


def test_the_interval_grows_with_the_sessions(clock: Clock) -> None:
    pace = Pace(clock=clock)
    sessions = [lambda i=i: None for i in range(4)]
    pace.join(sessions[0])
    assert pace.interval(0.3) == 0.3  # nothing was measured yet
    refresh(pace, clock, sessions[0], 0.14)
    assert pace.interval(0.3) == 0.3
    for wake in sessions[1:]:
        pace.join(wake)
    assert pace.interval(0.3) == pytest.approx(4 * 0.14 / LOAD)
    for wake in sessions[1:]:
        pace.leave(wake)
    assert pace.interval(0.3) == 0.3


def test_one_session_too_many_is_refused(clock: Clock) -> None:
    pace = Pace(clock=clock)
    first, second = (lambda: None), (lambda: None)
    pace.join(first)
    refresh(pace, clock, first, 0.6 * LONGEST_INTERVAL * LOAD)
    with pytest.raises(CapacityError, match="there are 1 live sessions"):
        pace.join(second)
    pace.leave(first)
    pace.join(second)


def test_one_slow_refresh_refuses_nobody(clock: Clock) -> None:
    pace, first = Pace(clock=clock), lambda: None
    pace.join(first)
    for seconds in (20.0, 0.1, 0.1):  # the first one loads the model
        refresh(pace, clock, first, seconds)
    pace.join(lambda: None)
    assert pace.interval(0.0) == pytest.approx(2 * 0.1 / LOAD)


def test_an_interrupted_refresh_measures_nothing(clock: Clock) -> None:
    pace, wake = Pace(clock=clock), lambda: None
    pace.join(wake)
    assert pace.take_turn(wake)
    clock.now += 100
    pace.end_turn(wake, is_whole=False)
    assert pace.interval(0.3) == 0.3


def test_the_sessions_of_a_model_share_a_pace() -> None:
    one, other = random_model(0), random_model(1)
    assert pace_of(one) is pace_of(one)
    assert pace_of(one) is not pace_of(other)
