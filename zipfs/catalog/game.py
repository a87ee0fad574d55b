"""What is known of one game, and the totals of all."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Final, NamedTuple

import trio

from zipfs.index.hash_jobs import Request
from zipfs.index.rows import Made, Published
from zipfs.library.scan import Place
from zipfs.sealing.outcomes import Examination, Outcome, Sealed, Unhashed, Version
from zipfs.system.threads.agenda import Agenda, Waiter
from zipfs.system.threads.retries import Retries

FRESH: Final = 1.0
"""Cache lifetime of an examination, in seconds."""
_SHARE: Final = 5.0
"""The lifetime of one that took long, in terms of the time it took..."""
_STALE: Final = 10.0
"""...but no more than so many seconds: a disk may just have hung."""


class Game:
    """What is known of a game: under a kilobyte, as there may be 100,000 of them."""

    __slots__ = ("_origins", "_source", "examination", "invalidated", "path", "reseal", "since_ns")

    def __init__(self, path: bytes, place: Place) -> None:
        self.path = path
        # Nearly always the same bytes, and then the same object. Nothing of what `stat` told
        # is kept: it takes half a kilobyte.
        self._source = path if place.source == path else place.source
        self._origins = place.origins
        self.examination: Examination | None = None
        self.invalidated = 0.0
        """An examination that began before this isn't valid; time.monotonic."""
        self.since_ns = 0
        """Since when its archive is there, if it is; nanoseconds since the epoch."""
        self.reseal: Reseal | None = None
        """What it waits for; None while it is quiet (zipfs.catalog.reseal)."""

    @property
    def outcome(self) -> Outcome | None:
        return self.examination.outcome if self.examination else None

    def invalidate(self) -> None:
        """Whatever was seen of it until now isn't valid any more."""
        self.invalidated = time.monotonic()

    def is_fresh(self) -> bool:
        """Whether the examination may be used as it is."""
        last = self.examination
        return (
            last is not None
            and last.started >= self.invalidated
            and time.monotonic() - last.started < lifetime(last.took, self._most(last))
        )

    def _most(self, last: Examination) -> float:
        """How long *last* may be used at most."""
        state = self.reseal  # once: this is asked in worker threads, and it ends in trio's
        is_hashed = state is not None and state.request is not None
        # It is examined when that is done; who polls a list of half a million files would keep the
        # processor from doing it.
        return math.inf if is_hashed and isinstance(last.outcome, Unhashed) else _STALE

    @property
    def place(self) -> Place:
        """Where its folder was found."""
        return Place(self._source, self._origins)


class Reseal(Waiter):
    """What a game that isn't quiet waits for, and how others end that. Times are trio's.

    *asked*: its files go to the front of the queue, too.
    """

    __slots__ = (
        "due",
        "examining",
        "game",
        "has_failed",
        "is_hashed",
        "outcome",
        "reading",
        "request",
        "retry_at",
    )

    def __init__(self, game: Game, agenda: Agenda[Reseal]) -> None:
        super().__init__(agenda)
        self.game: Final = game
        self.outcome: Outcome | None = None
        """What it was when it began to wait."""
        self.has_failed = False
        """Whether it couldn't be examined since."""
        self.is_hashed = False
        """Whether files of it are hashed before it is examined."""
        self.request: Request | None = None
        """Those in the hash queue."""
        self.due = math.inf
        """When the game is to be examined at the latest, whatever it waits for."""
        self.retry_at = -math.inf
        """Files that couldn't be read aren't read again before this."""
        self.reading: Final = Retries()
        """Of those files."""
        self.examining: Final = Retries()
        """Of the game itself."""

    @property
    def is_failing(self) -> bool:
        """Whether it waits to read again what couldn't be read."""
        return trio.current_time() < self.retry_at

    def read_in_vain(self) -> None:
        """Files couldn't be read: wait, longer each time."""
        self.retry_at = trio.current_time() + self.reading.after_failure()

    def is_another(self) -> None:
        """The game has changed: what failed may work now."""
        self.retry_at = -math.inf
        self.reading.over()

    def examine_in(self, seconds: float) -> None:
        """Have the game examined in so many *seconds* at the latest."""
        self.due = min(self.due, trio.current_time() + seconds)
        self._agenda.wait_less(self, self.due)


class Look(NamedTuple):
    """What a worker thread found out about the game at a path and place."""

    path: bytes
    place: Place
    examination: Examination | None = None
    """None: the one that is known is valid."""
    version: Version | None = None
    last: Published | None = None
    """What the index has of its archive, if that is to be published."""
    made: Made | None = None
    """What the index is to have of it."""


@dataclass(slots=True)
class Sums:
    """Totals of all archives, updated with each: to add up 100,000 takes too long."""

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
    """Totals for the status: sealed archives, and what is still to be done."""

    archives: int
    members: int
    size: int
    unsealed: int
    pending_bytes: int


def lifetime(took: float, most: float = _STALE) -> float:
    """Cache lifetime, in seconds and no more than *most*, of an examination that *took* so many."""
    return max(FRESH, min(most, _SHARE * took))


def lane_of(path: bytes) -> tuple[str, bytes]:
    """The lane of threads in which *path*, which is the item, is looked at."""
    return "folder", path.rpartition(b"/")[0]
