#!/usr/bin/env python3
"""What a long recording costs: memory above the model and above a short recording, and time, stage by stage.

    python benchmarks/long_recording.py --hours 3 --formats mp3 m4a wav --threads 2

Makes the recording first: five minutes of made-up speech (or of `--speech`), coded once and repeated. Then runs, each
in a process of its own, so that each has its own peak:
  model       load_model, and a look at one second                    MB in use
  short       transcribe() of the first 20 seconds                    MB at the peak
  features    the log-mel features of it all, read window by window   MB at the peak, seconds
  long        transcribe() of it all                                  MB at the peak, seconds
A table, and one JSON line last. Reads peaks where Linux tells them.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RATE, MINUTES = 16000, 5  # of what is coded once
CONTAINERS = {
    "mp3": ("mp3", "libmp3lame"),
    "m4a": ("ipod", "aac"),
    "wav": ("wav", "pcm_s16le"),
    "flac": ("flac", "flac"),
}


def made_up_speech() -> Any:
    """Buzzing vowels in phrases of a few seconds with pauses between them, int16 ``(n_samples,)``."""
    import numpy as np

    rng = np.random.default_rng(0)
    pieces = []
    while sum(map(len, pieces)) < MINUTES * 60 * RATE:
        for _ in range(int(rng.integers(6, 25))):
            t = np.arange(int(rng.uniform(0.12, 0.3) * RATE)) / RATE
            pitch, formants = rng.uniform(90, 220), rng.uniform([250, 800, 2200], [800, 2200, 3200])
            buzz = np.sign(np.sin(2 * np.pi * pitch * t)) * (0.3 + np.cos(2 * np.pi * np.outer(formants, t)).sum(0))
            pieces.append(buzz * np.sin(np.pi * np.arange(len(t)) / len(t)) * 3000)
        pieces.append(np.zeros(int(rng.uniform(0.3, 1.2) * RATE)))
    sound = np.concatenate(pieces)[: MINUTES * 60 * RATE]
    return (sound + rng.normal(0, 30, len(sound))).astype(np.int16)


def speech_of(folder: str) -> Any:
    """Five minutes from the recordings in a folder, int16 ``(n_samples,)``."""
    import numpy as np

    from whisper.audio import load_audio

    sound, files = np.zeros(0, np.float32), sorted(p for p in Path(folder).rglob("*") if p.suffix in (".flac", ".wav"))
    while len(sound) < MINUTES * 60 * RATE:
        sound = np.concatenate([sound, load_audio(files.pop(0)), np.zeros(RATE // 2, np.float32)])
    return (sound[: MINUTES * 60 * RATE] * 32767).astype(np.int16)


def write(sound: Any, path: Path, format: str, n_times: int) -> None:
    """A file with `sound` so many times; its packets are coded once, and shifted in time."""
    import av

    container, codec = CONTAINERS[format]
    with av.open(str(path), "w", format=container) as file:
        stream = file.add_stream(codec, rate=RATE, layout="mono")
        size = stream.codec_context.frame_size or 4096
        to = av.AudioResampler(stream.format, "mono", RATE, size)
        frame = av.AudioFrame.from_ndarray(sound[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
        packets = [p for f in [*to.resample(frame), *to.resample(None)] for p in stream.encode(f)] + stream.encode(None)
        coded = [(bytes(p), p.pts, p.dts, p.duration, p.time_base) for p in packets]
        length = coded[-1][1] + coded[-1][3] - coded[0][1]
        for i in range(n_times):
            for data, pts, dts, duration, time_base in coded:
                packet = av.Packet(data)
                packet.stream, packet.time_base, packet.duration = stream, time_base, duration
                packet.pts, packet.dts = pts + i * length, dts + i * length
                file.mux(packet)


def memory(field: str) -> float:
    """MB of this process: ``VmRSS`` now, ``VmHWM`` at its peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise SystemExit("this system does not tell the memory of a process in /proc")


