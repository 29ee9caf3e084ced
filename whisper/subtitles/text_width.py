"""The width of text on a screen: in characters, or in full-width characters where a script is set in those."""

from __future__ import annotations

import functools
import re
import unicodedata

# Tags that subtitle files have in their text, and that are not shown.
MARKUP = re.compile(r"</?[A-Za-z][^<>]*>|<\d[\d:.]*>|\{\\[^{}]*\}")


@functools.lru_cache(maxsize=65536)
def graphemes(text: str) -> tuple[str, ...]:
    """Take text apart into what a reader sees as one character each (grapheme clusters, Unicode Annex 29)."""
    import regex  # here, as `import whisper` must not load it

    return (*text,) if text.isascii() else tuple(regex.findall(r"\X", text))


@functools.lru_cache(maxsize=65536)
def width(text: str, full_width: bool = False, markup: bool = False) -> float:
    """Measure text.

    Parameters
    ----------
    text
        Of one line.
    full_width
        Count in full-width characters: a Latin letter is half of one. Else a full-width character counts twice.
    markup
        The text is of a subtitle file, in which tags are not shown.

    Returns
    -------
    float
        Full-width characters, or characters.
    """
    if markup:
        text = MARKUP.sub("", text)
    columns = len(text) if text.isascii() else sum(map(_columns, graphemes(text)))
    return columns / 2 if full_width else float(columns)


def _columns(cluster: str) -> int:
    first = cluster[0]
    if unicodedata.category(first) in ("Cf", "Mn", "Me", "Cc"):  # has no place of its own
        return 0
    return 2 if unicodedata.east_asian_width(first) in "WF" or "\ufe0f" in cluster else 1
