"""Conversations whose truth is known: read sentences of single speakers put together as turns, in a room.

    python benchmarks/conversations.py FOLDER --data .../shared/data/dev      # writes them, and a list as JSON

Each speaker's recordings become one tape: cut down to the speech, with short pauses between them, and with the times
of the words by pocketsphinx. A conversation takes stretches from the tapes of 2 to 6 speakers, 1 to 20 s each, lays
them after each other with a gap or with an overlap, each in its own place of the same room, and adds noise.

The reference is fair: it is the speech of the clean single recordings, by their energy. A pause of 0.25 s or more
inside a sentence is no speech; a shorter one is. What is spoken by two at once belongs to both. Every draw is seeded.
Knows no model, measures nothing.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

RATE = 16000
FRAME = 160  # samples, 10 ms
SPEECH_DB = 35.0  # below the loud frames of a recording: what is louder is speech
ABOVE_NOISE_DB = 8.0  # and at least so far above its quietest frames
SHORT_PAUSE = 0.25  # seconds: a shorter pause belongs to the speech around it
SHORT_SOUND = 0.08  # seconds: shorter sounds are none of speech
TO_SPARE = 0.05  # seconds kept around the speech of a recording
TURN = (1.0, 20.0)  # seconds, drawn evenly on a logarithmic scale
GAP = (0.05, 1.2)  # seconds between turns
OVERLAP = (0.4, 2.5)  # seconds of one overlap
SPOKEN_OF_OVERLAP = 0.7  # of these, during which both speak: there are pauses
LONGEST = 100.0  # seconds of a conversation
LEVELS_DB = 4.0  # speakers are louder and quieter by up to this
# seconds in which an echo has lost 60 dB, and the power of the direct sound over that of all echoes, dB
ROOMS = {"study": (0.25, 9.0), "hall": (0.7, 2.0)}
NOISE_DB = (20.0, 35.0)  # below the speech
FAMILIES = {  # folders whose speakers may meet: what tells them apart shall be the voice, not the microphone
    "read": ("librispeech", "librispeech_test_other", "librispeech_train_clean_100", "librispeech_misc", "vctk"),
    "accented": ("speechocean762",),
}
OVERLAPS = (0.0, 0.05, 0.1, 0.2)  # of the speech, in turn
COUNTS = (2, 3, 4, 5, 6)
MOST_TAPES = 60  # of a family, those with the most recordings

Span = tuple[float, float]  # seconds
Samples = Any  # float32 ``(n_samples,)``, full scale is 1


@dataclass
class Tape:
    """All that one speaker says, one recording after the other.

    Attributes
    ----------
    cuts
        Seconds in pauses, where it may be cut; the first is 0, the last its end.
    speech
        Where it is speech, seconds.
    words
        With times in seconds.
    """

    speaker: str
    samples: Samples
    speech: list[Span]
    words: list[tuple[str, float, float]]
    cuts: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        inner = [(a[1] + b[0]) / 2 for a, b in itertools.pairwise(self.speech)]
        # a cut inside a word would leave half of it: the times of words and those of energy need not agree
        inner = [cut for cut in inner if not any(start < cut < end for _, start, end in self.words)]
        self.cuts = [0.0, *inner, len(self.samples) / RATE]


@dataclass
class Turn:
    """A stretch of a tape, placed in a conversation; times in seconds of the conversation."""

    speaker: str
    start: float
    samples: Samples
    speech: list[Span]
    words: list[tuple[str, float, float]]

    @property
    def end(self) -> float:
        return self.start + len(self.samples) / RATE


@dataclass
class Conversation:
    """Samples and truth.

    Attributes
    ----------
    turns
        ``(start, end, speaker)`` of all speech, seconds, in the order of time.
    words
        ``(word, start, end, speaker)``.
    overlap
        Share of the speech during which two speak.
    """

    name: str
    family: str
    room: str
    speakers: int
    overlap: float
    samples: Samples
    turns: list[tuple[float, float, str]]
    words: list[tuple[str, float, float, str]]

    def told(self) -> dict[str, Any]:
        """All but the samples, for JSON."""
        return {**{k: v for k, v in vars(self).items() if k != "samples"}, "seconds": len(self.samples) / RATE}


# ---------------------------------------------------------------------------------------------------------
# Speech of a clean recording
# ---------------------------------------------------------------------------------------------------------


def speech_spans(samples: Samples) -> list[Span]:
    """Where a clean recording of one speaker is speech, by its energy, in seconds."""
    frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
    level = 10 * np.log10((frames.astype(np.float64) ** 2).mean(axis=1) + 1e-10)
    least = max(np.percentile(level, 95) - SPEECH_DB, np.percentile(level, 2) + ABOVE_NOISE_DB)
    spans = _runs(level > least)
    joined: list[Span] = []
    for start, end in spans:
        if joined and start - joined[-1][1] < SHORT_PAUSE:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return [(start, end) for start, end in joined if end - start >= SHORT_SOUND]


def _runs(active: Any) -> list[Span]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], active.astype(np.int8), [0]])))
    return [(float(a) * FRAME / RATE, float(b) * FRAME / RATE) for a, b in edges.reshape(-1, 2)]


# ---------------------------------------------------------------------------------------------------------
# Tapes
# ---------------------------------------------------------------------------------------------------------


def tapes(data: Path, wanted: Callable[[str, Any], bool], cache: Path | None) -> list[Tape]:
    """Return the tapes of at most `MOST_TAPES` speakers, of what is `wanted` by its folder and its entry.

    Without a cache their words stay unknown.
    """
    from whisper.manifests.read import read_manifest

    by_speaker: dict[str, list[tuple[str, str]]] = {}
    for entry in read_manifest(data, require_text=True).recordings:
        folder = Path(entry.path).parent.name
        if entry.text and entry.speaker and wanted(folder, entry):
            by_speaker.setdefault(f"{folder}/{entry.speaker}", []).append((str(entry.path), entry.text))
    known, found = _Aligned(cache), []
    for speaker, clips in sorted(by_speaker.items(), key=lambda item: (-len(item[1]), item[0]))[:MOST_TAPES]:
        tape = record(speaker, (known.clip(data / path, text) for path, text in clips))
        if tape is not None and len(tape.samples) > 6 * RATE:
            found.append(tape)
    return found


def record(speaker: str, clips: Iterator[tuple[Samples, list[tuple[str, float, float]]] | None]) -> Tape | None:
    """Put the recordings of a speaker on a tape; those without word times are left out."""
    sound: list[Samples] = []
    speech: list[Span] = []
    words: list[tuple[str, float, float]] = []
    at = 0.0
    for clip in clips:
        if clip is None or not (spans := speech_spans(clip[0])):
            continue
        samples, own = clip
        first = max(int((spans[0][0] - TO_SPARE) * RATE), 0)
        last = min(int((spans[-1][1] + TO_SPARE) * RATE), len(samples))
        moved = at - first / RATE
        sound += [0.05 * samples[first:last] / _level(samples, spans), np.zeros(int(0.3 * RATE), np.float32)]
        speech += [(start + moved, end + moved) for start, end in spans]
        words += [(word, start + moved, end + moved) for word, start, end in own]
        at += (last - first) / RATE + 0.3
    return Tape(speaker, np.concatenate(sound), speech, words) if sound else None


def _level(samples: Samples, spans: Sequence[Span]) -> float:
    spoken = np.concatenate([samples[int(a * RATE) : int(b * RATE)] for a, b in spans])
    return float(np.sqrt((spoken.astype(np.float64) ** 2).mean()) + 1e-9)


class _Aligned:
    """Clips with the times of their words, which are kept in a file: finding them takes a while."""

    def __init__(self, cache: Path | None) -> None:
        self._path = cache and cache / "word-times.jsonl"
        lines = self._path.read_text(encoding="utf-8").splitlines() if self._path and self._path.exists() else []
        self._known = dict(json.loads(line) for line in lines)
        self._aligner: Any = None

    def clip(self, path: Path, text: str) -> tuple[Samples, list[tuple[str, float, float]]] | None:
        """Return samples and words of a clip; None where pocketsphinx cannot align them."""
        import whisper

        samples = whisper.load_audio(str(path))
        if self._path is None:
            return samples, []
        key = f"{path.parent.name}/{path.name}"
        if key not in self._known:
            self._known[key] = self._align(samples, text)
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(json.dumps([key, self._known[key]]) + "\n")
        words = self._known[key]
        return None if words is None else (samples, [(word, start, end) for word, start, end in words])

    def _align(self, samples: Samples, text: str) -> list[tuple[str, float, float]] | None:
        from whisper.training.word_aligner import WordAligner

        self._aligner = self._aligner or WordAligner()
        words = "".join(c if c.isalpha() or c == "'" else " " for c in text.lower()).split()
        times = self._aligner.align(samples, " ".join(words))
        return None if times is None else [(w, a / 100, b / 100) for w, (a, b) in zip(words, times, strict=True)]


# ---------------------------------------------------------------------------------------------------------
# Conversations
# ---------------------------------------------------------------------------------------------------------


def conversations(data: Path, cache: Path, n: int, seed: int, *, has_words: bool = True) -> Iterator[Conversation]:
    """Give `n` conversations: families, numbers of speakers, overlaps and rooms in turn; 40 have all of them."""
    cache.mkdir(parents=True, exist_ok=True)
    words = cache if has_words else None
    pools = {family: tapes(data, lambda folder, _, own=own: folder in own, words) for family, own in FAMILIES.items()}
    yield from drawn(pools, COUNTS, n, seed)


def drawn(pools: Mapping[str, Sequence[Tape]], counts: Sequence[int], n: int, seed: int) -> Iterator[Conversation]:
    """Give `n` conversations of the tapes of some families; each has all numbers of speakers in turn."""
    plans = tuple(itertools.product(counts, pools))
    for i in range(n):
        rng = np.random.default_rng([seed, i])
        count, family = plans[i % len(plans)]
        overlap = OVERLAPS[(i + i // len(plans)) % len(OVERLAPS)]
        room = tuple(ROOMS)[i // 2 % len(ROOMS)]
        pool = pools[family]
        likely = np.array([len(tape.samples) for tape in pool], float)  # who has more to say is chosen more often
        chosen = rng.choice(len(pool), min(count, len(pool)), replace=False, p=likely / likely.sum())
        own = [pool[int(j)] for j in chosen]
        yield converse(f"{family}-{count}-{overlap:.2f}-{i}", family, own, overlap, room, rng)


def converse(
    name: str, family: str, speakers: Sequence[Tape], overlap: float, room: str, rng: np.random.Generator
) -> Conversation:
    """Let speakers talk to each other until one of them, or the time, runs out."""
    turns = list(_turns(speakers, overlap, rng))
    samples = _heard(turns, room, rng)
    spans = sorted((start, end, turn.speaker) for turn in turns for start, end in turn.speech)
    words = sorted(((w, a, b, turn.speaker) for turn in turns for w, a, b in turn.words), key=lambda w: w[1:3])
    alone, both = _shares(spans)
    return Conversation(
        name, family, room, len({turn.speaker for turn in turns}), both / max(alone + both, 1e-9), samples, spans, words
    )


def _turns(speakers: Sequence[Tape], overlap: float, rng: np.random.Generator) -> Iterator[Turn]:
    """Give turns until less than two speakers have something to say; each speaks in the first round."""
    at = {tape.speaker: 0 for tape in speakers}  # the cut up to which each tape has been used
    ready = {tape.speaker: 0.0 for tape in speakers}  # when each has ended
    first_round = list(speakers)
    before, spoken, shared, end_before = "", 0.0, 0.0, 0.0
    end = 0.3
    while end < LONGEST:
        left = [tape for tape in speakers if at[tape.speaker] < len(tape.cuts) - 1]
        able = [tape for tape in left if tape.speaker != before or len(speakers) == 1]
        if not able or (len(able) == 1 and not first_round and len(speakers) > 2):
            return
        tape = first_round.pop() if first_round else able[int(rng.integers(len(able)))]
        first = at[tape.speaker]
        wanted = np.exp(rng.uniform(*np.log(TURN)))
        last = next(
            (k for k in range(first + 1, len(tape.cuts)) if tape.cuts[k] - tape.cuts[first] >= wanted),
            len(tape.cuts) - 1,
        )
        a, b = tape.cuts[first], tape.cuts[last]
        if b - a > TURN[1] and last > first + 1:
            last -= 1
            b = tape.cuts[last]
        start = end + rng.uniform(*GAP)
        if before and shared < overlap * spoken:
            depth = min(rng.uniform(*OVERLAP), 0.5 * (b - a))
            start = max(end - depth, end_before, ready[tape.speaker] + 0.2)
            shared += SPOKEN_OF_OVERLAP * max(end - start, 0.0)
        turn = Turn(
            tape.speaker, start, tape.samples[int(a * RATE) : int(b * RATE)],
            [(max(s, a) + start - a, min(e, b) + start - a) for s, e in tape.speech if s < b and e > a],
            [(w, s + start - a, e + start - a) for w, s, e in tape.words if a <= (s + e) / 2 < b],
        )  # fmt: skip
        yield turn
        at[tape.speaker], ready[tape.speaker], before = last, turn.end, tape.speaker
        spoken += sum(e - s for s, e in turn.speech)
        end_before, end = end, max(end, turn.end)


def _heard(turns: Sequence[Turn], room: str, rng: np.random.Generator) -> Samples:
    """Mix the turns in a room: a place and a level for each speaker, and noise."""
    seconds, direct_db = ROOMS[room]
    mixed = np.zeros(int((max(turn.end for turn in turns) + 0.5) * RATE) + int(seconds * RATE), np.float32)
    places = {name: impulse_response(seconds, direct_db, rng) for name in dict.fromkeys(t.speaker for t in turns)}
    gains = {name: 10 ** (rng.uniform(-LEVELS_DB, LEVELS_DB) / 20) for name in places}
    for turn in turns:
        sound = gains[turn.speaker] * _convolved(turn.samples, places[turn.speaker])
        first = int(turn.start * RATE)
        n = min(len(sound), len(mixed) - first)
        mixed[first : first + n] += sound[:n]
    noise = 0.05 * 10 ** (-rng.uniform(*NOISE_DB) / 20)
    mixed += rng.normal(0, noise, len(mixed)).astype(np.float32)
    return mixed * np.float32(0.5 / max(np.abs(mixed).max(), 0.5))


def impulse_response(seconds: float, direct_db: float, rng: np.random.Generator) -> Samples:
    """Return a room's answer to a click: the direct sound, then noise that decays by 60 dB in `seconds`."""
    n = int(seconds * RATE)
    delay = int(rng.uniform(0.002, 0.012) * RATE)  # until the first wall
    tail = rng.normal(0, 1, n) * 10 ** (-3 * np.arange(n) / n)
    tail[:delay] = 0
    spread = direct_db + rng.uniform(-2, 2)  # nearer to the microphone, or farther from it
    tail *= 10 ** (-spread / 20) / np.sqrt((tail**2).sum())
    tail[0] = 1
    return tail.astype(np.float32)


