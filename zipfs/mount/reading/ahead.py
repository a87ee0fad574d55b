"""Reading ahead of the readers of one content, many blocks at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

import trio

from zipfs.archive.layout import Data
from zipfs.library.files import key_of
from zipfs.library.filestate import BLOCK
from zipfs.library.proven import MEMORY
from zipfs.mount.reading.content import Content
from zipfs.mount.reading.fetcher import Block, Fetcher, Job, Waiting
from zipfs.mount.reading.streams import Streams
from zipfs.system.measuring.gauge import Gauge, is_slow
from zipfs.system.threads.lanes import timed_out

_WINDOW: Final = 16 << 20
"""Most bytes ahead of one reader..."""
_BLOCKS: Final = 512
"""...and most blocks, small files as a rule..."""
_SHARE: Final = 4
"""...of which so many are under way, in terms of those that are read at a time."""
_WINDOWS: Final = MEMORY // 2
"""Most bytes ahead of all readers: what one has proven must not push out what another has."""
_SAMPLES: Final = 32
"""Blocks by which a source is judged to be slow no longer."""
_READ_THROUGH: Final = 4096
"""Blocks of which it is remembered that they were read through."""


class Ahead:
    """Reads ahead for the readers of *content*, *most* blocks at a time (*fixed*: always so many).

    For trio's thread, but for :attr:`wanted`, :meth:`take` and :meth:`took`, which threads call
    under the lock of *fetcher*.
    """

    def __init__(
        self, fetcher: Fetcher, content: Content, most: int, *, fixed: bool = False
    ) -> None:
        self.content = content
        self.provable: Final = bool(content.digests)
        self.running = 0
        """Number of threads that work for it."""
        self.is_ready = False
        """Whether threads know that there is something to do."""
        self.is_over = False
        """Whether the source has turned out to be quick."""
        self.is_local = False
        """Whether it is on a disk of this machine: in large files the kernel itself reads ahead,
        and would be disturbed."""
        self._fetcher = fetcher
        self._gauge = Gauge(most, fixed=fixed)
        self._fixed = fixed
        self._streams = Streams(content.size)
        self._jobs: dict[Block, Job] = {}
        self._urgent: deque[Job] = deque()
        self._later: deque[Job] = deque()
        self._read_through: set[Block] = set()
        self._answered = 0
        """Number of jobs to which the source had an answer."""
        self._seconds: deque[float] = deque(maxlen=_SAMPLES)
        fetcher.owners += 1

    def end(self) -> None:
        """The last reader has left."""
        self._give_up()
        self._fetcher.owners -= 1

    # -- Requests --------------------------------------------------------------

    def note(self, offset: int, length: int) -> None:
        """Somebody asks for this range: read ahead of him."""
        most = min(_WINDOW, _WINDOWS // max(1, self._fetcher.owners))
        stream = self._streams.note(offset, length, most)
        if stream.is_new and self._later:
            self._give_up()
        until = self._streams.wanted(stream)
        room = min(_SHARE * self._gauge.limit - len(self._jobs), _BLOCKS - len(stream.blocks))
        if until == stream.until or room <= 0:
            return
        for at, block, job in self._lacking(stream.until, until - stream.until):
            if room <= 0:
                until = at
                break
            if block not in self._jobs and self._prepare(job):
                self._jobs[block] = job
                self._later.append(job)
                stream.blocks.append(at)
                room -= 1
        stream.until = max(stream.until, until)
        if self._later:
            self._fetcher.start(self)

    async def fetch(self, offset: int, length: int) -> None:
        """Have the blocks of this range read, as far as they can be. Raises :exc:`TimeoutError`."""
        waiting = Waiting()
        with self._fetcher.lock:
            for _, block, job in self._lacking(offset, length):
                known = self._jobs.get(block)
                if known is None:
                    if not self._prepare(job):
                        continue
                    self._jobs[block] = known = job
                if not known.is_done:
                    known.waiting.append(waiting)
                    waiting.left += 1
                if not known.taken:
                    self._urgent.append(known)
            is_there = not waiting.left
        self.note(offset, length)
        if is_there:
            return
        if self._fetcher.is_stuck(self):
            raise timed_out()
        if not self._fetcher.start(self):
            return  # no thread is left: who asks reads it himself
        before, is_late = self._answered, True
        while is_late:
            with trio.move_on_after(self._fetcher.patience or float("inf")) as scope:
                await waiting.done.wait()
            is_late = scope.cancelled_caught
            # Whoever waits behind much work has time, while that gets on.
            if is_late and (self._answered == before or self._fetcher.is_stuck(self)):
                raise timed_out()
            before = self._answered

    def _lacking(self, offset: int, length: int) -> Iterator[tuple[int, Block, Job]]:
        """The blocks of this range that may have to be read, each once and with its place."""
        content = self.content
        last: Block | None = None
        for piece in content.plan(offset, length):
            if not isinstance(piece, Data):
                offset += len(piece)
                continue
            number = piece.source
            source = content.files[number]
            digest = content.digests[number] if source.by_content and self.provable else None
            end = piece.offset + piece.length
            if not (digest is None and self.is_local and source.state.size > BLOCK):
                for start in range(piece.offset // BLOCK * BLOCK, end, BLOCK):
                    block = number, start
                    if block != last and self._lacks(block, digest):
                        at = offset + max(0, start - piece.offset)
                        yield at, block, Job(self, block, source, digest)
                    last = block
            offset += piece.length

    def _lacks(self, block: Block, digest: bytes | None) -> bool:
        if digest is None:
            return block not in self._read_through
        return not self._fetcher.proven.has(digest, block[1])

    def _prepare(self, job: Job) -> bool:
        """Borrow from the pool what *job* needs; False if it has no room."""
        pool = self._fetcher.pool
        job.file = pool.get(key_of(job.source))
        if job.file:
            job.file.users += 1
            return True
        if job.digest is not None and job.source.state.size <= BLOCK:
            return True
        job.room = pool.reserve(1)
        return job.digest is not None or bool(job.room)

    def _give_up(self) -> None:
        """Drop what nobody waits for and no thread has begun."""
        with self._fetcher.lock:
            dropped = [job for job in self._later if not job.taken and not job.waiting]
            for job in dropped:
                job.taken = True
            self._later.clear()
        for job in dropped:
            del self._jobs[job.block]
            self._fetcher.give_back(job)
        self._streams.take_back()

    def finished(self, job: Job) -> None:
        """A thread has ended *job*."""
        del self._jobs[job.block]
        if job.digest is None:
            if len(self._read_through) >= _READ_THROUGH:
                self._read_through.clear()
            self._read_through.add(job.block)

    # -- Threads, under the lock -----------------------------------------------

    @property
    def wanted(self) -> int:
        """Number of further threads that there is work for."""
        return min(self._gauge.limit - self.running, len(self._urgent) + len(self._later))

    def take(self) -> Job | None:
        """The next job, which is the caller's."""
        for queue in (self._urgent, self._later):
            while queue:
                job = queue.popleft()
                if not job.taken:
                    job.taken = True
                    return job
        return None

    def took(self, job: Job, seconds: float, now: float) -> None:
        """*job* ended *now* and took *seconds*."""
        self._answered += not job.is_unanswered
        self._gauge.add(job.length, now)
        if not self._urgent and not self._later:
            self._gauge.idle()
        self._seconds.append(seconds)
        if not self._fixed and len(self._seconds) == _SAMPLES and not is_slow(self._seconds):
            self.is_over = True
