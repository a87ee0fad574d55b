"""Walks through the library, one after the other, that find every game and forget those gone.

They run beside the answers to requests, so they look at games many at a time in one go of a
thread, and come back to trio's thread with what was found of :data:`zipfs.survey.STEP` of them.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

import trio

from zipfs.kept import Game
from zipfs.once import Once
from zipfs.outcomes import Examination, Version
from zipfs.sealing import Sealer
from zipfs.sources import LeftOut, Place
from zipfs.survey import lane_of, survey
from zipfs.threads import Threads, timed_out

log = logging.getLogger(__name__)

RESCAN: Final = 300.0
"""Seconds, at least, between two walks through the library if changes are told."""
POLL: Final = 10.0
"""The same if they aren't."""

_Item = tuple[bytes, Place, Examination | None]
"""A game's path and place, and its last examination."""


class Finder(Protocol):
    """Who takes note of what is found."""

    def get(self, path: bytes) -> Game | None: ...
    def install(
        self,
        path: bytes,
        place: Place,
        examination: Examination,
        version: Version | None,
        *,
        asked: bool,
    ) -> Game: ...
    def say_failed(self, path: bytes, error: Exception) -> None:
        """The game at *path* couldn't be looked at."""

    def keep(self, seen: set[bytes], unseen: Sequence[bytes], since: float) -> None:
        """Forget all but *seen*, what is in *unseen*, and what was found *since*."""

    def left_out(self, folder: bytes, found: Iterable[LeftOut]) -> None:
        """*found* is what isn't shown of the folder with that source."""

    def surveyed(self, *, asked: bool) -> None:
        """A walk has ended, which somebody has *asked* for."""


class Rounds:
    """Walks through the library of *sealer*, for *finder*."""

    def __init__(self, sealer: Sealer, threads: Threads, finder: Finder) -> None:
        self._sealer = sealer
        self._threads = threads
        self._finder = finder
        self._once = Once(log)
        self._now = trio.Event()
        self._asked = False
        self._doubted = 0.0
        """When it was last said that whatever was seen before isn't true any more."""
        self.polling = True
        """Whether changes have to be looked for, since nobody tells of them."""

    def start(self, *, asked: bool, anew: bool = False) -> None:
        """Walk through the whole library now; *asked* is whether somebody waits to hear of it.

        *anew* is to look at each game, also at those that were looked at a moment ago.
        """
        self._asked |= asked
        if anew:
            self._doubted = time.monotonic()
        self._now.set()

    async def run(self) -> None:
        """Walk, for ever."""
        while True:
            started = time.monotonic()
            asked, self._asked = self._asked, False
            try:
                await self._walk()
            except OSError as error:
                self._once.warning("can't look through the library: %s", error.strerror)
            except Exception:
                # H4: nothing unexpected ends the mount.
                log.exception("unexpected error while looking through the library")
            self._finder.surveyed(asked=asked)
            # A walk takes a share of the disk, so it may use a twentieth of the time.
            took = time.monotonic() - started
            pause = POLL if self.polling else RESCAN
            with trio.move_on_after(max(pause, min(20 * took, RESCAN))):
                await self._now.wait()
            self._now = trio.Event()

    async def _walk(self) -> None:
        started = time.monotonic()
        with contextlib.suppress(TimeoutError):  # then it is what it was
            await self._threads.run(self._sealer.detect, lane="detect")
        seen: set[bytes] = set()
        unseen: list[bytes] = []
        sealer, tell = self._sealer, self._finder.left_out
        found = survey(sealer.library, sealer.policy, self._threads, tell)
        async with contextlib.aclosing(found):
            async for games, silent in found:
                unseen += silent
                seen.update(path for path, _ in games)
                await self._look(games)
        self._finder.keep(seen, unseen, started)

    async def _look(self, games: Iterable[tuple[bytes, Place]]) -> None:
        """Look at *games*, of one folder.

        To send a thread to each of a hundred thousand takes longer than what it does there.
        """
        todo: list[_Item] = []
        for path, place in games:
            game = self._finder.get(path)
            last = game.examination if game and game.place == place else None
            if not (game and last and game.is_fresh() and last.started >= self._doubted):
                todo.append((path, place, last))
        if not todo:
            return
        looks = await self._threads.map(
            self._examine, todo, lane=lane_of(todo[0][0]), key=lambda item: item[0]
        )
        for (path, place, _), look in zip(todo, looks, strict=True):
            if isinstance(look, Examination):
                self._finder.install(path, place, look, None, asked=False)
            else:
                self._finder.say_failed(path, look or timed_out())

    def _examine(self, item: _Item) -> Examination | Exception:
        """In a thread: look at one game of many, which may not spoil it for the others."""
        path, (source, origins), before = item
        try:
            # Its version, should it have one, ends here: nobody has asked for it.
            return self._sealer.examine(path, source, before, origins=origins)[0]
        except Exception as error:  # noqa: BLE001 - told by say_failed
            return error
