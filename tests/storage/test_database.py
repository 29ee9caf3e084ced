"""SQLite files: the journal that fits a disk, transactions, versions, and files that are none."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from whisper.errors import DataError
from whisper.storage import database

TABLES = "CREATE TABLE IF NOT EXISTS a (x INTEGER);\nCREATE TABLE IF NOT EXISTS b (y TEXT);\n"


def test_a_transaction_is_all_or_nothing(tmp_path: Path) -> None:
    db = database.connect(tmp_path / "a.sqlite", TABLES, 1)
    assert database.journal_of(db) == database.WAL

    def interrupted() -> None:
        with database.transaction(db):
            db.execute("INSERT INTO a VALUES (1)")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with database.transaction(db):
        db.execute("INSERT INTO a VALUES (2)")
    assert db.execute("SELECT x FROM a").fetchall() == [(2,)]
    db.close()


def test_tables_may_have_triggers(tmp_path: Path) -> None:
    trigger = "CREATE TRIGGER IF NOT EXISTS t AFTER INSERT ON a BEGIN\n    INSERT INTO b VALUES (new.x);\nEND;\n"
    db = database.connect(tmp_path / "a.sqlite", TABLES + trigger, 1)
    with database.transaction(db):
        db.execute("INSERT INTO a VALUES (1)")
    assert db.execute("SELECT y FROM b").fetchall() == [("1",)]
    db.close()


def test_a_network_disk_gets_the_old_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "file_system_of", lambda folder: "nfs4")
    db = database.connect(tmp_path / "a.sqlite", TABLES, 1, durable=False)
    assert database.journal_of(db) == database.ROLLBACK
    assert db.execute("PRAGMA synchronous").fetchone() == (2,)
    db.close()


def test_so_does_a_disk_on_which_the_new_one_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = sqlite3.connect

    class Failing(sqlite3.Connection):
        def execute(self, sql: str, *values: object) -> sqlite3.Cursor:  # type: ignore[override]
            if "INSERT INTO probe" in sql:
                raise sqlite3.OperationalError("disk I/O error")
            return super().execute(sql, *values)  # type: ignore[arg-type]

    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: real(*a, factory=Failing, **k))
    assert database.journal_for(str(tmp_path)) == database.ROLLBACK
    assert list(tmp_path.iterdir()) == []


def test_the_type_of_a_file_system_is_found(tmp_path: Path) -> None:
    assert database.file_system_of("/proc") in ("proc", "")
    assert database.file_system_of(str(tmp_path)) != "proc"


@pytest.mark.parametrize(
    "content", [b"this is no database, and is long enough to be one" * 100, b"SQLite format 3\0" + b"x" * 4000]
)
def test_what_is_no_database_is_said_so(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.sqlite").write_bytes(content)
    with pytest.raises(DataError, match="move it away"):
        database.connect(tmp_path / "a.sqlite", TABLES, 1)
    assert (tmp_path / "a.sqlite").read_bytes() == content


def test_another_version_is_refused(tmp_path: Path) -> None:
    database.connect(tmp_path / "a.sqlite", TABLES, 2).close()
    with pytest.raises(DataError, match="version 2, ours 1"):
        database.connect(tmp_path / "a.sqlite", TABLES, 1)


def test_a_copy_in_memory_leaves_the_file_alone(tmp_path: Path) -> None:
    db = database.connect(tmp_path / "a.sqlite", TABLES, 1)
    copy = database.copy_in_memory(tmp_path / "a.sqlite", TABLES)
    copy.execute("INSERT INTO a VALUES (1)")
    assert db.execute("SELECT * FROM a").fetchall() == []
    assert database.copy_in_memory(tmp_path / "none.sqlite", TABLES).execute("SELECT * FROM a").fetchall() == []
    assert not (tmp_path / "none.sqlite").exists()
    copy.close()
    db.close()


def test_one_that_has_its_tables_is_opened_while_another_process_writes(tmp_path: Path) -> None:
    tables = "CREATE TABLE IF NOT EXISTS t (a INTEGER);\n"
    first = database.connect(tmp_path / "a.sqlite", tables, 1)
    with database.transaction(first):
        first.execute("INSERT INTO t VALUES (1)")
        second = database.connect(tmp_path / "a.sqlite", tables, 1)  # waits for nobody, and writes nothing
        assert second.execute("SELECT count(*) FROM t").fetchone() == (0,)
    assert second.execute("SELECT count(*) FROM t").fetchone() == (1,)
    second.close()
    first.close()
