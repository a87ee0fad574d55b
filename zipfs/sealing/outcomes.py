"""What a game may turn out to be, and a version of its archive: values, which never change."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from zipfs.archive.layout import Layout, Piece
from zipfs.library.scan import LeftOut, SourceFile
from zipfs.system.permissions import Access


@dataclass(frozen=True, kw_only=True, slots=True)
class Sealed:
    """A game's archive as it is now, without what only its readers need."""

    path: bytes
    """Where the archive is in the mount."""
    content: int
    """The 128-bit content id."""
    inode: int
    size: int
    mtime_ns: int
    access: Access
    count: int
    """How many members it has."""


@dataclass(frozen=True, slots=True)
class Version:
    """One version of an archive with all that reading it takes; immutable.

    *files* and *digests* (XXH3-128) are in the order of the layout's sources.
    """

    sealed: Sealed
    layout: Layout
    files: tuple[SourceFile, ...]
    digests: tuple[bytes, ...]
    left_out: tuple[LeftOut, ...] = ()
    """What was in the folder and isn't in the archive, paths relative to the library."""

    @property
    def size(self) -> int:
        return self.layout.size

    def plan(self, offset: int, length: int) -> Iterator[Piece]:
        return self.layout.plan(offset, length)

    def locate(self, offset: int, length: int) -> tuple[int, int] | None:
        return self.layout.locate(offset, length)

    @property
    def memory(self) -> int:
        """Bytes of memory that this takes, about."""
        return self.layout.metadata_size + 1000 * len(self.files)


@dataclass(frozen=True, slots=True)
class Absent:
    """There is no such folder, or it can't be listed (*reason*)."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Plain:
    """Too few files, or too long a name: shown as the folder it is."""

    status: os.stat_result = field(compare=False)
    """The folder's."""


@dataclass(frozen=True, slots=True)
class Unsettled:
    """It changed a moment ago; look again in *seconds*."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Unhashed:
    """These files have to be hashed first."""

    missing: tuple[SourceFile, ...]


@dataclass(frozen=True, slots=True)
class Impossible:
    """It can't be expressed as a ZIP."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unneeded:
    """A variant of a game that makes no difference, or nothing: it isn't shown."""

    reason: str


Outcome = Absent | Plain | Unsettled | Unhashed | Impossible | Unneeded | Sealed


@dataclass(frozen=True, slots=True)
class Examination:
    """What a game was at one moment. Times are those of ``time.monotonic``."""

    started: float
    fingerprint: bytes
    first_seen: float
    """Since when the fingerprint is the same, as far as was seen."""
    outcome: Outcome
    took: float = 0.0
    """Seconds that it took."""
    unsure: tuple[SourceFile, ...] = ()
    """Files whose checksums are trusted, and to be made anew (``--trust mtime``)."""
    left_out: tuple[LeftOut, ...] = field(default=(), compare=False)
    """What of it isn't shown, and why; for who hears of the look, and kept by nobody."""
