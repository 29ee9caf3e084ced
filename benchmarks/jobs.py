#!/usr/bin/env python3
"""How fast a list of recordings is done: `whisper jobs`, `transcribe([...])`, and plain loops over other programs.

    scripts/peers openai-whisper faster-whisper
    python benchmarks/jobs.py RECORDING_OR_FOLDER ... --model tiny.en

Each contestant is a process of its own, with the same threads, and they run in turn (A B C A B C ...). Told are seconds
from the first transcription on (of a job these do not have the packing of weights), seconds in all, with all starts and
loading, the throughput beside that of the list by these, and seconds of the processor, which a machine that does other
things, too, disturbs least. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

SUFFIXES = (".flac", ".wav", ".mp3", ".ogg", ".opus", ".m4a")
PEERS = {
    "openai-whisper loop": ("openai-whisper", """
import sys, json, time, whisper, torch
files, model, threads = json.loads(sys.argv[1]); torch.set_num_threads(threads)
model = whisper.load_model(model); begun = time.time()
n = sum(len(model.transcribe(f, language="en", temperature=0.0, fp16=False)["text"].split()) for f in files)
print(json.dumps([time.time() - begun, n]))
"""),
    "faster-whisper batched": ("faster-whisper", """
import sys, json, time
from faster_whisper import WhisperModel, BatchedInferencePipeline
files, model, threads = json.loads(sys.argv[1])
model = BatchedInferencePipeline(WhisperModel(model, device="cpu", compute_type="int8", cpu_threads=threads))
begun, n = time.time(), 0
for f in files:
    n += sum(len(s.text.split()) for s in model.transcribe(f, language="en", temperature=0.0, batch_size=8)[0])
print(json.dumps([time.time() - begun, n]))
"""),
}  # fmt: skip


def recordings(paths: list[str]) -> list[str]:
    """Every recording that is named, or lies below a folder that is."""
    found = []
    for path in map(Path, paths):
        found += sorted(p for p in path.rglob("*") if p.suffix in SUFFIXES) if path.is_dir() else [path]
    return [str(p.resolve()) for p in found]


def as_list(files: list[str], model: str, threads: int) -> tuple[float, int]:
    """Transcribe the list in one call."""
    import torch

    import whisper

    torch.set_num_threads(threads)
    loaded = whisper.load_model(model, device="cpu")
    begun = time.time()
    results = whisper.transcribe(loaded, files, language="en", temperature=0.0)
    return time.time() - begun, sum(len(r["text"].split()) for r in results)


def as_job(files: list[str], model: str, threads: int) -> tuple[float, int]:
    """Run a job over the list."""
    from whisper.jobs.job import Job
    from whisper.jobs.options import JobOptions

    with tempfile.TemporaryDirectory() as out:
        options = {"language": "en", "temperature": 0.0}
        of_model = {"device": "cpu", "threads": threads}
        how = JobOptions(output_format=("txt", "json"))
        with (
            Job(files, out, model=model, model_options=of_model, options=options, how=how, forks=True) as job,
            job.running() as runner,
        ):
            n = sum(e.result.figures["words"] for e in runner.run() if e.result is not None)
            assert runner.measured_since is not None
            seconds = time.monotonic() - runner.measured_since
        for thread in threading.enumerate():  # those that wait for the end of a worker, so that its time is counted
            if thread.name.startswith("sotto-"):
                thread.join(10)
        return seconds, n


OURS = {"whisper jobs": as_job, "transcribe([...])": as_list}


def measure(name: str, files: list[str], model: str, peer_models: dict[str, str], threads: int) -> dict[str, float]:
    """Run one contestant in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    if name not in OURS:
        environment.pop("PYTHONPATH", None)  # by which it would import this checkout
    if name in OURS:
        command = [sys.executable, __file__, "--as", name, json.dumps([files, model, threads])]
    else:
        peer, code = PEERS[name]
        python = str(ROOT / ".venv-peers" / peer / "bin" / "python")
        command = [python, "-c", code, json.dumps([files, peer_models.get(peer, model), threads])]
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.time()
    # not in this checkout, whose `whisper` the peers would import
    where = None if name in OURS else tempfile.gettempdir()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=where, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr}")
    wall, after = time.time() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds, words = json.loads(done.stdout.splitlines()[-1])
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": seconds, "in all": wall, "processor": processor, "words": words}


def main() -> None:
    """Measure, and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*")
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--peer_model", nargs="*", default=[], metavar="PEER=PATH", help="weights of a peer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--most", type=int, default=0, help="at most so many recordings")
    parser.add_argument("--only", nargs="+", help="these contestants; default: all that are here")
    parser.add_argument("--as", dest="contestant")
    args = parser.parse_args()
    if args.contestant:
        print(json.dumps(OURS[args.contestant](*json.loads(args.paths[0]))))
        return
    files = recordings(args.paths)
    files = files[: args.most or len(files)]
    here = [name for name, (peer, _) in PEERS.items() if (ROOT / ".venv-peers" / peer / "ready").exists()]
    names = [name for name in (*OURS, *here) if args.only is None or name in (*args.only, "transcribe([...])")]
    peers = dict(given.split("=", 1) for given in args.peer_model)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for number in range(args.rounds):
        for name in names:
            found[name].append(measure(name, files, args.model, peers, args.threads))
            print(f"round {number + 1}: {name}: {found[name][-1]}", file=sys.stderr)
    print(f"{len(files)} recordings, {args.model}, {args.threads} threads; medians of {args.rounds} rounds")
    for name in names:
        middle = {key: statistics.median(run[key] for run in found[name]) for key in found[name][0]}
        pairs = zip(found["transcribe([...])"], found[name], strict=True)
        ratio = statistics.median(a["in all"] / b["in all"] for a, b in pairs)
        print(f"{name:24} {middle['seconds']:8.1f} s  x {ratio:.2f}  in all {middle['in all']:8.1f} s  "
              f"processor {middle['processor']:8.1f} s  {middle['words']:.0f} words")  # fmt: skip
    print(json.dumps(found))


if __name__ == "__main__":
    main()
