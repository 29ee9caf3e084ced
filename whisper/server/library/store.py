"""The database of the library: recordings, their documents, tags, and a full-text index of all that was said.

One SQLite file. Each change is one transaction on disk before anything is answered. A document is changed only by
those who know its version. Knows no HTTP, runs nothing, and opens no sound; any thread may call.
"""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ...device import processes
from ...errors import DataError, OptionError
from ...storage import database
from ..errors import RequestError, translating_full_disk

VERSION = 1  # of the tables
STATES = ("working", "done", "failed", "cancelled")
MAX_HITS = 200
_ID = re.compile(r"rec_[0-9a-f]{32}")
_TABLES = """
CREATE TABLE IF NOT EXISTS recordings (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, name TEXT NOT NULL,
    status TEXT NOT NULL, created REAL NOT NULL, changed REAL NOT NULL, job TEXT NOT NULL, model TEXT NOT NULL,
    fields TEXT NOT NULL, n_bytes INTEGER NOT NULL, duration REAL, language TEXT, error TEXT,
    version INTEGER NOT NULL DEFAULT 0, last_change TEXT, document TEXT, original TEXT, beginning TEXT
);
CREATE INDEX IF NOT EXISTS of_owner ON recordings (owner, number);
CREATE TABLE IF NOT EXISTS tags (
    recording INTEGER NOT NULL REFERENCES recordings (number) ON DELETE CASCADE, tag TEXT NOT NULL,
    PRIMARY KEY (recording, tag)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lines (
    number INTEGER PRIMARY KEY, recording INTEGER NOT NULL REFERENCES recordings (number) ON DELETE CASCADE,
    uid TEXT NOT NULL, start REAL NOT NULL, text TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS of_recording ON lines (recording);
CREATE TABLE IF NOT EXISTS job_result (id TEXT PRIMARY KEY, revision TEXT NOT NULL) WITHOUT ROWID;
CREATE VIRTUAL TABLE IF NOT EXISTS spoken USING fts5 (text, tokenize = 'unicode61 remove_diacritics 2');
CREATE TRIGGER IF NOT EXISTS line_gone AFTER DELETE ON lines BEGIN
    DELETE FROM spoken WHERE rowid = old.number;
END;
"""
_COLUMNS = (
    "number, id, owner, name, status, created, changed, job, model, fields, n_bytes, duration, language, error, "
    "version, last_change, beginning"
)
_BEGINNING = 200  # characters of a transcript that a list shows
# Writing without spaces: Thai, Lao, Burmese, Khmer, kana and Han. Each character is indexed as a word.
_UNSPACED = re.compile("([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff])")
_TERMS = re.compile(r'"([^"]*)"|(\S+)')


@dataclass(frozen=True)
class Recording:
    """A recording as it was when it was read, without its document."""

    number: int
    id: str
    owner: str
    name: str
    status: str  # one of `STATES`
    created: float
    changed: float
    job: str
    model: str
    fields: list[tuple[str, str]]  # of the form, as they came
    n_bytes: int
    duration: float | None  # seconds, once it is decoded
    language: str | None
    error: dict[str, Any] | None
    version: int  # of the document; 0 where there is none
    last_change: str | None
    beginning: str | None


class ImportedRecording(NamedTuple):
    """A recording that was transcribed elsewhere, with its document."""

    id: str
    revision: str  # changes with the document
    columns: dict[str, Any]
    tags: list[str]
    document: dict[str, Any]
    source: str


