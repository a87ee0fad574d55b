"""Who looks at what a folder holds, when it is listed.

The names are read when a folder is opened, of a large one the first ones, and the others once
somebody asks for more. They are looked at as they are told, some more each time. What was seen is
kept with the listing (:mod:`zipfs.catalog.listing.listing`), and taken as it is

    where                               a game              anything else
    changes are told of                 until one is        until one is
    ... but not those of what it is     its lifetime        looked at each time
    they aren't                         its lifetime        looked at each time

Changes aren't told of what a link leads to, nor of a list. The lifetime is that of an examination
that takes as long as to look at all of the listing (:func:`zipfs.catalog.game.lifetime`).

Where they are told of, who opens a folder first waits until all those have been told of that were
made before. A hard link outside the library is a way to make one that isn't told of. So what was
listed from memory is checked behind, at most a twentieth of the time. A name is new, or gone,
whenever the folder's state is another one.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

import trio

from zipfs.catalog.background.turns import Turns
from zipfs.catalog.background.widths import Widths
from zipfs.catalog.finder import Candidate, Child, Finder, last_seen
from zipfs.catalog.game import Game, lane_of
from zipfs.catalog.games import Games
from zipfs.catalog.listing.cookies import is_first
from zipfs.catalog.listing.hearing import Hearing
from zipfs.catalog.listing.listing import Listing, Listings, Names, Seen
from zipfs.catalog.made import MadeArchives
from zipfs.catalog.nodes import File, Folder, Node, archive_node, folder_node, made_node
from zipfs.catalog.reseal import Resealer
from zipfs.catalog.skipped import By, Skipped
from zipfs.library.rules.general import prefixes
from zipfs.library.scan import LeftOut
from zipfs.logs import Once
from zipfs.sealing.outcomes import Plain, Sealed
from zipfs.sealing.sealer import Sealer
from zipfs.system.paths import join
from zipfs.system.threads.lanes import Threads
from zipfs.text import shown

log = logging.getLogger(__name__)

_FIRST: Final = 64
_MOST: Final = 1024
"""Names that are looked at for the first answer about a folder, and at most; twice as many each
time."""
_AHEAD: Final = 128
"""Places of a listing that are looked at together, if they were told from the index, and somebody
asks for the first one."""
_CHECK: Final = 256
_PAUSE: Final = 30.0
"""Seconds, at least, between two checks of one listing."""
_SHARE: Final = 20
"""A check may use a twentieth of the time."""


class Lister:
    """Lists folders of the library of *sealer*.

    *invalidated* is called with a path of the mount that was found to be something else.
    """

    def __init__(  # noqa: PLR0913 - what a catalog consists of
        self,
        sealer: Sealer,
        threads: Threads,
        games: Games,
        skipped: Skipped,
        resealer: Resealer,
        finder: Finder,
        made: MadeArchives,
        *,
        widths: Widths,
        turns: Turns,
        listings: Listings,
        hearing: Hearing,
        invalidated: Callable[[bytes], None],
    ) -> None:
        self._sealer = sealer
        self._presence = sealer.library.presence
        self._threads = threads
        self._games = games
        self._skipped = skipped
        self._resealer = resealer
        self._finder = finder
        self._made = made
        self._widths = widths
        self._turns = turns
        self._listings = listings
        self._hearing = hearing
        self._invalidated = invalidated
        self._once = Once(log)
        self._doubted: dict[bytes, Listing] = {}
        self._wake = trio.Event()

    async def open(self, folder: Folder) -> Listing:
        """The listing of *folder*, with its names as they are now."""
        self._presence.check(folder.source)
        lane = lane_of(folder.path)
        async with self._listings.opening(folder.path):
            is_heard = await self._hearing.catch_up() and self._is_heard(folder)
            if kept := self._listings.get(folder):
                state = await self._threads.run(
                    self._finder.state, folder.source, lane=lane, item=folder.path
                )
                if kept.is_true and kept.names.is_settled and kept.names.state == state:
                    self._renew(kept, is_heard=is_heard)
                    return kept
            with self._turns.asking():
                listing = Listing(folder, await self._names(folder))
            listing.is_heard = is_heard
            if kept and kept.is_true:
                self._renew(kept, is_heard=is_heard)
                listing.carry_over(kept)
            self._listings.put(listing)
            return listing

    async def _names(self, folder: Folder, *, is_whole: bool = False) -> Names:
        """The names in *folder*; of a large one the first ones alone, unless *is_whole*."""
        first = self._listings.first(folder.path)
        names = await self._threads.run(
            functools.partial(self._finder.names, is_whole=is_whole),
            folder,
            first,
            lane=lane_of(folder.path),
            item=folder.path,
        )
        if names.first:
            self._listings.keep_first(folder.path, names.first)
        return names

    def _is_heard(self, folder: Folder) -> bool:
        """Whether changes in *folder* are told of; not so behind a link."""
        return self._hearing.is_complete and folder.source == folder.path

    def _renew(self, listing: Listing, *, is_heard: bool) -> None:
        """Take back what isn't taken as it is by who opens *listing* now."""
        listing.is_heard = is_heard
        listing.is_followed, listing.width = False, 0
        is_old = listing.is_old
        seen = listing.seen
        which = listing.doubtful if is_heard else seen.keys()
        listing.take_back(
            [
                name
                for name in which
                if is_old or not seen[name].is_game or seen[name].is_provisional
            ]
        )
        if is_old and not is_heard:
            listing.cost, listing.looked = 0.0, time.monotonic()
        if is_heard and listing.is_complete:
            since = time.monotonic() - listing.looked
            if since > max(_PAUSE, _SHARE * listing.cost):
                self._doubted[listing.folder.path] = listing
                self._wake.set()

    async def fill(self, listing: Listing, number: int, told: int = 0) -> bool:
        """Look at some names of *listing* that aren't known, from the place *number* on.

        *told* is the tag of cookies there. Returns whether there is such a place.
        """
        async with listing.filling:
            if number >= len(listing):
                await self._read_rest(listing)
            if number >= len(listing):
                return False
            listing.width = min(_MOST, 2 * listing.width or _FIRST)
            if listing.at(number, told) is None:  # nobody else has meanwhile
                with self._turns.asking():
                    await self._look(listing, listing.unknown(number, listing.width))
            return True

    async def behind(self, listing: Listing, cookie: int) -> tuple[int, int]:
        """As :meth:`Listing.behind`, once as much of its folder is read as that takes."""
        if cookie and not is_first(cookie) and not listing.names.is_whole:
            async with listing.filling:
                await self._read_rest(listing)
        return listing.behind(cookie)

    async def _read_rest(self, listing: Listing) -> None:
        """Read its folder to its end; :attr:`Listing.filling` is held."""
        if not listing.names.is_whole:  # nobody else has meanwhile
            listing.replace(await self._names(listing.folder, is_whole=True))
            self._listings.shrink()

    async def children(self, folder: Folder) -> list[tuple[bytes, Node]]:
        """All that is in *folder*, in the order of cookies."""
        listing = await self.open(folder)
        async with listing.filling:
            await self._read_rest(listing)
            await self._look(listing, listing.unknown(0, len(listing)))
        told = listing.names.tag
        found = (listing.at(number, told) for number in range(len(listing)))
        return [(seen.name, seen.node) for seen in found if seen and seen.node]

    async def look_ahead(self, folder: Folder, name: bytes) -> None:
        """If *name* was told from the index, look at that game, and at some that follow.

        As somebody asks for it who was told a listing, he is going to ask for those as well.
        """
        listing = None if self._made.is_over else self._listings.get(folder)
        game = listing.names.games.get(name) if listing else None
        seen = listing.seen.get(game) if listing and game else None
        if not (listing and seen and seen.is_provisional):
            return
        listing.is_followed = True
        with self._turns.asking():
            async with listing.filling:
                await self._look(listing, listing.provisional(name, _AHEAD), afresh=True)

    # -- Looking -----------------------------------------------------------------

    async def _look(
        self, listing: Listing, names: Sequence[bytes], *, afresh: bool = False
    ) -> None:
        """Look at *names* of *listing*; *afresh* also at games of which no change was told."""
        folder = listing.folder
        started = time.monotonic()
        if not self._made.is_over:
            await self._threads.run(self._made.load, folder.path)
        todo = list(names) if afresh else self._unremembered(listing, names)
        if not todo:
            return
        listing.looking.update(todo)
        looks = await self._threads.map(
            functools.partial(self._finder.child, folder),
            todo,
            lane=lane_of(join(folder.path, b"")),
            key=functools.partial(join, folder.path),
            width=self._widths.of(folder.source, "list"),
        )
        undisturbed = listing.looking.intersection(todo)  # what follows is known by then
        listing.looking.difference_update(todo)
        children = list(zip(todo, looks, strict=True))
        for _, child in children:
            if isinstance(child, Candidate):
                self._resealer.install(child.look, asked=False)
        for name, child in children:
            seen = self._seen(listing, name, child)
            seen.is_unheard |= started < self._hearing.since
            seen.is_provisional = name not in undisturbed
            self._put(listing, name, seen)
        listing.cost += time.monotonic() - started
        if listing.is_complete:
            self._report(listing)

    def _unremembered(self, listing: Listing, names: Sequence[bytes]) -> list[bytes]:
        """Those of *names* that have to be looked at to tell anything of them."""
        todo = []
        for name in names:
            if listing.is_heard and (seen := self._known(listing, name)):
                listing.seen[name] = seen
            elif not listing.is_followed and (seen := self._provisional(listing, name)):
                self._put(listing, name, seen)
            else:
                todo.append(name)
        return todo

    def _put(self, listing: Listing, name: bytes, seen: Seen) -> None:
        before = listing.seen.get(name)
        if before and not before.is_provisional:
            if before.node != seen.node:
                self._invalidated(join(listing.folder.path, before.name))
            elif not seen.is_provisional:
                seen.reply = before.reply
        listing.seen[name] = seen
        if seen.is_unheard or seen.is_provisional:
            listing.doubtful.add(name)
        else:
            listing.doubtful.discard(name)

    def _known(self, listing: Listing, name: bytes) -> Seen | None:
        """What is known of the game *name*, unless a look at it is needed."""
        folder = listing.folder
        game = self._games.get(join(folder.path, name))
        last = game.examination if game else None
        if game is None or last is None or last.started < self._hearing.since:
            return None
        if last.started < game.invalidated or last.is_spread:
            return None
        if game.place != (join(folder.source, name), folder.origins):
            return None
        seen = self._of_game(game, name, None)
        # Its archive has another name as soon as that is taken.
        is_named = not seen.is_archive or listing.names.games.get(seen.name) == name
        return seen if is_named else None

    def _provisional(self, listing: Listing, name: bytes) -> Seen | None:
        """What the index knows of the game *name*, if nobody has looked at it since the start."""
        folder = listing.folder.path
        found = self._made.of(folder, name)
        if found is None:
            return None
        made, last = found
        own = made.archive.rpartition(b"/")[2]
        path = join(folder, name)
        if self._games.get(path) or listing.names.games.get(own) != name:
            return None
        node = made_node(path, made, last.since_ns if last else made.mtime_ns)
        return Seen(own, node, is_archive=True, is_game=True, is_provisional=True)

    def _of_game(self, game: Game, name: bytes, child: Child | None) -> Seen:
        outcome = game.outcome
        if isinstance(outcome, Sealed):
            own = outcome.path.rpartition(b"/")[2]
            node = archive_node(game.path, outcome, game.since_ns)
            return Seen(own, node, is_archive=True, is_game=True)
        if isinstance(outcome, Plain):
            entry = child.entry if isinstance(child, Candidate) else last_seen(game.place, outcome)
            dates = self._games.dates
            plain = folder_node(game.path, entry, dates.of_folder(game.path, entry.status))
            return Seen(name, plain, is_game=True)
        return Seen(name, None, is_game=True)

    def _seen(self, listing: Listing, name: bytes, child: Child | None) -> Seen:
        """What *child*, called *name* in the library, is told as."""
        folder = listing.folder
        path, source = join(folder.path, name), join(folder.source, name)
        listing.left_out.pop(name, None)
        if isinstance(child, File):
            return Seen(name, child, is_unheard=child.file.source != source)
        if isinstance(child, Folder):
            return Seen(name, child, is_unheard=child.source != source)
        if isinstance(child, LeftOut):
            listing.left_out[name] = child
            return Seen(name, None, is_unheard=True)
        if child is None:
            listing.left_out[name] = LeftOut(source, "doesn't answer")
            if not self._presence.gone_at(source):
                self._once.warning("can't look at %s: no answer", shown(path))
        # What doesn't answer is told as it was last known.
        game = self._games.get(path)
        seen = self._of_game(game, name, child) if game else Seen(name, None, is_game=True)
        last = game.examination if game else None
        is_own = game is not None and game.place == (source, folder.origins)
        seen.is_unheard = child is None or not is_own or last is None or last.is_spread
        seen.is_game = child is not None
        return seen

    def _report(self, listing: Listing) -> None:
        """Say what is skipped in the folder, unless that is said by the examination of its game."""
        folder = listing.folder
        if not any(map(self._sealer.policy.is_game, prefixes(folder.path))):
            self._skipped.replace((By.FOLDER, folder.source), listing.left_out.values())

    # -- In the background -----------------------------------------------------------

    async def run(self) -> None:
        """Look at what was told from memory, for ever."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            while self._doubted:
                _, listing = self._doubted.popitem()
                started, cost = time.monotonic(), listing.cost
                await self._look_behind(listing, list(listing.seen))
                listing.cost, listing.looked = max(listing.cost - cost, 0.0), started

    async def _look_behind(self, listing: Listing, names: Sequence[bytes]) -> None:
        """Look at *names* of *listing*."""
        try:
            for first in range(0, len(names), _CHECK):
                if not listing.is_true:
                    return
                some = [name for name in names[first : first + _CHECK] if name in listing.seen]
                await self._look(listing, some, afresh=True)
        except Exception as error:  # H4: nothing unexpected ends the mount
            if not isinstance(error, OSError):
                log.error("unexpected error while checking a listing", exc_info=error)
