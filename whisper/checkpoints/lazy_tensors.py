"""Tensors that are read from a file when needed, and not kept in memory.

Packing reads each weight once, so weights are read at that time, into the caller's memory. Loading is
independent of later changes of the file: `keep` copies it into a temporary file without a name, which
no other process can open and which disappears with this one. That takes disk space instead of memory,
or none if the file system shares equal blocks. Knows no formats: the place of a tensor in its file is
found from the memory mapping that torch or safetensors made.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import torch
from torch import Tensor

from ..errors import CheckpointError
from ..media.spool import temporary_folder
from .identity import JUST_NOW, Origin

SMALL = 1 << 24  # bytes: files up to this size are held in memory
MAPS = "/proc/self/maps"  # the memory mappings on Linux; elsewhere all files are held in memory
FICLONE = 0x40049409  # ioctl: the same blocks in another file, until one of them is written to
DELAYS = (0.05, 0.2, 0.8)  # seconds before a file that changes is copied again
_BLOCK = 1 << 20


class StoredTensors(Mapping[str, Tensor]):
    """Named tensors, each read on every access; `views` have shapes and dtypes without reading."""

    views: Mapping[str, Tensor]
    origin = Origin()

    def __iter__(self) -> Iterator[str]:
        return iter(self.views)

    def __len__(self) -> int:
        return len(self.views)

    def __contains__(self, name: object) -> bool:
        return name in self.views


class ComputedTensors(StoredTensors):
    """Tensors that are made, by a function each, whenever they are asked for: unpacked, cut out, dequantised.

    Parameters
    ----------
    makers
        By name, the shape and dtype as a tensor on the meta device, and the function that makes a new tensor of them.
    """

    def __init__(self, makers: Mapping[str, tuple[Tensor, Callable[[], Tensor]]]) -> None:
        self.views = {name: view for name, (view, _) in makers.items()}
        self._makers = {name: make for name, (_, make) in makers.items()}

    def __getitem__(self, name: str) -> Tensor:
        return self._makers[name]()


class KeptFile:
    """The contents of a file at the time of loading.

    Parameters
    ----------
    path
        The file's, for messages; whatever is there now is another matter.
    content
        All of it, where it is held in memory.
    number
        Otherwise the descriptor of a private copy; closed with the object.
    """

    def __init__(self, path: str, content: bytes | None = None, number: int = -1) -> None:
        self.path, self.content, self.number = path, content, number
        if content is None:
            weakref.finalize(self, os.close, number).atexit = False  # a daemon thread may be reading

    @property
    def place(self) -> str:
        """Under which name the copy can be opened and mapped."""
        return f"/proc/self/fd/{self.number}"

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return len(self.content) if self.content is not None else os.fstat(self.number).st_size

    def bytes_at(self, offset: int, size: int) -> bytes:
        """Return at most `size` bytes from `offset` on."""
        if self.content is not None:
            return self.content[offset : offset + size]
        return os.pread(self.number, size, offset)

    def read(self, offset: int, size: int) -> Tensor:
        """Return `size` bytes of the copy, in memory of the caller's that is aligned for any dtype.

        Raises
        ------
        CheckpointError
            Where the disk that holds it fails.
        """
        # separate pages, which are freed at once: in the heap they would cause fragmentation
        content = (
            torch.frombuffer(mmap.mmap(-1, size), dtype=torch.uint8)
            if size
            else torch.empty(0, dtype=torch.uint8, device="cpu")
        )
        rest = content.numpy().data
        if self.content is not None:
            rest[:] = self.content[offset : offset + size]
            return content
        reason = "it has become shorter"
        try:
            while rest and (n := os.preadv(self.number, [rest], offset)):  # at most 2 GB come at once
                rest, offset = rest[n:], offset + n
        except OSError as error:
            reason = error.strerror or str(error)
        if rest:
            raise CheckpointError(f"the copy of {self.path} cannot be read ({reason}); load the model again")
        return content

    def mappings(self) -> list[tuple[int, int, int]]:
        """Return where in memory the copy is mapped: first and last address and the offset; none where unknown."""
        if self.content is not None:
            return []
        here = os.fstat(self.number)
        device = f"{os.major(here.st_dev):02x}:{os.minor(here.st_dev):02x}"
        found = []
        try:
            with open(MAPS, encoding="utf-8", errors="replace") as lines:
                for line in lines:
                    addresses, _, offset, on, inode = line.split(maxsplit=5)[:5]
                    if int(inode) == here.st_ino and on == device:
                        first, last = addresses.split("-")
                        found.append((int(first, 16), int(last, 16), int(offset, 16)))
        except (OSError, ValueError):  # another system
            return []
        return found


class JoinedFile(KeptFile):
    """A file that was kept in parts, such as one too large for a package: they are read as if one behind the other.

    Parameters
    ----------
    path
        What to call the whole in messages.
    parts
        In their order.
    """

    def __init__(self, path: str, parts: Sequence[KeptFile]) -> None:
        self.path, self.content, self.number = path, None, -1
        self.parts = list(parts)

    @property
    def place(self) -> str:
        """A name to open it by is what parts do not have together."""
        raise CheckpointError(f"{self.path} is in {len(self.parts)} parts; join them into one file and load that")

    @property
    def size(self) -> int:
        """How many bytes there are in all parts."""
        return sum(part.size for part in self.parts)

    def bytes_at(self, offset: int, size: int) -> bytes:
        """Return at most `size` bytes from `offset` on."""
        return b"".join(part.bytes_at(start, length) for part, start, length in self._pieces(offset, size))

    def read(self, offset: int, size: int) -> Tensor:
        """Return `size` bytes in memory of the caller's, joined where they lie in two parts."""
        pieces = [part.read(start, length) for part, start, length in self._pieces(offset, size)]
        if sum(map(len, pieces)) < size:
            raise CheckpointError(f"{self.path} ends before byte {offset + size}; get it again from where it came")
        return pieces[0] if len(pieces) == 1 else torch.cat([torch.empty(0, dtype=torch.uint8, device="cpu"), *pieces])

    def mappings(self) -> list[tuple[int, int, int]]:
        """Return nothing: parts are not mapped as one."""
        return []

    def _pieces(self, offset: int, size: int) -> Iterator[tuple[KeptFile, int, int]]:
        """Yield which bytes of which parts these are: part, offset in it, and how many."""
        for part in self.parts:
            length = min(size, part.size - offset)
            if length > 0:
                yield part, offset, length
                size -= length
            offset = max(offset - part.size, 0)


