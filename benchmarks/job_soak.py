#!/usr/bin/env python3
"""A soak of `whisper jobs`: thousands of real and broken recordings, each of which must end once, as what it is.

    python benchmarks/job_soak.py FOLDER_OF_CLIPS --n 2000 --model tiny.en
    python benchmarks/job_soak.py --n 200 --model nano        # of noise, where there are no clips

Clips of at most three seconds are written again and again, each time with other samples, as WAV, FLAC, MP3, Opus and
AAC. One in eight is broken, in every way of `BROKEN`; some grow while the job runs, some are copies of others,
and the worker is killed in between. In the end every recording is in one state, with the files of that state and no
others, what could be read is done, and a further run finds nothing to do. Told is the memory of the worker and of the
runner for every hundred recordings; the last line is one JSON object.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import av  # noqa: E402
import numpy as np  # noqa: E402

from whisper.jobs.content import content_of  # noqa: E402
from whisper.jobs.job import Job  # noqa: E402
from whisper.jobs.options import JobOptions  # noqa: E402
from whisper.jobs.running.messages import Done  # noqa: E402
from whisper.jobs.running.worker import memory_of_process  # noqa: E402
from whisper.jobs.store import JobStore  # noqa: E402

RATE, LONGEST = 16000, 3 * 16000
GROWS_S = 8.0  # seconds for which some recordings grow
CODECS = {"flac": "flac", "mp3": "mp3", "ogg": "libopus", "m4a": "aac"}
OPTIONS = {"language": "en", "temperature": 0.0}


# ---------------------------------------------------------------------------------------------------------
# Recordings
# ---------------------------------------------------------------------------------------------------------


def wav(samples: np.ndarray, *, n_channels: int = 1, rate: int = RATE, claims: float = 1.0) -> bytes:
    """WAV of int16 or float32; its header claims so many times the bytes that there are."""
    data = samples.tobytes()
    kind, width = (3, 4) if samples.dtype == np.float32 else (1, 2)
    size = min(int(len(data) * claims), 2**32 - 37)
    head = np.array(
        [16, kind | n_channels << 16, rate, rate * n_channels * width, n_channels * width | 8 * width << 16]
    )
    return (b"RIFF" + (36 + size).to_bytes(4, "little") + b"WAVEfmt " + head.astype("<u4").tobytes()
            + b"data" + size.to_bytes(4, "little") + data)  # fmt: skip


def encoded(samples: np.ndarray, suffix: str) -> bytes:
    """Samples in a compressed container."""
    file = io.BytesIO()
    with av.open(file, "w", format={"m4a": "ipod"}.get(suffix, suffix)) as container:
        stream = container.add_stream(CODECS[suffix], rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], "s16", "mono")
        frame.sample_rate, frame.pts = RATE, 0
        resampler = av.AudioResampler(stream.format, "mono", RATE)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return file.getvalue()


def picture_alone() -> bytes:
    """A film without sound."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 64
        for _ in range(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24")))
        container.mux(stream.encode(None))
    return file.getvalue()


def with_nan(samples: np.ndarray) -> np.ndarray:
    """The samples as float32, one of them no number and one infinite."""
    changed = samples.astype(np.float32) / 32768
    changed[len(changed) // 2], changed[len(changed) // 3] = np.nan, np.inf
    return changed


AUDIO, DONE = ("audio",), ("done",)
# What is made of a clip, its suffix, and as what it may end. A file that is cut off is read as far as it goes.
BROKEN: dict[str, tuple[str, tuple[str, ...], Callable[[np.ndarray, random.Random], bytes]]] = {
    "nothing in it": (".wav", AUDIO, lambda x, r: b""),
    "a text": (".mp3", AUDIO, lambda x, r: b"<html><body>404 Not Found %d</body></html>\n" % r.getrandbits(60)),
    "random bytes": (".ogg", AUDIO, lambda x, r: r.randbytes(4000)),
    "AAC cut off": (".m4a", AUDIO, lambda x, r: (data := encoded(x, "m4a"))[: len(data) // 2]),
    "no sound track": (".mp4", AUDIO, lambda x, r: picture_alone() + r.randbytes(8)),
    "a header alone": (".wav", (*DONE, *AUDIO), lambda x, r: wav(x[:0])),
    "half a header": (".flac", AUDIO, lambda x, r: encoded(x, "flac")[: r.randint(5, 30)]),
    "no channels": (".wav", AUDIO, lambda x, r: wav(x, n_channels=0)),
    "FLAC cut off": (".flac", (*DONE, *AUDIO), lambda x, r: (data := encoded(x, "flac"))[: len(data) * 2 // 3]),
    "MP3 cut off": (".mp3", DONE, lambda x, r: (data := encoded(x, "mp3"))[: len(data) // 2]),
    "claims half": (".wav", DONE, lambda x, r: wav(x, claims=0.5)),
    "claims double": (".wav", DONE, lambda x, r: wav(x, claims=2)),
    "claims four gigabytes": (".wav", DONE, lambda x, r: wav(x, claims=1e6)),
    "bytes damaged": (".mp3", (*DONE, *AUDIO), lambda x, r: damaged(encoded(x, "mp3"), r)),
    "no numbers": (".wav", DONE, lambda x, r: wav(with_nan(x))),
    "one sample": (".wav", DONE, lambda x, r: wav(x[:1] + np.int16(r.randint(1, 999)))),
    "ten channels": (".wav", DONE, lambda x, r: wav(np.repeat(x, 10), n_channels=10)),
    "wrong suffix": (".mp3", DONE, lambda x, r: wav(x)),
    "minutes of silence": (".flac", DONE, lambda x, r: encoded(np.pad(x, (0, RATE * 120)), "flac")),
}  # fmt: skip


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Some bytes replaced."""
    changed = bytearray(data)
    for _ in range(20):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


@dataclass
class Made:
    """The recordings that were made: by path, the kind and as what it may end; and those that grow."""

    kinds: dict[str, str] = field(default_factory=dict)
    endings: dict[str, tuple[str, ...]] = field(default_factory=dict)
    growing: list[str] = field(default_factory=list)

    def add(self, path: str, kind: str, endings: tuple[str, ...], content: bytes | None) -> None:
        """Write one, where it is not there from a soak that was killed."""
        if content is not None and not os.path.exists(path):
            with open(path, "xb") as file:
                file.write(content)
        self.kinds[path], self.endings[path] = kind, endings


def clips_of(folders: list[str]) -> list[np.ndarray]:
    """Short real recordings, int16; noise where no folder is given."""
    from whisper.audio import load_audio

    found = sorted(
        p for f in folders for p in Path(f).rglob("*") if p.suffix in (".wav", ".flac", ".mp3", ".opus", ".ogg")
    )
    clips = [(load_audio(str(p))[:LONGEST] * 32767).astype(np.int16) for p in found if p.stat().st_size < 120_000]
    noise = np.random.default_rng(0).normal(0, 800, (8, LONGEST))
    return [c for c in clips if len(c) >= RATE] or list(noise.astype(np.int16))


def make(folder: Path, n: int, clips: list[np.ndarray]) -> Made:
    """Write `n` recordings."""
    made, chance, names = Made(), random.Random(0), list(BROKEN)
    for i in range(n):
        clip = clips[i % len(clips)]
        x = (clip + np.random.default_rng(i).integers(-2, 3, len(clip))).astype(np.int16)  # other content, same words
        stem = str(folder / f"{i:05}")
        if i % 8 == 3:
            kind = names[i // 8 % len(names)]
            suffix, endings, content = BROKEN[kind]
            made.add(stem + suffix, kind, endings, content(x, chance))
        elif i % 50 == 9:
            made.add(stem + ".wav", "grows", ("done", "changing"), wav(x, claims=0.5))
            made.growing.append(stem + ".wav")
        elif i % 50 == 19:
            with suppress(FileExistsError):
                os.symlink(folder / f"nothing-{i}", stem + ".wav")
            made.add(stem + ".wav", "leads nowhere", ("missing",), None)
        elif i % 50 == 29 and i:
            twin = next(p for p, kind in made.kinds.items() if kind == "real")
            made.add(stem + os.path.splitext(twin)[1], "a copy", DONE, Path(twin).read_bytes())
        elif i % 50 == 49:
            made.add(stem + ".wav", "may not be read", DONE if os.geteuid() == 0 else ("permission",), wav(x))
            os.chmod(stem + ".wav", 0)
        else:
            suffix = [*CODECS][i // 5 % len(CODECS)] if i % 5 == 0 else "wav"
            made.add(f"{stem}.{suffix}", "real", DONE, wav(x) if suffix == "wav" else encoded(x, suffix))
    return made


@contextmanager
def growing(paths: list[str], seconds: float = GROWS_S) -> Iterator[None]:
    """Append to files for a while."""
    ended, until = threading.Event(), time.monotonic() + seconds

    def grow() -> None:
        while time.monotonic() < until and not ended.wait(0.05):
            for path in paths:
                with open(path, "ab") as file:
                    file.write(bytes(320))

    thread = threading.Thread(target=grow)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


# ---------------------------------------------------------------------------------------------------------
# The job
# ---------------------------------------------------------------------------------------------------------


def soak(folder: Path, n: int, clips: list[np.ndarray], model: str, kills: list[int]) -> dict[str, Any]:
    """Make recordings, run the job over them, and check what came of each."""
    inputs, out = folder / "in", folder / "out"
    inputs.mkdir(parents=True, exist_ok=True)
    made, begun = make(inputs, n, clips), time.time()
    with growing(made.growing):
        first, memory = run(inputs, out, model, kills)
    seconds = time.time() - begun
    again, _ = run(inputs, out, model, [], retry=True)  # what was growing is whole by now
    third, _ = run(inputs, out, model, [])
    with closing(JobStore(out)) as store:
        ends = {one.source: (one.state, one.kind) for one in store.recordings()}
        n_results = len(store.results_after(0, 10 * n))
    wrong = [f"{path}: lost" for path in made.kinds.keys() - ends.keys()]
    wrong += [f"{path}: told {n} times" for path, n in Counter(first).items() if n > 1]
    wrong += [f"{path}: done again" for path in again if made.endings[path] == DONE]
    wrong += [f"{path}: a third time" for path in third]
    for path, (state, kind) in ends.items():
        if (kind or state) not in made.endings[path] or (made.kinds[path] == "grows" and state != "done"):
            wrong.append(f"{path}, {made.kinds[path]}: {state} {kind}")
        if has_files(inputs, out, path) != (state == "done"):
            wrong.append(f"{path}: its files")
    contents = {content_of(path) for path, (state, _) in ends.items() if state == "done"}
    return {"recordings": n, "in this run": len(first), "seconds": round(seconds),
            "ends": Counter(kind or state for state, kind in ends.values()),
            "contents that are done": len(contents), "results": n_results, "wrong": wrong, **told(memory)}  # fmt: skip


def has_files(inputs: Path, out: Path, path: str) -> bool:
    """Whether a recording has a file of text; names that are given twice keep their suffix."""
    name = os.path.relpath(path, inputs)
    return any((out / f"{stem}.txt").exists() for stem in (name, os.path.splitext(name)[0]))


def run(
    inputs: Path, out: Path, model: str, kills: list[int], **options: Any
) -> tuple[list[str], list[tuple[int, int]]]:
    """Run the job; its worker is killed after so many recordings. Returns what ended, and memory of both processes."""
    how = JobOptions(output_format=("txt", "json"), **options)
    ended: list[str] = []
    memory: list[tuple[int, int]] = []
    with (
        Job([inputs], out, model=model, model_options={"device": "cpu"}, options=OPTIONS, how=how) as job,
        job.running() as runner,
        open(inputs.parent / f"memory-{os.getpid()}.tsv", "a", encoding="ascii") as log,  # stays where this is killed
    ):
        handle = runner._handle

        def noted(slot: Any, message: object) -> Any:
            if isinstance(message, Done):
                memory.append((message.memory, memory_of_process()))
                print(*memory[-1], sep="\t", file=log, flush=True)
            return handle(slot, message)

        runner._handle = noted  # type: ignore[method-assign]
        for one in runner.run():
            ended.append(one.recording.source)
            if kills and len(ended) >= kills[0]:
                kills = kills[1:]
                for slot in runner._slots:
                    os.kill(slot.handle.pid, signal.SIGKILL)  # type: ignore[attr-defined]
    return ended, memory


def told(memory: list[tuple[int, int]]) -> dict[str, Any]:
    """Memory in megabytes for every hundred recordings, and its slope over the last two thirds."""
    found: dict[str, Any] = {}
    for number, name in enumerate(("worker", "runner")):
        values = [pair[number] / 1e6 for pair in memory]
        found[f"{name} MB"] = [round(statistics.median(values[i : i + 100])) for i in range(0, len(values), 100)]
        rest = values[len(values) // 3 :]
        if len(rest) > 2:
            slope = statistics.linear_regression(range(len(rest)), rest).slope
            found[f"{name} MB per 1,000"] = round(slope * 1000, 1)
    return found


def main() -> None:
    """Soak, and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", metavar="FOLDER", help="folders of short recordings")
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--kill", type=int, nargs="*", default=[50, 150], help="after so many the worker is killed")
    parser.add_argument("--folder", help="a folder that stays, with which a soak that was killed goes on")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        found = soak(Path(args.folder or temporary), args.n, clips_of(args.folders), args.model, args.kill)
    print(json.dumps(found))
    raise SystemExit(1 if found["wrong"] else 0)


if __name__ == "__main__":
    main()
