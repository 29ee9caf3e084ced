"""Language detection: of a whole recording by several of its windows, and window by window.

The probabilities of each window are restricted to the candidate languages, and combined. Decodes no
text, cuts no audio, and never overrules a language that was given.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import LanguageError
from ..options.language_names import code_of
from ..spans import FRAMES_PER_SECOND, N_FRAMES
from ..tokenizer import get_tokenizer
from .audio_context import WHOLE

if TYPE_CHECKING:
    from ..model import Whisper
    from ..options.transcription import DecodingOptions, TranscribeOptions
    from ..results import Segment
    from ..spans import FrameRange, Span
    from ..speech.features import Features
    from .audio_context import AudioContext
    from .backends import Backend

MIN_PROBABILITY = 1e-6  # so that one window that excludes a language does not outweigh all others
SWITCH_ODDS = 0.1  # of another language in the next window, against the same language again


@dataclass(frozen=True)
class Detection:
    """The language of a recording.

    Attributes
    ----------
    language
        Code of the most probable one.
    probs
        Probability of each candidate, by code.
    windows
        For each window that was used: its start, in seconds, and its own probabilities.
    """

    language: str
    probs: dict[str, float]
    windows: tuple[tuple[float, dict[str, float]], ...]


# --------------------------------------------------------------------------------------------------
# Options
# --------------------------------------------------------------------------------------------------


def candidates(model: Whisper, languages: Sequence[str] | str | None) -> tuple[str, ...]:
    """Return the codes of the candidate languages: those given, each once, or all of the model's.

    Raises
    ------
    LanguageError
        None is given, or one that does not exist or that the model does not have. (An OptionError.)
    """
    n = model.num_languages
    if languages is None:
        return get_tokenizer(True, num_languages=n).all_language_codes
    names = [name.strip() for name in languages.split(",")] if isinstance(languages, str) else list(languages)
    if not any(names):
        raise LanguageError(f"languages={languages!r} names none; give codes or names, such as ['en', 'French']")
    if wrong := [name for name in names if not isinstance(name, str)]:
        raise LanguageError(f"languages must be codes or names of languages, and not {wrong[0]!r}")
    unnamed = [name for name in names if code_of(name) is None]
    if len(unnamed) == len(names):  # "auto"
        return candidates(model, None)
    if unnamed:
        raise LanguageError(f"languages={languages!r}: {unnamed[0]!r} names none; leave it out")
    codes = (get_tokenizer(True, num_languages=n, language=name).language or "" for name in names)
    return tuple(dict.fromkeys(codes))


def can_translate(model: Whisper) -> bool:
    """Whether a model can probably translate to English.

    A decoder with fewer layers than the encoder was pruned and trained for transcription only, as
    in turbo, the distilled models and the bundled one.
    """
    return model.is_multilingual and model.dims.n_text_layer >= model.dims.n_audio_layer


def option_warnings(model: Whisper, options: TranscribeOptions, decoding: DecodingOptions) -> Iterator[str]:
    """Yield warnings about language options that have no effect here, or a doubtful one."""
    named = candidates(model, options.languages)
    detection = []  # the options of language detection that are given, apart from `languages`
    if options.language_detection_segments > 1:
        detection.append(f"language_detection_segments={options.language_detection_segments}")
    if options.multilingual:
        detection.append("multilingual=True")
    if options.verify_language:
        detection.append("verify_language=True")
    languages = [] if options.languages is None else [f"languages={options.languages!r}"]
    if not model.is_multilingual:
        if decoding.language is not None and "en" not in candidates(model, [decoding.language]):
            yield f"language={decoding.language!r} has no effect: the model is English-only"
        for option in [*([] if named == ("en",) else languages), *detection]:
            yield f"{option} has no effect: the model is English-only"
        if decoding.task == "translate":
            yield "task='translate' has no effect: the model is English-only"
        return
    if decoding.language is not None:
        for option in [*languages, *detection]:
            yield f"{option} has no effect when language={decoding.language!r} is given"
    elif len(named) == 1:
        for option in detection:
            yield f"{option} has no effect: languages has only one language"
    if decoding.task == "translate" and not can_translate(model):
        dims = model.dims
        yield (
            f"task='translate': this model's decoder was pruned (to {dims.n_text_layer} layers; the encoder has "
            f"{dims.n_audio_layer}), like those of turbo and the distilled models, and such models transcribe in the "
            "language of the speech instead; medium and large can translate"
        )


# --------------------------------------------------------------------------------------------------
# Of a whole recording
# --------------------------------------------------------------------------------------------------


async def detecting_language(
    backend: Backend,
    features: Features,
    n_windows: int,
    codes: Sequence[str],
    spans: Sequence[Span] = (),
    encoded: dict[FrameRange, Any] | None = None,
    context: AudioContext = WHOLE,
) -> Detection:
    """Detect the language of a recording from several of its windows.

    Parameters
    ----------
    backend
        Runs the model.
    features
        The recording.
    n_windows
        Most windows to use. A single one is the first 30 s, or the 30 s from the first speech where
        that is known.
    codes
        Candidate languages.
    spans
        Speech segments, in seconds; empty where they are not known.
    encoded
        The encoded windows; filled, and used where it has a window already.
    context
        How much of a window the encoder reads.
    """
    if len(codes) == 1:
        return Detection(codes[0], {codes[0]: 1.0}, ())
    spans = spans or [(0.0, features.n_frames / FRAMES_PER_SECOND)]
    windows, weights = [], []
    for seek in window_starts(spans, n_windows):
        stop = seek + N_FRAMES
        window = None if encoded is None else encoded.get((seek, stop))
        if window is None:
            window = await backend.encode(context.mel_for_detection(features, seek))
        if encoded is not None:
            encoded[seek, stop] = window
        probs = await backend.detect(window)
        start = seek / FRAMES_PER_SECOND
        end = start + N_FRAMES / FRAMES_PER_SECOND
        windows.append((start, restrict(probs, codes)))
        weights.append(sum(max(0.0, min(b, end) - max(a, start)) for a, b in spans))  # speech within
    probs = combine([probs for _, probs in windows], weights)
    return Detection(most_probable(probs), probs, tuple(windows))


def window_starts(spans: Sequence[Span], n_windows: int) -> list[int]:
    """Return the first frames of windows at equal shares of the speech, without overlap.

    There are `n_windows` of them or, where the speech has too little room for so many, fewer, but
    at least one.
    """
    extent = (spans[-1][1] - spans[0][0]) * FRAMES_PER_SECOND
    n_windows = max(1, min(n_windows, math.ceil(extent / N_FRAMES)))
    total = sum(end - start for start, end in spans)
    found: list[int] = []
    for i in range(n_windows):
        seek = math.floor(round(_time_after(spans, total * i / n_windows) * FRAMES_PER_SECOND, 3))
        if not found or seek >= found[-1] + N_FRAMES:
            found.append(seek)
    return found


def _time_after(spans: Sequence[Span], seconds: float) -> float:
    """Return the time at which so many seconds of speech have passed."""
    for start, end in spans:
        if seconds < end - start:
            break
        seconds -= end - start
    return start + min(seconds, end - start)


# --------------------------------------------------------------------------------------------------
# Probabilities
# --------------------------------------------------------------------------------------------------


def restrict(probs: Mapping[str, float], codes: Sequence[str]) -> dict[str, float]:
    """Return the probabilities of the candidates, given that the language is one of them."""
    return _normalised({code: max(probs[code], MIN_PROBABILITY) for code in codes})


def combine(windows: Sequence[Mapping[str, float]], weights: Sequence[float]) -> dict[str, float]:
    """Combine the probabilities of a recording's windows: the weighted mean of their logarithms."""
    total = sum(weights)
    shares = [weight / total if total else 1 / len(windows) for weight in weights]
    logs = {
        code: sum(share * math.log(window[code]) for share, window in zip(shares, windows, strict=True))
        for code in windows[0]
    }
    return _normalised({code: math.exp(log) for code, log in logs.items()})


