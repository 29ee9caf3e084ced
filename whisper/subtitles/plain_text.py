"""Text that fits on a line of a file: without line breaks, control characters and half characters."""

from __future__ import annotations

import re

WORD_JOINER = "\u2060"  # has no width; behind it, a tag is shown as text
_BREAKS = re.compile(r"\s*[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]\s*")
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")


def one_line(text: str) -> str:
    """Put a space for each line break, and nothing for what no text file should hold: controls, half characters."""
    return _CONTROLS.sub("", _BREAKS.sub(" ", text)).encode("utf-8", "replace").decode("utf-8")
