#!/usr/bin/env python3
"""How fast on real speech: Sotto beside openai-whisper, faster-whisper and whisper.cpp, with the same weights.

    scripts/peers openai-whisper faster-whisper whisper.cpp
    python benchmarks/speech_speed.py --models tiny.en=tiny.en.pt,tiny.en-ct2 base=base.pt,base-ct2 \
        --plot docs/speech-speed.png

Each implementation in the precision that suits it best here and the same number of threads; sound comes as arrays in
memory, the language is given, all else is each one's default with greedy decoding (so the texts differ a little, and
with them the work; their words are counted, and those that are wrong). One process measures all sets of one
implementation and model. They run in turn (A B C A B C ...), so that a machine whose speed drifts treats them alike;
what is told is the median of the ratios within a round. Run it on a machine that does nothing else.

  short   30 recordings of 2 to 10 s. Batched: ours as a list, faster-whisper's joined, each a clip
  many    100 such recordings
  1 min   books, joined with short pauses
  4 min   one recording; with word times, too; its peak memory; seconds to the first segment that a program gets
  12 min  books of several readers, joined with short pauses
  16 x 1  sixteen recordings of a minute, as that of "1 min"

With "whole context" the encoder reads 30 s in every window, as openai-whisper's does (`audio_context="full"`). Peak
memory and the first segment are those of "4 min", or of "1 min" where `--sets` leaves that out. In eight minutes for
`base`, one round: `--sets short "1 min" "12 min"`.

A run that is stopped, or ended by `--minutes`, goes on where it was, with the same `--results`. The last line is one
JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rival_models
import speech
from speech import Weights

RATE = 16000
ENGLISH = {"language": "en"}
WORDS = {**ENGLISH, "word_timestamps": True}
SETS = ("short", "many", "1 min", "4 min", "4 min, words", "12 min", "16 x 1")
N_SHORT, N_MANY, SHORTEST, LONGEST = 30, 100, 2.0, 10.0  # recordings, seconds
N_LONG = 16
LISTS = ("short", "many", "16 x 1")
SHORT_GROUPS = ("commonvoice_en", "librispeech_test_other", "ljspeech", "vctk", "speechocean762")
BOOKS = ("ljspeech", "librispeech_misc", "librispeech_test_other", "librispeech_train_clean_100")

BATCHED = tuple(name for name in SETS if name != "1 min")  # which it would cut into two


@dataclass(frozen=True)
class Entry:
    """An implementation in the table."""

    name: str
    sets: tuple[str, ...] = SETS
    long_options: tuple[tuple[str, Any], ...] = ()  # for one long recording


ENTRIES = (
    Entry("openai-whisper", ("short", "1 min", "4 min", "4 min, words")),  # four minutes tell its speed on twelve
    Entry("faster-whisper int8", ("short", "1 min", "4 min", "4 min, words", "12 min")),  # batched it does more
    Entry("faster-whisper int8 vad", ("4 min", "12 min")),
    Entry("faster-whisper int8 batched", BATCHED, long_options=(("batch_size", 8),)),
    Entry("whisper.cpp q8_0", ("short", "1 min", "4 min", "12 min")),  # its word times are times of tokens
    Entry("sotto float32", ("short", "1 min", "4 min", "4 min, words")),
    Entry("sotto", ("short", "1 min", "4 min", "4 min, words", "12 min", "16 x 1")),
    Entry("sotto batched", BATCHED, long_options=(("batch_size", 8),)),
    Entry("sotto whole context", ("short", "1 min")),
    Entry("sotto whole context batched", ("short", "many")),
)
RATIOS = {  # by whom each is compared with
    "openai-whisper": "sotto", "faster-whisper int8": "sotto", "faster-whisper int8 vad": "sotto",
    "faster-whisper int8 batched": "sotto batched", "whisper.cpp q8_0": "sotto",
    "sotto whole context": "sotto", "sotto whole context batched": "sotto batched", "sotto": "sotto batched",
}  # fmt: skip
FLOAT32 = ("openai-whisper", "sotto float32")  # compared, too: the same tokens

Round = dict[str, Any]  # what each implementation told, by name


# ---------------------------------------------------------------------------------------------------------
# Recordings
# ---------------------------------------------------------------------------------------------------------


def make_sets(data: Path, cache: Path) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Return the files of samples of each set, made where they are missing, and their texts.

    `warm up` is a short one.
    """
    from whisper.manifests.read import read_manifest

    recordings = [r for r in read_manifest(data).recordings if r.language == "en"]
    fitting = [r for r in recordings if r.group in SHORT_GROUPS and SHORTEST <= r.seconds <= LONGEST]
    short, many = (speech.choose(fitting, (), n) for n in (N_SHORT, N_MANY))
    books = [r for group in BOOKS for r in recordings if r.group == group]
    four = [r for r in recordings if r.group == "long"]
    files = {
        name: [str(speech.sound_of(Path(r.path), cache)) for r in chosen]
        for name, chosen in (("short", short), ("many", many))
    }
    files["4 min"] = files["4 min, words"] = [str(speech.sound_of(Path(four[0].path), cache))]
    texts = {"4 min": [four[0].text], "4 min, words": [four[0].text]}
    texts |= {"short": [r.text for r in short], "many": [r.text for r in many]}
    parts = [np.load(speech.sound_of(Path(r.path), cache)) for r in books]
    for name, seconds, n in (("1 min", 60, 1), ("12 min", 12 * 60, 1), ("16 x 1", 60, N_LONG)):
        files[name], texts[name] = [], []
        for seed in range(n):
            path = cache / "sound" / f"books-{seconds}-{seed}.npy"
            samples, used = joined(parts, seconds, seed)
            np.save(path, samples)
            files[name].append(str(path))
            texts[name].append(" ".join(books[i].text for i in used))
    return {**files, "warm up": files["short"][:1]}, texts


