"""Which files a model is read from, and what tells that they are still the same: their stamps, without reading them.

Packed weights are kept on disk under this identity. A file that is written, replaced or moved has another stamp.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

JUST_NOW = 0.02  # seconds: two changes within one tick of a file system's clock have the same time stamp
MOST_FILES = 100  # of a folder; one with more is nobody's model
DESCRIBING = (".json", ".txt")  # files that are read beside one of weights


@dataclass(frozen=True)
class Origin:
    """Which checkpoint tensors come from, where they are all that was read of it, unchanged."""

    identity: str = ""  # see `identity_of`
    about: Mapping[str, Any] = field(default_factory=dict)  # what to say of the model beside what was packed of it


def origin_of(tensors: object) -> Origin:
    """Return where the tensors of a model come from, as far as it is known."""
    origin = getattr(tensors, "origin", None)
    return origin if isinstance(origin, Origin) else Origin()


def identity_of(paths: Sequence[str], name: str) -> str:
    """Return the identity of a checkpoint; empty where its files cannot be told.

    Parameters
    ----------
    paths
        Its file, its folder, or the parts of its file.
    name
        By which it was asked for: a published model's gives it alignment heads.
    """
    try:
        stamps = [_stamp(file) for path in paths for file in _files(path)]
    except OSError:
        return ""
    if not 0 < len(stamps) <= MOST_FILES:
        return ""
    content = json.dumps([os.fspath(name), stamps])
    return hashlib.sha256(content.encode("utf-8", "surrogateescape")).hexdigest()


def _files(path: str) -> list[str]:
    """Return the files of a folder, or a file with what describes it."""
    if os.path.isdir(path):
        return _files_in(path)
    folder = os.path.dirname(path) or os.curdir
    if not os.path.isfile(os.path.join(folder, "config.json")):
        return [path]
    return [path, *(file for file in _files_in(folder) if file.endswith(DESCRIBING))]


def _files_in(folder: str) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.path for entry in entries if entry.is_file())


def _stamp(path: str) -> tuple[str | int, ...]:
    now = os.stat(path)
    return os.path.realpath(path), now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns
