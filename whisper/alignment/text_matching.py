"""Matching of a known text with recognised words, and estimated times of all words.

Pure functions on words and numbers. Both sides stay in order; either may have parts that the other
lacks. Knows no audio, and never says that a word was not spoken, only that there is no room for it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ..speech.rates import MAX_LETTERS_PER_SECOND, MIN_LETTERS_PER_SECOND

Times = npt.NDArray[np.float64]  # seconds of speech, pauses left out; NaN for a word without a time

MIN_SIMILARITY = 0.5  # of two words that match
N_DIMENSIONS = 256  # of the vectors that count pairs of letters
MAX_CELLS = 2_000_000  # pairs of words that are compared at once: some 50 MB
PHRASE_LENGTH = 3  # words; a long text can be cut at phrases that are unique on both sides
SPARE_LETTERS = 60  # above `MAX_LETTERS_PER_SECOND`, since times are off by seconds


def match(known: Sequence[str], recognised: Sequence[str]) -> npt.NDArray[np.int64]:
    """Find the recognised word that each known word matches, by letters and digits alone.

    Returns
    -------
    Index into `recognised`, or -1, shape ``(len(known),)``. The indices grow from word to word.
    """
    known = ["".join(filter(str.isalnum, word.casefold())) for word in known]
    recognised = ["".join(filter(str.isalnum, word.casefold())) for word in recognised]
    matches = np.full(len(known), -1)
    rows, columns = (np.flatnonzero([bool(word) for word in words]) for words in (known, recognised))
    known, recognised = [known[i] for i in rows], [recognised[j] for j in columns]
    a, b = _letter_pair_vectors(known), _letter_pair_vectors(recognised)
    for (i, j), (i_end, j_end) in pairwise(_cuts(known, recognised)):
        if i == i_end or j == j_end:
            continue
        pairs = _best_pairs(a[i:i_end] @ b[j:j_end].T)
        matches[rows[i + pairs[:, 0]]] = columns[j + pairs[:, 1]]
    return matches


def _letter_pair_vectors(words: Sequence[str]) -> npt.NDArray[np.float32]:
    """Return counts of each word's pairs of letters, ``(n_words, N_DIMENSIONS)``, of unit length.

    The product of two vectors is the similarity of the words: misrecognised words are often half
    right.
    """
    vectors = np.zeros((len(words), N_DIMENSIONS), np.float32)
    for vector, word in zip(vectors, words, strict=True):
        for left, right in pairwise(f" {word} "):
            vector[(31 * ord(left) + ord(right)) % N_DIMENSIONS] += 1
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    return vectors


def _best_pairs(similarity: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Pair words for the greatest sum of similarities; ``(n_pairs, 2)``.

    Needleman-Wunsch alignment without a gap penalty, a row of the matrix at a time.
    """
    n, m = similarity.shape
    i, j = np.ogrid[:n, :m]
    # of equal words, prefer those at about the same place on both sides
    gains = np.where(similarity >= MIN_SIMILARITY, similarity * (1 - np.abs(i / n - j / m) / 100), 0).astype(np.float32)
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


def _cuts(known: Sequence[str], recognised: Sequence[str]) -> list[tuple[int, int]]:
    """Return places, from beginning to end, between which both texts are short enough."""
    end = len(known), len(recognised)
    if len(known) * len(recognised) <= MAX_CELLS:
        return [(0, 0), end]
    cuts = [(0, 0)]
    for place in [*_common_phrases(known, recognised), end]:
        # cut in proportion before a distant common phrase: few words are far from their place
        (i, j), (i_end, j_end) = cuts[-1], place
        n = -(-(i_end - i) * (j_end - j) // MAX_CELLS)
        cuts += [(i + (i_end - i) * k // n, j + (j_end - j) * k // n) for k in range(1, n)]
        cuts.append(place)
    return cuts


def _common_phrases(known: Sequence[str], recognised: Sequence[str]) -> list[tuple[int, int]]:
    """Return the places of phrases that are unique on both sides and in the same order."""
    once = []
    for words in (known, recognised):
        phrases = [tuple(words[i : i + PHRASE_LENGTH]) for i in range(len(words) - PHRASE_LENGTH + 1)]
        counts = Counter(phrases)
        once.append({phrase: i for i, phrase in enumerate(phrases) if counts[phrase] == 1})
    pairs = sorted((i, once[1][phrase]) for phrase, i in once[0].items() if phrase in once[1])
    # longest increasing subsequence (patience sorting): `last[n]` is the lowest end of n + 1 pairs
    last: list[int] = []
    before: dict[tuple[int, int], tuple[int, int] | None] = {}
    ends: list[tuple[int, int]] = []
    for pair in pairs:
        n = bisect_left(last, pair[1])
        last[n : n + 1], ends[n : n + 1] = [pair[1]], [pair]
        before[pair] = ends[n - 1] if n else None
    longest: list[tuple[int, int]] = []
    pair_or_none = ends[-1] if ends else None
    while pair_or_none is not None:
        longest.append(pair_or_none)
        pair_or_none = before[pair_or_none]
    return longest[::-1]


def interpolate_times(letters: Sequence[int], anchors: Times, total: float) -> Times:
    """Estimate the times of words from those of the words around them.

    Parameters
    ----------
    letters
        Letters of each word, shape ``(n_words,)``; at least 1.
    anchors
        Known times, never decreasing, shape ``(n_words,)``; NaN for the others.
    total
        Seconds of speech in all.

    Returns
    -------
    Times of all words, never decreasing, shape ``(n_words,)``; NaN for words that have less time than speaking takes.
    Where there is much more time than they need, words stay near their neighbours.
    """
    times, n = np.array(anchors, dtype=np.float64), len(anchors)
    edges = np.concatenate([[0], np.cumsum(letters)])
    for a, b in pairwise([-1, *np.flatnonzero(~np.isnan(anchors)).tolist(), n]):
        if b - a < 2:
            continue
        start, stop = times[a] if a >= 0 else 0.0, times[b] if b < n else total
        size, room = edges[b] - edges[a + 1], stop - start
        if size > MAX_LETTERS_PER_SECOND * room + SPARE_LETTERS:
            continue
        share = ((edges[a + 1 : b] + edges[a + 2 : b + 1]) / 2 - edges[a + 1]) / size
        used = room if b - a == n + 1 else min(room, size / MIN_LETTERS_PER_SECOND)
        from_start, to_stop = start + share * used, stop - (1 - share) * used
        if a < 0:
            times[a + 1 : b] = to_stop
        elif b == n:
            times[a + 1 : b] = from_start
        else:
            times[a + 1 : b] = np.where(share < 0.5, from_start, to_stop)
    return times
