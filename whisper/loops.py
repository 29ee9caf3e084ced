"""Whether a text that is still growing goes round in circles, and where its first round ends.

A decoder that has lost the sound says the same words again and again until nothing more fits. People repeat
themselves, too, so what counts is time: words that come again faster than anybody speaks, or so many without any
timestamp among them that nobody would say them in one breath. What is said again at plausible times is no loop.
Looks at token ids alone; knows neither sound nor model, and ends nothing itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .audio import CHUNK_LENGTH, TOKENS_PER_SECOND

MAX_PERIOD = 40  # text tokens of one round
MIN_ROUNDS = 4
# Text tokens that come round without a timestamp. Fluent English has 3 to 5 tokens in a second and a timestamp every
# few seconds; ten times the same three words stay below this.
MIN_TOKENS = 40
# Text tokens that nobody says in a second. Fast English has 8, languages of which the vocabulary has few words about
# twice as many.
FASTEST = 15
SLACK = 0.3  # seconds by which timestamps may be wrong


class Loop(NamedTuple):
    """A text that goes round in circles."""

    keep: int  # tokens up to the end of the first round, timestamps included; the others only repeat it
    period: int  # text tokens of one round
    rounds: int  # whole ones, the first included


def detect(tokens: Sequence[int], timestamp_begin: int) -> Loop | None:
    """Tell whether a text ends in a loop.

    Parameters
    ----------
    tokens
        What was sampled so far in a window of 30 s: text and timestamps, without prompt and start.
    timestamp_begin
        The id of ``<|0.00|>``; higher ids are later by 20 ms each, lower ones are text.

    Returns
    -------
    The loop with the shortest rounds, or None. Made to be asked after every token: where the last one has not been
    said a few times it costs a microsecond.
    """
    if not tokens or tokens[-1] >= timestamp_begin or tokens.count(tokens[-1]) < MIN_ROUNDS:
        return None
    places = [place for place, token in enumerate(tokens) if token < timestamp_begin]
    text = [tokens[place] for place in places]
    for period in range(1, min(MAX_PERIOD, len(text) // MIN_ROUNDS) + 1):
        if text[-1] != text[-1 - period]:
            continue
        begin = len(text) - period  # where the run of text that comes round begins
        while begin and text[begin - 1] == text[begin - 1 + period]:
            begin -= 1
        rounds = (len(text) - begin) // period
        if rounds >= MIN_ROUNDS and _is_implausible(tokens, timestamp_begin, places[begin:], period):
            return Loop(_end_of_round(places, begin, period), period, rounds)
    return None


def _is_implausible(tokens: Sequence[int], timestamp_begin: int, run: Sequence[int], period: int) -> bool:
    """Whether nobody would say what stands at the places `run`, the last of `tokens`, which has this period."""

    def seconds(place: int) -> float:
        """Return the time of the last timestamp before a place."""
        latest = next((tokens[i] for i in range(place - 1, -1, -1) if tokens[i] >= timestamp_begin), timestamp_begin)
        return (latest - timestamp_begin) / TOKENS_PER_SECOND

    n_open = next((n for n in range(1, len(run)) if run[-1] - run[-1 - n] > n), len(run))  # after the last timestamp
    n_closed = len(run) - n_open
    now = seconds(run[-1])
    least = MIN_ROUNDS * period
    if n_open >= max(MIN_TOKENS, least) or (n_open >= least and n_open / FASTEST > CHUNK_LENGTH - now + SLACK):
        return True
    # the first round may have begun anywhere in its segment, and does not count
    return n_closed >= least and (n_closed - period) / FASTEST > now - seconds(run[period]) + SLACK


def _end_of_round(places: Sequence[int], begin: int, period: int) -> int:
    """Return how many tokens to keep: one round of what comes round from `begin` on, whose text stands at `places`.

    Where timestamps come with the rounds, the one that ends the segment is kept as well: whatever of the segment
    before happened to be like the loop does not count.
    """
    last = begin + period - 1
    for i in range(last, min(last + period, len(places) - 1)):
        if places[i + 1] - places[i] > 1:  # a timestamp follows
            return places[i] + 2
    return places[last] + 1
