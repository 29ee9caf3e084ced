"""Real models and a person who reads: texts, times of words, languages; skipped where the models are not installed.

The recording is `examples/reading.opus`; the models are those of the extras ``base`` and ``tiny.en``.
"""

from __future__ import annotations

import difflib
import functools
from pathlib import Path
from typing import Any

import pytest

from whisper import load_model, transcribe
from whisper.checkpoints.finding import find, names
from whisper.model import Whisper
from whisper.normalizers import EnglishTextNormalizer

from .conftest import ROOT
from .real_models import load_installed, needs

READING = str(ROOT / "examples" / "reading.opus")
TEXT = (
    "Printing, in the only sense with which we are at present concerned, differs from most if not from all the arts "
    "and crafts represented in the Exhibition in being comparatively modern. The Middle Ages brought calligraphy to "
    "perfection, and it was natural therefore that the forms of printed letters should follow more or less closely "
    "those of the written character, and they followed them very closely."
)
PAUSE = (11.81, 12.51)  # seconds: between the two sentences

MODELS = [pytest.param(name, marks=needs(name)) for name in ("tiny.en", "base")]

model = functools.cache(load_installed)


@functools.cache
def transcript(name: str) -> dict[str, Any]:
    """Return what a model reads: the small one in float32, the other in the default precision, to be quick."""
    return dict(transcribe(model(name), READING, word_timestamps=True, fp16=name == "base"))


def words(text: str) -> list[str]:
    return str(EnglishTextNormalizer()(text)).split()


def errors(text: str) -> int:
    """Return how many words are not as they were read."""
    matcher = difflib.SequenceMatcher(None, words(TEXT), words(text), autojunk=False)
    return sum(max(b - a, d - c) for kind, a, b, c, d in matcher.get_opcodes() if kind != "equal")


@pytest.mark.parametrize("name", MODELS)
def test_the_text(name: str) -> None:
    found = transcript(name)
    assert found["language"] == "en"
    assert errors(found["text"]) <= {"tiny.en": 2, "base": 1}[name]


@pytest.mark.parametrize("name", MODELS)
def test_the_times_of_words(name: str) -> None:
    timed = [word for segment in transcript(name)["segments"] for word in segment["words"]]
    assert "".join(word["word"] for word in timed) == transcript(name)["text"]
    starts = [word["start"] for word in timed]
    assert starts == sorted(starts)
    assert all(word["start"] <= word["end"] <= 25.4 for word in timed)
    last = next(i for i, word in enumerate(timed) if word["word"].strip(" .,") == "modern")
    assert timed[last]["end"] == pytest.approx(PAUSE[0], abs=0.4)
    assert timed[last + 1]["start"] == pytest.approx(PAUSE[1], abs=0.4)


@needs("tiny.en")
def test_the_default_precision_reads_as_well() -> None:
    assert errors(transcribe(model("tiny.en"), READING)["text"]) <= errors(transcript("tiny.en")["text"]) + 1


@pytest.mark.slow
@needs("base")
def test_base_makes_no_error_in_float32() -> None:
    assert errors(transcribe(model("base"), READING, fp16=False)["text"]) == 0


@pytest.mark.parametrize("name", MODELS)
def test_the_model_is_what_its_name_says(name: str) -> None:
    loaded = model(name)
    assert loaded.dims == names.dimensions(name)
    assert loaded.is_multilingual is not names.is_english_only(name)
    assert len(loaded.alignment_heads.indices().T) == {"tiny.en": 8, "base": 8}[name]


@pytest.mark.parametrize("name", MODELS)
def test_it_is_found_by_name(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for variable in ("HOME", "USERPROFILE", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path))
    for variable in ("SOTTO_FIND", "SOTTO_MODELS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(find, "_told", set())
    first = next(find.copies(name))
    assert first.whose.startswith("installed package ")
    assert (first.stored.format, first.stored.precision) == ("CTranslate2", "float16")
    loaded: Whisper = load_model(name, device="cpu")
    assert loaded.dims == names.dimensions(name)
    assert f"taking {name} from {first.path} ({first.whose}; CTranslate2, float16)" in capsys.readouterr().err
    assert first.check() == "its SHA-256 is as it should be"