def joined(parts: list[np.ndarray], seconds: float, seed: int = 0) -> tuple[np.ndarray, list[int]]:
    """Join recordings, in a drawn order, with pauses of 0.3 to 0.8 s, until there are as many seconds; tell which."""
    rng = random.Random(seed)
    pieces, length, used = [], 0, []
    for i in rng.sample(range(len(parts)), len(parts)):
        if length >= seconds * RATE:
            break
        pieces += [parts[i], np.zeros(int(rng.uniform(0.3, 0.8) * RATE), np.float32)]
        length += len(pieces[-1]) + len(pieces[-2])
        used.append(i)
    return np.concatenate(pieces), used


def word_error(texts: list[str], expected: list[str]) -> float:
    """Return the word error rate, in percent."""
    from whisper.evaluation.scoring import word_errors, words_of

    words = [words_of(text, "en") for text in expected]
    errors = sum(word_errors(own, words_of(text, "en")) for own, text in zip(words, texts, strict=True))
    return 100 * errors / sum(map(len, words))


def seconds_of(files: list[str]) -> float:
    return sum(len(np.load(path, mmap_mode="r")) for path in files) / RATE


# ---------------------------------------------------------------------------------------------------------
# Processes
# ---------------------------------------------------------------------------------------------------------


def measure(entry: Entry, weights: dict[str, str], files: dict[str, list[str]], threads: int) -> dict[str, Any]:
    """Measure one implementation in a process of its own; one that fails is told and counts as missing."""
    sets: dict[str, Any] = {}
    for name in (name for name in entry.sets if name in files):
        options = {**(WORDS if "words" in name else ENGLISH), **(dict(entry.long_options) if name not in LISTS else {})}
        first = name == one_recording(files) and entry.name != "openai-whisper"
        sets[name] = {"paths": files[name], "options": options, "first": first}
    ours = speech.is_ours(entry.name)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(speech.ROOT) if ours else ""}
    with tempfile.TemporaryDirectory() as folder:
        asked, results = Path(folder) / "asked.json", Path(folder) / "told.json"
        asked.write_text(json.dumps({"weights": weights, "sets": sets, "warm_up": files["warm up"][0]}))
        command = [speech.python_of(entry.name), str(speech.ROOT / "benchmarks" / "speech_work.py"), entry.name]
        command += [str(asked), str(results), "--threads", str(threads)]
        ended = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)
        if not results.exists():  # not by its exit code: whisper.cpp's binding may crash when Python takes it down
            reason = (ended.stderr.strip().splitlines() or ["no message"])[-1]
            print(f"  {entry.name}: nothing ({reason})", flush=True)
            return {}
        told = dict(json.loads(results.read_text()))
    if entry.name == "openai-whisper" and one_recording(files) in told:  # it hands out nothing before the end
        told[one_recording(files)]["first"] = told[one_recording(files)]["seconds"]
    return told


def one_recording(files: Iterable[str]) -> str:
    """Return the set of which peak memory and the first segment are told."""
    return "4 min" if "4 min" in files else "1 min"


def read_rounds(path: Path, model: str) -> list[Round]:
    """Return what is written down so far, by round."""
    rounds: list[Round] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        one = json.loads(line)
        if one["model"] == model:
            rounds += [{} for _ in range(one["round"] + 1 - len(rounds))]
            rounds[one["round"]][one["name"]] = one["told"]
    return rounds


