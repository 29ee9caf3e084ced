#!/usr/bin/env python3
"""Is it the same? Every figure of transcribe() on real speech beside openai-whisper's, in float32.

    scripts/peers openai-whisper
    python benchmarks/same.py --models base=base.pt tiny.en=tiny.en.pt

300 recordings: all of 22 languages, the long ones, two speakers, music and odd formats, and a draw from each other
group of the manifest. English-only models get those in English and those without speech. Both sides get the same
samples, one thread, and the same calls:

  words      word times, temperature 0; the language is detected, and previous text prompts the next window
  default    no option at all, on every third recording: temperatures fall back, with draws that are seeded alike
  beams      5 beams, temperature 0, the language given, on every third recording
  prompt     an initial prompt, temperature 0, the language given, on every third recording
  translate  into English, temperature 0, on every third recording of multilingual models

Equal means: language, text, tokens, segments, seeks and temperatures are identical; log-probabilities, no-speech
probabilities, compression ratios and word probabilities differ by at most 1e-3; times by at most 0.02 s. Every
difference is listed, and with `--why` explained (see near_ties.py). `sotto float32 batched` makes the same calls for
eight recordings at once; draws above temperature 0 come in another order there, so recordings with such draws are left
out.

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import near_ties
import numpy as np
import speech
from speech import Told, Weights

SETTINGS: dict[str, dict[str, Any]] = {
    "words": {"temperature": 0, "word_timestamps": True},
    "default": {},
    "beams": {"temperature": 0, "beam_size": 5},
    "prompt": {"temperature": 0, "initial_prompt": "Mr. Quilter, Sotto voce, ComfyUI; read aloud, with commas."},
    "translate": {"temperature": 0, "task": "translate"},
}
ON_ALL = ("words",)  # the others on every third recording
LANGUAGE_GIVEN = ("beams", "prompt")
ORIGINAL = "openai-whisper"
OURS = ("sotto float32", "sotto float32 batched")
WHOLE_GROUPS = ("multilingual", "long", "stereo", "misc", "music_no_speech")
SCORES = ("avg_logprob", "no_speech_prob", "compression_ratio", "probability")
TIMES = ("start", "end")
SCORE_TOLERANCE, TIME_TOLERANCE = 1e-3, 0.02 + 1e-9


def jobs_of(recordings: list[Any], weights: Weights, data: Path, cache: Path) -> list[tuple[str, speech.Job]]:
    """List the settings and what is to be transcribed in them; `cache` receives the samples."""
    jobs = []
    for i, recording in enumerate(recordings):
        if not weights.multilingual and recording.language not in ("en", "none"):
            continue
        known = {} if recording.language == "none" else {"language": recording.language}
        sound = str(speech.sound_of(Path(recording.path), cache))
        for setting, options in SETTINGS.items():
            if (setting not in ON_ALL and i % 3) or (setting == "translate" and not weights.multilingual):
                continue
            given = {**options, **known} if setting in LANGUAGE_GIVEN else options
            jobs.append((setting, {"name": os.path.relpath(recording.path, data), "path": sound, "options": given}))
    return jobs


# ---------------------------------------------------------------------------------------------------------
# Two transcripts
# ---------------------------------------------------------------------------------------------------------


def differences(theirs: Any, ours: Any, at: str = "") -> Iterator[tuple[str, str]]:
    """Yield what differs: the kind (the key under which it stands), and where and what.

    Of lists of different lengths only the lengths are told, and of segments with different tokens nothing more.
    """
    if isinstance(theirs, dict) and isinstance(ours, dict):
        if theirs.keys() != ours.keys():
            yield "keys", f"{at}: {sorted(theirs)} and {sorted(ours)}"
        elif theirs.get("tokens") != ours.get("tokens"):
            yield "tokens", f"{at}: {theirs['text']!r} and {ours['text']!r}"
        else:
            for key in theirs:
                yield from differences(theirs[key], ours[key], f"{at}.{key}")
    elif isinstance(theirs, list) and isinstance(ours, list) and at.endswith(("segments", "words")):
        if len(theirs) != len(ours):
            yield kind_of(at), f"{at}: {len(theirs)} and {len(ours)}"
        for i, (a, b) in enumerate(zip(theirs, ours)):  # noqa: B905
            yield from differences(a, b, f"{at}[{i}]")
    elif not is_equal(kind_of(at), theirs, ours):
        yield kind_of(at), f"{at}: {theirs!r} and {ours!r}"


def kind_of(at: str) -> str:
    return at.rpartition(".")[2]


def is_equal(kind: str, a: Any, b: Any) -> bool:
    if kind in TIMES:
        return abs(a - b) <= TIME_TOLERANCE
    if kind in SCORES:
        return abs(a - b) <= SCORE_TOLERANCE or (a != a and b != b)
    return bool(a == b)


@dataclass
class Comparison:
    """An implementation beside the original, in one setting."""

    recordings: int = 0
    equal: int = 0
    segments: int = 0
    tokens: int = 0
    words: int = 0
    drawn: int = 0  # recordings with a segment that was sampled above temperature 0
    kinds: Counter[str] = field(default_factory=Counter)  # recordings, by what differs in them
    score: float = 0.0  # the greatest differences where tokens are equal
    time: float = 0.0
    listed: dict[str, list[str]] = field(default_factory=dict)  # by recording

    def add(self, name: str, theirs: Told, ours: Told) -> None:
        """Count a recording."""
        found = list(differences(plain(theirs), plain(ours)))
        segments = theirs.get("segments", [])
        self.recordings += 1
        self.equal += not found
        self.segments += len(segments)
        self.tokens += sum(len(segment["tokens"]) for segment in segments)
        self.words += sum(len(segment.get("words", ())) for segment in segments)
        self.drawn += drew(theirs)
        self.kinds.update({kind for kind, _ in found})
        if found:
            self.listed[name] = [what for _, what in found]
        for kinds, what in ((SCORES, "score"), (TIMES, "time")):
            setattr(self, what, max(getattr(self, what), greatest(theirs, ours, kinds)))

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "kinds": dict(self.kinds)}


Comparisons = dict[str, Comparison]  # by setting


def plain(told: Told) -> Told:
    """Return what transcribe() returned, or the error."""
    return {key: told[key] for key in ("error", "language", "segments", "text") if key in told}


def greatest(theirs: Told, ours: Told, kinds: tuple[str, ...]) -> float:
    """Return the greatest difference of numbers of these kinds in segments and words that are otherwise equal."""
    most = 0.0
    pairs = list(zip(theirs.get("segments", ()), ours.get("segments", ())))  # noqa: B905
    for a, b in pairs:
        if a["tokens"] == b["tokens"]:
            words = list(zip(a.get("words", ()), b.get("words", ())))  # noqa: B905
            for x, y in [(a, b), *((x, y) for x, y in words if x["word"] == y["word"])]:
                numbers = [abs(x[kind] - y[kind]) for kind in kinds if kind in x]
                most = max([most, *(number for number in numbers if number == number)])
    return most


def drew(told: Told) -> bool:
    """Whether a segment was sampled above temperature 0."""
    return any(segment["temperature"] > 0 for segment in told.get("segments", ()))


def compare(
    jobs: list[tuple[str, speech.Job]], theirs: list[Told | None], ours: list[Told | None], draws: bool = True
) -> Comparisons:
    """Compare what both have, by setting; without `draws` only where the original drew nothing."""
    found: Comparisons = {}
    for (setting, job), one, other in zip(jobs, theirs, ours, strict=True):
        if one is not None and other is not None and (draws or not drew(one)):
            found.setdefault(setting, Comparison()).add(job["name"], one, other)
    return {setting: found[setting] for setting in SETTINGS if setting in found}


# ---------------------------------------------------------------------------------------------------------
# All of it
# ---------------------------------------------------------------------------------------------------------


def table(model: str, implementation: str, found: Comparisons) -> Iterator[str]:
    titles = ("recordings", "equal", "drawn", "segments", "tokens", "words", "score", "time, s")
    yield f"\n{model}, {implementation}".ljust(36) + "".join(f"{title:>11s}" for title in titles) + "   differing in"
    for setting, one in found.items():
        kinds = ", ".join(f"{kind} {n}" for kind, n in one.kinds.most_common())
        counts = (one.recordings, one.equal, one.drawn, one.segments, one.tokens, one.words)
        cells = "".join(f"{count:11d}" for count in counts)
        yield f"  {setting:33s}{cells}{one.score:11.1e}{one.time:11.3f}   {kinds}"
        for name, lines in one.listed.items():
            more = f" (and {len(lines) - 3} more)" if len(lines) > 3 else ""
            yield f"      {name}: {'; '.join(line[:220] for line in lines[:3])}{more}"


def reasons(weights: Weights, jobs: list[tuple[str, speech.Job]], theirs: list[Any], ours: list[Any]) -> Iterator[str]:
    """Tell for each recording with other tokens how close a tie they part at."""
    import whisper

    model = whisper.load_model(str(weights.pt), device="cpu", compute_type="float32")
    for (setting, job), one, other in zip(jobs, theirs, ours, strict=True):
        if one is None or other is None or not one.get("segments") or not other.get("segments"):
            continue
        if at := near_ties.first_parting(one, other):
            gap = near_ties.gap(model, np.load(job["path"]), one["language"], job["options"], at)
            verdict = "a near tie" if abs(gap) < near_ties.NEAR else "no near tie"
            yield f"  {setting}/{job['name']}: at {at.seek / 100:.2f} s, token {len(at.common)}: {gap:+.1e}, {verdict}"


def main() -> None:
    arguments = parse()
    sys.path.insert(0, str(speech.ROOT))
    from whisper.manifests.read import read_manifest

    began = time.perf_counter()
    recordings = speech.choose(read_manifest(arguments.data).recordings, WHOLE_GROUPS, arguments.recordings)
    recordings.sort(key=lambda recording: recording.language == "none")  # these fall back, and take long: last
    jobs = {w: jobs_of(recordings, w, arguments.data, arguments.cache) for w in arguments.models}
    runs = [(weights, name) for weights in arguments.models for name in (ORIGINAL, *arguments.implementations)]

    def run(weights: Weights, name: str) -> list[Told | None]:
        asked = [job for _, job in jobs[weights]]
        return speech.run(name, weights, asked, arguments.cache, only_read=arguments.so_far)

    with ThreadPoolExecutor(arguments.side_by_side) as pool:
        told = dict(zip(runs, pool.map(lambda pair: run(*pair), runs), strict=True))
    results: dict[str, Any] = {}
    for weights, name in runs:
        if name != ORIGINAL:
            found = compare(
                jobs[weights], told[weights, ORIGINAL], told[weights, name], draws=not name.endswith("batched")
            )
            print("\n".join(table(weights.name, name, found)), flush=True)
            if arguments.why:
                print("\n".join(reasons(weights, jobs[weights], told[weights, ORIGINAL], told[weights, name])))
            results.setdefault(weights.name, {})[name] = {setting: one.to_dict() for setting, one in found.items()}
    print(f"\n{(time.perf_counter() - began) / 60:.1f} minutes")
    print(json.dumps({"recordings": len(recordings), "results": results}, ensure_ascii=False))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", type=Weights.parse, required=True, metavar="NAME=FILE.pt")
    parser.add_argument("--implementations", nargs="*", default=list(OURS), help="beside the original")
    parser.add_argument("--recordings", type=int, default=300)
    parser.add_argument("--so-far", action="store_true", help="run nothing; compare what is there")
    parser.add_argument("--why", action="store_true", help="tell how close a tie each text with other tokens parts at")
    parser.add_argument("--side-by-side", type=int, default=1, help="processes at once, of one thread each")
    parser.add_argument("--data", type=Path, default=speech.DATA, help="a folder with manifest.tsv")
    parser.add_argument("--cache", type=Path, default=speech.CACHE, help="samples and results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
