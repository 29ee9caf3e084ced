#!/usr/bin/env python3
"""Sotto against the fastest Whispers for this processor, and against what the processor can do at best.

    scripts/peers openai-whisper faster-whisper whisper.cpp openvino-genai
    python benchmarks/rivals.py --models tiny base small --repeat 3 --plot docs/rivals.png

Every implementation has the same random weights of full size, each in the precision that suits it best here, and the
same number of threads; each measurement is a process of its own. They run in turn (A B C A B C ...), so that a machine
whose speed drifts treats them alike; what is told is the median of the ratios within a round. Run it on a machine that
does nothing else: whisper.cpp waits in loops and is many times slower where it has to share.

Made equal: sound comes as an array in memory; the language is given; there is one temperature and no threshold. The
weights never say "end of text" (see rival_models.py), and every window is decoded to exactly 100 tokens, which is
checked.

  window   one window of 30 s: encoder and 100 greedy tokens, features excluded; and the same with 5 beams
  words    what word times add to a window of transcribe(), by implementation, each against itself
  batch    sixteen recordings of 21 to 60 s, in windows of 30 s: ours at once, ours one by one, and faster-whisper's
           BatchedInferencePipeline, batches of 8 windows. That batches only within one call, so it gets all recordings
           as one array with their windows as clips; without timestamps, previous text and voice detection, as ours
  memory   the peak of a process that loads and transcribes 45 s
  start    from the first line of a script to the first token: import, load (the disk's cache is warm), encoder
  limits   the machine's own rates in this run (see ceilings.py), and each of our stages as a share of its limit

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import ceilings
import rival_models

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / ".venv-peers"
PRECISION = {  # each at its best setting on a CPU
    "openai-whisper": "float32", "faster-whisper": "int8", "whisper.cpp": "q8_0", "openvino-genai": "int8, bf16",
    "sotto float32": "", "sotto": "default",
}  # fmt: skip
FORMATS = {"faster-whisper": "ct2", "whisper.cpp": "ggml", "openvino-genai": "openvino"}
MEASUREMENTS = ("window", "words", "batch", "memory", "start", "limits")
NEEDED = {  # (rival, ours): times faster that ours has to be, by size; and the goal
    ("openai-whisper", "sotto float32"): ({"tiny": 2.0, "base": 2.0, "small": 2.0}, 3.0),
    ("openai-whisper", "sotto"): ({"tiny": 5.0, "base": 5.5, "small": 5.0}, 8.0),
    ("faster-whisper", "sotto"): ({"tiny": 2.5, "base": 2.8, "small": 2.4}, 4.0),
    ("whisper.cpp", "sotto"): ({"tiny": 2.5, "base": 2.8, "small": 3.2}, 4.0),
    ("openvino-genai", "sotto"): ({"tiny": 1.2, "base": 1.2, "small": 1.2}, 2.0),
}

Results = dict[str, Any]


# ---------------------------------------------------------------------------------------------------------
# Processes
# ---------------------------------------------------------------------------------------------------------


def python_of(name: str) -> str:
    """Return the Python that has `name`; ours runs in the present one."""
    return sys.executable if name.startswith("sotto") else str(PEERS / name / "bin" / "python")


def run(name: str, measurement: str, folder: Path, threads: int, beams: int = 1) -> Results:
    """Run one measurement in a process of its own; one that fails is told and counts as missing."""
    ours = name.startswith("sotto")
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT) if ours else ""}
    command = [python_of(name), str(ROOT / "benchmarks" / "rival_work.py"), name, measurement, str(folder)]
    command += ["--threads", str(threads), "--beams", str(beams)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tempfile.gettempdir())
    try:  # not by its exit code: whisper.cpp's binding may crash when Python takes it down
        told = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        print(f"  {name}: no {measurement} ({reason})", flush=True)
        return {}
    return dict(told)


def rounds(
    names: list[str], measurement: str, folder: Path, threads: int, repeat: int, beams: int = 1
) -> list[Results]:
    """Run all of `names` in turn, `repeat` times: a list of what each told, by name."""
    return [{name: run(name, measurement, folder, threads, beams) for name in names} for _ in range(repeat)]


def median(told: list[Results], name: str, what: str) -> float | None:
    """Return the median of what `name` told over all rounds; None where it told nothing."""
    values = [one[name][what] for one in told if what in one.get(name, {})]
    return statistics.median(values) if values else None


def ratio(told: list[Results], name: str, ours: str, what: str, our_what: str = "") -> list[float] | None:
    """Return median, least and greatest of the ratios within rounds; None where there are none."""
    our_what = our_what or what
    values = sorted(
        one[name][what] / one[ours][our_what]
        for one in told
        if what in one.get(name, {}) and our_what in one.get(ours, {})
    )
    return [statistics.median(values), values[0], values[-1]] if values else None


# ---------------------------------------------------------------------------------------------------------
# Measurements
# ---------------------------------------------------------------------------------------------------------


def windows(names: list[str], size: str, folder: Path, threads: int, repeat: int) -> Results:
    """Time one window of everybody; print milliseconds and ratios."""
    told = rounds(names, "window", folder, threads, repeat, beams=1 if size == "small" else 2)
    rows: Results = {"ms": {}, "ratios": {}, "tokens": {}}
    print(f"\n{size}: one window, ms{'encoder':>21s}{'token':>10s}{'window':>10s}{'5 beams':>10s}")
    for name in names:
        stages = {stage: median(told, name, stage) for stage in ("encoder", "token", "window", "beam")}
        if stages["window"] is None:
            continue
        rows["ms"][name] = {stage: 1000 * value for stage, value in stages.items() if value is not None}
        figures = "".join(f"{value:10.{2 if stage == 'token' else 0}f}" for stage, value in rows["ms"][name].items())
        print(f"  {name + ' ' + PRECISION[name]:32s}{figures}")
        rows["tokens"][name] = told[0][name].get("tokens")
        if told[0][name].get("compute_type"):
            rows.setdefault("compute_type", {})[name] = told[0][name]["compute_type"]
    print(f"  {'times faster':32s}{'greedy':>10s}  (least - greatest){'5 beams':>10s}{'needed':>10s}{'goal':>8s}")
    for (rival, ours), (needed, goal) in NEEDED.items():
        greedy, beam = (ratio(told, rival, ours, what) for what in ("window", "beam"))
        if greedy is None or beam is None:
            continue
        rows["ratios"][f"{rival} / {ours}"] = {"greedy": greedy, "beam": beam}
        need = needed.get(size, needed["small"])
        verdict = "" if min(greedy[0], beam[0]) >= need else "  MISSED"
        print(
            f"  {rival + ' / ' + ours:32s}{greedy[0]:9.2f}x  ({greedy[1]:5.2f} - {greedy[2]:5.2f})  {beam[0]:9.2f}x"
            f"{need:9.1f}x{goal:7.1f}x{verdict}"
        )
    original, exact = (rows["tokens"].get(name) for name in ("openai-whisper", "sotto float32"))
    if original and exact:
        rows["same_tokens"] = original == exact
        print(f"  float32, the same tokens as the original: {'yes' if original == exact else 'NO'}", flush=True)
    return rows


def words(names: list[str], folder: Path, threads: int) -> Results:
    """Time word times, each against itself."""
    rows = {}
    print(f"  word times, ms a window{'without':>19s}{'with':>10s}{'added':>10s}")
    for name in names:
        if told := run(name, "words", folder, threads):
            rows[name] = told
            missed = "  MISSED (15 %)" if name.startswith("sotto") and told["added"] > 0.15 else ""
            print(
                f"  {name + ' ' + PRECISION[name]:32s}{1000 * told['plain']:10.0f}{1000 * told['words']:10.0f}"
                f"{100 * told['added']:8.0f} %{missed}",
                flush=True,
            )
    return rows


def batches(names: list[str], folder: Path, threads: int, repeat: int) -> Results:
    """Time sixteen recordings."""
    told = rounds([name for name in names if name in ("faster-whisper", "sotto")], "batch", folder, threads, repeat)
    rows: Results = {"realtime": {}, "ratios": {}}
    for name, what in (("faster-whisper", "batch"), ("sotto", "one_by_one"), ("sotto", "batch")):
        if seconds := median(told, name, what):
            rows["realtime"][f"{name} {what}"] = told[0][name]["audio"] / seconds
            label = f"{name} {what.replace('_', ' ')}"
            print(f"  16 recordings: {label:25s}{seconds:8.1f} s {told[0][name]['audio'] / seconds:8.0f} x real time")
    for name, what, need in (("faster-whisper", "batch", 2.5), ("sotto", "one_by_one", 1.5)):
        if found := ratio(told, name, "sotto", what, "batch"):
            rows["ratios"][f"{name} {what}"] = found
            label = f"{name} {what.replace('_', ' ')} / ours at once"
            verdict = "" if found[0] >= need else "  MISSED"
            print(f"  {label:40s}{found[0]:6.2f}x  ({found[1]:.2f} - {found[2]:.2f})  needed {need}x{verdict}")
    sys.stdout.flush()
    return rows


def memory(names: list[str], folder: Path, threads: int) -> Results:
    """Tell each one's peak."""
    rows = {name: run(name, "memory", folder, threads).get("memory") for name in names}
    told = ", ".join(f"{name} {peak:.0f}" for name, peak in rows.items() if peak)
    ours, theirs = rows.get("sotto"), rows.get("faster-whisper")
    print(f"  peak memory, MB: {told}{'  MISSED' if ours and theirs and ours > theirs else ''}", flush=True)
    return rows


