"""Languages: candidates, detection from several windows, recordings that switch, warnings for idle options."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import whisper
from whisper.decoding import DecodingOptions
from whisper.engine.operations import InlineRequest
from whisper.errors import LanguageError, OptionError
from whisper.model import Whisper
from whisper.options.transcription import TranscribeOptions
from whisper.transcription.identify import identify_language
from whisper.transcription.languages import (
    LanguageTracker,
    can_translate,
    candidates,
    combine,
    detecting_language,
    most_probable,
    most_spoken_language,
    option_warnings,
    restrict,
    window_starts,
)

from ..models import random_model

FRAMES = 3000  # of a window


@pytest.fixture(scope="module")
def nano() -> Whisper:
    return whisper.load_model("nano", device="cpu")


@pytest.fixture(scope="module")
def english_only() -> Whisper:
    return random_model(0, n_vocab=51864)


# ---------------------------------------------------------------------------------------------------------
# Options
# ---------------------------------------------------------------------------------------------------------


def test_codes_and_names_each_once(nano: Whisper) -> None:
    assert candidates(nano, ["en", "French", "fr", "english"]) == ("en", "fr")
    assert candidates(nano, "de, Welsh") == ("de", "cy")
    assert len(candidates(nano, None)) == nano.num_languages


@pytest.mark.parametrize(
    ("wrong", "message"),
    [([], "names none"), ("", "names none"), (["Klingon"], "Klingon"), (["en", 5], "not 5"), ("en,,fr", "''|none|")],
)
def test_what_is_no_language_is_an_error(nano: Whisper, wrong: Any, message: str) -> None:
    with pytest.raises(LanguageError, match=message):
        candidates(nano, wrong)


@pytest.mark.parametrize(
    ("decoding", "options", "warning"),
    [
        ({"language": "en"}, {"languages": ["fr"]}, "languages=['fr'] has no effect when language='en' is given"),
        ({"language": "en"}, {"multilingual": True}, "multilingual=True has no effect when language='en' is given"),
        ({}, {"languages": ["fr"], "multilingual": True}, "languages has only one language"),
        ({"language": "en"}, {"verify_language": True}, "verify_language=True has no effect when language='en'"),
        ({}, {"languages": ["fr"], "language_detection_segments": 4}, "language_detection_segments=4"),
        ({"task": "translate"}, {}, "decoder was pruned"),
        ({}, {"languages": ["fr", "en"], "multilingual": True}, ""),
        ({}, {}, ""),
    ],
)  # fmt: skip
def test_options_without_effect_are_warnings(
    nano: Whisper, decoding: dict[str, Any], options: dict[str, Any], warning: str
) -> None:
    found = list(option_warnings(nano, TranscribeOptions(**options), DecodingOptions(**decoding)))
    assert bool(found) == bool(warning)
    assert warning in " ".join(found)


def test_an_english_only_model_says_so(english_only: Whisper) -> None:
    options = TranscribeOptions(languages=["fr"], multilingual=True, language_detection_segments=3)
    found = list(option_warnings(english_only, options, DecodingOptions(language="fr", task="translate")))
    assert len(found) == 5
    assert all("English-only" in one for one in found)
    assert not list(option_warnings(english_only, TranscribeOptions(languages=["en"]), DecodingOptions(language="en")))
    with pytest.raises(LanguageError, match="English-only"):
        identify_language(english_only, np.zeros(16000, np.float32))


def test_which_models_can_translate(nano: Whisper, english_only: Whisper) -> None:
    assert not can_translate(nano)
    assert not can_translate(english_only)
    assert can_translate(random_model(0, n_audio_layer=2, n_text_layer=2))
    assert not can_translate(random_model(0, n_audio_layer=2, n_text_layer=1))


def test_translating_with_a_model_that_cannot_is_a_warning(nano: Whisper) -> None:
    with pytest.warns(UserWarning, match="decoder was pruned"):
        nano.transcribe(np.zeros(16000, np.float32), task="translate", language="en")


# ---------------------------------------------------------------------------------------------------------
# Of a whole recording
# ---------------------------------------------------------------------------------------------------------


def test_windows_are_spread_over_the_speech_and_apart() -> None:
    assert window_starts([(0.0, 300.0)], 4) == [0, 7500, 15000, 22500]
    assert window_starts([(0.0, 20.0)], 4) == [0]
    assert window_starts([(5.25, 40.0)], 1) == [525]
    seeks = window_starts([(0.0, 10.0), (1000.0, 1090.0)], 3)
    assert seeks[0] == 0
    assert all(seek >= 100000 for seek in seeks[1:])
    assert all(b - a >= FRAMES for a, b in pairwise(seeks))


class ScriptedBackend:
    """A backend that gives the probabilities of the window that begins at a frame."""

    def __init__(self, probs: dict[int, dict[str, float]]) -> None:
        self.probs, self.asked = probs, 0

    async def encode(self, mel: Any) -> int:
        return int(mel)

    async def detect(self, window: Any) -> dict[str, float]:
        self.asked += 1
        return self.probs[window]


class Frames(SimpleNamespace):
    """Features whose windows are the numbers of their first frames."""

    def window(self, seek: int, size: int) -> int:
        return seek


def detected(
    monkeypatch: pytest.MonkeyPatch, probs: dict[int, dict[str, float]], codes: tuple[str, ...], n: int, **given: Any
) -> Any:
    monkeypatch.setattr("whisper.transcription.audio_context.pad_or_trim", lambda mel, length: mel)
    backend: Any = ScriptedBackend(probs)
    detection = InlineRequest(detecting_language(backend, Frames(n_frames=12000), n, codes, **given)).result()
    return detection, backend


def test_several_windows_are_surer_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    jingle = {"en": 0.6, "fr": 0.3, "de": 0.1}
    french = {"en": 0.1, "fr": 0.8, "de": 0.1}
    probs = {0: jingle, 3000: french, 6000: french, 9000: french}
    one, _ = detected(monkeypatch, probs, ("en", "fr", "de"), 1)
    four, backend = detected(monkeypatch, probs, ("en", "fr", "de"), 4)
    assert (one.language, four.language, backend.asked) == ("en", "fr", 4)
    assert sum(four.probs.values()) == pytest.approx(1)
    assert [start for start, _ in four.windows] == [0, 30, 60, 90]


def test_only_the_chosen_languages_are_possible_and_a_single_one_is_not_detected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    probs = {0: {"en": 0.7, "fr": 0.2, "de": 0.1}}
    chosen, _ = detected(monkeypatch, probs, ("de", "fr"), 1)
    assert chosen.language == "fr"
    assert chosen.probs == pytest.approx({"de": 1 / 3, "fr": 2 / 3})
    alone, backend = detected(monkeypatch, {}, ("cy",), 4)
    assert (alone.language, alone.probs, backend.asked) == ("cy", {"cy": 1.0}, 0)


def test_windows_with_more_speech_count_more() -> None:
    english, french = {"en": 0.9, "fr": 0.1}, {"en": 0.1, "fr": 0.9}
    assert most_probable(combine([english, french], [1.0, 20.0])) == "fr"
    assert most_probable(combine([english, french], [20.0, 1.0])) == "en"
    assert combine([english, french], [0.0, 0.0]) == pytest.approx({"en": 0.5, "fr": 0.5})
    assert restrict({"en": 0.0, "fr": 0.0, "de": 1.0}, ["en", "fr"]) == {"en": 0.5, "fr": 0.5}


def test_identify_language_tells_all_probabilities(nano: Whisper) -> None:
    rng = np.random.default_rng(0)
    sound = (0.01 * rng.standard_normal(16000 * 70)).astype(np.float32)
    found = identify_language(nano, sound, languages=["en", "fr", "de"], segments=2)
    assert found.language == max(found.probs, key=found.probs.__getitem__)
    assert set(found.probs) == {"en", "fr", "de"}
    assert sum(found.probs.values()) == pytest.approx(1)
    assert [start for start, _ in found.windows] == [0, 35]
    with pytest.raises(OptionError, match="segments"):
        identify_language(nano, sound, segments=0)


def test_the_report_has_the_probabilities(nano: Whisper) -> None:
    sound = np.zeros(16000, np.float32)
    transcript, report = whisper.transcribe_with_report(nano, sound, languages=["en", "cy"])
    assert set(report.language_probs) == {"en", "cy"}
    assert transcript["language"] == report.language == max(report.language_probs, key=report.language_probs.get)


# ---------------------------------------------------------------------------------------------------------
# Window by window
# ---------------------------------------------------------------------------------------------------------


def tracked(*windows: float) -> list[str]:
    """The language after each window, given the probability of English in it; else it is French."""
    tracker = LanguageTracker({"en": 0.9, "fr": 0.1})
    found = []
    for english in windows:
        tracker.update({"en": english, "fr": 1 - english})
        found.append(most_probable(tracker._probs))
    return found


def test_one_doubtful_window_changes_nothing_and_sure_ones_do() -> None:
    assert tracked(0.9, 0.4, 0.9) == ["en", "en", "en"]
    assert tracked(0.9, 0.02) == ["en", "fr"]
    assert tracked(0.9, 0.2, 0.2) == ["en", "en", "fr"]
    assert tracked(0.02, 0.02, 0.98, 0.98)[-1] == "en"


def test_the_language_most_spoken() -> None:
    segments: Any = [{"start": 0, "end": 5}, {"start": 5, "end": 30, "language": "fr"}]
    assert most_spoken_language([("en", segments)]) == "fr"
    assert most_spoken_language([("en", []), ("de", [])]) == "en"
