"""One document given out as a file: every format that the program writes, and one page to share."""

from __future__ import annotations

import csv
import io
import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from starlette.responses import Response

from ...errors import MissingDependencyError, ResultError
from ...output.writers import FURTHER, WRITERS
from ...subtitles.formats.names import EXTENSIONS
from ..errors import RequestError, invalid
from ..requests import read_layout
from . import share
from .store import Recording

if TYPE_CHECKING:
    from .library import Library

KINDS = {
    "txt": "text/plain", "srt": "text/plain", "vtt": "text/vtt", "tsv": "text/tab-separated-values",
    "json": "application/json", "csv": "text/csv", "html": "text/html",
}  # fmt: skip
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes for one


def formats() -> list[str]:
    """Return the names of all formats."""
    return [*(name for name in WRITERS if name != "json"), "json", "csv", "html", *(n for n in FURTHER if n != "csv")]


def export(library: Library, recording: Recording, query: Mapping[str, str]) -> Response:
    """Return a document as a file.

    Parameters
    ----------
    library, recording
        The recording is transcribed.
    query
        ``format``, and the layout of subtitles.

    Raises
    ------
    RequestError
        There is no such format or no document.
    """
    data, extension = made(library, recording, query)
    kind = KINDS.get(extension)
    media_type = "application/octet-stream" if kind is None else f"{kind}; charset=utf-8"
    headers = {"content-disposition": attachment(recording.name, extension)}
    return Response(data, media_type=media_type, headers=headers)


def made(library: Library, recording: Recording, query: Mapping[str, str]) -> tuple[bytes, str]:
    """Return the content of a file, and the ending of its name; see `export`."""
    name = query.get("format", "txt")
    if name not in formats():
        raise invalid(f"format must be one of {', '.join(formats())}, not {name[:80]!r}", "format")
    _, document = library.store.document(recording)
    if name in FURTHER and name != "csv":
        return in_format_of_subtitles(name, document, recording.name), EXTENSIONS[name]
    if name == "json":
        text = json.dumps(document, ensure_ascii=False, indent=1)
    elif name == "csv":
        text = as_csv(document)
    elif name == "html":
        text = share.page(library, recording, document)
    else:
        text = written(name, document, read_layout(query, document["language"]) or {})
    return text.encode("utf-8", "replace"), name


def in_format_of_subtitles(name: str, document: Mapping[str, Any], recording: str) -> bytes:
    """Return a document in a format of `subtitles`, most of which have a place for speakers."""
    from ...subtitles import write  # here, as few ask for its formats

    speakers = document["speakers"]
    segments = [s for s in document["segments"] if s["text"].strip()]
    named = [{**s, "speaker": speakers.get(s["speaker"], s["speaker"])} if "speaker" in s else s for s in segments]
    result = {"text": "".join(s["text"] for s in named), "segments": named, "language": document["language"]}
    with tempfile.TemporaryDirectory(prefix="sotto-export-") as folder:
        path = Path(folder) / "transcript"
        try:
            write(result, path, format=name, name=recording)
        except ResultError as error:
            raise RequestError(409, str(error), code="not_exportable") from error
        except MissingDependencyError as error:
            raise RequestError(409, str(error), code="missing_dependency") from error
        return path.read_bytes()


def attachment(name: str, extension: str) -> str:
    """Return the header that has a browser save a file under the name of a recording."""
    return f"attachment; filename*=UTF-8''{quote(f'{stem(name)}.{extension}', safe='')}"


def stem(name: str) -> str:
    """Return the name of a recording without an ending, as the name of a file on any disk."""
    return re.sub(r'[\x00-\x1f\x7f/\\:*?"<>|]', "_", re.sub(r"\.\w{1,5}$", "", name)).strip(" .") or "transcript"


def written(name: str, document: Mapping[str, Any], layout: Mapping[str, Any]) -> str:
    """Return a document in a format of `output.writers`; the name of a speaker stands where he begins."""
    segments = list(with_names(document))
    result = {"text": "".join(s["text"] for s in segments), "segments": segments, "language": document["language"]}
    text = io.StringIO()
    WRITERS[name](output_dir="").write_result(result, text, {**layout, "escape_cues": True})
    return text.getvalue()


def with_names(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Give segments in which each change of speaker begins with the name."""
    speakers, before = document["speakers"], None
    segments = [segment for segment in document["segments"] if segment["text"].strip()]
    words_everywhere = all(segment["words"] for segment in segments)
    for segment in segments:
        speaker = segment.get("speaker")
        named = {name: value for name, value in segment.items() if name not in ("speaker", "uid", "language")}
        if not words_everywhere:
            named.pop("words")
        if speaker is not None and speaker != before:
            prefix = f" {speakers.get(speaker, speaker)}: "
            named["text"] = prefix + segment["text"].strip()
            if words_everywhere:
                first, *rest = segment["words"]
                named["words"] = [{**first, "word": prefix + first["word"].strip()}, *rest]
        before = speaker
        yield named


def as_csv(document: Mapping[str, Any]) -> str:
    """Return segments as a table; no cell is one that a spreadsheet would compute."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["start", "end", "speaker", "text"])
    for segment in document["segments"]:
        speaker = segment.get("speaker", "")
        cells = [document["speakers"].get(speaker, speaker), segment["text"].strip()]
        cells = ["'" + cell if cell.startswith(FORMULA) else cell for cell in cells]
        writer.writerow([f"{segment['start']:.3f}", f"{segment['end']:.3f}", *cells])
    return "\ufeff" + text.getvalue()  # by its mark spreadsheets know UTF-8
