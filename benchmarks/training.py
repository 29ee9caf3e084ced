#!/usr/bin/env python3
"""How fast training is, and what memory it takes: Sotto's loop against a plain PyTorch loop over the same modules.

    python benchmarks/training.py --shapes nano tiny --steps 6

Each case runs in a process of its own, on toy features (the sound does not matter for speed), with whole windows of
30 s and with windows of 4 s. The plain loop is what one would write first: `Whisper.forward`, cross-entropy, AdamW,
in float32 and under `torch.autocast`. Cases take turns, so that a noisy machine disturbs all alike; medians of steps.
One JSON line comes last.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CASES = ("sotto bfloat16", "sotto float32", "sotto lora bfloat16", "plain autocast", "plain float32")


def time_sotto(shape: str, seconds: float, case: str, steps: int, threads: int, sound: float) -> list[float]:
    from whisper.model import Whisper
    from whisper.training import feature_store, fit, mixing, targets, trainer

    store = feature_store.toy_store(n_mels=fit.SHAPES[shape].n_mels)
    lora = "lora" in case
    options = fit.FitOptions(
        **({"model": shape, "lora_rank": 8} if lora else {"model": shape}), device="cpu", threads=threads,
        precision=case.split()[-1], steps=steps, batch_seconds=sound,
    )  # fmt: skip
    settings = options.settings(1.0, fit.SHAPES[shape])
    recipe = mixing.Recipe((seconds,), p_silent=0.0)
    settings = replace(settings, stages=(replace(settings.stages[0], recipe=recipe),))
    model, vocabulary = Whisper(fit.SHAPES[shape]), targets.full_vocabulary(True)
    run, workers = trainer.start(settings, vocabulary, model), trainer.single_thread_workers(threads)
    times = []
    for step in range(steps):
        batch = trainer.make_batch(step, settings, store, vocabulary)
        began = time.perf_counter()
        trainer.train_step(run, batch, settings, workers)
        times.append(time.perf_counter() - began)
    return times


def time_plain(shape: str, seconds: float, case: str, steps: int, threads: int, sound: float) -> list[float]:
    import contextlib

    import torch
    import torch.nn.functional as F

    from whisper.model import Whisper
    from whisper.training import fit

    torch.set_num_threads(threads)
    model = Whisper(replace(fit.SHAPES[shape], n_audio_ctx=int(seconds * 50)))
    optimiser = torch.optim.AdamW(model.parameters(), 1e-5)
    n = max(int(sound / seconds), 1)
    times = []
    for _ in range(steps):
        mel, tokens = torch.randn(n, model.dims.n_mels, int(seconds * 100)), torch.randint(0, 50000, (n, 12))
        began = time.perf_counter()
        mixed = torch.autocast("cpu", torch.bfloat16) if "autocast" in case else contextlib.nullcontext()
        with mixed:
            logits = model(mel, tokens)
        loss = F.cross_entropy(logits.float()[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        times.append(time.perf_counter() - began)
    return times


def one(case: str, shape: str, seconds: float, steps: int, threads: int, sound: float) -> dict[str, float]:
    """Measure one case in this process."""
    timer = time_sotto if case.startswith("sotto") else time_plain
    times = timer(shape, seconds, case, steps, threads, sound)[1:]  # the first step makes buffers
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    n = max(int(sound / seconds), 1)
    return {"seconds": statistics.median(times), "realtime": n * seconds / statistics.median(times), "megabytes": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=["nano", "tiny"])
    parser.add_argument("--windows", nargs="+", type=float, default=[4.0, 30.0])
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sound", type=float, default=120.0, help="seconds of sound in a step")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        sys.path.insert(0, str(ROOT))
        print(json.dumps(one(arguments.case, arguments.shapes[0], arguments.windows[0], arguments.steps,
                             arguments.threads, arguments.sound)))  # fmt: skip
        return
    results = []
    for shape in arguments.shapes:
        for seconds in arguments.windows:
            print(f"{shape}, windows of {seconds:g} s, {arguments.sound:g} s a step, {arguments.threads} threads")
            for case in CASES:
                command = [sys.executable, __file__, "--case", case, "--shapes", shape, "--windows", str(seconds),
                           "--steps", str(arguments.steps), "--threads", str(arguments.threads),
                           "--sound", str(arguments.sound)]  # fmt: skip
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                values = json.loads(done.stdout.splitlines()[-1])
                print(f"  {case:22} {values['realtime']:6.0f} times real time, {values['megabytes']:6.0f} MB")
                results.append({"shape": shape, "window": seconds, "case": case, **values})
    print(json.dumps(results))


if __name__ == "__main__":
    main()
