"""Open files of the library, of limited number (DESIGN R4).

A file is known by its source and the state it was recorded in; whoever opens it
makes sure that it is in that state. Pinned files are the last to be closed when
room is needed; files in use are never closed.
"""

from __future__ import annotations

import errno
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from zipfs.errors import ChangedError
from zipfs.filestate import FileState
from zipfs.library import SourceFile

Key = tuple[bytes, FileState]


def key_of(source: SourceFile) -> Key:
    return source.source, source.state


@dataclass(eq=False, slots=True)
class OpenFile:
    """A file of the pool. *users* are reads under way, *pins* contents that hold it."""

    descriptor: int
    users: int = 0
    pins: int = 0
    used_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How many files may be open at once, and how many threads may read."""

    files: int
    threads: int

    @classmethod
    def within(cls, descriptors: int) -> Limits:
        """What fits into a process's limit on *descriptors* (RLIMIT_NOFILE).

        Some are left for the index, the log, and the loop; each thread may have
        one file open beyond the pool.
        """
        free = max(16, descriptors - 40)
        threads = max(4, min(64, free // 4))
        return cls(files=max(4, min(8192, free - 2 * threads)), threads=threads)


def open_file(absolute: Callable[[bytes], bytes], source: SourceFile) -> int:
    """Open *source*, if it is in its recorded state or only ctime tells otherwise."""
    # O_NONBLOCK: should the path have become a FIFO, the open must not wait.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(absolute(source.source), flags)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO):
            raise ChangedError from None
        raise
    try:
        state = FileState.of(os.fstat(descriptor))
        if state != source.state and not state.differs_in_ctime_only(source.state):
            raise ChangedError
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def open_files(absolute: Callable[[bytes], bytes], sources: Sequence[SourceFile]) -> dict[Key, int]:
    """Descriptors of all *sources*, or none and an exception (see :func:`open_file`)."""
    opened: dict[Key, int] = {}
    try:
        for source in sources:
            if key_of(source) not in opened:
                opened[key_of(source)] = open_file(absolute, source)
    except BaseException:
        close_all(opened.values())
        raise
    return opened


def close_all(descriptors: Iterable[int]) -> None:
    """Close *descriptors*; the last one of a deleted file frees its blocks, so in a thread."""
    for descriptor in descriptors:
        os.close(descriptor)


class Pool:
    """Up to *limit* open files; belongs to trio's thread."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._files: OrderedDict[Key, OpenFile] = OrderedDict()

    def __len__(self) -> int:
        return len(self._files)

    def get(self, key: Key) -> OpenFile | None:
        return self._files.get(key)

    def touch(self, key: Key, file: OpenFile) -> None:
        """*file* was used just now."""
        file.used_at = time.monotonic()
        self._files.move_to_end(key)

    def adopt(self, key: Key, descriptor: int) -> OpenFile:
        """Put an open file into the pool, unless it has the same one already."""
        file = self._files.get(key)
        if file is None:
            file = self._files[key] = OpenFile(descriptor)
        else:
            os.close(descriptor)
        self.touch(key, file)
        return file

    def take_excess(self) -> list[int]:
        """Descriptors to be closed so that all fit: unpinned ones first, the oldest first."""
        excess = len(self._files) - self.limit
        if excess <= 0:
            return []
        idle = [(key, file) for key, file in self._files.items() if not file.users]
        idle.sort(key=lambda item: item[1].pins > 0)  # stable
        return [self._files.pop(key).descriptor for key, _ in idle[:excess]]

    def take_idle(self, seconds: float) -> list[int]:
        """Descriptors to be closed: of files that nobody has used for so long."""
        until = time.monotonic() - seconds
        idle = [
            key
            for key, file in self._files.items()
            if not file.users and not file.pins and file.used_at <= until
        ]
        return [self._files.pop(key).descriptor for key in idle]
