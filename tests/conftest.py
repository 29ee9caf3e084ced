"""What all tests share: the recordings beside the checkout and the original in its own environment.

Both may be missing; a test that needs them skips and says so.
"""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings

from whisper.runtime.native import kernels
from whisper.transcription.backends import EngineBackend

ROOT = Path(__file__).resolve().parent.parent

Original = Callable[..., Any]

# what lies on the machine is no part of a test, but of those which ask for it
os.environ["SOTTO_FIND"] = "0"
os.environ["SOTTO_PACKED"] = "0"
# a change is judged by the same examples as the one before it; --hypothesis-profile default draws new ones
settings.register_profile("same", derandomize=True)
settings.load_profile("same")
# the models of the tests are tiny: threads would only wait for each other
torch.set_num_threads(1)


def is_same(found: Any, expected: Any) -> bool:
    """Whether results are equal: to the last bit from the compiled kernels, else to what batches of torch let waver."""
    if kernels.load() is not None:
        return bool(found == expected)
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(is_same(found[key], expected[key]) for key in expected)
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(is_same, found, expected))
    return bool(found == (pytest.approx(expected, abs=1e-4) if isinstance(expected, float) else expected))


def run_python(code: str, *arguments: str) -> str:
    """Run `code` in a process of its own and return what it prints; fails with its traceback."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout


def pytest_configure() -> None:
    """Compile the kernels of this checkout where nobody has, and let Ctrl-C work in the tests of it.

    The tests import the checkout, whose kernels an installation elsewhere does not build; without a compiler those that
    need them skip. A shell that runs the tests in the background has Ctrl-C ignored, for their children, too.
    """
    if (
        not list((ROOT / "whisper" / "runtime" / "native" / "src").glob("kernels-*"))
        and os.environ.get("SOTTO_KERNELS") != "off"
    ):
        subprocess.run([sys.executable, "-m", "whisper.runtime.native"], cwd=ROOT, capture_output=True, check=False)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real recordings; set SOTTO_SHARED_DATA where it is not beside the checkout."""
    folder = Path(os.environ.get("SOTTO_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "dev" / "manifest.tsv").is_file():
        pytest.skip(f"the real recordings are not here ({folder}); set SOTTO_SHARED_DATA")
    return folder


def read_rows(folder: Path) -> list[dict[str, str]]:
    """The rows of ``folder/manifest.tsv`` as they are, each with its ``path``."""
    with open(folder / "manifest.tsv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [{**row, "path": str(folder / row["file"])} for row in rows]


@pytest.fixture(scope="session")
def dev_recordings(shared_data: Path) -> list[dict[str, str]]:
    """The rows of ``dev/manifest.tsv``, each with its ``path``."""
    return read_rows(shared_data / "dev")


@pytest.fixture(scope="session")
def original() -> Original:
    """Call ``original(code, tmp_path, **arguments)``: runs Python `code` where openai-whisper is installed.

    See `peer`; SOTTO_PEER names another Python that has openai-whisper.
    """
    return _caller("openai-whisper", os.environ.get("SOTTO_PEER"))


@pytest.fixture(scope="session")
def peer() -> Callable[[str], Original]:
    """Call ``peer(name)(code, tmp_path, **arguments)``: runs Python `code` in the environment of another program.

    The code finds its arguments in ``arguments`` and leaves its answer, fit for JSON, in ``answer``.
    `scripts/peers` makes the environments.
    """
    return _caller


def _caller(name: str, python: str | None = None) -> Original:
    python = python or str(ROOT / ".venv-peers" / name / "bin" / "python")
    if not Path(python).exists():
        pytest.skip(f"{name} has no environment here ({python}); run scripts/peers {name}")
    driver = (
        "import json, sys\n"
        "job = json.load(sys.stdin)\n"
        "space = {'arguments': job['arguments']}\n"
        "exec(compile(job['code'], 'peer', 'exec'), space)\n"
        "json.dump(space['answer'], open(sys.argv[1], 'w'))\n"
    )

    def run(code: str, tmp_path: Path, timeout: float = 600, **arguments: Any) -> Any:
        out = tmp_path / "answer.json"
        job = json.dumps({"code": code, "arguments": arguments})
        done = subprocess.run(
            [python, "-W", "ignore", "-c", driver, str(out)],
            input=job, text=True, capture_output=True, timeout=timeout, cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-4000:]
        return json.loads(out.read_text())

    return run


@pytest.fixture(scope="session")
def real_base() -> list[str]:
    """Paths of Whisper base, by OpenAI: in SOTTO_TEST_BASE, of any format, several parted as in PATH."""
    paths = [path for path in os.environ.get("SOTTO_TEST_BASE", "").split(os.pathsep) if path]
    if not paths:
        pytest.skip("the weights of Whisper base are not here; set SOTTO_TEST_BASE to their path")
    return paths


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The frames of each window that an engine encodes from now on."""
    frames: list[int] = []
    encode = EngineBackend.encode

    def spy(self: Any, mel: Any) -> Any:
        frames.append(mel.shape[-1])
        return encode(self, mel)

    monkeypatch.setattr(EngineBackend, "encode", spy)
    return frames


# -- the page in a browser: see tests/browsers.py, which skips where there is none --------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium."""
    from .browsers import chromium

    with chromium() as started:
        yield started


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """The address of a server that keeps a library."""
    from .server.library.keeping import keeping
    from .server.serving import listening

    with listening(keeping(tmp_path)) as at:
        yield at.replace("127.0.0.1", "localhost")


@pytest.fixture
def context(browser: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A user of the browser, who leaves before the server ends."""
    if "address" in request.fixturenames:
        request.getfixturevalue("address")
    from .browsers import user

    with user(browser) as made:
        yield made
