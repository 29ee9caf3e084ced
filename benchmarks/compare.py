#!/usr/bin/env python3
"""Time Sotto against openai-whisper, stage by stage, each in a process of its own.

    python benchmarks/compare.py --models tiny base nano --repeat 5 --plot speed.png

The two run in turn (A B A B ...), so that a machine whose speed drifts treats them alike; a table gives medians and the
median of the pairwise ratios, and the last line is one JSON object. Sizes other than nano get seeded random weights:
speed does not depend on what the weights know, and nothing is downloaded. The end of text is suppressed, so that both
decode the same number of tokens, and both must decode the same ones.

Stages, for one window of 30 s unless said otherwise:
  import      import whisper (which imports torch)                               seconds
  load        load_model of a checkpoint on disk                                 seconds
  encoder     model.encoder                                                      ms
  token       one token of a greedy decode() of 100 tokens, encoder excluded     ms
  beam        the same with beam_size=5                                          ms
  words       word times of a text of 100 tokens                                 ms
  file        transcribe() of a recording of 60 s with word times                seconds
  memory      the process' peak                                                  MB
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SIZES = {  # (n_state, n_head, n_layer): Radford et al. 2022, table 1
    "tiny": (384, 6, 4),
    "base": (512, 8, 6),
    "small": (768, 12, 12),
}
STAGES = {
    "import": "s", "load": "s", "encoder": "ms", "token": "ms", "beam": "ms", "words": "ms", "file": "s",
    "memory": "MB",
}  # fmt: skip
N_TOKENS = 100


def make_checkpoint(size: str, folder: Path) -> Path:
    """Write a checkpoint of full size with seeded random weights, in float16 as the published ones are."""
    import torch

    from whisper.checkpoints.load import save_checkpoint
    from whisper.model import ModelDimensions, Whisper

    n_state, n_head, n_layer = SIZES[size]
    torch.manual_seed(0)
    dims = ModelDimensions(80, 1500, n_state, n_head, n_layer, 51865, 448, n_state, n_head, n_layer)
    path = folder / f"{size}.pt"
    save_checkpoint(Whisper(dims), path, half=True)
    return path


def work(checkpoint: str, threads: int) -> dict[str, Any]:
    """Measure whichever `whisper` this interpreter imports; the same code for both."""
    import time
    import warnings

    started = time.perf_counter()
    import whisper

    seconds = {"import": time.perf_counter() - started}
    import numpy as np
    import torch

    from whisper.timing import find_alignment
    from whisper.tokenizer import get_tokenizer

    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    started = time.perf_counter()
    model = whisper.load_model(checkpoint, device="cpu")
    seconds["load"] = time.perf_counter() - started

    def median(call: Any, repeat: int = 5) -> float:
        call()  # warm up
        times = []
        for _ in range(repeat):
            started = time.perf_counter()
            call()
            times.append(time.perf_counter() - started)
        return statistics.median(times)

    audio = np.random.default_rng(0).normal(size=60 * 16000).astype(np.float32) * 0.05
    mel = whisper.log_mel_spectrogram(audio[: 30 * 16000], model.dims.n_mels)
    tokenizer = get_tokenizer(True, num_languages=99, language="en", task="transcribe")
    suppressed = [-1, tokenizer.eot]
    options = {
        "language": "en", "fp16": False, "sample_len": N_TOKENS, "suppress_tokens": suppressed,
        "without_timestamps": True,
    }  # fmt: skip
    with torch.no_grad():
        features = model.encoder(mel[None])[0]
        seconds["encoder"] = median(lambda: model.encoder(mel[None]))
    result = model.decode(features, **options)
    seconds["token"] = median(lambda: model.decode(features, **options), 3) / N_TOKENS
    seconds["beam"] = median(lambda: model.decode(features, beam_size=5, **options), 1) / N_TOKENS
    text = tokenizer.encode(" the quick brown fox jumps over the lazy dog" * 12)[:N_TOKENS]
    window = features if hasattr(whisper.version, "__release__") else mel  # the original encodes again
    seconds["words"] = median(lambda: find_alignment(model, tokenizer, text, window, 3000), 3)
    whole = {**options, "temperature": 0, "word_timestamps": True, "condition_on_previous_text": False}
    started = time.perf_counter()
    model.transcribe(audio, **whole, logprob_threshold=None, no_speech_threshold=None)
    seconds["file"] = time.perf_counter() - started
    scaled = {stage: value * (1000 if STAGES[stage] == "ms" else 1) for stage, value in seconds.items()}
    return {**scaled, "memory": peak_memory(), "tokens": result.tokens}


def peak_memory() -> float:
    """Return the peak of this process in MB; getrusage would also count what its parent held when it forked."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(python: str, checkpoint: Path, threads: int, ours: bool) -> dict[str, Any]:
    """Run `work` in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONWARNINGS": "ignore"}
    environment["PYTHONPATH"] = str(ROOT) if ours else ""
    command = [python, str(Path(__file__).resolve()), "--work", str(checkpoint), "--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tempfile.gettempdir())
    if done.returncode:
        sys.exit(f"{python} failed:\n{done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def compare(model: str, checkpoint: Path, peer: str, repeat: int, threads: int) -> dict[str, Any]:
    """Return, by stage, both medians and the median, least and greatest of the pairwise ratios."""
    pairs = [
        (measure(peer, checkpoint, threads, False), measure(sys.executable, checkpoint, threads, True))
        for _ in range(repeat)
    ]
    rows: dict[str, Any] = {"same_tokens": all(a["tokens"] == b["tokens"] for a, b in pairs)}
    print(f"\n{model:8s}{'':8s}{'original':>12s}{'sotto':>12s}{'times faster':>15s}   (least - greatest)")
    for stage, unit in STAGES.items():
        ratios = sorted(a[stage] / b[stage] for a, b in pairs)
        theirs, mine = (statistics.median(pair[i][stage] for pair in pairs) for i in (0, 1))
        rows[stage] = {
            "original": theirs, "sotto": mine, "ratio": statistics.median(ratios), "least": ratios[0],
            "greatest": ratios[-1],
        }  # fmt: skip
        print(
            f"  {stage:8s}{unit:>6s}{theirs:12.2f}{mine:12.2f}{rows[stage]['ratio']:14.2f}x"
            f"   ({ratios[0]:.2f} - {ratios[-1]:.2f})"
        )
    print(f"  same tokens: {'yes' if rows['same_tokens'] else 'NO'}", flush=True)
    return rows


def plot(results: dict[str, Any], path: Path) -> None:
    """Draw the ratios: a bar for each stage of each model, 1 is the original."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    stages = [stage for stage in STAGES if stage not in ("import", "memory")]
    figure, axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
    width = 0.8 / len(results)
    for i, (model, rows) in enumerate(results.items()):
        places = [x + (i - (len(results) - 1) / 2) * width for x in range(len(stages))]
        bars = axes.bar(places, [rows[s]["ratio"] for s in stages], width * 0.92, label=model)
        axes.bar_label(bars, fmt="%.1f", fontsize=7, padding=1)
    axes.axhline(1, color="0.3", linewidth=0.8)
    axes.set_xticks(range(len(stages)), stages)
    axes.set_ylabel("times faster than openai-whisper")
    axes.set_title("float32 on 2 CPU threads: the same tokens, stage by stage (1 = the original)", fontsize=10)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    print(f"drew {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["tiny", "base", "nano"], choices=[*SIZES, "nano"])
    parser.add_argument("--repeat", type=int, default=5, help="pairs of processes per model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--plot", type=Path, help="draw the ratios into this PNG (needs matplotlib)")
    parser.add_argument(
        "--peer",
        default=str(ROOT / ".venv-peers" / "openai-whisper" / "bin" / "python"),
        help="a Python that has openai-whisper; scripts/peers makes the default",
    )
    parser.add_argument("--work", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        print(json.dumps(work(arguments.work, arguments.threads)))
        return
    if not Path(arguments.peer).exists():
        parser.error(f"{arguments.peer} does not exist: run scripts/peers first, or give --peer")

    sys.path.insert(0, str(ROOT))
    import torch

    print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, {arguments.threads} threads")
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for model in arguments.models:
            if model == "nano":
                from whisper import load_model
                from whisper.checkpoints.load import save_checkpoint

                checkpoint = Path(folder) / "nano.pt"
                save_checkpoint(load_model("nano", device="cpu"), checkpoint)
            else:
                checkpoint = make_checkpoint(model, Path(folder))
            results[model] = compare(model, checkpoint, arguments.peer, arguments.repeat, arguments.threads)
    if arguments.plot:
        plot(results, arguments.plot)
    print(json.dumps({"threads": arguments.threads, "torch": torch.__version__, "results": results}))


if __name__ == "__main__":
    main()
