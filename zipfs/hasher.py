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
import errno
import functools
import heapq
import itertools
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Final, Protocol, TypeVar

import outcome
import trio
import xxhash
from isal import isal_zlib

from zipfs.errors import ChangedError
from zipfs.filestate import BLOCK, Checksums, FileState
from zipfs.library import SourceFile

log = logging.getLogger(__name__)

SLICE: Final = 64 << 20
"""Bytes hashed between two looks at the queue: 5 ms from the page cache, half a
second from a slow disk."""
_WINDOW: Final = 8 << 20
"""Bytes for which the page cache is looked at, and emptied, at once."""
_PROBED: Final = 8
"""How many windows are looked at ahead of need: further than the kernel reads ahead
(8 MiB on some disks), so that what it brings in for us isn't taken for others'."""

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
        # O_NONBLOCK: should the path have become a FIFO, the open must not wait.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            self._descriptor = os.open(path, flags)
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
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):  # read only: there is nothing to lose
                os.close(self._descriptor)
            self._descriptor = -1

    def advance(self, limit: int) -> Checksums | None:
        """Hash about *limit* more bytes; the checksums, once all is done."""
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

    *absolute* gives the absolute path of a source.
    """

    def __init__(self, absolute: Callable[[bytes], bytes]) -> None:
        self._absolute = absolute
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
        worker = _Worker()
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
        finally:
            worker.stop(functools.partial(_close_all, list(self._jobs.values())))

    def _next(self) -> _Job | None:
        while self._heap:
            background, _, _, key = self._heap[0]
            job = self._jobs.get(key)
            if job and job.background == background:
                return job
            heapq.heappop(self._heap)
        return None

    async def _advance(self, worker: _Worker, job: _Job, sink: Sink) -> None:
        """Hash one slice of *job*, which keeps its progress if it is overtaken then."""

        def work() -> Checksums | None:
            if job.hasher is None:
                job.hasher = FileHasher(self._absolute(job.file.source), job.file.state)
            try:
                checksums = job.hasher.advance(SLICE)
            except BaseException:
                job.hasher.close()
                raise
            if checksums:
                job.hasher.close()
            return checksums

        try:
            checksums = await worker.call(work)
        except (ChangedError, OSError) as error:
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


def _close_all(jobs: list[_Job]) -> None:
    for job in jobs:
        if job.hasher:
            job.hasher.close()


class _Worker:
    """A thread of its own, because its low priority can't be taken back.

    A daemon thread: should a dead disk hold it, it doesn't hold up our end.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        threading.Thread(target=self._run, name="zipfs-hasher", daemon=True).start()

    def stop(self, last: Callable[[], None]) -> None:
        """End after one more call, *last*; what is under way is not waited for."""
        self._calls.put(last)
        self._calls.put(None)

    async def call(self, function: Callable[[], T]) -> T:
        token = trio.lowlevel.current_trio_token()
        done = trio.Event()
        result: outcome.Outcome[T]

        def call() -> None:
            nonlocal result
            result = outcome.capture(function)
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(done.set)

        self._calls.put(call)
        await done.wait()
        return result.unwrap()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        while call := self._calls.get():
            call()
