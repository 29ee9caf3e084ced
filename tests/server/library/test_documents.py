"""Documents: what comes of a transcript, which changes fit, and which are refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from whisper.audit.report import Report, finding
from whisper.server.errors import RequestError
from whisper.server.library.documents import changed, checked_segment, clean, of_transcript, tags


def segment(uid: str, text: str = " Hello there", **others: Any) -> dict[str, Any]:
    words = [{"word": f" {word}", "start": 0.0, "end": 1.0, "confidence": 0.9} for word in text.split()]
    return {"uid": uid, "start": 0.0, "end": 2.0, "text": text, "words": words, **others}


def document(*uids: str) -> dict[str, Any]:
    segments = [checked_segment(segment(uid)) for uid in uids]
    return {"language": "en", "segments": segments, "speakers": {}, "findings": [], "speech": None}


def uids(changed: dict[str, Any]) -> list[str]:
    return [segment["uid"] for segment in changed["segments"]]


def test_what_was_heard_becomes_a_document() -> None:
    word = {"word": " Hi", "start": 0.1, "end": 0.4, "probability": 0.9, "confidence": 0.8}
    heard = {
        "id": 0, "seek": 0, "start": 0.101, "end": 0.4, "text": " Hi", "tokens": [1], "temperature": 0.0,
        "avg_logprob": -0.2, "compression_ratio": 1.0, "no_speech_prob": 0.01, "words": [word], "channel": 1,
    }  # fmt: skip
    report = Report(duration=2.0, speech=((0.0, 1.0),), findings=[finding("uncovered", (1.0, 2.0), "", "speech")])
    made = of_transcript({"text": " Hi", "segments": [heard], "language": "en"}, report)  # type: ignore[typeddict-item]
    assert made["segments"][0] == {
        "uid": "s0", "start": 0.1, "end": 0.4, "text": " Hi", "words": [word], "avg_logprob": -0.2,
        "no_speech_prob": 0.01, "compression_ratio": 1.0, "speaker": "1",
    }  # fmt: skip
    assert made["speakers"] == {"1": "Speaker 2"}
    assert made["speech"] == [[0.0, 1.0]]
    assert made["findings"][0]["state"] == "open"
    assert changed(made, {"splices": [], "findings": made["findings"]})["findings"] == made["findings"]


def test_speakers_become_numbers_and_keep_names() -> None:
    def heard(i: int, speaker: str) -> dict[str, Any]:
        word = {"word": " Hi", "start": 0.1, "end": 0.4, "probability": 0.9, "speaker": speaker, "overlap": True}
        return {
            "id": i, "start": i, "end": i + 1, "text": " Hi", "words": [word], "avg_logprob": -0.2, "speaker": speaker,
            "compression_ratio": 1.0, "no_speech_prob": 0.01,
        }  # fmt: skip

    names = ["Ann", "SPEAKER_10", "SPEAKER_00", "7", "Ann"]
    segments = [heard(i, name) for i, name in enumerate(names)]
    made = of_transcript({"text": "", "segments": segments, "language": "en"}, None)  # type: ignore[typeddict-item]
    assert [segment["speaker"] for segment in made["segments"]] == ["Ann", "10", "0", '"7"', "Ann"]
    assert list(made["speakers"].items()) == [
        ("0", "Speaker 1"), ("10", "Speaker 11"), ('"7"', '"7"'), ("Ann", "Ann"),
    ]  # fmt: skip
    assert made["segments"][0]["words"] == [{"word": " Hi", "start": 0.1, "end": 0.4, "probability": 0.9}]
    assert changed(made, {"speakers": {**made["speakers"], "0": "Bo"}})["speakers"]["0"] == "Bo"


@pytest.mark.parametrize(
    ("splice", "expected"),
    [
        ({"after": None, "remove": [], "insert": ["n"]}, ["n", "a", "b", "c"]),
        ({"after": "a", "remove": ["b"], "insert": ["n", "m"]}, ["a", "n", "m", "c"]),
        ({"after": "b", "remove": ["c"], "insert": []}, ["a", "b"]),
        ({"after": None, "remove": ["a", "b", "c"], "insert": ["a"]}, ["a"]),
    ],
)
def test_splices(splice: dict[str, Any], expected: list[str]) -> None:
    before = document("a", "b", "c")
    kept = copy.deepcopy(before)
    splice = {**splice, "insert": [segment(uid) for uid in splice["insert"]]}
    assert uids(changed(before, {"splices": [splice]})) == expected
    assert before == kept


@pytest.mark.parametrize(
    "splice",
    [
        {"after": "gone"},
        {"after": "a", "remove": ["c"]},
        {"after": None, "remove": ["b"]},
        {"after": "c", "remove": ["d"]},
    ],
)
def test_a_splice_that_does_not_fit_is_a_conflict(splice: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as error:
        changed(document("a", "b", "c"), {"splices": [splice]})
    assert error.value.status == 409


@pytest.mark.parametrize(
    "change",
    [
        {"splices": {}}, {"splices": [1]}, {"speakers": []}, {"speakers": {"a": 1}}, {"language": None},
        {"findings": [{"kind": "other", "state": "open"}]},
        *({"splices": [{"insert": [wrong]}]} for wrong in (
            1, segment("a"), segment("no good"), segment("n", start=3.0), segment("n", start=float("nan")),
            segment("n", end=True), segment("n", end=1e99), segment("n") | {"text": " Other"},
            segment("n") | {"text": 3}, segment("n", "x" * 30_000), segment("n", speaker=3), segment("n", words=[3]),
        )),
    ],
)  # fmt: skip
def test_what_is_malformed_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as error:
        changed(document("a"), change)
    assert error.value.status == 400


def test_a_segment_keeps_what_belongs_to_it_and_nothing_else() -> None:
    given = segment("n", " <b>Hello</b> there", checked=True, edited="yes", evil=1, speaker="0", avg_logprob=-1)
    kept = checked_segment(given)
    assert kept["text"] == " <b>Hello</b> there"
    assert set(kept) == {"uid", "start", "end", "text", "words", "checked", "speaker", "avg_logprob"}
    assert set(kept["words"][0]) == {"word", "start", "end", "confidence"}


def test_texts_have_no_controls_and_no_half_characters() -> None:
    assert clean("a\x00b\x1bc\nd", "text", 10) == "abc\nd"
    with pytest.raises(RequestError, match="half a character"):
        clean("\ud800", "text", 10)
    assert tags([" a ", "a", "", "b"]) == ["a", "b"]
