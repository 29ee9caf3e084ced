"""The lines of one cue: of all ways to break its words, the best one."""

from __future__ import annotations

import math
from typing import NamedTuple

from .passage import Passage

BREAK = 0.6  # what the cost of a break counts, where it ends a line but not a cue
LINE = 1.0  # of each line beyond the first
SHAPE = 4.0  # of a full line; grows with the square of the width, so that even lines cost least
UPPER = 0.8  # of a full line above others, where the lower one should be the longer one


class Lines(NamedTuple):
    """Where lines begin, as indexes of words, and the cost."""

    starts: tuple[int, ...]
    cost: float


IMPOSSIBLE = Lines((), math.inf)


def best_lines(passage: Passage, i: int, j: int) -> Lines:
    """Break the words from `i` to before `j` into lines.

    Returns
    -------
    Lines
        `IMPOSSIBLE` where they do not fit. Text that fits on one line has one; speakers who share a cue have lines
        of their own.
    """
    rules = passage.rules
    shared = passage.has_turn(i, j)
    if shared and rules.speaker_style not in ("dash", "name"):
        return IMPOSSIBLE
    if not shared and _width(passage, i, i, j, False) <= rules.max_line_width:
        return Lines((i,), 0.0)
    found, layer = IMPOSSIBLE, {i: Lines((), 0.0)}
    for n in range(1, rules.max_line_count + 1):
        last = _through(passage, layer, i, j, j, shared)
        found = min(found, last.get(j, IMPOSSIBLE), key=lambda lines: lines.cost)
        if n < rules.max_line_count:
            layer = _through(passage, layer, i, i + 1, j - 1, shared)
    return found


def _through(passage: Passage, layer: dict[int, Lines], i: int, low: int, high: int, shared: bool) -> dict[int, Lines]:
    """Return the best lines up to each word from `low` to `high`, one line more than those of `layer`."""
    rules, costs, ends_at, found = passage.rules, passage.costs, passage.ends_at, dict[int, Lines]()
    limit, upper = rules.max_line_width, UPPER * (rules.line_shape == "bottom-heavy")
    is_last = low == high
    for start, above in layer.items():
        before = ends_at[start] + passage.spaces[start] - passage.measure(prefix(passage, i, start, shared))
        base = above.cost + LINE * bool(above.starts)
        for end in range(max(low, start + 1), high + 1):
            if ends_at[end] - before > limit or (shared and passage.has_turn(start, end)):
                break
            share = (ends_at[end] - before) / limit
            cost = base + SHAPE * share * share
            if not is_last:
                cost += BREAK * costs[end] + upper * share
            if cost < math.inf and (end not in found or cost < found[end].cost):
                found[end] = Lines((*above.starts, start), cost)
    return found


def prefix(passage: Passage, first: int, k: int, shared: bool) -> str:
    """Return what stands before the word `k` if a line begins with it, in a cue that begins with the word `first`."""
    rules = passage.rules
    if rules.speaker_style == "name":
        return passage.prefixes[k]
    opens = k == first or passage.turns[k]
    if not (shared and opens and rules.speaker_style == "dash"):
        return ""
    return rules.dash if rules.first_dash or k != first else ""


def _width(passage: Passage, first: int, start: int, end: int, shared: bool) -> float:
    return passage.width(start, end) + passage.measure(prefix(passage, first, start, shared))
