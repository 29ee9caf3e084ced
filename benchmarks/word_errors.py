"""The word errors of a long transcript: of what kind its inserted words are, and how sure a difference of two is.

Pure functions on alignments of `whisper.evaluation.scoring`; reads no file and knows no model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from whisper.evaluation.scoring import Step

INSERTIONS = {  # kinds of inserted words, by the errors that they stand among
    "split": "one word written as several, with the same letters",
    "misread": "words of which others were said: more than were said",
    "twice": "between words that were read right, the words beside them again",
    "added": "between words that were read right, others",
}
BLOCK_WORDS = 50  # of the reference, about 20 s: errors come in runs, so that words are no sample


def insertions(steps: Sequence[Step]) -> Counter[str]:
    """Count the inserted words by kind; a run of errors is of one kind."""
    said = [step.hypothesis for step in steps if step.hypothesis is not None]
    found: Counter[str] = Counter()
    end = 0  # in `said`
    for is_hit, run in groupby(steps, lambda step: step.kind == "hit"):
        errors = list(run)
        ours = [step.reference for step in errors if step.reference is not None]
        theirs = [step.hypothesis for step in errors if step.hypothesis is not None]
        begin, end = end, end + len(theirs)
        inserted = sum(step.kind == "insertion" for step in errors)
        if is_hit or not inserted:
            continue
        if ours:
            kind = "split" if "".join(ours) == "".join(theirs) else "misread"
        else:
            beside = said[max(begin - len(theirs), 0) : begin], said[end : end + len(theirs)]
            kind = "twice" if theirs in beside else "added"
        found[kind] += inserted
    return found


def errors_in_blocks(steps: Sequence[Step]) -> tuple[list[int], list[int]]:
    """Return errors and words of the reference, in blocks of `BLOCK_WORDS` of these."""
    errors, words = [0], [0]
    for step in steps:
        if step.reference is not None:
            if words[-1] == BLOCK_WORDS:
                errors.append(0)
                words.append(0)
            words[-1] += 1
        errors[-1] += step.kind != "hit"
    return errors, words
