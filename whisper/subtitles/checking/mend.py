"""A file of subtitles mended: laid out anew where it breaks the rules, and left as it is where it does not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from ..cues import Cue, TimedWord
from ..layout import cues_of
from ..line_breaking import SENTENCE, TORN
from ..passage import Passage
from ..rules import Rules
from ..spoken_words import repaired
from ..text_width import MARKUP, width
from .cue_files import UNSPACED, CueFile, FileCue, balanced, cue_of

KEPT = 12.0  # the cost of joining what was two cues
MOST_DELAY = 1000  # milliseconds that a cue may start later
NEW = 10.0  # of a cut where there was none

_PLACE = re.compile(r"\{\\[^{}]*\}|<v[ .][^<>]*>")  # tags that are of a whole cue
_DASH = re.compile(r"^[-‐–—]\s*\S")


def mended(file: CueFile, rules: Rules) -> CueFile:
    """Return a file that keeps to the rules as far as its text and the times of its words allow.

    The words of a cue share its time by their lengths. A cue that breaks no rule keeps its text, its lines and its
    start; cues with other places, voices or dashes are not joined. No text, tag, comment or setting is lost.
    """
    old, tail = _with_text(file)
    old = _delayed(old, rules)
    words, firsts = _words(old, rules.language)
    passage = Passage(tuple(repaired(words, slowest=False)), _for_file(rules), firsts, markup=True)
    first_pieces = {origin: k for k, origin in reversed(list(enumerate(passage.origins)))}
    starts = [first_pieces[k] for k in firsts]
    _keep(passage, starts)
    passage.openings = frozenset(
        k for k, cue, above in zip(starts[1:], old[1:], old, strict=False) if not _may_join(above, cue)
    )
    new = cues_of(passage, dict.fromkeys(starts, KEPT))
    return replace(file, cues=tuple(_as_in_file(new, old, rules)), tail=tail)


def _with_text(file: CueFile) -> tuple[list[FileCue], str]:
    """Return the cues that have text, and what is behind them; comments before an empty one stay in their place."""
    cues: list[FileCue] = []
    before = ""
    for cue in file.cues:
        before = "\n\n".join(filter(None, [before, cue.before]))
        if cue.lines:
            cues.append(replace(cue, before=before))
            before = ""
    return cues, "\n\n".join(filter(None, [before, file.tail]))


def _delayed(cues: Sequence[FileCue], rules: Rules) -> list[FileCue]:
    """Return cues of which one starts later where that before it, which it cannot join, would be too short."""
    made: list[FileCue] = []
    least = round(1000 * rules.min_duration) + rules.gap_ms
    for cue in cues:
        start = cue.start
        if made and not _may_join(made[-1], cue):
            start = max(start, min(made[-1].start + least, start + MOST_DELAY))
        made.append(replace(cue, start=start, end=max(cue.end, start + 1)))
    return made


def _keep(passage: Passage, starts: Sequence[int]) -> None:
    """Make cuts cost less where there is one, and more where there is none; least of all are dashes parted."""
    for k in range(1, len(passage.words)):
        passage.costs[k] += TORN if passage.turns[k] else NEW
    for k in starts:
        passage.costs[k] = SENTENCE


def _for_file(rules: Rules) -> Rules:
    """Return rules under which nothing is added to the text: dashes and names stand in it already."""
    return replace(rules, speaker_style="dash", dash="", first_dash=True)


def _words(old: Sequence[FileCue], language: str | None) -> tuple[list[TimedWord], list[int]]:
    """Return the words of all cues, and the indexes of those that begin one; lines with dashes are speakers."""
    words: list[TimedWord] = []
    firsts: list[int] = []
    for cue in old:
        firsts.append(len(words))
        lines = cue_of(cue, language).lines
        for n, line in enumerate(lines):
            for k, word in enumerate(line):
                text = word.text if k or (n and language in UNSPACED) or not words else " " + word.text.lstrip()
                words.append(replace(word, text=text, speaker=_speaker(cue, n)))
    return words, firsts


def _speaker(cue: FileCue, line: int) -> str | None:
    """Return a name for who speaks a line of a cue with dashes; None where there are none."""
    dashes = [bool(_DASH.match(MARKUP.sub("", text).strip())) for text in cue.lines]
    if not any(dashes[1:]):
        return None
    return f"{cue.start}-{sum(dashes[1 : line + 1])}"


def _may_join(above: FileCue, cue: FileCue) -> bool:
    same_place = above.settings == cue.settings and _PLACE.findall(above.text) == _PLACE.findall(cue.text)
    return same_place and not cue.before and _speaker(above, 9) is None and _speaker(cue, 9) is None


# ---------------------------------------------------------------------------------------------------------
# Back into the file
# ---------------------------------------------------------------------------------------------------------


def _as_in_file(new: Sequence[Cue], old: Sequence[FileCue], rules: Rules) -> list[FileCue]:
    """Return laid out cues with the settings, names and comments of those whose words they begin with."""
    sizes = [sum(map(len, cue_of(cue, rules.language).lines)) for cue in old]
    made: list[FileCue] = []
    at, left, texts = 0, sizes[0] if sizes else 0, list[str]()
    for cue in new:
        source, whole = old[at], left == sizes[at]
        n_words = sum(map(len, cue.lines))
        is_same = whole and n_words == sizes[at]
        text = "\n".join("".join(word.text for word in line).strip() for line in cue.lines)
        text = source.text if is_same and _fits(source, rules) else text
        made.append(
            replace(
                source,
                start=round(1000 * cue.start),
                end=round(1000 * cue.end),
                text=text,
                identifier=source.identifier if whole else "",
                before=source.before if whole else "",
            )
        )
        texts = [*texts, text] if not whole else [text]
        if len(texts) > 1 or n_words < left:
            for k, closed in enumerate(balanced(texts)):
                made[len(made) - len(texts) + k] = replace(made[len(made) - len(texts) + k], text=closed)
        left -= n_words
        while left <= 0 and at + 1 < len(old):
            at += 1
            left += sizes[at]
    return made


def _fits(cue: FileCue, rules: Rules) -> bool:
    """Whether the lines of a cue are no more and no longer than allowed."""
    lines = [MARKUP.sub("", line).strip() for line in cue.lines]
    return len(lines) <= rules.max_line_count and all(
        width(line, rules.full_width) <= rules.max_line_width for line in lines
    )
