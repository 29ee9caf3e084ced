"""Weights that are read from a file without torch, as NumPy arrays: what the command packs at its first start.

Knows no formats: a reader says where the arrays lie. A file that is changed after that loses its identity, so that
whoever packs can tell.
"""

from __future__ import annotations

import base64
import gzip
import math
import mmap
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import CheckpointError
from ..network.dimensions import ModelDimensions
from .identity import JUST_NOW, Origin, identity_of


@dataclass(frozen=True)
class Place:
    """Where an array lies, without gaps."""

    offset: int  # in bytes
    dtype: type[np.generic]
    shape: tuple[int, ...]

    @property
    def n_bytes(self) -> int:
        """How many bytes there are."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Source:
    """A file before it is looked into."""

    paths: tuple[str, ...]  # a folder, or a file, or the parts of a file in their order
    name: str  # by which the model was asked for
    identity: str
    files: tuple[str, ...]  # with the weights

    @classmethod
    def of(cls, paths: Sequence[str], name: str, within: str = "") -> Source | None:
        """Return the source; None where there is no file, or where it is being written.

        Parameters
        ----------
        paths, name
            See `identity_of`.
        within
            The file that is meant of a folder.
        """
        identity = identity_of(paths, name)
        files = tuple(os.path.join(path, within) if os.path.isdir(path) else path for path in paths)
        try:
            ages = [time.time() - os.stat(file).st_mtime for file in files]
        except OSError:
            return None
        is_settled = identity and all(map(os.path.isfile, files)) and not any(0 <= age < JUST_NOW for age in ages)
        return cls(tuple(paths), name, identity, files) if is_settled else None

    @property
    def is_unchanged(self) -> bool:
        """Whether the file is what it was."""
        return self.identity == identity_of(self.paths, self.name)


class StoredArrays(Mapping[str, npt.NDArray[Any]]):
    """The weights of a model under the names of `Whisper.state_dict`, each read on every access.

    Parameters
    ----------
    source
        The file.
    dims, heads
        Of the network: its numbers, and layer and head of each alignment head.
    places
        Of the arrays, whose shapes are those that `dims` ask for.
    """

    def __init__(
        self, source: Source, dims: ModelDimensions, heads: list[list[int]], places: Mapping[str, Place]
    ) -> None:
        self.source, self.dims, self.places = source, dims, places
        self._about = {"dims": asdict(dims), "alignment_heads": heads, "quantised": ""}

    @property
    def origin(self) -> Origin:
        """Which file this is, and what is known of the model; no identity once the file has changed."""
        return Origin(self.source.identity if self.source.is_unchanged else "", self._about)

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        """Read an array; see `read_array`."""
        return read_array(self.source.files, self.places[name])


def heads_of(dump: str | bytes | None, dims: ModelDimensions) -> list[list[int]]:
    """Return layers and heads of what `weights.dump_alignment_heads` wrote; without it, the upper half of all.

    Raises
    ------
    ValueError, OSError, EOFError, zlib.error
        It is nothing of the kind.
    """
    mask: npt.NDArray[np.bool_] = np.zeros((dims.n_text_layer, dims.n_text_head), dtype=bool)
    mask[dims.n_text_layer // 2 :] = True
    if dump is not None:
        mask = np.frombuffer(gzip.decompress(base64.b85decode(dump)), dtype=bool).reshape(mask.shape)
    heads: list[list[int]] = np.argwhere(mask).tolist()
    return heads


def read_array(paths: Sequence[str], place: Place) -> npt.NDArray[Any]:
    """Read an array of a file that may be in parts.

    Raises
    ------
    CheckpointError
        Where the file has gone or become shorter.
    """
    # separate pages, which are freed at once: in the heap they would cause fragmentation
    content = memoryview(mmap.mmap(-1, place.n_bytes))
    first, rest = place.offset, content
    for path in paths:
        try:
            with open(path, "rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                file.seek(min(first, size))
                while rest and (n := file.readinto(rest)):  # at most 2 GB come at once
                    rest = rest[n:]
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read ({error.strerror}); load it again") from error
        first = max(first - size, 0)
    if rest:
        raise CheckpointError(f"{paths[0]} has become shorter; load it again")
    return np.frombuffer(content, place.dtype).reshape(place.shape)
