"""From a change in a game to its sealed archive: what it waits for, and what ends that.

A game that is quiet has no state here: nothing has to be done until somebody looks at it. It
gets a :class:`~zipfs.catalog.game.Reseal` when an examination says that it isn't finished, or when
one is due, and keeps it until it is quiet again. This is a loop: wait for what the last outcome
asks for, examine, go by the new outcome. There may be very many of them, so who waits is an entry
of an agenda (:mod:`zipfs.system.threads.agenda`).

    outcome                     waits for                               then
    Unsettled(seconds)          so many seconds                         examine
    Unhashed(missing)           the hash queue, for the missing files   save, examine
    Sealed, with unsure files   the same, for those (``--trust mtime``) save, examine
    any of both, failing        a pause since a file failed             examine
    Absent, but temporarily     a pause                                 examine
    else                        what is due; ends if nothing is         examine

A file that was refused to us is marked as unreadable, so that the next examination skips it. One
that failed otherwise is failing until a pause is over, or the fingerprint of the game is another
one. An examination that raises :exc:`OSError` is repeated after a pause. Pauses grow with each
failure in a row (:mod:`zipfs.system.threads.retries`).

What ends a wait sooner:

- an examination is *due* (:meth:`Resealer.invalidate`): the watcher told of a change, which is
  looked at after the lifetime of an examination, or a reader found a file changed: at once;
- somebody else's examination (a lookup, a listing, a scan, an open) brought another outcome:
  it goes by that, without one of its own;
- the game was forgotten: it ends.

Somebody who asks for the archive (``asked``) moves the game's files to the front of the queue.

All examinations go one way: :meth:`Resealer.examine` in a worker thread, unless what is known is
valid, and :meth:`Resealer.install` in trio's, which publishes and wakes. Calls of one item are
serialised (:mod:`zipfs.system.threads.lanes`), and an examination is installed before the next
call of its item begins; so three hundred clients that ask for one game are one examination. The
lanes also limit how many games are examined at once, whoever wants it.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Iterable, Sequence
from typing import Final

import trio

from zipfs.catalog.examine import Examiner
from zipfs.catalog.game import Game, Look, Reseal, lane_of
from zipfs.catalog.games import Games
from zipfs.catalog.made import MadeArchives
from zipfs.catalog.singles import Singles
from zipfs.catalog.skipped import By, Skipped
from zipfs.errors import GoneError
from zipfs.index.hash_queue import Hasher
from zipfs.index.unsaved import Unsaved
from zipfs.library.proven import DisprovedError
from zipfs.library.scan import LeftOut, SourceFile
from zipfs.logs import Once
from zipfs.sealing.outcomes import (
    Absent,
    Examination,
    Sealed,
    Unhashed,
    Unsettled,
    Version,
)
from zipfs.sealing.sealer import Sealer
from zipfs.system.syscalls import MAYBE_GONE
from zipfs.system.threads.agenda import Agenda
from zipfs.system.threads.lanes import Threads
from zipfs.text import shown

log = logging.getLogger(__name__)


class Resealer:
    """Examines the games of *sealer*, and has them hashed until they are sealed.

    *hasher* hashes files into *unsaved*; *singles* are told of those of games without an archive.
    """

    def __init__(
        self,
        sealer: Sealer,
        threads: Threads,
        games: Games,
        skipped: Skipped,
        hasher: Hasher,
        unsaved: Unsaved,
        singles: Singles,
        made: MadeArchives,
    ) -> None:
        self._sealer = sealer
        self._threads = threads
        self._games = games
        self._made = made
        self._skipped = skipped
        self._presence = sealer.library.presence
        self._unsaved = unsaved
        self._hasher = hasher
        self.examine: Final = Examiner(sealer, games, singles, made).examine
        self._once = Once(log)
        self._nursery: trio.Nursery | None = None
        self._agenda: Agenda[Reseal] = Agenda(
            self._plan, self._go_on, lambda state: lane_of(state.game.path)
        )

    async def run(self) -> None:
        """Hash and seal, for ever."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._agenda.run)
            nursery.start_soon(self._unsaved.run)
            nursery.start_soon(self._hasher.run)
            if gate := self._sealer.index.gate:
                nursery.start_soon(gate.run, self._hasher, self.save, self.reissued)
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None  # changes may still be told of while it ends

    async def save(self) -> None:
        """Save the checksums that aren't saved yet."""
        await self._unsaved.save()

    # -- Examining -------------------------------------------------------------

    async def look(self, game: Game, *, asked: bool, whole: bool = False) -> None:
        """Examine *game*, unless what is known is valid; *whole* if its version is needed."""
        look = await self._threads.run(
            functools.partial(self.examine, game.path, game.place, whole=whole),
            lane=lane_of(game.path),
            item=game.path,
        )
        self.install(look, asked=asked)

    def install(self, look: Look, *, asked: bool) -> Game | None:
        """Publish what *look* has found, and have the rest done; *asked* if somebody waits.

        None if the game isn't known any more.
        """
        path, place, examination, version, last, made = look
        if examination is None:
            game = self._games.get(path)
            if game is None or game.place != place:
                return None
        else:
            game = self._games.put(path, place, examination, last)
            if made and version and game.outcome == version.sealed:
                self._made.keep(path, made)
        # For those that nobody has asked for there is no room.
        if version and asked and game.outcome == version.sealed:
            self._games.versions.keep(version)
        if self._games.get(path) is game and (now := game.examination):
            is_sealed = isinstance(now.outcome, Sealed)
            waits = isinstance(now.outcome, Unsettled | Unhashed) or _is_temporary(now)
            if waits or (is_sealed and now.unsure):
                self._start(game)
            if game.reseal and examination and not _is_temporary(examination):
                game.reseal.examining.over()
            if asked and game.reseal and not is_sealed:
                self._hurry(game.reseal)
        return game

    def _hurry(self, state: Reseal) -> None:
        if not state.asked:
            self._agenda.hurry(state)
            if state.request:
                self._hasher.hurry(state.request)

    def failed(self, path: bytes, error: Exception) -> None:
        """The game at *path* couldn't be examined."""
        if isinstance(error, GoneError):
            # It stays what it was; when its place is back, everything is examined.
            if (game := self._games.get(path)) and game.reseal:
                game.reseal.examine_in(game.reseal.examining.after_failure())
            return
        if not isinstance(error, OSError):
            log.error("unexpected error while looking at %s", shown(path), exc_info=error)
            reason = "an unexpected error, which is in the log"
        else:
            reason = error.strerror or repr(error)
            self._once.warning("can't look at %s: %s", shown(path), error.strerror)
            if (game := self._games.get(path)) and (state := self._start(game)).due == math.inf:
                state.examine_in(state.examining.after_failure())
        self._skipped.replace((By.GAME, path), [LeftOut(path, f"can't be looked at: {reason}")])

    def invalidate(self, game: Game, seconds: float) -> None:
        """Something in *game* has changed: examine it in so many *seconds*, and before if asked."""
        self._games.invalidate(game)
        self._start(game).examine_in(seconds)

    def distrust(self, game: Game, error: DisprovedError, version: Version | None) -> None:
        """Have *game* hashed again, a file of which hasn't the bytes it should have in its state.

        All its files whose state vouches for nothing, as far as *version* tells: of what changed
        together, a version with a part would be one that never was.
        """
        doubted = {error.source.source: error.digest}
        if version:
            files = zip(version.files, version.digests, strict=True)
            doubted |= {file.source: digest for file, digest in files if file.by_content}
        if self._nursery:
            self._nursery.start_soon(self._distrust, game, doubted)

    async def _distrust(self, game: Game, doubted: dict[bytes, bytes]) -> None:
        try:
            await self._unsaved.forget(doubted)
        except Exception:
            # H4: nothing unexpected ends the mount.
            log.exception("unexpected error while forgetting checksums")
        if self._games.get(game.path) is game:
            self._games.distrust(game)
            self._start(game).examine_in(0)

    def reissued(self, archives: Iterable[bytes]) -> None:
        """*archives* have other modification times: theirs belong to other contents (DESIGN V3)."""
        for path in archives:
            if game := self._games.by_archive(path):
                self._games.distrust(game)
                self.invalidate(game, 0)

    def returned(self) -> None:
        """The library is back, or another one: nothing that was seen of it is valid."""
        for game in self._games:
            self._games.invalidate(game)
            if game.reseal:
                game.reseal.retry_at = -math.inf
                game.reseal.examine_in(0)

    # -- What a game waits for ----------------------------------------------------

    def _start(self, game: Game) -> Reseal:
        """See to it that *game* is gone on with."""
        if game.reseal is None:
            game.reseal = Reseal(game, self._agenda)
            self._agenda.begin(game.reseal)
        return game.reseal

    def _end(self, state: Reseal) -> None:
        self._withdraw(state)
        if state.game.reseal is state:
            state.game.reseal = None

    def _plan(self, state: Reseal) -> float | None:
        """Until when the game of *state* waits; see :class:`Agenda`."""
        game = state.game
        try:
            until = None
            # Another game may be in its place, and an error may have ended it.
            if self._games.get(game.path) is game and game.reseal is state:
                until = self._wait_of(game.examination, state)
        except Exception as error:  # noqa: BLE001 - H4: nothing unexpected ends the mount
            self._break(state, error)
            return None
        if until is None:
            self._end(state)
            return None
        return min(until, state.due)

    def _wait_of(self, last: Examination | None, state: Reseal) -> float | None:
        """Begin to wait for what *last* asks for; None if that is nothing."""
        if last is None:
            return None
        if state.outcome == last.outcome:
            if state.has_failed:
                return state.due
            if state.request:  # it was another one, and is this one again
                return -math.inf if state.request.is_done else math.inf
        self._withdraw(state)
        state.outcome = last.outcome
        state.has_failed = state.is_hashed = False
        match last:
            case Examination(outcome=Unsettled(seconds=seconds)):
                return trio.current_time() + seconds
            case (
                Examination(outcome=Unhashed(missing=files))
                | Examination(outcome=Sealed(), unsure=files)
            ) if files:
                return state.retry_at if state.is_failing else self._hash(state, files)
            case Examination(outcome=Absent(temporary=True)):
                return trio.current_time() + state.examining.after_failure()
            case _ if state.due == math.inf:
                return None
        return state.due

    def _hash(self, state: Reseal, files: Sequence[SourceFile]) -> float:
        """Have *files* hashed, but for those that have been; until when that is waited for."""
        state.is_hashed = True
        missing = [file for file in files if not self._unsaved.holds(file)]
        if not missing:
            return -math.inf
        done = functools.partial(self._hashed, state)
        state.request = self._hasher.request(missing, done, asked=state.asked)
        return -math.inf if state.request.is_done else math.inf

    def _hashed(self, state: Reseal) -> None:
        """A request of *state* is done, which may be one that was withdrawn just now."""
        if state.request and state.request.is_done:
            self._agenda.ready(state)

    def _withdraw(self, state: Reseal) -> None:
        """Wait for its files no more; those that were hashed are saved, whoever needs them."""
        if request := state.request:
            state.request = None
            self._hasher.withdraw(request)
            self._unsaved.save_soon()

    async def _go_on(self, state: Reseal) -> None:
        """The wait is over: save what was hashed, and examine the game."""
        game = state.game
        try:
            if state.is_hashed:
                await self._take_hashed(game, state)
            if self._is_as_it_was(game, state):
                await self._look(game, state)
        except Exception as error:  # noqa: BLE001 - H4: nothing unexpected ends the mount
            self._break(state, error)

    def _break(self, state: Reseal, error: Exception) -> None:
        self._end(state)
        self.failed(state.game.path, error)  # a retry has a state of its own

    def _is_as_it_was(self, game: Game, state: Reseal) -> bool:
        """Whether nobody else has brought another outcome since *state* has begun to wait."""
        return self._games.get(game.path) is game and game.outcome == state.outcome

    async def _look(self, game: Game, state: Reseal) -> None:
        state.due = math.inf
        state.has_failed = False
        game.invalidate()
        try:
            await self.look(game, asked=False)
        except OSError as error:
            state.has_failed = True
            self.failed(game.path, error)

    async def _take_hashed(self, game: Game, state: Reseal) -> None:
        """Save what has been hashed of *game*, and see to what couldn't be."""
        state.is_hashed = False
        if request := state.request:
            state.request = None
            self._hasher.withdraw(request)
        failures = request.failures if request and self._is_as_it_was(game, state) else []
        if failures and not await self._is_gone(failures[0][0]):
            self._take_failures(game, state, failures)
        await self.save()

    async def _is_gone(self, file: SourceFile) -> bool:
        """Whether *file* can't be read because the disk that it is on isn't there."""
        presence = self._presence
        try:
            await self._threads.run(
                functools.partial(presence.confirm, thoroughly=True),
                file.source,
                presence.generation,
                lane=lane_of(file.source),
                item=file.source,
            )
        except TimeoutError:
            return False
        except GoneError:
            return True
        return False

    def _take_failures(
        self, game: Game, state: Reseal, failures: Sequence[tuple[SourceFile, Exception]]
    ) -> None:
        left_out = []
        failed = False
        for file, error in failures:
            source = shown(file.source)
            if isinstance(error, PermissionError):
                self._sealer.mark_unreadable(file)
                self._once.warning("%s is left out: a file that can't be read", source)
                continue
            # What says that it changed, and yet is as before, would be hashed for ever.
            failed = True
            if isinstance(error, OSError) and (
                state.reading.are_under_way or error.errno not in MAYBE_GONE
            ):
                left_out.append(LeftOut(file.source, f"can't be read: {error.strerror}"))
                self._once.warning(
                    "can't read %s: %s; its archive isn't there until that is mended",
                    source,
                    error.strerror,
                )
        if failed:
            state.read_in_vain()
        if left_out and isinstance(game.outcome, Unhashed):
            self._skipped.replace((By.HASHING, game.path), left_out)


def _is_temporary(examination: Examination) -> bool:
    """Whether the source has failed, and may work in a moment."""
    return isinstance(examination.outcome, Absent) and examination.outcome.temporary
