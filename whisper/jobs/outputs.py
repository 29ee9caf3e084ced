"""The files of a job: kept results, by content and recipe, and what is written of them for the user.

Each file is written elsewhere on the same disk, brought to it, and put in place by a rename; only then may it be
called done. Further formats are written from kept results.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import ResultError, WhisperError
from ..files import atomic_write
from ..output.writers import get_writer
from ..subtitles.formats.names import EXTENSIONS
from .inputs import OWN_FOLDER

_STAGING = "staging"
# errors of the place, and not of one file: nothing else can be written there, either
_PLACE_LOST = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ESTALE, errno.ENODEV, errno.ENXIO,
               errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EMFILE, errno.ENFILE)  # fmt: skip


class PlaceLostError(WhisperError, OSError):
    """Nothing more can be written: the disk is full, read-only or gone. The run ends, and the same command goes on."""


class Outputs:
    """Where the files of a job are written.

    Parameters
    ----------
    out
        The folder of the job, which exists.
    formats
        Names of the formats that are written of each recording.
    layout, contents
        What writers take beside a result: keywords, and the dictionary of options (see `output.writers`).
    min_free
        Bytes that stay free.
    is_translation
        Whether results are translations, which are laid out as English.
    """

    def __init__(
        self,
        out: str | os.PathLike[str],
        formats: Sequence[str],
        layout: Mapping[str, Any] | None = None,
        contents: Mapping[str, Any] | None = None,
        min_free: float = 0.0,
        is_translation: bool = False,
    ) -> None:
        self.out, self.formats, self.min_free = os.fspath(out), tuple(formats), min_free
        self.layout, self.contents, self.is_translation = dict(layout or {}), dict(contents or {}), is_translation
        told = json.dumps([self.layout, self.contents], sort_keys=True, default=str)
        self.layout_digest = hashlib.sha256(told.encode()).hexdigest()[:16]

    @property
    def endings(self) -> tuple[str, ...]:
        """Return the endings of the files of a recording."""
        return tuple(EXTENSIONS[name] for name in self.formats)

    def check_space(self) -> None:
        """Raise `PlaceLostError` where less is free on the disk than should stay so."""
        with suppress(AttributeError):  # Windows has no statvfs
            found = os.statvfs(self.out)
            free = found.f_bavail * found.f_frsize
            if free < self.min_free:
                told = (
                    f"{free / 1e9:.2f} GB are free on the disk of {self.out}, and {self.min_free / 1e9:g} GB stay free"
                )
                told += " (--min_free_space): make room, and give the same command again"
                raise PlaceLostError(errno.ENOSPC, told)

    def keep(self, content: str, recipe: str, result: Mapping[str, Any]) -> str:
        """Write a result as gzipped JSON; returns its name below the job's own folder.

        Raises
        ------
        PlaceLostError
            It cannot be written.
        """
        name = kept_name(content, recipe)
        path = os.path.join(self.out, OWN_FOLDER, name)
        data = gzip.compress(json.dumps(result, ensure_ascii=False).encode("utf-8", "surrogatepass"), 6, mtime=0)
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with atomic_write(path) as file:
                file.write(data)
            sync_folder(os.path.dirname(path))
        except OSError as error:
            raise _lost(error, path) from error
        return name

    def write(self, name: str, transcript: Mapping[str, Any]) -> dict[str, int]:
        """Write the files of a recording; returns their sizes by ending.

        Raises
        ------
        PlaceLostError
            Nothing can be written there any more.
        OSError, ResultError
            These files cannot be written, and others may.
        """
        stem = os.path.join(self.out, name)
        sizes = {}
        try:
            os.makedirs(os.path.dirname(stem), exist_ok=True)
            with self._staging() as folder:
                for format_name, ending in zip(self.formats, self.endings, strict=True):
                    staged = os.path.join(folder, f"{os.path.basename(stem)}.{ending}")
                    write = get_writer(format_name, folder, is_translation=self.is_translation)
                    # the writer takes off an extension
                    write(dict(transcript), os.path.basename(stem) + ".", self.contents, **self.layout)
                    sizes[ending] = sync_file(staged)
                    os.replace(staged, f"{stem}.{ending}")
            if sizes:
                sync_folder(os.path.dirname(stem))
        except OSError as error:
            if error.errno in _PLACE_LOST or not os.path.isdir(self.out):
                raise _lost(error, stem) from error
            raise
        except (AttributeError, TypeError, ValueError, LookupError, ArithmeticError) as error:
            if isinstance(error, WhisperError):
                raise
            raise ResultError(f"{stem}.* cannot be written ({type(error).__name__}: {error})") from error
        return sizes

    def remove_unfinished(self) -> None:
        """Remove what a runner left that was killed while it wrote; call it while no other runs."""
        own = Path(self.out, OWN_FOLDER)
        shutil.rmtree(own / _STAGING, ignore_errors=True)
        for path in (own / "results").rglob(".whisper-*.tmp"):
            with suppress(OSError):
                path.unlink()

    @contextmanager
    def _staging(self) -> Iterator[str]:
        """Give a folder of its own, on the disk of the outputs; nothing of it stays."""
        parent = os.path.join(self.out, OWN_FOLDER, _STAGING)
        os.makedirs(parent, exist_ok=True)
        folder = tempfile.mkdtemp(dir=parent)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def kept_name(content: str, recipe: str) -> str:
    """Return where the result of a content by a recipe is kept, below the job's own folder."""
    return "/".join(("results", content[:2], f"{content[:40]}-{recipe}.json.gz"))


def read_result(out: str | os.PathLike[str], file: str) -> dict[str, Any] | None:
    """Return a kept result; None where its file is lost or damaged."""
    try:
        data = gzip.decompress(Path(out, OWN_FOLDER, file).read_bytes())
        result = json.loads(data.decode("utf-8", "surrogatepass"))
    except (OSError, ValueError, EOFError, gzip.zlib.error):  # type: ignore[attr-defined]
        return None
    return result if isinstance(result, dict) and "transcript" in result else None


def sync_file(path: str) -> int:
    """Bring a file to the disk; returns its size."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_size


def sync_folder(folder: str) -> None:
    """Bring the names in a folder to the disk, so that a rename outlives a power failure; POSIX systems alone can."""
    if os.name != "posix":
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network drives refuse it, and cannot do better
            os.fsync(opened)
    finally:
        os.close(opened)


def _lost(error: OSError, path: str) -> PlaceLostError:
    return PlaceLostError(
        error.errno, f"{path} cannot be written: {error.strerror or error}; mend that, and give the same command again"
    )
