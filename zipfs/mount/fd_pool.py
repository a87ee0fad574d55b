"""Open files of the library, of limited number (DESIGN R4).

A file is identified by its path and its recorded state; the caller that opens it checks
that state. When room is needed, the least recently used files are closed, pinned ones
last; files in use are never closed.

Closing may block (the last descriptor of a deleted file frees its blocks, a network
file system asks its server), so it is done in a thread and never waited for: a share of
the limit is kept free ahead of need, and a file counts until it is closed.
"""

from __future__ import annotations

import functools
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

import trio

from zipfs.library.files import Key, close_all

CLOSED: Final = -1
_USE_RESOLUTION: Final = 0.01
"""Seconds within which a second use of a file isn't recorded, which saves moving its entry."""


@dataclass(eq=False, slots=True)
class OpenFile:
    """A file of the pool. *users* counts reads under way, *pins* open contents that hold it."""

    key: Key
    descriptor: int
    """:data:`CLOSED` once it has left the pool."""
    users: int = 0
    pins: int = 0
    used_at: float = 0.0


@dataclass(eq=False, slots=True)
class Loan:
    """Files and room of the pool lent to a thread until :meth:`end`."""

    pool: FdPool
    files: list[OpenFile | None]
    """In the order of the keys; they stay open. None for one that isn't in the pool."""
    room: int
    """Number of files that the thread may open for the pool."""

    def end(self) -> None:
        """Return files and room. To be called once, when the thread has ended, before adopting."""
        for file in self.files:
            if file:
                file.users -= 1
        self.pool.release(self.room)


class FdPool:
    """Up to *limit* open files; used by trio's thread only."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.share = max(min(4, limit // 2), limit // 16)
        """Most files that opening an archive pins; as many are kept free ahead of need."""
        self._files: OrderedDict[Key, OpenFile] = OrderedDict()
        self._reserved = 0
        self._closing = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._files)

    def get(self, key: Key) -> OpenFile | None:
        return self._files.get(key)

    def touch(self, file: OpenFile) -> None:
        """Record that *file* was used just now."""
        now = time.monotonic()
        if now - file.used_at > _USE_RESOLUTION:
            file.used_at = now
            self._files.move_to_end(file.key)

    def lend(self, keys: Iterable[Key], room: int) -> Loan:
        """A loan of the open files among *keys*, and of room for up to *room* of the others."""
        files = [self._files.get(key) for key in keys]
        for file in files:
            if file:
                file.users += 1
        wanted = min(room, files.count(None))
        return Loan(self, files, self.reserve(wanted) if wanted else 0)

    def reserve(self, wanted: int) -> int:
        """Reserve room for up to *wanted* files; returns for how many.

        :meth:`release` it before the files are adopted.
        """
        room = self.limit - len(self._files) - self._reserved - self._closing
        left = room + self._closing - wanted
        if left <= self.share // 2:
            self._evict(self.share - left)
        granted = max(0, min(wanted, room))
        self._reserved += granted
        return granted

    def release(self, granted: int) -> None:
        self._reserved -= granted

    def adopt(self, key: Key, descriptor: int) -> OpenFile:
        """Put an open file into the pool; *descriptor* is closed if it has that file already."""
        file = self._files.get(key)
        if file is None:
            file = self._files[key] = OpenFile(key, descriptor)
        else:
            self.close([descriptor])
        self.touch(file)
        return file

    def close(self, descriptors: Sequence[int]) -> None:
        """Close *descriptors* in a thread, without waiting for it."""
        if not descriptors:
            return
        with self._lock:
            self._closing += len(descriptors)
        close = functools.partial(close_all, descriptors)
        closed = functools.partial(self._closed, len(descriptors))
        try:
            trio.lowlevel.start_thread_soon(close, closed)
        except RuntimeError:  # the process may have no more threads
            close()
            closed(None)

    def _closed(self, count: int, _result: object) -> None:
        with self._lock:
            self._closing -= count

    def _evict(self, count: int) -> None:
        """Close up to *count* idle files, least recently used first, pinned ones last."""
        keys: list[Key] = []
        for pinned in (False, True):
            idle = (
                key
                for key, file in self._files.items()
                if not file.users and (file.pins > 0) == pinned
            )
            keys += islice(idle, count - len(keys))
        self._drop(keys)

    def close_idle(self, seconds: float) -> None:
        """Close the unpinned files that haven't been used for *seconds*."""
        until = time.monotonic() - seconds
        keys = [
            key
            for key, file in self._files.items()
            if not file.users and not file.pins and file.used_at <= until
        ]
        self._drop(keys)

    def _drop(self, keys: Iterable[Key]) -> None:
        descriptors = []
        for key in keys:
            file = self._files.pop(key)
            descriptors.append(file.descriptor)
            file.descriptor = CLOSED
        self.close(descriptors)
