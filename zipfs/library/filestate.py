"""What is known of a file: the state it is in, and the checksums of that state."""

from __future__ import annotations

import os
from typing import Final, NamedTuple

MIN_SETTLE: Final = 0.05
"""Seconds; file systems count time in ticks of up to 10 ms, and a state has to be
older than its tick to be trusted (DESIGN S1)."""

_UINT64: Final = (1 << 64) - 1


class FileState(NamedTuple):
    """A file's state, as ``stat`` tells it; two equal states have equal bytes.

    That holds once the state is older than the clock's tick (DESIGN S1): a write
    within the tick of the last one leaves no trace in the times. Times are
    nanoseconds since the epoch, *size* is bytes, *inode* has 64 bits (of 128, where a
    file system of Windows has so many).
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

    def is_of(self, status: os.stat_result) -> bool:
        """Whether *status* shows this state, as ``of(status) == self`` says; sooner.

        Not so where a date or an inode is beyond 64 bits: then it may say no.
        """
        return (
            status.st_ctime_ns == self.ctime_ns
            and status.st_mtime_ns == self.mtime_ns
            and status.st_size == self.size
            and status.st_ino == self.inode
        )

    @property
    def changed_ns(self) -> int:
        """When the file last changed: the later of its times.

        ``ctime`` moves with every change; FAT and some network file systems have
        none worth the name, so ``mtime`` is heard as well.
        """
        return max(self.ctime_ns, self.mtime_ns)

    def differs_in_ctime_only(self, other: FileState) -> bool:
        """Whether nothing but ``ctime`` tells the two apart.

        So do ``chmod``, ``link``, ``unlink`` and ``rename``, which leave the
        content alone; and so does a rewrite that puts the old ``mtime`` back.
        """
        return self != other and self[:3] == other[:3]


def _int64(nanoseconds: int) -> int:
    """What 64 bits hold: the years 1678 to 2261. File systems know dates beyond."""
    return max(-(1 << 63), min(nanoseconds, (1 << 63) - 1))


BLOCK: int = 1 << 20
"""Bytes of a file that one entry of :attr:`Checksums.blocks` covers."""


class Checksums(NamedTuple):
    """Checksums of a file's content.

    *digest* is its XXH3-128, 16 bytes big-endian. *blocks* holds the XXH3-64 of
    each :data:`BLOCK` bytes, 8 bytes big-endian each: with them a stretch of a
    file can be proven when its state no longer vouches for it. It is empty where
    the file is one block or less, as *digest* does for that.
    """

    crc32: int
    digest: bytes
    blocks: bytes = b""
