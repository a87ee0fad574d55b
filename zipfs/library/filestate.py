"""The state of a file, and the checksums of its content in that state."""

from __future__ import annotations

import os
from typing import Final, NamedTuple

MIN_SETTLE: Final = 0.05
"""Minimum settle time in seconds: file systems count time in ticks of up to 10 ms, and a state
is reliable only once it is older than its tick (DESIGN S1)."""

_UINT64: Final = (1 << 64) - 1
_LOWEST: Final = -(1 << 63)
_HIGHEST: Final = (1 << 63) - 1


class FileState(NamedTuple):
    """A file's state, from its stat result; equal states have equal bytes.

    That holds once the state is older than the clock's tick (DESIGN S1): a write within the
    tick of the last one doesn't change the times. Times are in nanoseconds since the epoch,
    *size* is in bytes, *inode* has 64 bits (the lower ones of 128 on some file systems of
    Windows).

    An inode or a ctime of 0 isn't part of the state: the file system has none that lasts, or
    none of its own (:mod:`zipfs.library.vouching`).
    """

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileState:
        return cls(
            status.st_ino & _UINT64,
            status.st_size,
            _int64(status.st_mtime_ns),
            _int64(status.st_ctime_ns),
        )

    def without(self, *, inode: bool = False, ctime: bool = False) -> FileState:
        """This state without its inode, or its ctime."""
        return FileState(
            0 if inode else self.inode, self.size, self.mtime_ns, 0 if ctime else self.ctime_ns
        )

    def measure(self, other: FileState) -> FileState:
        """*other* with no more parts than this state has, so that the two can be compared."""
        if self.inode and self.ctime_ns:
            return other
        return other.without(inode=not self.inode, ctime=not self.ctime_ns)

    def now(self, status: os.stat_result) -> FileState:
        """The state in *status*, with no more parts than this one has."""
        return self.measure(FileState.of(status))

    def is_of(self, status: os.stat_result) -> bool:
        """Whether *status* has this state: ``now(status) == self``, computed faster.

        It can be False for equal states if a date or an inode is beyond 64 bits.
        """
        return (
            (status.st_ctime_ns == self.ctime_ns or not self.ctime_ns)
            and status.st_mtime_ns == self.mtime_ns
            and status.st_size == self.size
            and (status.st_ino == self.inode or not self.inode)
        )

    @property
    def changed_ns(self) -> int:
        """When the file last changed, in nanoseconds: the later of its times.

        ``ctime`` moves with every change; FAT and some network file systems have no real one,
        so ``mtime`` counts as well.
        """
        return max(self.ctime_ns, self.mtime_ns)

    def differs_in_ctime_only(self, other: FileState) -> bool:
        """Whether the two differ, and only in ``ctime``.

        After ``chmod``, ``link``, ``unlink`` and ``rename``, which don't change the content;
        but also after a rewrite that restores the old ``mtime``.
        """
        return self != other and self[:3] == other[:3]

    def has_content_of(self, other: FileState) -> bool:
        """Whether size and mtime are equal, so that the content probably is."""
        return self.size == other.size and self.mtime_ns == other.mtime_ns


def _int64(nanoseconds: int) -> int:
    """Clamp to 64 bits: the years 1678 to 2261. Some file systems have dates beyond."""
    if _LOWEST <= nanoseconds <= _HIGHEST:  # nearly always; a third of the time of min and max
        return nanoseconds
    return max(_LOWEST, min(nanoseconds, _HIGHEST))


BLOCK: int = 1 << 20
"""Bytes of a file that one entry of :attr:`Checksums.blocks` covers."""


class Checksums(NamedTuple):
    """Checksums of a file's content.

    *digest* is its XXH3-128, 16 bytes big-endian. *blocks* holds the XXH3-64 of each
    :data:`BLOCK` bytes, 8 bytes big-endian each, by which a part of a file is proven when its
    state doesn't show whether it has changed. It is empty for a file of one block or less,
    which *digest* proves.
    """

    crc32: int
    digest: bytes
    blocks: bytes = b""
