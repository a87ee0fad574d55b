"""A file's bytes compared with what is known of them. No I/O: others read.

Bytes are fed in order, by whole blocks of :data:`zipfs.library.filestate.BLOCK` bytes but
for the last.
Where checksums of blocks are known they tell which are damaged, and a file needn't be read in one
go: so far as it was fed, its blocks are proven, and CRC-32 goes on from where it was. XXH3-128
can't, so it takes part only where a file was fed from its beginning.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import xxhash
from isal import isal_zlib

from zipfs.library.filestate import BLOCK, Checksums

HASH_SIZE: Final = 8
"""Bytes of a block's checksum, an XXH3-64."""


class Comparison:
    """What has come so far of comparing a file of *size* bytes with its checksums *known*.

    *offset*, *crc32*, *bad* and *unread* are those of an earlier one that is carried on.
    """

    def __init__(
        self,
        size: int,
        known: Checksums,
        *,
        offset: int = 0,
        crc32: int = 0,
        bad: Iterable[int] = (),
        unread: Iterable[int] = (),
    ) -> None:
        self._size = size
        self._known = known
        self.offset = offset
        """Bytes that are done."""
        self.crc32 = crc32
        self._digest = None if offset else xxhash.xxh3_128()
        self.bad = list(bad)
        """Blocks that differ, by number."""
        self.unread = list(unread)
        """Blocks that there was nothing to compare of."""

    @property
    def has_blocks(self) -> bool:
        """Whether it is known what each block is, so that it can be carried on."""
        return knows_blocks(self._size, self._known)

    @property
    def is_done(self) -> bool:
        return self.offset >= self._size

    @property
    def digest(self) -> bytes | None:
        """XXH3-128 of all that was fed, if that was all."""
        whole = self._digest is not None and self.is_done and not self.unread
        return self._digest.digest() if whole and self._digest is not None else None

    @property
    def matches(self) -> bool:
        """Whether all is as it was known to be, once it is done."""
        return (
            not self.bad
            and not self.unread
            and self.crc32 == self._known.crc32
            and self.digest in (None, self._known.digest)
        )

    def feed(self, data: memoryview) -> None:
        """The next bytes, some blocks or the rest of the file."""
        for start in range(0, len(data), BLOCK):
            block = data[start : start + BLOCK]
            number = (self.offset + start) // BLOCK
            if self.has_blocks and not self.is_right(number, block):
                self.bad.append(number)
        self.crc32 = isal_zlib.crc32(data, self.crc32)
        if self._digest is not None:
            self._digest.update(data)
        self.offset += len(data)

    def skip(self, length: int) -> None:
        """The same for those that can't be read."""
        first, last = self.offset // BLOCK, (self.offset + length - 1) // BLOCK
        self.unread += range(first, last + 1)
        self.offset += length

    def is_right(self, number: int, block: memoryview) -> bool:
        """Whether the block *number* is what it was known to be."""
        start = number * HASH_SIZE
        return xxhash.xxh3_64_digest(block) == self._known.blocks[start : start + HASH_SIZE]


def knows_blocks(size: int, known: Checksums) -> bool:
    """Whether *known* has a checksum for each block of a file of *size* bytes."""
    return size > 0 and len(known.blocks) == -(-size // BLOCK) * HASH_SIZE


def ranges(blocks: Iterable[int], size: int) -> Iterator[tuple[int, int]]:
    """Offset and length, in bytes, of each stretch of *blocks* of a file of *size* bytes."""
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
