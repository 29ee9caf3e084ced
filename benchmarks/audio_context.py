#!/usr/bin/env python3
"""What does a short audio context cost in accuracy, and what does it gain? Word errors, doubts and time by margin.

    python benchmarks/audio_context.py --manifest data/train --models base tiny.en --variants full 0.5 1
    python benchmarks/audio_context.py --manifest data/dev --models base.pt --variants full 0.5 "0.5 raw" --only_table

The clips of a language are transcribed `--at_once` in each variant in turn, so that ratios of their times hold on a
busy machine: with "full" contexts, or with so many seconds of whole padding after the sound ("0.5"; what follows is
thinned out, see `runtime.interface.PADDING_STRIDE`). What stands behind the number:

  raw      a doubtful text is not decoded again on 30 s: shows the edge that the margin must keep away from
  detect   the language is not given; the table counts a wrong one as an error of its own

A line of JSON is written for each transcript at once, and what the file holds already is not computed again: a run that
was killed goes on where it stopped. The lines belong to one state of the code, so take a new file after a change.

The table gives, for each set, each class of length and all, the word error rate (characters for languages without
spaces), the difference from "full" in points with the 95 % interval of a paired bootstrap over clips, the same where a
clip has at most as many errors as words ("capped": one loop of 200 words outweighs a hundred clips), the share of clips
whose text differs, that were decoded again on 30 s, that came to a temperature above 0, whose language is wrong, and
the processor's time. Only clips that were transcribed in every variant of the table count.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from precision import choose_clips, open_to_append, read_lines
from tqdm import tqdm

import whisper
from whisper.audio import load_audio
from whisper.evaluation.scoring import make_difference, make_score, word_errors, words_of
from whisper.manifests.read import ManifestEntry
from whisper.spans import FRAMES_PER_SECOND
from whisper.transcription import audio_context, window_decoder

FULL = "full"
LENGTHS = (0.0, 3.0, 6.0, 10.0, 15.0, 30.0)  # seconds: edges of the classes


@dataclass(frozen=True)
class Transcript:
    """One line of the file of results."""

    model: str
    variant: str
    file: str
    text: str
    language: str
    temperature: float  # the highest of its segments
    doubts: float  # windows that were decoded again on 30 s, for each of the clips that were transcribed together
    last: float  # end of the last segment, seconds
    seconds: float  # of the processor


@dataclass(frozen=True)
class Row:
    """One row of the table: some clips in one variant."""

    name: str
    variant: str
    n_clips: int
    word_error: float  # percent
    difference: float  # points from "full", and its 95 % interval
    low: float
    high: float
    capped: float  # the difference again, where a clip has at most as many errors as words: not a matter of a few loops
    capped_low: float
    capped_high: float
    changed: float  # percent of clips
    doubted: float
    heated: float
    wrong_language: float
    seconds: float  # of the processor, for a clip

    def __str__(self) -> str:
        interval = f"{self.difference:+6.2f} [{self.low:+.2f}, {self.high:+.2f}]"
        capped = f"{self.capped:+6.2f} [{self.capped_low:+.2f}, {self.capped_high:+.2f}]"
        shares = " ".join(f"{x:7.1f}" for x in (self.changed, self.doubted, self.heated, self.wrong_language))
        return (
            f"{self.name:28} {self.variant:12} {self.n_clips:5} {self.word_error:7.2f}   {interval:24}"
            f" {capped:24} {shares} {self.seconds:7.3f}"
        )


HEADER = (
    f"{'clips':28} {'variant':12} {'n':>5} {'WER %':>7}   {'points from full':24} {'capped':24}"
    f" {'changed':>7} {'doubted':>7} {'heated':>7} {'language':>7} {'seconds':>7}"
)


@contextmanager
def patched(variant: str, count: Callable[[], None]) -> Iterator[dict[str, Any]]:
    """Make the package what a variant says, and give the options of `transcribe` for it."""
    margin, *flags = variant.split()
    before = audio_context.AudioContext, window_decoder.is_doubtful
    judge = before[1]

    def judged(*arguments: Any) -> bool:
        doubtful = judge(*arguments)
        count() if doubtful else None
        return doubtful and "raw" not in flags

    try:
        if margin != FULL:
            frames = round(float(margin) * FRAMES_PER_SECOND)
            audio_context.AudioContext = partial(before[0], margin=frames)  # type: ignore[misc,assignment]
        window_decoder.is_doubtful = judged
        yield {"audio_context": "full" if margin == FULL else "short"}
    finally:
        audio_context.AudioContext, window_decoder.is_doubtful = before  # type: ignore[misc]


def transcribe(model: Any, name: str, variant: str, clips: Sequence[ManifestEntry], sounds: Any) -> list[Transcript]:
    """Transcribe clips of one language in one variant."""
    doubts: list[None] = []
    language = None if "detect" in variant.split() and model.is_multilingual else clips[0].language
    with patched(variant, lambda: doubts.append(None)) as options:
        begin = time.process_time()
        results = model.transcribe(sounds, language=language, seed=0, **options)
        shares = len(doubts) / len(clips), round((time.process_time() - begin) / len(clips), 4)
    transcripts = []
    for clip, result in zip(clips, results, strict=True):
        heat, last = (max((s[key] for s in result["segments"]), default=0.0) for key in ("temperature", "end"))
        told = result["text"], result["language"], heat, shares[0], last, shares[1]
        transcripts.append(Transcript(name, variant, clip.path, *told))
    return transcripts


def groups_of(clips: Sequence[ManifestEntry], n: int) -> list[list[ManifestEntry]]:
    """Return groups of up to `n` clips of one language, in an order in which a part of them stands for all."""
    by_language: dict[str | None, list[ManifestEntry]] = {}
    for clip in clips:
        by_language.setdefault(clip.language, []).append(clip)
    groups = [same[i : i + n] for same in by_language.values() for i in range(0, len(same), n)]
    random.Random(0).shuffle(groups)
    return groups


def name_of(checkpoint: str) -> str:
    """Return the name of a model that is named or whose checkpoint is."""
    return checkpoint.rpartition("/")[2].removesuffix(".pt")


def read_results(path: Path) -> dict[tuple[str, str, str], Transcript]:
    """Return what the file holds by model, variant and recording."""
    return {(done.model, done.variant, done.file): done for done in read_lines(path, Transcript)}


def transcribe_missing(
    checkpoint: str, options: argparse.Namespace, folder: Path, clips: Sequence[ManifestEntry]
) -> None:
    """Transcribe what is not in the file of results yet, clip after clip, and write each text there at once."""
    name, done = name_of(checkpoint), read_results(options.out)
    left = [c for c in clips if any((name, variant, c.path) not in done for variant in options.variants)]
    if not left:
        return
    model = whisper.load_model(checkpoint, device="cpu", compute_type=options.compute_type)
    with open_to_append(options.out) as file:
        for group in tqdm(groups_of(left, options.at_once), desc=name, mininterval=10):
            sounds = {clip: load_audio(str(folder / clip.path)) for clip in group}
            for variant in options.variants:
                if own := [clip for clip in group if (name, variant, clip.path) not in done]:
                    lines = map(asdict, transcribe(model, name, variant, own, [sounds[clip] for clip in own]))
                    file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
                    file.flush()


def make_rows(
    name: str, clips: Sequence[ManifestEntry], variants: Sequence[str], found: dict[tuple[str, str], Transcript]
) -> Iterable[Row]:
    """Yield the row of each variant; `found` by variant and recording."""
    expected = [words_of(clip.text, clip.language) for clip in clips]
    totals = [len(words) for words in expected]
    given = {variant: [found[variant, clip.path] for clip in clips] for variant in variants}
    errors = {
        variant: [
            word_errors(words, words_of(transcript.text, clip.language))
            for clip, words, transcript in zip(clips, expected, given[variant], strict=True)
        ]
        for variant in variants
    }
    for variant in variants:
        difference = make_difference(errors[variants[0]], errors[variant], totals)
        most = [list(map(min, errors[v], totals)) for v in (variants[0], variant)]
        capped = make_difference(*most, totals)
        pairs = list(zip(clips, given[variants[0]], given[variant], strict=True))
        shares = (
            [own.text != full.text for _, full, own in pairs],
            [own.doubts for _, _, own in pairs],
            [own.temperature > 0 for _, _, own in pairs],
            [own.language != clip.language for clip, _, own in pairs],
        )
        numbers = [make_score(errors[variant], totals).rate]
        numbers += [x for d in (difference, capped) for x in (d.value, d.low, d.high)]
        percents = [100 * sum(share) / len(clips) for share in shares]
        seconds = sum(own.seconds for _, _, own in pairs) / len(clips)
        yield Row(name, variant, len(clips), *(100 * x for x in numbers), *percents, seconds)


def print_table(
    name: str, clips: Sequence[ManifestEntry], options: argparse.Namespace, results: dict[Any, Transcript]
) -> None:
    """Print the rows of each set, of each class of length and of all clips."""
    found = {(variant, path): t for (model, variant, path), t in results.items() if model == name}
    common = [clip for clip in clips if all((variant, clip.path) in found for variant in options.variants)]
    if not common:
        print(f"{name}: no clip was transcribed in each of {', '.join(options.variants)}")
        return
    parts = {group: [c for c in common if c.group == group] for group in sorted({c.group for c in common})}
    for low, high in itertools.pairwise(LENGTHS):
        parts[f"{low:g} to {high:g} s"] = [c for c in common if low <= (c.seconds or 0.0) < high]
    parts["all"] = common
    print(f"\n{name}\n{HEADER}")
    for part, own in parts.items():
        for row in make_rows(part, own, options.variants, found) if own else ():
            print(row)


def main() -> None:
    """Transcribe what is missing, and print the table of each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", required=True, help="list of recordings with transcripts, or its folder")
    parser.add_argument("--models", nargs="+", required=True, help="names or checkpoints; *.en are given English only")
    parser.add_argument(
        "--variants", nargs="+", default=[FULL, "0.5"], help="the first is what others are compared with"
    )
    parser.add_argument("--compute_type", default="int8", help="of all variants")
    parser.add_argument("--sets", nargs="*", default=[], help="groups of the manifest; by default all")
    parser.add_argument("--per_set", type=int, default=200, help="clips of a set at most")
    parser.add_argument("--at_once", type=int, default=24, help="clips that are transcribed together")
    parser.add_argument("--threads", type=int, default=1, help="of a transcription")
    parser.add_argument("--out", type=Path, default=Path("audio_context.jsonl"), help="file of results")
    parser.add_argument("--only_table", action="store_true", help="transcribe nothing")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder = Path(options.manifest)
    folder = folder if folder.is_dir() else folder.parent
    for checkpoint in options.models:
        name = name_of(checkpoint)
        clips = choose_clips(options.manifest, options.sets, options.per_set, name.endswith(".en"))
        if not options.only_table:
            transcribe_missing(checkpoint, options, folder, clips)
        print_table(name, clips, options, read_results(options.out))


if __name__ == "__main__":
    main()
