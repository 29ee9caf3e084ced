"""What is counted of a result: words, mean probability, and where the text may be wrong, by what is at stake."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

Place = tuple[float, float, float, str, str]  # start and end in seconds, words at stake, the reason, the text

MOST_PLACES = 5  # of a recording, that are kept with its figures
WORDS_PER_SECOND = 2.5  # of speech without text
_LOW, _REPETITIVE, _SILENT = -1.0, 2.4, 0.6  # openai-whisper's thresholds


def figures_of(transcript: Mapping[str, Any], report: Mapping[str, Any], warnings: list[str]) -> dict[str, Any]:
    """Return the figures of a result, fit for JSON.

    Returns
    -------
    dict
        ``segments``, ``words``, ``logprob`` (mean over the time of the text; None without text), ``speech`` (seconds;
        None where it was not detected), ``at_stake`` (words that may be wrong), ``places`` (start, end, words at stake,
        reason and text of the worst) and ``warnings``.
    """
    segments = transcript["segments"]
    weights = [max(s["end"] - s["start"], 0.01) for s in segments]
    logprob = None
    if segments:
        logprob = sum(w * s["avg_logprob"] for w, s in zip(weights, segments, strict=True)) / sum(weights)
    places = sorted(_places(segments, report), key=lambda place: (-place[2], place[0]))
    return {
        "segments": len(segments),
        "words": sum(_n_words(s["text"]) for s in segments),
        "logprob": None if logprob is None else round(logprob, 4),
        "speech": report.get("speech_seconds") if report.get("speech") is not None else None,
        "at_stake": round(sum(place[2] for place in places), 2),
        "places": [list(place) for place in places[:MOST_PLACES]],
        "warnings": warnings,
    }


def _places(segments: list[Mapping[str, Any]], report: Mapping[str, Any]) -> Iterator[Place]:
    """Give doubtful places."""
    for s in segments:
        reasons = []
        if s["avg_logprob"] < _LOW:
            reasons.append(f"mean log-probability {s['avg_logprob']:.2f}")
        if s["compression_ratio"] > _REPETITIVE:
            reasons.append(f"repetitive, compression ratio {s['compression_ratio']:.1f}")
        if s["no_speech_prob"] > _SILENT:
            reasons.append(f"perhaps no speech, {s['no_speech_prob']:.2f}")
        if reasons:
            stake = _n_words(s["text"]) * (1 - math.exp(min(s["avg_logprob"], 0.0)))
            stake = _n_words(s["text"]) if len(reasons) > 1 or s["compression_ratio"] > _REPETITIVE else stake
            yield s["start"], s["end"], round(stake, 2), ", ".join(reasons), s["text"].strip()
    for found in report.get("findings", ()):
        if found["kind"] == "uncovered":
            stake = WORDS_PER_SECOND * (found["end"] - found["start"])
            yield found["start"], found["end"], round(stake, 2), "speech without text", found["text"]


def _n_words(text: str) -> int:
    """Count words; of a language without spaces, about two letters are one."""
    words = text.split()
    dense = sum(1 for c in text if "\u0e00" <= c <= "\u0eff" or "\u1780" <= c <= "\u17ff" or "\u3040" <= c <= "\u9fff")
    return max(len(words), dense // 2) if words else 0
