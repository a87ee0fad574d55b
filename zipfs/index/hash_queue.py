"""The queue of files to be hashed in the background.

What was asked for comes first, then the smallest. One file is hashed at a time, slice by
slice in a process of its own (:mod:`zipfs.index.hash_process`), so that a file just asked
for waits for one slice of a big one, and never for all of it. Small files are handed over many at
once.

A process that hangs in a disk that doesn't answer is left behind, and another one goes on
with other files. The same goes for one that was killed; what it knew of files that it had
begun is lost then, and those are begun again.
"""

from __future__ import annotations

import errno
import heapq
import itertools
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import trio

from zipfs.errors import ChangedError
from zipfs.index.hash_client import LostError, Worker
from zipfs.index.hash_file import SLICE
from zipfs.index.hash_process import At, Done, Failed, Unexpected
from zipfs.library.filestate import BLOCK, Checksums, FileState
from zipfs.library.scan import SourceFile
from zipfs.system.lanes import timed_out
from zipfs.system.rates import Speed
from zipfs.text import shown

log = logging.getLogger(__name__)

_MANY: Final = 256
"""Files handed over at once; a round trip for each costs as much as to hash a small one."""
_IDLE: Final = 30.0
"""Seconds without work after which the process ends, to give its memory back."""
_TRIES: Final = 3
"""How many processes may die of a file before it is taken for unreadable."""
_PAUSES: Final = (0.0, 1.0, 5.0, 30.0)
"""Seconds until the next process is started, as they fail one after the other."""
_MAX_LEFT: Final = 64
"""Processes that may hang in dead disks at a time; each holds its memory."""
_END: Final = 1.0
"""Seconds that the daemon's end waits for a process."""


class UnexpectedError(Exception):
    """An exception in the process that hashes; its traceback is the argument."""


class Request:
    """Files that one game waits for.

    *done* is set when each of them has its checksums or was refused to us
    (:exc:`PermissionError`), and as soon as one failed otherwise (:exc:`ChangedError`,
    :exc:`OSError`, :exc:`UnexpectedError`). *failures* are those that have none.
    """

    __slots__ = ("_pending", "done", "failures", "files")

    def __init__(self, files: Sequence[SourceFile]) -> None:
        self.files = files
        self.done = trio.Event()
        self.failures: list[tuple[SourceFile, Exception]] = []
        self._pending = 0
        """How many of them are in the queue."""

    def join(self, job: _Job) -> None:
        """Wait for *job* too."""
        if self not in job.requests:
            job.requests.append(self)
            self._pending += 1

    def settle(self, file: SourceFile, error: Exception | None) -> None:
        """*file* has its checksums, or *error* is why it has none."""
        self._pending -= 1
        if error:
            self.failures.append((file, error))
        if not self._pending or (error and not isinstance(error, PermissionError)):
            self.done.set()


_Key = tuple[bytes, FileState]
_Place = tuple[bool, int, int, _Key]
"""In the queue: whether in the background, size, number, and which file."""


@dataclass(eq=False, slots=True)
class _Job:
    """A file in the queue, and how far it is."""

    number: int
    file: SourceFile
    background: bool
    requests: list[Request] = field(default_factory=list)
    """Whoever waits for it; nobody if the game was examined again meanwhile."""
    offset: int = 0
    died: int = 0
    """How many processes ended at this file."""

    @property
    def key(self) -> _Key:
        return self.file.source, self.file.state


