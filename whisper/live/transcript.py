"""One transcript of a whole session: those of its items, each moved to where it lies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..spans import FRAMES_PER_SECOND

if TYPE_CHECKING:
    from ..results import Segment, Transcript, Word
    from .events import Final


def joined(finals: Iterable[Final]) -> Transcript:
    """Join the transcripts of items.

    Parameters
    ----------
    finals
        In their order; not changed.

    Returns
    -------
    Transcript
        With times of the session; its language is that of most of the sound.
    """
    texts: list[str] = []
    segments: list[Segment] = []
    seconds: Counter[str] = Counter()
    for final in finals:
        texts.append(final.result["text"])
        seconds[final.result["language"]] += final.end - final.start  # type: ignore[assignment]
        for segment in final.result["segments"]:
            segments.append(_moved(segment, final.start, len(segments)))
    language = seconds.most_common(1)[0][0] if seconds else "en"
    return {"text": "".join(texts), "segments": segments, "language": language}


def _moved(segment: Segment, by: float, number: int) -> Segment:
    moved = segment.copy()
    moved["id"], moved["seek"] = number, segment["seek"] + round(by * FRAMES_PER_SECOND)
    moved["start"], moved["end"] = round(segment["start"] + by, 3), round(segment["end"] + by, 3)
    if "words" in segment:
        moved["words"] = [_moved_word(word, by) for word in segment["words"]]
    return moved


def _moved_word(word: Word, by: float) -> Word:
    moved = word.copy()
    moved["start"], moved["end"] = round(word["start"] + by, 3), round(word["end"] + by, 3)
    return moved
