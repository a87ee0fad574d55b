"""Compares the bytes of a file with its checksums. No I/O: the caller reads.

Bytes are fed in order, in whole blocks of :data:`zipfs.library.filestate.BLOCK` bytes except at
the file's end. If the index has checksums of blocks, they show which blocks are bad.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import xxhash

from zipfs.index.hash_file import RunningChecksums
from zipfs.library.filestate import BLOCK, Checksums

HASH_SIZE: Final = 8
"""Bytes of a block's checksum, an XXH3-64."""


class Comparison:
    """Compares a file of *size* bytes with its checksums *known*."""

    def __init__(self, size: int, known: Checksums) -> None:
        self._size = size
        self._known = known
        self._found = RunningChecksums()
        self.offset = 0
        """Number of bytes fed or skipped so far."""
        self.unread: list[int] = []
        """Numbers of the blocks that were skipped."""

    @property
    def has_blocks(self) -> bool:
        """Whether *known* has a checksum for each block."""
        return self._size > 0 and len(self._known.blocks) == -(-self._size // BLOCK) * HASH_SIZE

    @property
    def is_done(self) -> bool:
        return self.offset >= self._size

    @property
    def bad(self) -> list[int]:
        """Numbers of the blocks that differ, of those fed so far."""
        if not self.has_blocks:
            return []
        found, known = self._found.blocks, self._known.blocks
        read = set(range(len(found) // HASH_SIZE)).difference(self.unread)
        return [number for number in sorted(read) if _hash(found, number) != _hash(known, number)]

    @property
    def crc32(self) -> int:
        return self._found.crc32

    @property
    def digest(self) -> bytes | None:
        """XXH3-128 of the whole file; None if not all of it was fed."""
        return self._found.digest if self.is_done and not self.unread else None

    @property
    def matches(self) -> bool:
        """Whether all bytes match; valid once :attr:`is_done`."""
        return (self.crc32, self.digest) == (self._known.crc32, self._known.digest) and not self.bad

    def feed(self, data: memoryview) -> None:
        """Add the next bytes: whole blocks, or the rest of the file."""
        self._found.feed(data)
        self.offset += len(data)

    def skip(self, length: int) -> None:
        """Skip the next *length* bytes, which can't be read."""
        first, last = self.offset // BLOCK, (self.offset + length - 1) // BLOCK
        self.unread += range(first, last + 1)
        self._found.blocks += bytes((last + 1 - first) * HASH_SIZE)
        self.offset += length

    def is_right(self, number: int, block: memoryview) -> bool:
        """Whether *block* has the known checksum of the block *number*."""
        return xxhash.xxh3_64_digest(block) == _hash(self._known.blocks, number)


def _hash(blocks: bytes | bytearray, number: int) -> bytes | bytearray:
    return blocks[number * HASH_SIZE : (number + 1) * HASH_SIZE]


def ranges(blocks: Iterable[int], size: int) -> Iterator[tuple[int, int]]:
    """Offset and length, in bytes, of each run of consecutive *blocks*; *size* is the file's."""
    first = last = -1
    for number in sorted(set(blocks)):
        if last >= 0 and number == last + 1:
            last = number
            continue
        if last >= 0:
            yield first * BLOCK, (last + 1 - first) * BLOCK
        first = last = number
    if last >= 0:
        yield first * BLOCK, min((last + 1) * BLOCK, size) - first * BLOCK
