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
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final

import trio

from zipfs.catalog.background.recheck import Rechecker
from zipfs.catalog.background.scanner import Scanner
from zipfs.catalog.background.turns import Turns
from zipfs.catalog.background.widths import Widths
from zipfs.catalog.dates import Dates
from zipfs.catalog.finder import Finder, is_in
from zipfs.catalog.game import Totals, lane_of
from zipfs.catalog.games import Games
from zipfs.catalog.handles import Handles
from zipfs.catalog.listing.hearing import Hearing
from zipfs.catalog.listing.lister import Lister
from zipfs.catalog.listing.listing import Listing, Listings
from zipfs.catalog.made import MadeArchives
from zipfs.catalog.nodes import Archive, File, Folder, Node, archive_node, folder_node
from zipfs.catalog.presence import Keeper
from zipfs.catalog.reseal import Resealer
from zipfs.catalog.singles import Singles
from zipfs.catalog.skipped import Skipped
from zipfs.errors import StaleError
from zipfs.index.hash_queue import Hasher
from zipfs.index.unsaved import Unsaved
from zipfs.library.proven import DisprovedError
from zipfs.library.rules.general import prefixes
from zipfs.library.rules.romm import Rules
from zipfs.library.scan import Entry, LeftOut
from zipfs.library.vouching import HashSingles
from zipfs.sealing.outcomes import Plain, Sealed, Version
from zipfs.sealing.sealer import Sealer
from zipfs.system.paths import join
from zipfs.system.process import Limits
from zipfs.system.threads.lanes import Threads

log = logging.getLogger(__name__)


