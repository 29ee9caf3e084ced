"""The Dockerfile and the systemd unit, held against the repository: what they copy, and the commands that they run."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from whisper.cli.serve import build_parser
from whisper.server.run import LAST_ANSWERS
from whisper.server.settings import ServeOptions

from .conftest import ROOT

DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
UNIT = (ROOT / "deploy" / "sotto.service").read_text(encoding="utf-8")


def test_what_the_image_copies_is_there() -> None:
    copied = [
        line.split()[1:-1] for line in DOCKERFILE.splitlines() if line.startswith("COPY") and "--from" not in line
    ]
    names = [name for line in copied for name in line]
    assert {"pyproject.toml", "hatch_build.py", "whisper", "constraints.txt"} <= set(names)
    assert [name for name in names if not (ROOT / name).exists()] == []


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
