"""Who said which word: the word error rate of transcripts with speakers, whatever the speakers are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .scoring import word_errors

MOST_SPEAKERS = 16  # of the smaller side: more are not matched by trying their sets


def speaker_word_errors(reference: Mapping[str, Sequence[str]], found: Mapping[str, Sequence[str]]) -> int:
    """Return the fewest word errors over all ways to match speakers, as in cpWER.

    A speaker without a counterpart has all words deleted, or inserted.

    Parameters
    ----------
    reference, found
        The words of each speaker, in their order and normalized.

    Raises
    ------
    ValueError
        Both sides have more than `MOST_SPEAKERS`.
    MissingDependencyError
        rapidfuzz is not installed.

    Source: Watanabe et al. 2020, "CHiME-6 challenge" (arXiv:2004.09249), concatenated minimum-permutation word error
    rate.
    """
    few, many = sorted((list(reference.values()), list(found.values())), key=len)
    if len(few) > MOST_SPEAKERS:
        raise ValueError(f"at most {MOST_SPEAKERS} speakers can be matched, not {len(few)}")
    # gains: what a match saves beside all words of both being wrong; by sets of the smaller side, many sides in turn
    best = {0: 0}
    for theirs in many:
        gains = [len(ours) + len(theirs) - word_errors(ours, theirs) for ours in few]
        grown = dict(best)
        for taken, gain in best.items():
            for k, more in enumerate(gains):
                if not taken >> k & 1:
                    grown[taken | 1 << k] = max(grown.get(taken | 1 << k, 0), gain + more)
        best = grown
    return sum(map(len, few)) + sum(map(len, many)) - max(best.values())
