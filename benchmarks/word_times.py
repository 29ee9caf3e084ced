#!/usr/bin/env python3
"""Where words begin and end: Sotto in its modes beside other implementations, on real speech with known pauses.

    scripts/peers openai-whisper faster-whisper    (stable-ts where .venv-peers has it)
    python benchmarks/word_times.py --model tiny.en --quick
    python benchmarks/word_times.py --model base --doc docs/word-times.md

Clips of read speech are cut down to their speech (by energy, with 50 ms to spare) and joined with pauses of 0.3 to 2 s
of each clip's own noise level. So it is known where nobody speaks, to some 50 ms. Within the clips, words have their
times from pocketsphinx, which aligns the true text with acoustic models of its own and shares nothing with Whisper;
its own errors, 10 to 20 ms in the median, are part of every figure. Every system reads all recordings in a process of
its own, one thread, and what it has read is written down at once: a run that was killed goes on where it stopped.

  start, end   absolute error over the words that were read right: median, 95th percentile; milliseconds
  late         signed medians of both: positive is late
  in pause     share of all words of which more than 0.1 s lies in a pause, or that begin more than 0.1 s inside one
  behind       words that end behind the recording

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
RATE = 16000
SETS = ("ljspeech", "librispeech_train_clean_100", "librispeech_test_other")
CLIPS_IN_RECORDING = 8
PAUSES = (0.3, 2.0)  # seconds
TO_SPARE = 0.05  # seconds of a clip that are kept before and after its speech
SPEECH_DB = 30.0  # below the loud frames of a clip: what is louder is speech
IN_PAUSE = 0.1  # seconds of a word that may lie in a pause
WORDS: dict[str, Any] = {"word_timestamps": True, "language": "en", "temperature": 0.0}
SOTTO: dict[str, dict[str, Any]] = {  # options beside `WORDS`
    "sotto, float32": {"fp16": False},
    "sotto": {},
    "sotto, vad_filter": {"vad_filter": True},
    "sotto, audit": {"audit": True},
    "sotto, align": {},
}
PEERS = {  # name: environment
    "openai-whisper": "openai-whisper", "faster-whisper": "faster-whisper", "faster-whisper, vad": "faster-whisper",
    "stable-ts": "stable-ts",
}  # fmt: skip

Words = list[tuple[str, float, float]]


# ---------------------------------------------------------------------------------------------------------
# In a process of its own
# ---------------------------------------------------------------------------------------------------------


def work(folder: Path, system: str, model: str) -> None:
    """Read the recordings that the system's file of results lacks, and add a line for each."""
    read = reader(folder, system, model)
    done = results(folder, system)
    for job in json.loads((folder / "jobs.json").read_text()):
        if job["name"] not in done:
            words = read(np.load(folder / job["sound"]).astype(np.float32) / 32768, job["text"])
            with open(results_path(folder, system), "a", encoding="utf-8") as file:
                file.write(json.dumps({"name": job["name"], "words": words}, default=float) + "\n")


def reader(folder: Path, system: str, model: str) -> Callable[[np.ndarray, str], Words]:
    """Load a system; return a function from samples and true text to words with times."""
    if system.startswith("faster-whisper"):
        from faster_whisper import WhisperModel

        faster = WhisperModel(str(folder / "ct2"), device="cpu", compute_type="float32", cpu_threads=1)
        options = {**WORDS, "vad_filter": "vad" in system}
        return lambda samples, _: [
            (word.word, word.start, word.end)
            for segment in faster.transcribe(samples, **options)[0] for word in segment.words
        ]  # fmt: skip
    import torch

    torch.set_num_threads(1)
    if system == "stable-ts":
        import stable_whisper

        stable = stable_whisper.load_model(str(folder / "model.pt"), device="cpu")
        set_heads(stable, model)
        return lambda samples, _: words_of(
            stable.transcribe(samples, fp16=False, regroup=False, verbose=None, **WORDS).to_dict()
        )
    import whisper

    if system == "openai-whisper":
        original = whisper.load_model(str(folder / "model.pt"), device="cpu")
        set_heads(original, model)
        return lambda samples, _: words_of(original.transcribe(samples, fp16=False, **WORDS))
    ours = whisper.load_model(model, device="cpu", compute_type="bfloat16")
    if system == "sotto, align":
        return lambda samples, text: words_of(whisper.align(ours, samples, text, language="en"))
    return lambda samples, _: words_of(ours.transcribe(samples, **WORDS, **SOTTO[system]))


def set_heads(model: Any, name: str) -> None:
    """Give a model from a file the alignment heads of its name, which others look up by name alone."""
    import whisper

    model.set_alignment_heads(whisper._ALIGNMENT_HEADS[name])


def words_of(transcript: Any) -> Words:
    return [(w["word"], w["start"], w["end"]) for segment in transcript["segments"] for w in segment["words"]]


