"""Bytes of a version: carries out its plan with ``pread``, and proves them.

What a read returns are the bytes of the version that was opened, or it raises
(DESIGN R1). Each piece is read into a buffer of ours first. Then the file's state
is compared with the one that its checksums belong to; a write moves ``mtime`` and
``ctime`` before it changes data, so bytes that were read before the states were
found equal are the right ones.

If only ``ctime`` differs, the file was renamed, deleted, linked or given other
permissions - or rewritten by something that put its ``mtime`` back. Nothing in
``stat`` tells which. So from then on the bytes are proven by the checksums of
their blocks, and go on being served if they are right (R2).

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
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol

import trio
import xxhash

from zipfs.errors import ChangedError
from zipfs.filestate import BLOCK, FileState
from zipfs.layout import Data, Piece
from zipfs.library import SourceFile
from zipfs.pool import Key, Limits, OpenFile, Pool, close_all, key_of, open_file, open_files
from zipfs.threads import Threads

log = logging.getLogger(__name__)

BUFFER: Final = 1 << 20
"""Bytes of a read buffer; the kernel asks for at most so many at once (256 pages)."""
LINGER: Final = 5.0
"""Seconds for which files stay open after the last reader left: a web server opens
and closes an archive for each request."""
_SPARE_BUFFERS: Final = 16


class Content(Protocol):
    """What can be read: a version of an archive, or a file that is passed through."""

    @property
    def size(self) -> int: ...
    @property
    def files(self) -> Sequence[SourceFile]: ...
    @property
    def digests(self) -> Sequence[bytes]: ...
    def plan(self, offset: int, length: int) -> Iterator[Piece]: ...


class Handle:
    """An open content; shared by all that have it open at the same time.

    *node* is the inode it was opened by, *opened* how often it is open.
    """

    __slots__ = ("content", "node", "opened", "pinned")

    def __init__(self, node: int, content: Content) -> None:
        self.node = node
        self.content = content
        self.opened = 0
        self.pinned: list[OpenFile] = []


class Reader:
    """Reads contents. *absolute* gives a source's absolute path, *blocks* the
    checksums of the blocks of the file with a given XXH3-128, if they are known."""

    def __init__(
        self,
        absolute: Callable[[bytes], bytes],
        blocks: Callable[[bytes], bytes | None],
        limits: Limits,
    ) -> None:
        self._absolute = absolute
        self._blocks = blocks
        self._in_thread = Threads(limits.threads).run
        # Whoever has a slot finds a thread free. What is opened in between is so bounded.
        self._slots = trio.Semaphore(limits.threads)
        self._pool = Pool(limits.files)
        self._handles: dict[int, Handle] = {}
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
        handle = self._shared(node, content)
        if handle is None:
            opened = await self._open_some(content)
            handle = self._shared(node, content)
            if handle:  # somebody else was quicker
                self._pool.close(list(opened.values()))
            else:
                handle = self._handles[node] = Handle(node, content)
                for key, descriptor in opened.items():
                    file = self._pool.adopt(key, descriptor)
                    file.pins += 1
                    handle.pinned.append(file)
        handle.opened += 1
        self._lingering.pop(handle, None)
        return handle

    async def _open_some(self, content: Content) -> dict[Key, int]:
        """The largest files of *content*, open; as many as there is room for."""
        async with self._slots:
            granted = self._pool.reserve(min(len(content.files), self._pool.share))
            sources = heapq.nlargest(granted, content.files, key=lambda file: file.state.size)
            open_them = functools.partial(
                open_files, self._absolute, sources, provable=bool(content.digests)
            )
            try:
                return await self._in_thread(open_them)
            finally:
                self._pool.release(granted)

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

    # -- Reading ---------------------------------------------------------------

    async def read(self, handle: Handle, offset: int, length: int) -> memoryview:
        """Bytes *offset* to *offset + length* of the content, less only at its end.

        The view is good until the caller next gives way to another task. Raises
        :exc:`ChangedError` or :exc:`OSError`.
        """
        content = handle.content
        pieces = list(content.plan(offset, length))
        length = max(0, min(length, content.size - offset))
        if length <= BUFFER and self._read_now(content, pieces, self._buffer):
            return self._buffer[:length]
        async with self._slots:
            buffer = self._take_buffer(length)
            await self._read_in_thread(content, pieces, buffer)
        self._give_buffer(buffer)
        return buffer[:length]

    async def _read_in_thread(
        self, content: Content, pieces: Sequence[Piece], buffer: memoryview
    ) -> None:
        files: dict[int, OpenFile] = {}
        members = {piece.member for piece in pieces if isinstance(piece, Data)}
        for member in members:
            if file := self._pool.get(key_of(content.files[member])):
                file.users += 1
                files[member] = file
        granted = self._pool.reserve(1) if len(files) < len(members) else 0
        try:
            opened = await self._in_thread(
                self._read_blocking, content, pieces, files, buffer, bool(granted)
            )
        finally:
            self._pool.release(granted)
            for file in files.values():
                file.users -= 1
        if opened:
            self._pool.adopt(*opened)

    def _read_now(self, content: Content, pieces: Sequence[Piece], buffer: memoryview) -> bool:
        """Fill *buffer* without touching a disk; False if that can't be done."""
        at = 0
        for piece in pieces:
            if not isinstance(piece, Data):
                buffer[at : at + len(piece)] = piece
                at += len(piece)
                continue
            source = content.files[piece.member]
            key = key_of(source)
            file = self._pool.get(key)
            if file is None:
                return False
            try:
                count = os.preadv(
                    file.descriptor,
                    [buffer[at : at + piece.length]],
                    piece.offset,
                    os.RWF_NOWAIT,
                )
                # A file system that knows RWF_NOWAIT keeps inodes in memory: no wait here.
                if count != piece.length or FileState.of(os.fstat(file.descriptor)) != source.state:
                    return False
            except OSError:
                return False  # the thread finds out, and waits if need be
            self._pool.touch(key, file)
            at += count
        return True

    def _read_blocking(
        self,
        content: Content,
        pieces: Sequence[Piece],
        files: dict[int, OpenFile],
        buffer: memoryview,
        keep: bool,
    ) -> tuple[Key, int] | None:
        """Fill *buffer*, in a worker thread; *files* are those open, by member.

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
                source = content.files[piece.member]
                if file := files.get(piece.member):
                    descriptor = file.descriptor
                else:
                    if last:
                        close_all([last[1]])
                        last = None
                    descriptor = open_file(self._absolute, source)
                    last = (key_of(source), descriptor)
                digest = content.digests[piece.member] if content.digests else None
                view = buffer[at : at + piece.length]
                _fill(descriptor, view, piece.offset)
                self._verify(descriptor, source, digest, piece.offset, view)
                at += piece.length
        except BaseException:
            if last:
                close_all([last[1]])
            raise
        if last and not keep:
            close_all([last[1]])
            return None
        return last

    def _verify(
        self,
        descriptor: int,
        source: SourceFile,
        digest: bytes | None,
        offset: int,
        view: memoryview,
    ) -> None:
        """Make sure that *view*, just read at *offset*, is of the recorded state."""
        status = os.fstat(descriptor)
        state = FileState.of(status)
        if state == source.state:
            return
        if not state.differs_in_ctime_only(source.state):
            raise ChangedError
        if digest is not None:
            self._prove(descriptor, source, digest, offset, view)
        elif status.st_nlink:
            raise ChangedError
        # A file passed through has no checksums; that it was deleted changes
        # its ctime, and not its content.

    def _prove(
        self, descriptor: int, source: SourceFile, digest: bytes, offset: int, view: memoryview
    ) -> None:
        """Read the blocks around *view* again, and fill it with what is proven."""
        size = source.state.size
        hashes = self._blocks(digest) if size > BLOCK else None
        if size > BLOCK and (hashes is None or len(hashes) != 8 * -(-size // BLOCK)):
            raise ChangedError
        block = memoryview(bytearray(min(BLOCK, size)))
        for start in range(offset // BLOCK * BLOCK, offset + len(view), BLOCK):
            part = block[: min(BLOCK, size - start)]
            _fill(descriptor, part, start)
            if hashes is None:
                proven = xxhash.xxh3_128_digest(part) == digest
            else:
                number = start // BLOCK
                proven = xxhash.xxh3_64_digest(part) == hashes[8 * number : 8 * number + 8]
            if not proven:
                raise ChangedError
            first = max(start, offset)
            until = min(start + len(part), offset + len(view))
            view[first - offset : until - offset] = part[first - start : until - start]

    # -- Buffers and threads ---------------------------------------------------

    def _take_buffer(self, length: int) -> memoryview:
        if length <= BUFFER and self._spare:
            return self._spare.pop()
        return memoryview(bytearray(max(length, BUFFER)))

    def _give_buffer(self, buffer: memoryview) -> None:
        if len(buffer) == BUFFER and len(self._spare) < _SPARE_BUFFERS:
            self._spare.append(buffer)


def _fill(descriptor: int, view: memoryview, offset: int) -> None:
    """Read all of *view* at *offset*; raises :exc:`ChangedError` at a premature end."""
    filled = 0
    while filled < len(view):
        count = os.preadv(descriptor, [view[filled:]], offset + filled)
        if count == 0:
            raise ChangedError
        filled += count
