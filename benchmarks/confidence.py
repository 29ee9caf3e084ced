#!/usr/bin/env python3
"""Can the confidence of words be believed: fitted on one set of recordings, checked on others.

    python benchmarks/confidence.py --models tiny.en base --plot docs/confidence.png
    python benchmarks/confidence.py --models tiny.en --quick

Transcribes clips of `train` (greedy, without fallback) and of `dev` (by default) with word times, and writes each
down at once, so that a run that was killed goes on where it stopped. A word is right if it stands in the alignment
of transcript and true text as a hit, both normalized word by word; words that are normalized to nothing, and numbers
that are written otherwise, are left out. On `train` it fits the coefficients of `whisper.audit.confidence`, one set
for each model and one for all together; it prints them, and what they do on `dev`:

  errors      share of the words that are wrong
  ECE         expected calibration error of the probability and of the confidence: ten bins of as many words each
  caught      share of the wrong words among the fifth with the lowest probability, and with the lowest confidence

`general` is fitted on the other models alone where there are several, so its figures are those of an unknown model.
The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import functools
import json
import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from whisper.audit.confidence import CALIBRATIONS, Calibration, features  # noqa: E402
from whisper.evaluation.scoring import align, normalize  # noqa: E402

N_CLIPS = {  # of each set
    "train": {"speechocean762": 110, "commonvoice_en": 100, "librispeech": 50},
    "dev": dict.fromkeys(
        ("speechocean762", "commonvoice_en", "librispeech_test_other", "librispeech_misc", "intent_barista",
         "librispeech_train_clean_100", "ljspeech", "vctk"), 25,
    ),
}  # fmt: skip
N_BY_SPEAKER = 4  # clips of `train`
QUICK = 5  # of the clips, one is taken
SHARE = 0.2  # of the words that are marked doubtful
N_BINS = 10
PENALTY = 1.0  # on the squares of the weights, in deviations of their features


# ---------------------------------------------------------------------------------------------------------
# Transcripts
# ---------------------------------------------------------------------------------------------------------


def choose(data: Path, split: str, quick: bool) -> list[tuple[str, str]]:
    """Choose clips; return files and true texts, all sets taking turns."""
    from whisper.manifests.read import read_manifest

    folder = (data / split).resolve()
    by_set: dict[str, list[Any]] = {name: [] for name in sorted(N_CLIPS[split])}
    for row in read_manifest(folder, require_text=True, languages=["en"]).recordings:
        if row.text and (own := by_set.get(Path(row.path).parent.name)) is not None:
            own.append(row)
    rng, chosen = random.Random(0), []
    for name, rows in by_set.items():
        rng.shuffle(rows)
        if split == "train":
            spoken = Counter[str]()
            rows = [row for row in rows if spoken.update([row.speaker]) or spoken[row.speaker] <= N_BY_SPEAKER]
        n = N_CLIPS[split][name] // (QUICK if quick else 1)
        chosen += [(i, str(Path(row.path).relative_to(folder)), row.text) for i, row in enumerate(rows[:n])]
    return [(file, text) for _, file, text in sorted(chosen, key=lambda clip: clip[0])]


def transcribe(name: str, data: Path, split: str, cache: Path, quick: bool) -> list[dict[str, Any]]:
    """Transcribe what is not written down yet; return everything: files, true texts, segments."""
    path = cache / f"{name}-{split}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    done = {told["file"]: told for told in map(json.loads, lines)}
    clips = choose(data, split, quick)
    left = [clip for clip in clips if clip[0] not in done]
    if left:
        import torch

        import whisper

        torch.set_num_threads(1)
        model = whisper.load_model(name, device="cpu", compute_type="bfloat16")
        options: dict[str, Any] = {"temperature": 0.0} if split == "train" else {"seed": 0}
        for file, text in left:
            result = model.transcribe(str(data / split / file), language="en", word_timestamps=True, **options)
            done[file] = {"file": file, "reference": text, "segments": result["segments"]}
            with open(path, "a", encoding="utf-8") as out:
                out.write(json.dumps(done[file]) + "\n")
    return [done[file] for file, _ in clips]


# ---------------------------------------------------------------------------------------------------------
# Words, right and wrong
# ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Words:
    """All words of some transcripts that can be judged."""

    features: np.ndarray  # (n_words, n_features)
    probabilities: np.ndarray  # (n_words,): the original's
    right: np.ndarray  # (n_words,): 1 or 0

    def confidences(self, calibration: Calibration) -> np.ndarray:
        return 1 / (1 + np.exp(-calibration.intercept - self.features @ np.array(calibration.weights)))


@functools.cache
def normal(word: str) -> tuple[str, ...]:
    return tuple(normalize(word, "en").split())


def judge(words: Sequence[str], reference: str) -> list[bool | None]:
    """Whether each word is right; None where that cannot be said."""
    ours = [(part, i) for i, word in enumerate(words) for part in normal(word)]
    hits: list[list[bool]] = [[] for _ in words]
    remaining = iter(ours)
    for step in align([part for word in reference.split() for part in normal(word)], [part for part, _ in ours]):
        if step.hypothesis is not None:
            hits[next(remaining)[1]].append(step.kind == "hit")
    return [
        None if not own or (not all(own) and any(c.isdigit() for c in word)) else all(own)
        for word, own in zip(words, hits, strict=True)
    ]


def words_of(transcripts: Sequence[dict[str, Any]]) -> Words:
    rows, probabilities, right = [], [], []
    for told in transcripts:
        words = [word for segment in told["segments"] for word in segment["words"]]
        own = [row for segment in told["segments"] for row in features(segment)]
        verdicts = judge([word["word"] for word in words], told["reference"])
        for word, row, verdict in zip(words, own, verdicts, strict=True):
            if verdict is not None:
                rows.append(row)
                probabilities.append(word["probability"])
                right.append(float(verdict))
    return Words(np.array(rows), np.array(probabilities), np.array(right))


def join(parts: Sequence[Words]) -> Words:
    names = ("features", "probabilities", "right")
    return Words(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


# ---------------------------------------------------------------------------------------------------------
# Fitting and figures
# ---------------------------------------------------------------------------------------------------------


def fit(words: Words) -> Calibration:
    """Fit the logistic model by Newton's method; no weight is negative, so that confidence grows with probability."""
    mean, deviation = words.features.mean(axis=0), words.features.std(axis=0)
    x = np.c_[np.ones(len(words.right)), (words.features - mean) / deviation]
    used = np.ones(x.shape[1], bool)
    while True:
        w, penalty = np.zeros(used.sum()), PENALTY * np.eye(int(used.sum()))
        penalty[0, 0] = 0
        for _ in range(50):
            p = 1 / (1 + np.exp(-x[:, used] @ w))
            hessian = (x[:, used] * (p * (1 - p))[:, None]).T @ x[:, used] + penalty
            w = w + np.linalg.solve(hessian, x[:, used].T @ (words.right - p) - penalty @ w)
        if (w[1:] >= 0).all():
            break
        used[np.flatnonzero(used)[1:][w[1:] < 0]] = False
    weights = np.zeros(x.shape[1])
    weights[used] = w
    slopes = weights[1:] / deviation
    return Calibration(round(float(weights[0] - slopes @ mean), 3), tuple(round(float(s), 3) for s in slopes))