def start(names: list[str], folder: Path, threads: int, repeat: int) -> Results:
    """Time the way to the first token."""
    both = [name for name in names if name in ("openai-whisper", "sotto")]
    rounds(both, "start", folder, threads, 1)  # the disk's cache
    told = rounds(both, "start", folder, threads, repeat)
    rows = {name: median(told, name, "start") for name in both}
    print("  import to first token, s: " + ", ".join(f"{name} {s:.2f}" for name, s in rows.items() if s), end="")
    if found := ratio(told, "openai-whisper", "sotto", "start"):
        print(f"; {found[0]:.2f}x, needed 2x{'' if found[0] >= 2 else '  MISSED'}", end="")
    print(flush=True)
    return rows


def shares(size: str, rows: Results, machine: Results) -> Results:
    """Print each of our stages as a share of the machine's limit."""
    told: Results = {}
    print(f"  share of the limit{'encoder':>24s}{'token':>10s}{'window':>10s}")
    for name in ("sotto", "sotto float32"):
        if not (measured := rows["ms"].get(name)):
            continue
        kind = rows.get("compute_type", {}).get(name) or ("float32" if "float32" in name else "int8")
        least = ceilings.limits(rival_models.SIZES[size], kind, machine, 100)
        told[name] = {stage: 1000 * least[stage] / measured[stage] for stage in least}
        share = told[name]
        missed = "  MISSED (50 %, 40 %)" if share["encoder"] < 0.5 or share["token"] < 0.4 else ""
        figures = "".join(f"{100 * value:8.0f} %" for value in share.values())
        limit = " | ".join(f"{1000 * value:.2f}" for value in least.values())
        print(f"  {name + ' ' + kind:32s}{figures}   limit, ms: {limit}{missed}", flush=True)
    return told


