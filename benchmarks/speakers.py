#!/usr/bin/env python3
"""Who speaks when: Sotto beside senko, on conversations whose turns are known, and what that does to transcripts.

    scripts/peers senko pyannote-metrics
    python benchmarks/speakers.py --data .../shared/data/dev --doc docs/speakers.md --picture docs/speakers.png
    python benchmarks/speakers.py --data .../shared/data/train --seed 2 --model ""        # other voices
    python benchmarks/speakers.py --data .../shared/data/dev --cost                       # time beside transcription

conversations.py makes the recordings and says what their reference is; the real recordings with a speaker on each
channel are added. Errors are shares of the reference's speech, in percent:

  DER          diarization error rate: confusion + missed + false alarm, by pyannote.metrics; simpleder must agree
  collar       the same without 0.25 s before and after each boundary of the reference
  count        conversations in which the number of speakers was right
  cpWER        words that are wrong or of a wrong speaker, in the transcript of `--model`; WER: whoever said them
  assigned     the bound of the method: Sotto's pieces of voices, each taken for whom it truly is (most of the time)

pyannote's own pipeline is not here: its weights need an account. What is written down is kept: a run that was killed
goes on. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import conversations as made

ROOT = Path(__file__).resolve().parent.parent
OURS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "sotto": lambda job: {},
    "sotto, number given": lambda job: {"num_speakers": job["speakers"]},
}
BOUND = "assigned right"
SENKO = "senko"
SYSTEMS = (*OURS, BOUND, SENKO)
BEGIN, END = "<!-- table: made by benchmarks/speakers.py -->\n", "<!-- end of table -->\n"
Job = dict[str, Any]
Told = dict[str, Any]
Turns = Sequence[Sequence[Any]]  # [start, end, speaker]


# ---------------------------------------------------------------------------------------------------------
# Systems
# ---------------------------------------------------------------------------------------------------------


def run(folder: Path, jobs: Sequence[Job], system: str, peers: Path) -> dict[str, Told] | None:
    """Let a system hear what it has not heard yet; return its turns by recording, None where it is not installed."""
    results = folder / f"{system.replace(', ', '-').replace(' ', '-')}.jsonl"
    done = read(results)
    waiting = [job for job in jobs if job["name"] not in done]
    if not waiting:
        return done
    print(f"{system}: {len(waiting)} recordings", file=sys.stderr, flush=True)
    if system == SENKO:
        if not elsewhere(peers / "senko", "senko", folder, waiting, results):
            return None
    else:
        with open(results, "a", encoding="utf-8") as file:
            for told in (bound if system == BOUND else ours)(system, waiting):
                file.write(json.dumps(told) + "\n")
                file.flush()
    return read(results)


def ours(system: str, jobs: Sequence[Job]) -> Iterator[Told]:
    import whisper

    for job in jobs:
        began = time.perf_counter()
        found = whisper.diarize(job["sound"], **OURS[system](job))
        turns, alone = ([[t.start, t.end, t.speaker] for t in some] for some in (found.turns, found.exclusive))
        yield {"name": job["name"], "turns": turns, "exclusive": alone, "seconds": time.perf_counter() - began}


def bound(system: str, jobs: Sequence[Job]) -> Iterator[Told]:
    """Give what our segmentation would come to if each piece were taken for whom it is most of its time."""
    import whisper
    from whisper.speakers import local_speakers

    for job in jobs:
        began = time.perf_counter()
        found = exhausted(local_speakers.find(whisper.load_audio(job["sound"])))
        told = [[turn.start, turn.end, turn.speaker] for turn in truly_assigned(job, found)]
        yield {"name": job["name"], "turns": told, "seconds": time.perf_counter() - began}


def truly_assigned(job: Job, found: Any) -> Sequence[Any]:
    """Return the turns where each piece of a voice goes to whom it is most of its time."""
    import numpy as np

    from whisper.speakers import light
    from whisper.speakers.networks.segmentation import CLASSES, frame_time

    if not len(found.pieces):
        return ()
    names = sorted({turn[2] for turn in job["turns"]})
    n_frames = int(found.starts[-1]) + found.classes.shape[1]
    times = np.array([frame_time(frame) for frame in range(n_frames)])
    speaks = np.zeros((n_frames, len(names)))
    for start, end, name in job["turns"]:
        speaks[(times >= start) & (times < end), names.index(name)] = 1
    labels = np.array([
        np.argmax(
            CLASSES[found.classes[found.windows[owner], begin:end], found.locals[owner]]
            @ speaks[found.starts[found.windows[owner]] + begin : found.starts[found.windows[owner]] + end]
        )
        for owner, begin, end in zip(found.owners, found.begins, found.ends, strict=True)
    ])  # fmt: skip
    turns: Sequence[Any] = light.from_votes(*light.votes(found, labels), job["seconds"]).turns
    return turns


def exhausted(steps: Generator[Any, None, Any]) -> Any:
    """Return what a generator returns."""
    try:
        while True:
            next(steps)
    except StopIteration as end:
        return end.value


def elsewhere(environment: Path, work: str, folder: Path, jobs: Sequence[Any], results: Path) -> bool:
    """Run speaker_work.py in an environment of its own; False where that is not there."""
    python = environment / "bin" / "python"
    if not python.exists():
        print(f"{work}: not installed (scripts/peers {environment.name})", file=sys.stderr)
        return False
    listed = folder / f"{work}-jobs.jsonl"
    listed.write_text("".join(json.dumps(job) + "\n" for job in jobs), encoding="utf-8")
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    script = str(Path(__file__).with_name("speaker_work.py"))
    subprocess.run([str(python), script, work, str(listed), str(results)], check=True, env=environ)
    return True


def read(path: Path) -> dict[str, Told]:
    """What is written down so far, by recording; a line that a kill cut off is left out."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            told = json.loads(line)
        except ValueError:
            continue
        found[told["name"]] = told
    return found