def bins(confidence: np.ndarray, right: np.ndarray) -> list[tuple[float, float, int]]:
    """Mean confidence, share of right words and number of words, in bins of as many words each."""
    parts = np.array_split(np.argsort(confidence, kind="stable"), N_BINS)
    return [(float(confidence[part].mean()), float(right[part].mean()), len(part)) for part in parts]


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    return sum(n * abs(stated - true) for stated, true, n in bins(confidence, right)) / len(right)


def caught(confidence: np.ndarray, right: np.ndarray) -> float:
    """The share of the wrong words that is among the least confident ones."""
    marked = np.argsort(confidence, kind="stable")[: int(np.ceil(SHARE * len(right)))]
    return float((1 - right[marked]).sum() / max((1 - right).sum(), 1))


def score(words: Words, confidence: np.ndarray) -> dict[str, float]:
    return {"ece": calibration_error(confidence, words.right), "caught": caught(confidence, words.right)}


def plot(path: Path, curves: dict[str, list[tuple[float, float, int]]]) -> None:
    """Draw the reliability diagrams into a file."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5, 5))
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=1)
    for name, curve in curves.items():
        style = ":" if name.endswith("probability") else "-"
        axes.plot([x for x, _, _ in curve], [y for _, y, _ in curve], style, marker="o", label=name)
    axes.set(xlabel="stated", ylabel="words that are right", title="Reliability of words, dev")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120, bbox_inches="tight")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["tiny.en", "base"])
    parser.add_argument("--quick", action="store_true", help="a fifth of the clips")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of train and dev")
    parser.add_argument("--cache", type=Path, default=ROOT / "build" / "confidence", help="transcripts")
    parser.add_argument("--plot", type=Path, help="draw the reliability diagram into this file (needs matplotlib)")
    arguments = parser.parse_args()
    told = {
        (name, split): words_of(transcribe(name, arguments.data, split, arguments.cache, arguments.quick))
        for name in arguments.models for split in ("train", "dev")
    }  # fmt: skip
    figures, curves = {}, {}
    print("| model | words | errors | ECE: probability, confidence, general, shipped | caught: the same |")
    print("|---|---|---|---|---|")
    for name in arguments.models:
        dev, others = told[name, "dev"], [other for other in arguments.models if other != name] or [name]
        ways = {
            "probability": dev.probabilities,
            "confidence": dev.confidences(fit(told[name, "train"])),
            "general": dev.confidences(fit(join([told[other, "train"] for other in others]))),
            "shipped": dev.confidences(CALIBRATIONS.get(name, CALIBRATIONS["general"])),
        }
        scores = {way: score(dev, stated) for way, stated in ways.items()}
        curves |= {f"{name}, {way}": bins(ways[way], dev.right) for way in ("probability", "confidence")}
        figures[name] = {"words": len(dev.right), "errors": 1 - dev.right.mean(), **scores}
        ece, found = (", ".join(f"{s[key]:.3f}" for s in scores.values()) for key in ("ece", "caught"))
        print(f"| {name} | {len(dev.right)} | {100 * (1 - dev.right.mean()):.1f} % | {ece} | {found} |")
    print()
    for name in arguments.models:
        print(name, len(told[name, "train"].right), fit(told[name, "train"]))
    print("general", fit(join([told[name, "train"] for name in arguments.models])))
    if arguments.plot:
        plot(arguments.plot, curves)
    print(json.dumps({"quick": arguments.quick, "figures": figures}))


if __name__ == "__main__":
    main()
