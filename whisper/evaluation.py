"""How well a model reads: word error rates with their uncertainty, languages, and words where nobody speaks.

Knows the layout of a folder of recordings (`datasets.py`) and the public calls of the model, not how it works.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from .audio import N_FRAMES, N_SAMPLES, load_audio, log_mel_spectrogram, pad_or_trim
from .datasets import log_power, speech_bounds
from .decoding import DecodingOptions
from .errors import TrainingError
from .normalizers import EnglishTextNormalizer

if TYPE_CHECKING:
    from .model import Whisper

MAX_BATCH = 8
TIMESTAMP_BEGIN = 50364  # token of 0.00 s in the multilingual vocabulary with 99 languages
PARTS = ("digits", "wakeword", "speechocean762", "commonvoice_en", "librispeech_test_other")


@dataclass(frozen=True)
class Score:
    """A rate of errors with the sample that it was measured on."""

    errors: int
    total: int  # words, or clips where whole clips count
    clips: int
    low: float  # 95 % of bootstrap samples of the clips lie between these
    high: float

    @property
    def rate(self) -> float:
        return self.errors / max(self.total, 1)

    def __str__(self) -> str:
        return (
            f"{100 * self.rate:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}] "
            f"({self.errors} of {self.total}, {self.clips} clips)"
        )


def word_errors(reference: Sequence[str], hypothesis: Sequence[str]) -> int:
    """Fewest words to substitute, delete and insert to turn `reference` into `hypothesis`."""
    row = list(range(len(hypothesis) + 1))
    for i, expected in enumerate(reference, start=1):
        before, row[0] = row[0], i
        for j, said in enumerate(hypothesis, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (expected != said))
    return row[-1]


def score_words(
    references: Sequence[str], hypotheses: Sequence[str], normalize: Callable[[str], str] | None = None
) -> Score:
    """Word error rate over all pairs of texts, after `normalize` (the English normaliser if not given)."""
    normalize = normalize or EnglishTextNormalizer()
    errors, words = [], []
    for reference, hypothesis in zip(references, hypotheses, strict=True):
        expected = normalize(reference).split()
        errors.append(word_errors(expected, normalize(hypothesis).split()))
        words.append(len(expected))
    return make_score(errors, words)


def make_score(errors: Sequence[int], totals: Sequence[int], seed: int = 0) -> Score:
    """Sum errors and totals of the clips; the interval comes from drawing whole clips again 1000 times."""
    n = len(errors)
    if n == 0:
        raise TrainingError("there is nothing to score: the list of clips is empty")
    draws = np.random.default_rng(seed).integers(n, size=(1000, n))
    rates = np.asarray(errors)[draws].sum(1) / np.maximum(np.asarray(totals)[draws].sum(1), 1)
    low, high = np.percentile(rates, [2.5, 97.5])
    return Score(int(sum(errors)), int(sum(totals)), n, float(low), float(high))


def read_rows(folder: str | os.PathLike[str]) -> list[dict[str, str]]:
    """The rows of ``folder/manifest.tsv`` as they are, each with its ``path``."""
    with open(Path(folder) / "manifest.tsv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [{**row, "path": str(Path(folder) / row["file"])} for row in rows]


def windows(paths: Sequence[str]) -> Iterator[torch.Tensor]:
    """The first 30 s of each recording, ``(80, 3000)``, filled up with zeros as `transcribe` does."""
    for path in paths:
        samples = load_audio(path)
        mel = log_mel_spectrogram(samples, padding=N_SAMPLES)
        yield pad_or_trim(mel[:, : len(samples) // 160], N_FRAMES)


def read_clips(model: Whisper, paths: Sequence[str], language: str | None = "en") -> list[str]:
    """What the model reads in clips of at most 30 s, greedily, several at once."""
    texts = []
    options = DecodingOptions(language=language, fp16=False)
    mels = list(windows(paths))
    for i in range(0, len(mels), MAX_BATCH):
        results = model.decode(torch.stack(mels[i : i + MAX_BATCH]).to(model.device), options)
        texts += [result.text for result in results]
    return texts


def languages(model: Whisper, paths: Sequence[str]) -> list[str]:
    """The language that the model hears in each clip."""
    found = []
    mels = [pad_or_trim(log_mel_spectrogram(load_audio(path), padding=N_SAMPLES), N_FRAMES) for path in paths]
    for i in range(0, len(mels), MAX_BATCH):
        _, probabilities = model.detect_language(torch.stack(mels[i : i + MAX_BATCH]).to(model.device))
        found += [max(p, key=lambda code: p[code]) for p in probabilities]
    return found


def measure(model: Whisper, folder: str | os.PathLike[str], parts: Sequence[str], limit: int = 0) -> dict[str, Score]:
    """Word error rates on the named parts of a folder of recordings, at most `limit` clips of each (0: all)."""
    rows = [row for row in read_rows(folder) if row["transcript"] and row["language"] == "en"]
    scores = {}
    for part in parts:
        chosen = _some([row for row in rows if row["file"].startswith(part + "/")], limit)
        texts = read_clips(model, [row["path"] for row in chosen])
        scores[part] = score_words([row["transcript"] for row in chosen], texts)
    return scores


def measure_languages(model: Whisper, rows: Sequence[Mapping[str, str]]) -> Score:
    """How often the model takes a clip for another language than its row says."""
    found = languages(model, [row["path"] for row in rows])
    return make_score([int(a != row["language"]) for a, row in zip(found, rows, strict=True)], [1] * len(rows))


def measure_silence(model: Whisper, rows: Sequence[Mapping[str, str]]) -> Score:
    """How many clips without speech are given any text by `transcribe`."""
    texts = [str(model.transcribe(row["path"], fp16=False)["text"]) for row in rows]
    return make_score([int(bool(text.strip())) for text in texts], [1] * len(rows))


def _some(rows: list[dict[str, str]], limit: int) -> list[dict[str, str]]:
    return rows if not limit or len(rows) <= limit else rows[:: -(-len(rows) // limit)]


def measure_bounds(model: Whisper, rows: Sequence[Mapping[str, str]]) -> Score:
    """How often a text's first or last time is over 0.1 s from where the level of the sound rises or falls.

    Only for short clips with one stretch of speech; clips with no text or no end are left out.
    """
    options = DecodingOptions(language="en", fp16=False)
    wrong = []
    for row, mel in zip(rows, windows([row["path"] for row in rows]), strict=True):
        start, end = speech_bounds(log_power(load_audio(row["path"])))
        tokens = model.decode(mel, options).tokens
        times = [(t - TIMESTAMP_BEGIN) * 0.02 for t in tokens if t >= TIMESTAMP_BEGIN]
        if len(times) >= 2 and len(tokens) > len(times):
            wrong.append(int(abs(times[0] - start / 100) > 0.1) + int(abs(times[-1] - end / 100) > 0.1))
    return make_score(wrong, [2] * len(wrong))


def report(model: Whisper, folder: str | os.PathLike[str], limit: int = 0) -> dict[str, Score]:
    """Everything that the model card says, on a folder of recordings laid out as ``dev``."""
    rows = read_rows(folder)
    scores = measure(model, folder, PARTS, limit)
    speech = [
        row
        for row in rows
        if (row["language"] == "en" and row["file"].startswith("commonvoice_en")) or row["language"] == "fr"
    ]
    for code in ("en", "fr"):
        chosen = _some([row for row in speech if row["language"] == code], limit)
        scores[f"language {code} missed"] = measure_languages(model, chosen)
    scores["no speech, text given"] = measure_silence(model, [r for r in rows if r["language"] == "none"])
    for part in ("digits", "wakeword"):
        chosen = _some([row for row in rows if row["file"].startswith(part)], limit or 60)
        scores[f"{part}, time off by over 0.1 s"] = measure_bounds(model, chosen)
    return scores
