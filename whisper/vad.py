"""Where in a recording somebody speaks: samples in, stretches of speech out, in seconds of the recording.

Two detectors give a probability for each 32 ms: Silero's network, or, where that is missing, the loudness, which
takes noise and music for speech rather than miss a word. What they hear becomes stretches by the same rules.
Keeps nothing from one recording to the next, changes no samples and cuts none out; knows no words and no model.
"""

from __future__ import annotations

import difflib
import math
from bisect import bisect_right
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from . import silero
from .audio import FRAMES_PER_SECOND, SAMPLE_RATE, Samples
from .errors import OptionError, UnknownOptionError, WhisperError

Span: TypeAlias = tuple[float, float]  # seconds
_Time = TypeVar("_Time", int, float)
Track: TypeAlias = npt.NDArray[np.float32]  # one number for each step

STEP = silero.STEP  # samples that get one probability
STEP_MS = 1000 * STEP // SAMPLE_RATE
BLOCK = 256  # steps that are read and judged at once: 8 s

PAUSE, UNLIKELY = 32, 0.1  # the last second of a block is a pause if no step of it is as likely as this

# Loudness, in decibels; full scale is 0
SILENCE = -100.0  # nothing that 16 bits can say is quieter, but for digital silence
NEIGHBOURS = 312  # steps: what is loud and what is quiet is a matter of 10 s and the 10 s on either side
LOUDEST = -5.0  # for Silero's network
FLOOR_SHARE = 10  # per cent of the steps that are quieter than the floor
LEAST_RANGE = 6.0  # from the floor to the loudest step; with less, nothing stands out, and all of it may be speech
RISE, MOST_RISE = 0.2, 8.0  # speech begins so far up the range, but at most so much above the floor
SLOPE = 2.0  # decibels above that make the odds of speech e to one