def _convolved(samples: Samples, response: Samples) -> Samples:
    n = 1 << (len(samples) + len(response) - 1).bit_length()
    product = np.fft.rfft(samples, n) * np.fft.rfft(response, n)
    return np.fft.irfft(product, n)[: len(samples) + len(response) - 1].astype(np.float32)


def _shares(spans: Sequence[tuple[float, float, str]]) -> tuple[float, float]:
    """Seconds during which one speaks, and during which several do."""
    n = int(max((end for _, end, _ in spans), default=0.0) * 100) + 1
    count = np.zeros(n, np.int32)
    for start, end, _ in spans:
        count[round(start * 100) : round(end * 100)] += 1
    return float((count == 1).sum()) / 100, float((count > 1).sum()) / 100


def stereo(data: Path) -> Iterator[Conversation]:
    """Give the real recordings of dev with a speaker on each channel, mixed to one; the truth is each channel's own."""
    import av

    for path in sorted((data / "stereo").glob("*.flac")):
        resampler = av.AudioResampler("fltp", "stereo", RATE)
        with av.open(str(path)) as container:
            frames = [frame for got in (*container.decode(audio=0), None) for frame in resampler.resample(got)]
        both = np.concatenate([frame.to_ndarray() for frame in frames], axis=1)
        turns = sorted((s, e, f"channel {c}") for c, own in enumerate(both) for s, e in speech_spans(own))
        alone, shared = _shares(turns)
        overlap = shared / max(alone + shared, 1e-9)
        yield Conversation(f"stereo/{path.stem}", "stereo", "none", 2, overlap, (both[0] + both[1]) / 2, turns, [])