# ---------------------------------------------------------------------------------------------------------
# Copies
# ---------------------------------------------------------------------------------------------------------


def keep(paths: Sequence[str], *, in_memory: bool = False) -> list[KeptFile]:
    """Return the contents of files, all consistent at one moment.

    Parameters
    ----------
    paths
        The files; what is done to them afterwards does not matter.
    in_memory
        Hold them in memory, also where a copy on disk would do.

    Raises
    ------
    CheckpointError
        If a file cannot be read, or is being written.
    """
    copies: dict[str, _Copy] = {}
    with contextlib.ExitStack() as opened:
        for delay in (*DELAYS, None):
            for path in paths:
                if path not in copies:
                    copies[path] = _Copy.of(path, opened, in_memory)
            changed = [path for path in copies if not copies[path].is_whole()]
            if not changed:
                return [copies[path].file for path in paths]
            for path in changed:
                del copies[path]
            if delay is not None:
                time.sleep(delay)
    raise CheckpointError(f"{changed[0]} is being written; load it again when that is done")


@dataclass
class _Copy:
    """A file and what was read of it."""

    source: BinaryIO
    stamp: tuple[int, ...]
    file: KeptFile

    @classmethod
    def of(cls, path: str, opened: contextlib.ExitStack, in_memory: bool) -> _Copy:
        try:
            source = opened.enter_context(open(path, "rb", buffering=0))  # noqa: SIM115
            stamp = _settled(source)
            size = stamp[0]
            if size > SMALL and not in_memory and os.path.exists(MAPS):
                number = _private_copy(source, path, size)
                if number is not None:
                    return cls(source, stamp, KeptFile(path, number=number))
            return cls(source, stamp, KeptFile(path, _content(source, size)))
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read ({error.strerror}); check its permissions") from error

    def is_whole(self) -> bool:
        """Whether the copy is consistent: the file did not change meanwhile, or has the same bytes."""
        try:
            return not self._is_replaced() and (_stamp(self.source) == self.stamp or self._is_equal())
        except OSError:  # gone from the server that it was on
            return False

    def _is_replaced(self) -> bool:
        try:
            now = os.stat(self.file.path)
        except OSError:  # deleted: what was read is complete
            return False
        return os.name == "posix" and not os.path.samestat(now, os.fstat(self.source.fileno()))

    def _is_equal(self) -> bool:
        self.source.seek(0)
        offset = 0
        while block := self.source.read(_BLOCK):
            if self.file.bytes_at(offset, len(block)) != block:
                return False
            offset += len(block)
        return not self.file.bytes_at(offset, 1)


