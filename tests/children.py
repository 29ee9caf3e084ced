"""Processes that fork, start others, kill them and end: ``python -m tests.children NAME`` plays some of these scenes.

In a process of their own, since what is tried here must not happen to the tests'. One that hangs is ended by an alarm,
with the stacks of all threads printed. What a child finds is compared with what its parent found, to the bit.
"""

from __future__ import annotations

import concurrent.futures
import copy
import faulthandler
import io
import multiprocessing
import os
import pickle
import random
import signal
import socket
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing
from torch.utils.data import DataLoader, Dataset

import whisper
from whisper.device import processes
from whisper.engine.engine import Engine, engine_for
from whisper.errors import CancelledError, DeviceError, ProcessError

from .runners import MockRunner

SAMPLE = str(Path(__file__).resolve().parent.parent / "examples" / "sample.flac")
PATIENCE = 50  # seconds for a child on a busy machine
WAYS: list[dict[str, Any]] = [
    {"word_timestamps": True},
    {"beam_size": 2},
    {"fp16": False},
    {"vad_filter": True},
]

model: Any = None  # a global, as programs have it


def sound() -> np.ndarray:
    return whisper.load_audio(SAMPLE)[16000:56000]


def read(way: int = 0, with_model: Any = None) -> Any:
    return whisper.transcribe(with_model or model, sound(), language="en", temperature=0.0, **WAYS[way])


def load() -> None:
    global model
    torch.set_num_threads(2)
    model = whisper.load_model("nano", device="cpu")


def in_child(work: Callable[[], Any], do_meanwhile: Callable[[], Any] = lambda: None) -> Any:
    """Fork, and return what `work` returns in the child; its error is raised here."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(PATIENCE)
        try:
            answer: Any = work()
        except BaseException as error:  # it is the answer, which the parent raises
            traceback.print_exc()
            answer = error
        os.write(writing, pickle.dumps(answer))
        os._exit(0)
    os.close(writing)
    do_meanwhile()
    with open(reading, "rb") as pipe:
        content = pipe.read()
    os.waitpid(pid, 0)
    assert content, "the child hangs, or died"
    answer = pickle.loads(content)
    if isinstance(answer, BaseException):
        raise answer
    return answer


@contextmanager
def threads_at_work(n: int = 2) -> Iterator[list[Any]]:
    """Threads that transcribe in this process for as long as the block takes; what goes wrong there is in the list."""
    wrong: list[Any] = []
    ending = threading.Event()
    expected = [read(way) for way in range(len(WAYS))]

    def go_on(first: int) -> None:
        way = first
        while not ending.is_set():
            try:
                found = whisper.transcribe(model, sound(), language="en", temperature=0.0, cancel=ending, **WAYS[way])
            except CancelledError:
                return
            except BaseException as error:  # the main thread asserts that there are none
                wrong.append(error)
                raise
            if found != expected[way]:
                wrong.append((way, found))
            way = (way + 1) % len(WAYS)

    threads = [threading.Thread(target=go_on, args=(i,)) for i in range(n)]
    for thread in threads:
        thread.start()
    try:
        yield wrong
    finally:
        ending.set()
        for thread in threads:
            thread.join()


# ---------------------------------------------------------------------------------------------------------
# Forks
# ---------------------------------------------------------------------------------------------------------


def fork_after_use() -> None:
    """Children, their children, from any thread; torch computes in them on as many threads as in the parent."""
    load()
    numbers = torch.randn(500, 500)
    expected, product = [read(way) for way in range(len(WAYS))], numbers @ numbers
    assert expected[0]["text"]

    def everything() -> Any:
        assert torch.equal(numbers @ numbers, product)
        assert torch.get_num_threads() == 2
        return [read(way) for way in range(len(WAYS))]

    def in_threads() -> Any:
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            return list(pool.map(read, range(len(WAYS))))

    assert in_child(everything) == expected
    assert in_child(lambda: in_child(read)) == expected[0], "a grandchild"
    assert in_child(in_threads) == expected
    assert read() == expected[0]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:  # this thread has OpenMP threads of its own
        assert pool.submit(lambda: (read(), in_child(read))).result() == (expected[0], expected[0])
    assert in_child(read) == expected[0]


def fork_as_threads_end() -> None:
    """A joined thread may still hold locks of C libraries: a fork waits for its end, and its OpenMP threads'."""
    load()
    expected = [read(0), read(1)]
    n_threads: list[int] = []

    def count() -> None:
        n_threads.append(len(os.listdir("/proc/self/task")) if sys.platform == "linux" else 0)

    assert in_child(read, count) == expected[0]
    for _ in range(8):
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            assert list(pool.map(read, [0, 1])) == expected
        assert in_child(read, count) == expected[0]
    assert len(set(n_threads)) == 1, n_threads


