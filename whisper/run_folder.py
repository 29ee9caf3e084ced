"""The folder of a training: one process at a time, one training only, and what that training was made of.

A call that differs in anything that counts is refused before a file is touched. Errors of the disk become ours, in
words. Knows nothing of weights and steps.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .download import written_whole
from .errors import TrainingError, WhisperError

OPTIONS, LOCK = "options.json", "training.lock"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Make `folder` and keep it for this process; leaves of a killed one are taken away.

    Raises
    ------
    TrainingError
        It cannot be written, or another process is training into it.
    """
    from filelock import FileLock, Timeout

    with in_words(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise TrainingError(
                f"another process is training into {folder}: wait for it, or choose another output folder"
            ) from None
        try:
            for leftover in folder.glob("*.tmp"):  # half a checkpoint of a process that was killed
                leftover.unlink()
            yield
        finally:
            lock.release()


@contextmanager
def in_words(folder: Path) -> Iterator[None]:
    """Turn errors of files into one that says what to do."""
    try:
        yield
    except (OSError, RuntimeError) as raised:
        error = _of_the_disk(raised)
        if error is None:
            raise
        if error.errno in _FULL:
            raise TrainingError(
                f"there is no room left in {folder} ({error.strerror}): free some and give the same command, which "
                "continues from the last checkpoint"
            ) from error
        name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else str(folder)
        raise TrainingError(f"{name} cannot be used: {error.strerror or error}") from error


def _of_the_disk(error: BaseException) -> OSError | None:
    """The error of a file behind `error`: torch answers a disk that is full by an error of its own."""
    behind: BaseException | None = error
    while behind is not None and not isinstance(behind, WhisperError):
        if isinstance(behind, OSError):
            return behind
        behind = behind.__cause__ or behind.__context__
    return None


def digest(items: Iterable[object]) -> str:
    """A short name for a content."""
    found = hashlib.sha256()
    for item in items:
        found.update(item if isinstance(item, bytes) else repr(item).encode())
    return found.hexdigest()[:16]


def check(folder: Path, told: Mapping[str, Any], loose: Collection[str], contents: Mapping[str, str]) -> None:
    """Refuse what is not the training that `folder` remembers.

    Parameters
    ----------
    folder
        Where `remember` has written, or nothing is.
    told
        Everything that makes the training.
    loose
        Names that may differ.
    contents
        Digests by name, each with what it is of, in words.

    Raises
    ------
    TrainingError
        With what was and what is.
    """
    try:
        before = json.loads((folder / OPTIONS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    now = json.loads(json.dumps(told))
    for name in now:
        if name in loose or name not in before or before[name] == now[name]:
            continue
        if name in contents and before[name] is None:  # there was none of it, and what is new takes nothing away
            continue
        if name in contents:
            raise TrainingError(
                f"{folder} holds a training with {contents[name]}: give what it began with to continue it, or "
                "choose another output folder to begin anew"
            )
        raise TrainingError(
            f"{folder} holds a training with {name}={before[name]!r}, and now it is {now[name]!r}: continue with the "
            "old value, or choose another output folder to begin anew"
        )


def remember(folder: Path, told: Mapping[str, Any]) -> None:
    """Keep for `check` what makes the training."""
    with written_whole(folder / OPTIONS) as file:
        file.write(json.dumps(told, indent=1, ensure_ascii=False).encode())
