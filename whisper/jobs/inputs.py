"""From what a user names (files, folders, globs, manifests, a list, addresses) to the recordings of a job.

Looks at names and sizes alone, and opens no recording. What is named and is not there stays in the list, so that it is
reported like any failure.
"""

from __future__ import annotations

import glob
import json
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain

from ..errors import DataError, OptionError
from ..manifests.read import AUDIO_SUFFIXES, NON_SPEECH, ManifestEntry, read_manifest
from . import remote
from .content import Stamp

MANIFESTS = (".tsv", ".csv", ".json", ".jsonl", ".ndjson")
SUFFIXES = AUDIO_SUFFIXES | {
    ".mka", ".oga", ".mpga", ".mpeg", ".mpg", ".m4v", ".m4b", ".avi", ".flv", ".ts", ".mts", ".m2ts", ".wv", ".tta",
    ".caf", ".ac3", ".asf", ".wmv", ".ogv", ".w64", ".aifc", ".3g2",
}  # fmt: skip
OWN_FOLDER = ".sotto"


@dataclass(frozen=True)
class Input:
    """A recording that was named."""

    key: str  # tells it from all others: absolute path or address, and the part of it
    source: str  # absolute path or address
    name: str  # of its files, with folders, without extension; another is taken where it is given away
    spare_name: str  # the one that is then tried first
    stamp: Stamp | None  # None where it is not there
    overrides: str = "{}"  # options of its own, as JSON
    priority: int = 0
    seconds: float | None = None  # where a manifest says how long it is


def find(inputs: Iterable[str | os.PathLike[str]], out: str) -> Iterator[Input]:
    """Find the recordings.

    Parameters
    ----------
    inputs
        Files, folders (with all folders in them), globs, manifests (`manifests.read_manifest`, with a column
        ``priority`` where that is wanted), addresses for fsspec such as ``s3://bucket/folder``, or ``-`` for a list of
        these on standard input, one a line.
    out
        The folder of the job, of which nothing is an input.

    Yields
    ------
    Input
        In the order of the inputs; within a folder in that of names.

    Raises
    ------
    DataError
        A manifest cannot be used.
    MissingDependencyError
        fsspec, or what it needs for an address, is not installed.
    OptionError
        A name stands for nothing, which is told before the first recording is given; or an address cannot be opened.
    """
    names = [os.fspath(given) for given in inputs]
    for name in names:
        _check(name)
    return _find(names, os.path.realpath(out))


def begin(inputs: Iterable[str | os.PathLike[str]], out: str) -> Iterator[Input]:
    """Find the recordings of a new job, of which one at least must be there.

    Raises
    ------
    OptionError
        None is; see also `find`.
    """
    names = [os.fspath(given) for given in inputs]
    found, absent = find(names, out), list[Input]()
    for one in found:
        if one.stamp is not None:
            return chain(absent, [one], found)
        absent.append(one)
    if absent:
        more = f", nor any of {len(absent) - 1:,} more" if len(absent) > 1 else ""
        raise OptionError(f"there is no file {absent[0].source!r}{more}")
    raise OptionError(
        f"no recordings in {', '.join(map(repr, names))}: a recording is known by its suffix, such as .mp3"
    )


def _check(name: str) -> None:
    if name == "-" or remote.is_address(name) or os.path.lexists(name):
        return
    if glob.has_magic(name):
        if next(glob.iglob(name, recursive=True), None) is None:
            raise OptionError(f"nothing fits {name!r}")
    elif os.path.splitext(name)[1].lower() not in SUFFIXES:
        raise OptionError(f"there is no file or folder {name!r}")


def _find(names: Iterable[str], out: str) -> Iterator[Input]:
    for name in names:
        _check(name)
        if name == "-":
            yield from _find((line for line in map(_line, sys.stdin) if line), out)
        elif remote.is_address(name) and name.lower().endswith(MANIFESTS) and not glob.has_magic(name):
            yield from _in_remote_manifest(name)
        elif remote.is_address(name):
            for source, relative, stamp in remote.find(name, SUFFIXES):
                yield _input(source, relative, stamp)
        elif os.path.isdir(name):
            yield from _in_folder(name, out)
        elif name.lower().endswith(MANIFESTS) and os.path.isfile(name):
            yield from _in_manifest(name)
        elif not os.path.lexists(name) and glob.has_magic(name):
            yield from _find((path for path in sorted(glob.glob(name, recursive=True)) if path != "-"), out)
        else:
            yield _file(name, os.path.basename(name))


