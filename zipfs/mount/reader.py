"""Bytes of a version: carries out its plan with ``pread``.

What a read returns are the bytes of the version that was opened, or it raises
(DESIGN R1); :mod:`zipfs.library.files` says how that is known.

Data in the page cache are read at once, with ``RWF_NOWAIT``; anything else is
left to a thread, so that a slow source delays its own readers only (R3). Network
file systems don't know that flag, and are never touched in trio's thread.

Open files are kept in a pool of limited size (R4).
"""

from __future__ import annotations

import functools
import heapq
import logging
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final, Protocol

import trio

from zipfs.archive.layout import Data, Piece
from zipfs.library.files import Blocks, Key, close_all, key_of, open_file, open_files, read_source
from zipfs.library.scan import SourceFile
from zipfs.mount.fd_pool import CLOSED, OpenFile, Pool
from zipfs.system.lanes import Threads
from zipfs.system.process import Limits

log = logging.getLogger(__name__)

BUFFER: Final = 1 << 20
"""Bytes of a read buffer; the kernel asks for at most so many at once (256 pages)."""
LINGER: Final = 5.0
"""Seconds for which files stay open after the last reader left: a web server opens
and closes an archive for each request."""
_SPARE_BUFFERS: Final = 16
_FILES_KNOWN: Final = 1024
"""Files that a handle finds without asking the pool."""


class Content(Protocol):
    """What can be read: a version of an archive, or a file that is passed through."""

    @property
    def size(self) -> int: ...
    @property
    def files(self) -> Sequence[SourceFile]: ...
    @property
    def digests(self) -> Sequence[bytes]: ...
    def plan(self, offset: int, length: int) -> Iterator[Piece]: ...
    def locate(self, offset: int, length: int) -> tuple[int, int] | None: ...


class Handle:
    """An open content; shared by all that have it open at the same time.

    *node* is the inode it was opened by, *opened* how often it is open; *files* are those
    that were last seen in the pool, by source, some maybe closed since.
    """

    __slots__ = ("content", "files", "node", "opened", "pinned")

    def __init__(self, node: int, content: Content, pinned: Sequence[OpenFile]) -> None:
        self.node = node
        self.content = content
        self.files: dict[int, OpenFile] = {}
        self.opened = 0
        self.pinned = pinned


