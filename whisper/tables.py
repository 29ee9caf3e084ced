"""Evaluations as text for a terminal: the figures, a table of each grouping, and the worst clips aligned.

Works nothing out and prints nothing; `outcomes` has the figures and `report` the same as a page.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

from .outcomes import Clip, Comparison, Evaluation, GroupScore, Scores
from .scoring import NEAR, Spread, Step

N_ROWS = 15  # of a table of groups; the others are counted
N_STEPS = 60  # words of a clip that are shown aligned
_KINDS = {
    "speech": "with speech",
    "silence": "where nobody speaks",
    "untold": "without transcript (not scored)",
    "failed": "that could not be read",
}
_TITLES = {"set": "Sets", "language": "Languages", "speaker": "Speakers"}
_MARKS = {"hit": "", "substitution": "S", "deletion": "D", "insertion": "I"}


def describe(evaluation: Evaluation, n_worst: int = 5, width: int = 100) -> str:
    """Return everything about an evaluation that fits a terminal of `width` columns."""
    scores = evaluation.scores
    parts = [
        [f"{evaluation.model or 'model'}: {_counts(scores)}"],
        list(_figures(evaluation)),
        *([_TITLES[by], *group_table(groups)] for by, groups in scores.groups.items() if len(groups) > 1),
        list(_silence(scores)),
        *([f"  {line}" for line in clip_lines(clip, width - 2)] for clip in worst_clips(evaluation, n_worst)),
        list(_failures(evaluation)),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def _counts(scores: Scores) -> str:
    told = [f"{scores.n_clips[kind]} {words}" for kind, words in _KINDS.items() if scores.n_clips[kind]]
    return amount(sum(scores.n_clips.values()), "recording") + (f", {', '.join(told)}" if told else "")


def _figures(evaluation: Evaluation) -> Iterator[str]:
    scores = evaluation.scores
    if scores.total:
        e = scores.total.edits
        edits = f"{e.substitutions} substituted, {e.deletions} missing, {e.insertions} added"
        yield f"word error rate       {scores.total.words}: {edits}"
        yield f"character error rate  {scores.total.characters}"
        yield f"clips with an error   {scores.total.wrong_clips}"
    if scores.silence:
        yield f"text where none is    {scores.silence.clips}; {scores.silence.words_per_minute:.1f} words a minute"
    if scores.languages:
        yield f"wrong language        {scores.languages.clips}"
    if scores.times:
        times = scores.times
        found = f"{times.matched} of {times.words} words"
        yield f"words start           {_spread(times.starts)} ({found})"
        yield f"words end             {_spread(times.ends)}"
    if speed := scores.speed:
        times_real = f"{1 / max(speed.factor, 1e-9):.1f} times as fast as speech"
        yield f"speed                 {speed.seconds:.1f} s for {speed.audio_seconds:.1f} s of sound, {times_real}"
        yield f"real-time factor      median clip {speed.median:.3f}, 90 % below {speed.p90:.3f}"
    if evaluation.load_seconds is not None:
        yield f"loading the model     {evaluation.load_seconds:.1f} s"
    for where, size in evaluation.peak_memory.items():
        yield f"{f'memory of the {where}':22}{size / 1e6:.0f} MB at most"


def _spread(spread: Spread) -> str:
    within = ", ".join(
        f"{100 * share:.0f} % within {1000 * near:.0f} ms" for share, near in zip(spread.within, NEAR, strict=True)
    )
    median = f"{1000 * spread.median:.0f} ms [{1000 * spread.low:.0f}, {1000 * spread.high:.0f}]"
    return f"{median} off, 90 % below {1000 * spread.p90:.0f} ms; {within}; {lateness(spread)}"


def lateness(spread: Spread) -> str:
    """Return how late, or early, times are in the middle."""
    return f"{abs(1000 * spread.bias):.0f} ms {'late' if spread.bias >= 0 else 'early'}"


def group_table(groups: Sequence[GroupScore]) -> list[str]:
    """Return a heading and a line for each of the first `N_ROWS` groups."""
    rows: list[tuple[str, ...]] = [("", "clips", "words", "word errors", "", "sub", "del", "ins", "characters")]
    for group in groups[:N_ROWS]:
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
    if len(groups) > N_ROWS:
        lines.append(f"  and {len(groups) - N_ROWS} more with lower rates")
    return lines


def _silence(scores: Scores) -> Iterator[str]:
    if scores.silence and len(scores.silence.sets) > 1:
        yield "Clips where nobody speaks that were given text"
        for name, score in scores.silence.sets.items():
            yield f"  {name}: {score}"
    if scores.languages and scores.languages.confusions:
        wrong = [f"{spoken} as {heard} ({n})" for spoken, heard, n in scores.languages.confusions]
        yield f"Languages taken for others: {', '.join(wrong)}"


def _failures(evaluation: Evaluation) -> Iterator[str]:
    failed = [clip for clip in evaluation.clips if clip.kind == "failed"]
    if failed:
        yield f"Recordings that could not be read: {len(failed)}"
        yield from (f"  {clip.recording.path}: {clip.error}" for clip in failed[:N_ROWS])
    if len(failed) > N_ROWS:
        yield f"  and {len(failed) - N_ROWS} more"
    if evaluation.skipped:
        yield f"Rows of the manifest that were left out: {len(evaluation.skipped)}"
        yield from (f"  line {row['line']}: {row['reason']}" for row in evaluation.skipped[:N_ROWS])
    if len(evaluation.skipped) > N_ROWS:
        yield f"  and {len(evaluation.skipped) - N_ROWS} more"


# ---------------------------------------------------------------------------------------------------------
# Aligned clips
# ---------------------------------------------------------------------------------------------------------


def worst_clips(evaluation: Evaluation, n: int) -> list[Clip]:
    """Return the clips with the most wrong words, among equals those with the higher rate; at most `n`."""
    wrong = [clip for clip in evaluation.clips if clip.kind == "speech" and clip.edits.errors]
    wrong.sort(key=lambda clip: (-clip.edits.errors, clip.edits.total))
    return wrong[:n]


def clip_lines(clip: Clip, width: int = 100) -> list[str]:
    """Return a heading and the two texts one above the other, with S, D and I below the words that differ."""
    part = "" if clip.recording.start is None else f" from {clip.recording.start:.2f} s"
    lines = [f"{clip.recording.path}{part}: {amount(clip.edits.errors, 'error')} in {amount(clip.edits.total, 'word')}"]
    block: list[Step] = []
    for step in clip.steps[:N_STEPS]:
        if block and columns("  ".join(_cells([*block, step])[0])) > width - 6:
            lines += _aligned(block)
            block = []
        block.append(step)
    more = len(clip.steps) - N_STEPS
    return lines + _aligned(block) + ([f"      and {more} more words"] if more > 0 else [])


def _cells(steps: Sequence[Step]) -> tuple[list[str], list[str], list[str]]:
    rows: tuple[list[str], list[str], list[str]] = ([], [], [])
    for step in steps:
        width = max(columns(step.expected or ""), columns(step.said or ""), 1)
        for row, text in zip(rows, (step.expected, step.said, _MARKS[step.kind]), strict=True):
            shown = "*" * width if text is None else text
            row.append(shown + " " * (width - columns(shown)))
    return rows


def _aligned(steps: Sequence[Step]) -> list[str]:
    names = ("text", "read", "")
    return [f"{name:5} {' '.join(cells)}".rstrip() for name, cells in zip(names, _cells(steps), strict=True)]


def amount(n: int, what: str) -> str:
    """Return ``1 clip``, ``2 clips``."""
    return f"{n:,} {what}" + ("" if n == 1 else "s")


def columns(text: str) -> int:
    """Return how many columns of a terminal `text` takes: Chinese letters take two, marks above letters none."""
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )


# ---------------------------------------------------------------------------------------------------------
# Two evaluations
# ---------------------------------------------------------------------------------------------------------


def describe_comparison(comparison: Comparison) -> str:
    """Return how a second model differs from a first."""
    lines = [
        f"{comparison.second} against {comparison.first}, below zero is better; in brackets 95 % of bootstrap samples",
        f"  word error rate       {comparison.words}: {verdict(comparison)}",
        f"  character error rate  {comparison.characters}",
        f"  clips read better {comparison.better}, worse {comparison.worse}, alike {comparison.same}",
    ]
    if comparison.unpaired:
        lines.append(f"  {comparison.unpaired} clips are not in both, or have another text there")
    lines += [f"  {name or 'no set'}: {difference}" for name, difference in comparison.sets.items()]
    return "\n".join(lines)


def verdict(comparison: Comparison) -> str:
    """Return in a word whether the second model is better."""
    if not comparison.words.clear:
        return "no clear difference"
    return "clearly better" if comparison.words.value < 0 else "clearly worse"
