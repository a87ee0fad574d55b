"""What isn't shown right now, and why: how many by kind of reason, and the newest by name.

A log line says once that something was skipped, and is never taken back. Here each *owner*, a
game, the files of a game that couldn't be hashed, or the listing of a folder, says all that it
skips, and that replaces what it said before. Each scan of the library renews all of it
(:mod:`zipfs.catalog.background.scanner`). Of an owner only numbers are kept, and of all of them
:data:`NEWEST` paths.

All of it belongs to trio's thread.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from enum import Enum
from typing import Final, NamedTuple

from zipfs.library.scan import LeftOut
from zipfs.system.paths import is_within

NEWEST: Final = 100
"""How many are known by path."""
KINDS: Final = 100
"""Kinds of reasons that are told apart; what they are is ours, but for messages of systems."""
OTHER_KINDS: Final = "other reasons"
WENT_AWAY: Final = "went away meanwhile"


class By(Enum):
    """Who skips something."""

    GAME = "game"
    """The examination of the game at a path of the mount."""
    FOLDER = "folder"
    """The listing of the folder with that source."""
    HASHING = "hashing"
    """The hashing of the files of the game at that path."""


Owner = tuple[By, bytes]


class Skip(NamedTuple):
    """Something that isn't shown."""

    path: bytes
    reason: str
    since: float
    """When that was first seen, Unix time."""


class _Said(NamedTuple):
    """What an owner said last."""

    digest: int
    """The hash of all its paths and reasons."""
    kinds: Counter[str]
    at: float
    """When it did, time.monotonic."""


def kind_of(reason: str) -> str:
    """*reason* without what is particular to one case."""
    return reason.partition(":")[0]


class Skipped:
    """All that is skipped. Paths are relative to the library."""

    def __init__(self) -> None:
        self._said: dict[Owner, _Said] = {}
        self._kinds: Counter[str] = Counter()
        self._newest: dict[bytes, tuple[Skip, Owner]] = {}
        """By path, the oldest first."""

    def __len__(self) -> int:
        return self._kinds.total()

    @property
    def kinds(self) -> dict[str, int]:
        """How many for which kind of reason, the most frequent first."""
        found = dict(self._kinds.most_common(KINDS))
        if rest := len(self) - sum(found.values()):
            found[OTHER_KINDS] = found.get(OTHER_KINDS, 0) + rest
        return found

    @property
    def newest(self) -> list[Skip]:
        """Those noted last, :data:`NEWEST` at most, the newest first."""
        return [skip for skip, _ in reversed(self._newest.values())]

    def is_known(self, path: bytes) -> bool:
        """Whether *path* is among the newest."""
        return path in self._newest

    def replace(self, owner: Owner, left_out: Iterable[LeftOut]) -> None:
        """*left_out* is all that *owner* skips now."""
        found = {path: reason for path, reason in left_out if reason != WENT_AWAY}
        before = self._said.pop(owner, None) if self._said else None
        if not (found or before):
            return
        digest = hash(frozenset(found.items()))
        if before:
            self._kinds -= before.kinds  # and what comes to nothing goes
        if found:
            kinds = Counter(map(kind_of, found.values()))
            self._said[owner] = _Said(digest, kinds, time.monotonic())
            self._kinds += kinds
        # What is known only by number may be named as soon as there is room, and isn't new.
        if before and before.digest == digest and len(self._newest) >= NEWEST:
            return
        for path, (skip, by) in list(self._newest.items()):
            if by == owner and found.get(path) != skip.reason:
                del self._newest[path]
        for path, reason in found.items():
            self._newest.setdefault(path, (Skip(path, reason, time.time()), owner))
        while len(self._newest) > NEWEST:
            del self._newest[next(iter(self._newest))]

    def drop(self, owner: Owner) -> None:
        """*owner* skips nothing, or isn't there any more."""
        self.replace(owner, ())

    def owners(self, before: float) -> list[Owner]:
        """Those that said nothing since *before*, a time of time.monotonic."""
        return [owner for owner, said in self._said.items() if said.at < before]


def within(path: bytes, folders: Iterable[bytes]) -> bool:
    """Whether *path* is one of *folders* or in one of them; all are in the library itself."""
    return any(not folder or is_within(path, folder) for folder in folders)
