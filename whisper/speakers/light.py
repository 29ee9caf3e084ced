"""The backend `light`, which comes with the package: local speakers of windows, grouped by their voices.

The recipe is pyannote's (Bredin 2023): local speakers in windows, a vector for each voice, clustering, and the windows
put together. Memory does not grow with the square of the length: an hour is grouped in parts,
and their groups once more.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping

import numpy as np
import numpy.typing as npt

from ..spans import SAMPLE_RATE, true_runs
from . import local_speakers
from .clustering import MIN_SECONDS, THRESHOLD, Labels, Vectors, assigned, centroids, cut, lengthened, linkage
from .diarization import Diarization, Hints, Sound, Turn, numbered_name
from .local_speakers import LocalSpeakers
from .networks.segmentation import CLASSES, frame_time
from .voices import recognised, voices_of

MIN_SHARE = 0.06  # of all such voices; a group with less joins another one that is as near as this:
SMALL_THRESHOLD = 0.6
LOYALTY = 0.02  # of a piece to the speaker of its local speaker, in cosine similarity
MOST_VECTORS = 2000  # that are grouped at once: a matrix of 32 MB
BLOCK = 50_000  # frames that are ranked at once: 14 minutes
SHORTEST_TURN, SHORTEST_PAUSE = 0.1, 0.3  # seconds


def diarizing(sound: Sound, hints: Hints) -> Generator[float, None, Diarization]:
    """Find out who speaks when; yields the seconds that are done, and may be closed at any step."""
    found = yield from local_speakers.find(sound)
    duration = len(sound) / SAMPLE_RATE
    if not len(found.vectors):
        return Diarization((), (), ())
    speakers = speaker_vectors(found, hints)
    yield duration
    names = {}
    if hints.known:
        names = recognised(speakers, voices_of(hints.known))
    counted, n_at_once = votes(found, speakers_of(found, speakers))
    yield duration
    return from_votes(counted, n_at_once, duration, names)


def speaker_vectors(found: LocalSpeakers, hints: Hints) -> Vectors:
    """Group the voices of a recording into speakers; returns what each of these sounds like, ``(n_speakers, 192)``."""
    chosen = np.flatnonzero(found.seconds >= MIN_SECONDS)
    if len(chosen) < max(2, hints.fewest):
        chosen = np.argsort(-found.seconds, kind="stable")[: max(2, hints.fewest, len(chosen))]
    vectors, seconds = found.vectors[chosen], found.seconds[chosen] + 1e-3
    labels = grouped(vectors, seconds, hints)
    if hints.number is None:
        labels = without_small(vectors, seconds, labels, hints.fewest)
    return centroids(vectors, seconds, labels)


def grouped(vectors: Vectors, weights: npt.NDArray[np.float64], hints: Hints) -> Labels:
    """Group vectors, by the seconds that made each; of a long recording part by part, then the groups of all parts."""
    n = len(vectors)
    if n <= MOST_VECTORS:
        joins = linkage(lengthened(vectors, weights), weights)
        return cut(joins, n, THRESHOLD, hints.fewest, hints.most)
    labels, count = np.empty(n, np.intp), 0
    for part in np.array_split(np.arange(n), -(-n // MOST_VECTORS)):
        joins = linkage(lengthened(vectors[part], weights[part]), weights[part])
        labels[part] = count + cut(joins, len(part), THRESHOLD, hints.fewest)
        count = int(labels[part].max()) + 1
    weight_of_group = np.bincount(labels, weights).astype(np.float64)
    joined: Labels = grouped(centroids(vectors, weights, labels), weight_of_group, hints)[labels]
    return joined


def without_small(vectors: Vectors, weights: npt.NDArray[np.float64], labels: Labels, fewest: int) -> Labels:
    """Join groups with a small share of the speech to the ones that sound most like them, the smallest first."""
    while (n := int(labels.max()) + 1) > fewest:
        shares = np.bincount(labels, weights, n) / weights.sum()
        middles = centroids(vectors, weights, labels)
        distances = 1 - middles @ middles.T
        np.fill_diagonal(distances, np.inf)
        joining = np.flatnonzero((shares < MIN_SHARE) & (distances.min(1) <= SMALL_THRESHOLD))
        if not len(joining):
            break
        smallest = joining[np.argmin(shares[joining])]
        labels = np.where(labels == smallest, distances[smallest].argmin(), labels)
        labels = np.unique(labels, return_inverse=True)[1].astype(np.intp)
    return labels


def speakers_of(found: LocalSpeakers, speakers: Vectors) -> Labels:
    """Return the speaker of each piece of a voice.

    The local speakers of one window are different people; but voices that are alike are often one local speaker, so
    each piece goes where it fits best, with a little weight on where its local speaker belongs.
    """
    similarity = (found.vectors @ speakers.T).astype(np.float32)
    of_voices = np.empty(len(similarity), np.intp)
    starts = np.flatnonzero(np.diff(found.windows, prepend=-1))
    for rows in np.split(np.arange(len(similarity)), starts[1:]):
        of_voices[rows] = assigned(similarity[rows])
    of_pieces = found.pieces @ speakers.T
    of_pieces[np.arange(len(of_pieces)), of_voices[found.owners]] += LOYALTY
    labels: Labels = of_pieces.argmax(1)
    return labels


Votes = npt.NDArray[np.float32]  # (n_frames, n_speakers)


def votes(found: LocalSpeakers, labels: Labels) -> tuple[Votes, npt.NDArray[np.intp]]:
    """Put the windows over each other, by the speaker of each piece.

    Returns
    -------
    votes
        Share of the windows at each frame in which each speaker speaks, ``(n_frames, n_speakers)``.
    n_at_once
        How many speak there, ``(n_frames,)``.
    """
    n_frames = int(found.starts[-1]) + found.classes.shape[1]
    counted = np.zeros((n_frames, int(labels.max()) + 1), np.float32)
    n_at_once, n_windows = np.zeros(n_frames, np.float32), np.zeros(n_frames, np.float32)
    for start in found.starts:
        n_windows[start : start + found.classes.shape[1]] += 1
    for owner, begin, end, label in zip(found.owners, found.begins, found.ends, labels, strict=True):
        window, local = found.windows[owner], found.locals[owner]
        speaks = CLASSES[found.classes[window, begin:end], local]
        at = slice(found.starts[window] + begin, found.starts[window] + end)
        counted[at, label] += speaks
        n_at_once[at] += speaks
    n_windows = np.maximum(n_windows, np.float32(1))
    counted /= n_windows[:, None]
    return counted, np.rint(n_at_once / n_windows).astype(np.intp)


def from_votes(
    counted: Votes, n_at_once: npt.NDArray[np.intp], duration: float, known: Mapping[int, str] | None = None
) -> Diarization:
    """Make turns: at each frame the speakers with most votes, as many as speak at once; `known` ones have names."""
    speaking, exclusive = np.zeros(counted.shape, np.bool_), np.zeros(counted.shape, np.bool_)
    for at in range(0, len(counted), BLOCK):
        part = slice(at, at + BLOCK)
        order = np.argsort(-counted[part], axis=1, kind="stable")
        ranks = np.empty_like(order)
        np.put_along_axis(ranks, order, np.arange(order.shape[1])[None], axis=1)
        speaking[part] = (ranks < n_at_once[part, None]) & (counted[part] > 0)
        exclusive[part] = (ranks == 0) & speaking[part]
    heard = [k for k in range(counted.shape[1]) if speaking[:, k].any()]
    heard.sort(key=lambda k: int(np.argmax(speaking[:, k])))
    turns = [turn for k in heard for turn in _turns(speaking[:, k], f"{k}", duration)]
    turns.sort()
    first = {turn.speaker: i for i, turn in reversed(list(enumerate(turns)))}
    in_order = sorted(first, key=first.__getitem__)
    named = {f"{k}": name for k, name in (known or {}).items()}
    numbered = {k: numbered_name(i) for i, k in enumerate(k for k in in_order if k not in named)}
    names = {k: named.get(k) or numbered[k] for k in in_order}
    alone = sorted(turn for k in heard if f"{k}" in names for turn in _turns(exclusive[:, k], f"{k}", duration, 0.0))
    return Diarization(tuple(turns), tuple(alone), tuple(names)).renamed(names)


def _turns(
    speaks: npt.NDArray[np.bool_], speaker: str, duration: float, shortest_pause: float = SHORTEST_PAUSE
) -> list[Turn]:
    """Return the turns of one speaker: short pauses closed, then short turns dropped."""
    runs = [(frame_time(a), frame_time(b)) for a, b in true_runs(speaks)]
    merged: list[tuple[float, float]] = []
    for start, end in runs:
        if merged and start - merged[-1][1] < shortest_pause:
            merged[-1] = merged[-1][0], end
        else:
            merged.append((start, end))
    ends = [(round(float(start), 3), round(float(min(end, duration)), 3)) for start, end in merged]
    return [Turn(start, end, speaker) for start, end in ends if end - start >= SHORTEST_TURN]
