"""The feature store: log-mel features on disk, normalized texts, speech bounds, word times.

Every recording is decoded once. A recording that cannot be used is listed with its reason, never
dropped silently. Knows no model, changes no recording, reads no manifest (`manifests.py`) and
synthesizes nothing (`voices.py`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import TextIO

import numpy as np
import torch

from ..audio import N_FFT, in_bands, load_audio, mel_filters
from ..errors import AudioError, MissingDependencyError, TrainingError
from ..files import atomic_write
from ..manifests.read import NON_SPEECH, ManifestEntry
from ..spans import FRAMES_PER_SECOND, HOP_LENGTH, SAMPLE_RATE
from .augmentation import LOG_POWER_FLOOR
from .targets import reduce_text
from .word_aligner import WordAligner

log = logging.getLogger(__name__)

MAX_FRAMES = 30 * FRAMES_PER_SECOND  # of a window; longer speech cannot be a training sample
MAX_OVERRUN = 0.25  # seconds by which a part may end after its file, because manifests round times


@dataclass(frozen=True)
class StoredClip:
    """A recording in the store: where its features are, its labels, and where the speech is.

    Frames are 10 ms; all but `offset` count from the start of the clip.
    """

    source: str  # the recording's group in the manifest
    language: str
    text: str  # empty: no speech
    speaker: str
    offset: int  # first frame in the store
    n_frames: int
    start: int  # first frame with speech
    end: int  # one past the last
    words: tuple[tuple[int, int], ...] = ()  # first and one past the last frame of each word; empty: unknown

    @property
    def n_speech(self) -> int:
        return self.end - self.start


@dataclass(frozen=True)
class FeatureStore:
    """Features, ``(n_total_frames, n_mels)`` float16 log10 power, and the clips in them."""

    features: np.ndarray
    clips: list[StoredClip]  # those with speech, in the order of the recordings
    sources: dict[str, list[StoredClip]] = field(default_factory=dict)  # by group, sorted by speech length
    # by group and language, sorted by speech length
    languages: dict[tuple[str, str], list[StoredClip]] = field(default_factory=dict)
    n_speech: dict[str, int] = field(default_factory=dict)  # frames of speech of each group
    non_speech: list[StoredClip] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)  # path, and why it cannot be used

    @property
    def n_mels(self) -> int:
        return int(self.features.shape[1])

    @property
    def hours(self) -> float:
        """Hours of speech."""
        return sum(clip.n_speech for clip in self.clips) / FRAMES_PER_SECOND / 3600

    def power(self, clip: StoredClip, start: int, end: int) -> np.ndarray:
        """Log10 mel power of the clip's frames `start` to `end`, ``(n_frames, n_mels)`` float32."""
        power: np.ndarray = self.features[clip.offset + start : clip.offset + end].astype(np.float32)
        return power


def make_store(
    features: np.ndarray, clips: Iterable[StoredClip], skipped: Sequence[tuple[str, str]] = ()
) -> FeatureStore:
    """Index `clips` by source and language, and separate speech from non-speech."""
    speech, non_speech = list[StoredClip](), list[StoredClip]()
    for clip in clips:
        (speech if clip.text else non_speech).append(clip)
    sources, languages = dict[str, list[StoredClip]](), dict[tuple[str, str], list[StoredClip]]()
    for clip in sorted(speech, key=lambda c: (c.n_speech, c.offset)):
        sources.setdefault(clip.source, []).append(clip)
        languages.setdefault((clip.source, clip.language), []).append(clip)
    n_speech = {name: sum(clip.n_speech for clip in clips) for name, clips in sources.items()}
    return FeatureStore(features, speech, sources, languages, n_speech, non_speech, list(skipped))


# --------------------------------------------------------------------------------------------------
# Features
# --------------------------------------------------------------------------------------------------


