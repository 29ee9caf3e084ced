"""SQLite files that outlive the process: opened with a journal that fits their disk, and changed by transactions.

Knows no tables. On a network file system the journal is the old one, since a write-ahead log needs memory that all who
write share.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ..errors import DataError
from ..files import Path, temporary_beside

WAL, ROLLBACK = "wal", "delete"  # SQLite's names of the journals
WAIT_S = 60.0  # for another process that writes
# types of Linux on which several machines may write
_NETWORK = frozenset({
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "gpfs", "beegfs", "ocfs2",
    "gfs2", "davfs", "fuse.sshfs", "fuse.s3fs", "fuse.rclone", "fuse.glusterfs", "fuse.ceph", "fuse.davfs2", "vboxsf",
})  # fmt: skip


def connect(path: Path, tables: str, version: int, *, mode: int = 0o666, durable: bool = True) -> sqlite3.Connection:
    """Open a file, and make it with its tables where it is missing.

    Any thread may use the connection, one at a time; nothing is changed but within `transaction`. What was committed
    outlives the process.

    Parameters
    ----------
    path
        Its folder must exist.
    tables
        Statements that make all tables, each ``IF NOT EXISTS``, and each on lines of its own, with a semicolon.
    version
        Of the tables. A file of another version is not opened.
    mode
        Permissions of a new file.
    durable
        What was committed outlives a power failure, too. Without it, which is quicker, such a failure may take back the
        last transactions, each as a whole.

    Raises
    ------
    DataError
        The file is of another version, or no database.
    OSError, sqlite3.Error
        It cannot be made or opened.
    """
    is_new = not os.path.exists(path) or os.path.getsize(path) == 0
    journal = journal_for(os.path.dirname(os.path.abspath(os.fspath(path))), probe=is_new)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, mode))
    db = sqlite3.connect(path, timeout=WAIT_S, check_same_thread=False, isolation_level=None)
    try:
        db.execute(f"PRAGMA journal_mode = {journal}")
        relaxed = not durable and journal == WAL  # the other journal could be damaged
        db.execute(f"PRAGMA synchronous = {'NORMAL' if relaxed else 'FULL'}")
        db.execute("PRAGMA foreign_keys = ON")
        found = db.execute("PRAGMA user_version").fetchone()[0]
        if found not in (0, version):
            raise DataError(
                f"{os.fspath(path)} was written by another release (its tables are version {found}, ours {version}): "
                "use that release, or move the file away"
            )
        if found != version:  # else nothing is to be made, and whoever only looks needs no lock
            with transaction(db):  # one, so that no other process finds half of the tables
                for statement in _statements(tables):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {version}")
    except sqlite3.DatabaseError as error:
        db.close()
        if "not a database" in str(error) or "malformed" in str(error):
            raise DataError(f"{os.fspath(path)} is no database, or damaged ({error}): move it away") from error
        raise
    except BaseException:  # whatever it is, the file is not left open
        db.close()
        raise
    return db


def _statements(script: str) -> Iterator[str]:
    """Return the statements of a script one by one, as `executescript` would end the transaction first."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):  # a trigger is not complete at its first semicolon
            yield statement
            statement = ""
    assert not statement.strip(), "the last statement has no semicolon"


def copy_in_memory(path: Path, tables: str) -> sqlite3.Connection:
    """Return a copy of a file in memory, to try things on; empty tables where there is no file."""
    db = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
    if os.path.exists(path):
        source = sqlite3.connect(path, timeout=WAIT_S)
        try:
            source.backup(db)
        finally:
            source.close()
    db.executescript(tables)
    return db


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Make one transaction of what is done in the context: all of it is on disk at the end, or nothing."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:  # whatever ended it, also a cancel: no transaction stays open
        with suppress(sqlite3.Error):  # a full disk may have ended the transaction already
            db.execute("ROLLBACK")
        raise


def journal_of(db: sqlite3.Connection) -> str:
    """Return which journal a connection uses: `WAL` or `ROLLBACK`."""
    return str(db.execute("PRAGMA journal_mode").fetchone()[0])


def journal_for(folder: str, *, probe: bool = True) -> str:
    """Return the journal that fits a folder: `WAL`, or `ROLLBACK` where it lies on a network or `WAL` fails."""
    if file_system_of(folder) in _NETWORK:
        return ROLLBACK
    return WAL if not probe or _wal_works(folder) else ROLLBACK


def file_system_of(folder: str) -> str:
    """Return the type of file system, as Linux calls it; empty on other systems, or where it is not known."""
    if sys.platform != "linux":
        return ""
    path = os.path.realpath(folder)
    best, kind = "", ""
    with suppress(OSError), open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            place = before.split()[4].replace("\\040", " ")
            if (path + "/").startswith(place.rstrip("/") + "/") and len(place) >= len(best):
                best, kind = place, after.split()[0]
    return kind


def _wal_works(folder: str) -> bool:
    """Try it, in a file of its own: some file systems accept the journal, and then fail to write."""
    path = temporary_beside(os.path.join(folder, "probe"))
    try:
        db = sqlite3.connect(path)
        try:
            is_wal: bool = db.execute("PRAGMA journal_mode = wal").fetchone()[0] == WAL
            db.execute("CREATE TABLE probe (value INTEGER)")
            db.execute("INSERT INTO probe VALUES (1)")
            db.commit()
            return is_wal
        finally:
            db.close()
    except sqlite3.Error:
        return False
    finally:
        for name in (path, f"{path}-wal", f"{path}-shm", f"{path}-journal"):
            with suppress(OSError):
                os.remove(name)