def _stamp(source: BinaryIO) -> tuple[int, ...]:
    now = os.fstat(source.fileno())
    return now.st_size, now.st_mtime_ns, now.st_ctime_ns


def _settled(source: BinaryIO) -> tuple[int, ...]:
    """Return the stamp of a file at a time when any further change would change it."""
    age = time.time() - os.fstat(source.fileno()).st_mtime
    if 0 <= age < JUST_NOW:
        time.sleep(JUST_NOW - age)
    return _stamp(source)


def _content(source: BinaryIO, size: int) -> bytes:
    content = bytearray(size)
    rest = memoryview(content)
    while rest and (n := source.readinto(rest)):  # type: ignore[attr-defined]
        rest = rest[n:]
    return bytes(content)


def _private_copy(source: BinaryIO, path: str, size: int) -> int | None:
    """Return the descriptor of a file without a name: of the same blocks, else on disk, else in memory."""
    for make in (_clone, _copy_on_disk, _copy_in_memory):
        with contextlib.suppress(OSError, AttributeError):  # not supported here, or not enough room
            return make(source, path, size)
    return None


def _clone(source: BinaryIO, path: str, _size: int) -> int:
    import fcntl

    number = os.open(os.path.dirname(os.path.realpath(path)), os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.ioctl(number, FICLONE, source.fileno())
    except OSError:
        os.close(number)
        raise
    return number


def _copy_on_disk(source: BinaryIO, _path: str, size: int) -> int:
    with tempfile.TemporaryFile(buffering=0, dir=temporary_folder()) as file:
        number = os.dup(file.fileno())
    room = os.fstatvfs(number)
    if size > room.f_bavail * room.f_frsize // 2:  # leave room for other programs
        os.close(number)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return _filled(number, source, size)


def _copy_in_memory(source: BinaryIO, _path: str, size: int) -> int:
    return _filled(os.memfd_create("weights"), source, size)


def _filled(number: int, source: BinaryIO, size: int) -> int:
    try:
        offset = 0
        while offset < size and (n := os.sendfile(number, source.fileno(), offset, size - offset)):
            offset += n
    except OSError:
        os.close(number)
        raise
    return number


# ---------------------------------------------------------------------------------------------------------
# Tensors in them
# ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Place:
    """Where a tensor lies."""

    file: KeptFile
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


def left_in_files(tensors: Mapping[str, Tensor], files: Sequence[KeptFile]) -> Mapping[str, Tensor]:
    """Return `tensors`, which were just mapped from `files`, so that they take no memory.

    In memory are those of files in memory, those that do not lie in one piece, and all of them where the system does
    not tell what is mapped where: as they are, in the precision of the file.
    """
    if not all(isinstance(tensor, Tensor) and tensor.layout == torch.strided for tensor in tensors.values()):
        return tensors  # not weights; building a network from them raises the error
    if all(file.content is not None for file in files):
        return dict(tensors)
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


def views_of(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return tensors of the same shapes and dtypes without reading any."""
    return tensors.views if isinstance(tensors, StoredTensors) else {name: outline(t) for name, t in tensors.items()}


def own(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    """Return one of `tensors` in memory that is the caller's alone."""
    return tensors[name] if isinstance(tensors, StoredTensors) else tensors[name].clone()


def outline(tensor: Tensor) -> Tensor:
    """Return a tensor of the same shape and dtype without data."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
