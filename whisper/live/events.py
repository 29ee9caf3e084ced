"""What a live session tells: the bounds of speech, the text as it becomes known, and the transcript of each item.

An item is a stretch of the sound that is transcribed as a whole: one turn of a speaker, or a part of a long one. Its
events come in this order: `SpeechStarted`; any number of `Stable` and `Interim`; `SpeechStopped`; `Committed`; perhaps
a last `Stable`; `Final` or `Failed`. An item that ends before the speech does has no `SpeechStopped`, and where no
speech is detected there is no `SpeechStarted` either. All times are seconds of sound since the start of the session.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Union

if TYPE_CHECKING:
    from ..results import Transcript


@dataclass(frozen=True)
class SpeechStarted:
    """Speech was found; `at` is where the item begins, with its padding."""

    item: int
    at: float


@dataclass(frozen=True)
class SpeechStopped:
    """It has been silent for long enough; `at` is where the speech ended."""

    item: int
    at: float


@dataclass(frozen=True)
class Committed:
    """The item is complete, from `start` to `end`, and its transcript comes next."""

    item: int
    start: float
    end: float


@dataclass(frozen=True)
class Interim:
    """All text after the stable one, as far as it is known; replaced by the next event of the item."""

    item: int
    text: str


@dataclass(frozen=True)
class Stable:
    """Text that is added to the stable text of the item, sent once and never taken back.

    When the item ends, a last one brings what its transcript has behind the stable words. All of them together are then
    a complete text of the item: that of its transcript, unless that has other words where some were already sent.
    """

    item: int
    text: str


@dataclass(frozen=True)
class Final:
    """What `transcribe` gives for the samples of the item.

    Attributes
    ----------
    item
        Its number, from 0.
    start, end
        Where it lies in the session.
    result
        Its transcript, with times from its own start.
    """

    item: int
    start: float
    end: float
    result: Transcript


@dataclass(frozen=True)
class Failed:
    """The transcription of the item ended in an error; the session goes on."""

    item: int
    error: Exception


Event = Union[SpeechStarted, SpeechStopped, Committed, Interim, Stable, Final, Failed]  # noqa: UP007  for Python 3.10
