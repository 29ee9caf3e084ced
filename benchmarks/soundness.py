#!/usr/bin/env python3
"""Is the transcript sound: nothing lost, nothing invented? The original beside Sotto in its modes, on the same sound.

    scripts/peers openai-whisper
    python benchmarks/soundness.py --plot docs/soundness.png --doc docs/soundness.md

Recordings are put together from real clips (see constructed.py); every implementation and mode transcribes all of them
in a process of its own, with the same weights (nano), float32, one thread, and otherwise its defaults. What a process
has transcribed it writes down at once, so a run that was killed goes on where it stopped; what the code of Sotto gave
is forgotten when the code changes.

  silent   clips of noise, music and silence, and ten minutes of each kind: share with any text
  pauses   clips joined with pauses of 2 to 60 s: words that are lost, doubled or other ones than each clip alone gives
  nasty    distorted speech, tones, babble, a phrase many times over: crashes, loops, and time against the clean ones
  joined   ten minutes of joined clips: word errors against those of the clips alone
  words    the recordings of `pauses` with word times: share of words that begin inside a pause

`--why` tells which recordings fail and what was said there. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from constructed import FULL, QUICK, RATE, Clips, Recording, Size
from constructed import ROWS as RECORDINGS

ROOT = Path(__file__).resolve().parent.parent
MODES: dict[str, dict[str, Any]] = {  # options beside the defaults; "original" runs in its own Python
    "original": {},
    "default": {},
    "vad_filter": {"vad_filter": True},
    "audit": {"audit": True},
    "audit, batched": {"audit": True, "batch_size": 4},
}
ENGLISH = {"language": "en"}
OPTIONS: dict[str, dict[str, Any]] = {  # by row
    "silent": {}, "pauses": ENGLISH, "nasty": ENGLISH, "joined": ENGLISH, "words": {**ENGLISH, "word_timestamps": True},
}  # fmt: skip
N_TIMED = 3  # runs of each recording of `nasty`, at most
LONG_ENOUGH = 2.0  # seconds of runs after which there is no need of another
TOO_LONG = 300  # seconds after which a transcription counts as endless
NEAR_EDGE = 0.1  # seconds from the edge of a pause that do not count as inside
LONG_PAUSE = 1.0  # seconds that no word should last into a pause
BLOCK = 30.0  # seconds: errors in one window hang together, so the bootstrap draws windows
LOOPED = 1.5  # times as often as it was said: fewer are an error of reading, as "seven" 12 times for 10
FULL_WINDOW = 200  # tokens of a window that nobody says in 30 s; at most 224 are decoded

Told = dict[str, Any]  # what a process tells about a recording
Job = dict[str, Any]


# ---------------------------------------------------------------------------------------------------------
# In a process of its own, with whichever `whisper` its Python imports
# ---------------------------------------------------------------------------------------------------------


def work(folder: Path, mode: str) -> None:
    """Transcribe what is not yet in the mode's file of results, and add a line for each."""
    import warnings

    import torch

    import whisper

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    model = whisper.load_model(str(folder / "nano.pt"), device="cpu")
    heads = torch.load(folder / "nano.pt", weights_only=True)["alignment_heads"]
    model.set_alignment_heads(heads.encode())  # the original does not look for them in the file
    model.transcribe(np.zeros(RATE, np.float32), fp16=False, **MODES[mode])  # warm up; fails for an unknown option
    signal.signal(signal.SIGALRM, _too_long)
    for job in jobs_left(folder, mode):
        signal.alarm(TOO_LONG)
        line = json.dumps(transcribe(model, job, MODES[mode]))
        signal.alarm(0)
        with open(results_of(folder, mode), "a", encoding="utf-8") as file:
            file.write(line + "\n")


def _too_long(*_: object) -> None:
    raise TimeoutError(f"no end after {TOO_LONG} s")


def transcribe(model: Any, job: Job, options: dict[str, Any]) -> Told:
    """Transcribe a recording, maybe several times; errors are told, not raised."""
    import torch

    samples = np.load(job["path"]).astype(np.float32) / 32768
    cpu: list[float] = []  # seconds of each run
    while len(cpu) < job["n_times"] and sum(cpu) < LONG_ENOUGH:
        torch.manual_seed(0)  # of the original's draws at higher temperatures
        began = time.process_time()
        try:
            result = model.transcribe(samples, fp16=False, **job["options"], **options)
        except Exception as error:  # whatever it is, it is a crash, and counted
            return {"key": job["key"], "error": f"{type(error).__name__}: {error}"}
        cpu.append(time.process_time() - began)
    segments = [{**segment, "tokens": len(segment["tokens"])} for segment in result["segments"]]
    told = {"key": job["key"], "text": result["text"], "language": result["language"], "segments": segments}
    return dict(json.loads(json.dumps({**told, "cpu": cpu}, default=float)))