@dataclass(frozen=True)
class VadOptions:
    """How sure, how long and how far apart; the names are faster-whisper's where it has the same.

    Raises
    ------
    OptionError
        A value is of another type or out of its range.
    """

    threshold: float = 0.35  # probability from which on it is speech; 0 to 1
    neg_threshold: float | None = None  # ... below which speech has ended; None: 0.15 less than `threshold`
    min_speech_duration_ms: float = 0  # shorter speech does not count
    min_silence_duration_ms: float = 100  # shorter pauses do not count
    speech_pad_ms: float = 200  # added to both ends of each stretch
    method: str = "auto"  # "silero", "energy", or "auto": Silero's network where it is installed

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise OptionError(f"method={self.method!r}: it must be one of {', '.join(METHODS)}")
        self._check("threshold", 1.0)
        if self.neg_threshold is not None:
            self._check("neg_threshold", self.threshold)
        for name in ("min_speech_duration_ms", "min_silence_duration_ms", "speech_pad_ms"):
            self._check(name, math.inf)

    def _check(self, name: str, most: float) -> None:
        value = getattr(self, name)
        number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
        if not (number and 0 <= value <= most and value < math.inf):
            bounds = "of at least 0" if most == math.inf else f"from 0 to {most:g}"
            raise OptionError(f"{name}={value!r}: it must be a number {bounds}")

    @property
    def end_threshold(self) -> float:
        """Probability below which speech has ended."""
        return max(self.threshold - 0.15, 0.01) if self.neg_threshold is None else self.neg_threshold

    @staticmethod
    def of(given: VadOptions | Mapping[str, Any] | str | None) -> VadOptions:
        """Make options of whatever a user gives: nothing, fields by name, or text ``"threshold=0.4,method=energy"``.

        Raises
        ------
        UnknownOptionError
            There is no field of this name.
        OptionError
            A value is out of its range, or the text is not ``name=value,name=value``.
        """
        if isinstance(given, VadOptions):
            return given
        if given is None:
            return VadOptions()
        if not isinstance(given, (str, Mapping)):
            raise OptionError(f"vad_parameters must be text or fields by name, not {given!r}")
        named = _parsed(given) if isinstance(given, str) else dict(given)
        known = [field.name for field in fields(VadOptions)]
        for name in named:
            if name not in known:
                near = difflib.get_close_matches(str(name), known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
                raise UnknownOptionError(f"vad_parameters has no field {name!r}; {hint}")
        try:
            return VadOptions(**named)
        except OptionError as error:
            raise OptionError(f"vad_parameters: {error}") from None


LEAST_PART = 0.4  # seconds: a stretch is cut into nothing shorter
SMOOTHED = 3  # steps whose mean tells where to cut
METHODS = ("auto", "silero", "energy")


def _parsed(text: str) -> dict[str, Any]:
    """Fields by name from ``name=value,name=value``; whatever is no number stays text."""
    named: dict[str, Any] = {}
    for item in filter(None, (item.strip() for item in text.split(","))):
        name, equals, value = (part.strip() for part in item.partition("="))
        if not (name and equals and value):
            raise OptionError(f"vad_parameters must be 'name=value,name=value', and {item!r} is not")
        try:
            named[name] = None if value == "None" else float(value)
        except ValueError:
            named[name] = value
    return named


@dataclass(frozen=True, eq=False)
class Speech:
    """Where somebody speaks in one recording.

    Attributes
    ----------
    spans
        First and last second of each stretch of speech, padded: to the millisecond, in order, apart from each other
        and inside the recording.
    probabilities
        How likely it is that somebody speaks in each step, float32 ``(n_steps,)``; not padded.
    duration
        Seconds of the recording.
    method
        Who has judged: "silero" or "energy".
    step
        Seconds that one probability is for.
    """

    spans: tuple[Span, ...]
    probabilities: Track
    duration: float
    method: str
    step: float = STEP / SAMPLE_RATE

    def within(self, start: float, end: float) -> list[Span]:
        """Return the stretches of speech between two times, cut off there."""
        first = bisect_right(self.spans, start, key=lambda span: span[1])
        found = []
        for span_start, span_end in self.spans[first:]:
            if span_start >= end:
                break
            found.append((max(span_start, start), min(span_end, end)))
        return found

    def seconds_within(self, start: float, end: float) -> float:
        """Seconds of speech between two times."""
        return sum(span_end - span_start for span_start, span_end in self.within(start, end))

    def pauses(self, at_least: float = 0.0) -> list[Span]:
        """Return the stretches without speech that last so many seconds, those at both ends of the recording too."""
        edges = [0.0, *(time for span in self.spans for time in span), self.duration]
        gaps = zip(edges[::2], edges[1::2], strict=True)
        return [(start, end) for start, end in gaps if end - start >= max(at_least, 0.001)]

    def clips(self, n_frames: int, longest_pause: float = 2.0) -> list[tuple[int, int]]:
        """Return first frame and frame after the last of each clip with speech.

        Parameters
        ----------
        n_frames
            Frames of 10 ms that the recording has; none reaches beyond.
        longest_pause
            Seconds: pauses as long as this part two clips, and shorter ones lie within.
        """
        clips = [
            (min(math.floor(_frames(start)), n_frames), min(math.ceil(_frames(end)), n_frames))
            for start, end in _joined(self.spans, longest_pause)
        ]
        return [clip for clip in clips if clip[0] < clip[1]]

    def mean_probability(self, start: float, end: float) -> float:
        """How likely it is, on average over the steps between two times, that somebody speaks; 0 where none lie."""
        steps = self._steps(start, end)
        return float(steps.mean()) if len(steps) else 0.0

    def highest_probability(self, start: float, end: float) -> float:
        """How likely it is that somebody speaks anywhere between two times; 0 where no step lies there."""
        return float(self._steps(start, end).max(initial=0.0))

    def cut(self, span: Span, longest: float, pause: float = 0.0) -> list[Span]:
        """Cut a stretch in two, and these again, each where it is likeliest that nobody speaks.

        Parameters
        ----------
        span
            First and last second.
        longest
            Seconds that no part exceeds in the end, unless it would take parts shorter than `LEAST_PART`.
        pause
            Parts that are short enough are cut, too, where the probability of speech is below this: at pauses that the
            padding of stretches hides.
        """
        start, end = span
        steps = self._steps(start + LEAST_PART, end - LEAST_PART)
        if len(steps) < SMOOTHED:
            return [span]
        smooth = np.convolve(steps, np.full(SMOOTHED, 1 / SMOOTHED), "valid")
        lowest = int(smooth.argmin())
        if end - start <= longest and not smooth[lowest] < pause:
            return [span]
        first = max(math.floor((start + LEAST_PART) / self.step), 0)
        at = round((first + lowest + SMOOTHED / 2) * self.step, 3)
        return [*self.cut((start, at), longest, pause), *self.cut((at, end), longest, pause)]

    def _steps(self, start: float, end: float) -> Track:
        """The probabilities of the steps that begin before `end` and end after `start`."""
        return self.probabilities[max(math.floor(start / self.step), 0) : max(math.ceil(end / self.step), 0)]


def _frames(seconds: float) -> float:
    """The same in frames, without what binary fractions add to a whole one."""
    return round(seconds * FRAMES_PER_SECOND, 3)


Read: TypeAlias = Callable[[int, int], Samples]


def find_speech(samples: Samples, options: VadOptions | None = None) -> Speech:
    """Find speech in 16 kHz mono samples, float32 ``(n_samples,)``; see `detecting`."""
    steps = detecting(lambda begin, end: samples[begin:end], len(samples), options)
    try:
        while True:
            next(steps)
    except StopIteration as done:
        speech: Speech = done.value
        return speech


def detecting(read: Read, n_samples: int, options: VadOptions | None = None) -> Generator[float, None, Speech]:
    """Find speech in steps of a few milliseconds, so that others can work in between.

    Parameters
    ----------
    read
        ``read(begin, end)`` gives these samples of the recording, float32 ``(end - begin,)``, at 16 kHz.
    n_samples
        Samples that the recording has.
    options
        See `VadOptions`.

    Yields how many seconds have been looked at, for Silero's network twice over; returns the speech. May be closed at
    any step. However the recording is read and whatever runs beside it, the result is the same to the bit.

    Raises
    ------
    ModelNotFoundError, CheckpointError
        ``method="silero"``, and its network is not installed, or is another than the one known here.
    """
    options = options or VadOptions()
    network = _network(options.method)
    decibels = yield from _hearing(_decibels, read, n_samples)
    if network is None:
        probabilities = _likelihood(decibels)
    else:
        probabilities = yield from _hearing(_Attention(network, decibels).judge, read, n_samples)
    total = 1000 * n_samples // SAMPLE_RATE  # whole milliseconds
    spans = tuple((start / 1000, end / 1000) for start, end in _spans(probabilities, total, options))
    return Speech(spans, probabilities, n_samples / SAMPLE_RATE, "silero" if network else "energy")


def _network(method: str) -> silero.Network | None:
    """The network that is to judge; None where loudness is."""
    if method == "energy":
        return None
    try:
        return silero.load()
    except WhisperError:
        if method == "silero":
            raise
        return None


def _hearing(judge: Callable[[Samples], Track], read: Read, n_samples: int) -> Generator[float, None, Track]:
    """Let `judge` hear block after block, the last step filled up with silence; returns a number for each step."""
    tracks = [np.zeros(0, np.float32)]
    for begin in range(0, n_samples, BLOCK * STEP):
        end = min(begin + BLOCK * STEP, n_samples)
        block = np.zeros(math.ceil((end - begin) / STEP) * STEP, np.float32)
        block[: end - begin] = read(begin, end)
        tracks.append(judge(block))
        yield end / SAMPLE_RATE
    return np.concatenate(tracks)


class _Attention:
    """Silero's network, helped with what it does not hear: quiet speech, and short words after a long pause.

    The loudest step of each half minute is brought to `LOUDEST`, and a block that ends in a pause is forgotten.
    """

    def __init__(self, network: silero.Network, decibels: Track) -> None:
        self._listener = silero.Listener(network)
        self._n_done = 0
        starts = range(0, len(decibels), NEIGHBOURS)
        self._middles = [start + NEIGHBOURS / 2 for start in starts]
        self._gains = [LOUDEST - float(_around(decibels, start).max()) for start in starts]

    def judge(self, block: Samples) -> Track:
        """How likely speech is in each step of the next block."""
        steps = np.arange(self._n_done, self._n_done + len(block) // STEP)
        self._n_done += len(steps)
        gains = 10.0 ** (np.interp(steps, self._middles, self._gains) / 20.0)
        leveled = block.reshape(-1, STEP) * gains.astype(np.float32)[:, None]
        probabilities = self._listener.hear(leveled.reshape(-1))
        if probabilities[-PAUSE:].max() < UNLIKELY:
            self._listener.forget()
        return probabilities


def _around(decibels: Track, start: int) -> Track:
    """The neighbourhood of the 10 s from step `start` on: these and the 10 s on either side."""
    return decibels[max(start - NEIGHBOURS, 0) : start + 2 * NEIGHBOURS]


# ---------------------------------------------------------------------------------------------------------
# From probabilities to stretches
# ---------------------------------------------------------------------------------------------------------


def _spans(probabilities: Track, total: int, options: VadOptions) -> list[tuple[int, int]]:
    """Stretches of speech in milliseconds, none beyond `total`.

    Speech is where the probability stays at `end_threshold` or above and reaches `threshold` in between.
    """
    runs = _runs(probabilities >= options.end_threshold)
    runs = [run for run in runs if probabilities[slice(*run)].max() >= options.threshold]
    speech = [(start * STEP_MS, end * STEP_MS) for start, end in runs]
    speech = _joined(speech, options.min_silence_duration_ms)
    speech = [span for span in speech if span[1] - span[0] >= options.min_speech_duration_ms]
    pad = round(options.speech_pad_ms)
    speech = _joined([(max(start - pad, 0), min(end + pad, total)) for start, end in speech], 1)
    return [(start, end) for start, end in speech if start < end]


def _runs(flags: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First index and index after the last of each run of true values."""
    edges: list[int] = np.flatnonzero(np.diff(flags, prepend=False, append=False)).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def _joined(spans: Sequence[tuple[_Time, _Time]], shortest_pause: float) -> list[tuple[_Time, _Time]]:
    """Make one of those that lie closer together than `shortest_pause`."""
    joined = list(spans[:1])
    for start, end in spans[1:]:
        if start - joined[-1][1] < shortest_pause:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined


# ---------------------------------------------------------------------------------------------------------
# Judged by loudness
# ---------------------------------------------------------------------------------------------------------


def _decibels(samples: Samples) -> Track:
    """Loudness of each step, whatever constant it is shifted by, shape ``(n_samples // STEP,)``."""
    power = samples.reshape(-1, STEP).var(axis=1, dtype=np.float64)
    decibels: Track = (10.0 * np.log10(np.maximum(power, 10 ** (SILENCE / 10)))).astype(np.float32)
    return decibels


def _likelihood(decibels: Track) -> Track:
    """How likely speech is by loudness alone: what stands out of its neighbourhood, or all where nothing does."""
    likelihood = np.zeros_like(decibels)
    for start in range(0, len(decibels), NEIGHBOURS):
        around = _around(decibels, start)
        floor = float(np.percentile(around, FLOOR_SHARE))
        reach = float(around.max()) - floor
        limit = floor + min(RISE * reach, MOST_RISE) if reach >= LEAST_RANGE else SILENCE
        here = decibels[start : start + NEIGHBOURS]
        odds = np.exp(np.minimum((here - limit) / SLOPE, 50.0))
        likelihood[start : start + NEIGHBOURS] = np.where(here > SILENCE, odds / (1.0 + odds), 0.0)
    return likelihood
