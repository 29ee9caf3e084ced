"""Voice activity detection: samples in, speech segments out, in seconds of the recording.

There are two methods that give a speech probability for each 32 ms: Silero VAD, or, where that is
not installed, the loudness, which takes noise and music for speech rather than miss a word. The
same rules turn the probabilities of both into speech segments. Keeps nothing between recordings and
changes no samples; knows no text and no model.
"""

from __future__ import annotations

import difflib
import math
from bisect import bisect_right
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..errors import OptionError, UnknownOptionError, WhisperError
from ..spans import FRAMES_PER_SECOND, SAMPLE_RATE, FrameRange, Span, merge_spans, true_runs
from . import silero

if TYPE_CHECKING:
    from ..audio import Samples

Track: TypeAlias = npt.NDArray[np.float32]  # one number for each step

STEP = silero.STEP  # samples that get one probability
STEP_MS = 1000 * STEP // SAMPLE_RATE
BLOCK_STEPS = 256  # that are read and processed at once: 8 s

# Silero VAD
PAUSE_STEPS, PAUSE_PROB = 32, 0.1  # a block ends in a pause if its last second is below this
PEAK_DB = -5.0  # to which the loudest step of each neighbourhood is amplified

# Loudness, in decibels; full scale is 0
SILENCE_DB = -100.0  # of 16-bit samples, only digital silence is quieter
NEIGHBOUR_STEPS = 312  # the neighbourhood of a step: 10 s and the 10 s on either side
FLOOR_PERCENTILE = 10  # of the loudness of steps: the noise floor
MIN_RANGE_DB = 6.0  # from the floor to the loudest step; with less, everything may be speech
RISE, MAX_RISE_DB = 0.2, 8.0  # speech begins at this part of the range, limited in decibels
SLOPE_DB = 2.0  # above that, which make the odds of speech e to one


