"""Lists of recordings with their transcripts: one row of a manifest becomes one `ManifestEntry`.

Reads TSV (no quoting), CSV, JSON lines (NeMo's too), Hugging Face audio folders, and folders of
audio files with a ``.txt`` beside each. An entry that cannot be used is reported with its line and
the reason; it never ends the run and is never dropped silently. Opens no audio file (a duration is
known only where a column gives it), changes no text and writes nothing.
"""

from __future__ import annotations

import csv
import json
import logging
import math
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..errors import DataError, LanguageError
from ..options.language_names import code_of

log = logging.getLogger(__name__)

TimedWord = tuple[str, float, float]  # word, start and end in seconds

NON_SPEECH = "none"  # the language of a recording without speech

# The names of each column, in the order in which they are looked for; case does not matter.
COLUMNS: dict[str, tuple[str, ...]] = {
    "path": ("file", "audio", "path", "file_name", "filename", "audio_filepath", "audio_path", "audio_file"),
    "text": ("text", "transcript", "transcription", "sentence"),
    "language": ("language", "lang", "locale"),
    "duration": ("duration", "duration_s", "duration_seconds"),
    "speaker": ("speaker", "client_id", "speaker_id"),
    "group": ("set", "group", "source"),
    "start": ("start", "start_s", "start_time", "offset"),
    "end": ("end", "end_s", "end_time"),
    "words": ("words",),
}

AUDIO_SUFFIXES = frozenset({
    ".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac", ".wma", ".webm", ".mp4", ".mkv", ".mov",
    ".aif", ".aiff", ".au", ".amr", ".3gp",
})  # fmt: skip
_TABLES = (".tsv", ".csv", ".jsonl", ".json", ".ndjson")
_TOLERANCE = 0.05  # seconds by which rounded times may exceed a rounded duration


@dataclass(frozen=True)
class ManifestEntry:
    """One usable entry of a manifest: a recording or a part of one, with its labels."""

    path: str  # as in the manifest, relative to the manifest's folder
    text: str = ""  # empty: not transcribed, or no speech
    language: str | None = None  # Whisper's code; "none": no speech; None: the manifest does not say
    speaker: str = ""
    group: str = ""  # a column, else the first folder of the path
    start: float | None = None  # seconds; the entry is this part of the file
    end: float | None = None
    words: tuple[TimedWord, ...] | None = None  # times in seconds of the file
    duration: float | None = None  # seconds, as in the manifest
    extra: dict[str, str] = field(default_factory=dict, hash=False)  # the other columns

    @property
    def seconds(self) -> float | None:
        """Length of the entry's part, where start and end or a duration give it."""
        if self.end is not None:
            return self.end - (self.start or 0.0)
        return None if self.duration is None else self.duration - (self.start or 0.0)


