"""The library's own place as it comes and goes: who looks at it, when, and what follows.

The rules are those of :mod:`zipfs.library.presence`. Here is what waits for them: the table of
mounts tells of each change, and while a place is gone, it is looked at every :data:`AGAIN`
seconds. A place that is back, or another one, is accepted in three steps: it is seen, the
library's structure is found out, and it is still the one that was seen. Only then are questions
answered again, and the whole library is scanned at once.

Each place is looked at by a task of its own, so that one on a dead disk delays no other.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
from collections.abc import Callable
from typing import Final, TypeVar

import trio

from zipfs.library.place import place_name
from zipfs.library.presence import ANOTHER, Presence
from zipfs.system.mounts import MountEvents
from zipfs.system.threads.lanes import Threads

log = logging.getLogger(__name__)

T = TypeVar("T")

AGAIN: Final = 1.0
"""Seconds between two looks at a place that is gone."""


class Keeper:
    """Keeps *presence* true, with *threads* of which each may hang.

    *detect* finds out the library's structure, in a worker thread. *changed* is called when a
    place is another one, or back: nothing that was seen before is valid any more. *mounts_changed*
    is called when the table of mounts has changed.
    """

    def __init__(
        self,
        presence: Presence,
        threads: Threads,
        detect: Callable[[], object],
        changed: Callable[[], object],
        mounts_changed: Callable[[], object],
    ) -> None:
        self._presence = presence
        self._threads = threads
        self._detect = detect
        self._changed = changed
        self._mounts_changed = mounts_changed
        self._wake = trio.Event()
        self._looking: set[bytes] = set()
        self._again: set[bytes] = set()
        """Places that are being looked at, and are in doubt again."""
        self._logged: set[bytes] = set()
        """Places that the log says are gone."""

    def doubt(self) -> None:
        """Look at all places now: something is said to have changed."""
        self._wake.set()

    async def run(self) -> None:
        """Look after the places, for ever."""
        token = trio.lowlevel.current_trio_token()

        def lost() -> None:
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(self.doubt)

        self._presence.lost = lost
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen, nursery)
            while True:
                with trio.move_on_after(AGAIN if self._presence.gone else math.inf):
                    await self._wake.wait()
                self._wake = trio.Event()
                await self._read_mounts()  # a folder above has another name: that is no event
                for source in self._presence.places:
                    self._start(nursery, source)

    async def _listen(self, nursery: trio.Nursery) -> None:
        """Look at the places whose mounts change, for ever."""
        try:
            events = MountEvents()
        except OSError as error:  # then only what is asked for tells of places
            log.warning("can't read the table of mounts: %s", error.strerror)
            return
        with contextlib.closing(events):
            is_first = True
            while True:
                events.clear()
                self._mounts_changed()
                for source in await self._read_mounts():
                    # The first scan, which has just begun, sees what was mounted before.
                    is_new = self._presence.last_seen(source) is None
                    is_old = is_first and is_new and not self._presence.gone_at(source)
                    self._start(nursery, source, is_old=is_old)
                is_first = False
                await trio.lowlevel.wait_readable(events.fileno())

    async def _read_mounts(self) -> list[bytes]:
        """The places that are to be looked at, as their lines in the table have changed."""
        try:
            return await self._threads.run(self._presence.read_mounts, lane="mounts", item="table")
        except OSError:  # a timeout, too
            return []

    def _start(self, nursery: trio.Nursery, source: bytes, *, is_old: bool = False) -> None:
        if source not in self._looking:
            self._looking.add(source)
            nursery.start_soon(self._look, source, is_old)
        else:
            self._again.add(source)

    async def _look(self, source: bytes, is_old: bool) -> None:
        """Look at the place at *source*; with *is_old* the scans know of it already."""
        try:
            while True:
                self._again.discard(source)
                await self._look_once(source, is_old)
                self._log_gone()
                if source not in self._again:
                    return
        except Exception:
            # H4: nothing unexpected ends the mount.
            log.exception("unexpected error while looking at the library's place")
        finally:
            self._looking.discard(source)

    async def _look_once(self, source: bytes, is_old: bool) -> None:
        presence = self._presence
        with contextlib.suppress(TimeoutError):  # then it is what it was
            seen = await self._run(presence.look, source)
            if seen is None or not presence.is_news(source):
                return
            if not is_old:
                await self._run(self._find_structure, source)
            try:
                accept = functools.partial(presence.accept, seen=seen, is_old=is_old)
                is_accepted = await self._run(accept, source)
            except OSError:
                is_accepted = False
            if not is_accepted:  # it went away meanwhile, or is another one again
                self.doubt()
            elif not is_old:
                self._log_back(source)
                self._changed()

    def _find_structure(self, source: bytes) -> None:
        """In a worker thread: unless something else is gone that may decide it."""
        if all(gone.source == source for gone in self._presence.gone):
            self._detect()

    async def _run(self, function: Callable[[bytes], T], source: bytes) -> T:
        return await self._threads.run(function, source, lane=("place", source), item=source)

    # -- The log: once when a place is gone, once when it is back -----------------

    def _log_gone(self) -> None:
        for gone in self._presence.gone:
            if gone.source not in self._logged and gone.reason != ANOTHER:
                self._logged.add(gone.source)
                log.warning(
                    "%s is gone: %s; until it is back, all that is asked of it ends in an error",
                    place_name(gone.source),
                    gone.reason,
                )

    def _log_back(self, source: bytes) -> None:
        if source in self._logged:
            self._logged.discard(source)
            log.info("%s is back; looking through it", place_name(source))
        else:
            log.info("%s is another folder or disk now; looking through it", place_name(source))
