"""What the library has at a path, games examined: all of it in worker threads."""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Collection, Mapping
from itertools import islice
from typing import Final, NamedTuple

from zipfs.catalog.dates import Dates
from zipfs.catalog.game import Game, Look
from zipfs.catalog.listing.cookies import MOST_FIRST
from zipfs.catalog.listing.listing import Names
from zipfs.catalog.nodes import File, Folder, folder_node
from zipfs.catalog.reseal import Resealer
from zipfs.catalog.singles import Singles
from zipfs.catalog.skipped import WENT_AWAY
from zipfs.errors import GoneError
from zipfs.library.filestate import FileState
from zipfs.library.presence import Asking
from zipfs.library.rules.general import archive_name, folders_of
from zipfs.library.scan import Entry, LeftOut, Place, Type
from zipfs.logs import Once
from zipfs.sealing.outcomes import Plain
from zipfs.sealing.sealer import Sealer
from zipfs.system.paths import join
from zipfs.text import shown

log = logging.getLogger(__name__)

_FEW: Final = 1024
"""Names from which on a folder is large: more than are told in one answer."""


class Candidate(NamedTuple):
    """A game, by its folder and what was seen of it."""

    entry: Entry
    look: Look


Child = File | Folder | LeftOut | Candidate


class Finder:
    """Looks into the library of *sealer*; *dates* are those of its folders."""

    def __init__(self, sealer: Sealer, resealer: Resealer, singles: Singles, dates: Dates) -> None:
        self._sealer = sealer
        self._library = sealer.library
        self._examine = resealer.examine
        self._file = singles.node
        self._dates = dates
        self._once = Once(log)

    def find_and_examine(
        self, folder: Folder, name: bytes
    ) -> File | Folder | LeftOut | list[Candidate]:
        """The node *name* in *folder*, or the games that it may be the archive of, examined."""
        source = join(folder.source, name)
        with self._library.presence.asking(source) as asking:
            found = self._find_and_examine(folder, name)
            if not found:
                asking.confirm()
        return found

    def _find_and_examine(
        self, folder: Folder, name: bytes
    ) -> File | Folder | LeftOut | list[Candidate]:
        path = join(folder.path, name)
        self._sealer.decide()
        policy = self._sealer.policy
        entry = self._listed(folder, name)
        games: list[tuple[bytes, Entry]] = []
        if isinstance(entry, Entry):
            if entry.is_folder and policy.is_game(path):
                games.append((path, entry))
            elif entry.is_real:
                return self._mirrored(path, entry)
        if isinstance(entry, LeftOut):
            self._log_skipped(entry)
            return entry
        for base in folders_of(name):
            game = join(folder.path, base)
            if policy.is_game(game):
                found = self._listed(folder, base)
                if isinstance(found, Entry) and found.is_folder:
                    games.append((game, found))
        return [Candidate(entry, self._examine(game, entry.place)) for game, entry in games]

    def _listed(self, folder: Folder, name: bytes) -> Entry | LeftOut | None:
        """What has *name* in *folder*, where a disk may find it by another name as well."""
        source = join(folder.source, name)
        entry = self._library.entry(source, folder.origins)
        return entry if entry is not None and self._library.is_listed(source, entry) else None

    def state(self, source: bytes) -> FileState:
        """A folder's state."""
        with self._library.presence.asking(source):
            return self._library.state(source)

    def refreshed(self, folder: Folder) -> Entry:
        """*folder* as it is now; raises :exc:`FileNotFoundError`."""
        presence = self._library.presence
        with presence.asking(folder.source) as asking:
            entry = self._library.entry_at(folder.path, folder.source, folder.origins)
            if not isinstance(entry, Entry) or not entry.is_folder:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            if not folder.source and not presence.is_root(entry.status):
                asking.confirm()
            return entry

    def names(
        self, folder: Folder, first: Collection[bytes] = (), *, is_whole: bool = False
    ) -> Names:
        """What is in *folder*, and what its games may be called.

        *first* are the first names that it has had until now. A large folder is read to its end
        only if *is_whole*, or if it has none.
        """
        source = folder.source
        library = self._library
        with library.presence.asking(source) as asking:
            self._sealer.decide()
            now_ns = time.time_ns()
            state = library.state(source)
            found = library.kinds(source, None if is_whole else _FEW)
            if not found:
                asking.confirm()
            if len(found) >= _FEW and (
                not first or (found.keys().isdisjoint(first) and not is_whole)
            ):
                first = _first_of(found)
            if len(found) >= _FEW and not is_whole:
                if first:
                    return Names.of_first(state, now_ns, first)
                found = library.kinds(source)
        found |= dict.fromkeys(library.presence.missing_in(source))
        is_game = self._sealer.policy.is_game
        games = sorted(
            name
            for name, kind in found.items()
            if kind is not Type.FILE and is_game(join(folder.path, name))
        )
        games += library.beside(folder.path, games, found)
        archives = {archive_name(name, found.__contains__): name for name in games}
        return Names.of(state, now_ns, found.keys(), archives, first)

    def child(self, folder: Folder, name: bytes) -> Child | None:
        """What *name* in *folder* is, which was there a moment ago; a game is examined.

        None for a game on a disk that is gone: nothing new can be said of it.
        """
        source = join(folder.source, name)
        presence = self._library.presence
        try:
            with presence.asking(source) as asking:
                return self._child(folder, name, asking)
        except GoneError:
            presence.check(folder.source)  # it isn't the disk of the folder itself
            status = presence.last_seen(source)
            path = join(folder.path, name)
            if status is None or self._sealer.policy.is_game(path):
                return None
            return self._mirrored(path, Entry(source, status, folder.origins))

    def _child(self, folder: Folder, name: bytes, asking: Asking) -> Child:
        path = join(folder.path, name)
        source = join(folder.source, name)
        try:
            entry = self._library.entry(source, folder.origins)
        except TimeoutError:
            raise
        except OSError as error:
            asking.confirm(thoroughly=True)
            entry = LeftOut(source, f"can't be looked at: {error.strerror}")
        if entry is None:
            asking.confirm()
            return LeftOut(source, WENT_AWAY)
        if isinstance(entry, LeftOut):
            self._log_skipped(entry)
            return entry
        if not (entry.is_folder and self._sealer.policy.is_game(path)):
            return self._mirrored(path, entry)
        return Candidate(entry, self._examine(path, entry.place))

    def _mirrored(self, path: bytes, entry: Entry) -> File | Folder:
        if entry.is_folder:
            return folder_node(path, entry, self._dates.of_folder(path, entry.status))
        return self._file(path, entry)

    def _log_skipped(self, left_out: LeftOut) -> None:
        self._once.warning("%s is left out: %s", shown(left_out.path), left_out.reason)


def _first_of(found: Mapping[bytes, Type | None]) -> Collection[bytes]:
    """The first names of a folder that holds what is *found*.

    Files alone: what the archive of a game is called depends on all other names.
    """
    files = (name for name, kind in islice(found.items(), _FEW) if kind is Type.FILE)
    return tuple(islice(files, MOST_FIRST))


def is_in(folder: Folder, game: Game) -> bool:
    """Whether *game* is in *folder* as such, and not behind a link that may lead elsewhere."""
    source = join(folder.source, game.path.rpartition(b"/")[2])
    return game.place == (source, folder.origins)


def last_seen(place: Place, outcome: Plain) -> Entry:
    """The folder of a game that doesn't answer, as it was last known."""
    return Entry(place.source, outcome.status, place.origins)
