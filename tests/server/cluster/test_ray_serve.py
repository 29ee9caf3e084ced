"""The application on a local Ray, with two replicas, of which one is killed, and then both."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from whisper.errors import MissingDependencyError, OptionError
from whisper.server.cluster import application, ray_serve
from whisper.server.cluster.front import ReplicaLostError
from whisper.server.cluster.ray_serve import RayReplicas

from ...conftest import ROOT
from ..serving import sound

if TYPE_CHECKING:
    from typing_extensions import Self

FIELDS = {"model": "whisper-1", "language": "en", "temperature": "[0]", "sample_len": "60"}


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r"sotto\[ray\]"):
        application({"model": "nano"})


def test_without_a_key_nothing_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray.serve")
    monkeypatch.delenv("SOTTO_API_KEYS", raising=False)
    with pytest.raises(OptionError, match="no key is set"):
        application({"model": "nano"})


class Response:
    """A streaming answer of a handle: some messages, then an error, or nothing more for ever."""

    def __init__(self, n_messages: int, error: Exception | None = None) -> None:
        self.n_left, self.error, self.is_cancelled = n_messages, error, False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> dict[str, Any]:
        self.n_left -= 1
        if self.n_left >= 0:
            return {"type": "accepted"}
        if self.error is not None:
            raise self.error
        await asyncio.sleep(60)
        raise StopAsyncIteration

    def cancel(self) -> None:
        self.is_cancelled = True


def replicas_with(response: Response) -> RayReplicas:
    remote = types.SimpleNamespace(remote=lambda scope, pieces: response)
    handle = types.SimpleNamespace(options=lambda stream: types.SimpleNamespace(answer=remote))
    return RayReplicas(handle)


@pytest.mark.parametrize("n_messages", [0, 2])
def test_what_ray_says_of_a_death_is_a_lost_replica(n_messages: int) -> None:
    ray = pytest.importorskip("ray")
    serve_errors = pytest.importorskip("ray.serve.exceptions")

    async def answer(error: Exception) -> list[Any]:
        messages = []
        try:
            async for message in replicas_with(Response(n_messages, error)).answer({}, []):
                messages.append(message)  # noqa: PERF401 - those before the error are kept
        except ReplicaLostError as lost:
            messages.append(lost)
        return messages

    for error in (ray.exceptions.ActorDiedError(), serve_errors.DeploymentUnavailableError(None)):
        *messages, last = asyncio.run(answer(error))
        assert len(messages) == n_messages
        assert isinstance(last, ReplicaLostError)


def test_a_fault_of_ours_is_no_lost_replica() -> None:
    pytest.importorskip("ray.serve")

    async def answer() -> None:
        async for _ in replicas_with(Response(1, ZeroDivisionError())).answer({}, []):
            pass

    with pytest.raises(ZeroDivisionError):
        asyncio.run(answer())


def test_no_request_waits_for_ever_for_a_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray.serve")
    monkeypatch.setattr(ray_serve, "ACCEPT_S", 0.05)
    response = Response(0)

    async def answer() -> None:
        async for _ in replicas_with(response).answer({}, []):
            pass

    with pytest.raises(ReplicaLostError):
        asyncio.run(answer())
    assert response.is_cancelled  # or it would run later, for nobody


def test_an_answer_that_nobody_reads_is_cancelled() -> None:
    pytest.importorskip("ray.serve")
    response = Response(9)

    async def answer() -> None:
        messages = replicas_with(response).answer({}, [])
        await anext(messages)
        await messages.aclose()

    asyncio.run(answer())
    assert response.is_cancelled


# in a process of its own: Ray's threads and the forks of other tests do not go together
_SCENE = """
import json, socket, sys, threading, time
from pathlib import Path
import httpx2 as httpx
import ray
from ray import serve
from whisper.server.cluster import application

sound, fields = Path(sys.argv[1]).read_bytes(), json.loads(sys.argv[2])
with socket.create_server(("127.0.0.1", 0)) as listening:
    port = listening.getsockname()[1]
