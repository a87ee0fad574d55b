"""Views of a library: the interface of :class:`Library` and of the decorators over it.

:class:`zipfs.library.library.Library` is a folder on disk.
Those in :mod:`zipfs.library.decorators`, ``WithLists`` and ``WithVariants``, each add games to the
view that they wrap, and forward everything else (:class:`Decorator`). They stack in this order,
variants outermost.

Every method may touch a disk: call it from a worker thread. Paths are bytes relative to the
library, ``b""`` is the library itself; for *source* and *origins* see :mod:`zipfs.library.scan`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from zipfs.library.filestate import FileState
from zipfs.library.presence import Presence
from zipfs.library.rules.general import Policy
from zipfs.library.scan import NO_LINKS, Entry, GameScan, LeftOut, Origins, SourceFile, Type
from zipfs.library.vouching import Vouchers
from zipfs.system.events.changes import Change
from zipfs.system.paths import join

PathMap = Callable[[Iterable[bytes]], Iterable[bytes]]
"""From paths in a watched folder to the paths of the library that show them."""


class LibraryView(Protocol):
    """The interface of a library to the rest of zipfs."""

    # -- On disk ----------------------------------------------------------------

    @property
    def root(self) -> bytes:
        """The absolute path of the library, without links."""

    @property
    def presence(self) -> Presence:
        """Whether its root, and what is mounted in it, is there."""

    def absolute(self, source: bytes) -> bytes:
        """The absolute path of *source*."""

    def holds(self, path: str | bytes) -> bool:
        """Whether *path*, links followed as far as it exists, is in the library."""

    def statvfs(self) -> os.statvfs_result:
        """statvfs(2) of the library's file system."""

    @property
    def vouchers(self) -> Vouchers:
        """What vouches for the bytes of its files."""

    def watched(self) -> Mapping[bytes, PathMap]:
        """The folders whose changes show in this view, by absolute path."""

    def heard(self, folder: bytes, path: bytes, change: Change) -> None:
        """The kernel tells of a *change* of *path* in one of the folders of :meth:`watched`."""

    # -- Folders and files --------------------------------------------------------

    def entry(self, source: bytes, origins: Origins = NO_LINKS) -> Entry | LeftOut | None:
        """The entry at *source*, whose parent has no links on the way; None if it is missing."""

    def entry_at(
        self, path: bytes, source: bytes, origins: Origins = NO_LINKS
    ) -> Entry | LeftOut | None:
        """The same for an entry shown at *path*, which leads to *source*, possibly by links."""

    def file(self, path: bytes, entry: Entry) -> SourceFile:
        """The file *entry*, called *path* in its game; touches no disk once its device is known."""

    def is_listed(self, source: bytes, entry: Entry | LeftOut) -> bool:
        """Whether *entry*, found at *source*, is listed by that very name, case included."""

    def state(self, source: bytes) -> FileState:
        """The state of a folder itself; it changes when a name is added or removed."""

    def names(self, source: bytes) -> list[bytes]:
        """The names of all entries of a folder, sorted, without their stat results."""

    def kinds(self, source: bytes, most: int | None = None) -> dict[bytes, Type | None]:
        """The same, each with whether it is certainly a file, or a folder; None: it may be a link.

        In the order of the disk, and from that the first *most*: it is read no further.
        """

    def folder(
        self, source: bytes, origins: Origins = NO_LINKS
    ) -> list[tuple[bytes, Entry | LeftOut]]:
        """All entries of a folder, sorted by name."""

    def has_folder(self, source: bytes) -> bool:
        """Whether the library has a folder at *source*, links followed; False if unknown."""

    def exists(self, source: bytes) -> bool:
        """Whether there is anything at *source*, a dangling link included."""

    # -- Games -------------------------------------------------------------------

    def scan(
        self,
        source: bytes,
        policy: Policy,
        origins: Origins = NO_LINKS,
        *,
        path: bytes | None = None,
    ) -> GameScan:
        """All files of the game at *source* that *policy* takes.

        *path* is where the game is shown, by default *source*; *policy* decides by it. Raises
        :exc:`OSError` if a folder can't be listed for another reason than permission: half a
        game must not become an archive.
        """

    def tree(self, source: bytes) -> bytes:
        """A checksum of all that a scan of the folder *source* depends on, but the policy.

        Empty if there is more that it depends on. Raises :exc:`OSError`.
        """

    def extended(self, policy: Policy) -> Policy:
        """*policy*, extended by the games that this view adds."""

    def list_of(self, path: bytes) -> bytes | None:
        """The file name of the list that is the game at *path*; None where no list can be."""

    def came_whole(self, path: bytes) -> bool:
        """Whether the game at *path* is a list that was renamed into place; touches no disk."""

    def variants_of(self, game: bytes) -> Sequence[bytes]:
        """The paths at which variants of the game at the path *game* can be."""

    def beside(
        self, folder: bytes, games: Iterable[bytes], taken: Iterable[bytes]
    ) -> Sequence[bytes]:
        """The names of the variants that can be in the folder at the path *folder*.

        *games* are the names of the games there, *taken* all names that the library has there.
        """