def work(job: dict[str, Any]) -> dict[str, Any]:
    """One stage, in this process."""
    import torch

    import whisper

    torch.set_num_threads(job["threads"])
    model = whisper.load_model(job["model"], device="cpu")
    options = {"language": "en", "temperature": 0, "fp16": job["fp16"], **job["options"]}
    model.transcribe(torch.zeros(RATE), **options)
    now = memory("VmRSS")
    began, cpu = time.perf_counter(), time.process_time()
    if job["stage"] == "short":
        from whisper.audio import load_audio

        model.transcribe(load_audio(job["short"]), **options)
    elif job["stage"] == "features":
        from whisper.speech.features import Features

        features = Features.of(job["path"], model.dims.n_mels)
        for seek in range(0, features.n_frames, 3000):
            features.window(seek, 3000)
    elif job["stage"] == "long":
        result = model.transcribe(job["path"], **options)
        last = result["segments"][-1]["end"] if result["segments"] else 0
        print(f"{len(result['segments'])} segments until {last:.0f} s", file=sys.stderr)
    return {"now": now, "peak": memory("VmHWM"), "seconds": time.perf_counter() - began,
            "cpu": time.process_time() - cpu}  # fmt: skip


def run(job: dict[str, Any]) -> dict[str, Any]:
    """One stage, in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--job", json.dumps(job)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    if done.returncode:
        raise SystemExit(f"the stage {job['stage']!r} failed with {done.returncode}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def measure(arguments: argparse.Namespace, format: str, folder: Path, sound: Any) -> dict[str, Any]:
    """All stages for one format."""
    path, short = folder / f"long.{format}", folder / "short.wav"
    write(sound, path, format, round(arguments.hours * 60 / MINUTES))
    write(sound[: 20 * RATE], short, "wav", 1)
    job = {"model": arguments.model, "threads": arguments.threads, "fp16": arguments.fp16, "path": str(path),
           "short": str(short), "options": json.loads(arguments.options)}  # fmt: skip
    stages = {stage: run({**job, "stage": stage}) for stage in ("model", "short", "features", "long")}
    model, peak = stages["model"]["now"], stages["long"]["peak"]
    path.unlink()
    return {
        "format": format,
        **{f"{stage}_mb": stages[stage]["peak"] for stage in ("short", "features", "long")},
        "model_mb": model,
        "above_model_mb": peak - model,
        "above_short_mb": peak - stages["short"]["peak"],
        **{f"{stage}_s": stages[stage]["seconds"] for stage in ("features", "long")},
        **{f"{stage}_cpu_s": stages[stage]["cpu"] for stage in ("features", "long")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hours", type=float, default=3.0)
    parser.add_argument("--formats", nargs="+", choices=list(CONTAINERS), default=["mp3"])
    parser.add_argument("--model", default="nano")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--fp16", action="store_true", help="the fastest precision, not float32")
    parser.add_argument("--speech", help="a folder of real recordings instead of made-up sound")
    parser.add_argument("--options", default="{}", help="more options of transcribe(), as JSON")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        print(json.dumps(work(json.loads(arguments.job))))
        return
    sys.path.insert(0, str(ROOT))
    sound = speech_of(arguments.speech) if arguments.speech else made_up_speech()
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(arguments, format, Path(folder), sound) for format in arguments.formats]
    print(f"{arguments.hours:g} h, {arguments.model}, {arguments.threads} threads")
    print(f"{'':8}{'model':>8}{'short':>8}{'features':>10}{'long':>8}{'above model':>13}{'above short':>13}"
          f"{'features':>11}{'long':>9}")  # fmt: skip
    for row in rows:
        print(f"{row['format']:8}{row['model_mb']:5.0f} MB{row['short_mb']:5.0f} MB{row['features_mb']:7.0f} MB"
              f"{row['long_mb']:5.0f} MB{row['above_model_mb']:10.0f} MB{row['above_short_mb']:10.0f} MB"
              f"{row['features_s']:9.1f} s{row['long_s']:7.0f} s")  # fmt: skip
    print(json.dumps({"hours": arguments.hours, "model": arguments.model, "threads": arguments.threads,
                      "fp16": arguments.fp16, "options": json.loads(arguments.options),
                      "machine": platform.processor() or platform.machine(), "rows": rows}))  # fmt: skip


if __name__ == "__main__":
    main()
