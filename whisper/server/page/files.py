"""The files of the page, as browsers get them: under an address with their hash, and with a strict policy.

All files lie beside this module, and nothing else is ever served. The page loads nothing from any other place, runs no
script but these, and no text can become markup (`require-trusted-types-for`).
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..errors import RequestError

POLICY = "; ".join([
    "default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "media-src 'self' blob:",
    "img-src 'self' data:", "worker-src 'self'", "base-uri 'none'", "frame-ancestors 'none'", "form-action 'none'",
    "require-trusted-types-for 'script'", "trusted-types 'none'",
])  # fmt: skip
HEADERS = {
    "content-security-policy": POLICY,
    "permissions-policy": "camera=(), geolocation=(), payment=(), usb=(), microphone=(self)",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
FOREVER = "public, max-age=31536000, immutable"  # a changed file has another address
FOLDER = Path(__file__).parent
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
}


@functools.cache
def files() -> dict[str, bytes]:
    """Return the contents of all files, by the name under which they are served."""
    found = {}
    for path in sorted(FOLDER.rglob("*")):
        if path.suffix in TYPES:
            found[path.relative_to(FOLDER).as_posix()] = path.read_bytes()
    return found


@functools.cache
def version() -> str:
    """Return the hash of all files."""
    digest = hashlib.sha256()
    for name, data in files().items():
        digest.update(f"{name} {len(data)} ".encode() + data)
    return digest.hexdigest()[:16]


async def index(request: Request) -> Response:
    """Give the page itself, which names the address of all others."""
    text = files()["index.html"].decode().replace("{version}", version())
    return _answer(request, text.encode(), ".html", "no-cache")


async def icon(request: Request) -> Response:
    """Give the picture in a browser's tab."""
    return _answer(request, files()["icon.svg"], ".svg", "max-age=86400")


async def file(request: Request) -> Response:
    """Give one of the files."""
    name = request.path_params["name"]
    if name not in files() or request.path_params["version"] != version():
        raise RequestError(404, "there is no such file of the page; load the page again", code="not_found")
    return _answer(request, files()[name], Path(name).suffix, FOREVER)


def _answer(request: Request, data: bytes, suffix: str, caching: str) -> Response:
    tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    headers = {**HEADERS, "cache-control": caching, "etag": tag}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(data, media_type=TYPES[suffix], headers=headers)


def routes() -> list[Route]:
    """Return the addresses of the page."""
    return [
        Route("/", index, include_in_schema=False),
        Route("/favicon.ico", icon, include_in_schema=False),
        Route("/page/{version}/{name:path}", file, include_in_schema=False),
    ]
