"""Checksums that last: a SQLite file beside which nothing has to be believed.

Three tables: ``files`` (path and state -> CRC-32 and XXH3-128), ``blocks``
(XXH3-128 -> checksums of blocks) and ``issued`` (which content of an archive was
given which modification time, DESIGN V3). Each row carries a checksum of its own:
SQLite notices damage to its structure, not to a value, and a damaged value
would be served (DESIGN S3). A row that doesn't verify isn't there.

Losing the file costs time only. So a damaged one, or one of another version, is
set aside and made anew, and where it can't be written the rows stay in memory;
each is said in one line of the log.

Every method may touch the disk: call them from a worker thread. They may be
called from several at once.
"""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final, TypeVar

import xxhash

from zipfs.errors import IndexFileError
from zipfs.filestate import Checksums, FileState

log = logging.getLogger(__name__)

SCHEMA_VERSION: Final = 1
_APPLICATION_ID: Final = 0x7A697066  # "zipf"
_BUSY_TIMEOUT: Final = 10.0
"""Seconds to wait for another process that writes to the same index."""
_RETRY_SAVING: Final = 60.0
"""Seconds between two tries to save again after the disk was full."""
_BATCH: Final = 500
"""Paths asked for in one query; SQLite allows 999 in its oldest versions."""

_SCHEMA: Final = """
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
"""

Record = tuple[FileState, Checksums]
T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")
_Bind = bytes | int

_FAILURES: Final = (sqlite3.Error, OSError, UnicodeDecodeError)
"""What a damaged, full or vanished file may cause; the last where sqlite3 puts damaged
bytes into its message."""


def _code(error: Exception) -> int | None:
    """SQLite's error code, https://www.sqlite.org/rescode.html, without its extension."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return code if code is None else code & 0xFF


def _is_damage(error: Exception) -> bool:
    """Whether only a new file helps."""
    if isinstance(error, sqlite3.OperationalError):
        # ERROR: the schema or the format isn't ours. READONLY without an extension: not the
        # system but the file's own header forbids writing.
        extended = getattr(error, "sqlite_errorcode", None)
        return extended in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_READONLY)
    if isinstance(error, sqlite3.ProgrammingError):
        return False  # a mistake of ours
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


def _signed(number: int) -> int:
    """SQLite's integers have 64 bits and a sign; inodes have none."""
    return number - (1 << 64) if number >= 1 << 63 else number


class _Store:
    """The tables in one SQLite database; raises what sqlite3 raises."""

    def __init__(self, file: str) -> None:
        self._db = sqlite3.connect(
            file, timeout=_BUSY_TIMEOUT, check_same_thread=False, isolation_level=None
        )
        try:
            self._db.text_factory = bytes  # a damaged row may hold text, of no encoding
            self._db.execute("PRAGMA journal_mode = WAL")
            # In WAL mode NORMAL can lose the last commits in a power cut, and
            # never the file's consistency: exactly what an index may lose.
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._prepare()
        except BaseException:
            self._db.close()
            raise

    def _prepare(self) -> None:
        with self.transaction():
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            application = self._db.execute("PRAGMA application_id").fetchone()[0]
            tables = self._db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
            if (version, application, tables) == (0, 0, 0):
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
                self._db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            elif (version, application) != (SCHEMA_VERSION, _APPLICATION_ID):
                raise sqlite3.DatabaseError(
                    f"not an index of this version of zipfs (version {version})"
                )

    def transaction(self) -> _Transaction:
        return _Transaction(self._db)

    def close(self) -> None:
        self._db.close()

    def files(self, paths: Iterable[bytes]) -> Iterator[tuple[bytes, Record]]:
        iterator = iter(paths)
        while batch := list(islice(iterator, _BATCH)):
            marks = ",".join("?" * len(batch))
            for row in self._db.execute(
                "SELECT path, inode, size, mtime_ns, ctime_ns, crc32, digest, seal"  # noqa: S608 - only question marks are put in
                f" FROM files WHERE path IN ({marks})",
                batch,
            ):
                if _verifies(row):
                    path, inode, size, mtime_ns, ctime_ns, crc32, digest, _ = row
                    state = FileState(inode % (1 << 64), size, mtime_ns, ctime_ns)
                    yield path, (state, Checksums(crc32, digest))

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
                # A tree out of order takes rows and doesn't find them: to be hashed for ever.
                raise sqlite3.DatabaseError("what was just written isn't found")

    def blocks(self, digest: bytes) -> bytes | None:
        for hashes, seal in self._db.execute(
            "SELECT hashes, seal FROM blocks WHERE digest = ?", (digest,)
        ):
            if _verifies((digest, hashes, seal)):
                return bytes(hashes)
        return None

    def issued(self, path: bytes) -> dict[int, int]:
        return {
            int.from_bytes(content): seconds
            for content, seconds, seal in self._db.execute(
                "SELECT content, seconds, seal FROM issued WHERE path = ?", (path,)
            )
            if _verifies((path, content, seconds, seal))
        }

    def put_issued(self, path: bytes, content: int, seconds: int) -> None:
        key = content.to_bytes(16)
        self._db.execute(
            "INSERT OR REPLACE INTO issued VALUES (?, ?, ?, ?)",
            (path, key, seconds, _seal(path, key, seconds)),
        )

    def copy_to(self, other: _Store) -> None:
        for table, columns in (("files", 8), ("blocks", 3), ("issued", 4)):
            marks = ",".join("?" * columns)
            other._db.executemany(
                f"INSERT OR REPLACE INTO {table} VALUES ({marks})",  # noqa: S608 - constants
                self._db.execute(f"SELECT * FROM {table}"),  # noqa: S608 - constants
            )


