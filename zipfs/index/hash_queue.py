"""The queue of files to be hashed in the background.

Order (:class:`Rank`): first the files of archives that a program accesses (*asked*, DESIGN S2),
then those of the other archives, then single files; the smallest first. One file is hashed at a
time, in slices, in a process of its own (:mod:`zipfs.index.hash_process`), so that an urgent file
waits for one slice of a big file and not for all of it. Small files are sent in batches.

A process that hangs in a disk that doesn't answer is abandoned, and another one continues with
other files. A process that was killed is replaced as well. The state of unfinished files is
lost with a process, and they are started again.
"""

from __future__ import annotations

import errno
import heapq
import itertools
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Final

import trio

from zipfs.errors import ChangedError
from zipfs.index.gate import Gate
from zipfs.index.hash_client import LostError, Worker
from zipfs.index.hash_file import SLICE
from zipfs.index.hash_jobs import Job, Key, Position, Rank, Request, UnexpectedError
from zipfs.index.hash_messages import At, Done, Failed, Unexpected
from zipfs.library.filestate import BLOCK, Checksums
from zipfs.library.scan import SourceFile
from zipfs.system.rates import Speed
from zipfs.system.threads.lanes import timed_out
from zipfs.text import shown

log = logging.getLogger(__name__)

_MANY: Final = 256
"""Maximum number of files in one job; a round trip costs as much as hashing a small file."""
_IDLE: Final = 30.0
"""Seconds without work after which the process ends, to free its memory."""
_TRIES: Final = 3
"""Number of processes that die at a file before it counts as unreadable."""
_PAUSES: Final = (0.0, 1.0, 5.0, 30.0)
"""Seconds before the next process is started, by the number of failures in a row."""
_MAX_STUCK: Final = 64
"""Maximum number of processes that hang in dead disks; each holds its memory."""
_END: Final = 1.0
"""Seconds to wait for the process when the daemon ends."""


def _nobody() -> None:
    """Nobody is told."""


