#!/usr/bin/env python3
"""How often a known voice is recognised in a room with noise, and how often a stranger is taken for it.

    python benchmarks/known_voices.py --data .../shared/data/dev
    python benchmarks/known_voices.py --data .../shared/data/train

Of each speaker with enough recordings, the first seconds are the voice (`whisper.enrol`), clean; the next ones are put
into a room with noise by conversations.py, and what `diarize` takes them for is compared with all voices of the same
kind of recording. Rows are seconds of the voice and of the speech. The equal error is where both errors are the same.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import conversations as made
import numpy as np
import speakers

ROOT = Path(__file__).resolve().parent.parent
ROWS = ((3, 3), (10, 3), (10, 10), (30, 10))
KINDS = {**made.FAMILIES, "crowd": ("commonvoice_en",)}


def in_a_room(samples: Any, room: str, rng: np.random.Generator) -> Any:
    """Return speech as it is heard in a room."""
    seconds = len(samples) / made.RATE
    turn = made.Turn("", 0.0, samples, [(0.0, seconds)], [])
    return made._heard([turn], room, rng)


def vector_of(samples: Any) -> Any:
    """Return what the one speaker of a recording sounds like; None where nobody is heard."""
    from whisper.speakers import light, local_speakers
    from whisper.speakers.diarization import Hints

    found = speakers.exhausted(local_speakers.find(samples))
    return light.speaker_vectors(found, Hints(1, 1))[0] if len(found.vectors) else None


def similarities(data: Path, voice: int, speech: int, seed: int) -> Iterator[tuple[int, Any, Any]]:
    """Give the number of people of each kind, and the similarities of the same and of different ones."""
    import whisper

    for folders in KINDS.values():
        known, heard = [], []
        for i, tape in enumerate(made.tapes(data, lambda folder, _, own=folders: folder in own, None)):
            if len(tape.samples) < (voice + speech) * made.RATE:
                continue
            rng = np.random.default_rng([seed, i])
            before, after = tape.samples[: voice * made.RATE], tape.samples[voice * made.RATE :][: speech * made.RATE]
            try:
                own = np.array(whisper.enrol(before).vector, np.float32)
            except whisper.errors.AudioError:  # less than a second of speech
                continue
            found = vector_of(in_a_room(after, tuple(made.ROOMS)[i % 2], rng))
            if found is not None:
                known.append(own)
                heard.append(found)
        if len(known) > 1:
            alike = np.array(heard) @ np.array(known).T
            yield len(known), np.diag(alike), alike[~np.eye(len(alike), dtype=bool)]


def main() -> None:
    from whisper.speakers.voices import ALIKE

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "dev")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    print("| seconds of the voice | of speech | people | strangers taken for it | not recognised | equal error |")
    print("|---|---|---|---|---|---|")
    for voice, speech in ROWS:
        parts = list(similarities(arguments.data, voice, speech, arguments.seed))
        if not parts:
            continue
        same, others = (np.concatenate([part[i] for part in parts]) for i in (1, 2))
        thresholds = np.linspace(0, 1, 201)
        missed, passed = ((same < t).mean() for t in thresholds), ((others >= t).mean() for t in thresholds)
        equal = min(max(pair) for pair in zip(missed, passed, strict=True))
        print(f"| {voice} | {speech} | {sum(part[0] for part in parts)} | {100 * (others >= ALIKE).mean():.1f} % "
              f"| {100 * (same < ALIKE).mean():.0f} % | {100 * equal:.1f} % |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
