"""Windows to train on: clips, or parts of them, put one after another with pauses, in other voices and with noise.

Everything is drawn from one generator per window, so a step of training is a function of its number. Knows the
store of features; knows no tokens (`targets.py`) and no model.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from . import augment
from .datasets import LONGEST, SILENT_POWER, Clip, Store
from .errors import TrainingError

Generator = np.random.Generator


@dataclass(frozen=True)
class Recipe:
    """What the windows of one stage of training are made of."""

    lengths: tuple[float, ...] = (30.0,)  # seconds of the windows, one drawn a step
    padded_to: float = 0.0  # seconds to which windows are filled up; 0: as long as they are
    weights: Mapping[str, float] = field(default_factory=dict)  # how often each source is drawn; empty: by its hours
    p_silent: float = 0.06  # windows in which nobody speaks
    p_brief: float = 0.0  # of those, how many hold a brief recording and filling
    p_part: float = 0.0  # clips of which only some words in a row are taken, where the times of words are known
    p_sounds: float = 0.5  # backgrounds and silences that are recorded sounds, where the store has some
    p_short: float = 0.0  # windows with a single clip, however much would fit
    p_cut: float = 0.0  # windows whose last clip is cut off by the end
    p_prompt: float = 0.1  # windows with some earlier text before them
    p_plain: float = 0.2  # windows without timestamps
    p_noise: float = 0.5  # windows with a background
    noise_below: tuple[float, float] = (0.0, 3.0)  # how far below speech it lies, log10 of power, drawn evenly
    longest_blank: int = 22  # frames of the longest time blanked out
    changes: float = 1.0  # how much tempo, vocal tract, microphone and room are changed; 0: not at all
    few_voices: tuple[str, ...] = ()  # sources with few speakers, changed more
    brief: tuple[str, ...] = ()  # sources of single words, several of which may stand where a single clip would
    left_out: tuple[str, ...] = ()  # speakers kept apart, to measure on


@dataclass(frozen=True)
class Segment:
    """Words without a long pause between them; frames counted from the start of the window."""

    start: int
    end: int
    text: str
    words: tuple[tuple[int, int], ...] = ()  # first and one past the last frame of every word, or empty: unknown

    def shifted(self, frames: int) -> Segment:
        return Segment(self.start + frames, self.end + frames, self.text,
                       tuple((start + frames, end + frames) for start, end in self.words))  # fmt: skip


@dataclass(frozen=True)
class Window:
    """Normalised features, ``(n_frames, n_mels)``, and what is said in them."""

    mel: np.ndarray
    segments: list[Segment]
    language: str
    cut_at: int | None = None  # the frame where a segment begins that the window does not hold whole


# ---------------------------------------------------------------------------------------------------------
# Sound
# ---------------------------------------------------------------------------------------------------------


def compose(rng: Generator, store: Store, recipe: Recipe, seconds: float) -> Window:
    """Put together a window of `seconds`."""
    n_frames = int(seconds * 100)
    if rng.random() < recipe.p_silent:
        length = n_frames
        if recipe.p_brief and rng.random() < recipe.p_brief:
            length = int(rng.integers(60, n_frames))
        sound = _finish(rng, _silent(rng, store, recipe, length), recipe, n_frames)
        return Window(sound, [], _language(rng, store, recipe))
    power = np.full((n_frames, store.n_mels), SILENT_POWER, dtype=np.float32)
    segments, language, cut_at = _place_clips(rng, store, recipe, power)
    if rng.random() < recipe.p_noise:
        level = np.percentile(power[:: max(len(power) // 100, 1)].max(axis=1), 90)
        noise = _background(rng, store, recipe, len(power)) - 1.0
        power = augment.add_powers(power, noise + level - rng.uniform(*recipe.noise_below))
    if not segments:
        language = _language(rng, store, recipe)
    last = segments[-1].end if segments else n_frames
    if cut_at is None and rng.random() < 0.5:  # the recording ends soon after its last word
        power = power[: min(last + int(rng.integers(3, 80)), n_frames)]
    return Window(_finish(rng, power, recipe, n_frames), segments, language, cut_at)


def _language(rng: Generator, store: Store, recipe: Recipe) -> str:
    """What is expected where nobody speaks: any of the languages, as often as they are drawn."""
    names, shares = _shares(store, recipe)
    clips = store.sources[str(rng.choice(names, p=shares))]
    return clips[int(rng.integers(len(clips)))].language


def _place_clips(
    rng: Generator, store: Store, recipe: Recipe, power: np.ndarray
) -> tuple[list[Segment], str, int | None]:
    """Fill `power` with clips; returns the segments, their language, and where a cut one begins."""
    n_frames, words, language = len(power), list[Segment](), ""
    single = rng.random() < recipe.p_short
    time = int(rng.choice([rng.integers(0, 40), rng.integers(0, 100), rng.integers(0, max(n_frames // 4, 1))],
                          p=[0.6, 0.3, 0.1]))  # fmt: skip
    while True:
        room = n_frames - time
        clip = _draw(rng, store, recipe, n_frames if n_frames >= LONGEST and not words else room * 0.9, language)
        if clip is None:
            break
        language = language or clip.language
        clip = _part(rng, clip, recipe, room)
        sound, said = _voiced(rng, store, clip, recipe)
        if not words and time + said.end > n_frames >= clip.n_speech:
            time, (sound, said) = 0, _whole(store, clip, n_frames)
        if time + said.end > n_frames:
            if words and rng.random() < recipe.p_cut and time + said.start < n_frames - 30:
                _add(power, sound, time)
                return _segments(words), language, time + said.start
            break
        _add(power, sound, time)
        words.append(said.shifted(time))
        small = clip.source in recipe.brief
        if single and not (small and rng.random() < 0.5):
            break
        if n_frames - time - said.end < 60 or (small and not single and rng.random() < 0.15):
            break
        pause = rng.choice([rng.integers(0, 35), rng.integers(20, 120), rng.integers(50, 400)],
                           p=[0.5, 0.35, 0.15])  # fmt: skip
        time += said.end + int(pause)
    return _segments(words), language or "en", None


def _draw(rng: Generator, store: Store, recipe: Recipe, longest: float, language: str) -> Clip | None:
    """Draw a clip with at most `longest` frames of speech, or one that can be cut to them.

    Where a `language` is set, something stands before it in the window, and it is of this language.
    """
    names, shares = _shares(store, recipe)
    for _ in range(8):
        name = str(rng.choice(names, p=shares))
        clips = store.languages.get((name, language), []) if language else store.sources[name]
        cut = bool(recipe.p_cut and language)
        anywhere = cut or rng.random() < recipe.p_part
        fitting = len(clips) if anywhere else bisect_right(clips, longest, key=lambda c: c.n_speech)
        if fitting == 0:
            continue
        clip = clips[int(rng.integers(fitting))]
        if clip.speaker in recipe.left_out or (clip.n_speech > longest and not (clip.words or cut)):
            continue
        return clip
    return None


def _shares(store: Store, recipe: Recipe) -> tuple[list[str], np.ndarray]:
    """The sources that the store has and how often each is drawn."""
    weights = recipe.weights or store.n_speech
    names = [name for name in weights if name in store.sources and weights[name] > 0]
    if not names:
        raise TrainingError(
            f"no source to draw from: the recipe weighs {sorted(weights)}, the store holds {sorted(store.sources)}"
        )
    shares = np.array([weights[name] for name in names], dtype=np.float64)
    return names, shares / shares.sum()


def _part(rng: Generator, clip: Clip, recipe: Recipe, room: int) -> Clip:
    """Some words of `clip` that follow each other and fit into `room` frames; all of it where times are unknown."""
    if len(clip.words) < 2 or not recipe.p_part or (clip.n_speech < room * 0.9 and rng.random() > recipe.p_part):
        return clip
    first = int(rng.integers(len(clip.words)))
    last = first
    longest = min(room * 0.9, rng.uniform(40, 600))
    while last + 1 < len(clip.words) and clip.words[last + 1][1] - clip.words[first][0] < longest:
        last += 1
    text = " ".join(clip.text.split()[first : last + 1])
    words = clip.words[first : last + 1]
    # what surrounds the part is only taken as far as no other word is in it
    low = (clip.words[first - 1][1] + words[0][0]) // 2 if first else 0
    high = (words[-1][1] + clip.words[last + 1][0]) // 2 if last + 1 < len(clip.words) else clip.n_frames
    return replace(clip, text=text, offset=clip.offset + low, n_frames=high - low, start=words[0][0] - low,
                   end=words[-1][1] - low, words=tuple((a - low, b - low) for a, b in words))  # fmt: skip


def _voiced(rng: Generator, store: Store, clip: Clip, recipe: Recipe) -> tuple[np.ndarray, Segment]:
    """The clip with a little of what is around its speech, in another voice; what is said where in it."""
    before, after = (int(rng.integers(2, 25)) for _ in range(2))
    first, last = max(clip.start - before, 0), min(clip.end + after, clip.n_frames)
    power = store.power(clip, first, last)
    changed = augment.change_voice(rng, power, clip.source in recipe.few_voices, recipe.changes)
    scale = len(changed) / len(power)

    def moved(start: int, end: int) -> tuple[int, int]:
        at = int((start - first) * scale)
        return at, max(int((end - first) * scale), at + 1)

    words = tuple(moved(start, end) for start, end in clip.words)
    start, end = moved(clip.start, clip.end)
    return changed, Segment(start, max(end, words[-1][1]) if words else end, clip.text, words)


def _whole(store: Store, clip: Clip, n_frames: int) -> tuple[np.ndarray, Segment]:
    """A clip as it is, for a window of `n_frames` that another tempo and a later start would push its end out of."""
    first = max(clip.start - min(n_frames - clip.n_speech, 25), 0)
    said = Segment(clip.start, clip.end, clip.text, clip.words).shifted(-first)
    return store.power(clip, first, clip.end), said


def _add(power: np.ndarray, sound: np.ndarray, time: int) -> None:
    room = min(len(sound), len(power) - time)
    power[time : time + room] = augment.add_powers(power[time : time + room], sound[:room])


def _segments(words: list[Segment]) -> list[Segment]:
    """Join what is less than half a second apart, up to 15 seconds."""
    joined: list[Segment] = []
    for word in words:
        if joined and word.start - joined[-1].end < 50 and word.end - joined[-1].start < 1500:
            last = joined.pop()
            times = last.words + word.words if last.words and word.words else ()
            word = Segment(last.start, word.end, f"{last.text} {word.text}", times)
        joined.append(word)
    return joined


def _background(rng: Generator, store: Store, recipe: Recipe, n_frames: int) -> np.ndarray:
    """Some sound without speech around level 0: a recorded one, or one that is made up."""
    sounds = store.sounds
    if not sounds or rng.random() > recipe.p_sounds:
        return augment.background(rng, n_frames, store.n_mels)
    power = np.full((n_frames, store.n_mels), SILENT_POWER, dtype=np.float32)
    time = 0
    while time < n_frames:
        clip = sounds[int(rng.integers(len(sounds)))]
        longest = min(clip.n_frames, n_frames - time, int(rng.integers(100, 3000)))
        start = int(rng.integers(clip.n_frames - longest + 1))
        sound = augment.change_voice(rng, store.power(clip, start, start + longest), strong=True)
        loudness = sound.max(axis=1)
        if loudness.max() > SILENT_POWER + 1.0:
            # by what is loud most of the time, but a click in silence is not raised until it drowns all speech
            _add(power, sound - np.float32(max(np.percentile(loudness, 90), loudness.max() - 2.0)), time)
        time += longest + int(rng.choice([0, int(rng.integers(1, 300))]))
    return power


def _silent(rng: Generator, store: Store, recipe: Recipe, n_frames: int) -> np.ndarray:
    """Nobody speaks: digital silence, some background, or what a recording has around its speech."""
    kind = rng.random()
    if kind < 0.12:
        return np.full((n_frames, store.n_mels), SILENT_POWER, dtype=np.float32)
    if kind < 0.85:
        sound: np.ndarray = _background(rng, store, recipe, n_frames) + np.float32(rng.uniform(-5.0, 2.0))
        return sound
    for _ in range(8):
        clip = store.clips[int(rng.integers(len(store.clips)))]
        if clip.start > 15:
            quiet = store.power(clip, 0, clip.start - 8)
            around: np.ndarray = np.resize(quiet, (n_frames, store.n_mels)) + np.float32(rng.uniform(-1, 0.5))
            return around
    noise: np.ndarray = augment.steady_noise(rng, n_frames, store.n_mels) + rng.uniform(-6.0, 0.0)
    return noise


def _finish(rng: Generator, power: np.ndarray, recipe: Recipe, n_frames: int = 0) -> np.ndarray:
    """Normalise as the spectrogram does, blank bits, and fill up: with zeros, or with digital silence before.

    `transcribe` fills a window up with 0.0 after normalising; `pad_or_trim` on the samples gives the floor.
    """
    n_frames = max(int(recipe.padded_to * 100), n_frames, len(power))
    if rng.random() < 0.3:
        power = np.pad(power, ((0, n_frames - len(power)), (0, 0)), constant_values=SILENT_POWER)
    top = power.max() + (rng.uniform(0, 0.7) if rng.random() < 0.2 else 0.0)  # louder elsewhere in the file
    mel = ((np.maximum(power, top - 8.0) + 4.0) / 4.0).astype(np.float32)
    if recipe.longest_blank:
        augment.mask(rng, mel, recipe.longest_blank)
    padded = np.zeros((n_frames, power.shape[1]), dtype=np.float32)
    padded[: len(mel)] = mel
    return padded
