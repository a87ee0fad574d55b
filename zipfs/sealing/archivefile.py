"""An archive as a file object: the bytes that a mount would show, without a mount.

Layout and reading are the mount's. Only the headers are in memory; each read takes its data
from the files of the game, and checks that they haven't changed (:mod:`zipfs.library.files`).

A file of the game is opened by the first read of it, and few stay open (DESIGN R4). One that is
replaced or deleted while it is open is still served; later it is an error (R2).
"""

from __future__ import annotations

import errno
import io
import operator
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn

from zipfs import errors
from zipfs.archive import validators
from zipfs.archive.layout import fill
from zipfs.archive.records import Member
from zipfs.library.files import close_all, open_file, read_source
from zipfs.library.proven import ProvenBlocks
from zipfs.library.scan import LeftOut
from zipfs.sealing.outcomes import Version

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_PROVEN: Final = 4 << 20
"""Bytes of proven blocks that an archive keeps."""
KEPT_OPEN: Final = 16
"""Number of files of an archive that stay open; each reading thread can have one more."""


class ChangedError(errors.ChangedError, OSError):
    """A file of the archive has changed since it was hashed.

    ``errno`` is ``EIO``, ``filename`` is the file's path. Open the archive again: that gives a
    new version.
    """


class ArchiveFile(io.RawIOBase):
    """The archive *version* as a seekable, read-only binary file; see ``zipfs.open_archive``.

    A read returns the requested number of bytes, fewer only at the end, or raises
    :exc:`ChangedError` or another :exc:`OSError`. *absolute* returns the absolute path of a
    source, *blocks* has the checksums of the blocks of files, by their XXH3-128.

    Threads can share one object and use :meth:`read_at`, which doesn't use its position;
    ``close`` doesn't wait for them.
    """

    mode = "rb"

    def __init__(
        self,
        version: Version,
        absolute: Callable[[bytes], bytes],
        blocks: Mapping[bytes, bytes],
        left_out: Sequence[LeftOut] = (),
    ) -> None:
        super().__init__()
        self.name = os.fsdecode(version.sealed.path.rpartition(b"/")[2])
        """``GAME.zip``, its name in the mount."""
        self.size: Final = version.size
        """In bytes."""
        self.mtime_ns: Final = version.sealed.mtime_ns
        """Its ``st_mtime_ns`` in the mount: with the size, it distinguishes versions."""
        self.mtime: Final = version.sealed.mtime_ns // validators.NANOSECONDS
        """The same in whole seconds, for ``Last-Modified``."""
        self.etag: Final = validators.nginx_etag(self.mtime, self.size)
        """The ETag that nginx sends for it, with quotes."""
        self.content_id: Final = f"{version.sealed.content:032x}"
        """Its content id, 128 bits in hex; equal archives have equal ones."""
        self.members: Final[tuple[Member, ...]] = version.layout.members
        """Name, size, date and CRC-32 of each member, in order; a folder's name ends in ``/``."""
        self.left_out: Final = tuple(left_out)
        """Skipped paths in the folder, and why, without files that operating systems create.
        Relative to the library if there is one, else to the folder."""
        self._version = version
        self._files = _Files(version, absolute, blocks)
        self._position = 0
        self._moving = threading.Lock()

    @property
    def renamed(self) -> dict[bytes, bytes]:
        """Files and empty folders whose entry name differs from their path: path in the folder ->
        entry name, that of a folder with a ``/`` at its end."""
        layout = self._version.layout
        renamed = {}
        for number, member in enumerate(layout.members):
            source = layout.source_of(number)
            if source is not None and (path := self._version.files[source].path) != member.name:
                renamed[path] = member.name
        folders = self._version.folders.items()
        return renamed | {path: name for name, path in folders if name != path + b"/"}

    # -- Reading ---------------------------------------------------------------

    def read_at(self, offset: int, length: int) -> bytes:
        """Bytes *offset* to *offset + length*, fewer only at the end; ignores the position.

        Thread-safe. Raises :exc:`ValueError` for a negative offset or length,
        :exc:`ChangedError` or another :exc:`OSError`.
        """
        self._checkClosed()
        if offset < 0 or length < 0:
            raise ValueError(f"no such range: {length} bytes at {offset}")
        buffer = bytearray(max(0, min(length, self.size - offset)))
        self._fill(offset, memoryview(buffer))
        return bytes(buffer)

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill *buffer* from the position on; returns the count, less than its size at the end."""
        self._checkClosed()
        view = memoryview(buffer)
        if view.readonly:
            raise TypeError("a writable buffer is wanted")
        if not view.nbytes:
            return 0  # an empty view can't be cast
        view = view.cast("B")
        with self._moving:
            length = max(0, min(len(view), self.size - self._position))
            self._fill(self._position, view[:length])
            self._position += length
        return length

    def read(self, size: int | None = -1, /) -> bytes:
        """*size* bytes from the position on, fewer only at the end; all if negative or None."""
        with self._moving:
            left = max(0, self.size - self._position)
            data = self.read_at(self._position, left if size is None or size < 0 else size)
            self._position += len(data)
        return data

    def readall(self) -> bytes:
        """All bytes from the position on."""
        return self.read()

    def _fill(self, offset: int, view: memoryview) -> None:
        """Fill *view* from *offset* on; it must not extend beyond the archive."""
        if not view:
            return
        if (found := self._version.locate(offset, len(view))) is not None:
            self._files.read(*found, view)
        else:
            fill(self._version.plan(offset, len(view)), view, self._files.read)

    # -- The rest of a file ----------------------------------------------------

    def readable(self) -> bool:
        self._checkClosed()
        return True

    def seekable(self) -> bool:
        self._checkClosed()
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Set the position, which can be beyond the end; returns it.

        Raises :exc:`ValueError` for another *whence*, :exc:`OSError` (``EINVAL``) for a position
        below 0.
        """
        self._checkClosed()
        offset = operator.index(offset)
        with self._moving:
            if whence == io.SEEK_CUR:
                offset += self._position
            elif whence == io.SEEK_END:
                offset += self.size
            elif whence != io.SEEK_SET:
                raise ValueError(f"whence is 0, 1 or 2, not {whence}")
            if offset < 0:
                raise OSError(errno.EINVAL, "the position would be negative")
            self._position = offset
            return offset

    def tell(self) -> int:
        self._checkClosed()
        return self._position

    def write(self, data: object, /) -> NoReturn:
        raise io.UnsupportedOperation("write: an archive is read-only")

    def close(self) -> None:
        """Close all files; those in use by other threads as soon as their reads end."""
        if not self.closed:
            self._files.close()
        super().close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("an ArchiveFile can't be copied or pickled; open the archive again")

    def __repr__(self) -> str:
        return f"<zipfs.ArchiveFile {self.name!r}, {self.size} bytes, {self.content_id}>"


