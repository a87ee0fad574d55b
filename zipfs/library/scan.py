"""The result of scanning the library: files, folders and whole games. Immutable values.

Paths are bytes relative to the library, ``b""`` is the library itself. A *source* is a path
without links; *origins* are the sources of the folders from which links were followed to reach
it.
"""

from __future__ import annotations

import dataclasses
import enum
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Self

import xxhash

from zipfs.library.filestate import FileState
from zipfs.library.rules.playlists import Mode
from zipfs.system.permissions import Access


class LeftOut(NamedTuple):
    """A path that is skipped, and why."""

    path: bytes
    reason: str


Origins = frozenset[bytes]
NO_LINKS: Final[Origins] = frozenset()


class Place(NamedTuple):
    """The target of a path of the library, links followed."""

    source: bytes
    origins: Origins = NO_LINKS


class Kind(enum.Enum):
    """What an :class:`Entry` stands for."""

    REAL = enum.auto()
    """A file or folder of the library."""
    LIST = enum.auto()
    """A list (:mod:`zipfs.library.decorators.lists`), in place of a game's folder."""
    VARIANT = enum.auto()
    """A variant (:mod:`zipfs.library.decorators.variants`), in place of a game's folder."""


class Type(enum.Enum):
    """What a name of a folder is without a look at it, as the folder's own table says."""

    FILE = enum.auto()
    FOLDER = enum.auto()


class Entry(NamedTuple):
    """The file or folder that a path of the library leads to, links followed.

    *status* is the stat result of the file or folder; that of the list's file for a list, and
    that of the game's folder for a variant.
    """

    source: bytes
    status: os.stat_result
    origins: Origins = NO_LINKS
    kind: Kind = Kind.REAL

    @property
    def place(self) -> Place:
        return Place(self.source, self.origins)

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder, or stands in place of one."""
        return stat.S_ISDIR(self.status.st_mode) or self.kind is Kind.LIST

    @property
    def is_real(self) -> bool:
        """Whether something exists at the source itself; not so for a variant."""
        return self.kind is not Kind.VARIANT


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of a game: *path* within the game's folder, *source* in the library.

    *executable*: whether it has an execute bit, for anybody.
    """

    path: bytes
    source: bytes
    state: FileState
    executable: bool = False
    by_content: bool = False
    """Whether its state can't vouch for its bytes, and its checksums have to
    (:mod:`zipfs.library.vouching`)."""


class Inline(NamedTuple):
    """A member whose content is in no file of the library; a folder if its name ends in ``/``."""

    name: bytes
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class GameScan(ABC):
    """The result of scanning a game, and how its archive is built from it."""

    game: bytes
    """The path of the game, which determines its playlist's name and its platform."""
    files: tuple[SourceFile, ...]
    access: Access
    changed_ns: int
    """Latest ctime or mtime of its files and folders, in nanoseconds since the epoch."""
    written_ns: int
    """Latest mtime alone, likewise."""
    left_out: tuple[LeftOut, ...] = ()
    status: os.stat_result
    """Stat result of its folder, or of what stands in place of one."""
    problem: str = ""
    """Why it can't have an archive; empty if it can."""
    is_whole: bool = False
    """Whether it is known to be complete, so that only files that aren't hashed have to settle."""
    inline: Mapping[int, Inline] = field(default_factory=dict)
    """Members that are in no file, by their number among all members."""
    folders: tuple[bytes, ...] = ()
    """Paths of its empty folders within the game, without those in :attr:`inline`."""
    keeps_order: bool = False
    """Whether members are in the order of :attr:`files`, instead of sorted by name."""
    depth: int = 0
    """Number of leading folders of each path that aren't the game's own."""
    playlists: Mode | None = None
    """Which playlists its archive gets; None: those of the mount."""
    is_spread: bool = False
    """Whether files of it may be elsewhere in the library, where changes aren't its own."""
    owns_folder: bool = True
    """Whether :attr:`status` is that of a folder of its own, which is shown if there is no
    archive, and whose skipped paths are reported for this game alone."""

    def is_archive(self, fewest: int) -> bool:
        """Whether its files make an archive, if a game has at least *fewest* files."""
        return not self.objection(fewest)

    @abstractmethod
    def objection(self, fewest: int) -> str:
        """Why :meth:`is_archive` is False; empty if it is True."""

    @abstractmethod
    def without(self, refused: Callable[[SourceFile], bool]) -> Self:
        """A copy without the files that can't be opened, for which *refused* is true."""

    @abstractmethod
    def fingerprint(self) -> bytes:
        """XXH3-128 of the result; a different one means that the game has changed."""

    @property
    def size(self) -> int:
        """Size of all files, in bytes."""
        return sum(file.state.size for file in self.files)

    def files_digest(self) -> bytes:
        """XXH3-128 of paths and states of all files, of the access to them, and of all folders."""
        hasher = xxhash.xxh3_128(repr(self.access).encode())
        for file in self.files:
            hasher.update(b"%d %d %d %d %d " % (*file.state, file.executable))
            hasher.update(
                b"%d %d %s%s" % (len(file.path), len(file.source), file.path, file.source)
            )
            if file.by_content:
                hasher.update(b" by content")
        for folder in self.folders:
            hasher.update(b"/%d %s" % (len(folder), folder))
        return hasher.digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderScan(GameScan):
    """The scan of a game's folder: all that belongs to it, sorted by path."""

    def objection(self, fewest: int) -> str:
        return "" if len(self.files) >= fewest else f"it has less than {fewest} files"

    def without(self, refused: Callable[[SourceFile], bool]) -> Self:
        if not any(map(refused, self.files)):
            return self
        files = tuple(file for file in self.files if not refused(file))
        return dataclasses.replace(self, files=files)

    def fingerprint(self) -> bytes:
        return self.files_digest()
