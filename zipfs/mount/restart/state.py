"""What a mount's next daemon has to know: the *state*, in a memfd that outlives the daemon.

It is a journal of records, each appended with one pwrite(2), so that after a kill at any moment
only the end can be torn; a torn end is cut off. The file is never shared by two daemons that write:
who takes over begins when the other has stopped.

Records are the kernel's FUSE_INIT and libfuse's answer to it (:mod:`.adoption`), the options that
the mount was made with, when a daemon began and handed over, and each inode that the kernel was
told of, with its path. An inode is a function of path and content (DESIGN V4), so it means the same
to every daemon. What the kernel has forgotten is recorded, too, and when most of the journal is
about such inodes, it is written anew behind its end; then its beginning, in the header, is moved
there by one write, and the old part is given back.

Layout, little-endian: the header is ``MAGIC`` and the offset of the first record. A record is a
length of 4 bytes, a kind of 1, 3 of padding, XXH3-64 of kind and content in 8, and the content.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import json
import os
import struct
import time
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import xxhash

MAGIC: Final = b"zipfs\0\0\1"
"""With the version of the layout. A daemon of another one makes a new mount."""
_HEADER: Final = struct.Struct("<8sQ")
_RECORD: Final = struct.Struct("<IB3xQ")
_NODE: Final = struct.Struct("<QB")
_INODE: Final = struct.Struct("<Q")
_TIME: Final = struct.Struct("<Q")
_MOST: Final = 1 << 20
"""Bytes of the largest content; more is a torn record."""
_WORTH: Final = 1 << 20
"""Bytes of records about forgotten inodes from which the journal may be written anew."""
_PUNCH_HOLE: Final = 0x02 | 0x01  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, fallocate(2)

_libc: Final = ctypes.CDLL(None, use_errno=True)


class Kind(enum.IntEnum):
    """Kinds of records."""

    INIT = 1
    """The kernel's FUSE_INIT request, whole."""
    ANSWER = 2
    """libfuse's answer to it, whole, as the kernel got it."""
    OPTIONS = 3
    """The options of the mount that the kernel has fixed: a JSON list of strings."""
    STARTED = 4
    """A daemon serves from now on; when, in nanoseconds of CLOCK_MONOTONIC."""
    HANDED_OVER = 5
    """That daemon has answered all that it took, and stopped; when."""
    NODE = 6
    """The kernel was told of a node."""
    FORGOTTEN = 7
    """It has forgotten the node with this inode."""
    PLACE = 8
    """The mount point."""
    LIBRARY = 9
    """The library: the path by which it was named, NUL, and the one without links."""
    LEFT = 10
    """That daemon has stopped, and has not answered all that it took; when."""


class Shown(enum.IntEnum):
    """Kinds of nodes."""

    FOLDER = 1
    FILE = 2
    ARCHIVE = 3


class Known(NamedTuple):
    """A node that the kernel was told of, at a path of the mount."""

    kind: Shown
    path: bytes


class News(NamedTuple):
    """What another daemon has written of a node since: it was told of, or is *forgotten*."""

    inode: int
    known: Known
    forgotten: bool


class StateError(Exception):
    """The descriptor has no state in it, or that of another layout."""


