"""What a head is about now, as its thread says and everybody may ask.

    mode        files                               modification times
    JOINING     wait until it is in step            wait likewise
    SHARING     hashed once, by who claims them     issued by all
    READING     hashed by others, if there are any  issued here
    ALONE       hashed here                         issued by all
    AWAY        hashed here, told later             issued here, told later

ALONE: files have other states here than where they were recorded (:mod:`zipfs.index.shared.probe`).
READING: this role, or this server, may only be read.
"""

from __future__ import annotations

import enum
import logging
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from zipfs.index.shared.exchange import Counts

log = logging.getLogger(__name__)

SLOW: Final = 3.0
"""Seconds after which a database that answers nothing counts as away."""
_JOIN: Final = 5.0
"""Seconds after the start for which everything waits for the first connection."""


class Mode(enum.Enum):
    """What a head does; see above."""

    JOINING = "joining"
    SHARING = "sharing"
    READING = "reading"
    ALONE = "alone"
    AWAY = "away"


class HeadFacts(NamedTuple):
    """Figures for `zipfs status`."""

    address: str
    library: str
    """The name of the library there."""
    mode: str
    reason: str
    """Why it is away, alone, or reads only; empty otherwise."""
    since: float
    """When that began, Unix time."""
    heads: int
    """Number of heads that were alive when it was last asked, this one included."""
    waiting: int
    """Number of rows that aren't in the shared index yet."""
    taken: int
    """Rows of files that were taken over since the start, its own among them."""
    shared: int
    """Rows of files that were saved since the start."""
    damaged: int
    """Rows with a wrong seal since the start."""
    unlike: int
    """Files with other states here than elsewhere, though most have the same."""


class State:
    """The state of the head of the library *name* at the address *where*."""

    def __init__(self, where: str, name: str) -> None:
        self.where: Final = where
        self.name: Final = name
        self.counts: Final = Counts()
        self.mode = Mode.JOINING
        self.reason = ""
        self.number = 0
        """Of this head among all; 0: none."""
        self.others = 0
        """Number of others that are alive, and may write."""
        self.issues = False
        """Whether this head may have modification times issued."""
        self.stopping = False
        self.changed: Callable[[], object] = time.monotonic
        self._since = time.time()
        self._started = time.monotonic()
        self._is_connected = False
        self._busy_since: float | None = None
        self._logged: set[tuple[Mode, str]] = set()

    # -- In any thread --------------------------------------------------------------

    def answers(self) -> bool:
        """Whether the database answers at present, as far as anybody knows."""
        return self.mode not in (Mode.JOINING, Mode.AWAY) and not self._is_slow()

    def is_joining(self) -> bool:
        """Whether it is worth waiting until it is in step."""
        if self.mode is not Mode.JOINING:
            return False
        if self._is_connected:
            return not self._is_slow()
        return time.monotonic() - self._started < _JOIN

    def hashes_all(self) -> bool:
        """Whether this head hashes what it wants by itself."""
        if self.mode is Mode.ALONE or (self.mode is Mode.READING and not self.others):
            return True
        return not (self.answers() or self.is_joining())

    def _is_slow(self) -> bool:
        since = self._busy_since
        return since is not None and time.monotonic() - since >= SLOW

    def facts(self, waiting: int, unlike: int) -> HeadFacts:
        """Figures; *waiting* and *unlike* are known elsewhere."""
        slow = self._is_connected and self._is_slow()
        return HeadFacts(
            address=self.where,
            library=self.name,
            mode=Mode.AWAY.value if slow else self.mode.value,
            reason="it doesn't answer" if slow else self.reason,
            since=self._since,
            heads=self.others + (self.number > 0),
            waiting=waiting,
            taken=self.counts.taken,
            shared=self.counts.shared,
            damaged=self.counts.damaged[0],
            unlike=unlike,
        )

    # -- In the head's thread ---------------------------------------------------------

    def beat(self) -> None:
        """The database has answered, and is asked again."""
        self._busy_since = time.monotonic()

    def rest(self) -> None:
        """Nobody waits for an answer."""
        self._busy_since = None

    def connected(self) -> None:
        """There is a connection: what follows brings this head in step."""
        self.beat()
        self._is_connected = True
        self._become(Mode.JOINING, "")

    def become(self, mode: Mode, reason: str = "") -> None:
        """Take on *mode*, because of *reason*, and log that."""
        if mode is Mode.AWAY:
            self._is_connected = False
            self.rest()
            if self.stopping:
                return
        if self._become(mode, reason):
            self._log(mode, reason)

    def _become(self, mode: Mode, reason: str) -> bool:
        if (mode, reason) == (self.mode, self.reason):
            return False
        if mode is not self.mode:
            self._since = time.time()
        self.mode, self.reason = mode, reason
        self.changed()
        return True

    def _log(self, mode: Mode, reason: str) -> None:
        """One line for each change. What stays as it was between two attempts isn't told again."""
        if (mode, reason) in self._logged:
            return
        if mode is not Mode.AWAY:
            self._logged.clear()
        self._logged.add((mode, reason))
        if mode is Mode.AWAY:
            log.warning(
                "the shared index %s is away: %s; hashing here until it is back",
                self.where,
                reason,
            )
        elif mode is Mode.ALONE:
            log.warning(
                "the shared index %s has other states of the files of %s than they have here"
                " (%s); hashing alone",
                self.where,
                self.name,
                reason,
            )
        elif mode is Mode.READING:
            log.info("reading the shared index %s of %s: %s", self.where, self.name, reason)
        else:
            log.info("sharing the index %s of %s", self.where, self.name)
