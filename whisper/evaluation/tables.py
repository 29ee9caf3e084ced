"""Evaluations as text for a terminal: scores, a table of each grouping, the worst clips.

Computes no scores and prints nothing; `results` has the scores and `report` the same as an HTML
page.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

from .results import Comparison, Evaluation, EvaluationScores, GroupScore, ScoredClip
from .scoring import TIME_TOLERANCES, Spread, Step

MAX_GROUPS = 15  # shown in a table of groups, or lines of a list; the others are counted
MAX_ALIGNED_WORDS = 60  # of a clip
GROUP_TITLES = {"set": "Sets", "language": "Languages", "speaker": "Speakers"}
_KINDS = {
    "speech": "with speech",
    "non_speech": "without speech",
    "unlabelled": "without transcript (not scored)",
    "failed": "that failed",
}
_MARKS = {"hit": "", "substitution": "S", "deletion": "D", "insertion": "I"}


def describe(evaluation: Evaluation, n_worst: int = 5, width: int = 100) -> str:
    """Return a summary of an evaluation for a terminal of `width` columns."""
    scores = evaluation.scores
    kinds = [f"{scores.n_clips[kind]} {words}" for kind, words in _KINDS.items() if scores.n_clips[kind]]
    n_clips = ", ".join([amount(sum(scores.n_clips.values()), "recording"), *kinds])
    parts = [
        [f"{evaluation.model or 'model'}: {n_clips}"],
        list(_scores(evaluation)),
        *([GROUP_TITLES[by], *group_table(groups)] for by, groups in scores.groups.items() if len(groups) > 1),
        list(_confusions(scores)),
        *([f"  {line}" for line in clip_lines(clip, width - 2)] for clip in worst_clips(evaluation, n_worst)),
        list(_failures(evaluation)),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def _scores(evaluation: Evaluation) -> Iterator[str]:
    scores = evaluation.scores
    if scores.total:
        e = scores.total.edits
        edits = f"{e.substitutions} substitutions, {e.deletions} deletions, {e.insertions} insertions"
        yield f"word error rate       {scores.total.words}: {edits}"
        yield f"character error rate  {scores.total.characters}"
        yield f"clips with an error   {scores.total.wrong_clips}"
    if scores.non_speech:
        hallucinated = f"{scores.non_speech.words_per_minute:.1f} words per minute"
        yield f"hallucinated clips    {scores.non_speech.clips}; {hallucinated}"
    if scores.languages:
        yield f"wrong language        {scores.languages.clips}"
    if scores.times:
        times = scores.times
        found = f"{times.matched} of {times.words} words"
        yield f"word starts           {_spread(times.starts)} ({found})"
        yield f"word ends             {_spread(times.ends)}"
    if scores.speed:
        speed = scores.speed
        times_real = f"{1 / max(speed.factor, 1e-9):.1f} times real time"
        yield f"speed                 {speed.seconds:.1f} s for {speed.audio_seconds:.1f} s of audio, {times_real}"
        yield f"real-time factor      median clip {speed.median:.3f}, 90 % below {speed.p90:.3f}"
    if evaluation.load_seconds is not None:
        yield f"loading the model     {evaluation.load_seconds:.1f} s"
    for where, size in evaluation.peak_memory.items():
        yield f"{f'peak {where} memory':22}{size / 1e6:.0f} MB"


def _spread(spread: Spread) -> str:
    within = ", ".join(
        f"{100 * share:.0f} % within {1000 * near:.0f} ms"
        for share, near in zip(spread.within, TIME_TOLERANCES, strict=True)
    )
    median = f"{1000 * spread.median:.0f} ms [{1000 * spread.low:.0f}, {1000 * spread.high:.0f}]"
    return f"median error {median}, 90 % below {1000 * spread.p90:.0f} ms; {within}; {lateness(spread)}"


def lateness(spread: Spread) -> str:
    """Return the median signed error in words."""
    return f"{abs(1000 * spread.bias):.0f} ms {'late' if spread.bias >= 0 else 'early'}"


def group_table(groups: Sequence[GroupScore]) -> list[str]:
    """Return a header and a line for each of the first `MAX_GROUPS` groups."""
    rows: list[tuple[str, ...]] = [("", "clips", "words", "word errors", "", "sub", "del", "ins", "characters")]
    for group in groups[:MAX_GROUPS]:
        words, edits = group.words, group.edits
        interval = f"[{100 * words.low:.1f}, {100 * words.high:.1f}]" if words.clips > 1 else ""
        rate, letters = f"{100 * words.rate:.1f} %", f"{100 * group.characters.rate:.1f} %"
        counts = (str(n) for n in (edits.substitutions, edits.deletions, edits.insertions))
        rows.append((group.name, str(words.clips), str(words.total), rate, interval, *counts, letters))
    widths = [max(map(columns, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [" " * (width - columns(cell)) + cell for cell, width in zip(row, widths, strict=True)]
        cells[0] = row[0] + " " * (widths[0] - columns(row[0]))
        lines.append("  " + "  ".join(cells).rstrip())
    if len(groups) > MAX_GROUPS:
        lines.append(f"  and {len(groups) - MAX_GROUPS} more with lower rates")
    return lines


def _confusions(scores: EvaluationScores) -> Iterator[str]:
    if scores.non_speech and len(scores.non_speech.sets) > 1:
        yield "Non-speech clips with hallucinated text"
        for name, score in scores.non_speech.sets.items():
            yield f"  {name}: {score}"
    if scores.languages and scores.languages.confusions:
        wrong = [f"{labelled} as {detected} ({n})" for labelled, detected, n in scores.languages.confusions]
        yield f"Misdetected languages: {', '.join(wrong)}"


def _failures(evaluation: Evaluation) -> Iterator[str]:
    failed = [clip for clip in evaluation.clips if clip.kind == "failed"]
    if failed:
        yield f"Recordings that failed: {len(failed)}"
        yield from (f"  {clip.recording.path}: {clip.error}" for clip in failed[:MAX_GROUPS])
    if len(failed) > MAX_GROUPS:
        yield f"  and {len(failed) - MAX_GROUPS} more"
    if evaluation.skipped:
        yield f"Skipped entries of the manifest: {len(evaluation.skipped)}"
        yield from (f"  line {entry['line']}: {entry['reason']}" for entry in evaluation.skipped[:MAX_GROUPS])
    if len(evaluation.skipped) > MAX_GROUPS:
        yield f"  and {len(evaluation.skipped) - MAX_GROUPS} more"


# --------------------------------------------------------------------------------------------------
# Aligned clips
# --------------------------------------------------------------------------------------------------


def worst_clips(evaluation: Evaluation, n: int) -> list[ScoredClip]:
    """Return the `n` clips with the most word errors; of equals the higher rate comes first."""
    wrong = [clip for clip in evaluation.clips if clip.kind == "speech" and clip.edits.errors]
    wrong.sort(key=lambda clip: (-clip.edits.errors, clip.edits.total))
    return wrong[:n]


def clip_lines(clip: ScoredClip, width: int = 100) -> list[str]:
    """Return a heading and the aligned texts, with S, D and I below the words that differ."""
    part = "" if clip.recording.start is None else f" from {clip.recording.start:.2f} s"
    lines = [f"{clip.recording.path}{part}: {amount(clip.edits.errors, 'error')} in {amount(clip.edits.total, 'word')}"]
    block: list[Step] = []
    for step in clip.steps[:MAX_ALIGNED_WORDS]:
        if block and columns("  ".join(_cells([*block, step])[0])) > width - 6:
            lines += _aligned(block)
            block = []
        block.append(step)
    more = len(clip.steps) - MAX_ALIGNED_WORDS
    return lines + _aligned(block) + ([f"      and {more} more words"] if more > 0 else [])


def _cells(steps: Sequence[Step]) -> tuple[list[str], list[str], list[str]]:
    rows: tuple[list[str], list[str], list[str]] = ([], [], [])
    for step in steps:
        width = max(columns(step.reference or ""), columns(step.hypothesis or ""), 1)
        for row, text in zip(rows, (step.reference, step.hypothesis, _MARKS[step.kind]), strict=True):
            shown = "*" * width if text is None else text
            row.append(shown + " " * (width - columns(shown)))
    return rows


def _aligned(steps: Sequence[Step]) -> list[str]:
    names = ("ref", "hyp", "")
    return [f"{name:5} {' '.join(cells)}".rstrip() for name, cells in zip(names, _cells(steps), strict=True)]


def amount(n: int, what: str) -> str:
    """Return ``1 clip``, ``2 clips``."""
    return f"{n:,} {what}" + ("" if n == 1 else "s")


def columns(text: str) -> int:
    """Return the columns that `text` takes: two for wide characters, none for combining marks."""
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )


# --------------------------------------------------------------------------------------------------
# Two evaluations
# --------------------------------------------------------------------------------------------------


def describe_comparison(comparison: Comparison) -> str:
    """Return how a second model differs from a first."""
    lines = [
        f"{comparison.second} against {comparison.first}, negative is better; in brackets 95 % confidence intervals",
        f"  word error rate       {comparison.words}: {verdict(comparison)}",
        f"  character error rate  {comparison.characters}",
        f"  clips better {comparison.better}, worse {comparison.worse}, equal {comparison.same}",
    ]
    if comparison.unpaired:
        lines.append(f"  {comparison.unpaired} clips are not in both, or differ in their reference text")
    lines += [f"  {name or 'no set'}: {difference}" for name, difference in comparison.sets.items()]
    return "\n".join(lines)


def verdict(comparison: Comparison) -> str:
    """Return whether the second model is significantly better."""
    if not comparison.words.significant:
        return "no significant difference"
    return "significantly better" if comparison.words.value < 0 else "significantly worse"
