"""The index's tables in a SQLite database, and the meaning of its errors.

The tables: ``files`` (path and state -> CRC-32 and XXH3-128), ``blocks`` (XXH3-128 -> checksums
of blocks), ``issued`` (archive and content -> modification time, DESIGN V3), ``archives`` (archive
-> the version that is there, and since when) and ``folders`` (folder -> last change of its listing,
DESIGN F1). Each row has a checksum of its own: SQLite detects damage to its structure but not to a
value, and a damaged value would be served (DESIGN S3). A row with a wrong checksum counts as
missing.

A file of an earlier version gets the tables that it lacks, in one transaction.
"""

from __future__ import annotations

import os
import sqlite3
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import xxhash

from zipfs.library.filestate import Checksums, FileState

SCHEMA_VERSION: Final = 2
_APPLICATION_ID: Final = 0x7A697066  # "zipf"
_BUSY_TIMEOUT: Final = 10.0
"""Seconds to wait for another process that writes to the same index."""
_BATCH: Final = 500
"""Maximum number of paths in one query; the oldest versions of SQLite allow 999."""

_ADDED: Final = {
    1: """
CREATE TABLE files (
    path BLOB PRIMARY KEY, inode INTEGER NOT NULL, size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL,
    crc32 INTEGER NOT NULL, digest BLOB NOT NULL, seal INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE blocks (
    digest BLOB PRIMARY KEY, hashes BLOB NOT NULL, seal INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE issued (
    path BLOB, content BLOB, seconds INTEGER NOT NULL, seal INTEGER NOT NULL,
    PRIMARY KEY (path, content)
) WITHOUT ROWID;
""",
    2: """
CREATE TABLE archives (
    path BLOB PRIMARY KEY, inode INTEGER NOT NULL, since_ns INTEGER NOT NULL, seal INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE folders (
    path BLOB PRIMARY KEY, changed_ns INTEGER NOT NULL, seal INTEGER NOT NULL
) WITHOUT ROWID;
""",
}
"""What each version of the schema added to the one before."""
_TABLES: Final = {
    1: {b"files": 8, b"blocks": 3, b"issued": 4},
    2: {b"files": 8, b"blocks": 3, b"issued": 4, b"archives": 4, b"folders": 3},
}
"""The tables of each version, with their number of columns."""
_COLUMNS: Final = "path, inode, size, mtime_ns, ctime_ns, crc32, digest, seal"
"""The columns of ``files``; ``seal`` is the checksum of the others, in this order."""

Record = tuple[FileState, Checksums]
_Bind = bytes | int


class Published(NamedTuple):
    """Which version of an archive is there, and since when, in nanoseconds since the epoch."""

    inode: int
    """Its inode; :data:`NONE` if there is no version."""
    since_ns: int


NONE: Final = 0
"""The inode of no archive."""

FAILURES: Final = (sqlite3.Error, OSError, UnicodeDecodeError)
"""Exceptions of a damaged, full or missing file; the last if sqlite3 puts damaged bytes into its
message."""


def code_of(error: Exception) -> int | None:
    """SQLite's primary error code, https://www.sqlite.org/rescode.html; None if it has none."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return code if code is None else code & 0xFF


def is_damage(error: Exception) -> bool:
    """Whether *error* means that the file has to be replaced."""
    if isinstance(error, sqlite3.OperationalError):
        # ERROR: not this schema or format. READONLY without an extension: the file's own header
        # forbids writing, not the system.
        extended = getattr(error, "sqlite_errorcode", None)
        return extended in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_READONLY)
    if isinstance(error, sqlite3.ProgrammingError):
        return False  # a defect in zipfs
    return isinstance(error, sqlite3.DatabaseError | UnicodeDecodeError)


def _seal(*values: _Bind) -> int:
    """Checksum of a row, as a signed 64-bit integer."""
    hasher = xxhash.xxh3_64()
    for value in values:
        if isinstance(value, int):
            hasher.update(struct.pack("<q", value))
        else:
            hasher.update(struct.pack("<Q", len(value)) + value)
    return _signed(hasher.intdigest())


def _verifies(row: tuple[_Bind, ...]) -> bool:
    *values, seal = row
    try:
        return _seal(*values) == seal
    except (TypeError, struct.error):
        return False  # not even of the right type


def _record(row: tuple[Any, ...]) -> tuple[bytes, Record]:
    """Path and record of a verified row of :data:`_COLUMNS`."""
    path, inode, size, mtime_ns, ctime_ns, crc32, digest, _ = row
    return path, (FileState(inode % (1 << 64), size, mtime_ns, ctime_ns), Checksums(crc32, digest))


def _signed(number: int) -> int:
    """An unsigned 64-bit number, such as an inode, as SQLite's signed one."""
    return number - (1 << 64) if number >= 1 << 63 else number


