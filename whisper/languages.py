"""Which language is spoken: in a whole recording, by several of its windows, and from one window to the next.

What the network says of each window is restricted to the languages that may be meant, and combined. Decodes no text,
cuts no sound, and never overrules a language that was given.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any

from .audio import FRAMES_PER_SECOND, N_FRAMES, pad_or_trim
from .errors import LanguageError, OptionError
from .features import Features
from .hearing import Hearing, hearing_for
from .language_names import code_of
from .options import DecodingOptions, TranscribeOptions
from .results import Segment
from .tokenizer import get_tokenizer
from .tracks import check_track
from .vad import Span, VadOptions
from .vad import detecting as detecting_speech
from .work import Direct, Job, Steps, pausing

if TYPE_CHECKING:
    from .audio import Source
    from .model import Whisper

LEAST_PROBABILITY = 1e-6  # so that one window that rules a language out is not stronger than all others together
SWITCH = 0.1  # how likely another language is in the next window, against the same once more


@dataclass(frozen=True)
class Detection:
    """The language of a recording.

    Attributes
    ----------
    language
        Code of the likeliest.
    probs
        Probability of each language that it was chosen among, by code.
    windows
        For each window that was asked: where it begins, in seconds, and its own probabilities.
    """

    language: str
    probs: dict[str, float]
    windows: tuple[tuple[float, dict[str, float]], ...]


def identify_language(
    model: Whisper,
    audio: Source,
    *,
    languages: Sequence[str] | str | None = None,
    segments: int = 4,
    vad_parameters: Mapping[str, Any] | str | None = None,
    fp16: bool = True,
    audio_track: int | str | None = None,
) -> Detection:
    """Tell which language is spoken in a recording.

    Parameters
    ----------
    model
        A multilingual model.
    audio
        Path, bytes, open file, or samples at 16 kHz; see `load_audio`.
    languages
        Codes or names of those to choose among, or both, as a sequence or with commas; by default, all of the model's.
    segments
        Windows of 30 s to ask, spread over the speech of the recording; of a short one, as many as it has.
    vad_parameters
        How to find the speech; see `vad.VadOptions`.
    fp16
        The fastest precision that the device does well; False is float32.
    audio_track
        Of a file with several audio tracks, the number of one, from 0, or its language.

    Raises
    ------
    AudioError
        The recording cannot be read. (A RuntimeError.)
    LanguageError
        A language is unknown, or the model knows only English. (A ValueError.)
    OptionError
        Another option is wrong. (A ValueError.)
    """
    if isinstance(segments, bool) or not isinstance(segments, Integral) or segments < 1:
        raise OptionError(f"segments must be a whole number of at least 1, not {segments!r}")
    if not model.is_multilingual:
        raise LanguageError("this model knows only English and cannot tell languages apart")
    codes, vad_options, hearing = candidates(model, languages), VadOptions.of(vad_parameters), hearing_for(model, fp16)

    def steps() -> Steps:
        features = yield from pausing(Features.reading(audio, model.dims.n_mels, audio_track=check_track(audio_track)))
        speech = yield from pausing(detecting_speech(features.samples, features.n_samples, vad_options))
        return (yield from detecting(hearing, features, int(segments), codes, speech.spans))

    engine = hearing.engine
    detection: Detection = (Direct(steps()) if engine is None else engine.submit(steps())).result()
    return detection


# ---------------------------------------------------------------------------------------------------------
# What is asked for
# ---------------------------------------------------------------------------------------------------------


def candidates(model: Whisper, languages: Sequence[str] | str | None) -> tuple[str, ...]:
    """Return the codes of the languages to choose among: those named, each once, or all that the model has.

    Raises
    ------
    LanguageError
        None are named, or one that does not exist or that the model does not have. (An OptionError.)
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
    """Whether a model may have learned to translate to English.

    A decoder with fewer layers than the encoder was cut down to transcribe and nothing else: such are turbo, the
    distilled models and the bundled one.
    """
    return model.is_multilingual and model.dims.n_text_layer >= model.dims.n_audio_layer


def doubts(model: Whisper, options: TranscribeOptions, decoding: DecodingOptions) -> Iterator[str]:
    """Say which of the options about languages can have no effect here, or a doubtful one."""
    asked = {
        f"languages={options.languages!r}": options.languages is not None,
        f"language_detection_segments={options.language_detection_segments}": options.language_detection_segments > 1,
        "multilingual=True": options.multilingual,
    }
    named = candidates(model, options.languages)
    if not model.is_multilingual:
        if decoding.language is not None and "en" not in candidates(model, [decoding.language]):
            yield f"language={decoding.language!r} has no effect: the model knows only English"
        asked[f"languages={options.languages!r}"] &= named != ("en",)
        yield from (f"{name} has no effect: the model knows only English" for name in asked if asked[name])
        if decoding.task == "translate":
            yield "task='translate' has no effect: the model knows only English"
        return
    if decoding.language is not None:
        yield from (f"{name} has no effect beside language={decoding.language!r}" for name in asked if asked[name])
    elif len(named) == 1:
        others = list(asked)[1:]
        yield from (f"{name} has no effect: languages names one alone" for name in others if asked[name])
    if decoding.task == "translate" and not can_translate(model):
        dims = model.dims
        yield (
            f"task='translate': this model's decoder was cut down (to {dims.n_text_layer} layers; the encoder has "
            f"{dims.n_audio_layer}), as turbo's and the distilled models', and such models write down what is said in "
            "the language that it is said in; medium and large can translate"
        )


