#!/usr/bin/env python3
"""Chooses the constants that tell speakers apart, on conversations of voices of the training set.

    python benchmarks/speaker_constants.py --data .../shared/data/train              # one constant after the other
    python benchmarks/speaker_constants.py --set THRESHOLD=0.44 LOYALTY=0.1 --each   # one choice, by conversation
    python benchmarks/speaker_constants.py --folder build/speakers/dev-1-20          # conversations of speakers.py

The conversations: one to six people; read (LibriSpeech), accented adults and accented children (speechocean762), Common
Voice, and read and accented mixed; made by conversations.py. The networks run once for each, and what they say is kept
(as pickles, which nobody else should write): a change of the networks needs another `--networks NAME`. Errors are
counted here, in frames of 10 ms with overlaps, as shares of the speech in percent:

  DER        confusion + missed + false alarm
  confusion  of it, what a wrong speaker gets
  bound      confusion, were each piece of a voice taken for whom it truly is
  right      conversations with the right number of speakers; few, many: with too few, with too many

A choice is judged by confusion, and by the number. What is chosen here is judged by speakers.py on other voices.
"""

from __future__ import annotations

import argparse
import pickle
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import conversations as made
import numpy as np
import speakers

ROOT = Path(__file__).resolve().parent.parent
COUNTS = (1, 2, 3, 4, 5, 6)
CHILD = 16  # years
FRAMES = 100  # a second
# what is tried of each constant of whisper.speakers.light and of clustering
TRIED: dict[str, tuple[float, ...]] = {
    "THRESHOLD": (0.34, 0.36, 0.38, 0.40, 0.42, 0.44, 0.46, 0.48),
    "DOUBT": (0.0, 0.25, 0.5, 0.75, 1.0),
    "MIN_SECONDS": (1.0, 1.5, 2.0, 2.5),
    "MIN_SHARE": (0.0, 0.03, 0.04, 0.06, 0.08),
    "SMALL_THRESHOLD": (0.5, 0.6, 0.7),
    "LOYALTY": (0.0, 0.03, 0.05, 0.1),
}


def training(data: Path, n: int, seed: int) -> Iterator[made.Conversation]:
    """Give conversations of the training set's voices."""

    def is_child(entry: Any) -> bool:
        age = dict(part.partition("=")[::2] for part in entry.extra.get("notes", "").split(";")).get("age", "")
        return age.isdigit() and int(age) < CHILD

    pools = {
        "read": made.tapes(data, lambda folder, _: folder == "librispeech", None),
        "adults": made.tapes(data, lambda folder, entry: folder == "speechocean762" and not is_child(entry), None),
        "children": made.tapes(data, lambda folder, entry: folder == "speechocean762" and is_child(entry), None),
        "crowd": made.tapes(data, lambda folder, _: folder == "commonvoice_en", None),
    }
    pools["mixed"] = [tape for pair in zip(pools["read"], pools["adults"], strict=False) for tape in pair]
    return made.drawn(pools, COUNTS, n, seed)


# ---------------------------------------------------------------------------------------------------------
# What the networks say, once for all
# ---------------------------------------------------------------------------------------------------------


def heard(folder: Path, jobs: Sequence[dict[str, Any]], networks: str) -> Iterator[tuple[dict[str, Any], Any]]:
    """Give each conversation with its local speakers; these are kept in the folder."""
    import whisper
    from whisper.speakers import local_speakers

    kept = folder / f"local-speakers-{networks}"
    kept.mkdir(exist_ok=True)
    for job in jobs:
        path = kept / f"{job['name'].replace('/', '-')}.pickle"
        if not path.exists():
            print(job["name"], file=sys.stderr, flush=True)
            found = speakers.exhausted(local_speakers.find(whisper.load_audio(str(folder / job["sound"]))))
            path.write_bytes(pickle.dumps(found))
        yield job, pickle.loads(path.read_bytes())


# ---------------------------------------------------------------------------------------------------------
# Errors
# ---------------------------------------------------------------------------------------------------------


def active(turns: Sequence[Sequence[Any]], n_frames: int) -> Any:
    """Return who speaks in each frame, ``(n_frames, n_speakers)``."""
    names = sorted({turn[2] for turn in turns})
    speaks = np.zeros((n_frames, len(names)), np.bool_)
    for start, end, name in turns:
        speaks[round(start * FRAMES) : round(end * FRAMES), names.index(name)] = True
    return speaks


