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
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Protocol

import trio

from zipfs.archive.layout import Data, Piece, fill
from zipfs.library.files import Key, close_all, key_of, open_file, open_files, read_source
from zipfs.library.filestate import BLOCK
from zipfs.library.proven import Blocks, ProvenBlocks
from zipfs.library.scan import SourceFile
from zipfs.mount.fd_pool import CLOSED, FdPool, OpenFile
from zipfs.system.lanes import Threads
from zipfs.system.process import Limits

log = logging.getLogger(__name__)

BUFFER: Final = 1 << 20
"""Bytes of a read buffer, the kernel's largest request (256 pages)."""
LINGER: Final = 1.0
"""Seconds for which files stay open after the last release: a web server opens and closes
an archive for each request. Until then the library can't be unmounted."""
_SHARE: Final = 5.0
"""The same for files that took long to open, in terms of the time it took..."""
_MOST_LINGER: Final = 5.0
"""...but no more than so many seconds."""
_SPARE_BUFFERS: Final = 16
_FILES_KNOWN: Final = 1024
"""Most files that a handle has without a look-up in the pool."""


class Content(Protocol):
    """Something to read: a version of an archive, or a mirrored file in one state."""

    @property
    def size(self) -> int: ...
    @property
    def files(self) -> Sequence[SourceFile]: ...
    @property
    def digests(self) -> Sequence[bytes]: ...
    def plan(self, offset: int, length: int) -> Iterator[Piece]: ...
    def locate(self, offset: int, length: int) -> tuple[int, int] | None: ...


class Handle:
    """An open content, shared by all opens of it at the same time.

    *node* is its inode, *opened* the number of opens. *pinned* are files that stay open with it;
    *files* are the ones last found in the pool, by source number, some maybe closed since.
    *linger* is how long they stay open after the last release, in seconds.
    """

    __slots__ = ("content", "files", "linger", "node", "opened", "pinned")

    def __init__(
        self, node: int, content: Content, pinned: Sequence[OpenFile], linger: float = LINGER
    ) -> None:
        self.node = node
        self.content = content
        self.files: dict[int, OpenFile] = {}
        self.opened = 0
        self.pinned = pinned
        self.linger = linger


class Reader:
    """Opens and reads contents; used by trio's thread only.

    *absolute* returns a source's absolute path, *blocks* the checksums of the blocks of the
    file with a given XXH3-128, or None if they aren't known. An open or a read that waits for
    more than *patience* seconds raises :exc:`TimeoutError`.
    """

    def __init__(
        self,
        absolute: Callable[[bytes], bytes],
        blocks: Blocks,
        limits: Limits,
        patience: float | None = None,
    ) -> None:
        self._absolute = absolute
        self._proven = ProvenBlocks(blocks)
        self._threads = Threads(limits.threads, patience, spare=limits.spare)
        self._in_thread = self._threads.run
        self._pool = FdPool(limits.files)
        self._handles: dict[int, Handle] = {}
        self._opening: dict[int, trio.Event] = {}
        self._lingering: dict[Handle, float] = {}
        self._buffer = memoryview(bytearray(BUFFER))
        self._spare: list[memoryview] = []

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
                pinned = await self._pin(node, content)
            finally:
                del self._opening[node]
                opened.set()
            took = time.monotonic() - started
            linger = max(LINGER, min(_MOST_LINGER, _SHARE * took))
            handle = self._handles[node] = Handle(node, content, pinned, linger)
        handle.opened += 1
        self._lingering.pop(handle, None)
        return handle

    async def _pin(self, node: int, content: Content) -> list[OpenFile]:
        """Open and pin the files of *content* that stay open with it."""
        sources = self._to_pin(content.files)
        loan = self._pool.lend(map(key_of, sources), len(sources))
        missing = [source for source, file in zip(sources, loan.files, strict=True) if not file]
        open_them = functools.partial(open_files, provable=bool(content.digests))
        opened = await self._in_thread(
            open_them,
            self._absolute,
            missing[: loan.room],
            lane=node,
            discard=lambda late: close_all(late.values()),
            ended=loan.end,
        )
        pinned = [file for file in loan.files if file]
        pinned += [self._pool.adopt(key, descriptor) for key, descriptor in opened.items()]
        for file in pinned:
            file.pins += 1
        return pinned

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
        """Close files unused for :data:`LINGER` seconds or more; runs until it is cancelled."""
        while True:
            await trio.sleep(LINGER / 2)
            now = time.monotonic()
            for handle in [handle for handle, until in self._lingering.items() if until <= now]:
                del self._lingering[handle]
                for file in handle.pinned:
                    file.pins -= 1
                if self._handles.get(handle.node) is handle:
                    del self._handles[handle.node]
            self._pool.close_idle(LINGER)

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
        return self._threads.stuck

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
            return view
        # The buffer goes with it, so that no other read overwrites its first bytes.
        self._buffer = self._take_buffer()
        return PendingRead(self, handle, offset, view, done)

    def _read_cached(self, handle: Handle, number: int, offset: int, view: memoryview) -> int:
        """Fill the beginning of *view* without waiting for a disk; returns the number of bytes.

        *number* is the source's. The file's state is checked, so the bytes are the version's.
        """
        source = handle.content.files[number]
        if source.by_content and handle.content.digests:
            return self._copy_proven(handle.content, number, offset, view)
        file = handle.files.get(number)
        if file is None or file.descriptor == CLOSED:
            file = self._pool.get(key_of(source))
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
        except OSError:
            return 0  # the thread gets the same error, or waits
        self._pool.touch(file)
        return count

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

    # -- Buffers ---------------------------------------------------------------

    def _take_buffer(self) -> memoryview:
        return self._spare.pop() if self._spare else memoryview(bytearray(BUFFER))

    def _give_buffer(self, view: memoryview) -> None:
        """Reuse the buffer that *view* is the beginning of."""
        buffer = memoryview(view.obj)
        if len(buffer) == BUFFER and len(self._spare) < _SPARE_BUFFERS:
            self._spare.append(buffer)


