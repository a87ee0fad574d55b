"""The tree as it is now: paths to nodes, nodes to what can be read.

All methods belong to trio's thread; what may touch the disk they do in others.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Final, NamedTuple

import trio

from zipfs.catalog.dir_cache import Listing, Listings, Making
from zipfs.catalog.game import Game, Totals
from zipfs.catalog.games import Games
from zipfs.catalog.nodes import (
    Archive,
    File,
    Folder,
    Node,
    archive_node,
    folder_node,
    mirrored,
)
from zipfs.catalog.scanner import lane_of
from zipfs.errors import StaleError
from zipfs.index.hash_queue import Hasher
from zipfs.library.filestate import FileState
from zipfs.library.rules.general import folders_of
from zipfs.library.rules.romm import Rules
from zipfs.library.scan import Entry, LeftOut, Place
from zipfs.logs import Once
from zipfs.sealing.outcomes import Examination, Plain, Sealed, Version
from zipfs.sealing.sealer import Sealer
from zipfs.system.lanes import Threads
from zipfs.system.paths import join
from zipfs.system.process import Limits
from zipfs.text import shown

log = logging.getLogger(__name__)

_TIDY: Final = 1.0
"""Seconds between two times that old listings are let go."""

_Candidate = tuple[bytes, Entry]
"""A game's path, and its folder."""


class _Examined(NamedTuple):
    """A game's folder, and what was found."""

    entry: Entry
    examination: Examination


class _Known(NamedTuple):
    """A game that was looked at a moment ago, and its folder."""

    entry: Entry


_Child = File | Folder | LeftOut | _Examined | _Known


