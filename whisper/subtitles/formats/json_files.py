"""JSON: our own results, the Podcasting 2.0 form, and those of WhisperX, whisper.cpp, OpenAI's API and YouTube."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ...errors import DataError
from ..cues import TimedWord
from .document import Document, span, speaker_of
from .parsing import Piece, Timed, TimedTexts, words_in

# values of a segment of ours that say how it was decoded, kept where they are there
_DECODED = (
    "seek", "tokens", "temperature", "avg_logprob", "compression_ratio", "no_speech_prob", "token_logprobs", "language",
    "channel",
)  # fmt: skip
_MILLISECONDS = 0.001


def write_json(document: Document) -> str:
    """The whole result, as it is."""
    return json.dumps(document.result)


def write_podcast(document: Document) -> str:
    """The transcript of a podcast.

    Source: Podcasting 2.0 namespace, transcripts, JSON 1.0.0.
    """
    segments = []
    for segment in document.segments:
        start, end = (at * _MILLISECONDS for at in span(segment.start, segment.end))
        speaker = {"speaker": segment.speaker} if segment.speaker else {}
        segments.append({**speaker, "startTime": round(start, 3), "endTime": round(end, 3), "body": segment.text})
    return json.dumps({"version": "1.0.0", "segments": segments}, ensure_ascii=False, indent=1) + "\n"


# ---------------------------------------------------------------------------------------------------------
# Read
# ---------------------------------------------------------------------------------------------------------


def read_json(text: str) -> Timed:
    """Read JSON of one of the programs that this module knows, told by its keys."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"no JSON: {error}") from None
    if isinstance(found, list):
        found = {"segments": found}
    if isinstance(found, Mapping):
        for key, read in _READERS:
            if isinstance(found.get(key), list):
                language = found.get("language")
                timed = _checked(read, found)
                return Timed(timed.pieces, timed.language or (language if isinstance(language, str) else ""))
    raise DataError(f"the JSON is no transcript: it needs a list called {', '.join(key for key, _ in _READERS)}")


def _checked(read: Callable[[Mapping[str, Any]], Timed], found: Mapping[str, Any]) -> Timed:
    try:
        return read(found)
    except DataError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError, LookupError, OverflowError) as error:
        raise DataError(f"the JSON is no transcript: {type(error).__name__}: {error}") from None


def _segments(found: Mapping[str, Any]) -> Timed:
    """Segments of ours, openai-whisper's, faster-whisper's, WhisperX's, of OpenAI's API, or of a podcast."""
    beside = found.get("words") or found.get("word_segments") or []  # the segments, as in verbose_json
    all_words = TimedTexts([(w["start"], w["end"], w["word"], w.get("score")) for w in beside if "start" in w])
    pieces = []
    for number, segment in enumerate(found["segments"]):
        if not isinstance(segment, Mapping):
            raise DataError(f"segments[{number}] is no object")
        start, end = (_number(segment, names, number) for names in (("start", "startTime"), ("end", "endTime")))
        text = segment.get("text", segment.get("body"))
        if not isinstance(text, str):
            raise DataError(f"segments[{number}] has no text")
        words = segment.get("words")
        if words is None:
            inside = all_words.within(start, end)
            words = [{"word": word, "start": a, "end": b, "score": score} for word, a, b, score in inside]
        more = {key: segment[key] for key in _DECODED if key in segment}
        pieces.append(Piece(start, end, text, speaker_of(segment) if segment.get("speaker") else None,
                            _words(text, words, start, end), more))  # fmt: skip
    return Timed(pieces)


def _number(segment: Mapping[str, Any], names: Iterable[str], number: int) -> float:
    value = next((segment[name] for name in names if name in segment), None)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise DataError(f"segments[{number}] has no times")
    return float(value)


def _words(text: str, words: Iterable[Mapping[str, Any]], start: float, end: float) -> tuple[TimedWord, ...]:
    """Return the words of a segment, with the white space that they have in its text."""
    given = list(words)
    spoken = [w["word"] if "word" in w else w["text"] for w in given]
    probable = [w.get("probability", w.get("score")) for w in given]
    placed = words_in(
        " " + " ".join(text.split()),
        [(s, w.get("start"), w.get("end"), p) for s, w, p in zip(spoken, given, probable, strict=True)],
        start,
        end,
    )
    if len(placed) != len(given):
        return placed
    speakers = [speaker_of(w) for w in given]
    return tuple(TimedWord(w.text, w.start, w.end, who, w.probability) for w, who in zip(placed, speakers, strict=True))


def _of_whisper_cpp(found: Mapping[str, Any]) -> Timed:
    """JSON of whisper.cpp; with ``-ojf`` it has tokens, of which words are made."""
    result = found.get("result")
    language = result.get("language", "") if isinstance(result, Mapping) else ""
    pieces = []
    for segment in found["transcription"]:
        start, end = (segment["offsets"][name] * _MILLISECONDS for name in ("from", "to"))
        text = segment["text"]
        speaker = segment.get("speaker")
        words = _words_of_tokens(segment.get("tokens") or (), text, start, end)
        pieces.append(Piece(start, end, text, None if speaker in (None, "", "?") else str(speaker), words))
    return Timed(pieces, language)


def _words_of_tokens(tokens: Iterable[Mapping[str, Any]], text: str, start: float, end: float) -> tuple[TimedWord, ...]:
    """Join tokens into words: each begins with white space, and those of the model's own are none."""
    words: list[tuple[str, list[Mapping[str, Any]]]] = []
    for token in tokens:
        piece = token["text"]
        if piece.startswith("[_") and piece.endswith("]"):
            continue
        if not words or piece[:1].isspace():
            words.append((piece, [token]))
        else:
            words[-1] = (words[-1][0] + piece, [*words[-1][1], token])
    timed = []
    for word, own in words:
        offsets = [token.get("offsets") for token in own]
        if None in offsets:
            return ()
        first, last = offsets[0]["from"] * _MILLISECONDS, offsets[-1]["to"] * _MILLISECONDS  # type: ignore[index]
        probability = sum(float(token.get("p", 1.0)) for token in own) / len(own)
        timed.append((word, first, last, probability))
    return words_in(" " + " ".join(text.split()), timed, start, end)


def _of_youtube(found: Mapping[str, Any]) -> Timed:
    """JSON of YouTube (json3): events with segments, and line breaks as events of their own."""
    pieces = []
    for event in found["events"]:
        parts = event.get("segs")
        if not parts or event.get("aAppend"):
            continue
        start = event["tStartMs"] * _MILLISECONDS
        end = start + event.get("dDurationMs", 0) * _MILLISECONDS
        text = "".join(part.get("utf8", "") for part in parts)
        starts = [start + part["tOffsetMs"] * _MILLISECONDS for part in parts[1:] if "tOffsetMs" in part]
        words: tuple[TimedWord, ...] = ()
        if len(starts) == len(parts) - 1 > 0:
            begin = [start, *starts]
            given = [(p.get("utf8", ""), a, b, None) for p, a, b in zip(parts, begin, [*starts, end], strict=True)]
            words = words_in(" " + " ".join(text.split()), given, start, end)
        pieces.append(Piece(start, end, text, None, words))
    return Timed(pieces)


_READERS: tuple[tuple[str, Callable[[Mapping[str, Any]], Timed]], ...] = (
    ("segments", _segments),
    ("transcription", _of_whisper_cpp),
    ("events", _of_youtube),
)
