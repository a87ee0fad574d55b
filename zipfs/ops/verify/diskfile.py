"""Reads a file from its disk, past the page cache.

The page cache hides bit rot: it returns the bytes that were once read or written, while the
disk has others. There are two ways around it:

- ``O_DIRECT``, open(2): the device is read straight into memory of this process. The page cache
  is neither used nor changed. Dirty pages are written first, and then read back. ext4, XFS,
  Btrfs, F2FS, FAT and NFS support it; an SMB share asks its server. This is the first choice.
- Otherwise each span is evicted from the page cache before it is read
  (``posix_fadvise(POSIX_FADV_DONTNEED)``), and again afterwards if it wasn't cached before.
  For other programs the same data are cached as before, after at most one read of the disk. A
  page that a program maps can't be evicted; its content counts as the disk's.

Neither bypasses caches other than the kernel's page cache: ZFS has its own (and its own
checksums: its scrub does the same), a controller and a drive may have one, and an NFS or SMB
server has one. tmpfs is only page cache. A few file systems accept O_DIRECT and still read some
files through the page cache: ext4 reads encrypted files so, and those with journaled data.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
from typing import Final, Self

from zipfs.errors import ChangedError
from zipfs.library.filestate import FileState
from zipfs.system.page_cache import CacheWindows, fill
from zipfs.system.paths import open_path
from zipfs.system.syscalls import GONE, MAYBE_GONE, READ_FILE, uncache

SPAN: Final = 4 << 20
"""Bytes read at once: direct reads have no read-ahead, so they have to be large."""
_ALIGNED: Final = 4096
"""Offsets, lengths and addresses of direct reads are multiples of this: a disk's largest sector."""

_DIRECT: Final[int] = getattr(os, "O_DIRECT", 0)


class DiskFile:
    """The file at the absolute *path*, which must be in *state*; a context manager.

    Raises :exc:`ChangedError` if it is in another state, :exc:`FileNotFoundError` if there is
    none, and :exc:`OSError` if it can't be opened.
    """

    def __init__(self, path: bytes, state: FileState) -> None:
        self._path = path
        self._state = state
        # mmap: O_DIRECT requires the start of a page.
        self._view = memoryview(mmap.mmap(-1, min(SPAN, max(_aligned(state.size), _ALIGNED))))
        self._windows = CacheWindows(state.size, SPAN, evict=True)
        self.is_direct = bool(_DIRECT)
        self._descriptor = -1
        try:
            self._open()
            self.check()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            with contextlib.suppress(OSError):  # close(2): closed also after an error
                os.close(descriptor)

    def check(self) -> None:
        """Raise :exc:`ChangedError` if the file's state has changed."""
        if self._state.now(os.fstat(self._descriptor)) != self._state:
            raise ChangedError

    def read(self, offset: int, length: int, *, again: bool = False) -> memoryview:
        """*length* bytes at *offset*, a multiple of 4096; valid until the next call.

        They must be in one span of :data:`SPAN` bytes, and before the file's end. *again* is
        whether this process has read them before. Raises :exc:`OSError` if the disk doesn't
        return them, :exc:`ChangedError` if the file is shorter.
        """
        if self.is_direct:
            try:
                fill(self._descriptor, self._view[: _aligned(length)], offset, length)
                return self._view[:length]
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
            self._reopen()  # some file systems accept O_DIRECT, and refuse the read
        self._windows.probe(self._descriptor, offset)
        if again:
            uncache(self._descriptor, offset, length)
        fill(self._descriptor, self._view[:length], offset, length)
        self._windows.release(self._descriptor, offset, length)
        return self._view[:length]

    def _open(self) -> None:
        try:
            if self.is_direct:
                try:
                    self._descriptor = open_path(self._path, READ_FILE | _DIRECT)
                    return
                except OSError as error:
                    if error.errno != errno.EINVAL:  # open(2): O_DIRECT isn't supported
                        raise
                self.is_direct = False
            self._descriptor = open_path(self._path, READ_FILE)
        except FileNotFoundError:
            raise
        except NotADirectoryError:  # a folder above it was replaced by a file
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from None
        except OSError as error:
            if error.errno in GONE | MAYBE_GONE | {errno.EISDIR}:
                raise ChangedError from None
            raise

    def _reopen(self) -> None:
        """Open the file again without O_DIRECT."""
        os.close(self._descriptor)
        self._descriptor = -1
        self.is_direct = False
        self._open()
        self.check()


def _aligned(length: int) -> int:
    return -(-length // _ALIGNED) * _ALIGNED
