"""The checksums of one file, in one pass.

They are valid only if the file was in the expected state before and after all of it was read
(DESIGN S1). Pages that hashing brought into the page cache are evicted again; others stay.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Callable
from typing import Final

import xxhash
from isal import isal_zlib

from zipfs.errors import ChangedError
from zipfs.library.filestate import BLOCK, Checksums, FileState
from zipfs.system.folders import Folders
from zipfs.system.page_cache import CacheWindows, fill
from zipfs.system.paths import open_path
from zipfs.system.syscalls import GONE, READ_FILE

SLICE: Final = 64 << 20
"""Bytes of a file hashed at once: 5 ms from the page cache, half a second from a slow disk."""
_WINDOW: Final = 8 << 20
"""Bytes that are probed in the page cache, and evicted from it, at once."""

_WRITE_AND_WAIT: Final = 7
"""sync_file_range(2): WAIT_BEFORE | WRITE | WAIT_AFTER."""

_libc: Final = ctypes.CDLL(None) if sys.platform == "linux" else None


class RunningChecksums:
    """Checksums of a file's bytes, fed in order and in whole blocks except for the last."""

    def __init__(self) -> None:
        self.crc32 = 0
        self._digest = xxhash.xxh3_128()
        self.blocks = bytearray()
        """XXH3-64 of each block so far, 8 bytes each."""

    def feed(self, data: memoryview) -> None:
        self.crc32 = isal_zlib.crc32(data, self.crc32)
        self._digest.update(data)
        for start in range(0, len(data), BLOCK):
            self.blocks += xxhash.xxh3_64_digest(data[start : start + BLOCK])

    @property
    def digest(self) -> bytes:
        return self._digest.digest()


class FileHasher:
    """Hashes one file, by repeated calls of :meth:`advance`.

    *path* is absolute. *offset* is the number of bytes hashed so far; *progress* is called with
    the length of each piece that is hashed, and may sleep. With *afresh* the page cache isn't
    used, and the state is compared once more after the file was closed and opened again: for
    files whose state can't vouch for their bytes (:mod:`zipfs.library.vouching`). It is opened
    below one of *folders*, if any are given. Raises :exc:`ChangedError` or :exc:`OSError`.
    """

    def __init__(
        self,
        path: bytes,
        state: FileState,
        progress: Callable[[int], None] | None = None,
        *,
        afresh: bool = False,
        folders: Folders | None = None,
    ) -> None:
        self._state = state
        self._folders = folders
        self._progress = progress
        self.offset = 0
        self._checksums = RunningChecksums()
        self._buffer = memoryview(bytearray(min(BLOCK, max(state.size, 1))))
        self._windows = CacheWindows(state.size, _WINDOW, evict=afresh)
        self._afresh = afresh
        self._path = path
        self._descriptor = -1
        self._open()

    def _open(self) -> None:
        if self._folders is not None:
            try:
                self._open_by(self._folders.open)
            except ChangedError:
                # As in zipfs.library.files.open_file.
                if not self._folders.forget(self._path):
                    raise
            else:
                return
        self._open_by(open_path)

    def _open_by(self, open_it: Callable[[bytes, int], int]) -> None:
        try:
            self._descriptor = open_it(self._path, READ_FILE)
        except OSError as error:
            if error.errno in GONE:
                raise ChangedError from None
            raise
        try:
            self._check()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file; :meth:`advance` opens it again."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            with contextlib.suppress(OSError):  # close(2): it is closed even after an error
                os.close(descriptor)

    def advance(self, limit: int) -> Checksums | None:
        """Hash about *limit* bytes more; the checksums if the whole file is hashed, else None."""
        if self._descriptor < 0:
            self._open()
        size = self._state.size
        until = min(self.offset + limit, size)
        while self.offset < until:
            start = self.offset - self.offset % _WINDOW
            end = min(start + _WINDOW, size)
            if self.offset == start:
                _write_back(self._descriptor, start, end - start)
                self._windows.probe(self._descriptor, start)
            self._block(self._buffer[: min(BLOCK, end - self.offset)])
            if self.offset == end:
                self._windows.release(self._descriptor, start, end - start)
        if self.offset < size:
            return None
        self._check()
        if self._afresh:
            # SMB servers tell the dates as of the opening while anybody has the file open.
            self.close()
            self._open()
        found = self._checksums
        return Checksums(found.crc32, found.digest, bytes(found.blocks) if size > BLOCK else b"")

    def _block(self, buffer: memoryview) -> None:
        fill(self._descriptor, buffer, self.offset, len(buffer))
        self._checksums.feed(buffer)
        self.offset += len(buffer)
        if self._progress:
            self._progress(len(buffer))

    def _check(self) -> None:
        if self._state.now(os.fstat(self._descriptor)) != self._state:
            raise ChangedError


def _write_back(descriptor: int, offset: int, length: int) -> None:
    """Write the dirty pages of a part of a file to the disk.

    If a program maps a file (BitTorrent clients do), the first store into a clean page changes
    the file's times; later stores don't, until the page is clean again after half a minute. So
    pages have to be clean when they are hashed, or the next store would go undetected. No
    effect on tmpfs and overlayfs, which write no page here, and outside Linux.
    """
    if _libc is None:
        return
    # os has no sync_file_range. Errors are reported to the writer.
    with contextlib.suppress(AttributeError):
        _libc.sync_file_range(
            descriptor, ctypes.c_int64(offset), ctypes.c_int64(length), _WRITE_AND_WAIT
        )


def hash_file(
    path: bytes,
    state: FileState,
    progress: Callable[[int], None] | None = None,
    *,
    afresh: bool = False,
) -> Checksums:
    """The checksums of a whole file, blocking; for the parameters see :class:`FileHasher`."""
    hasher = FileHasher(path, state, progress, afresh=afresh)
    try:
        while (checksums := hasher.advance(SLICE)) is None:
            pass
        return checksums
    finally:
        hasher.close()
