"""What is found in the library: files and folders, and whole games. Values, which never change.

Paths are bytes relative to the library, ``b""`` being the library itself; *source* is one
without links on the way, and *origins* are the sources of the folders from which links were
followed to get there.
"""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

import xxhash

from zipfs.library.filestate import FileState
from zipfs.system.permissions import Access


class LeftOut(NamedTuple):
    """Something that isn't shown, and why."""

    path: bytes
    reason: str


Origins = frozenset[bytes]
NO_LINKS: Final[Origins] = frozenset()


class Place(NamedTuple):
    """Where a path of the library leads to, links followed."""

    source: bytes
    origins: Origins = NO_LINKS


class Entry(NamedTuple):
    """What a path of the library leads to, links followed: a folder or a file."""

    source: bytes
    status: os.stat_result
    origins: Origins = NO_LINKS

    @property
    def place(self) -> Place:
        return Place(self.source, self.origins)

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)

    @property
    def is_real(self) -> bool:
        """Whether it is in the library, and nothing that is only shown beside a game."""
        return True


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of a game: *path* within the game's folder, *source* in the library."""

    path: bytes
    source: bytes
    state: FileState


@dataclass(frozen=True, slots=True)
class GameScan:
    """A game folder as it was found: all files that belong, by path."""

    files: tuple[SourceFile, ...]
    access: Access
    changed_ns: int
    """When the youngest of its files and folders last changed, ns since the epoch."""
    written_ns: int
    """The same by mtime alone."""
    left_out: tuple[LeftOut, ...]
    status: os.stat_result
    """The folder's own."""
    problem: str = ""
    """Why there can be no archive of it."""

    def is_archive(self, fewest: int) -> bool:
        """Whether it is shown as an archive, if games of *fewest* files or more are."""
        return len(self.files) >= fewest

    def without(self, refused: Callable[[SourceFile], bool]) -> GameScan:
        """The same without the files that were *refused* to us."""
        if not any(map(refused, self.files)):
            return self
        files = tuple(file for file in self.files if not refused(file))
        return dataclasses.replace(self, files=files)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.state.size for file in self.files)

    def fingerprint(self) -> bytes:
        """XXH3-128 of all that was found: another one means that something changed."""
        hasher = xxhash.xxh3_128(repr(self.access).encode())
        for file in self.files:
            hasher.update(b"%d %d %d %d " % file.state)
            hasher.update(
                b"%d %d %s%s" % (len(file.path), len(file.source), file.path, file.source)
            )
        return hasher.digest()