def _line(line: str) -> str:
    return line.rstrip("\r\n")


def _in_folder(folder: str, out: str) -> Iterator[Input]:
    """Give the recordings below a folder, by their names; hidden folders and the job's own files are none."""

    def told(error: OSError) -> None:
        raise OptionError(f"the folder {error.filename} cannot be read: {error.strerror}") from error

    for parent, folders, files in os.walk(folder, onerror=told):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and not _is_job(os.path.join(parent, f), out))
        for name in sorted(files):
            if os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith("."):
                path = os.path.join(parent, name)
                yield _file(path, os.path.relpath(path, folder))


def _is_job(folder: str, out: str) -> bool:
    """Whether a folder holds outputs: of this job, where it is not among its own inputs, or of another."""
    return os.path.realpath(folder) == out or os.path.isdir(os.path.join(folder, OWN_FOLDER))


def _file(path: str, relative: str) -> Input:
    path = os.path.abspath(path)
    try:
        status = os.stat(path)
        stamp = Stamp.of_status(status) if stat.S_ISREG(status.st_mode) else None
    except (OSError, ValueError):  # it is reported when its turn comes
        stamp = None
    return _input(path, relative, stamp)


def _input(source: str, relative: str, stamp: Stamp | None) -> Input:
    parts = [part for part in relative.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    whole = os.path.join(*parts) if parts else "recording"
    return Input(source, source, os.path.splitext(whole)[0], whole, stamp)


def _in_manifest(path: str, address: str | None = None) -> Iterator[Input]:
    """Give the rows of a manifest: files, parts of files, their languages and priorities.

    Parameters
    ----------
    path
        A file here.
    address
        Of which it is a copy, and to which its paths are relative.
    """
    path = os.path.abspath(path)
    manifest, told, folder = read_manifest(path, must_exist=False), address or path, os.path.dirname(path)
    for skipped in manifest.skipped[:1]:  # nothing is passed over
        raise DataError(f"line {skipped.line} of {told} cannot be used: {skipped.reason}")
    for entry in manifest.recordings:
        source = entry.path
        if address is not None and source.startswith(inside := folder + os.sep):
            source = remote.beside(address, source.removeprefix(inside))
        if remote.is_address(source):
            for found, relative, stamp in remote.find(source, SUFFIXES):
                below = None if address is None else remote.below(found, address)
                yield _as_entry(_input(found, below or relative, stamp), entry, told)
        else:
            yield _as_entry(_file(source, _below(source, folder)), entry, told)


def _in_remote_manifest(address: str) -> Iterator[Input]:
    """Give the rows of a manifest at an address."""
    try:
        with remote.fetched(address) as (copy, _):
            try:
                yield from _in_manifest(copy, address)
            except DataError as error:
                raise DataError(str(error).replace(copy, address)) from error
    except OSError as error:
        raise OptionError(f"the manifest {address} cannot be read: {error}") from error


def _as_entry(found: Input, entry: ManifestEntry, path: str) -> Input:
    """Give a recording what its row of a manifest says."""
    own: dict[str, object] = {}
    if entry.language not in (None, NON_SPEECH):
        own["language"] = entry.language
    if entry.start is not None or entry.end is not None:
        start, end = entry.start or 0.0, entry.end
        own["clip_timestamps"] = [start] if end is None else [start, end]
        part = f"{start:.2f}-" + ("" if end is None else f"{end:.2f}")
        name, spare_name = f"{found.name}.{part}", f"{found.spare_name}.{part}"
        found = replace(found, key=f"{found.key}#t={part}", name=name, spare_name=spare_name)
    return replace(
        found,
        overrides=json.dumps(own, sort_keys=True),
        priority=_priority(entry.extra.get("priority", ""), path),
        seconds=entry.seconds,
    )


def _below(path: str, folder: str) -> str:
    """Return a path below a folder, or its last part where it lies elsewhere."""
    relative = os.path.relpath(os.path.abspath(path), folder)
    return os.path.basename(path) if relative.startswith("..") else relative


def _priority(text: str, path: str) -> int:
    try:
        return int(text or 0)
    except ValueError:
        raise DataError(f"{path}: a priority is a whole number, the higher the sooner, not {text!r}") from None
