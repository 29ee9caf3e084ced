#!/usr/bin/env python3
"""Sotto on a CUDA device against openai-whisper and transformers, at the shapes of large-v3-turbo and large-v3.

    python benchmarks/gpu.py --models large-v3-turbo large-v3 --python transformers=/path/to/python

Weights and equal work as in benchmarks/rivals.py: random weights of full size in float16, every window decoded to
exactly 100 tokens. Each implementation runs in a process of its own, in the Python named by `--python`, by default the
present one; each needs a PyTorch with CUDA there. Sotto:
  window    one window of 30 s, batch 1: encoder, and tokens per second over 100 greedy tokens
  batched   `--recordings` recordings of 60 s at once, with timestamps: seconds of sound per second. Fallback is on as
            by default, but only by the compression ratio, which random text passes: nothing is decoded twice
openai-whisper has no batches: its recordings are a few, one by one. transformers gets batches of 16 windows.
The limit is from the device's own float16 rate and memory reading, measured in the same run (see ceilings.py).

The last line is one JSON object. State: written for a device that was not there; no number of it has been published.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ceilings
import rival_models
from rival_work import N_TOKENS, PROMPT, count_tokens, sound

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("sotto", "openai-whisper", "transformers")


def timed(call: Callable[[], Any], repeat: int) -> float:
    """Return the median time of `call` in seconds, after a warm-up, the device's work included."""
    import torch

    call()
    times = []
    for _ in range(repeat):
        torch.cuda.synchronize()
        started = time.perf_counter()
        call()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def work_whisper(folder: Path, recordings: int, ours: bool) -> dict[str, float]:
    """Measure whichever `whisper` this Python imports; the same calls for both, but for the batch."""
    import torch

    import whisper

    model = whisper.load_model(str(folder / "model.pt"), device="cuda")
    mel = whisper.log_mel_spectrogram(sound(30), model.dims.n_mels).to("cuda")
    options = {"language": "en", "sample_len": N_TOKENS, "fp16": True}

    def window() -> None:
        result = whisper.decode(model, mel, whisper.DecodingOptions(**options, without_timestamps=True))
        assert len(result.tokens) == N_TOKENS

    if ours:
        from whisper.runtime import select

        runner = select.runner_for(model, True)
        encoder = timed(lambda: runner.encode([mel]), 10)
    else:
        with torch.no_grad():
            encoder = timed(lambda: model.encoder(mel[None].half()), 10)
    whole = timed(window, 5)
    sounds = [sound(60, seed) for seed in range(recordings if ours else 2)]
    thresholds = {"logprob_threshold": None, "no_speech_threshold": None, "condition_on_previous_text": False}

    def batched() -> None:
        if ours:
            results = model.transcribe(sounds, **options, **thresholds)
        else:
            results = [model.transcribe(samples, **options, **thresholds) for samples in sounds]
        n = count_tokens(segment["tokens"] for result in results for segment in result["segments"])
        assert n == 2 * len(sounds) * (N_TOKENS - 1), n  # the first of each window is a timestamp

    return {"encoder": encoder, "window": whole, "realtime": 60 * len(sounds) / timed(batched, 2)}


def work_transformers(folder: Path, recordings: int) -> dict[str, float]:
    """Measure transformers: fused attention, float16, batches of 16 windows."""
    import torch
    from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration

    model = WhisperForConditionalGeneration.from_pretrained(
        folder / "hf", dtype=torch.float16, attn_implementation="sdpa"
    ).cuda()
    extract = WhisperFeatureExtractor.from_pretrained(folder / "hf")

    def features(n: int) -> Any:
        sounds = [sound(30, seed) for seed in range(n)]
        return extract(sounds, sampling_rate=16000, return_tensors="pt", device="cuda").input_features.cuda().half()

    def generate(mel: Any) -> None:
        ids = model.generate(mel, language="en", task="transcribe", max_new_tokens=N_TOKENS, return_timestamps=False)
        assert ids.shape[1] in (N_TOKENS, N_TOKENS + len(PROMPT)), ids.shape

    one, n = features(1), min(16, recordings)
    with torch.inference_mode():
        encoder = timed(lambda: model.model.encoder(one), 10)
        whole = timed(lambda: generate(one), 3)
        return {"encoder": encoder, "window": whole, "realtime": 30 * n / timed(lambda: generate(features(n)), 2)}


