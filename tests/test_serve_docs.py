"""The lines of docs/serve.md, run against a server."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from whisper.cli.main import build_parser
from whisper.options.types import facts
from whisper.server.settings import ServeOptions

from .conftest import ROOT
from .server.serving import listening, server, spoken

PAGE = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")
SAID = ["computer", "one", "two", "three", "smart", "mirror"]
BLOCKS = re.findall(r"```(sh|python|js)\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with listening(server()) as at:
        yield at


def run(command: list[str], address: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout


def lines(kind: str) -> list[str]:
    return [block for name, block in BLOCKS if name == kind]


def here(block: str, address: str) -> str:
    sample = str(ROOT / "examples" / "sample.flac")
    return block.replace("http://localhost:8000", address).replace("audio.mp3", sample)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("block", lines("sh"))
def test_curl(block: str, address: str) -> None:
    printed = run(["sh", "-c", here(block, address)], address)
    if "stream=true" in block:
        done = json.loads(printed.strip().split("\n\n")[-1].removeprefix("data: "))
        assert done["text"].split() == SAID
    elif "vtt" in block:
        assert printed.startswith("WEBVTT\n\n")
        assert "computer" in printed
    elif "client_secrets" in block:
        assert json.loads(printed)["value"].startswith("ek_")
    else:
        assert json.loads(printed)["text"].split() == SAID


@pytest.mark.peers
@pytest.mark.parametrize("block", lines("python"))
def test_python(block: str, address: str) -> None:
    pytest.importorskip("openai")
    printed = run([sys.executable, "-c", here(block, address)], address)
    words = [line.split()[-1] for line in printed.splitlines()] if "word.word" in block else printed.split()
    assert set(words) & set(SAID)


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
@pytest.mark.parametrize("block", [block for block in lines("js") if "WebSocket" in block])
def test_javascript_alone(block: str, address: str, tmp_path: Path) -> None:
    """With the `WebSocket` of node itself, which older versions only have on request."""
    (tmp_path / "audio.pcm").write_bytes(spoken().tobytes())
    version = int(run(["node", "--version"], address).strip("v\n").split(".")[0])
    flags = ["--experimental-websocket"] if version < 22 else []
    done = subprocess.run(["node", *flags, "--input-type=module", "-e", here(block, address)], cwd=tmp_path,
                          capture_output=True, text=True, timeout=100)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) & set(SAID)


@pytest.mark.peers
@pytest.mark.parametrize("block", [block for block in lines("js") if "WebSocket" not in block])
def test_javascript(block: str, address: str) -> None:
    """Needs node, and in SOTTO_NODE_MODULES the folder in which npm has put OpenAI's client."""
    node, folder = shutil.which("node"), os.environ.get("SOTTO_NODE_MODULES")
    if node is None or folder is None:
        pytest.skip("node, or SOTTO_NODE_MODULES, is missing")
    done = subprocess.run([node, "--input-type=module", "-e", here(block, address)], cwd=folder, capture_output=True,
                          text=True, timeout=100)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == SAID


def test_every_flag_on_the_page_exists() -> None:
    flags = set(re.findall(r"--([a-z_]{3,})", PAGE)) - {"model"}
    of_the_command = {"server", "server_key", "device", "threads", "report", "subtitle_preset"}
    assert flags <= set(ServeOptions.__dataclass_fields__) | of_the_command
    assert of_the_command <= set(vars(build_parser().parse_args(["a.wav"])))


def test_the_limits_on_the_page_are_the_defaults() -> None:
    defaults = {name: f.default for name, f in ServeOptions.__dataclass_fields__.items() if facts(f)}
    rows = dict(re.findall(r"`--(\w+)` \| (.*?) \|", PAGE))
    assert rows == {
        "max_upload_mb": f"{defaults['max_upload_mb']} MB",
        "max_audio_s": f"{defaults['max_audio_s'] // 3600} hours",
        "upload_timeout_s": f"{defaults['upload_timeout_s']} s",
        "max_sessions": str(defaults["max_sessions"]),
        "max_sessions_per_key": str(defaults["max_sessions_per_key"]),
        "max_session_s": f"{defaults['max_session_s']} s",
    }
