"""What is known of each game, and the work in the background that makes it known.

What is known is taken as it is for :data:`zipfs.catalog.game.FRESH` seconds and then looked at
again, on access: correctness never rests on being told of changes. What isn't known yet
is found, queued and sealed by :meth:`Games.run`.

All methods belong to trio's thread; what may touch the disk they do in others.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import trio

from zipfs.catalog.game import Game, Sums, Totals, last_for
from zipfs.catalog.scanner import Rounds, lane_of
from zipfs.catalog.skipped import Reviews, within
from zipfs.catalog.versions import Gaps, Versions
from zipfs.index.hash_queue import Hasher
from zipfs.index.unsaved import Unsaved
from zipfs.library.filestate import Checksums
from zipfs.library.scan import Entry, LeftOut, Place, SourceFile
from zipfs.logs import Once
from zipfs.sealing.outcomes import (
    Examination,
    Impossible,
    Plain,
    Sealed,
    Unhashed,
    Unneeded,
    Unsettled,
    Version,
)
from zipfs.sealing.sealer import Sealer
from zipfs.system.lanes import Threads
from zipfs.text import shown

log = logging.getLogger(__name__)

RETRY: Final = 30.0
"""Seconds until a game with a file that couldn't be read is tried again."""


class Games:
    """All games that *sealer* finds in its library. *in_thread* runs what may block."""

    def __init__(
        self, sealer: Sealer, threads: Threads, patience: float | None, hash_rate: float = 0.0
    ) -> None:
        self._sealer = sealer
        self._threads = threads
        self._in_thread = threads.run
        self._library = sealer.library
        self._games: dict[bytes, Game] = {}
        self._by_archive: dict[bytes, Game] = {}
        self._unsealed: set[bytes] = set()
        self._sums = Sums()
        self.versions = Versions()
        self._gaps = Gaps(sealer.settle)
        self._hasher = Hasher(self._library.absolute, patience, hash_rate)
        self._unsaved = Unsaved(sealer.index)
        self._once = Once(log)
        self._busy: dict[bytes, trio.Event] = {}
        """Games that are being looked at."""
        self._nursery: trio.Nursery | None = None
        self._rounds = Rounds(sealer, threads, self)
        self._surveyed = False
        self.reviews = Reviews(self._library, threads)
        self._announce = True
        self._discovering: set[bytes] = set()
        self.unpublished: Callable[[bytes], None] = lambda path: None
        """Called with the path of an archive that isn't there any more as it was."""
        self.moved: Callable[[bytes], None] = lambda path: None
        """Called with the path of a game that is, or may be, another now."""

    @property
    def polling(self) -> bool:
        """Whether changes have to be looked for, since nobody tells of them."""
        return self._rounds.polling

    @polling.setter
    def polling(self, polling: bool) -> None:
        self._rounds.polling = polling

    @property
    def hasher(self) -> Hasher:
        return self._hasher

    @property
    def is_surveyed(self) -> bool:
        """Whether a walk has ended: every game is known, if only by its place."""
        return self._surveyed

    def get(self, path: bytes) -> Game | None:
        """What is known of the game at *path*."""
        return self._games.get(path)

    def by_archive(self, path: bytes) -> Game | None:
        """The game whose archive is at *path*."""
        return self._by_archive.get(path)

    def doubt(self, path: bytes) -> None:
        """Look at the game at *path* again, soon: a file of it wasn't in its state."""
        if game := self._games.get(path):
            self._doubt(game, 0)

    def _doubt(self, game: Game, seconds: float) -> None:
        game.doubted = time.monotonic()
        self.moved(game.path)
        self._look_again(game, seconds)

    def totals(self) -> Totals:
        return Totals(
            archives=self._sums.archives,
            members=self._sums.members,
            size=self._sums.size,
            unsealed=len(self._unsealed),
            pending_bytes=self._hasher.pending_bytes,
        )

    # -- In the background -----------------------------------------------------

    async def run(self) -> None:
        """Find all games, hash what has to be hashed, and go on watching, for ever."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self.reviews.begin(nursery)
            nursery.start_soon(self._hasher.run, self)
            await self._rounds.run()

    def notice(self, path: bytes) -> None:
        """Something has changed in the game at *path*, or it is new: look, soon."""
        if game := self._games.get(path):
            self._doubt(game, last_for(game.examination.took) if game.examination else 0)
        elif self._nursery and path not in self._discovering:
            self._discovering.add(path)
            self._nursery.start_soon(self._discover, path)

    async def _discover(self, path: bytes) -> None:
        """Look at *path*, where a game may have come to be."""
        self._discovering.discard(path)
        try:
            entry = await self._in_thread(self._library.entry, path, lane=lane_of(path), item=path)
        except OSError as error:
            self._once.warning("can't look at %s: %s", shown(path), error.strerror)
            return
        self.reviews.settle(path, entry if isinstance(entry, LeftOut) else None)
        if isinstance(entry, Entry) and entry.is_folder:
            await self._look(path, entry.place)

    def rescan(self, *, asked: bool = False, anew: bool = False) -> None:
        """Walk through the whole library now; the log says so when it is done, if *asked*."""
        self._rounds.start(asked=asked, anew=anew)

    def surveyed(self, *, asked: bool) -> None:
        self._surveyed = True
        self._announce |= asked
        self._tell()

    def keep(self, seen: set[bytes], unseen: Sequence[bytes], since: float) -> None:
        for path in [path for path in self._games if path not in seen]:
            game = self._games[path]
            last = game.examination
            if last and last.started < since and not within(path, unseen):
                self._forget(game)
        self.reviews.walked(seen, unseen, since)

    def left_out(self, folder: bytes, found: Iterable[LeftOut]) -> None:
        self.reviews.listed(folder, found)

    async def save(self) -> None:
        """Save the checksums that aren't saved yet."""
        await self._unsaved.save()

    async def hashed(self, file: SourceFile, checksums: Checksums, owners: set[bytes]) -> None:
        self._unsaved.add(file, checksums)
        complete = []
        for owner in owners:
            game = self._games.get(owner)
            if game and game.waiting:
                game.waiting.discard((file.source, file.state))
                if not game.waiting:
                    complete.append(game)
        if complete or self._unsaved.due:
            await self.save()
        for game in complete:
            game.waiting = None
            await self._look(game.path, game.place)

    async def failed(self, file: SourceFile, error: Exception, owners: set[bytes]) -> None:
        refused = isinstance(error, PermissionError)
        if refused:
            self._sealer.mark_unreadable(file)
        if isinstance(error, OSError):
            self._say_unreadable(file, error, refused=refused)
        for owner in owners:
            game = self._games.get(owner)
            key = (file.source, file.state)
            if game is None or not game.waiting or key not in game.waiting:
                continue  # it has been looked at since
            if refused:
                game.waiting.discard(key)
                if game.waiting:
                    continue  # once for all of them is enough
                await self.save()
            elif isinstance(game.outcome, Unhashed | Sealed):
                if isinstance(error, OSError):
                    self.reviews.unreadable(owner, file, error)
                # What says that it changed, and yet is as before, would be hashed for ever.
                game.retry_at = time.monotonic() + RETRY
            game.waiting = None
            await self._look(game.path, game.place)

    def _say_unreadable(self, file: SourceFile, error: OSError, *, refused: bool) -> None:
        if refused:
            self._once.warning("%s is left out: a file that can't be read", shown(file.source))
        else:
            self._once.warning(
                "can't read %s: %s; its archive isn't there until that is mended",
                shown(file.source),
                error.strerror,
            )

    # -- Games -----------------------------------------------------------------

    async def check(
        self, path: bytes, place: Place, *, asked: bool, whole: bool = False, again: bool = False
    ) -> Game:
        """The game at *path* and *place*, looked at a moment ago at most.

        *asked* tells that somebody waits for it, *whole* that its version is
        needed, *again* to look in any case.
        """
        if not (whole or again):
            if (busy := self._busy.get(path)) is not None:  # an event has no truth value
                await busy.wait()  # three hundred clients are one look
            game = self._games.get(path)
            if game and game.is_fresh() and game.place == place:
                if asked and isinstance(game.outcome, Unhashed):
                    self._hurry(game, game.outcome)
                return game
        game = self._games.get(path)
        before = game.examination if game and game.place == place else None
        examine = functools.partial(
            self._sealer.examine, path, place.source, before, origins=place.origins, whole=whole
        )
        mine = self._busy.setdefault(path, trio.Event())
        try:
            examination, version = await self._in_thread(examine, lane=lane_of(path), item=path)
        finally:
            if self._busy.get(path) is mine:
                del self._busy[path]
            mine.set()
        return self.install(path, place, examination, version, asked=asked)

    def install(
        self,
        path: bytes,
        place: Place,
        examination: Examination,
        version: Version | None,
        *,
        asked: bool,
    ) -> Game:
        """Take note of *examination*, unless a later one has come in meanwhile."""
        game = self._games.get(path)
        if game is None or game.place != place:
            if game:
                self._forget(game)
            game = Game(path, place)
        last = game.examination
        if last and last.started > examination.started:
            return game
        if last and isinstance(last.outcome, Sealed) and last.outcome != examination.outcome:
            self._unpublish(game, last.outcome)
        examination = self._with_gap(examination)
        outcome = examination.outcome
        if last and last.fingerprint != examination.fingerprint:
            game.retry_at = 0.0
        game.examination = examination
        if examination.left_out:
            game.examination = dataclasses.replace(examination, left_out=())
        if self._games.get(path) is game and last:
            self._sums.add(last.outcome, -1)
        self._sums.add(outcome)
        self._games[path] = game
        is_new = not last or last.outcome != outcome
        if is_new:
            self.moved(path)
        self._follow(game, examination, is_new=is_new, asked=asked)
        self.reviews.looked(path, last, examination)
        # For those that nobody has asked for there is no room.
        if version and asked and isinstance(outcome, Sealed):
            self.versions.keep(version)
        self._tell()
        return game

    def _follow(self, game: Game, examination: Examination, *, is_new: bool, asked: bool) -> None:
        """Do what the outcome of *examination* asks for."""
        outcome = examination.outcome
        if isinstance(outcome, Sealed):
            self._by_archive[outcome.path] = game
            self._unsealed.discard(game.path)
            if examination.unsure and time.monotonic() >= game.retry_at:
                self._enqueue(game, examination.unsure, asked=False)
            if is_new:
                self._announce = True
                log.debug("sealed %s: %d members", shown(outcome.path), outcome.count)
        elif isinstance(outcome, Unsettled):
            self._unsealed.add(game.path)
            self._look_again(game, outcome.seconds)
        elif isinstance(outcome, Unhashed):
            if time.monotonic() >= game.retry_at:
                self._unsealed.add(game.path)
                self._enqueue(game, outcome.missing, asked=asked)
            else:
                self._unsealed.discard(game.path)
                self._look_again(game, game.retry_at - time.monotonic())
        else:
            self._unsealed.discard(game.path)
            if not isinstance(outcome, Plain | Impossible | Unneeded):
                self._forget(game)

    def _with_gap(self, examination: Examination) -> Examination:
        """*examination*, but unsettled if another version was there until a moment ago."""
        outcome = examination.outcome
        if isinstance(outcome, Sealed):
            seconds = self._gaps.left(outcome.path, outcome.inode)
            if seconds > 0:
                return dataclasses.replace(examination, outcome=Unsettled(seconds))
        return examination

    def _enqueue(self, game: Game, files: Iterable[SourceFile], *, asked: bool) -> None:
        """Queue those of *files* that weren't hashed since they were found missing."""
        missing = [file for file in files if not self._unsaved.holds(file)]
        game.waiting = {(file.source, file.state) for file in missing}
        game.hurried = asked
        for file in missing:
            self._hasher.add(file, game.path, asked=asked)
        if not missing:
            self._look_again(game, 0)

    def _hurry(self, game: Game, outcome: Unhashed) -> None:
        """Somebody waits for *game*: what of it is still in the queue goes to the front."""
        if game.hurried or not game.waiting:
            return
        game.hurried = True
        for file in outcome.missing:
            if (file.source, file.state) in game.waiting:
                self._hasher.add(file, game.path, asked=True)

    def _look_again(self, game: Game, seconds: float) -> None:
        due = time.monotonic() + seconds
        if self._nursery and (game.recheck is None or due < game.recheck):
            game.recheck = due
            self._nursery.start_soon(self._recheck, game, due)

    async def _recheck(self, game: Game, due: float) -> None:
        await trio.sleep(max(0.0, due - time.monotonic()))
        if game.recheck != due:
            return  # it was to be sooner
        game.recheck = None
        await self.save()
        if self._games.get(game.path) is game:
            await self._look(game.path, game.place)

    async def _look(self, path: bytes, place: Place) -> None:
        """:meth:`check` in the background: nobody is there to hear of an error."""
        try:
            await self.check(path, place, asked=False, again=True)
        except Exception as error:  # noqa: BLE001 - H4: nothing unexpected ends the mount
            self.say_failed(path, error)

    def say_failed(self, path: bytes, error: Exception) -> None:
        """The game at *path* couldn't be looked at."""
        if not isinstance(error, OSError):
            log.error("unexpected error while looking at %s", shown(path), exc_info=error)
            self.reviews.not_looked(path, "an unexpected error, which is in the log")
            return
        self.reviews.not_looked(path, error.strerror or repr(error))
        self._once.warning("can't look at %s: %s", shown(path), error.strerror)
        if game := self._games.get(path):
            self._look_again(game, RETRY)

    def _forget(self, game: Game) -> None:
        if self._games.get(game.path) is game:
            del self._games[game.path]
            self._sums.add(game.outcome, -1)
            self.moved(game.path)
            self.reviews.gone(game.path)
        self._unsealed.discard(game.path)
        if isinstance(game.outcome, Sealed):
            self._unpublish(game, game.outcome)

    def _unpublish(self, game: Game, sealed: Sealed) -> None:
        if self._by_archive.get(sealed.path) is game:
            del self._by_archive[sealed.path]
        self._gaps.ended(sealed.path, sealed.inode)
        self.unpublished(sealed.path)
        self.versions.drop(sealed.inode)

    def _tell(self) -> None:
        """Say once that everything is sealed, each time that it has become so."""
        if self._surveyed and not self._unsealed and self._announce:
            self._announce = False
            totals = self.totals()
            log.info(
                "everything is sealed: %d archives, %d members, %d bytes",
                totals.archives,
                totals.members,
                totals.size,
            )
            if not self._games:
                log.info("no folder is a game; `--games` says which are, if there are some")
