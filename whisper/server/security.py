"""Who may use the server: API keys, the hosts by which it is called, and the web pages that call it.

A server on loopback is reachable from every web page that the user opens: by a plain form post, and after DNS
rebinding also with answers. So the headers ``Host`` and ``Origin`` are checked on every request, with or without keys.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import RequestError
from .settings import ANY_HOST

OPEN_PATHS = frozenset({"/health", "/ready"})  # for probes, which have no key; they tell nothing
PAGE_PATHS = frozenset({"/", "/favicon.ico"})  # the page, which asks its user for the key; the same for everybody
PAGE_FILES = "/page/"
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}
SECRETS_PATH = "/v1/realtime/client_secrets"
BETA_SECRETS_PATH = "/v1/realtime/transcription_sessions"
SHORTEST_SECRET, LONGEST_SECRET, USUAL_SECRET = 10, 7200, 600  # seconds that a client secret lives
KEY_PROTOCOL = "openai-insecure-api-key."  # the subprotocol in which browsers, which can set no header, send a key
_POLICY = "content-security-policy"
_METHODS = "GET, POST, PATCH, DELETE, OPTIONS"
_ONE_HOUR = "3600"


class Gate:
    """ASGI middleware that lets in whom the settings allow.

    Parameters
    ----------
    app
        Gets what is let in.
    keys
        API keys; without any, none is asked for.
    hosts
        Names by which the server may be called; ``*`` for any.
    origins
        Origins of web pages that may call it, beside pages of its own.
    admits
        Says of a request, by its scope and its cookies, whether it needs no key.
    """

    def __init__(
        self,
        app: ASGIApp,
        keys: Sequence[str],
        hosts: Sequence[str],
        origins: Sequence[str],
        admits: Callable[[Scope, str], bool] = lambda scope, cookies: False,
    ) -> None:
        self.app, self._admits = app, admits
        self._digests = [digest_of(key) for key in keys]
        self._hosts, self._origins = frozenset(hosts), frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request, and pass it on."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        added = dict(_HEADERS)
        if origin in self._origins:
            added |= {
                "access-control-allow-origin": str(origin),
                "access-control-expose-headers": "x-request-id, retry-after",
                "vary": "Origin",
            }

        async def send_with_headers(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                answered = MutableHeaders(scope=message)
                policy = answered.get(_POLICY)  # the page's own, or the strictest
                answered.update(added)
                if policy is not None:
                    answered[_POLICY] = policy
            await send(message)

        is_preflight = scope.get("method") == "OPTIONS" and "access-control-request-method" in headers
        try:
            self._check_host(headers)
            self._check_origin(scope, headers)
            if is_preflight and origin in self._origins:
                await _preflight(headers)(scope, receive, send_with_headers)
                return
            if not (_is_open(scope["path"]) or self._admits(scope, headers.get("cookie", ""))):
                self._check_key(headers)
        except RequestError as error:
            await error.response(scope, receive, send_with_headers)
            return
        await self.app(scope, receive, send_with_headers)

    def _check_host(self, headers: Headers) -> None:
        host = _without_port(headers.get("host", "").lower())
        if ANY_HOST not in self._hosts and host not in self._hosts:
            raise RequestError(
                403,
                "the server does not answer to the host of this request; --allowed_hosts names those that it does",
                code="host_not_allowed",
            )

    def _check_origin(self, scope: Scope, headers: Headers) -> None:
        """Refuse pages of other origins; programs send no origin."""
        origin = headers.get("origin")
        if origin is None or origin in self._origins:
            return
        scheme = {"ws": "http", "wss": "https"}.get(scope["scheme"], scope["scheme"])
        if origin.lower() != f"{scheme}://{headers.get('host', '').lower()}":
            raise RequestError(
                403,
                "web pages of this origin may not use the server; --cors_origins names those that may",
                code="origin_not_allowed",
            )

    def _check_key(self, headers: Headers) -> None:
        if not self._digests:
            return
        scheme, key = _authorization(headers)
        given = digest_of(key)
        # all are compared, in constant time, so that the time tells nothing of any
        matches = [hmac.compare_digest(given, digest) for digest in self._digests]
        if scheme.lower() != "bearer" or not any(matches):
            raise RequestError(
                401,
                "no API key, or a wrong one: send the header Authorization: Bearer KEY",
                code="invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )


def _is_open(path: str) -> bool:
    return path in OPEN_PATHS or path in PAGE_PATHS or path.startswith(PAGE_FILES)


def owner_of(headers: Headers, has_keys: bool) -> str:
    """Return who sent a request, by a digest of the key; all are one where none is needed."""
    return digest_of(key_of(headers)).hex() if has_keys else ""


def key_of(headers: Headers) -> str:
    """Return the key that a request gives; empty where it gives none."""
    return _authorization(headers)[1]


def digest_of(key: str) -> bytes:
    """Return by what a key is known here."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _authorization(headers: Headers) -> tuple[str, str]:
    """Return the scheme and the key that a request gives."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if not scheme:
        for protocol in headers.get("sec-websocket-protocol", "").split(","):
            if protocol.strip().startswith(KEY_PROTOCOL):
                return "bearer", protocol.strip().removeprefix(KEY_PROTOCOL)
    return scheme, key.strip()


def _without_port(host: str) -> str:
    if host.startswith("["):  # an address of IPv6
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


def _preflight(headers: Headers) -> Response:
    """Answer a browser that asks whether a page may send a request."""
    allowed = {
        "access-control-allow-methods": _METHODS,
        "access-control-allow-headers": headers.get("access-control-request-headers", "authorization, content-type"),
        "access-control-max-age": _ONE_HOUR,
    }
    return Response(status_code=204, headers=allowed)
