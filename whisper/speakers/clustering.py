"""Voices grouped into speakers: average linkage on cosine distances, cut at a distance or at a number of groups.

Knows vectors alone, and no sound.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import numpy.typing as npt

# Chosen on made conversations of 1 to 6 people of the training set; see docs/log.md for what else was tried.
THRESHOLD = 0.40  # cosine distance up to which groups of voices are one speaker
MIN_SECONDS = 1.5  # alone, of a voice that may found a speaker
DOUBT = 0.5  # seconds; of so much speech, half of a vector's power is what was said, and not who spoke

Vectors = npt.NDArray[np.float32]  # (n, size), each of length 1
Labels = npt.NDArray[np.intp]


def normalized(vectors: Vectors) -> Vectors:
    """Scale vectors to length 1."""
    result: Vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    return result


def lengthened(vectors: Vectors, seconds: npt.NDArray[np.float64]) -> Vectors:
    """Divide vectors by what their doubt takes from their similarities: `seconds` of speech made each, ``(n,)``.

    The less of a voice was heard, the less it resembles anything, also the same voice. Spearman's correction for
    attenuation: their products are the similarities that voices heard for long would have.
    """
    result: Vectors = (vectors * np.sqrt(1 + DOUBT / seconds)[:, None]).astype(np.float32)
    return result


def linkage(vectors: Vectors, weights: npt.NDArray[np.float64]) -> list[tuple[float, int, int]]:
    """Join vectors step by step, always the two groups with the least mean cosine distance.

    By chains of nearest neighbours (Murtagh 1983), so in the time of the matrix of distances.

    Parameters
    ----------
    vectors
        ``(n, size)``; see also `lengthened`.
    weights
        How much each vector counts in the mean, such as its seconds, ``(n,)``.

    Returns
    -------
    Distance of each of the ``n - 1`` joins and one vector of either group, by rising distance.
    """
    n = len(vectors)
    distances = 1.0 - vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    np.fill_diagonal(distances, np.inf)
    sizes = weights.astype(np.float64).copy()
    alive = np.ones(n, np.bool_)
    joins: list[tuple[float, int, int]] = []
    chain: list[int] = []
    for _ in range(n - 1):
        if not chain:
            chain = [int(np.argmax(alive))]
        while True:
            nearest = int(np.argmin(distances[chain[-1]]))
            if len(chain) > 1 and distances[chain[-1], chain[-2]] <= distances[chain[-1], nearest]:
                break
            chain.append(nearest)
        i, j = chain.pop(), chain.pop()
        joins.append((float(distances[i, j]), i, j))
        mean = (sizes[i] * distances[i] + sizes[j] * distances[j]) / (sizes[i] + sizes[j])
        sizes[i] += sizes[j]
        alive[j] = False
        distances[i], distances[:, i] = mean, mean
        distances[j], distances[:, j] = np.inf, np.inf
        distances[i, i] = np.inf
    return sorted(joins, key=lambda join: join[0])


def cut(
    joins: list[tuple[float, int, int]], n: int, threshold: float, fewest: int = 1, most: int | None = None
) -> Labels:
    """Cut the tree of `linkage` where the distance passes a threshold, within limits of the number of groups.

    Returns
    -------
    The group of each of the `n` vectors, from 0 on, ``(n,)``.
    """
    wanted = n - sum(distance <= threshold for distance, _, _ in joins)
    wanted = min(max(wanted, fewest), n if most is None else max(most, 1))
    parents = list(range(n))

    def root(i: int) -> int:
        while parents[i] != i:
            parents[i] = parents[parents[i]]
            i = parents[i]
        return i

    for _, i, j in joins[: max(n - wanted, 0)]:
        parents[root(j)] = root(i)
    labels: Labels = np.unique([root(i) for i in range(n)], return_inverse=True)[1].astype(np.intp)
    return labels


def centroids(vectors: Vectors, weights: npt.NDArray[np.float64], labels: Labels) -> Vectors:
    """Return the weighted mean direction of each group, ``(n_groups, size)``."""
    groups = np.arange(labels.max() + 1)[:, None] == labels
    return normalized(((groups * weights) @ vectors).astype(np.float32))


def assigned(similarity: npt.NDArray[np.float32]) -> Labels:
    """Give the local speakers of one window to different speakers, so that the sum of similarities is greatest.

    Parameters
    ----------
    similarity
        ``(n_local, n_speakers)``, with at most three local speakers.

    Returns
    -------
    The speaker of each, ``(n_local,)``. Two share one only where there are fewer speakers.
    """
    n_local, n_speakers = similarity.shape
    if n_speakers < n_local or n_local == 1:
        nearest: Labels = similarity.argmax(1)
        return nearest
    best = np.argsort(-similarity, axis=1)[:, :n_local]  # one of these is free for each, whatever the others take
    choices = [c for c in product(*best) if len(set(c)) == n_local]
    return np.array(max(choices, key=lambda c: similarity[np.arange(n_local), list(c)].sum()), np.intp)
