"""Recordings of real speech, jobs on them, and processes that do the jobs: what same.py and accuracy.py share.

Each recording is decoded once, to samples that every implementation gets. Each implementation runs in a process and an
environment of its own and writes a result down at once, so a run that was killed goes on where it stopped, and programs
that ask for the same recording with the same options share it. What the code of Sotto gave is forgotten when the code
changes.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / ".venv-peers"
DATA = ROOT.parent / "shared" / "data" / "dev"
CACHE = ROOT / "build" / "speech"
AT_ONCE = 8  # recordings in one call of an implementation that runs several side by side

Told = dict[str, Any]  # what a process tells about a recording
Job = dict[str, Any]


@dataclass(frozen=True)
class Weights:
    """A model, and the files in which each implementation finds the same numbers."""

    name: str  # as published, for its alignment heads
    pt: Path
    ct2: Path | None = None

    @property
    def multilingual(self) -> bool:
        return not self.name.endswith(".en")

    @classmethod
    def parse(cls, text: str) -> Weights:
        """Read ``NAME=FILE.pt`` or ``NAME=FILE.pt,FOLDER``, the folder being CTranslate2's."""
        name, _, paths = text.partition("=")
        pt, _, ct2 = paths.partition(",")
        if not pt:
            raise ValueError(f"{text!r} is not NAME=FILE.pt or NAME=FILE.pt,FOLDER")
        return cls(name, Path(pt).resolve(), Path(ct2).resolve() if ct2 else None)

    def files(self) -> dict[str, str]:
        """Return the name and all paths, as `speech_work.py` takes them."""
        paths = {"pt": self.pt, "ct2": self.ct2}
        return {"name": self.name, **{kind: str(path) for kind, path in paths.items() if path}}


# ---------------------------------------------------------------------------------------------------------
# Recordings
# ---------------------------------------------------------------------------------------------------------


def choose(recordings: Iterable[Any], whole: Iterable[str], n: int, seed: int = 0) -> list[Any]:
    """Return all recordings of the groups `whole`, and of the other groups equally many each, `n` altogether.

    A group that has fewer than its share gives all it has. The draw, and the order of the result, follow from `seed`.
    """
    groups: dict[str, list[Any]] = {}
    for recording in recordings:
        groups.setdefault(recording.group, []).append(recording)
    chosen = [recording for name in whole for recording in groups.pop(name, [])]
    rng = random.Random(seed)
    for group in groups.values():
        rng.shuffle(group)
    while len(chosen) < n and any(groups.values()):
        chosen += [group.pop() for group in groups.values() if group]
    del chosen[n:]
    rng.shuffle(chosen)  # so that a run that is not yet at its end has seen something of everything
    return chosen


def sound_of(path: Path, cache: Path) -> Path:
    """Decode a recording to a file of float32 samples at 16 kHz, once."""
    from whisper.audio import load_audio

    status = path.stat()
    name = hashlib.sha256(f"{path} {status.st_size} {status.st_mtime_ns}".encode()).hexdigest()[:16]
    sound = cache / "sound" / f"{name}.npy"
    if not sound.exists():
        sound.parent.mkdir(parents=True, exist_ok=True)
        partial = sound.with_suffix(".partial.npy")
        np.save(partial, load_audio(str(path)))
        partial.rename(sound)
    return sound


# ---------------------------------------------------------------------------------------------------------
# Processes
# ---------------------------------------------------------------------------------------------------------


def is_ours(implementation: str) -> bool:
    return implementation.startswith("sotto")


def python_of(implementation: str) -> str:
    """Return the Python that has an implementation; ours runs in the present one."""
    return sys.executable if is_ours(implementation) else str(PEERS / implementation.split()[0] / "bin" / "python")


def code_of_ours() -> str:
    """Name the package's present code, kernels included."""
    digest = hashlib.sha256()
    for suffix in ("*.py", "*.h", "*.cpp"):
        for path in sorted((ROOT / "whisper").rglob(suffix)):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:8]


def version_of(implementation: str) -> str:
    """Name what a result depends on beside the job: ours changes daily, others are installed once."""
    return code_of_ours() if is_ours(implementation) else ""


def key_of(job: Job) -> str:
    """Return what tells jobs of one model apart: the recording and the options."""
    return json.dumps([job["name"], job["options"]], sort_keys=True)


def results_of(implementation: str, weights: Weights, cache: Path) -> Path:
    """Return the file with all results of an implementation and a model."""
    return cache / f"{implementation.replace(' ', '-')}-{weights.name}.jsonl"


def read_results(path: Path, version: str) -> dict[str, Told]:
    """What is written down so far, by key; a line that a kill cut off is left out."""
    told = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            one = json.loads(line)
        except ValueError:
            continue
        if one["version"] == version:
            told[key_of(one)] = one
    return told


def run(
    implementation: str,
    weights: Weights,
    jobs: list[Job],
    cache: Path,
    threads: int = 1,
    only_read: bool = False,
    at_once: int = AT_ONCE,
) -> list[Told | None]:
    """Do the jobs that are not yet done, and return the results of all.

    Parameters
    ----------
    jobs
        Each with the ``name`` of a recording, the ``path`` of its samples, and ``options`` by openai-whisper's names.
    only_read
        Run nothing; what is not yet done is None.
    at_once
        Recordings in one call of an implementation that runs several side by side.

    Raises
    ------
    RuntimeError
        The process ended before its jobs did.
    """
    ours, version = is_ours(implementation), version_of(implementation)
    batched = implementation.endswith("batched")
    results = results_of(implementation, weights, cache)
    done = read_results(results, version)
    left = [{**job, "version": version} for job in jobs if key_of(job) not in done]
    if left and not only_read:
        cache.mkdir(parents=True, exist_ok=True)
        if batched:  # what runs side by side has the same options
            left.sort(key=lambda job: json.dumps(job["options"], sort_keys=True))
        asked = results.with_suffix(f".{os.getpid()}.json")
        asked.write_text(json.dumps({"weights": weights.files(), "jobs": left}), encoding="utf-8")
        command = [python_of(implementation), str(ROOT / "benchmarks" / "speech_work.py"), implementation]
        command += [str(asked), str(results), "--threads", str(threads)]
        command += ["--at-once", str(at_once if batched else 1)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT) if ours else ""}
        ended = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cache)
        asked.unlink()
        done = read_results(results, version)
        if missing := [job for job in jobs if key_of(job) not in done]:  # not by its exit code: whisper.cpp's binding
            reason = (ended.stderr.strip().splitlines() or ["no message"])[-1]  # may crash when Python takes it down
            raise RuntimeError(f"{implementation}: {len(missing)} of {len(jobs)} jobs are not done ({reason})")
    return [done.get(key_of(job)) for job in jobs]