@dataclass(frozen=True)
class SkippedEntry:
    """An entry that cannot be used, and why; a reason is ``kind`` or ``kind: details``."""

    line: int  # counted from 1, the header included; 0 where the entry is a file of a folder
    reason: str
    cells: dict[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Manifest:
    """The result of `read_manifest`: usable entries and skipped ones."""

    path: str
    recordings: list[ManifestEntry]
    skipped: list[SkippedEntry]

    def describe(self, n_examples: int = 3) -> str:
        """Return a summary: languages, hours, and skipped entries with examples of each kind."""
        lines = [f"{self.path}: {_amount(self.recordings)}"]
        languages = Counter(recording.language for recording in self.recordings)
        for language, _ in languages.most_common():
            name = {NON_SPEECH: "no speech", None: "language not given"}.get(language, language)
            lines.append(f"  {name}: {_amount([r for r in self.recordings if r.language == language])}")
        if self.skipped:
            lines.append(f"{len(self.skipped)} entries skipped")
        kinds: dict[str, list[SkippedEntry]] = {}
        for skipped in self.skipped:
            kinds.setdefault(skipped.reason.split(":")[0], []).append(skipped)
        for kind, entries in sorted(kinds.items(), key=lambda item: -len(item[1])):
            lines.append(f"  {kind}: {len(entries)}")
            for skipped in entries[:n_examples]:
                line = f"line {skipped.line}: " if skipped.line else ""
                lines.append(f"    {line}{skipped.reason}")
            if len(entries) > n_examples:
                lines.append(f"    and {len(entries) - n_examples} more")
        return "\n".join(lines)


def _amount(recordings: list[ManifestEntry]) -> str:
    known = [r.seconds for r in recordings if r.seconds is not None]
    hours = f", {sum(known) / 3600:.2f} h" if known else ""
    unknown = f" ({len(recordings) - len(known)} of unknown length)" if 0 < len(known) < len(recordings) else ""
    return f"{len(recordings)} recordings{hours}{unknown}"


class _UnusableEntryError(Exception):
    """An entry that cannot be used; becomes a `SkippedEntry` and never leaves this module."""


@dataclass(frozen=True)
class _Line:
    number: int
    cells: dict[str, Any]  # by column name in lower case
    problem: str = ""  # why it cannot be parsed


def read_manifest(
    path: str | os.PathLike[str],
    *,
    languages: Collection[str] | None = None,
    max_seconds: float | None = None,
    require_text: bool = False,
    must_exist: bool = True,
) -> Manifest:
    """Read a list of recordings from a file, or from a folder that holds one.

    Parameters
    ----------
    path
        A ``.tsv``, ``.csv``, ``.jsonl`` or ``.json`` file; or a folder with ``manifest`` or
        ``metadata`` of one of these kinds in it or in its ``train``; or a folder of recordings,
        each with its text in a ``.txt`` of the same name. `COLUMNS` lists the column names. Paths
        are relative to the manifest's folder.
    languages
        Codes or names to keep. Entries without a language and non-speech entries are always kept.
    max_seconds
        Entries with a longer duration are skipped. Where no column gives the duration, the entry is
        kept.
    require_text
        Skip entries without a transcript, except non-speech entries.
    must_exist
        With False, entries whose file is not there stay, and addresses such as ``s3://bucket/file``.

    Returns
    -------
    Manifest
        In the order of the file, with the skipped entries in ``skipped``.

    Raises
    ------
    DataError
        There is no such file, it is empty, or no column names the recordings.
    LanguageError
        `languages` has an unknown language.
    """
    asked = None if languages is None else [languages] if isinstance(languages, str) else languages
    wanted = None if asked is None else {resolve_language(language) for language in asked}
    source = Path(path)
    table = _find_table(source) if source.is_dir() else source
    if not source.exists():
        raise DataError(f"{source} does not exist: a manifest is a file or a folder of recordings")
    lines = _read_folder(source) if table is None else _read_table(table)
    folder = source if table is None else table.parent

    recordings, skipped = list[ManifestEntry](), list[SkippedEntry]()
    for line in lines:
        try:
            entry = _parse_entry(line, folder, must_exist)
            _check_filters(entry, wanted, max_seconds, require_text)
            recordings.append(entry)
        except _UnusableEntryError as error:  # noqa: PERF203 - entries fail one by one
            cells = {name: _printable(value) for name, value in line.cells.items()}
            skipped.append(SkippedEntry(line.number, str(error), cells))
    return Manifest(str(table or source), recordings, skipped)


def resolve_language(name: str) -> str | None:
    """Return Whisper's code for any name of a language; ``"none"`` for no speech, None for nothing and ``auto``.

    Raises
    ------
    LanguageError
        Whisper has no such language; see `language_names.code_of`.
    """
    return NON_SPEECH if name.strip().lower() == NON_SPEECH else code_of(name)


# -- entries ---------------------------------------------------------------------------------------


def _parse_entry(line: _Line, folder: Path, must_exist: bool) -> ManifestEntry:
    """Check one entry; paths are relative to `folder`."""
    if line.problem:
        raise _UnusableEntryError(line.problem)
    found = {name: next((a for a in aliases if a in line.cells), None) for name, aliases in COLUMNS.items()}
    cells = {name: line.cells.get(alias) for name, alias in found.items() if alias is not None}
    path = _find_audio(cells.get("path"), folder, must_exist)
    if isinstance(cells.get("text", ""), bytes | bool | int | float | list | dict):
        raise _UnusableEntryError(f"text is not a string: {cells['text']!r}")
    text = (cells.get("text") or "").strip()
    try:
        language = resolve_language(_string(cells, "language"))
    except LanguageError as error:
        raise _UnusableEntryError(f"unknown language: {_string(cells, 'language')!r}") from error
    if language == NON_SPEECH and text:
        raise _UnusableEntryError(f"language is none but there is a text: {text[:60]!r}")

    start, end, duration = (_seconds(cells, name) for name in ("start", "end", "duration"))
    _check_times(start, end, duration if found["start"] != "offset" else None, duration)
    if found["start"] == "offset" and start is not None and end is None and duration is not None:
        end = start + duration  # NeMo's duration is that of the part, not of the file
    used = set(found.values())
    return ManifestEntry(
        path=path,
        text=text,
        language=language,
        speaker=_string(cells, "speaker"),
        group=_string(cells, "group") or _first_folder(Path(path), folder),
        start=start,
        end=end,
        words=_parse_words(cells.get("words")),
        duration=duration,
        extra={name: _as_text(value) for name, value in line.cells.items() if name not in used},
    )


def _find_audio(value: Any, folder: Path, must_exist: bool) -> str:
    if isinstance(value, dict):  # how Hugging Face `datasets` stores an audio column
        value = value.get("path")
    if not isinstance(value, str) or not value.strip():
        raise _UnusableEntryError("no audio file given")
    path = folder / value.strip()
    if "\0" in value or (must_exist and not path.is_file()):
        raise _UnusableEntryError(f"missing file: {value.strip()}")
    return value.strip() if "://" in value and not path.exists() else str(path)


def _first_folder(path: Path, folder: Path) -> str:
    try:
        parts = path.relative_to(folder).parts
    except ValueError:  # an absolute path elsewhere
        return ""
    return parts[0] if len(parts) > 1 and parts[0] != ".." else ""


def _string(cells: Mapping[str, Any], name: str) -> str:
    value = cells.get(name)
    return "" if value is None else _as_text(value).strip()


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _seconds(cells: Mapping[str, Any], name: str) -> float | None:
    value = cells.get(name)
    if value is None or value == "":
        return None
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if isinstance(value, bool) or not math.isfinite(seconds):
        raise _UnusableEntryError(f"{name} is not a number of seconds: {value!r}")
    return seconds


def _check_times(start: float | None, end: float | None, limit: float | None, duration: float | None) -> None:
    """Check that times are in order; `limit` is the duration of the file, None if unknown."""
    if duration is not None and duration <= 0:
        raise _UnusableEntryError(f"times out of order: a duration of {duration:g} s")
    if start is not None and start < 0:
        raise _UnusableEntryError(f"times out of order: starts at {start:g} s")
    if end is not None and end <= (start or 0.0):
        raise _UnusableEntryError(f"times out of order: starts at {start or 0:g} s, ends at {end:g} s")
    last = max(start or 0.0, end or 0.0)
    if limit is not None and last > limit + _TOLERANCE:
        raise _UnusableEntryError(f"times out of order: {last:g} s in a recording of {limit:g} s")


def _parse_words(value: Any) -> tuple[TimedWord, ...] | None:
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except ValueError as error:
            raise _UnusableEntryError(f"words are not JSON: {error}") from error
    if value is None or value == "":
        return None
    if not isinstance(value, list):
        raise _UnusableEntryError(f"words are not a list: {value!r}"[:100])
    words: list[TimedWord] = []
    for item in value:
        parts = [item.get(key) for key in ("word", "start", "end")] if isinstance(item, dict) else item
        if not isinstance(parts, list) or len(parts) != 3 or not isinstance(parts[0], str) or not parts[0].strip():
            raise _UnusableEntryError(f"words lack a word, a start or an end: {item!r}"[:100])
        times = {"start": parts[1], "end": parts[2]}
        start, end = _seconds(times, "start"), _seconds(times, "end")
        if start is None or end is None:
            raise _UnusableEntryError(f"words lack a word, a start or an end: {item!r}"[:100])
        if not 0 <= start <= end or (words and start < words[-1][1]):
            raise _UnusableEntryError(f"times out of order: word {parts[0]!r} from {start:g} to {end:g} s")
        words.append((parts[0], start, end))
    return tuple(words)


def _check_filters(
    entry: ManifestEntry, wanted: Collection[str | None] | None, max_seconds: float | None, require_text: bool
) -> None:
    language, seconds = entry.language, entry.seconds
    if wanted is not None and language not in (None, NON_SPEECH) and language not in wanted:
        raise _UnusableEntryError(f"language not asked for: {language}")
    if max_seconds is not None and seconds is not None and seconds > max_seconds:
        raise _UnusableEntryError(f"too long: {seconds:g} s, at most {max_seconds:g}")
    if require_text and not entry.text and language != NON_SPEECH:
        raise _UnusableEntryError("empty text")


# -- files -----------------------------------------------------------------------------------------


def _find_table(folder: Path) -> Path | None:
    """The manifest file of a folder, None if there is none."""
    for place, name in (
        (folder, "manifest"),
        (folder, "metadata"),
        (folder / "train", "manifest"),
        (folder / "train", "metadata"),
    ):
        found = [place / (name + suffix) for suffix in _TABLES if (place / (name + suffix)).is_file()]
        if len(found) > 1:
            log.warning("%s holds %s: using %s", place, ", ".join(p.name for p in found), found[0].name)
        if found:
            return found[0]
    return None


def _read_folder(folder: Path) -> Iterator[_Line]:
    """Audio files under `folder` with the text files beside them."""
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES and p.is_file())
    if not paths:
        raise DataError(f"{folder} holds no manifest (manifest.tsv, .csv, .jsonl or metadata.*) and no recordings")
    for path in paths:
        beside = path.with_suffix(".txt")
        raw = beside.read_bytes() if beside.is_file() else b""
        cells = {"file": str(path.relative_to(folder)), "text": raw.decode("utf-8-sig", "surrogateescape")}
        yield _Line(0, cells, _not_utf8(cells))


