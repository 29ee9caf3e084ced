"""One replica: the whole application with its models, asked by messages instead of a connection; knows no Ray."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from starlette.types import Message

from ..settings import ServeOptions
from .settings import ACCEPTED, ClusterOptions

if TYPE_CHECKING:
    from ...model import Whisper


class Replica:
    """Answers requests, each as messages of ASGI.

    Parameters
    ----------
    cluster
        Its models, and where they run.
    options
        The settings of the server.
    keys
        API keys.
    """

    def __init__(self, cluster: ClusterOptions, options: ServeOptions, keys: Sequence[str]) -> None:
        from ...device import allocator  # none of these where the application is only described
        from .. import app, run

        run.log_as_json()
        allocator.keep_little()
        self.server = app.Server(options, cluster.names, _loader(cluster), keys)
        self.server.decoders.start()  # while this process is small
        self.server.models.load_all()
        self.server.is_loaded = True
        self._app = app.build_app(self.server)
        self._tasks: set[asyncio.Task[None]] = set()  # a loop holds its tasks only weakly

    async def answer(self, scope: dict[str, Any], pieces: Sequence[Awaitable[bytes]]) -> AsyncIterator[Message]:
        """Answer a request; where the caller stops reading, its work is cancelled.

        Parameters
        ----------
        scope
            Of ASGI.
        pieces
            The body.
        """
        yield {"type": ACCEPTED}
        messages: asyncio.Queue[Message | None] = asyncio.Queue()
        is_gone = asyncio.Event()
        rest = list(pieces)

        async def receive() -> Message:
            if rest:
                return {"type": "http.request", "body": await rest.pop(0), "more_body": bool(rest)}
            await is_gone.wait()
            return {"type": "http.disconnect"}

        async def run() -> None:
            try:
                await self._app(scope, receive, messages.put)
            finally:
                messages.put_nowait(None)

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            while (message := await messages.get()) is not None:
                yield message
            await task  # for its error
        finally:
            is_gone.set()

    def check_health(self) -> None:
        """Tell Ray, by an error, that this replica is to be replaced."""
        if self.server.why_not_ready() == "stalled":
            raise RuntimeError("no transcription of this replica gets on")

    def __del__(self) -> None:
        """End the processes that decode."""
        if hasattr(self, "server"):
            self.server.decoders.close()


def _loader(cluster: ClusterOptions) -> Callable[[str], Whisper]:
    def load(name: str) -> Whisper:
        import torch

        from ...checkpoints import load_model

        if not cluster.gpus:
            torch.set_num_threads(max(int(cluster.cpus), 1))
        device = None if cluster.device == "auto" else cluster.device
        return load_model(name, device=device, download_root=cluster.model_dir, compute_type=cluster.compute_type)

    return load
