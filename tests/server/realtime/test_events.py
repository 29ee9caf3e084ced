"""What a session tells, in the events of OpenAI."""

from typing import Any

from whisper.errors import ItemError
from whisper.live import Committed, Failed, Final, Interim, Stable
from whisper.server.errors import invalid
from whisper.server.realtime.events import Answers, error_event
from whisper.server.realtime.settings import SessionSettings

T = "conversation.item.input_audio_transcription"


def final(item: int, text: str, language: str = "de") -> Final:
    result: Any = {"text": text, "language": language, "segments": []}
    return Final(item, 10.0, 12.5, result)


def test_deltas_begin_without_a_space_and_join_to_the_text() -> None:
    answers = Answers(SessionSettings("base"))
    told = [Stable(0, " "), Stable(0, " Good"), Stable(0, " morning"), Stable(0, ".")]
    deltas = [event["delta"] for one in told for event in answers.of(one)]
    assert deltas == ["Good", " morning", "."]


def test_items_overlap_and_are_forgotten() -> None:
    answers = Answers(SessionSettings("base"))
    [first] = answers.of(Stable(0, "a"))
    committed = answers.of(Committed(0, 0.0, 1.0))
    [second] = answers.of(Interim(1, "b"))
    [completed] = answers.of(final(0, " a "))
    assert first["item_id"] == committed[0]["item_id"] == completed["item_id"] != second["item_id"]
    assert (completed["transcript"], completed["languages"], completed["usage"]["seconds"]) == (
        "a",
        [{"code": "de"}],
        2.5,
    )
    assert answers.of(Committed(1, 1.0, 2.0))[0]["previous_item_id"] == first["item_id"]
    answers.of(final(1, ""))
    assert not answers._ids
    assert not answers._with_text


def test_an_item_without_sound_is_a_wrong_event() -> None:
    [error] = Answers(SessionSettings("base")).of(Failed(0, ItemError("no speech")))
    assert (error["type"], error["error"]["code"]) == ("error", "input_audio_buffer_commit_empty")


def test_the_id_of_the_event_that_was_wrong() -> None:
    for cause, expected in (("mine", "mine"), (None, None), (7, None), ("x" * 5000, "x" * 512)):
        assert error_event(invalid("wrong"), cause)["error"]["event_id"] == expected