class Reader:
    """Reads contents. *absolute* gives a source's absolute path, *blocks* the
    checksums of the blocks of the file with a given XXH3-128, if they are known.

    A read fails after *patience* seconds without an answer."""

    def __init__(
        self,
        absolute: Callable[[bytes], bytes],
        blocks: Blocks,
        limits: Limits,
        patience: float | None = None,
    ) -> None:
        self._absolute = absolute
        self._blocks = blocks
        self._threads = Threads(limits.threads, patience, spare=limits.spare)
        self._in_thread = self._threads.run
        self._pool = Pool(limits.files)
        self._handles: dict[int, Handle] = {}
        self._opening: dict[int, trio.Event] = {}
        self._lingering: OrderedDict[Handle, float] = OrderedDict()
        self._buffer = memoryview(bytearray(BUFFER))
        self._spare: list[memoryview] = []

    # -- Handles ---------------------------------------------------------------

    async def open(self, node: int, content: Content) -> Handle:
        """A handle on *content*, whose inode is *node*.

        The largest of its files are opened now, as many as its share of the pool
        holds. Raises :exc:`ChangedError` or :exc:`OSError` if one of them can't
        be, or isn't in its state any more.
        """
        while (handle := self._shared(node, content)) is None:
            if (opening := self._opening.get(node)) is not None:
                await opening.wait()  # three hundred clients open its files once
                continue
            self._opening[node] = opened = trio.Event()
            try:
                pinned = await self._pin(node, content)
            finally:
                del self._opening[node]
                opened.set()
            handle = self._handles[node] = Handle(node, content, pinned)
        handle.opened += 1
        self._lingering.pop(handle, None)
        return handle

    async def _pin(self, node: int, content: Content) -> list[OpenFile]:
        """The files of *content* that are to stay open."""
        pinned: list[OpenFile] = []
        missing = []
        for source in self._to_pin(content.files):
            if file := self._pool.get(key_of(source)):
                file.users += 1  # so that it isn't closed meanwhile
                pinned.append(file)
            else:
                missing.append(source)
        room = self._pool.reserve(len(missing))
        open_them = functools.partial(open_files, provable=bool(content.digests))
        opened = await self._in_thread(
            open_them,
            self._absolute,
            missing[:room],
            lane=node,
            discard=lambda late: close_all(late.values()),
            ended=self._gives_back(tuple(pinned), room),
        )
        pinned += [self._pool.adopt(key, descriptor) for key, descriptor in opened.items()]
        for file in pinned:
            file.pins += 1
        return pinned

    def _gives_back(self, files: Collection[OpenFile], room: int) -> Callable[[], None]:
        """What gives back, when the thread has ended, what it was lent of the pool."""

        def ended() -> None:
            for file in files:
                file.users -= 1
            self._pool.release(room)

        return ended

    def _shared(self, node: int, content: Content) -> Handle | None:
        """The handle that is there already, if its files are in the same states.

        After a ``chmod`` the same archive has files in other states.
        """
        handle = self._handles.get(node)
        if handle and handle.content is not content:
            if tuple(handle.content.files) != tuple(content.files):
                return None
            handle.content = content  # equal, and recognised at once the next time
        return handle

    def _to_pin(self, files: Sequence[SourceFile]) -> Sequence[SourceFile]:
        if len(files) <= self._pool.share:
            return files
        return heapq.nlargest(self._pool.share, files, key=lambda file: file.state.size)

    def release(self, handle: Handle) -> None:
        """One less has the content open; its files stay open for a moment."""
        handle.opened -= 1
        if not handle.opened:
            self._lingering[handle] = time.monotonic() + LINGER

    async def tidy(self) -> None:
        """Close, for ever, what nobody has used for a while."""
        while True:
            await trio.sleep(LINGER / 5)
            now = time.monotonic()
            while self._lingering and next(iter(self._lingering.values())) <= now:
                handle, _ = self._lingering.popitem(last=False)
                for file in handle.pinned:
                    file.pins -= 1
                if self._handles.get(handle.node) is handle:
                    del self._handles[handle.node]
            self._pool.close_idle(LINGER)

    @property
    def open_files(self) -> int:
        """How many files the pool holds."""
        return len(self._pool)

    @property
    def most_files(self) -> int:
        """How many it may hold."""
        return self._pool.limit

    @property
    def stuck(self) -> int:
        """How many threads wait for a disk that doesn't answer."""
        return self._threads.stuck

    # -- Reading ---------------------------------------------------------------

    def read_now(self, handle: Handle, offset: int, length: int) -> memoryview | int:
        """What :meth:`read` gives, as far as it takes no disk: all of it, or how many bytes.

        If it isn't all, :meth:`read_rest` has to follow at once: what is there already is in
        the buffer that both share. No coroutine, and mostly no plan: each takes a good part
        of answering a small read.
        """
        content = handle.content
        length = max(0, min(length, content.size - offset))
        if length > BUFFER:
            return 0
        view = self._buffer[:length]
        if length and (found := content.locate(offset, length)) is not None:
            count = self._read_cached(handle, *found, view)
            return view if count == length else count
        at = 0
        for piece in content.plan(offset, length):
            if not isinstance(piece, Data):
                view[at : at + len(piece)] = piece
                at += len(piece)
                continue
            part = view[at : at + piece.length]
            count = self._read_cached(handle, piece.source, piece.offset, part)
            at += count
            if count < piece.length:
                return at
        return view

    async def read(self, handle: Handle, offset: int, length: int) -> memoryview:
        """Bytes *offset* to *offset + length* of the content, less only at its end.

        The view is good until the caller next gives way to another task. Raises
        :exc:`ChangedError` or :exc:`OSError`.
        """
        found = self.read_now(handle, offset, length)
        if isinstance(found, int):
            return await self.read_rest(handle, offset, length, found)
        return found

    async def read_rest(
        self, handle: Handle, offset: int, length: int, done: int = 0
    ) -> memoryview:
        """The same, of which :meth:`read_now` has found *done* bytes a moment ago."""
        content = handle.content
        length = max(0, min(length, content.size - offset))
        if done:
            buffer, self._buffer = self._buffer, self._take_buffer(BUFFER)
        else:
            buffer = self._take_buffer(length)
        pieces = list(content.plan(offset + done, length - done))
        files: dict[int, OpenFile] = {}
        missing = False
        for piece in pieces:
            if isinstance(piece, Data) and piece.source not in files:
                if file := self._pool.get(key_of(content.files[piece.source])):
                    file.users += 1
                    files[piece.source] = file
                else:
                    missing = True
        room = self._pool.reserve(1) if missing else 0
        opened = await self._in_thread(
            self._read_blocking,
            content,
            pieces,
            files,
            buffer[done:],
            bool(room),
            lane=handle.node,
            discard=lambda late: close_all([late[1]] if late else []),
            ended=self._gives_back(tuple(files.values()), room),
        )
        if opened:
            self._pool.adopt(*opened)
        self._give_buffer(buffer)
        return buffer[:length]

    def _read_cached(self, handle: Handle, number: int, offset: int, view: memoryview) -> int:
        """Fill the beginning of *view* without touching a disk; so many bytes are proven."""
        source = handle.content.files[number]
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
            # A file system that knows RWF_NOWAIT keeps inodes in memory: no wait here.
            if not source.state.is_of(os.fstat(file.descriptor)):
                return 0
        except OSError:
            return 0  # the thread finds out, and waits if need be
        self._pool.touch(file)
        return count

    def _read_blocking(
        self,
        content: Content,
        pieces: Sequence[Piece],
        files: dict[int, OpenFile],
        buffer: memoryview,
        keep: bool,
    ) -> tuple[Key, int] | None:
        """Fill *buffer*, in a worker thread; *files* are those open, by source.

        The last file that had to be opened is returned for the pool, if there is
        room to *keep* it: the next read probably continues in it.
        """
        at = 0
        last: tuple[Key, int] | None = None
        try:
            for piece in pieces:
                if not isinstance(piece, Data):
                    buffer[at : at + len(piece)] = piece
                    at += len(piece)
                    continue
                source = content.files[piece.source]
                digest = content.digests[piece.source] if content.digests else None
                if file := files.get(piece.source):
                    descriptor = file.descriptor
                else:
                    if last:
                        close_all([last[1]])
                        last = None
                    descriptor = open_file(self._absolute, source, provable=digest is not None)
                    last = (key_of(source), descriptor)
                view = buffer[at : at + piece.length]
                read_source(descriptor, source, digest, self._blocks, piece.offset, view)
                at += piece.length
        except BaseException:
            if last:
                close_all([last[1]])
            raise
        if last and not keep:
            close_all([last[1]])
            return None
        return last

    # -- Buffers and threads ---------------------------------------------------

    def _take_buffer(self, length: int) -> memoryview:
        if length <= BUFFER and self._spare:
            return self._spare.pop()
        return memoryview(bytearray(max(length, BUFFER)))

    def _give_buffer(self, buffer: memoryview) -> None:
        if len(buffer) == BUFFER and len(self._spare) < _SPARE_BUFFERS:
            self._spare.append(buffer)
