"""Recordings prepared for training: text in one style, log-mel features kept on disk, where speech is and each word.

Every recording is decoded once; what cannot be used is listed with its reason, never lost in silence. Knows no model,
changes no recording, reads no manifest (`manifests.py`) and makes no sound (`voices.py`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import threading
import unicodedata
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

from .aligner import Aligner
from .audio import HOP_LENGTH, N_FFT, SAMPLE_RATE, in_bands, load_audio, mel_filters
from .errors import AudioError, TrainingError
from .manifests import NOBODY, Recording

log = logging.getLogger(__name__)

LETTERS = "abcdefghijklmnopqrstuvwxyz'àâäçèéêëîïôöùûü"
SILENT_POWER = -10.0  # log10 of the least power that the spectrogram knows: digital silence
FRAMES = 100  # a second
LONGEST = 30 * FRAMES  # a window; speech that is longer cannot be learnt in one piece
SLACK = 0.25  # seconds by which a part of a file may end after the file: manifests round


@dataclass(frozen=True)
class Clip:
    """A recording whose features are kept: where they stand in the store and where in them speech is."""

    source: str  # the recording's group
    language: str
    text: str  # empty: nobody speaks
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
    """Features of all clips, ``(n_total_frames, n_mels)`` float16 log10 power, and the clips in them."""

    features: np.ndarray
    clips: list[Clip]  # those with speech, in the order of the recordings
    sources: dict[str, list[Clip]] = field(default_factory=dict)  # by group, sorted by their length of speech
    languages: dict[tuple[str, str], list[Clip]] = field(default_factory=dict)  # by group and language, sorted alike
    n_speech: dict[str, int] = field(default_factory=dict)  # frames of speech of each group
    sounds: list[Clip] = field(default_factory=list)  # in which nobody speaks
    skipped: list[tuple[str, str]] = field(default_factory=list)  # path and reason of what could not be used

    @property
    def n_mels(self) -> int:
        return int(self.features.shape[1])

    @property
    def hours(self) -> float:
        """Length of all speech."""
        return sum(clip.n_speech for clip in self.clips) / FRAMES / 3600

    def power(self, clip: Clip, start: int, end: int) -> np.ndarray:
        """Log10 mel power of the clip's frames `start` to `end`, ``(n_frames, n_mels)`` float32."""
        power: np.ndarray = self.features[clip.offset + start : clip.offset + end].astype(np.float32)
        return power


def make_store(features: np.ndarray, clips: Iterable[Clip], skipped: Sequence[tuple[str, str]] = ()) -> Store:
    """Put features and clips together."""
    spoken, sounds = list[Clip](), list[Clip]()
    for clip in clips:
        (spoken if clip.text else sounds).append(clip)
    sources, languages = dict[str, list[Clip]](), dict[tuple[str, str], list[Clip]]()
    for clip in sorted(spoken, key=lambda c: (c.n_speech, c.offset)):
        sources.setdefault(clip.source, []).append(clip)
        languages.setdefault((clip.source, clip.language), []).append(clip)
    n_speech = {name: sum(clip.n_speech for clip in clips) for name, clips in sources.items()}
    return Store(features, spoken, sources, languages, n_speech, sounds, list(skipped))


# ---------------------------------------------------------------------------------------------------------
# Text
# ---------------------------------------------------------------------------------------------------------


