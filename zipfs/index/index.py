"""Checksums that last: a SQLite file beside which nothing has to be believed.

The tables are :class:`zipfs.index.tables.Store`'s.

Losing the file costs time only. So a damaged one, or one of another version, is
set aside and made anew, and where it can't be written the rows stay in memory;
each is said in one line of the log.

Every method may touch the disk: call them from a worker thread. They may be
called from several at once.
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, TypeVar

from zipfs.errors import IndexFileError
from zipfs.index.tables import FAILURES, Checks, Record, Store, code_of, is_damage
from zipfs.system.syscalls import leave_to_owner
from zipfs.text import shown

log = logging.getLogger(__name__)

IN_MEMORY: Final = ":memory:"
"""SQLite's name for a file that isn't one: what is kept there goes with the index."""
_RETRY_SAVING: Final = 60.0
"""Seconds between two tries to save again after the disk was full."""

_FILES: Final = ("", "-wal", "-shm", "-journal")
"""What SQLite appends to the name of a database for the files that belong to it."""

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")


class Facts(NamedTuple):
    """An index as it is now."""

    file: str
    size: int
    """Bytes of its files on disk."""
    saving: bool
    """Whether what is found out is saved; no: it is kept in memory, as the disk is full, say."""
    rows_checked: int
    rows_dropped: int
    """Rows that didn't verify: what they were about is hashed anew."""
    set_aside: int
    """How often the whole file was found damaged, and made anew."""


class Index:
    """The index at *file*; made if missing, made anew if damaged; or :data:`IN_MEMORY`.

    Raises :exc:`IndexFileError` if it can't be created there at all.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self._lock = threading.Lock()
        self._closed = False
        self._checks = Checks()
        self._damages = 0
        self._disk: Store | None = None
        self._memory: Store | None = None
        """What couldn't be saved."""
        self._retry_at = 0.0
        if file == IN_MEMORY:
            self._disk = self._open()
            return
        try:
            os.makedirs(os.path.dirname(os.path.abspath(file)), mode=0o700, exist_ok=True)
            _refuse_foreign_link(file)
            # Made here so that it is the owner's alone: paths are private.
            descriptor = _open_or_make(file)  # inherited by none, PEP 446
            regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
            os.close(descriptor)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                self._do_without(error)
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
                self._do_without(error)
                return
            raise IndexFileError(
                f"can't open the index {file}: {error}; name another with --index FILE"
            ) from None

    def close(self) -> None:
        """No more is read or saved. Calls from threads that were left behind find nothing."""
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
        """Whether all that was to be kept is on disk."""
        with self._lock:
            return self._memory is None

    def facts(self) -> Facts:
        """How it is."""
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

            def give(store: Store) -> None:
                # Once more, now that nobody else can write: another process may do the same.
                known.update(store.issued(path))
                if content not in known:
                    known[content] = choose(frozenset(known.values()).__contains__)
                store.put_issued(path, content, known[content])

            self._writing(give)
            if content not in known:
                known[content] = choose(frozenset(known.values()).__contains__)
            return known[content]

    def _open(self) -> Store:
        try:
            return Store(self.file, self._checks)
        except FAILURES as error:
            if not is_damage(error):
                raise
            self._set_aside(error)
            os.close(_open_or_make(self.file))
            return Store(self.file, self._checks)

    def _merged(self, read: Callable[[Store], dict[K, V]]) -> dict[K, V]:
        merged: dict[K, V] = {}
        for found in self._reading(read):
            merged.update(found)
        return merged

    def _reading(self, read: Callable[[Store], T]) -> Iterator[T]:
        """What *read* finds on disk, and then what it finds in memory."""
        if self._disk:
            try:
                yield read(self._disk)
            except FAILURES as error:
                self._give_up(error)
        if self._memory:
            yield read(self._memory)

    def _writing(self, write: Callable[[Store], None]) -> None:
        if self._closed:
            return
        if self._memory is None or time.monotonic() >= self._retry_at:
            try:
                self._save(write)
            except FAILURES as error:
                self._give_up(error)
                # A new file in place of a damaged one; or else memory.
                if self._disk and not self._memory:
                    try:
                        self._save(write)
                    except FAILURES as again:
                        self._do_without(again)
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

    def _give_up(self, error: Exception) -> None:
        """The file failed: make it anew if it is damaged, else go on without it for now."""
        if not is_damage(error):
            self._do_without(error)
            return
        if self._disk:
            self._disk.close()
            self._disk = None
        try:
            self._set_aside(error)
            os.close(_open_or_make(self.file))
            self._disk = Store(self.file, self._checks)
        except FAILURES as again:
            self._do_without(again)

    def _do_without(self, error: Exception) -> None:
        """Keep in memory what is to be saved: it has to be found, or it is hashed for ever."""
        if self._memory is None:
            log.warning(
                "can't save to the index %s: %s; going on without saving", self.file, _told(error)
            )
            self._memory = Store(":memory:", self._checks)
        self._retry_at = time.monotonic() + _RETRY_SAVING

    def _set_aside(self, error: Exception) -> None:
        # Whatever it is, it is somebody's: nothing is overwritten.
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
            _told(error),
            aside,
        )


def _open_or_make(file: str) -> int:
    """Open *file*, made for its folder's owner if missing; its descriptor."""
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        # Not O_CREAT: who may write the folder, and maybe isn't us, would choose by a link what
        # is made where.
        return os.open(file, os.O_RDWR)
    leave_to_owner(descriptor, os.path.dirname(os.path.abspath(file)))
    return descriptor


def _told(error: Exception) -> str:
    """What SQLite says, on one line: it quotes what it has found in the file."""
    return shown(str(error).encode("utf-8", "surrogateescape"))


def _refuse_foreign_link(file: str) -> None:
    """Raise if *file* is a link of somebody else's, who so has us write where he may not."""
    try:
        status = os.lstat(file)
    except OSError:
        return  # which is told when it is opened
    if stat.S_ISLNK(status.st_mode) and status.st_uid not in (0, os.geteuid()):
        raise OSError(errno.EPERM, "it is a link of another user's")