# ---------------------------------------------------------------------------------------------------------
# The picture
# ---------------------------------------------------------------------------------------------------------

SHADES = ("#9ecae1", "#4292c6", "#08519c", "#08306b")  # by size, small to large


def bars(axes: Any, groups: list[str], series: dict[str, list[float]], form: str) -> None:
    """Draw `series`, one shade each, side by side over `groups`."""
    width = 0.82 / max(len(series), 1)
    for i, (label, values) in enumerate(series.items()):
        places = [x + (i - (len(series) - 1) / 2) * width for x in range(len(groups))]
        drawn = axes.bar(places, values, width * 0.92, label=label, color=SHADES[i % len(SHADES)])
        axes.bar_label(drawn, fmt=form, fontsize=7.5, padding=1.5, color="0.25")
    axes.set_xticks(range(len(groups)), groups, fontsize=8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0, labelsize=8)
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="y", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.margins(y=0.12)


def plot(results: Results, threads: int, path: Path) -> None:
    """Draw the ratios by rival and size, and the shares of the limit."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    sizes = [size for size, rows in results.items() if rows.get("window")]
    ratios = {size: results[size]["window"]["ratios"] for size in sizes}
    pairs = [pair for pair in NEEDED if all(" / ".join(pair) in ratios[size] for size in sizes)]
    told = {size: results[size].get("shares", {}).get("sotto", {}) for size in sizes}
    shared = all(told.values())
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(10, 3.7), layout="constrained", width_ratios=[3.2, 1], facecolor="white"
    )
    labels = [
        f"{rival}\n{PRECISION[rival]}" + ("\n(ours in float32 too)" if ours == "sotto float32" else "")
        for rival, ours in pairs
    ]
    bars(left, labels, {s: [ratios[s][" / ".join(p)]["greedy"][0] for p in pairs] for s in sizes}, "%.1f")
    left.axhline(1, color="0.35", linewidth=1)
    left.set_title(
        f"Times faster than: 30 s of sound, 100 tokens, {threads} threads, the same weights", fontsize=10, loc="left"
    )
    left.legend(frameon=False, fontsize=8.5, ncols=len(sizes), loc="upper right")
    if shared:
        bars(
            right, ["encoder", "decoding"],
            {s: [100 * told[s]["encoder"], 100 * told[s]["token"]] for s in sizes}, "%.0f",
        )  # fmt: skip
        right.set_title("% of what the machine can do", fontsize=10, loc="left")
        right.set_ylim(0, 100)
    else:
        right.set_visible(False)
    figure.savefig(path, dpi=160)
    print(f"drew {path}")


# ---------------------------------------------------------------------------------------------------------
# All of it
# ---------------------------------------------------------------------------------------------------------


def compare(size: str, names: list[str], arguments: argparse.Namespace, machine: Results | None) -> Results:
    """Run the measurements of one size."""
    pythons = {FORMATS[name]: sys.executable if name == "whisper.cpp" else python_of(name)
               for name in names if name in FORMATS}  # fmt: skip
    folder = rival_models.prepare(size, arguments.cache, pythons)
    threads, only, rows = arguments.threads, arguments.only, {}
    if "window" in only:
        rows["window"] = windows(names, size, folder, threads, arguments.repeat)
        if machine:
            rows["shares"] = shares(size, rows["window"], machine)
    else:
        print(f"\n{size}")
    if "words" in only:
        rivals = ("openai-whisper", "faster-whisper") if size == "base" else ()
        rows["words"] = words([n for n in names if n.startswith("sotto") or n in rivals], folder, threads)
    if "batch" in only:
        rows["batch"] = batches(names, folder, threads, 2 if size == "tiny" and arguments.repeat > 1 else 1)
    if "memory" in only:
        rows["memory"] = memory(names, folder, threads)
    if "start" in only and size == "base":
        rows["start"] = start(names, folder, threads, arguments.repeat)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["tiny", "base", "small"], choices=list(rival_models.SIZES))
    parser.add_argument("--only", nargs="+", default=list(MEASUREMENTS), choices=MEASUREMENTS)
    parser.add_argument("--repeat", type=int, default=3, help="rounds of processes")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peers", nargs="*", choices=list(PRECISION)[:4], help="which rivals; all that are here")
    parser.add_argument("--no-ours", action="store_true", help="the rivals alone")
    parser.add_argument("--plot", type=Path, help="draw ratios and shares into this PNG (needs matplotlib)")
    parser.add_argument("--cache", type=Path, default=PEERS / "models", help="where converted weights are kept")
    arguments = parser.parse_args()
    began = time.perf_counter()
    asked = list(PRECISION)[:4] if arguments.peers is None else arguments.peers
    names = [name for name in asked if Path(python_of(name)).exists()]
    if absent := [name for name in asked if name not in names]:
        print(f"not here: {', '.join(absent)}; make them by scripts/peers {' '.join(absent)}")
    names += [] if arguments.no_ours else ["sotto float32", "sotto"]
    sys.path.insert(0, str(ROOT))
    import torch

    load = os.getloadavg()[0]
    print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, {arguments.threads} threads")
    if load > 0.5:
        print(f"something else runs here (load {load:.1f}): these numbers will be worth little")
    machine = ceilings.measure(arguments.threads) if "limits" in arguments.only else None
    if machine:
        print(ceilings.describe(machine), flush=True)
    results = {size: compare(size, names, arguments, machine) for size in arguments.models}
    if arguments.plot:
        plot(results, arguments.threads, arguments.plot)
    seconds = time.perf_counter() - began
    print(f"{seconds / 60:.1f} minutes")
    print(json.dumps({
        "threads": arguments.threads, "torch": torch.__version__, "load": load, "seconds": seconds,
        "machine": machine, "results": results,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
