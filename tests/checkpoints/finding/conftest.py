"""A machine of its own: an empty home, in which programs keep small models under the names of published ones."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from tests.models import random_model
from whisper.checkpoints import load
from whisper.checkpoints.finding import find, names, packages
from whisper.checkpoints.save import save_checkpoint
from whisper.model import Whisper

VARIABLES = (
    "SOTTO_MODELS", "SOTTO_FIND", "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "BUZZ_MODEL_ROOT",
    "XDG_DATA_HOME",
)  # fmt: skip


class Home:
    """The home of a user."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cache = path / ".cache" / "whisper"

    def put(self, place: str, seed: int = 0, *, format: str = "pt", precision: str = "float16") -> Path:
        """Save a model at a path in the home."""
        path = self.path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        save_checkpoint(little(seed), path, format=format, precision=precision)
        return path

    def hub(self, repository: str, seed: int = 0, *, commit: str = "c0ffee", precision: str = "float16") -> Path:
        """Save a model in the layout of the hub's cache, as CTranslate2 has it."""
        folder = Path(".cache/huggingface/hub", "models--" + repository.replace("/", "--"))
        path = self.put(str(folder / "snapshots" / commit), seed, format="ctranslate2", precision=precision)
        (self.path / folder / "refs").mkdir(exist_ok=True)
        (self.path / folder / "refs" / "main").write_text(commit)
        return path


@functools.cache
def little(seed: int = 0) -> Whisper:
    """A model of the size that "base" has here."""
    return random_model(seed, n_state=16, n_head=1, n_audio_layer=1, n_text_layer=1)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """An empty home, where "base" is a little model, and no known package is installed."""
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ".cache"))
    monkeypatch.setitem(names._SIZES, "base", (16, 1, 1, 1))
    others = {name: heads for name, heads in load._ALIGNMENT_HEADS.items() if name != "base"}
    monkeypatch.setattr(load, "_ALIGNMENT_HEADS", others)  # a key taken out would come back at the table's end
    monkeypatch.setattr(packages, "_KNOWN", {})
    monkeypatch.setattr(find, "_told", set())
    return Home(tmp_path)
