"""A cache of what folders hold, so that a large one isn't examined for each ``ls``.

To examine all games of a folder takes as long as listing the folder of each and asking for the
status of what is in it. A listing lives as long as an examination that took the same time
(:func:`zipfs.catalog.game.lifetime`), and ends sooner if

- a game in it has another outcome, or was invalidated (:meth:`Listings.drop`);
- the folder's own state is another: a name came, went, or changed its owner.

Both are checked before a listing is used again, and single files are looked at each time. What
it has of an archive is used only while that version is there (``Catalog.is_there``), so an
old listing leads nobody from one version to the next (DESIGN V1).

A listing is in the order of its cookies, the places from which readdir(3) and NFS's READDIR
continue. They are functions of the names (:func:`cookies`), so they hold in any later listing, of
another opendir(3) or another daemon: whoever pages through a folder is told each name once that
is there all the time, whatever else comes and goes (DESIGN F1).

All methods belong to trio's thread.
"""

from __future__ import annotations

import contextlib
import time
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, overload

import trio
import xxhash

from zipfs.catalog.game import lifetime
from zipfs.catalog.nodes import Folder, Node
from zipfs.library.filestate import FileState
from zipfs.library.scan import Place

MEMORY: Final = 50_000
"""Entries kept in all listings together; a single listing may have more."""
_FIRST_COOKIE: Final = 3
"""0 is the beginning, and NFSv4 has a use of its own for 1 and 2: RFC 8881, 18.23.3."""
_HASHED_COOKIES: Final = (1 << 63) - (1 << 32)
"""Cookies are positive in off_t; the highest are left to collisions."""
_SETTLED_NS: Final = 1_000_000_000
"""Age of a folder's state, in nanoseconds, from which the next change gives it another one. The
coarsest clocks of disks we can write to have two seconds, but listings of those don't live
longer either."""


def cookies(names: Iterable[bytes]) -> list[tuple[int, bytes]]:
    """The different *names* with their cookies, in the order of those.

    A cookie is a hash of the name, in 63 bits. Of several names with one hash, which is one
    chance in a billion in a folder with 100,000 names, all but the first have the next free ones.
    """
    numbered = []
    last = _FIRST_COOKIE - 1
    for hashed, name in sorted(_hashed(names)):
        last = hashed if hashed > last else last + 1
        numbered.append((last, name))
    return numbered


def _hashed(names: Iterable[bytes]) -> list[tuple[int, bytes]]:
    digest = xxhash.xxh3_64_intdigest  # 20,000 at a time
    return [(_FIRST_COOKIE + digest(name) % _HASHED_COOKIES, name) for name in names]


class Listing(Sequence[tuple[bytes, Node]]):
    """What is in a folder: names in the mount, and nodes, in the order of their cookies.

    *others* are the names in the library of what isn't a game, with their nodes, by name.
    """

    def __init__(
        self, nodes: Iterable[tuple[bytes, Node]], others: Sequence[tuple[bytes, object]]
    ) -> None:
        by_name = dict(nodes)
        numbered = cookies(by_name)
        self.cookies = [cookie for cookie, _ in numbered]
        self._nodes = tuple((name, by_name[name]) for _, name in numbered)
        self.others = others
        self.is_true = False
        """Whether each archive in it is there in this version."""

    def behind(self, cookie: int) -> int:
        """The number of the first entry behind *cookie*, whether or not an entry has that."""
        return bisect_right(self.cookies, cookie)

    def __len__(self) -> int:
        return len(self._nodes)

    @overload
    def __getitem__(self, index: int) -> tuple[bytes, Node]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[tuple[bytes, Node]]: ...
    def __getitem__(self, index: int | slice) -> tuple[bytes, Node] | Sequence[tuple[bytes, Node]]:
        return self._nodes[index]


@dataclass(slots=True)
class OpenFolder:
    """What an opendir(3) has: one listing until it is rewound."""

    folder: Folder
    listing: Listing
    is_read: bool = False


class Making:
    """A listing that is being made. It is kept if *state*, the folder's state before, is set."""

    def __init__(self) -> None:
        self.started_ns = time.time_ns()
        self.state: FileState | None = None
        self.listing: Listing | None = None
        self.dropped = False
        """Whether something in it was invalidated meanwhile."""
        self.ended = trio.Event()


class _Kept:
    __slots__ = ("listing", "place", "state", "until")

    def __init__(self, listing: Listing, place: Place, state: FileState, until: float) -> None:
        self.listing = listing
        self.place = place
        self.state = state
        self.until = until


class Listings:
    """Listings by path of the folder."""

    def __init__(self) -> None:
        self._kept: dict[bytes, _Kept] = {}
        self._making: dict[bytes, Making] = {}

    def get(self, folder: Folder) -> tuple[Listing, FileState] | None:
        """The listing of *folder*, if it is young enough, and the state to compare."""
        kept = self._kept.get(folder.path)
        if kept is None or kept.place != (folder.source, folder.origins):
            return None
        if kept.until < time.monotonic():
            self._let_go(folder.path)
            return None
        return kept.listing, kept.state

    async def made(self, folder: Folder) -> None:
        """Wait for another task that is making it: three hundred clients are one listing."""
        if making := self._making.get(folder.path):
            await making.ended.wait()

    @contextlib.contextmanager
    def making(self, folder: Folder) -> Iterator[Making]:
        """Make the listing of *folder*; keeps what :attr:`Making.listing` is in the end."""
        making = Making()
        self._making[folder.path] = making
        started = time.monotonic()
        try:
            yield making
        finally:
            if self._making.get(folder.path) is making:
                del self._making[folder.path]
                now = time.monotonic()
                state, listing = making.state, making.listing
                if (
                    listing is not None
                    and state is not None
                    and not making.dropped
                    and making.started_ns - state.changed_ns > _SETTLED_NS
                ):
                    place = Place(folder.source, folder.origins)
                    until = now + lifetime(now - started)
                    self._let_go(folder.path)
                    listing.is_true = True
                    self._kept[folder.path] = _Kept(listing, place, state, until)
                    self._limit()
            making.ended.set()

    def drop(self, path: bytes) -> None:
        """Drop the listing of the folder at *path*: something in it is, or may be, another now."""
        self._let_go(path)
        if making := self._making.get(path):
            making.dropped = True

    def moved(self, path: bytes) -> None:
        """Drop the listing of the folder that *path* is in."""
        self.drop(path.rpartition(b"/")[0])

    def clear(self) -> None:
        for path in [*self._kept, *self._making]:
            self.drop(path)

    def tidy(self) -> None:
        """Drop those that are too old to be used."""
        now = time.monotonic()
        for path in [path for path, kept in self._kept.items() if kept.until < now]:
            self._let_go(path)

    def _let_go(self, path: bytes) -> None:
        if kept := self._kept.pop(path, None):
            kept.listing.is_true = False  # nobody clears it any more when an archive changes

    def _limit(self) -> None:
        while (
            len(self._kept) > 1 and sum(len(kept.listing) for kept in self._kept.values()) > MEMORY
        ):
            self._let_go(next(iter(self._kept)))
