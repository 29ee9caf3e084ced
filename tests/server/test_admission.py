"""Admission: places, the queue, and what a client is told that has to come back."""

import anyio
import pytest

from whisper.server.admission import Admission
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
