"""What is kept in memory: games as last seen, versions at hand, checksums not saved yet."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from zipfs.filestate import Checksums, FileState
from zipfs.index import Index
from zipfs.outcomes import Examination, Outcome, Sealed, Version
from zipfs.sources import Place, SourceFile
from zipfs.store import Record
from zipfs.threads import Threads

FRESH: Final = 1.0
"""Seconds for which what was found out about a game is taken as it is."""
_SHARE: Final = 5.0
"""A game that takes long to look at is looked at in a fifth of the time at most..."""
_STALE: Final = 10.0
"""...but no longer taken as it is than so many seconds: a disk may just have hung."""
VERSIONS_MEMORY: Final = 64 << 20
"""Bytes of versions kept at hand for the next to open them."""
_SAVE_COUNT: Final = 1000
_SAVE_SECONDS: Final = 2.0


class Game:
    """What is known of a game. One a game, so small: what isn't open has no more."""

    __slots__ = (
        "_origins",
        "_source",
        "doubted",
        "examination",
        "hurried",
        "path",
        "recheck",
        "retry_at",
        "waiting",
    )

    def __init__(self, path: bytes, place: Place) -> None:
        self.path = path
        # Nearly always the same bytes, and then the same object. Nothing of what `stat` told
        # is kept: it takes half a kilobyte.
        self._source = path if place.source == path else place.source
        self._origins = place.origins
        self.examination: Examination | None = None
        self.waiting: set[tuple[bytes, FileState]] | None = None
        """Files in the hasher's queue."""
        self.hurried = False
        """Whether they are at its front."""
        self.recheck: float | None = None
        """When it will be looked at again."""
        self.retry_at = 0.0
        """Not before is a file to be read again that couldn't be."""
        self.doubted = 0.0
        """When a reader last found that the examination isn't true any more."""

    @property
    def outcome(self) -> Outcome | None:
        return self.examination.outcome if self.examination else None

    def is_fresh(self) -> bool:
        last = self.examination
        return (
            last is not None
            and last.started >= self.doubted
            and time.monotonic() - last.started < last_for(last.took)
        )

    @property
    def place(self) -> Place:
        """Where its folder was found."""
        return Place(self._source, self._origins)


@dataclass(slots=True)
class Sums:
    """Of all archives; kept up to date, since asking each takes a while if they are many."""

    archives: int = 0
    members: int = 0
    size: int = 0

    def add(self, outcome: Outcome | None, sign: int = 1) -> None:
        if isinstance(outcome, Sealed):
            self.archives += sign
            self.members += sign * outcome.count
            self.size += sign * outcome.size


@dataclass(frozen=True, slots=True)
class Totals:
    """How far everything is."""

    archives: int
    members: int
    size: int
    unsealed: int
    pending_bytes: int


def last_for(took: float) -> float:
    """Seconds for which a game is taken as it is that took so many to look at."""
    return max(FRESH, min(_STALE, _SHARE * took))


class Versions:
    """Versions of archives by inode, as many as fit into *memory* bytes, one at least.

    An open archive holds its version itself; this is for the next to open it.
    """

    def __init__(self, memory: int = VERSIONS_MEMORY) -> None:
        self._limit = memory
        self._memory = 0
        self._versions: OrderedDict[int, Version] = OrderedDict()

    def __len__(self) -> int:
        return len(self._versions)

    def get(self, inode: int) -> Version | None:
        version = self._versions.get(inode)
        if version:
            self._versions.move_to_end(inode)
        return version

    def keep(self, version: Version) -> None:
        """Keep *version*, and let go of those not used for longest."""
        self.drop(version.sealed.inode)
        self._versions[version.sealed.inode] = version
        self._memory += version.memory
        while self._memory > self._limit and len(self._versions) > 1:
            self.drop(next(iter(self._versions)))

    def drop(self, inode: int) -> None:
        if version := self._versions.pop(inode, None):
            self._memory -= version.memory


class Gaps:
    """Between two versions of an archive there is none for *seconds* (DESIGN V1).

    Caddy and Apache ask for date and size by one call, open by another, and never
    compare. Led a path straight from one version to the next, they would now and then
    send the bytes of the new one under the ETag of the old one. So whatever was told
    of a version is old, and in the kernel's cache too old, when the next one comes.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._ended: OrderedDict[bytes, tuple[int, float]] = OrderedDict()

    def ended(self, path: bytes, inode: int) -> None:
        """The version *inode* of the archive at *path* isn't there any more."""
        now = time.monotonic()
        self._ended[path] = inode, now + self._seconds
        self._ended.move_to_end(path)
        while next(iter(self._ended.values()))[1] <= now:
            self._ended.popitem(last=False)

    def left(self, path: bytes, inode: int) -> float:
        """Seconds until *inode* may be there; none for the version that was there last."""
        last, until = self._ended.get(path, (inode, 0.0))
        return 0.0 if last == inode else max(0.0, until - time.monotonic())


class Unsaved:
    """Checksums on their way into *index*, saved in batches."""

    def __init__(self, index: Index) -> None:
        self._index = index
        # Of its own, and patient: what is saved must not wait for the library's disk.
        self._in_thread = Threads(1).run
        self._records: dict[bytes, Record] = {}
        self._saved_at = time.monotonic()

    def add(self, file: SourceFile, checksums: Checksums) -> None:
        self._records[file.source] = (file.state, checksums)

    def holds(self, file: SourceFile) -> bool:
        """Whether the checksums of *file*, in its state, are among them."""
        record = self._records.get(file.source)
        return record is not None and record[0] == file.state

    @property
    def due(self) -> bool:
        """Whether they are many or old enough to be saved now."""
        old = time.monotonic() - self._saved_at > _SAVE_SECONDS
        return old or len(self._records) >= _SAVE_COUNT

    async def save(self) -> None:
        records = dict(self._records)
        self._saved_at = time.monotonic()
        if not records:
            return
        await self._in_thread(self._index.put_files, records)
        # Only now: whoever looks meanwhile must find them here or there.
        for source, record in records.items():
            if self._records.get(source) is record:
                del self._records[source]
