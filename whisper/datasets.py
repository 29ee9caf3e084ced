"""Recordings with transcripts, prepared for training: manifests, reduced text, log-mel features kept on disk.

Reads folders with a ``manifest.tsv`` (file, duration_s, language, transcript ...), makes the synthetic part with
espeak-ng and flite where those are installed, and computes every clip's features once. Knows no model, changes
no recording and downloads nothing.
"""

from __future__ import annotations

import csv
import json
import logging
import os
import re
import shutil
import subprocess
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch

from .audio import HOP_LENGTH, N_FFT, SAMPLE_RATE, load_audio, mel_filters
from .errors import AudioError, TrainingError

log = logging.getLogger(__name__)

LETTERS = "abcdefghijklmnopqrstuvwxyz'àâäçèéêëîïôöùûü"
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
WAKE_PHRASES = ("alexa", "computer", "jarvis", "smart mirror", "snowboy", "view glass")
SILENT_POWER = -10.0  # log10 of the least power that the spectrogram knows: digital silence
N_MELS = 80


@dataclass(frozen=True)
class Recording:
    """One row of a manifest, or one sentence for a synthetic voice to say."""

    path: str
    source: str  # the folder under the training data, or "synthetic"
    language: str
    text: str
    speaker: str
    voice: tuple[str, ...] = ()  # command line of a synthetic voice; empty for a real recording


@dataclass(frozen=True)
class Clip:
    """A recording whose features are kept: where they stand in the store and where in them speech is."""

    source: str
    language: str
    text: str
    speaker: str
    offset: int  # first frame in the store
    n_frames: int  # at 100 frames a second
    start: int  # first frame with speech, counted from the clip's own beginning
    end: int  # one past the last
    words: tuple[tuple[int, int], ...] = ()  # first and one past the last frame of each word of the text, where known

    @property
    def n_speech(self) -> int:
        return self.end - self.start


@dataclass(frozen=True)
class Store:
    """Features of all clips, ``(n_total_frames, 80)`` float16 log10 power, and the clips in them."""

    features: np.ndarray
    clips: list[Clip]
    sources: dict[str, list[Clip]] = field(default_factory=dict)

    def power(self, clip: Clip, start: int, end: int) -> np.ndarray:
        """Log10 mel power of the clip's frames `start` to `end`, ``(n_frames, 80)`` float32."""
        return self.features[clip.offset + start : clip.offset + end].astype(np.float32)


def reduce_text(text: str) -> str:
    """Bring a transcript to the one style that the model learns: lower case, letters and apostrophes.

    The sources disagree (upper case without punctuation, cased with it); what none of them tells cannot be learnt.
    """
    text = unicodedata.normalize("NFC", text.lower())
    for old, new in (("’", "'"), ("‘", "'"), ("´", "'"), ("œ", "oe"), ("æ", "ae"), ("ÿ", "y")):
        text = text.replace(old, new)
    kept = "".join(c if c in LETTERS else _plain(c) for c in text)
    kept = re.sub(r"(?<![a-zà-ü])'+|'+(?![a-zà-ü])", " ", kept)  # quotation marks, not apostrophes
    return " ".join(kept.split())


def _plain(character: str) -> str:
    base = unicodedata.normalize("NFD", character)[0]
    return base if base in LETTERS else " "