def log_power(samples: np.ndarray, n_mels: int = 80) -> np.ndarray:
    """Log10 mel power before normalization, ``(n_frames, n_mels)`` float32."""
    window = torch.hann_window(N_FFT, dtype=torch.float32, device="cpu")
    spectrum = torch.stft(torch.from_numpy(samples), N_FFT, HOP_LENGTH, window=window, return_complex=True)
    power = spectrum[:, :-1].abs().square()  # (201, n_frames)
    bands = in_bands(mel_filters("cpu", n_mels), power[None])[0]  # (n_mels, n_frames)
    mel: np.ndarray = bands.clamp_(min=10**LOG_POWER_FLOOR).log10().T.numpy()
    return mel


def speech_bounds(power: np.ndarray) -> tuple[int, int]:
    """First and one past the last frame whose level is above a threshold.

    The level is the mean of the log power over the bands, not of the power, so that fricatives
    count as much as vowels.
    """
    level = power.mean(axis=1)
    level = np.convolve(level, np.ones(5) / 5, mode="same")
    quiet, loud = np.percentile(level[level > LOG_POWER_FLOOR + 0.5], [8, 95]) if (level > -9.5).any() else (0, 0)
    active = level > quiet + 0.33 * (loud - quiet)
    sustained = np.convolve(active, np.ones(6), mode="same") >= 5  # clicks are shorter than 50 ms
    frames = np.flatnonzero(sustained)
    if len(frames) == 0 or loud - quiet < 0.3:
        return 0, len(power)
    return max(int(frames[0]) - 4, 0), min(int(frames[-1]) + 5, len(power))


# --------------------------------------------------------------------------------------------------
# The store on disk
# --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Preparation:
    """How recordings are prepared; each preparation needs a store of its own."""

    n_mels: int = 80
    plain_text: bool = False  # normalize texts to lower-case letters, see `targets.reduce_text`
    language: str | None = None  # of recordings whose manifest entry has none
    word_times: bool = True  # align English texts, where pocketsphinx is installed


def build_store(
    recordings: Sequence[ManifestEntry],
    folder: str | os.PathLike[str],
    preparation: Preparation | None = None,
    threads: int = 1,
) -> FeatureStore:
    """Compute the features of `recordings` into `folder`, or open those of an earlier call.

    Features take 16 kB a second of audio (80 bands) on disk; they are memory-mapped. They are
    computed again when an entry, the size or date of a file, or the preparation changes.
    Consecutive parts of one file are cut from one decoding of it.

    Raises
    ------
    TrainingError
        There is no usable recording with speech.
    """
    folder, preparation = Path(folder), preparation or Preparation()
    fingerprint = _fingerprint(recordings, preparation)
    if not _is_current(folder, fingerprint):
        folder.mkdir(parents=True, exist_ok=True)
        _write_store(recordings, folder, preparation, threads, fingerprint)
    store = open_store(folder)
    if not store.clips:
        reasons = "; ".join(f"{path}: {why}" for path, why in store.skipped[:3]) or "the manifest has no entry"
        raise TrainingError(f"there is nothing to train on: no usable recording with speech ({reasons})")
    return store


def _write_store(
    recordings: Sequence[ManifestEntry], folder: Path, preparation: Preparation, threads: int, fingerprint: str
) -> None:
    """Write features, then the index; an index never stands beside features of another run."""
    clips, skipped, offset = list[StoredClip](), list[tuple[str, str]](), 0
    index_file, features_file = folder / "clips.json", folder / "features.f16"
    # a fixed name: what a killed process leaves is overwritten, and it may be gigabytes
    with atomic_write(features_file, fsync=False, temporary=folder / "features.part") as out:
        for path, clip, power in _prepared(recordings, preparation, threads):
            if isinstance(clip, str):
                skipped.append((path, clip))
                continue
            out.write(power.astype(np.float16).tobytes())
            clips.append(replace(clip, offset=offset))
            offset += len(power)
        index_file.unlink(missing_ok=True)  # before the features are others: it would be stale
    index = {
        "fingerprint": fingerprint,
        "n_mels": preparation.n_mels,
        "n_frames": offset,
        "skipped": skipped,
        "clips": [asdict(clip) for clip in clips],
    }
    with atomic_write(index_file, fsync=False, encoding="utf-8") as file:
        json.dump(index, file)


