"""CRC-32 and XXH3-128 of files, in one pass, in the background.

Order: what was asked for first, then the smallest. One file is hashed at a time,
slice by slice in a thread of its own at the lowest priority, so that a file just
asked for waits for one slice of a big one, and never for all of it.

A checksum counts only if the file was in the expected state before and after all
of it was read (DESIGN S1). What hashing brought into the page cache, it drops
again; what others had there, it leaves.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import heapq
import itertools
import logging
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

import trio
import xxhash
from isal import isal_zlib

from zipfs.errors import ChangedError
from zipfs.filestate import BLOCK, Checksums, FileState
from zipfs.library import SourceFile
from zipfs.paths import open_path
from zipfs.threads import timed_out
from zipfs.worker import Worker

log = logging.getLogger(__name__)

SLICE: Final = 64 << 20
"""Bytes hashed between two looks at the queue: 5 ms from the page cache, half a
second from a slow disk."""
_WINDOW: Final = 8 << 20
"""Bytes for which the page cache is looked at, and emptied, at once."""
_PROBED: Final = 8
"""How many windows are looked at ahead of need: further than the kernel reads ahead
(8 MiB on some disks), so that what it brings in for us isn't taken for others'."""

_WRITE_AND_WAIT: Final = 7
"""sync_file_range(2): WAIT_BEFORE | WRITE | WAIT_AFTER."""

_libc: Final = ctypes.CDLL(None)

T = TypeVar("T")


class FileHasher:
    """Hashes one file, in as many calls of :meth:`advance` as it takes.

    Raises :exc:`ChangedError` or :exc:`OSError`. *path* is absolute; *offset*
    tells how many bytes are done.
    """

    def __init__(self, path: bytes, state: FileState) -> None:
        self._state = state
        self.offset = 0
        self._crc32 = 0
        self._digest = xxhash.xxh3_128()
        self._blocks = bytearray()
        self._buffer = memoryview(bytearray(min(BLOCK, max(state.size, 1))))
        self._cached: deque[bool] = deque()
        """Whether the next windows were in the page cache before we came near."""
        self._path = path
        self._descriptor = -1
        self._open()

    def _open(self) -> None:
        # O_NONBLOCK: should the path have become a FIFO, the open must not wait.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            self._descriptor = open_path(self._path, flags)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO):
                raise ChangedError from None
            raise
        try:
            self._check()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file; :meth:`advance` opens it again if need be."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            with contextlib.suppress(OSError):  # close(2): it is closed whatever it says
                os.close(descriptor)

    def advance(self, limit: int) -> Checksums | None:
        """Hash about *limit* more bytes; the checksums, once all is done."""
        if self._descriptor < 0:
            self._open()
        until = self.offset + limit
        while self.offset < self._state.size and self.offset < until:
            self._window(min(_WINDOW, self._state.size - self.offset))
        if self.offset < self._state.size:
            return None
        self._check()
        blocks = bytes(self._blocks) if self._state.size > BLOCK else b""
        return Checksums(self._crc32, self._digest.digest(), blocks)

    def _window(self, length: int) -> None:
        start = self.offset
        _write_back(self._descriptor, start, length)
        end = start + length
        ahead = start + _WINDOW * len(self._cached)
        while len(self._cached) < _PROBED and ahead < self._state.size:
            ahead = min(ahead + _WINDOW, self._state.size)
            self._cached.append(_is_cached(self._descriptor, ahead - 1))
        cached = self._cached.popleft()
        while self.offset < end:
            self._block(self._buffer[: min(BLOCK, end - self.offset)])
        if not cached:
            with contextlib.suppress(OSError):  # advice; some file systems take none
                os.posix_fadvise(self._descriptor, start, length, os.POSIX_FADV_DONTNEED)

    def _block(self, buffer: memoryview) -> None:
        filled = 0
        while filled < len(buffer):
            count = os.preadv(self._descriptor, [buffer[filled:]], self.offset + filled)
            if count == 0:
                raise ChangedError  # shorter than it was
            filled += count
        self._crc32 = isal_zlib.crc32(buffer, self._crc32)
        self._digest.update(buffer)
        self._blocks += xxhash.xxh3_64_digest(buffer)
        self.offset += filled

    def _check(self) -> None:
        if FileState.of(os.fstat(self._descriptor)) != self._state:
            raise ChangedError


def _write_back(descriptor: int, offset: int, length: int) -> None:
    """Have the kernel write to the disk what is dirty in this stretch of a file.

    A program that maps a file (torrent programs do) moves its times by the first store
    into a clean page; later ones leave no trace until the page is clean again, which
    takes half a minute. What is hashed must be clean, so that the next store is seen.
    Not on tmpfs and overlayfs, which have nothing to write here.
    """
    # os has no sync_file_range. Errors are the writer's to hear of.
    with contextlib.suppress(AttributeError):
        _libc.sync_file_range(
            descriptor, ctypes.c_int64(offset), ctypes.c_int64(length), _WRITE_AND_WAIT
        )


def _is_cached(descriptor: int, offset: int) -> bool:
    """Whether the page cache has the byte at *offset*; asking brings in its page at most.

    ``preadv2(2)``, ``RWF_NOWAIT``. mincore(2) would do as well, but tells the
    truth only to those who may write the file.
    """
    try:
        return os.preadv(descriptor, [bytearray(1)], offset, os.RWF_NOWAIT) == 1
    except OSError:
        return False


def hash_file(
    path: bytes, state: FileState, progress: Callable[[int], None] | None = None
) -> Checksums:
    """The checksums of a whole file, here and now; *progress* hears of bytes done."""
    hasher = FileHasher(path, state)
    try:
        done = 0
        while (checksums := hasher.advance(SLICE)) is None:
            if progress:
                progress(hasher.offset - done)
            done = hasher.offset
        if progress:
            progress(hasher.offset - done)
        return checksums
    finally:
        hasher.close()


class Sink(Protocol):
    """Who wants the results."""

    async def hashed(self, file: SourceFile, checksums: Checksums, owners: set[bytes]) -> None:
        """*file*, queued for *owners*, has *checksums*."""

    async def failed(self, file: SourceFile, error: Exception, owners: set[bytes]) -> None:
        """It has none, because of *error* (:exc:`ChangedError`, :exc:`OSError`)."""


_Key = tuple[bytes, FileState]


@dataclass
class _Job:
    """A file in the queue, and how far it is."""

    file: SourceFile
    owners: set[bytes]
    background: bool
    hasher: FileHasher | None = None
    offset: int = 0


class Hasher:
    """The queue, and the task that works it off: :meth:`run`.

    *absolute* gives the absolute path of a source. A file of which nothing could be
    read for *patience* seconds is given up.
    """

    def __init__(self, absolute: Callable[[bytes], bytes], patience: float | None = None) -> None:
        self._absolute = absolute
        self._patience = patience
        self._stuck: set[bytes] = set()
        """Sources that a thread is stuck in."""
        self._open: _Job | None = None
        """The one whose file may be open: R4, however many have been begun."""
        self._jobs: dict[_Key, _Job] = {}
        # (background, size, number, key); a job moved to the front leaves its
        # first place behind, which is passed over when its turn comes.
        self._heap: list[tuple[bool, int, int, _Key]] = []
        self._numbers = itertools.count()
        self._wakeup = trio.Event()
        self.pending_bytes = 0

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, file: SourceFile, owner: bytes, *, asked: bool) -> None:
        """Queue *file*, or move it to the front if it is there and now *asked* for."""
        key = (file.source, file.state)
        job = self._jobs.get(key)
        if job is None:
            job = self._jobs[key] = _Job(file, {owner}, not asked)
            self.pending_bytes += file.state.size
        else:
            job.owners.add(owner)
            if not (asked and job.background):
                return
            job.background = False
        place = (job.background, file.state.size, next(self._numbers), key)
        heapq.heappush(self._heap, place)
        self._wakeup.set()

    async def run(self, sink: Sink) -> None:
        """Hash for ever, one slice after the other of whatever is most urgent."""
        worker = Worker()
        try:
            while True:
                job = self._next()
                if job is None:
                    self._wakeup = trio.Event()
                    await self._wakeup.wait()
                    continue
                try:
                    await self._advance(worker, job, sink)
                except Exception:
                    # H4: nothing unexpected ends the mount. The file stays unhashed.
                    log.exception("unexpected error while hashing a file")
                    self._drop(job)
                if worker.busy:  # a disk doesn't answer; others may
                    worker.stop()
                    worker = Worker()
        finally:
            worker.stop()

    def _next(self) -> _Job | None:
        while self._heap:
            background, _, _, key = self._heap[0]
            job = self._jobs.get(key)
            if job and job.background == background:
                return job
            heapq.heappop(self._heap)
        return None

    async def _advance(self, worker: Worker, job: _Job, sink: Sink) -> None:
        """Hash one slice of *job*, which keeps its progress if it is overtaken then."""
        source = job.file.source
        other = self._open.hasher if self._open and self._open is not job else None

        def work() -> Checksums | None:
            if other:
                other.close()
            if job.hasher is None:
                job.hasher = FileHasher(self._absolute(source), job.file.state)
            try:
                checksums = job.hasher.advance(SLICE)
            except BaseException:
                job.hasher.close()
                raise
            if checksums:
                job.hasher.close()
            return checksums

        def late() -> None:  # in the thread, which nobody waits for any more
            if job.hasher:
                job.hasher.close()

        def progress() -> int:
            return job.hasher.offset if job.hasher else -1

        try:
            if source in self._stuck:
                raise timed_out()
            self._open = job
            checksums = await worker.call(
                work, progress, self._patience, late, lambda: self._stuck.discard(source)
            )
        except (ChangedError, OSError) as error:
            if worker.busy:
                self._stuck.add(source)
                self._open = None
            self._drop(job)
            await sink.failed(job.file, error, job.owners)
            return
        if checksums:
            self._drop(job)
            await sink.hashed(job.file, checksums, job.owners)
        elif job.hasher:
            self.pending_bytes -= job.hasher.offset - job.offset
            job.offset = job.hasher.offset

    def _drop(self, job: _Job) -> None:
        key = (job.file.source, job.file.state)
        if self._jobs.get(key) is job:  # and not another one that was queued meanwhile
            del self._jobs[key]
            self.pending_bytes -= job.file.state.size - job.offset