def _read_table(path: Path) -> Iterator[_Line]:
    """The entries of a file, with line numbers; DataError if the file cannot be used at all."""
    suffix = path.suffix.lower()
    if suffix not in _TABLES:
        raise DataError(f"{path} is not a manifest: its name must end in {', '.join(_TABLES)}")
    raw = path.read_bytes()
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f"{path} is UTF-16: a manifest is UTF-8")
    text = raw.decode("utf-8-sig", "surrogateescape")  # one wrong byte costs one entry, not the file
    if not text.strip():
        raise DataError(f"{path} is empty")
    lines = list(_json_lines(path, text) if suffix not in (".tsv", ".csv") else _separated(path, text, suffix))
    if not lines:
        raise DataError(f"{path} has a header but no entries")
    usable = [line for line in lines if not line.problem]
    if usable and not any(name in line.cells for line in usable for name in COLUMNS["path"]):
        raise _no_audio_column(path, list(usable[0].cells))
    if not usable and suffix not in (".tsv", ".csv"):
        raise DataError(f"{path}: no line can be parsed; line {lines[0].number}: {lines[0].problem}")
    return iter(lines)


def _separated(path: Path, text: str, suffix: str) -> Iterator[_Line]:
    rows = _split_tsv(text) if suffix == ".tsv" else _split_csv(text)
    header = next((cells for _, cells, _ in rows if any(cells)), [])
    names = [name.strip().lower() for name in header]
    if not set(names) & set(COLUMNS["path"]):
        raise _no_audio_column(path, names)
    for number, values, problem in rows:
        if not any(values) and not problem:
            continue
        cells, doubtful = dict[str, Any](), ""
        for name, value in zip(names, values):  # noqa: B905 - a wrong number of cells is reported below
            if name and cells.get(name, value) != value:
                doubtful = f"duplicate column: {name!r} is {cells[name]!r} and {value!r}"
            if name:
                cells.setdefault(name, value)
        if len(values) != len(names):
            problem = problem or f"wrong number of cells: {len(values)} for {len(names)} columns"
        yield _Line(number, cells, problem or doubtful or _not_utf8(cells))


