"""The outcomes of examining a game, and a version of its archive. Immutable values."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from zipfs.archive import validators
from zipfs.archive.layout import Layout, Piece
from zipfs.library.scan import GameScan, LeftOut, SourceFile
from zipfs.system.permissions import Access

NAME_MAX: Final = 255
"""Bytes of a name, on every file system to which archives are copied."""


def archive_inode(archive: bytes, content: int) -> int:
    """The inode of the version with that *content* id of the archive at the path *archive*."""
    return validators.inode(b"archive", archive, content.to_bytes(16))


@dataclass(frozen=True, kw_only=True, slots=True)
class Sealed:
    """Attributes of a game's current archive, without the data needed to read it."""

    path: bytes
    """Path of the archive in the mount."""
    content: int
    """The 128-bit content id."""
    inode: int
    size: int
    mtime_ns: int
    access: Access
    count: int
    """Number of members."""


@dataclass(frozen=True, slots=True)
class Version:
    """One version of an archive, with all that is needed to read it.

    *files* and *digests* (XXH3-128) are in the order of the layout's sources.
    """

    sealed: Sealed
    layout: Layout
    files: tuple[SourceFile, ...]
    digests: tuple[bytes, ...]
    left_out: tuple[LeftOut, ...] = ()
    """Skipped paths in the folder, relative to the library, and why."""
    folders: Mapping[bytes, bytes] = field(default_factory=dict)
    """Paths of the empty folders within the game, by entry name."""
    key: bytes = b""
    """What it was made of, and how; empty if its checksums aren't those of these very states."""

    @property
    def size(self) -> int:
        return self.layout.size

    def plan(self, offset: int, length: int) -> Iterator[Piece]:
        return self.layout.plan(offset, length)

    def locate(self, offset: int, length: int) -> tuple[int, int] | None:
        return self.layout.locate(offset, length)

    @property
    def memory(self) -> int:
        """Approximate memory use, in bytes."""
        return self.layout.metadata_size + 1000 * len(self.files)


@dataclass(frozen=True, slots=True)
class Absent:
    """There is no such game, or its folder can't be listed (*reason*)."""

    reason: str = ""
    temporary: bool = False
    """Whether it may be listed in a moment: nobody's permission is missing."""


@dataclass(frozen=True, slots=True)
class Plain:
    """The game has too few files, or its archive's name would be too long: shown as a folder."""

    status: os.stat_result = field(compare=False)
    """Stat result of the folder."""
    files: tuple[SourceFile, ...] = field(default=(), compare=False)
    """Its files; the receiver of this result doesn't retain them."""


@dataclass(frozen=True, slots=True)
class Unsettled:
    """The game changed within the settle time; examine it again in *seconds*."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Unhashed:
    """These files have to be hashed first."""

    missing: tuple[SourceFile, ...]


@dataclass(frozen=True, slots=True)
class Impossible:
    """No ZIP can hold the game, or its list is wrong."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unneeded:
    """A variant that has no files, or no difference from its game: it isn't shown."""

    reason: str


Outcome = Absent | Plain | Unsettled | Unhashed | Impossible | Unneeded | Sealed


@dataclass(frozen=True, slots=True)
class Examination:
    """The result of examining a game at one moment. Times are those of ``time.monotonic``."""

    started: float
    fingerprint: bytes
    first_seen: float
    """Start of the first examination in a row with this fingerprint."""
    outcome: Outcome
    took: float = 0.0
    """Duration in seconds."""
    unsure: tuple[SourceFile, ...] = ()
    """Files whose checksums are used, and proven, until they have been hashed in this state."""
    is_spread: bool = False
    """Whether files of it may be elsewhere in the library, where changes aren't its own."""
    tree: bytes = b""
    """The key of its folder as it was found, by which it is known to be unchanged; empty if there
    is none (:mod:`zipfs.sealing.remembered`)."""
    left_out: tuple[LeftOut, ...] = field(default=(), compare=False)
    """Skipped paths of the game, and why; the receiver of this result doesn't retain them."""


def skipped_of(
    game: bytes, scan: GameScan, refused: Iterable[LeftOut], outcome: Outcome, fewest: int
) -> Iterator[LeftOut]:
    """The skipped paths of *game*: files, folders, or the archive itself."""
    if scan.owns_folder:
        yield from scan.left_out
        yield from refused
    if isinstance(outcome, Impossible):
        yield LeftOut(game, f"no archive: {outcome.reason}")
    elif isinstance(outcome, Plain | Unneeded) and scan.is_archive(fewest):
        yield LeftOut(game, f"no archive: its name would have more than {NAME_MAX} bytes")
