"""What the library has at a path, games examined: all of it in worker threads."""

from __future__ import annotations

import logging
from typing import NamedTuple

from zipfs.catalog.dates import Dates
from zipfs.catalog.game import Look
from zipfs.catalog.nodes import File, Folder, file_node, folder_node
from zipfs.catalog.reseal import Resealer
from zipfs.library.filestate import FileState
from zipfs.library.rules.general import folders_of
from zipfs.library.scan import Entry, LeftOut
from zipfs.logs import Once
from zipfs.sealing.sealer import Sealer
from zipfs.system.paths import join
from zipfs.text import shown

log = logging.getLogger(__name__)


class Candidate(NamedTuple):
    """A game, by its folder and what was seen of it."""

    entry: Entry
    look: Look


Child = File | Folder | LeftOut | Candidate


class Finder:
    """Looks into the library of *sealer*; *dates* are those of its folders."""

    def __init__(self, sealer: Sealer, resealer: Resealer, dates: Dates) -> None:
        self._sealer = sealer
        self._library = sealer.library
        self._examine = resealer.examine
        self._dates = dates
        self._once = Once(log)

    def find_and_examine(
        self, folder: Folder, name: bytes
    ) -> File | Folder | LeftOut | list[Candidate]:
        """The node *name* in *folder*, or the games that it may be the archive of, examined."""
        path = join(folder.path, name)
        policy = self._sealer.policy
        entry = self._library.entry(join(folder.source, name), folder.origins)
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
                found = self._library.entry(join(folder.source, base), folder.origins)
                if isinstance(found, Entry) and found.is_folder:
                    games.append((game, found))
        return [Candidate(entry, self._examine(game, entry.place)) for game, entry in games]

    def names(self, source: bytes) -> tuple[FileState, list[bytes]]:
        """A folder's state, and after that what is in it."""
        return self._library.state(source), self._library.names(source)

    def child(self, folder: Folder, name: bytes) -> Child:
        """What *name* in *folder* is, which was there a moment ago; a game is examined."""
        path = join(folder.path, name)
        source = join(folder.source, name)
        try:
            entry = self._library.entry(source, folder.origins)
        except TimeoutError:
            raise
        except OSError as error:
            entry = LeftOut(source, f"can't be looked at: {error.strerror}")
        if entry is None:
            return LeftOut(source, "went away meanwhile")
        if isinstance(entry, LeftOut):
            self._log_skipped(entry)
            return entry
        if not (entry.is_folder and self._sealer.policy.is_game(path)):
            return self._mirrored(path, entry)
        return Candidate(entry, self._examine(path, entry.place))

    def _mirrored(self, path: bytes, entry: Entry) -> File | Folder:
        if entry.is_folder:
            return folder_node(path, entry, self._dates.of_folder(path, entry.status))
        return file_node(path, entry)

    def _log_skipped(self, left_out: LeftOut) -> None:
        self._once.warning("%s is left out: %s", shown(left_out.path), left_out.reason)
