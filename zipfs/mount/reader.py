"""Reads the bytes of versions: executes their plans with ``pread``.

A read returns the bytes of the version that was opened, or raises (DESIGN R1);
:mod:`zipfs.library.files` describes how that is checked.

Data in the page cache are read at once, with ``RWF_NOWAIT``; anything else is a
:class:`PendingRead`, finished in a thread, so that a slow source delays its own readers
only (R3). Network file systems don't support that flag, so trio's thread never waits for them.

Open files are in a pool of limited size (R4).
"""

from __future__ import annotations

import functools
import heapq
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import trio

from zipfs.archive.layout import Data, Piece, fill
from zipfs.library.files import Key, close_all, key_of, open_file, read_source
from zipfs.library.filestate import BLOCK
from zipfs.library.proven import Blocks, ProvenBlocks
from zipfs.library.scan import SourceFile
from zipfs.mount.fd_pool import CLOSED, FdPool, OpenFile
from zipfs.mount.reading.ahead import Ahead
from zipfs.mount.reading.buffers import BUFFER, Buffers
from zipfs.mount.reading.content import Content
from zipfs.mount.reading.fetcher import Fetcher
from zipfs.mount.reading.handle import Handle
from zipfs.mount.reading.opening import Opening
from zipfs.system.folders import Folders
from zipfs.system.process import Limits
from zipfs.system.syscalls import READ_FILE
from zipfs.system.threads.lanes import Threads

log = logging.getLogger(__name__)

LINGER: Final = 1.0
"""Seconds for which files stay open after the last release: a web server opens and closes
an archive for each request. Until then the library can't be unmounted."""
_SHARE: Final = 5.0
"""The same for files that took long to open, in terms of the time it took..."""
_MOST_LINGER: Final = 5.0
"""...but no more than so many seconds."""
_FILES_KNOWN: Final = 1024
"""Most files that a handle has without a look-up in the pool."""


