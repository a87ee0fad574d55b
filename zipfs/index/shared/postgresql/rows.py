"""Rows of the shared index as bytes: as they are sent, as they come back, and their seals.

They are sent by ``COPY … FROM STDIN (FORMAT BINARY)``, and come back many as one value
(:mod:`.statements`): converting each column by itself takes five times as long.

Each row has a seal of its own, as in SQLite (:mod:`zipfs.index.tables`): a row with a wrong one
counts as missing. It detects damage. It is no protection against who may write to the database.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import xxhash

from zipfs.index.rows import Record
from zipfs.library.filestate import Checksums, FileState
from zipfs.library.scan import SourceFile

COPY_BEGIN: Final = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
COPY_END: Final = struct.pack(">h", -1)
"""https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format"."""

GONE: Final = -1
"""The size in a row that forgets the content with its digest; no file has it."""

PRUNED: Final = bytes(16)
"""The digest in such a row if no content is to be forgotten: the file has been gone for long."""

_STATE: Final = struct.Struct(">qqqq")
_SEALED: Final = struct.Struct(">qqqqqq16sI")
_COPIED: Final = struct.Struct(">hi16siqiqiqiqiqiqiqi16si")
_BACK: Final = struct.Struct(">qqqqqqq16sII")
_OFFERED: Final = struct.Struct(">hi16siqiqiqiqi?ihi")
_LENGTH: Final = struct.Struct(">i")
_ISSUED: Final = struct.Struct(">16sqqI")


class DamagedError(Exception):
    """What came back aren't rows."""


class Row(NamedTuple):
    """What is known of a file. With a size of :data:`GONE`, only its digest counts: the content
    that is to be forgotten."""

    path: bytes
    state: FileState
    checksums: Checksums
    hashed_ns: int
    """When, in nanoseconds since the epoch. Of two rows of a path the later counts."""

    @property
    def record(self) -> Record:
        return self.state, self.checksums

    @property
    def forgets(self) -> bool:
        return self.state.size == GONE


class Issued(NamedTuple):
    """The modification time of a content at a path, in Unix seconds (DESIGN V3)."""

    path: bytes
    content: int
    seconds: int


def forgetting(path: bytes, digest: bytes, at_ns: int) -> Row:
    """The row that forgets the content with *digest* at *path*."""
    return Row(path, FileState(0, GONE, 0, 0), Checksums(0, digest), at_ns)


def key_of(path: bytes) -> bytes:
    """What stands for *path* in keys, 16 bytes: an index of PostgreSQL holds no long values."""
    return xxhash.xxh3_128_digest(path)


def signed(number: int) -> int:
    """An unsigned 64-bit number as PostgreSQL's signed one."""
    return number - (1 << 64) if number >= 1 << 63 else number


def packed_state(state: FileState) -> tuple[int, int, int, int]:
    """*state* as columns."""
    return signed(state.inode), state.size, state.mtime_ns, state.ctime_ns


def state_of(inode: int, size: int, mtime_ns: int, ctime_ns: int) -> FileState:
    """The state in those columns."""
    return FileState(inode % (1 << 64), size, mtime_ns, ctime_ns)


def _seal(row: Row) -> int:
    """The checksum of *row*, as a signed 64-bit number."""
    state, sums = row.state, row.checksums
    hasher = xxhash.xxh3_64(
        _SEALED.pack(*packed_state(state), sums.crc32, row.hashed_ns, sums.digest, len(row.path))
    )
    hasher.update(row.path)
    hasher.update(sums.blocks)
    return signed(hasher.intdigest())


def copied(row: Row) -> bytes:
    """*row* as a tuple of COPY, for ``zipfs_incoming``."""
    sums, path = row.checksums, row.path
    inode, size, mtime_ns, ctime_ns = packed_state(row.state)
    fixed = _COPIED.pack(
        11, 16, key_of(path), 8, inode, 8, size, 8, mtime_ns, 8, ctime_ns,
        8, sums.crc32, 8, row.hashed_ns, 8, _seal(row), 16, sums.digest, len(path),
    )  # fmt: skip
    return b"".join((fixed, path, _LENGTH.pack(len(sums.blocks)), sums.blocks))


def offered(file: SourceFile, rank: int) -> bytes:
    """A file that is to be hashed, likewise, for ``zipfs_offered``."""
    inode, size, mtime_ns, ctime_ns = packed_state(file.state)
    fixed = _OFFERED.pack(
        8, 16, key_of(file.source), 8, inode, 8, size, 8, mtime_ns, 8, ctime_ns,
        1, file.by_content, 2, rank, len(file.source),
    )  # fmt: skip
    return fixed + file.source


def unpacked(data: bytes, damaged: list[int]) -> Iterator[Row]:
    """The rows in *data*; adds to the only number in *damaged* those with a wrong seal.

    Raises :exc:`DamagedError`.
    """
    at = 0
    try:
        while at < len(data):
            *numbers, seal, digest, path_length, blocks_length = _BACK.unpack_from(data, at)
            inode, size, mtime_ns, ctime_ns, crc32, hashed_ns = numbers
            at += _BACK.size
            path = data[at : at + path_length]
            at += path_length
            blocks = data[at : at + blocks_length]
            at += blocks_length
            row = Row(
                path,
                state_of(inode, size, mtime_ns, ctime_ns),
                Checksums(crc32, digest, blocks),
                hashed_ns,
            )
            if at <= len(data) and 0 <= crc32 < 1 << 32 and _seal(row) == seal:
                yield row
            else:
                damaged[0] += 1
    except struct.error:
        raise DamagedError from None


def seal_of_issued(issued: Issued) -> int:
    """The seal of a row of ``issued``."""
    content = issued.content.to_bytes(16)
    packed = _ISSUED.pack(content, issued.seconds, 0, len(issued.path))
    return signed(xxhash.xxh3_64_intdigest(packed + issued.path))


def columns_of(issued: Issued) -> tuple[bytes, bytes, bytes, int, int]:
    """*issued* as columns."""
    content = issued.content.to_bytes(16)
    return key_of(issued.path), issued.path, content, issued.seconds, seal_of_issued(issued)


def unpacked_issued(data: bytes, damaged: list[int]) -> Iterator[Issued]:
    """Likewise, of ``issued``."""
    at = 0
    try:
        while at < len(data):
            content, seconds, seal, length = _ISSUED.unpack_from(data, at)
            at += _ISSUED.size
            issued = Issued(data[at : at + length], int.from_bytes(content), seconds)
            at += length
            if seal_of_issued(issued) == seal:
                yield issued
            else:
                damaged[0] += 1
    except struct.error:
        raise DamagedError from None


def copy_of(rows: Iterable[bytes]) -> bytes:
    """The tuples *rows* as the whole of a COPY."""
    return b"".join((COPY_BEGIN, *rows, COPY_END))
