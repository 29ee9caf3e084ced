"""Small stores of features whose words can be read back out of the sound: each word is a tone of its own.

So a test can ask of any window whether its sound, its text and its times tell the same story.
"""

from __future__ import annotations

import numpy as np

from whisper.datasets import NON_SPEECH, FeatureStore, StoredClip, make_store

WORDS = ("la", "mi", "so", "do", "re", "fa", "ti", "ut", "sol", "dur")
QUIET, LOUD = -7.0, -1.0  # log10 of power
HEARD = 0.3  # of a normalised window: what is louder is a word


def band_of(word: str) -> int:
    """The lowest of the five bands in which a word of `WORDS` sounds."""
    return 3 + 7 * WORDS.index(word)


def tonal_clips(
    n_clips: int = 30, n_mels: int = 80, source: str = "tones", language: str = "en", seed: int = 0, most_words: int = 6
) -> tuple[np.ndarray, list[StoredClip]]:
    """Features and clips of one to `most_words` words with silence around each."""
    rng = np.random.default_rng(seed)
    pieces, clips, offset = [], list[StoredClip](), 0
    for number in range(n_clips):
        said = [str(word) for word in rng.choice(WORDS, size=int(rng.integers(1, most_words + 1)))]
        times, at = list[tuple[int, int]](), int(rng.integers(4, 40))
        for _ in said:
            times.append((at, at + int(rng.integers(10, 35))))
            at = times[-1][1] + int(rng.integers(6, 30))
        power = np.full((at, n_mels), QUIET)
        for word, (start, end) in zip(said, times, strict=True):
            power[start:end, band_of(word) : band_of(word) + 5] = LOUD
        clips.append(StoredClip(source, language, " ".join(said), f"speaker-{number % 3}", offset, at, times[0][0],
                          times[-1][1], tuple(times)))  # fmt: skip
        pieces.append(power.astype(np.float16))
        offset += at
    return np.concatenate(pieces), clips


def tonal_store(**options: object) -> FeatureStore:
    """A store of `tonal_clips`."""
    return make_store(*tonal_clips(**options))  # type: ignore[arg-type]


def sound_clip(n_frames: int, offset: int = 0) -> StoredClip:
    """A recording in which nobody speaks."""
    return StoredClip("sounds", NON_SPEECH, "", "", offset, n_frames, 0, n_frames)


def heard_in(mel: np.ndarray) -> list[tuple[int, int, str]]:
    """Start, end and word of every tone in a normalised window, ``(n_frames, n_mels)``, with nothing else in it."""
    bands = {word: mel[:, band_of(word) : band_of(word) + 5].mean(axis=1) > HEARD for word in WORDS}
    found = []
    for word, loud in bands.items():
        edges = np.flatnonzero(np.diff(np.concatenate([[0], loud.astype(int), [0]])))
        found += [(int(start), int(end), word) for start, end in edges.reshape(-1, 2)]
    return sorted(found)
