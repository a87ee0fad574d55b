"""What isn't shown right now, and why: a book that a new look at a place replaces.

A log line says that something was left out once, and is never taken back. Here every entry
belongs to an *owner*, whatever it was that looked: a game as a whole, a folder's listing, or
the hashing of a game's files. The next look of that owner replaces all that it said before, so
what has been mended vanishes.

Memory is bounded: paths and reasons of :data:`REMEMBERED` entries at most, of :data:`OF_ONE`
at most of one owner. Of older ones only how many there are is known, by kind of reason.

A look at a game replaces what was said of that game, and a listing of a folder, or a walk
through it, what was said of the folder. What no walk leads through (folders that hold no games)
is listed again after each walk, and a single path when something is said to have changed there.

All of it belongs to trio's thread.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from typing import Final, NamedTuple

import trio

from zipfs.catalog.scanner import lane_of
from zipfs.library.scan import LeftOut, SourceFile
from zipfs.library.view import LibraryView
from zipfs.sealing.outcomes import Examination, Unhashed, Unsettled
from zipfs.system.lanes import Threads
from zipfs.system.paths import is_within

REMEMBERED: Final = 10_000
OF_ONE: Final = 1_000
KINDS: Final = 100
"""Kinds of reasons that are told apart; what they are is ours, but for messages of systems."""
OTHER_KINDS: Final = "other reasons"
WENT_AWAY: Final = "went away meanwhile"


class By(Enum):
    """Who found that something is left out."""

    GAME = "game"
    """A look at the game at a path of the mount."""
    FOLDER = "folder"
    """A listing of the folder with that source."""
    HASHING = "hashing"
    """The hashing of the files of the game at that path."""


Owner = tuple[By, bytes]


class Omission(NamedTuple):
    """Something that isn't shown."""

    path: bytes
    reason: str
    since: float
    """When that was first seen, Unix time."""


@dataclass(slots=True)
class _Said:
    """What one owner said last: *kept* in full, and *kinds* of all of it."""

    kept: dict[bytes, Omission]
    kinds: Counter[str]
    noted: float
    """When it last did, by time.monotonic."""


def kind_of(reason: str) -> str:
    """*reason* without what is particular to one case."""
    return reason.partition(":")[0]


class Omissions:
    """The book. Paths are relative to the library."""

    def __init__(self) -> None:
        self._said: OrderedDict[Owner, _Said] = OrderedDict()
        """In the order in which it was noted."""
        self._counted: dict[Owner, _Said] = {}
        """Those of which nothing is kept but how many."""
        self._kept = 0
        self._kinds: Counter[str] = Counter()

    def __len__(self) -> int:
        """How many things are left out."""
        return self._kinds.total()

    @property
    def kinds(self) -> dict[str, int]:
        """How many for which kind of reason, the most frequent first."""
        found = dict(self._kinds.most_common(KINDS))
        if rest := len(self) - sum(found.values()):
            found[OTHER_KINDS] = found.get(OTHER_KINDS, 0) + rest
        return found

    def newest(self, count: int) -> list[Omission]:
        """The *count* that were noted last, the newest first."""
        said = (said.kept.values() for said in reversed(self._said.values()))
        return list(islice((omission for kept in said for omission in kept), count))

    def replace(self, owner: Owner, found: Iterable[LeftOut]) -> None:
        """*found* is all that *owner* has left out now."""
        now, noted = time.time(), time.monotonic()
        before = self._get(owner)
        known = before.kept if before else {}
        kept: dict[bytes, Omission] = {}
        kinds: Counter[str] = Counter()
        for path, reason in found:
            if reason == WENT_AWAY:
                continue  # nothing is left out that isn't there
            kinds[kind_of(reason)] += 1
            if len(kept) < OF_ONE:
                same = known.get(path)
                is_known = same is not None and same.reason == reason
                kept[path] = same if same and is_known else Omission(path, reason, now)
        if before and kinds == before.kinds:
            no_room = owner in self._counted and self._kept + len(kept) > REMEMBERED
            if no_room or kept == before.kept:
                before.noted = noted
                return
        self.drop(owner)
        if kinds:
            self._said[owner] = _Said(kept, kinds, noted)
            self._kinds += kinds
            self._kept += len(kept)
            while self._kept > REMEMBERED:  # the oldest are only counted from now on
                oldest, said = self._said.popitem(last=False)
                self._kept -= len(said.kept)
                said.kept = {}
                self._counted[oldest] = said

    def add(self, owner: Owner, left_out: LeftOut) -> None:
        """*owner* has left out this as well."""
        others = (LeftOut(path, reason) for path, reason, _ in self.of(owner))
        self.replace(owner, [*(other for other in others if other != left_out), left_out])

    def drop(self, owner: Owner) -> None:
        """*owner* isn't there any more, or has left out nothing."""
        if said := self._said.pop(owner, None) or self._counted.pop(owner, None):
            self._kinds -= said.kinds  # and what comes to nothing goes
            self._kept -= len(said.kept)

    def settle(self, path: bytes, left_out: LeftOut | None) -> None:
        """What is at the source *path*, and nothing else in its folder, was looked at.

        *left_out* may have another path: that of a list is outside the library.
        """
        owner = (By.FOLDER, path.rpartition(b"/")[0])
        said = self._get(owner)
        others = said.kept if said else {}
        if left_out is None and path not in others:
            return
        if said and said.kinds.total() > len(said.kept):
            return  # which of those that aren't known in full it is can't be told: list it anew
        now = (path, left_out.path) if left_out else (path,)
        found = [LeftOut(at, why) for at, why, _ in others.values() if at not in now]
        self.replace(owner, [*found, left_out] if left_out else found)

    def holds(self, path: bytes) -> bool:
        """Whether the folder of the source *path* is said to leave that out."""
        said = self._said.get((By.FOLDER, path.rpartition(b"/")[0]))
        return said is not None and path in said.kept

    def owners(self, by: By, before: float) -> list[bytes]:
        """Paths of those owners that last said something *before* a time of time.monotonic."""
        return [
            path
            for said in (self._said, self._counted)
            for (kind, path), last in said.items()
            if kind is by and last.noted < before
        ]

    def of(self, owner: Owner) -> list[Omission]:
        """What *owner* left out, as far as it is known in full."""
        said = self._said.get(owner)
        return list(said.kept.values()) if said else []

    def _get(self, owner: Owner) -> _Said | None:
        return self._said.get(owner) or self._counted.get(owner)