def _split_tsv(text: str) -> Iterator[tuple[int, list[str], str]]:
    for number, line in enumerate(re.split("\r\n|\n|\r", text), start=1):
        yield number, line.split("\t") if line else [], ""


def _split_csv(text: str) -> Iterator[tuple[int, list[str], str]]:
    first = re.split("[\r\n]", text, maxsplit=1)[0]
    reader = csv.reader(re.findall("[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+$", text), delimiter=max(",;\t", key=first.count))
    while True:
        number = reader.line_num + 1
        try:
            yield number, next(reader), ""
        except StopIteration:
            return
        except csv.Error as error:
            yield number, [], f"invalid line: {error}"


def _json_lines(path: Path, text: str) -> Iterator[_Line]:
    if text.lstrip().startswith("["):
        try:
            items = [json.dumps(item) for item in json.loads(text)]
        except ValueError as error:
            raise DataError(f"{path} begins like a JSON list but is invalid: {error}") from error
    else:
        items = re.split("\r\n|\n|\r", text)
    for number, item in enumerate(items, start=1):
        if item.strip():
            yield _json_line(number, item)


def _json_line(number: int, text: str) -> _Line:
    duplicates: list[str] = []

    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        duplicates.extend(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        return dict(pairs)

    try:
        value = json.loads(text, object_pairs_hook=collect)
    except (ValueError, RecursionError) as error:
        return _Line(number, {"line": text[:200]}, f"invalid JSON: {error}")
    if not isinstance(value, dict):
        return _Line(number, {"line": text[:200]}, f"not a JSON object: {text[:60]}")
    cells = {name.strip().lower(): item for name, item in value.items()}
    if len(cells) < len(value):
        duplicates.append("in upper and lower case")
    problem = f"duplicate column: {', '.join(duplicates)}" if duplicates else _not_utf8(cells)
    return _Line(number, cells, problem)


def _not_utf8(cells: Mapping[str, Any]) -> str:
    bad = [name for name, value in cells.items() if any("\ud800" <= c <= "\udfff" for c in name + _as_text(value))]
    return f"not UTF-8: column {_printable(bad[0])!r}" if bad else ""


def _printable(value: Any) -> Any:
    """Replace what was not UTF-8, so that the text can be printed."""
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value


def _no_audio_column(path: Path, names: list[str]) -> DataError:
    near = [(n, m) for n in names for m in get_close_matches(n, COLUMNS["path"], 1)]
    hint = f"; is {near[0][0]!r} meant to be {near[0][1]!r}?" if near else ""
    present = ", ".join(map(repr, names[:12]))
    return DataError(f"{path} has no column of audio files ({', '.join(COLUMNS['path'])}), only {present}{hint}")