# ---------------------------------------------------------------------------------------------------------
# Words
# ---------------------------------------------------------------------------------------------------------


def transcribe(folder: Path, jobs: Sequence[Job], name: str) -> dict[str, Told]:
    """Return the words of each recording with times, as the model hears them, with how long that took."""
    results = folder / f"words-{name}.jsonl"
    done = read(results)
    if waiting := [job for job in jobs if job["words"] and job["name"] not in done]:
        import whisper

        print(f"{name}: {len(waiting)} recordings", file=sys.stderr, flush=True)
        model = whisper.load_model(name, device="cpu")
        with open(results, "a", encoding="utf-8") as file:
            for job in waiting:
                began = time.perf_counter()
                result = model.transcribe(job["sound"], language="en", word_timestamps=True)
                words = [[w["word"], w["start"], w["end"]] for s in result["segments"] for w in s["words"]]
                told = {"name": job["name"], "words": words, "seconds": time.perf_counter() - began}
                file.write(json.dumps(told) + "\n")
                file.flush()
    return read(results)


def with_speakers(words: Sequence[Sequence[Any]], turns: Turns) -> list[tuple[str, str]]:
    """Give each word the speaker who speaks most of its time, or else the nearest one."""

    def nearness(turn: Sequence[Any], start: float, end: float) -> float:
        return float(min(end, turn[1]) - max(start, turn[0]))  # negative: so far away

    return [
        (word, max(turns, key=lambda turn: nearness(turn, start, end))[2] if turns else "nobody")
        for word, start, end in words
    ]


