"""Results whose text is hostile to file formats, for the tests of writers and readers."""

from __future__ import annotations

from typing import Any


def word(text: str, start: float, end: float, probability: float = 0.9) -> dict[str, Any]:
    return {"word": text, "start": start, "end": end, "probability": probability}


def segment(words: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {
        "start": words[0]["start"],
        "end": words[-1]["end"],
        "text": "".join(w["word"] for w in words),
        "words": words,
        **more,
    }


def result(*segments: dict[str, Any], language: str = "en") -> dict[str, Any]:
    return {"text": "".join(s["text"] for s in segments), "segments": list(segments), "language": language}


# two speakers and a third text without one; tags, arrows, entities, quotes, other scripts, an hour
TALK = result(
    segment(
        [word(" He", 0.5, 0.7), word(" said", 0.7, 1.0), word(' "hi"', 1.1, 1.3), word(" &", 1.3, 1.4),
         word(" <b>left</b>.", 1.5, 2.0)],
        speaker="Ann",
    ),
    segment([word(" A", 2.5, 3.0), word(" -->", 3.0, 3.2), word(" &amp;", 3.2, 4.0)], speaker="Bob B."),
    segment([word(" Ünïcode", 3725.24, 3725.48), word(" 日本語", 3725.48, 3726.0), word(" 👩‍👩‍👧.", 3726.0, 3726.52)]),
)  # fmt: skip
TEXTS = [s["text"].strip() for s in TALK["segments"]]
TIMES = [(s["start"], s["end"]) for s in TALK["segments"]]
PLAIN = result(
    segment([word(" One", 0.0, 0.5), word(" two.", 0.5, 1.0)]), segment([word(" Three.", 1.24, 2.0)]), language="de"
)
