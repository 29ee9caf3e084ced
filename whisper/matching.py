"""Words of a known text and words that were heard: which of them are the same, and where that puts the others.

Pure functions on words and numbers. Order is kept on both sides; either may have parts that the other lacks. Knows no
sound, and never says that a word was not spoken, only that there is no room for it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.float64]  # seconds of speech, pauses left out; NaN where a word has none

ALIKE = 0.5  # of two words, from which on they are taken for the same
DIMENSIONS = 256  # that pairs of letters are counted in
CELLS = 2_000_000  # words times words that are compared at once: some 50 MB
PHRASE = 3  # words that, said once and written once, show where a long text can be cut

MOST_LETTERS = 30.0  # per second of speech; nobody speaks faster
SPARE_LETTERS = 60  # more, for times are rough by seconds
LEAST_LETTERS = 2.5  # per second: with fewer, much is said that the text does not have


def match(known: Sequence[str], heard: Sequence[str]) -> npt.NDArray[np.int64]:
    """Find the heard word that each known one is, by letters and digits alone.

    Returns
    -------
    Index into `heard`, or -1, shape ``(len(known),)``. The indices grow from word to word.
    """
    known, heard = (
        ["".join(filter(str.isalnum, w.casefold())) for w in known],
        ["".join(filter(str.isalnum, w.casefold())) for w in heard],
    )
    found = np.full(len(known), -1)
    rows, columns = (np.flatnonzero([bool(word) for word in words]) for words in (known, heard))
    a, b = _pairs_of_letters([known[i] for i in rows]), _pairs_of_letters([heard[j] for j in columns])
    for (i, j), (i_end, j_end) in pairwise(_cuts([known[i] for i in rows], [heard[j] for j in columns])):
        if i == i_end or j == j_end:
            continue
        pairs = _best_pairs(a[i:i_end] @ b[j:j_end].T)
        found[rows[i + pairs[:, 0]]] = columns[j + pairs[:, 1]]
    return found


def _pairs_of_letters(words: Sequence[str]) -> npt.NDArray[np.float32]:
    """Return a vector of length 1 for each word, ``(n_words, DIMENSIONS)``: how often which letters follow each other.

    Their product tells how much of two words is the same: misheard words are often half right.
    """
    vectors = np.zeros((len(words), DIMENSIONS), np.float32)
    for vector, word in zip(vectors, words, strict=True):
        for left, right in pairwise(f" {word} "):
            vector[(31 * ord(left) + ord(right)) % DIMENSIONS] += 1
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    return vectors


def _best_pairs(alike: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Pair words so that the pairs are, in all, as alike as can be, ``(n_known, n_heard)`` -> ``(n_pairs, 2)``.

    Needleman and Wunsch's alignment, a row at a time, without a price for what is left out.
    """
    n, m = alike.shape
    i, j = np.ogrid[:n, :m]
    # of equal words, those that are as far along in both
    gains = np.where(alike >= ALIKE, alike * (1 - np.abs(i / n - j / m) / 100), 0).astype(np.float32)
    best = np.zeros((n + 1, m + 1), np.float32)
    for row, gain in enumerate(gains, start=1):
        paired = best[row - 1, :-1] + gain
        np.maximum.accumulate(np.maximum(best[row - 1, 1:], paired), out=best[row, 1:])
    pairs = []
    row, column = n, m
    while row and column:
        if best[row, column] == best[row - 1, column]:
            row -= 1
        elif best[row, column] == best[row, column - 1]:
            column -= 1
        else:
            row, column = row - 1, column - 1
            pairs.append((row, column))
    return np.array(pairs[::-1], dtype=np.int64).reshape(-1, 2)


def _cuts(known: Sequence[str], heard: Sequence[str]) -> list[tuple[int, int]]:
    """Return places, from the beginning to the end, such that what lies between two of them can be compared at once."""
    end = len(known), len(heard)
    if len(known) * len(heard) <= CELLS:
        return [(0, 0), end]
    cuts = [(0, 0)]
    for place in [*_common_phrases(known, heard), end]:
        # where no phrase is common for long, cut in proportion: few words are far from where they would be
        (i, j), (i_end, j_end) = cuts[-1], place
        n = -(-(i_end - i) * (j_end - j) // CELLS)
        cuts += [(i + (i_end - i) * k // n, j + (j_end - j) * k // n) for k in range(1, n)]
        cuts.append(place)
    return cuts


def _common_phrases(known: Sequence[str], heard: Sequence[str]) -> list[tuple[int, int]]:
    """Return where phrases begin that occur once on either side, as many as there are in the same order."""
    once = []
    for words in (known, heard):
        phrases = [tuple(words[i : i + PHRASE]) for i in range(len(words) - PHRASE + 1)]
        counts = Counter(phrases)
        once.append({phrase: i for i, phrase in enumerate(phrases) if counts[phrase] == 1})
    pairs = sorted((i, once[1][phrase]) for phrase, i in once[0].items() if phrase in once[1])
    # the longest row in which both grow (patience sorting): `last[n]` ends the row of n + 1 pairs that ends first
    last: list[int] = []
    before: dict[tuple[int, int], tuple[int, int] | None] = {}
    ends: list[tuple[int, int]] = []
    for pair in pairs:
        n = bisect_left(last, pair[1])
        last[n : n + 1], ends[n : n + 1] = [pair[1]], [pair]
        before[pair] = ends[n - 1] if n else None
    row: list[tuple[int, int]] = []
    pair_or_none = ends[-1] if ends else None
    while pair_or_none is not None:
        row.append(pair_or_none)
        pair_or_none = before[pair_or_none]
    return row[::-1]


def spread(letters: Sequence[int], anchors: Times, total: float) -> Times:
    """Put the words between those whose times are known.

    Parameters
    ----------
    letters
        Of each word, shape ``(n_words,)``; at least 1.
    anchors
        Times that are known, never going back, shape ``(n_words,)``.
    total
        Seconds of speech in all.

    Returns
    -------
    Times of all words, never going back, shape ``(n_words,)``; none for those that nobody could say in the time that
    there is. Where there is much more time than they need, words stay near their neighbours.
    """
    times, n = np.array(anchors, dtype=np.float64), len(anchors)
    edges = np.concatenate([[0], np.cumsum(letters)])
    for a, b in pairwise([-1, *np.flatnonzero(~np.isnan(anchors)).tolist(), n]):
        if b - a < 2:
            continue
        start, stop = times[a] if a >= 0 else 0.0, times[b] if b < n else total
        size, room = edges[b] - edges[a + 1], stop - start
        if size > MOST_LETTERS * room + SPARE_LETTERS:
            continue
        share = ((edges[a + 1 : b] + edges[a + 2 : b + 1]) / 2 - edges[a + 1]) / size
        used = room if b - a == n + 1 else min(room, size / LEAST_LETTERS)
        behind, before = start + share * used, stop - (1 - share) * used
        times[a + 1 : b] = before if a < 0 else behind if b == n else np.where(share < 0.5, behind, before)
    return times