@dataclass(eq=False, slots=True)
class _File:
    """An open file of the game; *users* are the reads under way."""

    descriptor: int
    users: int = 1


class _Files:
    """The files of one archive, of which up to :data:`KEPT_OPEN` and one per thread are open."""

    def __init__(
        self,
        version: Version,
        absolute: Callable[[bytes], bytes],
        blocks: Mapping[bytes, bytes],
    ) -> None:
        self._version = version
        self._absolute = absolute
        self._proven = ProvenBlocks(blocks.get, _PROVEN)
        self._lock = threading.Lock()
        self._open: OrderedDict[int, _File] = OrderedDict()
        """By source number, the most recently used last."""
        self._closed = False

    def read(self, number: int, offset: int, view: memoryview) -> int:
        """Fill *view* from *offset* of the source *number*; returns its length.

        Raises :exc:`ChangedError` or another :exc:`OSError`.
        """
        source = self._version.files[number]
        try:
            file = self._take(number)
            try:
                digest = self._version.digests[number]
                read_source(lambda: file.descriptor, source, digest, self._proven, offset, view)
            finally:
                self._give(file)
        except errors.ChangedError:
            raise ChangedError(
                errno.EIO,
                "it has changed since its archive was opened; open the archive again",
                os.fsdecode(self._absolute(source.source)),
            ) from None
        return len(view)

    def _take(self, number: int) -> _File:
        with self._lock:
            if self._closed:
                raise ValueError("I/O operation on closed file")
            file = self._open.get(number)
            if file is not None:
                file.users += 1
                self._open.move_to_end(number)
                return file
        file = _File(open_file(self._absolute, self._version.files[number]))
        with self._lock:
            other = self._open.get(number)
            if other is None:
                if not self._closed:  # else `_give` closes it after the read
                    self._open[number] = file
                return file
            other.users += 1
        close_all([file.descriptor])
        return other

    def _give(self, file: _File) -> None:
        with self._lock:
            file.users -= 1
            unused = self._evict(KEPT_OPEN)
            if self._closed and not file.users:
                unused.append(file.descriptor)
        close_all(unused)

    def _evict(self, kept: int) -> list[int]:
        """Remove unused files until *kept* are left; their descriptors, for the caller to close."""
        if len(self._open) <= kept:
            return []
        idle = [number for number, file in self._open.items() if not file.users]
        return [self._open.pop(number).descriptor for number in idle[: len(self._open) - kept]]

    def close(self) -> None:
        with self._lock:
            self._closed = True
            unused = self._evict(0)
            self._open.clear()  # the others are closed by `_give`
        close_all(unused)
