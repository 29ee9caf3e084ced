"""Our own public names, beside openai-whisper's: they are where the documents say, and are documented themselves."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import whisper
from whisper.errors import WhisperError

from ..conftest import ROOT, run_python
from .test_contract import NAMES as NAMES_OF_OPENAI

# What README and guide promise, by module; a package of which this is all that one sees is a face.
NAMES = {
    "": "align diarize enrol iter_segments transcribe_with_report identify_language",
    "alignment": "align",
    "audit.report": "Report Finding",
    "checkpoints": "available_models load_model save_checkpoint",
    "checkpoints.bundled": "pack unpack read_card",
    "cli": "cli",
    "engine": "Engine Priority busy_seconds claiming configure",
    "errors": "WhisperError AudioError CancelledError CapacityError CheckpointError DataError DeviceError "
    "DownloadError ItemError LanguageError MissingDependencyError ModelNotFoundError NumberError "
    "OptionError ProcessError ResultError ServerError SessionError ShapeError TrainingError "
    "UnknownLanguageTokenError UnknownOptionError",
    "evaluation": "choose compare evaluate",
    "evaluation.html_report": "make_report",
    "evaluation.results": "Evaluation",
    "evaluation.scoring": "score_words",
    "jobs": "JobResult run",
    "manifests": "read_manifest",
    "manifests.read": "Manifest ManifestEntry",
    "results": "Segment Transcript Word",
    "speakers.diarization": "Diarization Turn",
    "speakers.voices": "Voice",
    "subtitles": "lay_out Cue TimedWord read write",
    "speech.vad": "Speech VadOptions find_speech",
    "subtitles.checking": "Finding check",
    "training": "FitOptions fit",
    "training.trainer": "Settings Stage train",
    "transcription.languages": "Detection",
}
FACES = [module for module in NAMES if module and hasattr(importlib.import_module(f"whisper.{module}"), "__path__")]
DOCUMENTS = [
    "README.md",
    "docs/guide.md",
    "docs/model-card.md",
    "docs/soundness.md",
    "docs/architecture.md",
    "docs/jobs.md",
]


def module_of(name: str) -> types.ModuleType:
    return importlib.import_module(f"whisper.{name}" if name else "whisper")


@pytest.mark.parametrize(("module", "name"), [(m, name) for m, names in NAMES.items() for name in names.split()])
def test_a_public_name_is_there_and_documented(module: str, name: str) -> None:
    thing = getattr(module_of(module), name)
    doc = inspect.getdoc(thing) or ""
    assert doc, f"whisper.{module}.{name} has no docstring"
    if inspect.isfunction(thing):
        assert not list(undocumented(thing, doc))


def undocumented(function: Callable[..., Any], doc: str) -> Iterator[str]:
    """What a docstring in numpydoc's form should say of a function, and does not."""
    sections = re.split(r"\n(\w[\w ]*)\n-{3,}\n", doc)
    of = dict(zip(sections[1::2], sections[2::2], strict=True))
    for parameter in inspect.signature(function).parameters:
        if not re.search(rf"^[\w*, ]*(?<!\w){parameter}\b", of.get("Parameters", ""), re.MULTILINE):
            yield parameter
    returns = inspect.signature(function).return_annotation
    said = of.keys() & {"Returns", "Yields"} or "return" in sections[0].lower()
    if returns not in (None, "None") and not said:
        yield "Returns"


@pytest.mark.parametrize("face", FACES)
def test_a_face_shows_what_is_promised_and_no_more(face: str) -> None:
    shown = {
        name
        for name in dir(module_of(face))
        if not name.startswith("_") and not isinstance(getattr(module_of(face), name), types.ModuleType)
    }
    assert shown == set(NAMES[face].split())


def test_the_package_shows_what_is_promised_and_no_more() -> None:
    shown = {
        name
        for name in dir(whisper)
        if not name.startswith("_") and not isinstance(getattr(whisper, name), types.ModuleType)
    }
    assert shown == {name for name in f"{NAMES['']} {NAMES_OF_OPENAI['']}".split() if not name.startswith("_")}


def test_in_the_command_names_are_imported_when_something_asks_for_them() -> None:
    code = (
        "import sys; sys.argv[0] = '/bin/whisper'\n"
        "import whisper, whisper.transcribe\n"
        "assert 'torch' not in sys.modules and 'whisper.model' not in sys.modules\n"
        "names = sys.argv[1].split()\n"
        "assert set(names) <= set(dir(whisper)) and all(hasattr(whisper, name) for name in names)\n"
        "assert whisper.transcribe is sys.modules['whisper.transcribe'].transcribe is whisper.Whisper.transcribe\n"
        "assert not hasattr(whisper, 'no_such_name')"
    )
    run_python(code, f"{NAMES['']} {NAMES_OF_OPENAI['']} audio decoding model timing tokenizer utils")


def test_every_error_is_listed() -> None:
    errors = importlib.import_module("whisper.errors")
    found = {n for n, e in vars(errors).items() if inspect.isclass(e) and issubclass(e, WhisperError)}
    assert found == set(NAMES["errors"].split())


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_names_in_the_documents_exist(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    paths = set(re.findall(r"(?<![\w./-])whisper((?:\.[A-Za-z_]\w*)+)", text))
    paths |= {
        f"{module}.{name}"
        for module, names in re.findall(r"from whisper((?:\.\w+)*) import ([\w, ]+)", text)
        for name in names.replace(" ", "").split(",")
    }
    assert not [path for path in sorted(paths - {".cpp"}) if not exists(path.removeprefix("."))]
    assert not [name for name in re.findall(r"python3? -m (whisper[\w.]*)", text) if not runs(name)]


def runs(module: str) -> bool:
    """Whether ``python -m <module>`` does something: it is a program, or a package with one."""
    if not exists(module.partition(".")[2]):
        return False
    spec = importlib.util.find_spec(module)
    if spec is not None and spec.submodule_search_locations is not None:
        return importlib.util.find_spec(f"{module}.__main__") is not None
    return spec is not None and 'if __name__ == "__main__"' in Path(str(spec.origin)).read_text(encoding="utf-8")


def exists(path: str) -> bool:
    """Whether ``whisper.<path>`` is a module, or something in one."""
    found: Any = whisper
    for part in filter(None, path.split(".")):
        if not hasattr(found, part) and not _is_submodule(found, part):
            return False
        found = getattr(found, part) if hasattr(found, part) else importlib.import_module(f"{found.__name__}.{part}")
    return True


def _is_submodule(package: Any, name: str) -> bool:
    return hasattr(package, "__path__") and importlib.util.find_spec(f"{package.__name__}.{name}") is not None
