"""Word times and speech activity brought together: nobody says a word in a pause.

Read off the attention, words follow each other without a gap, so that a pause falls to the word behind it, or to the
one before it. Here each word is cut down to the speech that it overlaps most. Pure functions on numbers and segment
dictionaries: changes no text, drops no word, and does not ask whether a word was said at all.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .results import Segment, Word

# in hundredths of a second, as everything in this file: whole numbers stay in order when they are added up
SHORTEST_PAUSE = 20  # below it lie the closures of consonants
LONGEST_IN_PAUSE = 100  # of a word that stays in a pause, since no speech has room
LEAST = 10  # what overlaps less (and by less than half) only touches; and what each word has that shares a place
MOST = 30  # what a word from a pause asks for


@dataclass(eq=False)
class _Timing:
    """A word on its way; whole hundredths of a second, ``start < end``."""

    word: Word
    start: int
    end: int

    @property
    def duration(self) -> int:
        return self.end - self.start


@dataclass(eq=False)
class _Span:
    """A stretch of speech, and the words in it, in order."""

    start: int
    end: int
    words: list[_Timing]

    @property
    def lowest(self) -> int:
        """Where its last word could begin at the earliest."""
        return self.words[-2].end if len(self.words) > 1 else self.start

    @property
    def highest(self) -> int:
        """Where its first word could end at the latest."""
        return self.words[1].start if len(self.words) > 1 else self.end


def snap_words(
    segments: Sequence[Segment],
    speech: Iterable[tuple[float, float]],
    begin: float = 0.0,
    end: float = math.inf,
    padding: float = 0.0,
) -> None:
    """Give the words of segments times at which somebody speaks, in place.

    Afterwards words follow each other without overlap, each lasts at least 0.01 s and at most 1 s of it lies in a pause
    between stretches of speech, and none begins in such a pause if there is room in the speech on either side. Segments
    begin and end with their words. A second call changes nothing.

    Parameters
    ----------
    segments
        In order; those without words are left as they are.
    speech
        Start and end of each stretch in which somebody speaks, seconds of the recording, sorted and disjoint.
    begin, end
        Seconds of the recording that the words lie between, such as the end of the word before them and the end of
        their window. Only where there are more words than hundredths of a second do they reach past `end`.
    padding
        Seconds that were added to both ends of each stretch of speech; they are taken off again. (0.2 s before its
        speech a word begins in the pause.)
    """
    words = [word for segment in segments for word in segment.get("words", ())]
    first, last = math.ceil(begin * 100 - 1e-6), None if end == math.inf else math.floor(end * 100 + 1e-6)
    timings = [_Timing(word, round(word["start"] * 100), round(word["end"] * 100)) for word in words]
    _put_in_order(timings, first, last)
    spans = _join((_without_padding(span, padding) for span in speech), first, last)
    for gap, homeless in enumerate(_go_home(timings, spans)):
        _find_room(homeless, spans[gap - 1] if gap else None, spans[gap] if gap < len(spans) else None)
    for timing in timings:
        timing.word["start"], timing.word["end"] = timing.start / 100, timing.end / 100
    for segment in segments:
        if segment.get("words"):
            segment["start"], segment["end"] = segment["words"][0]["start"], segment["words"][-1]["end"]


def _put_in_order(timings: Sequence[_Timing], first: int, last: int | None) -> None:
    """Let each begin where the one before it has ended, or later, and last a hundredth of a second at least."""
    position = first
    for timing in timings:
        timing.start = max(timing.start, position)
        position = timing.end = max(timing.end, timing.start + 1)
    if last is None:
        return
    for earliest, timing in reversed(list(enumerate(timings, start=first))):
        timing.end = max(min(timing.end, last), earliest + 1)
        last = timing.start = max(min(timing.start, timing.end - 1), earliest)


def _without_padding(span: tuple[float, float], padding: float) -> tuple[float, float]:
    """Take it off again, unless there was no room for it before the beginning or next to nothing would be left."""
    start, end = span
    off = max(min(padding, (end - start - LEAST / 100) / 2), 0.0)
    return (start + off if start > 0 else start), end - off


def _join(speech: Iterable[tuple[float, float]], first: int, last: int | None) -> list[_Span]:
    """Join the stretches of speech over what is no pause, and leave out what lies outside or is too short."""
    spans: list[_Span] = []
    for start, end in speech:
        begin, stop = max(math.ceil(start * 100 - 1e-6), first), math.floor(end * 100 + 1e-6)
        stop = stop if last is None else min(stop, last)
        if spans and begin - spans[-1].end < SHORTEST_PAUSE:
            spans[-1].end = max(spans[-1].end, stop)
        elif stop - begin >= LEAST:
            spans.append(_Span(begin, stop, []))
    return spans


def _go_home(timings: Iterable[_Timing], spans: Sequence[_Span]) -> list[list[_Timing]]:
    """Cut each word down to the speech that it overlaps most; returns those without any, by the pause they are in.

    Pause ``i`` lies before span ``i``; the last one behind all.
    """
    homeless: list[list[_Timing]] = [[] for _ in range(len(spans) + 1)]
    ends = [span.end for span in spans]
    for timing in timings:
        i = j = bisect_right(ends, timing.start)  # the first that ends behind its start
        while j < len(spans) and spans[j].start < timing.end:
            j += 1
        shared = [min(timing.end, span.end) - max(timing.start, span.start) for span in spans[i:j]]
        if shared and max(shared) >= min(LEAST, timing.duration / 2):
            span = spans[i + shared.index(max(shared))]
            timing.start, timing.end = max(timing.start, span.start), min(timing.end, span.end)
            span.words.append(timing)
            continue
        edges = [timing.start, *(edge for span in spans[i:j] for edge in (span.start, span.end)), timing.end]
        widths = [edges[k + 1] - edges[k] for k in range(0, len(edges), 2)]
        pause = widths.index(max(widths))
        timing.start, timing.end = edges[2 * pause], edges[2 * pause + 1]
        homeless[i + pause].append(timing)
    return homeless


def _find_room(homeless: Sequence[_Timing], before: _Span | None, behind: _Span | None) -> None:
    """Move the words of a pause into the speech on either side, each to the nearer one that has room."""
    n = len(homeless)
    n_nearer = sum(t.start - before.end < behind.start - t.end for t in homeless) if before and behind else 0
    room_before, room_behind = _room(before, last=True), _room(behind, last=False)
    n_behind = min(room_behind, n - min(room_before, n_nearer))
    n_before = min(room_before, n - n_behind)
    if before and n_before:
        _append(before, homeless[:n_before])
    if behind and n_behind:
        _prepend(behind, homeless[n - n_behind :])
    for timing in homeless[n_before : n - n_behind]:
        timing.start = max(timing.start, timing.end - LONGEST_IN_PAUSE)


def _room(span: _Span | None, last: bool) -> int:
    """How many more words there is room for behind the last word of a span, or before the first, if that one gives."""
    if span is None:
        return 0
    first, stop = (span.lowest, span.end) if last else (span.start, span.highest)
    return max((stop - first) // LEAST - len(span.words[:1]), 0)


def _append(span: _Span, arriving: Sequence[_Timing]) -> None:
    """Put words behind the last one of a span, which is shortened, or moved, only as far as it must be."""
    there = span.words[-1:]
    latest = span.end - LEAST * len([*there, *arriving])
    position = max(span.lowest, min([latest, *(timing.start for timing in there)])) if there else span.start
    sizes = _sizes(there, arriving, span.end - position)
    for timing, size in zip([*there, *arriving], sizes, strict=True):
        timing.start, timing.end = position, position + size
        position += size
    span.words += arriving


def _prepend(span: _Span, arriving: Sequence[_Timing]) -> None:
    """Put words before the first one of a span, which is shortened, or moved, only as far as it must be."""
    there = span.words[:1]
    earliest = span.start + LEAST * len([*there, *arriving])
    stop = min(span.highest, max([earliest, *(timing.end for timing in there)])) if there else span.end
    position = span.start
    for timing, size in zip(arriving, _sizes(there, arriving, stop - position)[len(there) :], strict=True):
        timing.start, timing.end = position, position + size
        position += size
    for first in there:
        first.start, first.end = max(first.start, position), stop
    span.words[:0] = arriving


def _sizes(there: Sequence[_Timing], arriving: Sequence[_Timing], room: int) -> list[int]:
    """How long words may be that share a room: `LEAST` each, and more in proportion to what they would like."""
    wishes = [t.duration - LEAST for t in there] + [min(t.duration, MOST) - LEAST for t in arriving]
    wishes = [max(wish, 0) for wish in wishes]
    spare = room - LEAST * len(wishes)
    return [LEAST + (wish if sum(wishes) <= spare else wish * spare // sum(wishes)) for wish in wishes]
