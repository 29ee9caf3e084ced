"""Search: phrases with and without spaces, by speaker, language and date, in an index that follows the job."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from whisper.cli import cli
from whisper.cli.search import _first_words, _last_words
from whisper.errors import OptionError
from whisper.jobs.job import stores
from whisper.jobs.reports.search import Hit, SearchIndex

from .. import fakes
from ..fakes import Scene

SAID: dict[str, list[dict[str, Any]]] = {
    "call": [
        {"text": " Good morning, how can I help?", "speaker": "A"},
        {"text": " The café's invoice was wrong again.", "speaker": "B"},
        {"text": " I am sorry about the invoice.", "speaker": "A"},
    ],
    "talk": [
        {"text": " Rechnungen und Preise", "language": "de"},
        {"text": " 我们今天讨论发票的问题", "language": "zh"},
    ],
}


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    def transcript_of(content: str, _: int = 0) -> dict[str, Any]:
        name = names[content]
        plain = fakes_transcript(content, 1)["segments"][0]
        segments = [{**plain, "id": i, "start": 2.0 * i, "end": 2.0 * i + 2, **s} for i, s in enumerate(SAID[name])]
        return {"text": "".join(s["text"] for s in segments), "segments": segments, "language": "en"}

    fakes_transcript = fakes.transcript_of
    monkeypatch.setattr(fakes, "transcript_of", transcript_of)
    made, names = Scene(tmp_path), {}
    for name in SAID:
        names[fakes.content_of(str(made.add(f"{name}.wav", name)))] = name
    made.run()
    return made


def search(scene: Scene, phrase: str, **conditions: Any) -> list[Hit]:
    opened, index = stores(scene.out), SearchIndex(scene.out)
    try:
        index.update(opened)
        return index.search(phrase, **conditions)
    finally:
        index.close()
        for store in opened:
            store.close()


def test_a_phrase_is_found_with_its_context(scene: Scene) -> None:
    (hit,) = search(scene, "CAFES INVOICE") or search(scene, "cafe's invoice")
    assert (hit.source, hit.start, hit.end, hit.speaker) == (str(scene.inputs / "call.wav"), 2.0, 4.0, "B")
    assert hit.before.startswith("Good morning")
    assert hit.after.startswith("I am sorry")


def test_words_must_follow_each_other(scene: Scene) -> None:
    assert len(search(scene, "invoice")) == 2
    assert search(scene, "invoice again") == []
    assert search(scene, 'OR "NEAR(') == []


def test_languages_without_spaces(scene: Scene) -> None:
    assert [hit.text for hit in search(scene, "讨论发票")] == ["我们今天讨论发票的问题"]
    assert len(search(scene, "发票")) == len(search(scene, "问")) == 1
    assert search(scene, "票发") == []


def test_conditions(scene: Scene) -> None:
    assert len(search(scene, "invoice", speaker="B")) == 1
    assert len(search(scene, "Preise", language="German")) == 1
    assert search(scene, "Preise", language="en") == []
    os.utime(scene.inputs / "call.wav", (1000, 1000))
    scene.run()
    assert search(scene, "invoice", after=2000) == []
    assert len(search(scene, "invoice", after=500)) == 2
    assert len(search(scene, "invoice", limit=1)) == 1
    with pytest.raises(OptionError, match="nothing to look for"):
        search(scene, " ?! ")


def test_what_is_everywhere_is_not_ranked(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    first = search(scene, "invoice")
    monkeypatch.setattr("whisper.jobs.reports.search.MOST_RANKED", 1)
    hits = search(scene, "invoice")
    assert {hit.score for hit in hits} == {0.0}
    assert {hit.text for hit in hits} == {hit.text for hit in first}


def test_the_index_follows_the_job(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    assert search(scene, "invoice")
    (scene.inputs / "call.wav").write_text("talk")  # its content is now that of the other
    scene.run()
    assert search(scene, "invoice") == []
    assert len(search(scene, "Preise")) == 2


def test_what_stands_around_is_cut_between_words() -> None:
    words = " ".join(f"word{i}" for i in range(30))
    assert _first_words(words).startswith("word0 word1 ")
    assert _first_words(words).endswith(" word9 …")
    assert _last_words(words).startswith("… word22 ")
    assert _last_words(words).endswith(" word29")
    assert _first_words("short") == _last_words("short") == "short"
    assert _last_words("发" * 99) == "… " + "发" * 60


def test_the_command(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(scene.out)
    assert cli(["search", out, "invoice", "--speaker", "B", "--after", "2001-01-01"]) == 0
    told = capsys.readouterr().out
    assert f"{scene.inputs / 'call.wav'}  00:02.000  B" in told
    assert "[The café's invoice was wrong again.]" in told
    assert cli(["search", out, "Preise", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["language"] == "de"
    assert cli(["search", out, "nobody said this"]) == 1
    assert "'nobody said this' was not found" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli(["search", out, "invoice", "--after", "yesterday"])
    assert cli(["search", str(scene.inputs), "invoice"]) == 1
    assert "there is no job" in capsys.readouterr().err
