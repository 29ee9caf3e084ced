"""The address ``/v1/realtime``: a websocket on which a client sends sound and gets text, in OpenAI's events.

One coroutine reads and one sends; the work is done by the session's own thread. A wrong event is answered with an
``error`` event, and the session stays.
"""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from ...errors import ItemError, OptionError
from ...tokenizer import get_tokenizer
from ..errors import RequestError, invalid
from ..observing import note
from ..security import owner_of
from .client_secrets import ClientSecret
from .events import Answers, error_event, event, new_id
from .sessions import EXPIRED, NOTHING_COMMITTED, UNREAD, Ending, Seat
from .settings import SessionSettings
from .sound import decoded, from_base64

if TYPE_CHECKING:
    from ..app import Server

PATH = "/v1/realtime"
MOST_BYTES = 16 << 20  # of a message: OpenAI allows 15 MiB of sound in an event
PROTOCOL = "realtime"  # the subprotocol that browsers ask for
BETA_PROTOCOL = "openai-beta.realtime-v1"
TALKERS = (
    "gpt-realtime",
    "gpt-4o-realtime",
    "gpt-4o-mini-realtime",
)  # in the addresses of clients
LAST_MESSAGES = 5.0  # seconds to send what is left at the end
FULL = 1013  # the code of a close: try again later


def routes(server: Server) -> list[BaseRoute]:
    """Return the address of the websocket, and an explanation for who calls it without one."""

    async def connect(websocket: WebSocket) -> None:
        await _connect(server, websocket)

    async def explain(request: Request) -> Response:
        raise RequestError(
            426, f"{PATH} is a websocket; see docs/serve.md", code="upgrade_required", headers={"upgrade": "websocket"}
        )

    return [WebSocketRoute(PATH, connect), Route(PATH, explain, methods=["GET"])]


async def _connect(server: Server, websocket: WebSocket) -> None:
    """Answer a client that wants a session."""
    try:
        secret = server.secrets.of(websocket.headers)
        settings = _settings_of(server, websocket, secret)
        name = server.models.resolve(settings.model)
        key = secret.owner if secret else owner_of(websocket.headers, bool(server.keys))
        async with server.live.open("realtime", key, name, settings.live) as seat:
            offered = websocket.scope["subprotocols"]
            await websocket.accept(PROTOCOL if PROTOCOL in offered else None)
            conversation = Conversation(server, websocket, seat, settings)
            try:
                await conversation.run()
            finally:
                note(websocket.scope, model=seat.model_name, audio_seconds=round(seat.seconds, 2))
    except RequestError as error:
        await _refuse(websocket, error)


def _settings_of(server: Server, websocket: WebSocket, secret: ClientSecret | None) -> SessionSettings:
    """Return the settings with which a session begins: those of its secret, if it has one, and the model it names."""
    query = websocket.query_params
    intent = query.get("intent", "transcription")
    if intent != "transcription":
        raise invalid("intent must be transcription: this server transcribes, and does not talk", "intent")
    settings = secret.settings if secret else SessionSettings(server.models.default)
    asked = query.get("model") or settings.model
    if asked.startswith(TALKERS) and not server.options.strict_models:
        asked = settings.model
    is_beta = "realtime=v1" in websocket.headers.get("openai-beta", "")
    is_beta = settings.is_beta or is_beta or BETA_PROTOCOL in websocket.scope["subprotocols"]
    return replace(settings, model=asked, is_beta=is_beta)


async def _refuse(websocket: WebSocket, error: RequestError) -> None:
    """Refuse a session: with a status, or to a web page, which cannot see that, by an event and a close."""
    is_page = "origin" in websocket.headers
    if not is_page:
        await websocket.send_denial_response(error.response)
        return
    note(websocket.scope, error=error.code)
    offered = websocket.scope["subprotocols"]
    with contextlib.suppress(WebSocketDisconnect):
        await websocket.accept(PROTOCOL if PROTOCOL in offered else None)
        await websocket.send_text(json.dumps(error_event(error)))
        await websocket.close(FULL if error.status in (429, 503) else UNREAD.code, str(error)[:100])