def fork_before_use() -> None:
    """A child of a process that has only loaded, and one that loads for itself."""
    load()

    def loads() -> Any:
        load()
        return read()

    assert in_child(read) == in_child(loads) == read()


def fork_in_the_middle() -> None:
    """Other threads transcribe: the children begin anew, and the parent does not notice."""
    load()
    expected = [read(way) for way in range(len(WAYS))]
    draw = random.Random(5)
    with threads_at_work() as wrong:
        for way in [0, 1, 2, 3, 0, 3]:
            time.sleep(draw.uniform(0, 0.2))
            assert in_child(lambda way=way: read(way)) == expected[way]
    assert not wrong


def fork_at_the_beginning() -> None:
    """Another thread is at its first transcription: it imports, packs weights, makes the tokenizer."""
    load()
    draw = random.Random(6)
    found: list[Any] = []
    first = threading.Thread(target=lambda: found.append(read()))
    first.start()
    answers = []
    for _ in range(4):
        time.sleep(draw.uniform(0, 0.15))
        answers.append(in_child(read))
    first.join()
    assert answers == found * 4


def fork_inside_a_request() -> None:
    """A recording that is begun in one process cannot go on in two; whoever forks in between may begin another."""
    load()
    expected = read()
    segments = whisper.iter_segments(model, sound(), language="en", temperature=0.0, word_timestamps=True)
    first = next(segments)

    def goes_on() -> str:
        with pytest.raises(ProcessError) as caught:
            list(segments)
        assert read() == expected
        return str(caught.value)

    assert f"process {os.getpid()}" in in_child(goes_on)
    assert in_child(lambda: segments.close() or read()) == expected
    assert [first, *segments] == expected["segments"]

    from_inside: list[Any] = []

    class Asked:  # the caller's own function, in the middle of a transcription
        def is_set(self) -> bool:
            if not from_inside:
                from_inside.append(None)
                from_inside[0] = in_child(read)
            return False

    found = whisper.transcribe(model, sound(), language="en", temperature=0.0, word_timestamps=True, cancel=Asked())
    assert from_inside == [expected]
    assert found == expected


def limits_in_a_child() -> None:
    """What `configure` has set holds in children, and can be set there."""
    load()
    whisper.engine.configure(model, max_rows=3)
    expected = read()
    assert in_child(lambda: engine_for(model, True).scheduler.limits.max_rows) == 3
    assert in_child(lambda: whisper.engine.configure(model, max_rows=2) or read()) == expected


def old_openmp() -> None:
    """Where the threads cannot be ended before a fork, the child computes on one, and says so."""
    load()
    expected = read()
    processes._pauses = lambda: iter([processes._cannot_pause])

    def alone() -> Any:
        assert torch.get_num_threads() == 1
        return read()

    warnings.simplefilter("always")
    shown, warnings.showwarning = warnings.showwarning, lambda message, *_: heard.append(str(message))
    heard: list[str] = []
    found, answer = in_child(lambda: (heard, alone()))
    warnings.showwarning = shown
    assert answer == expected
    assert len(found) == 1
    assert "one thread" in found[0]
    assert torch.get_num_threads() == 2


def locks_and_imports() -> None:
    """A lock that a thread holds is open in the child; an import that a thread is at is waited for."""
    lock, again, held = processes.lock(), processes.rlock(), threading.Event()
    release = threading.Event()

    def hold() -> None:
        with lock, again:
            held.set()
            release.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    assert in_child(lambda: lock.acquire(timeout=5) and again.acquire(timeout=5))
    assert not lock.acquire(blocking=False)
    release.set()
    thread.join()

    folder = Path(sys.argv[2])
    (folder / "slowly.py").write_text("import time\ntime.sleep(1)\nwhole = True\n")
    sys.path.insert(0, str(folder))
    processes._IMPORTED_LATE |= {"slowly"}
    thread = threading.Thread(target=__import__, args=("slowly",))
    thread.start()
    while "slowly" not in sys.modules:
        time.sleep(0.001)
    assert in_child(lambda: __import__("slowly").whole)
    thread.join()


def cuda_in_a_child() -> None:
    """CUDA does not survive a fork: an error says so at once, wherever it would be used."""
    torch.cuda._is_in_bad_fork = lambda: True  # as torch knows it in the child of a process that has used CUDA
    with pytest.raises(DeviceError, match="spawn"):
        whisper.load_model("nano", device="cuda")
    with pytest.raises(DeviceError, match="spawn"):
        processes.check_device(torch.device("cuda", 0))
    load()
    assert read()["text"], "the CPU is there"