class Reader:
    """Opens and reads contents; used by trio's thread only.

    *absolute* returns a source's absolute path, *blocks* the checksums of the blocks of the
    file with a given XXH3-128, or None if they aren't known. An open or a read that waits for
    more than *patience* seconds raises :exc:`TimeoutError`. *parallel* is how many files a reader
    has read at a time: None, as many as pays off; 0, no more than he asks for.
    """

    def __init__(
        self,
        absolute: Callable[[bytes], bytes],
        blocks: Blocks,
        limits: Limits,
        patience: float | None = None,
        *,
        parallel: int | None = None,
    ) -> None:
        self._absolute = absolute
        self._proven = ProvenBlocks(blocks)
        self._threads = Threads(limits.threads, patience, spare=limits.spare)
        self._in_thread = self._threads.run
        self._pool = FdPool(limits.files)
        self._folders = Folders(limits.folders)
        self._fetcher = Fetcher(
            absolute,
            self._folders,
            self._proven,
            self._pool,
            limits.ahead,
            spare=limits.spare,
            patience=patience,
        )
        self._parallel = parallel
        self._handles: dict[int, Handle] = {}
        self._opening: dict[int, trio.Event] = {}
        self._lingering: dict[Handle, float] = {}
        self._buffers = Buffers()
        self._buffer = self._buffers.take()

    # -- Handles ---------------------------------------------------------------

    async def open(self, node: int, content: Content) -> Handle:
        """A handle on *content*, whose inode is *node*.

        The largest of its files are opened now, as many as its share of the pool holds.
        Raises :exc:`ChangedError` if one of them isn't in its recorded state,
        :exc:`OSError` if it can't be opened.
        """
        while (handle := self._shared(node, content)) is None:
            if (opening := self._opening.get(node)) is not None:
                await opening.wait()  # for many clients at once its files are opened once
                continue
            self._opening[node] = opened = trio.Event()
            started = time.monotonic()
            try:
                pinned, seconds = await self._pin(node, content)
            finally:
                del self._opening[node]
                opened.set()
            took = time.monotonic() - started
            linger = max(LINGER, min(_MOST_LINGER, _SHARE * took))
            handle = self._handles[node] = Handle(node, content, pinned, linger)
            handle.seconds.extend(seconds)
        handle.opened += 1
        handle.judge((), self._fetcher, self._parallel)
        self._lingering.pop(handle, None)
        return handle

    async def _pin(self, node: int, content: Content) -> tuple[list[OpenFile], Sequence[float]]:
        """Open and pin the files of *content* that stay open with it; the seconds that some took.

        The first ones tell whether the others are opened one after the other.
        """
        sources = self._to_pin(content.files)
        loan = self._pool.lend(map(key_of, sources), len(sources))
        missing = [source for source, file in zip(sources, loan.files, strict=True) if not file]
        opening = Opening(
            self._absolute, self._folders, self._pool, loan, provable=bool(content.digests)
        )
        run = functools.partial(self._in_thread, lane=node)
        opened = await opening.open(missing[: loan.room], run)
        pinned = [file for file in loan.files if file]
        pinned += [self._pool.adopt(key, descriptor) for key, descriptor in opened.items()]
        for file in pinned:
            file.pins += 1
        return pinned, opening.seconds

    def _shared(self, node: int, content: Content) -> Handle | None:
        """The existing handle; None if there is none with files in these states.

        After a ``chmod`` the same archive has files in other states.
        """
        handle = self._handles.get(node)
        if handle and handle.content is not content:
            if tuple(handle.content.files) != tuple(content.files):
                return None
            handle.content = content  # equal; next time the same object
        return handle

    def _to_pin(self, files: Sequence[SourceFile]) -> Sequence[SourceFile]:
        if len(files) <= self._pool.share:
            return files
        return heapq.nlargest(self._pool.share, files, key=lambda file: file.state.size)

    def release(self, handle: Handle) -> None:
        """Undo one :meth:`open`; after the last, files stay open for a moment."""
        handle.opened -= 1
        if not handle.opened:
            self._lingering[handle] = time.monotonic() + handle.linger

    async def tidy(self) -> None:
        """Close files, and give up buffers, that are unused; runs until it is cancelled."""
        while True:
            await trio.sleep(LINGER / 2)
            now = time.monotonic()
            for handle in [handle for handle, until in self._lingering.items() if until <= now]:
                del self._lingering[handle]
                for file in handle.pinned:
                    file.pins -= 1
                handle.end_ahead()
                if self._handles.get(handle.node) is handle:
                    del self._handles[handle.node]
            self._pool.close_idle(LINGER)
            self._pool.close(self._folders.idle(LINGER))
            self._proven.drop_old()
            self._buffers.trim()

    @property
    def open_files(self) -> int:
        """Number of files in the pool."""
        return len(self._pool)

    @property
    def most_files(self) -> int:
        """Limit on the files in the pool."""
        return self._pool.limit

    @property
    def stuck(self) -> int:
        """Number of threads that wait for a disk that doesn't answer."""
        return self._threads.stuck + self._fetcher.stuck

    # -- Reading ---------------------------------------------------------------

    def read_now(self, handle: Handle, offset: int, length: int) -> memoryview | PendingRead:
        """Bytes *offset* to *offset + length* of the content, less only at its end.

        A view if all are in the page cache, else a :class:`PendingRead` to be finished. The view
        is valid until the next call, so until the caller's next await. No coroutine, and mostly
        no plan: each would be a large part of the cost of a small read.
        """
        content = handle.content
        length = max(0, min(length, content.size - offset))
        if length > BUFFER:
            return PendingRead(self, handle, offset, memoryview(bytearray(length)), 0)
        view = self._buffer[:length]
        if length and (found := content.locate(offset, length)) is not None:
            done = self._read_cached(handle, *found, view)
        else:
            read = functools.partial(self._read_cached, handle)
            done = fill(content.plan(offset, length), view, read)
        if done == length:
            if (ahead := handle.ahead) and length:
                ahead.note(offset, length)
            return view
        # The buffer goes with it, so that no other read overwrites its first bytes.
        self._buffer = self._buffers.take()
        return PendingRead(self, handle, offset, view, done)

    def _read_cached(self, handle: Handle, number: int, offset: int, view: memoryview) -> int:
        """Fill the beginning of *view* without waiting for a disk; returns the number of bytes.

        *number* is the source's. The file's state is checked, so the bytes are the version's.
        """
        source = handle.content.files[number]
        if source.by_content and handle.content.digests:
            return self._copy_proven(handle.content, number, offset, view)
        file = handle.files.get(number)
        is_new = file is None or file.descriptor == CLOSED
        if file is None or is_new:
            file = self._pool.get(key_of(source)) or self._open_at_once(source)
            if file is None:
                return 0
            if len(handle.files) >= _FILES_KNOWN:
                handle.files.clear()
            handle.files[number] = file
        try:
            count = os.preadv(file.descriptor, [view], offset, os.RWF_NOWAIT)
            # A file system that supports RWF_NOWAIT has the inode in memory: no wait here.
            if not source.state.is_of(os.fstat(file.descriptor)):
                return 0
        except OSError as error:
            if is_new and isinstance(error, BlockingIOError):
                self._answers_at_once(handle, source)
            return 0  # the thread gets the same error, or waits
        if is_new:
            self._answers_at_once(handle, source)
        self._pool.touch(file)
        return count

    def _answers_at_once(self, handle: Handle, source: SourceFile) -> None:
        """*source* is on a file system that tells whether it would wait."""
        self._folders.answers(self._absolute(source.source))
        handle.told()

    def _open_at_once(self, source: SourceFile) -> OpenFile | None:
        """*source* in the pool, if it can be opened without waiting for a disk."""
        if not self._pool.reserve(1):
            return None
        self._pool.release(1)
        descriptor = self._folders.open_at_once(self._absolute(source.source), READ_FILE)
        return None if descriptor is None else self._pool.adopt(key_of(source), descriptor)

    def _copy_proven(self, content: Content, number: int, offset: int, view: memoryview) -> int:
        """The same where only the content vouches: from the blocks proven last."""
        digest = content.digests[number]
        done = 0
        while done < len(view):
            within = (offset + done) % BLOCK
            part = view[done : done + BLOCK - within]
            if not self._proven.copy(digest, offset + done - within, within, part):
                break
            done += len(part)
        return done


