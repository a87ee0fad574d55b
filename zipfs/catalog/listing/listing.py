"""Listings of folders: names in the order of their cookies, and what was seen of them.

A listing has the names that a folder held at one moment, and what each of them is, as far as
somebody has looked: it is looked at as it is told, some names at a time. It is kept for the next
who opens the folder, who continues with what is known by then.

Of a large folder some first names are known before the others, and it is read to its end as soon
as somebody asks for more. They have two places as well, the first ones and those of their hashes
(:mod:`zipfs.catalog.listing.cookies`).

The name of a game is told as that of its archive, or as it is if the game has none. Which of the
two is only known when it was looked at, and cookies are those of names. So a game has two places
in the order, and is told at one of them.

What is seen of a name is taken back (:meth:`Listings.moved`) when it is, or may be, something else.
So in a listing that is kept an archive is that version which is there; another one is compared
with the table of games before it is told (``Catalog.is_there``). No listing leads anybody from one
version to the next (DESIGN V1).

All methods belong to trio's thread.
"""

from __future__ import annotations

import contextlib
import math
import time
from bisect import bisect_left, bisect_right
from collections.abc import AsyncIterator, Collection, Iterable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import trio

from zipfs.catalog.game import lifetime
from zipfs.catalog.listing.cookies import cookies, first_cookies, is_first, split, tag
from zipfs.catalog.nodes import Folder, Node
from zipfs.library.filestate import FileState
from zipfs.library.rules.general import prefixes
from zipfs.library.scan import LeftOut, Place

MEMORY: Final = 50_000
"""Places in all listings that are kept; a single listing may have more."""
_FIRSTS: Final = 1000
"""Folders of which first names are remembered."""
_SETTLED_NS: Final = 1_000_000_000
"""Age of a folder's state, in nanoseconds, from which the next change gives it another one. The
coarsest clocks of disks we can write to have two seconds, but without events names are taken as
they were no longer than that either."""


class Names(NamedTuple):
    """What a folder holds, and the names that may be told of it. Immutable."""

    state: FileState
    """The folder's, from before it was read."""
    read_ns: int
    """When it was read, nanoseconds since the epoch."""
    sources: frozenset[bytes]
    """All names in the library, and those of variants; or the first ones alone."""
    cookies: list[int]
    """Without their tags."""
    places: list[tuple[bytes, bytes | None]]
    """For each cookie, the name in the mount that has it, and the game whose archive may have that
    name, by its name in the library."""
    games: dict[bytes, bytes]
    """The name in the library of the game whose archive may have a name."""
    first: Collection[bytes]
    """Names that are told before all others; quick to look a name up in."""
    gone: frozenset[bytes]
    """First names that aren't there any more. They keep their places: whoever is behind them goes
    on where he was."""
    tag: int
    is_whole: bool
    """Whether these are all names, and not the first ones alone."""

    @classmethod
    def of(
        cls,
        state: FileState,
        read_ns: int,
        plain: Collection[bytes],
        archives: dict[bytes, bytes],
        first: Collection[bytes] = (),
    ) -> Names:
        """*plain* names of the library, and *archives* with the games that they may be of.

        The *first* ones are told first, as far as they are there.
        """
        shown = [*plain, *(archives.keys() - plain)]
        numbers, by_cookie = cookies(shown)
        sources = frozenset((*plain, *archives.values()))
        if first:
            by_cookie |= first_cookies(first)
            numbers = [*first_cookies(first), *numbers]
        names = [by_cookie[number] for number in numbers]
        return cls(
            state,
            read_ns,
            sources,
            numbers,
            list(zip(names, map(archives.get, names), strict=True)),
            archives,
            first=dict.fromkeys(first),
            gone=frozenset(first).difference(shown),
            tag=tag(first),
            is_whole=True,
        )

    @classmethod
    def of_first(cls, state: FileState, read_ns: int, first: Collection[bytes]) -> Names:
        """The *first* names alone, which are those of files."""
        by_cookie = first_cookies(first)
        return cls(
            state,
            read_ns,
            frozenset(first),
            list(by_cookie),
            [(name, None) for name in by_cookie.values()],
            {},
            first=dict.fromkeys(first),
            gone=frozenset(),
            tag=tag(first),
            is_whole=False,
        )

    @property
    def is_settled(self) -> bool:
        """Whether each later change of the names shows in the folder's state."""
        return self.read_ns - self.state.changed_ns > _SETTLED_NS