def results_path(folder: Path, system: str) -> Path:
    return folder / f"{system.replace(', ', '-')}.jsonl"


def results(folder: Path, system: str) -> dict[str, Words]:
    """What is written down so far, by recording; a line that a kill cut off is left out."""
    path, read = results_path(folder, system), {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            told = json.loads(line)
        except ValueError:
            continue
        read[told["name"]] = [(str(word), float(start), float(end)) for word, start, end in told["words"]]
    return read


# ---------------------------------------------------------------------------------------------------------
# Recordings with known times
# ---------------------------------------------------------------------------------------------------------


def speech_bounds(samples: np.ndarray) -> tuple[int, int]:
    """Where speech begins and ends in a clip, samples: the first and the last loud frame of 10 ms."""
    frames = samples[: len(samples) // 160 * 160].reshape(-1, 160)
    level = 10 * np.log10((frames**2).mean(axis=1) + 1e-12)
    loud = np.flatnonzero(level > np.percentile(level, 95) - SPEECH_DB)
    return int(loud[0]) * 160, (int(loud[-1]) + 1) * 160


def clips(data: Path, sets: Sequence[str]) -> Iterator[tuple[str, np.ndarray, str, Words]]:
    """Yield set, trimmed samples, text and aligned words of each clip that pocketsphinx can align."""
    import whisper
    from whisper.manifests.read import read_manifest
    from whisper.training.word_aligner import WordAligner

    aligner = WordAligner()
    for entry in read_manifest(data, require_text=True).recordings:
        path = data / entry.path
        if path.parent.name not in sets or not entry.text:
            continue
        plain = "".join(c if c.isalpha() or c == "'" else " " for c in entry.text.lower())
        samples = whisper.load_audio(str(path))
        aligned = aligner.align(samples, " ".join(plain.split()))
        if aligned is None:
            continue
        begin, end = speech_bounds(samples)
        begin, end = max(begin - int(TO_SPARE * RATE), 0), min(end + int(TO_SPARE * RATE), len(samples))
        words = [
            (word, max(a / 100 - begin / RATE, 0.0), min(b / 100, end / RATE) - begin / RATE)
            for word, (a, b) in zip(plain.split(), aligned, strict=True)
        ]
        yield path.parent.name, samples[begin:end], entry.text, words


def join(parts: Sequence[tuple[np.ndarray, Words]], seed: int) -> tuple[np.ndarray, Words, list[tuple[float, float]]]:
    """Join clips with pauses before, between and after them; return samples, words, and where the pauses are."""
    rng = np.random.default_rng(seed)
    sound, words, pauses, position = [], list[tuple[str, float, float]](), [], 0

    def pause(like: np.ndarray) -> None:
        nonlocal position
        frames = like[: len(like) // 160 * 160].reshape(-1, 160)
        level = np.percentile(np.sqrt((frames**2).mean(axis=1)), 2)
        n = int(rng.uniform(*PAUSES) * RATE)
        sound.append(rng.normal(0, level, n).astype(np.float32))
        pauses.append((position / RATE, (position + n) / RATE))
        position += n

    for samples, own in parts:
        pause(samples)
        words += [(word, position / RATE + start, position / RATE + end) for word, start, end in own]
        sound.append(samples)
        position += len(samples)
    pause(parts[-1][0])
    return np.concatenate(sound), words, pauses


def prepare(data: Path, folder: Path, model: str, quick: bool) -> list[dict[str, Any]]:
    """Write the recordings and the weights into `folder`, once; return the jobs."""
    jobs_path = folder / "jobs.json"
    if not jobs_path.exists():
        from whisper import load_model
        from whisper.checkpoints.save import save_checkpoint

        folder.mkdir(parents=True, exist_ok=True)
        weights = load_model(model, device="cpu")
        save_checkpoint(weights, folder / "model.pt", format="pt")
        save_checkpoint(weights, folder / "ct2", format="ctranslate2")
        by_set: dict[str, list[tuple[np.ndarray, str, Words]]] = {}
        for name, samples, text, words in clips(data, SETS):
            by_set.setdefault(name, []).append((samples, text, words))
        jobs = []
        for name, own in by_set.items():
            for first in range(0, CLIPS_IN_RECORDING if quick else len(own), CLIPS_IN_RECORDING):
                parts = own[first : first + CLIPS_IN_RECORDING]
                samples, words, pauses = join([(s, w) for s, _, w in parts], seed=first)
                job = {"name": f"{name}/{first}", "sound": f"{name}-{first}.npy", "seconds": len(samples) / RATE,
                       "text": "\n".join(text for _, text, _ in parts), "words": words, "pauses": pauses}  # fmt: skip
                np.save(folder / job["sound"], (np.clip(samples, -1, 1) * 32767).astype(np.int16))
                jobs.append(job)
        jobs_path.write_text(json.dumps(jobs))
    return list(json.loads(jobs_path.read_text()))


# ---------------------------------------------------------------------------------------------------------
# Figures
# ---------------------------------------------------------------------------------------------------------


def score(jobs: Sequence[dict[str, Any]], read: dict[str, Words]) -> dict[str, float]:
    """The figures of one system over all recordings; times in milliseconds."""
    from whisper.evaluation.scoring import match_times

    errors, n_words, n_in_pause, n_behind = [], 0, 0, 0
    for job in jobs:
        words = read[job["name"]]
        errors += match_times([tuple(word) for word in job["words"]], words)
        n_words += len(words)
        n_behind += sum(end > job["seconds"] + 1e-6 for _, _, end in words)
        for _, start, end in words:
            inside = [max(0.0, min(end, b) - max(start, a)) for a, b in job["pauses"]]
            begins = any(a + IN_PAUSE < start < b - IN_PAUSE for a, b in job["pauses"])
            n_in_pause += begins or max(inside) > IN_PAUSE
    both = 1000 * np.array(errors).reshape(-1, 2)
    (start50, end50), (start95, end95) = np.percentile(np.abs(both), [50, 95], axis=0)
    late = np.median(both, axis=0)
    return {"words": n_words, "matched": len(both), "start": start50, "start_95": start95, "end": end50,
            "end_95": end95, "late_start": late[0], "late_end": late[1], "in_pause": n_in_pause / max(n_words, 1),
            "behind": n_behind}  # fmt: skip


def table(figures: dict[str, dict[str, float]]) -> str:
    lines = ["| system | matched of words | start, ms: median, 95 % | end, ms: median, 95 % | late: start, end "
             "| in pause | behind |", "|---|---|---|---|---|---|---|"]  # fmt: skip
    for system, f in figures.items():
        lines.append(
            f"| {system} | {f['matched']} of {f['words']} | {f['start']:.0f}, {f['start_95']:.0f} "
            f"| {f['end']:.0f}, {f['end_95']:.0f} | {f['late_start']:+.0f}, {f['late_end']:+.0f} "
            f"| {100 * f['in_pause']:.1f} % | {f['behind']:.0f} |"
        )
    return "\n".join(lines)


def code_of_ours() -> str:
    """A digest of what decides our word times: results of other code are forgotten."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "whisper").rglob("*.py")):
        if path.parent.name in ("transcription", "alignment", "speech", "audit") or path.name == "timing.py":
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def run(folder: Path, system: str, model: str, peers: Path) -> bool:
    """Let a system read what it has not read yet; False where its environment is missing."""
    ours = system in SOTTO
    python = Path(sys.executable) if ours else peers / PEERS[system] / "bin" / "python"
    if not python.exists():
        print(f"{system}: not installed (scripts/peers {PEERS[system]})", file=sys.stderr)
        return False
    mark = results_path(folder, system).with_suffix(".code")
    if ours and (not mark.exists() or mark.read_text() != code_of_ours()):
        results_path(folder, system).unlink(missing_ok=True)
        mark.write_text(code_of_ours())
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    if ours:
        environment["PYTHONPATH"] = str(ROOT)
    command = [str(python), str(Path(__file__).resolve()), "--work", system, "--cache", str(folder), "--model", model]
    print(system, file=sys.stderr, flush=True)
    subprocess.run(command, check=True, cwd=folder, env=environment)
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny.en", help="a published model; the default is %(default)s")
    parser.add_argument("--systems", nargs="+", choices=[*SOTTO, *PEERS], default=[*PEERS, *SOTTO], metavar="SYSTEM")
    parser.add_argument("--quick", action="store_true", help="one recording of each set")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "dev", help="real recordings")
    parser.add_argument("--peers", type=Path, default=ROOT / ".venv-peers", help="environments of the others")
    parser.add_argument("--cache", type=Path, default=ROOT / "build" / "word_times", help="recordings and results")
    parser.add_argument("--doc", type=Path, help="write the table into this file")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        return work(arguments.cache, arguments.work, arguments.model)
    folder = (arguments.cache / arguments.model / ("quick" if arguments.quick else "full")).resolve()
    jobs = prepare(arguments.data, folder, arguments.model, arguments.quick)
    peers = arguments.peers.resolve()
    figures = {
        system: score(jobs, results(folder, system))
        for system in arguments.systems if run(folder, system, arguments.model, peers)
    }  # fmt: skip
    print(table(figures))
    if arguments.doc:
        arguments.doc.write_text(table(figures) + "\n", encoding="utf-8")
    print(json.dumps({"model": arguments.model, "quick": arguments.quick, "figures": figures}))


if __name__ == "__main__":
    main()
