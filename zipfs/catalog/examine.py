"""What a game is now: one examination, in a worker thread."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

from zipfs.catalog.game import Game, Look
from zipfs.catalog.games import Games
from zipfs.catalog.made import MadeArchives
from zipfs.catalog.singles import Singles
from zipfs.library.scan import Place
from zipfs.sealing.outcomes import Absent, Impossible, Sealed
from zipfs.sealing.sealer import Sealer

Names = Collection[bytes]


class Examiner:
    """Examines games by *sealer*; *singles* are told of the files of those without an archive."""

    def __init__(self, sealer: Sealer, games: Games, singles: Singles, made: MadeArchives) -> None:
        self._sealer = sealer
        self._presence = sealer.library.presence
        self._games = games
        self._singles = singles
        self._made = made

    def examine(
        self, path: bytes, place: Place, *, whole: bool = False, beside: Names | None = None
    ) -> Look:
        """In a worker thread: what the game at *path* and *place* is now; see :class:`Sealer`."""
        game = self._games.get(path)
        before = None
        if game and game.place == place:
            before = game.examination
            if game.is_fresh() and not (whole and self._lacks_version(game)):
                return Look(path, place)
        presence = self._presence
        since = presence.generation
        # A list names files anywhere in the library, and only a wrong one may miss some.
        is_list = self._sealer.library.list_of(path) is not None
        source = b"" if is_list else place.source
        made, last = (None if before else self._made.take(path)) or (None, None)
        with presence.asking(source, inside=not is_list):
            examination, version = self._sealer.examine(
                path,
                place.source,
                before,
                origins=place.origins,
                whole=whole,
                made=made,
                beside=None if is_list else beside,
            )
            examination = self._singles.without_files(path, examination)
            outcome = examination.outcome
            is_known = before and before.fingerprint == examination.fingerprint
            if not (is_known or (version is None and isinstance(outcome, Sealed))):
                inside = not is_list or isinstance(outcome, Absent | Impossible)
                failed = isinstance(outcome, Absent) and bool(outcome.reason)
                presence.confirm(source, since, inside=inside, thoroughly=failed)
        if isinstance(outcome, Sealed) and not (game and game.outcome == outcome):
            if not (made and made.archive == outcome.path):
                last = self._games.dates.last(outcome.path)
        else:
            last = None
        new = None
        is_news = not is_known or before is None or before.outcome != outcome
        if version and version.key and is_news:
            new = self._sealer.remember(path, place.source, examination, version)
            examination = dataclasses.replace(examination, tree=new.tree)
        return Look(path, place, examination, version, last, new)

    def _lacks_version(self, game: Game) -> bool:
        outcome = game.outcome
        return isinstance(outcome, Sealed) and outcome.inode not in self._games.versions
