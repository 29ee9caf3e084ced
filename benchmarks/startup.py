#!/usr/bin/env python3
"""From a command to the first line of its transcript, and the most memory that it takes, beside other implementations.

    scripts/peers openai-whisper faster-whisper
    python benchmarks/startup.py talk.wav --models tiny.en=tiny.en.pt,tiny.en-ct2 base=base.pt,base-ct2

Each start is a process of its own, with a warm disk: one start of each is not counted. All run in turn (A B C A B C),
so that a machine whose speed drifts treats them alike. A table gives medians over the rounds, and of the first line the
median of the paired ratios to the original's; the last line is one JSON object.

  sotto         whisper FILE, its packed weights on disk from the first start
  sotto-first   the same, with an empty folder of packed weights at each start: it packs and writes them
  sotto-whole   the same with SOTTO_PACKED=0: with torch, and packing at every start
  openai        openai-whisper, which reads the sound as an array, as its command needs ffmpeg
  faster        faster-whisper, int8, as it has no command

With `--greedy` all decode once, at temperature 0 and without beams: drawn weights, such as those that
`rival_models.prepare` makes of a size of which there are no others, would fail every threshold.

Columns: seconds to the first line with "-->", seconds to the end, seconds of the processor, MB at the peak (ru_maxrss:
of the process, or of a child of it where that is larger).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = "import sys, numpy, whisper; numpy.save(sys.argv[2], whisper.load_audio(sys.argv[1]))"
OPENAI = """
import sys
import numpy
import whisper
weights, threads, language, samples = sys.argv[1:]
import torch; torch.set_num_threads(int(threads))
whisper.load_model(weights, device="cpu").transcribe(
    numpy.load(samples), language=language, verbose=True, fp16=False{greedy}
)
"""
FASTER = """
import sys
from faster_whisper import WhisperModel
weights, threads, language, recording = sys.argv[1:]
model = WhisperModel(weights, device="cpu", compute_type="int8", cpu_threads=int(threads))
for segment in model.transcribe(recording, language=language{greedy})[0]:
    print(f"[{{segment.start}} --> {{segment.end}}] {{segment.text}}", flush=True)
"""
FIRST = "sotto-first"
GREEDY = ", temperature=0.0"


@dataclass(frozen=True)
class Start:
    """What one start took."""

    first: float  # seconds to the first line
    all: float
    cpu: float
    peak: float  # MB


def started(command: list[str], environment: dict[str, str]) -> Start:
    """Run a command to its end."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    assert process.stderr is not None
    first = None
    for line in process.stdout:
        if first is None and "-->" in line:
            first = time.perf_counter() - began
    errors = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    if status or first is None:
        raise SystemExit(f"{' '.join(command)} gave no transcript:\n{errors}")
    return Start(first, time.perf_counter() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def commands(
    peers: Path, pt: str, ct2: str, recording: str, language: str, threads: int, out: str, greedy: bool
) -> dict[str, tuple[list[str], dict[str, str]]]:
    """Return what is run of those that are there, by name, and what it has in its environment."""
    options = ["--model", pt, "--language", language, "--threads", str(threads), "--output_dir", out]
    if greedy:
        options += ["--temperature", "0", "--temperature_increment_on_fallback", "None"]
    ours = [sys.executable, "-m", "whisper", recording, *options]
    found = {
        "sotto": (ours, {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": out}),
        FIRST: (ours, {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": os.path.join(out, FIRST)}),
        "sotto-whole": (ours, {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": out, "SOTTO_PACKED": "0"}),
    }
    rest = GREEDY if greedy else ""
    original = peers / "openai-whisper" / "bin" / "python"
    if original.exists():
        samples = os.path.join(out, "samples.npy")
        # in a process of its own: the peak of a child counts what its parent held when it was made
        subprocess.run([sys.executable, "-c", SAMPLES, os.path.abspath(recording), samples], check=True, cwd=ROOT)
        environment = {"PYTHONUNBUFFERED": "1", "PYTHONPATH": ""}
        found["openai"] = (
            [str(original), "-c", OPENAI.format(greedy=rest), pt, str(threads), language, samples],
            environment,
        )
    faster = peers / "faster-whisper" / "bin" / "python"
    if faster.exists() and ct2:
        code = FASTER.format(greedy=rest and rest + ", beam_size=1")
        found["faster"] = ([str(faster), "-c", code, ct2, str(threads), language, recording], {})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recording")
    parser.add_argument("--models", nargs="+", required=True, metavar="NAME=PT[,CT2]")
    parser.add_argument("--language", default="en")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--greedy", action="store_true", help="temperature 0 alone, as weights that were drawn need")
    parser.add_argument("--peers", type=Path, default=ROOT / ".venv-peers")
    parser.add_argument("--only", nargs="+", help="names of the first column")
    arguments = parser.parse_args()
    results: dict[str, dict[str, list[Start]]] = {}
    with tempfile.TemporaryDirectory() as out:
        for model in arguments.models:
            name, _, files = model.partition("=")
            pt, _, ct2 = files.partition(",")
            found = commands(
                arguments.peers,
                pt,
                ct2,
                arguments.recording,
                arguments.language,
                arguments.threads,
                out,
                arguments.greedy,
            )
            chosen = {key: found[key] for key in found if not arguments.only or key in arguments.only}
            results[name] = {key: [] for key in chosen}
            for i in range(arguments.rounds + 1):
                for key, (command, environment) in chosen.items():
                    if key == FIRST:
                        shutil.rmtree(environment["XDG_CACHE_HOME"], ignore_errors=True)
                    threads = {"OMP_NUM_THREADS": str(arguments.threads)}
                    start = started(command, {**os.environ, **threads, **environment})
                    if i:
                        results[name][key].append(start)
    print(f"{'model':10}{'':14}{'first, s':>10}{'of openai':>10}{'all, s':>10}{'cpu, s':>10}{'peak, MB':>10}")
    for name, by_key in results.items():
        for key, starts in by_key.items():
            first, whole, cpu, peak = (
                statistics.median(getattr(s, column) for s in starts) for column in ("first", "all", "cpu", "peak")
            )
            pairs = zip(starts, by_key.get("openai", []), strict=False)
            ratio = statistics.median([ours.first / theirs.first for ours, theirs in pairs] or [float("nan")])
            print(f"{name:10}{key:14}{first:10.2f}{ratio:10.2f}{whole:10.2f}{cpu:10.2f}{peak:10.0f}")
    print(json.dumps({n: {k: [asdict(s) for s in starts] for k, starts in r.items()} for n, r in results.items()}))


if __name__ == "__main__":
    main()
