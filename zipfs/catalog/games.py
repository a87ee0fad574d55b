"""What is known of each game, and what is published of it: the archives that are there.

A table, which belongs to trio's thread and touches no disk. :meth:`Games.put` is the one way in.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from zipfs.catalog.dates import Dates
from zipfs.catalog.game import Game, Sums
from zipfs.catalog.made import MadeArchives
from zipfs.catalog.skipped import By, Skipped
from zipfs.catalog.versions import Gaps, Versions
from zipfs.index.rows import Published
from zipfs.library.rules.general import folders_of
from zipfs.library.scan import Place
from zipfs.sealing.outcomes import Absent, Examination, Plain, Sealed, Unhashed, Unsettled
from zipfs.system.paths import join
from zipfs.text import shown

log = logging.getLogger(__name__)


class Games:
    """The games of a library, by path.

    Two versions of one archive are *gap* seconds apart. *moved* is called with the path of a
    game that is, or may be, another now; *unpublished* with that of an archive that isn't there
    any more as it was. *dates* and *made* are told of what comes and goes.
    """

    def __init__(
        self,
        gap: float,
        skipped: Skipped,
        dates: Dates,
        made: MadeArchives,
        *,
        moved: Callable[[bytes], None],
        unpublished: Callable[[bytes], None],
    ) -> None:
        self._games: dict[bytes, Game] = {}
        self._by_archive: dict[bytes, Game] = {}
        self._unsealed: set[bytes] = set()
        self.sums: Final = Sums()
        self.versions: Final = Versions()
        self.dates: Final = dates
        self._made = made
        self._gaps = Gaps(gap)
        self._skipped = skipped
        self._moved = moved
        self._unpublished = unpublished
        self._elsewhere: Mapping[bytes, int] = {}
        self._others: set[bytes] = set()
        """Archives of which another daemon may show another version."""
        self._scanned = False
        self._announce = True
        """Whether it is worth a line in the log when everything is sealed."""

    def __len__(self) -> int:
        return len(self._games)

    def __iter__(self) -> Iterator[Game]:
        return iter(self._games.values())

    def get(self, path: bytes) -> Game | None:
        """What is known of the game at *path*; atomic."""
        return self._games.get(path)

    def by_archive(self, path: bytes) -> Game | None:
        """The game whose archive is at *path*; atomic."""
        return self._by_archive.get(path)

    def behind(self, folder: bytes, name: bytes) -> bytes:
        """The game whose archive *name* in *folder* may be, or its path: what may hang."""
        path = join(folder, name)
        for base in (name, *folders_of(name)):
            game = self._games.get(join(folder, base))
            if game and not (isinstance(game.outcome, Sealed) and game.outcome.path != path):
                return game.path
        return path

    def snapshot(self) -> list[Game]:
        """All games; atomic."""
        return list(self._games.values())

    @property
    def unsealed(self) -> int:
        """How many games have to settle or to be hashed."""
        return len(self._unsealed)

    @property
    def is_scanned(self) -> bool:
        """Whether a scan has ended: every game is known, if only by its place."""
        return self._scanned

    def scanned(self, *, asked: bool) -> None:
        """A scan has ended; somebody who has *asked* for it waits for the line in the log."""
        self._scanned = True
        self._announce |= asked
        self.log_when_sealed()

    def put(
        self, path: bytes, place: Place, examination: Examination, saved: Published | None = None
    ) -> Game:
        """Take in *examination* of the game at *path* and *place*, and publish its outcome.

        It is ignored if a later one has come in meanwhile. The game returned isn't in the table
        if its folder isn't there. *saved* is what the index has of its archive.
        """
        game = self._games.get(path)
        if game is None or game.place != place:
            if game:
                self.forget(game)
            game = Game(path, place)
        last = game.examination
        if last and last.started > examination.started:
            return game
        if last and isinstance(last.outcome, Sealed):
            if last.outcome != examination.outcome:
                self._unpublish(game, last.outcome)  # which begins the gap
            elif last.fingerprint != examination.fingerprint:
                self.versions.drop(last.outcome.inode)  # its files are in other states
        examination = self._with_gap(examination)
        is_new = not last or last.outcome != examination.outcome
        if game.reseal and last and last.fingerprint != examination.fingerprint:
            game.reseal.is_another()
        # What is skipped is kept by Skipped, and nowhere else.
        left_out = examination.left_out
        game.examination = (
            dataclasses.replace(examination, left_out=()) if left_out else examination
        )
        if last:
            self.sums.add(last.outcome, -1)
        self.sums.add(examination.outcome)
        self._games[path] = game
        if last and isinstance(last.outcome, Plain) != isinstance(examination.outcome, Plain):
            self.dates.moved(path)
        self._publish(game, saved, is_new=is_new)
        self._skipped.replace((By.GAME, path), left_out)
        waits = isinstance(examination.outcome, Unhashed | Unsettled)
        if not (waits and last and last.fingerprint == examination.fingerprint):
            self._skipped.drop((By.HASHING, path))
        self.log_when_sealed()
        return game

    def _publish(self, game: Game, saved: Published | None, *, is_new: bool) -> None:
        outcome = game.outcome
        if is_new:
            self._moved(game.path)
            if game.reseal:
                game.reseal.wake()
        failing = game.reseal is not None and game.reseal.is_failing
        if isinstance(outcome, Unsettled | Unhashed) and not failing:
            self._unsealed.add(game.path)
        else:
            self._unsealed.discard(game.path)
        if isinstance(outcome, Absent) and not outcome.temporary:
            self.forget(game)
        elif isinstance(outcome, Sealed):
            self._by_archive[outcome.path] = game
            if self._elsewhere and self._other(outcome.path, self._elsewhere):
                self._others.add(outcome.path)
            if is_new:
                self._announce = True
                game.since_ns = self.dates.published(outcome.path, outcome.inode, saved)
                if log.isEnabledFor(logging.DEBUG):
                    log.debug("sealed %s: %d members", shown(outcome.path), outcome.count)

    def _with_gap(self, examination: Examination) -> Examination:
        """*examination*, but unsettled if another version was there until a moment ago."""
        outcome = examination.outcome
        if isinstance(outcome, Sealed):
            seconds = self._gaps.left(outcome.path, outcome.inode)
            if seconds > 0:
                return dataclasses.replace(examination, outcome=Unsettled(seconds))
        return examination

    def forget(self, game: Game) -> None:
        """There is no *game* any more."""
        if self._games.get(game.path) is game:
            del self._games[game.path]
            self.sums.add(game.outcome, -1)
            self._moved(game.path)
            self._skipped.drop((By.GAME, game.path))
            self._skipped.drop((By.HASHING, game.path))
        self._unsealed.discard(game.path)
        if game.reseal:
            game.reseal.wake()
        if isinstance(game.outcome, Sealed):
            self._unpublish(game, game.outcome)
        elif isinstance(game.outcome, Plain):
            self.dates.moved(game.path)

    def shown_elsewhere(self, archives: Mapping[bytes, int]) -> None:
        """Another daemon shows *archives*, versions by path, until :meth:`shown_before`.

        So that little is left to be done then.
        """
        self._elsewhere = archives
        self._gaps.will_end(archives)
        self._others = {path for path in archives if self._other(path, archives)}

    def shown_before(self, archives: Mapping[bytes, int], others: Iterable[bytes]) -> list[bytes]:
        """Another daemon has shown *archives*, versions by path, until now (DESIGN V1).

        *others* are what has changed in them since :meth:`shown_elsewhere`. Returns the paths of
        games that have another one here, and are forgotten.
        """
        if archives is not self._elsewhere:
            self.shown_elsewhere(archives)
        changed = set(others)
        found = [self._other(path, archives) for path in self._others | changed]
        forgotten = [game for game in found if game]
        for game in forgotten:
            self.forget(game)
        self._gaps.have_ended(archives, changed)
        self._elsewhere, self._others = {}, set()
        return [game.path for game in forgotten]

    def _other(self, path: bytes, archives: Mapping[bytes, int]) -> Game | None:
        """The game whose archive is at *path*, if it is another version than in *archives*."""
        game = self._by_archive.get(path)
        if game is None or not isinstance(game.outcome, Sealed):
            return None
        return game if archives.get(path, game.outcome.inode) != game.outcome.inode else None

    def not_found(self, archive: bytes, asked: float) -> None:
        """No folder was found for *archive* by who looked for it from *asked* on."""
        game = self._by_archive.get(archive)
        if game and game.examination and game.examination.started < asked:
            self.forget(game)

    def invalidate(self, game: Game) -> None:
        """Whatever was seen of *game* until now isn't valid any more."""
        game.invalidate()
        self._moved(game.path)

    def distrust(self, game: Game) -> None:
        """Its files may have other bytes than their states say: examine it from the beginning."""
        if game.examination:
            game.examination = dataclasses.replace(game.examination, fingerprint=b"", tree=b"")
        self.invalidate(game)

    def _unpublish(self, game: Game, sealed: Sealed) -> None:
        if self._by_archive.get(sealed.path) is game:
            del self._by_archive[sealed.path]
            self.dates.withdrawn(sealed.path, game.since_ns)
        self._gaps.ended(sealed.path, sealed.inode)
        self._made.drop(game.path)
        self._unpublished(sealed.path)
        self.versions.drop(sealed.inode)

    def log_when_sealed(self) -> None:
        """Log once that everything is sealed, each time that it has become so."""
        if self._scanned and not self._unsealed and self._announce:
            self._announce = False
            sums = self.sums
            log.info(
                "everything is sealed: %d archives, %d members, %d bytes",
                sums.archives,
                sums.members,
                sums.size,
            )
            if not self._games:
                log.info("no folder is a game; `--games` says which are, if there are some")
