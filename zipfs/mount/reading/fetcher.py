"""Blocks of files read by many threads, for who waits for them, or before anybody asks.

It only makes reading quicker: nothing that is handed out comes from here. Where the content
vouches for bytes, a block is proven by its checksum and kept with the others
(:mod:`zipfs.library.proven`); it is the version's whatever happens to its file, and is handed out
for as long as one that was read on demand. Where the state vouches, the file is read once, so that
the source or the kernel has it in memory, and stays open; a request reads it again, and compares
its state afterwards, as ever (:mod:`zipfs.library.files`). So a change is noticed as soon as
without it (DESIGN R1, R2). What fails here is tried again by who asks for it, and told to him.

Threads are bounded, for all contents and for each (:mod:`zipfs.system.measuring.gauge`). One that
waits for a source for long holds its place among those of its own content only (R3).
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import trio

from zipfs.errors import ChangedError
from zipfs.library.files import close_all, key_of, open_file, prove_block, read_through
from zipfs.library.filestate import BLOCK
from zipfs.library.proven import ProvenBlocks
from zipfs.library.scan import SourceFile
from zipfs.mount.fd_pool import FdPool, OpenFile
from zipfs.system.folders import Folders
from zipfs.system.syscalls import READ_FILE

if TYPE_CHECKING:
    from zipfs.mount.reading.ahead import Ahead

log = logging.getLogger(__name__)

_LONG: Final = 1.0
"""Seconds in one block after which a thread doesn't count among those for all contents."""

_TOGETHER: Final = 16
"""Blocks that have ended of which trio's thread is told together."""

Block = tuple[int, int]
"""Number of a source, and the offset of the block in it."""


class Waiting:
    """Somebody who waits for *left* blocks."""

    __slots__ = ("done", "left")

    def __init__(self) -> None:
        self.left = 0
        self.done = trio.Event()


class Job:
    """A block to be read. *digest*: prove it; None: read it through, and keep the file open.

    *file* is open in the pool, *room* what was reserved there for it.
    """

    __slots__ = (
        "block", "descriptor", "digest", "file", "is_done", "is_unanswered", "length", "owner",
        "room", "source", "taken", "waiting",
    )  # fmt: skip

    def __init__(
        self, owner: Ahead, block: Block, source: SourceFile, digest: bytes | None
    ) -> None:
        self.owner = owner
        self.block = block
        self.source = source
        self.digest = digest
        self.length = min(BLOCK, source.state.size - block[1])
        self.file: OpenFile | None = None
        self.room = 0
        self.descriptor = -1
        """The file, opened for the pool."""
        self.taken = False
        """Whether a thread has begun it, or it was given up."""
        self.is_done = False
        """Whether a thread has ended it. Under the lock, as is who waits for it."""
        self.is_unanswered = False
        """Whether it has ended as the source doesn't answer."""
        self.waiting: list[Waiting] = []


class _Thread:
    __slots__ = ("job", "since", "token")

    def __init__(self) -> None:
        self.job: Job | None = None
        self.since = 0.0
        self.token = trio.lowlevel.current_trio_token()