# ---------------------------------------------------------------------------------------------------------
# Of a whole recording
# ---------------------------------------------------------------------------------------------------------


def detecting(
    hearing: Hearing,
    features: Features,
    n_windows: int,
    codes: Sequence[str],
    spans: Sequence[Span] = (),
    encoded: dict[int, Any] | None = None,
) -> Generator[Job, Any, Detection]:
    """Ask about several windows of a recording; about none where there is only one language to choose.

    Parameters
    ----------
    hearing
        How the model is asked.
    features
        The recording.
    n_windows
        Windows to ask, at most. A single one is the first 30 s, or those after the first speech where that is known.
    codes
        Languages to choose among.
    spans
        Stretches of speech, in seconds; none where they are not known.
    encoded
        Filled with what the windows were encoded to, by their first frame.
    """
    if len(codes) == 1:
        return Detection(codes[0], {codes[0]: 1.0}, ())
    spans = spans or [(0.0, features.n_frames / FRAMES_PER_SECOND)]
    windows, weights = [], []
    for seek in places(spans, n_windows):
        window = yield from hearing.encode(pad_or_trim(features.window(seek, N_FRAMES), N_FRAMES))
        if encoded is not None:
            encoded[seek] = window
        probs = yield from hearing.detect(window)
        start = seek / FRAMES_PER_SECOND
        windows.append((start, among(probs, codes)))
        weights.append(sum(_overlap(span, (start, start + N_FRAMES / FRAMES_PER_SECOND)) for span in spans))
    probs = combined([probs for _, probs in windows], weights)
    return Detection(likeliest(probs), probs, tuple(windows))


def places(spans: Sequence[Span], n_windows: int) -> list[int]:
    """Return the first frames of windows that begin at equal shares of the speech and do not overlap.

    There are `n_windows` of them or, where the speech lies closer together, fewer, but always one.
    """
    extent = (spans[-1][1] - spans[0][0]) * FRAMES_PER_SECOND
    n_windows = max(1, min(n_windows, math.ceil(extent / N_FRAMES)))
    total = sum(end - start for start, end in spans)
    found: list[int] = []
    for i in range(n_windows):
        seek = math.floor(round(_after(spans, total * i / n_windows) * FRAMES_PER_SECOND, 3))
        if not found or seek >= found[-1] + N_FRAMES:
            found.append(seek)
    return found


def _after(spans: Sequence[Span], seconds: float) -> float:
    """When so much has been spoken."""
    for start, end in spans:
        if seconds < end - start:
            break
        seconds -= end - start
    return start + min(seconds, end - start)


def _overlap(a: Span, b: Span) -> float:
    return max(0.0, min(a[1], b[1]) - max(a[0], b[0]))


# ---------------------------------------------------------------------------------------------------------
# Probabilities
# ---------------------------------------------------------------------------------------------------------


def among(probs: Mapping[str, float], codes: Sequence[str]) -> dict[str, float]:
    """Return the probabilities of these languages, given that it is one of them."""
    return _normalised({code: max(probs[code], LEAST_PROBABILITY) for code in codes})


def combined(windows: Sequence[Mapping[str, float]], weights: Sequence[float]) -> dict[str, float]:
    """Combine what several windows say of one recording, each by its weight: the weighted mean of the logarithms."""
    total = sum(weights)
    shares = [weight / total if total else 1 / len(windows) for weight in weights]
    logs = {
        code: sum(share * math.log(window[code]) for share, window in zip(shares, windows, strict=True))
        for code in windows[0]
    }
    return _normalised({code: math.exp(log) for code, log in logs.items()})


def likeliest(probs: Mapping[str, float]) -> str:
    """Return the likeliest language; of equal ones, the first."""
    return max(probs, key=probs.__getitem__)


def _normalised(probs: dict[str, float]) -> dict[str, float]:
    total = sum(probs.values())
    return {code: p / total for code, p in probs.items()}


# ---------------------------------------------------------------------------------------------------------
# From window to window
# ---------------------------------------------------------------------------------------------------------


class Following:
    """The language of each window of a recording that may switch, where one doubtful window does not change it.

    What is believed of a window is what the window itself says, times what was believed of the one before: the same
    language again, or, by `SWITCH`, any other. So a window must be about ten times surer of another language to
    change it at once, and two in a row about three times.

    Parameters
    ----------
    probs
        What is known before the first window: the probability of each language to choose among.
    """

    def __init__(self, probs: Mapping[str, float]) -> None:
        self._belief = dict(probs)

    def hear(self, hearing: Hearing, window: Any) -> Generator[Job, Any, str]:
        """Return the language of the next window, encoded by `hearing`."""
        if len(self._belief) > 1:
            self.update((yield from hearing.detect(window)))
        return likeliest(self._belief)

    def update(self, probs: Mapping[str, float]) -> None:
        """Take in what the network says of the next window."""
        of_window = among(probs, list(self._belief))
        kept = ((1 - SWITCH) * belief + SWITCH for belief in self._belief.values())
        self._belief = _normalised({code: p * of_window[code] for code, p in zip(of_window, kept, strict=True)})


def most_spoken(parts: Sequence[tuple[str, Sequence[Segment]]]) -> str:
    """Return the language of most seconds of text, given parts with a language each that their segments may overrule.

    Of equal ones, the first.
    """
    seconds: dict[str, float] = {language: 0.0 for language, _ in parts}
    for language, segments in parts:
        for segment in segments:
            spoken = segment.get("language", language)
            seconds[spoken] = seconds.get(spoken, 0.0) + segment["end"] - segment["start"]
    return likeliest(seconds)
