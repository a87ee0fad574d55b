"""A file read from its disk, and not out of the page cache, whatever that holds of it.

The cache hides bit rot: it goes on giving the bytes that were once read, or written, while the
disk has others. Two ways lead around it:

- ``O_DIRECT``, open(2): the device is read straight into our memory. The cache is neither asked
  nor changed, so that a server beside us keeps what it has there. Pages that are dirty are
  written first, and then read back. ext4, XFS, Btrfs, F2FS, FAT and NFS can do it; an SMB share
  asks its server. This is what is done wherever it can be.
- Else the cache is told to forget each stretch before it is read
  (``posix_fadvise(POSIX_FADV_DONTNEED)``), and once more afterwards what wasn't there before:
  whoever shared it finds it again, having waited for the disk once at most. A page that is
  mapped by a program stays, and is taken for what the disk has.

Neither reaches what lies below the kernel's page cache: ZFS has a cache of its own (and
checksums of its own: there a scrub does the same), a controller and a drive may have one, and so
has an NFS or SMB server. tmpfs has nothing but the cache. And a few file systems take O_DIRECT
and read some files by way of the cache all the same: ext4 those that it encrypts, or whose data
it has in its journal.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
from typing import Final, Self

from zipfs.errors import ChangedError
from zipfs.library.filestate import FileState
from zipfs.system.paths import open_path
from zipfs.system.syscalls import READ_FILE, is_cached, pread, uncache

SPAN: Final = 4 << 20
"""Bytes read at once: without the kernel's read-ahead, a disk has to be given enough to do."""
_ALIGNED: Final = 4096
"""What offsets, lengths and addresses of direct reads are multiples of; a disk's sector at least,
which none has larger."""
_PROBED: Final = 8
"""How many spans the cache is told to forget ahead of need: further than the kernel reads ahead,
so that what it brings in for us isn't forgotten again before we come to it."""

_CHANGED: Final = frozenset({errno.ELOOP, errno.ENXIO, errno.ESTALE, errno.EISDIR})
"""open(2), of what isn't the file that it was: a link, a socket, another one on the server."""
_DIRECT: Final[int] = getattr(os, "O_DIRECT", 0)


class DiskFile:
    """The file at *path*, absolute, which has to be in *state*.

    Raises :exc:`ChangedError` if it isn't (:exc:`FileNotFoundError` if there is nothing), and
    :exc:`OSError` if it can't be opened. To be closed, or used as a context.
    """

    def __init__(self, path: bytes, state: FileState) -> None:
        self._path = path
        self._state = state
        # At the start of a page, as O_DIRECT wants it.
        self._view = memoryview(mmap.mmap(-1, min(SPAN, max(_aligned(state.size), _ALIGNED))))
        self._cached: dict[int, bool] = {}
        """Which spans, by number, were in the page cache before we came near."""
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
            with contextlib.suppress(OSError):  # close(2): it is closed whatever it says
                os.close(descriptor)

    def check(self) -> None:
        """Raise :exc:`ChangedError` unless it is in its state still."""
        if FileState.of(os.fstat(self._descriptor)) != self._state:
            raise ChangedError

    def read(self, offset: int, length: int, *, again: bool = False) -> memoryview:
        """*length* bytes at *offset*, a multiple of 4096; good until the next call.

        All in one of the stretches of :data:`SPAN` bytes, and before the file's end; *again*: read
        once already. Raises :exc:`OSError` if the disk doesn't give them, :exc:`ChangedError`
        if the file has fewer.
        """
        if not self.is_direct:
            self._forget(offset, length, again=again)
        filled = 0
        while filled < length:
            want = length - filled
            if self.is_direct:
                want = _aligned(want)
            try:
                piece = self._view[filled : filled + want]
                count = pread(self._descriptor, piece, offset + filled)
            except OSError as error:
                if error.errno != errno.EINVAL or not self.is_direct:
                    raise
                self._do_without()  # as it turns out only now
                return self.read(offset, length, again=again)
            if count == 0:
                raise ChangedError  # shorter than it was
            filled += count
        if not self.is_direct and not self._cached.get(offset // SPAN):
            uncache(self._descriptor, offset, length)
        return self._view[:length]

    def _open(self) -> None:
        try:
            if self.is_direct:
                try:
                    self._descriptor = open_path(self._path, READ_FILE | _DIRECT)
                    return
                except OSError as error:
                    if error.errno != errno.EINVAL:  # open(2): what has no O_DIRECT says so
                        raise
                self.is_direct = False
            self._descriptor = open_path(self._path, READ_FILE)
        except FileNotFoundError:
            raise
        except NotADirectoryError:  # a folder on the way isn't one any more
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from None
        except OSError as error:
            if error.errno in _CHANGED:
                raise ChangedError from None
            raise

    def _do_without(self) -> None:
        """Go on without O_DIRECT."""
        os.close(self._descriptor)
        self._descriptor = -1
        self.is_direct = False
        self._open()
        self.check()

    def _forget(self, offset: int, length: int, *, again: bool) -> None:
        first = offset // SPAN
        for span in range(first, first + _PROBED):
            start = span * SPAN
            end = min(start + SPAN, self._state.size)
            if span not in self._cached and start < end:
                self._cached[span] = is_cached(self._descriptor, end - 1)
                uncache(self._descriptor, start, end - start)
        if again:
            uncache(self._descriptor, offset, length)


def _aligned(length: int) -> int:
    return -(-length // _ALIGNED) * _ALIGNED
