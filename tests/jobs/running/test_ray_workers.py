"""Workers on a Ray cluster of this machine, of which a node is killed."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from whisper.errors import MissingDependencyError, OptionError
from whisper.jobs import run as run_jobs
from whisper.jobs.running import ray_workers
from whisper.jobs.running.messages import WorkerSettings
from whisper.jobs.store import JobStore

from ...conftest import ROOT
from ..sounds import OPTIONS, talking_model, write_wav


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r"sotto\[ray\]"):
        ray_workers.connect("local")


def test_one_worker_for_each_gpu_or_machine() -> None:
    settings = WorkerSettings("nano", {"compute_type": "float32"}, {})
    started: list[Any] = []

    class Recorded:
        def __init__(self, *arguments: Any) -> None:
            started.append(arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_workers, "RayWorker", Recorded)
        for cluster in (ray_workers.Cluster(8, (64, 64)), ray_workers.Cluster(0, (16, 8))):
            cluster.launcher(settings, 1)(0, None)  # type: ignore[arg-type]
    assert [cluster.n_workers for cluster in (ray_workers.Cluster(8, (64,)), ray_workers.Cluster(0, (16, 8)))] == [8, 2]
    (_, gpu, _, *of_gpu), (_, cpu, _, *of_cpu) = started
    assert (gpu.model_options["device"], gpu.threads, of_gpu) == ("cuda", 0, [1, 1])
    assert (cpu.model_options["device"], cpu.threads, of_cpu) == ("cpu", 8, [8, 0])


def test_where_there_is_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: Any) -> None:
        raise ConnectionError("ray.init() failed\nand so on")

    fake = types.SimpleNamespace(is_initialized=lambda: False, init=init)
    monkeypatch.setitem(sys.modules, "ray", fake)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=r"no Ray cluster at 'host:1': ray.init\(\) failed$"):
        ray_workers.connect("host:1")


# in a process of its own: Ray's threads and the forks of other tests do not go together
_SCENE = """
import sys
import ray
from ray.cluster_utils import Cluster
from whisper.jobs import run

folder, model = sys.argv[1:]
small = {"object_store_memory": 80 << 20}
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **small})
nodes = [cluster.add_node(num_cpus=1, **small) for _ in range(2)]
ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
cluster.wait_for_nodes(30)
options = OPTIONS
states = []
for result in run(folder + "/in", folder + "/out", model=model, ray=cluster.address, **options):
    states.append(result.state)
    if len(states) == 2:
        cluster.remove_node(nodes[0], allow_graceful=False)
print(*states)
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_node_that_is_killed_costs_only_what_ran_there(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    for i in range(16):
        write_wav(tmp_path / "in" / f"{i:02}.wav", 20 + i % 5, i)
    model = talking_model(tmp_path)
    options = {**OPTIONS, "threads": 1, "side_by_side": 2, "output_format": ("txt", "json")}
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    code = _SCENE.replace("OPTIONS", repr(options))
    command = [sys.executable, "-c", code, str(tmp_path), model]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250, check=False)
    told = done.stdout.splitlines()  # Ray's own lines are among them
    assert " ".join(["done"] * 16) in told, (told[-9:], done.stderr[-2000:])
    store = JobStore(tmp_path / "out")
    assert len(store.results_after(0, 100)) == 16
    store.close()
    list(run_jobs(tmp_path / "in", tmp_path / "alone", model=model, **options))
    for path in (tmp_path / "alone").glob("[0-9]*.*"):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
