"""Recordings that fsspec opens: object stores, archives, web servers; each is copied to a temporary file to be read.

An object's version (its ETag, checksum or time) stands for the time of a file. Needs the extra ``remote``.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import MissingDependencyError, OptionError
from ..media.spool import temporary_folder
from .content import Stamp

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+(::[A-Za-z][A-Za-z0-9+.\-]+)*://")
_PIECE = 1 << 22


def is_address(name: str) -> bool:
    """Whether a name is an address such as ``s3://bucket/file`` or ``zip://*.mp3::archive.zip``, and no path."""
    return bool(_ADDRESS.match(name)) and not os.path.exists(name)


def beside(address: str, relative: str) -> str:
    """Return the address of what lies at a path relative to the folder of an address."""
    scheme, _, path = address.rpartition("://")
    return f"{scheme}://{posixpath.normpath(posixpath.join(posixpath.dirname(path), relative.replace(os.sep, '/')))}"


def below(address: str, other: str) -> str | None:
    """Return the path of an address below the folder of another one; None where it lies elsewhere."""
    folder = other.rpartition("/")[0] + "/"
    return address.removeprefix(folder) if address.startswith(folder) else None


def _opened(address: str) -> tuple[Any, str]:
    """Return the file system of an address, and the path in it."""
    try:
        import fsspec
    except ImportError as error:
        raise MissingDependencyError(f"{address} needs the package fsspec", "remote") from error
    try:
        file_system, path = fsspec.core.url_to_fs(address)
    except ImportError as error:
        raise MissingDependencyError(f"{address} cannot be opened ({error})") from error
    except Exception as error:  # each file system has errors of its own
        raise OptionError(f"{address} cannot be opened: {type(error).__name__}: {error}") from error
    return file_system, path


def find(address: str, suffixes: Collection[str]) -> Iterator[tuple[str, str, Stamp | None]]:
    """Find recordings at an address: one, all below a folder, or those that fit a glob.

    Yields
    ------
    address, name below the folder, stamp
        The stamp is None where nothing is there.
    """
    file_system, path = _opened(address)
    try:
        if any(c in path for c in "*?["):
            root, found = path[: re.search(r"[*?\[]", path).start()].rpartition("/")[0], file_system.glob(path)  # type: ignore[union-attr]
        elif file_system.isdir(path):
            root, found = path, file_system.find(path)
        else:
            yield address, path.rpartition("/")[2], _stamp(file_system, path)
            return
        for one in sorted(found):
            if os.path.splitext(one)[1].lower() in suffixes:
                relative = one[len(root) :].lstrip("/") if one.startswith(root) else one.rpartition("/")[2]
                yield _address(file_system, address, one), relative, _stamp(file_system, one)
    except (OptionError, MissingDependencyError):
        raise
    except Exception as error:  # each file system has errors of its own
        raise OptionError(f"{address} cannot be listed: {type(error).__name__}: {error}") from error


def _address(file_system: Any, given: str, path: str) -> str:
    """Return the address of a path that was found; what is chained behind ``::`` stays."""
    first, *rest = given.split("::")
    plain = path if "://" in path else f"{first.split('://')[0]}://{path.lstrip('/') if rest else path}"
    return "::".join([plain, *rest])


def _stamp(file_system: Any, path: str) -> Stamp | None:
    try:
        details = file_system.info(path)
    except FileNotFoundError:
        return None
    known = [str(details[name]) for name in ("ETag", "etag", "md5", "md5Hash", "checksum", "mtime", "LastModified",
             "last_modified", "created", "CRC") if details.get(name) is not None]  # fmt: skip
    size = details.get("size")
    return Stamp(-1 if size is None else int(size), hashlib.sha256("\n".join(known).encode()).hexdigest()[:16])


@contextmanager
def fetched(address: str) -> Iterator[tuple[str, Stamp]]:
    """Copy an object to a temporary file, and give its path and what its stamp was before and is afterwards.

    Raises
    ------
    FileNotFoundError
        It is not there.
    OSError
        It cannot be read, or not to its end.
    """
    file_system, path = _opened(address)
    before = _stamp(file_system, path)
    if before is None:
        raise FileNotFoundError(2, "there is nothing", address)
    number, copy = tempfile.mkstemp(prefix="sotto-", suffix=os.path.splitext(path)[1], dir=temporary_folder())
    try:
        with os.fdopen(number, "wb") as file:
            try:
                with file_system.open(path, "rb") as source:
                    while piece := source.read(_PIECE):
                        file.write(piece)
            except OSError:
                raise
            except Exception as error:  # each file system has errors of its own
                raise OSError(f"{address}: {type(error).__name__}: {error}") from error
        yield copy, before
    finally:
        os.remove(copy)


def stamp_of(address: str) -> Stamp | None:
    """Return what tells whether an object has changed; None where it is not there."""
    return _stamp(*_opened(address))
