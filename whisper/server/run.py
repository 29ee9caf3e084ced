"""Runs the application under uvicorn: the port, TLS, the log, and an orderly end at SIGTERM."""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn

from .app import Server, build_app
from .observing import LOG, JsonFormatter
from .settings import ServeOptions

if TYPE_CHECKING:
    from ..model import Whisper

KEEP_ALIVE = 75  # seconds that an idle connection stays open: longer than proxies keep theirs
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
    Exception
        What kept a model from being loaded.
    SystemExit
        The port cannot be listened on.
    """
    log_as_json()
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
        ws="none",
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


def log_as_json() -> None:
    """Write the log of the server and of uvicorn, and Python's warnings, to standard error: one line of JSON each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    for name in (LOG.name, "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        LOG.warning("warning", extra={"notes": {"warning": str(message)}})

    warnings.showwarning = show