class Fetcher:
    """Up to *count* threads for all contents, and up to *spare* more in place of hung ones."""

    def __init__(
        self,
        absolute: Callable[[bytes], bytes],
        folders: Folders,
        proven: ProvenBlocks,
        pool: FdPool,
        count: int,
        *,
        spare: int = 0,
        patience: float | None = None,
    ) -> None:
        self.count = count
        self.proven: Final = proven
        self.pool: Final = pool
        self.patience: Final = patience
        self.lock: Final = threading.Lock()
        self._absolute = absolute
        self._folders = folders
        self._spare = spare
        self._threads: set[_Thread] = set()
        self._ready: deque[Ahead] = deque()
        """Those that have jobs and may have another thread."""
        self._finished: list[Job] = []
        self.owners = 0
        """Number of contents that read ahead."""

    @property
    def stuck(self) -> int:
        """Number of threads that wait for a disk that doesn't answer."""
        return self._older_than(self.patience) if self.patience else 0

    def is_stuck(self, owner: Ahead) -> bool:
        """Whether one of them works for *owner*."""
        return self.patience is not None and self._older_than(self.patience, owner) > 0

    def _older_than(self, seconds: float, owner: Ahead | None = None) -> int:
        until = time.monotonic() - seconds
        jobs = [thread.job for thread in list(self._threads) if thread.since < until]
        return sum(job is not None and owner in (None, job.owner) for job in jobs)

    # -- In trio's thread ------------------------------------------------------

    def start(self, owner: Ahead) -> bool:
        """See that threads work on the jobs of *owner*; whether any does, or will."""
        with self.lock:
            if not owner.is_ready:
                owner.is_ready = True
                self._ready.append(owner)
            self._grow()
            return owner.running > 0 or len(self._threads) > self._older_than(_LONG)

    def _grow(self) -> None:
        """Start as many threads as there are jobs for, and as there may be; under the lock."""
        wanted = sum(owner.wanted for owner in self._ready)
        hung = min(self._spare, self._older_than(_LONG))
        idle = sum(thread.job is None for thread in self._threads)
        for _ in range(min(wanted - idle, self.count + hung - len(self._threads))):
            thread = _Thread()
            self._threads.add(thread)
            try:
                trio.lowlevel.start_thread_soon(functools.partial(self._work, thread), _ended)
            except RuntimeError:  # the process may have no more threads
                self._threads.discard(thread)
                break

    def _collect(self) -> None:
        """What ended goes to the pool, and who waits goes on."""
        with self.lock:
            finished, self._finished = self._finished, []
            self._grow()
        for job in finished:
            try:
                self._settle(job)
            except Exception:
                log.exception("unexpected error while reading ahead")  # H4: it would end the mount
            for waiting in job.waiting:
                if not waiting.left:
                    waiting.done.set()

    def _settle(self, job: Job) -> None:
        self.give_back(job)
        if job.descriptor >= 0:
            self.pool.adopt(key_of(job.source), job.descriptor)
        job.owner.finished(job)

    def give_back(self, job: Job) -> None:
        """Return what the pool has lent for *job*."""
        if job.file:
            job.file.users -= 1
            job.file = None
        self.pool.release(job.room)
        job.room = 0

    # -- In the threads --------------------------------------------------------

    def _work(self, thread: _Thread) -> None:
        scratch: memoryview | None = None
        while True:
            with self.lock:
                job = self._next()
                thread.job = job
                if job is None:
                    self._threads.discard(thread)
                    if self._finished:
                        self._wake(thread)
                    return
                thread.since = started = time.monotonic()
            try:
                if job.digest is None and scratch is None:
                    scratch = memoryview(bytearray(BLOCK))
                self._fetch(job, scratch)
            except TimeoutError:  # as a soft NFS mount gives
                job.is_unanswered = True
            except (ChangedError, OSError):
                pass  # who asks for it is told
            except Exception:
                log.exception("unexpected error while reading ahead")  # H4
            now = time.monotonic()
            with self.lock:
                is_awaited = self._end(job, now - started, now)
            if is_awaited:
                self._wake(thread)

    def _wake(self, thread: _Thread) -> None:
        with contextlib.suppress(trio.RunFinishedError):
            thread.token.run_sync_soon(self._collect, idempotent=True)

    def _end(self, job: Job, seconds: float, now: float) -> bool:
        """Note that *job* has ended; whether trio's thread has to know now. Under the lock.

        It is woken for many at a time: that costs as much as to read a small file.
        """
        owner = job.owner
        owner.running -= 1
        owner.took(job, seconds, now)
        if owner.wanted and not owner.is_ready:
            owner.is_ready = True
            self._ready.append(owner)
        self._finished.append(job)
        job.is_done = True
        is_awaited = len(self._finished) >= _TOGETHER or not self._ready
        for waiting in job.waiting:
            waiting.left -= 1
            is_awaited |= not waiting.left
        return is_awaited

    def _next(self) -> Job | None:
        """The next job, of each content in turn."""
        while self._ready:
            owner = self._ready.popleft()
            job = owner.take() if owner.wanted else None
            if job is None or not owner.wanted:
                owner.is_ready = False
            else:
                self._ready.append(owner)
            if job:
                owner.running += 1
                return job
        return None

    def _fetch(self, job: Job, scratch: memoryview | None) -> None:
        source, (_, start) = job.source, job.block
        if job.file:
            descriptor = job.file.descriptor
        elif job.digest is not None and source.state.size <= BLOCK:
            # Its only block: its content says all that there is to know.
            descriptor = self._folders.open(self._absolute(source.source), READ_FILE)
        else:
            provable = job.owner.provable
            descriptor = open_file(self._absolute, source, provable=provable, folders=self._folders)
        try:
            if job.digest is not None:
                prove_block(descriptor, source, job.digest, self.proven, start)
            elif scratch is not None:
                read_through(descriptor, scratch[: job.length], start)
            if job.room:
                job.descriptor = descriptor
        finally:
            if not job.file and job.descriptor < 0:
                close_all([descriptor])


def _ended(_result: object) -> None:
    """Nothing: a thread has nothing to tell at its end."""
