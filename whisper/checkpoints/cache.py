"""The folder of downloaded models, and the small records that are kept in it, such as what was verified before."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ..files import atomic_write


def cache_folder() -> str:
    """Return the folder of downloaded models where none is named: that of openai-whisper."""
    return os.path.join(os.getenv("XDG_CACHE_HOME", os.path.join(os.path.expanduser("~"), ".cache")), "whisper")


def read_record(name: str) -> dict[str, Any]:
    """Return what `keep_record` wrote under a name; empty where there is nothing, or something else."""
    with suppress(OSError, ValueError), open(os.path.join(cache_folder(), name), encoding="utf-8") as file:
        content = json.load(file)
        if isinstance(content, dict):
            return content
    return {}


def keep_record(name: str, content: Mapping[str, Any]) -> None:
    """Write a record; where the folder cannot be written to, it is made again next time."""
    with suppress(OSError):
        os.makedirs(cache_folder(), exist_ok=True)
        with atomic_write(os.path.join(cache_folder(), name)) as file:
            file.write(json.dumps(content, indent=1).encode("utf-8"))
