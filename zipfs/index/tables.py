"""The index's tables in a SQLite database, and the meaning of its errors.

The tables: ``files`` (path and state -> CRC-32 and XXH3-128), ``blocks`` (XXH3-128 -> checksums
of blocks), ``issued`` (archive and content -> modification time, DESIGN V3), ``archives`` (archive
-> the version that is there, and since when), ``folders`` (folder -> last change of its listing,
DESIGN F1), ``games`` (game -> what its archive was, and was made of) and ``missing`` (file -> since
when it isn't there). Rows are sealed
(:mod:`zipfs.index.rows`).

A file of an earlier version gets the tables that it lacks, in one transaction.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final
from urllib.parse import quote

from zipfs.index.rows import Checks, Made, MadeAt, Published, Record, seal_of, signed, verifies
from zipfs.index.schema import ADDED, SCHEMA_VERSION, TABLES
from zipfs.library.filestate import Checksums, FileState

_APPLICATION_ID: Final = 0x7A697066  # "zipf"
_BUSY_TIMEOUT: Final = 10.0
"""Seconds to wait for another process that writes to the same index."""
_BATCH: Final = 500
"""Maximum number of paths in one query; the oldest versions of SQLite allow 999."""

_GAMES: Final = """
SELECT games.*, archives.inode, archives.since_ns, archives.seal
FROM games LEFT JOIN archives ON archives.path = games.archive
"""
_COLUMNS: Final = "path, inode, size, mtime_ns, ctime_ns, crc32, digest, seal"
"""The columns of ``files``; ``seal`` is the checksum of the others, in this order."""

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


def _record(row: tuple[Any, ...]) -> tuple[bytes, Record]:
    """Path and record of a verified row of :data:`_COLUMNS`."""
    path, inode, size, mtime_ns, ctime_ns, crc32, digest, _ = row
    return path, (FileState(inode % (1 << 64), size, mtime_ns, ctime_ns), Checksums(crc32, digest))


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
                for statement in filter(str.strip, ADDED[added].split(";")):
                    self._db.execute(statement)
            if version != SCHEMA_VERSION:
                self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _check_schema(self, version: int) -> None:
        # An object with a table's name can be a view, which can run without end, and a trigger
        # runs with each insert. (A virtual table has no root page.)
        schema = self._db.execute("SELECT type, name, rootpage > 0 FROM sqlite_schema")
        if set(schema) != {(b"table", name, 1) for name in TABLES[version]}:
            raise sqlite3.DatabaseError("its tables aren't those of an index")

    def _identity(self) -> tuple[int, int]:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        application = self._db.execute("PRAGMA application_id").fetchone()[0]
        return version, application

    def _version(self) -> int:
        """The version of its schema, one that this version of zipfs knows."""
        version, application = self._identity()
        if version not in ADDED or application != _APPLICATION_ID:
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
        found = [_record(row) for row in rows if verifies(row)]
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
            row = (path, signed(state.inode), *state[1:], checksums.crc32, checksums.digest)
            self._db.execute(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (*row, seal_of(*row)),
            )
            if checksums.blocks:
                self._db.execute(
                    "INSERT OR REPLACE INTO blocks VALUES (?, ?, ?)",
                    (
                        checksums.digest,
                        checksums.blocks,
                        seal_of(checksums.digest, checksums.blocks),
                    ),
                )
        found = dict(self.files(records))
        for path, (state, checksums) in records.items():
            if found.get(path) != (state, checksums._replace(blocks=b"")):
                # A damaged B-tree can accept rows and not find them: they would be hashed for ever.
                raise sqlite3.DatabaseError("what was just written isn't found")

    def forget_files(self, digests: Mapping[bytes, bytes]) -> None:
        """Delete the record of each path that is that of the content with its digest."""
        deleted = self._db.executemany(
            "DELETE FROM files WHERE path = ? AND digest = ?", digests.items()
        )
        if deleted.rowcount:  # archives may have been made of it
            self._db.execute("DELETE FROM games")

    def prune(self, paths: Collection[bytes], *, blocks: bool) -> None:
        """Delete the records of *paths*; with *blocks* also the checksums of blocks of no file."""
        for table in ("files", "missing"):
            self._db.executemany(
                f"DELETE FROM {table} WHERE path = ?",  # noqa: S608 - constants
                [(path,) for path in paths],
            )
        if blocks:
            self._db.execute("DELETE FROM blocks WHERE digest NOT IN (SELECT digest FROM files)")

    def missing(self, paths: Iterable[bytes]) -> dict[bytes, int]:
        """Since when those of *paths* are missing that are known to be; Unix time."""
        found = {}
        for path in paths:
            for row in self._db.execute("SELECT * FROM missing WHERE path = ?", (path,)):
                if self._checks.verifies(row):
                    found[path] = int(row[1])
        return found

    def put_missing(self, changes: Mapping[bytes, int | None]) -> None:
        """Save since when files are missing; None: they are there."""
        for path, since in changes.items():
            if since is None:
                self._db.execute("DELETE FROM missing WHERE path = ?", (path,))
            else:
                self._db.execute(
                    "INSERT OR REPLACE INTO missing VALUES (?, ?, ?)",
                    (path, since, seal_of(path, since)),
                )

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
            (path, key, seconds, seal_of(path, key, seconds)),
        )

    def issued_after(
        self, after: tuple[bytes, bytes]
    ) -> tuple[list[tuple[bytes, int]], tuple[bytes, bytes] | None]:
        """Path and content of the next modification times that were issued, and where to go on.

        Begin with ``(b"", b"")``, which is nowhere. The second value is None after the last.
        """
        rows = self._db.execute(
            "SELECT path, content, seconds, seal FROM issued WHERE (path, content) > (?, ?)"
            " ORDER BY path, content LIMIT ?",
            (*after, _BATCH),
        ).fetchall()
        found = [(row[0], int.from_bytes(row[1])) for row in rows if verifies(row)]
        return found, rows[-1][:2] if len(rows) == _BATCH else None

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
        found = [(row[0], Published(row[1], row[2])) for row in rows if verifies(row)]
        return found, rows[-1][0] if len(rows) == _BATCH else None

    def folders(self) -> dict[bytes, int]:
        # This is what a mount reads first. Damage to any table is to be found now: later, a new
        # file would take away what has been sealed by the old one.
        for table in TABLES[SCHEMA_VERSION]:
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
            [(*row, seal_of(*row)) for row in rows],
        )
        self._db.executemany(
            "INSERT OR REPLACE INTO folders VALUES (?, ?, ?)",
            [(*row, seal_of(*row)) for row in folders.items()],
        )

    def games(self, folder: bytes, name: bytes | None = None) -> dict[bytes, MadeAt]:
        """What is known of the games in *folder*, or of the one called *name*, by name."""
        where, of = ("", (folder,)) if name is None else (" AND games.name = ?", (folder, name))
        rows = self._db.execute(f"{_GAMES} WHERE games.folder = ?{where}", of)
        found = {}
        for row in rows.fetchall():
            made, (inode, since_ns, seal_of_archive) = row[:14], row[14:]
            if not self._checks.verifies(made):
                continue
            tree, key, fingerprint, archive, content, *figures = made[2:-1]
            last = None
            if inode is not None and self._checks.verifies(
                (archive, inode, since_ns, seal_of_archive)
            ):
                last = Published(inode, since_ns)
            known = Made(tree, key, fingerprint, archive, int.from_bytes(content), *figures)
            found[row[1]] = known, last
        return found

    def put_games(self, games: Mapping[tuple[bytes, bytes], Made | None]) -> None:
        """Save what is known of games, by folder and name; None: nothing."""
        self._db.executemany(
            "DELETE FROM games WHERE folder = ? AND name = ?",
            [path for path, made in games.items() if made is None],
        )
        rows = [
            (*path, *made[:4], made.content.to_bytes(16), *made[5:])
            for path, made in games.items()
            if made is not None
        ]
        self._db.executemany(
            f"INSERT OR REPLACE INTO games VALUES ({','.join('?' * 14)})",  # noqa: S608 - only question marks are put in
            [(*row, seal_of(*row)) for row in rows],
        )

    def copy_to(self, other: Store) -> None:
        for table, columns in TABLES[SCHEMA_VERSION].items():
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
