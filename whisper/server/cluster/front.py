"""The front of a cluster: takes uploads, gives them to replicas, and sends them again where a replica dies.

It knows no Ray, and loads no model. It lets in, refuses and counts as the server of one machine does. An upload is kept
until its answer has begun: an answer that is no stream begins when it is whole, so no death of a replica shows in it.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Protocol

import anyio
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from .. import openapi
from ..admission import Admission
from ..errors import ClientGoneError, RequestError, answer_http_error, answer_request_error
from ..metrics import CONTENT_TYPE, Metrics
from ..models import Models
from ..observing import LOG, Observer, note
from ..requests import seconds_of_client
from ..security import Gate
from ..settings import ServeOptions
from ..uploads import body_of, check_headers
from .settings import ACCEPTED

if TYPE_CHECKING:
    from ...model import Whisper

MOST_TRIES = 3  # of one request: a recording that kills replicas kills no more
PIECE_BYTES = 4 << 20  # of an upload, kept as one object
READY_S = 5.0  # seconds within which a replica must answer for the whole to count as ready
_OF_SCOPE = (
    "type", "asgi", "http_version", "method", "scheme", "path", "raw_path", "query_string", "headers", "root_path",
    "client", "server",
)  # fmt: skip


class ReplicaLostError(Exception):
    """The replica that had a request is gone, or there was none for too long."""


class Replicas(Protocol):
    """What answers requests; which replica does is not said."""

    async def keep(self, data: bytes) -> Any:
        """Keep a piece of an upload where replicas can read it, for as long as what this returns lives."""

    def answer(self, scope: dict[str, Any], pieces: Sequence[Any]) -> AsyncGenerator[Message, None]:
        """Answer a request by messages of ASGI; `ReplicaLostError` where its replica dies."""

    async def is_ready(self) -> bool:
        """Whether one of them answers."""


class _Answer:
    """The messages of one try: held back until they are whole, but those of a stream."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope, self._send = scope, send
        self._held: list[Message] = []
        self._is_stream = self.has_begun = self.is_whole = False

    async def take(self, message: Message) -> None:
        """Take the next message."""
        if message["type"] == ACCEPTED:
            return
        if message["type"] == "http.response.start":
            headers = Headers(raw=message["headers"])
            self._is_stream = headers.get("content-type", "").startswith("text/event-stream")
            note(self._scope, replica_request_id=headers.get("x-request-id"))
        self._held.append(message)
        self.is_whole = message["type"] == "http.response.body" and not message.get("more_body")
        if self._is_stream or self.is_whole:
            self.has_begun = True
            for held in self._held:
                await self._send(held)
            self._held.clear()

    async def break_off(self, error: RequestError) -> None:
        """End a stream with an error."""
        data = b"data: " + json.dumps(error.body).encode() + b"\n\n"
        await self._send({"type": "http.response.body", "body": data, "more_body": False})
        self.is_whole = True


