"""Downloads a file: resumed if interrupted, verified by its checksum, and written atomically.

The last folder of the address is the SHA-256 of the contents, as in openai-whisper's, so a download is
checked by its contents, never by what a server reports. Knows nothing of models.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shutil
import socket
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import IO, Any

from ..errors import DownloadError
from ..files import atomic_write
from ..output.console import is_terminal, show
from ..version import __release__

RETRY_DELAYS = (0.5, 2.0, 5.0)  # seconds before the next attempt, counted from the last byte that arrived
TIMEOUT = 30.0  # seconds without a byte
_BLOCK = 1 << 20


class _BrokenError(Exception):
    """The connection ended early; another attempt may resume from here."""


def _download(url: str, root: str, in_memory: bool) -> bytes | str:
    """Return the path in `root` of the file behind `url`, or its contents if `in_memory`.

    A file that was verified once is not read again; two processes that want the same file load it once.

    Raises
    ------
    DownloadError
        Where the file cannot be had, or what arrived is not what the address promises.
    """
    expected = url.split("/")[-2]
    target = os.path.join(root, os.path.basename(url))
    try:
        os.makedirs(root, exist_ok=True)
        if os.path.exists(target) and not os.path.isfile(target):
            raise DownloadError(f"{target} exists and is not a regular file; move it away and load again")
        if not is_verified(target, expected):
            with _only_one_process(target):
                if not is_verified(target, expected):  # another process may have finished first
                    if os.path.isfile(target):
                        warnings.warn(
                            f"{target} exists, but its SHA-256 checksum does not match; downloading it again",
                            stacklevel=3,
                        )
                    _fetch(url, target, expected)
        if in_memory:
            with open(target, "rb") as file:
                return file.read()
    except OSError as error:
        raise DownloadError(
            f"{os.path.basename(url)} cannot be kept in {root} ({error}); "
            "make room or give another folder as download_root"
        ) from error
    return target


# ---------------------------------------------------------------------------------------------------------
# Verified once: a marker beside the file remembers which file it was
# ---------------------------------------------------------------------------------------------------------


def is_verified(target: str, expected: str) -> bool:
    """Whether a file has this SHA-256, which is computed once and remembered."""
    if not os.path.isfile(target):
        return False
    seen = _fingerprint(target, expected)
    with suppress(OSError, ValueError), open(_marker(target), encoding="utf-8") as file:
        if json.load(file) == seen:
            return True
    if digest_of([target]) != expected:
        return False
    _remember(target, seen)
    return True


def _fingerprint(target: str, sha256: str) -> dict[str, Any]:
    status = os.stat(target)
    return {"sha256": sha256, "size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _marker(target: str) -> str:
    return target + ".verified"


def _remember(target: str, fingerprint: dict[str, Any]) -> None:
    with suppress(OSError), atomic_write(_marker(target)) as file:  # a read-only folder is verified each time
        file.write(json.dumps(fingerprint).encode())


def digest_of(paths: Sequence[str]) -> str:
    """Return the SHA-256 of files that are read one behind the other."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            _feed(digest, file)
    return digest.hexdigest()


def _feed(digest: Any, file: IO[bytes]) -> None:
    while block := file.read(_BLOCK):
        digest.update(block)


