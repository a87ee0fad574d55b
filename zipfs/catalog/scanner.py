"""Walks through the library, one after the other, that find every game and forget those gone.

A walk goes from game to game, and no dead folder can stop it.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from typing import Final, Protocol

import trio

from zipfs.catalog.game import Game
from zipfs.library.rules.general import Policy
from zipfs.library.scan import Entry, LeftOut, Origins, Place
from zipfs.library.view import LibraryView
from zipfs.logs import Once
from zipfs.sealing.outcomes import Examination, Version
from zipfs.sealing.sealer import Sealer
from zipfs.system.lanes import Threads, timed_out
from zipfs.system.paths import join

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


STEP: Final = 256
"""Entries of a folder that are looked at in one go, games of it that are told of at once."""

Found = tuple[list[tuple[bytes, Place]], list[bytes]]
"""Games in one folder, path and place, and where something, a game or a folder of games,
doesn't answer."""


def lane_of(path: bytes) -> tuple[str, bytes]:
    """The lane of threads in which *path*, which is the item, is looked at."""
    return "folder", path.rpartition(b"/")[0]


async def survey(
    library: LibraryView,
    policy: Policy,
    threads: Threads,
    tell: Callable[[bytes, Iterable[LeftOut]], object] = lambda folder, left_out: None,
) -> AsyncGenerator[Found, None]:
    """All games, as *policy* takes them, up to :data:`STEP` at a time.

    A folder that can't be listed is passed over: whoever asks for it is told why. *tell* hears
    the source of each folder that was gone through, and what is left out of it.
    """
    todo: list[tuple[bytes, bytes, Origins]] = [(b"", b"", frozenset())]
    while todo:
        path, source, origins = todo.pop()
        prefix = path + b"/" if path else b""
        try:
            names = await threads.run(library.names, source, lane=lane_of(path), item=path)
        except TimeoutError as error:
            tell(source, [LeftOut(source, f"can't be listed: {error.strerror}")])
            yield [], [path]
            continue
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            tell(source, [LeftOut(source, f"can't be listed: {error.strerror}")])
            continue
        left_out = []
        for start in range(0, len(names), STEP):
            some = names[start : start + STEP]
            entries = await threads.map(
                functools.partial(_look, library, source, origins),
                some,
                lane=lane_of(prefix),
                key=lambda name, prefix=prefix: prefix + name,  # type: ignore[misc]  # mypy can't infer a lambda's default
            )
            games = []
            silent = []
            for name, entry in zip(some, entries, strict=True):
                child = prefix + name
                if entry is None:
                    silent.append(child)
                    silent += library.variants_of(child)
                    left_out.append(LeftOut(join(source, name), "doesn't answer"))
                elif isinstance(entry, LeftOut):
                    left_out.append(entry)
                elif entry.is_folder:
                    if policy.is_game(child):
                        games.append((child, entry.place))
                    elif policy.may_hold_games(child):
                        todo.append((child, entry.source, entry.origins))
            own = (path.removeprefix(prefix) for path, _ in games)
            games += [
                (prefix + name, Place(join(source, name), origins))
                for name in library.beside(path, own, names)
            ]
            if games or silent:
                yield games, silent
        tell(source, left_out)


def _look(library: LibraryView, source: bytes, origins: Origins, name: bytes) -> Entry | LeftOut:
    """What *name* in the folder *source* is."""
    path = join(source, name)
    try:
        return library.entry(path, origins) or LeftOut(path, "went away meanwhile")
    except TimeoutError:
        raise
    except OSError as error:
        return LeftOut(path, f"can't be looked at: {error.strerror}")
