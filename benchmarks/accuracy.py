#!/usr/bin/env python3
"""Word errors on real speech: every precision of Sotto, faster-whisper and openai-whisper, with the same weights.

    scripts/peers openai-whisper faster-whisper
    python benchmarks/accuracy.py --models base=base.pt,base-ct2 tiny.en=tiny.en.pt,tiny.en-ct2

English sets (accents, children, books, a recording of four minutes) and 22 languages, each recording twice:

  detected   the language is left to the model; temperature 0, with word times: what same.py asks openai-whisper for,
             too, so that its results are shared
  given      the language is given, temperatures fall back (only of multilingual models)

All else is openai-whisper's default, for faster-whisper, too: greedy, one sample where one is drawn. Texts are
compared by the rules of the Whisper paper (whisper/evaluation/scoring.py): Japanese, Chinese and the like by
characters, all others by words. Intervals of 95 % by bootstrap over recordings, of differences by paired bootstrap.
`changed` is the share of texts that are, normalized, other ones than the baseline's.

What others gave is kept, what Sotto gave is kept until its code changes: with `--implementations "sotto int8"` a
change is measured again by itself, and compared with all that is there. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import speech
from speech import Told, Weights

IMPLEMENTATIONS = (
    "sotto float32", "sotto bfloat16", "sotto int8", "openai-whisper", "faster-whisper float32", "faster-whisper int8",
)  # fmt: skip
BASELINE = "sotto float32"
PAIRS = (("faster-whisper int8", "sotto int8"),)  # compared beside everybody with the baseline
SETTINGS: dict[str, dict[str, Any]] = {"detected": {"temperature": 0, "word_timestamps": True}, "given": {}}
ENGLISH = (
    "commonvoice_en", "speechocean762", "librispeech_test_other", "librispeech_train_clean_100", "librispeech_misc",
    "ljspeech", "vctk", "pocketsphinx", "speechbrain", "long",
)  # fmt: skip
PARTS = {"English": ENGLISH, "22 languages": ("multilingual",)}


def jobs_of(recordings: list[Any], setting: str, data: Path, cache: Path) -> list[speech.Job]:
    """List what is to be transcribed; `cache` receives the samples."""
    return [
        {
            "name": os.path.relpath(recording.path, data),
            "path": str(speech.sound_of(Path(recording.path), cache)),
            "options": {**SETTINGS[setting], **({"language": recording.language} if setting == "given" else {})},
        }
        for recording in recordings
    ]


def evaluation_of(name: str, recordings: list[Any], told: list[Told | None], setting: str) -> Any:
    """Return what an implementation told as an `Evaluation`; what it has not told is left out."""
    from whisper.evaluation.results import Evaluation, Hypothesis, ScoredClip

    clips = []
    for recording, one in zip(recordings, told, strict=True):
        if one is None:
            continue
        hypothesis = None if "error" in one else Hypothesis(
            text=one["text"].strip(), language=one["language"], detected=setting == "detected",
            duration=recording.seconds, seconds=one["seconds"],
        )  # fmt: skip
        clips.append(ScoredClip(recording, hypothesis, one.get("error", "")))
    return Evaluation(model=name, clips=tuple(clips))


def part_of(evaluation: Any, groups: tuple[str, ...]) -> Any:
    """Return an evaluation of some groups alone."""
    from dataclasses import replace

    return replace(evaluation, clips=tuple(clip for clip in evaluation.clips if clip.recording.group in groups))


def changed(first: Any, second: Any) -> float:
    """Return the share of recordings of both with different normalized texts."""
    from whisper.evaluation.results import compare
    from whisper.evaluation.scoring import normalize

    pairs = compare(first, second).pairs
    return sum(normalize(a.text, a.language) != normalize(b.text, b.language) for a, b in pairs) / len(pairs)


def row(evaluation: Any, baseline: Any, pairs: list[Any]) -> dict[str, Any]:
    """Score one implementation on one part, alone and beside the baseline; `pairs` are others to compare with."""
    from whisper.evaluation.results import compare, to_plain

    scores = evaluation.scores
    told: dict[str, Any] = {"words": scores.total.words, "characters": scores.total.characters}
    told["failed"] = scores.n_clips["failed"]
    if scores.languages:
        told["wrong language"] = scores.languages.clips
    if baseline is not None and baseline is not evaluation:
        told["difference"] = compare(baseline, evaluation).words
        told["changed"] = changed(baseline, evaluation)
    told["against"] = {other.model: compare(other, evaluation).words for other in pairs}
    told["sets"] = {group.name: group.words for group in scores.groups["set"]}
    return {key: value if key in ("changed", "failed") else to_plain(value) for key, value in told.items()} | {
        "text": [str(told["words"]), str(told.get("difference", "")), *map(str, told["against"].values())]
    }


def score(evaluations: dict[str, Any]) -> dict[str, Any]:
    """Score all implementations in one setting, by part."""
    found: dict[str, Any] = {}
    for part, groups in PARTS.items():
        parts = {name: part_of(one, groups) for name, one in evaluations.items()}
        parts = {name: one for name, one in parts.items() if one.scores.total}
        found[part] = {
            name: row(one, parts.get(BASELINE), [parts[a] for a, b in PAIRS if b == name and a in parts])
            for name, one in parts.items()
        }
    return {part: rows for part, rows in found.items() if rows}


def lines_of(model: str, setting: str, parts: dict[str, Any]) -> Iterator[str]:
    """Yield the table of one model and setting."""
    for part, rows in parts.items():
        yield f"\n{model}, {part}, language {setting}: word error, and points more than {BASELINE}"
        for name, one in rows.items():
            total, difference, *against = one["text"]
            share = f"{100 * one['changed']:5.1f} % changed" if "changed" in one else ""
            wrong = one.get("wrong language")
            language = f"   wrong language {100 * wrong['rate']:.1f} %" if wrong else ""
            failed = f"   {one['failed']} failed" if one["failed"] else ""
            yield f"  {name:24s}{total:44s}{difference:40s}{share}{language}{failed}"
            for other, text in zip(one["against"], against, strict=True):
                yield f"  {'':24s}against {other}: {text}"
        sets = list(dict.fromkeys(group for one in rows.values() for group in one["sets"]))
        if len(sets) > 1:
            yield f"  {'word error by set, %':28s}" + "".join(f"{name:>24s}" for name in rows)
        for group in sets if len(sets) > 1 else ():
            rates = [one["sets"].get(group) for one in rows.values()]
            yield f"  {group:28s}" + "".join(f"{100 * r['rate']:24.1f}" if r else f"{'-':>24s}" for r in rates)


def main() -> None:
    arguments = parse()
    sys.path.insert(0, str(speech.ROOT))
    from whisper.evaluation.run import choose
    from whisper.manifests.read import read_manifest

    began = time.perf_counter()
    everything = [r for r in read_manifest(arguments.data).recordings if r.text]
    chosen = choose(everything, (*ENGLISH, "multilingual"), arguments.limit, arguments.seed)
    chosen += [r for r in everything if r.group == "multilingual" and r not in chosen]
    results: dict[str, Any] = {}
    for weights in arguments.models:
        recordings = [r for r in chosen if weights.multilingual or r.group in ENGLISH]
        results[weights.name] = {
            setting: score(evaluations(arguments, weights, setting, recordings))
            for setting in (SETTINGS if weights.multilingual else ("detected",))
        }
        for setting, parts in results[weights.name].items():
            print("\n".join(lines_of(weights.name, setting, parts)), flush=True)
    print(f"\n{(time.perf_counter() - began) / 60:.1f} minutes")
    print(json.dumps(results, ensure_ascii=False))


def evaluations(arguments: argparse.Namespace, weights: Weights, setting: str, recordings: list[Any]) -> dict[str, Any]:
    """Run the implementations that are asked for, and read what the others gave before."""
    jobs = jobs_of(recordings, setting, arguments.data, arguments.cache)

    def run(name: str) -> Any:
        asked = name in arguments.implementations and not arguments.so_far
        told = speech.run(name, weights, jobs, arguments.cache, only_read=not asked)
        return evaluation_of(name, recordings, told, setting)

    with ThreadPoolExecutor(arguments.side_by_side) as pool:
        told = dict(zip(IMPLEMENTATIONS, pool.map(run, IMPLEMENTATIONS), strict=True))
    return {name: one for name, one in told.items() if one.clips}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", type=Weights.parse, required=True, metavar="NAME=FILE.pt,FOLDER")
    parser.add_argument("--implementations", nargs="+", default=list(IMPLEMENTATIONS), choices=IMPLEMENTATIONS)
    parser.add_argument("--limit", type=int, default=50, help="recordings of each English set at most; 0: all")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--so-far", action="store_true", help="run nothing; score what is there")
    parser.add_argument("--side-by-side", type=int, default=1, help="processes at once, of one thread each")
    parser.add_argument("--data", type=Path, default=speech.DATA, help="a folder with manifest.tsv")
    parser.add_argument("--cache", type=Path, default=speech.CACHE, help="samples and results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
