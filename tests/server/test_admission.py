"""Admission: places, the queue, and what a client is told that has to come back."""

import asyncio
import threading

import anyio
import pytest

from whisper.errors import CancelledError
from whisper.server.admission import Admission, Place
from whisper.server.errors import RequestError
from whisper.server.metrics import Metrics


def test_places_and_queue() -> None:
    async def check() -> None:
        metrics = Metrics()
        admission = Admission(2, 1, metrics)
        assert admission.seconds_to_wait() == 0
        async with admission.inside(), admission.inside(), admission.inside():
            assert admission.is_full
            with pytest.raises(RequestError) as error:
                async with admission.inside():
                    pass
            assert (error.value.status, error.value.headers["retry-after"]) == (429, "5")  # two runs of 5 s, two places
            async with admission.running(), admission.running():
                assert metrics.registry.get_sample_value("sotto_requests_running") == 2
                assert metrics.registry.get_sample_value("sotto_requests_waiting") == 1
                with anyio.move_on_after(0.05) as waiting:
                    async with admission.running():
                        pass
                assert waiting.cancelled_caught
            async with admission.running():
                pass
        assert (admission.n_inside, admission.n_running) == (0, 0)

    anyio.run(check)


def test_a_client_that_would_give_up_before_its_turn_is_told_at_once() -> None:
    async def check() -> None:
        admission = Admission(1, 10, Metrics())
        admission.mean_seconds = 100.0
        async with admission.inside(), admission.inside():
            with pytest.raises(RequestError) as error:
                async with admission.inside(client_timeout=60):
                    pass
            assert error.value.headers["retry-after"] == "120"  # more than that, and OpenAI's clients do not return
            async with admission.inside(client_timeout=600):
                pass

    anyio.run(check)


def test_the_mean_follows_what_was_measured() -> None:
    async def check() -> None:
        admission = Admission(1, 1, Metrics())
        for _ in range(40):
            async with admission.running():
                pass
        assert admission.mean_seconds < 0.1

    anyio.run(check)


def test_nobody_is_let_in_while_the_server_drains() -> None:
    async def check() -> None:
        admission = Admission(1, 1, Metrics())
        admission.is_draining = True
        with pytest.raises(RequestError) as error:
            async with admission.inside():
                pass
        assert error.value.status == 503

    anyio.run(check)


def test_long_recordings_leave_places_to_the_others() -> None:
    async def check() -> None:
        admission = Admission(4, 10, Metrics())
        async with anyio.create_task_group() as tasks:
            n_long = 0

            async def run_long() -> None:
                nonlocal n_long
                async with admission.running() as place:
                    await place.become_long()
                    n_long += 1
                    await anyio.sleep_forever()

            for _ in range(6):
                tasks.start_soon(run_long)
            await anyio.wait_all_tasks_blocked()
            assert n_long == 3
            with anyio.fail_after(1):
                async with admission.running():
                    pass
            tasks.cancel_scope.cancel()
        with anyio.fail_after(1):  # all have given back what they held
            async with admission.running(), admission.running(), admission.running(), admission.running():
                pass

    anyio.run(check)


def test_with_a_single_place_long_recordings_run_too() -> None:
    async def check() -> None:
        async with Admission(1, 1, Metrics()).running() as place:
            with anyio.fail_after(1):
                await place.become_long()

    anyio.run(check)


def test_a_long_recording_that_is_given_up_while_it_waits_frees_its_thread() -> None:
    """Also where the task that waits for the thread was cancelled before the thread asked."""

    async def check() -> None:
        admission = Admission(2, 8, Metrics())
        cancel, has_left = threading.Event(), threading.Event()
        outcomes: list[type] = []
        loop = asyncio.get_running_loop()

        def work(place: Place) -> None:
            has_left.wait(10)  # the client is gone before the thread comes here
            try:
                place.become_long_from_thread(loop, cancel)
            except CancelledError as error:
                outcomes.append(type(error))

        async def request() -> None:
            async with admission.running() as place:
                await anyio.to_thread.run_sync(work, place)

        async with anyio.create_task_group() as tasks, admission.running() as other:
            await other.become_long()  # the only place for long ones
            tasks.start_soon(request)
            await anyio.sleep(0.05)
            tasks.cancel_scope.cancel()
            asyncio.get_running_loop().call_later(0.05, has_left.set)
            asyncio.get_running_loop().call_later(0.15, cancel.set)
            with anyio.move_on_after(10, shield=True):
                while not outcomes:
                    await anyio.sleep(0.01)
        assert outcomes == [CancelledError]
        with anyio.fail_after(1):  # all places are free again
            async with admission.running() as one:
                await one.become_long()
        assert admission.n_running == 0

    anyio.run(check)
