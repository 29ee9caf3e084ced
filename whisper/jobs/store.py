"""The state of a job: one SQLite file that says of each recording what was done, and what is to be done.

Every change is one transaction on disk before anything depends on it. A recording is in exactly one state; it is given
to one runner at a time, and what a dead runner had is given out again. Runs nothing, and writes no output.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from itertools import islice
from pathlib import Path
from typing import Any

from ..device import processes
from ..errors import DataError
from ..storage.database import connect, copy_in_memory, journal_of, transaction
from .content import Stamp
from .failures import Next
from .inputs import OWN_FOLDER, Input
from .options import ORDERS
from .remote import is_address

STATES = ("waiting", "running", "done", "failed", "skipped")
VERSION = 1
MOST_INTERRUPTIONS = 3  # a recording that ran at so many ends of a runner runs alone
_CHUNK = 2000
_TABLES = """
CREATE TABLE IF NOT EXISTS recording (
    id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, source BLOB NOT NULL, name BLOB NOT NULL,
    taken BLOB NOT NULL UNIQUE, overrides TEXT NOT NULL, priority INTEGER NOT NULL, rank REAL NOT NULL DEFAULT 0,
    size INTEGER, version TEXT, content TEXT, recipe TEXT NOT NULL, state TEXT NOT NULL,
    alone INTEGER NOT NULL DEFAULT 0,
    tries INTEGER NOT NULL DEFAULT 0, tries_alone INTEGER NOT NULL DEFAULT 0, interruptions INTEGER NOT NULL DEFAULT 0,
    not_before REAL NOT NULL DEFAULT 0, runner TEXT, kind TEXT, error TEXT, added REAL NOT NULL, started REAL,
    finished REAL, wall REAL, seconds REAL, language TEXT, figures TEXT, outputs TEXT, layout TEXT
);
CREATE INDEX IF NOT EXISTS next ON recording (state, alone, priority DESC, rank, id);
CREATE INDEX IF NOT EXISTS content ON recording (content, recipe);
CREATE TABLE IF NOT EXISTS result (
    number INTEGER PRIMARY KEY AUTOINCREMENT, content TEXT NOT NULL, recipe TEXT NOT NULL, file TEXT NOT NULL,
    made REAL NOT NULL, wall REAL NOT NULL, seconds REAL NOT NULL, language TEXT, figures TEXT NOT NULL,
    UNIQUE (content, recipe)
);
CREATE TABLE IF NOT EXISTS fact (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
_DONE_AGAIN = (
    "state = 'waiting', alone = 0, tries = 0, tries_alone = 0, interruptions = 0, not_before = 0, runner = NULL"
)


@dataclass(frozen=True)
class Recording:
    """A recording of a job, as it was when it was read."""

    id: int
    key: str
    source: str
    name: str  # of its files: with folders, below the folder of the job, without extension
    overrides: str
    priority: int
    size: int | None
    version: str | None
    content: str | None
    recipe: str
    state: str
    alone: bool
    tries: int
    tries_alone: int
    kind: str | None
    error: str | None
    started: float | None
    finished: float | None
    wall: float | None  # seconds that its transcription took, beside others
    seconds: float | None  # of sound
    language: str | None
    figures: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, int] = field(default_factory=dict)  # sizes of its files, by extension

    @property
    def stamp(self) -> Stamp | None:
        """Return what its file looked like."""
        return None if self.size is None or self.version is None else Stamp(self.size, self.version)


_COLUMNS = ", ".join(f.name for f in fields(Recording))


@dataclass(frozen=True)
class StoredResult:
    """A result that is kept."""

    number: int
    content: str
    recipe: str
    file: str  # below the job's own folder
    wall: float
    seconds: float
    language: str | None
    figures: dict[str, Any]


_RESULT_COLUMNS = ", ".join(f.name for f in fields(StoredResult))


