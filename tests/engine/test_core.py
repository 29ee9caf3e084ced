"""The engine without threads: steps alone bring every request to the end that it has in an engine."""

from __future__ import annotations

import gc

import pytest

from whisper.engine.core import EngineCore
from whisper.engine.operations import Encode, Sample
from whisper.engine.priorities import PLAIN, Claim, Priority
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


LIVE, BATCH = Claim(Priority.LIVE), Claim(Priority.BATCH)


def test_a_long_batch_request_yields_to_a_live_one_window_by_window() -> None:
    """While the live one is under way, no window of the batch requests is encoded."""
    runner = MockRunner()
    core = core_of(runner, 64)
    long = [core.submit(Work(i, n_windows=4).steps(), claim=BATCH) for i in range(4)]
    for _ in range(20):
        assert core.step()
    live = core.submit(Work(9, n_windows=1).steps(), claim=LIVE)
    n_batch_windows = 0
    while not live.is_done:
        assert core.step()
        if job := core.schedule():  # what would come next
            core.is_busy = False
            if job.kind is Encode and live not in job.operations and any(live in w for w in core._waiting.values()):
                n_batch_windows += 1
    assert n_batch_windows == 0
    assert live.value == alone(Work(9, n_windows=1))
    while core.step():
        pass
    assert [request.value for request in long] == [alone(Work(i, n_windows=4)) for i in range(4)]


def test_rows_that_decode_go_along_with_more_urgent_ones() -> None:
    core = core_of(MockRunner(), 64)
    core.submit(Work(0, n_windows=3).steps(), claim=BATCH)
    while not any(op.sampling.n_steps for op in core._waiting[Sample].values()):
        assert core.step()
    live = core.submit(Work(1, n_windows=1).steps(), claim=LIVE)
    n_together = 0
    while not live.is_done:
        job = core.schedule() if not (core.ready or core.scheduler.may_admit()) else None
        if job is not None:
            n_together += job.kind is Sample and len(job.operations) == 2
            core.is_busy = False
        assert core.step()
    assert n_together


@pytest.mark.parametrize("claim", [PLAIN, LIVE, BATCH])
def test_of_one_claim_the_device_works_in_the_order_of_arrival(claim: Claim) -> None:
    core, kinds = core_of(MockRunner(), 64), []
    for i in range(3):
        core.submit(Work(i).steps(), claim=claim)
    while core.ready or core.scheduler.may_admit() or any(core._waiting.values()):
        if not core.ready and not core.scheduler.may_admit() and (job := core.schedule()):
            core.is_busy = False
            kinds.append((job.kind, len(job.operations)))
        core.step()
    assert kinds[:3] == [(Encode, 1)] * 3
    assert Sample in [kind for kind, _ in kinds]
