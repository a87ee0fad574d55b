"""The file of an index, in which its tables are, and what becomes of them if it can't be used.

A file that is damaged or of another version is renamed and replaced by a new one, and while the
file can't be written, rows are held in memory; each is logged in one line. Thread-safe.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, TypeVar

from zipfs.errors import IndexFileError
from zipfs.index.ownfile import open_or_make, refuse_foreign_link
from zipfs.index.rows import Checks
from zipfs.index.tables import FAILURES, Store, code_of, is_damage
from zipfs.text import shown

log = logging.getLogger(__name__)

IN_MEMORY: Final = ":memory:"
"""SQLite's name for a database in memory, which is lost when the index is closed."""
_RETRY_SAVING: Final = 60.0
"""Seconds between two attempts to save again, for instance after the disk was full."""

_FILES: Final = ("", "-wal", "-shm", "-journal")
"""Suffixes that SQLite appends to a database's name for the files that belong to it."""

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")


class Facts(NamedTuple):
    """Current figures of an index."""

    file: str
    size: int
    """Size of its files on disk, in bytes."""
    saving: bool
    """Whether checksums are saved; False: they are in memory only, for instance on a full disk."""
    rows_checked: int
    """Number of rows whose checksum was verified."""
    rows_dropped: int
    """Number of rows with a wrong checksum; their files are hashed again."""
    set_aside: int
    """Number of times that the whole file was damaged, and replaced by a new one."""


class IndexFile:
    """The file of an index, or :data:`IN_MEMORY`; created if missing, replaced if damaged.

    Raises :exc:`IndexFileError` if it can't be created.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self._lock = threading.Lock()
        self._closed = False
        self._checks = Checks()
        self._damages = 0
        self._disk: Store | None = None
        self._memory: Store | None = None
        """Rows that couldn't be saved; None if all are saved."""
        self._retry_at = 0.0
        if file == IN_MEMORY:
            self._disk = self._open()
            return
        try:
            os.makedirs(os.path.dirname(os.path.abspath(file)), mode=0o700, exist_ok=True)
            refuse_foreign_link(file)
            # Created here, with mode 0600: paths are private.
            descriptor = open_or_make(file)  # inherited by none, PEP 446
            regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
            os.close(descriptor)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                self._use_memory(error)
                return
            raise IndexFileError(
                f"can't write the index {file}: {error.strerror}; name another with --index FILE"
            ) from None
        if not regular:
            raise IndexFileError(f"the index {file} isn't a file; name another with --index FILE")
        try:
            self._disk = self._open()
        except (sqlite3.Error, OSError) as error:
            if code_of(error) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
                self._use_memory(error)
                return
            raise IndexFileError(
                f"can't open the index {file}: {error}; name another with --index FILE"
            ) from None

    def close(self) -> None:
        """Save what isn't saved, and close it. Later calls, from stuck threads, find nothing."""
        with self._lock:
            if self._memory and not self._closed:
                self._retry_at = 0.0  # the last chance to save
                self._writing(lambda store: None)
            self._closed = True
            for store in (self._disk, self._memory):
                if store:
                    store.close()
            self._disk = self._memory = None

    @property
    def is_saving(self) -> bool:
        """Whether all rows are on disk."""
        with self._lock:
            return self._memory is None

    def facts(self) -> Facts:
        """The current figures."""
        size = 0
        if self.file != IN_MEMORY:
            for suffix in _FILES:
                with contextlib.suppress(OSError):
                    size += os.stat(self.file + suffix).st_size
        with self._lock:
            return Facts(
                file=self.file,
                size=size,
                saving=self._memory is None and self.file != IN_MEMORY,
                rows_checked=self._checks.read,
                rows_dropped=self._checks.dropped,
                set_aside=self._damages,
            )

    # -- For the index, which holds the lock ------------------------------------------

    def _open(self) -> Store:
        try:
            return Store(self.file, self._checks)
        except FAILURES as error:
            if not is_damage(error):
                raise
            self._set_aside(error)
            os.close(open_or_make(self.file))
            return Store(self.file, self._checks)

    def _merged(self, read: Callable[[Store], dict[K, V]]) -> dict[K, V]:
        merged: dict[K, V] = {}
        for found in self._reading(read):
            merged.update(found)
        return merged

    def _reading(self, read: Callable[[Store], T]) -> Iterator[T]:
        """The results of *read* from the disk, then from memory."""
        if self._disk:
            try:
                yield read(self._disk)
            except FAILURES as error:
                self._recover(error)
        if self._memory:
            yield read(self._memory)

    def _writing(self, write: Callable[[Store], None]) -> None:
        if self._closed:
            return
        if self._memory is None or time.monotonic() >= self._retry_at:
            try:
                self._save(write)
            except FAILURES as error:
                self._recover(error)
                # Once more if a new file has replaced a damaged one.
                if self._disk and not self._memory:
                    try:
                        self._save(write)
                    except FAILURES as again:
                        self._use_memory(again)
        if self._memory:
            write(self._memory)

    def _save(self, write: Callable[[Store], None]) -> None:
        self._disk = self._disk or self._open()
        with self._disk.transaction():
            if self._memory:
                self._memory.copy_to(self._disk)
            write(self._disk)
        if self._memory:
            self._memory.close()
            self._memory = None
            log.info("the index %s is being saved again", self.file)

    def _recover(self, error: Exception) -> None:
        """After a failure: replace a damaged file by a new one, else continue in memory."""
        if not is_damage(error):
            self._use_memory(error)
            return
        if self._disk:
            self._disk.close()
            self._disk = None
        try:
            self._set_aside(error)
            os.close(open_or_make(self.file))
            self._disk = Store(self.file, self._checks)
        except FAILURES as again:
            self._use_memory(again)

    def _use_memory(self, error: Exception) -> None:
        """Hold new rows in memory: if they weren't found, files would be hashed for ever."""
        if self._memory is None:
            log.warning(
                "can't save to the index %s: %s; going on without saving", self.file, _text(error)
            )
            self._memory = Store(":memory:", self._checks)
        self._retry_at = time.monotonic() + _RETRY_SAVING

    def _set_aside(self, error: Exception) -> None:
        # It can be anybody's file: it is renamed, and never overwrites another.
        number = 1
        while os.path.lexists(aside := f"{self.file}.bad" + (f"-{number}" if number > 1 else "")):
            number += 1
        self._damages += 1
        for suffix in _FILES:
            if os.path.lexists(self.file + suffix):
                os.replace(self.file + suffix, aside + suffix)
            elif os.path.lexists(aside + suffix):
                os.unlink(aside + suffix)
        log.warning(
            "the index %s is damaged or of another version (%s); set aside as %s, hashing anew",
            self.file,
            _text(error),
            aside,
        )


def _text(error: Exception) -> str:
    """SQLite's message on one line: it can quote any bytes of the file."""
    return shown(str(error).encode("utf-8", "surrogateescape"))
