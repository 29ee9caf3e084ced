"""Client secrets: keys that live for minutes and open live sessions alone, for programs that must not have a real key.

A web page or an app gets one from a server of its own, which asks for it with the real key. Sessions begin with the
settings that were given with the secret, and count as sessions of the key that made it.
"""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Scope

from ...options.types import is_whole
from ..errors import RequestError, invalid
from ..security import (
    BETA_SECRETS_PATH,
    LONGEST_SECRET,
    SECRETS_PATH,
    SHORTEST_SECRET,
    USUAL_SECRET,
    digest_of,
    key_of,
    owner_of,
)
from ..uploads import body_of
from .events import new_id
from .settings import SessionSettings, object_of

if TYPE_CHECKING:
    from ..app import Server

USUAL_IN_BETA = 60  # seconds that a secret lives
MOST = 10_000  # secrets that live at once
MOST_BYTES = 64 << 10  # of a request
PREFIX = "ek_"


@dataclass(frozen=True)
class ClientSecret:
    """What is known of a secret, but for its text, which only the client has."""

    expires_at: float  # seconds since the epoch
    owner: str  # the key that made it, as `owner_of` tells it
    settings: SessionSettings


class ClientSecrets:
    """The secrets that live, by their digests; belongs to one event loop."""

    def __init__(self) -> None:
        self._by_digest: dict[bytes, ClientSecret] = {}

    def make(self, owner: str, settings: SessionSettings, seconds: int) -> tuple[str, int]:
        """Return a new secret, and when it ends, in seconds since the epoch.

        Raises
        ------
        RequestError
            There are too many.
        """
        now = time.time()
        self._by_digest = {digest: one for digest, one in self._by_digest.items() if one.expires_at > now}
        if len(self._by_digest) >= MOST:
            raise RequestError(429, "there are too many client secrets", code="rate_limit_exceeded", retry_after=60)
        value, expires_at = PREFIX + secrets.token_urlsafe(32), int(now) + seconds
        self._by_digest[digest_of(value)] = ClientSecret(expires_at, owner, settings)
        return value, expires_at

    def of(self, headers: Headers) -> ClientSecret | None:
        """Return the secret that a request gives; None where it gives none, or one that has ended."""
        found = self._by_digest.get(digest_of(key_of(headers)))
        return found if found is not None and found.expires_at > time.time() else None

    def admits(self, scope: Scope) -> bool:
        """Say whether a request may come in by a secret: live sessions alone."""
        return scope["type"] == "websocket" and self.of(Headers(scope=scope)) is not None


def routes(server: Server) -> list[BaseRoute]:
    """Return the addresses at which secrets are made, the present one and that of OpenAI's beta."""

    async def create(request: Request) -> Response:
        given = object_of(await _body(server, request), "the body", ("expires_after", "session"))
        settings = SessionSettings(server.models.default)
        if given.get("session") is not None:
            settings = settings.updated(given["session"])
        seconds = _seconds(given.get("expires_after"), "expires_after", USUAL_SECRET)
        value, expires_at, session = _made(server, request, settings, seconds)
        return JSONResponse({"value": value, "expires_at": expires_at, "session": session})

    async def create_in_beta(request: Request) -> Response:
        given = dict(await _body(server, request))
        wanted = object_of(given.pop("client_secret", None) or {}, "client_secret", ("expires_at", "expires_after"))
        name = "expires_after" if "expires_after" in wanted else "expires_at"
        seconds = _seconds(wanted.get(name), f"client_secret.{name}", USUAL_IN_BETA)
        settings = SessionSettings(server.models.default).updated_in_beta(given)
        value, expires_at, session = _made(server, request, settings, seconds)
        return JSONResponse({**session, "client_secret": {"value": value, "expires_at": expires_at}})

    return [Route(SECRETS_PATH, create, methods=["POST"]), Route(BETA_SECRETS_PATH, create_in_beta, methods=["POST"])]


def _made(server: Server, request: Request, settings: SessionSettings, seconds: int) -> tuple[str, int, dict[str, Any]]:
    """Make a secret; return it, its end, and the session that it opens."""
    server.models.resolve(settings.model)  # now, and not when the client comes
    value, expires_at = server.secrets.make(owner_of(request.headers, bool(server.keys)), settings, seconds)
    session = settings.described(new_id("sess"), expires_at)
    del session["expires_at"]  # it begins when the client comes
    return value, expires_at, session


async def _body(server: Server, request: Request) -> dict[str, Any]:
    """Return the JSON object that a request has; a form of another site cannot send one."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise RequestError(415, "the request must be JSON, application/json", code="unsupported_media_type")
    parts = [part async for part in body_of(request, MOST_BYTES, server.options.upload_timeout_s)]
    try:
        given = json.loads(b"".join(parts))
    except (ValueError, RecursionError) as error:
        raise invalid(f"the body must be JSON: {error}", code="invalid_json") from None
    if not isinstance(given, dict):
        raise invalid("the body must be a JSON object", code="invalid_json")
    return given


def _seconds(given: Any, name: str, usual: int) -> int:
    """Return how long a secret lives."""
    wanted = object_of({} if given is None else given, name, ("anchor", "seconds"))
    if wanted.get("anchor", "created_at") != "created_at":
        raise invalid(f"{name}.anchor must be created_at", f"{name}.anchor")
    seconds = wanted.get("seconds", usual)
    if not is_whole(seconds) or not SHORTEST_SECRET <= seconds <= LONGEST_SECRET:
        bounds = f"from {SHORTEST_SECRET} to {LONGEST_SECRET}"
        raise invalid(f"{name}.seconds must be a whole number {bounds}", f"{name}.seconds")
    return int(seconds)
