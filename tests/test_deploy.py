"""The Dockerfile and the systemd unit, held against the repository: what they copy, and the commands that they run."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from whisper.cli.serve import build_parser
from whisper.server.run import LAST_ANSWERS
from whisper.server.settings import ServeOptions

from .conftest import ROOT

DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
IGNORED = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text(encoding="utf-8")
UNIT = (ROOT / "deploy" / "sotto.service").read_text(encoding="utf-8")


def copied() -> list[str]:
    """What the image copies from the checkout."""
    lines = [line.split()[1:-1] for line in DOCKERFILE.splitlines() if line.startswith("COPY") and "--from" not in line]
    return [name for line in lines for name in line]


def test_what_the_image_copies_is_there() -> None:
    assert {"pyproject.toml", "hatch_build.py", "whisper", "constraints.txt"} <= set(copied())
    assert [name for name in copied() if not (ROOT / name).exists()] == []


def test_the_image_sees_what_it_copies_and_nothing_that_was_built_here() -> None:
    rules = [line for line in IGNORED.splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == set(copied())
    built = [line.strip("/") for line in (ROOT / ".gitignore").read_text().splitlines() if "native/src" in line]
    assert built
    assert {"**/__pycache__", *built} <= set(rules)


@pytest.mark.slow
def test_the_steps_of_the_image_outside_of_one(tmp_path: Path) -> None:
    """The wheel is made of what is copied alone, agrees with the constraints, and has the command."""
    pytest.importorskip("hatchling")
    source, site = tmp_path / "source", tmp_path / "site"
    source.mkdir()
    ignored = shutil.ignore_patterns("__pycache__", "kernels-*", ".build-*")
    for name in copied():
        whole = ROOT / name
        shutil.copytree(whole, source / name, ignore=ignored) if whole.is_dir() else shutil.copy(whole, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    steps = [
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(source)],
        [*pip, "install", "--no-deps", "--no-index", "--target", str(site), "--find-links", str(tmp_path), "sotto"],
        [sys.executable, "-m", "whisper", "serve", "--help"],
    ]
    for step in steps:
        environment = {**os.environ, "PYTHONPATH": str(site)}
        done = subprocess.run(step, capture_output=True, text=True, timeout=600, cwd=tmp_path, env=environment)
        assert done.returncode == 0, done.stderr
    assert "--wyoming_port" in done.stdout
    assert list((site / "whisper" / "runtime" / "native").rglob("kernels-*"))
    told = subprocess.run(
        [sys.executable, "-c", "import whisper; print(whisper.__file__)"], env=environment, cwd=tmp_path,
        capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert told.startswith(str(site))


def test_the_image_runs_a_command_that_exists_and_not_as_root() -> None:
    entry, command = (
        json.loads(re.findall(rf"^{word} (\[.*\])$", DOCKERFILE, re.M)[0]) for word in ("ENTRYPOINT", "CMD")
    )
    assert entry[:2] == ["whisper", "serve"]
    given = build_parser().parse_args(entry[2:] + command)
    assert (given.model, given.host) == (["base"], "0.0.0.0")
    assert f"EXPOSE {ServeOptions.port}" in DOCKERFILE
    assert f"127.0.0.1:{ServeOptions.port}/health" in DOCKERFILE
    assert DOCKERFILE.index("USER sotto") < DOCKERFILE.index("ENTRYPOINT")
    extras = re.findall(r"\.whl\)\[(.*?)\]", DOCKERFILE)[0].split(",")
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert all(re.search(rf"^{extra} = \[", project, re.M) for extra in extras)


def test_the_unit_runs_a_command_that_exists_and_waits_for_its_end() -> None:
    command = re.findall(r"^ExecStart=(.*)$", UNIT, re.M)[0].split()
    assert command[0].endswith("/bin/whisper")
    assert command[1] == "serve"
    build_parser().parse_args(command[2:])
    seconds = int(re.findall(r"^TimeoutStopSec=(\d+)$", UNIT, re.M)[0])
    assert seconds > ServeOptions().graceful_timeout_s + LAST_ANSWERS


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "sotto.service"
    unit.write_text(UNIT.replace("/opt/sotto/bin/whisper", "/bin/true"), encoding="utf-8")
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60)
    assert "sotto.service:" not in done.stderr, done.stderr