@dataclass(slots=True, eq=False)
class Seen:
    """What a name of the library was seen to be."""

    name: bytes
    """Its name in the mount."""
    node: Node | None
    """None if nothing is told of it."""
    is_archive: bool = False
    is_game: bool = False
    is_unheard: bool = False
    """Whether it may have become something else that no event tells of."""
    is_provisional: bool = False
    """Whether nobody has looked at it since the start: it is what the index knows."""
    reply: Any = None
    """What the adapter makes of it, kept for the next time."""


NOTHING: Final = Seen(b"", None)


class Listing:
    """The *names* of *folder*, and what was seen of them."""

    def __init__(self, folder: Folder, names: Names) -> None:
        self.folder = folder
        self.names = names
        self.seen: dict[bytes, Seen] = {}
        """By name in the library."""
        self.left_out: dict[bytes, LeftOut] = {}
        self.filling = trio.Lock()
        """Held while names are looked at."""
        self.looking: set[bytes] = set()
        """Names that are being looked at, and weren't taken back meanwhile."""
        self.doubtful: set[bytes] = set()
        """Names that the next who opens it looks at anew, though nothing was told of them."""
        self.is_true = False
        """Whether it is kept, so that each archive in it is there in this version."""
        self.is_heard = False
        """Whether all changes in it, until it was opened last, have been told of."""
        self.cost = 0.0
        """Seconds that it took to look at all of it."""
        self.looked = time.monotonic()
        """When it was begun to be looked at, all of it."""
        self.is_followed = False
        """Whether who reads it asks for what he was told from the index."""
        self.width = 0
        """How many names were looked at last; see the lister."""

    def __len__(self) -> int:
        return len(self.names.cookies)

    def behind(self, cookie: int) -> tuple[int, int]:
        """The number of the first place behind *cookie*, whether or not a place has that.

        And the tag of the cookies from there on: that of the first names for who has been told
        those, else 0. Only of first names if :attr:`names` aren't whole.
        """
        bare, own = split(cookie)
        if cookie == 0 or (is_first(cookie) and own != self.names.tag):
            return 0, self.names.tag
        return bisect_right(self.names.cookies, bare), own if own == self.names.tag else 0

    def at(self, number: int, told: int = 0) -> Seen | None:
        """What is told at that place: :data:`NOTHING` for nothing, None if it isn't known yet.

        *told* is the tag of cookies there.
        """
        names = self.names
        name, game = names.places[number]
        if names.first and (
            name in names.gone
            or (told and name in names.first and not is_first(names.cookies[number]))
        ):
            return NOTHING
        if game is None:
            seen = self.seen.get(name)
            return NOTHING if seen and (seen.is_archive or seen.node is None) else seen
        seen = self.seen.get(game)
        return NOTHING if seen and not (seen.is_archive and seen.node) else seen

    def unknown(self, number: int, most: int) -> list[bytes]:
        """Up to *most* names of the library that weren't looked at, from a place on."""
        names, found = self.names, dict[bytes, None]()
        for place in range(number, len(names.places)):
            name, game = names.places[place]
            name = name if game is None else game
            if name not in self.seen and name not in names.gone:
                found[name] = None
                if len(found) == most:
                    break
        return list(found)

    def provisional(self, name: bytes, most: int) -> list[bytes]:
        """Games that nobody has looked at, told at *most* places from that of *name* on."""
        names, found = self.names, []
        first = bisect_left(names.cookies, cookies([name])[0][0])
        for own, game in names.places[first : first + most]:
            if game:
                seen = self.seen.get(game)
                if seen and seen.is_provisional and seen.name == own:
                    found.append(game)
        return found

    @property
    def is_complete(self) -> bool:
        """Whether all names were looked at."""
        return self.names.is_whole and len(self.seen) == len(self.names.sources)

    @property
    def is_old(self) -> bool:
        """Whether what was seen of games is too old, where nobody tells of changes."""
        return time.monotonic() - self.looked > lifetime(self.cost)

    def replace(self, names: Names) -> None:
        """Its names are *names* now, which are whole: keep what was seen of those alone."""
        self.names = names
        self.take_back(
            [
                name
                for name, seen in self.seen.items()
                if name not in names.sources
                or (seen.is_archive and names.games.get(seen.name) != name)
            ]
        )

    def carry_over(self, old: Listing) -> None:
        """Take over what *old* has seen, as far as its names are in both."""
        self.seen, self.left_out = dict(old.seen), dict(old.left_out)
        self.doubtful = set(old.doubtful)
        self.cost, self.looked = old.cost, old.looked
        if self.names.is_whole:  # else its other names aren't known yet
            self.replace(self.names)

    def take_back(self, which: Iterable[bytes]) -> None:
        for name in which:
            self.seen.pop(name, None)
            self.left_out.pop(name, None)
            self.doubtful.discard(name)
            self.looking.discard(name)


