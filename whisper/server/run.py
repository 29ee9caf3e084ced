"""Runs the application under uvicorn: the port, TLS, the log, and an orderly end at SIGTERM."""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn

from ..device.allocator import keep_little
from ..device.time_slice import have_turns_soon
from ..errors import OptionError
from .app import Server, build_app
from .observing import LOG, JsonFormatter
from .realtime.endpoint import MOST_BYTES
from .settings import ServeOptions

if TYPE_CHECKING:
    from ..model import Whisper

KEEP_ALIVE = 75  # seconds that an idle connection stays open: longer than proxies keep theirs
PING_TIMEOUT = 60  # seconds: while a session catches up, its client's answers to pings are not read, either
FALSE_ALARM = "ASGI callable returned without completing handshake."  # uvicorn, of each websocket that gets a status
LAST_ANSWERS = 5  # seconds for the answers of what is cancelled at the end


class _Uvicorn(uvicorn.Server):
    """Tells the application when the end begins, and cancels what has not finished in time."""

    def __init__(self, config: uvicorn.Config, server: Server) -> None:
        super().__init__(config)
        self._server = server

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain at the first SIGTERM or Ctrl-C; uvicorn itself ends at once at a second one."""
        if not self._server.admission.is_draining:
            self._server.drain()
            timer = threading.Timer(self._server.options.graceful_timeout_s, self._server.cancel_all)
            timer.daemon = True
            timer.start()
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Let this thread answer at once while others compute; say where the page is, once the port is known."""
        have_turns_soon()
        await super().startup(sockets)
        if self.servers and self._server.library:
            port = self.servers[0].sockets[0].getsockname()[1]
            self._server.library.job_folders.announce(self._server.options.page_address(port))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let live sessions get their last text first: uvicorn closes websockets at once."""
        await self._server.live.drain(self._server.options.graceful_timeout_s, lambda: self.force_exit)
        await super().shutdown(sockets)


def run(options: ServeOptions, names: Sequence[str], load: Callable[[str], Whisper], keys: Sequence[str]) -> None:
    """Serve until the process is told to end.

    Parameters
    ----------
    options
        The settings.
    names
        Models; the first is the default.
    load
        Returns the model of a name.
    keys
        API keys.

    Raises
    ------
    OptionError
        The port cannot be listened on.
    Exception
        What kept a model from being loaded.
    """
    check_port(options)
    log_as_json()
    keep_little()
    failures: list[Exception] = []

    def on_failure(error: Exception) -> None:
        failures.append(error)
        http.should_exit = True

    server = Server(options, names, load, keys, on_failure)
    config = uvicorn.Config(
        build_app(server),
        host=options.host,
        port=options.port,
        ssl_certfile=options.tls_certificate,
        ssl_keyfile=options.tls_key,
        http="h11",
        ws="websockets-sansio",
        ws_max_size=MOST_BYTES,
        ws_per_message_deflate=False,  # sound in base64 gains little, and a small message can hold a large one
        ws_ping_timeout=PING_TIMEOUT,
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=int(options.graceful_timeout_s) + LAST_ANSWERS,
    )
    http = _Uvicorn(config, server)
    http.run()
    if failures:
        raise failures[0]


def check_port(options: ServeOptions) -> None:
    """Raise `OptionError` where the port cannot be listened on; said here, since uvicorn only logs it."""
    where = f"port {options.port} of {options.host}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(options.host, options.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, os.name == "posix")  # as asyncio does
            probe.bind(address)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OptionError(f"{where} cannot be used: {reason}; --port gives another, --host another address") from None


def _is_wanted(record: logging.LogRecord) -> bool:
    """Whether a record may be written: lines of websockets hold whole addresses; `Observer` writes better ones."""
    if "websockets" not in Path(record.pathname).parts:
        return True
    return record.levelno > logging.INFO and record.getMessage() != FALSE_ALARM


def log_as_json() -> None:
    """Write the log of the server and of uvicorn, and Python's warnings, to standard error: one line of JSON each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    handler.addFilter(_is_wanted)
    for name in (LOG.name, "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        LOG.warning("warning", extra={"notes": {"warning": str(message)}})

    warnings.showwarning = show