def run(arguments: argparse.Namespace, entries: list[Entry], files: dict[str, list[str]]) -> None:
    """Measure what is missing, and add a line for each; start nothing once the time is over."""
    until = time.perf_counter() + 60 * (arguments.minutes or 1e9)
    for number in range(arguments.repeat):
        for weights in arguments.models:
            rounds = read_rounds(arguments.results, weights.name)
            done = rounds[number] if number < len(rounds) else {}
            paths = weights.files() | ggml_of(weights, arguments.cache)
            for entry in entries:
                if entry.name in done or time.perf_counter() > until:
                    continue
                began = time.perf_counter()
                told = measure(entry, paths, files, arguments.threads)
                if told:
                    line = {"round": number, "model": weights.name, "name": entry.name, "told": told}
                    with open(arguments.results, "a", encoding="utf-8") as file:
                        file.write(json.dumps(line) + "\n")
                print(f"  {number} {weights.name} {entry.name}: {time.perf_counter() - began:.0f} s", flush=True)


def ggml_of(weights: Weights, cache: Path) -> dict[str, str]:
    """Return whisper.cpp's file of the same numbers, made where it is missing."""
    path = cache / f"ggml-q8_0-{weights.name}.bin"
    if not path.exists():
        rival_models.write_ggml_of(weights.pt, path, "q8_0")
    return {"ggml-q8_0": str(path)}


# ---------------------------------------------------------------------------------------------------------
# Told to people
# ---------------------------------------------------------------------------------------------------------


def figures(rounds: list[Round], seconds: dict[str, float], expected: dict[str, list[str]]) -> dict[str, Any]:
    """Return medians by implementation, and the ratios within rounds."""
    kinds = ("realtime", "first", "peak", "words", "word error", "load", "times faster")
    found: dict[str, Any] = {kind: {} for kind in kinds}
    for name in dict.fromkeys(name for one in rounds for name in one):
        told = [one[name] for one in rounds if name in one]
        sets = [s for s in SETS if any(s in one for one in told)]
        found["load"][name] = statistics.median(one["load"] for one in told)
        found["realtime"][name] = {s: seconds[s] / median_of(told, s, "seconds") for s in sets}
        found["words"][name] = {s: median_of(told, s, "words") for s in sets}
        texts = {s: next(one[s]["texts"] for one in told if s in one) for s in sets}
        found["word error"][name] = {s: word_error(texts[s], expected[s]) for s in sets}
        for what in ("peak", "first"):
            found[what][name] = median_of(told, one_recording(sets), what)
    for rival, ours in (*RATIOS.items(), FLOAT32):
        ratios = {s: within(rounds, rival, ours, s) for s in SETS}
        found["times faster"][f"{rival} / {ours}"] = {s: ratio for s, ratio in ratios.items() if ratio}
    return found


def median_of(told: list[Any], name: str, what: str) -> float:
    """Return the median of a figure of a set over rounds; not a number where there is none."""
    values = [one[name][what] for one in told if what in one.get(name, {})]
    return statistics.median(values) if values else float("nan")


def within(rounds: list[Round], rival: str, ours: str, name: str) -> list[float]:
    """Return median, least and greatest of the ratios of seconds within rounds; empty where there are none."""
    values = sorted(
        one[rival][name]["seconds"] / one[ours][name]["seconds"]
        for one in rounds
        if name in one.get(rival, {}) and name in one.get(ours, {})
    )
    return [statistics.median(values), values[0], values[-1]] if values else []


def lines_of(model: str, found: dict[str, Any], n_rounds: int) -> Iterator[str]:
    """Yield the tables of a model."""
    yield (
        f"\n{model}, {n_rounds} rounds: times real time{'':2s}"
        + "".join(f"{s:>14s}" for s in SETS)
        + (f"{'first, s':>10s}{'peak, MB':>10s}")
    )
    for name, rates in found["realtime"].items():
        cells = "".join(f"{rates[s]:14.1f}" if s in rates else f"{'':14s}" for s in SETS)
        yield f"  {name:36s}{cells}{found['first'][name]:10.2f}{found['peak'][name]:10.0f}"
    yield "  word error, %"
    for name, errors in found["word error"].items():
        yield f"  {name:36s}" + "".join(f"{errors[s]:14.1f}" if s in errors else f"{'':14s}" for s in SETS)
    yield "  times faster (least - greatest)"
    for pair, ratios in found["times faster"].items():
        cells = "".join("{:5.1f} ({:.1f}-{:.1f})".format(*ratios[s]).rjust(17) if s in ratios else f"{'':17s}"
                        for s in SETS)  # fmt: skip
        if ratios:
            yield f"  {pair:44s}{cells}"


