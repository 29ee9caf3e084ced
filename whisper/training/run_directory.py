"""The output folder of a training: its lock, and the settings that a resumed run must match.

A call with other settings is refused before a file is touched. File errors are translated into
`TrainingError`. Knows nothing of weights and steps.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import TrainingError, WhisperError
from ..files import atomic_write

OPTIONS, LOCK = "options.json", "training.lock"
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make `folder` and lock it for this process; temporary files of a killed one are removed.

    Folders that were made for a training that failed before it wrote anything are removed again.

    Raises
    ------
    TrainingError
        The folder cannot be written, or another process is training into it.
    """
    from filelock import FileLock, Timeout

    with translated_errors(folder):
        made = [one for one in (folder, *folder.parents) if not one.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise TrainingError(
                f"another process is training into {folder}: wait for it, or choose another output folder"
            ) from None
        try:
            for leftover in folder.glob("*.tmp"):  # incomplete checkpoints of a killed process
                leftover.unlink()
            yield
        except BaseException:  # whatever ended it, also Ctrl-C: an empty folder of ours does not stay
            lock.release()
            _remove_empty(made, folder / LOCK)
            raise
        finally:
            lock.release()


def _remove_empty(made: Iterable[Path], lock: Path) -> None:
    """Remove folders, the innermost first, in which nothing is but the lock."""
    with suppress(OSError):  # something is there, which is to stay
        for folder in made:
            if {*folder.iterdir()} <= {lock}:
                lock.unlink(missing_ok=True)
                folder.rmdir()


@contextmanager
def translated_errors(folder: Path) -> Iterator[None]:
    """Translate file errors into one that says what to do."""
    try:
        yield
    except (OSError, RuntimeError) as raised:
        error = _underlying_os_error(raised)
        if error is None:
            raise
        if error.errno in _DISK_FULL:
            raise TrainingError(
                f"no space left in {folder} ({error.strerror}): free some and repeat the command, which resumes from "
                "the last checkpoint"
            ) from error
        name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else str(folder)
        raise TrainingError(f"{name} cannot be used: {error.strerror or error}") from error


def _underlying_os_error(error: BaseException) -> OSError | None:
    """The OSError that caused `error`: torch raises an error of its own when the disk is full."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, WhisperError):
        if isinstance(cause, OSError):
            return cause
        cause = cause.__cause__ or cause.__context__
    return None


def digest(items: Iterable[object]) -> str:
    """A short digest of some content."""
    content = hashlib.sha256()
    for item in items:
        content.update(item if isinstance(item, bytes) else repr(item).encode())
    return content.hexdigest()[:16]


def check_resumable(
    folder: Path, settings: Mapping[str, Any], changeable: Collection[str], contents: Mapping[str, str]
) -> None:
    """Refuse to resume the training in `folder` with other settings.

    Parameters
    ----------
    folder
        Where `save_settings` has written, if a training has begun there.
    settings
        Options of the training, and digests of its data and weights.
    changeable
        Names of settings that may differ.
    contents
        Names of settings that are digests, each with a description of a differing content.

    Raises
    ------
    TrainingError
        A setting differs; the message has both values.
    """
    try:
        before = json.loads((folder / OPTIONS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    now = json.loads(json.dumps(settings))
    for name in now:
        if name in changeable or name not in before or before[name] == now[name]:
            continue
        if name in contents and before[name] is None:  # there was none before, so nothing changes
            continue
        if name in contents:
            raise TrainingError(
                f"{folder} holds a training with {contents[name]}: resume it with the same content, or choose another "
                "output folder to start anew"
            )
        raise TrainingError(
            f"{folder} holds a training with {name}={before[name]!r}, and now it is {now[name]!r}: resume with the "
            "old value, or choose another output folder to start anew"
        )


def save_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings that `check_resumable` compares."""
    with atomic_write(folder / OPTIONS) as file:
        file.write(json.dumps(settings, indent=1, ensure_ascii=False).encode())
