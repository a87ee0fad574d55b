"""The tree as it is now: paths to nodes, nodes to what can be read.

What is known is used for as long as an examination lives (:mod:`zipfs.catalog.game`), and then
examined again, on access: correctness never rests on being told of changes.

All methods belong to trio's thread; what may touch the disk they do in others.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import Final

import trio

from zipfs.catalog.dates import Dates
from zipfs.catalog.dir_cache import Listing, Listings, Making
from zipfs.catalog.finder import Child, Finder
from zipfs.catalog.game import Game, Totals, lane_of
from zipfs.catalog.games import Games
from zipfs.catalog.handles import Handles
from zipfs.catalog.nodes import Archive, File, Folder, Node, archive_node, folder_node
from zipfs.catalog.presence import Keeper
from zipfs.catalog.reseal import Resealer
from zipfs.catalog.scanner import Scanner
from zipfs.catalog.skipped import By, Skipped
from zipfs.errors import StaleError
from zipfs.index.hash_queue import Hasher
from zipfs.library.filestate import FileState
from zipfs.library.proven import DisprovedError
from zipfs.library.rules.general import folders_of, prefixes
from zipfs.library.rules.romm import Rules
from zipfs.library.scan import Entry, LeftOut, Place
from zipfs.logs import Once
from zipfs.sealing.outcomes import Plain, Sealed, Version
from zipfs.sealing.sealer import Sealer
from zipfs.system.lanes import Threads
from zipfs.system.paths import join
from zipfs.system.process import Limits
from zipfs.text import shown

log = logging.getLogger(__name__)

_TIDY: Final = 1.0
"""Seconds between two times that old listings are dropped."""


def _ignore(path: bytes) -> None:
    """Does nothing: there is no kernel to be told of *path*."""


class Catalog:
    """The tree that *sealer* makes of its library.

    Where a disk doesn't answer, calls fail after *patience* seconds. Files are hashed at
    *hash_rate* bytes per second, 0 for no limit. *invalidated* is called with a path of the
    mount that may lead to something else now.
    """

    def __init__(
        self,
        sealer: Sealer,
        limits: Limits,
        patience: float | None = None,
        hash_rate: float = 0.0,
        *,
        invalidated: Callable[[bytes], None] = _ignore,
    ) -> None:
        threads = Threads(limits.looking, patience, spare=limits.spare)
        self._threads = threads
        self._in_thread = threads.run
        self._sealer = sealer
        self._library = sealer.library
        self._invalidated = invalidated
        self._once = Once(log)
        self._listings = Listings()
        self.skipped: Final = Skipped()
        """What isn't shown, and why."""
        self._dates = Dates(sealer.index)
        self._games = Games(
            sealer.settle, self.skipped, self._dates, self._listings.moved, invalidated
        )
        self._resealer = Resealer(sealer, threads, self._games, self.skipped, patience, hash_rate)
        self.handles: Final = Handles(self._games, threads, self.root, self.lookup, self.refresh)
        self._finder = Finder(sealer, self._resealer, self._dates)
        self._scanner = Scanner(sealer, threads, self._games, self.skipped, self._resealer)
        self.presence: Final = sealer.library.presence
        """Whether the library is there."""
        self._keeper = Keeper(
            self.presence, threads, sealer.detect, self._returned, self._library.vouchers.forget
        )
        self.returned = trio.Event()
        """Set, and replaced, when the library is back or another one."""

    # -- What the file system asks ---------------------------------------------

    async def root(self) -> Folder:
        """The library's own folder."""
        await self._dates.load()
        entry = await self._in_thread(self._library.entry, b"")
        if not isinstance(entry, Entry):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return self._folder_node(b"", entry)

    async def lookup(self, folder: Folder, name: bytes) -> Node:
        """The node called *name* in *folder*; raises :exc:`FileNotFoundError`."""
        self.presence.check(folder.source)
        path = join(folder.path, name)
        game = self._games.by_archive(path)
        if game:
            self.presence.check(game.place.source, inside=True)
        if game and game.is_fresh() and _is_in(folder, game) and isinstance(game.outcome, Sealed):
            return archive_node(game.path, game.outcome, game.since_ns)
        asked = time.monotonic()
        found = await self._in_thread(
            self._finder.find_and_examine,
            folder,
            name,
            lane=lane_of(path),
            item=self._game_behind(folder, name, path),
        )
        if not isinstance(found, list) or not found:
            self._games.not_found(path, asked)
        if isinstance(found, LeftOut):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        self._scanner.changed(join(folder.source, name))  # if it was skipped: it is there now
        if isinstance(found, File | Folder):
            return found
        for entry, look in found:
            game = self._resealer.install(look, asked=True)
            outcome = game.outcome if game else None
            if game and isinstance(outcome, Sealed) and outcome.path == path:
                return archive_node(game.path, outcome, game.since_ns)
            if game and isinstance(outcome, Plain) and game.path == path:
                return self._folder_node(path, entry)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    def _game_behind(self, folder: Folder, name: bytes, path: bytes) -> bytes:
        """The known game whose archive *name* may be, or *path*: what a thread may hang in."""
        for base in (name, *folders_of(name)):
            game = self._games.get(join(folder.path, base))
            if game and not (isinstance(game.outcome, Sealed) and game.outcome.path != path):
                return game.path
        return path

    async def children(self, folder: Folder) -> Listing:
        """All that is in *folder*."""
        self.presence.check(folder.source)
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
        """Whether all but the games are as in *listing*; games that change drop it themselves."""
        now = await self._in_thread(
            self._finder.state, folder.source, lane=lane_of(folder.path), item=folder.path
        )
        if now != state:
            return False
        others = await self._look_at(folder, [name for name, _ in listing.others])
        return others == [node for _, node in listing.others]

    async def _look_at(self, folder: Folder, names: Sequence[bytes]) -> list[Child | None]:
        """What each of *names* in *folder* is; None where the disk doesn't answer."""
        return await self._threads.map(
            functools.partial(self._finder.child, folder),
            names,
            lane=lane_of(join(folder.path, b"")),
            key=functools.partial(join, folder.path),
        )

    async def _list(self, folder: Folder, making: Making) -> Listing:
        state, names = await self._in_thread(
            self._finder.names, folder.source, lane=lane_of(folder.path), item=folder.path
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
                if not self.presence.gone_at(join(folder.source, name)):
                    self._once.warning("can't look at %s: no answer", shown(path))
            else:
                self._resealer.install(child.look, asked=False)
            # What doesn't answer is shown as it was last known.
            game = self._games.get(path)
            outcome = game.outcome if game else None
            if game and isinstance(outcome, Sealed):
                own = outcome.path.rpartition(b"/")[2]
                nodes.append((own, archive_node(path, outcome, game.since_ns)))
            elif game and isinstance(outcome, Plain):
                entry = child.entry if child else _last_seen(game.place, outcome)
                nodes.append((name, self._folder_node(path, entry)))
        if not self._is_in_game(folder):
            silent = (join(folder.source, name) for name, child in found if child is None)
            left_out = [child for _, child in found if isinstance(child, LeftOut)]
            left_out += [LeftOut(path, "doesn't answer") for path in silent]
            self.skipped.replace((By.FOLDER, folder.source), left_out)
        listing = Listing(nodes, others)
        if all(child is not None for _, child in found):
            making.dropped = dropped
            making.state, making.listing = state, listing
        return listing

    def is_there(self, node: Node) -> bool:
        """Whether *node* is still there: an archive is while it has no other version."""
        if not isinstance(node, Archive):
            return True
        game = self._games.by_archive(node.path)
        outcome = game.outcome if game else None
        return isinstance(outcome, Sealed) and outcome.inode == node.attributes.inode

    async def refresh(self, node: Node) -> Node:
        """*node* with attributes as they are now; the bytes of a version never change."""
        if isinstance(node, Archive):
            game, inode = self._games.by_archive(node.path), node.attributes.inode
            if game and isinstance(game.outcome, Sealed) and game.outcome.inode == inode:
                return archive_node(game.path, game.outcome, game.since_ns)
        if not isinstance(node, Folder):
            return node
        entry = await self._in_thread(
            self._finder.refreshed, node, lane=lane_of(node.path), item=node.path
        )
        return self._folder_node(node.path, entry)

    def _folder_node(self, path: bytes, entry: Entry) -> Folder:
        return folder_node(path, entry, self._dates.of_folder(path, entry.status))

    async def open(self, node: Archive) -> Version:
        """The version that *node* stands for; raises :exc:`StaleError` if it is gone."""
        game = self._games.get(node.game)
        if game:
            self.presence.check(game.place.source, inside=True)
        version = self._games.versions.get(node.attributes.inode)
        if game is None:
            raise StaleError
        if not (version and game.is_fresh() and game.outcome == version.sealed):
            await self._resealer.look(game, asked=True, whole=version is None)
            game = self._games.get(node.game)
            version = self._games.versions.get(node.attributes.inode)
            if (
                version is None
                or game is None
                or not isinstance(game.outcome, Sealed)
                or game.outcome.inode != node.attributes.inode
            ):
                raise StaleError
        return version

    def failed(self, node: Node, error: Exception, read: object = None) -> None:
        """Examine the game of *node* now: opening or reading *read* of it ended in *error*."""
        if isinstance(node, Archive) and (game := self._games.get(node.game)):
            if isinstance(error, DisprovedError):
                self._resealer.distrust(game, error, read if isinstance(read, Version) else None)
            else:
                self._resealer.invalidate(game, 0)

    async def confirm(self, node: Node) -> None:
        """Raise :exc:`GoneError` if *node* can't be opened because a disk is gone."""
        source = node.file.source if isinstance(node, File) else b""
        if isinstance(node, Archive) and (game := self._games.get(node.game)):
            source = game.place.source
        confirm = functools.partial(self.presence.confirm, inside=True, thoroughly=True)
        since = self.presence.generation
        await self._in_thread(confirm, source, since, lane=lane_of(node.path), item=node.path)

    async def statvfs(self) -> os.statvfs_result:
        self.presence.check(b"")
        return await self._in_thread(self._library.statvfs, lane="statvfs")

    async def run(self) -> None:
        """Find, hash and seal all games, for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._resealer.run)
            nursery.start_soon(self._keeper.run)
            nursery.start_soon(self._scanner.run)
            nursery.start_soon(self._dates.run)
            while True:
                await trio.sleep(_TIDY)
                self._listings.tidy()

    def changed(self, paths: Iterable[bytes]) -> None:
        """Something has changed at *paths*, relative to the library."""
        policy = self._sealer.policy
        games: set[bytes] = set()
        for path in paths:
            if not path:
                self._keeper.doubt()
            self._invalidated(path)
            self._listings.moved(path)
            self._listings.drop(path)
            self._scanner.changed(path)
            if game := next(filter(policy.is_game, prefixes(path)), None):
                games.update((game, *self._library.variants_of(game)))
            elif policy.may_hold_games(path):
                self._scanner.rescan()  # a folder of games came, went, or has another name
        for game in games:
            self._scanner.notice(game)

    @property
    def polling(self) -> bool:
        """Whether the library is scanned every few seconds, as no events come of changes."""
        return self._scanner.polling

    @polling.setter
    def polling(self, polling: bool) -> None:
        self._scanner.polling = polling

    def rescan(self) -> None:
        """Scan the whole library now."""
        self._listings.clear()
        self._scanner.rescan(asked=True)

    def _returned(self) -> None:
        self._listings.clear()
        self._resealer.returned()
        self._scanner.rescan(asked=True)
        self.returned.set()
        self.returned = trio.Event()

    async def reselect(self, rules: Rules) -> None:
        """Go by other *rules* of RomM from now on, and examine each game anew."""
        with contextlib.suppress(TimeoutError):  # then the next scan finds out the rest
            await self._in_thread(self._sealer.adopt, rules, lane="detect")
        self._listings.clear()
        for game in self._games:
            self._games.invalidate(game)
        self._scanner.rescan(asked=True)

    async def save(self) -> None:
        """Save the checksums and dates that aren't saved yet."""
        await self._resealer.save()
        await self._dates.save()

    def totals(self) -> Totals:
        """Totals of what is sealed, and of what isn't yet."""
        sums = self._games.sums
        return Totals(
            archives=sums.archives,
            members=sums.members,
            size=sums.size,
            unsealed=self._games.unsealed,
            pending_bytes=self.hasher.pending_bytes,
        )

    @property
    def is_surveyed(self) -> bool:
        """Whether the whole library has been scanned."""
        return self._games.is_scanned

    @property
    def hasher(self) -> Hasher:
        return self._resealer.hasher

    @property
    def stuck(self) -> int:
        """How many threads hang in a disk that doesn't answer."""
        return self._threads.stuck

    def _is_in_game(self, folder: Folder) -> bool:
        """Whether *folder* is in a game, whose examination says what is skipped in it."""
        return any(map(self._sealer.policy.is_game, prefixes(folder.path)))


def _is_in(folder: Folder, game: Game) -> bool:
    """Whether *game* is in *folder* as such, and not behind a link that may lead elsewhere."""
    source = join(folder.source, game.path.rpartition(b"/")[2])
    return game.place == (source, folder.origins)


def _last_seen(place: Place, outcome: Plain) -> Entry:
    """The folder of a game that doesn't answer, as it was last known."""
    return Entry(place.source, outcome.status, place.origins)