COLOURS = {
    "openai-whisper": "#d9d9d9", "whisper.cpp q8_0": "#bdbdbd", "faster-whisper int8": "#969696",
    "faster-whisper int8 batched": "#636363", "sotto float32": "#9ecae1", "sotto": "#4292c6",
    "sotto batched": "#08519c",
}  # fmt: skip


def plot(results: dict[str, Any], path: Path) -> None:
    """Draw the speed on each set, a panel for each model."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    measured = {s for found in results.values() for rates in found["realtime"].values() for s in rates}
    sets = [s for s in SETS if s in measured and "words" not in s]
    labels = {
        "short": f"{N_SHORT} recordings\nof 2 to 10 s", "many": f"{N_MANY} recordings\nof 2 to 10 s",
        "1 min": "1 minute", "4 min": "4 minutes", "12 min": "12 minutes", "16 x 1": f"{N_LONG} of\n1 minute",
    }  # fmt: skip
    figure, panels = plt.subplots(
        1, len(results), figsize=(5.4 * len(results), 3.9), layout="constrained", squeeze=False, facecolor="white"
    )
    for axes, (model, found) in zip(panels[0], results.items(), strict=True):
        names = [name for name in COLOURS if name in found["realtime"]]
        width = 0.86 / max(len(names), 1)
        for i, name in enumerate(names):
            rates = found["realtime"][name]
            places = [x + (i - (len(names) - 1) / 2) * width for x in range(len(sets))]
            drawn = axes.bar(places, [rates.get(s, 0) for s in sets], width * 0.94, label=name, color=COLOURS[name])
            axes.bar_label(drawn, [f"{rates[s]:.0f}" if s in rates else "" for s in sets], fontsize=7, padding=1.5)
        axes.set_xticks(range(len(sets)), [labels[s] for s in sets], fontsize=8)
        axes.set_title(f"{model}: times real time", fontsize=10, loc="left")
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="both", length=0, labelsize=8)
        axes.grid(axis="y", color="0.9", linewidth=0.8)
        axes.set_axisbelow(True)
    panels[0][0].legend(frameon=False, fontsize=8, loc="upper left")
    figure.savefig(path, dpi=160)
    print(f"drew {path}")


def main() -> None:
    arguments = parse()
    sys.path.insert(0, str(speech.ROOT))
    began, load = time.perf_counter(), os.getloadavg()[0]
    arguments.cache.mkdir(parents=True, exist_ok=True)
    wanted = [entry for entry in ENTRIES if entry.name in arguments.implementations]
    entries = [entry for entry in wanted if Path(speech.python_of(entry.name)).exists()]
    if absent := [entry.name for entry in wanted if entry not in entries]:
        print(f"not here: {', '.join(absent)}; make them by scripts/peers")
    print(f"{platform.machine()}, {os.cpu_count()} cores, {arguments.threads} threads")
    if load > 0.5:
        print(f"something else runs here (load {load:.1f}): these numbers will be worth little")
    files, texts = make_sets(arguments.data, arguments.cache)
    seconds = {name: seconds_of(paths) for name, paths in files.items()}
    files = {name: paths for name, paths in files.items() if name in (*arguments.sets, "warm up")}
    print("seconds: " + ", ".join(f"{name} {seconds[name]:.0f}" for name in arguments.sets), flush=True)
    run(arguments, entries, files)
    results = {}
    for weights in arguments.models:
        if rounds := read_rounds(arguments.results, weights.name):
            results[weights.name] = figures(rounds, seconds, texts)
            print("\n".join(lines_of(weights.name, results[weights.name], len(rounds))), flush=True)
    if arguments.plot and results:
        plot(results, arguments.plot)
    spent = time.perf_counter() - began
    print(f"\n{spent / 60:.1f} minutes")
    print(json.dumps({"threads": arguments.threads, "load": load, "seconds": spent, "results": results}))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", type=Weights.parse, required=True, metavar="NAME=FILE.pt,FOLDER")
    names = [entry.name for entry in ENTRIES]
    parser.add_argument("--implementations", nargs="+", default=names, choices=names)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--repeat", type=int, default=2, help="rounds")
    parser.add_argument("--minutes", type=float, help="start no process after so many")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--plot", type=Path, help="draw into this PNG (needs matplotlib)")
    parser.add_argument("--data", type=Path, default=speech.DATA, help="a folder with manifest.tsv")
    parser.add_argument("--cache", type=Path, default=speech.CACHE, help="samples and whisper.cpp's files")
    parser.add_argument("--results", type=Path, default=speech.CACHE / "speed.jsonl", help="what was measured")
    return parser.parse_args()


if __name__ == "__main__":
    main()
