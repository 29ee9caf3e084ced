"""Several documents as one zip file, which is made while it is sent: files of a format, or clips to train on."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from starlette.responses import Response, StreamingResponse

from ..errors import RequestError, invalid
from . import documents, exports
from .sounds import wav_header
from .store import Recording

if TYPE_CHECKING:
    from .library import Library

MANIFEST = "manifest"  # the format of clips with a manifest
SHORTEST_CLIP, LONGEST_CLIP = 0.1, 30.0  # seconds; a model reads 30 at once
MARGIN = 0.2  # seconds of sound around a clip, where no other segment lies: times of segments cut off sounds at times
MAX_IDS, PAGE = 10_000, 200


def export(library: Library, owner: str, asked: Mapping[str, Any]) -> Response:
    """Return a zip file of several documents.

    Parameters
    ----------
    library, owner
        Whose recordings they are.
    asked
        ``format``, one of `exports.formats` or ``manifest``; ``ids``, or else all recordings that are transcribed,
        perhaps those with a ``tag``; and the layout of subtitles.

    Raises
    ------
    RequestError
        There is no such format or recording, one of ``ids`` is not transcribed, or there is nothing to give.
    """
    name = asked.get("format", "txt")
    recordings = _recordings(library, owner, asked)
    if name == MANIFEST:
        return _answer(_clips(library, _segments(library, recordings)), "manifest")
    if name not in exports.formats():
        raise invalid(f"format must be {MANIFEST} or one of {', '.join(exports.formats())}", "format")
    layout = {field: str(value) for field, value in asked.items()}
    pieces = _files(library, recordings, layout)
    return _answer(pieces, "transcripts")


def _recordings(library: Library, owner: str, asked: Mapping[str, Any]) -> list[Recording]:
    """Return the recordings that are asked for, in the order of the library."""
    if "ids" in asked:
        ids = [documents.clean(one, "ids", 80) for one in documents.listed(asked["ids"], "ids", MAX_IDS)]
        found = [_found(library, one, owner) for one in dict.fromkeys(ids)]
        for one in found:
            if not one.version:
                raise RequestError(409, f"{one.name!r} is not transcribed", code="not_finished")
    else:
        tag = None if asked.get("tag") is None else documents.clean(asked["tag"], "tag", documents.MAX_NAME)
        found = [one for one in _all(library, owner, tag) if one.version]
    if not found:
        raise RequestError(409, "there is no transcribed recording to give out", code="nothing_to_export")
    return found


def _found(library: Library, recording_id: str, owner: str) -> Recording:
    recording = library.store.get(recording_id, owner)
    if recording is None:
        raise RequestError(404, f"there is no recording {recording_id!r}", code="not_found")
    return recording


def _all(library: Library, owner: str, tag: str | None) -> Iterator[Recording]:
    page = library.store.page(owner, PAGE, None, tag)
    while page:
        yield from page
        page = library.store.page(owner, PAGE, page[-1], tag)


def _answer(pieces: Iterator[bytes], name: str) -> Response:
    headers = {"content-disposition": exports.attachment(name, "zip")}
    return StreamingResponse(pieces, media_type="application/zip", headers=headers)


class _Pieces(io.RawIOBase):
    """Takes what a zip file writes, and hands it on."""

    def __init__(self) -> None:
        self.waiting = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.waiting += data
        return len(data)

    def take(self) -> bytes:
        """Return what was written since the last call."""
        data, self.waiting = bytes(self.waiting), bytearray()
        return data


# ---------------------------------------------------------------------------------------------------------
# Files of a format
# ---------------------------------------------------------------------------------------------------------


def _files(library: Library, recordings: Sequence[Recording], asked: Mapping[str, str]) -> Iterator[bytes]:
    """Return the pieces of the archive; what is wrong with all of the files is known before the first piece."""
    made = _made(library, recordings, asked)
    first = next(made)
    return _archive(first, made)


def _archive(first: tuple[str, bytes], others: Iterator[tuple[str, bytes]]) -> Iterator[bytes]:
    pieces = _Pieces()
    with zipfile.ZipFile(pieces, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(*first)
        yield pieces.take()
        for name, data in others:
            archive.writestr(name, data)
            yield pieces.take()
    yield pieces.take()


def _made(library: Library, recordings: Sequence[Recording], asked: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
    """Give names and contents; a document that the format cannot hold is named in a file beside the others."""
    used, failed = set[str](), list[str]()
    for recording in recordings:
        try:
            data, extension = exports.made(library, recording, asked)
        except RequestError as error:
            if error.code != "not_exportable" or len(recordings) == 1:
                raise
            failed.append(f"{recording.name}: {error}")
            continue
        yield _unused(exports.stem(recording.name), extension, used), data
    if failed:
        yield _unused("not exported", "txt", used), ("\n".join(failed) + "\n").encode("utf-8", "replace")


def _unused(stem: str, extension: str, used: set[str]) -> str:
    """Return a name that no other file of the archive has, on any disk."""
    name, number = f"{stem}.{extension}", 1
    while name.casefold() in used:
        number += 1
        name = f"{stem} ({number}).{extension}"
    used.add(name.casefold())
    return name


# ---------------------------------------------------------------------------------------------------------
# Clips and a manifest
# ---------------------------------------------------------------------------------------------------------

_Clip = tuple[Recording, dict[str, Any], float, float, str]  # a segment, its stretch of the sound, its language


def _segments(library: Library, recordings: Sequence[Recording]) -> list[_Clip]:
    """Return the segments that a person has edited or checked; where there is none in any recording, all.

    Raises
    ------
    RequestError
        No recording has a segment for it.
    """
    clips: list[_Clip] = []
    for recording in recordings:
        _, document = library.store.document(recording)
        for segment, start, end in _stretches(document["segments"]):
            if SHORTEST_CLIP <= segment["end"] - segment["start"] <= LONGEST_CLIP:
                clips.append((recording, segment, start, end, segment.get("language") or document["language"]))
    corrected = [clip for clip in clips if clip[1].get("edited") or clip[1].get("checked")]
    if not clips:
        raise RequestError(409, "there is no transcribed segment in these recordings", code="nothing_to_export")
    return corrected or clips


def _stretches(segments: Sequence[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], float, float]]:
    """Give segments with text, each with its stretch of the sound: a margin around it, but nothing of another one."""
    spoken = sorted((s for s in segments if s["text"].strip()), key=lambda s: float(s["start"]))
    before = 0.0
    for segment, following in zip_longest(spoken, spoken[1:]):
        start, end = segment["start"], segment["end"]
        margin = min(MARGIN, max(LONGEST_CLIP - (end - start), 0.0) / 2)
        after = end + margin if following is None else max(following["start"], end)
        yield segment, max(start - margin, min(before, start)), min(end + margin, after)
        before = max(before, end)


def _clips(library: Library, clips: Sequence[_Clip]) -> Iterator[bytes]:
    pieces, lines = _Pieces(), ["file\ttext\tlanguage\tspeaker"]
    with zipfile.ZipFile(pieces, "w") as archive:
        for number, (recording, segment, start, end, language) in enumerate(clips):
            samples = library.sounds.samples(recording.id, start, end)
            if not len(samples):
                continue
            name = f"clips/{number:06d}.wav"
            archive.writestr(name, wav_header(len(samples), 1) + samples.astype("<i2").tobytes())
            cells = [name, segment["text"], language, segment.get("speaker", "")]
            lines.append("\t".join(" ".join(cell.split()) for cell in cells))
            yield pieces.take()
        archive.writestr("manifest.tsv", "\n".join(lines) + "\n")
    yield pieces.take()
