#!/usr/bin/env python3
"""What does each compute type do to the texts of a model? Word errors and changed texts against float32.

    python benchmarks/precision.py --manifest data/dev --models base.pt tiny.en.pt --out precision.jsonl
    python benchmarks/precision.py --manifest data/dev --models base.pt --types int8 --only_table --out precision.jsonl

Every clip is transcribed on its own, in the language that the manifest gives, at temperature 0, in each compute type.
A line of JSON is written for each transcript at once, and what the file holds already is not computed again: a run
that was killed goes on where it stopped. The lines belong to one state of the code, so take a new file after the
kernels have changed. The clips come in a fixed random order, so that a part of them stands for all.

The table gives, for each set and compute type, the word error rate (characters for languages without spaces), the
difference from float32 in points with the 95 % interval of a paired bootstrap over clips, and the share of clips whose
text is not the one of float32, letter by letter. Only clips that were transcribed in every type of the table count.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO, TypeVar

from tqdm import tqdm

import whisper
from whisper.evaluation.scoring import make_difference, make_score, word_errors, words_of
from whisper.manifests.read import ManifestEntry, read_manifest

T = TypeVar("T")
EXACT = "float32"
MAX_SECONDS = 30.0  # one window: what a text loses in one does not change the next


@dataclass(frozen=True)
class Transcript:
    """One line of the file of results."""

    model: str
    compute_type: str
    file: str
    text: str


@dataclass(frozen=True)
class Row:
    """One row of the table: a set of clips in one compute type."""

    name: str
    compute_type: str
    n_clips: int
    word_error: float  # percent
    difference: float  # points from float32, and its 95 % interval
    low: float
    high: float
    changed: float  # percent of clips whose text differs from that of float32

    def __str__(self) -> str:
        interval = f"{self.difference:+6.2f} [{self.low:+.2f}, {self.high:+.2f}]"
        return (
            f"{self.name:28} {self.compute_type:9} {self.n_clips:5} {self.word_error:7.2f}   {interval:24}"
            f" {self.changed:6.1f}"
        )


HEADER = f"{'set':28} {'type':9} {'clips':>5} {'WER %':>7}   {'points from float32':24} {'changed %':>6}"


def choose_clips(manifest: str, sets: Sequence[str], per_set: int, english: bool) -> list[ManifestEntry]:
    """Return clips of one window with a known text and language, at most `per_set` of each set, in random order."""
    order = random.Random(0)
    by_set = defaultdict(list)
    for entry in read_manifest(manifest, require_text=True, max_seconds=MAX_SECONDS).recordings:
        known = entry.text and entry.language not in (None, "none") and entry.start is None
        if known and (not sets or entry.group in sets) and (entry.language == "en" or not english):
            by_set[entry.group].append(entry)
    clips = [e for entries in by_set.values() for e in order.sample(entries, min(per_set, len(entries)))]
    order.shuffle(clips)
    return clips


def read_lines(path: Path, made: Callable[..., T]) -> Iterator[T]:
    """Give what a file of results holds, each line made by `made`; a line that was cut off is left out."""
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        with contextlib.suppress(json.JSONDecodeError, TypeError):
            yield made(**json.loads(line))


def open_to_append(path: Path) -> TextIO:
    """Open a file of results for further lines, behind one that was cut off."""
    file = path.open("a+", encoding="utf-8")
    file.seek(0)
    if not (file.read() or "\n").endswith("\n"):
        file.write("\n")
    return file


def read_results(path: Path) -> dict[tuple[str, str, str], str]:
    """Return the texts of the file by model, compute type and recording."""
    return {(done.model, done.compute_type, done.file): done.text for done in read_lines(path, Transcript)}


def transcribe(checkpoint: str, compute_type: str, folder: Path, clips: Sequence[ManifestEntry], out: Path) -> None:
    """Transcribe the clips that are not in `out` yet, and write each text there at once."""
    name, done = Path(checkpoint).stem, read_results(out)
    missing = [clip for clip in clips if (name, compute_type, clip.path) not in done]
    if not missing:
        return
    model = whisper.load_model(checkpoint, device="cpu", compute_type=compute_type)
    with open_to_append(out) as file:
        for clip in tqdm(missing, desc=f"{name} {compute_type}", mininterval=10):
            options = {"language": clip.language, "temperature": 0.0, "fp16": compute_type != EXACT}
            text = model.transcribe(str(folder / clip.path), **options)["text"]
            line = asdict(Transcript(name, compute_type, clip.path, text))
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()


def make_rows(
    name: str, clips: Sequence[ManifestEntry], types: Sequence[str], texts: dict[tuple[str, str], str]
) -> Iterable[Row]:
    """Yield the row of each compute type; `texts` by compute type and recording."""
    expected = [words_of(clip.text, clip.language) for clip in clips]
    totals = [len(words) for words in expected]
    errors = {
        t: [
            word_errors(words, words_of(texts[t, clip.path], clip.language))
            for clip, words in zip(clips, expected, strict=True)
        ]
        for t in types
    }
    for t in types:
        difference = make_difference(errors[EXACT], errors[t], totals)
        changed = sum(texts[t, clip.path] != texts[EXACT, clip.path] for clip in clips)
        numbers = (make_score(errors[t], totals).rate, difference.value, difference.low, difference.high)
        yield Row(name, t, len(clips), *(100 * x for x in numbers), 100 * changed / len(clips))


def main() -> None:
    """Transcribe what is missing, and print the table of each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", required=True, help="list of recordings with transcripts, or its folder")
    parser.add_argument("--models", nargs="+", required=True, help="names or checkpoints; *.en are given English only")
    parser.add_argument("--types", nargs="+", default=[EXACT, "bfloat16", "int8"], help="what to transcribe in")
    parser.add_argument("--sets", nargs="*", default=[], help="groups of the manifest; by default all")
    parser.add_argument("--per_set", type=int, default=200, help="clips of a set at most")
    parser.add_argument("--out", type=Path, default=Path("precision.jsonl"), help="file of results")
    parser.add_argument("--only_table", action="store_true", help="transcribe nothing")
    options = parser.parse_args()
    folder = Path(options.manifest)
    folder = folder if folder.is_dir() else folder.parent
    types = [EXACT, *(t for t in options.types if t != EXACT)]  # of the table
    for checkpoint in options.models:
        name = Path(checkpoint).stem
        clips = choose_clips(options.manifest, options.sets, options.per_set, name.endswith(".en"))
        if not options.only_table:
            for t in options.types:
                transcribe(checkpoint, t, folder, clips, options.out)
        texts = {(t, path): text for (m, t, path), text in read_results(options.out).items() if m == name}
        common = [clip for clip in clips if all((t, clip.path) in texts for t in types)]
        if not common:
            print(f"{name}: no clip was transcribed in each of {', '.join(types)}")
            continue
        print(f"\n{name}\n{HEADER}")
        for group in sorted({clip.group for clip in common}):
            for row in make_rows(group, [c for c in common if c.group == group], types, texts):
                print(row)
        for row in make_rows("all", common, types, texts):
            print(row)


if __name__ == "__main__":
    main()