@dataclass
class Planned:
    """What a run finds: how many recordings are new, and so on."""

    n_inputs: int = 0
    n_new: int = 0
    n_changed: int = 0
    n_other_options: int = 0
    n_files_missing: int = 0  # of outputs: they are written from what is kept
    n_retried: int = 0

    def told(self) -> str:
        """Return it in words; empty where nothing is to be done."""
        words = {
            "new": self.n_new,
            "changed": self.n_changed,
            "to be done with other options": self.n_other_options,
            "of which files are missing": self.n_files_missing,
            "to be tried again": self.n_retried,
        }
        return ", ".join(f"{n:,} {word}" for word, n in words.items() if n)


class JobStore:
    """The state of a job, or of one part of it.

    Parameters
    ----------
    out
        The folder of the job, which exists.
    part
        Numbers I and N of a shard.
    rehearsal
        Work on a copy in memory, and leave what is on the disk as it is.

    Raises
    ------
    DataError
        The job file is damaged, or of another release.
    OSError, sqlite3.Error
        It cannot be written.
    """

    def __init__(
        self, out: str | os.PathLike[str], part: tuple[int, int] | None = None, *, rehearsal: bool = False
    ) -> None:
        self.out = Path(out)
        self.folder = self.out / OWN_FOLDER
        name = "job.sqlite" if part is None else "job-{}-of-{}.sqlite".format(*part)
        self.path = self.folder / name
        self._lock = processes.lock()  # of the connection
        if rehearsal:
            self._db = copy_in_memory(self.path, _TABLES)
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        # a power failure may take back the last marks: what they say is found again by the files of results
        self._db = connect(self.path, _TABLES, VERSION, durable=False)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    @property
    def journal(self) -> str:
        """Return how SQLite keeps its journal here: see `database`."""
        with self._lock:
            return journal_of(self._db)

    # -- facts -------------------------------------------------------------------------------------------

    def fact(self, name: str) -> Any:
        """Return what was kept under a name; None where nothing was."""
        with self._lock:
            row = self._db.execute("SELECT value FROM fact WHERE name = ?", (name,)).fetchone()
        return None if row is None else json.loads(row[0])

    def keep_fact(self, name: str, value: Any) -> None:
        """Keep a value that JSON can say."""
        with self._lock, transaction(self._db):
            self._db.execute("REPLACE INTO fact VALUES (?, ?)", (name, json.dumps(value, default=str)))

    # -- planning ----------------------------------------------------------------------------------------

    def plan(
        self,
        inputs: Iterable[Input],
        recipe_of: Callable[[str], str],
        *,
        order: str = "name",
        check_content: bool = False,
        retry: bool = False,
        endings: Iterable[str] = (),
        layout: str = "",
    ) -> Planned:
        """Note what is to be done: new and changed inputs, and all that other options or missing files touch.

        Parameters
        ----------
        inputs
            May be none: then the job is what it was.
        recipe_of
            Gives the digest of the recipe for a recording's own options.
        order
            See `ORDERS`.
        check_content
            Read the content of recordings again that look unchanged.
        retry
            Try failed ones again.
        endings, layout
            Of the files of each recording, and the digest of how they are written.
        """
        found, rest = Planned(), iter(inputs)
        with self._lock:
            while chunk := list(islice(rest, _CHUNK)):
                found.n_inputs += len(chunk)
                with transaction(self._db):
                    for one in chunk:
                        self._note(one, recipe_of(one.overrides), found)
            with transaction(self._db):
                self._note_recipes(recipe_of, found)
                if check_content:
                    self._db.execute(f"UPDATE recording SET content = NULL, {_DONE_AGAIN} WHERE state = 'done'")
                if retry:
                    cursor = self._db.execute(f"UPDATE recording SET {_DONE_AGAIN} WHERE state = 'failed'")
                    found.n_retried = cursor.rowcount
                self._db.execute(f"UPDATE recording SET rank = {ORDERS[order]}")
            self._note_missing_files(tuple(endings), layout, found)
        return found

    def _note(self, one: Input, recipe: str, found: Planned) -> None:
        key = _kept(one.key)
        row = self._db.execute("SELECT id, size, version FROM recording WHERE key = ?", (key,)).fetchone()
        size, version = (None, None) if one.stamp is None else (one.stamp.size, one.stamp.version)
        if row is None:
            found.n_new += 1
            if not self._adopt(one, size, version):
                self._insert(one, recipe, size, version)
            return
        settings: tuple[Any, ...] = (one.overrides, one.priority, row[0])
        self._db.execute("UPDATE recording SET overrides = ?, priority = ? WHERE id = ?", settings)
        if (row[1], row[2]) != (size, version):
            found.n_changed += 1
            self._db.execute(
                f"UPDATE recording SET size = ?, version = ?, content = NULL, {_DONE_AGAIN} "
                "WHERE id = ? AND state NOT IN ('running', 'skipped')",
                (size, version, row[0]),
            )

    def _adopt(self, one: Input, size: int | None, version: str | None) -> bool:
        """Let a recording that was moved keep its files: one of the same name whose file is no longer there."""
        query = "SELECT id, source, size FROM recording WHERE taken = ?"
        row = self._db.execute(query, (_folded(one.name),)).fetchone()
        if row is None or row[2] != size or size is None or not _is_gone(_given(row[1])):
            return False
        self._db.execute(
            f"UPDATE recording SET key = ?, source = ?, overrides = ?, priority = ?, size = ?, version = ?, "
            f"content = NULL, {_DONE_AGAIN} WHERE id = ? AND state != 'running'",
            (_kept(one.key), _kept(one.source), one.overrides, one.priority, size, version, row[0]),
        )
        return True

    def _insert(self, one: Input, recipe: str, size: int | None, version: str | None) -> None:
        name, n = one.name, 1
        while self._db.execute("SELECT 1 FROM recording WHERE taken = ?", (_folded(name),)).fetchone():
            name = one.spare_name if n == 1 else f"{one.spare_name}.{n}"
            n += 1
        self._db.execute(
            "INSERT INTO recording (key, source, name, taken, overrides, priority, size, version, recipe, state, "
            "added, seconds) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'waiting', ?, ?)",
            (_kept(one.key), _kept(one.source), _kept(name), _folded(name), one.overrides, one.priority, size, version,
             recipe, time.time(), one.seconds),
        )  # fmt: skip

    def _note_recipes(self, recipe_of: Callable[[str], str], found: Planned) -> None:
        """Do again what was done by another recipe."""
        for (overrides,) in self._db.execute("SELECT DISTINCT overrides FROM recording").fetchall():
            recipe = recipe_of(overrides)
            where = "WHERE overrides = ? AND recipe != ? AND state NOT IN ('running', 'skipped')"
            query = f"SELECT count(*) FROM recording {where} AND state IN ('done', 'failed')"
            found.n_other_options += self._db.execute(query, (overrides, recipe)).fetchone()[0]
            self._db.execute(f"UPDATE recording SET recipe = ?, {_DONE_AGAIN} {where}", (recipe, overrides, recipe))

    def _note_missing_files(self, endings: tuple[str, ...], layout: str, found: Planned) -> None:
        """Queue what is done and lacks a file; its result is kept, so that nothing is transcribed for it."""
        query = "SELECT id, name, outputs, layout FROM recording WHERE state = 'done'"
        lacking = []
        for number, name, outputs, made in self._db.execute(query):
            sizes = json.loads(outputs or "{}")
            stem = os.path.join(self.out, _given(name))
            if made != layout or any(_size(f"{stem}.{ext}") != sizes.get(ext, -2) for ext in endings):
                lacking.append((number,))
        with transaction(self._db):
            self._db.executemany(f"UPDATE recording SET {_DONE_AGAIN} WHERE id = ?", lacking)
        found.n_files_missing = len(lacking)

    # -- running -----------------------------------------------------------------------------------------

    def claim(self, runner: str, n: int, *, alone: bool = False) -> list[Recording]:
        """Give out up to `n` recordings that wait; none of which the content runs already.

        Parameters
        ----------
        runner
            To whom.
        n
            At most so many.
        alone
            Those that run with nothing beside them.
        """
        with self._lock, transaction(self._db):
            rows = self._db.execute(
                f"SELECT {_COLUMNS} FROM recording AS one WHERE state = 'waiting' AND alone = ? AND not_before <= ? "
                "AND (content IS NULL OR NOT EXISTS (SELECT 1 FROM recording AS other WHERE "
                "other.content = one.content AND other.recipe = one.recipe AND other.state = 'running')) "
                "ORDER BY priority DESC, rank, id LIMIT ?",
                (int(alone), time.time(), n),
            ).fetchall()
            self._db.executemany(
                "UPDATE recording SET state = 'running', runner = ?, started = ?, tries = tries + 1, "
                "tries_alone = tries_alone + ? WHERE id = ?",
                [(runner, time.time(), int(alone), row[0]) for row in rows],
            )
        return [_recording(row) for row in rows]

    def recognise(self, one: Recording, content: str, stamp: Stamp, runner: str) -> StoredResult | str:
        """Note the content of a recording that runs, and say what is to be done with it.

        Returns
        -------
        StoredResult or str
            The result of this content; "run" where there is none yet; "wait" where another recording of the same
            content runs, so that this one waits for it, and was not tried; "lost" where it is another's by now.
        """
        with self._lock, transaction(self._db):
            cursor = self._db.execute(
                "UPDATE recording SET content = ?, size = ?, version = ? WHERE id = ? AND runner = ?",
                (content, stamp.size, stamp.version, one.id, runner),
            )
            if not cursor.rowcount:  # another runner has taken it, or it was cancelled
                return "lost"
            if (found := self._result(content, one.recipe)) is not None:
                return found
            other = self._db.execute(
                "SELECT 1 FROM recording WHERE content = ? AND recipe = ? AND state = 'running' AND id != ?",
                (content, one.recipe, one.id),
            ).fetchone()
            if other is None:
                return "run"
            self._put_back("id = ?", one.id)
            return "wait"

    def result_of(self, one: Recording) -> StoredResult | None:
        """Return the kept result of a recording whose content is known; None where there is none."""
        with self._lock:
            return None if one.content is None else self._result(one.content, one.recipe)

    def _result(self, content: str, recipe: str) -> StoredResult | None:
        row = self._db.execute(
            f"SELECT {_RESULT_COLUMNS} FROM result WHERE content = ? AND recipe = ?",
            (content, recipe),
        ).fetchone()
        return None if row is None else _stored(row)

    def keep_result(
        self, content: str, recipe: str, file: str, wall: float, seconds: float, language: str | None,
        figures: Mapping[str, Any],
    ) -> StoredResult:  # fmt: skip
        """Note a result whose file is in place; the first one of a content and recipe counts."""
        with self._lock, transaction(self._db):
            self._db.execute(
                "INSERT OR IGNORE INTO result (content, recipe, file, made, wall, seconds, language, figures) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (content, recipe, file, time.time(), wall, seconds, language, json.dumps(figures)),
            )
            found = self._result(content, recipe)
        assert found is not None
        return found

    def drop_result(self, result: StoredResult) -> None:
        """Forget a result whose file is lost or damaged."""
        with self._lock, transaction(self._db):
            self._db.execute("DELETE FROM result WHERE number = ?", (result.number,))

    def finish(
        self, one: Recording, runner: str, result: StoredResult, outputs: Mapping[str, int], layout: str
    ) -> bool:
        """Mark a recording as done whose files are in place; False where it is not this runner's any more."""
        with self._lock, transaction(self._db):
            cursor = self._db.execute(
                "UPDATE recording SET state = 'done', runner = NULL, kind = NULL, error = NULL, finished = ?, "
                "wall = ?, seconds = ?, language = ?, figures = ?, outputs = ?, layout = ?, alone = 0 "
                "WHERE id = ? AND runner = ?",
                (time.time(), result.wall, result.seconds, result.language, json.dumps(result.figures),
                 json.dumps(outputs), layout, one.id, runner),
            )  # fmt: skip
            return bool(cursor.rowcount)

    def fail(self, one: Recording, runner: str, kind: str, error: str, then: Next) -> bool:
        """Note a failure, and what follows from it; False where it is not this runner's any more."""
        now = time.time()
        with self._lock, transaction(self._db):
            cursor = self._db.execute(
                "UPDATE recording SET state = ?, alone = max(alone, ?), not_before = ?, runner = NULL, kind = ?, "
                "error = ?, finished = ? WHERE id = ? AND runner = ?",
                (then.state, int(then.alone), now + then.wait_s if then.wait_s else 0, kind, error[:4000], now, one.id,
                 runner),
            )  # fmt: skip
            return bool(cursor.rowcount)

    def put_back(self, runner: str, one: Recording | None = None, *, interrupted: bool = False) -> int:
        """Let a recording of a runner wait again, or all of them, as if not tried; returns how many.

        One that is `interrupted` by the end of a machine runs alone from the third time on.
        """
        with self._lock, transaction(self._db):
            if one is None:
                return self._put_back("runner = ?", runner)
            if interrupted:
                self._interrupt("id = ? AND runner = ?", one.id, runner)
            return self._put_back("id = ? AND runner = ?", one.id, runner)

    def _interrupt(self, where: str, *values: Any) -> None:
        self._db.execute(
            "UPDATE recording SET interruptions = interruptions + 1, alone = (alone OR interruptions + 1 >= ?) "
            f"WHERE state = 'running' AND {where}",
            (MOST_INTERRUPTIONS, *values),
        )

    def _put_back(self, where: str, *values: Any) -> int:
        return self._db.execute(
            "UPDATE recording SET state = 'waiting', runner = NULL, tries = max(tries - 1, 0), "
            f"tries_alone = max(tries_alone - alone, 0) WHERE state = 'running' AND {where}",
            values,
        ).rowcount

    def recover(self, is_alive: Callable[[str], bool]) -> int:
        """Let wait again what dead runners had; returns how many."""
        with self._lock:
            query = "SELECT DISTINCT runner FROM recording WHERE state = 'running'"
            dead = [row[0] for row in self._db.execute(query).fetchall() if not is_alive(row[0])]
            n = 0
            for runner in dead:
                with transaction(self._db):
                    self._interrupt("runner = ?", runner)
                    n += self._put_back("runner = ?", runner)
        return n

    # -- looking and changing ----------------------------------------------------------------------------

    def totals(self) -> dict[str, dict[str, float]]:
        """Return by state: ``n`` recordings, known ``seconds`` of sound, ``bytes``, and bytes of ``unknown`` time."""
        names = ("n", "seconds", "bytes", "unknown")
        with self._lock:
            rows = self._db.execute(
                "SELECT state, count(*), total(seconds), total(size), total(CASE WHEN seconds IS NULL THEN size END) "
                "FROM recording GROUP BY state"
            ).fetchall()
        found = {state: dict.fromkeys(names, 0.0) for state in STATES}
        return {**found, **{row[0]: dict(zip(names, row[1:], strict=True)) for row in rows}}

    def waits_alone(self) -> bool:
        """Whether a recording waits that runs with nothing beside it."""
        query = "SELECT 1 FROM recording WHERE state = 'waiting' AND alone = 1 AND not_before <= ? LIMIT 1"
        with self._lock:
            return self._db.execute(query, (time.time(),)).fetchone() is not None

    def next_wait(self) -> float | None:
        """Return the seconds until a recording may be tried again, at least 0; None where none waits."""
        with self._lock:
            row = self._db.execute("SELECT min(not_before) FROM recording WHERE state = 'waiting'").fetchone()
        return None if row[0] is None else max(row[0] - time.time(), 0.0)

    def recordings(self, states: Iterable[str] = STATES, kind: str | None = None) -> list[Recording]:
        """Return the recordings in some states, in the order of their names; of failures perhaps of one kind."""
        chosen = tuple(states)
        marks = ", ".join("?" * len(chosen))
        more, values = ("", ()) if kind is None else (" AND kind = ?", (kind,))
        with self._lock:
            rows = self._db.execute(
                f"SELECT {_COLUMNS} FROM recording WHERE state IN ({marks}){more} ORDER BY name", (*chosen, *values)
            ).fetchall()
        return [_recording(row) for row in rows]

    def finished(self, after: int = 0, n: int = 500) -> list[tuple[Recording, str]]:
        """Return the next `n` recordings behind an id that are done, each with the file of its kept result."""
        columns = ", ".join(f"recording.{name}" for name in _COLUMNS.split(", "))
        with self._lock:
            rows = self._db.execute(
                f"SELECT {columns}, result.file FROM recording JOIN result USING (content, recipe) "
                "WHERE state = 'done' AND recording.id > ? ORDER BY recording.id LIMIT ?",
                (after, n),
            ).fetchall()
        return [(_recording(row[:-1]), row[-1]) for row in rows]

    def mark(self) -> str:
        """Return what changes when a recording is done, or done again."""
        with self._lock:
            row = self._db.execute(
                "SELECT count(*), max(finished) FROM recording INDEXED BY next WHERE state = 'done'"
            ).fetchone()
        return f"{row[0]} {row[1]}"

    def results_after(self, number: int, n: int) -> list[StoredResult]:
        """Return the next `n` results behind one, in the order in which they were made."""
        query = f"SELECT {_RESULT_COLUMNS} FROM result WHERE number > ? ORDER BY number LIMIT ?"
        with self._lock:
            rows = self._db.execute(query, (number, n)).fetchall()
        return [_stored(row) for row in rows]

    def change(self, ids: Iterable[int], state: str) -> int:
        """Let recordings wait, or skip them; returns how many changed. One that runs is skipped when it ends."""
        if state == "waiting":
            change, where = _DONE_AGAIN, "state IN ('failed', 'skipped')"
        elif state == "skipped":
            change = "state = 'skipped', runner = NULL, kind = 'cancelled', error = 'cancelled by the user'"
            where = "state IN ('waiting', 'running', 'failed')"
        else:
            raise DataError(f"no recording is made {state!r} by hand")
        n = 0
        with self._lock, transaction(self._db):
            for number in ids:
                n += self._db.execute(f"UPDATE recording SET {change} WHERE id = ? AND {where}", (number,)).rowcount
        return n


