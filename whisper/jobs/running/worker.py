"""A worker: one model, and several recordings at once on its shared batch, the next ones decoded ahead.

Writes no result: it says what it found to its runner. Runs in a process of its own, so that a crash costs no more than
what runs here; containers are decoded in further processes (`media.isolated`).
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...device.hardware import free_memory
from ...errors import AudioError, CancelledError, WhisperError
from ...media.isolated.decoders import Decoders
from ...media.spool import Spool
from ...options.transcription import DecodingOptions, TranscribeOptions
from ...spans import SAMPLE_RATE
from .. import remote
from ..content import Stamp, content_of
from ..failures import kind_of
from .messages import (
    Answer,
    Begun,
    Broken,
    Done,
    Failed,
    Give,
    Progress,
    Read,
    Ready,
    Stop,
    Task,
    WorkerSettings,
    receive,
    send,
)

if TYPE_CHECKING:
    from ...model import Whisper

SIDE_BY_SIDE = {"cpu": 16, "cuda": 64}
READERS = 2  # threads that read ahead
OF_FILE = ("audio_track", "container_time")  # options that decoding takes, and arrays do not
PROGRESS_S = 1.0  # seconds between two messages about a recording
_SHARE = 4  # of the free memory, or of the limit, for sound that is decoded


class _ChangedError(Exception):
    """The file changed while it was read."""


class Worker:
    """Transcribes what it is given.

    Parameters
    ----------
    settings
        What it is to be.
    emit
        Takes its messages, from any thread.
    """

    def __init__(self, settings: WorkerSettings, emit: Callable[[object], None]) -> None:
        self.settings, self.emit = settings, emit
        self.model: Whisper | None = None
        self.cancel = threading.Event()
        self._tasks: queue.SimpleQueue[Task] = queue.SimpleQueue()
        self._decoded: queue.SimpleQueue[tuple[Task, Any, float, list[str]]] = queue.SimpleQueue()
        self._answers: dict[int, queue.SimpleQueue[bool]] = {}
        self._room = _Room(free_memory(torch.device("cpu")) // _SHARE)
        self._of_thread = threading.local()
        self._first: float | None = None  # when the first transcription began

    def start(self) -> None:
        """Load the model, and begin to take recordings; says so, or what is wrong."""
        # FFmpeg's formats are not limited: these are the user's own files; the limits of a process hold
        self._decoders = Decoders(READERS, formats=None)
        self._decoders.start()  # they are ready when the model is
        try:
            self._load()
        except Exception as error:  # whatever it is, the runner reports it
            self._decoders.close()
            self.emit(Broken(error if isinstance(error, WhisperError) else RuntimeError(f"{kind_of(error)[1]}")))
            return
        assert self.model is not None
        kind = self.model.device.type
        n = self.settings.side_by_side or SIDE_BY_SIDE.get(kind, SIDE_BY_SIDE["cpu"])
        warnings.simplefilter("always")
        warnings.showwarning = self._note_warning
        for work, count in ((self._read_ahead, READERS), (self._transcribe, n)):
            for _ in range(count):
                threading.Thread(target=work, daemon=True).start()
        self.emit(Ready(n + n // 4 + READERS, str(self.model.device)))

    def take(self, message: object) -> None:
        """Take a message of the runner."""
        if isinstance(message, Give):
            self._answers[message.task.id] = queue.SimpleQueue()
            self._tasks.put(message.task)
        elif isinstance(message, Answer):
            self._answers[message.id].put(message.run)
        elif isinstance(message, Stop):
            self.cancel.set()
            self._decoders.close()

    def _load(self) -> None:
        from ...checkpoints import load_model
        from ...engine import configure
        from ...transcription.settings import check_settings

        if self.settings.threads:
            torch.set_num_threads(self.settings.threads)
        self.model = load_model(self.settings.model, **self.settings.model_options)
        options = self._options({})
        names = {f.name for f in fields(TranscribeOptions)}
        of_recording = TranscribeOptions(**{name: value for name, value in options.items() if name in names})
        of_window = DecodingOptions(**{name: value for name, value in options.items() if name not in names})
        check_settings(self.model, of_recording, of_window)
        if (limit := self.settings.memory_limit) is not None:
            configure(self.model, memory_limit=max(limit // _SHARE, 1))
            self._room = _Room(limit // _SHARE)

    def _options(self, overrides: Any) -> dict[str, Any]:
        """Return the options of a recording."""
        options = {"audit": None, **self.settings.options, **overrides}
        assert self.model is not None
        if not self.model.is_multilingual:
            options["language"] = "en"
        return options

    def _note_warning(self, message: Warning | str, *_: Any, **__: Any) -> None:
        """Keep a warning with the recording that this thread works on."""
        getattr(self._of_thread, "warnings", []).append(str(message))

    # -- reading ahead -----------------------------------------------------------------------------------

    def _read_ahead(self) -> None:
        while True:
            task = self._tasks.get()
            with self._reporting_failures(task):
                self._of_thread.warnings = told = list[str]()
                if (sound := self._sound(task)) is not None:
                    samples, seconds = sound
                    self._decoded.put((task, samples, seconds, told))

    def _sound(self, task: Task) -> tuple[Any, float] | None:
        """Return the samples of a recording and its seconds; None where its result is there already."""
        if not remote.is_address(task.source):
            before = Stamp.of_status(os.stat(task.source))
            return self._sound_of(task, task.source, before, lambda: Stamp.of_status(os.stat(task.source)))
        with remote.fetched(task.source) as (copy, before):
            return self._sound_of(task, copy, before, lambda: remote.stamp_of(task.source))

    def _sound_of(
        self, task: Task, path: str, before: Stamp, stamp_now: Callable[[], Stamp | None]
    ) -> tuple[Any, float] | None:
        if before.size == 0:
            raise AudioError(f"{task.source} is empty (0 bytes)")
        content = content_of(path)
        self._check_unchanged(before, stamp_now())
        self.emit(Read(task.id, content, before))
        if not self._answers[task.id].get():
            return None
        self._room.enter(task.id, self.cancel)
        samples = self._decode(path, self._options(task.overrides))
        self._check_unchanged(before, stamp_now())
        self._room.grow(task.id, samples.nbytes)
        return samples, samples.shape[-1] / SAMPLE_RATE

    @staticmethod
    def _check_unchanged(before: Stamp, now: Stamp | None) -> None:
        if now != before:
            told = "it is not there any more" if now is None else f"{before.size} bytes became {now.size}"
            raise _ChangedError(f"the file changed while it was read ({told})")

    def _decode(self, path: str, options: dict[str, Any]) -> Any:
        """Return samples at 16 kHz: ``(n,)``, or ``(n_channels, n)`` where channels are kept apart; int16."""
        apart = options.get("channels") == "separate"
        of_file = {name: options[name] for name in OF_FILE if name in options}
        spool, n_channels = Spool(), 1
        with open(path, "rb", buffering=0) as file:
            for piece in self._decoders.stream(file, SAMPLE_RATE, apart=apart, cancel=self.cancel, **of_file):
                n_channels = len(piece) if apart else 1
                spool.append(np.ascontiguousarray(piece.T))
        samples = spool.array(np.int16)
        return np.ascontiguousarray(samples.reshape(-1, n_channels).T) if apart else samples

    # -- transcribing ------------------------------------------------------------------------------------

    def _transcribe(self) -> None:
        while True:
            task, samples, seconds, told = self._decoded.get()
            with self._reporting_failures(task):
                self._of_thread.warnings = told
                self._transcribe_one(task, samples, seconds, told)
            del samples  # not kept while the next one is waited for

    def _transcribe_one(self, task: Task, samples: Any, seconds: float, told: list[str]) -> None:
        from ...engine import busy_seconds
        from ...transcribe import transcribe_with_report

        self.emit(Begun(task.id, seconds))
        begun = last = time.monotonic()
        self._first = self._first or begun

        def progress(done: float, _total: float) -> None:
            nonlocal last
            if (now := time.monotonic()) - last >= PROGRESS_S:
                last = now
                self.emit(Progress(task.id, done))

        assert self.model is not None
        options = {name: value for name, value in self._options(task.overrides).items() if name not in OF_FILE}
        options |= {"progress": progress, "cancel": self.cancel, "verbose": None}
        transcript, report = transcribe_with_report(self.model, samples, **options)
        found = {name: value for name, value in report.to_dict().items() if name not in ("words", "speech", "text")}
        found["speech"] = None if report.speech is None else len(report.speech)
        result = {"transcript": transcript, "report": found, "warnings": told}
        now = time.monotonic()
        times = now - begun, memory_of_process(), busy_seconds(self.model), now - self._first
        self.emit(Done(task.id, result, seconds, *times))
        self._forget(task)

    @contextmanager
    def _reporting_failures(self, task: Task) -> Iterator[None]:
        """Say what ended a recording; the thread goes on with the next."""
        try:
            yield
        except _ChangedError as error:
            self._fail(task, "changing", str(error))
        except CancelledError as error:
            self._fail(task, "cancelled", str(error))
        except Exception as error:  # one bad recording must not stop the others
            self._fail(task, *kind_of(error))

    def _fail(self, task: Task, kind: str, error: str) -> None:
        self._forget(task)
        self.emit(Failed(task.id, kind, error))

    def _forget(self, task: Task) -> None:
        self._answers.pop(task.id, None)
        self._room.leave(task.id)


class _Room:
    """Bounds the sound that is decoded and not yet transcribed; one recording always fits.

    Parameters
    ----------
    limit
        Bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._held: dict[int, int] = {}
        self._changed = threading.Condition()

    def enter(self, task: int, cancel: threading.Event) -> None:
        """Wait for room."""
        with self._changed:
            while self._held and sum(self._held.values()) >= self.limit:
                if cancel.is_set():
                    raise CancelledError("the run has ended")
                self._changed.wait(0.1)
            self._held[task] = 0

    def grow(self, task: int, size: int) -> None:
        """Note how much a recording takes."""
        with self._changed:
            self._held[task] = size

    def leave(self, task: int) -> None:
        """Note that a recording is done with."""
        with self._changed:
            if self._held.pop(task, None) is not None:
                self._changed.notify_all()


def memory_of_process() -> int:
    """Return the bytes of memory that this process has; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return 0


def main() -> None:
    """Serve the runner at the other end of standard input and output, until it closes them."""
    source = os.fdopen(os.dup(0), "rb")
    target = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no message
    sys.stdout = sys.stderr
    lock = threading.Lock()

    def emit(message: object) -> None:
        with lock:
            try:
                send(target, message)
            except OSError:  # the runner is gone
                os._exit(0)

    try:
        worker = Worker(receive(source), emit)
        worker.start()
        while True:
            worker.take(receive(source))
    except (EOFError, KeyboardInterrupt):
        pass
    os._exit(0)  # whatever runs: the runner is gone, or does not want it