class Hasher:
    """The queue, and the task that works it off: :meth:`run`.

    *absolute* gives the absolute path of a source; *keep* stores the checksums of a file. A
    file of which nothing could be read for *patience* seconds is given up. *rate* limits the
    bytes read per second; 0 is no limit.
    """

    def __init__(
        self,
        absolute: Callable[[bytes], bytes],
        keep: Callable[[SourceFile, Checksums], Awaitable[None]],
        patience: float | None = None,
        rate: float = 0.0,
    ) -> None:
        self._absolute = absolute
        self._keep = keep
        self._patience = patience
        self._rate = rate
        self._jobs: dict[_Key, _Job] = {}
        self._begun: set[_Job] = set()
        """Those of which the process knows a part."""
        # A job moved to the front leaves its first place behind, which is passed over when its
        # turn comes.
        self._heap: list[_Place] = []
        self._numbers = itertools.count()
        self._wakeup = trio.Event()
        self._worker: Worker | None = None
        self._stuck: set[bytes] = set()
        """Sources that a process hangs in, each a process of its own."""
        self._back = trio.lowlevel.ParkingLot()
        """Who waits for one of them to come back."""
        self._failures = 0
        """How many processes were of no use, one after the other."""
        self.pending_bytes = 0
        self.speed: Final = Speed()
        """How fast the files of the queue are hashed."""

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def stuck(self) -> int:
        """How many processes hang in a disk that doesn't answer."""
        return len(self._stuck)

    def request(self, files: Sequence[SourceFile], *, asked: bool = False) -> Request:
        """Queue *files*; *asked* puts them, also those queued before, to the front.

        A file that several requests name is hashed once.
        """
        request = Request(files)
        for file in files:
            key = (file.source, file.state)
            job = self._jobs.get(key)
            if job is None:
                job = self._jobs[key] = _Job(next(self._numbers), file, not asked)
                self.pending_bytes += file.state.size
                self._queue(job)
            request.join(job)
        if asked:
            self.hurry(request)
        self._wakeup.set()
        return request

    def hurry(self, request: Request) -> None:
        """Move the files of *request* to the front of the queue."""
        for job in self._jobs_of(request):
            if job.background:
                job.background = False
                self._queue(job)

    def withdraw(self, request: Request) -> None:
        """Nobody waits for *request* any more; its files stay in the queue."""
        for job in self._jobs_of(request):
            if request in job.requests:
                job.requests.remove(request)

    def _jobs_of(self, request: Request) -> Iterator[_Job]:
        for file in request.files:
            if job := self._jobs.get((file.source, file.state)):
                yield job

    def _queue(self, job: _Job) -> None:
        place = (job.background, job.file.state.size, next(self._numbers), job.key)
        heapq.heappush(self._heap, place)

    async def run(self) -> None:
        """Hash for ever, one slice after the other of whatever is most urgent."""
        async with trio.open_nursery() as nursery:
            try:
                while True:
                    if jobs := self._next():
                        self.speed.begin(time.monotonic())
                        await self._work(jobs, nursery)
                    else:
                        self.speed.rest()
                        await self._rest(nursery)
            finally:
                if worker := self._worker:
                    self._worker = None
                    worker.kill()
                    with trio.move_on_after(_END) as scope:
                        scope.shield = True
                        await worker.gone()

    async def _rest(self, nursery: trio.Nursery) -> None:
        """Wait until there is something to do."""
        self._wakeup = trio.Event()
        with trio.move_on_after(_IDLE):
            await self._wakeup.wait()
        if not self._wakeup.is_set() and self._worker:
            self._worker.dismiss()
            nursery.start_soon(self._worker.gone)
            self._worker = None
        await self._wakeup.wait()

    def _next(self) -> list[_Job]:
        """The most urgent jobs, as many as make a slice; they leave the heap, not the queue."""
        jobs: dict[_Key, _Job] = {}
        size = 0
        while self._heap and len(jobs) < _MANY:
            background, _, _, key = self._heap[0]
            job = self._jobs.get(key)
            if job and job.background == background and key not in jobs:
                size += job.file.state.size - job.offset
                if jobs and size > SLICE:
                    break
                jobs[key] = job
            heapq.heappop(self._heap)
        return list(jobs.values())

    async def _work(self, jobs: Sequence[_Job], nursery: trio.Nursery) -> None:
        """Hash a slice of *jobs*, one after the other; what isn't done goes back to its place."""
        todo = {job.number: job for job in jobs}
        try:
            for job in jobs:
                if job.file.source in self._stuck:
                    del todo[job.number]
                    await self._settle(job, timed_out())
            if todo:
                await self._ask(todo, nursery)
        except Exception:
            # H4: nothing unexpected ends the mount.
            log.exception("unexpected error while talking to the process that hashes")
            if self._worker:
                nursery.start_soon(self._leave, self._worker, None)
                self._dismiss(self._worker)
            await self._pause()
        finally:
            for job in todo.values():
                if self._jobs.get(job.key) is job:
                    self._queue(job)

    async def _ask(self, todo: dict[int, _Job], nursery: trio.Nursery) -> None:
        """Have *todo* hashed; whatever is done is taken out of it."""
        worker = self._worker
        if worker is None:
            while len(self._stuck) >= _MAX_LEFT:
                await self._back.park()
            try:
                worker = self._worker = Worker()
            except OSError as error:
                await self._pause(error.strerror or str(error))
                return
        limit = max(BLOCK, min(SLICE, int(self._rate))) if self._rate else SLICE
        files = [(n, self._absolute(job.file.source), job.file) for n, job in todo.items()]
        try:
            await worker.ask(files, limit, self._rate, self._patience)
            while answer := await worker.answer(self._patience):
                self._failures = 0
                job = todo[answer.number]
                if isinstance(answer, At):
                    self._move(job, answer.offset)
                    continue
                del todo[answer.number]
                await self._settle(job, _result_of(answer))
        except TimeoutError as error:
            self._dismiss(worker)
            culprit = todo.pop(next(iter(todo))) if todo else None
            source = culprit.file.source if culprit else None
            nursery.start_soon(self._leave, worker, source)
            if culprit is not None:
                self._stuck.add(culprit.file.source)
                await self._settle(culprit, error)
        except LostError:
            self._dismiss(worker)
            how = await worker.gone()
            if not worker.has_started:
                await self._pause(how)
                return
            self._failures = 0
            if todo:
                number, job = next(iter(todo.items()))
                job.died += 1
                log.warning("hashing %s: the process has %s", shown(job.file.source), how)
                if job.died == _TRIES:
                    del todo[number]
                    await self._settle(job, OSError(errno.EIO, os.strerror(errno.EIO)))

    def _dismiss(self, worker: Worker) -> None:
        """No more of *worker*; what it has begun is begun again."""
        worker.kill()
        self._worker = None
        for job in list(self._begun):
            self._move(job, 0)
        self._begun.clear()

    async def _leave(self, worker: Worker, source: bytes | None) -> None:
        """Wait until *worker* comes back from *source*, a file whose disk doesn't answer."""
        await worker.gone()
        if source is not None:
            self._stuck.discard(source)
            self._back.unpark_all()

    async def _pause(self, why: str = "") -> None:
        """The last process was of no use, because of *why*: don't start one after the other."""
        seconds = _PAUSES[min(self._failures, len(_PAUSES) - 1)]
        self._failures += 1
        if why and self._failures == 2:  # the first may be a moment's weakness
            log.error("the process that hashes doesn't start, and so nothing is sealed: %s", why)
        await trio.sleep(seconds)

    def _move(self, job: _Job, offset: int) -> None:
        """*job* is at *offset* now."""
        self.pending_bytes -= offset - job.offset
        self.speed.add(max(0, offset - job.offset), time.monotonic())
        job.offset = offset
        self._begun.add(job)

    async def _settle(self, job: _Job, result: Checksums | Exception) -> None:
        """Keep the *result* of *job*, and tell who waits for it."""
        if isinstance(result, Checksums):
            self.speed.add(job.file.state.size - job.offset, time.monotonic())
        if self._jobs.get(job.key) is job:  # and not another one that was queued meanwhile
            del self._jobs[job.key]
            self.pending_bytes -= job.file.state.size - job.offset
        self._begun.discard(job)
        error = result if isinstance(result, Exception) else None
        try:
            if isinstance(result, Checksums):
                await self._keep(job.file, result)
            elif isinstance(result, UnexpectedError):
                raise result
        except Exception as unexpected:
            # H4: nothing unexpected ends the mount. The file stays unhashed.
            log.exception("unexpected error while hashing a file")
            error = unexpected
        for request in job.requests:
            request.settle(job.file, error)


def _result_of(answer: Done | Failed | Unexpected) -> Checksums | Exception:
    if isinstance(answer, Done):
        return answer.checksums
    if isinstance(answer, Unexpected):
        return UnexpectedError(answer.traceback)
    # The errno makes it a PermissionError, or whichever it is.
    return OSError(answer.error, answer.reason) if answer.error else ChangedError()
