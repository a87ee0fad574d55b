"""CRC-32 and XXH3-128 of one file, in one pass.

A checksum counts only if the file was in the expected state before and after all
of it was read (DESIGN S1). What hashing brought into the page cache, it drops
again; what others had there, it leaves.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import sys
from collections import deque
from collections.abc import Callable
from typing import Final

import xxhash
from isal import isal_zlib

from zipfs.errors import ChangedError
from zipfs.library.filestate import BLOCK, Checksums, FileState
from zipfs.system.paths import open_path
from zipfs.system.syscalls import READ_FILE, is_cached, pread, uncache

SLICE: Final = 64 << 20
"""Bytes of a file hashed in one go: 5 ms from the page cache, half a
second from a slow disk."""
_WINDOW: Final = 8 << 20
"""Bytes for which the page cache is looked at, and emptied, at once."""
_PROBED: Final = 8
"""How many windows are looked at ahead of need: further than the kernel reads ahead
(8 MiB on some disks), so that what it brings in for us isn't taken for others'."""

_WRITE_AND_WAIT: Final = 7
"""sync_file_range(2): WAIT_BEFORE | WRITE | WAIT_AFTER."""

_libc: Final = ctypes.CDLL(None) if sys.platform == "linux" else None


class FileHasher:
    """Hashes one file, in as many calls of :meth:`advance` as it takes.

    Raises :exc:`ChangedError` or :exc:`OSError`. *path* is absolute; *offset*
    tells how many bytes are done; *progress*, which may dawdle, hears of each
    further stretch.
    """

    def __init__(
        self, path: bytes, state: FileState, progress: Callable[[int], None] | None = None
    ) -> None:
        self._state = state
        self._progress = progress
        self.offset = 0
        self._crc32 = 0
        self._digest = xxhash.xxh3_128()
        self._blocks = bytearray()
        self._buffer = memoryview(bytearray(min(BLOCK, max(state.size, 1))))
        self._cached: deque[bool] = deque()
        """Whether the next windows were in the page cache before we came near."""
        self._path = path
        self._descriptor = -1
        self._open()

    def _open(self) -> None:
        try:
            self._descriptor = open_path(self._path, READ_FILE)
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
        """Close the file; :meth:`advance` opens it again if need be."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            with contextlib.suppress(OSError):  # close(2): it is closed whatever it says
                os.close(descriptor)

    def advance(self, limit: int) -> Checksums | None:
        """Hash about *limit* more bytes; the checksums, once all is done."""
        if self._descriptor < 0:
            self._open()
        size = self._state.size
        until = min(self.offset + limit, size)
        while self.offset < until:
            start = self.offset - self.offset % _WINDOW
            end = min(start + _WINDOW, size)
            if self.offset == start:
                self._begin_window(start, end)
            self._block(self._buffer[: min(BLOCK, end - self.offset)])
            if self.offset == end:
                self._end_window(start, end)
        if self.offset < size:
            return None
        self._check()
        return Checksums(
            self._crc32, self._digest.digest(), bytes(self._blocks) if size > BLOCK else b""
        )

    def _begin_window(self, start: int, end: int) -> None:
        _write_back(self._descriptor, start, end - start)
        ahead = start + _WINDOW * len(self._cached)
        while len(self._cached) < _PROBED and ahead < self._state.size:
            ahead = min(ahead + _WINDOW, self._state.size)
            self._cached.append(is_cached(self._descriptor, ahead - 1))

    def _end_window(self, start: int, end: int) -> None:
        if not self._cached.popleft():
            uncache(self._descriptor, start, end - start)

    def _block(self, buffer: memoryview) -> None:
        filled = 0
        while filled < len(buffer):
            count = pread(self._descriptor, buffer[filled:], self.offset + filled)
            if count == 0:
                raise ChangedError  # shorter than it was
            filled += count
        self._crc32 = isal_zlib.crc32(buffer, self._crc32)
        self._digest.update(buffer)
        self._blocks += xxhash.xxh3_64_digest(buffer)
        self.offset += filled
        if self._progress:
            self._progress(filled)

    def _check(self) -> None:
        if FileState.of(os.fstat(self._descriptor)) != self._state:
            raise ChangedError


def _write_back(descriptor: int, offset: int, length: int) -> None:
    """Have the kernel write to the disk what is dirty in this stretch of a file.

    A program that maps a file (torrent programs do) moves its times by the first store
    into a clean page; later ones leave no trace until the page is clean again, which
    takes half a minute. What is hashed must be clean, so that the next store is seen.
    Not on tmpfs and overlayfs, which have nothing to write here; and on Linux only.
    """
    if _libc is None:
        return
    # os has no sync_file_range. Errors are the writer's to hear of.
    with contextlib.suppress(AttributeError):
        _libc.sync_file_range(
            descriptor, ctypes.c_int64(offset), ctypes.c_int64(length), _WRITE_AND_WAIT
        )


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