class Catalog:
    """The tree that *sealer* makes of its library.

    Where a disk doesn't answer, questions fail after *patience* seconds. Files are
    hashed at *hash_rate* bytes a second; 0: as fast as it goes.
    """

    def __init__(
        self,
        sealer: Sealer,
        limits: Limits,
        patience: float | None = None,
        hash_rate: float = 0.0,
    ) -> None:
        threads = Threads(limits.looking, patience, spare=limits.spare)
        self._threads = threads
        self._in_thread = threads.run
        self._sealer = sealer
        self._library = sealer.library
        self._games = Games(sealer, threads, patience, hash_rate)
        self.omissions: Final = self._games.reviews
        """What isn't shown, and why."""
        self._once = Once(log)
        self.invalidate: Callable[[bytes], None] = lambda path: None
        """Called with a path of the mount that may lead to something else now."""
        self._games.unpublished = self._unpublished
        self._listings = Listings()
        self._games.moved = self._drop_listing

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
        found = await self._in_thread(self._find, folder, name, lane=lane_of(path), item=path)
        if isinstance(found, LeftOut):
            if not self._is_in_game(folder):
                self.omissions.settle(join(folder.source, name), found)
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        self.omissions.settle(join(folder.source, name), None)
        if isinstance(found, File | Folder):
            return found
        for game_path, entry in found:
            game = await self._games.check(game_path, entry.place, asked=True)
            if isinstance(game.outcome, Sealed) and game.outcome.path == path:
                return archive_node(game.path, game.outcome)
            if isinstance(game.outcome, Plain) and game_path == path:
                return folder_node(path, entry)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    async def children(self, folder: Folder) -> Listing:
        """All that is in *folder*, by name in the library."""
        await self._listings.made(folder)
        if known := self._listings.get(folder):
            listing, state = known
            if await self._still_holds(folder, listing, state) and (
                self._listings.get(folder) == known  # not dropped meanwhile
            ):
                return listing
        with self._listings.making(folder) as making:
            return await self._list(folder, making)

    async def _still_holds(self, folder: Folder, listing: Listing, state: FileState) -> bool:
        """Whether all but the games, which tell of themselves, are as they were in *listing*."""
        now = await self._in_thread(
            self._library.state, folder.source, lane=lane_of(folder.path), item=folder.path
        )
        if now != state:
            return False
        others = await self._look_at(folder, [name for name, _ in listing.others])
        return others == [node for _, node in listing.others]

    async def _look_at(self, folder: Folder, names: Sequence[bytes]) -> list[_Child | None]:
        """What each of *names* in *folder* is; None for what doesn't answer."""
        return await self._threads.map(
            functools.partial(self._child, folder),
            names,
            lane=lane_of(join(folder.path, b"")),
            key=functools.partial(join, folder.path),
        )

    async def _list(self, folder: Folder, making: Making) -> Listing:
        state, names = await self._in_thread(
            self._names, folder.source, lane=lane_of(folder.path), item=folder.path
        )
        found = list(zip(names, await self._look_at(folder, names), strict=True))
        # What doesn't answer may be a game.
        games = (name for name, child in found if not isinstance(child, File | Folder | LeftOut))
        if variants := self._library.beside(folder.path, games, names):
            looks = await self._look_at(folder, variants)
            found = sorted([*found, *zip(variants, looks, strict=True)], key=itemgetter(0))
        dropped = making.dropped  # by others; what follows is in the listing already
        nodes: list[tuple[bytes, Node]] = []
        others: list[tuple[bytes, object]] = []
        for name, child in found:
            if isinstance(child, File | Folder):
                nodes.append((name, child))
            if isinstance(child, File | Folder | LeftOut):
                others.append((name, child))
                continue
            path = join(folder.path, name)
            if child is None:
                self._once.warning("can't look at %s: no answer", shown(path))
            elif isinstance(child, _Examined):
                self._games.install(path, child.entry.place, child.examination, None, asked=False)
            # What doesn't answer is shown as it was last known.
            game = self._games.get(path)
            outcome = game.outcome if game else None
            if game and isinstance(outcome, Sealed):
                own = outcome.path.rpartition(b"/")[2]
                nodes.append((own, archive_node(path, outcome)))
            elif game and isinstance(outcome, Plain):
                entry = child.entry if child else _last_seen(game.place, outcome)
                nodes.append((name, folder_node(path, entry)))
        if not self._is_in_game(folder):
            silent = (join(folder.source, name) for name, child in found if child is None)
            left_out = [child for _, child in found if isinstance(child, LeftOut)]
            left_out += [LeftOut(path, "doesn't answer") for path in silent]
            self.omissions.listed(folder.source, left_out)
        listing = Listing(nodes, others)
        if all(child is not None for _, child in found):
            making.dropped = dropped
            making.state, making.listing = state, listing
        return listing

    def is_there(self, node: Node) -> bool:
        """Whether *node* may be told of: an archive only as long as there is no other version."""
        if not isinstance(node, Archive):
            return True
        game = self._games.by_archive(node.path)
        outcome = game.outcome if game else None
        return isinstance(outcome, Sealed) and outcome.inode == node.attributes.inode

    async def refresh(self, node: Node) -> Node:
        """*node* with attributes as they are now; versions never change."""
        if not isinstance(node, Folder):
            return node
        entry = await self._in_thread(
            self._library.entry_at,
            node.path,
            node.source,
            node.origins,
            lane=lane_of(node.path),
            item=node.path,
        )
        if not isinstance(entry, Entry) or not entry.is_folder:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return folder_node(node.path, entry)

    async def open(self, node: Archive) -> Version:
        """The version that *node* stands for; raises :exc:`StaleError` if it is gone."""
        game = self._games.get(node.game)
        version = self._games.versions.get(node.attributes.inode)
        if game is None:
            raise StaleError
        if not (version and game.is_fresh() and game.outcome == version.sealed):
            game = await self._games.check(game.path, game.place, asked=True, whole=version is None)
            version = self._games.versions.get(node.attributes.inode)
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
        return await self._in_thread(self._library.statvfs, lane="statvfs")

    async def run(self) -> None:
        """Find, hash and seal all games, for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._games.run)
            while True:
                await trio.sleep(_TIDY)
                self._listings.tidy()

    def changed(self, paths: Iterable[bytes]) -> None:
        """Something has changed at *paths*, relative to the library."""
        policy = self._sealer.policy
        for path in paths:
            self.invalidate(path)
            self._drop_listing(path)
            self._listings.drop(path)
            self.omissions.changed(path)
            if game := next(filter(policy.is_game, _prefixes(path)), None):
                for noticed in (game, *self._library.variants_of(game)):
                    self._games.notice(noticed)
            elif policy.may_hold_games(path):
                self._games.rescan()  # a folder of games came, went, or has another name

    @property
    def polling(self) -> bool:
        """Whether changes have to be looked for, since nobody tells of them."""
        return self._games.polling

    @polling.setter
    def polling(self, polling: bool) -> None:
        self._games.polling = polling

    def rescan(self) -> None:
        """Look through the whole library now."""
        self._listings.clear()
        self._games.rescan(asked=True)

    async def reselect(self, rules: Rules) -> None:
        """Go by other *rules* of RomM from now on, and look at each game anew."""
        with contextlib.suppress(TimeoutError):  # then the next walk finds out the rest
            await self._in_thread(self._sealer.adopt, rules, lane="detect")
        self._listings.clear()
        self._games.rescan(asked=True, anew=True)

    async def save(self) -> None:
        """Save the checksums that aren't saved yet."""
        await self._games.save()

    def totals(self) -> Totals:
        """How far everything is."""
        return self._games.totals()

    @property
    def is_surveyed(self) -> bool:
        """Whether the whole library has been walked through."""
        return self._games.is_surveyed

    @property
    def hasher(self) -> Hasher:
        return self._games.hasher

    @property
    def stuck(self) -> int:
        """How many threads wait for a disk that doesn't answer."""
        return self._threads.stuck

    def _is_in_game(self, folder: Folder) -> bool:
        """Whether *folder* is a game's, whose look says what is left out of all of it."""
        return any(map(self._sealer.policy.is_game, _prefixes(folder.path)))

    def _unpublished(self, path: bytes) -> None:
        self.invalidate(path)

    def _drop_listing(self, path: bytes) -> None:
        """What is at *path*, or may be, isn't what the listing of its folder says."""
        self._listings.drop(path.rpartition(b"/")[0])

    # -- In worker threads -----------------------------------------------------

    def _find(self, folder: Folder, name: bytes) -> File | Folder | LeftOut | list[_Candidate]:
        """The node *name* in *folder*, or the games that it may be the archive of."""
        path = join(folder.path, name)
        policy = self._sealer.policy
        entry = self._library.entry(join(folder.source, name), folder.origins)
        candidates: list[_Candidate] = []
        if isinstance(entry, Entry):
            if entry.is_folder and policy.is_game(path):
                candidates.append((path, entry))
            elif entry.is_real:
                return mirrored(path, entry)
        if isinstance(entry, LeftOut):
            self._say(entry)
            return entry
        for base in folders_of(name):
            game_path = join(folder.path, base)
            if policy.is_game(game_path):
                found = self._library.entry(join(folder.source, base), folder.origins)
                if isinstance(found, Entry) and found.is_folder:
                    candidates.append((game_path, found))
        return candidates

    def _names(self, source: bytes) -> tuple[FileState, list[bytes]]:
        """A folder's state, and after that what is in it."""
        return self._library.state(source), self._library.names(source)

    def _child(self, folder: Folder, name: bytes) -> _Child:
        """What *name* in *folder* is, which was there a moment ago."""
        path = join(folder.path, name)
        source = join(folder.source, name)
        try:
            entry = self._library.entry(source, folder.origins)
        except TimeoutError:
            raise
        except OSError as error:
            entry = LeftOut(source, f"can't be looked at: {error.strerror}")
        if entry is None:
            return LeftOut(source, "went away meanwhile")
        if isinstance(entry, LeftOut):
            self._say(entry)
            return entry
        if not (entry.is_folder and self._sealer.policy.is_game(path)):
            return mirrored(path, entry)
        game = self._games.get(path)  # atomic
        at_place = game if game and game.place == entry.place else None
        if at_place and at_place.is_fresh():
            return _Known(entry)
        before = at_place.examination if at_place else None
        # Its version, should it have one, ends here: for those nobody asks for there is no room.
        examination, _ = self._sealer.examine(path, entry.source, before, origins=entry.origins)
        return _Examined(entry, examination)

    def _say(self, left_out: LeftOut) -> None:
        self._once.warning("%s is left out: %s", shown(left_out.path), left_out.reason)


def _prefixes(path: bytes) -> Iterator[bytes]:
    """The folders above *path*, from the outermost, and *path* itself."""
    at = path.find(b"/")
    while at != -1:
        yield path[:at]
        at = path.find(b"/", at + 1)
    yield path


def _is_in(folder: Folder, game: Game) -> bool:
    """Whether *game* is in *folder* as such, and not behind a link that may lead elsewhere."""
    source = join(folder.source, game.path.rpartition(b"/")[2])
    return game.place == (source, folder.origins)


def _last_seen(place: Place, outcome: Plain) -> Entry:
    """The folder of a game that doesn't answer, as it was last known."""
    return Entry(place.source, outcome.status, place.origins)
