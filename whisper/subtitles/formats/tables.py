"""Text and tables: plain text, tab- and comma-separated values, and Audacity's labels."""

from __future__ import annotations

import csv
import io

from ...errors import DataError
from .document import Document, span
from .parsing import Piece, Timed, read_lines

MICROSECONDS = 1_000_000  # a second, in Audacity's labels
CLOSES_GAP = 0.5  # seconds: the pause that ends a label's sentence where words are read
_NAMES = {"start": ("start", "begin", "from", "start_time"), "end": ("end", "stop", "to", "end_time")}
_TEXT = ("text", "transcript", "content", "caption")


def write_txt(document: Document) -> str:
    """The text alone, a segment a line, the speaker before it."""
    lines = (f"{s.speaker}: {s.text}" if s.speaker else s.text for s in document.segments)
    return "".join(f"{line}\n" for line in lines)


def write_tsv(document: Document) -> str:
    """Tab-separated values: start and end in whole milliseconds, text, and who says it where that is known."""
    has_speakers = document.speakers != [None]
    rows = [["start", "end", "text", *(["speaker"] if has_speakers else [])]]
    for segment in document.segments:
        cells = [segment.text, *([segment.speaker or ""] if has_speakers else [])]
        rows.append([*map(str, span(segment.start, segment.end)), *(cell.replace("\t", " ") for cell in cells)])
    return "".join("\t".join(row) + "\n" for row in rows)


def write_csv(document: Document) -> str:
    """Comma-separated values by RFC 4180: start and end in seconds, speaker, text."""
    file = io.StringIO(newline="")
    table = csv.writer(file)
    table.writerow(["start", "end", "speaker", "text"])
    for segment in document.segments:
        start, end = span(segment.start, segment.end)
        table.writerow([f"{start / 1000:.3f}", f"{end / 1000:.3f}", segment.speaker or "", segment.text])
    return file.getvalue()


def write_audacity(document: Document) -> str:
    """Labels of Audacity: one for each segment, or with karaoke for each word."""
    rows: list[tuple[float, float, str]] = []
    for s in document.segments:
        if document.options.karaoke and s.words:
            rows += ((word.start, word.end, word.text.strip()) for word in s.words)
        else:
            rows.append((s.start, s.end, f"{s.speaker}: {s.text}" if s.speaker else s.text))
    return "".join(f"{start:.6f}\t{max(end, start):.6f}\t{text.replace(chr(9), ' ')}\n" for start, end, text in rows)


# ---------------------------------------------------------------------------------------------------------
# Read
# ---------------------------------------------------------------------------------------------------------


def read_tsv(text: str) -> Timed:
    """Read tab-separated values with a head, times in milliseconds, as openai-whisper and whisper.cpp write them."""
    lines = [line.split("\t") for line in read_lines(text) if line.strip()]
    return _table(lines, 0.001)


def read_csv(text: str) -> Timed:
    """Read comma-separated values with a head.

    Times are in seconds; in milliseconds where all are whole and the head is that of whisper.cpp, start,end,text.
    """
    rows = [row for row in csv.reader(io.StringIO(text.lstrip("\ufeff"), newline=""), strict=False) if row]
    head = [cell.strip().lower() for cell in rows[0]] if rows else []
    is_of_whisper_cpp = head in (["start", "end", "text"], ["start", "end", "speaker", "text"]) and all(
        row[0].strip().isdecimal() and row[1].strip().isdecimal() for row in rows[1:] if len(row) > 1
    )
    return _table(rows, 0.001 if is_of_whisper_cpp else 1.0)


def _table(rows: list[list[str]], unit: float) -> Timed:
    if not rows:
        return Timed([])
    head = [cell.strip().lower() for cell in rows[0]]
    start, end, spoken = (_column(head, names) for names in (_NAMES["start"], _NAMES["end"], _TEXT))
    speaker = head.index("speaker") if "speaker" in head else None
    return Timed([_row(number, row, unit, start, end, spoken, speaker) for number, row in enumerate(rows[1:], start=2)])


def _row(number: int, row: list[str], unit: float, start: int, end: int, text: int, speaker: int | None) -> Piece:
    try:
        said_by = row[speaker].strip() if speaker is not None and speaker < len(row) else ""
        return Piece(float(row[start]) * unit, float(row[end]) * unit, row[text], said_by or None)
    except (ValueError, IndexError):
        raise DataError(f"row {number} has not two times and a text: {','.join(row)[:80]!r}") from None


def _column(head: list[str], names: tuple[str, ...]) -> int:
    for i, name in enumerate(head):
        if name in names:
            return i
    raise DataError(f"the first row must name a column {names[0]!r}; it has {', '.join(head)[:80]}")


def read_audacity(text: str) -> Timed:
    """Read labels of Audacity; what it adds of frequencies, on lines with a backslash, is skipped."""
    pieces = []
    for number, line in enumerate(read_lines(text), start=1):
        if not line.strip() or line.startswith("\\"):
            continue
        try:
            start, end, *label = line.split("\t", 2)
            pieces.append(Piece(float(start.replace(",", ".")), float(end.replace(",", ".")), "".join(label)))
        except ValueError:
            raise DataError(
                f"line {number} is no label, start and end and a text between tabs: {line[:80]!r}"
            ) from None
    return Timed(pieces)