def _fingerprint(recordings: Sequence[ManifestEntry], preparation: Preparation) -> str:
    aligns = preparation.word_times and find_spec("pocketsphinx") is not None
    digest = hashlib.sha256(repr((preparation, aligns)).encode())
    files = dict[str, tuple[int, int] | None]()
    for recording in recordings:
        path = recording.path
        if path not in files:
            try:
                status = os.stat(path)
                files[path] = status.st_size, status.st_mtime_ns
            except OSError:
                files[path] = None
        digest.update(repr((recording, files[path])).encode())
    return digest.hexdigest()


def _is_current(folder: Path, fingerprint: str) -> bool:
    """Whether `folder` holds a complete store with this fingerprint."""
    try:
        index = json.loads((folder / "clips.json").read_text())
        size = int(index["n_frames"]) * int(index["n_mels"]) * np.dtype(np.float16).itemsize
        return bool(index["fingerprint"] == fingerprint) and (folder / "features.f16").stat().st_size == size
    except (OSError, ValueError, KeyError, TypeError):
        return False


def open_store(folder: str | os.PathLike[str]) -> FeatureStore:
    """Open the store that `build_store` has written to `folder`."""
    index = json.loads((Path(folder) / "clips.json").read_text())
    clips = [StoredClip(**{**clip, "words": tuple(tuple(word) for word in clip["words"])}) for clip in index["clips"]]
    skipped = [(path, why) for path, why in index["skipped"]]
    path = Path(folder) / "features.f16"
    if not path.stat().st_size:  # an empty file cannot be memory-mapped
        return make_store(np.empty((0, index["n_mels"]), np.float16), clips, skipped)
    return make_store(np.memmap(path, dtype=np.float16, mode="r").reshape(-1, index["n_mels"]), clips, skipped)


def join_stores(stores: Sequence[FeatureStore]) -> FeatureStore:
    """Join stores of the same features into one, in memory."""
    clips, offset = list[StoredClip](), 0
    for store in stores:
        clips += [replace(clip, offset=clip.offset + offset) for clip in [*store.clips, *store.non_speech]]
        offset += len(store.features)
    skipped = [pair for store in stores for pair in store.skipped]
    return make_store(np.concatenate([store.features for store in stores]), clips, skipped)


_Prepared = tuple[str, "StoredClip | str", np.ndarray]  # path; the clip, or why it is skipped; features