class Hasher:
    """The queue, and the task that processes it: :meth:`run`.

    *absolute* returns the absolute path of a source; *keep* stores the checksums of a file. A
    file of which nothing could be read for *patience* seconds fails with :exc:`TimeoutError`.
    *rate* is the maximum rate of reading in bytes per second; 0: unlimited. *gate*: see there.
    *parallel* small files are hashed at a time; None: as many as make the source quicker.
    """

    def __init__(
        self,
        absolute: Callable[[bytes], bytes],
        keep: Callable[[SourceFile, Checksums], Awaitable[None]],
        patience: float | None = None,
        rate: float = 0.0,
        gate: Gate | None = None,
        *,
        parallel: int | None = None,
    ) -> None:
        self._gate = gate
        self._absolute = absolute
        self._keep = keep
        self._patience = patience
        self.rate: Final = rate
        self._parallel = parallel
        self._jobs: dict[Key, Job] = {}
        self._unfinished: set[Job] = set()
        """Jobs that the process has started and not finished."""
        # A job moved to the front leaves its first place in the heap; `_next` ignores it.
        self._heap: list[Position] = []
        self._admitted: list[Position] = []
        """The same, of those that a gate has admitted."""
        self._numbers = itertools.count()
        self._wakeup = trio.Event()
        self._worker: Worker | None = None
        self._stuck: set[bytes] = set()
        """Sources in which a process hangs, one process each."""
        self._unstuck = trio.lowlevel.ParkingLot()
        """Tasks that wait for one of these processes to end."""
        self._failures = 0
        """Number of processes in a row without a single answer."""
        self.pending_bytes = 0
        self.speed: Final = Speed()
        """Speed of hashing the files of the queue."""

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def stuck(self) -> int:
        """Number of processes that hang in a disk that doesn't answer."""
        return len(self._stuck)

    def request(
        self,
        files: Sequence[SourceFile],
        done: Callable[[], object] = _nobody,
        *,
        asked: bool = False,
        rank: Rank = Rank.MEMBER,
    ) -> Request:
        """Queue *files* with that *rank*, even those that are queued already with a later one.

        *done* is called as soon as the request is. *asked* stands for the first rank. A file of
        several requests is hashed once.
        """
        if asked:
            rank = Rank.ASKED
        request = Request(files, done)
        for file in files:
            key = (file.source, file.state)
            job = self._jobs.get(key)
            if job is None:
                job = self._jobs[key] = Job(next(self._numbers), file, rank)
                self.pending_bytes += file.state.size
                self._queue(job)
            request.join(job)
        self._advance(request, rank)
        self._wakeup.set()
        return request

    def hurry(self, request: Request) -> None:
        """Move the files of *request* to the front of the queue."""
        self._advance(request, Rank.ASKED)

    def _advance(self, request: Request, rank: Rank) -> None:
        for job in self._jobs_of(request):
            if rank < job.rank:
                job.rank = rank
                self._queue(job)
            if self._gate and rank is Rank.ASKED:
                self._gate.hurry(job.file)  # now, whatever is being hashed here

    def withdraw(self, request: Request) -> None:
        """Record that nobody waits for *request* any more; its files stay in the queue."""
        for job in self._jobs_of(request):
            if request in job.requests:
                job.requests.remove(request)

    def admit(self, file: SourceFile, rank: Rank = Rank.SINGLE) -> None:
        """Ask the gate for *file* again, which is queued with that *rank* if it isn't yet."""
        self.withdraw(self.request([file], rank=rank))
        job = self._jobs[file.source, file.state]
        job.is_admitted = True
        self._queue(job)

    def known(self, files: Iterable[Key]) -> None:
        """The checksums of *files* are in the index: they needn't be hashed any more."""
        for key in files:
            if job := self._jobs.pop(key, None):
                self.pending_bytes -= job.file.state.size - job.offset
                for request in job.requests:
                    request.finish(job.file, None)
                job.requests.clear()
        self._wakeup.set()  # there may be room behind the gate

    def _jobs_of(self, request: Request) -> Iterator[Job]:
        for file in request.files:
            if job := self._jobs.get((file.source, file.state)):
                yield job

    def _queue(self, job: Job) -> None:
        place = (job.rank, job.file.state.size, next(self._numbers), job.key)
        heapq.heappush(self._admitted if job.is_admitted else self._heap, place)

    async def run(self) -> None:
        """Hash until cancelled, always a slice of the most urgent files."""
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
        """Wait until a file is queued; ends an idle process."""
        self._wakeup = trio.Event()
        with trio.move_on_after(_IDLE):
            await self._wakeup.wait()
        if not self._wakeup.is_set() and self._worker:
            self._worker.dismiss()
            nursery.start_soon(self._worker.gone)
            self._worker = None
        await self._wakeup.wait()

    def _next(self) -> list[Job]:
        """The most urgent jobs, about a slice in total; removed from the heap, not the queue."""
        jobs: dict[Key, Job] = {}
        size = 0
        while len(jobs) < _MANY and (heap := self._first()):
            rank, _, _, key = heap[0]
            job = self._jobs.get(key)
            if job and job.rank == rank and key not in jobs and self._may(job):
                size += job.file.state.size - job.offset
                if jobs and size > SLICE:
                    break
                jobs[key] = job
            heapq.heappop(heap)
        return list(jobs.values())

    def _first(self) -> list[Position] | None:
        """The heap that has the most urgent job; None if there is none."""
        heap = self._heap
        if self._gate and heap and self._gate.is_full(heap[0][0]):
            heap = []
        if heap and not (self._admitted and self._admitted[0] < heap[0]):
            return heap
        return self._admitted or None

    def _may(self, job: Job) -> bool:
        """Whether *job* is to be hashed here; if not, it is in no heap until it is."""
        if self._gate is None or self._gate.admits(job.file, job.rank):
            return True
        job.is_admitted = False
        return False

    async def _work(self, jobs: Sequence[Job], nursery: trio.Nursery) -> None:
        """Hash a slice of *jobs*, in order; unfinished ones return to the heap."""
        todo = {job.number: job for job in jobs}
        try:
            for job in jobs:
                if job.file.source in self._stuck:
                    del todo[job.number]
                    await self._finish(job, timed_out())
            if todo:
                await self._ask(todo, nursery)
        except Exception:
            # H4: an unexpected error doesn't end the mount.
            log.exception("unexpected error while talking to the process that hashes")
            if self._worker:
                nursery.start_soon(self._await_end, self._worker, None)
                self._dismiss(self._worker)
            await self._pause()
        finally:
            for job in todo.values():
                if self._jobs.get(job.key) is job:
                    self._queue(job)

    async def _ask(self, todo: dict[int, Job], nursery: trio.Nursery) -> None:
        """Let the process hash *todo*; finished jobs are removed from it."""
        worker = self._worker
        if worker is None:
            while len(self._stuck) >= _MAX_STUCK:
                await self._unstuck.park()
            try:
                worker = self._worker = Worker()
            except OSError as error:
                await self._pause(error.strerror or str(error))
                return
        limit = max(BLOCK, min(SLICE, int(self.rate))) if self.rate else SLICE
        files = [(n, self._absolute(job.file.source), job.file) for n, job in todo.items()]
        try:
            await worker.ask(files, limit, self.rate, self._patience, self._parallel or 0)
            while answer := await worker.answer(self._patience):
                self._failures = 0
                job = todo[answer.number]
                if isinstance(answer, At):
                    self._move(job, answer.offset)
                    continue
                del todo[answer.number]
                await self._finish(job, _result_of(answer))
        except TimeoutError as error:
            self._dismiss(worker)
            culprit = todo.pop(next(iter(todo))) if todo else None
            source = culprit.file.source if culprit else None
            nursery.start_soon(self._await_end, worker, source)
            if culprit is not None:
                self._stuck.add(culprit.file.source)
                await self._finish(culprit, error)
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
                    await self._finish(job, OSError(errno.EIO, os.strerror(errno.EIO)))

    def _dismiss(self, worker: Worker) -> None:
        """Kill *worker*; the files that it has started are started again."""
        worker.kill()
        self._worker = None
        for job in list(self._unfinished):
            self._move(job, 0)
        self._unfinished.clear()

    async def _await_end(self, worker: Worker, source: bytes | None) -> None:
        """Wait for the end of *worker*, which hangs in *source*, a file on a dead disk."""
        await worker.gone()
        if source is not None:
            self._stuck.discard(source)
            self._unstuck.unpark_all()

    async def _pause(self, why: str = "") -> None:
        """Wait before the next process is started; *why* is how the last one failed."""
        seconds = _PAUSES[min(self._failures, len(_PAUSES) - 1)]
        self._failures += 1
        if why and self._failures == 2:  # a single failure can be temporary
            log.error("the process that hashes doesn't start, and so nothing is sealed: %s", why)
        await trio.sleep(seconds)

    def _move(self, job: Job, offset: int) -> None:
        """Record that *offset* bytes of *job* are hashed."""
        if self._jobs.get(job.key) is job:
            self.pending_bytes -= offset - job.offset
        self.speed.add(max(0, offset - job.offset), time.monotonic())
        job.offset = offset
        self._unfinished.add(job)

    async def _finish(self, job: Job, result: Checksums | Exception) -> None:
        """Remove *job* from the queue, store its *result*, and finish its requests."""
        if isinstance(result, Checksums):
            self.speed.add(job.file.state.size - job.offset, time.monotonic())
        if self._jobs.get(job.key) is job:  # not another one queued meanwhile
            del self._jobs[job.key]
            self.pending_bytes -= job.file.state.size - job.offset
        self._unfinished.discard(job)
        error = result if isinstance(result, Exception) else None
        if self._gate:
            # Before it is saved, and so told to others: these may have it hashed here again.
            self._gate.finished(job.file, result)
        try:
            if isinstance(result, Checksums):
                await self._keep(job.file, result)
            elif isinstance(result, UnexpectedError):
                raise result
        except Exception as unexpected:
            # H4: an unexpected error doesn't end the mount. The file stays unhashed.
            log.exception("unexpected error while hashing a file")
            error = unexpected
        for request in job.requests:
            request.finish(job.file, error)


def _result_of(answer: Done | Failed | Unexpected) -> Checksums | Exception:
    if isinstance(answer, Done):
        return answer.checksums
    if isinstance(answer, Unexpected):
        return UnexpectedError(answer.traceback)
    # OSError picks its subclass, such as PermissionError, by the errno.
    return OSError(answer.error, answer.reason) if answer.error else ChangedError()