def read_manifest(folder: str | os.PathLike[str], max_per_speaker: int = 120) -> list[Recording]:
    """Read the rows of ``folder/manifest.tsv`` that have a language and a transcript.

    At most `max_per_speaker` clips of one Common Voice speaker are taken, as three of them give a quarter of it.

    Raises
    ------
    TrainingError
        There is no manifest, or it lacks a column.
    """
    path = Path(folder) / "manifest.tsv"
    if not path.is_file():
        raise TrainingError(f"{path} does not exist: training data are a folder with a manifest.tsv")
    recordings, counts = [], dict[str, int]()
    with open(path, newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        missing = {"file", "language", "transcript"} - set(rows.fieldnames or ())
        if missing:
            raise TrainingError(f"{path} lacks the columns {sorted(missing)}")
        for row in rows:
            source, text = row["file"].split("/")[0], reduce_text(row["transcript"] or "")
            speaker = row.get("speaker") or ""
            if row["language"] not in ("en", "fr") or not text:
                continue
            if source.startswith("commonvoice"):
                counts[speaker] = counts.get(speaker, 0) + 1
                if counts[speaker] > max_per_speaker:
                    continue
            recordings.append(Recording(str(Path(folder) / row["file"]), source, row["language"], text, speaker))
    return recordings


# ---------------------------------------------------------------------------------------------------------
# Synthetic voices: short utterances of the closed vocabulary, so that more than four voices say the digits
# ---------------------------------------------------------------------------------------------------------

_ESPEAK_ACCENTS = ("en", "en-us", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-029", "en-us-nyc")
_ESPEAK_VARIANTS = (
    "m1", "m2", "m3", "m4", "m5", "m6", "m7", "f1", "f2", "f3", "f4", "f5",
    "klatt", "klatt2", "klatt4", "croak", "Annie", "Andy", "Denis", "Steph", "Michael", "Mario", "Gene", "linda",
)  # fmt: skip
_FLITE_VOICES = ("kal", "awb", "rms", "slt", "kal16")


def plan_synthetic(n_utterances: int, seed: int) -> list[Recording]:
    """Plan what synthetic voices say: one to four digits, or a wake phrase, in random voices and tempos.

    Returns an empty list where neither espeak-ng nor flite is installed.
    """
    rng = np.random.default_rng(seed)
    tools = [tool for tool in ("espeak-ng", "flite") if shutil.which(tool)]
    if not tools:
        log.warning("neither espeak-ng nor flite is installed: training goes without synthetic voices")
        return []
    plans = []
    for _ in range(n_utterances):
        if rng.random() < 0.8:
            n_digits = int(rng.choice([1, 1, 1, 2, 3, 4]))
            text = " ".join(rng.choice(DIGITS) for _ in range(n_digits))
        else:
            text = str(rng.choice(WAKE_PHRASES))
        voice = _voice(rng, tools)
        plans.append(Recording("", "synthetic", "en", text, " ".join(voice), voice))
    return plans


def _voice(rng: np.random.Generator, tools: Sequence[str]) -> tuple[str, ...]:
    if "flite" in tools and (len(tools) == 1 or rng.random() < 0.25):
        return ("flite", "-voice", str(rng.choice(_FLITE_VOICES)),
                "--setf", f"duration_stretch={rng.uniform(0.75, 1.35):.2f}",
                "--setf", f"int_f0_target_mean={rng.integers(80, 220)}")  # fmt: skip
    name = f"{rng.choice(_ESPEAK_ACCENTS)}+{rng.choice(_ESPEAK_VARIANTS)}"
    return ("espeak-ng", "-v", name, "-s", str(rng.integers(110, 210)), "-p", str(rng.integers(15, 85)),
            "-g", str(rng.integers(0, 12)))  # fmt: skip


def speak(voice: Sequence[str], text: str) -> np.ndarray:
    """Let a synthetic voice say `text`; 16 kHz float32 samples."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "said.wav")
        tail = ["-w", path, text] if voice[0] == "espeak-ng" else ["-o", path, "-t", text]
        done = subprocess.run([*voice, *tail], capture_output=True, text=True)
        if done.returncode or not os.path.exists(path):
            raise TrainingError(f"{voice[0]} failed on {text!r}: {done.stderr.strip()[:200]}")
        return load_audio(path)


# ---------------------------------------------------------------------------------------------------------
# Features
# ---------------------------------------------------------------------------------------------------------


def log_power(samples: np.ndarray) -> np.ndarray:
    """Log10 mel power before the normalisation of `log_mel_spectrogram`, ``(n_frames, 80)`` float32."""
    window = torch.hann_window(N_FFT)
    spectrum = torch.stft(torch.from_numpy(samples), N_FFT, HOP_LENGTH, window=window, return_complex=True)
    power = spectrum[:, :-1].abs().square()  # (201, n_frames)
    mel: np.ndarray = (mel_filters("cpu", N_MELS) @ power).clamp_(min=10**SILENT_POWER).log10().T.numpy()
    return mel


def speech_bounds(power: np.ndarray) -> tuple[int, int]:
    """First and one past the last frame with speech, by level: a third of the way from the quiet to the loud.

    The mean over the bands of the logarithm, not the power, so that an s counts as much as an a.
    """
    level = power.mean(axis=1)
    level = np.convolve(level, np.ones(5) / 5, mode="same")
    quiet, loud = np.percentile(level[level > SILENT_POWER + 0.5], [8, 95]) if (level > -9.5).any() else (0, 0)
    active = level > quiet + 0.33 * (loud - quiet)
    runs = np.convolve(active, np.ones(6), mode="same") >= 5  # clicks are shorter than 50 ms
    where = np.flatnonzero(runs)
    if len(where) == 0 or loud - quiet < 0.3:
        return 0, len(power)
    return max(int(where[0]) - 4, 0), min(int(where[-1]) + 5, len(power))


def build_store(recordings: Iterable[Recording], folder: str | os.PathLike[str]) -> Store:
    """Compute the features of `recordings` into `folder`, or open what an earlier call has left there."""
    folder = Path(folder)
    index = folder / "clips.json"
    if not index.exists():
        folder.mkdir(parents=True, exist_ok=True)
        clips = []
        with open(folder / "features.f16", "wb") as out:
            for clip, power in _featured(recordings):
                out.write(power.astype(np.float16).tobytes())
                clips.append(asdict(clip))
        if not clips:
            raise TrainingError("no recording could be read: there is nothing to train on")
        index.write_text(json.dumps(clips))
    return open_store(folder)


def open_store(folder: str | os.PathLike[str]) -> Store:
    """Open the features that `build_store` has left in `folder`."""
    rows = json.loads((Path(folder) / "clips.json").read_text())
    clips = [Clip(**{**row, "words": tuple(tuple(word) for word in row.get("words", ()))}) for row in rows]
    features = np.fromfile(Path(folder) / "features.f16", dtype=np.float16).reshape(-1, N_MELS)
    return make_store(features, clips)


def make_store(features: np.ndarray, clips: list[Clip]) -> Store:
    """Put features and clips together, the clips of each source sorted by their length of speech."""
    sources: dict[str, list[Clip]] = {}
    for clip in sorted(clips, key=lambda c: (c.n_speech, c.offset)):
        sources.setdefault(clip.source, []).append(clip)
    return Store(features, [clip for clip in clips if clip.text], sources)


def _featured(recordings: Iterable[Recording]) -> Iterator[tuple[Clip, np.ndarray]]:
    offset = 0
    for recording in recordings:
        try:
            samples = speak(recording.voice, recording.text) if recording.voice else load_audio(recording.path)
        except (AudioError, TrainingError) as error:
            log.warning("left out: %s", error)
            continue
        if not 0.15 < len(samples) / SAMPLE_RATE < 25:
            continue
        power = log_power(samples)
        start, end = speech_bounds(power)
        yield (
            Clip(recording.source, recording.language, recording.text, recording.speaker,
                 offset, len(power), start, end),
            power,
        )  # fmt: skip
        offset += len(power)


def toy_store(seed: int = 0, n_clips: int = 40) -> Store:
    """Features of tones that stand for words: enough to see a training work, in milliseconds."""
    rng = np.random.default_rng(seed)
    words = {"la": 12, "mi": 30, "so": 48, "do": 66}
    pieces, clips, offset = [], list[Clip](), 0
    for _ in range(n_clips):
        word = str(rng.choice(list(words)))
        length = int(rng.integers(25, 45))
        power = rng.normal(-7.0, 0.2, (length + 40, N_MELS))
        power[20 : 20 + length, words[word] : words[word] + 6] += 6.0
        clips.append(Clip("toy", "en", word, "", offset, length + 40, 20, 20 + length))
        pieces.append(power.astype(np.float16))
        offset += length + 40
    return make_store(np.concatenate(pieces), clips)
