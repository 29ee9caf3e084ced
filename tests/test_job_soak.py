"""The soak of jobs: every recording, real or broken, ends once and as what it is, though the worker is killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import ROOT

MAX_GROWTH = 200  # megabytes per 1,000 recordings over the last two thirds: room for a heap that is still filling


def soak(*arguments: str) -> dict[str, object]:
    command = [sys.executable, str(ROOT / "benchmarks" / "job_soak.py"), *arguments]
    finds = {name: value for name, value in os.environ.items() if name != "SOTTO_FIND"}  # tiny.en, in a package
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=finds)
    assert done.stdout, done.stderr
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    assert found["wrong"] == []
    assert done.returncode == 0
    assert int(str(found["results"])) >= int(str(found["contents that are done"]))  # some grew when they were read
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_kind_of_recording_ends_as_what_it_is() -> None:
    found = soak("--n", "160", "--model", "nano", "--kill", "40")
    assert found["recordings"] == 160
    assert found["ends"] == {"audio": 8, "done": 150, "missing": 2}


@pytest.mark.exhaustive
@pytest.mark.timeout(7200)
def test_two_thousand_real_and_broken_recordings(shared_data: Path) -> None:
    folders = [str(shared_data / "dev" / name) for name in ("digits", "speechocean762", "commonvoice_en", "vctk")]
    found = soak(*folders, "--n", "2000", "--model", "tiny.en")
    assert found["in this run"] == 2000
    assert float(str(found["worker MB per 1,000"])) < MAX_GROWTH
