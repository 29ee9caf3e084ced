"""Jobs without a model: workers that are threads, and transcripts that follow from the content of a file alone."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from whisper.jobs.content import Stamp, content_of
from whisper.jobs.failures import kind_of
from whisper.jobs.inputs import find
from whisper.jobs.options import JobOptions
from whisper.jobs.outputs import Outputs
from whisper.jobs.presence import Presence
from whisper.jobs.recipe import Recipe
from whisper.jobs.running.messages import Answer, Begun, Done, Failed, Give, Lost, Read, Ready, Stop, Task
from whisper.jobs.running.runner import Ended, Runner
from whisper.jobs.store import JobStore

RECIPE = Recipe({"language": "en"}, "a model", "float32")


def transcript_of(content: str, n_segments: int = 3) -> dict[str, Any]:
    """Return a transcript that follows from a content."""
    segments = [
        {
            "id": i, "seek": 0, "start": float(i), "end": i + 1.0, "text": f" {content[8 * i : 8 * i + 8]} said",
            "tokens": [1, 2], "temperature": 0.0, "avg_logprob": -0.2, "compression_ratio": 1.0, "no_speech_prob": 0.1,
        }
        for i in range(n_segments)
    ]  # fmt: skip
    return {"text": "".join(s["text"] for s in segments), "segments": segments, "language": "en"}


class FakeWorker:
    """A worker on a thread.

    Parameters
    ----------
    events
        See `ProcessWorker`.
    dies_of
        Whether a source kills it.
    fails
        Raises what a source ends with.
    seconds
        That each takes.
    transcribed
        Gets the sources.
    n_segments
        Of the transcript of a source.
    memory
        Bytes that it says it has.
    """

    def __init__(
        self,
        name: str,
        events: Any,
        dies_of: Callable[[str], bool] = lambda source: False,
        fails: Callable[[str], None] = lambda source: None,
        seconds: float = 0.0,
        transcribed: list[str] | None = None,
        n_segments: Callable[[str], int] = lambda source: 3,
        memory: int = 1000,
    ) -> None:
        self.n_segments, self.memory = n_segments, memory
        self.name, self.events, self.dies_of, self.fails, self.seconds = name, events, dies_of, fails, seconds
        self.transcribed = [] if transcribed is None else transcribed
        self.inbox: queue.SimpleQueue[object] = queue.SimpleQueue()
        self.alive, self.n_done = True, 0
        self.company: list[int] = []  # how many were here when each began
        threading.Thread(target=self._work, daemon=True).start()

    def send(self, message: object) -> None:
        self.inbox.put(message)

    def kill(self) -> None:
        if self.alive:
            self.alive = False
            self.inbox.put(Stop())
            self.events.put((self, Lost("SIGKILL")))

    def _say(self, message: object) -> None:
        if self.alive:
            self.events.put((self, message))

    def _work(self) -> None:
        self._say(Ready(4, "cpu"))
        tasks: dict[int, tuple[Task, str]] = {}
        while self.alive:
            message = self.inbox.get()
            if isinstance(message, Give):
                self._read(message.task, tasks)
            elif isinstance(message, Answer):
                task, content = tasks[message.id]
                if message.run:
                    self._transcribe(task, content, len(tasks))
                del tasks[message.id]

    def _read(self, task: Task, tasks: dict[int, tuple[Task, str]]) -> None:
        try:
            self.fails(task.source)
            stamp, content = Stamp.of_status(os.stat(task.source)), content_of(task.source)
        except Exception as error:  # as in a worker: whatever it is, the runner is told
            self._say(Failed(task.id, *kind_of(error)))
            return
        tasks[task.id] = task, content
        self._say(Read(task.id, content, stamp))

    def _transcribe(self, task: Task, content: str, n: int) -> None:
        self._say(Begun(task.id, 3.0))
        self.company.append(n)
        if self.dies_of(task.source):
            self.kill()
            return
        time.sleep(self.seconds)
        if self.alive:
            self.transcribed.append(task.source)
        found = {
            "transcript": transcript_of(content, self.n_segments(task.source)),
            "report": {"findings": []},
            "warnings": [],
        }
        self.n_done += 1
        self._say(Done(task.id, found, 3.0, 0.1, self.memory, 3.0 * self.n_done, 4.0 * self.n_done))  # a quarter idle


class Scene:
    """A job of small files in a folder, and what its workers transcribed."""

    def __init__(self, folder: Path, n: int = 0) -> None:
        self.inputs, self.out = folder / "in", folder / "out"
        self.inputs.mkdir(exist_ok=True, parents=True)
        self.out.mkdir(exist_ok=True, parents=True)
        for i in range(n):
            self.add(f"{i:03}.wav", f"sound {i}")
        self.transcribed: list[str] = []
        self.workers: list[FakeWorker] = []
        self.recipe = RECIPE

    def add(self, name: str, content: str) -> Path:
        path = self.inputs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return path

    @contextmanager
    def runner(
        self, formats: Iterable[str] = ("txt", "json"), n_workers: int = 1, of_worker: dict[str, Any] | None = None,
        retry: bool = False, check_content: bool = False, **options: Any,
    ) -> Generator[Runner, None, None]:  # fmt: skip
        """Plan a run as `Job` does, and give its runner."""
        how = JobOptions(output_format=tuple(formats), min_free_space=0.0, **options)
        outputs, store = Outputs(self.out, how.formats()), JobStore(self.out, how.part())
        presence = Presence(store.folder / "runners", self.recipe.to_json())

        def launch(number: int, events: Any) -> FakeWorker:
            worker = FakeWorker(str(number), events, transcribed=self.transcribed, **(of_worker or {}))
            self.workers.append(worker)
            return worker

        try:
            store.recover(presence.is_alive)
            self.planned = store.plan(
                find([self.inputs], str(self.out)), self.recipe.digest, order=how.order, retry=retry,
                check_content=check_content, endings=outputs.endings, layout=outputs.layout_digest,
            )  # fmt: skip
            yield Runner(store, outputs, presence, how, launch, n_workers)
        finally:
            presence.leave()
            store.close()

    def run(self, **options: Any) -> list[Ended]:
        """Run to the end."""
        with self.runner(**options) as runner:
            return list(runner.run())

    def states(self) -> dict[str, str]:
        store = JobStore(self.out)
        found = {os.path.relpath(one.source, self.inputs): one.state for one in store.recordings()}
        store.close()
        return found

    def files(self) -> dict[str, bytes]:
        """Every output by its name; the job's own files are none."""
        paths = [p for p in self.out.rglob("*") if p.is_file() and ".sotto" not in p.parts]
        return {str(p.relative_to(self.out)): p.read_bytes() for p in paths}
