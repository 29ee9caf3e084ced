"""Workers as actors on a Ray cluster: one for each GPU, or for each machine; the runner and its files stay here.

Ray restarts nothing: any error of its own means that a worker is lost, and what it had is given out again. Recordings
are read where they run, so their paths must be there on all machines, or be addresses. Needs the extra ``ray``.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from ...errors import MissingDependencyError, OptionError
from .messages import Lost, WorkerSettings
from .runner import Launch
from .workers import Events

LOCAL = "local"
POLL_S = 1.0  # seconds that a call for messages waits
NODE_S = 15.0  # seconds within which the cluster knows that a node is dead


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster that this process is connected to."""

    n_gpus: int
    cpus: tuple[int, ...]  # of each machine that has some

    @property
    def n_workers(self) -> int:
        """Return how many workers fit: one for each GPU; without GPUs one for each machine."""
        return self.n_gpus or len(self.cpus) or 1

    @property
    def device(self) -> str:
        """Return where the models run."""
        return "cuda" if self.n_gpus else "cpu"

    def launcher(self, settings: WorkerSettings, _: int) -> Launch:
        """Return what starts a worker."""
        n_cpus = 1 if self.n_gpus else min(self.cpus, default=1)
        own = replace(
            settings,
            model_options={**settings.model_options, "device": self.device},
            threads=0 if self.n_gpus else settings.threads or n_cpus,
        )

        def start(number: int, events: Events[tuple[Any, object]]) -> RayWorker:
            return RayWorker(f"{number} on ray", own, events, n_cpus, 1 if self.n_gpus else 0)

        return start


def connect(address: str) -> Cluster:
    """Connect to a cluster, or start one on this machine.

    Parameters
    ----------
    address
        ``local``, ``auto`` for the cluster that this machine belongs to, or ``host:port`` or ``ray://host:port``.

    Raises
    ------
    MissingDependencyError
        Ray is not installed.
    OptionError
        There is no cluster.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    try:
        import ray
    except ImportError as error:
        raise MissingDependencyError("--ray needs the package ray", "ray") from error
    try:
        if not ray.is_initialized():
            how: dict[str, Any] = {"include_dashboard": False} if address == LOCAL else {"address": address}
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **how)
        nodes = [node["Resources"] for node in _nodes() if node["Alive"]]
    except Exception as error:  # Ray has many
        raise OptionError(f"there is no Ray cluster at {address!r}: {str(error).splitlines()[0]}") from error
    cpus = tuple(int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1)
    return Cluster(sum(int(node.get("GPU", 0)) for node in nodes), cpus)


def _nodes() -> list[dict[str, Any]]:
    import ray

    return list(ray.nodes())


class _Actor:
    """A worker in a process of Ray's: what it says is fetched."""

    def __init__(self, settings: WorkerSettings) -> None:
        from .worker import Worker

        self._said: queue.Queue[object] = queue.Queue()  # see `Events`
        self._worker = Worker(settings, self._said.put)
        threading.Thread(target=self._worker.start, daemon=True).start()

    def node(self) -> str:
        """Return the id of the machine."""
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def take(self, message: object) -> None:
        """Take a message."""
        self._worker.take(message)

    def messages(self) -> list[object]:
        """Wait a moment for messages, and return all that are there."""
        found: list[object] = []
        with suppress(queue.Empty):
            found.append(self._said.get(timeout=POLL_S))
            while True:
                found.append(self._said.get_nowait())
        return found


class RayWorker:
    """A worker on a cluster; see `workers.WorkerHandle`.

    Parameters
    ----------
    name
        For messages to the user.
    settings
        What it is to be.
    events
        Gets what it says.
    n_cpus, n_gpus
        That it takes of a machine.
    """

    def __init__(
        self, name: str, settings: WorkerSettings, events: Events[tuple[Any, object]], n_cpus: int, n_gpus: int
    ) -> None:
        import ray

        self.name, self._events, self._node = name, events, ""
        # several calls at once: messages are taken while others are waited for
        how: dict[str, Any] = {"num_cpus": n_cpus, "num_gpus": n_gpus, "max_restarts": 0, "max_task_retries": 0}
        actor: Any = ray.remote(_Actor)
        self._actor = actor.options(**how, max_concurrency=4, scheduling_strategy="SPREAD").remote(settings)
        threading.Thread(target=self._listen, name=f"sotto-{name}", daemon=True).start()

    def send(self, message: object) -> None:
        """See `WorkerHandle.send`."""
        with suppress(Exception):  # it is lost: that is in the queue
            self._actor.take.remote(message)

    def kill(self) -> None:
        """See `WorkerHandle.kill`."""
        import ray

        with suppress(Exception):  # it is lost already
            ray.kill(self._actor, no_restart=True)

    def _listen(self) -> None:
        import ray

        try:
            self._node = ray.get(self._actor.node.remote())
            while True:
                for message in ray.get(self._actor.messages.remote()):
                    self._events.put((self, message))
        except Exception as error:  # whatever it is, of Ray or of its end: this worker is no more
            self.kill()
            reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
            self._events.put((self, Lost(reason, innocent=self._node_is_dead())))

    def _node_is_dead(self) -> bool:
        """Whether the whole machine is gone, so that no recording is to blame."""
        until = time.monotonic() + NODE_S
        while self._node and time.monotonic() < until:
            try:
                alive = {node["NodeID"]: node["Alive"] for node in _nodes()}
            except Exception:  # the cluster itself is gone
                return True
            if not alive.get(self._node, False):
                return True
            time.sleep(0.5)
        return not self._node