@dataclass(slots=True)
class Checks:
    """Counts the rows read, and those dropped because their checksum was wrong."""

    read: int = 0
    dropped: int = 0

    def verifies(self, row: tuple[_Bind, ...]) -> bool:
        """Whether the checksum of *row*, its last column, is right; counts it."""
        self.read += 1
        if _verifies(row):
            return True
        self.dropped += 1
        return False


class Store:
    """The tables in one SQLite database; raises sqlite3's exceptions.

    Verified rows are counted in *checks*. With *reading*, the file has to exist, and nothing is
    written to it.
    """

    def __init__(self, file: str, checks: Checks | None = None, *, reading: bool = False) -> None:
        self._checks = checks or Checks()
        if reading:
            # https://www.sqlite.org/uri.html: rw doesn't create the file. ro would leave the
            # files of the write-ahead log behind.
            file = f"file:{quote(os.fsencode(os.path.abspath(file)))}?mode=rw"
        self._db = sqlite3.connect(
            file, timeout=_BUSY_TIMEOUT, check_same_thread=False, isolation_level=None, uri=reading
        )
        try:
            self._db.text_factory = bytes  # a damaged row can hold text that isn't UTF-8
            # https://www.sqlite.org/security.html: another user can have made the file.
            self._db.execute("PRAGMA trusted_schema = OFF")
            if reading:
                self._db.execute("PRAGMA query_only = ON")
                self._check_schema(self._version())
                return
            self._db.execute("PRAGMA journal_mode = WAL")
            # In WAL mode, NORMAL can lose the last commits in a power cut but keeps the file
            # consistent, which is enough for an index.
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._prepare()
        except BaseException:
            self._db.close()
            raise

    def _prepare(self) -> None:
        with self.transaction():
            tables = self._db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
            if (*self._identity(), tables) == (0, 0, 0):
                version = 0
                self._db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            else:
                version = self._version()
                self._check_schema(version)
            for added in range(version + 1, SCHEMA_VERSION + 1):
                for statement in filter(str.strip, _ADDED[added].split(";")):
                    self._db.execute(statement)
            if version != SCHEMA_VERSION:
                self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _check_schema(self, version: int) -> None:
        # An object with a table's name can be a view, which can run without end, and a trigger
        # runs with each insert. (A virtual table has no root page.)
        schema = self._db.execute("SELECT type, name, rootpage > 0 FROM sqlite_schema")
        if set(schema) != {(b"table", name, 1) for name in _TABLES[version]}:
            raise sqlite3.DatabaseError("its tables aren't those of an index")

    def _identity(self) -> tuple[int, int]:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        application = self._db.execute("PRAGMA application_id").fetchone()[0]
        return version, application

    def _version(self) -> int:
        """The version of its schema, one that this version of zipfs knows."""
        version, application = self._identity()
        if version not in _ADDED or application != _APPLICATION_ID:
            raise sqlite3.DatabaseError(
                f"not an index of this version of zipfs (version {version})"
            )
        return version

    def transaction(self) -> _Transaction:
        return _Transaction(self._db)

    def close(self) -> None:
        self._db.close()

    def files(self, paths: Iterable[bytes]) -> Iterator[tuple[bytes, Record]]:
        iterator = iter(paths)
        while batch := list(islice(iterator, _BATCH)):
            marks = ",".join("?" * len(batch))
            for row in self._db.execute(
                f"SELECT {_COLUMNS} FROM files WHERE path IN ({marks})",  # noqa: S608 - only question marks are put in
                batch,
            ):
                if self._checks.verifies(row):
                    yield _record(row)

    def files_after(self, path: bytes) -> tuple[list[tuple[bytes, Record]], bytes | None]:
        """The next files after *path*, in the order of paths, and the path to continue from.

        Begin with ``b""``, which is no file's path. The second value is None after the last.
        """
        # In batches, each fetched at once: a long read would keep SQLite's log from being
        # truncated.
        rows = self._db.execute(
            f"SELECT {_COLUMNS} FROM files WHERE path > ? ORDER BY path LIMIT {_BATCH}",  # noqa: S608 - constants
            (path,),
        ).fetchall()
        found = [_record(row) for row in rows if _verifies(row)]
        return found, rows[-1][0] if len(rows) == _BATCH else None

    def totals(self) -> tuple[int, int]:
        """Number and total size in bytes of all files; damaged rows count as well."""
        count, size = self._db.execute("SELECT count(*), total(max(size, 0)) FROM files").fetchone()
        return count, int(size)

    def has_files(self) -> bool:
        """Whether there is any file."""
        return self._db.execute("SELECT 1 FROM files LIMIT 1").fetchone() is not None

    def put_files(self, records: Mapping[bytes, Record]) -> None:
        for path, (state, checksums) in records.items():
            row = (path, _signed(state.inode), *state[1:], checksums.crc32, checksums.digest)
            self._db.execute(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*row, _seal(*row))
            )
            if checksums.blocks:
                self._db.execute(
                    "INSERT OR REPLACE INTO blocks VALUES (?, ?, ?)",
                    (
                        checksums.digest,
                        checksums.blocks,
                        _seal(checksums.digest, checksums.blocks),
                    ),
                )
        found = dict(self.files(records))
        for path, (state, checksums) in records.items():
            if found.get(path) != (state, checksums._replace(blocks=b"")):
                # A damaged B-tree can accept rows and not find them: they would be hashed for ever.
                raise sqlite3.DatabaseError("what was just written isn't found")

    def forget_files(self, digests: Mapping[bytes, bytes]) -> None:
        """Delete the record of each path that is that of the content with its digest."""
        self._db.executemany("DELETE FROM files WHERE path = ? AND digest = ?", digests.items())

    def blocks(self, digest: bytes) -> bytes | None:
        for hashes, seal in self._db.execute(
            "SELECT hashes, seal FROM blocks WHERE digest = ?", (digest,)
        ):
            if self._checks.verifies((digest, hashes, seal)):
                return bytes(hashes)
        return None

    def issued(self, path: bytes) -> dict[int, int]:
        return {
            int.from_bytes(content): seconds
            for content, seconds, seal in self._db.execute(
                "SELECT content, seconds, seal FROM issued WHERE path = ?", (path,)
            )
            if self._checks.verifies((path, content, seconds, seal))
        }

    def put_issued(self, path: bytes, content: int, seconds: int) -> None:
        key = content.to_bytes(16)
        self._db.execute(
            "INSERT OR REPLACE INTO issued VALUES (?, ?, ?, ?)",
            (path, key, seconds, _seal(path, key, seconds)),
        )

    def archive(self, path: bytes) -> Published | None:
        for inode, since_ns, seal in self._db.execute(
            "SELECT inode, since_ns, seal FROM archives WHERE path = ?", (path,)
        ):
            if self._checks.verifies((path, inode, since_ns, seal)):
                return Published(inode, since_ns)
        return None

    def archives_after(self, path: bytes) -> tuple[list[tuple[bytes, Published]], bytes | None]:
        """The next archives after *path*, as :meth:`files_after`; ``b""`` is no archive's path."""
        rows = self._db.execute(
            f"SELECT * FROM archives WHERE path > ? ORDER BY path LIMIT {_BATCH}",  # noqa: S608 - constants
            (path,),
        ).fetchall()
        found = [(row[0], Published(row[1], row[2])) for row in rows if _verifies(row)]
        return found, rows[-1][0] if len(rows) == _BATCH else None

    def folders(self) -> dict[bytes, int]:
        # This is what a mount reads first. Damage to any table is to be found now: later, a new
        # file would take away what has been sealed by the old one.
        for table in _TABLES[SCHEMA_VERSION]:
            self._db.execute(f"SELECT count(*) FROM {table.decode()}").fetchone()  # noqa: S608 - constants
        return {
            path: changed_ns
            for path, changed_ns, seal in self._db.execute("SELECT * FROM folders")
            if self._checks.verifies((path, changed_ns, seal))
        }

    def put_dates(self, archives: Mapping[bytes, Published], folders: Mapping[bytes, int]) -> None:
        rows = [(path, *published) for path, published in archives.items()]
        self._db.executemany(
            "INSERT OR REPLACE INTO archives VALUES (?, ?, ?, ?)",
            [(*row, _seal(*row)) for row in rows],
        )
        self._db.executemany(
            "INSERT OR REPLACE INTO folders VALUES (?, ?, ?)",
            [(*row, _seal(*row)) for row in folders.items()],
        )

    def copy_to(self, other: Store) -> None:
        for table, columns in _TABLES[SCHEMA_VERSION].items():
            marks = ",".join("?" * columns)
            name = table.decode()
            other._db.executemany(
                f"INSERT OR REPLACE INTO {name} VALUES ({marks})",  # noqa: S608 - constants
                self._db.execute(f"SELECT * FROM {name}"),  # noqa: S608 - constants
            )


class _Transaction:
    """A transaction by ``BEGIN IMMEDIATE``, so that two processes can't deadlock."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            try:
                self._db.execute("COMMIT")
                return
            except sqlite3.Error:
                self._rollback()
                raise
        self._rollback()

    def _rollback(self) -> None:
        # SQLite can have rolled back already by itself (a full disk).
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")
