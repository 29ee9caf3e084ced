"""The options of a live session, each declared once: what is written, when an item ends, and how long text waits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from ..options.language_names import code_of
from ..options.transcription import FALLBACK_TEMPERATURES
from ..options.types import (
    FLAG,
    LANGUAGE,
    NAMES,
    TEMPERATURES,
    TEXT,
    check_values,
    number,
    one_of,
    option,
    whole,
)

TEXTS = "what is written"
TURNS = "when an item of text begins and ends"
LATENCY = "how soon text is shown"
VAD, NONE = "vad", "none"


class Delay(NamedTuple):
    """What a word of the option ``delay`` stands for."""

    interval: float  # seconds between two refreshes, at least
    guard: float  # seconds of sound behind a word before it may become stable
    doubtful_guard: float  # the same for a word that is improbable
    agreement: bool  # whether two hypotheses in a row must have it


DELAYS = {
    "minimal": Delay(0.25, 0.2, 0.2, False),
    "low": Delay(0.3, 0.4, 0.4, False),
    "medium": Delay(0.35, 0.4, 1.0, True),
    "high": Delay(0.5, 0.8, 1.0, True),
    "xhigh": Delay(1.0, 1.6, 1.6, True),
}


@dataclass(frozen=True)
class LiveOptions:
    """The options of a `LiveSession`.

    Raises
    ------
    OptionError
        A value is of another type or out of its range, or there is no such language.
    """

    language: str | None = option(
        TEXTS, None, LANGUAGE, "language that is spoken, by code or name; where not given, it is detected in each item"
    )
    task: str = option(
        TEXTS, "transcribe", one_of("transcribe", "translate"),
        "transcribe writes the language that is spoken, translate writes English",
    )  # fmt: skip
    initial_prompt: str | None = option(TEXTS, None, TEXT, "text before each item, such as names and their spelling")
    hotwords: Sequence[str] | str | None = option(TEXTS, None, NAMES, "words and phrases that become likelier")
    hotword_boost: float = option(
        TEXTS, 2.0, number(0, 100), "added to the log-probability of each token of the hotwords", needs=("hotwords",)
    )
    word_timestamps: bool = option(TEXTS, False, FLAG, "find the times of words in the final text")
    token_logprobs: bool = option(
        TEXTS, False, FLAG, "the segments of the final text have token_logprobs, as the option of transcribe()"
    )
    temperature: float | Sequence[float] = option(
        TEXTS, FALLBACK_TEMPERATURES, TEMPERATURES, "tried in turn for the final text while it fails a threshold"
    )
    beam_size: int | None = option(TEXTS, None, whole(1), "beams of the final text at temperature 0; None for greedy")
    seed: int | None = option(
        TEXTS, 0, whole(0, 2**63 - 1), "seed of the final text above temperature 0; None draws anew each time"
    )
    audit: bool = option(
        TEXTS, False, FLAG, "compare the final text with the speech and correct it, as the option of transcribe()"
    )

    turn_detection: str = option(
        TURNS, VAD, one_of(VAD, NONE),
        "vad: an item is a stretch of speech; none: it ends where the program says so, or at max_item_s",
    )  # fmt: skip
    threshold: float = option(TURNS, 0.5, number(0, 1, above=True), "speech begins at this probability")
    prefix_padding_s: float = option(TURNS, 0.5, number(0, 5), "seconds before the speech that belong to the item")
    silence_s: float = option(TURNS, 0.5, number(0.1, 10), "seconds of silence that end an item")
    max_item_s: float = option(
        TURNS, 25, number(5, 30), "seconds after which an item is cut, at the quietest place of its last fifth"
    )

    delay: str = option(
        LATENCY, "medium", one_of(*DELAYS),
        "how long text waits before it is sent as stable: a longer delay changes less often what the final text says",
    )  # fmt: skip
    interim: bool = option(LATENCY, True, FLAG, "send the text that may still change, too")

    def __post_init__(self) -> None:
        check_values(self)
        code_of(self.language)

    def for_transcribe(self) -> dict[str, Any]:
        """Return the options of `transcribe` that give the final text of an item."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.metadata["facts"].group == TEXTS}
        return own if self.hotwords is not None else {n: v for n, v in own.items() if n != "hotword_boost"}
