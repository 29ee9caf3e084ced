"""Mix training windows from clips: whole clips or excerpts, with pauses, changed voices and noise.

Everything is drawn from one generator per window, so a training step is a function of its number.
Knows the feature store; knows no tokens (`targets.py`) and no model.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from ..errors import TrainingError
from ..spans import N_FRAMES
from . import augmentation
from .augmentation import LOG_POWER_FLOOR

if TYPE_CHECKING:
    from .augmentation import Rng
    from .feature_store import FeatureStore, StoredClip


@dataclass(frozen=True)
class Recipe:
    """How the windows of one training stage are mixed; ``p_...`` are probabilities."""

    lengths: tuple[float, ...] = (30.0,)  # window lengths in seconds, one drawn per step
    pad_to_seconds: float = 0.0  # pad windows to this length; 0: no padding
    weights: Mapping[str, float] = field(default_factory=dict)  # of each source; empty: by hours of speech
    p_silent: float = 0.06  # non-speech windows
    p_short_silent: float = 0.0  # of those: short recordings with padding
    p_excerpt: float = 0.0  # clips cut to some consecutive words, where word times are known
    p_recorded_noise: float = 0.5  # recorded backgrounds and non-speech, if the store has any
    p_short: float = 0.0  # windows with a single clip
    p_truncated: float = 0.0  # windows whose last clip is truncated by the end
    p_prompt: float = 0.1  # windows with previous text as a prompt
    p_plain: float = 0.2  # windows without timestamps
    p_noise: float = 0.5  # windows with background noise
    noise_below: tuple[float, float] = (0.0, 3.0)  # speech over noise, log10 of power, drawn uniformly
    max_mask_frames: int = 22  # longest time mask (SpecAugment)
    augment_strength: float = 1.0  # of changes of tempo, vocal tract, microphone and room; 0: none
    few_speaker_sources: tuple[str, ...] = ()  # sources with few speakers, changed more
    single_word_sources: tuple[str, ...] = ()  # several of their clips may stand where `p_short` asks for one
    excluded_speakers: tuple[str, ...] = ()  # held out for evaluation


@dataclass(frozen=True)
class TrainingSegment:
    """Text without a long pause, with times in frames of 10 ms from the start of the window."""

    start: int
    end: int
    text: str
    words: tuple[tuple[int, int], ...] = ()  # first and one past the last frame of each word; empty: unknown

    def shifted(self, frames: int) -> TrainingSegment:
        return TrainingSegment(
            self.start + frames,
            self.end + frames,
            self.text,
            tuple((start + frames, end + frames) for start, end in self.words),
        )


@dataclass(frozen=True)
class TrainingWindow:
    """Normalized features, ``(n_frames, n_mels)``, and their labels."""

    mel: np.ndarray
    segments: list[TrainingSegment]
    language: str
    truncated_at: int | None = None  # first frame of a segment that does not end in the window


# --------------------------------------------------------------------------------------------------
# Mixing
# --------------------------------------------------------------------------------------------------


def mix_window(rng: Rng, store: FeatureStore, recipe: Recipe, seconds: float) -> TrainingWindow:
    """Mix a window of `seconds`."""
    n_frames = int(seconds * 100)
    if rng.random() < recipe.p_silent:
        length = n_frames
        if recipe.p_short_silent and rng.random() < recipe.p_short_silent:
            length = int(rng.integers(60, n_frames))
        mel = _normalize_and_pad(rng, _non_speech(rng, store, recipe, length), recipe, n_frames)
        return TrainingWindow(mel, [], _draw_language(rng, store, recipe))
    power = np.full((n_frames, store.n_mels), LOG_POWER_FLOOR, dtype=np.float32)
    segments, language, truncated_at = _place_clips(rng, store, recipe, power)
    if rng.random() < recipe.p_noise:
        level = np.percentile(power[:: max(len(power) // 100, 1)].max(axis=1), 90)
        noise = _background(rng, store, recipe, len(power)) - 1.0
        power = augmentation.add_powers(power, noise + level - rng.uniform(*recipe.noise_below))
    if not segments:
        language = _draw_language(rng, store, recipe)
    last = segments[-1].end if segments else n_frames
    if truncated_at is None and rng.random() < 0.5:  # the recording ends soon after its last word
        power = power[: min(last + int(rng.integers(3, 80)), n_frames)]
    mel = _normalize_and_pad(rng, power, recipe, n_frames)
    return TrainingWindow(mel, segments, language, truncated_at)


def _draw_language(rng: Rng, store: FeatureStore, recipe: Recipe) -> str:
    """The language label of a non-speech window: each language as often as its clips are drawn."""
    names, shares = _source_shares(store, recipe)
    clips = store.sources[str(rng.choice(names, p=shares))]
    return clips[int(rng.integers(len(clips)))].language


def _place_clips(
    rng: Rng, store: FeatureStore, recipe: Recipe, power: np.ndarray
) -> tuple[list[TrainingSegment], str, int | None]:
    """Fill `power` with clips; returns segments, language, and start of a truncated segment."""
    n_frames, placed, language = len(power), list[TrainingSegment](), ""
    single = rng.random() < recipe.p_short
    time = int(
        rng.choice(
            [rng.integers(0, 40), rng.integers(0, 100), rng.integers(0, max(n_frames // 4, 1))], p=[0.6, 0.3, 0.1]
        )
    )
    while True:
        room = n_frames - time
        longest = n_frames if n_frames >= N_FRAMES and not placed else room * 0.9
        clip = _draw_clip(rng, store, recipe, longest, language)
        if clip is None:
            break
        language = language or clip.language
        clip = _excerpt(rng, clip, recipe, room)
        sound, segment = _augmented(rng, store, clip, recipe)
        if not placed and time + segment.end > n_frames >= clip.n_speech:
            time, (sound, segment) = 0, _unchanged(store, clip, n_frames)
        if time + segment.end > n_frames:
            if placed and rng.random() < recipe.p_truncated and time + segment.start < n_frames - 30:
                _add(power, sound, time)
                return _join(placed), language, time + segment.start
            break
        _add(power, sound, time)
        placed.append(segment.shifted(time))
        single_word = clip.source in recipe.single_word_sources
        if single and not (single_word and rng.random() < 0.5):
            break
        if n_frames - time - segment.end < 60 or (single_word and not single and rng.random() < 0.15):
            break
        pause = rng.choice([rng.integers(0, 35), rng.integers(20, 120), rng.integers(50, 400)], p=[0.5, 0.35, 0.15])
        time += segment.end + int(pause)
    return _join(placed), language or "en", None


def _draw_clip(rng: Rng, store: FeatureStore, recipe: Recipe, longest: float, language: str) -> StoredClip | None:
    """Draw a clip with at most `longest` frames of speech, or one that can be cut to that length.

    `language` is that of the clips already in the window, and empty for the first one.
    """
    names, shares = _source_shares(store, recipe)
    for _ in range(8):
        name = str(rng.choice(names, p=shares))
        clips = store.languages.get((name, language), []) if language else store.sources[name]
        cut = bool(recipe.p_truncated and language)
        anywhere = cut or rng.random() < recipe.p_excerpt
        fitting = len(clips) if anywhere else bisect_right(clips, longest, key=lambda c: c.n_speech)
        if fitting == 0:
            continue
        clip = clips[int(rng.integers(fitting))]
        if clip.speaker in recipe.excluded_speakers or (clip.n_speech > longest and not (clip.words or cut)):
            continue
        return clip
    return None


def _source_shares(store: FeatureStore, recipe: Recipe) -> tuple[list[str], np.ndarray]:
    """The sources of the store and the probability of each."""
    weights = recipe.weights or store.n_speech
    names = [name for name in weights if name in store.sources and weights[name] > 0]
    if not names:
        raise TrainingError(
            f"no source to draw from: the recipe weights {sorted(weights)}, the store holds {sorted(store.sources)}"
        )
    shares = np.array([weights[name] for name in names], dtype=np.float64)
    return names, shares / shares.sum()


def _excerpt(rng: Rng, clip: StoredClip, recipe: Recipe, room: int) -> StoredClip:
    """Consecutive words of `clip` that fit into `room` frames; all if times are unknown."""
    if len(clip.words) < 2 or not recipe.p_excerpt or (clip.n_speech < room * 0.9 and rng.random() > recipe.p_excerpt):
        return clip
    first = int(rng.integers(len(clip.words)))
    last = first
    longest = min(room * 0.9, rng.uniform(40, 600))
    while last + 1 < len(clip.words) and clip.words[last + 1][1] - clip.words[first][0] < longest:
        last += 1
    text = " ".join(clip.text.split()[first : last + 1])
    words = clip.words[first : last + 1]
    # the context around the excerpt extends only to the middle of the gap to the next word
    low = (clip.words[first - 1][1] + words[0][0]) // 2 if first else 0
    high = (words[-1][1] + clip.words[last + 1][0]) // 2 if last + 1 < len(clip.words) else clip.n_frames
    return replace(
        clip,
        text=text,
        offset=clip.offset + low,
        n_frames=high - low,
        start=words[0][0] - low,
        end=words[-1][1] - low,
        words=tuple((a - low, b - low) for a, b in words),
    )


def _augmented(rng: Rng, store: FeatureStore, clip: StoredClip, recipe: Recipe) -> tuple[np.ndarray, TrainingSegment]:
    """The clip in a changed voice, with a little context around its speech, and its segment."""
    before, after = (int(rng.integers(2, 25)) for _ in range(2))
    first, last = max(clip.start - before, 0), min(clip.end + after, clip.n_frames)
    power = store.power(clip, first, last)
    changed = augmentation.change_voice(rng, power, clip.source in recipe.few_speaker_sources, recipe.augment_strength)
    scale = len(changed) / len(power)

    def moved(start: int, end: int) -> tuple[int, int]:
        at = int((start - first) * scale)
        return at, max(int((end - first) * scale), at + 1)

    words = tuple(moved(start, end) for start, end in clip.words)
    start, end = moved(clip.start, clip.end)
    return changed, TrainingSegment(start, max(end, words[-1][1]) if words else end, clip.text, words)


def _unchanged(store: FeatureStore, clip: StoredClip, n_frames: int) -> tuple[np.ndarray, TrainingSegment]:
    """The clip as recorded, for a window that it fits into only at its own tempo and from 0."""
    first = max(clip.start - min(n_frames - clip.n_speech, 25), 0)
    segment = TrainingSegment(clip.start, clip.end, clip.text, clip.words).shifted(-first)
    return store.power(clip, first, clip.end), segment


def _add(power: np.ndarray, sound: np.ndarray, time: int) -> None:
    room = min(len(sound), len(power) - time)
    power[time : time + room] = augmentation.add_powers(power[time : time + room], sound[:room])


def _join(segments: list[TrainingSegment]) -> list[TrainingSegment]:
    """Join segments less than half a second apart, up to 15 seconds."""
    joined: list[TrainingSegment] = []
    for segment in segments:
        if joined and segment.start - joined[-1].end < 50 and segment.end - joined[-1].start < 1500:
            last = joined.pop()
            words = last.words + segment.words if last.words and segment.words else ()
            segment = TrainingSegment(last.start, segment.end, f"{last.text} {segment.text}", words)
        joined.append(segment)
    return joined


def _background(rng: Rng, store: FeatureStore, recipe: Recipe, n_frames: int) -> np.ndarray:
    """A background around level 0: recorded non-speech, or synthetic noise."""
    recorded = store.non_speech
    if not recorded or rng.random() > recipe.p_recorded_noise:
        return augmentation.background(rng, n_frames, store.n_mels)
    power = np.full((n_frames, store.n_mels), LOG_POWER_FLOOR, dtype=np.float32)
    time = 0
    while time < n_frames:
        clip = recorded[int(rng.integers(len(recorded)))]
        longest = min(clip.n_frames, n_frames - time, int(rng.integers(100, 3000)))
        start = int(rng.integers(clip.n_frames - longest + 1))
        sound = augmentation.change_voice(rng, store.power(clip, start, start + longest), strong=True)
        loudness = sound.max(axis=1)
        if loudness.max() > LOG_POWER_FLOOR + 1.0:
            # level by the 90th percentile, but a click in silence must not be amplified above the
            # speech
            _add(power, sound - np.float32(max(np.percentile(loudness, 90), loudness.max() - 2.0)), time)
        time += longest + int(rng.choice([0, int(rng.integers(1, 300))]))
    return power


def _non_speech(rng: Rng, store: FeatureStore, recipe: Recipe, n_frames: int) -> np.ndarray:
    """Digital silence, a background, or the silence before the speech of a recording."""
    kind = rng.random()
    if kind < 0.12:
        return np.full((n_frames, store.n_mels), LOG_POWER_FLOOR, dtype=np.float32)
    if kind < 0.85:
        sound: np.ndarray = _background(rng, store, recipe, n_frames) + np.float32(rng.uniform(-5.0, 2.0))
        return sound
    for _ in range(8):
        clip = store.clips[int(rng.integers(len(store.clips)))]
        if clip.start > 15:
            quiet = store.power(clip, 0, clip.start - 8)
            repeated: np.ndarray = np.resize(quiet, (n_frames, store.n_mels)) + np.float32(rng.uniform(-1, 0.5))
            return repeated
    noise: np.ndarray = augmentation.steady_noise(rng, n_frames, store.n_mels) + rng.uniform(-6.0, 0.0)
    return noise


def _normalize_and_pad(rng: Rng, power: np.ndarray, recipe: Recipe, n_frames: int = 0) -> np.ndarray:
    """Normalize like `log_mel_spectrogram`, mask (SpecAugment), and pad to the window.

    Two kinds of padding, as in use: `transcribe` pads with 0.0 after normalizing, `pad_or_trim` on
    the samples pads with digital silence before.
    """
    n_frames = max(int(recipe.pad_to_seconds * 100), n_frames, len(power))
    if rng.random() < 0.3:
        power = np.pad(power, ((0, n_frames - len(power)), (0, 0)), constant_values=LOG_POWER_FLOOR)
    louder = rng.uniform(0, 0.7) if rng.random() < 0.2 else 0.0  # the file's maximum may be outside of the window
    top = power.max() + louder
    mel = ((np.maximum(power, top - 8.0) + 4.0) / 4.0).astype(np.float32)
    if recipe.max_mask_frames:
        augmentation.mask(rng, mel, recipe.max_mask_frames)
    padded = np.zeros((n_frames, power.shape[1]), dtype=np.float32)
    padded[: len(mel)] = mel
    return padded