class Decorator:
    """A view that forwards everything to *inner*; a subclass overrides what it adds."""

    def __init__(self, inner: LibraryView) -> None:
        self._inner = inner

    @property
    def root(self) -> bytes:
        return self._inner.root

    @property
    def presence(self) -> Presence:
        return self._inner.presence

    def absolute(self, source: bytes) -> bytes:
        return self._inner.absolute(source)

    def holds(self, path: str | bytes) -> bool:
        return self._inner.holds(path)

    def statvfs(self) -> os.statvfs_result:
        return self._inner.statvfs()

    @property
    def vouchers(self) -> Vouchers:
        return self._inner.vouchers

    def watched(self) -> Mapping[bytes, PathMap]:
        return self._inner.watched()

    def heard(self, folder: bytes, path: bytes, change: Change) -> None:
        self._inner.heard(folder, path, change)

    def entry(self, source: bytes, origins: Origins = NO_LINKS) -> Entry | LeftOut | None:
        return self._inner.entry(source, origins)

    def entry_at(
        self, path: bytes, source: bytes, origins: Origins = NO_LINKS
    ) -> Entry | LeftOut | None:
        return self._inner.entry_at(path, source, origins)

    def file(self, path: bytes, entry: Entry) -> SourceFile:
        return self._inner.file(path, entry)

    def is_listed(self, source: bytes, entry: Entry | LeftOut) -> bool:
        return self._inner.is_listed(source, entry)

    def state(self, source: bytes) -> FileState:
        return self._inner.state(source)

    def names(self, source: bytes) -> list[bytes]:
        return self._inner.names(source)

    def kinds(self, source: bytes, most: int | None = None) -> dict[bytes, Type | None]:
        return self._inner.kinds(source, most)

    def folder(
        self, source: bytes, origins: Origins = NO_LINKS
    ) -> list[tuple[bytes, Entry | LeftOut]]:
        return self._inner.folder(source, origins)

    def has_folder(self, source: bytes) -> bool:
        return self._inner.has_folder(source)

    def exists(self, source: bytes) -> bool:
        return self._inner.exists(source)

    def scan(
        self,
        source: bytes,
        policy: Policy,
        origins: Origins = NO_LINKS,
        *,
        path: bytes | None = None,
    ) -> GameScan:
        return self._inner.scan(source, policy, origins, path=path)

    def tree(self, source: bytes) -> bytes:
        return self._inner.tree(source)

    def extended(self, policy: Policy) -> Policy:
        return self._inner.extended(policy)

    def list_of(self, path: bytes) -> bytes | None:
        return self._inner.list_of(path)

    def came_whole(self, path: bytes) -> bool:
        return self._inner.came_whole(path)

    def variants_of(self, game: bytes) -> Sequence[bytes]:
        return self._inner.variants_of(game)

    def beside(
        self, folder: bytes, games: Iterable[bytes], taken: Iterable[bytes]
    ) -> Sequence[bytes]:
        return self._inner.beside(folder, games, taken)


def find_games(library: LibraryView, policy: Policy) -> Iterator[tuple[bytes, Entry]]:
    """Path and folder of each game in *library*, according to *policy*.

    A folder that can't be listed is skipped.
    """
    todo: list[tuple[bytes, bytes, Origins]] = [(b"", b"", NO_LINKS)]
    while todo:
        path, source, origins = todo.pop()
        try:
            children = library.folder(source, origins)
        except OSError:
            continue
        games = []
        for name, entry in children:
            if not isinstance(entry, Entry) or not entry.is_folder:
                continue
            child = join(path, name)
            if policy.is_game(child):
                games.append(name)
                yield child, entry
            elif policy.may_hold_games(child):
                todo.append((child, entry.source, entry.origins))
        for name in library.beside(path, games, (name for name, _ in children)):
            variant = library.entry(join(source, name), origins)
            if isinstance(variant, Entry) and variant.is_folder:
                yield join(path, name), variant
