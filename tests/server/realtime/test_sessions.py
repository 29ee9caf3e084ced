"""Places and mailboxes."""

import threading
import time
from typing import Any

import anyio
import numpy as np

from whisper.live import Interim, LiveOptions, Stable
from whisper.server.realtime.sessions import Mailbox

from ..live_sessions import FakeSession
from .talking import fake_server


def test_a_mailbox_keeps_the_order_and_the_newest_interim_text() -> None:
    async def run() -> list[Any]:
        box = Mailbox(lambda: None)
        for message in (Interim(0, "a"), Interim(0, "b"), Stable(0, "c"), Interim(0, "d"), Interim(1, "e")):
            box.add(message)
        with anyio.move_on_after(0.05):
            await box.all_sent()
            raise AssertionError("nothing is sent yet")
        found: list[Any] = []

        async def take() -> None:
            async for message in box:
                found.append(message)  # noqa: PERF401  it never ends

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(take)
            with anyio.fail_after(5):
                await box.all_sent()
            tasks.cancel_scope.cancel()
        return found

    assert anyio.run(run) == [Interim(0, "b"), Stable(0, "c"), Interim(0, "d"), Interim(1, "e")]


def test_a_full_mailbox_tells_so() -> None:
    async def run() -> list[int]:
        full: list[int] = []
        box = Mailbox(lambda: full.append(1), most=2)
        for number in range(4):
            box.add({"type": str(number)})
        return full

    assert anyio.run(run) == [1, 1]


def test_a_place_is_given_back_whatever_happens() -> None:
    async def run() -> None:
        made = fake_server(max_sessions=1)

        def fail(*_: Any, **__: Any) -> Any:
            raise RuntimeError("no memory")

        for make in (fail, FakeSession, FakeSession):
            made.live.make = make
            try:
                async with made.live.open("test", "", "nano", LiveOptions()):
                    raise RuntimeError("no memory")
            except RuntimeError:
                pass
            assert not made.live._seats
            assert made.models._entries["nano"].n_users == 0

    anyio.run(run)


def test_a_session_that_does_not_finish_in_time_is_cut_off() -> None:
    class Slow(FakeSession):
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            self.aborted = threading.Event()

        def close(self, *, finish: bool = True) -> None:
            if finish:
                assert self.aborted.wait(30)
            else:
                self.aborted.set()
            super().close(finish=finish)

    async def run() -> float:
        made = fake_server()
        made.live.make = Slow

        async def converse() -> None:
            async with made.live.open("test", "", "nano", LiveOptions()) as seat:
                with seat.reading:
                    await anyio.sleep_forever()
                await seat.finish()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(converse)
            while not made.live._seats:
                await anyio.sleep(0.01)
            started = time.monotonic()
            await made.live.drain(0.2)
        assert not made.live._seats
        return time.monotonic() - started

    assert 0.2 <= anyio.run(run) < 10


def test_finishing_leaves_all_events_in_the_mailbox() -> None:
    async def run() -> list[str]:
        made = fake_server()
        options = LiveOptions(turn_detection="none", interim=False)
        async with made.live.open("test", "", "nano", options) as seat:
            seat.append(np.full(1600, 1000, np.int16))
            await seat.finish()
            await seat.finish()
            return [type(message).__name__ for message in seat.mailbox._messages]

    assert anyio.run(run) == ["Stable", "Committed", "Final"]
