"""What a runner and its workers say to each other, and how it goes through a pipe."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO, Any, NamedTuple

from ..content import Stamp

_HEADER = struct.Struct("!Q")


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker is to be."""

    model: str
    model_options: Mapping[str, Any]  # of `load_model`
    options: Mapping[str, Any]  # of `transcribe`
    side_by_side: int = 0  # 0 leaves it to the worker
    threads: int = 0  # of torch; 0 leaves it to torch
    memory_limit: int | None = None  # bytes


@dataclass(frozen=True)
class Task:
    """A recording for a worker."""

    id: int
    source: str
    overrides: Mapping[str, Any] = field(default_factory=dict)


# -- to a worker -----------------------------------------------------------------------------------------------


class Give(NamedTuple):
    """Here is a recording: read it, and say what it is."""

    task: Task


class Answer(NamedTuple):
    """Whether a recording that was read is to be transcribed."""

    id: int
    run: bool


class Stop(NamedTuple):
    """End, whatever runs."""


# -- from a worker ---------------------------------------------------------------------------------------------


class Ready(NamedTuple):
    """The model is loaded; so many recordings may be given at once."""

    capacity: int
    device: str


class Broken(NamedTuple):
    """There will be no worker: the model or an option is wrong."""

    error: Exception


class Read(NamedTuple):
    """A recording has this content, and its file looks like this."""

    id: int
    content: str
    stamp: Stamp


class Begun(NamedTuple):
    """The transcription of a recording has begun; it has so many seconds."""

    id: int
    seconds: float


class Progress(NamedTuple):
    """So many seconds of a recording are done."""

    id: int
    seconds: float


class Done(NamedTuple):
    """A recording is transcribed."""

    id: int
    result: dict[str, Any]  # transcript, report, warnings
    seconds: float
    wall: float
    memory: int  # bytes of the worker, 0 where that is not known
    busy: float = 0.0  # seconds in which the worker's device computed, of those since its first transcription began
    since_first: float = 0.0


class Failed(NamedTuple):
    """A recording is not transcribed."""

    id: int
    kind: str  # see `failures`, or "cancelled"
    error: str


class Lost(NamedTuple):
    """The worker is no more; said in its place."""

    reason: str
    innocent: bool = False  # what ran there is not to blame: the whole machine is gone


def send(file: IO[bytes], message: object) -> None:
    """Write one message."""
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    file.write(_HEADER.pack(len(data)) + data)
    file.flush()


def receive(file: IO[bytes]) -> Any:
    """Read the next message; `EOFError` where there will be none."""
    header = file.read(_HEADER.size)
    if len(header) < _HEADER.size:
        raise EOFError
    (size,) = _HEADER.unpack(header)
    data = file.read(size)
    if len(data) < size:
        raise EOFError
    return pickle.loads(data)  # from our own child process