def results_of(folder: Path, mode: str) -> Path:
    return folder / f"{mode.replace(', ', '-')}.jsonl"


def read_results(folder: Path, mode: str) -> dict[str, Told]:
    """What is written down so far, by key; a line that a kill cut off is left out."""
    path, told = results_of(folder, mode), {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            one = json.loads(line)
        except ValueError:
            continue
        told[one["key"]] = one
    return told


def jobs_left(folder: Path, mode: str) -> list[Job]:
    jobs = json.loads((folder / f"jobs-{'original' if mode == 'original' else 'ours'}.json").read_text())
    told = read_results(folder, mode)
    return [job for job in jobs if job["key"] not in told]


# ---------------------------------------------------------------------------------------------------------
# Recordings to jobs, jobs to processes
# ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Known:
    """A recording without its samples, and under which keys its results stand."""

    row: str
    recording: Recording
    seconds: float
    pauses: tuple[tuple[float, float], ...]
    key: str
    alone: tuple[str, ...] = ()  # keys of its parts by themselves


@dataclass
class Prepared:
    """All jobs, each once."""

    folder: Path
    known: list[Known] = field(default_factory=list)
    jobs: dict[str, Job] = field(default_factory=dict)

    def add(self, row: str, recording: Recording) -> None:
        """Ask for a recording; where the row wants it, for its parts, too."""
        alone = recording.alone() if row in ("pauses", "joined") else []
        keys = tuple(self._job(row, part) for part in alone)
        key = self._job(row, recording)
        bare = replace(recording, samples=np.zeros(0, np.int16))
        self.known.append(Known(row, bare, recording.seconds, tuple(recording.pauses), key, keys))

    def _job(self, row: str, recording: Recording) -> str:
        sound = hashlib.sha256(recording.samples.tobytes()).hexdigest()[:16]
        path = self.folder / "sound" / f"{sound}.npy"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, recording.samples)
        n_times = N_TIMED if row == "nasty" else 1
        key = hashlib.sha256(json.dumps([sound, OPTIONS[row], n_times]).encode()).hexdigest()[:16]
        self.jobs[key] = {"key": key, "path": str(path), "options": OPTIONS[row], "n_times": n_times,
                          "name": recording.name}  # fmt: skip
        return key


def prepare(data: Path, folder: Path, size: Size, rows: list[str]) -> Prepared:
    """Put the recordings together, write them and the weights into `folder`, and list what is to be done."""
    from whisper import load_model
    from whisper.checkpoints.load import save_checkpoint

    folder.mkdir(parents=True, exist_ok=True)
    save_checkpoint(load_model("nano", device="cpu"), folder / "nano.pt")
    clips, prepared = Clips(data), Prepared(folder)
    for row in rows:
        for recording in RECORDINGS["pauses" if row == "words" else row](clips, size):
            if row != "words" or "/room" in recording.name:
                prepared.add(row, recording)
    code = code_of_ours()
    jobs = list(prepared.jobs.values())
    (folder / "jobs-original.json").write_text(json.dumps(jobs))
    (folder / "jobs-ours.json").write_text(json.dumps([{**job, "key": code + job["key"]} for job in jobs]))
    return prepared


