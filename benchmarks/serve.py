"""`whisper serve` under load, on loopback: requests a second, p50 and p95 for short clips, and `/health` meanwhile.

    python -m benchmarks.serve --model base --seconds 40 --output serve.json

A server of its own is started. From each number of clients, each of which sends its next request when the last one is
answered, requests are counted for some seconds; latencies are those of requests that began and ended within them.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import statistics
import subprocess
import sys
import threading
import time
import wave
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np

from whisper.media import reader

SAMPLE = Path(__file__).parents[1] / "examples" / "sample.flac"
HEALTH_PAUSE = 0.02  # seconds between two calls of /health


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="base")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--seconds", type=float, default=40, help="for each number of clients")
    parser.add_argument("--clip", type=float, default=5, help="seconds of sound of a request")
    parser.add_argument("--audio", default=str(SAMPLE), help="the recording of which each request sends the beginning")
    parser.add_argument("--output", help="file of the results, as JSON")
    given = parser.parse_args()
    body = clip(given.audio, given.clip)
    found = []
    print("clients  requests/s   p50 ms   p95 ms   failed   /health p50 ms   p99 ms")
    with serving(given.model, max(given.clients)) as address:
        measure(address, body, 1, min(given.seconds, 3))  # warms up
        for n_clients in given.clients:
            row = measure(address, body, n_clients, given.seconds)
            found.append(row)
            print(
                f"{n_clients:7d} {row['requests_per_s']:11.2f} {row['p50_ms']:8.0f} {row['p95_ms']:8.0f} "
                f"{row['failed']:8d} {row['health_p50_ms']:16.1f} {row['health_p99_ms']:8.1f}",
                flush=True,
            )
            if given.output:
                text = json.dumps({"model": given.model, "clip_s": given.clip, "rows": found}, indent=1)
                Path(given.output).write_text(text, encoding="utf-8")


def clip(path: str, seconds: float) -> bytes:
    """Return the beginning of a recording as a WAV file; it is repeated where it is shorter."""
    samples = np.resize(reader.decode(path, 16000), int(16000 * seconds))
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(16000)
        writer.writeframes(samples.tobytes())
    return file.getvalue()


@contextmanager
def serving(model: str, n_clients: int) -> Iterator[str]:
    """Run the server on a free port; gives its address."""
    flags = ["--model", model, "--port", "0", "--max_queue", str(n_clients)]
    process = subprocess.Popen([sys.executable, "-m", "whisper", "serve", *flags], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    address = ""
    try:
        for line in process.stderr:
            if matched := re.search(r"running on (https?://[\d.:]+)", line):
                address = matched[1]
            if '"message": "ready"' in line:
                break
        else:
            raise SystemExit("the server did not start")
        rest = threading.Thread(target=process.stderr.read, daemon=True)
        rest.start()
        yield address
    finally:
        process.terminate()
        process.wait(60)


def measure(address: str, body: bytes, n_clients: int, seconds: float) -> dict[str, Any]:
    """Send requests from so many clients for so long."""
    latencies: list[float] = []
    failed: list[int] = []
    until = time.monotonic() + seconds

    def ask() -> None:
        with httpx.Client(timeout=600) as client:
            while (started := time.monotonic()) < until:
                files = {"file": ("clip.wav", body)}
                data = {"model": "whisper-1", "language": "en"}
                answer = client.post(address + "/v1/audio/transcriptions", data=data, files=files)
                if answer.status_code != 200:
                    failed.append(answer.status_code)
                elif time.monotonic() < until:
                    latencies.append(time.monotonic() - started)

    threads = [threading.Thread(target=ask) for _ in range(n_clients)]
    with ProcessPoolExecutor(1, get_context("spawn")) as other:  # the clients' threads must not slow it down
        health = other.submit(ask_health, address, seconds)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        answered = health.result()
    return {
        "clients": n_clients,
        "requests_per_s": len(latencies) / seconds,
        "p50_ms": 1e3 * quantile(latencies, 50),
        "p95_ms": 1e3 * quantile(latencies, 95),
        "failed": len(failed),
        "health_p50_ms": 1e3 * quantile(answered, 50),
        "health_p99_ms": 1e3 * quantile(answered, 99),
    }


def ask_health(address: str, seconds: float) -> list[float]:
    """Ask for ``/health`` again and again for so long; return the seconds that each answer took."""
    found: list[float] = []
    until = time.monotonic() + seconds
    with httpx.Client(timeout=60) as client:
        while (started := time.monotonic()) < until:
            client.get(address + "/health").raise_for_status()
            found.append(time.monotonic() - started)
            time.sleep(HEALTH_PAUSE)
    return found


def quantile(values: list[float], percent: int) -> float:
    """Return a percentile; not a number where there are fewer than two values."""
    return statistics.quantiles(values, n=100)[percent - 1] if len(values) > 1 else float("nan")


if __name__ == "__main__":
    main()
