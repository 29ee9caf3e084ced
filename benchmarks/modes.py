#!/usr/bin/env python3
"""What modes of Sotto, and others, do to a real model's transcripts: wrong languages, lost and inserted words, time.

    scripts/peers openai-whisper faster-whisper
    python benchmarks/modes.py --model base=base.pt,base-ct2 --quick --plot modes.png

Clips and joined recordings are transcribed once in each mode, one mode after the other on the same sound, so that the
ratios of their times hold on a busy machine. Each result is written down at once: a run that was stopped goes on where
it stopped. Give each model, precision and state of the code a `--cache` of its own.

  language  clips, language not given: detected as another than that of the manifest, also by set; alone, and as
            parts of a list (worked out from what each was alone: texts are not decoded again)
  long      ten minutes of joined clips of each set, language given: word error, deletions and insertions, of what kind
            these are (see word_errors.py), and how far modes differ, with intervals
  silent    clips without speech, made-up noises, and ten minutes of each kind: recordings with text

The modes run here, with one model; "Sotto, float32" and the other systems in processes and environments of their own,
with the same weights, greedy, and otherwise their defaults. Time is that of the processor.

A clip is "turned wrong" where the default has its language and a mode has not. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import speech
from constructed import FULL, QUICK, Clips, joined, natural
from constructed import silent as silent_recordings
from speech import Weights
from word_errors import INSERTIONS, errors_in_blocks, insertions

MODES: dict[str, dict[str, Any]] = {  # options beside the defaults
    "default": {},
    "verify_language": {"verify_language": True},
    "vad_filter": {"vad_filter": True},
    "audit": {"audit": True},
    "batched": {"batch_size": 4, "audit": False},
    "audit, batched": {"batch_size": 4, "audit": True},
}
SYSTEMS = {  # other implementations, by their names in speech_work.py
    "Sotto, float32": "sotto float32",
    "openai-whisper": "openai-whisper",
    "faster-whisper": "faster-whisper int8",
    "faster-whisper, VAD": "faster-whisper int8 vad",
    "faster-whisper, batched": "faster-whisper int8 batched",
}
OF_ROW = {  # what a row compares
    "language": ("default", "verify_language", "audit"),
    "long": ("default", "audit", "batched", "audit, batched", *SYSTEMS),
    "silent": ("default", "vad_filter", "audit", *SYSTEMS),
}
ENGLISH = ("speechocean762", "commonvoice_en", "vctk", "librispeech_test_other")
JOINED = (
    "librispeech_test_other",
    "librispeech_train_clean_100",
    "ljspeech",
    "vctk",
    "commonvoice_en",
    "speechocean762",
)
BESIDE = ("default", "audit")  # modes that the others are compared with
LONG_SECONDS, QUICK_SECONDS = 600, 120
QUICK_EVERY = 8  # clip of a set
FLOOR_DB = -80  # of the noise under joined clips: digital silence between clips is an artefact


@dataclass(frozen=True)
class Job:
    """A recording of one row."""

    row: str
    group: str
    name: str
    samples: Any  # float32
    text: str
    language: str | None  # known

    @property
    def options(self) -> dict[str, Any]:
        """What every system is told beside its mode."""
        return {"language": self.language} if self.row == "long" else {}


Told = dict[str, Any]


def jobs(clips: Clips, rows: list[str], sets: dict[str, list[str]], quick: bool) -> Iterator[Job]:
    """Yield the recordings, in an order that does not change."""
    every = QUICK_EVERY if quick else 1
    languages = {str((clips.folder / row.path).relative_to(clips.folder)): row.language for row in clips.rows}
    if "language" in rows:
        for group in sets["language"]:
            for clip in clips.of(group)[::every]:
                language = languages[clip.name]
                yield Job("language", group, clip.name, clip.samples, clip.text, language)
    if "long" in rows:
        for seed, group in enumerate(sets["long"][:: 3 if quick else 1]):
            chosen = natural(clips.shuffled(group), QUICK_SECONDS if quick else LONG_SECONDS, seed)
            recording = joined(group, *chosen, room=FLOOR_DB, seed=seed)
            samples = recording.samples.astype(np.float32) / 32768
            yield Job("long", group, group, samples, " ".join(part.text for part in recording.parts), "en")
    if "silent" in rows:
        for recording in silent_recordings(clips, QUICK if quick else FULL):
            samples = recording.samples.astype(np.float32) / 32768
            yield Job("silent", "silent", recording.name, samples, "", None)


def transcribe(model: Any, job: Job, mode: str) -> Told:
    """Transcribe one recording in one mode."""
    from whisper import transcribe_with_report

    options = {"audit": False, "seed": 0, **job.options, **MODES[mode]}
    began = time.process_time()
    transcript, report = transcribe_with_report(model, job.samples, **options)
    cpu = time.process_time() - began
    findings = [(f.kind, round(f.start, 2), round(f.end, 2), f.text, f.reason) for f in report.findings]
    return {
        "key": [job.row, job.group, job.name, mode],
        "text": transcript["text"],
        "language": transcript["language"],
        "true": job.language,
        "said": job.text,
        "cpu": cpu,
        "seconds": len(job.samples) / 16000,
        "findings": findings,
        "probs": {code: round(p, 4) for code, p in report.language_probs.items() if p >= 0.001},
        "scores": report.language_scores,
    }


def run(arguments: argparse.Namespace) -> list[Told]:
    """Transcribe what is not yet in the cache; return all results."""
    import torch

    from whisper import load_model

    torch.set_num_threads(arguments.threads)
    path = Path(arguments.cache) / "results.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    told = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = {tuple(one["key"]): one for one in told}
    found: list[Told] = []
    model = load_model(str(arguments.model.pt), device="cpu", compute_type=arguments.compute_type)
    sets = {"language": arguments.language_sets, "long": arguments.long_sets}
    of_others = []
    for job in jobs(Clips(arguments.data), arguments.rows, sets, arguments.quick):
        for mode in [mode for mode in OF_ROW[job.row] if mode in arguments.modes and mode in MODES]:
            one = done.get((job.row, job.group, job.name, mode))
            if one is None:
                one = transcribe(model, job, mode)
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(one) + "\n")
            found.append(one)
        if job.row != "language":
            of_others.append(stored(job, Path(arguments.cache)))
    return found + [one for mode in SYSTEMS if mode in arguments.modes for one in run_other(mode, of_others, arguments)]


def stored(job: Job, cache: Path) -> dict[str, Any]:
    """Write a recording down for other processes; return the job without its samples."""
    path = (cache / "sound" / f"{job.row}-{job.name.replace('/', '_')}-{len(job.samples)}.npy").resolve()
    path.parent.mkdir(exist_ok=True)
    if not path.exists():
        np.save(path, job.samples)
    key = [job.row, job.group, job.name]
    return {"key": key, "name": path.stem, "path": str(path), "options": job.options, "said": job.text,
            "true": job.language, "seconds": len(job.samples) / 16000}  # fmt: skip


def run_other(mode: str, jobs: list[dict[str, Any]], arguments: argparse.Namespace) -> list[Told]:
    """Let another system transcribe what it has not yet; return its results in the form of ours."""
    asked = [{key: job[key] for key in ("name", "path", "options")} for job in jobs]
    told = speech.run(SYSTEMS[mode], arguments.model, asked, Path(arguments.cache), arguments.threads, at_once=1)
    return [
        {**job, "key": [*job["key"], mode], "text": one["text"], "language": one["language"], "cpu": one["cpu"]}
        for job, one in zip(jobs, told, strict=True)
        if one is not None and "error" not in one
    ]


# ---------------------------------------------------------------------------------------------------------
# Figures
# ---------------------------------------------------------------------------------------------------------


def by_mode(told: list[Told], row: str) -> dict[str, dict[tuple[str, str], Told]]:
    """Return the results of a row by mode, and then by set and name."""
    found: dict[str, dict[tuple[str, str], Told]] = defaultdict(dict)
    for one in told:
        if one["key"][0] == row:
            found[one["key"][3]][one["key"][1], one["key"][2]] = one
    return found


def time_ratio(mode: dict[Any, Told], default: dict[Any, Told]) -> float:
    """Return how many times as much CPU time a mode took as the default, on the same recordings."""
    both = mode.keys() & default.keys()
    return sum(mode[key]["cpu"] for key in both) / max(sum(default[key]["cpu"] for key in both), 1e-9)


def in_one_list(results: dict[tuple[str, str], Told]) -> dict[tuple[str, str], Told]:
    """Return the results of `verify_language` with the languages that a list of all these recordings would give."""
    from whisper.audit.report import Report
    from whisper.transcription.language_choice import reconsider

    reports = [
        Report(language=one["language"], language_probs=one["probs"], language_scores=one["scores"])
        for one in results.values()
    ]
    changed = reconsider(reports)
    return {
        key: {**one, "language": changed.language} if i in changed.reasons else one
        for i, (key, one) in enumerate(results.items())
    }


def languages(told: list[Told]) -> dict[str, Any]:
    """Return how many clips were read in another language than their own."""
    found, figures = by_mode(told, "language"), {}
    if alone := found.get("verify_language"):
        parts = [{k: one for k, one in alone.items() if (k[0] in ENGLISH) == english} for english in (True, False)]
        found["verify_language, English and others as two lists"] = in_one_list(parts[0]) | in_one_list(parts[1])
        found["verify_language, one list"] = in_one_list(alone)
    default = found.get("default", {})
    for mode, results in found.items():
        wrong = {key for key, one in results.items() if one["language"] != one["true"]}
        sets = sorted({group for group, _ in results})
        english = [key for key in results if key[0] in ENGLISH]
        turned = [key for key in wrong if key in default and default[key]["language"] == default[key]["true"]]
        empty = [key for key in results if not results[key]["text"].strip() and default.get(key, {}).get("text", "")]
        figures[mode] = {
            "english wrong": sum(key in wrong for key in english),
            "english": len(english),
            "wrong": len(wrong),
            "of": len(results),
            "turned wrong": sorted(map("/".join, turned)),
            "empty": sorted(map("/".join, empty)),
            "time": time_ratio(results, default),
            "sets": {group: [sum(key[0] == group for key in keys) for keys in (wrong, results)] for group in sets},
        }
    return figures


def aloud(text: str) -> str:
    """Return what was said without brackets: their words were said, and normalisation would leave them out."""
    return re.sub(r"[()\[\]]", " ", text)


def long_ones(told: list[Told]) -> dict[str, Any]:
    """Return word errors of the long recordings, in percent of the words."""
    from whisper.evaluation.scoring import align, count_edits, words_of

    found, figures = by_mode(told, "long"), {}
    aligned = {
        mode: {
            key: align(words_of(aloud(one["said"]), "en"), words_of(one["text"], "en")) for key, one in results.items()
        }
        for mode, results in found.items()
    }
    for mode, results in found.items():
        sets, total, kinds = {}, count_edits([]), Counter[str]()
        for (group, _), steps in sorted(aligned[mode].items()):
            edits = count_edits(steps)
            sets[group], total = 100 * edits.errors / edits.total, total + edits
            kinds += insertions(steps)
        figures[mode] = {
            "words": total.total,
            "word error": 100 * total.errors / total.total,
            "deletions": 100 * total.deletions / total.total,
            "insertions": 100 * total.insertions / total.total,
            "insertions by kind": {kind: 100 * kinds[kind] / total.total for kind in INSERTIONS},
            "beside": {other: difference(aligned[other], aligned[mode]) for other in BESIDE if other in aligned},
            "time": time_ratio(results, found.get("default", {})),
            "sets": sets,
        }
    return figures


def difference(first: dict[Any, Any], second: dict[Any, Any]) -> str:
    """Say how many points of word error a mode has more than another, with the paired interval."""
    from whisper.evaluation.scoring import make_difference

    both = sorted(first.keys() & second.keys())
    errors = [[n for key in both for n in errors_in_blocks(mode[key])[0]] for mode in (first, second)]
    words = [n for key in both for n in errors_in_blocks(first[key])[1]]
    value = make_difference(*errors, words)
    return f"{100 * value.value:+.2f} [{100 * value.low:+.2f}, {100 * value.high:+.2f}]"


def silent(told: list[Told]) -> dict[str, Any]:
    """Return how many recordings without speech have a text."""
    found = by_mode(told, "silent")
    return {
        mode: {
            "with text": {key[1]: one["text"].strip() for key, one in results.items() if one["text"].strip()},
            "of": len(results),
            "time": time_ratio(results, found.get("default", {})),
        }
        for mode, results in found.items()
    }


def table(figures: dict[str, Any]) -> str:
    """Return the figures as tables in Markdown."""
    lines = []
    if rows := figures.get("language"):
        lines += [
            "| mode | English clips in a wrong language | all clips | turned wrong | empty | time |",
            "|---" * 6 + "|",
        ]
        for mode, f in rows.items():
            english = (
                f"{f['english wrong']} of {f['english']} ({100 * f['english wrong'] / max(f['english'], 1):.1f} %)"
            )
            lines.append(
                f"| {mode} | {english} | {f['wrong']} of {f['of']} | {len(f['turned wrong'])} | "
                f"{len(f['empty'])} | {f['time']:.2f}x |"
            )
    if rows := figures.get("long"):
        lines += ["", "| mode | words | word error, % | deletions, % | insertions, % | time |", "|---" * 6 + "|"]
        lines += [
            f"| {mode} | {f['words']} | {f['word error']:.2f} | {f['deletions']:.2f} | {f['insertions']:.2f} | "
            f"{f['time']:.2f}x |"
            for mode, f in rows.items()
        ]
        lines += ["", f"| words inserted, % | {' | '.join(INSERTIONS)} |", "|---" * (len(INSERTIONS) + 1) + "|"]
        for mode, f in rows.items():
            lines.append(f"| {mode} | {' | '.join(f'{share:.2f}' for share in f['insertions by kind'].values())} |")
        lines += ["", f"| word error, points | {' | '.join(f'beside {other}' for other in BESIDE)} |", "|---" * 3 + "|"]
        for mode, f in rows.items():
            cells = [f["beside"].get(other, "") if other != mode else "" for other in BESIDE]
            lines.append(f"| {mode} | {' | '.join(cells)} |")
        lines += ["", f"| word error, % | {' | '.join(rows)} |", "|---" * (len(rows) + 1) + "|"]
        for group in next(iter(rows.values()))["sets"]:
            cells = [f"{f['sets'][group]:.1f}" if group in f["sets"] else "" for f in rows.values()]
            lines.append(f"| {group} | {' | '.join(cells)} |")
    if rows := figures.get("silent"):
        lines += ["", "| mode | recordings without speech that have a text | time |", "|---" * 3 + "|"]
        lines += [f"| {mode} | {len(f['with text'])} of {f['of']} | {f['time']:.2f}x |" for mode, f in rows.items()]
    return "\n".join(lines)


def draw(figures: dict[str, Any], name: str, path: Path) -> None:
    """Draw the rows, a panel each, with a bar for each mode and system."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    panels: list[tuple[str, dict[str, list[float]]]] = []
    if rows := figures["long"]:
        parts = {mode: [f["deletions"], f["insertions"]] for mode, f in rows.items()}
        parts = {mode: [*p, rows[mode]["word error"] - sum(p)] for mode, p in parts.items()}
        panels.append(("words lost, inserted and other ones, % of an hour of speech", parts))
    if rows := figures["silent"]:
        shares = {mode: [100 * len(f["with text"]) / f["of"]] for mode, f in rows.items()}
        panels.append(("recordings without speech that have a text, %", shares))
    if rows := figures["language"]:
        wrong = {mode: [100 * f["english wrong"] / max(f["english"], 1)] for mode, f in rows.items()}
        panels.append(("English clips read in a wrong language, %", wrong))
    size = (4.6 * len(panels) + 1.4, 0.42 * max(len(bars) for _, bars in panels) + 1.1)
    figure, axes = plt.subplots(1, len(panels), figsize=size, squeeze=False, layout="constrained")
    for axis, (title, bars) in zip(axes[0], panels, strict=True):
        for row, (mode, values) in enumerate(bars.items()):
            theirs = mode in SYSTEMS and not mode.startswith("Sotto")
            colours = ("#5a5a5a", "#8a8a8a", "#c4c4c4") if theirs else ("#0b4f6c", "#3a8fb7", "#b7d7e8")
            for value, left, colour in zip(values, np.cumsum([0, *values]), colours, strict=False):
                axis.barh(row, value, left=left, color=colour, height=0.7)
            axis.text(sum(values), row, f" {sum(values):.1f}", va="center", fontsize=8)
        axis.set_yticks(range(len(bars)), list(bars), fontsize=9)
        axis.invert_yaxis()
        axis.margins(x=0.12)
        axis.set_title(title, fontsize=9, loc="left")
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{name}: Sotto's modes (blue) and others (grey)", fontsize=10, x=0.01, ha="left")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Weights.parse, required=True, metavar="NAME=FILE.pt,FOLDER")
    parser.add_argument("--compute-type", default="auto", help="precision of the model")
    parser.add_argument("--data", type=Path, default=speech.DATA, help="a folder with manifest.tsv")
    parser.add_argument("--cache", default="build/modes", help="folder of the results")
    parser.add_argument("--rows", nargs="+", default=list(OF_ROW), choices=list(OF_ROW))
    parser.add_argument("--modes", nargs="+", default=[*MODES, *SYSTEMS], choices=[*MODES, *SYSTEMS], metavar="MODE")
    parser.add_argument("--language-sets", nargs="+", default=[*ENGLISH, "multilingual"], metavar="SET")
    parser.add_argument("--long-sets", nargs="+", default=list(JOINED), metavar="SET")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--plot", type=Path, help="draw into this PNG (needs matplotlib)")
    parser.add_argument("--quick", action="store_true", help="an eighth of the clips, two minutes of two long ones")
    arguments = parser.parse_args()
    told = run(arguments)
    figures = {"language": languages(told), "long": long_ones(told), "silent": silent(told)}
    print(table(figures))
    if arguments.plot:
        draw(figures, arguments.model.name, arguments.plot)
    print(json.dumps(figures, ensure_ascii=False))


if __name__ == "__main__":
    main()