def code_of_ours() -> str:
    """Name the package's present code."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "whisper").rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:8] + "-"


def run(mode: str, folder: Path, peer: str) -> dict[str, Told]:
    """Run a mode to its end, however often its process dies; what it told, by the keys of `Prepared`.

    Raises
    ------
    LookupError
        This checkout does not have the mode's options.
    """
    ours = mode != "original"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT) if ours else ""}
    command = [sys.executable if ours else peer, str(Path(__file__).resolve()), "--work", mode, "--cache", str(folder)]
    while left := jobs_left(folder, mode):
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)
        if done.returncode == 0:
            break
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        if "Error: " in reason and len(jobs_left(folder, mode)) == len(left):  # Python's, before the first job
            raise LookupError(reason)
        died = {"key": jobs_left(folder, mode)[0]["key"], "error": f"died with {done.returncode}: {reason}"}
        with open(results_of(folder, mode), "a", encoding="utf-8") as file:
            file.write(json.dumps(died) + "\n")
    code = code_of_ours() if ours else ""
    told = read_results(folder, mode)
    return {key.removeprefix(code): one for key, one in told.items() if key.startswith(code)}


# ---------------------------------------------------------------------------------------------------------
# Measures: what a mode told to figures, and to what failed
# ---------------------------------------------------------------------------------------------------------


@dataclass
class Measure:
    """One row of the table for one mode."""

    value: float  # what the goal is about
    text: str  # as it stands in the table
    met: bool
    figures: dict[str, Any]
    failed: dict[str, str] = field(default_factory=dict)  # by recording: what is wrong with it


Results = dict[str, dict[str, Measure]]  # by mode and row


def words_of(text: str) -> list[str]:
    """Words as they are compared; digits stay words, so that "one two" does not become "12"."""
    from whisper.evaluation.scoring import words_of

    return words_of(text, None)


def measure_silent(known: list[Known], told: dict[str, Told]) -> Measure:
    """Share of recordings without speech that are given a text."""
    given = {k.recording.name: told[k.key]["text"] for k in known if told[k.key].get("text", "").strip()}
    long = [name for name in given if "/long/" in name]
    n_long = sum("/long/" in k.recording.name for k in known)
    text = f"{len(given) - len(long)} of {len(known) - n_long} clips, {len(long)} of {n_long} long"
    return Measure(len(given) / len(known), text, not given, {"given": len(given), "of": len(known)}, given)


def measure_pauses(known: list[Known], told: dict[str, Told]) -> Measure:
    """Words lost, doubled and changed against what each clip alone gives."""
    from whisper.evaluation.scoring import align, count_edits

    total, failed = count_edits([]), {}
    own_edits, joined_edits = count_edits([]), count_edits([])
    for k in known:
        own = [word for key in k.alone for word in words_of(told[key].get("text", ""))]
        heard = words_of(told[k.key].get("text", ""))
        said = [word for part in k.recording.parts for word in words_of(part.text)]
        edits = count_edits(align(own, heard))
        total += edits
        own_edits += count_edits(align(said, own))
        joined_edits += count_edits(align(said, heard))
        if edits.errors:
            failed[k.recording.name] = differences(own, heard)
    text = f"{total.deletions} lost, {total.insertions} doubled, {total.substitutions} other, of {total.total}"
    figures = {
        "lost": total.deletions, "doubled": total.insertions, "other": total.substitutions, "words": total.total,
        "errors of the clips alone": own_edits.errors, "errors joined": joined_edits.errors, "said": own_edits.total,
    }  # fmt: skip
    wrong = total.deletions + total.insertions
    return Measure(wrong, text, not wrong, figures, failed)


def differences(own: list[str], heard: list[str]) -> str:
    """Tell two texts apart: [-lost-], {+doubled+}, [other -> word]."""
    from whisper.evaluation.scoring import align

    forms = {"hit": "{0}", "deletion": "[-{0}-]", "insertion": "{{+{1}+}}", "substitution": "[{0} -> {1}]"}
    return " ".join(forms[step.kind].format(step.reference, step.hypothesis) for step in align(own, heard))


def measure_nasty(known: list[Known], told: dict[str, Told]) -> Measure:
    """Crashes, loops, and the time against the clean recording's."""
    failed, ratios = {}, {}
    names = {k.recording.name: k for k in known}
    crashed, looped = 0, 0
    for k in known:
        one, name = told[k.key], k.recording.name
        if "error" in one:
            crashed += 1
            failed[name] = one["error"]
            continue
        if loop := find_loop(one, k.recording):
            looped += 1
            failed[name] = loop
        clean = told[names[k.recording.clean].key] if k.recording.clean else {}
        if "cpu" in clean:
            ratios[name] = statistics.median(one["cpu"]) / statistics.median(clean["cpu"])
            if ratios[name] > 2:
                failed[name] = f"{ratios[name]:.1f} times as long as {k.recording.clean}; {failed.get(name, '')}"
    slow = sum(ratio > 2 for ratio in ratios.values())
    most, middle = (max(ratios.values()), statistics.median(ratios.values())) if ratios else (0.0, 0.0)
    text = f"{crashed} crashes, {looped} loops, {slow} of {len(ratios)} over 2x (most {most:.1f}x)"
    figures = {"crashed": crashed, "looped": looped, "slow": slow, "of": len(known), "most": most, "median": middle}
    return Measure(crashed + looped + slow, text, crashed + looped + slow == 0, {**figures, "ratios": ratios}, failed)


