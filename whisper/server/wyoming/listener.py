"""The port of the Wyoming protocol: opened with the server, and closed with it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ...errors import OptionError
from ..observing import LOG
from . import connection
from .framing import MOST_LINE

if TYPE_CHECKING:
    from ..app import Server

CONNECTIONS_PER_PLACE = 4  # of a live session: clients also connect to ask what there is


class Listener:
    """Listens for Wyoming clients.

    Parameters
    ----------
    server
        Has the settings, models and places.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._listening: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begin to listen.

        Raises
        ------
        OptionError
            The port cannot be listened on.
        """
        options = self._server.options
        try:
            self._listening = await asyncio.start_server(
                self._accept, options.wyoming_host, options.wyoming_port, limit=MOST_LINE
            )
        except (OSError, UnicodeError) as error:
            address = f"wyoming_host {options.wyoming_host}, wyoming_port {options.wyoming_port}"
            raise OptionError(f"{address} cannot be listened on: {error}") from error
        LOG.info("wyoming", extra={"notes": {"listening": f"{options.wyoming_host}:{self.port}"}})

    @property
    def port(self) -> int:
        """Return the port on which it listens."""
        assert self._listening is not None
        port: int = self._listening.sockets[0].getsockname()[1]
        return port

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) >= CONNECTIONS_PER_PLACE * self._server.options.max_sessions:
            writer.close()
            return
        task = asyncio.get_running_loop().create_task(connection.serve(self._server, reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Listen no longer, and end the connections."""
        if self._listening is not None:
            self._listening.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