class PendingRead:
    """A read that may have to wait for a disk; it owns its buffer.

    It fills *view*, of which the first *done* bytes were read from the page cache.
    """

    __slots__ = ("_content", "_done", "_lane", "_offset", "_reader", "_view")

    def __init__(
        self, reader: Reader, handle: Handle, offset: int, view: memoryview, done: int
    ) -> None:
        self._reader = reader
        self._content = handle.content
        self._lane = handle.node
        self._offset = offset
        self._view = view
        self._done = done

    async def finish(self) -> memoryview:
        """Read the rest in a thread; returns the whole read. To be called once.

        The view is valid until the caller's next await. Raises :exc:`ChangedError`,
        :exc:`OSError`, or :exc:`TimeoutError` if the disk doesn't answer in time.
        """
        reader, content, done = self._reader, self._content, self._done
        pieces = list(content.plan(self._offset + done, len(self._view) - done))
        numbers = list(dict.fromkeys(piece.source for piece in pieces if isinstance(piece, Data)))
        # Room for one: of the files that the thread opens, the last one is returned.
        loan = reader._pool.lend([key_of(content.files[number]) for number in numbers], 1)
        opened = await reader._in_thread(
            self._read_rest,
            pieces,
            dict(zip(numbers, loan.files, strict=True)),
            bool(loan.room),
            lane=self._lane,
            discard=lambda late: close_all([late[1]] if late else []),
            ended=loan.end,
        )
        if opened:
            reader._pool.adopt(*opened)
        # Not after an error: an abandoned thread may still write to it.
        reader._give_buffer(self._view)
        return self._view

    def _read_rest(
        self, pieces: Sequence[Piece], files: Mapping[int, OpenFile | None], keep: bool
    ) -> tuple[Key, int] | None:
        """Fill the rest of the view with *pieces*, in a worker thread.

        *files* has the open file of each source, or None: those are opened, one at a time. With
        *keep* the last of them is returned, for the pool: the next read probably continues in it.
        """
        reader, content = self._reader, self._content
        opened: list[tuple[Key, int]] = []  # one at most

        def descriptor_of(number: int) -> int:
            if file := files[number]:
                return file.descriptor
            source = content.files[number]
            if opened:
                if opened[0][0] == key_of(source):
                    return opened[0][1]
                close_all([opened.pop()[1]])
            descriptor = open_file(reader._absolute, source, provable=bool(content.digests))
            opened.append((key_of(source), descriptor))
            return descriptor

        def read(number: int, offset: int, part: memoryview) -> int:
            digest = content.digests[number] if content.digests else None
            descriptor = functools.partial(descriptor_of, number)
            read_source(descriptor, content.files[number], digest, reader._proven, offset, part)
            return len(part)

        try:
            fill(pieces, self._view[self._done :], read)
            return opened.pop() if keep and opened else None
        finally:
            close_all([descriptor for _, descriptor in opened])
