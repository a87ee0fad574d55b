"""Blocks of files that were proven by their checksums, kept for the next read.

A proven block is remembered by its content, not by the file that it was read from: by the
XXH3-128 of the whole file and its place in it. So what is remembered can't become wrong, whatever
happens to the file, and many reads of one block cost one read of the source. A sequential reader
needs it for the next piece: the kernel's requests are pieces of the archive, in which the blocks
of a member begin anywhere.

It is kept for :data:`LIFETIME` all the same. Where a change moves no date, only a read of what
changed tells of it; an old archive would be served from memory, rightly but for ever.
"""

from __future__ import annotations

import time
from _thread import allocate_lock  # as in zipfs.system.syscalls
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

import xxhash

from zipfs.errors import ChangedError
from zipfs.library.filestate import BLOCK
from zipfs.library.scan import SourceFile

Blocks = Callable[[bytes], bytes | None]
"""From a file's XXH3-128 to the checksums of its blocks; None if they are unknown."""

MEMORY: Final = 64 << 20
"""Bytes of proven blocks that are kept; a download needs two blocks at a time."""
_LEAST: Final = 512
"""Bytes that a block counts as, at least: of small files there are very many."""
LIFETIME: Final = 30.0
"""Seconds after which a block is read again."""
_FILES: Final = 64
"""Number of files whose checksums of blocks are kept; those of 50 GB have 400 KB."""
_SPARE: Final = 4
"""Number of free buffers that are kept: fresh memory costs more than reading into it."""


class DisprovedError(ChangedError):
    """A block of *source* hasn't the checksum that it had when *digest* was its XXH3-128."""

    def __init__(self, source: SourceFile, digest: bytes) -> None:
        super().__init__(source, digest)
        self.source = source
        self.digest = digest


class _Block(NamedTuple):
    data: memoryview
    until: float
    """When it has to be read again; time.monotonic."""


class ProvenBlocks:
    """Up to *memory* bytes of proven blocks, the oldest dropped first. Thread-safe.

    *blocks* returns the checksums of a file; it is called in the thread that proves.
    """

    def __init__(self, blocks: Blocks, memory: int = MEMORY) -> None:
        self._blocks = blocks
        self._limit = memory
        self._memory = 0
        self._lock = allocate_lock()
        self._kept: OrderedDict[tuple[bytes, int], _Block] = OrderedDict()
        """The oldest first."""
        self._spare: list[memoryview] = []
        self._checksums: OrderedDict[bytes, bytes] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def copy(self, digest: bytes, start: int, offset: int, view: memoryview) -> bool:
        """Fill *view* from *offset* in the block at *start*, if that is kept; whether it was."""
        # Under the lock: another thread could drop the block, and read another into its buffer.
        with self._lock:
            block = self._kept.get((digest, start))
            if block is None or time.monotonic() >= block.until:
                return False
            view[:] = block.data[offset : offset + len(view)]
            return True

    def has(self, digest: bytes, start: int) -> bool:
        """Whether the block at *start* is kept. It may be gone a moment later."""
        block = self._kept.get((digest, start))
        return block is not None and time.monotonic() < block.until

    def buffer(self, length: int) -> memoryview:
        """A buffer for a block of *length* bytes, to be given to :meth:`add`."""
        with self._lock:
            if length == BLOCK and self._spare:
                return self._spare.pop()
        return memoryview(bytearray(length))

    def add(self, digest: bytes, size: int, start: int, block: memoryview) -> bool:
        """Prove and keep *block*, read at *start* of the file with *digest*; whether it is right.

        *size* is the file's, in bytes. The block isn't the caller's any more afterwards.
        """
        if not self._is_right(digest, size, start, block):
            with self._lock:
                self._free(block)
            return False
        with self._lock:
            if (digest, start) in self._kept:
                self._drop((digest, start))
            self._kept[digest, start] = _Block(block, time.monotonic() + LIFETIME)
            self._memory += max(_LEAST, len(block))
            while self._memory > self._limit and len(self._kept) > 1:
                self._drop(next(iter(self._kept)))
        return True

    def drop_old(self) -> None:
        """Drop the blocks that have to be read again."""
        now = time.monotonic()
        with self._lock:
            while self._kept:
                key, block = next(iter(self._kept.items()))
                if now < block.until:
                    break
                self._drop(key)

    def _drop(self, key: tuple[bytes, int]) -> None:
        dropped = self._kept.pop(key).data
        self._memory -= max(_LEAST, len(dropped))
        self._free(dropped)

    def _free(self, block: memoryview) -> None:
        if len(block) == BLOCK and len(self._spare) < _SPARE:
            self._spare.append(block)

    def _is_right(self, digest: bytes, size: int, start: int, block: memoryview) -> bool:
        checksums = b"" if size <= BLOCK else self._checksums_of(digest)
        return is_right(digest, size, start, block, checksums)

    def _checksums_of(self, digest: bytes) -> bytes:
        with self._lock:
            if known := self._checksums.get(digest):
                self._checksums.move_to_end(digest)
                return known
        found = self._blocks(digest) or b""
        if found:
            with self._lock:
                self._checksums[digest] = found
                if len(self._checksums) > _FILES:
                    self._checksums.popitem(last=False)
        return found


def is_right(digest: bytes, size: int, start: int, block: memoryview, checksums: bytes) -> bool:
    """Whether *block* is what was hashed at *start* of the file with *digest* and *size* bytes.

    *checksums* are those of its blocks, and not needed for a file of one block.
    """
    if size <= BLOCK:
        return xxhash.xxh3_128_digest(block) == digest
    if len(checksums) != 8 * -(-size // BLOCK):
        return False  # lost: the file is hashed again
    number = start // BLOCK
    return xxhash.xxh3_64_digest(block) == checksums[8 * number : 8 * number + 8]
