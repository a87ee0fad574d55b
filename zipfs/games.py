"""What is known of each game, and the work in the background that makes it known.

What is known is taken as it is for :data:`FRESH` seconds and then looked at again,
on access: correctness never rests on being told of changes. What isn't known yet
is found, queued and sealed by :meth:`Games.run`.

All methods belong to trio's thread; what may touch the disk they do in others.
"""

from __future__ import annotations

import functools
import logging
import time
from collections import OrderedDict
from dataclasses import dataclass
from itertools import islice
from typing import Final

import trio

from zipfs.filestate import Checksums, FileState
from zipfs.hasher import Hasher
from zipfs.index import Record
from zipfs.library import Entry, SourceFile
from zipfs.once import Once, shown
from zipfs.sealing import (
    Examination,
    Impossible,
    Outcome,
    Plain,
    Sealed,
    Sealer,
    Unhashed,
    Unsettled,
    Version,
)
from zipfs.threads import Threads

log = logging.getLogger(__name__)

FRESH: Final = 1.0
"""Seconds for which what was found out about a game is taken as it is."""
_SHARE: Final = 5.0
"""A game that takes long to look at is looked at in a fifth of the time at most."""
RESCAN: Final = 60.0
"""Seconds, at least, between two walks through the whole library."""
RETRY: Final = 30.0
"""Seconds until a game with a file that couldn't be read is tried again."""
_SAVE_COUNT: Final = 1000
_SAVE_SECONDS: Final = 2.0
"""Checksums are saved when a game is complete, or when so many or so old."""
_VERSIONS_MEMORY: Final = 64 << 20
"""Bytes of versions kept at hand for the next to open them."""
_SURVEY_BATCH: Final = 256


class Game:
    """What is known of a game. One a game, so small: what isn't open has no more."""

    __slots__ = (
        "doubted",
        "entry",
        "examination",
        "hurried",
        "path",
        "recheck",
        "retry_at",
        "waiting",
    )

    def __init__(self, path: bytes, entry: Entry) -> None:
        self.path = path
        self.entry = entry
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
            and time.monotonic() - last.started < max(FRESH, _SHARE * last.took)
        )

    def is_at(self, entry: Entry) -> bool:
        """Whether *entry* is the folder that this game was found at."""
        return (self.entry.source, self.entry.origins) == (entry.source, entry.origins)


@dataclass(frozen=True, slots=True)
class Totals:
    """How far everything is."""

    archives: int
    members: int
    size: int
    unsealed: int
    pending_bytes: int


