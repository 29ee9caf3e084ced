"""From corrections in the library to a model of one's own: mended, given out, trained on, loaded, and heard with."""

from __future__ import annotations

import importlib.util
import io
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

import whisper
from whisper.training import fit

from .conftest import ROOT
from .server.library.keeping import LIBRARY, added, client, keeping
from .server.serving import sound


def mend(to: Any, recording: Any, text: str) -> None:
    """Change the first segment as the page does: its text, and the words that the server places."""
    path, first = f"{LIBRARY}/{recording['id']}", recording["document"]["segments"][0]
    asked = {"start": first["start"], "end": first["end"], "texts": [text], "language": "en"}
    words = to.post(f"{path}/align", json=asked).json()["segments"][0]
    segment = {**first, "text": f" {text}", "words": words, "edited": True}
    splice = {"after": None, "remove": [first["uid"]], "insert": [segment]}
    assert to.patch(path, json={"version": 1, "splices": [splice]}).status_code == 200


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of tensorboard
def test_corrections_become_a_model(tmp_path: Path) -> None:
    with client(keeping(tmp_path)) as to:
        for number in range(2):
            mend(to, added(to, sound(4, start=2 * number), tags=["mine"]), f"sotto voce {number + 1}")
        added(to, sound(3))  # not corrected: nobody says that it is right
        given = to.post(f"{LIBRARY}/export", json={"format": "manifest", "tag": "mine"})
    zipfile.ZipFile(io.BytesIO(given.content)).extractall(tmp_path / "corrections")
    lines = list[str]()
    options = {"steps": 3, "window_seconds": (10.0,), "batch_seconds": 20.0, "text": "as_given", "threads": 1}
    fitted = fit(tmp_path / "corrections", tmp_path / "own", model="nano", say=lines.append, **options)
    assert fitted.run.step == 3
    assert fitted.skipped == []
    assert any("in 2 recordings" in line for line in lines), lines
    before, after = whisper.load_model("nano", device="cpu"), whisper.load_model(str(fitted.path), device="cpu")
    assert not before.decoder.ln.weight.equal(after.decoder.ln.weight)
    audio = str(ROOT / "examples" / "sample.flac")
    told = {"language": "en", "temperature": 0.0, "fp16": False}
    assert (
        after.transcribe(audio, **told)["text"] == before.transcribe(audio, **told)["text"]
    )  # three steps spoil nothing


def test_a_person_changes_only_what_is_wrong() -> None:
    name = "corrections"
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / "corrections.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[name]
    for heard, reference, expected in (
        ("The final day.", "THE FINAL DAY", "The final day."),
        ("6, 9, 1, 3.", "SIX NINE ONE THREE", "6, 9, 1, 3."),
        ("So today is fun, my friend.", "SATURDAY IS FUN MY FRIEND", "Saturday is fun, my friend."),
        ("She lets go of his hand and rub her her ears.", "SHE LET GO OF HIS HAND AND RUBBED HER EYES",
         "She let go of his hand and rubbed her eyes."),
        ("Well done", "DONE", "done"), ("", "SOMETHING", "Something"),
    ):  # fmt: skip
        assert module.mended(heard, reference) == expected
