"""Word times snapped to speech: no word lies in a pause.

Word times from cross-attention have no gaps, so that a pause becomes part of the word after it or
before it. Here each word is cut down to the speech segment that it overlaps most. Pure functions on
numbers and segment dictionaries: changes no text, drops no word, and does not judge whether a word
was spoken at all.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..checkpoints.published import published_with
from ..results import Segment, Word
from ..spans import Span

if TYPE_CHECKING:
    from ..model import ModelDimensions

# In hundredths of a second, as all times in this file: sums of whole numbers stay in order.
MIN_PAUSE = 20  # closures of consonants are shorter
MAX_IN_PAUSE = 100  # duration of a word that stays in a pause, since no speech segment has room
MIN_DURATION = 10  # of an overlap that counts (or half of the word), and of moved words
MAX_MOVED_DURATION = 30  # of a word that is moved out of a pause

# Seconds by which words from cross-attention begin and end late, or early where negative: the median
# against an independent aligner on read speech (`benchmarks/word_times.py`). It comes with the
# alignment heads of a model, so no general figure would be right.
DELAYS: Mapping[str, float] = {"tiny.en": 0.1, "base": -0.05}


@dataclass(eq=False)
class _Timing:
    """A word and its new times; whole hundredths of a second, ``start < end``."""

    word: Word
    start: int
    end: int

    @property
    def duration(self) -> int:
        return self.end - self.start


@dataclass(eq=False)
class _SpeechSegment:
    """A speech segment, and the words in it, in order."""

    start: int
    end: int
    words: list[_Timing]

    @property
    def earliest_last_start(self) -> int:
        """The earliest time at which its last word could begin."""
        return self.words[-2].end if len(self.words) > 1 else self.start

    @property
    def latest_first_end(self) -> int:
        """The latest time at which its first word could end."""
        return self.words[1].start if len(self.words) > 1 else self.end


def delay_of(dims: ModelDimensions) -> float:
    """Return by how much a model's words are late, seconds; 0 where it was not measured."""
    return next((DELAYS[name] for name in published_with(dims) if name in DELAYS), 0.0)


def undo_delay(segments: Sequence[Segment], delay: float, begin: float, end: float) -> None:
    """Move the words of segments to where they were said, in place.

    Parameters
    ----------
    segments
        In order; those without words are left as they are. Their own times stay.
    delay
        Of all words, seconds; see `delay_of`.
    begin, end
        Words are moved to no time outside of these, seconds of the recording.
    """
    for segment in segments:
        for word in segment.get("words", ()):
            word["start"], word["end"] = (min(max(word[edge] - delay, begin), end) for edge in ("start", "end"))


def snap_words(
    segments: Sequence[Segment],
    speech: Iterable[Span],
    begin: float = 0.0,
    end: float = math.inf,
    padding: float = 0.0,
) -> None:
    """Move the word times of segments into speech, in place.

    Afterwards words do not overlap, each lasts at least 0.01 s, at most 1 s of it lies in a pause
    between speech segments, and none begins in such a pause if the speech on either side has room.
    Segments begin and end with their words. A second call changes nothing.

    Parameters
    ----------
    segments
        In order; those without words are left as they are.
    speech
        Speech segments, seconds of the recording, sorted and disjoint.
    begin, end
        Limits of the words, seconds of the recording, such as the end of the word before them and
        the end of their window. Words end after `end` only where there are more words than
        hundredths of a second.
    padding
        Seconds that were added to both ends of each speech segment; they are removed here, since a
        word that begins in the padding begins in the pause.
    """
    words = [word for segment in segments for word in segment.get("words", ())]
    first, last = math.ceil(begin * 100 - 1e-6), None if end == math.inf else math.floor(end * 100 + 1e-6)
    timings = [_Timing(word, round(word["start"] * 100), round(word["end"] * 100)) for word in words]
    _put_in_order(timings, first, last)
    spoken = _join((_remove_padding(span, padding) for span in speech), first, last)
    for pause, unplaced in enumerate(_assign_to_speech(timings, spoken)):
        before = spoken[pause - 1] if pause else None
        after = spoken[pause] if pause < len(spoken) else None
        _move_out_of_pause(unplaced, before, after)
    for timing in timings:
        timing.word["start"], timing.word["end"] = timing.start / 100, timing.end / 100
    for segment in segments:
        if segment.get("words"):
            segment["start"], segment["end"] = segment["words"][0]["start"], segment["words"][-1]["end"]


def _put_in_order(timings: Sequence[_Timing], first: int, last: int | None) -> None:
    """Remove overlaps between words, and give each at least a hundredth of a second."""
    position = first
    for timing in timings:
        timing.start = max(timing.start, position)
        position = timing.end = max(timing.end, timing.start + 1)
    if last is None:
        return
    for earliest, timing in reversed(list(enumerate(timings, start=first))):
        timing.end = max(min(timing.end, last), earliest + 1)
        last = timing.start = max(min(timing.start, timing.end - 1), earliest)


def _remove_padding(span: Span, padding: float) -> Span:
    """Remove the padding of a span, as far as it has any and something is left."""
    start, end = span
    padding = max(min(padding, (end - start - MIN_DURATION / 100) / 2), 0.0)
    return (start + padding if start > 0 else start), end - padding


