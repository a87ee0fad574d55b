"""What a head has to remember about the shared index, beside its own: ``INDEX.shared``.

Up to which change it is in step (:class:`Cursor`), and what isn't in the shared index yet: paths of
files, and modification times that were issued while nobody could be asked. SQLite, in a file of its
own. If it is lost or damaged it is made anew, and all is compared once more, which costs time only.

Blocking and thread-safe.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from zipfs.index.ownfile import open_or_make, refuse_foreign_link
from zipfs.text import shown

log = logging.getLogger(__name__)

_VERSION: Final = 1
_SUFFIX: Final = ".shared"
_BUSY_TIMEOUT: Final = 10.0
_TABLES: Final = (
    "CREATE TABLE cursor (database TEXT, library TEXT, seq INTEGER, whole INTEGER)",
    "CREATE TABLE files (path BLOB PRIMARY KEY, at_ns INTEGER, digest BLOB) WITHOUT ROWID",
    "CREATE TABLE issued (path BLOB, content BLOB, PRIMARY KEY (path, content)) WITHOUT ROWID",
)


class Cursor(NamedTuple):
    """*seq* is the last change that is in the index, of that *library* in that *database*.

    *is_whole*: what the index had before is in the shared one as well.
    """

    database: str
    library: str
    seq: int
    is_whole: bool


NOWHERE: Final = Cursor("", "", 0, is_whole=False)


class Waiting(NamedTuple):
    """A file whose checksums aren't in the shared index yet."""

    at_ns: int
    """When it was hashed, or its checksums were forgotten."""
    forgotten: bytes
    """The XXH3-128 of the content to be forgotten; empty: it was hashed."""


class Ledger:
    """The ledger beside the index *file*; in memory if that can't be written."""

    def __init__(self, file: str) -> None:
        self.file: Final = file + _SUFFIX
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = self._open()

    def _open(self) -> sqlite3.Connection:
        for _ in range(2):
            try:
                refuse_foreign_link(self.file)
                os.close(open_or_make(self.file))  # with mode 0600: paths are private
                return self._opened(self.file)
            except OSError as error:
                log.warning("can't write %s: %s", shown(os.fsencode(self.file)), error.strerror)
                break
            except sqlite3.Error as error:
                log.warning("%s is damaged (%s); made anew", shown(os.fsencode(self.file)), error)
                for suffix in ("", "-wal", "-shm", "-journal"):
                    with contextlib.suppress(OSError):
                        os.unlink(self.file + suffix)
        return self._opened(":memory:")

    def _opened(self, file: str) -> sqlite3.Connection:
        db = sqlite3.connect(
            file, timeout=_BUSY_TIMEOUT, check_same_thread=False, isolation_level=None
        )
        try:
            db.execute("PRAGMA trusted_schema = OFF")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, _VERSION):
                raise sqlite3.DatabaseError(f"version {version}")
            if version == 0:
                with _transaction(db):
                    for statement in _TABLES:
                        db.execute(statement)
                    db.execute(f"PRAGMA user_version = {_VERSION}")
            db.execute("SELECT database, library, seq, whole FROM cursor").fetchall()
        except BaseException:
            db.close()
            raise
        return db

    def _write(self, *statements: tuple[str, Iterable[tuple[object, ...]]]) -> None:
        """Run each statement for each of its rows. A failure is logged: it costs time only."""
        with self._lock:
            if self._db is None:  # closed
                return
            try:
                with _transaction(self._db):
                    for statement, rows in statements:
                        self._db.executemany(statement, rows)
            except sqlite3.Error as error:
                log.warning("can't save to %s: %s", shown(os.fsencode(self.file)), error)

    def close(self) -> None:
        with self._lock:
            if self._db:
                self._db.close()
                self._db = None

    @property
    def cursor(self) -> Cursor:
        with self._lock:
            row = self._db and self._db.execute("SELECT * FROM cursor").fetchone()
        return Cursor(row[0], row[1], row[2], bool(row[3])) if row else NOWHERE

    def move(self, cursor: Cursor) -> None:
        """Replace the cursor."""
        self._write(
            ("DELETE FROM cursor", [()]),
            ("INSERT INTO cursor VALUES (?, ?, ?, ?)", [(*cursor[:3], cursor.is_whole)]),
        )

    def add(self, paths: Iterable[bytes], at_ns: int) -> None:
        """The checksums of *paths* are to be shared; they were computed at *at_ns*."""
        self._add((path, at_ns, b"") for path in paths)

    def forget(self, digests: Mapping[bytes, bytes], at_ns: int) -> None:
        """That content of each path is to be forgotten by all."""
        self._add((path, at_ns, digest) for path, digest in digests.items())

    def _add(self, rows: Iterable[tuple[bytes, int, bytes]]) -> None:
        self._write(("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", rows))

    def files(self, count: int) -> dict[bytes, Waiting]:
        """Up to *count* files that wait."""
        with self._lock:
            if self._db is None:
                return {}
            rows = self._db.execute("SELECT * FROM files LIMIT ?", (count,)).fetchall()
        return {path: Waiting(at_ns, digest) for path, at_ns, digest in rows}

    def waits(self, paths: Iterable[bytes]) -> set[bytes]:
        """Those of *paths* that wait."""
        with self._lock:
            if self._db is None or not self._db.execute("SELECT 1 FROM files LIMIT 1").fetchone():
                return set()
            return {
                path
                for path in paths
                if self._db.execute("SELECT 1 FROM files WHERE path = ?", (path,)).fetchone()
            }

    def shared(self, files: Mapping[bytes, Waiting]) -> None:
        """*files* are in the shared index, unless they were hashed again meanwhile."""
        rows = [(path, waiting.at_ns) for path, waiting in files.items()]
        self._write(("DELETE FROM files WHERE path = ? AND at_ns = ?", rows))

    def drop_files(self) -> None:
        """No file is to be shared any more."""
        self._write(("DELETE FROM files", [()]))

    def add_issued(self, issued: Iterable[tuple[bytes, int]]) -> None:
        """Modification times of these paths and contents are to be shared."""
        rows = [(path, content.to_bytes(16)) for path, content in issued]
        self._write(("INSERT OR REPLACE INTO issued VALUES (?, ?)", rows))

    def issued(self, count: int) -> list[tuple[bytes, int]]:
        """Up to *count* of those that wait."""
        with self._lock:
            if self._db is None:
                return []
            rows = self._db.execute("SELECT * FROM issued LIMIT ?", (count,)).fetchall()
        return [(path, int.from_bytes(content)) for path, content in rows]

    def shared_issued(self, issued: Iterable[tuple[bytes, int]]) -> None:
        """These are in the shared index."""
        rows = [(path, content.to_bytes(16)) for path, content in issued]
        self._write(("DELETE FROM issued WHERE path = ? AND content = ?", rows))

    def count(self) -> int:
        """Number of files and modification times that wait."""
        with self._lock:
            if self._db is None:
                return 0
            files = self._db.execute("SELECT count(*) FROM files").fetchone()[0]
            return int(files + self._db.execute("SELECT count(*) FROM issued").fetchone()[0])


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")
