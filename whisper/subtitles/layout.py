"""The layout by rules: of all ways to cut words into cues, the one that costs least, by dynamic programming.

What a cue costs depends on its words and on the word behind it, never on other cues, so the best way to cut all
words is found exactly, in one pass. The weights are in order: what cannot be shown at all, what breaks a rule, what
reads badly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from .cues import Cue, TimedWord
from .lines import Lines, best_lines, prefix
from .passage import Passage
from .rules import Rules, rules_of
from .spoken_words import Spoken, spoken_words

# What a cue costs. A broken rule:
UNSEEN = 5000.0  # a cue of less than `SEEN` milliseconds
SEEN = 100
TOO_SHORT = 1000.0  # and as much again for no time at all
CUT_OFF = 400.0  # a cue that ends before its words do; and as much for each second
CROSSES = 500.0  # each cut of the picture
OPEN_GAP = 150.0  # a gap that should be closed, and cannot
TOO_FAST = 40.0  # and `EXCESS` times the part of the reading speed above the limit
EXCESS = 60.0
MOST_EXCESS = 1.0  # beyond this it cannot be read at all
# What reads badly:
CUE = 6.0  # each cue, so that they are filled
SCRAP = 6.0  # a cue of one word
TURN = 4.0  # a change of speaker inside a cue
SENTENCES = 1.0  # each sentence that ends inside a cue
PART = 9.0  # a sentence that begins inside a cue, and does not end there
PAUSE = 8.0  # each second of a pause inside a cue beyond `SHORT_PAUSE`
SHORT_PAUSE = 0.6
SPLITS = 1.0  # what the cost of a break counts, where it ends a cue


def lay_out(result: Mapping[str, Any], preset: str = "netflix", **rules: Any) -> list[Cue]:
    """Lay a result out as subtitles, by rules.

    Parameters
    ----------
    result
        Of `transcribe`, best with ``word_timestamps=True``: without, the words of a segment share its time. A
        ``speaker`` of words or segments, and a ``channel``, say who speaks.
    preset
        ``netflix``, ``bbc``, ``ebu``, ``social``, ``karaoke``; or ``whisper``: a cue for each segment.
    **rules
        Numbers that are others than the preset's: the fields of `subtitles.rules.RuleOptions`.

    Returns
    -------
    list of Cue
        In order, without overlaps. Every word is in one of them, but sounds where ``sounds="drop"``.

    Raises
    ------
    OptionError
        A rule has a wrong value, or there is no such preset. (A ValueError.)
    ResultError
        The result has not the form of a transcript. (A ValueError, and a TypeError.)
    """
    if preset == "whisper":
        return [_segment_cue(words) for words in _by_segment(spoken_words(result))]
    language = result.get("language") if isinstance(result, Mapping) else None
    return lay_out_by(result, rules_of(preset, language, rules, "lay_out"))


def lay_out_by(result: Mapping[str, Any], rules: Rules) -> list[Cue]:
    """Lay a result out by rules that are made already; see `lay_out`."""
    spoken = spoken_words(result, rules.sounds)
    return cues_of(Passage(spoken.words, rules, spoken.segment_starts))


def _by_segment(spoken: Spoken) -> list[Sequence[TimedWord]]:
    bounds = [*spoken.segment_starts, len(spoken.words)]
    return [spoken.words[i:j] for i, j in pairwise(bounds)]


def _segment_cue(words: Sequence[TimedWord]) -> Cue:
    first, *rest = words
    speakers = {word.speaker for word in words}
    line = (replace(first, text=first.text.lstrip()), *rest)
    speaker = first.speaker if len(speakers) == 1 else None
    return Cue(first.start, max(words[-1].end, first.start + 0.001), (line,), speaker)


def cues_of(passage: Passage, kept: Mapping[int, float] | None = None) -> list[Cue]:
    """Cut a passage into cues.

    Parameters
    ----------
    passage
        What is laid out.
    kept
        Words before which there was a cut already, each with what it costs to have none there.
    """
    n = len(passage.words)
    best = [0.0, *[math.inf] * n]  # the cost of the best cues of the words before one
    cut = [0] * (n + 1)  # where the last of these cues begins
    for i in range(n):
        for j, cost in _costs_from(passage, i, kept or {}):
            if best[i] + cost < best[j]:
                best[j], cut[j] = best[i] + cost, i
    bounds = [n]
    while bounds[-1] > 0:
        bounds.append(cut[bounds[-1]])
    bounds.reverse()
    return [_cue(passage, i, j) for i, j in pairwise(bounds)]


def _costs_from(passage: Passage, i: int, kept: Mapping[int, float]) -> list[tuple[int, float]]:
    """Return where a cue that begins with a word may end, each with its cost; there is at least one way."""
    rules, found = passage.rules, list[tuple[int, float]]()
    inside, inside_ends = 0.0, False
    for j in range(i + 1, len(passage.words) + 1):
        if j > i + 1:
            if _must_cut(passage, i, j - 1):
                break
            inside += _cost_of_going_on(passage, j - 1) + kept.get(j - 1, 0.0)
            inside_ends = inside_ends or passage.sentence_ends[j - 2]
        if j < len(passage.words) and math.isinf(passage.costs[j]):
            continue
        lines = best_lines(passage, i, j)
        part = PART * (inside_ends and not passage.sentence_ends[j - 1])
        if math.isinf(lines.cost):
            if passage.width(i, j) > rules.max_line_width * rules.max_line_count and found:
                break
            continue
        found.append((j, inside + part + lines.cost + cue_cost(passage, i, j)))
    return found or [(_next_break(passage, i), 1e6)]


def _next_break(passage: Passage, i: int) -> int:
    j = i + 1
    while j < len(passage.words) and math.isinf(passage.costs[j]):
        j += 1
    return j


def _must_cut(passage: Passage, i: int, k: int) -> bool:
    """Whether no cue that begins with the word `i` may go on with the word `k`."""
    rules = passage.rules
    pause = passage.starts[k] - passage.speech_ends[k - 1]
    full = rules.max_words_per_line is not None and passage.origins[k] - passage.origins[i] >= rules.max_words_per_line
    parted = passage.turns[k] and rules.speaker_style not in ("dash", "name") and passage.words[k].speaker is not None
    late = passage.starts[k] - passage.starts[i] >= 1000 * rules.max_duration
    must = k in passage.openings or pause > 1000 * rules.max_pause or full or parted or late
    return must and not math.isinf(passage.costs[k])


def _cost_of_going_on(passage: Passage, k: int) -> float:
    """Return what it costs to have a word in the cue of the one before it."""
    pause = (passage.starts[k] - passage.speech_ends[k - 1]) / 1000
    cost = PAUSE * max(0.0, pause - SHORT_PAUSE)
    return cost + SENTENCES * passage.sentence_ends[k - 1] + TURN * passage.turns[k]


def cue_cost(passage: Passage, i: int, j: int) -> float:
    """Return what a cue costs, but for its lines and for what is inside it."""
    rules, start, end = passage.rules, passage.starts[i], passage.end(i, j)
    duration = end - start
    cost = CUE + (SPLITS * passage.costs[j] if j < len(passage.words) else 0.0)
    cost += SCRAP * (passage.origins[j - 1] == passage.origins[i])
    least = 1000 * rules.min_duration
    if duration < int(least):
        cost += TOO_SHORT * (2 - duration / least) + UNSEEN * (duration < SEEN)
    behind, shot_end = passage.start(j), passage.shot_end(j)
    spoken = min(passage.speech_ends[j - 1], behind, shot_end)
    if spoken - end > rules.gap_ms:
        cost += CUT_OFF * (1 + (spoken - end) / 1000)
    cost += CROSSES * passage.crossed(start, end)
    if end < shot_end and rules.gap_ms < behind - end < 1000 * rules.close_gaps:
        cost += OPEN_GAP
    excess = 1000 * passage.width(i, j) / duration / rules.max_cps - 1
    return cost + (TOO_FAST + EXCESS * min(excess, MOST_EXCESS) if excess > 0.001 else 0.0)


# ---------------------------------------------------------------------------------------------------------
# The cues
# ---------------------------------------------------------------------------------------------------------


def _cue(passage: Passage, i: int, j: int) -> Cue:
    lines = best_lines(passage, i, j)
    shared = passage.has_turn(i, j)
    return Cue(
        passage.starts[i] / 1000,
        passage.end(i, j) / 1000,
        _lines(passage, lines if lines.starts else Lines((i,), 0.0), j, shared),
        None if shared else passage.words[i].speaker,
    )


def _lines(passage: Passage, lines: Lines, j: int, shared: bool) -> tuple[tuple[TimedWord, ...], ...]:
    bounds, made = [*lines.starts, j], []
    for start, end in pairwise(bounds):
        first, *rest = passage.words[start:end]
        text = prefix(passage, bounds[0], start, shared) + first.text.lstrip()
        last = [replace(word, text=word.text.rstrip()) for word in rest[-1:]]
        if not rest:
            text = text.rstrip()
        made.append((replace(first, text=text), *rest[:-1], *last))
    return tuple(made)
