"""Rows of the index: their checksums, and what is in them.

Each row has a checksum of its own, its *seal*: SQLite detects damage to its structure but not to a
value, and a damaged value would be served (DESIGN S3). A row with a wrong one counts as missing.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, NamedTuple

import xxhash

from zipfs.library.filestate import Checksums, FileState

Record = tuple[FileState, Checksums]
Bind = bytes | int

_SIGNED: Final = struct.Struct("<q").pack
_LENGTH: Final = struct.Struct("<Q").pack
_SHORT: Final = 512
_LENGTHS: Final = [*map(_LENGTH, range(_SHORT))]
"""Of short values: each row of the index is sealed, and many are read at once."""

NONE: Final = 0
"""The inode of no archive."""


class Published(NamedTuple):
    """Which version of an archive is there, and since when, in nanoseconds since the epoch."""

    inode: int
    """Its inode; :data:`NONE` if there is no version."""
    since_ns: int


class Made(NamedTuple):
    """The archive that a game had when it was last sealed."""

    tree: bytes
    """The checksum of the game's folder and of all settings, 16 bytes; empty if there is none that
    tells of each change (:mod:`zipfs.sealing.remembered`)."""
    key: bytes
    """What a scan of it has found, and all settings, 16 bytes."""
    fingerprint: bytes
    """What a scan of it has found, 16 bytes."""
    archive: bytes
    """Its path in the mount."""
    content: int
    """Its content id, 128 bits."""
    size: int
    mtime_ns: int
    members: int
    mode: int
    uid: int
    gid: int


MadeAt = tuple[Made, Published | None]
"""The same, and what was last saved of its archive."""


def seal_of(*values: Bind) -> int:
    """Checksum of a row, as a signed 64-bit integer."""
    parts: list[bytes] = []
    for value in values:
        if isinstance(value, int):
            parts.append(_SIGNED(value))
        else:
            length = len(value)
            parts.append(_LENGTHS[length] if length < _SHORT else _LENGTH(length))
            parts.append(value)
    return signed(xxhash.xxh3_64_intdigest(b"".join(parts)))


def verifies(row: tuple[Bind, ...]) -> bool:
    """Whether the last column of *row* is the seal of the others."""
    *values, last = row
    try:
        return seal_of(*values) == last
    except (TypeError, struct.error):
        return False  # not even of the right type


def signed(number: int) -> int:
    """An unsigned 64-bit number, such as an inode, as SQLite's signed one."""
    return number - (1 << 64) if number >= 1 << 63 else number


@dataclass(slots=True)
class Checks:
    """Counts the rows read, and those dropped because their checksum was wrong."""

    read: int = 0
    dropped: int = 0

    def verifies(self, row: tuple[Bind, ...]) -> bool:
        """Whether the checksum of *row*, its last column, is right; counts it."""
        self.read += 1
        if verifies(row):
            return True
        self.dropped += 1
        return False