def write(folder: Path, made: Iterator[Conversation]) -> list[dict[str, Any]]:
    """Write conversations as WAV and their list as JSON; return the list. What is there already stays."""
    listed = folder / "conversations.json"
    if not listed.exists():
        folder.mkdir(parents=True, exist_ok=True)
        told = []
        for conversation in made:
            path = folder / f"{conversation.name.replace('/', '-')}.wav"
            save(path, conversation.samples)
            told.append({**conversation.told(), "sound": path.name})
        listed.write_text(json.dumps(told), encoding="utf-8")
    return list(json.loads(listed.read_text(encoding="utf-8")))


def save(path: Path, samples: Samples) -> None:
    """Write samples as 16-bit WAV."""
    import wave

    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="a folder of real recordings with a manifest")
    parser.add_argument("--n", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-words", action="store_true", help="turns only, which is much quicker")
    arguments = parser.parse_args()
    cache, has_words = arguments.folder.parent, not arguments.no_words
    made = conversations(arguments.data, cache, arguments.n, arguments.seed, has_words=has_words)
    for told in write(arguments.folder, itertools.chain(made, stereo(arguments.data))):
        print(
            f"{told['name']:28} {told['room']:6} {told['speakers']} speakers  {told['seconds']:5.0f} s  "
            f"{100 * told['overlap']:4.1f} % overlap  {len(told['words'])} words"
        )


if __name__ == "__main__":
    main()
