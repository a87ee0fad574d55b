"""Scans of the library, one after the other: each finds every game, and what is skipped.

A scan goes from folder to folder, and no dead one can stop it. Between two scans, single paths
are found as the watcher tells of them. What is found is examined and installed by
:mod:`zipfs.catalog.reseal`.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections.abc import Collection, Sequence
from typing import Final

import trio

from zipfs.catalog.background.forgetter import Forgetter
from zipfs.catalog.background.survey import Skips, survey
from zipfs.catalog.background.turns import Turns
from zipfs.catalog.background.widths import Widths
from zipfs.catalog.game import Look, lane_of, lifetime
from zipfs.catalog.games import Games
from zipfs.catalog.listing.hearing import Hearing
from zipfs.catalog.made import MadeArchives
from zipfs.catalog.reseal import Resealer
from zipfs.catalog.singles import Singles
from zipfs.catalog.skipped import By, Skipped, within
from zipfs.errors import GoneError
from zipfs.library.scan import Entry, LeftOut, Place
from zipfs.logs import Once
from zipfs.sealing.outcomes import Unsettled
from zipfs.sealing.sealer import Sealer
from zipfs.system.threads.lanes import Threads, timed_out
from zipfs.system.threads.retries import Retries

log = logging.getLogger(__name__)

RESCAN: Final = 300.0
"""Seconds, at least, between two scans while the watcher tells of changes."""
POLL: Final = 10.0
"""The same while it doesn't."""
_HEARING: Final = 3.0
"""Longest time in seconds for which the first scan waits for the watcher to begin. What it has
seen by then has to be looked at again by whoever lists it."""