def word_figures(jobs: Sequence[Job], words: Mapping[str, Told], found: Mapping[str, Told]) -> dict[str, float]:
    """Return cpWER and word error rate over all recordings with known words."""
    from whisper.evaluation.scoring import word_errors, words_of
    from whisper.evaluation.speaker_scoring import speaker_word_errors

    def by_speaker(spoken: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
        names = dict.fromkeys(name for _, name in spoken)
        return {name: words_of(" ".join(word for word, own in spoken if own == name), "en") for name in names}

    total = wrong = wrong_speaker = 0
    for job in jobs:
        if job["name"] not in words:
            continue
        told = found[job["name"]]
        reference = by_speaker([(word, name) for word, _, _, name in job["words"]])
        heard = with_speakers(words[job["name"]]["words"], told.get("exclusive", told["turns"]))
        total += sum(map(len, reference.values()))
        wrong_speaker += speaker_word_errors(reference, by_speaker(heard))
        spoken = words_of(" ".join(word for word, *_ in job["words"]), "en")
        wrong += word_errors(spoken, words_of(" ".join(word for word, _ in heard), "en"))
    return {"cpwer": 100 * wrong_speaker / max(total, 1), "wer": 100 * wrong / max(total, 1)}


# ---------------------------------------------------------------------------------------------------------
# Figures
# ---------------------------------------------------------------------------------------------------------


def scores(folder: Path, jobs: Sequence[Job], found: Mapping[str, Told], peers: Path, system: str) -> dict[str, Told]:
    """Return the errors of each recording, as pyannote.metrics and simpleder count them."""
    results = folder / f"scores-{system.replace(', ', '-').replace(' ', '-')}.jsonl"
    results.unlink(missing_ok=True)
    asked = [
        {"name": j["name"], "seconds": j["seconds"], "reference": j["turns"], "turns": found[j["name"]]["turns"]}
        for j in jobs
    ]
    if not elsewhere(peers / "pyannote-metrics", "score", folder, asked, results):
        raise SystemExit("errors are counted by pyannote.metrics: scripts/peers pyannote-metrics")
    return read(results)


def summed(jobs: Sequence[Job], found: Mapping[str, Told], scored: Mapping[str, Told]) -> dict[str, float]:
    """Return the figures over some recordings, in percent."""
    figures: dict[str, float] = {"recordings": len(jobs)}
    for kind, prefix in (("none", ""), ("collar", "collar_")):
        parts = [scored[job["name"]][kind] for job in jobs]
        total = sum(part["total"] for part in parts)
        for name in ("confusion", "missed", "false_alarm"):
            figures[prefix + name] = 100 * sum(part[name] for part in parts) / total
        figures[prefix + "der"] = sum(figures[prefix + n] for n in ("confusion", "missed", "false_alarm"))
        figures[prefix + "simpleder"] = 100 * sum(part["simpleder"] * part["total"] for part in parts) / total
    counts = [(len({turn[2] for turn in found[job["name"]]["turns"]}), job["speakers"]) for job in jobs]
    figures["count"] = 100 * sum(a == b for a, b in counts) / len(counts)
    figures["count_error"] = sum(a - b for a, b in counts) / len(counts)
    return figures


def groups(jobs: Sequence[Job]) -> Iterator[tuple[str, list[Job]]]:
    """Give the recordings by what may decide: material, room, number of speakers, overlap."""
    yield "all", list(jobs)
    keys: dict[str, Callable[[Job], str]] = {
        "": lambda job: job["family"],
        "room ": lambda job: job["room"],
        "speakers ": lambda job: str(job["speakers"]),
        "overlap ": lambda job: (
            "below 4 %" if job["overlap"] < 0.04 else "4 to 9 %" if job["overlap"] < 0.09 else "above"
        ),
    }
    for prefix, key in keys.items():
        ordered = sorted((job for job in jobs if job["family"] != "stereo" or not prefix), key=key)
        yield from ((prefix + name, list(own)) for name, own in itertools.groupby(ordered, key))


def table(figures: Mapping[str, Mapping[str, dict[str, float]]]) -> str:
    """Return the figures as two tables: of all systems, and of ours by group."""
    has_words = any("cpwer" in by_group["all"] for by_group in figures.values())
    head = "| system | DER | confusion | missed | false alarm | DER, collar | number right |"
    lines = [head + has_words * " cpWER | WER |", "|---|---|---|---|---|---|---|" + has_words * "---|---|"]
    for system, by_group in figures.items():
        f = by_group["all"]
        words = f" {f['cpwer']:.1f} | {f['wer']:.1f} |" if has_words else ""
        lines.append(
            f"| {system} | {f['der']:.1f} | {f['confusion']:.1f} | {f['missed']:.1f} | {f['false_alarm']:.1f} "
            f"| {f['collar_der']:.1f} | {f['count']:.0f} % |{words}"
        )
    systems = [name for name in figures if name != "sotto, number given"]
    lines += ["", "| DER (confusion; number right) | recordings | " + " | ".join(systems) + " |",
              "|---|---|" + "---|" * len(systems)]  # fmt: skip
    for group, first in next(iter(figures.values())).items():
        cells = (
            f"{f['der']:.1f} ({f['confusion']:.1f}; {f['count']:.0f} %)" for f in (figures[s][group] for s in systems)
        )
        lines.append(f"| {group} | {first['recordings']:.0f} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def picture(path: Path, job: Job, found: Mapping[str, Turns]) -> None:
    """Draw one conversation: who speaks when, by the reference and by each system, in matched colours."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = sorted({turn[2] for turn in job["turns"]})
    rows = {"reference": job["turns"], **found}
    figure, axes = pyplot.subplots(len(rows), 1, figsize=(12, 1.5 * len(rows)), sharex=True, layout="constrained")
    for axis, (label, turns) in zip(axes, rows.items(), strict=True):
        colour = matched(job["turns"], turns)
        for start, end, speaker in turns:
            k = names.index(colour[speaker]) if speaker in colour else len(names)
            shade = f"C{k}" if speaker in colour else "0.6"
            axis.broken_barh([(start, end - start)], (-k - 0.4, 0.8), facecolors=shade)
        axis.set(ylabel=label, yticks=[], ylim=(-len(names) - 0.6, 0.6))
    axes[-1].set_xlabel(f"seconds; {job['speakers']} speakers, room {job['room']}, grey: a speaker too many")
    figure.savefig(path, dpi=90)


def matched(reference: Turns, turns: Turns) -> dict[str, str]:
    """Match speakers one to one, those who speak together longest first."""
    together: dict[tuple[str, str], float] = {}
    for (a, b, true), (c, d, name) in itertools.product(reference, turns):
        together[name, true] = together.get((name, true), 0.0) + max(min(b, d) - max(a, c), 0.0)
    found: dict[str, str] = {}
    for (name, true), seconds in sorted(together.items(), key=lambda item: -item[1]):
        if seconds > 0 and name not in found and true not in found.values():
            found[name] = true
    return found


# ---------------------------------------------------------------------------------------------------------
# Cost
# ---------------------------------------------------------------------------------------------------------


def cost(jobs: Sequence[Job], name: str) -> dict[str, float]:
    """Return seconds of computation for a second of sound, taken in turns; the first recording warms up."""
    import whisper

    model = whisper.load_model(name, device="cpu")
    spent, sound = {"transcribe": 0.0, "diarize": 0.0}, 0.0
    for i, job in enumerate(jobs):
        samples = whisper.load_audio(job["sound"])
        for what, call in (
            ("transcribe", lambda: model.transcribe(samples, language="en", word_timestamps=True)),  # noqa: B023
            ("diarize", lambda: whisper.diarize(samples)),  # noqa: B023
        ):
            began = time.perf_counter()
            call()
            spent[what] += (time.perf_counter() - began) if i else 0.0
        sound += job["seconds"] if i else 0.0
    return {
        "sound": sound, "transcribe": spent["transcribe"] / sound, "diarize": spent["diarize"] / sound,
        "share": spent["diarize"] / spent["transcribe"],
    }  # fmt: skip


# ---------------------------------------------------------------------------------------------------------
# The command
# ---------------------------------------------------------------------------------------------------------


def recordings(arguments: argparse.Namespace) -> tuple[Path, list[Job]]:
    """Return the folder of results, and the recordings, which are made where they are missing."""
    n, seed = (5, arguments.seed) if arguments.quick else (arguments.n, arguments.seed)
    folder = (arguments.cache / f"{arguments.data.name}-{seed}-{n}").resolve()
    drawn = made.conversations(arguments.data, arguments.cache.resolve(), n, seed, has_words=bool(arguments.model))
    jobs = made.write(folder, itertools.chain(drawn, made.stereo(arguments.data)))
    return folder, [{**job, "sound": str(folder / job["sound"])} for job in jobs]


def write_table(path: Path, text: str) -> None:
    """Put the table between its marks in a document."""
    document = path.read_text(encoding="utf-8")
    before, _, rest = document.partition(BEGIN)
    path.write_text(before + BEGIN + text + END + rest.partition(END)[2], encoding="utf-8")


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "dev", help="real recordings")
    parser.add_argument("--n", type=int, default=40, help="conversations")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="five conversations")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=SYSTEMS, metavar="SYSTEM")
    parser.add_argument("--model", default="base", help="whose words get speakers; empty: no words")
    parser.add_argument("--peers", type=Path, default=ROOT / ".venv-peers", help="environments of the others")
    parser.add_argument("--cache", type=Path, default=ROOT / "build" / "speakers", help="recordings and results")
    parser.add_argument("--doc", type=Path, help="write the tables into this document, between their marks")
    parser.add_argument("--picture", type=Path, help="draw one conversation into this file")
    parser.add_argument("--cost", action="store_true", help="measure time only")
    return parser


def main() -> None:
    arguments = parser().parse_args()
    folder, jobs = recordings(arguments)
    if arguments.cost:
        print(json.dumps(cost(jobs[:: max(len(jobs) // 6, 1)], arguments.model)))
        return
    words = transcribe(folder, jobs, arguments.model) if arguments.model else {}
    found = {system: run(folder, jobs, system, arguments.peers.resolve()) for system in arguments.systems}
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for system, told in found.items():
        if told is None:
            continue
        scored = scores(folder, jobs, told, arguments.peers.resolve(), system)
        figures[system] = {group: summed(own, told, scored) for group, own in groups(jobs)}
        if words:
            figures[system]["all"] |= word_figures(jobs, words, told)
    print(table(figures))
    if arguments.doc:
        write_table(arguments.doc, table(figures))
    if arguments.picture:
        job = next(j for j in jobs if j["speakers"] == 4 and j["family"] == "read" and j["overlap"] > 0.05)
        shown = {s: told[job["name"]]["turns"] for s in ("sotto", SENKO) if (told := found.get(s))}
        picture(arguments.picture, job, shown)
    print(json.dumps({"data": str(arguments.data), "n": len(jobs), "figures": figures}))


if __name__ == "__main__":
    main()
