"""Search in all that was said in a job: an index of full text beside the job file, brought up to date by each search.

Words are matched without regard to case and accents. For languages that are written without spaces the index is one of
three letters each; shorter texts are looked for one segment after the other. Knows segments: what begins in one and
ends in the next is not found.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import DataError, OptionError
from ...options.language_names import code_of
from ...storage.database import connect, transaction
from ..inputs import OWN_FOLDER
from ..outputs import read_result
from ..store import JobStore, Recording

WITHOUT_SPACES = frozenset({"zh", "yue", "ja", "th", "lo", "my", "km", "bo"})
VERSION = 1
MOST_RANKED = 20_000  # segments with a phrase; where there are more, the newest come first
_TRIGRAM = 3
_TABLES = """
CREATE TABLE IF NOT EXISTS recording (
    number INTEGER PRIMARY KEY, part TEXT NOT NULL, id INTEGER NOT NULL, revision TEXT NOT NULL, source BLOB NOT NULL,
    language TEXT, at REAL NOT NULL, UNIQUE (part, id)
);
CREATE TABLE IF NOT EXISTS segment (
    number INTEGER PRIMARY KEY, recording INTEGER NOT NULL, position INTEGER NOT NULL, start REAL NOT NULL,
    end REAL NOT NULL, language TEXT, speaker TEXT, dense INTEGER NOT NULL, text TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS of_recording ON segment (recording, position);
CREATE INDEX IF NOT EXISTS dense ON segment (dense) WHERE dense;
CREATE TABLE IF NOT EXISTS mark (part TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5(
    text, content='segment', content_rowid='number', tokenize='unicode61 remove_diacritics 2'
);
CREATE VIRTUAL TABLE IF NOT EXISTS letters USING fts5(
    text, content='segment', content_rowid='number', tokenize='trigram'
);
"""


@dataclass(frozen=True)
class Hit:
    """A segment in which the phrase was said."""

    source: str
    start: float  # seconds
    end: float
    text: str
    before: str  # the segment before it; empty at the beginning
    after: str
    language: str | None
    speaker: str | None
    score: float  # the higher the better


class SearchIndex:
    """The index of a job.

    Parameters
    ----------
    out
        The folder of the job.

    Raises
    ------
    DataError
        SQLite was built without full-text search, or the file is damaged.
    """

    def __init__(self, out: str | os.PathLike[str]) -> None:
        self.out = Path(out)
        path = self.out / OWN_FOLDER / "search.sqlite"
        try:
            self._db = connect(path, _TABLES, VERSION, durable=False)
        except sqlite3.OperationalError as error:
            if "fts5" in str(error) or "tokenizer" in str(error):
                raise DataError(f"the SQLite of this Python has no full-text search ({error})") from error
            raise

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    # -- bringing it up to date --------------------------------------------------------------------------

    def update(self, stores: Iterable[JobStore]) -> int:
        """Take in what was done since; returns how many recordings."""
        return sum(self._update(store) for store in stores)

    def _update(self, store: JobStore) -> int:
        part, mark = store.path.name, store.mark()
        if self._db.execute("SELECT value FROM mark WHERE part = ?", (part,)).fetchone() == (mark,):
            return 0
        known = dict(self._db.execute("SELECT id, revision FROM recording WHERE part = ?", (part,)))
        n, last = 0, 0
        while found := store.finished(last):
            with transaction(self._db):
                for one, file in found:
                    revision = f"{one.content} {one.recipe} {one.version} {one.source!a}"
                    if known.pop(one.id, None) != revision:
                        self._forget(part, one.id)
                        self._take_in(part, one, revision, read_result(store.out, file))
                        n += 1
            last = found[-1][0].id
        with transaction(self._db):
            for number in known:  # done no more
                self._forget(part, number)
            self._db.execute("REPLACE INTO mark VALUES (?, ?)", (part, mark))
        return n

    def _take_in(self, part: str, one: Recording, revision: str, result: dict[str, Any] | None) -> None:
        version = one.version or ""
        written = float(version) / 1e9 if version.isdecimal() else one.finished or 0.0
        cursor = self._db.execute(
            "INSERT INTO recording (part, id, revision, source, language, at) VALUES (?, ?, ?, ?, ?, ?)",
            (part, one.id, revision, os.fsencode(one.source), one.language, written),
        )
        for i, segment in enumerate(result["transcript"]["segments"] if result else ()):
            language = segment.get("language") or one.language
            dense, text = language in WITHOUT_SPACES, segment["text"].strip()
            made = self._db.execute(
                "INSERT INTO segment (recording, position, start, end, language, speaker, dense, text) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (cursor.lastrowid, i, segment["start"], segment["end"], language, _speaker(segment), int(dense), text),
            )
            table = "letters" if dense else "words"
            self._db.execute(f"INSERT INTO {table} (rowid, text) VALUES (?, ?)", (made.lastrowid, text))

    def _forget(self, part: str, number: int) -> None:
        row = self._db.execute("SELECT number FROM recording WHERE part = ? AND id = ?", (part, number)).fetchone()
        if row is None:
            return
        for segment, dense, text in self._db.execute(
            "SELECT number, dense, text FROM segment WHERE recording = ?", row
        ).fetchall():
            table = "letters" if dense else "words"
            self._db.execute(f"INSERT INTO {table} ({table}, rowid, text) VALUES ('delete', ?, ?)", (segment, text))
        self._db.execute("DELETE FROM segment WHERE recording = ?", row)
        self._db.execute("DELETE FROM recording WHERE number = ?", row)

    # -- searching ---------------------------------------------------------------------------------------

    def search(
        self, phrase: str, *, language: str | None = None, speaker: str | None = None, after: float | None = None,
        limit: int = 20,
    ) -> list[Hit]:  # fmt: skip
        """Find where a phrase was said.

        Parameters
        ----------
        phrase
            Words that follow each other, or any text of a language without spaces.
        language, speaker
            Of the segment: a code or name, and a label or number of a channel.
        after
            Only recordings whose file was written since then, in seconds since 1970.
        limit
            At most so many.

        Returns
        -------
        list of Hit
            The best first.

        Raises
        ------
        OptionError
            Nothing can be looked for.
        """
        if not re.search(r"\w", phrase):
            raise OptionError(f"there is nothing to look for in {phrase!r}")
        where, values = _conditions(language, speaker, after)
        found = [*self._in_table("words", phrase, where, values, limit)]
        if len(_letters(phrase)) >= _TRIGRAM:
            found += self._in_table("letters", phrase, where, values, limit)
        else:
            found += self._one_by_one(phrase, where, values, limit)
        found.sort(key=lambda row: -row[0])
        return [self._hit(*row) for row in found[:limit]]

    def _in_table(
        self, table: str, phrase: str, where: str, values: list[Any], limit: int
    ) -> Iterator[tuple[float, int, int, int]]:
        """Give score, segment, recording and position of what the index finds."""
        asked = '"' + phrase.replace('"', '""').replace("\0", " ") + '"'
        if self._is_everywhere(table, asked):
            yield from self._db.execute(
                f"SELECT 0.0, segment.number, segment.recording, position FROM {table} "
                f"JOIN segment ON segment.number = {table}.rowid "
                "JOIN recording ON recording.number = segment.recording "
                f"WHERE {table} MATCH ?{where} ORDER BY {table}.rowid DESC LIMIT ?",
                (asked, *values, limit),
            ).fetchall()
            return
        yield from self._db.execute(
            f"SELECT -{table}.rank, segment.number, segment.recording, position FROM {table} "
            f"JOIN segment ON segment.number = {table}.rowid JOIN recording ON recording.number = segment.recording "
            f"WHERE {table} MATCH ?{where} ORDER BY {table}.rank LIMIT ?",
            (asked, *values, limit),
        ).fetchall()

    def _is_everywhere(self, table: str, asked: str) -> bool:
        """Whether so many segments have a phrase that ranking them takes long, and says nothing."""
        query = f"SELECT count(*) FROM (SELECT 1 FROM {table} WHERE {table} MATCH ? LIMIT ?)"
        count: int = self._db.execute(query, (asked, MOST_RANKED + 1)).fetchone()[0]
        return count > MOST_RANKED

    def _one_by_one(
        self, phrase: str, where: str, values: list[Any], limit: int
    ) -> Iterator[tuple[float, int, int, int]]:
        yield from self._db.execute(
            "SELECT 1.0 / length(segment.text), segment.number, segment.recording, position FROM segment "
            "JOIN recording ON recording.number = segment.recording "
            f"WHERE dense AND instr(segment.text, ?){where} ORDER BY 1 DESC LIMIT ?",
            (phrase.strip(), *values, limit),
        ).fetchall()

    def _hit(self, score: float, number: int, recording: int, position: int) -> Hit:
        start, end, text, language, speaker = self._db.execute(
            "SELECT start, end, text, language, speaker FROM segment WHERE number = ?", (number,)
        ).fetchone()
        (source,) = self._db.execute("SELECT source FROM recording WHERE number = ?", (recording,)).fetchone()
        around = dict(
            self._db.execute(
                "SELECT position, text FROM segment WHERE recording = ? AND position IN (?, ?)",
                (recording, position - 1, position + 1),
            )
        )
        before, after = around.get(position - 1, ""), around.get(position + 1, "")
        return Hit(os.fsdecode(source), start, end, text, before, after, language, speaker, round(score, 4))


def _conditions(language: str | None, speaker: str | None, after: float | None) -> tuple[str, list[Any]]:
    where, values = "", list[Any]()
    if language is not None:
        where += " AND segment.language = ?"
        values.append(code_of(language))
    if speaker is not None:
        where += " AND segment.speaker = ?"
        values.append(speaker)
    if after is not None:
        where += " AND recording.at >= ?"
        values.append(after)
    return where, values


def _speaker(segment: dict[str, Any]) -> str | None:
    for name in ("speaker", "channel"):
        if segment.get(name) is not None:
            return str(segment[name])
    return None


def _letters(phrase: str) -> str:
    return "".join(phrase.split())
