"""What is known of each request afterwards: an id, a line of JSON in the log, metrics, and a 500 for our faults.

No line holds a text, the name of a file, a key, or what stands behind the question mark of an address.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
import traceback
import uuid
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import CLIENT_GONE, ClientGoneError, internal
from .metrics import Metrics

LOG = logging.getLogger("whisper.server")
NOTES = "whisper.notes"  # in the scope: what a handler adds to the line of its request
SWITCHED, FORBIDDEN = 101, 403  # the statuses of websockets that were accepted, or closed before
BROKEN = 1011  # the code of a websocket's close after a fault of ours
OTHER = "other"  # in metrics: all addresses that do not exist


class JsonFormatter(logging.Formatter):
    """Writes each record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "notes", {}),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["traceback"] = "".join(traceback.format_exception(*record.exc_info))
        return json.dumps(line)


def note(scope: Scope, **notes: Any) -> None:
    """Add to the line that the log will have of a request."""
    scope.setdefault(NOTES, {}).update(notes)


class Observer:
    """ASGI middleware, the outermost.

    Parameters
    ----------
    app
        What answers.
    metrics
        Counts the answers.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and note what came of it."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        request_id, started, status = f"req_{uuid.uuid4().hex}", time.monotonic(), 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            elif message["type"] == "websocket.accept":
                status = SWITCHED
            elif message["type"] == "websocket.close":
                status = status or FORBIDDEN  # what the client of a handshake sees
            await send(message)

        error: Exception | None = None
        try:
            await self.app(scope, receive, send_with_id)
        except ClientGoneError:
            status = CLIENT_GONE
        except Exception as raised:  # a fault of ours, which must not end the connection without an answer
            error = raised
            if not status:
                await internal().response(scope, receive, send_with_id)
            elif scope["type"] == "websocket":
                with contextlib.suppress(Exception):  # it may be closed
                    await send({"type": "websocket.close", "code": BROKEN, "reason": request_id})
        finally:
            self._note(scope, request_id, status or CLIENT_GONE, time.monotonic() - started, error)

    def _note(self, scope: Scope, request_id: str, status: int, seconds: float, error: Exception | None) -> None:
        route = getattr(scope.get("route"), "path", OTHER)
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        notes = {
            "request_id": request_id,
            "method": scope.get("method", "WEBSOCKET"),
            "route": route,
            "status": status,
            "seconds": round(seconds, 4),
            **scope.get(NOTES, {}),
        }
        LOG.log(
            logging.ERROR if error is not None else logging.INFO,
            "request",
            extra={"notes": notes},
            exc_info=(type(error), error, error.__traceback__) if error is not None else None,
        )
