"""The transcript of a whole session."""

from __future__ import annotations

from typing import Any

from whisper.live.events import Final
from whisper.live.transcript import joined


def result(text: str, language: str = "en", **more: Any) -> Any:
    segment = {"id": 0, "seek": 0, "start": 0.2, "end": 1.0, "text": text, **more}
    return {"text": text, "language": language, "segments": [segment]}


def test_items_are_moved_to_where_they_lie() -> None:
    word = {"word": " b", "start": 0.2, "end": 0.5, "probability": 1.0}
    finals = [Final(0, 1.024, 3.0, result(" a")), Final(1, 4.096, 9.0, result(" b", "de", words=[word]))]
    transcript = joined(finals)
    assert transcript["text"] == " a b"
    assert [(s["id"], s["start"], s["end"], s["seek"]) for s in transcript["segments"]] == [
        (0, 1.224, 2.024, 102),
        (1, 4.296, 5.096, 410),
    ]
    assert transcript["segments"][1]["words"][0]["start"] == 4.296
    assert transcript["language"] == "de"
    assert finals[1].result["segments"][0]["start"] == 0.2  # the given ones stay


def test_no_items_are_no_text() -> None:
    assert joined([]) == {"text": "", "segments": [], "language": "en"}