def has_job(out: str | os.PathLike[str]) -> bool:
    """Whether there is a job in a folder, or a part of one."""
    return any(Path(out, OWN_FOLDER).glob("job*.sqlite"))


def job_files(out: str | os.PathLike[str]) -> list[tuple[int, int] | None]:
    """Return the parts of the job in a folder: None for a whole one, and numbers I and N of shards.

    Raises
    ------
    DataError
        There is no job.
    """
    found: list[tuple[int, int] | None] = []
    for path in sorted(Path(out, OWN_FOLDER).glob("job*.sqlite")):
        if path.name == "job.sqlite":
            found.append(None)
        elif part := re.fullmatch(r"job-(\d+)-of-(\d+)\.sqlite", path.name):
            found.append((int(part[1]), int(part[2])))
    if not found:
        raise DataError(
            f"there is no job in {os.fspath(out)}: whisper jobs run INPUT ... --out {os.fspath(out)} makes one"
        )
    return found


def _stored(row: tuple[Any, ...]) -> StoredResult:
    columns = dict(zip(_RESULT_COLUMNS.split(", "), row, strict=True))
    return StoredResult(**{**columns, "figures": json.loads(columns["figures"])})


def _recording(row: tuple[Any, ...]) -> Recording:
    columns = dict(zip(_COLUMNS.split(", "), row, strict=True))
    for name in ("key", "source", "name"):
        columns[name] = _given(columns[name])
    for name in ("figures", "outputs"):
        columns[name] = json.loads(columns[name] or "{}")
    return Recording(**{**columns, "alone": bool(columns["alone"])})


def _kept(text: str) -> bytes:
    """Return text for the file: names of files need not be UTF-8, which SQLite's text is."""
    return os.fsencode(text)


def _given(kept: bytes | str) -> str:
    return os.fsdecode(kept)


def _folded(name: str) -> bytes:
    """Return what tells names apart, also on a file system that takes capital letters for small ones."""
    return os.fsencode(name.casefold())


def _is_gone(source: str) -> bool:
    return not is_address(source) and not os.path.lexists(source)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1
