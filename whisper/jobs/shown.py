"""The page that shows a job: at which address a server has it in its library, and what a recording is called there."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from ..files import atomic_write
from .inputs import OWN_FOLDER

_FILE = "page.json"
_ANSWERS_WITHIN = 0.5  # seconds


def recording_id(out: str | os.PathLike[str], source: str) -> str:
    """Return what a recording of a job is called in a library: the same in every one."""
    told = b"\0".join((os.fsencode(os.path.realpath(out)), os.fsencode(source)))
    return f"rec_{hashlib.sha256(told).hexdigest()[:32]}"


def announce(out: str | os.PathLike[str], url: str) -> None:
    """Note in the folder of a job that the page at an address shows it; nothing happens where it cannot be written."""
    with suppress(OSError), atomic_write(_path(out), encoding="utf-8") as file:
        json.dump({"url": url}, file)


def withdraw(out: str | os.PathLike[str], url: str) -> None:
    """Take the note back, where it is still this page's."""
    if _noted(out) == url:
        with suppress(OSError):
            _path(out).unlink()


def page_of(out: str | os.PathLike[str]) -> str | None:
    """Return the address of the page that shows a job; None where there is none that answers."""
    if (url := _noted(out)) is None:
        return None
    where = urlsplit(url)
    try:
        with socket.create_connection((where.hostname or "", where.port or 443), _ANSWERS_WITHIN):
            return url
    except (OSError, ValueError):
        return None


def address(page: str, out: str | os.PathLike[str], source: str, seconds: float) -> str:
    """Return the address at which a page opens a recording of a job at a time."""
    return f"{page}/#/r/{recording_id(out, source)}?t={seconds:.2f}"


def _noted(out: str | os.PathLike[str]) -> str | None:
    try:
        url = json.loads(_path(out).read_text(encoding="utf-8"))["url"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return url if isinstance(url, str) else None


def _path(out: str | os.PathLike[str]) -> Path:
    return Path(out, OWN_FOLDER, _FILE)