class Scanner:
    """Scans the library of *sealer* into *games* and *skipped*."""

    def __init__(  # noqa: PLR0913 - what a catalog consists of
        self,
        sealer: Sealer,
        threads: Threads,
        games: Games,
        skipped: Skipped,
        resealer: Resealer,
        singles: Singles,
        *,
        hearing: Hearing,
        made: MadeArchives,
        widths: Widths,
        turns: Turns,
    ) -> None:
        self._sealer = sealer
        self._library = sealer.library
        self._presence = sealer.library.presence
        self._threads = threads
        self._games = games
        self._skipped = skipped
        self._resealer = resealer
        self._singles = singles
        self._hearing = hearing
        self._made = made
        self._widths = widths
        self._turns = turns
        self._forgetter = Forgetter(sealer, threads)
        self._nursery: trio.Nursery | None = None
        self._once = Once(log)
        self._now = trio.Event()
        self._asked = False

    def rescan(self, *, asked: bool = False) -> None:
        """Scan the whole library now; the log says so when it is done, if *asked*."""
        self._asked |= asked
        self._now.set()

    async def run(self) -> None:
        """Scan, for ever."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                with trio.move_on_after(_HEARING):
                    await self._hearing.begun.wait()
                await self._scan_for_ever()
            finally:
                self._nursery = None  # changes may still be told of while it ends

    async def _scan_for_ever(self) -> None:
        retries = Retries()
        while True:
            started = time.monotonic()
            asked, self._asked = self._asked, False
            is_whole = failed = True
            try:
                failed = await self._scan()
            except GoneError:
                # All is what it was; when the place is back, a scan begins at once.
                is_whole = False
                self._asked |= asked
            except OSError as error:
                self._once.warning("can't look through the library: %s", error.strerror)
            except Exception:
                # H4: nothing unexpected ends the mount.
                log.exception("unexpected error while looking through the library")
            if is_whole:
                self._made.over()
                self._games.scanned(asked=asked)
            # A scan takes a share of the disk, so it may use a twentieth of the time.
            took = time.monotonic() - started
            if not (is_whole or self._presence.gone):  # a place came or went meanwhile
                self._now.set()
            pause = max(RESCAN if self._hearing.is_complete else POLL, min(20 * took, RESCAN))
            if failed and is_whole:
                pause = min(pause, retries.after_failure())
            elif is_whole:
                retries.over()
            with trio.move_on_after(pause):
                await self._now.wait()
            self._now = trio.Event()

    async def _scan(self) -> bool:
        """Returns whether a folder couldn't be listed that may be listed in a moment.

        Raises :exc:`GoneError`: then nothing is forgotten.
        """
        started = time.monotonic()
        since = self._presence.generation
        with contextlib.suppress(TimeoutError):  # then it is what it was
            await self._threads.run(self._detect, lane="detect")
        seen: set[bytes] = set()
        silent: list[bytes] = []
        failed = False
        found = survey(self._library, self._sealer.policy, self._threads, self._widths)
        async with contextlib.aclosing(found):
            async for step in found:
                if isinstance(step, Skips):
                    self._skipped.replace((By.FOLDER, step.folder), step.left_out)
                    failed |= step.failed
                    continue
                silent += step.silent
                seen.update(path for path, _ in step.games)
                await self._examine(step.games, step.beside)
                if step.files:
                    await self._threads.run(self._singles.found, step.files)
        silent += await self._confirm(since)
        for game in [game for game in self._games if game.path not in seen]:
            last = game.examination
            if (
                last
                and last.started < started
                and not within(game.path, silent)
                and not within(game.place.source, silent)
            ):
                self._games.forget(game)
        for by, path in self._skipped.owners(started):
            if within(path, silent):
                continue
            if by is By.FOLDER:  # which no scan leads through: it holds no games
                await self._relist(path)
            elif path not in seen:
                self._skipped.drop((by, path))
        if not silent:  # what doesn't answer hasn't gone
            await self._games.dates.compare(self._games.by_archive)
            await self._forgetter.some()
        return failed

    def _detect(self) -> None:
        """In a worker thread: find out the library's structure, unless a part of it is gone."""
        presence = self._presence
        with presence.asking(b"") as asking:
            asking.confirm()
            if not presence.gone:
                self._sealer.detect()

    async def _confirm(self, since: int) -> list[bytes]:
        """The places that are gone or don't answer. Raises :exc:`GoneError` for the library.

        *since* is the generation when the scan began.
        """
        silent = []
        for source in self._presence.places:
            try:
                await self._threads.run(
                    self._presence.confirm, source, since, lane=("place", source), item=source
                )
            except (GoneError, TimeoutError):
                if not source:
                    raise
                silent.append(source)
        return silent

    async def _examine(
        self, games: Sequence[tuple[bytes, Place]], beside: Collection[bytes]
    ) -> None:
        """Examine *games*, of one folder, which has the names *beside*.

        To send a thread to each of a hundred thousand takes longer than what it does there.
        """
        if not games:
            return
        if not self._made.is_over:
            await self._turns.give_way()
            await self._threads.run(self._made.load, games[0][0].rpartition(b"/")[0])
            games = [game for game in games if not self._is_known(*game)]
            if not games:
                return
        looks = await self._threads.map(
            functools.partial(self._examine_one, beside),
            games,
            lane=lane_of(games[0][0]),
            key=lambda game: game[0],
            width=self._widths.of(games[0][1].source, "examine"),
        )
        for (path, _), look in zip(games, looks, strict=True):
            if isinstance(look, Look):
                self._resealer.install(look, asked=False)
            else:
                self._resealer.failed(path, look or timed_out())

    def _is_known(self, path: bytes, place: Place) -> bool:
        """Whether somebody has looked at the game since changes of it are told of."""
        game = self._games.get(path)
        last = game.examination if game and game.place == place else None
        since = max(self._hearing.since, game.invalidated if game else 0.0)
        return last is not None and last.started >= since and not last.is_spread

    def _examine_one(
        self, beside: Collection[bytes], game: tuple[bytes, Place]
    ) -> Look | Exception:
        """In a worker thread: one game of many, which may not spoil it for the others."""
        try:
            return self._resealer.examine(*game, beside=beside)
        except Exception as error:  # noqa: BLE001 - told by Resealer.failed
            return error

    # -- Single paths ------------------------------------------------------------

    def changed(self, path: bytes) -> None:
        """Something has changed at the source *path*, which may have been skipped."""
        if self._nursery and self._skipped.is_known(path):
            self._nursery.start_soon(self._relist, path.rpartition(b"/")[0])

    def notice(self, path: bytes) -> None:
        """Something has changed in the game at *path*, or it is new."""
        if game := self._games.get(path):
            took = game.examination.took if game.examination else 0.0
            # Somebody has asked for a list before it was heard that it needn't settle.
            soon = isinstance(game.outcome, Unsettled) and self._library.came_whole(path)
            self._resealer.invalidate(game, 0 if soon else lifetime(took))
        elif self._nursery:
            self._nursery.start_soon(self._discover, path)

    async def _discover(self, path: bytes) -> None:
        """Find the game that may have come to be at *path*, and examine it."""
        retries = Retries()
        found: Look | LeftOut | None = None
        while True:
            try:
                found = await self._threads.run(
                    self._find_and_examine, path, lane=lane_of(path), item=path
                )
            except Exception as error:  # noqa: BLE001 - H4: nothing unexpected ends the mount
                self._resealer.failed(path, error)
                if not isinstance(error, OSError) or self._games.get(path) or retries.are_rare:
                    return  # a known game has tries of its own; the next scan finds another
            else:
                break
            await trio.sleep(retries.after_failure())
        if isinstance(found, Look):
            self._resealer.install(found, asked=False)
        if isinstance(found, LeftOut) or self._skipped.is_known(path):
            await self._relist(path.rpartition(b"/")[0])

    def _find_and_examine(self, path: bytes) -> Look | LeftOut | None:
        """In a worker thread: the game at *path*; None if there is none."""
        entry = self._library.entry(path)
        if isinstance(entry, Entry):
            return self._resealer.examine(path, entry.place) if entry.is_folder else None
        return entry

    async def _relist(self, folder: bytes) -> None:
        """Renew what is skipped in the folder with that source."""
        lane = lane_of(folder + b"/")
        try:
            found = await self._threads.run(self._library.folder, folder, lane=lane, item=folder)
        except (FileNotFoundError, NotADirectoryError):
            self._skipped.drop((By.FOLDER, folder))
        except OSError:
            return  # it is what it was
        except Exception:
            # H4: nothing unexpected ends the mount.
            log.exception("unexpected error while looking through the library")
        else:
            left_out = (entry for _, entry in found if isinstance(entry, LeftOut))
            self._skipped.replace((By.FOLDER, folder), left_out)
