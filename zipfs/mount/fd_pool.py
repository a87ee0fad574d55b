"""Open files of the library, of limited number (DESIGN R4).

A file is known by its source and the state it was recorded in; whoever opens it
makes sure that it is in that state. Pinned files are the last to be closed when
room is needed; files in use are never closed.

Closing may block (the last descriptor of a deleted file frees its blocks, a network
file system asks its server), so it is never waited for: a share of the limit is kept
free ahead of need, and what is closed to that end counts until it is.
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
_STALE: Final = 0.01
"""Seconds for which it isn't noted anew that a file is in use."""


@dataclass(eq=False, slots=True)
class OpenFile:
    """A file of the pool. *users* are reads under way, *pins* contents that hold it."""

    key: Key
    descriptor: int
    """:data:`CLOSED` once it has left the pool."""
    users: int = 0
    pins: int = 0
    used_at: float = 0.0


class Pool:
    """Up to *limit* open files; belongs to trio's thread."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.share = max(min(4, limit // 2), limit // 16)
        """How many files one archive may hold open from the start, and are kept free for it."""
        self._files: OrderedDict[Key, OpenFile] = OrderedDict()
        self._reserved = 0
        self._closing = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._files)

    def get(self, key: Key) -> OpenFile | None:
        return self._files.get(key)

    def touch(self, file: OpenFile) -> None:
        """*file* was used just now."""
        now = time.monotonic()
        if now - file.used_at > _STALE:
            file.used_at = now
            self._files.move_to_end(file.key)

    def reserve(self, wanted: int) -> int:
        """Room for files about to be opened, *wanted* if there is so much.

        It is given back by :meth:`release`, before the files are adopted.
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
        """Put an open file into the pool, unless it has the same one already."""
        file = self._files.get(key)
        if file is None:
            file = self._files[key] = OpenFile(key, descriptor)
        else:
            self.close([descriptor])
        self.touch(file)
        return file

    def close(self, descriptors: Sequence[int]) -> None:
        """Close *descriptors* in a thread, and don't wait for it."""
        if not descriptors:
            return
        with self._lock:
            self._closing += len(descriptors)
        close = functools.partial(close_all, descriptors)
        closed = functools.partial(self._closed, len(descriptors))
        try:
            trio.lowlevel.start_thread_soon(close, closed)
        except RuntimeError:  # no thread to be had
            close()
            closed(None)

    def _closed(self, count: int, _result: object) -> None:
        with self._lock:
            self._closing -= count

    def _evict(self, count: int) -> None:
        """Close the files not used for longest, unpinned ones first."""
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
        """Close the files that nobody has used for so long."""
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
