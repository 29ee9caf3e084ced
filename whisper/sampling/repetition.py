"""Repetition loops: detection in a text that is still being sampled.

A decoder that has lost track of the audio samples the same words again and again until the window
is full. People repeat themselves, too, so time decides: words that are repeated faster than anyone
speaks, or so many without a timestamp among them that they do not fit into one breath. A repetition
at plausible times is no loop. Looks at token ids alone; knows neither audio nor model, and stops
nothing itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..spans import CHUNK_LENGTH, TOKENS_PER_SECOND
from ..speech.rates import MAX_LOOP_TOKENS_PER_SECOND

MAX_PERIOD = 40  # text tokens of one repetition
MIN_REPETITIONS = 4
# Text tokens that are repeated without a timestamp. Fluent English has 3 to 5 tokens in a second
# and a timestamp every few seconds; ten times the same three words stay below this.
MIN_TOKENS = 40
TIMESTAMP_TOLERANCE = 0.3  # seconds by which timestamps may be wrong


class Loop(NamedTuple):
    """A repetition loop at the end of a text."""

    keep: int  # tokens up to the end of the first repetition, timestamps included
    period: int  # text tokens of one repetition
    repetitions: int  # complete ones, the first included


def detect(tokens: Sequence[int], timestamp_begin: int) -> Loop | None:
    """Detect whether a text ends in a repetition loop.

    Parameters
    ----------
    tokens
        The tokens sampled so far in a window of 30 s: text and timestamps, without prompt and
        start.
    timestamp_begin
        The id of ``<|0.00|>``; higher ids are later by 20 ms each, lower ones are text.

    Returns
    -------
    The loop with the shortest period, or None. Made to be called after every token: where the last one occurs less
    than `MIN_REPETITIONS` times it takes a microsecond.
    """
    if not tokens or tokens[-1] >= timestamp_begin or tokens.count(tokens[-1]) < MIN_REPETITIONS:
        return None
    places = [place for place, token in enumerate(tokens) if token < timestamp_begin]
    text = [tokens[place] for place in places]
    for period in range(1, min(MAX_PERIOD, len(text) // MIN_REPETITIONS) + 1):
        if text[-1] != text[-1 - period]:
            continue
        begin = len(text) - period  # where the periodic end of the text begins
        while begin and text[begin - 1] == text[begin - 1 + period]:
            begin -= 1
        repetitions = (len(text) - begin) // period
        if repetitions >= MIN_REPETITIONS and _is_implausible(tokens, timestamp_begin, places[begin:], period):
            return Loop(_end_of_repetition(places, begin, period), period, repetitions)
    return None


def _is_implausible(tokens: Sequence[int], timestamp_begin: int, run: Sequence[int], period: int) -> bool:
    """Whether the repeated tokens, at the places `run`, do not fit into their time."""

    def seconds(place: int) -> float:
        """Return the time of the last timestamp before a place."""
        latest = next((tokens[i] for i in range(place - 1, -1, -1) if tokens[i] >= timestamp_begin), timestamp_begin)
        return (latest - timestamp_begin) / TOKENS_PER_SECOND

    # tokens after the last timestamp, and before it
    n_open = next((n for n in range(1, len(run)) if run[-1] - run[-1 - n] > n), len(run))
    n_closed = len(run) - n_open
    now = seconds(run[-1])
    least = MIN_REPETITIONS * period
    if n_open >= max(MIN_TOKENS, least):
        return True
    if n_open >= least and n_open / MAX_LOOP_TOKENS_PER_SECOND > CHUNK_LENGTH - now + TIMESTAMP_TOLERANCE:
        return True
    # the first repetition may have begun anywhere in its segment, and does not count
    closed_seconds = (n_closed - period) / MAX_LOOP_TOKENS_PER_SECOND
    return n_closed >= least and closed_seconds > now - seconds(run[period]) + TIMESTAMP_TOLERANCE


def _end_of_repetition(places: Sequence[int], begin: int, period: int) -> int:
    """Return how many tokens to keep: up to the end of the first repetition.

    Where each repetition has timestamps, the one that ends the segment is kept as well: text before
    the loop that happens to be equal to its end does not count.
    """
    last = begin + period - 1
    for i in range(last, min(last + period, len(places) - 1)):
        if places[i + 1] - places[i] > 1:  # a timestamp follows
            return places[i] + 2
    return places[last] + 1