def errors(reference: Sequence[Sequence[Any]], turns: Sequence[Sequence[Any]], seconds: float) -> Any:
    """Return the frames of speech and those confused, missed and of false alarm, with speakers matched best."""
    n_frames = int(seconds * FRAMES) + 1
    true, found = active(reference, n_frames), active(turns, n_frames)
    right = most_together(true.astype(np.int64).T @ found.astype(np.int64))
    n_true, n_found = true.sum(1), found.sum(1)
    both = np.minimum(n_true, n_found).sum()
    return np.array([n_true.sum(), both - right, (n_true - n_found).clip(0).sum(), (n_found - n_true).clip(0).sum()])


def most_together(together: Any) -> int:
    """Return the greatest sum of frames over all ways to match the rows and the columns of ``(n_true, n_found)``."""
    few = together if len(together) <= together.shape[1] else together.T
    best = {0: 0}
    for column in few.T:
        grown = dict(best)
        for taken, total in best.items():
            for k, frames in enumerate(column):
                if not taken >> k & 1:
                    grown[taken | 1 << k] = max(grown.get(taken | 1 << k, 0), total + int(frames))
        best = grown
    return max(best.values())


def judged(jobs: Sequence[tuple[dict[str, Any], Any]], each: bool = False, bound: bool = False) -> dict[str, float]:
    """Return the figures of the constants as they are now."""
    total, counts = np.zeros(4), []
    for job, found in jobs:
        turns = [[t.start, t.end, t.speaker] for t in told(job, found, bound)]
        own = errors(job["turns"], turns, job["seconds"])
        n = len({turn[2] for turn in turns})
        counts.append(n - job["speakers"])
        if each:
            print(f"{job['name']:26} {n} of {job['speakers']}  DER {100 * own[1:].sum() / own[0]:5.1f}  confusion "
                  f"{100 * own[1] / own[0]:5.1f}")  # fmt: skip
        total += own
    shares = 100 * total / total[0]
    signs = np.sign(counts)
    return {"DER": shares[1:].sum(), "confusion": shares[1], "right": float((signs == 0).sum()),
            "few": float((signs < 0).sum()), "many": float((signs > 0).sum())}  # fmt: skip


def told(job: dict[str, Any], found: Any, bound: bool) -> Sequence[Any]:
    """Return the turns of a conversation, by our grouping or by the truth."""
    from whisper.speakers import light
    from whisper.speakers.diarization import Hints

    if not len(found.vectors):
        return ()
    if bound:
        return speakers.truly_assigned(job, found)
    labels = light.speakers_of(found, light.speaker_vectors(found, Hints()))
    return light.from_votes(*light.votes(found, labels), job["seconds"]).turns


# ---------------------------------------------------------------------------------------------------------
# The command
# ---------------------------------------------------------------------------------------------------------


def choose(name: str, value: float) -> None:
    """Set a constant wherever it is."""
    from whisper.speakers import clustering, light

    for module in (clustering, light):
        if hasattr(module, name):
            setattr(module, name, value)


def chosen(name: str) -> float:
    """Return a constant as it is now."""
    from whisper.speakers import clustering, light

    return float(getattr(light if hasattr(light, name) else clustering, name))


def line(what: str, figures: dict[str, float]) -> str:
    return f"{what:24} " + "  ".join(
        f"{name} {value:5.2f}" if name in ("DER", "confusion") else f"{name} {value:.0f}"
        for name, value in figures.items()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "train")
    parser.add_argument("--folder", type=Path, help="conversations that are there, instead of those of --data")
    parser.add_argument("--n", type=int, default=60, help="conversations; 30 have every number of every family")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--networks", default="now", help="under which name the local speakers are kept")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="constants to begin with")
    parser.add_argument("--each", action="store_true", help="show each conversation, and try nothing")
    arguments = parser.parse_args()
    folder = arguments.folder or ROOT / "build" / "speakers" / f"training-{arguments.seed}-{arguments.n}"
    listed = made.write(folder, training(arguments.data, arguments.n, arguments.seed))

    jobs = list(heard(folder, listed, arguments.networks))
    for name, value in (setting.split("=") for setting in arguments.set):
        choose(name, float(value))
    print(line("bound", judged(jobs, bound=True)), flush=True)
    print(line("now", judged(jobs, each=arguments.each)), flush=True)
    for name, values in {} if arguments.each else TRIED.items():
        before = chosen(name)
        for value in values:
            choose(name, value)
            print(line(f"{name} {value:g}" + (value == before) * " (now)", judged(jobs)), flush=True)
        choose(name, before)


if __name__ == "__main__":
    main()