def find_loop(one: Told, recording: Recording) -> str:
    """What is said too often, or in too many tokens; empty where nothing is."""
    said = longest_run([word for part in recording.parts for word in words_of(part.text)])[0]
    n_times, phrase = longest_run(words_of(one["text"]))
    if n_times > max(3, LOOPED * said):
        return f"{n_times} times {phrase!r}, said {said} times"
    in_window: dict[int, int] = {}
    for segment in one["segments"]:
        in_window[segment["seek"]] = in_window.get(segment["seek"], 0) + segment["tokens"]
    most = max(in_window.values(), default=0)
    return f"{most} tokens in a window: {one['text'][:200]!r}" if most >= FULL_WINDOW else ""


def longest_run(words: list[str]) -> tuple[int, str]:
    """How often the phrase of up to 12 words is said that is said most often without a break, and the phrase."""
    best = (min(len(words), 1), " ".join(words[:1]))
    for n in range(1, 13):
        same, n_times = 0, 1
        for i in range(n, len(words)):
            same = same + 1 if words[i] == words[i - n] else 0
            n_times = 1 + same // n
            if n_times > best[0]:
                best = (n_times, " ".join(words[i - n + 1 : i + 1]))
    return best


def measure_joined(known: list[Known], told: dict[str, Told]) -> Measure:
    """Word error of joined recordings against that of their parts alone, points, over all sets."""
    from whisper.evaluation.scoring import make_difference

    sets: dict[str, Any] = {}
    pooled: list[list[int]] = [[], [], []]
    for k in known:
        blocks = errors_by_block(k, told)
        for pool, counts in zip(pooled, blocks, strict=True):
            pool += counts
        difference = make_difference(*blocks)
        alone, joined = (100 * sum(errors) / sum(blocks[2]) for errors in blocks[:2])
        points = [100 * x for x in (difference.value, difference.low, difference.high)]
        sets[k.recording.name] = {"alone": alone, "joined": joined, "points": points, "words": sum(blocks[2])}
    whole = make_difference(*pooled)
    points = [100 * x for x in (whole.value, whole.low, whole.high)]
    text = f"{points[0]:+.1f} [{points[1]:+.1f}, {points[2]:+.1f}] points"
    failed = {
        name: f"{one['alone']:.1f} % alone, {one['joined']:.1f} % joined" for name, one in sets.items()
        if one["points"][0] > 1
    }  # fmt: skip
    return Measure(points[0], text, points[0] <= 1, {"points": points, "sets": sets}, failed)


