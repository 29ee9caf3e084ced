"""The models of the server: loaded once, found by their names and aliases, and freed when they are idle.

A request never loads a model that the command line does not name: no name from the network is looked up anywhere.
"""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..device import processes
from ..options.types import did_you_mean
from .errors import RequestError

if TYPE_CHECKING:
    from ..model import Whisper
    from .metrics import Metrics

OPENAI_NAMES = (
    "whisper-1", "gpt-transcribe", "gpt-4o-transcribe", "gpt-4o-mini-transcribe", "gpt-4o-mini-transcribe-2025-12-15",
    "gpt-4o-transcribe-diarize", "gpt-live-transcribe", "gpt-realtime-whisper",
)  # fmt: skip
OWNER = "sotto"


@dataclass
class _Entry:
    """One model, in memory or not."""

    name: str
    model: Whisper | None = None
    n_users: int = 0
    last_used: float = field(default_factory=time.monotonic)
    lock: Any = field(default_factory=processes.lock)  # held while it is loaded


class Models:
    """The models that requests may name.

    Parameters
    ----------
    names
        As `load` takes them; the first is the default.
    load
        Returns the model of a name.
    metrics
        Gets which are in memory.
    aliases
        Further names, and what each stands for.
    strict
        Whether OpenAI's names mean nothing unless an alias says so.
    """

    def __init__(
        self,
        names: Sequence[str],
        load: Callable[[str], Whisper],
        metrics: Metrics,
        *,
        aliases: Mapping[str, str] | None = None,
        strict: bool = False,
    ) -> None:
        self.created = int(time.time())
        self._entries = {name: _Entry(name) for name in names}
        self._load, self._metrics = load, metrics
        defaults = {} if strict else dict.fromkeys(OPENAI_NAMES, names[0])
        self.aliases = {**defaults, **(aliases or {})}
        for alias, name in self.aliases.items():
            if name not in self._entries:
                raise RequestError(
                    404, f"alias {alias} stands for {name}, which is not served", code="model_not_found", param="alias"
                )

    @property
    def default(self) -> str:
        """Return the model that is meant where none is named."""
        return next(iter(self._entries))

    @property
    def served(self) -> list[str]:
        """Return the models, the default first, without further names."""
        return list(self._entries)

    def resolve(self, asked: str) -> str:
        """Return the name of the model that a client means.

        Raises
        ------
        RequestError
            There is none.
        """
        name = self.aliases.get(asked, asked)
        if name not in self._entries:
            hint = did_you_mean(asked, self.names()) or f"; there are {', '.join(self._entries)}"
            raise RequestError(
                404, f"there is no model {asked[:80]!r} here{hint}", code="model_not_found", param="model"
            )
        return name

    def names(self) -> list[str]:
        """Return all names that a client may use."""
        return list(dict.fromkeys([*self._entries, *self.aliases]))

    def describe(self, name: str) -> dict[str, Any]:
        """Return a model as OpenAI lists it."""
        self.resolve(name)
        return {"id": name, "object": "model", "created": self.created, "owned_by": OWNER}

    def load_all(self) -> None:
        """Load the models, and run each once, so that the first request finds them ready."""
        for name in self._entries:
            with self.use(name) as model:
                warm_up(model)

    @property
    def loaded(self) -> list[str]:
        """Return the names of the models that are in memory."""
        return [entry.name for entry in self._entries.values() if entry.model is not None]

    @contextlib.contextmanager
    def use(self, name: str) -> Iterator[Whisper]:
        """Give a model, loaded where it was not, which stays in memory for as long as the context lasts."""
        entry = self._entries[name]
        with entry.lock:
            if entry.model is None:
                entry.model = self._load(name)
                self._metrics.model_loaded.labels(name).set(1)
            model = entry.model
            entry.n_users += 1
        try:
            yield model
        finally:
            with entry.lock:
                entry.n_users -= 1
                entry.last_used = time.monotonic()

    def unload_idle(self, after: float) -> list[str]:
        """Free the models that were idle for `after` seconds; returns their names."""
        freed = []
        for entry in self._entries.values():
            if not entry.lock.acquire(blocking=False):  # it is being loaded
                continue
            try:
                if entry.model is not None and not entry.n_users and time.monotonic() - entry.last_used >= after:
                    entry.model = None
                    self._metrics.model_loaded.labels(entry.name).set(0)
                    freed.append(entry.name)
            finally:
                entry.lock.release()
        if freed:
            gc.collect()  # a model and its modules refer to each other
        return freed


def warm_up(model: Whisper) -> None:
    """Pack the weights and build what the first transcription needs."""
    import numpy as np

    from ..transcribe import transcribe

    transcribe(model, np.zeros(16000, np.float32), language="en", sample_len=1)
