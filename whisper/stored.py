"""Tensors that stay in their file until they are asked for, and are never held.

Whoever packs weights reads each once; so they are read when they are wanted, into memory of the caller's own, and the
file is neither mapped nor kept in memory meanwhile. The file stays open: it may be deleted or replaced by another one.
A file that was written into is noticed, since its numbers would be anybody's. It knows no formats: where a tensor
lies in its file is found out from the mapping that torch or safetensors made of it.
"""

from __future__ import annotations

import mmap
import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import CheckpointError

SMALL = 1 << 24  # bytes: files up to this size are read into memory when they are loaded


class StoredTensors(Mapping[str, Tensor]):
    """Named tensors, each made anew whenever it is asked for; `views` tell shapes and precisions for nothing."""

    views: Mapping[str, Tensor]

    def __iter__(self) -> Iterator[str]:
        return iter(self.views)

    def __len__(self) -> int:
        return len(self.views)

    def __contains__(self, name: object) -> bool:
        return name in self.views


class OpenFile:
    """A file that is open for reading and remembers what it looked like then."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self.number = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read ({error.strerror}); check its permissions") from error
        weakref.finalize(self, os.close, self.number).atexit = False  # a daemon thread may be reading
        self._stamp = self._look()
        self.size = self._stamp[0]

    def _look(self) -> tuple[int, int]:
        now = os.fstat(self.number)
        return now.st_size, now.st_mtime_ns

    def read(self, offset: int, size: int) -> Tensor:
        """Return `size` bytes.

        Raises
        ------
        CheckpointError
            Where the file was written into since it was opened, or cannot be read any more.
        """
        # pages of their own, which go back at once: in the heap, holes between what is kept would add up
        content = (
            torch.frombuffer(mmap.mmap(-1, size), dtype=torch.uint8) if size else torch.empty(0, dtype=torch.uint8)
        )
        rest = content.numpy().data
        try:
            while rest and (n := os.preadv(self.number, [rest], offset)):  # at most 2 GB come at once
                rest, offset = rest[n:], offset + n
            changed = bool(rest) or self._look() != self._stamp
        except OSError as error:
            raise CheckpointError(f"{self.path} cannot be read any more ({error.strerror}); load it again") from error
        if changed:
            raise CheckpointError(
                f"{self.path} was changed in place after the model was loaded from it, and its weights are lost; "
                "load the model again, and write new checkpoints beside the old one (save_checkpoint does)"
            )
        return content

    def mappings(self) -> list[tuple[int, int, int]]:
        """Return where in memory the file is mapped: first and last address and the offset; none where unknown."""
        here = os.fstat(self.number)
        device = f"{os.major(here.st_dev):02x}:{os.minor(here.st_dev):02x}"
        found = []
        try:
            with open("/proc/self/maps", encoding="utf-8", errors="replace") as lines:
                for line in lines:
                    addresses, _, offset, on, inode = line.split(maxsplit=5)[:5]
                    if int(inode) == here.st_ino and on == device:
                        first, last = addresses.split("-")
                        found.append((int(first, 16), int(last, 16), int(offset, 16)))
        except (OSError, ValueError):  # another system
            return []
        return found


@dataclass(frozen=True)
class _Place:
    """Where a tensor lies."""

    file: OpenFile
    offset: int
    size: int


class FileTensors(StoredTensors):
    """See `left_in_files`."""

    def __init__(self, places: Mapping[str, _Place], views: Mapping[str, Tensor], held: Mapping[str, Tensor]) -> None:
        self._places, self.views, self._held = places, views, held

    def __getitem__(self, name: str) -> Tensor:
        if (place := self._places.get(name)) is None:
            return self._held[name].clone()
        view = self.views[name]
        return place.file.read(place.offset, place.size).view(view.dtype).reshape(view.shape)


def left_in_files(tensors: Mapping[str, Tensor], files: Sequence[OpenFile]) -> Mapping[str, Tensor]:
    """Return `tensors`, which were just mapped from `files`, so that they take no memory.

    In memory are those of small files, those that do not lie in one piece, and all of them where the system does not
    tell what is mapped where: as they are, in the precision of the file.
    """
    if not all(isinstance(tensor, Tensor) and tensor.layout == torch.strided for tensor in tensors.values()):
        return tensors  # no weights; whoever builds a network of them will say so
    files = [file for file in files if file.size > SMALL and hasattr(os, "preadv")]
    mapped = [(*mapping, file) for file in files for mapping in file.mappings()]
    places: dict[str, _Place] = {}
    for name, tensor in tensors.items():
        first, size = tensor.data_ptr(), tensor.numel() * tensor.element_size()
        for start, end, offset, file in mapped if tensor.is_contiguous() else ():
            if start <= first and first + size <= end:
                places[name] = _Place(file, offset + first - start, size)
    held = {name: tensor.detach().clone() for name, tensor in tensors.items() if name not in places}
    if not places:
        return held
    return FileTensors(places, {name: outline(tensor) for name, tensor in tensors.items()}, held)


def outline(tensor: Tensor) -> Tensor:
    """Return a tensor of the same shape and precision without numbers."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