def measure_device() -> dict[str, Any]:
    """Measure the device's float16 rate and how fast it reads, as `ceilings.measure` does for the processor."""
    import torch

    a = torch.randn(8192, 8192, device="cuda", dtype=torch.float16)
    rate = 2 * 8192**3 / timed(lambda: a @ a, 20)
    x = torch.randn(2**30, device="cuda", dtype=torch.float16)
    return {"rates": {"bfloat16": rate}, "reading": {2048: 2 * x.numel() / timed(lambda: x.sum(), 20)}}


def work(name: str, folder: Path, recordings: int) -> dict[str, float]:
    if name == "device":
        return measure_device()
    if name == "transformers":
        return work_transformers(folder, recordings)
    return work_whisper(folder, recordings, name == "sotto")


def run(name: str, python: str, folder: Path, recordings: int) -> dict[str, Any]:
    """Run one implementation in a process of its own; one that fails is told and left out."""
    command = [python, str(Path(__file__).resolve()), "--work", name, str(folder), "--recordings", str(recordings)]
    ours = name in ("sotto", "device")
    environment = {**os.environ, "PYTHONPATH": str(ROOT) if ours else "", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)
    if done.returncode:
        print(f"  {name}: failed ({(done.stderr.strip().splitlines() or ['no message'])[-1]})")
        return {}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def compare(size: str, arguments: argparse.Namespace, pythons: dict[str, str]) -> dict[str, Any]:
    """Measure and print one size."""
    folder = rival_models.prepare(size, arguments.cache, {})
    machine = run("device", sys.executable, folder, 1)
    rows = {}
    print(f"\n{size}{'':22s}{'encoder ms':>12s}{'tokens/s':>12s}{'x real time, batched':>22s}")
    for name in arguments.only:
        if told := run(name, pythons.get(name, sys.executable), folder, arguments.recordings):
            rows[name] = told
            speed = N_TOKENS / (told["window"] - told["encoder"])
            print(f"  {name:26s}{1000 * told['encoder']:12.2f}{speed:12.0f}{told['realtime']:22.0f}", flush=True)
    if machine and "sotto" in rows:
        least, ours = ceilings.limits(rival_models.SIZES[size], "float16", machine, N_TOKENS), rows["sotto"]
        token = (ours["window"] - ours["encoder"]) / N_TOKENS
        print(f"  share of the limit: encoder {100 * least['encoder'] / ours['encoder']:.0f} %, "
              f"token {100 * least['token'] / token:.0f} %")  # fmt: skip
        rows["limits"] = least
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["large-v3-turbo", "large-v3"], choices=rival_models.SIZES)
    parser.add_argument("--only", nargs="+", default=list(NAMES), choices=NAMES)
    parser.add_argument("--recordings", type=int, default=64, help="of 60 s, for the batch")
    parser.add_argument("--python", nargs="*", default=[], metavar="NAME=PATH", help="where an implementation is")
    parser.add_argument("--cache", type=Path, default=ROOT / ".venv-peers" / "models")
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        print(json.dumps(work(arguments.work[0], Path(arguments.work[1]), arguments.recordings)))
        return
    sys.path.insert(0, str(ROOT))
    import torch

    if not torch.cuda.is_available():
        parser.error("there is no CUDA device here")
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    pythons = dict(pair.split("=", 1) for pair in arguments.python)
    results = {size: compare(size, arguments, pythons) for size in arguments.models}
    print(json.dumps({"device": torch.cuda.get_device_name(), "torch": torch.__version__, "results": results}))


if __name__ == "__main__":
    main()
