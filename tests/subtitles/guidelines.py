"""A checker of subtitles, written from the published guidelines alone: it reads a file and knows nothing of ours.

Sources: Netflix, Timed Text Style Guide, "General Requirements" and "Subtitle Timing Guidelines", and the guides of
languages; BBC, Subtitle Guidelines; EBU Tech 3264 and Ivarsson and Carroll, Code of Good Subtitling Practice.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from itertools import pairwise

import pysubs2


@dataclass(frozen=True)
class Guide:
    """The numbers of a guide; times in milliseconds."""

    width: float
    lines: int
    cps: float
    shortest: float
    longest: float
    gap: float  # the least, between two that do not touch
    touching: bool  # whether one may follow the other without a gap
    closed: float  # gaps under this have the least length


NETFLIX = Guide(42, 2, 17, 5000 / 6, 7000, 2000 / 24, False, 500)
BBC = Guide(37, 2, 15, 1000, 7000, 80, True, 1000)
EBU = Guide(37, 2, 15, 1000, 7000, 160, False, 500)
SOCIAL = Guide(20, 1, 1e9, 200, 3000, 80, True, 500)
GUIDES = {"netflix": NETFLIX, "bbc": BBC, "ebu": EBU, "social": SOCIAL}
HALF = 0.5  # milliseconds that rounding takes


def columns(text: str, full_width: bool = False) -> float:
    """Characters of a line; in full-width characters, half for a narrow one."""
    shown = [c for c in text if unicodedata.category(c) not in ("Mn", "Me", "Cf")]
    if full_width:
        return sum(1.0 if unicodedata.east_asian_width(c) in "WF" else 0.5 for c in shown)
    return len(shown)


def broken(srt: str, guide: Guide, full_width: bool = False) -> list[tuple[str, int]]:
    """What breaks the guide in a file: the rule and the number of the subtitle."""
    cues = list(pysubs2.SSAFile.from_string(srt, format_="srt"))
    found: list[tuple[str, int]] = []
    for n, cue in enumerate(cues, start=1):
        lines = cue.plaintext.split("\n")
        length, size = cue.end - cue.start, columns(" ".join(lines), full_width)
        rules = {
            "empty": not cue.plaintext.strip(),
            "lines": len(lines) > guide.lines,
            "width": any(columns(line, full_width) > guide.width for line in lines),
            "short": length < guide.shortest - HALF,
            "long": length > guide.longest + HALF,
            "fast": length > 0 and 1000 * size / length > guide.cps * 1.001,
        }
        found += [(rule, n) for rule, is_broken in rules.items() if is_broken]
    for n, (cue, following) in enumerate(pairwise(cues), start=1):
        gap = following.start - cue.end
        if gap < 0:
            found.append(("overlap", n))
        elif gap < guide.gap - HALF and not (gap == 0 and guide.touching):
            found.append(("gap", n))
        elif guide.gap + 1.5 < gap < guide.closed:
            found.append(("open", n))
    return found