def errors_by_block(k: Known, told: dict[str, Told]) -> list[list[int]]:
    """Errors of the parts alone, errors of the joined recording, and words, for each `BLOCK` of the recording."""
    from whisper.evaluation.scoring import word_errors

    said = [words_of(part.text) for part in k.recording.parts]
    alone = [word_errors(w, words_of(told[key].get("text", ""))) for w, key in zip(said, k.alone, strict=True)]
    joined = errors_by_part(said, words_of(told[k.key].get("text", "")))
    counts: dict[int, list[int]] = {}
    for part, *three in zip(k.recording.parts, alone, joined, map(len, said), strict=True):
        block = counts.setdefault(int(part.start // BLOCK), [0, 0, 0])
        block[:] = [have + more for have, more in zip(block, three, strict=True)]
    return [list(column) for column in zip(*counts.values(), strict=True)]


def errors_by_part(said: list[list[str]], heard: list[str]) -> list[int]:
    """Align all at once; an error belongs to the part of its word, an insertion to that of the word before it."""
    from whisper.evaluation.scoring import align

    part_of = [i for i, words in enumerate(said) for _ in words]
    errors, at = [0] * len(said), 0
    for step in align([word for words in said for word in words], heard):
        at += step.reference is not None
        errors[part_of[max(at - 1, 0)]] += step.kind != "hit"
    return errors


def measure_words(known: list[Known], told: dict[str, Told]) -> Measure:
    """Share of words that begin inside a planted pause, and words that last into one."""
    n_words = inside = over = 0
    failed = {}
    for k in known:
        words = [word for segment in told[k.key].get("segments", ()) for word in segment.get("words", ())]
        wrong = [w for w in words if begins_inside(w, k.pauses)]
        long = [w for w in words if lasts_into(w, k.pauses)]
        n_words, inside, over = n_words + len(words), inside + len(wrong), over + len(long)
        if wrong or long:
            told_words = [tell_word(w, "in" if w in wrong else "over") for w in words if w in wrong or w in long]
            failed[k.recording.name] = ", ".join(told_words)
    share = inside / max(n_words, 1)
    text = f"{100 * share:.1f} % ({inside} of {n_words}); {over} over a pause"
    return Measure(100 * share, text, share < 0.02, {"inside": inside, "over": over, "words": n_words}, failed)


def tell_word(word: dict[str, Any], what: str) -> str:
    return f"{word['word'].strip()} {word['start']:.2f}-{word['end']:.2f} {what}"


def begins_inside(word: dict[str, Any], pauses: tuple[tuple[float, float], ...]) -> bool:
    return any(start + NEAR_EDGE < word["start"] < end - NEAR_EDGE for start, end in pauses)


def lasts_into(word: dict[str, Any], pauses: tuple[tuple[float, float], ...]) -> bool:
    """Whether a word goes on for more than a second of a pause."""
    return any(min(word["end"], end) - max(word["start"], start) > LONG_PAUSE for start, end in pauses)


@dataclass(frozen=True)
class Row:
    title: str
    must: str
    measure: Callable[[list[Known], dict[str, Told]], Measure]
    axis: str  # of the picture
    limit: float


ROWS = {
    "silent": Row("noise, music, silence: recordings with text", "0", measure_silent, "% of recordings with text", 0),
    "pauses": Row("pauses of 2 to 60 s: words", "0 lost, 0 doubled", measure_pauses, "words lost or doubled", 0),
    "nasty": Row("nasty sound", "0, at most 2x", measure_nasty, "crash, loop, or over twice the time", 0),
    "joined": Row("joined against alone: word error", "at most +1", measure_joined, "points of word error more", 1),
    "words": Row("words that begin in a pause", "under 2 %", measure_words, "% of words that begin in a pause", 2),
}


# ---------------------------------------------------------------------------------------------------------
# Told to people
# ---------------------------------------------------------------------------------------------------------


def table(results: Results) -> str:
    """All measures in Markdown, and the sets of `joined` one by one."""
    modes = list(results)
    rows = list(next(iter(results.values())))
    lines = [f"| measure | must | {' | '.join(modes)} |", "|---" * (len(modes) + 2) + "|"]
    for row in rows:
        measured = [results[mode][row] for mode in modes]
        cells = [one.text + ("" if one.met else " **missed**") for one in measured]
        lines.append(f"| {ROWS[row].title} | {ROWS[row].must} | {' | '.join(cells)} |")
    if "joined" in rows:
        lines += ["", f"| word error, % | words | alone | {' | '.join(modes)} |", "|---" * (len(modes) + 3) + "|"]
        for name, first in results[modes[0]]["joined"].figures["sets"].items():
            sets = [results[mode]["joined"].figures["sets"][name] for mode in modes]
            alone = sorted({f"{one['alone']:.1f}" for one in sets}, key=float)
            cells = [" to ".join(alone[:: max(len(alone) - 1, 1)])]
            cells += [f"{one['joined']:.1f} ({one['points'][0]:+.1f})" for one in sets]
            lines.append(f"| {name.removeprefix('joined/')} | {first['words']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def reasons(results: Results, prepared: Prepared, told: dict[str, dict[str, Told]]) -> Iterator[str]:
    """Tell what failed, recording by recording, with the segments where there are few."""
    keys = {(k.row, k.recording.name): k.key for k in prepared.known}
    for mode, rows in results.items():
        for row, measured in rows.items():
            for name, what in measured.failed.items():
                yield f"\n{mode}: {row}: {name}\n    {what}"
                segments = told[mode][keys[row, name]].get("segments", ())
                for s in segments if len(segments) <= 12 else ():
                    yield (f"    {s['start']:7.2f} {s['end']:7.2f} logprob {s['avg_logprob']:.2f} no speech "
                           f"{s['no_speech_prob']:.2f} pack {s['compression_ratio']:.2f} at {s['temperature']:.1f}"
                           f" {s['text'][:100]!r}")  # fmt: skip


def plot(results: Results, path: Path) -> None:
    """Draw a panel for each row: a bar for each mode, and where the goal lies."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    modes, rows = list(results), list(next(iter(results.values())))
    figure, panels = plt.subplots(
        1, len(rows), figsize=(2.9 * len(rows), 0.8 + 0.36 * len(modes)), layout="constrained", sharey=True,
        squeeze=False,
    )  # fmt: skip
    for axes, row in zip(panels[0], rows, strict=True):
        values = [results[mode][row].value * (100 if row == "silent" else 1) for mode in modes]
        colours = ["#9e9e9e" if mode == "original" else "#2171b5" for mode in modes]
        bars = axes.barh(range(len(modes)), values, 0.66, color=colours)
        form = "{:.0f}" if row in ("pauses", "nasty") else "{:.1f}"
        axes.bar_label(bars, [form.format(value) for value in values], fontsize=8, padding=3, color="0.25")
        axes.axvline(ROWS[row].limit, color="#d94801", linewidth=1.2, linestyle=(0, (3, 2)))
        axes.set_title(f"{ROWS[row].axis}\n(goal: {ROWS[row].must})", fontsize=8.5, loc="left")
        axes.set_xlim(0, 1.2 * max(*values, 2 * ROWS[row].limit, 1))
        axes.set_xticks([])
        axes.set_yticks(range(len(modes)), modes, fontsize=8.5)
        axes.spines[["top", "right", "bottom"]].set_visible(False)
        axes.tick_params(axis="both", length=0, labelsize=8)
    panels[0][0].invert_yaxis()
    figure.savefig(path, dpi=160)
    print(f"drew {path}")


def write_doc(path: Path, text: str) -> None:
    """Put the table between the two marks of a document."""
    before, rest = path.read_text(encoding="utf-8").split("<!-- table -->\n", 1)
    after = rest.split("<!-- end of table -->\n", 1)[1]
    path.write_text(f"{before}<!-- table -->\n{text}\n<!-- end of table -->\n{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=list(MODES), metavar="MODE")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--quick", action="store_true", help="few and short recordings: a minute")
    parser.add_argument("--side-by-side", type=int, default=2, help="processes at once, of one thread each")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "dev", help="real recordings")
    parser.add_argument("--cache", type=Path, default=ROOT / "build" / "soundness", help="recordings and results")
    parser.add_argument("--plot", type=Path, help="draw into this PNG (needs matplotlib)")
    parser.add_argument("--doc", type=Path, help="put the table into this document, between its two marks")
    parser.add_argument("--why", action="store_true", help="tell what failed, and what was said there")
    parser.add_argument(
        "--peer",
        default=str(ROOT / ".venv-peers" / "openai-whisper" / "bin" / "python"),
        help="a Python that has openai-whisper; scripts/peers makes the default",
    )
    parser.add_argument("--work", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.cache, arguments.work)
        return
    sys.path.insert(0, str(ROOT))
    began = time.perf_counter()
    folder = (arguments.cache / ("quick" if arguments.quick else "full")).resolve()
    prepared = prepare(arguments.data, folder, QUICK if arguments.quick else FULL, arguments.rows)
    seconds = sum(k.seconds for k in prepared.known)
    print(f"{len(prepared.jobs)} recordings, {seconds / 3600:.1f} h without their parts", flush=True)
    told = run_all(arguments, folder)
    results = {mode: measure(prepared, told[mode], arguments.rows) for mode in arguments.modes if mode in told}
    if arguments.why:
        print("\n".join(reasons(results, prepared, told)))
    print(text := table(results))
    if arguments.doc:
        write_doc(arguments.doc, text)
    if arguments.plot:
        plot(results, arguments.plot)
    print(f"{(time.perf_counter() - began) / 60:.1f} minutes")
    print(json.dumps({"quick": arguments.quick, "results": {
        mode: {row: {"value": m.value, "met": m.met, **m.figures} for row, m in rows.items()}
        for mode, rows in results.items()
    }}))  # fmt: skip


def run_all(arguments: argparse.Namespace, folder: Path) -> dict[str, dict[str, Told]]:
    """Run the modes, some side by side; one that is not to be had here is told and left out."""
    told = {}
    with ThreadPoolExecutor(arguments.side_by_side) as pool:
        futures = {mode: pool.submit(run, mode, folder, arguments.peer) for mode in arguments.modes}
        for mode, future in futures.items():
            try:
                told[mode] = future.result()
            except (LookupError, FileNotFoundError) as error:
                print(f"skipped {mode}: {error}", flush=True)
                continue
            spent = sum(sum(one.get("cpu", ())) for one in told[mode].values())
            print(f"{mode}: {spent:.0f} s of work", flush=True)
    return told


def measure(prepared: Prepared, told: dict[str, Told], rows: list[str]) -> dict[str, Measure]:
    return {row: ROWS[row].measure([k for k in prepared.known if k.row == row], told) for row in rows}


if __name__ == "__main__":
    main()