class Games:
    """All games that *sealer* finds in its library. *in_thread* runs what may block."""

    def __init__(self, sealer: Sealer, threads: Threads) -> None:
        self._sealer = sealer
        self._in_thread = threads.run
        self._library = sealer.library
        self._games: dict[bytes, Game] = {}
        self._by_archive: dict[bytes, Game] = {}
        self._unsealed: set[bytes] = set()
        self._versions: OrderedDict[int, Version] = OrderedDict()
        self._versions_memory = 0
        self._hasher = Hasher(self._library.absolute)
        self._fresh: dict[bytes, Record] = {}
        self._saved_at = time.monotonic()
        self._once = Once(log)
        self._busy: dict[bytes, trio.Event] = {}
        """Games that are being looked at."""
        self._nursery: trio.Nursery | None = None
        self._rescan = trio.Event()
        self._surveyed = False
        self._announce = False

    def get(self, path: bytes) -> Game | None:
        """What is known of the game at *path*."""
        return self._games.get(path)

    def by_archive(self, path: bytes) -> Game | None:
        """The game whose archive is at *path*."""
        return self._by_archive.get(path)

    def version(self, inode: int) -> Version | None:
        """The version with this inode, if it is still at hand."""
        version = self._versions.get(inode)
        if version:
            self._versions.move_to_end(inode)
        return version

    def doubt(self, path: bytes) -> None:
        """Look at the game at *path* again, soon: a file of it wasn't in its state."""
        if game := self._games.get(path):
            game.doubted = time.monotonic()
            self._look_again(game, 0)

    def totals(self) -> Totals:
        sealed = [g.outcome for g in self._games.values() if isinstance(g.outcome, Sealed)]
        return Totals(
            archives=len(sealed),
            members=sum(outcome.count for outcome in sealed),
            size=sum(outcome.size for outcome in sealed),
            unsealed=len(self._unsealed),
            pending_bytes=self._hasher.pending_bytes,
        )

    # -- In the background -----------------------------------------------------

    async def run(self) -> None:
        """Find all games, hash what has to be hashed, and go on watching, for ever."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._hasher.run, self)
            while True:
                started = time.monotonic()
                try:
                    await self._survey()
                except Exception:
                    # H4: nothing unexpected ends the mount.
                    log.exception("unexpected error while looking through the library")
                self._surveyed = True
                self._tell()
                # A walk takes a share of the disk, so it may use a twentieth of the time.
                took = time.monotonic() - started
                with trio.move_on_after(max(RESCAN, 20 * took)):
                    await self._rescan.wait()
                self._rescan = trio.Event()

    def rescan(self) -> None:
        """Walk through the whole library now."""
        self._rescan.set()

    async def save(self) -> None:
        """Save the checksums that aren't saved yet."""
        records = dict(self._fresh)
        self._saved_at = time.monotonic()
        if not records:
            return
        await self._in_thread(self._sealer.index.put_files, records)
        for source, record in records.items():
            if self._fresh.get(source) is record:
                del self._fresh[source]

    async def _survey(self) -> None:
        started = time.monotonic()
        await self._in_thread(self._sealer.detect)
        games = self._library.games(self._sealer.policy)
        seen = set()
        while batch := await self._in_thread(lambda: list(islice(games, _SURVEY_BATCH))):
            for path, entry in batch:
                seen.add(path)
                try:
                    await self.check(path, entry, asked=False)
                except Exception:
                    # H4, and the other games still have to be found.
                    log.exception("unexpected error while looking at %s", shown(path))
        for path, game in list(self._games.items()):
            if path not in seen and game.examination and game.examination.started < started:
                self._forget(game)

    async def hashed(self, file: SourceFile, checksums: Checksums, owners: set[bytes]) -> None:
        self._fresh[file.source] = (file.state, checksums)
        complete = []
        for owner in owners:
            game = self._games.get(owner)
            if game and game.waiting:
                game.waiting.discard((file.source, file.state))
                if not game.waiting:
                    complete.append(game)
        late = time.monotonic() - self._saved_at > _SAVE_SECONDS
        if complete or late or len(self._fresh) >= _SAVE_COUNT:
            await self.save()
        for game in complete:
            game.waiting = None
            await self.check(game.path, game.entry, asked=False, again=True)

    async def failed(self, file: SourceFile, error: Exception, owners: set[bytes]) -> None:
        refused = isinstance(error, PermissionError)
        if refused:
            self._once.warning("%s is left out: a file that can't be read", shown(file.source))
            self._sealer.mark_unreadable(file)
        elif isinstance(error, OSError):
            self._once.warning(
                "can't read %s: %s; its archive isn't there until that is mended",
                shown(file.source),
                error.strerror,
            )
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
            elif isinstance(game.outcome, Unhashed):
                # What says that it changed, and yet is as before, would be hashed for ever.
                game.retry_at = time.monotonic() + RETRY
            game.waiting = None
            await self.check(game.path, game.entry, asked=False, again=True)

    # -- Games -----------------------------------------------------------------

    async def check(
        self, path: bytes, entry: Entry, *, asked: bool, whole: bool = False, again: bool = False
    ) -> Game:
        """The game at *path* and *entry*, looked at a moment ago at most.

        *asked* tells that somebody waits for it, *whole* that its version is
        needed, *again* to look in any case.
        """
        if not (whole or again):
            if (busy := self._busy.get(path)) is not None:  # an event has no truth value
                await busy.wait()  # three hundred clients are one look
            game = self._games.get(path)
            if game and game.is_fresh() and game.is_at(entry):
                if asked and isinstance(game.outcome, Unhashed):
                    self._hurry(game, game.outcome)
                return game
        game = self._games.get(path)
        before = game.examination if game and game.is_at(entry) else None
        examine = functools.partial(
            self._sealer.examine, path, entry.source, before, origins=entry.origins, whole=whole
        )
        mine = self._busy.setdefault(path, trio.Event())
        try:
            examination, version = await self._in_thread(examine)
        finally:
            if self._busy.get(path) is mine:
                del self._busy[path]
            mine.set()
        return self.install(path, entry, examination, version, asked=asked)

    def install(
        self,
        path: bytes,
        entry: Entry,
        examination: Examination,
        version: Version | None,
        *,
        asked: bool,
    ) -> Game:
        """Take note of *examination*, unless a later one has come in meanwhile."""
        game = self._games.get(path)
        if game is None or not game.is_at(entry):
            if game:
                self._forget(game)
            game = Game(path, entry)
        last = game.examination
        if last and last.started > examination.started:
            return game
        outcome = examination.outcome
        if last and last.fingerprint != examination.fingerprint:
            game.retry_at = 0.0
        game.examination = examination
        self._games[path] = game
        if last and isinstance(last.outcome, Sealed) and last.outcome != outcome:
            self._unpublish(game, last.outcome)
        if isinstance(outcome, Sealed):
            self._by_archive[outcome.path] = game
            self._unsealed.discard(path)
            if not last or last.outcome != outcome:
                self._announce = True
                log.debug("sealed %s: %d members", shown(outcome.path), outcome.count)
            if version:
                self._keep(version)
        elif isinstance(outcome, Unsettled):
            self._unsealed.add(path)
            self._look_again(game, outcome.seconds)
        elif isinstance(outcome, Unhashed):
            if time.monotonic() >= game.retry_at:
                self._unsealed.add(path)
                self._enqueue(game, outcome, asked=asked)
            else:
                self._unsealed.discard(path)
                self._look_again(game, game.retry_at - time.monotonic())
        else:
            self._unsealed.discard(path)
            if not isinstance(outcome, Plain | Impossible):
                self._forget(game)
        self._tell()
        return game

    def _enqueue(self, game: Game, outcome: Unhashed, *, asked: bool) -> None:
        """Queue what is missing, save what was hashed since *outcome* was found."""
        game.waiting = {
            (file.source, file.state)
            for file in outcome.missing
            if file.source not in self._fresh or self._fresh[file.source][0] != file.state
        }
        game.hurried = asked
        for file in outcome.missing:
            if (file.source, file.state) in game.waiting:
                self._hasher.add(file, game.path, asked=asked)
        if not game.waiting:
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
        try:
            await self.save()
            if self._games.get(game.path) is game:
                await self.check(game.path, game.entry, asked=False, again=True)
        except Exception:
            log.exception("unexpected error while looking at %s", shown(game.path))

    def _forget(self, game: Game) -> None:
        if self._games.get(game.path) is game:
            del self._games[game.path]
        self._unsealed.discard(game.path)
        if isinstance(game.outcome, Sealed):
            self._unpublish(game, game.outcome)

    def _unpublish(self, game: Game, sealed: Sealed) -> None:
        if self._by_archive.get(sealed.path) is game:
            del self._by_archive[sealed.path]
        if version := self._versions.pop(sealed.inode, None):
            self._versions_memory -= version.memory

    def _keep(self, version: Version) -> None:
        """Keep *version* at hand, and let go of those not used for longest."""
        if old := self._versions.pop(version.sealed.inode, None):
            self._versions_memory -= old.memory
        self._versions[version.sealed.inode] = version
        self._versions_memory += version.memory
        while self._versions_memory > _VERSIONS_MEMORY and len(self._versions) > 1:
            _, old = self._versions.popitem(last=False)
            self._versions_memory -= old.memory

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
