"""Windows to train on: clips put one after another with pauses and noise, and the tokens to be said of them.

Everything is drawn from one generator per window, so a step of training is a function of its number. Knows the
vocabulary and the store of features; knows no model.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from . import augment
from .datasets import LETTERS, N_MELS, SILENT_POWER, Clip, Store
from .errors import TrainingError
from .tokenizer import Tokenizer, get_tokenizer

PIECES = 1000  # only byte pairs of the first thousand merges: short pieces, each seen often in ten hours
N_TIMESTAMPS = 1501
IGNORED = -100  # a target that is not scored
UNSEEN = (-1, -1)  # nobody knows where a token is said
CTC_CLASSES = len(LETTERS) + 2  # blank, space, letters
Generator = np.random.Generator


@dataclass(frozen=True)
class Recipe:
    """What the windows of one stage of training are made of."""

    lengths: tuple[float, ...] = (3.0, 4.0, 5.0, 7.0, 10.0)  # seconds of the windows, one drawn a step
    padded_to: float = 0.0  # seconds to which windows are filled up; 0: as long as they are
    weights: Mapping[str, float] = field(
        default_factory=lambda: {
            "speechocean762": 0.32, "commonvoice_en": 0.14, "commonvoice_fr": 0.12, "librispeech": 0.04,
            "wakeword": 0.12, "digits_fsdd": 0.14, "synthetic": 0.12,
        }
    )  # fmt: skip
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
    """Normalised features, ``(n_frames, 80)``, and what is said in them."""

    mel: np.ndarray
    segments: list[Segment]
    language: str
    cut_at: int | None = None  # the frame where a segment begins that the window does not hold whole


class Vocabulary:
    """The rows of the vocabulary that training uses, numbered without gaps, one row for all others, timestamps.

    Order of the numbers: pieces of text, special tokens, the row shared by all unused ids, 1501 timestamps.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        import tiktoken

        self.tokenizer: Tokenizer = get_tokenizer(True, language="en", task="transcribe")
        encoding = self.tokenizer.encoding
        ranks = {piece: rank for piece, rank in encoding._mergeable_ranks.items() if rank < PIECES}
        self._pieces = tiktoken.Encoding("pieces", pat_str=r" ?[^\s]+|\s+", mergeable_ranks=ranks, special_tokens={})
        used: set[int] = set()
        for text in texts:
            used.update(self._pieces.encode(" " + text))
        t = self.tokenizer
        codes = t.all_language_codes
        languages = [t.all_language_tokens[codes.index(code)] for code in ("en", "fr")]
        special = [t.eot, t.sot, *languages, t.transcribe, t.sot_prev, t.no_speech, t.no_timestamps]
        self.text_ids = sorted(used)
        self.ids = [*self.text_ids, *special]  # full ids of all rows before the shared one
        self.row = {token: row for row, token in enumerate(self.ids)}
        self.languages = {"en": self.row[languages[0]], "fr": self.row[languages[1]]}
        self.fill = len(self.ids)
        self.timestamp_begin = self.fill + 1
        self.n_rows = self.timestamp_begin + N_TIMESTAMPS
        self.n_vocab = encoding.n_vocab
        self.n_unused = self.n_vocab - len(self.ids) - N_TIMESTAMPS

    def encode(self, text: str) -> list[int]:
        """Rows of the pieces of `text`, which begins a word."""
        return [self.row[token] for token in self._pieces.encode(" " + text)]

    def special(self, name: str) -> int:
        """Row of a special token, by its name on the tokenizer."""
        return self.row[getattr(self.tokenizer, name)]

    def timestamp(self, frame: int) -> int:
        """Row of the timestamp for a frame of 10 ms."""
        return self.timestamp_begin + min(max(round(frame / 2), 0), N_TIMESTAMPS - 1)


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
        return Window(sound, [], _language(rng, recipe))
    power = np.full((n_frames, N_MELS), SILENT_POWER, dtype=np.float32)
    segments, language, cut_at = _place_clips(rng, store, recipe, power)
    if rng.random() < recipe.p_noise:
        level = np.percentile(power[:: max(len(power) // 100, 1)].max(axis=1), 90)
        noise = _background(rng, store, recipe, len(power)) - 1.0
        power = augment.add_powers(power, noise + level - rng.uniform(*recipe.noise_below))
    if not segments:
        language = _language(rng, recipe)
    last = segments[-1].end if segments else n_frames
    if cut_at is None and rng.random() < 0.5:  # the recording ends soon after its last word
        power = power[: min(last + int(rng.integers(3, 80)), n_frames)]
    return Window(_finish(rng, power, recipe, n_frames), segments, language, cut_at)


def _language(rng: Generator, recipe: Recipe) -> str:
    return "fr" if recipe.weights.get("commonvoice_fr") and rng.random() < 0.3 else "en"


def _place_clips(
    rng: Generator, store: Store, recipe: Recipe, power: np.ndarray
) -> tuple[list[Segment], str, int | None]:
    """Fill `power` with clips; returns the segments, their language, and where a cut one begins."""
    n_frames, words, language = len(power), list[Segment](), ""
    single = rng.random() < recipe.p_short
    time = int(rng.choice([rng.integers(0, 40), rng.integers(0, 100), rng.integers(0, max(n_frames // 4, 1))],
                          p=[0.6, 0.3, 0.1]))  # fmt: skip
    while True:
        clip = _draw(rng, store, recipe, n_frames - time, language)
        if clip is None:
            break
        language = language or clip.language
        clip = _part(rng, clip, recipe, n_frames - time)
        sound, said = _voiced(rng, store, clip)
        if time + said.end > n_frames:
            if words and rng.random() < recipe.p_cut and time + said.start < n_frames - 30:
                _add(power, sound, time)
                return _segments(words), language, time + said.start
            break
        _add(power, sound, time)
        words.append(said.shifted(time))
        small = clip.source in ("digits_fsdd", "synthetic", "wakeword")
        if single and not (small and rng.random() < 0.5):
            break
        if n_frames - time - said.end < 60 or (small and not single and rng.random() < 0.15):
            break
        pause = rng.choice([rng.integers(0, 35), rng.integers(20, 120), rng.integers(50, 400)],
                           p=[0.5, 0.35, 0.15])  # fmt: skip
        time += said.end + int(pause)
    return _segments(words), language or "en", None


def _draw(rng: Generator, store: Store, recipe: Recipe, room: int, language: str) -> Clip | None:
    """Draw a clip whose speech fits into `room` frames, in `language` where one is already set."""
    for _ in range(8):
        source = str(rng.choice(list(recipe.weights), p=_shares(recipe)))
        if source not in store.sources:
            continue
        clips = store.sources[source]
        if language and clips[0].language != language:
            continue
        anywhere = recipe.p_cut or rng.random() < recipe.p_part
        fitting = len(clips) if anywhere else bisect_right(clips, room * 0.9, key=lambda c: c.n_speech)
        if fitting == 0:
            continue
        clip = clips[int(rng.integers(fitting))]
        if clip.speaker in recipe.left_out or (clip.n_speech > room * 0.9 and not (clip.words or recipe.p_cut)):
            continue
        return clip
    return None


def _shares(recipe: Recipe) -> np.ndarray:
    weights = np.array(list(recipe.weights.values()), dtype=np.float64)
    if not len(weights) or weights.sum() <= 0:
        raise TrainingError("a recipe needs a source with a weight above zero")
    shares: np.ndarray = weights / weights.sum()
    return shares


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


def _voiced(rng: Generator, store: Store, clip: Clip) -> tuple[np.ndarray, Segment]:
    """The clip with a little of what is around its speech, in another voice; what is said where in it."""
    before, after = (int(rng.integers(2, 25)) for _ in range(2))
    first, last = max(clip.start - before, 0), min(clip.end + after, clip.n_frames)
    power = store.power(clip, first, last)
    strong = clip.source in ("digits_fsdd", "synthetic")
    changed = augment.change_voice(rng, power, strong)
    scale = len(changed) / len(power)
    start, end = (int((frame - first) * scale) for frame in (clip.start, clip.end))
    words = tuple((int((a - first) * scale), int((b - first) * scale)) for a, b in clip.words)
    return changed, Segment(start, end, clip.text, words)


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
    sounds = store.sources.get("sounds", [])
    if not sounds or rng.random() > recipe.p_sounds:
        return augment.background(rng, n_frames)
    power = np.full((n_frames, N_MELS), SILENT_POWER, dtype=np.float32)
    time = 0
    while time < n_frames:
        clip = sounds[int(rng.integers(len(sounds)))]
        longest = min(clip.n_frames, n_frames - time, int(rng.integers(100, 3000)))
        start = int(rng.integers(clip.n_frames - longest + 1))
        sound = augment.change_voice(rng, store.power(clip, start, start + longest), strong=True)
        _add(power, sound - np.float32(np.percentile(sound.max(axis=1), 90)), time)
        time += longest + int(rng.choice([0, rng.integers(1, 300)]))
    return power


def _silent(rng: Generator, store: Store, recipe: Recipe, n_frames: int) -> np.ndarray:
    """Nobody speaks: digital silence, some background, or what a recording has around its speech."""
    kind = rng.random()
    if kind < 0.12:
        return np.full((n_frames, N_MELS), SILENT_POWER, dtype=np.float32)
    if kind < 0.85:
        return _background(rng, store, recipe, n_frames) + np.float32(rng.uniform(-5.0, 2.0))
    for _ in range(8):
        clip = store.clips[int(rng.integers(len(store.clips)))]
        if clip.start > 15:
            quiet = store.power(clip, 0, clip.start - 8)
            around: np.ndarray = np.resize(quiet, (n_frames, N_MELS)) + np.float32(rng.uniform(-1, 0.5))
            return around
    return augment.steady_noise(rng, n_frames) + rng.uniform(-6.0, 0.0)


def _finish(rng: Generator, power: np.ndarray, recipe: Recipe, n_frames: int = 0) -> np.ndarray:
    """Normalise as the spectrogram does, blank bits, and fill up: with zeros, or with digital silence before.

    `transcribe` fills a window up with 0.0 after normalising; `pad_or_trim` on the samples gives the floor.
    """
    n_frames = max(int(recipe.padded_to * 100), n_frames, len(power))
    if rng.random() < 0.3:
        power = np.pad(power, ((0, n_frames - len(power)), (0, 0)), constant_values=SILENT_POWER)
    top = power.max() + (rng.uniform(0, 0.7) if rng.random() < 0.2 else 0.0)  # louder elsewhere in the file
    mel = ((np.maximum(power, top - 8.0) + 4.0) / 4.0).astype(np.float32)
    augment.mask(rng, mel, recipe.longest_blank)
    padded = np.zeros((n_frames, N_MELS), dtype=np.float32)
    padded[: len(mel)] = mel
    return padded


# ---------------------------------------------------------------------------------------------------------
# Text
# ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """What the decoder reads, what it must say after each token, and where it should look for it."""

    tokens: list[int]  # rows of the vocabulary
    expected: list[int]
    looks: list[tuple[int, int]]  # frames in which the expected token is said, one pair a token; UNSEEN where unknown
    letters: list[int]  # classes of the CTC loss; empty where a cut clip makes them unknown
    scores_letters: bool


def make_target(
    rng: Generator, window: Window, vocabulary: Vocabulary, recipe: Recipe, earlier: Sequence[str]
) -> Target:
    """The tokens of `window`; `earlier` are texts of the same language, one of which may come as a prompt."""
    v = vocabulary
    plain = rng.random() < recipe.p_plain and window.cut_at is None
    said, looks = _said(window, v, plain)
    task = [v.special("transcribe")] + ([v.special("no_timestamps")] if plain else [])
    sequence = [v.special("sot"), v.languages[window.language], *task, *said, v.special("eot")]
    expected = [*sequence[1:], IGNORED]
    looks = [UNSEEN] * (len(task) + 1) + looks + [UNSEEN] * 2
    if not window.segments:
        expected[0] = v.special("no_speech")
    tokens = [t if rng.random() > 0.06 or t >= len(v.text_ids) else int(rng.integers(len(v.text_ids)))
              for t in sequence]  # fmt: skip
    if earlier and rng.random() < recipe.p_prompt:
        prompt = [v.special("sot_prev"), *_prompt(rng, v, earlier)]
        tokens, expected = prompt + tokens, [IGNORED] * len(prompt) + expected
        looks = [UNSEEN] * len(prompt) + looks
    letters = letter_classes(" ".join(s.text for s in window.segments))
    return Target(tokens[:-1], expected[:-1], looks[:-1], letters, window.cut_at is None)


def _said(window: Window, v: Vocabulary, plain: bool) -> tuple[list[int], list[tuple[int, int]]]:
    """Rows of text and timestamps, and the frames where each is to be found."""
    said, looks = list[int](), list[tuple[int, int]]()

    def stamp(frame: int) -> None:
        said.append(v.timestamp(frame))
        looks.append((max(frame - 3, 0), frame + 3))

    for segment in window.segments:
        if not plain:
            stamp(segment.start)
        for i, word in enumerate(segment.text.split()):
            pieces = v.encode(word)
            said += pieces
            looks += _shared(segment.words[i], len(pieces)) if segment.words else [UNSEEN] * len(pieces)
        if not plain:
            stamp(segment.end)
    if window.cut_at is not None:
        stamp(window.cut_at)
    if not window.segments and not plain:
        return [v.timestamp(0)], [UNSEEN]
    return said, looks


def _shared(word: tuple[int, int], n_pieces: int) -> list[tuple[int, int]]:
    """The time of a word cut into equal parts, one for each of its pieces."""
    at = np.linspace(word[0], word[1], n_pieces + 1)
    return [(int(a), max(int(b), int(a) + 4)) for a, b in zip(at[:-1], at[1:], strict=True)]


def _prompt(rng: Generator, v: Vocabulary, earlier: Sequence[str]) -> list[int]:
    rows: list[int] = []
    time = 0
    for text in earlier:
        piece = v.encode(text)
        if rng.random() < 0.6:
            piece = [v.timestamp(time), *piece, v.timestamp(time + 200)]
            time += 200
        rows += piece
    return rows[-120:]


def letter_classes(text: str) -> list[int]:
    """Classes of the CTC loss for `text`: 0 is the blank, 1 the space, then the letters."""
    return [1 if c == " " else LETTERS.index(c) + 2 for c in text]
