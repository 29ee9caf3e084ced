"""The report of a transcription: plain values, a table and a plot."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from whisper.audit.confidence import CALIBRATIONS
from whisper.audit.report import KINDS, Finding, Report, finding
from whisper.errors import OptionError
from whisper.spans import merge_spans
from whisper.speech.vad import Speech


@pytest.fixture
def report() -> Report:
    report = Report(duration=700.0, language="en", language_probs={"en": 0.9, "de": 0.1})
    report.findings.append(finding("uncovered", (61.5, 65.25), "", "no text passed"))
    report.findings.append(finding("dropped", (3.0, 4.0), " Thank you.", "no speech"))
    words = [{"word": " a", "start": 10.0, "end": 10.5, "probability": 1.0}]
    segments = [{"start": 9.0, "end": 12.0, "text": " a", "words": words}, {"start": 20, "end": 22, "text": " b"}]
    speech = Speech(((10.0, 11.0), (20.0, 22.0), (61.5, 65.25)), np.zeros(4, np.float32), 700.0, "energy")
    report.close(segments, speech, CALIBRATIONS["general"])  # type: ignore[arg-type]
    return report


def test_it_is_plain_values_in_the_order_of_time(report: Report) -> None:
    told = json.loads(json.dumps(report.to_dict()))
    assert [f["kind"] for f in told["findings"]] == ["dropped", "uncovered"]
    assert told["text"] == [[10.0, 10.5], [20, 22]]
    assert told["speech_seconds"] == 6.75
    assert told["language_probs"] == {"en": 0.9, "de": 0.1}
    assert report.remaining == [Finding("uncovered", 61.5, 65.25, "", "no text passed")]


def test_its_table_has_a_line_for_the_whole_and_one_for_each_finding(report: Report) -> None:
    first, empty, *rest = report.table().splitlines()
    assert first == "700.0 s, 6.8 s of speech (energy): 1 dropped, 1 uncovered"
    assert empty == ""
    assert rest == [
        "00:03.000 - 00:04.000  dropped    no speech: 'Thank you.'",
        "01:01.500 - 01:05.250  uncovered  no text passed",
    ]


def test_without_speech_it_says_that_nothing_was_compared() -> None:
    empty = Report(duration=2.0)
    empty.close([], None, CALIBRATIONS["general"])
    assert "audit=True" in empty.table()
    assert empty.to_dict()["speech"] is None


def test_spans_that_touch_are_one() -> None:
    assert merge_spans([(3, 4), (0, 1), (1.1, 2), (0.5, 0.7)], 0.2) == [(0, 2), (3, 4)]


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_its_picture(report: Report, tmp_path: Path, kind: str) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / f"report.{kind}"
    report.plot(path)
    assert path.stat().st_size > 5000
    if kind == "svg":
        assert all(word in path.read_text() for word in ("1 dropped, 1 uncovered", "speech", "11:40"))


def test_a_picture_of_unknown_kind_and_of_nothing(report: Report, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(OptionError, match=r"report\.xyz"):
        report.plot(tmp_path / "report.xyz")
    Report().plot(tmp_path / "nothing.png")
    assert (tmp_path / "nothing.png").exists()


def test_every_kind_has_its_colour() -> None:
    from whisper.audit.timeline_plot import COLOURS

    assert list(COLOURS) == ["speech", "text", *KINDS]
