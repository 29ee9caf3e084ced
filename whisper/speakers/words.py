"""Words and segments get their speakers: each word one, and segments end where the speaker changes.

Knows results and turns; no sound, no tokenizer but as a function that says how long tokens are as text.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import accumulate, groupby, pairwise
from typing import cast

from ..results import Segment, Word
from .diarization import Diarization, Turn

NEAR = 0.5  # seconds within which the nearest turn counts where nobody speaks
HOLD, HOLD_PER_LETTER = 1.0, 0.1  # seconds that a word may last; the rest of a longer one is a pause
ISLAND_WORDS, ISLAND_SECONDS = 2, 0.6  # of another speaker within a sentence are doubted
ISLAND_SHARE = 0.8  # of its time, with turns of its speaker: it is believed
OVERLAP_SHARE = 0.5  # of a word's time, in which two speak
SENTENCE_ENDS = (".", "?", "!", "。", "？", "！", "…")

TextBytes = Callable[[Sequence[int]], list[int]]  # of each token, the bytes of its text; 0 for a timestamp


class Speakers:
    """The speakers of a recording, for its segments as they come.

    Parameters
    ----------
    found
        Who speaks when.
    text_bytes
        How long each of some tokens is as text, in UTF-8.
    """

    def __init__(self, found: Diarization, text_bytes: TextBytes) -> None:
        self.found = found
        self._text_bytes = text_bytes
        self._exclusive = _Timeline(found.exclusive)
        self._overlaps = _Timeline(overlaps(found.turns))
        self._last: str | None = None  # speaker of the last word

    @property
    def names(self) -> list[str]:
        """Names in the order in which they are first heard; where nobody was found, that which words got."""
        return list(self.found.speakers) or ([self._last] if self._last else [])

    def given_to(self, segments: Sequence[Segment]) -> list[Segment]:
        """Return segments with their speakers, cut where these change; those that are given get them, too."""
        words = [word for segment in segments for word in segment.get("words", ())]
        for word in words:
            self._last = word["speaker"] = self._speaker(word["start"], self._end(word), self._last)
        self._join_islands(words)
        for word in words:
            if self._overlaps.seconds(word["start"], word["end"]) >= OVERLAP_SHARE * max(_length(word), 0.01):
                word["overlap"] = True
        return [part for segment in segments for part in self._cut(segment)]

    def _speaker(self, start: float, end: float, before: str | None) -> str:
        """Return who speaks from `start` to `end`: most of the time, or nearby, or who spoke before."""
        name = self._exclusive.most(start, end) or self._exclusive.nearest(start, end, NEAR) or before
        return name or self._exclusive.nearest(start, end, float("inf")) or "SPEAKER_00"

    @staticmethod
    def _end(word: Word) -> float:
        return min(word["end"], word["start"] + HOLD + HOLD_PER_LETTER * len(word["word"].strip()))

    def _join_islands(self, words: list[Word]) -> None:
        """Give a word or two of another speaker within a sentence to the speaker of that, unless a turn is there."""
        runs = [list(run) for _, run in groupby(words, key=lambda word: word["speaker"])]
        for (*_, before), run, (after, *_) in zip(runs, runs[1:], runs[2:], strict=False):
            start, end = run[0]["start"], run[-1]["end"]
            if (
                len(run) <= ISLAND_WORDS
                and end - start < ISLAND_SECONDS
                and before["speaker"] == after["speaker"]
                and not any(word["word"].strip().endswith(SENTENCE_ENDS) for word in (before, *run))
                and self._exclusive.seconds(start, end, run[0]["speaker"]) < ISLAND_SHARE * (end - start)
            ):
                for word in run:
                    word["speaker"] = before["speaker"]

    def _cut(self, segment: Segment) -> list[Segment]:
        """Return the parts of a segment, each of one speaker."""
        words = segment.get("words", [])
        if not words:
            segment["speaker"] = self._speaker(segment["start"], segment["end"], self._last)
            return [segment]
        runs = [list(run) for _, run in groupby(words, key=lambda word: word["speaker"])]
        parts = [segment] if len(runs) == 1 else self._parts(segment, runs)
        for part, run in zip(parts, runs, strict=True):
            part["speaker"] = run[0]["speaker"]
            if any(word.get("overlap") for word in run):
                part["overlap"] = True
        return parts

    def _parts(self, segment: Segment, runs: list[list[Word]]) -> list[Segment]:
        """Share out the text, tokens and time of a segment between runs of its words."""
        texts = ["".join(word["word"] for word in run) for run in runs]
        if "".join(texts) == segment["text"].strip():
            texts[0] = segment["text"][: len(segment["text"]) - len(segment["text"].lstrip())] + texts[0]
        ends = list(accumulate(len(text.encode()) for text in texts))
        starts_of_tokens = [0, *accumulate(self._text_bytes(segment["tokens"]))][:-1]
        cuts = [0, *(bisect_left(starts_of_tokens, end) for end in ends[:-1]), len(segment["tokens"])]
        parts = []
        for i, (run, text, (first, last)) in enumerate(zip(runs, texts, pairwise(cuts), strict=True)):
            part = cast(Segment, {**segment, "text": text, "tokens": segment["tokens"][first:last], "words": run})
            part["start"] = segment["start"] if i == 0 else run[0]["start"]
            part["end"] = segment["end"] if i == len(runs) - 1 else run[-1]["end"]
            if "token_logprobs" in segment:
                part["token_logprobs"] = segment["token_logprobs"][first:last]
            parts.append(part)
        return parts


class _Timeline:
    """Turns of which no two overlap, asked for what lies in a stretch of time."""

    def __init__(self, turns: Sequence[Turn]) -> None:
        self._turns = turns
        self._ends = [turn.end for turn in turns]

    def _within(self, start: float, end: float) -> list[tuple[float, str]]:
        """Return the seconds of each turn that lie in a stretch, and its speaker."""
        shares = []
        for turn in self._turns[bisect_left(self._ends, start) :]:
            if turn.start >= end:
                break
            shares.append((min(turn.end, end) - max(turn.start, start), turn.speaker))
        return shares

    def seconds(self, start: float, end: float, speaker: str | None = None) -> float:
        """Return the seconds of turns in a stretch, perhaps of one speaker alone."""
        return sum(length for length, name in self._within(start, end) if speaker in (None, name))

    def most(self, start: float, end: float) -> str | None:
        """Return the speaker with most time in a stretch."""
        total: dict[str, float] = {}
        for length, name in self._within(start, end):
            total[name] = total.get(name, 0.0) + length
        return max(total, key=total.__getitem__) if total and max(total.values()) > 0 else None

    def nearest(self, start: float, end: float, within: float) -> str | None:
        """Return the speaker of the turn that lies nearest to a stretch."""
        i = bisect_left(self._ends, start)
        near = [
            (max(turn.start - end, start - turn.end, 0.0), turn.speaker) for turn in self._turns[max(i - 1, 0) : i + 1]
        ]
        distance, name = min(near, default=(float("inf"), None), key=lambda one: one[0])
        return name if distance <= within else None


def overlaps(turns: Sequence[Turn]) -> list[Turn]:
    """Return where two or more turns lie over each other."""
    found: list[Turn] = []
    last_end = float("-inf")
    for turn in sorted(turns):
        start, end = max(turn.start, found[-1].end if found else turn.start), min(turn.end, last_end)
        if start < end:
            found.append(Turn(start, end, ""))
        last_end = max(last_end, turn.end)
    return found


def _length(word: Word) -> float:
    return word["end"] - word["start"]
