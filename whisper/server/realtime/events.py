"""The events that a client gets: those of a live session, and errors, in OpenAI's words and in those of its beta."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from ...live.events import Committed, Event, Failed, Final, Interim, SpeechStarted, SpeechStopped, Stable
from ...options.language_names import code_of
from ...tokenizer import Tokenizer
from ..errors import RequestError
from ..responses import logprobs
from .sessions import NOTHING_COMMITTED, error_of
from .settings import SessionSettings

if TYPE_CHECKING:
    from ...results import Transcript

TRANSCRIPTION = "conversation.item.input_audio_transcription"
INTERIM = f"{TRANSCRIPTION}.interim"  # of ours
LONGEST_ID = 512  # characters of an id that is given back
NO_SPEAKER = ""


def new_id(kind: str) -> str:
    """Return an id, such as ``event_...``."""
    return f"{kind}_{uuid.uuid4().hex[:24]}"


def event(kind: str, **fields: Any) -> dict[str, Any]:
    """Return an event of the server."""
    return {"type": kind, "event_id": new_id("event"), **fields}


def error_event(error: RequestError, cause: Any = None) -> dict[str, Any]:
    """Return what a client is told of an event that was wrong.

    Parameters
    ----------
    error
        What is wrong.
    cause
        The ``event_id`` that the client gave, if it is one.
    """
    body = error.body["error"]
    return event("error", error={**body, "event_id": cause[:LONGEST_ID] if isinstance(cause, str) else None})


class Answers:
    """Translates what a session tells into the events for its client, in order.

    Attributes
    ----------
    settings
        Of the session as they are now.
    tokenizer
        Of its model, for log-probabilities.
    """

    def __init__(self, settings: SessionSettings) -> None:
        self.settings = settings
        self.tokenizer: Tokenizer | None = None
        self._ids: dict[int, str] = {}  # of the items that are under way
        self._with_text: set[int] = set()  # those that have stable text
        self._previous: str | None = None  # the last item that was committed

    def of(self, live_event: Event) -> list[dict[str, Any]]:
        """Return the events for one of the session."""
        name = self._ids.setdefault(live_event.item, new_id("item"))
        if isinstance(live_event, SpeechStarted):
            return [event("input_audio_buffer.speech_started", audio_start_ms=_ms(live_event.at), item_id=name)]
        if isinstance(live_event, SpeechStopped):
            return [event("input_audio_buffer.speech_stopped", audio_end_ms=_ms(live_event.at), item_id=name)]
        if isinstance(live_event, Interim):
            return [event(INTERIM, item_id=name, content_index=0, interim=live_event.text)]
        if isinstance(live_event, Stable):
            return self._delta(live_event, name)
        if isinstance(live_event, Committed):
            return self._committed(name)
        self._ids.pop(live_event.item)
        self._with_text.discard(live_event.item)
        if isinstance(live_event, Failed):
            error = error_of(live_event)
            if error.code == NOTHING_COMMITTED:
                return [error_event(error)]
            return [event(f"{TRANSCRIPTION}.failed", item_id=name, content_index=0, error=error.body["error"])]
        return [*self._segments(live_event, name), self._completed(live_event, name)]

    def _delta(self, live_event: Stable, name: str) -> list[dict[str, Any]]:
        text = live_event.text if live_event.item in self._with_text else live_event.text.lstrip()
        if not text:
            return []
        self._with_text.add(live_event.item)
        return [event(f"{TRANSCRIPTION}.delta", item_id=name, content_index=0, delta=text)]

    def _committed(self, name: str) -> list[dict[str, Any]]:
        previous, self._previous = self._previous, name
        item = {
            "id": name,
            "object": "realtime.item",
            "type": "message",
            "status": "completed",
            "role": "user",
            "content": [{"type": "input_audio", "transcript": None}],
        }
        kinds = ("created",) if self.settings.is_beta else ("added", "done")
        return [
            event("input_audio_buffer.committed", previous_item_id=previous, item_id=name),
            *(event(f"conversation.item.{kind}", previous_item_id=previous, item=item) for kind in kinds),
        ]

    def _segments(self, live_event: Final, name: str) -> list[dict[str, Any]]:
        """Return the segments, where they are wanted, with times of the session."""
        if not self.settings.with_segments:
            return []
        kind = f"{TRANSCRIPTION}.segment"
        return [
            event(
                kind, id=new_id("seg"), item_id=name, content_index=0, speaker=NO_SPEAKER, text=segment["text"],
                start=round(live_event.start + segment["start"], 3), end=round(live_event.start + segment["end"], 3),
            )
            for segment in live_event.result["segments"]
        ]  # fmt: skip

    def _completed(self, live_event: Final, name: str) -> dict[str, Any]:
        result, code = live_event.result, code_of(live_event.result["language"])
        answer = event(
            f"{TRANSCRIPTION}.completed",
            item_id=name,
            content_index=0,
            transcript=result["text"].strip(),
            languages=[{"code": code}] if code else [],
            usage={"type": "duration", "seconds": round(live_event.end - live_event.start, 3)},
        )
        if self.tokenizer is not None and all("token_logprobs" in segment for segment in result["segments"]):
            answer["logprobs"] = logprobs(self.tokenizer, result["segments"])
        if self.settings.live.word_timestamps:
            answer["words"] = _words(result, live_event.start)
        return answer


def _words(result: Transcript, offset: float) -> list[dict[str, Any]]:
    """Return the words of an item, with times of the session."""
    return [
        {
            "word": word["word"].strip(),
            "start": round(offset + word["start"], 3),
            "end": round(offset + word["end"], 3),
            "probability": round(word["probability"], 4),
        }
        for segment in result["segments"]
        for word in segment.get("words", ())
    ]


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
