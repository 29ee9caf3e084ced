"""The stream of a transcription, as server-sent events: the text as it becomes final, and the whole at the end.

All deltas together are the text of the last event. The status is decided by the first event, so that a recording that
cannot be read gets an error like any other request; a long silence is filled with comments, which clients pass over.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import anyio
from anyio import from_thread
from anyio.streams.memory import MemoryObjectReceiveStream
from starlette.datastructures import Headers
from starlette.types import Send

from ..options.language_names import code_of
from .errors import RequestError
from .responses import diarized_segment, logprobs, usage
from .work import Work

KEEPALIVE = 15.0  # seconds without an event, after which a comment is sent
COMMENT = b": keepalive\n\n"
HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",  # nginx would keep the events back
}
Event = Mapping[str, Any]


class Deltas:
    """Cuts a text that grows segment by segment into pieces whose sum has no white space around it."""

    def __init__(self) -> None:
        self.text = ""
        self._held = ""  # white space that only belongs to the text if more follows

    def add(self, text: str) -> str:
        """Return what a segment adds."""
        text = self._held + text
        if not self.text:
            text = text.lstrip()
        delta = text.rstrip()
        self._held = text[len(delta) :]
        self.text += delta
        return delta


def events(work: Work) -> Iterator[Event]:
    """Run the work, and give its events."""
    request, deltas, spoken = work.request, Deltas(), []
    segments = work.segments()
    language = None
    while True:
        try:
            segment = next(segments)
        except StopIteration as end:
            language = end.value["language"]
            break
        delta = deltas.add(segment["text"])
        event: dict[str, Any] = {"type": "transcript.text.delta", "delta": delta}
        if request.with_logprobs:
            event["logprobs"] = logprobs(work.tokenizer, [segment])
            spoken += event["logprobs"]
        is_diarized = request.response_format == "diarized_json"
        if is_diarized:
            event["segment_id"] = f"seg_{segment['id']}"
        if delta:
            yield event
        if is_diarized:
            yield diarized_segment(segment)
    done: dict[str, Any] = {"type": "transcript.text.done", "text": deltas.text}
    if request.with_logprobs:
        done["logprobs"] = spoken
    yield {**done, "languages": [{"code": code_of(language)}], "usage": usage(work)}


async def send_events(
    work: Work,
    send: Send,
    run: Callable[[Callable[[], None]], Any],
    error_of: Callable[[Exception], RequestError],
    on_first: Callable[[float], None],
) -> None:
    """Run the work on a thread, and send its events as they come.

    Parameters
    ----------
    work
        The work.
    send
        The client.
    run
        Awaited with what is to run on a thread.
    error_of
        Says what the client is told of an error in mid-stream.
    on_first
        Called with the seconds until the first event.

    Raises
    ------
    Exception
        What ended the work before anything was sent.
    """
    put, get = anyio.create_memory_object_stream[Event | Exception](math.inf)

    def hand_over(event: Event | Exception) -> None:
        with contextlib.suppress(anyio.BrokenResourceError):  # the client has left, and the work is cancelled
            put.send_nowait(event)

    def produce() -> None:
        try:
            for event in events(work):
                from_thread.run_sync(hand_over, event)
        except Exception as error:  # whatever it is, the client is told on the event loop
            from_thread.run_sync(hand_over, error)
        finally:
            from_thread.run_sync(put.close)

    started = time.monotonic()
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run, produce)
        try:
            await _relay(work, get, send, error_of, lambda: on_first(time.monotonic() - started))
        except Exception as error:  # raised below: a task group would wrap it
            failure = error
            work.cancel.set()
    try:
        if failure is not None:
            raise failure
    finally:
        del failure  # its traceback holds this frame


async def _relay(
    work: Work,
    get: MemoryObjectReceiveStream[Event | Exception],
    send: Send,
    error_of: Callable[[Exception], RequestError],
    on_first: Callable[[], None],
) -> None:
    """Send what comes out of the work until its end; raises its error where nothing was sent before."""
    has_started = has_event = False

    async def put(data: bytes) -> None:
        nonlocal has_started
        if not has_started:
            await send({"type": "http.response.start", "status": 200, "headers": Headers(HEADERS).raw})
            has_started = True
        await send({"type": "http.response.body", "body": data, "more_body": True})

    with get:
        while True:
            with anyio.move_on_after(KEEPALIVE) as waiting:
                try:
                    event = await get.receive()
                except anyio.EndOfStream:
                    break
            if waiting.cancelled_caught:
                await put(COMMENT)
                continue
            if isinstance(event, Exception):
                if not has_started:
                    raise event
                event = error_of(event).body
            elif not has_event:
                has_event = True
                on_first()
            await put(b"data: " + json.dumps(event, ensure_ascii=False).encode("utf-8", "replace") + b"\n\n")
    work.is_answered = True  # from now on the client may go
    await send({"type": "http.response.body", "body": b"", "more_body": False})