class Catalog:
    """The tree that *sealer* makes of its library.

    Where a disk doesn't answer, calls fail after *patience* seconds. Files are hashed at
    *hash_rate* bytes per second, 0 for no limit. *parallel* games or files are looked at, or small
    ones hashed, at a time; None: as many as make the source quicker. *invalidated* is called with
    a path of the mount that may lead to something else now.
    """

    def __init__(
        self,
        sealer: Sealer,
        limits: Limits,
        patience: float | None = None,
        hash_rate: float = 0.0,
        *,
        hash_singles: HashSingles = "auto",
        recheck_rate: float | None = 0.0,
        parallel: int | None = None,
        invalidated: Callable[[bytes], None] = lambda _: None,
    ) -> None:
        threads = Threads(limits.looking, patience, spare=limits.spare)
        self._threads = threads
        self._in_thread = threads.run
        self._sealer = sealer
        self._library = sealer.library
        self._invalidated = invalidated
        self._listings = Listings()
        self.hearing: Final = Hearing(self._listings.hearing_began, self._listings.clear)
        """Whether changes of the library are told of."""
        self.skipped: Final = Skipped()
        """What isn't shown, and why."""
        self._dates = Dates(sealer.index, self._listings.redated)
        self._made = MadeArchives(sealer.index)
        widths = Widths(sealer.library.presence, limits.looking, parallel)
        self.turns: Final = Turns()
        self._games = Games(
            sealer.settle,
            self.skipped,
            self._dates,
            self._made,
            moved=self._listings.moved,
            unpublished=invalidated,
        )
        self.shown_elsewhere: Final = self._games.shown_elsewhere
        unsaved = Unsaved(sealer.index)
        self.hasher: Final = Hasher(
            sealer.library.absolute,
            unsaved.keep,
            patience,
            hash_rate,
            sealer.index.gate,
            parallel=parallel,
        )
        self.singles: Final = Singles(sealer, self.hasher, unsaved, hash_singles, self._moved)
        self._resealer = Resealer(
            sealer,
            threads,
            self._games,
            self.skipped,
            self.hasher,
            unsaved,
            self.singles,
            self._made,
        )
        self.handles: Final = Handles(self._games, threads, self.root, self.lookup, self.refresh)
        self._finder = Finder(sealer, self._resealer, self.singles, self._dates)
        self._scanner = Scanner(
            sealer,
            threads,
            self._games,
            self.skipped,
            self._resealer,
            self.singles,
            hearing=self.hearing,
            made=self._made,
            widths=widths,
            turns=self.turns,
        )
        self._lister = Lister(
            sealer,
            threads,
            self._games,
            self.skipped,
            self._resealer,
            self._finder,
            self._made,
            widths=widths,
            turns=self.turns,
            listings=self._listings,
            hearing=self.hearing,
            invalidated=invalidated,
        )
        self.rechecker: Final = Rechecker(
            sealer, self._games, self._resealer, self.singles, recheck_rate, patience
        )
        self.presence: Final = sealer.library.presence
        """Whether the library is there."""
        forget = self._library.vouchers.forget
        self._keeper = Keeper(self.presence, threads, sealer.detect, self._returned, forget)
        self.returned = trio.Event()
        """Set, and replaced, when the library is back or another one."""

    # -- What the file system asks ---------------------------------------------

    async def root(self) -> Folder:
        """The library's own folder. Raises :exc:`GoneError`."""
        await self._dates.load()
        self.presence.check(b"")
        entry = await self._in_thread(self._library.entry, b"")
        if not isinstance(entry, Entry):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return self._folder_node(b"", entry)

    async def lookup(self, folder: Folder, name: bytes) -> Node:
        """The node called *name* in *folder*; raises :exc:`FileNotFoundError`."""
        self.presence.check(folder.source)
        path = join(folder.path, name)
        await self._lister.look_ahead(folder, name)
        game = self._games.by_archive(path)
        if game:
            self.presence.check(game.place.source, inside=True)
        if game and game.is_fresh() and is_in(folder, game) and isinstance(game.outcome, Sealed):
            return archive_node(game.path, game.outcome, game.since_ns)
        asked = time.monotonic()
        found = await self._in_thread(
            self._finder.find_and_examine,
            folder,
            name,
            lane=lane_of(path),
            item=self._games.behind(folder.path, name),
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

    async def open_folder(self, folder: Folder) -> Listing:
        """The listing of *folder*, with its names as they are now."""
        return await self._lister.open(folder)

    async def look_at(self, listing: Listing, number: int, told: int = 0) -> bool:
        """Look at what is at the place *number* of *listing*, and at some that follow.

        Returns whether there is such a place.
        """
        return await self._lister.fill(listing, number, told)

    async def behind(self, listing: Listing, cookie: int) -> tuple[int, int]:
        """The number of the first place behind *cookie*; and the tag of those that follow."""
        return await self._lister.behind(listing, cookie)

    async def children(self, folder: Folder) -> list[tuple[bytes, Node]]:
        """All that is in *folder*."""
        return await self._lister.children(folder)

    def is_there(self, node: Node) -> bool:
        """Whether *node* is still there: an archive is while it has no other version."""
        if not isinstance(node, Archive):
            return True
        game = self._games.by_archive(node.path)
        outcome = game.outcome if game else None
        return isinstance(outcome, Sealed) and outcome.inode == node.attributes.inode

    async def refresh(self, node: Node) -> Node:
        """*node* with attributes as they are now; the bytes of a version never change."""
        if isinstance(node, Archive) and (game := self._games.by_archive(node.path)):
            inode = node.attributes.inode
            if isinstance(game.outcome, Sealed) and game.outcome.inode == inode:
                return archive_node(game.path, game.outcome, game.since_ns)
        if not isinstance(node, Folder):
            return node
        entry = await self._in_thread(
            self._finder.refreshed, node, lane=lane_of(node.path), item=node.path
        )
        return self._folder_node(node.path, entry)

    def _folder_node(self, path: bytes, entry: Entry) -> Folder:
        return folder_node(path, entry, self._dates.of_folder(path, entry.status))

    async def open(self, node: Archive | File) -> Version | File:
        """What to read of *node*; raises :exc:`StaleError` if that version is gone."""
        if isinstance(node, File):
            self.singles.check(node)
            return node
        self.rechecker.opened(node.game)
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
        elif isinstance(node, File):
            self.singles.failed(node, error)

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
            nursery.start_soon(self._made.run)
            nursery.start_soon(self.singles.run)
            nursery.start_soon(self.rechecker.run)
            nursery.start_soon(self._lister.run)

    def _moved(self, path: bytes) -> None:
        """There is another node at *path* of the mount."""
        self._listings.moved(path)
        self._invalidated(path)

    def changed(self, paths: Collection[bytes]) -> None:
        """Something has changed at *paths*, relative to the library; ``b""``: anywhere."""
        self._listings.told(paths)
        policy = self._sealer.policy
        games: set[bytes] = set()
        for path in paths:
            if not path:
                self._keeper.doubt()
            self._invalidated(path)
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
        return not self.hearing.is_complete

    def rescan(self) -> None:
        """Scan the whole library now."""
        self._listings.clear()
        self._scanner.rescan(asked=True)

    def shown_before(self, archives: Mapping[bytes, int], others: Iterable[bytes] = ()) -> None:
        """As :meth:`Games.shown_before`."""
        for forgotten in self._games.shown_before(archives, others):
            self._scanner.notice(forgotten)

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
        await self._made.save()

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
    def stuck(self) -> int:
        """How many threads hang in a disk."""
        return self._threads.stuck + self.rechecker.stuck