def most_probable(probs: Mapping[str, float]) -> str:
    """Return the most probable language; of equal ones, the first."""
    return max(probs, key=probs.__getitem__)


def _normalised(probs: dict[str, float]) -> dict[str, float]:
    total = sum(probs.values())
    return {code: p / total for code, p in probs.items()}


# --------------------------------------------------------------------------------------------------
# Window by window
# --------------------------------------------------------------------------------------------------


class LanguageTracker:
    """The language of each window of a recording in which it may change.

    Bayesian filtering: the posterior of a window is its own probabilities times the prior from the
    window before, in which the same language continues or, by `SWITCH_ODDS`, another one begins. So
    one window changes the language if another one is about ten times as probable in it; two
    consecutive windows, if about three times.

    Parameters
    ----------
    probs
        The prior of the first window: the probability of each candidate.
    """

    def __init__(self, probs: Mapping[str, float]) -> None:
        self._probs = dict(probs)

    async def detect(self, backend: Backend, window: Any) -> str:
        """Return the language of the next window, encoded by `backend`."""
        if len(self._probs) > 1:
            self.update(await backend.detect(window))
        return most_probable(self._probs)

    def update(self, probs: Mapping[str, float]) -> None:
        """Update the posterior with the probabilities of the next window."""
        of_window = restrict(probs, list(self._probs))
        prior = ((1 - SWITCH_ODDS) * p + SWITCH_ODDS for p in self._probs.values())
        self._probs = _normalised({code: p * of_window[code] for code, p in zip(of_window, prior, strict=True)})


def most_spoken_language(parts: Sequence[tuple[str, Sequence[Segment]]]) -> str:
    """Return the language with most seconds of text; of equal ones, the first.

    A part has a language, which its segments may override.
    """
    seconds: dict[str, float] = {language: 0.0 for language, _ in parts}
    for language, segments in parts:
        for segment in segments:
            spoken = segment.get("language", language)
            seconds[spoken] = seconds.get(spoken, 0.0) + segment["end"] - segment["start"]
    return most_probable(seconds)