def _prepared(recordings: Sequence[ManifestEntry], preparation: Preparation, threads: int) -> Iterator[_Prepared]:
    """Prepare all recordings in their order, several files at once."""
    files = [list(entries) for _, entries in groupby(recordings, key=lambda recording: recording.path)]
    local = threading.local()  # each thread has its own aligner, which is stateful, and its own warnings

    def prepare_file(entries: list[ManifestEntry]) -> list[_Prepared]:
        local.warnings = messages = list[str]()
        try:
            samples = load_audio(entries[0].path)
        except AudioError as error:
            return [(entry.path, f"cannot be read: {error}", np.empty(0)) for entry in entries]
        finally:
            local.warnings = None
        if not hasattr(local, "aligner"):
            local.aligner = _make_aligner(preparation)
        damage = "; ".join(message.removeprefix(f"{entries[0].path!r}: ") for message in messages)
        return [_prepare(entry, samples, preparation, local.aligner, damage) for entry in entries]

    def collect(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        """Collect the decoder's warnings in the thread that decodes; show all others."""
        collected = getattr(local, "warnings", None)
        if collected is None or category is not RuntimeWarning:
            show(message, category, filename, lineno, file, line)
        else:
            collected.append(str(message))

    with warnings.catch_warnings(), ThreadPoolExecutor(threads) as pool:
        warnings.simplefilter("always", RuntimeWarning)  # here, because filters are common to all threads
        show, warnings.showwarning = warnings.showwarning, collect
        for prepared in pool.map(prepare_file, files):
            yield from prepared


def _make_aligner(preparation: Preparation) -> WordAligner | None:
    if not preparation.word_times:
        return None
    try:
        return WordAligner()
    except MissingDependencyError as error:
        log.warning("training without word times: %s", error)
        return None


def _prepare(
    recording: ManifestEntry,
    samples: np.ndarray,
    preparation: Preparation,
    aligner: WordAligner | None,
    damage: str,
) -> _Prepared:
    """Return the clip of an entry, or why it is skipped; `damage` is empty for an intact file."""
    first = int((recording.start or 0.0) * SAMPLE_RATE)
    last = len(samples) if recording.end is None else int(recording.end * SAMPLE_RATE)
    part = samples[first:last]
    language = recording.language or preparation.language
    text = reduce_text(recording.text) if preparation.plain_text else " ".join(recording.text.split())
    problem = _problem(recording, language, text, len(part) / SAMPLE_RATE, preparation.plain_text)
    if language != NON_SPEECH and not problem:
        overrun = (recording.end or 0.0) - len(samples) / SAMPLE_RATE
        if overrun > MAX_OVERRUN:
            problem = f"ends {overrun:.2f} s after its file"
        elif damage:
            problem = f"damaged: {damage}"
    if problem or language is None:
        return recording.path, problem, np.empty(0)
    power = log_power(part, preparation.n_mels)
    start, end = (0, len(power)) if language == NON_SPEECH else speech_bounds(power)
    clip = StoredClip(recording.group, language, text, recording.speaker, 0, len(power), start, end)
    return recording.path, _with_words(clip, recording, part, aligner), power


def _problem(recording: ManifestEntry, language: str | None, text: str, seconds: float, plain_text: bool) -> str:
    if language is None:
        return "language not given; set one for all such entries"
    if seconds < 0.15:
        return f"too short: {seconds:.2f} s"
    if language == NON_SPEECH:
        return ""
    if plain_text and any(c.isdigit() for c in recording.text):
        return f"digits, which plain text cannot have, in {recording.text[:40]!r}"
    if not text:
        return "empty text" if not recording.text else f"no usable letters in {recording.text[:40]!r}"
    return f"too long: {seconds:.1f} s, a window has 30" if seconds > MAX_FRAMES / FRAMES_PER_SECOND else ""


def _with_words(
    clip: StoredClip, recording: ManifestEntry, samples: np.ndarray, aligner: WordAligner | None
) -> StoredClip:
    """The clip with word times, from the manifest or by forced alignment, if possible."""
    n_words, words = len(clip.text.split()), list[tuple[int, int]]()
    if recording.words is not None and len(recording.words) == n_words:
        begin = recording.start or 0.0
        for _, a, b in recording.words:
            words.append((round((a - begin) * FRAMES_PER_SECOND), round((b - begin) * FRAMES_PER_SECOND)))
    elif n_words == 1:
        words = [(clip.start, clip.end)]
    elif aligner is not None and clip.language == "en" and n_words:
        words = aligner.align(samples, reduce_text(clip.text)) or []
        if words and words[0][0] < clip.start < words[0][1] - 5:  # the aligner assigns silence to the nearest word
            words[0] = (clip.start, words[0][1])
        if words and words[-1][0] + 5 < clip.end < words[-1][1]:
            words[-1] = (words[-1][0], clip.end)
    if len(words) != n_words or not words or any(not 0 <= a < b <= clip.n_frames for a, b in words):
        return clip
    return replace(clip, words=tuple(words), start=words[0][0], end=words[-1][1])


def toy_store(seed: int = 0, n_clips: int = 40, n_mels: int = 80) -> FeatureStore:
    """Synthetic features with a tone for each word, for tests of a whole training."""
    rng = np.random.default_rng(seed)
    words = {"la": 12, "mi": 30, "so": 48, "do": 66}
    features, clips, offset = [], list[StoredClip](), 0
    for _ in range(n_clips):
        word = str(rng.choice(list(words)))
        length = int(rng.integers(25, 45))
        power = rng.normal(-7.0, 0.2, (length + 40, n_mels))
        power[20 : 20 + length, words[word] : words[word] + 6] += 6.0
        times = ((20, 20 + length),)
        clips.append(StoredClip("toy", "en", word, "", offset, length + 40, 20, 20 + length, times))
        features.append(power.astype(np.float16))
        offset += length + 40
    return make_store(np.concatenate(features), clips)
