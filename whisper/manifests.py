"""Lists of recordings with their transcripts, in the shapes that people keep them: one row becomes one `Recording`.

TSV (no quoting), CSV, JSON lines (NeMo's too), Hugging Face audio folders, and folders of sound with a ``.txt``
beside each file. A row that cannot be used is kept apart with its line and the reason: never fatal, never
silent. Opens no recording (a length is known only where a column tells it), changes no text and writes nothing.
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

from .errors import LanguageError, TrainingError
from .language_names import code_of

log = logging.getLogger(__name__)

Word = tuple[str, float, float]  # the word, its start and its end in seconds of the file

NOBODY = "none"  # the language of a recording in which nobody speaks

# The names that each field goes by, in the order in which they are looked for; letter case does not matter.
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

AUDIO_SUFFIXES = frozenset(
    {".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac", ".wma", ".webm", ".mp4", ".mkv", ".mov", ".aif", ".aiff",
     ".au", ".amr", ".3gp"}
)  # fmt: skip
_TABLES = (".tsv", ".csv", ".jsonl", ".json", ".ndjson")
_SLACK = 0.05  # seconds by which rounded times may pass a rounded duration


@dataclass(frozen=True)
class Recording:
    """One usable row of a manifest."""

    path: str  # as the manifest says, seen from the manifest's folder
    text: str = ""  # empty: nobody wrote down what is said, or nobody speaks
    language: str | None = None  # Whisper's code; "none": nobody speaks; None: the manifest does not say
    speaker: str = ""
    group: str = ""  # a column, else the first folder of the path
    start: float | None = None  # seconds; the row means this part of the file
    end: float | None = None
    words: tuple[Word, ...] | None = None
    duration: float | None = None  # seconds, as the manifest says
    extra: dict[str, str] = field(default_factory=dict, hash=False)  # the other columns

    @property
    def seconds(self) -> float | None:
        """Length of the part that is meant, where start and end or a duration tell it."""
        if self.end is not None:
            return self.end - (self.start or 0.0)
        return None if self.duration is None else self.duration - (self.start or 0.0)


@dataclass(frozen=True)
class BadRow:
    """A row that is left out, and why; a reason is ``kind`` or ``kind: what exactly``."""

    line: int  # counted from 1 with the heading; 0 where rows are files of a folder
    reason: str
    row: dict[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Manifest:
    """What `read_manifest` found: the rows that can be used and those that cannot."""

    path: str
    recordings: list[Recording]
    skipped: list[BadRow]

    def describe(self, n_examples: int = 3) -> str:
        """Return a summary for people: languages, hours, and the rows left out with `n_examples` of each kind."""
        lines = [f"{self.path}: {_amount(self.recordings)}"]
        languages = Counter(recording.language for recording in self.recordings)
        for language, _ in languages.most_common():
            name = {NOBODY: "nobody speaks", None: "language not given"}.get(language, language)
            lines.append(f"  {name}: {_amount([r for r in self.recordings if r.language == language])}")
        if self.skipped:
            lines.append(f"{len(self.skipped)} rows left out")
        kinds: dict[str, list[BadRow]] = {}
        for bad in self.skipped:
            kinds.setdefault(bad.reason.split(":")[0], []).append(bad)
        for kind, rows in sorted(kinds.items(), key=lambda item: -len(item[1])):
            lines.append(f"  {kind}: {len(rows)}")
            lines += [f"    {f'line {bad.line}: ' if bad.line else ''}{bad.reason}" for bad in rows[:n_examples]]
            if len(rows) > n_examples:
                lines.append(f"    and {len(rows) - n_examples} more")
        return "\n".join(lines)


def _amount(recordings: list[Recording]) -> str:
    known = [r.seconds for r in recordings if r.seconds is not None]
    hours = f", {sum(known) / 3600:.2f} h" if known else ""
    unknown = f" ({len(recordings) - len(known)} of unknown length)" if 0 < len(known) < len(recordings) else ""
    return f"{len(recordings)} recordings{hours}{unknown}"


class _BadRowError(Exception):
    """Raised while a row is read; becomes a `BadRow` and never leaves this file."""


@dataclass(frozen=True)
class _Line:
    number: int
    cells: dict[str, Any]  # by column name in lower case
    problem: str = ""  # why there is nothing to read in it


def read_manifest(
    path: str | os.PathLike[str],
    *,
    languages: Collection[str] | None = None,
    max_seconds: float | None = None,
    require_text: bool = False,
) -> Manifest:
    """Read a list of recordings from a file, or from a folder that holds one.

    Parameters
    ----------
    path
        A ``.tsv``, ``.csv``, ``.jsonl`` or ``.json`` file; or a folder with ``manifest`` or ``metadata`` of one of
        these kinds in it or in its ``train``; or a folder of recordings, each with its text in a ``.txt`` of the
        same name. `COLUMNS` lists the names of columns. Paths are relative to the file that names them.
    languages
        Codes or names to keep. Rows without a language, and those where nobody speaks, are kept always.
    max_seconds
        Rows that say that they are longer are left out. A recording whose length no column tells is kept.
    require_text
        Leave out rows without a transcript, except where nobody speaks.

    Returns
    -------
    Manifest
        In the order of the file, with the rows left out in ``skipped``.

    Raises
    ------
    TrainingError
        There is no such file, it is empty, or no column names the recordings.
    LanguageError
        `languages` holds something that is no language.
    """
    asked = None if languages is None else [languages] if isinstance(languages, str) else languages
    wanted = None if asked is None else {resolve_language(language) for language in asked}
    source = Path(path)
    table = _find_table(source) if source.is_dir() else source
    if not source.exists():
        raise TrainingError(f"{source} does not exist: a manifest is a file or a folder of recordings")
    lines = _read_folder(source) if table is None else _read_table(table)
    folder = source if table is None else table.parent

    recordings, skipped = list[Recording](), list[BadRow]()
    for line in lines:
        try:
            recording = _recording(line, folder)
            _check_wanted(recording, wanted, max_seconds, require_text)
            recordings.append(recording)
        except _BadRowError as error:  # noqa: PERF203 - rows fail one by one
            skipped.append(BadRow(line.number, str(error), {k: _clean(v) for k, v in line.cells.items()}))
    return Manifest(str(table or source), recordings, skipped)


def resolve_language(name: str) -> str | None:
    """Return Whisper's code for any name of a language; ``"none"`` for nobody, None for nothing and ``auto``.

    Raises
    ------
    LanguageError
        If Whisper has no such language; see `language_names.code_of`.
    """
    return NOBODY if name.strip().lower() == NOBODY else code_of(name)


# -- rows ---------------------------------------------------------------------------------------------------


def _recording(line: _Line, folder: Path) -> Recording:
    """Check one row; paths are looked up from `folder`."""
    if line.problem:
        raise _BadRowError(line.problem)
    found = {name: next((a for a in aliases if a in line.cells), None) for name, aliases in COLUMNS.items()}
    cells = {name: line.cells.get(alias) for name, alias in found.items() if alias is not None}
    path = _path(cells.get("path"), folder)
    if isinstance(cells.get("text", ""), bytes | bool | int | float | list | dict):
        raise _BadRowError(f"text is not a string: {cells['text']!r}")
    text = (cells.get("text") or "").strip()
    try:
        language = resolve_language(_string(cells, "language"))
    except LanguageError as error:
        raise _BadRowError(f"unknown language: {_string(cells, 'language')!r}") from error
    if language == NOBODY and text:
        raise _BadRowError(f"language is none but there is a text: {text[:60]!r}")

    start, end, duration = (_seconds(cells, name) for name in ("start", "end", "duration"))
    _check_times(start, end, duration if found["start"] != "offset" else None, duration)
    if found["start"] == "offset" and start is not None and end is None and duration is not None:
        end = start + duration  # NeMo's duration is that of the part, not of the file
    used = set(found.values())
    return Recording(
        path=str(path), text=text, language=language, speaker=_string(cells, "speaker"),
        group=_string(cells, "group") or _first_folder(path, folder),
        start=start, end=end, words=_words(cells.get("words")), duration=duration,
        extra={name: _as_text(value) for name, value in line.cells.items() if name not in used},
    )  # fmt: skip


def _path(value: Any, folder: Path) -> Path:
    if isinstance(value, dict):  # how `datasets` writes a column of sound
        value = value.get("path")
    if not isinstance(value, str) or not value.strip():
        raise _BadRowError("no recording is named")
    path = folder / value.strip()
    if "\0" in value or not path.is_file():
        raise _BadRowError(f"missing file: {value.strip()}")
    return path


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
        raise _BadRowError(f"{name} is not a number of seconds: {value!r}")
    return seconds


def _check_times(start: float | None, end: float | None, limit: float | None, duration: float | None) -> None:
    """`limit` is the length of the file where that is known."""
    if duration is not None and duration <= 0:
        raise _BadRowError(f"times out of order: a duration of {duration:g} s")
    if start is not None and start < 0:
        raise _BadRowError(f"times out of order: starts at {start:g} s")
    if end is not None and end <= (start or 0.0):
        raise _BadRowError(f"times out of order: starts at {start or 0:g} s, ends at {end:g} s")
    last = max(start or 0.0, end or 0.0)
    if limit is not None and last > limit + _SLACK:
        raise _BadRowError(f"times out of order: {last:g} s in a recording of {limit:g} s")


def _words(value: Any) -> tuple[Word, ...] | None:
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except ValueError as error:
            raise _BadRowError(f"words are no JSON: {error}") from error
    if value is None or value == "":
        return None
    if not isinstance(value, list):
        raise _BadRowError(f"words are not a list: {value!r}"[:100])
    words: list[Word] = []
    for item in value:
        parts = [item.get(key) for key in ("word", "start", "end")] if isinstance(item, dict) else item
        if not isinstance(parts, list) or len(parts) != 3 or not isinstance(parts[0], str) or not parts[0].strip():
            raise _BadRowError(f"words lack a word, a start or an end: {item!r}"[:100])
        times = {"start": parts[1], "end": parts[2]}
        start, end = _seconds(times, "start"), _seconds(times, "end")
        if start is None or end is None:
            raise _BadRowError(f"words lack a word, a start or an end: {item!r}"[:100])
        if not 0 <= start <= end or (words and start < words[-1][1]):
            raise _BadRowError(f"times out of order: word {parts[0]!r} from {start:g} to {end:g} s")
        words.append((parts[0], start, end))
    return tuple(words)


def _check_wanted(
    recording: Recording, wanted: Collection[str | None] | None, max_seconds: float | None, require_text: bool
) -> None:
    language, seconds = recording.language, recording.seconds
    if wanted is not None and language not in (None, NOBODY) and language not in wanted:
        raise _BadRowError(f"language not asked for: {language}")
    if max_seconds is not None and seconds is not None and seconds > max_seconds:
        raise _BadRowError(f"too long: {seconds:g} s, at most {max_seconds:g}")
    if require_text and not recording.text and language != NOBODY:
        raise _BadRowError("empty text")


# -- files --------------------------------------------------------------------------------------------------


def _find_table(folder: Path) -> Path | None:
    """The manifest in a folder, None if it has none."""
    for place, name in ((folder, "manifest"), (folder, "metadata"), (folder / "train", "manifest"),
                        (folder / "train", "metadata")):  # fmt: skip
        found = [place / (name + suffix) for suffix in _TABLES if (place / (name + suffix)).is_file()]
        if len(found) > 1:
            log.warning("%s holds %s: read %s", place, ", ".join(p.name for p in found), found[0].name)
        if found:
            return found[0]
    return None


def _read_folder(folder: Path) -> Iterator[_Line]:
    """Recordings under `folder` with the text files beside them."""
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES and p.is_file())
    if not paths:
        raise TrainingError(f"{folder} holds no manifest (manifest.tsv, .csv, .jsonl or metadata.*) and no recordings")
    for path in paths:
        beside = path.with_suffix(".txt")
        raw = beside.read_bytes() if beside.is_file() else b""
        cells = {"file": str(path.relative_to(folder)), "text": raw.decode("utf-8-sig", "surrogateescape")}
        yield _Line(0, cells, _not_utf8(cells))


def _read_table(path: Path) -> Iterator[_Line]:
    """The rows of a file, each with its line number; raises TrainingError if it cannot be used at all."""
    suffix = path.suffix.lower()
    if suffix not in _TABLES:
        raise TrainingError(f"{path} is no manifest: its name must end in {', '.join(_TABLES)}")
    raw = path.read_bytes()
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise TrainingError(f"{path} is UTF-16: a manifest is UTF-8")
    text = raw.decode("utf-8-sig", "surrogateescape")  # a single foreign byte costs one row, not the file
    if not text.strip():
        raise TrainingError(f"{path} is empty")
    lines = list(_json_lines(path, text) if suffix not in (".tsv", ".csv") else _separated(path, text, suffix))
    if not lines:
        raise TrainingError(f"{path} has a heading but no rows")
    usable = [line for line in lines if not line.problem]
    if usable and not any(name in line.cells for line in usable for name in COLUMNS["path"]):
        raise _no_audio_column(path, list(usable[0].cells))
    if not usable and suffix not in (".tsv", ".csv"):
        raise TrainingError(f"{path}: no line can be read; line {lines[0].number}: {lines[0].problem}")
    return iter(lines)


def _separated(path: Path, text: str, suffix: str) -> Iterator[_Line]:
    rows = _split_tsv(text) if suffix == ".tsv" else _split_csv(text)
    heading = next((row for _, row, _ in rows if any(row)), [])
    names = [name.strip().lower() for name in heading]
    if not set(names) & set(COLUMNS["path"]):
        raise _no_audio_column(path, names)
    for number, row, problem in rows:
        if not any(row) and not problem:
            continue
        cells, doubtful = dict[str, Any](), ""
        for name, value in zip(names, row):  # noqa: B905 - a wrong number of cells is told below
            if name and cells.get(name, value) != value:
                doubtful = f"column stands twice: {name!r} says {cells[name]!r} and {value!r}"
            if name:
                cells.setdefault(name, value)
        if len(row) != len(names):
            problem = problem or f"wrong number of cells: {len(row)} for {len(names)} columns"
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
            yield number, [], f"broken line: {error}"


def _json_lines(path: Path, text: str) -> Iterator[_Line]:
    if text.lstrip().startswith("["):
        try:
            items = [json.dumps(item) for item in json.loads(text)]
        except ValueError as error:
            raise TrainingError(f"{path} begins like a JSON list but is none: {error}") from error
    else:
        items = re.split("\r\n|\n|\r", text)
    for number, item in enumerate(items, start=1):
        if item.strip():
            yield _json_line(number, item)


def _json_line(number: int, text: str) -> _Line:
    twice: list[str] = []

    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        twice.extend(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        return dict(pairs)

    try:
        value = json.loads(text, object_pairs_hook=collect)
    except (ValueError, RecursionError) as error:
        return _Line(number, {"line": text[:200]}, f"broken JSON: {error}")
    if not isinstance(value, dict):
        return _Line(number, {"line": text[:200]}, f"no JSON object: {text[:60]}")
    cells = {name.strip().lower(): item for name, item in value.items()}
    if len(cells) < len(value):
        twice.append("of two spellings")
    return _Line(number, cells, f"column stands twice: {', '.join(twice)}" if twice else _not_utf8(cells))


def _not_utf8(cells: Mapping[str, Any]) -> str:
    bad = [name for name, value in cells.items() if any("\ud800" <= c <= "\udfff" for c in name + _as_text(value))]
    return f"not UTF-8: column {_clean(bad[0])!r}" if bad else ""


def _clean(value: Any) -> Any:
    """Make text that was no UTF-8 fit to be printed."""
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value


def _no_audio_column(path: Path, names: list[str]) -> TrainingError:
    near = [(n, m) for n in names for m in get_close_matches(n, COLUMNS["path"], 1)]
    hint = f"; is {near[0][0]!r} meant to be {near[0][1]!r}?" if near else ""
    told = ", ".join(map(repr, names[:12]))
    return TrainingError(
        f"{path} has no column that names recordings ({', '.join(COLUMNS['path'])}), only {told}{hint}"
    )