@dataclass(slots=True)
class OpenFolder:
    """What those have who have opened a folder: a listing, until one of them rewinds or opens."""

    folder: Folder
    listing: Listing
    is_read: bool = False
    opens: int = 0


class Listings:
    """Listings that are kept, by path of the folder."""

    def __init__(self) -> None:
        self._kept: dict[bytes, Listing] = {}
        self._first: dict[bytes, Collection[bytes]] = {}
        self._locks: dict[bytes, trio.Lock] = {}

    def get(self, folder: Folder) -> Listing | None:
        """The listing of *folder*, if it is kept."""
        kept = self._kept.get(folder.path)
        if kept is None:
            return None
        if Place(kept.folder.source, kept.folder.origins) != (folder.source, folder.origins):
            self.drop(folder.path)
            return None
        return kept

    def put(self, listing: Listing) -> None:
        """Keep *listing*."""
        path = listing.folder.path
        self.drop(path)
        listing.is_true = True
        self._kept[path] = listing
        self.shrink()

    def shrink(self) -> None:
        """Drop the oldest ones, if there are too many places."""
        total = sum(map(len, self._kept.values()))
        while total > MEMORY and len(self._kept) > 1:
            oldest = next(iter(self._kept))
            total -= len(self._kept[oldest])
            self.drop(oldest)

    def first(self, path: bytes) -> Collection[bytes]:
        """The first names of the folder at *path*, if it has some."""
        return self._first.get(path, ())

    def keep_first(self, path: bytes, first: Collection[bytes]) -> None:
        """The folder at *path* has these *first* names from now on.

        Whoever is in the middle of another listing of it wasn't told them first.
        """
        self._first[path] = first
        while len(self._first) > _FIRSTS:
            del self._first[next(iter(self._first))]

    @contextlib.asynccontextmanager
    async def opening(self, path: bytes) -> AsyncIterator[None]:
        """One who opens the folder at *path* at a time: three hundred clients are one look."""
        lock = self._locks.setdefault(path, trio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.statistics().tasks_waiting and self._locks.get(path) is lock:
                del self._locks[path]

    def moved(self, path: bytes) -> None:
        """What is at *path* is, or may be, something else now."""
        folder, _, name = path.rpartition(b"/")
        if listing := self._kept.get(folder):
            listing.take_back([name])
        self.redated(folder)

    def redated(self, path: bytes) -> None:
        """The folder at *path* has other dates now."""
        folder, _, name = path.rpartition(b"/")
        if name and (listing := self._kept.get(folder)):
            listing.take_back([name])

    def told(self, paths: Collection[bytes]) -> None:
        """The kernel has told of a change at each of *paths*."""
        if b"" in paths:  # of any
            self.clear()
            return
        for path in paths:
            self.moved(path)
        # It may have been a folder, with all that is in it.
        below = set(paths)
        for path in [path for path in self._kept if not below.isdisjoint(prefixes(path))]:
            self.drop(path)

    def drop(self, path: bytes) -> None:
        """Keep the listing of the folder at *path* no longer."""
        if listing := self._kept.pop(path, None):
            listing.is_true = False  # nobody takes anything back any more

    def hearing_began(self) -> None:
        """All changes are told of from now on, and weren't before.

        A listing that is being read was opened before. So whoever reads it may be told of what is
        looked at from now on, until a change is told of. What was seen before is old for the next
        who opens it.
        """
        for listing in self._kept.values():
            listing.looked = -math.inf
            listing.is_heard = listing.folder.source == listing.folder.path
            listing.doubtful.update(listing.seen)

    def clear(self) -> None:
        for path in list(self._kept):
            self.drop(path)