def engines_at_random() -> None:
    """An engine without weights: threads submit, cancel and wait at random, and the process forks meanwhile.

    Whatever is not cancelled ends as it would alone, all rows and windows are given back, and in the children what
    the parent has begun is an error at once.
    """
    from .engine.test_engine import Work, alone

    engine, draw, wrong = Engine(MockRunner(), max_rows=12), random.Random(7), []
    works = [Work(seed, n_windows=1 + seed % 3, n_parts=seed % 4 // 3 * 2) for seed in range(6)]
    expected = [alone(work) for work in works]

    def submit_and_wait(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(25):
            i = chance.randrange(len(works))
            handle = engine.submit(works[i].steps(), works[i].n_rows)
            if chance.random() < 0.3:
                threading.Timer(chance.uniform(0, 0.01), handle.cancel).start()
            try:
                if handle.result() != expected[i]:
                    wrong.append(i)
            except CancelledError:
                pass

    def child(handle: Any) -> Any:
        handle.cancel()  # the parent's, which does not notice
        for ask in (handle.result, lambda: next(iter(handle)), lambda: engine.submit(works[0].steps())):
            with pytest.raises(ProcessError):
                ask()
        return [Engine(MockRunner()).submit(work.steps(), work.n_rows).result() for work in works]

    threads = [threading.Thread(target=submit_and_wait, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(8):
        time.sleep(draw.uniform(0, 0.05))
        waiting = engine.submit(works[1].steps(), works[1].n_rows)
        assert repr(in_child(lambda handle=waiting: child(handle))) == repr(expected)
        assert waiting.result() == expected[1]
    for thread in threads:
        thread.join()
    assert not wrong
    assert not engine.runner.taken
    assert engine.core.is_idle


# ---------------------------------------------------------------------------------------------------------
# The ways of Python's library and of torch
# ---------------------------------------------------------------------------------------------------------


def read_with(handed: Any, way: int = 0) -> Any:
    torch.set_num_threads(2)
    return read(way, handed)


def load_and_read(way: int) -> Any:
    if model is None:
        load()
    return read(way)


def pools_by_fork() -> None:
    """`Pool`, `Process` and `ProcessPoolExecutor` with fork: the model as a global and as an argument."""
    load()
    expected = [read(way) for way in range(len(WAYS))]
    context = multiprocessing.get_context("fork")
    with context.Pool(2) as pool:
        assert pool.map_async(load_and_read, range(4)).get(PATIENCE) == expected
        assert pool.apply_async(read_with, (model,)).get(PATIENCE) == expected[0]
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        assert list(pool.map(load_and_read, range(4), timeout=PATIENCE)) == expected
    queue = context.SimpleQueue()
    daemon = context.Process(target=lambda: queue.put(read()), daemon=True)
    daemon.start()
    assert queue.get() == expected[0]
    daemon.join()
    assert read() == expected[0]


def pools_by(method: str) -> None:
    """Other processes are started anew: the model is pickled, or shared, or loaded there."""
    load()
    expected = [read(way) for way in range(2)]
    context = torch.multiprocessing.get_context(method)
    with context.Pool(1) as pool:
        assert pool.apply_async(read_with, (model,)).get(PATIENCE) == expected[0]
        assert pool.apply_async(read_with, (model.share_memory(), 1)).get(PATIENCE) == expected[1]
        assert pool.apply_async(load_and_read, (1,)).get(PATIENCE) == expected[1]
    assert read() == expected[0]


class Sounds(Dataset):  # type: ignore[type-arg]
    """Asks in its items for all that this package does with sound."""

    def __init__(self, handed: Any) -> None:
        self.model = handed

    def __len__(self) -> int:
        return 3

    def __getitem__(self, i: int) -> Any:
        mel = whisper.log_mel_spectrogram(SAMPLE)
        speech = whisper.transcribe(self.model, sound(), language="en", temperature=0.0, vad_filter=True)
        return mel.sum().item(), len(whisper.load_audio(SAMPLE)), speech["text"]


def loaders(method: str) -> None:
    """Workers of a `DataLoader`, which have a thread each."""
    load()
    data = Sounds(model)
    expected = [data[i] for i in range(len(data))]
    n_mels = len(expected)
    loader = DataLoader(
        data, batch_size=None, num_workers=1 + (method == "fork"), multiprocessing_context=method, timeout=PATIENCE
    )
    found = list(loader)
    assert [text for _, _, text in found] == [text for _, _, text in expected]
    assert np.allclose([mel for mel, _, _ in found], [mel for mel, _, _ in expected], rtol=1e-6)
    assert len(found) == n_mels
    assert data[0] == expected[0]


def copies() -> None:
    """`pickle`, `copy` and `torch.save`, of a model that has run or not, whose modules exist or not."""
    load()
    expected = read()
    fresh = whisper.load_model("nano", device="cpu")

    def through_torch(handed: Any) -> Any:
        file = io.BytesIO()
        torch.save(handed, file)
        file.seek(0)
        return torch.load(file, weights_only=False)

    for duplicate in (lambda m: pickle.loads(pickle.dumps(m)), copy.deepcopy, copy.copy, through_torch):
        assert read(0, duplicate(model)) == expected
        assert read(0, duplicate(whisper.load_model("nano", device="cpu"))) == expected
    assert fresh.encoder is not None
    assert read(0, copy.deepcopy(fresh)) == expected
    shared = fresh.share_memory()
    assert shared is fresh
    assert all(p.is_shared() for p in shared.parameters())
    assert read(0, shared) == expected
    assert in_child(lambda: read(0, shared)) == expected


# ---------------------------------------------------------------------------------------------------------
# Servers, signals, the end
# ---------------------------------------------------------------------------------------------------------


def serve(listening: socket.socket) -> None:
    """Answer each connection with a text, in a thread of its own."""

    def answer(connection: socket.socket) -> None:
        with connection:
            connection.sendall(read(connection.recv(1)[0])["text"].encode())

    while True:
        connection, _ = listening.accept()
        threading.Thread(target=answer, args=(connection,), daemon=True).start()


def ask(address: Any, way: int) -> str:
    with socket.create_connection(address, timeout=PATIENCE) as connection:
        connection.sendall(bytes([way]))
        return b"".join(iter(lambda: connection.recv(4096), b"")).decode()


def prefork_server() -> None:
    """A master that has used the model, and workers forked from it, with threads; one of them is killed."""
    load()
    expected = [read(way)["text"] for way in range(len(WAYS))]
    listening = socket.create_server(("127.0.0.1", 0))
    workers = []

    def start_a_worker() -> None:
        if not (pid := os.fork()):
            serve(listening)
        workers.append(pid)

    start_a_worker()
    start_a_worker()
    address = listening.getsockname()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda way: ask(address, way), [0, 1, 2, 3, 0, 1])) == [*expected, *expected[:2]]
    os.kill(workers[0], signal.SIGKILL)  # whatever it is at
    os.waitpid(workers.pop(0), 0)
    assert read()["text"] == expected[0]
    start_a_worker()
    assert [ask(address, way) for way in (3, 2, 1, 0)] == expected[::-1]
    for pid in workers:
        os.kill(pid, signal.SIGTERM)
        assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGTERM


def killed_in_the_middle() -> None:
    """A child that is killed while it transcribes leaves the parent alone, which transcribes, too."""
    load()
    with threads_at_work() as wrong:
        for seconds in (0.05, 0.3):
            if not (pid := os.fork()):
                while True:
                    read()
            time.sleep(seconds)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    assert not wrong


def interrupted() -> None:
    """Ctrl-C reaches the parent and its children, all of which are transcribing; all go on with something else."""
    load()
    expected = read()
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def until_interrupted() -> str:
        try:
            while True:
                read()
        except KeyboardInterrupt:
            return read()["text"]

    def interrupt_all() -> None:
        time.sleep(1.0)
        os.killpg(0, signal.SIGINT)

    os.setpgid(0, 0)
    threading.Thread(target=interrupt_all).start()
    assert in_child(until_interrupted, do_meanwhile=until_interrupted) == expected["text"]
    assert read() == expected


def daemon_threads() -> None:
    """Python ends while threads that it does not wait for transcribe, in every way."""
    load()

    def for_ever(way: int) -> None:
        while True:
            read(way)

    for way in range(3):
        threading.Thread(target=for_ever, args=(way,), daemon=True).start()
    time.sleep(float(sys.argv[2]))


# played one after the other in one process: what the first leaves behind the next has to live with
SCENES: dict[str, list[Callable[[], None]]] = {
    "forks": [
        fork_before_use,
        fork_after_use,
        fork_as_threads_end,
        fork_inside_a_request,
        limits_in_a_child,
        locks_and_imports,
    ],
    "forks beside threads": [
        engines_at_random,
        fork_at_the_beginning,
        fork_in_the_middle,
        killed_in_the_middle,
        interrupted,
    ],
    "workers": [pools_by_fork, lambda: loaders("fork"), prefork_server],
    "spawn": [lambda: pools_by("spawn"), lambda: loaders("spawn")],
    "forkserver": [lambda: pools_by("forkserver")],
    "copies": [copies],
    "engines": [engines_at_random],
    "cannot": [cuda_in_a_child, old_openmp],
    "daemon threads": [daemon_threads],
}

if __name__ == "__main__":
    faulthandler.register(signal.SIGALRM, chain=True)  # shows the stacks, then ends this process or a child
    signal.alarm(2 * PATIENCE)
    warnings.simplefilter("ignore")
    for scene in SCENES[sys.argv[1]]:
        started = time.monotonic()
        scene()
        print(f"{getattr(scene, '__name__', scene)}: {time.monotonic() - started:.1f} s", file=sys.stderr, flush=True)
    print("ok", flush=True)
