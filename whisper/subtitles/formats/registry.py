"""All formats by name: what writes them, and what reads them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from ...errors import DataError, OptionError
from . import ass, editing, elan, json_files, lrc, nist, tables, textgrid, timed_text, ttml, word_processor
from .document import Document
from .names import format_of
from .parsing import Timed


class Format(NamedTuple):
    """What writes a format, and what reads the text of its files."""

    write: Callable[[Document], str | bytes]
    read: Callable[[str], Timed] | None = None


FORMATS: dict[str, Format] = {
    "txt": Format(tables.write_txt),
    "vtt": Format(timed_text.write_vtt, timed_text.read_vtt),
    "srt": Format(timed_text.write_srt, timed_text.read_srt),
    "tsv": Format(tables.write_tsv, tables.read_tsv),
    "json": Format(json_files.write_json, json_files.read_json),
    "ass": Format(ass.write_ass, ass.read_ass),
    "ttml": Format(ttml.write_imsc, ttml.read_ttml),
    "ebuttd": Format(ttml.write_ebuttd, ttml.read_ttml),
    "sbv": Format(timed_text.write_sbv, timed_text.read_sbv),
    "lrc": Format(lrc.write_lrc, lrc.read_lrc),
    "csv": Format(tables.write_csv, tables.read_csv),
    "podcast": Format(json_files.write_podcast, json_files.read_json),
    "audacity": Format(tables.write_audacity, tables.read_audacity),
    "textgrid": Format(textgrid.write_textgrid, textgrid.read_textgrid),
    "eaf": Format(elan.write_eaf, elan.read_eaf),
    "ctm": Format(nist.write_ctm, nist.read_ctm),
    "stm": Format(nist.write_stm, nist.read_stm),
    "rttm": Format(nist.write_rttm),
    "docx": Format(word_processor.write_docx),
    "fcpxml": Format(editing.write_fcpxml),
    "edl": Format(editing.write_edl),
}
READABLE = tuple(name for name, format in FORMATS.items() if format.read)


def reader_of(text: str, name: str | None, path: str | os.PathLike[str]) -> Callable[[str], Timed]:
    """Return what reads a text: by the name of its format, or by its content and the ending of its path.

    Raises
    ------
    DataError
        Nothing reads it.
    OptionError
        There is no such format, or none that is read.
    """
    if name is not None and name not in READABLE:
        raise OptionError(f"format must be one of {', '.join(READABLE)}, not {name!r:.80}")
    found = name or _by_content(text)
    if found is None:
        try:
            found = format_of(path, READABLE)
        except OptionError:
            raise DataError(f"it is none of the formats that are read: {', '.join(READABLE)}") from None
    read = FORMATS[found].read
    assert read is not None, "it is one of READABLE"
    return read


def _by_content(text: str) -> str | None:
    """Return the format that a text begins as; those without a beginning of their own are told by their name."""
    start = text.lstrip("\ufeff \t\r\n")[:2000]
    if start.startswith(("{", "[{")) and not start.startswith("{\\"):
        return "json"
    marks = {
        "WEBVTT": "vtt", "[Script Info]": "ass", "File type = \"ooTextFile\"": "textgrid",
    }  # fmt: skip
    for mark, name in marks.items():
        if start.startswith(mark):
            return name
    if start.startswith("<"):
        return "eaf" if "<ANNOTATION_DOCUMENT" in start else "ttml"
    return None
