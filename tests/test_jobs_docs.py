"""The commands of docs/jobs.md and docs/cluster.md mean something, and the simulation keeps what it promises."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys

import pytest

from whisper.cli import jobs, search

from .conftest import ROOT

PAGES = [ROOT / "docs" / name for name in ("jobs.md", "cluster.md")]
COMMANDS = [
    line for page in PAGES for line in re.findall(r"^whisper (?:jobs|search) .*$", page.read_text(), re.MULTILINE)
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_pages_is_understood(command: str) -> None:
    _, name, *arguments = shlex.split(command)
    parser = jobs.build_parser() if name == "jobs" else search.build_parser()
    parser.parse_args(arguments)


def test_there_are_commands() -> None:
    assert len(COMMANDS) >= 11


def test_the_options_that_the_pages_name_exist() -> None:
    known = {flag for action in jobs._add_run(_subparsers())._actions for flag in action.option_strings}
    known |= {"--rows", "--speaker", "--after", "--state", "--kind", "--job_folders"}
    named = {flag for page in PAGES for flag in re.findall(r"(?<![\w-])--\w+", page.read_text())}
    assert named <= known


def _subparsers() -> object:
    import argparse

    from whisper.cli.common import Parser

    return argparse.ArgumentParser().add_subparsers(parser_class=Parser)


def test_the_simulation_checks_what_the_scheduler_promises() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "cluster.py"), "--recordings", "10000", "--gpus", "24"]
    command += ["--mtbf", "0.05", "--poison", "0.003"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["machines that died"] > 0
    assert told["workers that crashed"] > told["failed"] > 10