class PendingRead:
    """A read that may have to wait for a disk; it owns its buffer.

    It fills *view*, of which the first *done* bytes were read from the page cache.
    """

    __slots__ = ("_done", "_handle", "_offset", "_reader", "_seconds", "_view")

    def __init__(
        self, reader: Reader, handle: Handle, offset: int, view: memoryview, done: int
    ) -> None:
        self._reader = reader
        self._handle = handle
        self._offset = offset
        self._view = view
        self._done = done
        self._seconds: list[float] = []
        """How long the thread took for each file, or each 128 KiB of one."""

    async def finish(self) -> memoryview:
        """Read the rest in a thread; returns the whole read. To be called once.

        The view is valid until the caller's next await. Raises :exc:`ChangedError`,
        :exc:`OSError`, or :exc:`TimeoutError` if the disk doesn't answer in time.
        """
        reader, handle, content = self._reader, self._handle, self._handle.content
        if ahead := handle.ahead:
            if ahead.is_over:
                handle.end_ahead()
            elif await self._fetch(ahead):
                return self._view
        done = self._done
        pieces = list(content.plan(self._offset + done, len(self._view) - done))
        numbers = list(dict.fromkeys(piece.source for piece in pieces if isinstance(piece, Data)))
        # Room for one: of the files that the thread opens, the last one is returned.
        loan = reader._pool.lend([key_of(content.files[number]) for number in numbers], 1)
        opened = await reader._in_thread(
            self._read_rest,
            pieces,
            dict(zip(numbers, loan.files, strict=True)),
            bool(loan.room),
            lane=handle.node,
            discard=lambda late: close_all([late[1]] if late else []),
            ended=loan.end,
        )
        if opened:
            reader._pool.adopt(*opened)
        handle.judge(self._seconds, reader._fetcher, reader._parallel)
        # Not after an error: an abandoned thread may still write to it.
        reader._buffers.give(self._view)
        return self._view

    async def _fetch(self, ahead: Ahead) -> bool:
        """Have the rest read by many threads; whether it could then be read without waiting."""
        reader, handle, view = self._reader, self._handle, self._view
        offset, left = self._offset + self._done, len(self._view) - self._done
        await ahead.fetch(offset, left)
        read = functools.partial(reader._read_cached, handle)
        self._done += fill(handle.content.plan(offset, left), view[self._done :], read)
        if self._done < len(view):
            return False
        reader._buffers.give(view)
        return True

    def _read_rest(
        self, pieces: Sequence[Piece], files: Mapping[int, OpenFile | None], keep: bool
    ) -> tuple[Key, int] | None:
        """Fill the rest of the view with *pieces*, in a worker thread.

        *files* has the open file of each source, or None: those are opened, one at a time. With
        *keep* the last of them is returned, for the pool: the next read probably continues in it.
        """
        reader, content = self._reader, self._handle.content
        opened: list[tuple[Key, int]] = []  # one at most

        def descriptor_of(number: int) -> int:
            if file := files[number]:
                return file.descriptor
            source = content.files[number]
            if opened:
                if opened[0][0] == key_of(source):
                    return opened[0][1]
                close_all([opened.pop()[1]])
            descriptor = open_file(
                reader._absolute,
                source,
                provable=bool(content.digests),
                folders=reader._folders,
            )
            opened.append((key_of(source), descriptor))
            return descriptor

        def read(number: int, offset: int, part: memoryview) -> int:
            digest = content.digests[number] if content.digests else None
            descriptor = functools.partial(descriptor_of, number)
            started = time.monotonic()
            read_source(descriptor, content.files[number], digest, reader._proven, offset, part)
            took = time.monotonic() - started
            self._seconds.append(took / max(1, len(part) >> 17))
            return len(part)

        try:
            fill(pieces, self._view[self._done :], read)
            return opened.pop() if keep and opened else None
        finally:
            close_all([descriptor for _, descriptor in opened])
