"""The names of all formats, and the endings of their files."""

from __future__ import annotations

import os
from collections.abc import Collection

from ...errors import OptionError

# openai-whisper's come first
EXTENSIONS = {
    "txt": "txt", "vtt": "vtt", "srt": "srt", "tsv": "tsv", "json": "json", "ass": "ass", "ttml": "ttml",
    "ebuttd": "ebuttd.xml", "sbv": "sbv", "lrc": "lrc", "csv": "csv", "podcast": "podcast.json",
    "audacity": "labels.txt", "textgrid": "TextGrid", "eaf": "eaf", "ctm": "ctm", "stm": "stm", "rttm": "rttm",
    "docx": "docx", "fcpxml": "fcpxml", "edl": "edl",
}  # fmt: skip
NEED_WORDS = frozenset({"ctm"})  # have no text without word times
WITH_CUES = ("srt", "vtt", "ass", "ttml", "ebuttd", "sbv", "lrc", "fcpxml", "edl")  # show text by a layout
_FURTHER_ENDINGS = {"ssa": "ass", "dfxp": "ttml", "xml": "ttml", "json3": "json", "webvtt": "vtt"}  # of others' files


def format_of(path: str | os.PathLike[str], names: Collection[str] = tuple(EXTENSIONS)) -> str:
    """Return the format that the name of a file tells, by the longest ending that is known.

    Raises
    ------
    OptionError
        It tells none of `names`.
    """
    base = os.path.basename(os.fspath(path))
    known = {ending.lower(): name for name, ending in EXTENSIONS.items()} | _FURTHER_ENDINGS
    found = [end for end, name in known.items() if base.lower().endswith("." + end) and name in names]
    if not found:
        raise OptionError(f"the name {base!r} tells no format: give one of {', '.join(names)}")
    return known[max(found, key=len)]
