"""Small feature stores whose words can be detected in the features: each word is a tone of its own.

So a test can check whether features, text and times of a window agree.
"""

from __future__ import annotations

import numpy as np

from whisper.training.feature_store import NON_SPEECH, FeatureStore, StoredClip, make_store

WORDS = ("la", "mi", "so", "do", "re", "fa", "ti", "ut", "sol", "dur")
QUIET, LOUD = -7.0, -1.0  # log10 of power
THRESHOLD = 0.3  # of a normalized window: what is louder is a word


def band_of(word: str) -> int:
    """The lowest of the five bands of a word of `WORDS`."""
    return 3 + 7 * WORDS.index(word)


def tonal_clips(
    n_clips: int = 30, n_mels: int = 80, source: str = "tones", language: str = "en", seed: int = 0, most_words: int = 6
) -> tuple[np.ndarray, list[StoredClip]]:
    """Features and clips of one to `most_words` words with silence around each."""
    rng = np.random.default_rng(seed)
    features, clips, offset = [], list[StoredClip](), 0
    for number in range(n_clips):
        words = [str(word) for word in rng.choice(WORDS, size=int(rng.integers(1, most_words + 1)))]
        times, at = list[tuple[int, int]](), int(rng.integers(4, 40))
        for _ in words:
            times.append((at, at + int(rng.integers(10, 35))))
            at = times[-1][1] + int(rng.integers(6, 30))
        power = np.full((at, n_mels), QUIET)
        for word, (start, end) in zip(words, times, strict=True):
            power[start:end, band_of(word) : band_of(word) + 5] = LOUD
        clips.append(StoredClip(source, language, " ".join(words), f"speaker-{number % 3}", offset, at, times[0][0],
                          times[-1][1], tuple(times)))  # fmt: skip
        features.append(power.astype(np.float16))
        offset += at
    return np.concatenate(features), clips


def tonal_store(**options: object) -> FeatureStore:
    """A store of `tonal_clips`."""
    return make_store(*tonal_clips(**options))  # type: ignore[arg-type]


def sound_clip(n_frames: int, offset: int = 0) -> StoredClip:
    """A non-speech recording."""
    return StoredClip("sounds", NON_SPEECH, "", "", offset, n_frames, 0, n_frames)


def tones_in(mel: np.ndarray) -> list[tuple[int, int, str]]:
    """Start, end and word of every tone in a normalised window, ``(n_frames, n_mels)``, with nothing else in it."""
    bands = {word: mel[:, band_of(word) : band_of(word) + 5].mean(axis=1) > THRESHOLD for word in WORDS}
    found = []
    for word, loud in bands.items():
        edges = np.flatnonzero(np.diff(np.concatenate([[0], loud.astype(int), [0]])))
        found += [(int(start), int(end), word) for start, end in edges.reshape(-1, 2)]
    return sorted(found)