class _Transaction:
    """``BEGIN IMMEDIATE``, so that two processes never wait for each other's end."""

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
        # SQLite may have rolled back by itself already (a full disk).
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")


class Index:
    """The index at *file*; made if missing, made anew if damaged.

    Raises :exc:`IndexFileError` if it can't be created there at all.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self._lock = threading.Lock()
        self._closed = False
        self._disk: _Store | None = None
        self._memory: _Store | None = None
        """What couldn't be saved."""
        self._retry_at = 0.0
        try:
            os.makedirs(os.path.dirname(os.path.abspath(file)), mode=0o700, exist_ok=True)
            # Made here so that it is the owner's alone: paths are private.
            os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                self._do_without(error)
                return
            raise IndexFileError(
                f"can't write the index {file}: {error.strerror}; name another with --index FILE"
            ) from None
        try:
            self._disk = self._open()
        except (sqlite3.Error, OSError) as error:
            if _code(error) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
                self._do_without(error)
                return
            raise IndexFileError(
                f"can't open the index {file}: {error}; name another with --index FILE"
            ) from None

    def close(self) -> None:
        """No more is read or saved. Calls from threads that were left behind find nothing."""
        with self._lock:
            self._closed = True
            for store in (self._disk, self._memory):
                if store:
                    store.close()
            self._disk = self._memory = None

    def files(self, paths: Sequence[bytes]) -> dict[bytes, Record]:
        """What is known of those of *paths* that are known, :attr:`blocks` left empty."""
        with self._lock:
            return self._merged(lambda store: dict(store.files(paths)))

    def put_files(self, records: Mapping[bytes, Record]) -> None:
        """Keep *records*, replacing what was known of the same paths."""
        with self._lock:
            self._writing(lambda store: store.put_files(records))

    def blocks(self, digest: bytes) -> bytes | None:
        """The checksums of blocks of the content *digest*, if they are known."""
        with self._lock:
            return next(filter(None, self._reading(lambda store: store.blocks(digest))), None)

    def issue(
        self, path: bytes, content: int, choose: Callable[[Callable[[int], bool]], int]
    ) -> int:
        """The modification time, in Unix seconds, of *content* at the archive *path*.

        The one it was given before, or else *choose(taken)*, which is kept;
        *taken* tells whether a time belongs to another content of *path*.
        """
        with self._lock:
            known = self._merged(lambda store: store.issued(path))
            if content in known:
                return known[content]

            def give(store: _Store) -> None:
                # Once more, now that nobody else can write: another process may do the same.
                known.update(store.issued(path))
                if content not in known:
                    known[content] = choose(frozenset(known.values()).__contains__)
                store.put_issued(path, content, known[content])

            self._writing(give)
            if content not in known:
                known[content] = choose(frozenset(known.values()).__contains__)
            return known[content]

    def _open(self) -> _Store:
        try:
            return _Store(self.file)
        except _FAILURES as error:
            if not _is_damage(error):
                raise
            self._set_aside(error)
            return _Store(self.file)

    def _merged(self, read: Callable[[_Store], dict[K, V]]) -> dict[K, V]:
        merged: dict[K, V] = {}
        for found in self._reading(read):
            merged.update(found)
        return merged

    def _reading(self, read: Callable[[_Store], T]) -> Iterator[T]:
        """What *read* finds on disk, and then what it finds in memory."""
        if self._disk:
            try:
                yield read(self._disk)
            except _FAILURES as error:
                self._give_up(error)
        if self._memory:
            yield read(self._memory)

    def _writing(self, write: Callable[[_Store], None]) -> None:
        if self._closed:
            return
        if self._memory is None or time.monotonic() >= self._retry_at:
            try:
                self._save(write)
            except _FAILURES as error:
                self._give_up(error)
                # A new file in place of a damaged one; or else memory.
                if self._disk and not self._memory:
                    try:
                        self._save(write)
                    except _FAILURES as again:
                        self._do_without(again)
        if self._memory:
            write(self._memory)

    def _save(self, write: Callable[[_Store], None]) -> None:
        self._disk = self._disk or self._open()
        with self._disk.transaction():
            if self._memory:
                self._memory.copy_to(self._disk)
            write(self._disk)
        if self._memory:
            self._memory.close()
            self._memory = None
            log.info("the index %s is being saved again", self.file)

    def _give_up(self, error: Exception) -> None:
        """The file failed: make it anew if it is damaged, else go on without it for now."""
        if not _is_damage(error):
            self._do_without(error)
            return
        if self._disk:
            self._disk.close()
            self._disk = None
        try:
            self._set_aside(error)
            self._disk = _Store(self.file)
        except _FAILURES as again:
            self._do_without(again)

    def _do_without(self, error: Exception) -> None:
        """Keep in memory what is to be saved: it has to be found, or it is hashed for ever."""
        if self._memory is None:
            log.warning("can't save to the index %s: %s; going on without saving", self.file, error)
            self._memory = _Store(":memory:")
        self._retry_at = time.monotonic() + _RETRY_SAVING

    def _set_aside(self, error: Exception) -> None:
        aside = self.file + ".bad"  # the last one only, so that they don't pile up
        for suffix in ("", "-wal", "-shm", "-journal"):
            if os.path.lexists(self.file + suffix):
                os.replace(self.file + suffix, aside + suffix)
            elif os.path.lexists(aside + suffix):
                os.unlink(aside + suffix)
        log.warning(
            "the index %s is damaged or of another version (%s); set aside as %s, hashing anew",
            self.file,
            error,
            aside,
        )
