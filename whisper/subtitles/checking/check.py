"""What breaks the rules in cues: each finding with its cue, its value and what is allowed."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from ..cues import Cue, TimedWord
from ..line_breaking import TORN, break_costs
from ..rules import Rules, rules_of
from ..text_width import MARKUP, width

TOLERANCE = 0.0015  # seconds, that rounding to milliseconds takes


@dataclass(frozen=True)
class Finding:
    """Something that breaks a rule."""

    cue: int  # counts from 1
    start: float  # of the cue, in seconds
    rule: str
    value: float | None  # what was found, in the unit of the rule
    limit: float | None
    message: str

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON holds of it."""
        return asdict(self)


def check(
    cues: Sequence[Cue], preset: str = "netflix", *, language: str | None = None, markup: bool = False, **rules: Any
) -> list[Finding]:
    """Hold cues against the rules of a preset.

    Parameters
    ----------
    cues
        In order.
    preset
        ``netflix``, ``bbc``, ``ebu``, ``social`` or ``karaoke``.
    language
        Of the text: a code or a name. Without it, no phrases are known, and lines are counted in characters.
    markup
        The text has tags of a subtitle file, which are not shown.
    **rules
        Numbers that are others than the preset's: the fields of `subtitles.rules.RuleOptions`.

    Returns
    -------
    list of Finding
        In the order of the cues.

    Raises
    ------
    OptionError
        A rule has a wrong value, or there is no such preset. (A ValueError.)
    """
    return check_by(cues, rules_of(preset, language, rules, "check"), markup)


def check_by(cues: Sequence[Cue], rules: Rules, markup: bool = False) -> list[Finding]:
    """Hold cues against rules that are made already; see `check`."""
    found = [finding for n, cue in enumerate(cues, start=1) for finding in _in_cue(n, cue, rules, markup)]
    for n, (cue, following) in enumerate(pairwise(cues), start=1):
        found += _between(n, cue, following, rules)
        found += _torn(
            n, cue, [cue.lines[-1][-1:], following.lines[0][:1]] if cue.lines and following.lines else [], rules, markup
        )
    return sorted(found, key=lambda finding: finding.cue)


def _in_cue(n: int, cue: Cue, rules: Rules, markup: bool) -> Iterator[Finding]:
    lines = ["".join(word.text for word in line) for line in cue.lines]
    shown = [MARKUP.sub("", line).strip() if markup else line.strip() for line in lines]
    if not any(shown):
        yield Finding(n, cue.start, "empty", None, None, "there is no text")
        return
    widths = [width(line, rules.full_width) for line in shown]
    duration = cue.end - cue.start
    if len(shown) > rules.max_line_count:
        yield _above(n, cue, "lines", len(shown), rules.max_line_count, "lines")
    if max(widths) > rules.max_line_width:
        yield _above(n, cue, "line width", max(widths), rules.max_line_width, "characters in a line")
    n_words = len(" ".join(shown).split())
    if rules.max_words_per_line is not None and n_words > rules.max_words_per_line:
        yield _above(n, cue, "words", n_words, rules.max_words_per_line, "words")
    if duration <= 0:
        yield Finding(n, cue.start, "times", duration, 0, f"it ends {-duration:.3f} s before it starts, or at once")
        return
    speed = (sum(widths) + (len(widths) - 1) * (0.5 if rules.full_width else 1)) / duration
    if speed > rules.max_cps * 1.001 and not math.isinf(rules.max_cps):
        yield _above(n, cue, "reading speed", round(speed, 1), rules.max_cps, "characters a second")
    if duration < rules.min_duration - TOLERANCE:
        yield _below(n, cue, "too short", duration, rules.min_duration, "s long")
    if duration > rules.max_duration + TOLERANCE:
        yield _above(n, cue, "too long", round(duration, 3), rules.max_duration, "s long")
    crossed = bisect_left(rules.cuts, cue.end - TOLERANCE) - bisect_right(rules.cuts, cue.start + TOLERANCE)
    if crossed > 0:
        yield Finding(n, cue.start, "cut", crossed, 0, "it is shown over a cut of the picture")
    yield from _torn(n, cue, cue.lines, rules, markup)


def _between(n: int, cue: Cue, following: Cue, rules: Rules) -> Iterator[Finding]:
    gap = following.start - cue.end
    least = rules.min_gap / rules.fps
    if gap < -TOLERANCE:
        yield Finding(n, cue.start, "overlap", round(-gap, 3), 0, f"the next one starts {-gap:.3f} s before its end")
    elif gap < least - TOLERANCE:
        yield _below(n, cue, "gap", gap, least, "s before the next one")
    elif max(rules.gap_ms / 1000, least) + TOLERANCE < gap < rules.close_gaps - TOLERANCE:
        message = f"{gap:.3f} s before the next one: a gap of less than {rules.close_gaps:g} s should be {least:.3f} s"
        yield Finding(n, cue.start, "open gap", round(gap, 3), round(least, 3), message)


def _torn(n: int, cue: Cue, lines: Sequence[Sequence[TimedWord]], rules: Rules, markup: bool) -> Iterator[Finding]:
    """Give a finding for each line that ends inside what belongs together."""
    for line, following in pairwise(lines):
        if not line or not following:
            continue
        last, first = line[-1], following[0]
        pair = [TimedWord(word.text.strip(), last.end, last.end) for word in (last, first)]
        if rules.language not in ("zh", "ja", "yue", "th", "lo", "km", "my"):
            pair[1] = TimedWord(" " + pair[1].text, last.end, last.end)
        cost = break_costs(pair, rules.language, markup=markup)[1]
        if cost >= TORN:
            texts = [MARKUP.sub("", word.text).strip() if markup else word.text.strip() for word in (last, first)]
            yield Finding(n, cue.start, "torn", None, None, f"a line ends between {texts[0]!r} and {texts[1]!r}")


def _above(n: int, cue: Cue, rule: str, value: float, limit: float, unit: str) -> Finding:
    return Finding(n, cue.start, rule, value, limit, f"{value:g} {unit}, at most {limit:g} allowed")


def _below(n: int, cue: Cue, rule: str, value: float, limit: float, unit: str) -> Finding:
    return Finding(n, cue.start, rule, round(value, 3), round(limit, 3), f"{value:.3f} {unit}, at least {limit:.3f}")
