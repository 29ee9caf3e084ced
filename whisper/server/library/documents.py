"""Documents: the transcript of a recording as people correct it, checked field by field, and changed by splices.

A document is ``{"language", "segments", "speakers", "findings", "speech"}``. Each segment has a ``uid`` that stays the
same while it is edited. Text is text: nothing here, and nothing that reads a document, takes any of it for markup.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...audit.report import KINDS
from ..errors import RequestError, invalid
from .store import conflict

if TYPE_CHECKING:
    from ...audit.report import Report
    from ...results import Segment, Transcript

MAX_TEXT = 20_000  # characters of a segment
MAX_WORDS = 5_000  # of a segment
MAX_SEGMENTS = 100_000
MAX_NAME = 200  # characters of a name, a tag, a speaker
MAX_SECONDS = 1e7
MAX_KEY = 40  # characters by which a document knows a speaker
FINDING_STATES = ("open", "accepted")
_OF_SPEAKERS = ("speaker", "overlap")  # of words: a segment has one speaker
_NUMBERED = re.compile(r"SPEAKER_(\d{2,9})")
_UID = re.compile(r"[A-Za-z0-9_-]{1,40}")
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_SHARES = ("confidence", "probability")
_KEPT = ("avg_logprob", "no_speech_prob", "compression_ratio")


def of_transcript(transcript: Transcript, report: Report | None) -> dict[str, Any]:
    """Return the document of what was heard.

    Parameters
    ----------
    transcript
        What `transcribe` returned, with words.
    report
        Of its audit.
    """
    segments = [_editable(segment) for segment in transcript["segments"]]
    speakers = dict.fromkeys(segment["speaker"] for segment in segments if "speaker" in segment)
    findings = [] if report is None else [{**finding, "state": "open"} for finding in report.to_dict()["findings"]]
    speech = None if report is None or report.speech is None else [[round(t, 2) for t in s] for s in report.speech]
    return {
        "language": transcript["language"],
        "segments": segments,
        "speakers": {
            key: _shown(key)
            for key in sorted(speakers, key=lambda key: (not key.isdecimal(), len(key) * key.isdecimal(), key))
        },
        "findings": findings,
        "speech": speech,
    }


def _editable(segment: Segment) -> dict[str, Any]:
    kept: dict[str, Any] = {
        "uid": f"s{segment['id']}",
        "start": round(segment["start"], 2),
        "end": round(max(segment["end"], segment["start"]), 2),
        "text": segment["text"],
        "words": [
            {name: value for name, value in word.items() if name not in _OF_SPEAKERS}
            for word in segment.get("words", ())
        ],
    }
    kept |= {name: round(float(segment[name]), 4) for name in _KEPT}  # type: ignore[literal-required]
    if "speaker" in segment or "channel" in segment:
        kept["speaker"] = _key(segment)
    if "language" in segment:
        kept["language"] = segment["language"]
    return kept


def _key(segment: Segment) -> str:
    """Return what a speaker is called in a document: a number, or the name of one who is known."""
    speaker = segment.get("speaker")
    if speaker is None:
        return str(segment["channel"])
    number = _NUMBERED.fullmatch(speaker)
    name = speaker[:MAX_KEY]
    return str(int(number[1])) if number else f'"{name}"' if name.isdecimal() else name


def _shown(key: str) -> str:
    """Return what a speaker is called on the page, until somebody names them."""
    return f"Speaker {int(key) + 1}" if key.isdecimal() else key


# ---------------------------------------------------------------------------------------------------------
# Changes
# ---------------------------------------------------------------------------------------------------------


def changed(document: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document after a change.

    Parameters
    ----------
    document
        As it is; stays as it is.
    change
        Some of ``splices`` (each removes the segments ``remove`` that follow the segment ``after``, None for the
        beginning, and puts ``insert`` there), ``speakers``, ``findings`` and ``language``.

    Raises
    ------
    RequestError
        The change is malformed, or does not fit this document.
    """
    new = dict(document)
    segments = list(document["segments"])
    for splice in listed(change.get("splices", []), "splices", MAX_SEGMENTS):
        segments = _spliced(segments, splice)
    uids = [segment["uid"] for segment in segments]
    if len(set(uids)) != len(uids):
        raise invalid("two segments have the same uid", "splices")
    if len(segments) > MAX_SEGMENTS:
        raise invalid(f"a transcript has at most {MAX_SEGMENTS} segments", "splices")
    new["segments"] = segments
    if "speakers" in change:
        new["speakers"] = _speakers(change["speakers"])
    if "findings" in change:
        new["findings"] = [_finding(item) for item in listed(change["findings"], "findings", MAX_SEGMENTS)]
    if "language" in change:
        new["language"] = clean(change["language"], "language", 20)
    return new


