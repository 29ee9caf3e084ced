"""Transcripts made of words at even times, for the tests of what is written and laid out."""

from __future__ import annotations

from typing import Any

Result = dict[str, Any]


def segment(words: list[tuple[str, float, float]], **changed: Any) -> dict[str, Any]:
    """A segment as `transcribe` gives it, made of its words."""
    return {
        "start": words[0][1] if words else 0.0,
        "end": words[-1][2] if words else 0.0,
        "text": "".join(text for text, _, _ in words),
        "words": [{"word": text, "start": s, "end": e, "probability": 0.9} for text, s, e in words],
        **changed,
    }


def result(*segments: dict[str, Any]) -> Result:
    return {"text": "".join(s["text"] for s in segments), "segments": list(segments), "language": "en"}


def spoken(text: str, start: float = 0.0, pace: float = 0.4, gap: float = 0.0) -> dict[str, Any]:
    """A segment whose words, cut before each space, follow one another at an even pace."""
    words = [word for word in text.replace(" ", "\0 ").split("\0") if word]
    times = [start + i * (pace + gap) for i in range(len(words))]
    return segment([(w, round(t, 2), round(t + pace, 2)) for w, t in zip(words, times, strict=True)])


def without_words(made: Result) -> Result:
    return {**made, "segments": [{k: v for k, v in s.items() if k != "words"} for s in made["segments"]]}


FOX = result(
    spoken(" The quick brown fox jumps over the lazy dog, twice, and then sleeps."),
    spoken(" Nobody saw it.", start=6.0, gap=0.1),
    spoken(" But the hen did.", start=12.5),
)