@contextmanager
def _only_one_process(target: str) -> Iterator[None]:
    from filelock import FileLock, Timeout  # the operating system frees it when a process dies

    lock = FileLock(target + ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        show(f"waiting for another process that is downloading {os.path.basename(target)}", sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


# ---------------------------------------------------------------------------------------------------------
# The transfer
# ---------------------------------------------------------------------------------------------------------


@dataclass
class _Transfer:
    """The data received so far in the file `part`, and their running checksum."""

    url: str
    part: str
    size: int = 0
    total: int | None = None  # as stated by the server; only for the progress bar and to detect an early end
    digest: Any = field(default_factory=hashlib.sha256)

    def take_up(self) -> None:
        """Resume from the data of an earlier attempt."""
        self.restart()
        if os.path.isfile(self.part):
            self.size = os.path.getsize(self.part)
            with open(self.part, "rb") as file:
                _feed(self.digest, file)

    def restart(self) -> None:
        self.size, self.total, self.digest = 0, None, hashlib.sha256()


def _fetch(url: str, target: str, expected: str) -> None:
    # the checksum is in the name: what was begun for another file is never continued
    transfer = _Transfer(url, f"{target}.{expected[:8]}.part")
    transfer.take_up()
    begun = transfer.size
    _complete(transfer, target, expected)
    if transfer.digest.hexdigest() != expected and begun:
        _discard(transfer)  # the resumed data may be wrong: download everything again
        _complete(transfer, target, expected)
    if transfer.digest.hexdigest() != expected:
        arrived = transfer.size
        _discard(transfer)
        raise DownloadError(
            f"{url} gave a file of {arrived} bytes whose SHA-256 checksum does not match; "
            f"nothing was kept. {_way_out(url, target)}"
        )
    os.replace(transfer.part, target)
    _remember(target, _fingerprint(target, expected))


def _discard(transfer: _Transfer) -> None:
    with suppress(FileNotFoundError):
        os.remove(transfer.part)
    transfer.restart()


def _complete(transfer: _Transfer, target: str, expected: str) -> None:
    """Fill `transfer`, over as many connections as needed, until the server has no more data."""
    failures = 0
    while transfer.digest.hexdigest() != expected:
        before = transfer.size
        try:
            with _request(transfer, target) as response:
                _receive(response, transfer)
            return
        except _BrokenError as error:
            failures = 1 if transfer.size > before else failures + 1
            if transfer.digest.hexdigest() == expected:
                return  # all of it is here, whatever length was announced
            if failures > len(RETRY_DELAYS):
                raise DownloadError(
                    f"the connection to {_host(transfer.url)} keeps breaking ({error}) after {transfer.size} "
                    f"of {transfer.total or 'unknown'} bytes; load again to go on from there. "
                    f"{_way_out(transfer.url, target)}"
                ) from error
            time.sleep(RETRY_DELAYS[failures - 1])


def _request(transfer: _Transfer, target: str) -> Any:
    headers = {"User-Agent": f"sotto/{__release__}", "Accept-Encoding": "identity"}
    if transfer.size:
        headers["Range"] = f"bytes={transfer.size}-"
    request = urllib.request.Request(transfer.url, headers=headers)
    try:
        return urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and transfer.size:  # our beginning is longer than the file
            _discard(transfer)
            raise _BrokenError("the server has nothing after what is already here") from error
        if error.code >= 500 or error.code == 429:
            raise _BrokenError(f"HTTP {error.code} {error.reason}") from error
        raise DownloadError(
            f"{_host(transfer.url)} answers HTTP {error.code} {error.reason} for {transfer.url}. "
            f"{_way_out(transfer.url, target)}"
        ) from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, socket.gaierror):
            raise DownloadError(
                f"{_host(transfer.url)} cannot be found ({error.reason}): is this machine connected? "
                f"{_way_out(transfer.url, target)}"
            ) from error
        raise _BrokenError(str(error.reason)) from error
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenError(str(error) or type(error).__name__) from error


def _receive(response: Any, transfer: _Transfer) -> None:
    """Append the body of `response` to the part, or restart it if the server did not resume."""
    ranges = response.headers.get("Content-Range", "")
    continues = getattr(response, "status", None) == 206 and ranges.startswith(f"bytes {transfer.size}-")
    if transfer.size and not continues:
        transfer.restart()
    length = response.headers.get("Content-Length", "")
    transfer.total = transfer.size + int(length) if length.isdigit() else None
    _check_room(transfer)
    with open(transfer.part, "ab" if transfer.size else "wb") as file, _progress(transfer) as advance:
        while block := _read(response):
            file.write(block)
            transfer.digest.update(block)
            transfer.size += len(block)
            advance(len(block))
    if transfer.total is not None and transfer.size < transfer.total:
        raise _BrokenError("it ended early")


def _read(response: Any) -> bytes:
    try:
        block: bytes = response.read1(_BLOCK) if hasattr(response, "read1") else response.read(_BLOCK)
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenError(str(error) or type(error).__name__) from error
    return block


def _check_room(transfer: _Transfer) -> None:
    folder = os.path.dirname(transfer.part) or "."
    needed = (transfer.total or 0) - transfer.size
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(f"{needed} bytes are still to come and {free} are free")


@contextmanager
def _progress(transfer: _Transfer) -> Iterator[Any]:
    """Show a bar on a terminal, and one line elsewhere."""
    name = os.path.basename(transfer.url)
    if not is_terminal(sys.stderr):
        of = f"{transfer.total} bytes" if transfer.total else "unknown size"
        begun = f", going on after {transfer.size}" if transfer.size else ""
        show(f"downloading {name} ({of}{begun}) from {_host(transfer.url)}", sys.stderr)
        yield lambda _n: None
        return
    from tqdm import tqdm

    with tqdm(
        desc=name, initial=transfer.size, total=transfer.total,
        ncols=80, unit="iB", unit_scale=True, unit_divisor=1024,
    ) as bar:  # fmt: skip
        yield bar.update


def _host(url: str) -> str:
    return urllib.parse.urlsplit(url).hostname or url


def _way_out(url: str, target: str) -> str:
    return (
        f"You can put the file from {url} at {target} by hand, or install a model as a package: "
        "pip install 'sotto[base]' brings base"
    )