def _spliced(segments: list[dict[str, Any]], splice: object) -> list[dict[str, Any]]:
    if not isinstance(splice, dict):
        raise invalid("a splice is an object with after, remove and insert", "splices")
    places = {segment["uid"]: i for i, segment in enumerate(segments)}
    after = splice.get("after")
    remove = listed(splice.get("remove", []), "remove", MAX_SEGMENTS)
    if after is not None and after not in places:
        raise conflict()
    begin = 0 if after is None else places[after] + 1
    if [segment["uid"] for segment in segments[begin : begin + len(remove)]] != remove:
        raise conflict()
    insert = [checked_segment(item) for item in listed(splice.get("insert", []), "insert", MAX_SEGMENTS)]
    return [*segments[:begin], *insert, *segments[begin + len(remove) :]]


def checked_segment(item: object) -> dict[str, Any]:
    """Return a segment from outside, with what belongs to one and nothing else.

    Raises
    ------
    RequestError
        It is none: a field is missing, of a wrong kind or out of range, or its words are not its text.
    """
    if not isinstance(item, dict):
        raise invalid("a segment is an object", "insert")
    uid = item.get("uid")
    if not (isinstance(uid, str) and _UID.fullmatch(uid)):
        raise invalid("the uid of a segment is 1 to 40 letters, digits, - or _", "uid")
    start, end = seconds(item.get("start"), "start"), seconds(item.get("end"), "end")
    if end < start:
        raise invalid("a segment ends before it starts", "end")
    segment: dict[str, Any] = {
        "uid": uid,
        "start": start,
        "end": end,
        "text": clean(item.get("text"), "text", MAX_TEXT),
    }
    segment["words"] = [_word(word) for word in listed(item.get("words", []), "words", MAX_WORDS)]
    said = "".join(word["word"] for word in segment["words"])
    if segment["words"] and said.split() != segment["text"].split():
        raise invalid("the words of a segment are not its text", "words")
    segment |= {name: _number(item[name], name) for name in _KEPT if name in item}
    if item.get("speaker") is not None:
        segment["speaker"] = clean(item["speaker"], "speaker", MAX_KEY + 2)
    if item.get("language") is not None:
        segment["language"] = clean(item["language"], "language", 20)
    segment |= {name: True for name in ("checked", "edited") if item.get(name) is True}
    return segment


def _word(item: object) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise invalid("a word is an object", "words")
    start, end = seconds(item.get("start"), "start"), seconds(item.get("end"), "end")
    word: dict[str, Any] = {"word": clean(item.get("word"), "word", MAX_TEXT), "start": start, "end": max(start, end)}
    return word | {name: min(max(_number(item[name], name), 0.0), 1.0) for name in _SHARES if name in item}


def _finding(item: object) -> dict[str, Any]:
    if not isinstance(item, dict) or item.get("kind") not in KINDS or item.get("state") not in FINDING_STATES:
        raise invalid(f"a finding has a kind, of {', '.join(KINDS)}, and a state, open or accepted", "findings")
    channel = item.get("channel")
    return {
        "kind": item["kind"],
        "start": seconds(item.get("start"), "start"),
        "end": seconds(item.get("end"), "end"),
        "text": clean(item.get("text", ""), "text", MAX_TEXT),
        "reason": clean(item.get("reason", ""), "reason", MAX_TEXT),
        "channel": channel if isinstance(channel, int) else None,
        "state": item["state"],
    }


def _speakers(item: object) -> dict[str, str]:
    if not isinstance(item, dict) or len(item) > 100:
        raise invalid("speakers is an object with at most 100 names", "speakers")
    return {clean(key, "speakers", MAX_KEY + 2): clean(name, "speakers", MAX_NAME) for key, name in item.items()}


# ---------------------------------------------------------------------------------------------------------
# Values from outside
# ---------------------------------------------------------------------------------------------------------


def clean(value: object, field: str, most: int) -> str:
    """Return a text without controls; raises `RequestError` where it is none, too long, or no Unicode."""
    if not isinstance(value, str):
        raise invalid(f"{field} must be a text", field)
    if len(value) > most:
        raise RequestError(400, f"{field} has more than {most} characters", code="invalid_value", param=field)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise invalid(f"{field} holds half a character", field) from None
    return _CONTROLS.sub("", value)


def seconds(value: object, field: str) -> float:
    """Return a time, to the millisecond."""
    number = _number(value, field)
    if not 0 <= number <= MAX_SECONDS:
        raise invalid(f"{field} must be seconds from the beginning, not {number}", field)
    return round(number, 3)


def _number(value: object, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise invalid(f"{field} must be a number", field)
    return float(value)


def listed(value: object, field: str, most: int) -> Sequence[Any]:
    """Return a list; raises `RequestError` where it is none, or too long."""
    if not isinstance(value, list) or len(value) > most:
        raise invalid(f"{field} must be a list of at most {most}", field)
    return value


def tags(value: object) -> list[str]:
    """Return tags without spaces around them, each once."""
    found = [clean(item, "tags", MAX_NAME).strip() for item in listed(value, "tags", 50)]
    return list(dict.fromkeys(tag for tag in found if tag))