class Front:
    """Takes the requests of a cluster.

    Parameters
    ----------
    options
        The settings; places are those of one replica.
    names
        The models.
    keys
        API keys.
    replicas
        Answer.
    n_replicas
        Their number, by which more requests run at once.
    """

    def __init__(
        self, options: ServeOptions, names: Sequence[str], keys: Sequence[str], replicas: Replicas, n_replicas: int
    ) -> None:
        self.options, self.keys, self.replicas = options, keys, replicas
        self.metrics = Metrics()
        self.models = Models(names, _no_model, self.metrics, aliases=options.aliases(), strict=options.strict_models)
        self.admission = Admission(options.max_running * n_replicas, options.max_queue, self.metrics)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request for a transcription."""
        request = Request(scope, receive)
        check_headers(request, self.options.max_upload_bytes)
        async with self.admission.inside(seconds_of_client(request.headers.get("x-stainless-read-timeout"))):
            pieces = await self._keep(request)
            async with self.admission.running():
                await self._while_connected(scope, receive, send, pieces)

    async def _keep(self, request: Request) -> list[Any]:
        """Keep the body, as it comes."""
        pieces, data = [], bytearray()
        async for part in body_of(request, self.options.max_upload_bytes, self.options.upload_timeout_s):
            data += part
            self.metrics.upload_bytes.inc(len(part))
            if len(data) >= PIECE_BYTES:
                pieces.append(await self.replicas.keep(bytes(data)))
                data.clear()
        return [*pieces, await self.replicas.keep(bytes(data))]

    async def _while_connected(self, scope: Scope, receive: Receive, send: Send, pieces: list[Any]) -> None:
        """Have a request answered; where its client leaves before, end it there, too: `ClientGoneError`."""
        is_answered = is_gone = False
        failure: Exception | None = None
        async with anyio.create_task_group() as tasks:

            async def watch() -> None:
                nonlocal is_gone
                while (await receive())["type"] != "http.disconnect":
                    pass
                is_gone = not is_answered
                tasks.cancel_scope.cancel()

            tasks.start_soon(watch)
            try:
                await self._ask(scope, send, pieces)
                is_answered = True
            except Exception as error:  # raised below: a task group would wrap it
                failure = error
            tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure
        if is_gone and not is_answered:
            self.metrics.cancelled.labels("client_gone").inc()
            raise ClientGoneError

    async def _ask(self, scope: Scope, send: Send, pieces: list[Any]) -> None:
        """Have replicas answer, one after another while they die before an answer has begun."""
        asked = {name: scope[name] for name in _OF_SCOPE if name in scope}
        for n_tries in range(1, MOST_TRIES + 1):
            answer = _Answer(scope, send)
            try:
                async with aclosing(self.replicas.answer(asked, pieces)) as messages:
                    async for message in messages:
                        await answer.take(message)
                return
            except ReplicaLostError as error:
                if answer.is_whole:  # what was lost is no part of it
                    return
                LOG.warning("a replica is lost", extra={"notes": {"try": n_tries, "reason": str(error)}})
                note(scope, replicas_lost=n_tries)
                self.metrics.replicas_lost.inc()
                if answer.has_begun:
                    await answer.break_off(_lost())
                    return
        raise _lost()


def _lost() -> RequestError:
    return RequestError(
        503,
        "the replicas that had this request are gone, or there was none; try again later",
        code="replica_lost",
        retry_after=10,
    )


def _no_model(name: str) -> Whisper:
    raise AssertionError("the front loads no model")


def build_front(front: Front) -> Starlette:
    """Return the application of a front."""

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def ready(request: Request) -> Response:
        reason = "queue_full" if front.admission.is_full else "no_replica"
        with anyio.move_on_after(READY_S):
            if reason == "no_replica" and await front.replicas.is_ready():
                return JSONResponse({"status": "ready"})
        wait = max(round(front.admission.seconds_to_wait()), 1)
        return JSONResponse({"status": reason}, 503, {"retry-after": str(wait)})

    async def models(request: Request) -> Response:
        listed = [front.models.describe(name) for name in front.models.names()]
        return JSONResponse({"object": "list", "data": listed})

    async def model(request: Request) -> Response:
        return JSONResponse(front.models.describe(request.path_params["model"]))

    async def metrics(request: Request) -> Response:
        return Response(front.metrics.text(), media_type=CONTENT_TYPE)

    document = openapi.document(bool(front.keys))

    async def describe(request: Request) -> Response:
        return JSONResponse(document)

    options = front.options
    return Starlette(
        routes=[
            Route("/v1/audio/transcriptions", front, methods=["POST"]),
            Route("/v1/audio/translations", front, methods=["POST"]),
            Route("/v1/models", models),
            Route("/v1/models/{model:path}", model),
            Route("/health", health),
            Route("/ready", ready),
            Route("/metrics", metrics),
            Route("/openapi.json", describe),
        ],
        middleware=[
            Middleware(Observer, metrics=front.metrics),
            Middleware(Gate, keys=front.keys, hosts=options.hosts, origins=options.cors_origins or ()),
        ],
        exception_handlers={RequestError: answer_request_error, HTTPException: answer_http_error},
    )
