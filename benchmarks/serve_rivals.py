"""The servers that benchmarks/serve.py measures: how each is started with the same weights, and what it is sent."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2 as httpx

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / ".venv-peers"
START = 120.0  # seconds that a server may take to load its model
WEIGHTS = (  # of which peer, where, in which format and precision
    ("whisper.cpp-server", "ggml.bin", "ggml", "q8_0"),
    ("speaches", "ct2", "ctranslate2", "int8"),
)
# Without speakers, whose packages are not installed, and with what it wants to find where it is started.
SPEACHES = """
import os, sys
from unittest.mock import MagicMock
audio = "pyannote.audio"
for name in ("torch", "pyannote", "pyannote.core", audio, f"{audio}.core", f"{audio}.core.pipeline",
             f"{audio}.pipelines", f"{audio}.pipelines.speaker_diarization"):
    sys.modules[name] = MagicMock()
os.makedirs("realtime-console/dist", exist_ok=True)
with open("model_aliases.json", "w") as file:
    file.write("{}")
import uvicorn
uvicorn.run("speaches.main:create_app", factory=True, port=int(sys.argv[1]), log_level="warning")
"""
CARD = "---\nlibrary_name: ctranslate2\npipeline_tag: automatic-speech-recognition\n---\n"


@dataclass(frozen=True)
class Contestant:
    """A server, and how it decodes here: greedy, or with five beams, which speaches does whatever it is told."""

    name: str
    peer: str = ""  # its environment under .venv-peers; ours runs in the present one
    path: str = "/v1/audio/transcriptions"
    fields: dict[str, str] = field(default_factory=dict)

    @property
    def is_there(self) -> bool:
        """Whether it can be started here."""
        return not self.peer or (PEERS / self.peer / "ready").exists()


ENGLISH = {"model": "whisper-1", "language": "en"}
CONTESTANTS = (
    Contestant("sotto", fields=ENGLISH),
    Contestant("whisper.cpp", "whisper.cpp-server", "/inference", {"language": "en", "response_format": "json"}),
    Contestant("sotto, 5 beams", fields={**ENGLISH, "beam_size": "5"}),
    Contestant("speaches, 5 beams", "speaches", fields={"model": "local/base", "language": "en"}),
)


def weights_of(model: str, contestants: list[Contestant], folder: Path) -> None:
    """Write the weights as the others read them, once: q8_0 for whisper.cpp, CTranslate2's for speaches."""
    import whisper
    from whisper.checkpoints.save import save_checkpoint

    peers = {one.peer for one in contestants}
    missing = [what for what in WEIGHTS if what[0] in peers and not (folder / what[1]).exists()]
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        loaded = whisper.load_model(model, device="cpu")
        for _, name, form, precision in missing:
            save_checkpoint(loaded, folder / name, format=form, precision=precision)


def hub_of(folder: Path) -> Path:
    """Lay CTranslate2's weights out as the Hugging Face hub's cache, in which speaches looks for ``local/base``."""
    repo = folder / "hub" / "models--local--base"
    snapshot = repo / "snapshots" / ("0" * 40)
    if not snapshot.exists():
        shutil.copytree(folder / "ct2", snapshot)
        (snapshot / "README.md").write_text(CARD, encoding="utf-8")
        (repo / "refs").mkdir()
        (repo / "blobs").mkdir()
        (repo / "refs" / "main").write_text("0" * 40, encoding="utf-8")
    return folder / "hub"


def command_of(one: Contestant, model: str, port: int, threads: int, folder: Path) -> tuple[list[str], dict[str, str]]:
    """Return the command line of a server, and what it needs in its environment."""
    home = PEERS / one.peer
    if one.peer == "whisper.cpp-server":
        found = [str(home / "bin" / "whisper-server"), "-m", str(folder / "ggml.bin"), "-t", str(threads)]
        return [*found, "--host", "127.0.0.1", "--port", str(port)], {}
    if one.peer == "speaches":
        settings = {
            "WHISPER__COMPUTE_TYPE": "int8", "WHISPER__CPU_THREADS": str(threads), "WHISPER__INFERENCE_DEVICE": "cpu",
            "STT_MODEL_TTL": "-1", "ENABLE_UI": "false", "LOG_LEVEL": "warning", "HF_HUB_CACHE": str(hub_of(folder)),
            "HF_HUB_OFFLINE": "1", "PYTHONPATH": "",
        }  # fmt: skip
        return [str(home / "bin" / "python"), "-c", SPEACHES, str(port)], settings
    flags = ["--model", model, "--port", str(port), "--threads", str(threads), "--max_queue", "128"]
    return [sys.executable, "-m", "whisper", "serve", *flags], {"PYTHONPATH": str(ROOT)}


@contextmanager
def serving(one: Contestant, model: str, threads: int, folder: Path) -> Iterator[str]:
    """Run a server on a free port until it is ready; gives its address."""
    port = free_port()
    command, settings = command_of(one, model, port, threads, folder)
    address = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryFile() as log, tempfile.TemporaryDirectory() as where:
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), **settings}
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=where)
        try:
            if not _is_ready(process, address + ("/health" if one.peer else "/ready")):
                log.seek(0)
                raise SystemExit(f"{one.name} did not start:\n{log.read().decode(errors='replace')[-3000:]}")
            yield address
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:  # it still works on what its clients have given up
                process.kill()
                process.wait()


def _is_ready(process: subprocess.Popen[bytes], url: str) -> bool:
    until = time.monotonic() + START
    while time.monotonic() < until and process.poll() is None:
        try:
            if httpx.get(url, timeout=5).status_code == 200:
                return True
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    return False


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def words_of(text: str) -> int:
    """Return how many words an answer has."""
    return len(re.findall(r"\w+", text))
