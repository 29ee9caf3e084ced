"""Recordings whose truth is known because they were put together: pauses, noise, distortions, long ones.

Clips of a folder of real recordings go in, arrays come out; every draw is seeded, so that the same folder gives the
same recordings everywhere. Samples are int16 at 16 kHz, as a file would hold them. Knows no model, measures nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

RATE = 16000
FULL_SCALE = 32767
DIGITS, PHRASES, SENTENCES = "digits", "wakeword", "speechocean762"  # folders of dev
PARTS_MAKE = "#"  # "pauses/digits/2 s#3": the fourth part of it by itself

Samples = Any  # float32 ``(n_samples,)``, full scale is 1
Gaps = Sequence[float]  # seconds before the first clip, between clips, and behind the last


@dataclass(frozen=True)
class Clip:
    """Somebody says `text`, or nobody says anything."""

    name: str
    samples: Samples
    text: str = ""

    @property
    def seconds(self) -> float:
        return len(self.samples) / RATE


@dataclass(frozen=True)
class Part:
    """Where a clip lies in a recording, seconds, and what is said there."""

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class Recording:
    """Samples, and what is known about them.

    Attributes
    ----------
    name
        ``row/...``, unique.
    samples
        int16 ``(n_samples,)``.
    parts
        The clips in it, in order; none where nobody speaks.
    clean
        Name of the recording that this one would be without what is nasty about it.
    """

    name: str
    samples: Any
    parts: tuple[Part, ...] = ()
    clean: str = ""

    @property
    def seconds(self) -> float:
        return len(self.samples) / RATE

    @property
    def pauses(self) -> list[tuple[float, float]]:
        """Seconds before, between and behind the parts."""
        edges = [0.0, *(time for part in self.parts for time in (part.start, part.end)), self.seconds]
        return list(zip(edges[::2], edges[1::2], strict=True))

    def alone(self) -> list[Recording]:
        """Each part by itself, cut out of this recording, with whatever lies under it."""
        cuts = [self.samples[round(part.start * RATE) : round(part.end * RATE)] for part in self.parts]
        return [
            Recording(f"{self.name}{PARTS_MAKE}{i}", cut, (Part(0.0, len(cut) / RATE, part.text),))
            for i, (cut, part) in enumerate(zip(cuts, self.parts, strict=True))
        ]


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    pauses: tuple[float, ...] = (2, 5, 10, 20, 30, 60)  # seconds
    n_clips: int = 5  # between such pauses
    every: int = 1  # of the clips in which nobody speaks, each so-manieth
    silent_seconds: float = 600  # of each kind of sound without speech
    joined_seconds: float = 600  # of each set of clips
    sets: tuple[str, ...] = (DIGITS, PHRASES, SENTENCES)  # that are joined
    nasty_seconds: float = 60
    distorted: tuple[str, ...] = (PHRASES, SENTENCES)
    repeated: tuple[tuple[str, int], ...] = (
        (DIGITS, 10), (DIGITS, 30), (PHRASES, 10), (PHRASES, 20), (SENTENCES, 10),
    )  # fmt: skip


FULL = Size()
QUICK = Size(
    pauses=(2, 20), n_clips=3, every=4, silent_seconds=30, joined_seconds=45, sets=(DIGITS, PHRASES), nasty_seconds=12,
    distorted=(PHRASES,), repeated=((DIGITS, 10),),
)  # fmt: skip


# ---------------------------------------------------------------------------------------------------------
# Clips
# ---------------------------------------------------------------------------------------------------------


class Clips:
    """The clips of a folder with a manifest, read when they are asked for.

    Parameters
    ----------
    folder
        As ``dev`` of the real recordings.
    """

    def __init__(self, folder: Path) -> None:
        from whisper.manifests.read import read_manifest

        self.folder, self.rows = folder, read_manifest(folder).recordings

    def of(self, group: str) -> list[Clip]:
        """All clips of a group, in the order of the manifest."""
        return [self._read(row) for row in self.rows if row.group == group]

    def silent(self) -> list[Clip]:
        """All clips in which nobody speaks."""
        return [self._read(row) for row in self.rows if row.language == "none"]

    def shuffled(self, group: str, seed: int = 0) -> list[Clip]:
        """The clips of a group in a drawn order."""
        clips = self.of(group)
        return [clips[i] for i in np.random.default_rng(seed).permutation(len(clips))]

    def _read(self, row: Any) -> Clip:
        from whisper.audio import load_audio

        path = self.folder / row.path
        return Clip(str(path.relative_to(self.folder)), load_audio(str(path)), row.text)


# ---------------------------------------------------------------------------------------------------------
# Sounds in which nobody speaks
# ---------------------------------------------------------------------------------------------------------


def coloured(seconds: float, exponent: float, seed: int) -> Samples:
    """Noise whose power falls with frequency to the power of `exponent`: 0 white, 1 pink, 2 brown; RMS 1."""
    n = round(seconds * RATE)
    whole = 1 << max(n - 1, 1).bit_length()  # a power of two, whose transform is quick
    spectrum = np.fft.rfft(np.random.default_rng(seed).normal(size=whole))
    frequency = np.maximum(np.fft.rfftfreq(whole, 1 / RATE), 20.0)  # flat below what anybody hears
    return _at_rms(np.fft.irfft(spectrum * frequency ** (-exponent / 2), whole)[:n], 1.0)


def hum(seconds: float, seed: int) -> Samples:
    """The mains: 50 Hz and its overtones, RMS 1."""
    time = np.arange(round(seconds * RATE)) / RATE
    phases = np.random.default_rng(seed).uniform(0, 2 * np.pi, 8)
    return _at_rms(sum(np.sin(2 * np.pi * 50 * k * time + phase) / k for k, phase in enumerate(phases, 1)), 1.0)


def tones(seconds: float, seed: int) -> Samples:
    """A tone of another pitch each second, 200 to 3000 Hz, RMS 1."""
    time = np.arange(round(seconds * RATE)) / RATE
    pitches = np.exp(np.random.default_rng(seed).uniform(np.log(200), np.log(3000), int(seconds) + 1))
    return _at_rms(np.sin(2 * np.pi * np.cumsum(pitches[time.astype(int)]) / RATE), 1.0)


def clicks(seconds: float, seed: int) -> Samples:
    """Short bursts, two a second on average, RMS 1."""
    rng = np.random.default_rng(seed)
    sound = np.zeros(round(seconds * RATE))
    for at in rng.integers(0, len(sound) - 80, round(2 * seconds)):
        sound[at : at + 80] += rng.normal(size=80) * np.exp(-np.arange(80) / 15)
    return _at_rms(sound, 1.0)


SOUNDS: dict[str, Callable[[float, int], Samples]] = {
    "white noise": lambda seconds, seed: coloured(seconds, 0, seed),
    "pink noise": lambda seconds, seed: coloured(seconds, 1, seed),
    "brown noise": lambda seconds, seed: coloured(seconds, 2, seed),
    "hum": hum,
    "tones": tones,
    "clicks": clicks,
    "digital silence": lambda seconds, seed: np.zeros(round(seconds * RATE), np.float32),
}


def silent(clips: Clips, size: Size) -> Iterator[Recording]:
    """Clips of noise, music and silence; made-up sounds, loud and faint; and a long recording of each kind."""
    real = clips.silent()
    for clip in real[:: size.every]:
        yield Recording(f"silent/{clip.name}", stored(clip.samples))
    for i, (name, make) in enumerate(SOUNDS.items()):
        for level in (-20, -50):
            if name != "digital silence" or level == -20:
                yield Recording(f"silent/{name} {level} dB", stored(decibel(level) * make(30, 100 * i + level + 60)))
        yield Recording(f"silent/long/{name}", stored(decibel(-25) * make(size.silent_seconds, 100 * i)))
    for kind in ("noise", "music"):
        chosen = [clip for clip in real if clip.name.startswith(kind) and clip.samples.any()]
        yield Recording(f"silent/long/recorded {kind}", stored(looped(chosen, size.silent_seconds)))


def looped(clips: Sequence[Clip], seconds: float, seed: int = 0) -> Samples:
    """Clips in a drawn order, again and again, until there are so many seconds."""
    rng, pieces = np.random.default_rng(seed), []
    while sum(map(len, pieces)) < seconds * RATE:
        pieces += [clips[i].samples for i in rng.permutation(len(clips))]
    return np.concatenate(pieces)[: round(seconds * RATE)]


# ---------------------------------------------------------------------------------------------------------
# Clips that are joined
# ---------------------------------------------------------------------------------------------------------


def joined(name: str, clips: Sequence[Clip], gaps: Gaps, room: float | None = None, seed: int = 0) -> Recording:
    """Join clips.

    Parameters
    ----------
    name
        Of the recording.
    clips
        What is joined, in order.
    gaps
        Seconds of pause: one more than there are clips.
    room
        Level of the room's noise under everything, decibel below full scale; None is digital silence.
    seed
        Of that noise.
    """
    pieces: list[Samples] = []
    parts, at = [], 0
    for clip, gap in zip([*clips, None], gaps, strict=True):
        pieces.append(np.zeros(round(gap * RATE), np.float32))
        at += len(pieces[-1])
        if clip is not None:
            pieces.append(clip.samples)
            parts.append(Part(at / RATE, (at + len(clip.samples)) / RATE, clip.text))
            at += len(clip.samples)
    samples = np.concatenate(pieces)
    if room is not None:
        samples = samples + decibel(room) * coloured(len(samples) / RATE, 1, seed)
    return Recording(name, stored(samples), tuple(parts))


def paused(clips: Clips, size: Size) -> Iterator[Recording]:
    """Digits and phrases with long pauses between, before and behind them; digital silence, and a quiet room."""
    for group in (DIGITS, PHRASES):
        drawn = clips.shuffled(group)
        for i, pause in enumerate(size.pauses):
            chosen = drawn[i * size.n_clips : (i + 1) * size.n_clips]
            gaps = [pause] * (len(chosen) + 1)
            yield joined(f"pauses/{group}/silence {pause:g} s", chosen, gaps)
            yield joined(f"pauses/{group}/room {pause:g} s", chosen, gaps, room=-55, seed=i)


def natural(clips: Sequence[Clip], seconds: float, seed: int) -> tuple[list[Clip], list[float]]:
    """As many clips as `seconds` hold, begun anew where they are too few, and natural pauses of 0.3 to 1 s."""
    rng = np.random.default_rng(seed)
    chosen: list[Clip] = []
    gaps = [float(rng.uniform(0.3, 1))]
    while True:
        for i in range(len(clips)) if not chosen else rng.permutation(len(clips)):
            gap = float(rng.uniform(0.3, 1))
            if sum(gaps) + gap + sum(clip.seconds for clip in [*chosen, clips[i]]) > seconds and chosen:
                return chosen, gaps
            chosen.append(clips[i])
            gaps.append(gap)


def long_ones(clips: Clips, size: Size) -> Iterator[Recording]:
    """Each set of clips joined with natural pauses to one long recording, and a real one with its segments."""
    for seed, group in enumerate(size.sets):
        yield joined(f"joined/{group}", *natural(clips.shuffled(group), size.joined_seconds, seed))
    if size.joined_seconds >= 600:
        yield read_segments(clips)


def read_segments(clips: Clips) -> Recording:
    """The recording in ``long/``; its parts are the lines of the table beside it."""
    [clip] = clips.of("long")
    table = (clips.folder / clip.name).with_suffix(".segments.tsv").read_text(encoding="utf-8").splitlines()
    rows = [dict(zip(table[0].split("\t"), line.split("\t"), strict=True)) for line in table[1:]]
    parts = tuple(Part(float(row["start_s"]), float(row["end_s"]), row["transcript"]) for row in rows)
    return Recording("joined/long", stored(clip.samples), parts)


# ---------------------------------------------------------------------------------------------------------
# What is nasty
# ---------------------------------------------------------------------------------------------------------


def with_noise(samples: Samples, ratio: float, seed: int = 0) -> Samples:
    """Add white noise, `ratio` decibel below the speech; the level of speech is taken where it is loud."""
    loud = np.abs(samples)
    speech = float(np.sqrt(np.mean(samples[loud > 0.05 * loud.max()] ** 2)))
    noise = np.random.default_rng(seed).normal(size=len(samples)).astype(np.float32)
    return samples + speech * decibel(-ratio) * noise


def narrow(samples: Samples) -> Samples:
    """The telephone: 300 to 3400 Hz."""
    spectrum = np.fft.rfft(samples)
    frequency = np.fft.rfftfreq(len(samples), 1 / RATE)
    spectrum[(frequency < 300) | (frequency > 3400)] = 0
    return np.fft.irfft(spectrum, len(samples)).astype(np.float32)


DISTORTIONS: dict[str, Callable[[Samples], Samples]] = {
    "clipped": lambda samples: np.clip(20 * samples, -1, 1),
    "very quiet": lambda samples: samples * (decibel(-60) / np.abs(samples).max()),
    "8 kHz": narrow,
    "noise 0 dB": lambda samples: with_noise(samples, 0),
    "noise -5 dB": lambda samples: with_noise(samples, -5),
    "offset": lambda samples: samples * 0.6 + 0.3,
    "reversed": lambda samples: samples[::-1],
}
UNSAID = ("reversed",)  # distortions after which nobody says what was said


def nasty(clips: Clips, size: Size) -> Iterator[Recording]:
    """Distortions of a minute, a minute of tones and of babble, and phrases that are said many times over."""
    seconds = size.nasty_seconds
    for group in size.distorted:
        clean = joined(f"nasty/{group}/clean", *natural(clips.shuffled(group, seed=1), seconds, seed=1))
        yield clean
        for name, distort in DISTORTIONS.items():
            samples = stored(distort(clean.samples.astype(np.float32) / FULL_SCALE))
            parts = () if name in UNSAID else clean.parts
            yield Recording(f"nasty/{group}/{name}", samples, parts, clean.name)
    yield Recording("nasty/tones", stored(decibel(-15) * tones(seconds, 1)), (), clean.name)
    yield Recording("nasty/babble", stored(babble(clips.shuffled(SENTENCES), seconds)), (), clean.name)
    for group, n in size.repeated:
        chosen = clips.shuffled(group, seed=2)[:n]
        mean = sum(clip.seconds for clip in chosen) / n  # so that both last as long, near enough
        one = min(chosen, key=lambda clip: abs(clip.seconds - mean))
        gaps = [0.3, *np.random.default_rng(n).uniform(0.15, 0.3, n)]
        several = joined(f"nasty/{group}/{n} clips", chosen, gaps)
        again = joined(f"nasty/{group}/the same {n} times", [one] * n, gaps)
        yield several
        yield Recording(again.name, again.samples, again.parts, several.name)


def babble(clips: Sequence[Clip], seconds: float, n_voices: int = 8) -> Samples:
    """So many people who speak at once."""
    voices = [looped(clips[i::n_voices], seconds, seed=i) for i in range(n_voices)]
    return _at_rms(sum(_at_rms(voice, 1.0) for voice in voices), decibel(-23))


# ---------------------------------------------------------------------------------------------------------
# Levels
# ---------------------------------------------------------------------------------------------------------


def decibel(level: float) -> float:
    """The factor that `level` decibel are."""
    return float(10 ** (level / 20))


def stored(samples: Samples) -> Any:
    """Samples as a file holds them, int16; what is too loud is clipped."""
    return np.round(np.clip(samples, -1, 1) * FULL_SCALE).astype(np.int16)


def _at_rms(samples: Any, level: float) -> Samples:
    return (samples * (level / np.sqrt(np.mean(np.square(samples))))).astype(np.float32)


ROWS: dict[str, Callable[[Clips, Size], Iterator[Recording]]] = {
    "silent": silent, "pauses": paused, "nasty": nasty, "joined": long_ones,
}  # fmt: skip
