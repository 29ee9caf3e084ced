"""Results as files: written in every format, and those of other programs read as results of ours."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ..errors import DataError, OptionError, ResultError, WhisperError
from ..files import atomic_write
from ..results import Transcript
from .cues import Cue
from .formats.document import Document, FormatOptions, cue_of, segments_of
from .formats.names import EXTENSIONS, format_of
from .formats.parsing import result_of, text_of
from .formats.registry import FORMATS, reader_of

MOST_BYTES = 512 * 2**20  # of a file that is read
Path = str | os.PathLike[str]


def write(
    result: Mapping[str, Any],
    path: Path,
    *,
    format: str | None = None,
    cues: Sequence[Cue] | None = None,
    name: str | None = None,
    karaoke: bool = False,
    cue_settings: str | None = None,
    frame_rate: str = "25",
    names_speakers: bool = True,
) -> None:
    """Write a result to a file, whole or not at all.

    Parameters
    ----------
    result
        What `transcribe`, `align` or `read` returned.
    path
        The file; its folder must exist.
    format
        One of `FORMATS`; by default what the ending of `path` tells.
    cues
        How the text is shown, in formats of subtitles; by default a cue for each segment.
    name
        Of the recording, for formats that hold it; by default that of the file, without its ending.
    karaoke
        Write the time of each word, in formats with a place for it.
    cue_settings
        Of WebVTT, such as ``line:85% align:center``.
    frame_rate
        Frames a second of the picture, as text such as ``23.976``, for ``fcpxml`` and ``edl``.
    names_speakers
        Put the speaker before the text in formats that have no other place; not for cues that show it already.

    Raises
    ------
    OptionError
        There is no such format, or an option is wrong. (A ValueError.)
    ResultError
        The result has not the form of a transcript, or lacks what the format needs. (A ValueError.)
    MissingDependencyError
        The format needs a package that is not installed.
    OSError
        The folder is missing or cannot be written to.
    """
    chosen = format_of(path) if format is None else format
    options = FormatOptions(karaoke=karaoke, cue_settings=cue_settings, frame_rate=frame_rate)
    stem = _stem(path, chosen) if name is None else name
    with writing(path):
        content = written(result, chosen, name=stem, cues=cues, options=options, names_speakers=names_speakers)
        data = content if isinstance(content, bytes) else content.encode("utf-8", "replace")
        with atomic_write(path, fsync=False) as file:
            file.write(data)


def written(
    result: Mapping[str, Any],
    format: str,
    *,
    name: str = "",
    cues: Sequence[Cue] | None = None,
    options: FormatOptions | None = None,
    names_speakers: bool = True,
) -> str | bytes:
    """Return the content of a file; see `write`."""
    if not isinstance(format, str) or format not in FORMATS:
        raise OptionError(f"no format is called {reprlib.repr(format)}; there are {', '.join(FORMATS)}")
    segments = tuple(segments_of(result))
    shown = tuple(map(cue_of, segments) if cues is None else cues)
    return FORMATS[format].write(Document(segments, shown, result, name, options or FormatOptions(), names_speakers))


def read(path: Path, *, format: str | None = None, language: str | None = None) -> Transcript:
    """Read a transcript or subtitles of any program as a result of `transcribe`.

    Parameters
    ----------
    path
        The file: a format with text and times, such as srt, vtt, ass, ttml, lrc, csv, TextGrid, eaf, ctm or stm, or
        the JSON of Whisper, WhisperX, whisper.cpp, OpenAI's API, YouTube or a podcast.
    format
        One of `FORMATS`; by default what the content tells, or else the ending.
    language
        Of the text; by default what the file says, and empty where it says nothing.

    Returns
    -------
    Transcript
        Its segments in the order of time, with ``words`` and ``speaker`` where the file has them. What the file does
        not say of their decoding is 0.

    Raises
    ------
    DataError
        The file is damaged, or of no format that is read. (A ValueError.)
    OptionError
        There is no such format. (A ValueError.)
    OSError
        The file is missing or cannot be read.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise OptionError(f"path must be text or a path, not {reprlib.repr(path)}")
    if os.path.getsize(path) > MOST_BYTES:
        raise DataError(f"{os.fspath(path)} is no transcript: it has more than {MOST_BYTES // 2**20} MiB")
    with open(path, "rb") as file:
        data = file.read()
    try:
        text = text_of(data)
        return result_of(reader_of(text, format, path)(text), language)
    except DataError as error:
        raise DataError(f"{os.fspath(path)}: {error}") from error.__cause__


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what a result of a wrong form causes into a `ResultError` that names the file."""
    try:
        yield
    except (WhisperError, OSError):
        raise
    except (AttributeError, TypeError, ValueError, LookupError, ArithmeticError, RecursionError) as error:
        what = f"{type(error).__name__}: {error}"
        raise ResultError(
            f"{os.fspath(path)} cannot be written ({what}); the result must be one of transcribe()"
        ) from error


def _stem(path: Path, format: str) -> str:
    base = os.path.basename(os.fspath(path))
    ending = "." + EXTENSIONS.get(format, "")
    if len(ending) > 1 and base.lower().endswith(ending.lower()):
        return base[: -len(ending)]
    return os.path.splitext(base)[0]