def create() -> int:
    """A new, empty state; returns its descriptor, which isn't inherited. Raises :exc:`OSError`."""
    descriptor = os.memfd_create("zipfs-state", os.MFD_CLOEXEC)
    try:
        os.pwrite(descriptor, _HEADER.pack(MAGIC, _HEADER.size), 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


class State:
    """The state in *descriptor*, as far as it is whole; an empty file is a new one.

    Raises :exc:`StateError`, :exc:`OSError`.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.init = b""
        self.answer = b""
        self.options: list[str] | None = None
        self.place = b""
        """The mount point."""
        self.library: tuple[bytes, bytes] | None = None
        """The library's path as it was named, and without links."""
        self.daemons = 0
        """How many daemons have served."""
        self.handed_over: int | None = None
        """When the last one stopped, with all that it took answered; None if it hasn't."""
        self.stopped: int | None = None
        """When the last one stopped, in nanoseconds of CLOCK_MONOTONIC; None if it died."""
        self.known: dict[int, Known] = {}
        """What the kernel knows, by inode, in the order in which it was told last."""
        self._garbage = 0
        self._pending = bytearray()
        self._start = self._end = 0
        header = os.pread(descriptor, _HEADER.size, 0)
        if not header.strip(b"\0"):
            os.pwrite(descriptor, _HEADER.pack(MAGIC, _HEADER.size), 0)
            self._start = self._end = _HEADER.size
            return
        if len(header) < _HEADER.size or header[: len(MAGIC)] != MAGIC:
            raise StateError("it is of another version of zipfs")
        self._start = self._end = _HEADER.unpack(header)[1]
        self._read(None)

    # -- Reading -------------------------------------------------------------------------

    def refresh(self) -> list[News] | None:
        """Read what was appended by another daemon since; to be called before the first write.

        Returns what is new of nodes; None if the journal was written anew, and all of it was read.
        """
        news: list[News] | None = []
        header = os.pread(self._descriptor, _HEADER.size, 0)
        start = _HEADER.unpack(header)[1]
        if start != self._start:  # it was written anew
            self._start = self._end = start
            self._garbage = 0
            self.known.clear()
            news = None
        self._read(news)
        return news

    def _read(self, news: list[News] | None) -> None:
        size = os.fstat(self._descriptor).st_size
        data = memoryview(os.pread(self._descriptor, max(0, size - self._end), self._end))
        at = 0
        for kind, content, at in _records(data):  # noqa: B007 - the end of the last whole one
            self._take(kind, content, news)
        self._end += at

    def _take(self, kind: int, content: bytes, news: list[News] | None = None) -> None:
        match kind:
            case Kind.NODE:
                inode, shown = _NODE.unpack_from(content)
                if self.known.pop(inode, None) is not None:
                    self._garbage += _RECORD.size + len(content)
                known = self.known[inode] = Known(Shown(shown), content[_NODE.size :])
                if news is not None:
                    news.append(News(inode, known, forgotten=False))
            case Kind.FORGOTTEN:
                (inode,) = _INODE.unpack(content)
                before = self.known.pop(inode, None)
                self._forgotten(before)
                if news is not None and before is not None:
                    news.append(News(inode, before, forgotten=True))
            case Kind.INIT:
                self.init = content
            case Kind.ANSWER:
                self.answer = content
            case Kind.OPTIONS:
                self.options = json.loads(content)
            case Kind.PLACE:
                self.place = content
            case Kind.LIBRARY:
                named, _, root = content.partition(b"\0")
                self.library = named, root
            case Kind.STARTED:
                self.daemons += 1
                self.handed_over = self.stopped = None
            case Kind.HANDED_OVER:
                (self.handed_over,) = (self.stopped,) = _TIME.unpack(content)
            case Kind.LEFT:
                (self.stopped,) = _TIME.unpack(content)

    def _forgotten(self, known: Known | None) -> None:
        self._garbage += _RECORD.size + _INODE.size
        if known is not None:
            self._garbage += _RECORD.size + _NODE.size + len(known.path)

    # -- Writing -------------------------------------------------------------------------

    def set_init(self, request: bytes) -> None:
        self._append_now(Kind.INIT, request)

    def set_answer(self, answer: bytes) -> None:
        self._append_now(Kind.ANSWER, answer)

    def set_options(self, options: Iterable[str]) -> None:
        self._append_now(Kind.OPTIONS, json.dumps(sorted(options)).encode())

    def set_place(self, mountpoint: bytes) -> None:
        self._append_now(Kind.PLACE, mountpoint)

    def set_library(self, named: bytes, root: bytes) -> None:
        if self.library != (named, root):
            self._append_now(Kind.LIBRARY, named + b"\0" + root)

    def start(self) -> None:
        """A daemon, this one, serves from now on; what an earlier one tore is cut off."""
        os.ftruncate(self._descriptor, self._end)
        self._append_now(Kind.STARTED, _TIME.pack(time.monotonic_ns()))

    def hand_over(self, since_ns: int, *, answered: bool = True) -> None:
        """This daemon takes no more since *since_ns*; all that it took is *answered*, or not."""
        self.commit()
        self._append_now(Kind.HANDED_OVER if answered else Kind.LEFT, _TIME.pack(since_ns))

    def tell(self, inode: int, kind: Shown, path: bytes) -> None:
        """The kernel is going to be told of a node; :meth:`commit` before it is."""
        self._pending += _packed(Kind.NODE, _NODE.pack(inode, kind) + path)

    def forget(self, inode: int, path: bytes) -> None:
        """The kernel has forgotten the node *inode*; it is written with the next commit."""
        self._pending += _packed(Kind.FORGOTTEN, _INODE.pack(inode))
        self._forgotten(Known(Shown.FILE, path))

    def commit(self) -> None:
        """Write what was told. Raises :exc:`OSError`."""
        if self._pending:
            data, self._pending = self._pending, bytearray()
            self._write(data)

    @property
    def is_mostly_garbage(self) -> bool:
        """Whether it is worth while to write it anew."""
        return self._garbage > _WORTH and self._garbage > (self._end - self._start) / 2

    def rewrite(self, nodes: Iterable[tuple[int, Shown, bytes]]) -> None:
        """Write the journal anew, with *nodes* as those that the kernel knows."""
        self.commit()
        data = bytearray()
        data += _packed(Kind.INIT, self.init) + _packed(Kind.ANSWER, self.answer)
        data += _packed(Kind.PLACE, self.place)
        if self.library is not None:
            data += _packed(Kind.LIBRARY, b"\0".join(self.library))
        if self.options is not None:
            data += _packed(Kind.OPTIONS, json.dumps(self.options).encode())
        data += _packed(Kind.STARTED, _TIME.pack(time.monotonic_ns())) * self.daemons
        for inode, kind, path in nodes:
            data += _packed(Kind.NODE, _NODE.pack(inode, kind) + path)
        old, start = self._start, self._end
        self._write(data)
        # In one page, so a kill comes before or after it.
        os.pwrite(self._descriptor, _HEADER.pack(MAGIC, start), 0)
        self._start, self._garbage = start, 0
        with contextlib.suppress(OSError):  # it would only hold memory
            _punch(self._descriptor, max(old, _HEADER.size), start)

    def _append_now(self, kind: Kind, content: bytes) -> None:
        self._take(kind, content)
        self._write(_packed(kind, content))

    def _write(self, data: bytes | bytearray) -> None:
        view, at = memoryview(data), self._end
        while view:  # after an error the next write begins where this one did
            done = os.pwrite(self._descriptor, view, at)
            at += done
            view = view[done:]
        self._end = at


def _packed(kind: Kind, content: bytes) -> bytes:
    return _RECORD.pack(len(content), kind, _sum(kind, content)) + content


def _sum(kind: int, content: bytes | memoryview) -> int:
    return xxhash.xxh3_64_intdigest(content, seed=kind)


def _records(data: memoryview) -> Iterator[tuple[int, bytes, int]]:
    """The whole records in *data*: kind, content, and the offset of the next one."""
    at = 0
    while at + _RECORD.size <= len(data):
        length, kind, checksum = _RECORD.unpack_from(data, at)
        begin, at = at + _RECORD.size, at + _RECORD.size + length
        content = data[begin:at]
        if length > _MOST or len(content) < length or _sum(kind, content) != checksum:
            return
        yield kind, bytes(content), at


def _punch(descriptor: int, begin: int, end: int) -> None:
    """Give the pages of *begin* to *end* back, those that are whole."""
    page = os.sysconf("SC_PAGE_SIZE")
    begin, end = -(-begin // page) * page, end // page * page
    if begin < end and _libc.fallocate(
        descriptor, _PUNCH_HOLE, ctypes.c_int64(begin), ctypes.c_int64(end - begin)
    ):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
