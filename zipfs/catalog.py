"""The tree as it is now: paths to nodes, nodes to what can be read.

All methods belong to trio's thread; what may touch the disk they do in others.
"""

from __future__ import annotations

import errno
import logging
import os
from typing import Final

from zipfs.errors import StaleError
from zipfs.games import Game, Games, Totals
from zipfs.library import Entry, LeftOut
from zipfs.nodes import Archive, File, Folder, Node, archive_node, folder_node, join, mirrored
from zipfs.once import Once, shown
from zipfs.sealing import Examination, Plain, Sealed, Sealer, Version
from zipfs.selection import folders_of
from zipfs.threads import Threads

log = logging.getLogger(__name__)

_THREADS: Final = 64
"""Threads for looking at the library: so many may hang before others wait."""

_Candidate = tuple[bytes, Entry]
"""A game's path, and its folder."""
_Child = tuple[bytes, File | Folder | _Candidate]
"""A name in a folder, and what it is."""
_Examined = tuple[bytes, Entry, Examination, Version | None]
"""A game's path and folder, and what was found."""


class Catalog:
    """The tree that *sealer* makes of its library."""

    def __init__(self, sealer: Sealer) -> None:
        threads = Threads(_THREADS)
        self._in_thread = threads.run
        self._sealer = sealer
        self._library = sealer.library
        self._games = Games(sealer, threads)
        self._once = Once(log)

    # -- What the file system asks ---------------------------------------------

    async def root(self) -> Folder:
        """The library's own folder."""
        entry = await self._in_thread(self._library.entry, b"")
        if not isinstance(entry, Entry):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return folder_node(b"", entry)

    async def lookup(self, folder: Folder, name: bytes) -> Node:
        """The node called *name* in *folder*; raises :exc:`FileNotFoundError`."""
        path = join(folder.path, name)
        game = self._games.by_archive(path)
        if game and game.is_fresh() and _is_in(folder, game) and isinstance(game.outcome, Sealed):
            return archive_node(game.path, game.outcome)
        found = await self._in_thread(self._find, folder, name)
        if isinstance(found, File | Folder):
            return found
        for game_path, entry in found:
            game = await self._games.check(game_path, entry, asked=True)
            if isinstance(game.outcome, Sealed) and game.outcome.path == path:
                return archive_node(game.path, game.outcome)
            if isinstance(game.outcome, Plain) and game_path == path:
                return folder_node(path, entry)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    async def children(self, folder: Folder) -> list[tuple[bytes, Node]]:
        """All that is in *folder*, by name in the library."""
        children, examined = await self._in_thread(self._list, folder)
        for game_path, entry, examination, version in examined:
            self._games.install(game_path, entry, examination, version, asked=False)
        nodes: list[tuple[bytes, Node]] = []
        for name, child in children:
            if not isinstance(child, tuple):
                nodes.append((name, child))
                continue
            game_path, entry = child
            game = self._games.get(game_path)
            outcome = game.outcome if game else None
            if game and isinstance(outcome, Sealed):
                own = outcome.path.rpartition(b"/")[2]
                nodes.append((own, archive_node(game.path, outcome)))
            elif isinstance(outcome, Plain):
                nodes.append((name, folder_node(game_path, entry)))
        return nodes

    async def refresh(self, node: Node) -> Node:
        """*node* with attributes as they are now; versions never change."""
        if not isinstance(node, Folder):
            return node
        entry = await self._in_thread(self._library.entry, node.source, node.origins)
        if not isinstance(entry, Entry) or not entry.is_folder:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return folder_node(node.path, entry)

    async def open(self, node: Archive) -> Version:
        """The version that *node* stands for; raises :exc:`StaleError` if it is gone."""
        game = self._games.get(node.game)
        version = self._games.version(node.attributes.inode)
        if game is None:
            raise StaleError
        if not (version and game.is_fresh() and game.outcome == version.sealed):
            game = await self._games.check(game.path, game.entry, asked=True, whole=version is None)
            version = self._games.version(node.attributes.inode)
            if (
                version is None
                or not isinstance(game.outcome, Sealed)
                or game.outcome.inode != node.attributes.inode
            ):
                raise StaleError
        return version

    def doubt(self, node: Node) -> None:
        """Look at the game of *node* again, soon: a file of it wasn't in its state."""
        if isinstance(node, Archive):
            self._games.doubt(node.game)

    async def statvfs(self) -> os.statvfs_result:
        return await self._in_thread(self._library.statvfs)

    async def run(self) -> None:
        """Find, hash and seal all games, for ever."""
        await self._games.run()

    def rescan(self) -> None:
        """Look through the whole library now."""
        self._games.rescan()

    async def save(self) -> None:
        """Save the checksums that aren't saved yet."""
        await self._games.save()

    def totals(self) -> Totals:
        """How far everything is."""
        return self._games.totals()

    # -- In worker threads -----------------------------------------------------

    def _find(self, folder: Folder, name: bytes) -> File | Folder | list[_Candidate]:
        """The node *name* in *folder*, or the games that it may be the archive of."""
        path = join(folder.path, name)
        policy = self._sealer.policy
        entry = self._library.entry(join(folder.source, name), folder.origins)
        if isinstance(entry, Entry):
            if entry.is_folder and policy.is_game(path):
                return [(path, entry)]
            return mirrored(path, entry)
        if isinstance(entry, LeftOut):
            self._say(entry)
            return []
        candidates: list[_Candidate] = []
        for base in folders_of(name):
            game_path = join(folder.path, base)
            if policy.is_game(game_path):
                found = self._library.entry(join(folder.source, base), folder.origins)
                if isinstance(found, Entry) and found.is_folder:
                    candidates.append((game_path, found))
        return candidates

    def _list(self, folder: Folder) -> tuple[list[_Child], list[_Examined]]:
        """The entries of *folder*, and the games in it that had to be looked at."""
        children: list[_Child] = []
        examined: list[_Examined] = []
        for name, entry in self._library.folder(folder.source, folder.origins):
            path = join(folder.path, name)
            if isinstance(entry, LeftOut):
                self._say(entry)
            elif entry.is_folder and self._sealer.policy.is_game(path):
                children.append((name, (path, entry)))
                game = self._games.get(path)  # atomic
                if not game or not game.is_fresh() or not game.is_at(entry):
                    before = game.examination if game and game.is_at(entry) else None
                    found = self._sealer.examine(path, entry.source, before, origins=entry.origins)
                    examined.append((path, entry, *found))
            else:
                children.append((name, mirrored(path, entry)))
        return children, examined

    def _say(self, left_out: LeftOut) -> None:
        self._once.warning("%s is left out: %s", shown(left_out.path), left_out.reason)


def _is_in(folder: Folder, game: Game) -> bool:
    """Whether *game* is in *folder* as such, and not behind a link that may lead elsewhere."""
    source = join(folder.source, game.path.rpartition(b"/")[2])
    return (game.entry.source, game.entry.origins) == (source, folder.origins)