class LibraryStore:
    """Keeps the recordings of a folder.

    Parameters
    ----------
    folder
        Exists, and is this process's alone.

    Raises
    ------
    OptionError
        The file in it is of another version, or cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self._lock = processes.lock()  # of the connection
        try:
            self._db = database.connect(folder / "library.sqlite", _TABLES, VERSION, mode=0o600)
        except (OSError, sqlite3.Error, DataError) as error:
            raise OptionError(f"the library {folder} cannot be used: {error}") from error

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """Make one transaction of what is done in the context; a full disk is an answer of its own."""
        with self._lock, translating_full_disk(), database.transaction(self._db):
            yield

    # -- recordings --------------------------------------------------------------------------------------

    @staticmethod
    def new_id() -> str:
        """Return the id of a recording to come."""
        return f"rec_{uuid.uuid4().hex}"

    def add(self, owner: str, recording_id: str, **columns: Any) -> Recording:
        """Add a recording that is being transcribed; `columns` are name, job, model, fields, n_bytes and tags."""
        tags = columns.pop("tags")
        with self._changing():
            return self._insert(owner, recording_id, tags, {"created": time.time(), **columns})

    def _insert(self, owner: str, recording_id: str, tags: Sequence[str], columns: dict[str, Any]) -> Recording:
        given = {**columns, "fields": json.dumps(columns["fields"]), "changed": columns["created"]}
        given |= {"id": recording_id, "owner": owner, "status": "working"}
        marks = ", ".join("?" * len(given))
        self._db.execute(f"INSERT INTO recordings ({', '.join(given)}) VALUES ({marks})", tuple(given.values()))
        recording = self._only("id = ?", recording_id)
        assert recording is not None
        self._set_tags(recording, tags)
        return recording

    def get(self, recording_id: str, owner: str) -> Recording | None:
        """Return a recording of an owner; None where there is none."""
        if not _ID.fullmatch(recording_id):  # SQLite takes no text with lone surrogates
            return None
        with self._lock:
            return self._only("id = ? AND owner = ?", recording_id, owner)

    def of_job(self, job: str) -> Recording | None:
        """Return the recording that a job transcribes; None where it was deleted."""
        with self._lock:
            return self._only("job = ?", job)

    def page(self, owner: str, limit: int, after: Recording | None, tag: str | None) -> list[Recording]:
        """Return recordings of an owner, the newest first, after one of them; perhaps only those with a tag."""
        where = "" if tag is None else "AND number IN (SELECT recording FROM tags WHERE tag = ?)"
        values = (owner, 1 << 62 if after is None else after.number, *([] if tag is None else [tag]), limit)
        with self._lock:
            rows = self._db.execute(
                f"SELECT {_COLUMNS} FROM recordings WHERE owner = ? AND number < ? {where} "
                "ORDER BY number DESC LIMIT ?",
                values,
            ).fetchall()
        return [_recording(row) for row in rows]

    def change(self, recording: Recording, **columns: Any) -> None:
        """Set some of name, status, job, duration and error."""
        if "error" in columns and columns["error"] is not None:
            columns["error"] = json.dumps(columns["error"])
        with self._changing():
            names = ", ".join(f"{name} = ?" for name in columns)
            self._db.execute(f"UPDATE recordings SET {names} WHERE number = ?", (*columns.values(), recording.number))

    def delete(self, recording: Recording) -> None:
        """Forget a recording, its document, its tags, and its lines in the index."""
        with self._changing():
            self._db.execute("DELETE FROM recordings WHERE number = ?", (recording.number,))

    def ids(self) -> set[str]:
        """Return the ids of all recordings of all owners."""
        with self._lock:
            return {row[0] for row in self._db.execute("SELECT id FROM recordings")}

    def _only(self, where: str, *values: Any) -> Recording | None:
        row = self._db.execute(f"SELECT {_COLUMNS} FROM recordings WHERE {where}", values).fetchone()
        return None if row is None else _recording(row)

    # -- tags --------------------------------------------------------------------------------------------

    def set_tags(self, recording: Recording, tags: Sequence[str]) -> None:
        """Give a recording these tags and no others."""
        with self._changing():
            self._set_tags(recording, tags)

    def _set_tags(self, recording: Recording, tags: Sequence[str]) -> None:
        self._db.execute("DELETE FROM tags WHERE recording = ?", (recording.number,))
        rows = [(recording.number, tag) for tag in dict.fromkeys(tags)]
        self._db.executemany("INSERT INTO tags VALUES (?, ?)", rows)

    def tags_of(self, recording: Recording) -> list[str]:
        """Return the tags of a recording."""
        with self._lock:
            rows = self._db.execute("SELECT tag FROM tags WHERE recording = ?", (recording.number,)).fetchall()
        return sorted(row[0] for row in rows)

    def all_tags(self, owner: str) -> list[tuple[str, int]]:
        """Return the tags of an owner, and how many recordings have each."""
        with self._lock:
            return self._db.execute(
                "SELECT tag, count(*) FROM tags JOIN recordings ON recording = number WHERE owner = ? "
                "GROUP BY tag ORDER BY tag",
                (owner,),
            ).fetchall()

    # -- documents ---------------------------------------------------------------------------------------

    def finish(self, recording: Recording, document: dict[str, Any]) -> None:
        """Keep what was heard; where there is a document already, that one stays."""
        with self._changing():
            if recording.version == 0:
                self._finish(recording, document)

    def _finish(self, recording: Recording, document: dict[str, Any]) -> None:
        """Keep what was heard as the next version, if nobody has read another one meanwhile."""
        text = json.dumps(document)
        changed = self._db.execute(
            "UPDATE recordings SET status = 'done', error = NULL, version = version + 1, document = ?, original = ?, "
            "language = ?, changed = ?, beginning = ? WHERE number = ? AND version = ?",
            (text, text, document["language"], time.time(), _beginning(document), recording.number, recording.version),
        ).rowcount
        if changed:
            self._index(recording, document)

    def document(self, recording: Recording, *, original: bool = False) -> tuple[int, dict[str, Any]]:
        """Return the version of a document, and the document: as it is now, or as it was heard."""
        column = "original" if original else "document"
        with self._lock:
            row = self._db.execute(
                f"SELECT version, {column} FROM recordings WHERE number = ?", (recording.number,)
            ).fetchone()
        if row is None or row[1] is None:
            raise RequestError(409, "the recording is not transcribed yet", code="not_finished", retry_after=5)
        return row[0], json.loads(row[1])

    def save(self, recording: Recording, before: int, document: dict[str, Any], change_id: str) -> int:
        """Replace a document, of which the version is known; returns the next one.

        Raises
        ------
        RequestError
            Somebody else has changed it meanwhile: 409.
        """
        with self._changing():
            changed = self._db.execute(
                "UPDATE recordings SET version = version + 1, last_change = ?, document = ?, language = ?, "
                "changed = ?, beginning = ? WHERE number = ? AND version = ?",
                (change_id, json.dumps(document), document["language"], time.time(), _beginning(document),
                 recording.number, before),
            ).rowcount  # fmt: skip
            if not changed:
                raise conflict()
            self._index(recording, document)
        return before + 1

    def _index(self, recording: Recording, document: dict[str, Any]) -> None:
        self._db.execute("DELETE FROM lines WHERE recording = ?", (recording.number,))
        first = self._db.execute("SELECT coalesce(max(number), 0) + 1 FROM lines").fetchone()[0]
        segments = list(enumerate(document["segments"], first))
        self._db.executemany(
            "INSERT INTO lines VALUES (?, ?, ?, ?, ?)",
            [(n, recording.number, s["uid"], s["start"], s["text"].strip()) for n, s in segments],
        )
        self._db.executemany(
            "INSERT INTO spoken (rowid, text) VALUES (?, ?)", [(n, spaced(s["text"])) for n, s in segments]
        )

    # -- what comes from jobs ----------------------------------------------------------------------------

    def revisions(self) -> dict[str, str]:
        """Return what was taken in of jobs: with which result, by the ids of recordings, also of deleted ones."""
        with self._lock:
            return dict(self._db.execute("SELECT id, revision FROM job_result"))

    def take_in(self, owner: str, found: Sequence[ImportedRecording]) -> None:
        """Keep results of jobs as documents; of a recording that was corrected the corrections stay.

        A recording keeps its row: whoever has just asked for it finds its document under the same number.
        """
        with self._changing():
            for one in found:
                before = self._only("id = ?", one.id) or self._insert(owner, one.id, one.tags, one.columns)
                if before.last_change is None:
                    self._db.execute(
                        "UPDATE recordings SET model = ?, n_bytes = ?, duration = ? WHERE number = ?",
                        (*(one.columns[name] for name in ("model", "n_bytes", "duration")), before.number),
                    )
                    self._finish(before, one.document)
                self._db.execute("REPLACE INTO job_result VALUES (?, ?)", (one.id, one.revision))

    # -- search ------------------------------------------------------------------------------------------

    def search(self, owner: str, query: str, limit: int = MAX_HITS) -> list[dict[str, Any]]:
        """Return the lines in which all words of a query were said, the best first.

        A phrase stands in quotation marks; the last word may be the beginning of one.
        """
        asked = fts_query(query)
        if not asked:
            return []
        with self._lock:
            rows = self._db.execute(
                "SELECT r.id, r.name, l.uid, l.start, l.text FROM spoken JOIN lines l ON l.number = spoken.rowid "
                "JOIN recordings r ON r.number = l.recording WHERE spoken MATCH ? AND r.owner = ? "
                "ORDER BY bm25(spoken), r.number DESC, l.start LIMIT ?",
                (asked, owner, limit),
            ).fetchall()
        return [dict(zip(("recording", "name", "uid", "start", "text"), row, strict=True)) for row in rows]


def conflict() -> RequestError:
    """Return the error of a change to a document that somebody else has changed."""
    return RequestError(
        409,
        "the transcript was changed elsewhere meanwhile; read it again",
        code="version_conflict",
        should_retry=False,
    )


def spaced(text: str) -> str:
    """Return text as it is indexed: with a space around each character of a script without spaces."""
    return _UNSPACED.sub(r" \1 ", text)


def fts_query(query: str) -> str:
    """Return a query in the language of FTS5, in which nothing that was typed is an operator."""
    terms = [quoted if plain == "" else plain for quoted, plain in _TERMS.findall(query.replace("\0", " "))]
    terms = [spaced(term).replace('"', " ").strip() for term in terms]
    terms = [f'"{term}"' for term in terms if re.search(r"\w", term)]
    ends_open = terms and not query.rstrip().endswith('"') and not query.endswith(" ")
    return " ".join(terms) + ("*" if ends_open else "")


def _beginning(document: dict[str, Any]) -> str:
    text = ""
    for segment in document["segments"]:
        text += segment["text"]
        if len(text) > _BEGINNING:
            break
    return text.strip()[:_BEGINNING]


def _recording(row: tuple[Any, ...]) -> Recording:
    columns: dict[str, Any] = dict(zip(_COLUMNS.split(", "), row, strict=True))
    columns["fields"] = [(name, value) for name, value in json.loads(columns["fields"])]
    columns["error"] = None if columns["error"] is None else json.loads(columns["error"])
    return Recording(**columns)