class Conversation:
    """One client and its session.

    Parameters
    ----------
    server
        Has the models.
    websocket
        Accepted.
    seat
        The session.
    settings
        With which it begins.
    """

    def __init__(self, server: Server, websocket: WebSocket, seat: Seat, settings: SessionSettings) -> None:
        self.server, self.websocket, self.seat, self.settings = server, websocket, seat, settings
        self._id = new_id("sess")
        self._expires_at = round(time.time() + server.options.max_session_s)
        self._answers = Answers(settings)
        self._take(settings)
        self._decoder = settings.format.decoder()
        self._handlers = {
            "session.update": self._update,
            "transcription_session.update": self._update,
            "input_audio_buffer.append": self._append_event,
            "input_audio_buffer.commit": self._commit,
            "input_audio_buffer.clear": self._clear,
        }

    async def run(self) -> None:
        """Serve the client until it leaves, or until the server ends the session."""
        self._describe("created")
        ending: Ending | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._send_all)
            with self.seat.reading as reading:
                await self._read_all()
            if reading.cancelled_caught:
                ending = self.seat.ending or EXPIRED
                await self._say_goodbye(ending)
            tasks.cancel_scope.cancel()
        if ending is not None:
            note(self.websocket.scope, ended=ending.reason)
            with anyio.move_on_after(LAST_MESSAGES), contextlib.suppress(WebSocketDisconnect):
                await self.websocket.close(ending.code, ending.reason)

    async def _say_goodbye(self, ending: Ending) -> None:
        """Send what is left, the text of the open item first."""
        if not ending.finishes:
            return
        self._append_rest()
        await self.seat.finish()
        self.seat.mailbox.add(error_event(RequestError(503, ending.reason, code=ending.error)))
        with anyio.move_on_after(LAST_MESSAGES):
            await self.seat.mailbox.all_sent()

    # -- what comes --------------------------------------------------------------------------------------

    async def _read_all(self) -> None:
        """Read until the client leaves."""
        while True:
            message = await self.websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            cause: Any = None
            try:
                if message.get("bytes") is not None:
                    await self._append(message["bytes"])
                    continue
                sent = _parsed(message["text"])
                cause = sent.get("event_id")
                await self._handle(sent)
            except RequestError as error:
                self.seat.mailbox.add(error_event(error, cause))

    async def _handle(self, sent: dict[str, Any]) -> None:
        kind = sent.get("type")
        if not isinstance(kind, str):
            raise invalid("an event must have a type", "type")
        if kind not in self._handlers:
            raise invalid(
                f"there are no events {kind[:80]!r} in transcription sessions, but {', '.join(self._handlers)}",
                "type",
                "unsupported_event",
            )
        await self._handlers[kind](sent)

    async def _update(self, sent: dict[str, Any]) -> None:
        """Change the settings, all of them or none."""
        is_beta = sent["type"].startswith("transcription_session")
        given = sent.get("session")
        new = self.settings.updated_in_beta(given) if is_beta else self.settings.updated(given)
        name = self.server.models.resolve(new.model)
        try:
            if name != self.seat.model_name:
                if self.seat.seconds:
                    raise invalid("the model of a session cannot be changed once sound has come", "model")
                await self.seat.start(name, new.live)
            elif new.live != self.settings.live:
                self.seat.live.update(new.live)
        except OptionError as error:
            raise invalid(str(error), "session") from error
        if new.format != self.settings.format:
            self._append_rest()
            self._decoder = new.format.decoder()
        self._take(new)
        self._describe("updated")

    def _take(self, settings: SessionSettings) -> None:
        """Answer by these settings from now on."""
        self.settings = self._answers.settings = settings
        model = self.seat.model
        if settings.with_logprobs and model is not None:
            self._answers.tokenizer = get_tokenizer(model.is_multilingual, num_languages=model.num_languages)
        else:
            self._answers.tokenizer = None

    def _describe(self, what: str) -> None:
        kind = "transcription_session" if self.settings.is_beta else "session"
        session = self.settings.described(self._id, self._expires_at)
        self.seat.mailbox.add(event(f"{kind}.{what}", session=session))

    async def _append_event(self, sent: dict[str, Any]) -> None:
        await self._append(from_base64(sent.get("audio")))

    async def _append(self, data: bytes) -> None:
        for samples in decoded(self._decoder, data):
            self.seat.append(samples)
            await self.seat.room()

    def _append_rest(self) -> None:
        """Append what the decoder has kept: what comes next is other sound."""
        self.seat.append(self._decoder.finish())

    async def _commit(self, sent: dict[str, Any]) -> None:
        self._append_rest()
        try:
            self.seat.live.commit()
        except ItemError as error:
            raise invalid(f"Error committing input audio buffer: {error}", code=NOTHING_COMMITTED) from error

    async def _clear(self, sent: dict[str, Any]) -> None:
        self._decoder.finish()
        self.seat.live.clear()
        self.seat.mailbox.add(event("input_audio_buffer.cleared"))

    # -- what goes ---------------------------------------------------------------------------------------

    async def _send_all(self) -> None:
        with contextlib.suppress(WebSocketDisconnect):  # the client has left, which the reader sees, too
            async for message in self.seat.mailbox:
                for answer in [message] if isinstance(message, dict) else self._answers.of(message):
                    await self.websocket.send_text(json.dumps(answer))


def _parsed(text: str) -> dict[str, Any]:
    """Return the event that a text is."""
    try:
        sent = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise invalid(f"an event must be JSON: {error}", code="invalid_json") from None
    if not isinstance(sent, dict):
        raise invalid("an event must be a JSON object", code="invalid_json")
    return sent
