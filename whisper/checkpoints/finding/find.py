"""Finds copies of a model on this machine, in the order in which they are taken, and reads one.

First those in the folders that ``$SOTTO_MODELS`` names, then in installed packages, in Hugging Face's cache, and in the
folders of other programs. ``SOTTO_FIND=0`` finds none. Whatever is broken or may not be read is not there; nothing is
written but which packages were verified. Downloads nothing, and knows no format (`formats` reads).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import CheckpointError
from ...output.console import show
from ..cache import cache_folder
from ..download import digest_of
from ..published import _MODELS
from . import names, packages, places
from .stored import OPENAI, Stored, stored_as

if TYPE_CHECKING:
    from ..weights import Weights

VARIABLE = "SOTTO_FIND"
OWN = "own cache"


def is_allowed() -> bool:
    """Say whether the user lets models be looked for outside the folder of downloads."""
    return os.environ.get(VARIABLE) != "0"


@dataclass(frozen=True)
class Found:
    """A copy of a model that lies on this machine."""

    name: str
    whose: str  # the program or packages that it belongs to
    paths: tuple[str, ...]  # a folder or file, or the parts of a file
    stored: Stored
    package: packages.Packaged | None = None

    @property
    def path(self) -> str:
        """The folder or file; where it is in parts, the first."""
        return self.paths[0]

    def describe(self) -> str:
        """Return whose it is, and what, in words."""
        return f"{self.whose}; {self.stored.format}, {self.stored.precision}"

    def taken(self) -> str:
        """Return what is told when it is taken."""
        return f"taking {self.name} from {self.path} ({self.describe()})"

    def verify(self) -> None:
        """Compare with the digests that are known of it; see `packages.verify`."""
        if self.package is not None:
            packages.verify(self.package)

    def check(self) -> str:
        """Examine all of it, whatever was found before, and return in words what was compared.

        Raises
        ------
        CheckpointError
            Where it is damaged, or another model than its name says.
        """
        if self.package is not None and self.package.digests:
            packages.verify(self.package, again=True)
            return "its SHA-256 is as it should be"
        if self.whose == OWN:
            if digest_of(self.paths) != _MODELS[self.name].split("/")[-2]:
                raise CheckpointError(
                    f"its SHA-256 is not the published one; get it again: whisper models get {self.name}"
                )
            return "its SHA-256 is the published one"
        tensors = self.read().tensors
        for name in tensors:
            if not tensors[name].isfinite().all():
                raise CheckpointError(f"{name} holds numbers that are not finite; get it again from where it came")
        return f"all {len(tensors)} tensors can be read"

    def read(self, *, in_memory: bool = False) -> Weights:
        """Read it, verified where there is something to verify it by.

        Raises
        ------
        CheckpointError
            Where it is damaged, or another model than its name says.
        """
        from ..formats import recognize  # here: finding alone needs no torch
        from ..lazy_tensors import JoinedFile, keep

        self.verify()
        if len(self.paths) > 1:
            from ..formats.ctranslate2 import reader

            whole = JoinedFile(self.path, keep(self.paths, in_memory=in_memory))
            weights = reader.read(whole)
        else:
            weights = recognize.read(self.path, in_memory=in_memory)
        if weights.dims != (expected := names.dimensions(self.name)):
            raise CheckpointError(
                f"{self.path} is called {self.name} and is another model: its dimensions are {weights.dims}, and those "
                f"of {self.name} are {expected}; move it away or rename it"
            )
        return weights


def copies(name: str, *, quantized: bool = False) -> Iterator[Found]:
    """Find copies of a model beside the cache of downloads, as they are taken: the exact ones in the order of places.

    Parameters
    ----------
    name
        One of openai-whisper's names, or of the distilled models.
    quantized
        After them also copies in a precision that lost something: quantised ones and bfloat16.
    """
    if not is_allowed():
        return
    name = names.canonical(name)
    inexact = []
    seen = set()
    for found in _everywhere(name):
        real = os.path.realpath(found.path)
        if real in seen:
            continue
        seen.add(real)
        if found.stored.is_exact:
            yield found
        else:
            inexact.append(found)
    if quantized:
        yield from inexact


def inexact_copies(name: str) -> str:
    """Return what is said of copies that are not exact where an exact one cannot be had: the end of a sentence."""
    found = next((found for found in copies(name, quantized=True) if not found.stored.is_exact), None)
    return f"; quantized=True, --quantized True takes {found.path} ({found.describe()})" if found else ""


def _everywhere(name: str) -> Iterator[Found]:
    yield from _described(name, places.in_named_folders(name))
    for package in packages.packaged(name):
        if stored := stored_as(*package.paths):
            yield Found(name, f"installed package {' and '.join(package.packages)}", package.paths, stored, package)
    yield from _described(name, places.in_hub_caches(name))
    yield from _described(name, places.in_other_programs(name))


def _described(name: str, found: Iterator[tuple[str, str]]) -> Iterator[Found]:
    for whose, path in found:
        if stored := stored_as(path):
            yield Found(name, whose, (path,), stored)


_told: set[str] = set()


def tell_once(line: str) -> None:
    """Print a line to standard error, once in a process."""
    if line not in _told:
        _told.add(line)
        show(line, sys.stderr)


def downloaded(name: str, folder: str | None = None) -> Found | None:
    """Return the copy in the cache of downloads, or in `folder`; None where there is none."""
    url = _MODELS.get(name)
    if url is None:
        return None
    path = os.path.join(folder or cache_folder(), os.path.basename(url))
    if not os.path.isfile(path):
        return None
    stored = stored_as(path) or Stored(OPENAI, "broken", os.path.getsize(path))
    return Found(names.canonical(name), OWN, (path,), stored)


def on_this_machine(folder: str | None = None, *, quantized: bool = False) -> dict[str, list[Found]]:
    """Return all copies of all models by name, the one first that `load_model` would take.

    Parameters
    ----------
    folder
        The cache of downloads; without it, `cache_folder`.
    quantized
        See `copies`.
    """
    found = {}
    for name in names.known():
        own = downloaded(name, folder)
        if here := [*([own] if own else []), *copies(name, quantized=quantized)]:
            found[name] = here
    return found
