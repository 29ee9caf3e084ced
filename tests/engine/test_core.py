"""The engine without threads: steps alone bring every request to the end that it has in an engine."""

from __future__ import annotations

import gc

from whisper.engine.core import EngineCore
from whisper.engine.scheduler import Scheduler
from whisper.errors import CancelledError

from ..runners import MockRunner
from .test_engine import Work, alone


def core_of(runner: MockRunner, max_rows: int = 12) -> EngineCore:
    return EngineCore(runner, Scheduler(runner.row_bytes, runner.window_bytes, max_rows))


def test_steps_bring_all_requests_to_their_end() -> None:
    runner = MockRunner()
    core = core_of(runner)
    works = [Work(i, n_parts=2 * (i == 3)) for i in range(5)]
    requests = [core.submit(work.steps(), work.n_rows) for work in works]
    n_steps = 0
    while core.step():
        n_steps += 1
    assert n_steps > len(works)
    assert [request.value for request in requests[:3]] == [alone(work) for work in works[:3]]
    assert [segment["seek"] for segment in requests[3].value] == [3, 3, 4, 4]
    assert core.is_idle
    assert not core.has_work
    assert not runner.taken
    gc.collect()
    assert not runner.windows


def test_a_request_that_is_cancelled_between_steps_gives_its_rows_back() -> None:
    runner = MockRunner()
    core = core_of(runner)
    kept, cancelled = (core.submit(Work(i).steps(), 4) for i in range(2))
    while not runner.taken:
        assert core.step()
    core.cancel(cancelled)
    assert cancelled.is_done
    assert isinstance(cancelled.error, CancelledError)
    while core.step():
        pass
    assert kept.value == alone(Work(0))
    assert not runner.taken
