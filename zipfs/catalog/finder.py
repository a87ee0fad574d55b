"""What the library has at a path, games examined: all of it in worker threads."""

from __future__ import annotations

import errno
import logging
import os
from typing import NamedTuple

from zipfs.catalog.dates import Dates
from zipfs.catalog.game import Look
from zipfs.catalog.nodes import File, Folder, file_node, folder_node
from zipfs.catalog.reseal import Resealer
from zipfs.catalog.skipped import WENT_AWAY
from zipfs.errors import GoneError
from zipfs.library.filestate import FileState
from zipfs.library.presence import Asking
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

    def names(self, source: bytes) -> tuple[FileState, list[bytes]]:
        """A folder's state, and after that what is in it."""
        with self._library.presence.asking(source) as asking:
            self._sealer.decide()
            state, names = self._library.state(source), self._library.names(source)
            if not names:
                asking.confirm()
        if missing := self._library.presence.missing_in(source):
            names = sorted({*names, *missing})
        return state, names

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
        return file_node(path, self._library.file(b"", entry), entry.status)

    def _log_skipped(self, left_out: LeftOut) -> None:
        self._once.warning("%s is left out: %s", shown(left_out.path), left_out.reason)
