"""The Ray Serve application: one front, and replicas that Ray places, watches and restarts.

``serve run whisper.server.cluster:application model=base replicas=2``, or the ``import_path`` of a Serve config.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any

import anyio
from starlette.types import ASGIApp, Message

from ...errors import MissingDependencyError
from ..errors import RequestError
from ..settings import ServeOptions, read_keys
from .front import Front, ReplicaLostError, build_front
from .replica import Replica
from .settings import ClusterOptions, read

FRONT, TRANSCRIBER = "Front", "Transcriber"  # the names of the deployments, in Ray's tables and configs
ACCEPT_S = 300.0  # seconds that a request waits for a replica, such as one that is started in place of another
SPARE = 64  # requests to the front beside transcriptions: probes, metrics, lists, and those that are refused


class RayReplicas:
    """The replicas, by a handle of Ray's; see `front.Replicas`."""

    def __init__(self, handle: Any) -> None:
        self._answers, self._handle = handle.options(stream=True), handle

    async def keep(self, data: bytes) -> Any:
        """Put a piece into the object store of the front's machine, which moves it to disk where memory is short."""
        import ray

        try:
            return await anyio.to_thread.run_sync(ray.put, data)
        except (ray.exceptions.OutOfDiskError, ray.exceptions.ObjectStoreFullError) as error:
            raise RequestError(
                507, "the object store of the cluster is full; nothing of this was kept", code="insufficient_storage"
            ) from error

    async def answer(self, scope: dict[str, Any], pieces: Sequence[Any]) -> AsyncGenerator[Message, None]:
        """Have one replica answer."""
        import ray
        from ray.serve.exceptions import DeploymentUnavailableError

        lost = (
            ray.exceptions.RayActorError,
            ray.exceptions.NodeDiedError,
            ray.exceptions.WorkerCrashedError,
            DeploymentUnavailableError,
            TimeoutError,
        )
        response = self._answers.answer.remote(scope, list(pieces))
        is_over = False
        try:
            with anyio.fail_after(ACCEPT_S):
                accepted = await anext(response)
            yield accepted
            async for message in response:
                yield message
            is_over = True
        except lost as error:
            raise ReplicaLostError(f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}") from None
        finally:
            if not is_over:
                response.cancel()  # also one that still waits for a replica: it would run for nobody

    async def is_ready(self) -> bool:
        """Whether a replica answers."""
        await self._handle.check_health.remote()
        return True


def application(arguments: dict[str, Any]) -> Any:
    """Return the application that ``serve run`` and ``serve deploy`` run.

    Parameters
    ----------
    arguments
        By name, as text or as values: the fields of `ClusterOptions` (``model``, ``replicas``, ``cpus``, ``gpus``, ...)
        and those settings of `ServeOptions` that are about access, limits and names of models.

    Raises
    ------
    MissingDependencyError
        Ray Serve is not installed.
    OptionError
        A name or a value is wrong, or there is no API key and ``no_auth`` is not True.
    """
    try:
        from ray import serve as ray_serve
    except ImportError as error:
        raise MissingDependencyError("the server on a cluster needs Ray Serve", "ray") from error
    serve: Any = ray_serve
    cluster, options = read(arguments)
    keys = read_keys(options)

    def build() -> ASGIApp:
        from ..run import log_as_json

        log_as_json()
        handle = serve.get_deployment_handle(TRANSCRIBER)
        return build_front(Front(options, cluster.names, keys, RayReplicas(handle), cluster.replicas))

    transcribers = serve.deployment(
        Replica,
        name=TRANSCRIBER,
        num_replicas=cluster.replicas,
        max_ongoing_requests=options.max_running + 1,  # one is for whether it is ready
        graceful_shutdown_timeout_s=options.graceful_timeout_s,
        ray_actor_options={"num_cpus": cluster.cpus, "num_gpus": cluster.gpus},
    ).bind(cluster, options, keys)
    return _front_of(serve, build, cluster, options).bind(transcribers)


def _front_of(serve: Any, build: Any, cluster: ClusterOptions, options: ServeOptions) -> Any:
    """Return the deployment of the front, which computes nothing and so takes no core."""
    return serve.deployment(
        serve.ingress(build)(),
        name=FRONT,
        num_replicas=1,
        max_ongoing_requests=options.max_running * cluster.replicas + options.max_queue + SPARE,
        graceful_shutdown_timeout_s=options.graceful_timeout_s,
        ray_actor_options={"num_cpus": 0},
    )
