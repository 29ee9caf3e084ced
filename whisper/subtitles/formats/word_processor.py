"""Documents of word processors (DOCX), by python-docx: a paragraph for each turn, with its time and its speaker."""

from __future__ import annotations

import io
from collections.abc import Iterator

from ...errors import MissingDependencyError
from .document import Document, Segment, clock, turns
from .xml_text import xml_text

LONG_PAUSE = 2.0  # seconds without text that begin a new paragraph
LONG_PARAGRAPH = 800  # characters; the next segment begins another


def write_docx(document: Document) -> bytes:
    """A document to read and to edit; the time stands before each paragraph.

    Raises
    ------
    MissingDependencyError
        python-docx is not installed.
    """
    try:
        import docx
    except ImportError as error:
        raise MissingDependencyError("writing docx needs python-docx", "docx") from error
    file = docx.Document()
    file.core_properties.title = xml_text(document.name, escaped=False)
    file.core_properties.language = document.language
    file.core_properties.author = ""
    file.core_properties.comments = ""
    file.add_heading(xml_text(document.name, escaped=False), level=1)
    for paragraph in _paragraphs(document):
        written = file.add_paragraph()
        first = paragraph[0]
        said_by = f" {first.speaker}" if first.speaker else ""
        head = f"{clock(first.start)[:-4]}{xml_text(said_by, escaped=False)}"
        written.add_run(head).bold = True
        written.add_run("\t" + " ".join(xml_text(segment.text, escaped=False) for segment in paragraph))
    data = io.BytesIO()
    file.save(data)
    return data.getvalue()


def _paragraphs(document: Document) -> Iterator[list[Segment]]:
    """Give the turns, cut at long pauses and where they are long."""
    for turn in turns(document.segments):
        paragraph: list[Segment] = []
        for segment in turn:
            letters = sum(len(before.text) for before in paragraph)
            if paragraph and (segment.start - paragraph[-1].end > LONG_PAUSE or letters > LONG_PARAGRAPH):
                yield paragraph
                paragraph = []
            paragraph.append(segment)
        yield paragraph
