"""A cache of versions of archives, and the gap between two of one archive (DESIGN V1)."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Final

from zipfs.sealing.outcomes import Version

VERSIONS_MEMORY: Final = 64 << 20
"""Bytes of versions that the cache keeps."""


class Versions:
    """Versions of archives by inode, as many as fit into *memory* bytes, and one at least.

    An open handle holds its version itself; the cache is for the next one who opens it.
    """

    def __init__(self, memory: int = VERSIONS_MEMORY) -> None:
        self._limit = memory
        self._memory = 0
        self._versions: OrderedDict[int, Version] = OrderedDict()

    def __len__(self) -> int:
        return len(self._versions)

    def __contains__(self, inode: int) -> bool:
        return inode in self._versions  # atomic

    def get(self, inode: int) -> Version | None:
        version = self._versions.get(inode)
        if version:
            self._versions.move_to_end(inode)
        return version

    def keep(self, version: Version) -> None:
        """Keep *version*, and drop those not used for longest."""
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

    Caddy and Apache ask for date and size by one call, open by another, and never compare. If a
    path led straight from one version to the next, they would now and then send the bytes of the
    new one under the ETag of the old one. After the gap, nothing that the kernel has cached of
    the old version is valid any more.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._ended: OrderedDict[bytes, tuple[int, float]] = OrderedDict()
        self._expected: dict[bytes, int] = {}
        self._all: dict[bytes, int] = {}
        self._all_until = 0.0

    def ended(self, path: bytes, inode: int) -> None:
        """The version *inode* of the archive at *path* was unpublished now."""
        now = time.monotonic()
        self._ended[path] = inode, now + self._seconds
        self._ended.move_to_end(path)
        while next(iter(self._ended.values()))[1] <= now:
            self._ended.popitem(last=False)

    def will_end(self, versions: Mapping[bytes, int]) -> None:
        """All *versions*, by path, are going to be unpublished: they are copied for that."""
        self._expected = dict(versions)

    def have_ended(self, versions: Mapping[bytes, int], changed: Iterable[bytes]) -> None:
        """All *versions*, by path, were unpublished now; of each it is the last that was there.

        They are those of :meth:`will_end` but for the paths that have *changed*.
        """
        self._all, self._expected = self._expected, {}
        for path in changed:
            if path in versions:
                self._all[path] = versions[path]
            else:
                self._all.pop(path, None)
        self._all_until = time.monotonic() + self._seconds

    def left(self, path: bytes, inode: int) -> float:
        """Seconds until *inode* may be published; 0 for the version that was there last."""
        last, until = self._ended.get(path, (inode, 0.0))
        if self._all:
            if time.monotonic() >= self._all_until:
                self._all = {}
            elif path in self._all and until <= self._all_until:
                last, until = self._all[path], self._all_until
        return 0.0 if last == inode else max(0.0, until - time.monotonic())