def _join(speech: Iterable[Span], first: int, last: int | None) -> list[_SpeechSegment]:
    """Join speech segments across short gaps; leave out those that are outside or too short."""
    spoken: list[_SpeechSegment] = []
    for start, end in speech:
        begin, stop = max(math.ceil(start * 100 - 1e-6), first), math.floor(end * 100 + 1e-6)
        stop = stop if last is None else min(stop, last)
        if spoken and begin - spoken[-1].end < MIN_PAUSE:
            spoken[-1].end = max(spoken[-1].end, stop)
        elif stop - begin >= MIN_DURATION:
            spoken.append(_SpeechSegment(begin, stop, []))
    return spoken


def _assign_to_speech(timings: Iterable[_Timing], spoken: Sequence[_SpeechSegment]) -> list[list[_Timing]]:
    """Cut each word down to the speech segment that it overlaps most.

    Returns the unplaced words, those without an overlap, by the pause they are in.

    Pause ``i`` lies before speech segment ``i``; the last one after all of them.
    """
    unplaced: list[list[_Timing]] = [[] for _ in range(len(spoken) + 1)]
    ends = [segment.end for segment in spoken]
    for timing in timings:
        i = j = bisect_right(ends, timing.start)  # the first that ends after the word's start
        while j < len(spoken) and spoken[j].start < timing.end:
            j += 1
        overlaps = [min(timing.end, s.end) - max(timing.start, s.start) for s in spoken[i:j]]
        if overlaps and max(overlaps) >= min(MIN_DURATION, timing.duration / 2):
            segment = spoken[i + overlaps.index(max(overlaps))]
            timing.start, timing.end = max(timing.start, segment.start), min(timing.end, segment.end)
            segment.words.append(timing)
            continue
        edges = [timing.start, *(edge for s in spoken[i:j] for edge in (s.start, s.end)), timing.end]
        widths = [edges[k + 1] - edges[k] for k in range(0, len(edges), 2)]
        pause = widths.index(max(widths))
        timing.start, timing.end = edges[2 * pause], edges[2 * pause + 1]
        unplaced[i + pause].append(timing)
    return unplaced


def _move_out_of_pause(
    unplaced: Sequence[_Timing], before: _SpeechSegment | None, after: _SpeechSegment | None
) -> None:
    """Move the words of a pause into the nearer speech that has room."""
    n = len(unplaced)
    n_nearer = sum(t.start - before.end < after.start - t.end for t in unplaced) if before and after else 0
    room_before, room_after = _room(before, last=True), _room(after, last=False)
    n_after = min(room_after, n - min(room_before, n_nearer))
    n_before = min(room_before, n - n_after)
    if before and n_before:
        _append(before, unplaced[:n_before])
    if after and n_after:
        _prepend(after, unplaced[n - n_after :])
    for timing in unplaced[n_before : n - n_after]:
        timing.start = max(timing.start, timing.end - MAX_IN_PAUSE)


def _room(segment: _SpeechSegment | None, last: bool) -> int:
    """Count the words that fit after the last word of a segment, or before the first one."""
    if segment is None:
        return 0
    first, stop = (segment.earliest_last_start, segment.end) if last else (segment.start, segment.latest_first_end)
    return max((stop - first) // MIN_DURATION - len(segment.words[:1]), 0)


def _append(segment: _SpeechSegment, arriving: Sequence[_Timing]) -> None:
    """Put words after the last one of a segment, which changes only as far as necessary."""
    there = segment.words[-1:]
    latest = segment.end - MIN_DURATION * len([*there, *arriving])
    position = (
        max(segment.earliest_last_start, min([latest, *(timing.start for timing in there)])) if there else segment.start
    )
    sizes = _durations(there, arriving, segment.end - position)
    for timing, size in zip([*there, *arriving], sizes, strict=True):
        timing.start, timing.end = position, position + size
        position += size
    segment.words += arriving


def _prepend(segment: _SpeechSegment, arriving: Sequence[_Timing]) -> None:
    """Put words before the first one of a segment, which changes only as far as necessary."""
    there = segment.words[:1]
    earliest = segment.start + MIN_DURATION * len([*there, *arriving])
    stop = segment.end
    if there:
        stop = min(segment.latest_first_end, max(earliest, there[0].end))
    position = segment.start
    sizes = _durations(there, arriving, stop - position)[len(there) :]
    for timing, size in zip(arriving, sizes, strict=True):
        timing.start, timing.end = position, position + size
        position += size
    for first in there:
        first.start, first.end = max(first.start, position), stop
    segment.words[:0] = arriving


def _durations(there: Sequence[_Timing], arriving: Sequence[_Timing], room: int) -> list[int]:
    """Share `room` among words: `MIN_DURATION` each, the rest in proportion to their durations."""
    wanted = [t.duration for t in there] + [min(t.duration, MAX_MOVED_DURATION) for t in arriving]
    extra = [max(duration - MIN_DURATION, 0) for duration in wanted]
    spare, total = room - MIN_DURATION * len(extra), sum(extra)
    if total > spare:
        extra = [e * spare // total for e in extra]
    return [MIN_DURATION + e for e in extra]
