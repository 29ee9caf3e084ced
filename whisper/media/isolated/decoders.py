"""Decodes recordings in processes of their own: `Decoders` has some ready, and ends what crashes or hangs.

A file that makes a decoder crash, hang or take all memory costs its own request alone. The processes are started anew
and not forked, inherit nothing but a socket and a few variables of the environment, and read from a descriptor that is
handed to them. One is as quick as decoding here: its samples come back through the socket.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...device import processes
from ...device.allocator import keeping_little
from ...errors import AudioError, CancelledError, OptionError
from ...utils import warn_caller
from .. import reader
from ..sources import NAME_IN_MESSAGES, Source, contents_of, openable
from ..spool import temporary_folder
from . import frames
from .formats import ALLOWED
from .limits import Limits

_PACKAGE = Path(__file__).parents[2]
_START = 60.0  # seconds within which a process must be ready
_TICK = 0.05  # seconds between two looks at what cancels
_PATIENCE = 0.25  # seconds that a file waits for a busy process; a new one takes as long to start, computing
_INHERITED = ("PATH", "PYTHONHOME", "PYTHONUTF8", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ")
# The package's `__init__` imports torch, which takes seconds and 200 MB: a package of the same name without it.
_CODE = """
import sys, types
sys.path[:] = {path!r}
package = sys.modules["{name}"] = types.ModuleType("{name}")
package.__path__ = [{root!r}]
from {name}.media.isolated.worker import main
main({descriptor}, {limits!r})
"""


def is_possible() -> bool:
    """Whether this system can hand an open file to another process; Windows cannot."""
    return hasattr(socket, "recv_fds") and hasattr(socket, "AF_UNIX")


class Decoders:
    """Decoder processes, each of which decodes one file at a time.

    Most files are decoded in less time than a process takes to start, so a file waits a moment for a busy one before
    another is started. As many run as `stream` is called at once: the caller bounds them. Where the system cannot hand
    files over (`is_possible`), files are decoded in this process, from the same formats.

    Parameters
    ----------
    n_ready
        Processes that wait for a file.
    limits
        Of each.
    formats
        FFmpeg's names of the formats that are read; None for all, of files whose sender is trusted.
    """

    def __init__(self, n_ready: int = 1, limits: Limits | None = None, formats: Sequence[str] | None = ALLOWED) -> None:
        self._n_ready, self._limits, self._formats = n_ready, limits or Limits(), formats
        self._idle: list[_Process] = []
        self._n_busy = 0  # processes that decode
        self._lock = processes.lock()
        self._changed = threading.Condition(self._lock)

    def start(self) -> None:
        """Start the processes that wait, so that the first file finds one."""
        while is_possible():
            with self._lock:
                if len(self._idle) >= self._n_ready:
                    return
                self._idle.append(_Process(self._limits))
                self._changed.notify()

    def close(self) -> None:
        """End the processes that wait; those that decode end with their file."""
        with self._lock:
            idle, self._idle, self._n_ready = self._idle, [], 0
        for process in idle:
            process.end()

    def stream(
        self,
        source: Source,
        rate: int,
        *,
        apart: bool = False,
        audio_track: int | str | None = None,
        container_time: bool = False,
        cancel: threading.Event | None = None,
    ) -> Iterator[reader.Samples]:
        """Decode like `reader.stream`, in another process, from the formats that are allowed.

        Parameters
        ----------
        source
            A path, bytes, or a binary file object.
        rate, apart, audio_track, container_time
            See `reader.stream`.
        cancel
            Ends the decoding when it is set.

        Raises
        ------
        AudioError
            See `reader.decode`; also where its format is not allowed, or where the decoder crashed, hung, or took more
            than it may.
        OptionError
            It has no such track.
        CancelledError
            It was cancelled.
        """
        how = {"rate": rate, "apart": apart, "audio_track": audio_track, "container_time": container_time}
        if not is_possible():
            yield from reader.stream(source, formats=self._formats, **how)  # type: ignore[arg-type]
            return
        with _on_disk(source) as (file, name):
            process = self._take({"name": name, "formats": self._formats, **how}, file.fileno())
            is_free = False
            try:
                for piece in process.pieces(cancel):
                    yield piece if apart else piece[0]
                is_free = True
            except _DecodingError as error:
                is_free = True
                raise error.reason from None
            finally:
                self._give_back(process, is_free)

    def _take(self, job: dict[str, Any], descriptor: int) -> _Process:
        """Return a process that has begun with a job."""
        while True:
            with self._lock:
                if 0 < self._n_ready <= self._n_busy:
                    self._changed.wait_for(lambda: self._idle, _PATIENCE)
                process = self._idle.pop() if self._idle else _Process(self._limits)
                self._n_busy += 1
            try:
                process.begin(job, descriptor)
            except OSError:  # it died while it waited
                with self._lock:
                    self._n_busy -= 1
                process.end()
            else:
                return process

    def _give_back(self, process: _Process, is_free: bool) -> None:
        with self._lock:
            self._n_busy -= 1
            is_kept = is_free and process.is_ours and len(self._idle) < self._n_ready
            if is_kept:
                self._idle.append(process)
                self._changed.notify()
        if not is_kept:
            process.end()
            self.start()


class _DecodingError(Exception):
    """What the decoder says of a file; the process is ready for the next."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason


class _Process:
    """One decoder process."""

    def __init__(self, limits: Limits) -> None:
        self._limits, self._pid, self._is_ready, self._name = limits, os.getpid(), False, ""
        ours, theirs = socket.socketpair()
        with theirs:
            code = _CODE.format(
                path=sys.path,
                name=_PACKAGE.name,
                root=str(_PACKAGE),
                descriptor=theirs.fileno(),
                limits=dataclasses.asdict(limits),
            )
            environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
            self.process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=keeping_little({**environment, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}),
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C on the terminal is for the owner, which lets its work finish
            )
        ours.settimeout(_TICK)
        self._connection = ours
        self._finalizer = weakref.finalize(self, _end, self.process, ours, self._pid)

    @property
    def is_ours(self) -> bool:
        """Whether this is the process that started it, and not a fork of that."""
        return os.getpid() == self._pid

    def begin(self, job: dict[str, Any], descriptor: int) -> None:
        """Hand over a file; `OSError` where the process is gone."""
        if not self.is_ours:
            raise BrokenPipeError
        self._name = str(job["name"])
        frames.send_job(self._connection, job, descriptor)

    def pieces(self, cancel: threading.Event | None) -> Iterator[reader.Samples]:
        """Give the samples of the file that it has begun, each piece ``(n_channels, n)``."""
        while True:
            header = frames.read_header(self._receive(frames.HEADER.size, cancel))
            if header is None:
                raise AudioError(f"{self._name} made its decoder fail")
            kind, n_channels, n_bytes = header
            data = self._receive(n_bytes, cancel)
            if kind == frames.READY:
                self._is_ready = True
            elif kind == frames.PIECE:
                yield np.frombuffer(data, np.int16).reshape(n_channels, -1)
            elif kind == frames.WARNING:
                warn_caller(data.decode("utf-8", "replace"))
            elif kind == frames.FAILURE:
                told = json.loads(data)
                kind_of_error = OptionError if told["kind"] == "OptionError" else AudioError
                raise _DecodingError(kind_of_error(str(told["message"])))
            elif kind == frames.FAULT:
                raise RuntimeError(f"the decoder process failed:\n{data.decode('utf-8', 'replace')}")
            else:
                return

    def _receive(self, n_bytes: int, cancel: threading.Event | None) -> bytearray:
        """Wait for so many bytes."""
        data = bytearray(n_bytes)
        view, n, last = memoryview(data), 0, time.monotonic()
        while n < n_bytes:
            if cancel is not None and cancel.is_set():
                raise CancelledError("the decoding was cancelled")
            try:
                n_new = self._connection.recv_into(view[n:])
            except TimeoutError:
                if time.monotonic() - last > (self._limits.stall_s if self._is_ready else _START):
                    raise self._stalled() from None
                continue
            except ConnectionError:
                n_new = 0
            if n_new == 0:
                raise self._ended()
            n, last = n + n_new, time.monotonic()
        return data

    def _stalled(self) -> Exception:
        if not self._is_ready:
            return RuntimeError(f"the decoder process does not start within {_START:g} s")
        return AudioError(f"{self._name} makes no progress: nothing was decoded for {self._limits.stall_s:g} s")

    def _ended(self) -> Exception:
        """Return why the process has ended, of itself."""
        try:
            code = self.process.wait(5)
        except subprocess.TimeoutExpired:
            code = 0
        if not self._is_ready:
            return RuntimeError(f"the decoder process does not start (exit code {code})")
        if code == -signal.SIGXCPU:
            return AudioError(f"{self._name} takes more than {self._limits.cpu_s} s of the processor to decode")
        reason = signal.Signals(-code).name if -code in set(signal.Signals) else f"exit code {code}"
        return AudioError(f"{self._name} made its decoder crash ({reason})")

    def end(self) -> None:
        """End the process, whatever it does."""
        self._finalizer()


def _end(process: subprocess.Popen[bytes], connection: socket.socket, pid: int) -> None:
    connection.close()
    if os.getpid() == pid:
        process.kill()
        process.wait()


@contextlib.contextmanager
def _on_disk(source: Source) -> Iterator[tuple[Any, str]]:
    """Give a source as a file with a descriptor, and its name in messages."""
    raw = getattr(source, "raw", source)
    if isinstance(raw, io.FileIO) and raw.seekable():
        place = source.tell()  # type: ignore[union-attr]
        try:
            yield raw, str(getattr(source, NAME_IN_MESSAGES, repr(str(raw.name))))
        finally:
            source.seek(place)  # type: ignore[union-attr]
        return
    opened = openable(source)
    with contents_of(opened) as file:
        if file is None:
            raise AudioError(f"{opened.name} is no file: another process cannot read it")
        if isinstance(file, io.BufferedReader):
            yield file, opened.name
            return
        with tempfile.TemporaryFile(dir=temporary_folder()) as copy:
            file.seek(0)
            while piece := file.read(1 << 20):
                copy.write(piece)
            copy.flush()
            yield copy, opened.name