class Reviews(Omissions):
    """The book of what *library* doesn't show."""

    def __init__(self, library: LibraryView, threads: Threads) -> None:
        super().__init__()
        self._library = library
        self._in_thread = threads.run
        self._nursery: trio.Nursery | None = None

    def begin(self, nursery: trio.Nursery) -> None:
        """Look again in *nursery*, from now on."""
        self._nursery = nursery

    # -- Games -----------------------------------------------------------------

    def looked(self, path: bytes, last: Examination | None, examination: Examination) -> None:
        """The game at *path* was found as *examination* says, and before as *last* does."""
        self.settle(path, None)  # itself it is there
        self.replace((By.GAME, path), examination.left_out)
        waits = isinstance(examination.outcome, Unhashed | Unsettled)
        if not (waits and last and last.fingerprint == examination.fingerprint):
            self.drop((By.HASHING, path))

    def not_looked(self, path: bytes, reason: str) -> None:
        """The game at *path* couldn't be looked at."""
        self.replace((By.GAME, path), [LeftOut(path, f"can't be looked at: {reason}")])

    def unreadable(self, path: bytes, file: SourceFile, error: OSError) -> None:
        """*file* couldn't be hashed, so that the game at *path* has no archive for now."""
        left_out = LeftOut(file.source, f"can't be read: {error.strerror}")
        self.add((By.HASHING, path), left_out)

    def gone(self, path: bytes) -> None:
        """There is no game at *path*."""
        for by in (By.GAME, By.HASHING):
            self.drop((by, path))

    # -- Folders ---------------------------------------------------------------

    def listed(self, folder: bytes, found: Iterable[LeftOut]) -> None:
        """*found* is all that isn't shown of the folder with that source."""
        self.replace((By.FOLDER, folder), found)

    def walked(self, seen: set[bytes], unseen: Sequence[bytes], since: float) -> None:
        """A walk that began at *since* has *seen* these games; *unseen* doesn't answer."""
        for by in (By.GAME, By.HASHING):
            for path in self.owners(by, since):
                if path not in seen and not within(path, unseen):
                    self.drop((by, path))
        for folder in self.owners(By.FOLDER, since):
            if self._nursery and not within(folder, unseen):
                self._nursery.start_soon(self._list, folder)

    def changed(self, path: bytes) -> None:
        """Something has changed at the source *path*, which may have been left out."""
        if self._nursery and self.holds(path):
            self._nursery.start_soon(self._look, path)

    async def _look(self, path: bytes) -> None:
        with contextlib.suppress(OSError):  # then it is what it was
            entry = await self._in_thread(self._library.entry, path, lane=lane_of(path), item=path)
            self.settle(path, entry if isinstance(entry, LeftOut) else None)

    async def _list(self, folder: bytes) -> None:
        lane = lane_of(folder + b"/")
        try:
            found = await self._in_thread(self._library.folder, folder, lane=lane, item=folder)
        except (FileNotFoundError, NotADirectoryError):
            self.drop((By.FOLDER, folder))
        except OSError:
            return  # it is what it was
        else:
            self.listed(folder, (entry for _, entry in found if isinstance(entry, LeftOut)))


def within(path: bytes, folders: Iterable[bytes]) -> bool:
    """Whether *path* is one of *folders* or in one of them; all are in the library itself."""
    return any(not folder or is_within(path, folder) for folder in folders)
