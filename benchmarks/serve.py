#!/usr/bin/env python3
"""`whisper serve` beside other servers, on loopback: requests a second, latencies of short clips, and `/health`.

    scripts/peers whisper.cpp-server speaches
    python benchmarks/serve.py --audio RECORDING_OR_FOLDER ... --output serve.json --plot docs/serve.png

The servers run one after the other, each with the same weights in the precision that suits it best here, and the same
threads. Each number of clients sends clips for some seconds, every client its next one when the last is answered, and
then waits for what is under way; what a client still waits for after `--most` seconds counts as answered then, so that
its latency is too low, and the row is marked. Meanwhile another process asks for `/health`. At last one client sends
its clips while the server is busy with a recording of three hours. With the defaults it takes about six minutes, on a
machine that does nothing else; or in parts (``--servers``) with one ``--output``, which keeps what it has of others.
Printed is the table of docs/serve.md; the last line is one JSON object.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import ssl
import statistics
import sys
import tempfile
import threading
import time
import wave
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from serve_rivals import CONTESTANTS, Contestant, serving, weights_of, words_of  # noqa: E402

from whisper.device.time_slice import have_turns_soon  # noqa: E402

RATE = 16000
SAMPLE = ROOT / "examples" / "sample.flac"
SUFFIXES = (".flac", ".wav", ".mp3", ".ogg", ".opus", ".m4a")
N_CLIPS = 16  # different ones, so that no server is helped by having heard a clip before
TLS = ssl.create_default_context()  # unused, but a client that makes its own takes 20 ms of the servers' processor
HEALTH_PAUSE = 0.02  # seconds between two calls of /health
HEALTH_MOST = 60.0  # seconds that an answer is waited for
HEAD_START = 5.0  # seconds that the long recording is under way before the first clip
HEAD = """\
| server | clients | answers a second | p50, s | p95, s | failed | given up | words | `/health` p50, ms | p99, ms |
|---|---|---|---|---|---|---|---|---|---|"""
COLOURS = {"sotto": "#1f6fb4", "sotto, 5 beams": "#7fb2da", "whisper.cpp": "#d9822b", "speaches, 5 beams": "#4f9d69"}


def main() -> None:
    """Measure, and print a table."""
    given = arguments()
    contestants = [one for one in CONTESTANTS if one.name in given.servers]
    for one in contestants:
        if not one.is_there:
            raise SystemExit(f"{one.name} is not here: scripts/peers {one.peer}")
    clips = clips_of(given.audio, given.clip)
    results = earlier(given)
    weights_of(given.model, contestants, given.cache)
    print(HEAD)
    with long_recording(given.audio, given.long_hours) as long:
        for one in contestants:
            with serving(one, given.model, given.threads, given.cache) as address:
                results["servers"][one.name] = measure(one, address, clips, long, given)
            if given.output:
                Path(given.output).write_text(json.dumps(results, indent=1), encoding="utf-8")
    if given.plot:
        plot(results, given.plot)
    print(json.dumps(results))


def earlier(given: argparse.Namespace) -> dict[str, Any]:
    """Return the results of other servers that the output file has from an earlier run like this one; or none."""
    results: dict[str, Any] = {"model": given.model, "clip_s": given.clip, "threads": given.threads, "servers": {}}
    if given.output and Path(given.output).exists():
        known = json.loads(Path(given.output).read_text(encoding="utf-8"))
        if {**known, "servers": {}} != results:
            raise SystemExit(f"{given.output} is of another model, clip or number of threads: give another file")
        results["servers"] = known["servers"]
    return results


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [one.name for one in CONTESTANTS]
    here = [one.name for one in CONTESTANTS if one.is_there]
    parser.add_argument("--servers", nargs="+", choices=names, default=here, help="default: those that are installed")
    parser.add_argument("--model", default="base")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--seconds", type=float, default=7, help="for each number of clients")
    parser.add_argument("--most", type=float, default=40, help="seconds after which clients give up")
    parser.add_argument("--clip", type=float, default=5, help="seconds of sound of a request")
    parser.add_argument("--long_hours", type=float, default=3, help="of the long recording; 0 for none")
    parser.add_argument("--audio", nargs="+", default=[str(SAMPLE)], help="recordings, or folders of them")
    parser.add_argument("--cache", type=Path, default=ROOT / ".venv-peers" / "serve-weights", help="for the weights")
    parser.add_argument("--output", help="file of the results, as JSON")
    parser.add_argument("--plot", type=Path, help="file of the picture")
    return parser.parse_args()


# ---------------------------------------------------------------------------------------------------------
# Sound
# ---------------------------------------------------------------------------------------------------------


def clips_of(paths: Sequence[str], seconds: float) -> list[bytes]:
    """Return pieces of recordings as WAV files, at most one of each recording where there are several."""
    length, found = int(RATE * seconds), []
    files = [file for path in map(Path, paths) for file in _files_of(path)]
    for file in files:
        samples = decoded(file)
        starts = range(0, max(len(samples) - length, 0) + 1, length)
        found += [as_wav(np.resize(samples[start : start + length], length)) for start in starts[:N_CLIPS]][
            : None if len(files) == 1 else 1
        ]
        if len(found) >= N_CLIPS:
            break
    return found[:N_CLIPS]


def _files_of(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES) if path.is_dir() else [path]


def decoded(path: Path) -> np.ndarray[Any, np.dtype[np.int16]]:
    """Return the samples of a recording, int16 at 16 kHz."""
    from whisper.media import reader

    return reader.decode(str(path), RATE)


def as_wav(samples: np.ndarray[Any, Any]) -> bytes:
    """Return samples as a WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(RATE)
        writer.writeframes(samples.tobytes())
    return file.getvalue()