def reduce_text(text: str) -> str:
    """Bring a transcript to the one style that small models learn: lower case, letters and apostrophes.

    Sources disagree (upper case without punctuation, cased with it); what none of them tells cannot be learnt.
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


# ---------------------------------------------------------------------------------------------------------
# Sound
# ---------------------------------------------------------------------------------------------------------


def log_power(samples: np.ndarray, n_mels: int = 80) -> np.ndarray:
    """Log10 mel power before the normalisation of `log_mel_spectrogram`, ``(n_frames, n_mels)`` float32."""
    window = torch.hann_window(N_FFT, dtype=torch.float32, device="cpu")
    spectrum = torch.stft(torch.from_numpy(samples), N_FFT, HOP_LENGTH, window=window, return_complex=True)
    power = spectrum[:, :-1].abs().square()  # (201, n_frames)
    bands = in_bands(mel_filters("cpu", n_mels), power[None])[0]  # (n_mels, n_frames)
    mel: np.ndarray = bands.clamp_(min=10**SILENT_POWER).log10().T.numpy()
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


# ---------------------------------------------------------------------------------------------------------
# The store on disk
# ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Preparation:
    """How recordings are prepared; another preparation is another store."""

    n_mels: int = 80
    plain_text: bool = False  # reduce texts to lower-case letters, see `reduce_text`
    language: str | None = None  # of recordings whose manifest does not say
    word_times: bool = True  # align English texts, where pocketsphinx is installed


def build_store(
    recordings: Sequence[Recording],
    folder: str | os.PathLike[str],
    preparation: Preparation | None = None,
    threads: int = 1,
) -> Store:
    """Compute the features of `recordings` into `folder`, or open what an earlier call has left there.

    Features take 16 kB for a second of sound (80 bands), on disk; they are mapped, not read into memory. They are
    computed again when a row, the length or date of a file, or the preparation is another one. Parts of one file
    that stand after each other are cut from one decoding of it.

    Raises
    ------
    TrainingError
        No recording with speech could be used.
    """
    folder, preparation = Path(folder), preparation or Preparation()
    wanted = _fingerprint(recordings, preparation)
    if not _kept(folder, wanted):
        folder.mkdir(parents=True, exist_ok=True)
        _write_store(recordings, folder, preparation, threads, wanted)
    store = open_store(folder)
    if not store.clips:
        some = "; ".join(f"{path}: {why}" for path, why in store.skipped[:3]) or "the manifest has no row"
        raise TrainingError(f"there is nothing to train on: no recording with speech could be used ({some})")
    return store


def _write_store(
    recordings: Sequence[Recording], folder: Path, preparation: Preparation, threads: int, fingerprint: str
) -> None:
    """Write features, then the index, whole or not at all: an index that is there belongs to its features."""
    clips, skipped, offset = list[Clip](), list[tuple[str, str]](), 0
    with open(folder / "features.part", "wb") as out:
        for path, clip, power in _prepared(recordings, preparation, threads):
            if isinstance(clip, str):
                skipped.append((path, clip))
                continue
            out.write(power.astype(np.float16).tobytes())
            clips.append(replace(clip, offset=offset))
            offset += len(power)
    index = {"fingerprint": fingerprint, "n_mels": preparation.n_mels, "n_frames": offset, "skipped": skipped,
             "clips": [asdict(clip) for clip in clips]}  # fmt: skip
    (folder / "clips.part").write_text(json.dumps(index))
    (folder / "clips.json").unlink(missing_ok=True)  # first: killed after the next line, it would name other features
    os.replace(folder / "features.part", folder / "features.f16")
    os.replace(folder / "clips.part", folder / "clips.json")


def _fingerprint(recordings: Sequence[Recording], preparation: Preparation) -> str:
    aligns = preparation.word_times and find_spec("pocketsphinx") is not None
    digest = hashlib.sha256(repr((preparation, aligns)).encode())
    files = dict[str, tuple[int, int] | None]()
    for recording in recordings:
        if recording.path not in files:
            files[recording.path] = _state_of(recording.path)
        digest.update(repr((recording, files[recording.path])).encode())
    return digest.hexdigest()


def _state_of(path: str) -> tuple[int, int] | None:
    try:
        state = os.stat(path)
    except OSError:
        return None
    return state.st_size, state.st_mtime_ns


def _kept(folder: Path, wanted: str) -> bool:
    try:
        index = json.loads((folder / "clips.json").read_text())
        size = int(index["n_frames"]) * int(index["n_mels"]) * np.dtype(np.float16).itemsize
        return bool(index["fingerprint"] == wanted) and (folder / "features.f16").stat().st_size == size
    except (OSError, ValueError, KeyError, TypeError):
        return False


def open_store(folder: str | os.PathLike[str]) -> Store:
    """Open the features that `build_store` has left in `folder`."""
    index = json.loads((Path(folder) / "clips.json").read_text())
    clips = [Clip(**{**row, "words": tuple(tuple(word) for word in row["words"])}) for row in index["clips"]]
    skipped = [(path, why) for path, why in index["skipped"]]
    path = Path(folder) / "features.f16"
    if not path.stat().st_size:  # cannot be mapped
        return make_store(np.empty((0, index["n_mels"]), np.float16), clips, skipped)
    return make_store(np.memmap(path, dtype=np.float16, mode="r").reshape(-1, index["n_mels"]), clips, skipped)


def join_stores(stores: Sequence[Store]) -> Store:
    """Join stores of the same features into one, in memory."""
    clips, offset = list[Clip](), 0
    for store in stores:
        clips += [replace(clip, offset=clip.offset + offset) for clip in [*store.clips, *store.sounds]]
        offset += len(store.features)
    skipped = [row for store in stores for row in store.skipped]
    return make_store(np.concatenate([store.features for store in stores]), clips, skipped)


_Prepared = tuple[str, "Clip | str", np.ndarray]  # path; the clip or why there is none; its features


def _prepared(recordings: Sequence[Recording], preparation: Preparation, threads: int) -> Iterator[_Prepared]:
    """Prepare all recordings in their order, several files at once."""
    files = [list(rows) for _, rows in groupby(recordings, key=lambda recording: recording.path)]
    kept = threading.local()  # an aligner each: it has a state

    def prepare_file(rows: list[Recording]) -> list[_Prepared]:
        kept.losses = losses = list[str]()
        try:
            samples = load_audio(rows[0].path)
        except AudioError as error:
            return [(row.path, f"cannot be read: {error}", np.empty(0)) for row in rows]
        finally:
            kept.losses = None
        if not hasattr(kept, "aligner"):
            kept.aligner = _aligner(preparation)
        lost = "; ".join(loss.removeprefix(f"{rows[0].path!r}: ") for loss in losses)
        return [_prepare(row, samples, preparation, kept.aligner, lost) for row in rows]

    def note(
        message: Warning | str, category: type[Warning], filename: str, lineno: int,
        file: TextIO | None = None, line: str | None = None,
    ) -> None:  # fmt: skip
        """Keep what the decoder warns of, in the thread that decodes; show everything else."""
        losses = getattr(kept, "losses", None)
        if losses is None or category is not RuntimeWarning:
            shown(message, category, filename, lineno, file, line)
        else:
            losses.append(str(message))

    with warnings.catch_warnings(), ThreadPoolExecutor(threads) as pool:
        warnings.simplefilter("always", RuntimeWarning)  # filters are those of all threads, so they are set here
        shown, warnings.showwarning = warnings.showwarning, note
        for rows in pool.map(prepare_file, files):
            yield from rows


def _aligner(preparation: Preparation) -> Aligner | None:
    if not preparation.word_times:
        return None
    try:
        return Aligner()
    except TrainingError as error:
        log.warning("training goes without word times: %s", error)
        return None


def _prepare(
    recording: Recording, samples: np.ndarray, preparation: Preparation, aligner: Aligner | None, lost: str
) -> _Prepared:
    """Return the clip of one row, or the reason why there is none; `lost` tells what of the file is broken."""
    first = int((recording.start or 0.0) * SAMPLE_RATE)
    last = len(samples) if recording.end is None else int(recording.end * SAMPLE_RATE)
    part = samples[first:last]
    language = recording.language or preparation.language
    text = reduce_text(recording.text) if preparation.plain_text else " ".join(recording.text.split())
    problem = _problem(recording, language, text, len(part) / SAMPLE_RATE, preparation.plain_text)
    if language != NOBODY and not problem:
        over = (recording.end or 0.0) - len(samples) / SAMPLE_RATE
        problem = f"ends {over:.2f} s after its file" if over > SLACK else f"broken: {lost}" if lost else ""
    if problem or language is None:
        return recording.path, problem, np.empty(0)
    power = log_power(part, preparation.n_mels)
    start, end = (0, len(power)) if language == NOBODY else speech_bounds(power)
    clip = Clip(recording.group, language, text, recording.speaker, 0, len(power), start, end)
    return recording.path, _with_words(clip, recording, part, aligner), power


def _problem(recording: Recording, language: str | None, text: str, seconds: float, plain_text: bool) -> str:
    if language is None:
        return "language not given; name one for all such rows"
    if seconds < 0.15:
        return f"too short: {seconds:.2f} s"
    if language == NOBODY:
        return ""
    if plain_text and any(c.isdigit() for c in recording.text):
        return f"digits, which plain text does not spell, in {recording.text[:40]!r}"
    if not text:
        return "empty text" if not recording.text else f"no letters that can be learnt in {recording.text[:40]!r}"
    return f"too long: {seconds:.1f} s, a window has 30" if seconds > LONGEST / FRAMES else ""


def _with_words(clip: Clip, recording: Recording, samples: np.ndarray, aligner: Aligner | None) -> Clip:
    """The clip with the times of its words, from the manifest or by alignment, where they are to be had."""
    n_words, words = len(clip.text.split()), list[tuple[int, int]]()
    if recording.words is not None and len(recording.words) == n_words:
        begin = recording.start or 0.0
        words = [(round((a - begin) * FRAMES), round((b - begin) * FRAMES)) for _, a, b in recording.words]
    elif n_words == 1:
        words = [(clip.start, clip.end)]
    elif aligner is not None and clip.language == "en" and n_words:
        words = aligner.align(samples, reduce_text(clip.text)) or []
        if words and words[0][0] < clip.start < words[0][1] - 5:  # the aligner hands silence to the nearest word
            words[0] = (clip.start, words[0][1])
        if words and words[-1][0] + 5 < clip.end < words[-1][1]:
            words[-1] = (words[-1][0], clip.end)
    if len(words) != n_words or not words or any(not 0 <= a < b <= clip.n_frames for a, b in words):
        return clip
    return replace(clip, words=tuple(words), start=words[0][0], end=words[-1][1])


def toy_store(seed: int = 0, n_clips: int = 40, n_mels: int = 80) -> Store:
    """Features of tones that stand for words: enough to see a training work, in milliseconds."""
    rng = np.random.default_rng(seed)
    words = {"la": 12, "mi": 30, "so": 48, "do": 66}
    pieces, clips, offset = [], list[Clip](), 0
    for _ in range(n_clips):
        word = str(rng.choice(list(words)))
        length = int(rng.integers(25, 45))
        power = rng.normal(-7.0, 0.2, (length + 40, n_mels))
        power[20 : 20 + length, words[word] : words[word] + 6] += 6.0
        times = ((20, 20 + length),)
        clips.append(Clip("toy", "en", word, "", offset, length + 40, 20, 20 + length, times))
        pieces.append(power.astype(np.float16))
        offset += length + 40
    return make_store(np.concatenate(pieces), clips)
