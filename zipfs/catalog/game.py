"""What is known of one game, and how far all of them are."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from zipfs.library.filestate import FileState
from zipfs.library.scan import Place
from zipfs.sealing.outcomes import Examination, Outcome, Sealed

FRESH: Final = 1.0
"""Seconds for which what was found out about a game is taken as it is."""
_SHARE: Final = 5.0
"""A game that takes long to look at is looked at in a fifth of the time at most..."""
_STALE: Final = 10.0
"""...but no longer taken as it is than so many seconds: a disk may just have hung."""


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
