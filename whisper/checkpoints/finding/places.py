"""The folders of this machine in which programs keep Whisper models, and what lies there under the name of one.

No folder is listed but the snapshots of a repository: whatever is looked for has a name, so that a folder of a million
files costs no more than an empty one. Folders that are missing or may not be read hold nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice

from . import names

VARIABLE = "SOTTO_MODELS"
HUB = "Hugging Face's cache"
_MOST_SNAPSHOTS = 16

Places = list[tuple[str, str]]  # whose it is, and the folder


def in_named_folders(name: str) -> Iterator[tuple[str, str]]:
    """Find a model in the folders of ``$SOTTO_MODELS``: whose it is, and the file or folder.

    Each may hold models, be one, or have the layout of the hub's cache.
    """
    wanted = names.file_names(name)
    for folder in filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)):
        folder = os.path.expanduser(folder)
        if os.path.basename(os.path.normpath(folder)) in wanted and os.path.exists(folder):
            yield f"${VARIABLE}", folder
        yield from _in_folder(f"${VARIABLE}", folder, wanted)
        yield from _in_hub(f"${VARIABLE}", folder, name)


def in_hub_caches(name: str) -> Iterator[tuple[str, str]]:
    """Find a model in the caches of Hugging Face's programs."""
    for folder in hub_caches():
        yield from _in_hub(HUB, folder, name)


def in_other_programs(name: str) -> Iterator[tuple[str, str]]:
    """Find a model in the folders of other programs that transcribe."""
    wanted = names.file_names(name)
    for whose, folder in _other_programs():
        yield from _in_folder(whose, folder, wanted)
        yield from _in_hub(whose, folder, name)


def hub_caches() -> list[str]:
    """Return the folders of the hub's cache, as its own client chooses among them."""
    cache = os.environ.get("XDG_CACHE_HOME", os.path.join(os.path.expanduser("~"), ".cache"))
    home = os.environ.get("HF_HOME", os.path.join(cache, "huggingface"))
    chosen = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or os.path.join(home, "hub")
    return [os.path.expanduser(os.path.expandvars(chosen))]


def _in_folder(whose: str, folder: str, wanted: Iterable[str]) -> Iterator[tuple[str, str]]:
    if os.path.isdir(folder):
        for file in wanted:
            if os.path.exists(path := os.path.join(folder, file)):
                yield whose, path


def _in_hub(whose: str, hub: str, name: str) -> Iterator[tuple[str, str]]:
    if not os.path.isdir(hub):
        return
    for repository, file in [*names.repositories(name), *names.quantized_repositories(name)]:
        folder = os.path.join(hub, "models--" + repository.replace("/", "--"))
        for snapshot in _snapshots(folder):
            path = os.path.join(snapshot, file) if file else snapshot
            if os.path.exists(path):
                yield whose, path


def _snapshots(repository: str) -> list[str]:
    """Return the folders of a repository's snapshots, the one that "main" stands for first."""
    found: list[str] = []
    folder = os.path.join(repository, "snapshots")
    if not os.path.isdir(folder):
        return found
    with suppress(OSError, ValueError), open(os.path.join(repository, "refs", "main"), encoding="ascii") as file:
        commit = file.read(64).strip()
        if commit == os.path.basename(commit) and os.path.isdir(os.path.join(folder, commit)):
            found.append(os.path.join(folder, commit))
    with suppress(OSError), os.scandir(folder) as entries:
        found += [e.path for e in islice(entries, _MOST_SNAPSHOTS) if e.path not in found and e.is_dir()]
    return found


def _other_programs() -> Places:
    """Return whose folders there are, as these programs choose them by default."""
    home = os.path.expanduser("~")
    data, cache = _system_folders(home)
    buzz = os.path.join(cache, *(("Buzz", "Buzz", "Cache") if os.name == "nt" else ("Buzz",)), "models")
    buzz = os.environ.get("BUZZ_MODEL_ROOT", buzz)
    places = [
        ("whisper.cpp", os.path.join(home, "whisper.cpp", "models")),
        ("pywhispercpp", os.path.join(data, "pywhispercpp", "models")),
        ("Buzz", os.path.join(buzz, "whisper")),
        ("Buzz", buzz),
        ("Handy", os.path.join(data, "com.pais.handy", "models")),
        ("Vibe", os.path.join(data, "github.com.thewh1teagle.vibe")),
    ]
    if os.name == "nt":
        places.append(("Subtitle Edit", os.path.join(data, "Subtitle Edit", "Whisper", "Cpp", "Models")))
    return places


def _system_folders(home: str) -> tuple[str, str]:
    """Return where programs of this system keep data, and what can be had again."""
    if os.name == "nt":
        roaming = os.environ.get("APPDATA", os.path.join(home, "AppData", "Roaming"))
        return roaming, os.environ.get("LOCALAPPDATA", os.path.join(home, "AppData", "Local"))
    if sys.platform == "darwin":
        return os.path.join(home, "Library", "Application Support"), os.path.join(home, "Library", "Caches")
    data = os.environ.get("XDG_DATA_HOME", os.path.join(home, ".local", "share"))
    return data, os.environ.get("XDG_CACHE_HOME", os.path.join(home, ".cache"))