@contextmanager
def long_recording(paths: Sequence[str], hours: float) -> Iterator[Path | None]:
    """Write a recording of some hours: the given ones again and again."""
    if not hours:
        yield None
        return
    files = [file for path in map(Path, paths) for file in _files_of(path)]
    samples = np.concatenate([decoded(file) for file in files[: 4 * N_CLIPS]])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.wav"
        path.write_bytes(as_wav(np.resize(samples, int(hours * 3600 * RATE))))
        yield path


# ---------------------------------------------------------------------------------------------------------
# Clients
# ---------------------------------------------------------------------------------------------------------


@dataclass
class Answers:
    """What the clients of one load have seen."""

    latencies: list[float] = field(default_factory=list)  # seconds
    words: int = 0
    failed: int = 0
    waiting: int = 0  # given up


class Load:
    """Clients that send clips for some seconds, and wait for what is under way."""

    def __init__(self, one: Contestant, address: str, clips: Sequence[bytes], seconds: float, most: float) -> None:
        self.one, self.url = one, address + one.path
        self._clips = itertools.cycle(clips)
        self._lock = threading.Lock()
        self.answers = Answers()
        self.begun = time.monotonic()
        self._until, self._last = self.begun + seconds, self.begun + most

    def run(self, n_clients: int) -> float:
        """Return the seconds until the last answer."""
        threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(n_clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.monotonic() - self.begun

    def _ask(self) -> None:
        """Send one clip, and further ones until the time is over."""
        while True:
            self._ask_once()
            if time.monotonic() >= self._until:
                return

    def _ask_once(self) -> None:
        with self._lock:
            clip = next(self._clips)
        started = time.monotonic()
        try:
            with httpx.Client(timeout=max(self._last - started, 0.1), verify=TLS) as client:
                answer = client.post(self.url, data=self.one.fields, files={"file": ("clip.wav", clip)})
        except httpx.TimeoutException:
            answer = None
        except httpx.TransportError:
            with self._lock:
                self.answers.failed += 1
            return
        self._note(answer, time.monotonic() - started)

    def _note(self, answer: httpx.Response | None, seconds: float) -> None:
        with self._lock:
            if answer is not None and answer.status_code != 200:
                self.answers.failed += 1
                return
            self.answers.latencies.append(seconds)
            if answer is None:
                self.answers.waiting += 1
            else:
                self.answers.words += words_of(answer.json()["text"])


def measure(
    one: Contestant, address: str, clips: Sequence[bytes], long: Path | None, given: argparse.Namespace
) -> list[dict[str, Any]]:
    """Measure one server under all loads; returns a row for each."""
    Load(one, address, clips, 2, given.most).run(1)  # warms up
    rows = []
    for n_clients in given.clients:
        rows.append(one_load(one, address, clips, n_clients, given))
        print(line_of(one.name, rows[-1]), flush=True)
    if long is not None:
        sender = threading.Thread(target=send_long, args=(one, address, long), daemon=True)
        sender.start()
        time.sleep(HEAD_START)
        rows.append(one_load(one, address, clips, 1, given, most=2 * given.seconds, beside=given.long_hours))
        print(line_of(one.name, rows[-1]), flush=True)
    return rows


def one_load(
    one: Contestant,
    address: str,
    clips: Sequence[bytes],
    n_clients: int,
    given: argparse.Namespace,
    most: float | None = None,
    beside: float = 0,
) -> dict[str, Any]:
    """Send clips from so many clients; returns what was seen."""
    with ProcessPoolExecutor(1, get_context("spawn")) as other:  # the clients' threads must not slow it down
        other.submit(os.getpid).result()  # it is there
        health = other.submit(ask_health, address, given.seconds)
        load = Load(one, address, clips, given.seconds, most or given.most)
        seconds = load.run(n_clients)
        healthy = health.result()
    seen = load.answers
    n = len(seen.latencies) - seen.waiting
    return {
        "clients": n_clients,
        "beside_hours": beside,
        "requests_per_s": n / seconds,
        "p50_ms": 1e3 * quantile(seen.latencies, 50),
        "p95_ms": 1e3 * quantile(seen.latencies, 95),
        "answered": n,
        "failed": seen.failed,
        "waiting": seen.waiting,
        "words_per_answer": seen.words / n if n else float("nan"),
        "health_p50_ms": 1e3 * quantile(healthy, 50),
        "health_p99_ms": 1e3 * quantile(healthy, 99),
    }


def send_long(one: Contestant, address: str, path: Path) -> None:
    """Send the long recording; its answer is not waited for: the server is ended before."""
    with path.open("rb") as file, httpx.Client(timeout=None) as client:
        try:
            client.post(address + one.path, data=one.fields, files={"file": ("long.wav", file)})
        except httpx.TransportError:
            return


def ask_health(address: str, seconds: float) -> list[float]:
    """Ask for ``/health`` again and again for so long; return the seconds that each answer took, or was waited for.

    Who asks has a short time slice, as it would have a machine of its own: the time until the clients on this one let
    it look at an answer is not the server's.
    """
    have_turns_soon()
    found: list[float] = []
    until = time.monotonic() + seconds
    with httpx.Client(timeout=HEALTH_MOST) as client:
        while (started := time.monotonic()) < until:
            with suppress(httpx.TimeoutException):
                client.get(address + "/health").raise_for_status()
            found.append(time.monotonic() - started)
            time.sleep(HEALTH_PAUSE)
    return found


def quantile(values: Sequence[float], percent: int) -> float:
    """Return a percentile; of one value, that one; not a number where there is none."""
    if len(values) < 2:
        return values[0] if values else float("nan")
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


# ---------------------------------------------------------------------------------------------------------
# Told to people
# ---------------------------------------------------------------------------------------------------------


def line_of(name: str, row: dict[str, Any]) -> str:
    """Return a row of the table; latencies are lower bounds where clients gave up."""
    clients = f"{row['clients']}, beside {row['beside_hours']:g} h" if row["beside_hours"] else str(row["clients"])
    mark = "> " if row["waiting"] else ""
    return (
        f"| {name} | {clients} | {row['requests_per_s']:.2f} | {mark}{row['p50_ms'] / 1e3:.2f} "
        f"| {mark}{row['p95_ms'] / 1e3:.2f} | {row['failed']} | {row['waiting']} | {row['words_per_answer']:.1f} "
        f"| {row['health_p50_ms']:.1f} | {row['health_p99_ms']:.1f} |"
    )


def plot(results: dict[str, Any], path: Path) -> None:
    """Draw requests a second, and the latency of nineteen in twenty, by the number of clients."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (rate, latency) = plt.subplots(1, 2, figsize=(9.6, 3.9), layout="constrained", facecolor="white")
    for name, rows in results["servers"].items():
        loads = [row for row in rows if not row["beside_hours"]]
        clients = [str(row["clients"]) for row in loads]
        for axes, what, scale in ((rate, "requests_per_s", 1), (latency, "p95_ms", 1e-3)):
            values = [row[what] * scale for row in loads]
            axes.plot(clients, values, marker="o", color=COLOURS[name], label=name, linewidth=2, markersize=5)
    latency.set_yscale("log")
    latency.yaxis.set_major_formatter("{x:g}")
    clip = f"clips of {results['clip_s']:g} s, {results['model']}, {results['threads']} threads"
    for axes, title in ((rate, "answers a second"), (latency, "seconds for 95 % of the answers")):
        axes.set_title(title, fontsize=10, loc="left")
        axes.set_xlabel(f"clients at once ({clip})", fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.grid(axis="y", color="0.9", linewidth=0.8)
        axes.set_axisbelow(True)
    rate.set_ylim(bottom=0)
    latency.legend(frameon=False, fontsize=8, loc="upper left")
    figure.savefig(path, dpi=160)
    print(f"drew {path}")


if __name__ == "__main__":
    main()