@dataclass(frozen=True)
class VadOptions:
    """Settings of voice activity detection; the names are faster-whisper's where it has the same.

    Raises
    ------
    OptionError
        A value is of another type or out of its range.
    """

    threshold: float = 0.35  # speech begins at this probability; 0 to 1
    neg_threshold: float | None = None  # speech ends below it; None: 0.15 less than `threshold`
    min_speech_duration_ms: float = 0  # shorter speech segments are dropped
    min_silence_duration_ms: float = 100  # shorter pauses are part of the speech
    speech_pad_ms: float = 200  # padding, added to both ends of each speech segment
    method: str = "auto"  # "silero", "energy" (loudness), or "auto": Silero VAD if installed

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
        """Make options of None, fields by name, or text such as ``"threshold=0.4,method=energy"``.

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


MIN_PART_SECONDS = 0.4  # of the parts that `Speech.split` makes
SMOOTHED_STEPS = 3  # whose mean probability decides where to split
METHODS = ("auto", "silero", "energy")


def _parsed(text: str) -> dict[str, Any]:
    """Parse ``name=value,name=value``; a value that is no number stays text."""
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
    """The speech in one recording.

    Attributes
    ----------
    spans
        Start and end of each speech segment, seconds, padded: to the millisecond, in order,
        disjoint and inside the recording.
    probabilities
        Speech probability of each step, float32 ``(n_steps,)``; not padded.
    duration
        Seconds of the recording.
    method
        "silero" or "energy".
    step
        Seconds per probability.
    """

    spans: tuple[Span, ...]
    probabilities: Track
    duration: float
    method: str
    step: float = STEP / SAMPLE_RATE

    def within(self, start: float, end: float) -> list[Span]:
        """Return the speech between two times; segments that cross them are cut off there."""
        first = bisect_right(self.spans, start, key=lambda span: span[1])
        found = []
        for span_start, span_end in self.spans[first:]:
            if span_start >= end:
                break
            found.append((max(span_start, start), min(span_end, end)))
        return found

    def seconds_within(self, start: float, end: float) -> float:
        """Return the seconds of speech between two times."""
        return sum(span_end - span_start for span_start, span_end in self.within(start, end))

    def pauses(self, at_least: float = 0.0) -> list[Span]:
        """Return the pauses of at least so many seconds, with those at both ends."""
        edges = [0.0, *(time for span in self.spans for time in span), self.duration]
        gaps = zip(edges[::2], edges[1::2], strict=True)
        return [(start, end) for start, end in gaps if end - start >= max(at_least, 0.001)]

    def clips(self, n_frames: int, min_pause: float = 2.0) -> list[FrameRange]:
        """Return the parts of the recording that have speech, as ranges of frames.

        Parameters
        ----------
        n_frames
            Frames of 10 ms in the recording; no part ends after them.
        min_pause
            Seconds between the padded speech segments of two parts; shorter pauses are within a
            part.
        """
        clips = [
            (min(math.floor(_frames(start)), n_frames), min(math.ceil(_frames(end)), n_frames))
            for start, end in merge_spans(self.spans, min_pause)
        ]
        return [clip for clip in clips if clip[0] < clip[1]]

    def mean_probability(self, start: float, end: float) -> float:
        """Return the mean speech probability between two times; 0 where there is no step."""
        steps = self._steps(start, end)
        return float(steps.mean()) if len(steps) else 0.0

    def highest_probability(self, start: float, end: float) -> float:
        """Return the highest speech probability between two times; 0 where there is no step."""
        return float(self._steps(start, end).max(initial=0.0))

    def split(self, span: Span, max_seconds: float, pause_prob: float = 0.0) -> list[Span]:
        """Split a speech segment in two, and the parts again, each where speech is least probable.

        Parameters
        ----------
        span
            Start and end, seconds.
        max_seconds
            Longest part, unless that takes parts shorter than `MIN_PART_SECONDS`.
        pause_prob
            Parts that are short enough are split, too, where the speech probability is below this:
            at pauses that the padding of speech segments hides.
        """
        start, end = span
        steps = self._steps(start + MIN_PART_SECONDS, end - MIN_PART_SECONDS)
        if len(steps) < SMOOTHED_STEPS:
            return [span]
        smooth = np.convolve(steps, np.full(SMOOTHED_STEPS, 1 / SMOOTHED_STEPS), "valid")
        lowest = int(smooth.argmin())
        if end - start <= max_seconds and not smooth[lowest] < pause_prob:
            return [span]
        first = max(math.floor((start + MIN_PART_SECONDS) / self.step), 0)
        at = round((first + lowest + SMOOTHED_STEPS / 2) * self.step, 3)
        return [*self.split((start, at), max_seconds, pause_prob), *self.split((at, end), max_seconds, pause_prob)]

    def _steps(self, start: float, end: float) -> Track:
        """Return the probabilities of the steps that begin before `end` and end after `start`."""
        return self.probabilities[max(math.floor(start / self.step), 0) : max(math.ceil(end / self.step), 0)]


def _frames(seconds: float) -> float:
    """Convert seconds to frames, without the rounding error of binary fractions."""
    return round(seconds * FRAMES_PER_SECOND, 3)


Read: TypeAlias = "Callable[[int, int], Samples]"


def find_speech(samples: Samples, options: VadOptions | None = None) -> Speech:
    """Find speech in 16 kHz mono samples, float32 ``(n_samples,)``; see `detecting_speech`."""
    steps = detecting_speech(lambda begin, end: samples[begin:end], len(samples), options)
    try:
        while True:
            next(steps)
    except StopIteration as done:
        speech: Speech = done.value
        return speech


def detecting_speech(read: Read, n_samples: int, options: VadOptions | None = None) -> Generator[float, None, Speech]:
    """Find speech, as a generator of steps of a few milliseconds.

    Parameters
    ----------
    read
        ``read(begin, end)`` returns these samples of the recording, float32 ``(end - begin,)``, at
        16 kHz.
    n_samples
        Samples in the recording.
    options
        See `VadOptions`.

    Yields the seconds that are done, for Silero VAD of two passes; returns the speech. May be
    closed at any step. The result is the same to the bit, however the recording is read and
    whatever runs at the same time.

    Raises
    ------
    ModelNotFoundError, CheckpointError
        ``method="silero"``, and Silero VAD is not installed, or is not a supported version.
    """
    options = options or VadOptions()
    network = _network(options.method)
    decibels = yield from _process_blocks(_decibels, read, n_samples)
    if network is None:
        probabilities = _loudness_probs(decibels)
    else:
        probabilities = yield from _process_blocks(_LeveledDetector(network, decibels).speech_probs, read, n_samples)
    total = 1000 * n_samples // SAMPLE_RATE  # whole milliseconds
    spans = tuple((start / 1000, end / 1000) for start, end in _spans(probabilities, total, options))
    return Speech(spans, probabilities, n_samples / SAMPLE_RATE, "silero" if network else "energy")


def _network(method: str) -> silero.Network | None:
    """Return the network to use; None for loudness."""
    if method == "energy":
        return None
    try:
        return silero.load()
    except WhisperError:
        if method == "silero":
            raise
        return None


def _process_blocks(process: Callable[[Samples], Track], read: Read, n_samples: int) -> Generator[float, None, Track]:
    """Process a recording block by block; returns a number for each step."""
    tracks = [np.zeros(0, np.float32)]
    for begin in range(0, n_samples, BLOCK_STEPS * STEP):
        end = min(begin + BLOCK_STEPS * STEP, n_samples)
        block = np.zeros(math.ceil((end - begin) / STEP) * STEP, np.float32)
        block[: end - begin] = read(begin, end)
        tracks.append(process(block))
        yield end / SAMPLE_RATE
    return np.concatenate(tracks)


class _LeveledDetector:
    """Silero VAD, so that it detects quiet speech, and short words after a long pause, too.

    The loudest step of each half minute is amplified to `PEAK_DB`, and the state is reset after a
    block that ends in a pause.
    """

    def __init__(self, network: silero.Network, decibels: Track) -> None:
        self._detector = silero.Detector(network)
        self._n_done = 0
        starts = range(0, len(decibels), NEIGHBOUR_STEPS)
        self._middles = [start + NEIGHBOUR_STEPS / 2 for start in starts]
        self._gains = [PEAK_DB - float(_neighbourhood(decibels, start).max()) for start in starts]

    def speech_probs(self, block: Samples) -> Track:
        """Return the speech probability of each step of the next block."""
        steps = np.arange(self._n_done, self._n_done + len(block) // STEP)
        self._n_done += len(steps)
        gains = 10.0 ** (np.interp(steps, self._middles, self._gains) / 20.0)
        leveled = block.reshape(-1, STEP) * gains.astype(np.float32)[:, None]
        probabilities = self._detector.speech_probs(leveled.reshape(-1))
        if probabilities[-PAUSE_STEPS:].max() < PAUSE_PROB:
            self._detector.reset()
        return probabilities


def _neighbourhood(decibels: Track, start: int) -> Track:
    """Return the 10 s from step `start` on and the 10 s on either side."""
    return decibels[max(start - NEIGHBOUR_STEPS, 0) : start + 2 * NEIGHBOUR_STEPS]


# --------------------------------------------------------------------------------------------------
# From probabilities to speech segments
# --------------------------------------------------------------------------------------------------


def _spans(probabilities: Track, total: int, options: VadOptions) -> list[tuple[int, int]]:
    """Return the speech segments in milliseconds, none after `total`.

    In a speech segment the probability stays at `end_threshold` or above, and reaches `threshold`.
    """
    runs: list[list[int]] = true_runs(probabilities >= options.end_threshold).tolist()
    speech = [
        (start * STEP_MS, end * STEP_MS) for start, end in runs if probabilities[start:end].max() >= options.threshold
    ]
    speech = merge_spans(speech, options.min_silence_duration_ms)
    speech = [span for span in speech if span[1] - span[0] >= options.min_speech_duration_ms]
    pad = round(options.speech_pad_ms)
    speech = merge_spans([(max(start - pad, 0), min(end + pad, total)) for start, end in speech], 1)
    return [(start, end) for start, end in speech if start < end]


# --------------------------------------------------------------------------------------------------
# By loudness
# --------------------------------------------------------------------------------------------------


def _decibels(samples: Samples) -> Track:
    """Return the loudness of each step, without constant offset, ``(n_samples // STEP,)``."""
    power = samples.reshape(-1, STEP).var(axis=1, dtype=np.float64)
    decibels: Track = (10.0 * np.log10(np.maximum(power, 10 ** (SILENCE_DB / 10)))).astype(np.float32)
    return decibels


def _loudness_probs(decibels: Track) -> Track:
    """Return speech probabilities by loudness alone; all are high where nothing stands out."""
    probabilities = np.zeros_like(decibels)
    for start in range(0, len(decibels), NEIGHBOUR_STEPS):
        around = _neighbourhood(decibels, start)
        floor = float(np.percentile(around, FLOOR_PERCENTILE))
        reach = float(around.max()) - floor
        limit = floor + min(RISE * reach, MAX_RISE_DB) if reach >= MIN_RANGE_DB else SILENCE_DB
        here = decibels[start : start + NEIGHBOUR_STEPS]
        odds = np.exp(np.minimum((here - limit) / SLOPE_DB, 50.0))
        probabilities[start : start + NEIGHBOUR_STEPS] = np.where(here > SILENCE_DB, odds / (1.0 + odds), 0.0)
    return probabilities