ray.init(num_cpus=4, include_dashboard=False, object_store_memory=100 << 20, log_to_driver=False)
serve.start(http_options={"host": "127.0.0.1", "port": port})
serve.run(application({"model": "nano", "replicas": "2", "no_auth": "True", "compute_type": "float32"}))
address = f"http://127.0.0.1:{port}"
http = httpx.Client(timeout=120, limits=httpx.Limits(max_connections=None))

def ask(answers):
    files = {"file": ("a.wav", sound)}
    try:
        answer = http.post(address + "/v1/audio/transcriptions", data=fields, files=files)
        answers.append([answer.status_code, answer.text])
    except Exception as error:
        answers.append([0, repr(error)])

def start(n):
    answers = []
    threads = [threading.Thread(target=ask, args=(answers,)) for _ in range(n)]
    for thread in threads:
        thread.start()
    return threads, answers

def metric(name):
    lines = http.get(address + "/metrics").text.splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"sotto_{name} ")))

def kill(n):
    names = [a for a in ray.util.list_named_actors(all_namespaces=True) if "#Transcriber#" in a["name"]]
    for actor in names[:n]:
        ray.kill(ray.get_actor(actor["name"], namespace=actor["namespace"]), no_restart=True)
    return len(names)

def stream(events):
    files = {"file": ("a.wav", sound)}
    with http.stream("POST", address + "/v1/audio/transcriptions", data={**fields, "stream": "true"}, files=files) as r:
        events.extend(line.removeprefix("data: ") for line in r.iter_lines() if line.startswith("data: "))

def start_streams(n):
    streams = [[] for _ in range(n)]
    threads = [threading.Thread(target=stream, args=(events,)) for events in streams]
    for thread in threads:
        thread.start()
    return threads, streams

def wait_for(condition):
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)

def statuses():
    return [http.get(address + path).status_code for path in ("/health", "/v1/models")]

told = {"undisturbed": []}
ask(told["undisturbed"])
threads, told["one"] = start(8)
wait_for(lambda: metric("requests_running") == 8)
time.sleep(0.3)  # now the replicas have them, too
told["n_replicas"] = kill(1)
told["n_answered"] = len(told["one"])
told["statuses"] = statuses()
for thread in threads:
    thread.join(120)
told["lost"] = metric("replicas_lost_total")
states = lambda: serve.status().applications["default"].deployments["Transcriber"].replica_states
wait_for(lambda: states().get("RUNNING") == 2)
streaming, told["streams"] = start_streams(3)
wait_for(lambda: all(told["streams"]))
threads, told["both"] = start(3)
wait_for(lambda: metric("requests_running") == 6)
time.sleep(0.3)
kill(2)
told["statuses_of_none"] = statuses()
for thread in threads + streaming:
    thread.join(120)
print("TOLD " + json.dumps(told), flush=True)
serve.shutdown()
ray.shutdown()
"""


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_what_can_be_retried_is(tmp_path: Path) -> None:
    pytest.importorskip("ray.serve")
    path = tmp_path / "a.wav"
    path.write_bytes(sound(240))
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", _SCENE, str(path), json.dumps(FIELDS)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=380, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("TOLD ")]
    assert lines, (done.stdout[-2000:], done.stderr[-4000:])
    told = json.loads(lines[0].removeprefix("TOLD "))
    [right] = told["undisturbed"]
    assert right[0] == 200
    assert len(json.loads(right[1])["text"].split()) > 20
    assert told["n_replicas"] == 2
    assert told["n_answered"] == 0  # when one was killed
    assert told["lost"] >= 1
    assert told["one"] == [right] * 8
    assert told["statuses"] == told["statuses_of_none"] == [200, 200]
    assert told["both"] == [right] * 3
    for events in told["streams"]:
        assert json.loads(events[0])["type"] == "transcript.text.delta"
        assert json.loads(events[-1])["error"]["code"] == "replica_lost"
